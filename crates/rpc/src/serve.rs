//! Connections: accepting, limits, graceful stop.

use crate::backend::Member;
use crate::dispatch::{Door, Port, Visitor};
use crate::pings::Policed;
use crate::plain::{Offer, Web};
use crate::secure::{Secured, Security, Socket};
use crate::services::Services;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Bytes that a message may have beyond `max-request-bytes` (etcd `grpcOverheadBytes`).
const OVERHEAD: usize = 512 * 1024;
/// How long open calls may take once a stop was asked for.
const STOP_TIMEOUT: Duration = Duration::from_secs(7);
/// … and when answers are on their way no longer: nothing was written for so long.
const QUIET: Duration = Duration::from_millis(300);
/// HTTP/2 windows, bytes: a stream's and a connection's.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes of a stream's answer that wait for the socket. A thread's other calls wait while they are written.
const SEND_BUFFER: usize = 128 << 10;
/// Header bytes a request may have (grpc-go's default).
const HEADERS_MAX: u32 = 16 << 20;
/// What grpc-go takes where etcd gives it no policy: between a client's pings, before a server's, and for its answer.
const PING_MIN_TIME: Duration = Duration::from_secs(5 * 60);
const PING_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Election timeouts without a leader that a stream bears (etcd `maxNoLeaderCnt`).
const NO_LEADER_MAX: u32 = 3;
/// Pause after a failed accept.
const ACCEPT_BREATH: Duration = Duration::from_millis(50);

/// Limits of the client port.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes; a message may have 512 KiB more.
    pub max_request_bytes: usize,
    pub max_concurrent_streams: u32,
    /// Clients that ping more often are told `too_many_pings` and disconnected. Zero: grpc-go's five minutes.
    pub keepalive_min_time: Duration,
    /// Server pings, and how long their answers may take. Either zero: grpc-go's two hours and twenty seconds.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// Unary calls that take longer are logged (`request stats`).
    pub slow_call: Duration,
    /// Streams that want a leader end after three of these without one.
    pub election_timeout: Duration,
}

impl Limits {
    pub(crate) fn max_message(&self) -> usize {
        self.max_request_bytes.saturating_add(OVERHEAD)
    }

    /// How long a stream that wants a leader goes on without.
    pub(crate) fn leaderless(&self) -> Duration {
        self.election_timeout * NO_LEADER_MAX
    }

    pub(crate) fn client_pings(&self) -> Duration {
        if self.keepalive_min_time.is_zero() { PING_MIN_TIME } else { self.keepalive_min_time }
    }

    fn server_pings(&self) -> (Duration, Duration) {
        match (self.keepalive_interval, self.keepalive_timeout) {
            (Duration::ZERO, _) | (_, Duration::ZERO) => (PING_INTERVAL, PING_TIMEOUT),
            both => both,
        }
    }
}

/// Where clients connect.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection on its way to the thread that will serve it. It holds its place among those allowed.
#[derive(Debug)]
pub struct Connection {
    pub(crate) stream: Stream,
    offer: Offer,
    pub(crate) security: Arc<Security>,
    pub(crate) slot: OwnedSemaphorePermit,
}

/// Not tied to a runtime yet.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(l) => {
                let (stream, _) = l.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream.into_std()?))
            }
            Listener::Unix(l) => Ok(Stream::Unix(l.accept().await?.0.into_std()?)),
        }
    }
}

/// Accepts connections for `offer`, at most `max_connections` at a time, and deals them out to `threads` in turn, until `stop`.
///
/// # Errors
/// The serving threads are gone.
pub async fn accept(
    listener: Listener,
    (offer, security): (Offer, Security),
    max_connections: usize,
    threads: &[mpsc::UnboundedSender<Connection>],
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let (slots, security) = (Arc::new(Semaphore::new(max_connections)), Arc::new(security));
    for thread in threads.iter().cycle() {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot.map_err(io::Error::other)?,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = loop {
            let stream = tokio::select! {
                stream = listener.accept() => stream,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            match stream {
                Ok(stream) => break stream,
                Err(e) => {
                    // Out of descriptors, or the client is gone already: go on after a breath.
                    tracing::warn!(error = %e, "failed to accept a client connection");
                    tokio::time::sleep(ACCEPT_BREATH).await;
                }
            }
        };
        let security = security.clone();
        thread.send(Connection { stream, offer, security, slot }).map_err(io::Error::other)?;
    }
    Ok(())
}

pub(crate) fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(300));
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(HEADERS_MAX)
        .max_pending_accept_reset_streams(1024)
        .max_send_buf_size(SEND_BUFFER);
    let (interval, timeout) = limits.server_pings();
    http2.keep_alive_interval(interval).keep_alive_timeout(timeout);
    builder
}

