//! What a listener's connections go through before requests are read: nothing, a TLS handshake, or whichever of both the
//! client has in mind. It happens on the thread that will serve the connection.

use crate::dispatch::Visitor;
use rustix::net::RecvFlags;
use std::io;
use std::sync::Arc;
use tls::{NamesOf, Pace, Rejected, Server, ServerStream, check_address};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

/// First byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;

/// How a listener's connections are secured.
#[derive(Clone)]
pub enum Security {
    Plain,
    Tls(Guard),
    /// Addresses that stand in an `http` URL and in an `https` one: the first byte tells.
    Either(Guard),
}

/// TLS, and what is asked of those who showed a certificate.
#[derive(Clone)]
pub struct Guard {
    pub server: Arc<Server>,
    /// Certificates stand for users (`--client-cert-auth`).
    pub names_users: bool,
    /// Certificates have to be for the address that they come from, where given.
    pub addresses: Option<NamesOf>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Security::Plain => "Plain",
            Security::Tls(_) => "Tls",
            Security::Either(_) => "Either",
        })
    }
}

/// A connection whose requests can be read.
pub(crate) enum Secured<S> {
    Plain(S),
    Tls(Box<ServerStream<S>>, Visitor),
}

/// What clients connect by.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {
    /// The first byte that came, which stays there; `None`: the client went away without one.
    fn peek(&self) -> impl Future<Output = io::Result<Option<u8>>> + Send;
    /// Where it comes from.
    fn remote(&self) -> Option<std::net::SocketAddr>;
    /// Where it came to.
    fn local(&self) -> Option<std::net::SocketAddr>;
}

impl Socket for TcpStream {
    async fn peek(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        Ok((TcpStream::peek(self, &mut first).await? > 0).then_some(first[0]))
    }

    fn remote(&self) -> Option<std::net::SocketAddr> {
        self.peer_addr().ok()
    }

    fn local(&self) -> Option<std::net::SocketAddr> {
        self.local_addr().ok()
    }
}

impl Socket for UnixStream {
    async fn peek(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let look = || Ok(rustix::net::recv(self, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0);
        Ok((self.async_io(Interest::READABLE, look).await? > 0).then_some(first[0]))
    }

    fn remote(&self) -> Option<std::net::SocketAddr> {
        None
    }

    fn local(&self) -> Option<std::net::SocketAddr> {
        None
    }
}

impl Security {
    /// Makes a connection readable; `None`: it was rejected, or is gone, and that is logged.
    pub(crate) async fn take<S: Socket>(&self, stream: S, pace: &Pace) -> Option<Secured<S>> {
        match self {
            Security::Plain => Some(Secured::Plain(stream)),
            Security::Tls(guard) => guard.take(stream, pace).await,
            Security::Either(guard) => match stream.peek().await {
                Ok(Some(HANDSHAKE)) => guard.take(stream, pace).await,
                Ok(Some(_)) => Some(Secured::Plain(stream)),
                Ok(None) | Err(_) => None,
            },
        }
    }
}

impl Guard {
    async fn take<S: Socket>(&self, stream: S, pace: &Pace) -> Option<Secured<S>> {
        let (remote, local) = (stream.remote(), stream.local());
        let outcome = match self.server.handshake(stream, pace).await {
            Ok(stream) => self.admit(&stream, remote).await.map(|visitor| (stream, Visitor { local, ..visitor })),
            Err(rejected) => Err(rejected),
        };
        match outcome {
            Ok((stream, visitor)) => Some(Secured::Tls(Box::new(stream), visitor)),
            Err(rejected) => {
                rejected.log("client", &remote.map_or_else(|| "@".to_owned(), |address| address.to_string()));
                None
            }
        }
    }

    async fn admit<S>(
        &self,
        stream: &ServerStream<S>,
        remote: Option<std::net::SocketAddr>,
    ) -> Result<Visitor, Rejected> {
        let names = tls::names_shown(stream);
        if let (Some(names_of), Some(names), Some(remote)) = (&self.addresses, &names, remote) {
            let verdict = check_address(names, remote.ip(), names_of).await;
            verdict.map_err(|error| Rejected::of(stream, error))?;
        }
        let common_name = names.filter(|_| self.names_users).map(|names| names.common_name);
        Ok(Visitor { is_encrypted: true, common_name, remote: remote.map(Arc::new), local: None })
    }
}
