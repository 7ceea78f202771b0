//! Our member: the transport, a raft core and a thread that drives it. It keeps all in memory and applies nothing but
//! conf changes.

use crate::go::TOKEN;
use api::raft::{ConfChange, Entry, EntryKind, HardState, Message, MessageType, Snapshot};
use parking_lot::Mutex;
use raft::{Config, MemoryStorage, RawNode};
use rpc::peer::{Awaited, HashKv, Identity, ImageSink, LeaseInfo, LeaseRefusal, Local, MemberInfo, Plain, Transport};
use sha1::{Digest, Sha1};
use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const TICK: Duration = Duration::from_millis(100);
/// Ticks without a leader before we stand for election: not in this test.
const ELECTION: usize = 10_000;
const INBOX: usize = 4096;

type Reply = oneshot::Sender<Result<(), String>>;

enum Input {
    Message(Box<Message>, Option<Reply>),
    Unreachable(u64),
}

pub struct Ours {
    listener: TcpListener,
    state: OnceLock<(Arc<Member>, Transport)>,
    pub applied: Arc<Mutex<Vec<Entry>>>,
    leads: Arc<AtomicBool>,
}

fn first_eight(digest: impl AsRef<[u8]>) -> u64 {
    u64::from_be_bytes(digest.as_ref()[..8].try_into().unwrap())
}

/// etcd's ids: of a member by its URL and the token, of the cluster by its members.
fn member_id(url: &str) -> u64 {
    first_eight(Sha1::digest(format!("{url}{TOKEN}")))
}

