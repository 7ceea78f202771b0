//! One connection: dialled here, so that addresses and failures can be told as Go's client tells them, then handed to
//! tonic. A connection that broke is never mended behind our back; the pool dials anew.
//!
//! A connection counts as up once the server's first bytes, its HTTP/2 preface, are here, as in grpc-go: before that nobody
//! knows that a server takes our certificate (TLS 1.3), or that somebody is at home behind an open port.

use crate::cause::Cause;
use crate::config::{Address, Config};
use hyper_util::rt::TokioIo;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint, Uri};

/// gRPC raises shorter intervals between pings to this, because servers punish more.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);
/// Receive windows: a large answer must not wait for window updates at each 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// What gRPC puts before a failure to connect, and before one after it.
const DIALING: &str = "transport: Error while dialing: ";
const NO_PREFACE: &str = "error reading server preface: ";

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

type Io = TokioIo<Heard>;

/// A connection that tells once whether the server spoke, or how reading failed.
struct Heard {
    inner: Box<dyn Bytes>,
    first: Option<oneshot::Sender<Result<Option<Cause>, String>>>,
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Undialled {
    /// Go's text, as gRPC wraps it.
    pub text: String,
    pub cause: Cause,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let heard = match &outcome {
            Poll::Pending => return outcome,
            Poll::Ready(Ok(())) if buffer.filled().len() == before => Err("EOF".to_owned()),
            Poll::Ready(Ok(())) => Ok(Cause::of_first_bytes(&buffer.filled()[before..])),
            Poll::Ready(Err(e)) => Err(tls::told(e)),
        };
        if let Some(first) = self.first.take() {
            // Nobody waits any more: the attempt took too long.
            let _ = first.send(heard);
        }
        outcome
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// An established connection.
#[derive(Debug)]
pub struct Link {
    /// As the configuration names it.
    pub endpoint: String,
    pub channel: Channel,
    pub peer: String,
    pub local: String,
    lost: AtomicBool,
}

impl Link {
    /// Marks the connection as broken: the pool will not give it out again.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Connects, with TLS where `secure` is given, and waits for the server's first word.
///
/// # Errors
/// Go's text of the failure, as gRPC wraps it, and what was found.
pub async fn dial(name: &str, config: &Config, secure: Option<&tls::Client>) -> Result<Link, Undialled> {
    let (address, end) = (&Address::parse(name), tokio::time::Instant::now() + config.dial_timeout);
    let connect = open(address, secure);
    let (stream, peer, local) = match tokio::time::timeout_at(end, connect).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            let text = format!("{DIALING}{}: i/o timeout", dial_text(address));
            return Err(Undialled { text, cause: Cause::DialTimeout(config.dial_timeout) });
        }
    };
    let (first, heard) = oneshot::channel();
    let io = TokioIo::new(Heard { inner: stream, first: Some(first) });
    let other = |text: String| Undialled { cause: Cause::Other(text.clone()), text };
    let connected = endpoint(address, config).map_err(other)?.connect_with_connector(Once(Some(io))).await;
    let channel = connected.map_err(|e| other(e.to_string()))?;
    let lacking = match tokio::time::timeout_at(end, heard).await {
        Ok(Ok(Ok(None))) => {
            let endpoint = name.to_owned();
            return Ok(Link { endpoint, channel, peer, local, lost: AtomicBool::new(false) });
        }
        // An alert of TLS is shorter than the head of a frame.
        Ok(Ok(Ok(Some(Cause::SpeaksTls)))) => (format!("{NO_PREFACE}unexpected EOF"), Cause::SpeaksTls),
        Ok(Ok(Ok(Some(cause)))) => (format!("{NO_PREFACE}http2: frame too large"), cause),
        Ok(Ok(Err(why))) => (format!("{NO_PREFACE}{why}"), Cause::of_silence(&why)),
        // The connection was given up before it was read from, since writing failed.
        Ok(Err(_)) => (format!("{NO_PREFACE}write: broken pipe"), Cause::Closed),
        Err(_) => {
            let waited = go::format_duration(config.dial_timeout);
            let text = format!("{NO_PREFACE}read {local}->{peer}: no answer within {waited}");
            (text, Cause::Mute(config.dial_timeout))
        }
    };
    Err(Undialled { text: lacking.0, cause: lacking.1 })
}

fn endpoint(address: &Address, config: &Config) -> Result<Endpoint, String> {
    let uri = match address {
        Address::Tcp(host) => format!("http://{}", Address::dialled(host)),
        Address::Unix(_) => "http://localhost".to_owned(),
    };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|e| format!("{DIALING}{}: {e}", dial_text(address)))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(match config.keepalive_time {
        Some(interval) => endpoint
            .http2_keep_alive_interval(interval.max(KEEPALIVE_MIN))
            .keep_alive_timeout(config.keepalive_timeout)
            .keep_alive_while_idle(config.keepalive_idle),
        None => endpoint,
    })
}

async fn open(address: &Address, secure: Option<&tls::Client>) -> Result<(Box<dyn Bytes>, String, String), Undialled> {
    let failed = |cause: Cause, e: &io::Error| Undialled {
        text: format!("{DIALING}{}: {}", dial_text(address), go_text(e)),
        cause,
    };
    let unconnected = |e: io::Error| failed(Cause::of_connect(&e), &e);
    match address {
        Address::Tcp(host) => {
            let host = Address::dialled(host);
            let found = tokio::net::lookup_host(host.as_ref()).await;
            let found: Vec<_> = found.map_err(|e| failed(Cause::Unresolved(e.to_string()), &e))?.collect();
            let stream = TcpStream::connect(&found[..]).await.map_err(unconnected)?;
            stream.set_nodelay(true).map_err(unconnected)?;
            let name = |a: io::Result<std::net::SocketAddr>| a.map(|a| a.to_string()).unwrap_or_default();
            let (peer, local) = (name(stream.peer_addr()), name(stream.local_addr()));
            Ok((secured(stream, address, secure).await?, peer, local))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unconnected)?;
            Ok((secured(stream, address, secure).await?, path.clone(), "@".into()))
        }
    }
}

async fn secured<S>(stream: S, address: &Address, secure: Option<&tls::Client>) -> Result<Box<dyn Bytes>, Undialled>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(secure) = secure else { return Ok(Box::new(stream)) };
    match secure.shake(address.server_name(), stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(failed) => {
            let text = format!("transport: authentication handshake failed: {}", failed.text);
            Err(Undialled { text, cause: Cause::of_handshake(address.server_name(), failed) })
        }
    }
}

fn dial_text(address: &Address) -> String {
    match address {
        Address::Tcp(host) => format!("dial tcp {host}"),
        Address::Unix(path) => format!("dial unix {path}"),
    }
}

/// `connect: connection refused` and the like.
fn go_text(e: &io::Error) -> String {
    let text = match e.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused",
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer",
        io::ErrorKind::HostUnreachable => "connect: no route to host",
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
        io::ErrorKind::TimedOut => "connect: connection timed out",
        io::ErrorKind::NotFound => "connect: no such file or directory",
        io::ErrorKind::PermissionDenied => "connect: permission denied",
        _ => return e.to_string(),
    };
    text.to_owned()
}

/// Hands out the one connection that is there already.
struct Once(Option<Io>);

impl tower_service::Service<Uri> for Once {
    type Response = Io;
    type Error = io::Error;
    type Future = Ready<Result<Io, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| io::ErrorKind::ConnectionAborted.into()))
    }
}
