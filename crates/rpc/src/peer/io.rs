//! Connections: how they are made, and the deadline that ends a silent one.
//!
//! etcd gives each connection of the peer port, and of streams, 5 s for every read and every write (`rafthttp/peer.go`
//! `ConnReadTimeout`). Streams stay alive by link heartbeats; a connection kept for later dies of it, and so does one
//! whose other end went away without a word.

use super::url::{Scheme, Url};
use rustix::net::sockopt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

/// How long a read or a write may wait (etcd `DefaultConnReadTimeout`, `DefaultConnWriteTimeout`).
pub(crate) const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time before the kernel asks whether the other end is alive, and between its questions.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Anything that carries bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

pub type BoxedIo = Box<dyn Io>;

/// A connection on its way.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxedIo>> + Send>>;

/// Makes connections to peers.
pub trait Connector: Send + Sync + 'static {
    fn connect(&self, url: &Url) -> Connecting;
}

/// What an accepted connection goes through before requests are read: nothing, or a TLS handshake. A refusal is an error.
pub trait Acceptor: Send + Sync + 'static {
    fn accept(&self, raw: BoxedIo, remote: Option<std::net::SocketAddr>) -> Connecting;
}

/// No TLS.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Connector for Plain {
    /// Names are resolved anew each time.
    fn connect(&self, url: &Url) -> Connecting {
        plain(url, None)
    }
}

/// As [`Plain`], from an address of this host, where given.
pub(crate) fn plain(url: &Url, from: Option<IpAddr>) -> Connecting {
    let url = url.clone();
    Box::pin(async move {
        match url.scheme {
            Scheme::Http => tcp(&url, from).await.map(|s| Box::new(s) as BoxedIo),
            Scheme::Unix => UnixStream::connect(&url.host).await.map(|s| Box::new(s) as BoxedIo),
            Scheme::Https | Scheme::Unixs => Err(io::Error::other("TLS is not configured for peers")),
        }
    })
}

impl Acceptor for Plain {
    fn accept(&self, raw: BoxedIo, _: Option<std::net::SocketAddr>) -> Connecting {
        Box::pin(std::future::ready(Ok(raw)))
    }
}

/// A TCP connection to a URL, set up as peers' connections are, from an address of this host, where given.
///
/// # Errors
/// No such address, nobody there, or `from` is not this host's or of another kind than the peer's addresses.
pub(crate) async fn tcp(url: &Url, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let address = url.address().ok_or_else(|| io::Error::other("no host:port"))?;
    let stream = match from {
        None => TcpStream::connect(address).await?,
        Some(from) => connect_from(from, address).await?,
    };
    set_up(&stream)?;
    Ok(stream)
}

/// To the first address that takes the connection, of those that `from` can reach at all.
async fn connect_from(from: IpAddr, address: (&str, u16)) -> io::Result<TcpStream> {
    let mut failed = io::Error::other(format!("{} has no address of the same kind as {from}", address.0));
    for to in tokio::net::lookup_host(address).await?.filter(|to| to.is_ipv4() == from.is_ipv4()) {
        let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(from, 0))?;
        match socket.connect(to).await {
            Ok(stream) => return Ok(stream),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

pub(crate) fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    Ok(())
}

/// Whether it is our turn, so that nothing is to be expected from the other side: shared by a connection and what
/// answers its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// The request is read. Our turn ends when the result is dropped.
    pub fn ours(&self) -> OurTurn {
        self.0.store(true, Ordering::Relaxed);
        OurTurn(self.clone())
    }

    fn is_ours(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes with the response, to its last byte.
#[derive(Debug)]
pub(crate) struct OurTurn(Turn);

impl Drop for OurTurn {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// A connection on which a wait for bytes, or for room, fails after a while.
pub(crate) struct Timed {
    io: BoxedIo,
    turn: Turn,
    reading: Deadline,
    writing: Deadline,
}

impl Timed {
    /// `None`: waits for ever. Reads also do while it is our turn.
    pub fn new(io: BoxedIo, turn: Turn, read: Option<Duration>, write: Option<Duration>) -> Timed {
        Timed { io, turn, reading: Deadline::new(read), writing: Deadline::new(write) }
    }
}

/// Renewed by progress. The timer is set again only when it has run out: progress costs nothing.
struct Deadline {
    timeout: Option<Duration>,
    /// While something is waited for.
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Deadline {
        Deadline { timeout, at: None, sleep: None }
    }

    fn progress(&mut self) {
        self.at = None;
    }

    /// Nothing happened; ready when that has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(timeout) = self.timeout else { return Poll::Pending };
        let at = *self.at.get_or_insert_with(|| Instant::now() + timeout);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        while sleep.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout"));
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }

    /// The outcome of an operation, or the timeout instead of a wait.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.progress();
            return outcome;
        }
        self.poll(cx).map(Err)
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_read(cx, buffer);
        if self.turn.is_ours() {
            self.reading.progress();
            return outcome;
        }
        self.reading.watch(outcome, cx)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.writing.watch(outcome, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.writing.watch(outcome, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.writing.watch(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.writing.watch(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SECOND: Duration = Duration::from_secs(1);

    fn timed(capacity: usize) -> (Timed, tokio::io::DuplexStream, Turn) {
        let (ours, theirs) = tokio::io::duplex(capacity);
        let turn = Turn::default();
        (Timed::new(Box::new(ours), turn.clone(), Some(IO_TIMEOUT), Some(IO_TIMEOUT)), theirs, turn)
    }

    #[tokio::test(start_paused = true)]
    async fn reads_fail_after_five_silent_seconds() {
        let (mut timed, mut other, _) = timed(8);
        for _ in 0..3 {
            other.write_all(b"x").await.unwrap();
            assert_eq!(timed.read_u8().await.unwrap(), b'x');
            tokio::time::sleep(4 * SECOND).await;
        }
        let begin = Instant::now();
        assert_eq!(timed.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_not_read_from_is_given_up() {
        let (mut timed, other, _) = timed(8);
        assert_eq!(timed.write_all(&[0; 9]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(other);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_fault_while_it_is_our_turn() {
        let (mut timed, mut other, turn) = timed(8);
        let ours = turn.ours();
        let waited = tokio::time::timeout(60 * SECOND, timed.read_u8()).await;
        assert!(waited.is_err());
        drop(ours);
        other.write_all(b"x").await.unwrap();
        assert_eq!(timed.read_u8().await.unwrap(), b'x');
        assert_eq!(timed.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
