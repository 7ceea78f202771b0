//! Connections: accepting, limits, graceful stop.

use crate::backend::Member;
use crate::dispatch::{Door, Port};
use crate::pings::Policed;
use crate::plain::{Offer, Web};
use crate::services::Services;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
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

    fn client_pings(&self) -> Duration {
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
    stream: Stream,
    offer: Offer,
    slot: OwnedSemaphorePermit,
}

/// Not tied to a runtime yet.
#[derive(Debug)]
enum Stream {
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
    offer: Offer,
    max_connections: usize,
    threads: &[mpsc::UnboundedSender<Connection>],
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(max_connections));
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
        thread.send(Connection { stream, offer, slot }).map_err(io::Error::other)?;
    }
    Ok(())
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
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
    let graceful = GracefulShutdown::new();
    let (open, mut calls) = mpsc::channel::<()>(1);
    let written = Arc::new(AtomicU64::new(0));
    let port = Port { services: Services(member), limits, web, stop: stop.clone(), open: open.downgrade() };
    let server = Server { written: written.clone(), builders: Builders::new(&limits), port: Arc::new(port) };
    loop {
        let connection = tokio::select! {
            connection = connections.recv() => connection,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(Connection { stream, offer, slot }) = connection else { break };
        let opened = match stream {
            Stream::Tcp(s) => TcpStream::from_std(s).map(|s| server.connect(s, offer, &graceful, slot)),
            Stream::Unix(s) => UnixStream::from_std(s).map(|s| server.connect(s, offer, &graceful, slot)),
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
    let (builder, door) = (builder(&limits), Door { port: Arc::new(port), offer: Offer::All });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), door);
    connection.into_owned().await.map_err(|e| e.to_string())
}

/// What every connection of a thread shares.
struct Server<M> {
    builders: Builders,
    port: Arc<Port<M>>,
    /// Bytes to clients.
    written: Arc<AtomicU64>,
}

/// Of connections that speak what they like, gRPC alone, and HTTP alone: Go's servers then speak one version, too.
struct Builders {
    all: Arc<auto::Builder<TokioExecutor>>,
    grpc: Arc<auto::Builder<TokioExecutor>>,
    http: Arc<auto::Builder<TokioExecutor>>,
}

impl Builders {
    fn new(limits: &Limits) -> Builders {
        let all = Arc::new(builder(limits));
        Builders { all, grpc: Arc::new(builder(limits).http2_only()), http: Arc::new(builder(limits).http1_only()) }
    }

    fn of(&self, offer: Offer) -> Arc<auto::Builder<TokioExecutor>> {
        match offer {
            Offer::All => self.all.clone(),
            Offer::Grpc => self.grpc.clone(),
            Offer::Http | Offer::Metrics => self.http.clone(),
        }
    }
}

impl<M: Member> Server<M> {
    fn connect<S>(&self, stream: S, offer: Offer, graceful: &GracefulShutdown, slot: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (builder, door) = (self.builders.of(offer), Door { port: self.port.clone(), offer });
        let stream = Policed::new(stream, self.port.limits.client_pings(), self.written.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), door);
            if let Err(e) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(error = %e, "client connection ended");
            }
            drop(slot);
        });
    }
}
