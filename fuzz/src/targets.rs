//! The targets. Files stand on the simulated disk.

use api::pb::etcdserverpb as pb;
use api::raft::{
    ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Message, MessageType, Snapshot,
    SnapshotMetadata,
};
use bolt::Fill;
use bytes::Bytes;
use disk::{OpenOptions, SharedDisk, SimDisk, SimOptions};
use prost::Message as _;
use std::path::{Path, PathBuf};
use store::Store;
use wal::{Wal, WalOptions, WalSnapshot};

fn disk() -> SharedDisk {
    SimDisk::new(SimOptions { seed: 1, capacity: 64 << 20 }).shared()
}

fn write(disk: &SharedDisk, path: &Path, bytes: &[u8]) {
    disk.create_dir_all(path.parent().expect("a file in a folder"), 0o700).expect("the simulated disk has room");
    let file = disk.open(path, OpenOptions::create()).expect("the simulated disk has room");
    file.write_at(bytes, 0).expect("the simulated disk has room");
}

fn entry(index: u64, data: Vec<u8>) -> Entry {
    Entry { term: 1, index, kind: EntryKind::Normal, data: data.into() }
}

// ---- raft ------------------------------------------------------------------------------------------------------

fn snapshot() -> Snapshot {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let metadata = SnapshotMetadata { index: 9, term: 2, conf_state };
    Snapshot { data: Bytes::from_static(b"{}"), metadata }
}

/// Entries, states, messages, conf changes as they come from files and peers.
pub fn raft_corpus() -> Vec<Vec<u8>> {
    let change = ConfChange { id: 1, kind: ConfChangeKind::AddNode, node_id: 7, context: Bytes::from_static(b"{}") };
    let message = Message {
        kind: MessageType::MsgApp,
        to: 1,
        from: 2,
        term: 3,
        entries: vec![entry(4, b"x".to_vec()), entry(5, vec![])],
        snapshot: Some(snapshot()),
        ..Message::default()
    };
    vec![
        entry(3, b"data".to_vec()).encode(),
        HardState { term: 1, vote: 2, commit: 3 }.encode(),
        snapshot().encode(),
        message.encode(),
        change.encode(),
    ]
}

/// Every decoder of raft's types on the same bytes; what is understood must survive a round trip.
pub fn raft(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(e) = Entry::decode(bytes.clone()) {
        assert_eq!(Entry::decode(e.encode().into()).ok(), Some(e));
    }
    if let Ok(s) = HardState::decode(bytes.clone()) {
        assert_eq!(HardState::decode(s.encode().into()).ok(), Some(s));
    }
    if let Ok(s) = Snapshot::decode(bytes.clone()) {
        assert_eq!(Snapshot::decode(s.encode().into()).ok(), Some(s));
    }
    if let Ok(m) = Message::decode(bytes.clone()) {
        assert_eq!(Message::decode(m.encode().into()).ok(), Some(m));
    }
    if let Ok(c) = ConfChange::decode(bytes) {
        assert_eq!(ConfChange::decode(c.encode().into()).ok(), Some(c));
    }
}

// ---- log and .snap ---------------------------------------------------------------------------------------------

const WAL: &str = "/wal";
const SEGMENT: &str = "/wal/0000000000000000-0000000000000000.wal";

fn wal_options() -> WalOptions {
    WalOptions { segment_bytes: 4096, ..WalOptions::default() }
}

fn origin() -> WalSnapshot {
    WalSnapshot { index: 0, term: 0, conf_state: None }
}

