//! TLS between members. HTTP/1 only, so no application protocol is agreed on: a peer that was offered h2 would speak it.

use super::io::{Acceptor, BoxedIo, Connecting, Connector, plain, tcp};
use super::url::{Scheme, Url};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use tls::{Client, Live, NamesOf, Pace, Rejected, Server, check_address};
use tokio::net::UnixStream;

/// Connects by a URL's scheme, with TLS or without.
#[derive(Debug)]
pub struct Dial(Arc<Lazy>);

#[derive(Debug)]
struct Lazy {
    live: Arc<Live>,
    /// The address that connections come from.
    from: Option<IpAddr>,
    /// Made for the first encrypted URL: whom the operating system trusts is many files.
    client: OnceLock<Result<Client, String>>,
}

impl Dial {
    /// Peers see connections from `from`, where given, else from wherever the way to them begins.
    pub fn new(live: Arc<Live>, from: Option<IpAddr>) -> Dial {
        Dial(Arc::new(Lazy { live, from, client: OnceLock::new() }))
    }
}

impl Connector for Dial {
    fn connect(&self, url: &Url) -> Connecting {
        if !url.scheme.is_tls() {
            return plain(url, self.0.from);
        }
        let (url, lazy) = (url.clone(), self.0.clone());
        Box::pin(async move {
            let client = lazy.client.get_or_init(|| Client::new(lazy.live.clone(), &[]));
            let client = client.as_ref().map_err(|why| io::Error::other(why.clone()))?;
            let raw: BoxedIo = match url.scheme {
                Scheme::Unix | Scheme::Unixs => Box::new(UnixStream::connect(&url.host).await?),
                Scheme::Http | Scheme::Https => Box::new(tcp(&url, lazy.from).await?),
            };
            // A socket file's name may have a port, too.
            let host = url.address().map_or(url.host.as_str(), |(host, _)| host);
            let stream = client.connect(host, raw).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as BoxedIo)
        })
    }
}

/// Takes peers' connections with TLS.
pub struct Gate(Arc<Inner>);

struct Inner {
    server: Server,
    /// Certificates have to be for the address that they come from, where given.
    addresses: Option<NamesOf>,
    pace: Pace,
}

impl Gate {
    /// # Errors
    /// There is no certificate to show, or nobody to trust.
    pub fn new(live: Arc<Live>, addresses: Option<NamesOf>) -> Result<Gate, String> {
        let server = Server::new(live, &[])?;
        Ok(Gate(Arc::new(Inner { server, addresses, pace: Pace::default() })))
    }
}

impl Acceptor for Gate {
    fn accept(&self, raw: BoxedIo, remote: Option<SocketAddr>) -> Connecting {
        let inner = self.0.clone();
        Box::pin(async move {
            let stream = inner.server.handshake(raw, &inner.pace).await.map_err(io::Error::other)?;
            let shown = inner.addresses.as_ref().zip(tls::names_shown(&stream)).zip(remote);
            if let Some(((names_of, names), remote)) = shown {
                let verdict = check_address(&names, remote.ip(), names_of).await;
                verdict.map_err(|error| io::Error::other(Rejected::of(&stream, error)))?;
            }
            Ok(Box::new(stream) as BoxedIo)
        })
    }
}
