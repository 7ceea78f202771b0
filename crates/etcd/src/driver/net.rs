//! Sockets of the member: listening, the threads that serve connections, signals.

use super::door::Door;
use super::post::{self, Deliveries, Home};
use super::security::Credentials;
use crate::config::{Config, Url};
use rpc::{Limits, Listener, Offer, Security, Spans, Web, peer};
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
    listeners: Vec<(String, Offer, Security, Listener)>,
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
/// The address that can't be bound, in Go's words, or one that lacks its certificate.
pub fn bind_all(config: &Config, credentials: &Credentials) -> Result<Listeners, Fatal> {
    let runtime = single_threaded().map_err(|e| Fatal::new(format!("cannot start the network: {e}")))?;
    let _entered = runtime.enter();
    let mut listeners = Vec::new();
    let mut sockets = Vec::new();
    let addresses = client_addresses(config);
    for (urls, url, offer) in addresses.iter().flat_map(|(urls, offer)| distinct(urls).map(|url| (*urls, url, *offer)))
    {
        let security = security(config, urls, (url, offer), credentials)?;
        let (address, listener) = match url.socket_path() {
            Some(path) => {
                let listener = bind_unix(&path).map_err(|e| bind_failed("unix", &path, &e))?;
                sockets.push(path.clone().into());
                (path, Listener::Unix(listener))
            }
            None => bind_tcp(url, config).map_err(|e| bind_failed("tcp", url.authority(), &e))?,
        };
        listeners.push((address, offer, security, listener));
    }
    drop(_entered);
    Ok(Listeners { runtime, listeners, sockets })
}

/// Whether two URLs are spoken at one address.
fn share(a: &Url, b: &Url) -> bool {
    a.socket_path() == b.socket_path() && a.authority() == b.authority()
}

/// The first URL of each address.
fn distinct(urls: &[Url]) -> impl Iterator<Item = &Url> {
    urls.iter().enumerate().filter(|(n, url)| !urls[..*n].iter().any(|other| share(url, other))).map(|(_, url)| url)
}

/// How clients are spoken to at an address, which several URLs of `urls` may have.
fn security(
    config: &Config,
    urls: &[Url],
    (url, offer): (&Url, Offer),
    credentials: &Credentials,
) -> Result<Security, Fatal> {
    let here = || urls.iter().filter(|other| share(url, other));
    let plain = here().find(|url| !url.is_tls());
    if let Some(url) = plain.filter(|_| !config.cert_file.is_empty() || !config.key_file.is_empty()) {
        warn!("client-url" = %url, "scheme is HTTP or UNIX while key and cert files are present; ignoring key and cert files");
    }
    if let Some(url) = plain.filter(|_| config.client_cert_auth) {
        let text = "scheme is HTTP or UNIX while --client-cert-auth is enabled; ignoring client cert auth for this URL";
        warn!("client-url" = %url, "{text}");
    }
    let Some(encrypted) = here().find(|url| url.is_tls()) else { return Ok(Security::Plain) };
    let guard = match offer {
        Offer::Metrics => credentials.metrics_guard(config)?,
        Offer::All | Offer::Grpc | Offer::Http => credentials.guard(config, encrypted)?,
    };
    Ok(if plain.is_some() { Security::Either(guard) } else { Security::Tls(guard) })
}

/// Where clients and scrapers connect, and what for.
fn client_addresses(config: &Config) -> [(&[Url], Offer); 3] {
    let apart = !config.listen_client_http_urls.is_empty();
    [
        (&config.listen_client_urls, if apart { Offer::Grpc } else { Offer::All }),
        (&config.listen_client_http_urls, Offer::Http),
        (&config.listen_metrics_urls, Offer::Metrics),
    ]
}

/// A peer address that is ours and answers nobody yet: members that are founded together, and ask each other whether
/// there is a cluster already, shall not wait for one another.
pub struct Reserved<'a> {
    url: &'a Url,
    /// `None`: a socket file, which can't be had without listening on it.
    socket: Option<TcpSocket>,
}

/// Where peers are served, and as what.
pub struct PeerListener<'a> {
    url: &'a Url,
    socket: PeerSocket,
}

enum PeerSocket {
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
pub fn listen_to_peers<'a>(reserved: Vec<Reserved<'a>>) -> Result<Vec<PeerListener<'a>>, Fatal> {
    let runtime = single_threaded().map_err(|e| Fatal::new(format!("cannot start the network: {e}")))?;
    let _entered = runtime.enter();
    let listen = |Reserved { url, socket }: Reserved<'_>| match (socket, url.socket_path()) {
        (Some(socket), _) => {
            let listener = socket.listen(BACKLOG).and_then(tokio::net::TcpListener::into_std);
            listener.map(PeerSocket::Tcp).map_err(|e| bind_failed("tcp", url.authority(), &e))
        }
        (None, path) => {
            let path = path.unwrap_or_default();
            let listener = bind_unix(&path).and_then(UnixListener::into_std);
            listener.map(PeerSocket::Unix).map_err(|e| bind_failed("unix", &path, &e))
        }
    };
    let listen = |reserved: Reserved<'a>| {
        let url = reserved.url;
        listen(reserved).map(|socket| PeerListener { url, socket })
    };
    reserved.into_iter().map(listen).collect()
}

