//! The client's side of a handshake.

use crate::live::Live;
use crate::verify::{Findings, Found, Judge};
use crate::words::{of_alert, told};
use crate::x509::{Shown, look};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

/// Makes connections by the newest files.
#[derive(Debug)]
pub struct Client {
    live: Arc<Live>,
    protocols: Vec<Vec<u8>>,
}

impl Client {
    /// # Errors
    /// There is nobody to trust.
    pub fn new(live: Arc<Live>, protocols: &[&str]) -> Result<Client, String> {
        let protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let client = Client { live, protocols };
        client.config(&Arc::default())?;
        Ok(client)
    }

    fn config(&self, findings: &Arc<Findings>) -> Result<Arc<ClientConfig>, String> {
        let (settings, provider) = (self.live.settings(), self.live.provider());
        let material = self.live.material();
        let showing = material.showing.clone();
        let judge = Judge {
            settings: settings.clone(),
            anchors: if settings.skip_verify { None } else { Some(self.live.anchors(&material)?) },
            material,
            algorithms: provider.signature_verification_algorithms,
            findings: findings.clone(),
        };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&settings.versions())
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge));
        let mut config = match showing {
            Some(showing) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(showing))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.protocols);
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Shakes hands with who has to be `host`: a name or an address, without brackets or port.
    ///
    /// # Errors
    /// In Go's words.
    pub async fn connect<S>(&self, host: &str, stream: S) -> Result<ClientStream<S>, String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.shake(host, stream).await.map_err(|failed| failed.text)
    }

    /// The same; a failure tells what was found, too, for whoever explains it.
    ///
    /// # Errors
    /// In Go's words, and as a value.
    pub async fn shake<S>(&self, host: &str, stream: S) -> Result<ClientStream<S>, Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let settings = self.live.settings();
        let host = settings.server_name.as_deref().unwrap_or(host);
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            // Nobody asks for it, and nobody is told.
            Err(_) if settings.skip_verify => ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Err(_) => {
                return Err(Failed::plain(format!("x509: no certificate can be valid for {}", go::quote(host))));
            }
        };
        let findings = Arc::<Findings>::default();
        let connector = TlsConnector::from(self.config(&findings).map_err(Failed::plain)?);
        let connected = connector.connect(name, stream).await;
        connected.map(ClientStream).map_err(|e| Failed::of(&e, findings.take()))
    }
}

/// A handshake that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In Go's words.
    pub text: String,
    pub reason: Reason,
    /// The certificate that the server showed.
    pub shown: Option<Shown>,
}

/// What ended a handshake, as far as there is a cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The other side answered, and not in TLS.
    NotTls,
    /// The other side went without a word.
    Closed,
    /// Nobody who is trusted signed the certificate.
    UnknownAuthority,
    /// The certificate's time is over, or has not come.
    OutOfTime,
    /// The certificate is somebody else's.
    WrongName,
    /// The other side refused; the alert in Go's words.
    Alert(String),
    /// All else.
    Other,
}

impl Failed {
    fn plain(text: String) -> Failed {
        Failed { text, reason: Reason::Other, shown: None }
    }

    fn of(e: &io::Error, found: Found) -> Failed {
        let reason = match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => Reason::of(error),
            None if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Reason::Closed,
            None => Reason::Other,
        };
        Failed { text: found.refusal.unwrap_or_else(|| told(e)), reason, shown: found.shown }
    }
}

impl Reason {
    fn of(error: &rustls::Error) -> Reason {
        use rustls::{CertificateError as C, Error as E};
        match error {
            E::InvalidMessage(_) => Reason::NotTls,
            E::AlertReceived(alert) => Reason::Alert(of_alert(*alert)),
            E::InvalidCertificate(C::UnknownIssuer) => Reason::UnknownAuthority,
            E::InvalidCertificate(
                C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. },
            ) => Reason::OutOfTime,
            E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => Reason::WrongName,
            _ => Reason::Other,
        }
    }
}

/// An encrypted connection to a server. Whether a server takes our certificate is seen in the first read only (TLS 1.3), so
/// its failures are told in Go's words, too.
#[derive(Debug)]
pub struct ClientStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S> ClientStream<S> {
    /// The server's own certificate.
    pub fn shown(&self) -> Option<Shown> {
        let leaf = self.0.get_ref().1.peer_certificates()?.first()?;
        // It was read when it was verified.
        look(leaf).ok().map(|seen| seen.shown())
    }
}

fn in_words<T>(outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    outcome.map_err(|e| match e.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        true => io::Error::new(e.kind(), told(&e)),
        false => e,
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        in_words(Pin::new(&mut self.0).poll_read(cx, buffer))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        in_words(Pin::new(&mut self.0).poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        in_words(Pin::new(&mut self.0).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        in_words(Pin::new(&mut self.0).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        in_words(Pin::new(&mut self.0).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
