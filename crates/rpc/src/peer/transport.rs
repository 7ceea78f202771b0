//! The handle, who is known, and which way a message takes (rafthttp `transport.go`, `peer.go`).
//!
//! | message | way |
//! |---|---|
//! | to a member that is not known | dropped |
//! | to a remote (known by a POST of its own only) | `POST /raft` |
//! | MsgSnap | `POST /raft` (with its image: [`Transport::send_snapshot`]) |
//! | MsgApp | msgapp stream, else message stream, else `POST /raft` |
//! | any other | message stream, else `POST /raft` |

use super::check::{CLUSTER_ID, MIN_CLUSTER_VERSION, PEER_URLS, SERVER_FROM, SERVER_VERSION, hex};
use super::http::Dialer;
use super::io::{Acceptor, BoxedIo, Connector, IO_TIMEOUT};
use super::link::Link;
use super::local::{Identity, Image, Local};
use super::metrics::{Meters, PeerMetrics};
use super::receive::IMAGES_MAX;
use super::serve::{self, Bodies, Listener};
use super::stream::{Kind, Offered, Writer};
use super::url::Url;
use super::{outgoing, pipeline, probe, reader, snapshot};
use api::raft::{Message, MessageType};
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

/// Senders that are known by their POSTs only. Past it: not answered; they become peers, or go.
const REMOTES_MAX: usize = 64;
/// Threads for name resolution and images. They come when needed.
const BLOCKING_THREADS_MAX: usize = 64;
/// How long a stop waits for them.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of a transport.
#[derive(Clone)]
pub struct Config {
    pub connector: Arc<dyn Connector>,
    /// For a connection, TLS included. etcd: one second and an election timeout.
    pub dial_timeout: Duration,
    /// Bytes a second of a database image that is sent, for each peer.
    pub snapshot_rate: u64,
    pub timeouts: Timeouts,
}

/// How long connections to and from peers wait for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// … to come (`--raft-read-timeout`).
    pub read: Duration,
    /// … to be taken (`--raft-write-timeout`).
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { read: IO_TIMEOUT, write: IO_TIMEOUT }
    }
}

/// Sends to, and receives from, the other members. A cheap handle; everything runs on one thread, which ends when
/// [`stop`](Self::stop) is called or the last handle is dropped.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

struct Thread {
    stop: watch::Sender<bool>,
    handle: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What all tasks share.
pub(crate) struct Shared {
    pub local: Arc<dyn Local>,
    pub identity: Identity,
    /// Our cluster's id as headers have it.
    pub cluster: HeaderValue,
    /// What we say about ourselves in requests.
    pub signature: HeaderMap,
    pub dialer: Dialer,
    pub snapshot_rate: u64,
    pub timeouts: Timeouts,
    pub meters: Meters,
    pub bodies: Bodies,
    /// Places for images that arrive.
    pub images: Arc<Semaphore>,
    pub runtime: Handle,
    table: RwLock<Table>,
    told_removed: AtomicBool,
}

#[derive(Default)]
struct Table {
    peers: BTreeMap<u64, Arc<Peer>>,
    remotes: BTreeMap<u64, Remote>,
    stopped: bool,
}

/// Tasks that end with their owner.
#[derive(Default)]
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Another member.
pub(crate) struct Peer {
    pub link: Arc<Link>,
    app: Arc<Writer>,
    message: Arc<Writer>,
    pipeline: mpsc::Sender<Message>,
    /// A database image is on its way.
    sending: Arc<AtomicBool>,
    snapshot: Mutex<Tasks>,
    _tasks: Tasks,
}

/// A sender whom our log does not know yet. It is answered, no more.
struct Remote {
    link: Arc<Link>,
    pipeline: mpsc::Sender<Message>,
    _tasks: Tasks,
}

/// A message that was not queued: to whom, and whether it was a snapshot.
type Lost = (u64, bool);

// ---- one member's queues ---------------------------------------------------------------------------------------

impl Peer {
    fn start(shared: &Arc<Shared>, id: u64, urls: Vec<Url>) -> Peer {
        let link = Link::new(shared.clone(), id, urls);
        let (pipeline, queue) = mpsc::channel(pipeline::QUEUE);
        let mut tasks = Tasks::default();
        for task in pipeline::start(&link, queue) {
            tasks.0.push(shared.spawn(task));
        }
        for kind in Kind::ALL {
            tasks.0.push(shared.spawn(reader::run(link.clone(), kind)));
        }
        for round_tripper in probe::ROUND_TRIPPERS {
            tasks.0.push(shared.spawn(probe::run(link.clone(), round_tripper)));
        }
        Peer {
            link,
            app: Arc::default(),
            message: Arc::default(),
            pipeline,
            sending: Arc::default(),
            snapshot: Mutex::default(),
            _tasks: tasks,
        }
    }