/// One segment with entries, states and a snapshot mark, without the preallocated rest and with it.
pub fn log_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
    let mut wal = Wal::create(disk.clone(), Path::new(WAL), Bytes::from_static(b"meta"), options).expect("room");
    let entries: Vec<Entry> = (1..20).map(|i| entry(i, vec![b'e'; usize::try_from(i * 7).unwrap_or(1)])).collect();
    wal.append(&HardState { term: 1, vote: 1, commit: 5 }, &entries).expect("room");
    wal.sync().expect("room");
    wal.save_snapshot(&WalSnapshot { index: 5, term: 1, conf_state: Some(ConfState::default()) }).expect("room");
    wal.append(&HardState { term: 1, vote: 1, commit: 19 }, &[entry(20, vec![]), entry(20, b"again".to_vec())])
        .expect("room");
    wal.sync().expect("room");
    drop(wal);
    let whole = disk.read(Path::new(SEGMENT), 2 << 20).expect("the segment is there");
    let end = whole.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    vec![whole[..end.next_multiple_of(8)].to_vec(), whole[..4096].to_vec()]
}

/// Opened for writing, appended to, opened again: what was appended is there.
pub fn log(input: &[u8]) {
    let disk = disk();
    write(&disk, Path::new(SEGMENT), input);
    drop(wal::valid_snapshots(&disk, Path::new(WAL)));
    drop(Wal::read_only(&disk, Path::new(WAL), &origin()));
    let Ok((mut wal, replay)) = Wal::open(disk.clone(), Path::new(WAL), &origin(), wal_options()) else { return };
    let index = replay.entries.last().map_or(0, |e| e.index) + 1;
    wal.append(&HardState { term: 9, vote: 0, commit: 0 }, &[entry(index, b"new".to_vec())]).expect("room");
    wal.sync().expect("room");
    drop(wal);
    let (_, again) = Wal::open(disk, Path::new(WAL), &origin(), wal_options()).expect("a repaired log opens");
    assert_eq!(again.entries.last().map(|e| e.index), Some(index));
    assert_eq!(again.entries.len(), replay.entries.len() + 1);
}

const SNAP: &str = "/snap";

pub fn snap_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    disk.create_dir_all(Path::new(SNAP), 0o700).expect("room");
    let snapshotter = wal::snap::Snapshotter::new(disk.clone(), Path::new(SNAP));
    snapshotter.save(&snapshot()).expect("room");
    let name = snapshotter.list().expect("a folder").pop().expect("just saved");
    vec![disk.read(&PathBuf::from(SNAP).join(name), 1 << 20).expect("just saved")]
}

pub fn snap(input: &[u8]) {
    let disk = disk();
    let name = "0000000000000002-0000000000000009.snap";
    write(&disk, &PathBuf::from(SNAP).join(name), input);
    let snapshotter = wal::snap::Snapshotter::new(disk, Path::new(SNAP));
    drop(snapshotter.load(name));
    let recorded = [WalSnapshot { index: 9, term: 2, conf_state: None }];
    drop(snapshotter.newest_available(&recorded));
}

// ---- page store ------------------------------------------------------------------------------------------------

const DB: &str = "/db/db";

fn page_options() -> bolt::Options {
    bolt::Options { page_size: Some(1024), cache_bytes: 64 << 10, ..bolt::Options::default() }
}

/// A small file with branches, leaves, an overflow page and free pages.
pub fn page_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    disk.create_dir_all(Path::new("/db"), 0o700).expect("room");
    let db = bolt::Db::open(disk.clone(), Path::new(DB), page_options()).expect("a new file");
    let mut tx = db.begin().expect("a new file");
    for bucket in ["key", "meta"] {
        tx.create_bucket(bucket.as_bytes()).expect("room");
        for n in 0..80u32 {
            let value = vec![b'v'; if n == 40 { 3000 } else { 40 }];
            tx.put(bucket.as_bytes(), n.to_be_bytes().to_vec().into(), value.into(), Fill::Append).expect("room");
        }
    }
    tx.commit().expect("room");
    let mut tx = db.begin().expect("a good file");
    for n in 0..30u32 {
        tx.delete(b"key", &n.to_be_bytes()).expect("a good file");
    }
    tx.commit().expect("room");
    drop(db);
    vec![disk.read(Path::new(DB), 1 << 20).expect("the file is there")]
}

