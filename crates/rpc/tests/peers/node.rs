//! A member as far as its transport can tell: it writes down what it is told.

use api::raft::{Message, MessageType};
use parking_lot::{Condvar, Mutex};
use rpc::peer::{
    Awaited, Config, HashKv, Identity, ImageSink, LeaseInfo, LeaseRefusal, Local, MemberInfo, Plain, Timeouts,
    Transport,
};
use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const CLUSTER: u64 = 0xc1;

/// What a member was told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// By a stream.
    Received(Message),
    /// By POST.
    Processed(Message),
    Unreachable(u64),
    Snapshot(u64, bool),
    WasRemoved,
    Image(Vec<u8>),
    Abandoned,
}

/// The member behind a transport.
pub struct Member {
    identity: Identity,
    told: Mutex<Vec<Told>>,
    more: Condvar,
    pub removed: Mutex<BTreeSet<u64>>,
    /// Refuses what raft gets by POST.
    pub refuses: AtomicBool,
    /// Fails to store images.
    pub disk_full: AtomicBool,
}

impl Member {
    fn tell(&self, told: Told) {
        self.told.lock().push(told);
        self.more.notify_all();
    }

    /// The first that `wanted` takes, of all so far and to come.
    pub fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&Told) -> Option<T>) -> T {
        self.wait_with(what, &mut wanted, || ())
    }

    /// … while doing something every few milliseconds.
    pub fn wait_with<T>(&self, what: &str, wanted: &mut dyn FnMut(&Told) -> Option<T>, act: impl Fn()) -> T {
        let end = Instant::now() + PATIENCE;
        let mut seen = 0;
        loop {
            act();
            let mut told = self.told.lock();
            if seen == told.len() {
                self.more.wait_for(&mut told, Duration::from_millis(20));
            }
            for one in &told[seen..] {
                if let Some(found) = wanted(one) {
                    return found;
                }
            }
            seen = told.len();
            assert!(Instant::now() < end, "no {what}; told: {told:?}");
        }
    }

    pub fn wait_for(&self, expected: &Told) {
        self.wait(&format!("{expected:?}"), |told| (told == expected).then_some(()));
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    pub fn forget(&self) {
        self.told.lock().clear();
    }
}

fn now<T>(value: T) -> Awaited<T> {
    let (sender, receiver) = oneshot::channel();
    drop(sender.send(value));
    receiver
}

impl Local for Member {
    fn identity(&self) -> Identity {
        self.identity.clone()
    }

    fn receive(&self, message: Message) -> bool {
        self.tell(Told::Received(message));
        true
    }

    fn process(&self, message: Message) -> Awaited<Result<(), String>> {
        if self.refuses.load(Ordering::Relaxed) {
            return now(Err("raft: stopped".to_owned()));
        }
        self.tell(Told::Processed(message));
        now(Ok(()))
    }

    fn report_unreachable(&self, id: u64) {
        self.tell(Told::Unreachable(id));
    }

    fn report_snapshot(&self, id: u64, arrived: bool) {
        self.tell(Told::Snapshot(id, arrived));
    }

    fn removed(&self, id: u64) -> bool {
        self.removed.lock().contains(&id)
    }

    fn was_removed(&self) {
        self.tell(Told::WasRemoved);
    }

    fn members(&self) -> Vec<MemberInfo> {
        let url = self.identity.urls[0].clone();
        vec![
            MemberInfo { id: self.identity.member, peer_urls: vec![url], name: "m1".into(), ..MemberInfo::default() },
            MemberInfo {
                id: u64::MAX,
                peer_urls: vec!["http://x:1".into()],
                is_learner: true,
                ..MemberInfo::default()
            },
        ]
    }

    fn versions(&self) -> (String, String) {
        ("3.7.0".to_owned(), "3.7.0".to_owned())
    }

    fn promote(&self, id: u64, token: Option<String>) -> Awaited<Result<Vec<MemberInfo>, api::Error>> {
        now(match (id, token.as_deref()) {
            (1, _) => Err(api::Error::MemberNotFound),
            (2, _) => Err(api::Error::MemberNotLearner),
            (3, _) => Err(api::Error::LearnerNotReady),
            (4, Some("token")) => Ok(self.members()),
            _ => Err(api::Error::PermissionDenied),
        })
    }

    fn hash_kv(&self, revision: i64) -> Awaited<Result<HashKv, api::Error>> {
        now(match revision {
            1 => Err(api::Error::Compacted),
            2 => Err(api::Error::FutureRev),
            n => Ok(HashKv { revision: 9, hash: 3_868_138_104, compact_revision: -1, hash_revision: n }),
        })
    }

    fn renew_lease(&self, id: i64) -> Awaited<Result<i64, LeaseRefusal>> {
        match id {
            1 => now(Err(LeaseRefusal::NotFound)),
            2 => now(Err(LeaseRefusal::NotPrimary)),
            3 => now(Err(LeaseRefusal::NotCaughtUp)),
            n => now(Ok(n * 10)),
        }
    }

