//! Loads with a memory of their own: what was acknowledged, what may have happened, and what the store must hold.
//!
//! Workers write concurrently, each to keys of its own, and write down every acknowledgement. Afterwards the server's
//! own history is read back by a watch and judged:
//!
//! * every acknowledged write is there, at the revision of its answer, with its content;
//! * every event belongs to a write that was asked for (an unanswered one may or may not have happened);
//! * all keys, with revisions, versions and leases, equal a model that replayed the events;
//! * HashKV equals the model's own sum over its records.

use crate::ask::{self, Op};
use crate::process::Server;
use crate::rng::Rng;
use crate::wire::Wire;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::{Event, KeyValue, event::EventType};
use bytes::Bytes;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tonic::Status;

/// Keys of one worker.
const KEYS: u64 = 12;
/// A key that is never deleted: with no live key at all HashKV's filter is off and the sum depends on timing.
const ANCHOR: &str = "anchor";
/// Leases that workers attach keys to; granted once, for a time longer than any test.
const LEASES: i64 = 3;

/// What a worker asked for: the events it must see if it happened. `None` deletes.
#[derive(Clone, Debug)]
struct Write {
    changes: Vec<(Bytes, Option<Bytes>)>,
}

/// What the workers know.
#[derive(Debug, Default)]
struct Journal {
    /// By revision of the answer.
    acknowledged: BTreeMap<i64, Write>,
    /// Asked for and not answered, or answered with an error that leaves it open.
    open: Vec<Write>,
    /// Newest revision below which nothing is needed any more.
    compactable: i64,
    compacted: i64,
}

/// A store as it must be.
#[derive(Debug, Default)]
pub struct History {
    /// The newest that was verified.
    pub revision: i64,
    live: BTreeMap<Bytes, KeyValue>,
    /// Every record ever written: (main, sub) → tombstone, bytes.
    records: BTreeMap<(i64, i64), (bool, KeyValue)>,
    journal: Arc<Mutex<Journal>>,
    seed: u64,
    rounds: u64,
    /// Acknowledged writes that were verified.
    pub verified: u64,
}

impl History {
    /// A history of its own.
    pub fn new(seed: u64) -> History {
        History { revision: 1, seed, ..History::default() }
    }

    /// Writes the anchor and grants the leases, once.
    pub async fn found(&mut self, server: &Server) {
        self.found_keys(server).await;
        self.verify(server).await;
    }