    pub fn writer(&self, kind: Kind) -> &Arc<Writer> {
        match kind {
            Kind::App => &self.app,
            Kind::Message => &self.message,
        }
    }

    /// Whether there was room.
    fn send(&self, message: Message) -> bool {
        let mut message = message;
        let streams: &[&Writer] = match message.kind {
            MessageType::MsgSnap => &[],
            MessageType::MsgApp => &[&self.app, &self.message],
            _ => &[&self.message],
        };
        for stream in streams {
            match stream.offer(message) {
                Offered::Queued => return true,
                Offered::Full => return false,
                Offered::Nobody(back) => message = back,
            }
        }
        self.pipeline.try_send(message).is_ok()
    }

    /// Whether none is on its way already.
    fn send_snapshot(&self, message: Message, image: Arc<dyn Image>) -> bool {
        let Some(sent) = snapshot::Sent::begin(&self.link, &self.sending, image) else { return false };
        let task = self.link.shared.spawn(snapshot::send(sent, message));
        self.snapshot.lock().0 = vec![task];
        true
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.app.close();
        self.message.close();
        self.link.forget();
    }
}

impl Remote {
    fn start(shared: &Arc<Shared>, id: u64, urls: Vec<Url>) -> Remote {
        let link = Link::new(shared.clone(), id, urls);
        let (pipeline, queue) = mpsc::channel(pipeline::QUEUE);
        let tasks = pipeline::start(&link, queue).into_iter().map(|task| shared.spawn(task)).collect();
        Remote { link, pipeline, _tasks: Tasks(tasks) }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.link.forget();
    }
}

// ---- who is known ----------------------------------------------------------------------------------------------

impl Table {
    fn route(&self, message: Message) -> Option<Lost> {
        let (to, snapshot) = (message.to, message.kind == MessageType::MsgSnap);
        let (link, queued) = match (self.peers.get(&to), self.remotes.get(&to)) {
            (Some(peer), _) => (&peer.link, peer.send(message)),
            (None, Some(remote)) => (&remote.link, remote.pipeline.try_send(message).is_ok()),
            (None, None) => {
                tracing::debug!(unknown_target_peer_id = %hex(to), "ignored message send request; unknown remote peer target");
                return None;
            }
        };
        match queued {
            true => link.queued(),
            false => link.dropped(),
        }
        (!queued).then_some((to, snapshot))
    }
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.runtime.spawn(task).abort_handle()
    }

    pub fn peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.table.read().peers.get(&id).cloned()
    }

    pub fn add_remote(self: &Arc<Self>, id: u64, urls: Vec<Url>) {
        let known = |table: &Table| {
            table.stopped
                || table.peers.contains_key(&id)
                || table.remotes.contains_key(&id)
                || table.remotes.len() >= REMOTES_MAX
        };
        // Almost always so.
        if known(&self.table.read()) || id == self.identity.member || self.local.removed(id) {
            return;
        }
        let mut table = self.table.write();
        if !known(&table) {
            tracing::info!(remote_peer_id = %hex(id), "added new remote peer");
            table.remotes.insert(id, Remote::start(self, id, urls));
        }
    }

    /// Whether a message may reach raft (etcdserver `Process`).
    pub fn admit(&self, message: &Message) -> Result<(), &'static str> {
        if self.local.removed(message.from) {
            Err("cannot process message from removed member")
        } else if message.to != self.identity.member {
            Err("cannot process message to mismatch member")
        } else {
            Ok(())
        }
    }

    /// A peer says so. It is fatal, and said once.
    pub fn was_removed(&self) {
        if !self.told_removed.swap(true, Ordering::Relaxed) {
            tracing::error!("the member has been permanently removed from the cluster");
            self.local.was_removed();
        }
    }

    fn report(&self, lost: &[Lost]) {
        for (id, snapshot) in lost {
            self.local.report_unreachable(*id);
            if *snapshot {
                self.local.report_snapshot(*id, false);
            }
        }
    }
}