/// Opened, checked, read through, written to. The metas' checksums are mended half of the time, so that damage gets past
/// them.
pub fn page_store(input: &[u8]) {
    let mut input = input.to_vec();
    if input.last().is_some_and(|b| b % 2 == 0) {
        mend(&mut input, 0);
        mend(&mut input, 1024);
    }
    let disk = disk();
    write(&disk, Path::new(DB), &input);
    let Ok(db) = bolt::Db::open(disk, Path::new(DB), page_options()) else { return };
    let view = db.view();
    drop(db.check());
    for bucket in view.buckets().unwrap_or_default() {
        drop(view.last(&bucket));
        drop(view.get(&bucket, b"\0\0\0\x07"));
        if let Ok(range) = view.range(&bucket, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded) {
            // A cycle of pages must end in an error, not in an endless walk.
            let pairs = range.take_while(Result::is_ok).take(100_000).count();
            assert!(pairs < 100_000, "an endless walk");
        }
    }
    let Ok(mut tx) = db.begin() else { return };
    for n in 20..60u32 {
        let key = n.to_be_bytes();
        let done = tx.put(b"key", key.to_vec().into(), Bytes::from_static(b"changed"), Fill::Append);
        if done.is_err() || tx.delete(b"meta", &key).is_err() {
            return;
        }
    }
    drop(tx.commit());
}

/// FNV-1a over the first 56 bytes of a meta (bbolt's checksum).
fn mend(file: &mut [u8], page: usize) {
    let Some(meta) = file.get_mut(page + 16..page + 80) else { return };
    let sum =
        meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    meta[56..64].copy_from_slice(&sum.to_le_bytes());
}

// ---- apply -----------------------------------------------------------------------------------------------------

fn store() -> Store {
    let disk = disk();
    disk.create_dir_all(Path::new("/db"), 0o700).expect("room");
    let options = store::Options { page_size: Some(4096), cache_bytes: 64 << 10, ..store::Options::default() };
    Store::open(disk, Path::new(DB), options).expect("a new store")
}

fn internal(fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Vec<u8> {
    let header = pb::RequestHeader { id: 7, ..pb::RequestHeader::default() };
    let mut request = pb::InternalRaftRequest { header: Some(header), ..pb::InternalRaftRequest::default() };
    fill(&mut request);
    request.encode_to_vec()
}

/// One entry of every kind that this release applies.
pub fn entry_corpus() -> Vec<Vec<u8>> {
    let key = || Bytes::from_static(b"k");
    let put = pb::PutRequest { key: key(), value: key(), prev_kv: true, ..pb::PutRequest::default() };
    let range = pb::RangeRequest { key: key(), range_end: Bytes::from_static(b"\0"), ..pb::RangeRequest::default() };
    let delete = pb::DeleteRangeRequest { key: key(), range_end: Bytes::from_static(b"z"), prev_kv: true };
    let op = |request| pb::RequestOp { request: Some(request) };
    use pb::request_op::Request;
    let nested = pb::TxnRequest { success: vec![op(Request::RequestPut(put.clone()))], ..pb::TxnRequest::default() };
    let compare = pb::Compare {
        key: key(),
        target: 3,
        target_union: Some(pb::compare::TargetUnion::Value(key())),
        ..pb::Compare::default()
    };
    let txn = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestDeleteRange(delete.clone())), op(Request::RequestTxn(nested))],
        failure: vec![op(Request::RequestRange(range.clone()))],
    };
    vec![
        internal(|r| r.put = Some(put)),
        internal(|r| r.delete_range = Some(delete)),
        internal(|r| r.range = Some(range)),
        internal(|r| r.txn = Some(txn)),
        internal(|r| r.compaction = Some(pb::CompactionRequest { revision: 1, physical: true })),
        internal(|r| r.lease_grant = Some(pb::LeaseGrantRequest { ttl: 60, id: 5 })),
        internal(|r| r.lease_revoke = Some(pb::LeaseRevokeRequest { id: 5 })),
        internal(|r| r.alarm = Some(pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 })),
        internal(|r| {
            let ver = "3.7.0".to_owned();
            r.cluster_version_set = Some(api::pb::membershippb::ClusterVersionSetRequest { ver });
        }),
    ]
}