/// Starts the peer thread and serves peers.
///
/// # Errors
/// The thread can't be had, a listener not be used, or one lacks its certificate.
pub fn serve_peers(
    config: &Config,
    credentials: &Credentials,
    listeners: Vec<PeerListener<'_>>,
    local: Arc<dyn peer::Local>,
) -> Result<peer::Transport, Fatal> {
    let failed = |e: io::Error| Fatal::new(format!("cannot serve peers: {e}"));
    let transport = peer::Transport::start(peer_settings(config, credentials), local).map_err(failed)?;
    for PeerListener { url, socket } in listeners {
        let acceptor: Arc<dyn peer::Acceptor> = match url.is_tls() {
            true => Arc::new(credentials.gate(config, url)?),
            false => Arc::new(peer::Plain),
        };
        let served = match socket {
            PeerSocket::Tcp(listener) => transport.listen(listener, acceptor),
            PeerSocket::Unix(listener) => transport.listen_unix(listener, acceptor),
        };
        served.map_err(failed)?;
    }
    Ok(transport)
}

fn peer_settings(config: &Config, credentials: &Credentials) -> peer::Config {
    peer::Config {
        connector: credentials.connector.clone(),
        dial_timeout: Duration::from_secs(1) + Duration::from_millis(config.election_timeout),
        snapshot_rate: SNAPSHOT_RATE,
        timeouts: peer::Timeouts { read: config.raft_read_timeout, write: config.raft_write_timeout },
    }
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
    // Go's listeners always have it, with --socket-reuse-address or without: a restart must not wait for TIME_WAIT.
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

/// A runtime of one thread.
pub fn single_threaded() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// How many network threads this machine is given.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(NETWORK_THREADS_MAX)
}

/// How clients are served at an address, in etcd's words.
fn tell_of(address: &str, security: &Security) {
    if let Security::Plain | Security::Either(_) = security {
        info!(address, "serving client traffic insecurely; this is strongly discouraged!");
    }
    if let Security::Tls(_) | Security::Either(_) = security {
        info!(address, "serving client traffic securely");
    }
}

/// The level at which etcd shows more than lines.
const DEBUG: &str = "debug";

/// Whether profiles are served; if so, memory is sampled from now on.
fn profiles(config: &Config) -> bool {
    if config.enable_pprof {
        info!(path = "/debug/pprof", "pprof is enabled");
    }
    let served = config.enable_pprof || config.log_level == DEBUG;
    if served && let Err(why) = profile::heap::start() {
        warn!(error = why, "profiles of the heap can't be had");
    }
    served
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
    (post, spans): (Vec<Deliveries>, Option<Arc<dyn Spans>>),
) -> Result<i32, Fatal> {
    let failed = |e: io::Error| Fatal::new(format!("cannot serve clients: {e}"));
    let limits = Limits {
        max_request_bytes: usize::try_from(config.max_request_bytes).unwrap_or(usize::MAX),
        max_concurrent_streams: config.max_concurrent_streams,
        keepalive_min_time: config.grpc_keepalive_min_time,
        keepalive_interval: config.grpc_keepalive_interval,
        keepalive_timeout: config.grpc_keepalive_timeout,
        slow_call: config.warning_unary_request_duration,
        election_timeout: Duration::from_millis(config.election_timeout),
    };
    let web = Arc::new(Web {
        gateway: config.enable_grpc_gateway,
        cors: config.cors.clone(),
        host_whitelist: config.host_whitelist.clone(),
        extensive: config.metrics == "extensive",
        profiles: profiles(config),
        traces: config.log_level == DEBUG,
        spans,
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
        for (address, offer, security, listener) in listeners {
            if offer == Offer::Metrics {
                info!(address, "serving metrics");
            } else {
                tell_of(&address, &security);
            }
            let (dealt, stopped) = (dealt.clone(), stopped.clone());
            tokio::spawn(async move {
                if let Err(e) = rpc::accept(listener, (offer, security), connections, &dealt, stopped).await {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_connections_have_the_timeouts_of_the_flags() {
        let (read, write) = (Duration::from_secs(7), Duration::from_secs(9));
        let config = Config { raft_read_timeout: read, raft_write_timeout: write, ..Config::default() };
        let credentials = Credentials::open(&config).unwrap();
        assert_eq!(peer_settings(&config, &credentials).timeouts, peer::Timeouts { read, write });
    }
}