fn signature(identity: &Identity) -> io::Result<HeaderMap> {
    let fields: [(HeaderName, String); 5] = [
        (SERVER_FROM, hex(identity.member)),
        (SERVER_VERSION, api::version::SERVER.to_owned()),
        (MIN_CLUSTER_VERSION, api::version::MIN_CLUSTER.to_owned()),
        (CLUSTER_ID, hex(identity.cluster)),
        (PEER_URLS, identity.urls.join(",")),
    ];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    fields.map(|(name, value)| Ok((name, HeaderValue::try_from(value).map_err(io::Error::other)?))).collect()
}

// ---- the handle ------------------------------------------------------------------------------------------------

impl Transport {
    /// Starts the peer thread. Nobody is known yet, and nothing listens.
    ///
    /// # Errors
    /// There is no thread to be had, or the advertised URLs are no header.
    pub fn start(config: Config, local: Arc<dyn Local>) -> io::Result<Transport> {
        let identity = local.identity();
        let cluster = HeaderValue::try_from(hex(identity.cluster)).map_err(io::Error::other)?;
        let signature = signature(&identity)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("peer-io")
            .build()?;
        let shared = Shared {
            cluster,
            signature,
            identity,
            local,
            dialer: Dialer { connector: config.connector, timeout: config.dial_timeout },
            snapshot_rate: config.snapshot_rate.max(1),
            timeouts: config.timeouts,
            meters: Meters::default(),
            bodies: Bodies::default(),
            images: Arc::new(Semaphore::new(IMAGES_MAX)),
            runtime: runtime.handle().clone(),
            table: RwLock::default(),
            told_removed: AtomicBool::new(false),
        };
        let (stop, mut stopped) = watch::channel(false);
        let handle = std::thread::Builder::new().name("peer".to_owned()).spawn(move || {
            // An error means that the last handle is gone.
            let _ = runtime.block_on(stopped.wait_for(|stop| *stop)).map(drop);
            runtime.shutdown_timeout(STOP_TIMEOUT);
        })?;
        Ok(Transport { shared: Arc::new(shared), thread: Arc::new(Thread { stop, handle: Mutex::new(Some(handle)) }) })
    }

    /// Sends what a peer may see, by the ways in this module's table. Never blocks. What finds no room is dropped and
    /// reported before this returns.
    pub fn send(&self, messages: Vec<Message>) {
        let mut lost = Vec::new();
        {
            let table = self.shared.table.read();
            for message in outgoing::select(messages) {
                match table.route(message) {
                    Some(why) if !lost.contains(&why) => lost.push(why),
                    _ => {}
                }
            }
        }
        self.shared.report(&lost);
    }

    /// Sends a MsgSnap with its database image, and reports what became of it: at once if another one is on its way to
    /// the same peer, or if the peer is not known.
    pub fn send_snapshot(&self, message: Message, image: Arc<dyn Image>) {
        let to = message.to;
        let begun = self.shared.peer(to).is_some_and(|peer| peer.send_snapshot(message, image));
        if !begun {
            self.shared.local.report_snapshot(to, false);
        }
    }

