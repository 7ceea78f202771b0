//! One connection: dialled here, so that addresses and failures can be told as Go's client tells them, then handed to
//! tonic. A connection that broke is never mended behind our back; the pool dials anew.

use crate::config::{Address, Config};
use hyper_util::rt::TokioIo;
use std::future::{Ready, ready};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};

/// gRPC raises shorter intervals between pings to this, because servers punish more.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);
/// Receive windows: a large answer must not wait for window updates at each 64 KiB.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// What gRPC puts before a failure to connect.
const DIALING: &str = "Error while dialing: ";

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

type Io = TokioIo<Box<dyn Bytes>>;

/// An established connection.
#[derive(Debug)]
pub struct Link {
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

/// Connects, with TLS where `secure` is given.
///
/// # Errors
/// Go's text of the failure, as gRPC wraps it.
pub async fn dial(address: &Address, config: &Config, secure: Option<&tls::Client>) -> Result<Link, String> {
    let connect = open(address, secure);
    let (io, peer, local) = match tokio::time::timeout(config.dial_timeout, connect).await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(format!("{DIALING}{}: i/o timeout", dial_text(address))),
    };
    let uri = match address {
        Address::Tcp(host) => format!("http://{host}"),
        _ => "http://localhost".to_owned(),
    };
    let mut endpoint = Endpoint::from_shared(uri)
        .map_err(|e| format!("{DIALING}{}: {e}", dial_text(address)))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if let Some(interval) = config.keepalive_time {
        endpoint = endpoint
            .http2_keep_alive_interval(interval.max(KEEPALIVE_MIN))
            .keep_alive_timeout(config.keepalive_timeout)
            .keep_alive_while_idle(false);
    }
    let channel = endpoint.connect_with_connector(Once(Some(io))).await.map_err(|e| e.to_string())?;
    Ok(Link { channel, peer, local, lost: AtomicBool::new(false) })
}

async fn open(address: &Address, secure: Option<&tls::Client>) -> Result<(Io, String, String), String> {
    let failed = |e: io::Error| format!("{DIALING}{}: {}", dial_text(address), go_text(&e));
    match address {
        Address::Tcp(host) => {
            let stream = TcpStream::connect(host.as_str()).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            let name = |a: io::Result<std::net::SocketAddr>| a.map(|a| a.to_string()).unwrap_or_default();
            let (peer, local) = (name(stream.peer_addr()), name(stream.local_addr()));
            Ok((secured(stream, address, secure).await?, peer, local))
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            Ok((secured(stream, address, secure).await?, path.clone(), "@".into()))
        }
    }
}

async fn secured<S>(stream: S, address: &Address, secure: Option<&tls::Client>) -> Result<Io, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(secure) = secure else { return Ok(TokioIo::new(Box::new(stream))) };
    match secure.connect(address.server_name(), stream).await {
        Ok(stream) => Ok(TokioIo::new(Box::new(stream))),
        Err(why) => Err(format!("authentication handshake failed: {why}")),
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