impl Ours {
    pub fn bind() -> Ours {
        Ours {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            state: OnceLock::new(),
            applied: Arc::default(),
            leads: Arc::default(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// Of the other member, of ours.
    pub fn ids(&self, other: &str) -> (u64, u64) {
        (member_id(other), member_id(&self.url()))
    }

    pub fn id(&self, other: &str) -> u64 {
        self.ids(other).1
    }

    pub fn start(&self, other: &str) {
        let (their_id, id) = self.ids(other);
        let mut members = [(their_id, other.to_owned(), "a"), (id, self.url(), "b")];
        members.sort_unstable();
        let cluster = first_eight(Sha1::digest(members.iter().flat_map(|m| m.0.to_be_bytes()).collect::<Vec<u8>>()));
        let (inbox, inputs) = sync_channel(INBOX);
        let member = Arc::new(Member {
            identity: Identity { member: id, cluster, urls: vec![self.url()] },
            members: members.iter().map(|(id, url, name)| info(*id, url, name)).collect(),
            inbox,
            streamed: Mutex::default(),
            removed: AtomicBool::new(false),
        });
        let config = rpc::peer::Config {
            connector: Arc::new(Plain),
            dial_timeout: Duration::from_secs(2),
            snapshot_rate: 64 << 20,
            timeouts: rpc::peer::Timeouts::default(),
        };
        let transport = Transport::start(config, member.clone()).unwrap();
        transport.listen(self.listener.try_clone().unwrap(), Arc::new(Plain)).unwrap();
        transport.add_peer(their_id, &[other.to_owned()]).unwrap();
        let driver = Driver {
            node: bootstrap(id, &members),
            transport: transport.clone(),
            applied: self.applied.clone(),
            leads: self.leads.clone(),
        };
        std::thread::spawn(move || driver.run(&inputs));
        assert!(self.state.set((member, transport)).is_ok());
    }

    fn member(&self) -> &Member {
        &self.state.get().unwrap().0
    }

    pub fn transport(&self) -> &Transport {
        &self.state.get().unwrap().1
    }

    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// Whether a message of this kind came by a stream.
    pub fn streamed(&self, kind: MessageType) -> bool {
        self.member().streamed.lock().contains(&(kind as i32))
    }

    pub fn was_removed(&self) -> bool {
        self.member().removed.load(Ordering::Relaxed)
    }

    pub fn received_bytes(&self) -> u64 {
        self.transport().metrics().iter().map(|m| m.received_bytes).sum()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if let Some((_, transport)) = self.state.get() {
            transport.stop();
        }
    }
}

fn info(id: u64, url: &str, name: &str) -> MemberInfo {
    MemberInfo { id, peer_urls: vec![url.to_owned()], name: name.to_owned(), ..MemberInfo::default() }
}

/// The log that every member of a new cluster begins with: one conf change each, in order of the ids, committed.
fn bootstrap(id: u64, members: &[(u64, String, &str)]) -> RawNode {
    let entries: Vec<Entry> = (1..)
        .zip(members)
        .map(|(index, (node_id, url, name))| {
            let context = format!(r#"{{"id":{node_id},"peerURLs":["{url}"],"name":"{name}"}}"#);
            let change = ConfChange { node_id: *node_id, context: context.into(), ..ConfChange::default() };
            Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode().into() }
        })
        .collect();
    let mut storage = MemoryStorage::new();
    let commit = entries.len() as u64;
    storage.restore(Snapshot::default(), HardState { term: 1, vote: 0, commit });
    storage.append(&entries);
    let config = Config { id, election_tick: ELECTION, async_storage_writes: false, seed: 1, ..Config::default() };
    RawNode::new(config, storage).unwrap()
}

struct Driver {
    node: RawNode,
    transport: Transport,
    applied: Arc<Mutex<Vec<Entry>>>,
    leads: Arc<AtomicBool>,
}

impl Driver {
    fn run(mut self, inputs: &Receiver<Input>) {
        let mut tick = Instant::now() + TICK;
        loop {
            match inputs.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {
                    self.node.tick();
                    tick += TICK;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while self.node.has_ready() {
                self.ready();
            }
            self.leads.store(self.node.leader() == self.node.id(), Ordering::Relaxed);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Message(message, reply) => {
                let outcome = self.node.step(*message).map_err(|e| e.to_string());
                if let Some(reply) = reply {
                    drop(reply.send(outcome));
                }
            }
            Input::Unreachable(id) => self.node.report_unreachable(id),
        }
    }

    fn ready(&mut self) {
        let ready = self.node.ready();
        assert_eq!(ready.snapshot, None, "nobody needs a snapshot here");
        self.node.storage_mut().append(&ready.entries);
        self.transport.send(ready.messages);
        for entry in &ready.committed_entries {
            if entry.kind == EntryKind::ConfChange {
                let change = ConfChange::decode(entry.data.clone()).unwrap();
                self.node.apply_conf_change(&change).unwrap();
            }
        }
        self.applied.lock().extend(ready.committed_entries);
        self.node.advance();
    }
}

struct Member {
    identity: Identity,
    members: Vec<MemberInfo>,
    inbox: SyncSender<Input>,
    streamed: Mutex<BTreeSet<i32>>,
    removed: AtomicBool,
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
        self.streamed.lock().insert(message.kind as i32);
        self.inbox.try_send(Input::Message(Box::new(message), None)).is_ok()
    }

    fn process(&self, message: Message) -> Awaited<Result<(), String>> {
        let (sender, receiver) = oneshot::channel();
        match self.inbox.try_send(Input::Message(Box::new(message), Some(sender))) {
            Ok(()) => receiver,
            Err(TrySendError::Full(_)) => now(Err("the inbox is full".to_owned())),
            Err(TrySendError::Disconnected(_)) => now(Err("stopped".to_owned())),
        }
    }

    fn report_unreachable(&self, id: u64) {
        drop(self.inbox.try_send(Input::Unreachable(id)));
    }

    fn report_snapshot(&self, _: u64, _: bool) {}

    fn removed(&self, _: u64) -> bool {
        false
    }

    fn was_removed(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    fn members(&self) -> Vec<MemberInfo> {
        self.members.clone()
    }

    fn versions(&self) -> (String, String) {
        ("not_decided".to_owned(), "unknown".to_owned())
    }

    fn promote(&self, _: u64, _: Option<String>) -> Awaited<Result<Vec<MemberInfo>, api::Error>> {
        now(Err(api::Error::MemberNotFound))
    }

    fn hash_kv(&self, _: i64) -> Awaited<Result<HashKv, api::Error>> {
        now(Err(api::Error::FutureRev))
    }

    fn renew_lease(&self, _: i64) -> Awaited<Result<i64, LeaseRefusal>> {
        now(Err(LeaseRefusal::NotFound))
    }

    fn lease_time_to_live(&self, _: i64, _: bool) -> Awaited<Result<LeaseInfo, LeaseRefusal>> {
        now(Err(LeaseRefusal::NotFound))
    }

    fn downgrade_enabled(&self) -> Awaited<Result<bool, String>> {
        now(Ok(false))
    }

    fn receive_image(&self, _: &Message) -> io::Result<Box<dyn ImageSink>> {
        Err(io::Error::other("no snapshots here"))
    }
}