/// Serves `connections` until `stop` is true; then lets open calls end for a while and closes what is left.
pub async fn serve<M: Member>(
    mut connections: mpsc::UnboundedReceiver<Connection>,
    member: Arc<M>,
    limits: Limits,
    web: Arc<Web>,
    mut stop: watch::Receiver<bool>,
) {
    if web.extensive {
        crate::metrics::measure_latencies();
    }
    if web.traces {
        crate::debug::remember();
    }
    let graceful = GracefulShutdown::new();
    let (open, mut calls) = mpsc::channel::<()>(1);
    let written = Arc::new(AtomicU64::new(0));
    let port = Port { services: Services(member), limits, web, stop: stop.clone(), open: open.downgrade() };
    let (builders, pace) = (Arc::new(Builders::new(&limits)), tls::Pace::default());
    let server = Server { written: written.clone(), builders, port: Arc::new(port), pace };
    loop {
        let connection = tokio::select! {
            connection = connections.recv() => connection,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(Connection { stream, offer, security, slot }) = connection else { break };
        let watcher = graceful.watcher();
        let opened = match stream {
            Stream::Tcp(s) => TcpStream::from_std(s).map(|s| server.connect(s, (offer, security), watcher, slot)),
            Stream::Unix(s) => UnixStream::from_std(s).map(|s| server.connect(s, (offer, security), watcher, slot)),
        };
        if let Err(e) = opened {
            tracing::warn!(error = %e, "failed to serve a client connection");
        }
    }
    drop(connections);
    drop(open);
    let answered = async {
        // Nobody sends: the channel ends with the last open call.
        calls.recv().await;
        let mut before = u64::MAX;
        while std::mem::replace(&mut before, written.load(Ordering::Relaxed)) != before {
            tokio::time::sleep(QUIET).await;
        }
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = answered => {}
        () = tokio::time::sleep(STOP_TIMEOUT) => tracing::warn!("closing client connections whose calls did not end in time"),
    }
}

/// Serves one connection to its end.
///
/// # Errors
/// How the connection ended.
pub async fn serve_one<M, S>(stream: S, member: Arc<M>, limits: Limits) -> Result<(), String>
where
    M: Member,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (_running, stop) = watch::channel(false);
    let (open, _calls) = mpsc::channel::<()>(1);
    let web = Arc::default();
    let port = Port { services: Services(member), limits, web, stop, open: open.downgrade() };
    let stream = Policed::new(stream, limits.client_pings(), Arc::default());
    let door = Door { port: Arc::new(port), offer: Offer::All, visitor: Visitor::default() };
    let builder = builder(&limits);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), door);
    connection.into_owned().await.map_err(|e| e.to_string())
}

/// What every connection of a thread shares.
struct Server<M> {
    builders: Arc<Builders>,
    port: Arc<Port<M>>,
    /// Bytes to clients.
    written: Arc<AtomicU64>,
    /// Of handshakes.
    pace: tls::Pace,
}

impl<M> Clone for Server<M> {
    fn clone(&self) -> Server<M> {
        Server {
            builders: self.builders.clone(),
            port: self.port.clone(),
            written: self.written.clone(),
            pace: self.pace.clone(),
        }
    }
}

/// Of connections that speak what they like, gRPC alone, and HTTP alone: Go's servers then speak one version, too.
struct Builders {
    all: auto::Builder<TokioExecutor>,
    grpc: auto::Builder<TokioExecutor>,
    http: auto::Builder<TokioExecutor>,
}

impl Builders {
    fn new(limits: &Limits) -> Builders {
        Builders { all: builder(limits), grpc: builder(limits).http2_only(), http: builder(limits).http1_only() }
    }

    /// With TLS, HTTP alone may be HTTP/2, too.
    fn of(&self, offer: Offer, is_encrypted: bool) -> &auto::Builder<TokioExecutor> {
        match offer {
            Offer::All => &self.all,
            Offer::Grpc => &self.grpc,
            Offer::Http | Offer::Metrics if is_encrypted => &self.all,
            Offer::Http | Offer::Metrics => &self.http,
        }
    }
}

impl<M: Member> Server<M> {
    fn connect<S: Socket>(
        &self,
        stream: S,
        (offer, security): (Offer, Arc<Security>),
        watcher: Watcher,
        slot: OwnedSemaphorePermit,
    ) {
        if let Security::Plain = *security {
            // A future of its own: it has no room for a handshake.
            let visitor = Visitor::plain(&stream);
            tokio::spawn(self.clone().talk(stream, offer, visitor, watcher, slot));
            return;
        }
        let server = self.clone();
        tokio::spawn(async move {
            let mut stop = server.port.stop.clone();
            let secured = tokio::select! {
                secured = security.take(stream, &server.pace) => secured,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match secured {
                Some(Secured::Plain(stream)) => {
                    let visitor = Visitor::plain(&stream);
                    server.talk(stream, offer, visitor, watcher, slot).await;
                }
                Some(Secured::Tls(stream, visitor)) => server.talk(stream, offer, visitor, watcher, slot).await,
                None => {}
            }
        });
    }

    /// Serves a connection whose bytes can be read.
    async fn talk<S>(self, stream: S, offer: Offer, visitor: Visitor, watcher: Watcher, slot: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let min_time = self.port.limits.client_pings();
        let stream = match visitor.is_encrypted {
            // Go's etcd serves these by another stack, which polices nobody.
            true => Policed::at_leisure(stream, self.written),
            false => Policed::new(stream, min_time, self.written),
        };
        let builder = self.builders.of(offer, visitor.is_encrypted);
        let door = Door { port: self.port, offer, visitor };
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), door);
        if let Err(e) = watcher.watch(connection.into_owned()).await {
            tracing::debug!(error = %e, "client connection ended");
        }
        drop(slot);
    }
}
