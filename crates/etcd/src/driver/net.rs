//! Sockets of the member: listening, the threads that serve connections, signals.

use super::door::Door;
use super::post::{self, Deliveries, Home};
use crate::config::{Config, Url};
use rpc::{Limits, Listener, Offer, Web, peer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use server::Fatal;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, UnixListener};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// Descriptors kept for files and peers (etcd `reservedInternalFDNum`).
const RESERVED_DESCRIPTORS: u64 = 150;
/// Connections that the kernel may hold until they are accepted.
const BACKLOG: u32 = 4096;
/// More network threads than that would only take time from the core.
const NETWORK_THREADS_MAX: usize = 4;

/// Bytes a second of a database image to a peer: a gigabyte in 10 s, and half of a fast disk's time left to others.
const SNAPSHOT_RATE: u64 = 100 << 20;

/// Listening sockets and the runtime they are registered with.
pub struct Listeners {
    runtime: Runtime,
    listeners: Vec<(String, Offer, Listener)>,
    sockets: Vec<PathBuf>,
}

/// How many client connections each listener may have: what the limit of descriptors leaves. Raises the soft limit to
/// the hard one first, as Go's runtime does.
///
/// # Errors
/// The limit leaves none.
pub fn connections_allowed() -> Result<usize, Fatal> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(e) = setrlimit(Resource::Nofile, raised) {
        warn!(error = %e, "failed to raise the soft limit of file descriptors");
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    match descriptors.checked_sub(RESERVED_DESCRIPTORS) {
        None | Some(0) => Err(Fatal::new(format!(
            "file descriptor limit of etcd process is too low; please set higher (it is {descriptors}, more than \
             {RESERVED_DESCRIPTORS} are needed: see ulimit -n)"
        ))),
        Some(left) => Ok(usize::try_from(left).unwrap_or(usize::MAX).min(tokio::sync::Semaphore::MAX_PERMITS)),
    }
}

/// Binds all client URLs. Done before the member is opened: an address in use must not touch its files.
///
/// # Errors
/// The address that can't be bound, in Go's words.
pub fn bind_all(config: &Config) -> Result<Listeners, Fatal> {
    let runtime = single_threaded().map_err(|e| Fatal::new(format!("cannot start the network: {e}")))?;
    let _entered = runtime.enter();
    let mut listeners = Vec::new();
    let mut sockets = Vec::new();
    for (url, offer) in client_addresses(config) {
        let (address, listener) = match url.socket_path() {
            Some(path) => {
                let listener = bind_unix(&path).map_err(|e| bind_failed("unix", &path, &e))?;
                sockets.push(path.clone().into());
                (path, Listener::Unix(listener))
            }
            None => bind_tcp(url, config).map_err(|e| bind_failed("tcp", url.authority(), &e))?,
        };
        listeners.push((address, offer, listener));
    }
    drop(_entered);
    Ok(Listeners { runtime, listeners, sockets })
}

/// Where clients and scrapers connect, and what for.
fn client_addresses(config: &Config) -> impl Iterator<Item = (&Url, Offer)> {
    let apart = !config.listen_client_http_urls.is_empty();
    let clients = config.listen_client_urls.iter().map(move |url| (url, if apart { Offer::Grpc } else { Offer::All }));
    let http = config.listen_client_http_urls.iter().map(|url| (url, Offer::Http));
    clients.chain(http).chain(config.listen_metrics_urls.iter().map(|url| (url, Offer::Metrics)))
}

/// A peer address that is ours and answers nobody yet: members that are founded together, and ask each other whether
/// there is a cluster already, shall not wait for one another.
pub struct Reserved<'a> {
    url: &'a Url,
    /// `None`: a socket file, which can't be had without listening on it.
    socket: Option<TcpSocket>,
}

/// Where peers are served.
pub enum PeerListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Takes all peer addresses, as [`bind_all`], without listening on them.
///
/// # Errors
/// The address that can't be bound, in Go's words.
pub fn reserve_peers(config: &Config) -> Result<Vec<Reserved<'_>>, Fatal> {
    let reserve = |url| match Url::socket_path(url) {
        Some(_) => Ok(Reserved { url, socket: None }),
        None => {
            let socket = tcp_socket(url, config).map_err(|e| bind_failed("tcp", url.authority(), &e))?;
            Ok(Reserved { url, socket: Some(socket) })
        }
    };
    config.listen_peer_urls.iter().map(reserve).collect()
}

/// Begins to listen; who connects waits until [`serve_peers`].
///
/// # Errors
/// The address that can't be bound, in Go's words.
pub fn listen_to_peers(reserved: Vec<Reserved<'_>>) -> Result<Vec<PeerListener>, Fatal> {
    let runtime = single_threaded().map_err(|e| Fatal::new(format!("cannot start the network: {e}")))?;
    let _entered = runtime.enter();
    let listen = |Reserved { url, socket }: Reserved<'_>| match (socket, url.socket_path()) {
        (Some(socket), _) => {
            let listener = socket.listen(BACKLOG).and_then(tokio::net::TcpListener::into_std);
            listener.map(PeerListener::Tcp).map_err(|e| bind_failed("tcp", url.authority(), &e))
        }
        (None, path) => {
            let path = path.unwrap_or_default();
            let listener = bind_unix(&path).and_then(UnixListener::into_std);
            listener.map(PeerListener::Unix).map_err(|e| bind_failed("unix", &path, &e))
        }
    };
    reserved.into_iter().map(listen).collect()
}

