//! From flags to a proxy that serves.

use super::cluster::{Registration, View};
use super::dispatch::{Door, MetricsDoor, Services};
use super::flags::{self, duration};
use super::kv::Kv;
use super::lease::Renewals;
use super::watch::Watches;
use super::web::Web;
use crate::addresses::{listen_text, split_host_port};
use crate::config::Url;
use crate::discover::{self, Wanted};
use crate::driver::join::dns::Resolver;
use crate::driver::net;
use crate::logging::{self, Level, Note};
use crate::systemd;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Client, Config, Leasing, Namespace};
use cobra::{Call, Exit, Parsed};
use rpc::{Connection, Guard, Limits, Listener, Offer, Relay, Security};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tls::{Live, self_made};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// For a connection to a member to come up, and for a call to wait for one (etcd's `DialTimeout`).
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// What clients' connections may speak.
const PROTOCOLS: &[&str] = &["h2", "http/1.1"];
/// Between attempts to read from the cluster before anything is served in order.
const RECOVERY_WAIT: Duration = Duration::from_secs(1);

/// Of the lease that leased keys hang on, seconds (clientv3 `concurrency.defaultSessionTTL`).
const LEASING_TTL: i64 = 60;

/// `etcd grpc-proxy start`.
pub fn start(call: &mut Call) -> Result<(), Exit> {
    let given = &call.given;
    flags::check(given)?;
    let level = if given.is_true("debug") { Level::Debug } else { Level::Info };
    logging::start(&logging::Settings { level, ..logging::Settings::default() }).map_err(told)?;
    let allowed = net::connections_allowed().map_err(|e| told(e.to_string()))?;
    let runtime = net::single_threaded().map_err(|e| told(format!("cannot start the network: {e}")))?;
    runtime.block_on(serve(given, allowed))
}

/// Said on standard error as it stands.
fn told(text: String) -> Exit {
    eprintln!("{text}");
    Exit::code(1)
}

/// Logged as the last thing.
fn fatal(text: &str, error: &str) -> Exit {
    Note::new(Level::Fatal, text).text("error", error).log();
    Exit::code(1)
}

async fn serve(given: &Parsed, allowed: usize) -> Result<(), Exit> {
    let listener_tls = listener_tls(given)?;
    let listen = given.text("listen-addr");
    let listener = listen_at(listen).await?;
    let security = security(&listener_tls)?;
    Note::new(Level::Info, "listening for gRPC proxy client requests").text("address", listen).log();
    let services = services(given, &listener_tls).await?;
    let threads = threads(&Door(services.clone()), limits(given))?;
    let (_running, stop) = watch::channel(false);
    let clients = rpc::accept(Listener::Tcp(listener), (Offer::All, security), allowed, &threads, stop.clone());
    let metrics = serve_metrics(given, &listener_tls, services, stop).await?;
    Note::new(Level::Info, "started gRPC proxy").text("address", listen).log();
    systemd::notify_init();
    tokio::select! {
        outcome = clients => outcome.map_err(|e| told(e.to_string())),
        outcome = metrics => outcome.map_err(|e| told(e.to_string())),
    }
}

/// The files that clients' connections are secured with; made here where `--auto-tls` asks for it.
fn listener_tls(given: &Parsed) -> Result<Option<tls::Settings>, Exit> {
    let mut settings = flags::listener_tls(given);
    let is_empty = settings.is_empty() && settings.trusted_ca.is_empty();
    if is_empty && !given.is_true("auto-tls") {
        return Ok(None);
    }
    if is_empty {
        let folder = Path::new(given.text("data-dir")).join("fixtures").join("proxy");
        let host = split_host_port(given.text("listen-addr")).unwrap_or_default().0.to_owned();
        let made = self_made(&folder, &[host], given.uint("self-signed-cert-validity")).map_err(told)?;
        (settings.cert, settings.key) = (made.cert.display().to_string(), made.key.display().to_string());
        settings.skip_verify = true;
    }
    Note::new(Level::Info, "gRPC proxy server TLS").text("tls-info", &shown(&settings)).log();
    Ok(Some(settings))
}