    fn lease_time_to_live(&self, id: i64, keys: bool) -> Awaited<Result<LeaseInfo, LeaseRefusal>> {
        let keys = if keys { vec!["a".into(), "b".into()] } else { vec![] };
        match id {
            1 => now(Err(LeaseRefusal::NotFound)),
            2 => now(Err(LeaseRefusal::Demoted)),
            n => now(Ok(LeaseInfo { ttl: n, granted_ttl: n * 2, keys })),
        }
    }

    fn downgrade_enabled(&self) -> Awaited<Result<bool, String>> {
        now(Ok(true))
    }

    fn receive_image(&self, _: &Message) -> io::Result<Box<dyn ImageSink>> {
        unreachable!("`Shared` opens sinks")
    }
}

/// A member with a way to hand its sinks a reference to it.
struct Shared(Arc<Member>);

macro_rules! forwarded {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {$(
        fn $name(&self, $($arg: $type),*) -> $out {
            self.0.$name($($arg),*)
        }
    )*};
}

impl Local for Shared {
    forwarded! {
        identity() -> Identity;
        receive(message: Message) -> bool;
        process(message: Message) -> Awaited<Result<(), String>>;
        report_unreachable(id: u64) -> ();
        report_snapshot(id: u64, arrived: bool) -> ();
        removed(id: u64) -> bool;
        was_removed() -> ();
        members() -> Vec<MemberInfo>;
        versions() -> (String, String);
        promote(id: u64, token: Option<String>) -> Awaited<Result<Vec<MemberInfo>, api::Error>>;
        hash_kv(revision: i64) -> Awaited<Result<HashKv, api::Error>>;
        renew_lease(id: i64) -> Awaited<Result<i64, LeaseRefusal>>;
        lease_time_to_live(id: i64, keys: bool) -> Awaited<Result<LeaseInfo, LeaseRefusal>>;
        downgrade_enabled() -> Awaited<Result<bool, String>>;
    }

    fn receive_image(&self, _: &Message) -> io::Result<Box<dyn ImageSink>> {
        Ok(Box::new(Sink { member: self.0.clone(), bytes: Vec::new() }))
    }
}

struct Sink {
    member: Arc<Member>,
    bytes: Vec<u8>,
}

impl ImageSink for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.member.disk_full.load(Ordering::Relaxed) {
            return Err(io::Error::other("no space left on device"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.member.tell(Told::Image(self.bytes));
        Ok(())
    }

    fn abandon(self: Box<Self>) {
        self.member.tell(Told::Abandoned);
    }
}

/// A member and its transport, which listens.
pub struct Node {
    pub id: u64,
    pub member: Arc<Member>,
    pub transport: Transport,
    pub address: std::net::SocketAddr,
}

impl Node {
    pub fn start(id: u64) -> Node {
        Node::of_cluster(id, CLUSTER)
    }

    pub fn of_cluster(id: u64, cluster: u64) -> Node {
        Node::on(id, cluster, TcpListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn on(id: u64, cluster: u64, listener: TcpListener) -> Node {
        Node::made(id, cluster, listener, config())
    }

    /// One whose connections wait so long.
    pub fn waiting(id: u64, timeouts: Timeouts) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Node::made(id, CLUSTER, listener, Config { timeouts, ..config() })
    }

    fn made(id: u64, cluster: u64, listener: TcpListener, config: Config) -> Node {
        let address = listener.local_addr().unwrap();
        let member = Arc::new(Member {
            identity: Identity { member: id, cluster, urls: vec![format!("http://{address}")] },
            told: Mutex::default(),
            more: Condvar::new(),
            removed: Mutex::default(),
            refuses: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
        });
        let transport = Transport::start(config, Arc::new(Shared(member.clone()))).unwrap();
        transport.listen(listener, Arc::new(Plain)).unwrap();
        Node { id, member, transport, address }
    }

    pub fn urls(&self) -> Vec<String> {
        vec![format!("http://{}", self.address)]
    }

    pub fn knows(&self, other: &Node) {
        self.transport.add_peer(other.id, &other.urls()).unwrap();
    }

    pub fn message(&self, kind: MessageType, to: u64, index: u64) -> Message {
        Message { kind, to, from: self.id, term: 5, log_term: 5, index, ..Message::default() }
    }

    pub fn send(&self, message: Message) {
        self.transport.send(vec![message]);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.transport.stop();
    }
}

pub fn config() -> Config {
    Config {
        connector: Arc::new(Plain),
        dial_timeout: Duration::from_secs(2),
        snapshot_rate: 1 << 30,
        timeouts: Timeouts::default(),
    }
}

/// Nodes that all know one another.
pub fn cluster(ids: &[u64]) -> Vec<Node> {
    let nodes: Vec<Node> = ids.iter().map(|id| Node::start(*id)).collect();
    for one in &nodes {
        nodes.iter().filter(|other| other.id != one.id).for_each(|other| one.knows(other));
    }
    nodes
}

/// Sends messages of one kind until one arrives by a stream: then the stream stands.
pub fn streams_stand(from: &Node, to: &Node, kind: MessageType) {
    let mut by_stream = |told: &Told| match told {
        Told::Received(m) if m.kind == kind && m.from == from.id => Some(()),
        _ => None,
    };
    to.member.wait_with("message by stream", &mut by_stream, || from.send(from.message(kind, to.id, 1)));
}