/// Starts the peer thread and serves peers.
///
/// # Errors
/// The thread can't be had, or a listener not be used.
pub fn serve_peers(
    config: &Config,
    listeners: Vec<PeerListener>,
    local: Arc<dyn peer::Local>,
) -> Result<peer::Transport, Fatal> {
    let failed = |e: io::Error| Fatal::new(format!("cannot serve peers: {e}"));
    let settings = peer::Config {
        connector: Arc::new(peer::Plain),
        dial_timeout: Duration::from_secs(1) + Duration::from_millis(config.election_timeout),
        snapshot_rate: SNAPSHOT_RATE,
    };
    let transport = peer::Transport::start(settings, local).map_err(failed)?;
    for listener in listeners {
        let plain = Arc::new(peer::Plain);
        let served = match listener {
            PeerListener::Tcp(listener) => transport.listen(listener, plain),
            PeerListener::Unix(listener) => transport.listen_unix(listener, plain),
        };
        served.map_err(failed)?;
    }
    Ok(transport)
}

fn bind_failed(network: &str, address: &str, e: &io::Error) -> Fatal {
    let why = match e.kind() {
        io::ErrorKind::AddrInUse => "address already in use (another etcd may be running; choose another port)".into(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address (no interface has it)".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => e.to_string(),
    };
    Fatal::new(format!("listen {network} {address}: bind: {why}"))
}

fn bind_tcp(url: &Url, config: &Config) -> io::Result<(String, Listener)> {
    let listener = tcp_socket(url, config)?.listen(BACKLOG)?;
    Ok((listener.local_addr()?.to_string(), Listener::Tcp(listener)))
}

/// Bound, and not listening: whoever connects is refused.
fn tcp_socket(url: &Url, config: &Config) -> io::Result<TcpSocket> {
    let ip = match url.host.as_str() {
        "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.parse().map_err(io::Error::other)?,
    };
    let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Go's listeners always have it: a restart must not wait for TIME_WAIT.
    socket.set_reuseaddr(true)?;
    if config.socket_reuse_port {
        socket.set_reuseport(true)?;
    }
    socket.bind(SocketAddr::new(ip, url.port))?;
    Ok(socket)
}

/// A socket file that nobody listens on any more is the leftover of a crash.
fn bind_unix(path: &str) -> io::Result<UnixListener> {
    let leftover = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if leftover {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Nobody is served there any longer.
pub fn remove_socket(path: &Path) {
    if let Err(e) = std::fs::remove_file(path) {
        warn!(error = %e, path = %path.display(), "failed to remove the socket file");
    }
}

fn single_threaded() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// How many network threads this machine is given.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(NETWORK_THREADS_MAX)
}

/// Serves clients until SIGINT or SIGTERM, with a thread and a door for each of `post`; answers the signal's number once open calls
/// have ended.
///
/// # Errors
/// Threads or signal handlers can't be had.
pub fn serve(
    config: &Config,
    listeners: Listeners,
    connections: usize,
    door: impl Fn(Home) -> Door,
    post: Vec<Deliveries>,
) -> Result<i32, Fatal> {
    let failed = |e: io::Error| Fatal::new(format!("cannot serve clients: {e}"));
    let limits = Limits {
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        max_concurrent_streams: config.max_concurrent_streams,
        keepalive_min_time: config.grpc_keepalive_min_time,
        keepalive_interval: config.grpc_keepalive_interval,
        keepalive_timeout: config.grpc_keepalive_timeout,
        election_timeout: Duration::from_millis(config.election_timeout),
    };
    let web = Arc::new(Web {
        gateway: config.enable_grpc_gateway,
        cors: config.cors.clone(),
        host_whitelist: config.host_whitelist.clone(),
        extensive: config.metrics == "extensive",
    });
    let (stop, stopped) = watch::channel(false);
    let mut dealt = Vec::new();
    let mut threads = Vec::new();
    for (home, deliveries) in (0..).map(Home).zip(post) {
        let (deal, taken) = mpsc::unbounded_channel();
        dealt.push(deal);
        let door = Arc::new(door(home));
        let (stopped, web, runtime) = (stopped.clone(), web.clone(), single_threaded().map_err(failed)?);
        let thread = std::thread::Builder::new().name(format!("network-{}", home.0));
        let work = move || {
            runtime.spawn(post::deliver(deliveries, door.shared.clone(), door.readers.clone()));
            runtime.block_on(rpc::serve(taken, door, limits, web, stopped));
        };
        threads.push(thread.spawn(work).map_err(failed)?);
    }
    let Listeners { runtime, listeners, sockets } = listeners;
    let signal = runtime.block_on(async {
        // No "ready" before signals are heeded.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let dealt: Arc<[_]> = dealt.into();
        for (address, offer, listener) in listeners {
            match offer {
                Offer::Metrics => info!(address, "serving metrics"),
                Offer::All | Offer::Grpc | Offer::Http => {
                    info!(address, "serving client traffic insecurely; this is strongly discouraged!");
                }
            }
            let (dealt, stopped) = (dealt.clone(), stopped.clone());
            tokio::spawn(async move {
                if let Err(e) = rpc::accept(listener, offer, connections, &dealt, stopped).await {
                    warn!(error = %e, "stopped accepting client connections");
                }
            });
        }
        let (number, name) = tokio::select! {
            _ = interrupt.recv() => (SignalKind::interrupt(), "interrupt"),
            _ = terminate.recv() => (SignalKind::terminate(), "terminated"),
        };
        info!(signal = name, "received signal; shutting down");
        io::Result::Ok(number.as_raw_value())
    });
    stop.send_replace(true);
    drop(runtime);
    sockets.iter().for_each(|path| remove_socket(path));
    for thread in threads {
        thread.join().map_err(|_| Fatal::new("a network thread panicked"))?;
    }
    signal.map_err(failed)
}