/// As Go prints a `TLSInfo`.
fn shown(settings: &tls::Settings) -> String {
    let tls::Settings { cert, key, trusted_ca, crl, client_cert_auth, .. } = settings;
    format!(
        "cert = {cert}, key = {key}, client-cert=, client-key=, trusted-ca = {trusted_ca}, client-cert-auth = \
         {client_cert_auth}, crl-file = {crl}"
    )
}

fn security(settings: &Option<tls::Settings>) -> Result<Security, Exit> {
    let Some(settings) = settings else { return Ok(Security::Plain) };
    let server = Live::open(settings.clone()).and_then(|live| tls::Server::new(live, PROTOCOLS));
    let server = server.map_err(|why| fatal("failed to create TLS listener", &why))?;
    Ok(Security::Tls(Guard { server: Arc::new(server), names_users: false, addresses: None }))
}

async fn listen_at(address: &str) -> Result<TcpListener, Exit> {
    let missing = || told(format!("listen tcp: address {address}: missing port in address"));
    let (host, port) = split_host_port(address).ok_or_else(missing)?;
    let port: u16 = port.parse().map_err(|_| told(format!("listen tcp: lookup tcp/{port}: unknown port")))?;
    // Without a host it is all of them.
    let host = if host.is_empty() { "::" } else { host };
    TcpListener::bind((host, port)).await.map_err(|e| told(listen_text(address, &e)))
}

fn limits(given: &Parsed) -> Limits {
    Limits {
        max_request_bytes: 0,
        max_concurrent_streams: u32::try_from(given.uint("max-concurrent-streams")).unwrap_or(u32::MAX),
        keepalive_min_time: duration(given, "grpc-keepalive-min-time"),
        keepalive_interval: duration(given, "grpc-keepalive-interval"),
        keepalive_timeout: duration(given, "grpc-keepalive-timeout"),
        slow_call: Duration::MAX,
        election_timeout: Duration::ZERO,
    }
}

/// Threads that serve connections, each with a runtime of its own.
fn threads(door: &impl Relay, limits: Limits) -> Result<Vec<mpsc::UnboundedSender<Connection>>, Exit> {
    let failed = |e: std::io::Error| told(format!("cannot start a thread: {e}"));
    let mut threads = Vec::new();
    for n in 0..net::threads() {
        let (out, connections) = mpsc::unbounded_channel();
        let (runtime, door) = (net::single_threaded().map_err(failed)?, door.clone());
        let work = move || runtime.block_on(rpc::relay(connections, limits, door));
        std::thread::Builder::new().name(format!("proxy-{n}")).spawn(work).map_err(failed)?;
        threads.push(out);
    }
    Ok(threads)
}

async fn services(given: &Parsed, listener_tls: &Option<tls::Settings>) -> Result<Arc<Services>, Exit> {
    let config = cluster_config(given).await?;
    let endpoint = config.endpoints.first().cloned().unwrap_or_default();
    let secure = config.tls.clone();
    let cluster = connect(config).await?;
    keep_in_sync(given, &cluster);
    let is_ordered = given.is_true("experimental-serializable-ordering");
    if is_ordered {
        recover_order(&cluster).await;
    }
    let namespace = Some(given.text("namespace")).filter(|prefix| !prefix.is_empty());
    let namespace = namespace.map(|prefix| Namespace::new(Bytes::copy_from_slice(prefix.as_bytes())));
    let leasing = lease_keys(given, &cluster).await;
    let view = View::new(given.text("advertise-client-url").to_owned());
    register(given, &cluster, &namespace, &view);
    if given.is_true("enable-pprof") {
        Note::new(Level::Info, "gRPC proxy enabled pprof").text("path", "/debug/pprof").log();
        if let Err(why) = profile::heap::start() {
            tracing::warn!(error = why, "profiles of the heap can't be had");
        }
    }
    let web = Web {
        cluster: cluster.clone(),
        own: own_client(&view.address, listener_tls).await?,
        endpoint,
        secure: secure.map(https).transpose()?,
        profiles: given.is_true("enable-pprof"),
    };
    Ok(Arc::new(Services {
        kv: Arc::new(Kv::new(cluster.clone(), namespace.clone(), is_ordered, leasing)),
        watches: Watches::new(cluster.clone(), namespace),
        renewals: Renewals::new(cluster.clone()),
        client: cluster,
        view,
        web,
        logs_calls: given.is_true("experimental-enable-grpc-logging"),
    }))
}