    /// [`History::found`] on a server of another version.
    pub async fn found_keys(&mut self, server: &Server) {
        let wire = Wire::connect(&server.client_url()).await;
        for id in 1..=LEASES {
            let granted: Result<pb::LeaseGrantResponse, Status> =
                wire.unary(ask::GRANT, &ask::grant(id, 100_000)).await;
            granted.expect("a fresh server grants leases");
        }
        let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(ANCHOR, "holds")).await;
        put.expect("a fresh server takes a put");
    }

    /// Starts `workers` that write until told to stop or the server is gone. Compactions, snapshots and
    /// defragmentations are thrown in.
    pub fn load(&mut self, server: &Server, workers: u64) -> Load {
        self.rounds += 1;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..workers {
            let rng = Rng::new(self.seed ^ (self.rounds << 32) ^ (worker << 16));
            tasks.spawn(work(server.client_url(), worker, rng, self.journal.clone(), stopped.clone()));
        }
        let rng = Rng::new(self.seed ^ (self.rounds << 32) ^ 0xffff);
        tasks.spawn(upkeep(server.client_url(), rng, self.journal.clone(), stopped));
        Load { stop, tasks }
    }

    /// Judges the server. Panics with what is wrong.
    pub async fn verify(&mut self, server: &Server) {
        let wire = Wire::connect(&server.client_url()).await;
        let now = revision(&wire).await;
        self.verify_data(&wire, now).await;
        self.compare_hash(&wire).await;
    }

    /// [`History::verify`] without the hash: older versions compute another.
    pub async fn verify_keys(&mut self, server: &Server) {
        let wire = Wire::connect(&server.client_url()).await;
        let now = revision(&wire).await;
        self.verify_data(&wire, now).await;
    }

    async fn verify_data(&mut self, wire: &Wire, now: i64) {
        assert!(now >= self.revision, "revision {now} is behind {}, which was seen before", self.revision);
        self.replay(wire, now).await;
        self.compare_journal(now);
        self.compare_keys(wire).await;
        let mut journal = self.journal.lock().expect("workers do not panic");
        journal.compactable = now;
        self.revision = now;
    }

    /// The model's HashKV at `revision` on a store compacted at `compacted` (−1: never).
    pub fn hash(&self, revision: i64, compacted: i64) -> u32 {
        let mut newest: BTreeMap<&Bytes, ((i64, i64), bool)> = BTreeMap::new();
        for (at, (tombstone, kv)) in self.records.range(..=(revision, i64::MAX)) {
            newest.insert(&kv.key, (*at, *tombstone));
        }
        let keep: BTreeSet<(i64, i64)> =
            newest.values().filter(|(_, tombstone)| !tombstone).map(|(at, _)| *at).collect();
        let mut crc = crc32c::crc32c(b"key");
        for (at @ (main, sub), (tombstone, kv)) in self.records.range(..=(revision, i64::MAX)) {
            let dropped = *main <= compacted && !keep.is_empty() && !keep.contains(at);
            if dropped || *tombstone && *main == compacted {
                continue;
            }
            let mut key = main.to_be_bytes().to_vec();
            key.push(b'_');
            key.extend(sub.to_be_bytes());
            if *tombstone {
                key.push(b't');
            }
            crc = crc32c::crc32c_append(crc, &key);
            crc = crc32c::crc32c_append(crc, &kv.encode_to_vec());
        }
        crc
    }

    async fn replay(&mut self, wire: &Wire, now: i64) {
        if now == self.revision {
            return;
        }
        let start_revision = self.revision + 1;
        let request = pb::WatchCreateRequest { start_revision, ..ask::watch(ask::FROM, ask::FROM) };
        let mut stream = wire.stream(ask::WATCH, ask::create(request).encode_to_vec().into(), &[]);
        let mut seen = self.revision;
        while seen < now {
            let response: pb::WatchResponse =
                stream.next().await.expect("the watch goes on").expect("the watch does not end");
            assert!(!response.canceled, "the history from {start_revision} is gone: {response:?}");
            for event in response.events {
                let main = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                assert!(main >= seen, "events go back from {seen} to {main}");
                let sub = self.records.range((main, 0)..=(main, i64::MAX)).count();
                seen = main;
                self.apply(event, i64::try_from(sub).unwrap_or(i64::MAX));
            }
        }
        assert_eq!(seen, now, "the watch ends at the store's revision");
    }

    fn apply(&mut self, event: Event, sub: i64) {
        let deleted = event.r#type() == EventType::Delete;
        let kv = event.kv.expect("an event has a key");
        let at = (kv.mod_revision, sub);
        let before = self.live.get(&kv.key);
        if deleted {
            assert!(before.is_some(), "a delete event of a key that was not there: {kv:?}");
            self.live.remove(&kv.key);
            let tombstone = KeyValue { key: kv.key, ..KeyValue::default() };
            self.records.insert(at, (true, tombstone));
            return;
        }
        let create_revision = before.map_or(kv.mod_revision, |b| b.create_revision);
        let version = before.map_or(1, |b| b.version + 1);
        assert_eq!((kv.create_revision, kv.version), (create_revision, version), "{kv:?} after {before:?}");
        self.live.insert(kv.key.clone(), kv.clone());
        self.records.insert(at, (false, kv));
    }

    fn compare_journal(&mut self, now: i64) {
        let mut journal = self.journal.lock().expect("workers do not panic");
        let mut open = std::mem::take(&mut journal.open);
        let acknowledged = std::mem::take(&mut journal.acknowledged);
        drop(journal);
        for main in self.revision + 1..=now {
            if acknowledged.contains_key(&main) || self.changes_at(main) == anchor() {
                continue;
            }
            // A write that nobody was told of: fine if it was asked for, once, and is whole.
            let found = self.changes_at(main);
            let at = open.iter().position(|write| is_part(&found, &write.changes));
            let at = at.unwrap_or_else(|| panic!("revision {main} holds what nobody asked for: {found:?}"));
            open.swap_remove(at);
        }
        for (main, write) in acknowledged {
            assert!(main <= now, "an acknowledged write at {main} is lost: the store ends at {now}: {write:?}");
            let found = self.changes_at(main);
            assert_eq!(found, write.changes, "the write acknowledged at {main}");
            self.verified += 1;
        }
    }

    /// What happened at one revision, in order.
    fn changes_at(&self, main: i64) -> Vec<(Bytes, Option<Bytes>)> {
        let records = self.records.range((main, 0)..=(main, i64::MAX));
        records.map(|(_, (tombstone, kv))| (kv.key.clone(), (!tombstone).then(|| kv.value.clone()))).collect()
    }

    async fn compare_keys(&self, wire: &Wire) {
        let held: pb::RangeResponse = wire.unary(ask::RANGE, &ask::everything()).await.expect("a range is answered");
        let model: Vec<&KeyValue> = self.live.values().collect();
        let held: Vec<&KeyValue> = held.kvs.iter().collect();
        assert_eq!(held, model, "all keys");
    }

    async fn compare_hash(&self, wire: &Wire) {
        let answer: pb::HashKvResponse = wire.unary(ask::HASH_KV, &ask::hash_kv(0)).await.expect("a hash is answered");
        let model = self.hash(answer.hash_revision, answer.compact_revision);
        assert_eq!(answer.hash, model, "HashKV at {} compacted {}", answer.hash_revision, answer.compact_revision);
    }
}