    /// A member that is to be talked to. One that is known already keeps its URLs.
    ///
    /// # Errors
    /// A URL is none, or there is none; nothing changed.
    pub fn add_peer(&self, id: u64, urls: &[String]) -> Result<(), String> {
        let urls = Url::parse_list(urls.iter().map(String::as_str))?;
        let mut table = self.shared.table.write();
        if table.stopped || table.peers.contains_key(&id) {
            return Ok(());
        }
        table.remotes.remove(&id);
        table.peers.insert(id, Arc::new(Peer::start(&self.shared, id, urls)));
        tracing::info!(remote_peer_id = %hex(id), "added remote peer");
        Ok(())
    }

    /// A member that is only answered, so that it may catch up. No more than 64 of them.
    ///
    /// # Errors
    /// A URL is none, or there is none; nothing changed.
    pub fn add_remote(&self, id: u64, urls: &[String]) -> Result<(), String> {
        self.shared.add_remote(id, Url::parse_list(urls.iter().map(String::as_str))?);
        Ok(())
    }

    /// New URLs for a peer. Streams that stand are kept.
    ///
    /// # Errors
    /// A URL is none, or there is none; nothing changed.
    pub fn update_peer(&self, id: u64, urls: &[String]) -> Result<(), String> {
        let urls = Url::parse_list(urls.iter().map(String::as_str))?;
        if let Some(peer) = self.shared.peer(id) {
            peer.link.picker.update(urls);
            tracing::info!(updated_remote_peer_id = %hex(id), "updated remote peer");
        }
        Ok(())
    }

    /// Ends everything with a peer.
    pub fn remove_peer(&self, id: u64) {
        let removed = self.shared.table.write().peers.remove(&id);
        match removed {
            Some(_) => tracing::info!(removed_remote_peer_id = %hex(id), "removed remote peer"),
            None => tracing::warn!(removed_remote_peer_id = %hex(id), "skipped removing already removed peer"),
        }
    }

    /// Ends everything with all peers. Remotes stay.
    pub fn remove_all(&self) {
        let peers = std::mem::take(&mut self.shared.table.write().peers);
        drop(peers);
    }

    /// Since when a peer is active; `None` for one that is not, or not known.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        self.shared.peer(id)?.link.active_since()
    }

    /// Counters of everyone who was ever talked to, by id.
    pub fn metrics(&self) -> Vec<PeerMetrics> {
        let table = self.shared.table.read();
        let figures = self.shared.meters.read().into_iter();
        figures.map(|of| PeerMetrics { known: table.peers.contains_key(&of.id), ..of }).collect()
    }

    /// Serves peers that connect to `listener`, through `acceptor`.
    ///
    /// # Errors
    /// The listener can't be used.
    pub fn listen(&self, listener: std::net::TcpListener, acceptor: Arc<dyn Acceptor>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let _runtime = self.shared.runtime.enter();
        let listener = Listener::Tcp(tokio::net::TcpListener::from_std(listener)?);
        self.shared.spawn(serve::listen(self.shared.clone(), listener, acceptor));
        Ok(())
    }

    /// The same on a unix socket.
    ///
    /// # Errors
    /// The listener can't be used.
    pub fn listen_unix(
        &self,
        listener: std::os::unix::net::UnixListener,
        acceptor: Arc<dyn Acceptor>,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let _runtime = self.shared.runtime.enter();
        let listener = Listener::Unix(tokio::net::UnixListener::from_std(listener)?);
        self.shared.spawn(serve::listen(self.shared.clone(), listener, acceptor));
        Ok(())
    }

    /// Serves one connection that was accepted elsewhere.
    pub fn serve(&self, io: BoxedIo) {
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            if let Err(error) = serve::serve(shared, io).await {
                tracing::debug!(error, "peer connection ended");
            }
        });
    }

    /// Closes all connections and waits until the peer thread has ended. Messages are dropped from here on. Not to be
    /// called on the peer thread.
    pub fn stop(&self) {
        let (peers, remotes) = {
            let mut table = self.shared.table.write();
            table.stopped = true;
            (std::mem::take(&mut table.peers), std::mem::take(&mut table.remotes))
        };
        drop((peers, remotes));
        self.thread.stop.send_replace(true);
        if let Some(handle) = self.thread.handle.lock().take() {
            // A panic there was shown when it happened.
            let _ = handle.join();
        }
    }
}