/// Joins those who lease keys below `--experimental-leasing-prefix`; nothing is served before.
async fn lease_keys(given: &Parsed, cluster: &Client) -> Option<Leasing> {
    let text = |name: &str| Bytes::copy_from_slice(given.text(name).as_bytes());
    let (namespace, prefix) = (text("namespace"), text("experimental-leasing-prefix"));
    if prefix.is_empty() {
        return None;
    }
    loop {
        let (namespace, prefix) = (namespace.clone(), prefix.clone());
        match Leasing::join_in(cluster, namespace, prefix, LEASING_TTL, client::Limits::default()).await {
            Ok(leasing) => return Some(leasing),
            Err(e) => Note::new(Level::Warn, "failed to lease keys").text("error", &e.to_string()).log(),
        }
        tokio::time::sleep(RECOVERY_WAIT).await;
    }
}

async fn connect(config: Config) -> Result<Client, Exit> {
    Client::connect(config).await.map_err(|e| told(e.to_string()))
}

fn https(settings: tls::Settings) -> Result<tls::Client, Exit> {
    Live::open(settings).and_then(|live| tls::Client::new(live, &["http/1.1"])).map_err(told)
}

async fn cluster_config(given: &Parsed) -> Result<Config, Exit> {
    let wanted = Wanted {
        domain: given.text("discovery-srv").to_owned(),
        service: given.text("discovery-srv-name").to_owned(),
        insecure: given.is_true("insecure-discovery"),
        trusted_ca: given.text("cacert").to_owned(),
    };
    let found = discover::endpoints(&wanted, &Resolver::system()).await.map_err(told)?;
    let endpoints = match found.is_empty() {
        true => given.list("endpoints").to_vec(),
        false => found.into_iter().map(|found| found.url).collect(),
    };
    let tls = flags::cluster_tls(given);
    if let Some(settings) = &tls {
        check_cluster_tls(settings)?;
    }
    let defaults = Config::default();
    let positive = |name: &str| usize::try_from(given.int(name)).ok().filter(|bytes| *bytes > 0);
    let ping = Some(duration(given, "dial-keepalive-time")).filter(|interval| !interval.is_zero());
    Ok(Config {
        endpoints,
        tls,
        dial_timeout: DIAL_TIMEOUT,
        connect_patience: Some(DIAL_TIMEOUT),
        keepalive_time: ping,
        keepalive_timeout: duration(given, "dial-keepalive-timeout"),
        keepalive_idle: given.is_true("permit-without-stream"),
        send_bytes_max: positive("max-send-bytes").unwrap_or(defaults.send_bytes_max),
        recv_bytes_max: positive("max-recv-bytes").unwrap_or(defaults.recv_bytes_max),
        ..defaults
    })
}

/// A certificate that names a user would lend that user's rights to whoever uses the proxy (etcd#11970).
fn check_cluster_tls(settings: &tls::Settings) -> Result<(), Exit> {
    let live = Live::open(settings.clone()).map_err(told)?;
    let name = live.own_names().map(|names| names.common_name).unwrap_or_default();
    if !name.is_empty() {
        return Err(told(format!("cert has non empty Common Name ({name}): {}", settings.cert)));
    }
    if settings.skip_verify {
        tracing::warn!(
            "--insecure-skip-tls-verify was given, this grpc proxy process skips authentication of etcd server TLS \
             certificates. This option should be enabled only for testing purposes."
        );
    }
    Note::new(Level::Info, "gRPC proxy client TLS").text("tls-info", &shown(settings)).log();
    Ok(())
}