/// Applied twice in a row, then published: an error is fine, also a fatal one; a panic would kill every member of the
/// cluster.
pub fn entries(input: &[u8]) {
    let mut store = store();
    let seed = internal(|r| {
        let put = pb::PutRequest { key: Bytes::from_static(b"k"), ..pb::PutRequest::default() };
        r.put = Some(put);
    });
    drop(store.apply(&entry(1, seed)));
    for index in 2..4 {
        if store.apply(&entry(index, input.to_vec())).is_err() {
            return;
        }
    }
    let (applied, _) = store.publish();
    drop(applied.hash_kv(0, &|_| ()));
    while store.compaction_pending() {
        if store.compaction_step(10, 10).is_err() {
            return;
        }
    }
    drop(store.freeze());
}

/// Entries of 3.5 that carry etcd 2 requests.
pub fn v2_corpus() -> Vec<Vec<u8>> {
    let request = |method: &str, path: &str, value: &str| {
        // etcd 2's Request: 1 id, 2 method, 3 path, 4 value.
        let mut bytes = vec![0x08, 3];
        for (tag, text) in [(0x12, method), (0x1a, path), (0x22, value)] {
            bytes.push(tag);
            bytes.push(u8::try_from(text.len()).expect("a short text"));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes
    };
    vec![
        request("PUT", "/0/version", "3.5.0"),
        request("PUT", "/0/members/8e9e05c52164694d/attributes", r#"{"name":"a","clientURLs":["http://a:1"]}"#),
        request("QGET", "/1/x", ""),
    ]
}

pub fn v2_entries(input: &[u8]) {
    let mut store = store();
    drop(store.apply(&entry(1, input.to_vec())));
    drop(store.publish());
}

// ---- configuration ---------------------------------------------------------------------------------------------

pub fn command_corpus() -> Vec<Vec<u8>> {
    [
        "--name=a\n--listen-client-urls=http://127.0.0.1:1,unix://x:1\n--advertise-client-urls=http://[::1]:2",
        "--grpc-keepalive-interval=1h2m3.5s\n--max-txn-ops=0x10\n--pre-vote=false\n--quota-backend-bytes=-1",
        "--feature-gates=AllAlpha=true,LeaseCheckpoint=false\n--initial-cluster=a=http://b:1,c=https://d:2",
        "--auto-compaction-mode=revision\n--auto-compaction-retention=1000\n--log-outputs=stdout,stderr",
    ]
    .map(|line| line.as_bytes().to_vec())
    .to_vec()
}

/// Words of a command line, one a line; the same as variables.
pub fn command_line(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    let pairs = text.lines().filter_map(|l| l.trim_start_matches('-').split_once('='));
    let env: Vec<(String, String)> = pairs.map(|(k, v)| (etcd::config::variable_of(k), v.to_owned())).collect();
    for (args, env) in [(&words[..], &[][..]), (&[][..], &env[..])] {
        // A file of that name is not this target's.
        if words.iter().any(|w| w.contains("config-file")) {
            continue;
        }
        if let etcd::config::Asked::Run(loaded) = etcd::config::load(args, env) {
            drop(etcd::config::validate(&loaded.config, &mut Vec::new()));
            drop(etcd::config::local_member(&loaded.config));
        }
    }
}

pub fn config_corpus() -> Vec<Vec<u8>> {
    [
        "name: a\nmax-txn-ops: 7\nlog-outputs: [stderr]\npre-vote: false\n",
        "{\"listen-client-urls\": \"http://127.0.0.1:1\", \"quota-backend-bytes\": -1}",
        "client-transport-security:\n  cert-file: x\n  client-cert-auth: true\nfeature-gates: \"AllBeta=true\"\n",
        "a: &x [1, 2]\nb: *x\nwatch-progress-notify-interval: 5000000000\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub fn config_file(input: &[u8]) {
    let mut config = etcd::config::Config::default();
    drop(etcd::config::read_file(&String::from_utf8_lossy(input), &mut config));
}