fn anchor() -> Vec<(Bytes, Option<Bytes>)> {
    vec![(Bytes::from_static(ANCHOR.as_bytes()), Some(Bytes::from_static(b"holds")))]
}

/// All of a write but deletes of keys that were absent.
fn is_part(found: &[(Bytes, Option<Bytes>)], asked: &[(Bytes, Option<Bytes>)]) -> bool {
    let puts =
        |changes: &[(Bytes, Option<Bytes>)]| changes.iter().filter(|c| c.1.is_some()).cloned().collect::<Vec<_>>();
    puts(found) == puts(asked) && found.iter().all(|c| asked.contains(c))
}

async fn revision(wire: &Wire) -> i64 {
    let answer: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get(ANCHOR)).await.expect("a range is answered");
    answer.header.expect("answers have headers").revision
}

/// Workers at work.
pub struct Load {
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<()>,
}

impl Load {
    /// Ends the workers and waits for them.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("workers do not panic");
        }
    }
}

async fn work(url: String, worker: u64, mut rng: Rng, journal: Arc<Mutex<Journal>>, stopped: watch::Receiver<bool>) {
    let wire = Wire::connect(&url).await;
    // What this worker's keys hold, as far as it knows: deletes of absent keys change nothing.
    let mut count = 0u64;
    while !*stopped.borrow() {
        count += 1;
        let (request, write) = next_write(worker, &mut rng, count);
        let answer: Result<pb::TxnResponse, Status> = wire.unary(ask::TXN, &request).await;
        let mut journal = journal.lock().expect("workers do not panic");
        match answer {
            Ok(answer) => {
                let deleted = answer.responses.iter().any(|r| {
                    matches!(&r.response,
                    Some(pb::response_op::Response::ResponseDeleteRange(d)) if d.deleted == 0)
                });
                let write = Write {
                    changes: write.changes.into_iter().filter(|(_, value)| value.is_some() || !deleted).collect(),
                };
                if !write.changes.is_empty() {
                    journal.acknowledged.insert(answer.header.map_or(0, |h| h.revision), write);
                }
            }
            Err(_) => {
                journal.open.push(write);
                return;
            }
        }
    }
}

/// One transaction: one or two puts, maybe a delete of another key.
fn next_write(worker: u64, rng: &mut Rng, count: u64) -> (pb::TxnRequest, Write) {
    let own = |n: u64| format!("w{worker}/{n:02}");
    let (mut ops, mut changes) = (Vec::new(), Vec::new());
    let first = rng.below(KEYS);
    let mut put = |rng: &mut Rng, n: u64| {
        let len = if rng.one_in(50) { 20_000 } else { rng.below(200) };
        let value = format!("{count} {}", rng.letters(len));
        let lease = if rng.one_in(4) { 1 + i64::try_from(rng.below(3)).unwrap_or(0) } else { 0 };
        ops.push(pb::PutRequest { lease, ..ask::put(&own(n), &value) }.op());
        changes.push((Bytes::from(own(n)), Some(Bytes::from(value))));
    };
    if !rng.one_in(5) {
        put(rng, first);
    }
    if rng.one_in(4) {
        put(rng, (first + 1) % KEYS);
    }
    if changes.is_empty() || rng.one_in(6) {
        let gone = own((first + 2) % KEYS);
        ops.push(ask::delete(&gone, "").op());
        changes.push((Bytes::from(gone), None));
    }
    (ask::txn(vec![], ops, vec![]), Write { changes })
}

/// What operators do meanwhile.
async fn upkeep(url: String, mut rng: Rng, journal: Arc<Mutex<Journal>>, stopped: watch::Receiver<bool>) {
    let wire = Wire::connect(&url).await;
    while !*stopped.borrow() {
        let pause = std::time::Duration::from_millis(1 + rng.below(40));
        tokio::time::sleep(pause).await;
        match rng.below(4) {
            0 | 1 => {
                let (from, to) = {
                    let journal = journal.lock().expect("workers do not panic");
                    (journal.compacted, journal.compactable)
                };
                let target = from + i64::try_from(rng.below(u64::try_from(to - from).unwrap_or(0) + 1)).unwrap_or(0);
                if target <= from {
                    continue;
                }
                let request = pb::CompactionRequest { revision: target, physical: rng.one_in(2) };
                let done: Result<pb::CompactionResponse, Status> = wire.unary(ask::COMPACT, &request).await;
                // Maybe it happened even so.
                journal.lock().expect("workers do not panic").compacted = target;
                if done.is_err_and(|e| e.code() != tonic::Code::OutOfRange) {
                    return;
                }
            }
            2 => {
                let done: Result<pb::DefragmentResponse, Status> =
                    wire.unary(ask::DEFRAGMENT, &pb::DefragmentRequest {}).await;
                if done.is_err() {
                    return;
                }
            }
            _ => {
                let (_, end) = wire.collect::<_, pb::SnapshotResponse>(ask::SNAPSHOT, &pb::SnapshotRequest {}).await;
                if end.is_err() {
                    return;
                }
            }
        }
    }
}
