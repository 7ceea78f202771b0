//! The server's side of a handshake.

use crate::live::Live;
use crate::paced::{Pace, SentAway};
use crate::verify::{Findings, Judge};
use crate::words::told;
use crate::x509::Names;
use rustls::ServerConfig;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

/// For a whole handshake (Go's etcd has the same).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a client that said nothing had to go.
const CROWD: &str = "closed for others to have room: too many connections have not begun a handshake";

/// An encrypted connection to a client.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// Takes connections by the newest files.
#[derive(Debug)]
pub struct Server {
    live: Arc<Live>,
    /// Application protocols, best first; none: whatever the client has in mind.
    protocols: Vec<Vec<u8>>,
}

/// A connection that did not come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// In Go's words.
    pub error: String,
    /// The name that the client asked for.
    pub server_name: String,
    /// Of the certificate that the client showed.
    pub names: Option<Names>,
    /// The client went away: nothing to worry about.
    pub left: bool,
}

impl Server {
    /// # Errors
    /// There is no certificate to show, or nobody to trust where certificates are demanded.
    pub fn new(live: Arc<Live>, protocols: &[&str]) -> Result<Server, String> {
        if live.settings().is_empty() {
            return Err("KeyFile and CertFile are not presented".into());
        }
        let protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let server = Server { live, protocols };
        server.config(&Arc::default())?;
        Ok(server)
    }

    fn config(&self, findings: &Arc<Findings>) -> Result<Arc<ServerConfig>, String> {
        let (settings, provider) = (self.live.settings(), self.live.provider());
        let material = self.live.material();
        let serving = material.serving.clone().ok_or("KeyFile and CertFile are not presented")?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&settings.versions())
            .map_err(|e| e.to_string())?;
        let builder = if settings.demands_certificates() {
            let judge = Judge {
                settings: settings.clone(),
                anchors: Some(self.live.anchors(&material)?),
                material,
                algorithms: provider.signature_verification_algorithms,
                findings: findings.clone(),
            };
            builder.with_client_cert_verifier(Arc::new(judge))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(serving)));
        config.alpn_protocols.clone_from(&self.protocols);
        // A session that is resumed would pass by who has been revoked, or taken off a list, since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Shakes hands, at most 10 s long. A silent client costs nothing but its connection; the arithmetic is done at a
    /// thread's `pace`.
    ///
    /// # Errors
    /// No hands were shaken. The client has been sent an alert.
    pub async fn handshake<S>(&self, stream: S, pace: &Pace) -> Result<ServerStream<S>, Rejected>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut server_name = String::new();
        let findings = Arc::<Findings>::default();
        let shaking = self.shake(stream, pace, &mut server_name, &findings);
        let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
        timeout(HANDSHAKE_TIMEOUT, shaking).await.unwrap_or_else(late).map_err(|e| {
            let found = findings.take();
            let left = found.refusal.is_none() && e.kind() == io::ErrorKind::UnexpectedEof;
            let names = found.shown.map(|shown| shown.names);
            Rejected { error: found.refusal.unwrap_or_else(|| told(&e)), server_name, names, left }
        })
    }

    async fn shake<S>(
        &self,
        stream: S,
        pace: &Pace,
        server_name: &mut String,
        findings: &Arc<Findings>,
    ) -> io::Result<ServerStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let first = pace.await_first(LazyConfigAcceptor::new(Acceptor::default(), stream)).await;
        let begun: StartHandshake<S> = first.map_err(|SentAway| io::Error::other(CROWD))??;
        *server_name = begun.client_hello().server_name().unwrap_or_default().to_owned();
        let config = self.config(findings).map_err(io::Error::other)?;
        pace.run(begun.into_stream(config)).await
    }
}

/// Whose certificate a client showed, verified; `None`: it showed none.
pub fn names_shown<S>(stream: &ServerStream<S>) -> Option<Names> {
    let leaf = stream.get_ref().1.peer_certificates()?.first()?;
    // It was read when it was verified.
    crate::x509::look(leaf).ok().map(|seen| seen.names)
}

impl std::fmt::Display for Rejected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}
impl std::error::Error for Rejected {}

impl Rejected {
    /// Of a client with whom hands were shaken.
    pub fn of<S>(stream: &ServerStream<S>, error: String) -> Rejected {
        let server_name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
        Rejected { error, server_name, names: names_shown(stream), left: false }
    }

    /// Logs it as etcd does; `endpoint` is `client` or `peer`.
    pub fn log(&self, endpoint: &str, remote: &str) {
        let Rejected { error, server_name, names, left } = self;
        let (error, server_name) = (error.as_str(), server_name.as_str());
        macro_rules! rejected {
            ($level:ident, $text:literal) => {
                match names {
                    Some(names) => tracing::$level!(
                        "remote-addr" = remote,
                        "server-name" = server_name,
                        "ip-addresses" = ?names.ips,
                        "dns-names" = ?names.dns,
                        error,
                        $text
                    ),
                    None => tracing::$level!("remote-addr" = remote, "server-name" = server_name, error, $text),
                }
            };
        }
        match (endpoint, left) {
            ("peer", false) => rejected!(warn, "rejected connection on peer endpoint"),
            ("peer", true) => rejected!(debug, "rejected connection on peer endpoint"),
            (_, false) => rejected!(warn, "rejected connection on client endpoint"),
            (_, true) => rejected!(debug, "rejected connection on client endpoint"),
        }
    }
}