/// The way in that clients have, for `/proxy/health`.
async fn own_client(address: &str, listener_tls: &Option<tls::Settings>) -> Result<Option<Client>, Exit> {
    if address.is_empty() {
        return Ok(None);
    }
    let config = Config {
        endpoints: vec![address.to_owned()],
        tls: listener_tls.clone(),
        dial_timeout: DIAL_TIMEOUT,
        ..Config::default()
    };
    let client = connect(config).await?;
    Note::new(Level::Info, "create proxy client").text("grpcProxyAdvertiseClientURL", address).log();
    Ok(Some(client))
}

/// `--endpoints-auto-sync-interval`: follows members that come and go.
fn keep_in_sync(given: &Parsed, cluster: &Client) {
    let interval = duration(given, "endpoints-auto-sync-interval");
    if interval.is_zero() {
        return;
    }
    let cluster = cluster.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            match cluster.with_timeout(DIAL_TIMEOUT).sync().await {
                Ok(endpoints) => tracing::debug!(endpoints = endpoints.join(","), "set etcd endpoints by autoSync"),
                Err(e) => tracing::info!(error = %e, "Auto sync endpoints failed."),
            }
        }
    });
}

/// Nothing is read before it is known how new the cluster is.
async fn recover_order(cluster: &Client) {
    tracing::info!("waiting for linearized read from cluster to recover ordering");
    let request = pb::RangeRequest { key: Bytes::from_static(b"_"), keys_only: true, ..Default::default() };
    while let Err(e) = cluster.range(request.clone()).await {
        tracing::warn!(error = %e, "ordering recovery failed, retrying in 1s");
        tokio::time::sleep(RECOVERY_WAIT).await;
    }
}

fn register(given: &Parsed, cluster: &Client, namespace: &Option<Namespace>, view: &Arc<View>) {
    let prefix = given.text("resolver-prefix");
    if prefix.is_empty() {
        return;
    }
    let registration = Registration {
        client: cluster.clone(),
        namespace: namespace.clone(),
        prefix: prefix.to_owned(),
        address: view.address.clone(),
        ttl: given.int("resolver-ttl"),
    };
    tokio::spawn(registration.clone().keep());
    tokio::spawn(view.clone().follow(registration));
}

/// `--metrics-addr`: a listener of its own, served on this thread; without, this waits for ever.
async fn serve_metrics(
    given: &Parsed,
    listener_tls: &Option<tls::Settings>,
    services: Arc<Services>,
    stop: watch::Receiver<bool>,
) -> Result<impl Future<Output = std::io::Result<()>> + use<>, Exit> {
    let address = given.text("metrics-addr");
    let bound = match address {
        "" => None,
        text => {
            let failed = |why: String| told(format!("cannot parse {}: {why}", go::quote(text)));
            let url = Url::parse_list(text).map_err(failed)?.into_iter().next();
            let url = url.ok_or_else(|| told(format!("cannot parse {}", go::quote(text))))?;
            let security = match url.is_tls() {
                true => security(&Some(listener_tls.clone().unwrap_or_default()))?,
                false => Security::Plain,
            };
            let listener = listen_at(url.authority()).await?;
            Note::new(Level::Info, "gRPC proxy listening for metrics").text("address", text).log();
            Some((listener, security))
        }
    };
    let limits = limits(given);
    Ok(async move {
        let Some((listener, security)) = bound else { return std::future::pending().await };
        let (out, connections) = mpsc::unbounded_channel();
        let serving = rpc::relay(connections, limits, MetricsDoor(services));
        Note::new(Level::Info, "gRPC proxy server metrics URL serving").log();
        let threads = [out];
        let accepting =
            rpc::accept(Listener::Tcp(listener), (Offer::Metrics, security), METRICS_CONNECTIONS, &threads, stop);
        tokio::select! {
            outcome = accepting => outcome,
            () = serving => Ok(()),
        }
    })
}

/// Connections of scrapers.
const METRICS_CONNECTIONS: usize = 256;
