//! What the log's entries and the page store's records mean: a panic at apply would kill every member of the cluster.

use super::world::{DB, disk, entry, read, store, store_options, write};
use super::{EMPTY, named};
use crate::{Shape, Target};
use api::pb::authpb;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind};
use bolt::Fill;
use bytes::Bytes;
use prost::Message as _;
use std::path::Path;
use std::sync::LazyLock;
use store::Store;

pub const ENTRIES: Target = Target {
    name: "entries",
    covers: &["store/apply.rs::decode", "store/apply.rs::oldest_reader", "store/applied.rs::decode_kv"],
    shape: Shape::Proto(0),
    corpus: requests,
    run: entries,
    ..EMPTY
};

pub const CONF_CHANGES: Target = Target {
    name: "conf-changes",
    covers: &["store/apply.rs::apply_conf_change", "store/store.rs::json_value"],
    shape: Shape::Proto(0),
    corpus: conf_change_corpus,
    run: conf_changes,
    ..EMPTY
};

pub const V2_ENTRIES: Target = Target {
    name: "v2-entries",
    covers: &["store/v2.rs::parse", "store/v2.rs::translate"],
    shape: Shape::Proto(0),
    corpus: v2_corpus,
    run: v2_entries,
    ..EMPTY
};

pub const RECORDS: Target = Target {
    name: "stored-records",
    covers: &[
        "store/store.rs::open",
        "store/store.rs::restore_small",
        "store/schema.rs::parse_revision",
        "store/auth/mod.rs::load",
    ],
    shape: Shape::Proto(0),
    corpus: record_corpus,
    run: records,
    ..EMPTY
};

fn internal(fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Vec<u8> {
    let header = pb::RequestHeader { id: 7, ..pb::RequestHeader::default() };
    let mut request = pb::InternalRaftRequest { header: Some(header), ..pb::InternalRaftRequest::default() };
    fill(&mut request);
    request.encode_to_vec()
}

/// One request of every kind that this release applies.
pub fn requests() -> Vec<Vec<u8>> {
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

/// A put, so that there is something.
pub fn first_put() -> Vec<u8> {
    let put = pb::PutRequest { key: Bytes::from_static(b"k"), ..pb::PutRequest::default() };
    internal(|r| r.put = Some(put))
}

/// Applied twice in a row, then published, compacted, written and read back: an error is fine, also a fatal one.
fn entries(input: &[u8]) -> bool {
    let mut store = store();
    store.apply(&entry(1, first_put())).expect("a put");
    for index in 2..4 {
        if named(store.apply(&entry(index, input.to_vec()))).is_none() {
            return false;
        }
    }
    store::oldest_reader(&entry(2, input.to_vec()));
    settle(&mut store)
}

/// All that follows an apply; then the page store has what memory had.
fn settle(store: &mut Store) -> bool {
    while store.compaction_pending() {
        if store.compaction_step(10, 10).is_err() {
            return false;
        }
    }
    let (applied, _) = store.publish();
    let before = named(applied.hash_kv(0, &|_| ()));
    if let Some(mut checkpoint) = store.freeze() {
        checkpoint.run(&|_| ()).expect("room");
        store.checkpointed(checkpoint).expect("room");
    }
    let (applied, _) = store.publish();
    assert_eq!(named(applied.hash_kv(0, &|_| ())), before, "a checkpoint changes nothing");
    true
}

fn conf_entry(data: Vec<u8>) -> Entry {
    Entry { term: 1, index: 2, kind: EntryKind::ConfChange, data: data.into() }
}

/// Members that come, move, are promoted, go.
fn conf_change_corpus() -> Vec<Vec<u8>> {
    let change = |kind, context: &str| {
        ConfChange { id: 1, kind, node_id: 7, context: Bytes::copy_from_slice(context.as_bytes()) }.encode()
    };
    let member = store::member_json(7, &["http://a:1".into()], "a");
    vec![
        change(ConfChangeKind::AddNode, &member),
        change(ConfChangeKind::AddLearnerNode, r#"{"id":7,"peerURLs":["http://a:1"],"isLearner":true}"#),
        change(ConfChangeKind::UpdateNode, &member),
        change(ConfChangeKind::AddNode, &store::promotion_json(7)),
        change(ConfChangeKind::RemoveNode, ""),
    ]
}

/// On a cluster that has a member already, and on one that has the learner.
fn conf_changes(input: &[u8]) -> bool {
    let mut understood = false;
    for learner in [false, true] {
        let mut store = store();
        let before = &conf_change_corpus()[usize::from(learner)];
        let before = Entry { index: 1, ..conf_entry(before.clone()) };
        store.apply_conf_change(&before).expect("a member");
        understood |= named(store.apply_conf_change(&conf_entry(input.to_vec()))).is_some() && settle(&mut store);
    }
    understood
}

/// Entries of 3.5 that carry etcd 2 requests.
fn v2_corpus() -> Vec<Vec<u8>> {
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

fn v2_entries(input: &[u8]) -> bool {
    let mut store = store();
    named(store.apply(&entry(1, input.to_vec()))).is_some() && settle(&mut store)
}

/// A record of the page store.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    bucket: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
}

/// The file of a store in which everything has happened once.
pub fn populated() -> &'static [u8] {
    static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let disk = disk();
        disk.create_dir_all(Path::new("/db"), 0o700).expect("room");
        let mut store = Store::open(disk.clone(), Path::new(DB), store_options()).expect("a new store");
        let member = Entry { index: 1, ..conf_entry(conf_change_corpus().swap_remove(0)) };
        store.apply_conf_change(&member).expect("a member");
        for (index, request) in (2..).zip(requests()) {
            store.apply(&entry(index, request)).expect("requests of today");
        }
        store.set_storage_version(Some("3.7.0"));
        settle(&mut store);
        drop(store);
        read(&disk, Path::new(DB))
    });
    &FILE
}

/// Every record of such a file, and some that Go writes.
fn record_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    write(&disk, Path::new(DB), populated());
    let db = bolt::Db::open(disk, Path::new(DB), bolt::Options::default()).expect("a good file");
    let view = db.view();
    let mut all = Vec::new();
    for bucket in view.buckets().expect("a good file") {
        let range = view.range(&bucket, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded).expect("a good file");
        for pair in range {
            let (key, value) = pair.expect("a good file");
            all.push(Record { bucket: bucket.clone(), key, value }.encode_to_vec());
        }
    }
    let more = |bucket: &'static str, key: &'static [u8], value: Vec<u8>| {
        let (bucket, key) = (Bytes::from_static(bucket.as_bytes()), Bytes::from_static(key));
        Record { bucket, key, value: value.into() }.encode_to_vec()
    };
    let lease = api::pb::leasepb::Lease { id: 9, ttl: 60, remaining_ttl: 7 };
    let kv = KeyValue { key: Bytes::from_static(b"k"), version: 1, lease: 9, ..KeyValue::default() };
    all.push(more("lease", b"\0\0\0\0\0\0\0\x09", lease.encode_to_vec()));
    all.push(more("key", b"\0\0\0\0\0\0\0\x09_\0\0\0\0\0\0\0\0", kv.encode_to_vec()));
    all.push(more("key", b"\0\0\0\0\0\0\0\x0a_\0\0\0\0\0\0\0\0t", kv.encode_to_vec()));
    all.push(more("members_removed", b"8e9e05c52164694d", b"removed".to_vec()));
    all.push(more("cluster", b"downgrade", br#"{"target-version":"3.6.0","enabled":true}"#.to_vec()));
    all.push(more("auth", b"authRevision", vec![0, 0, 0, 0, 0, 0, 0, 1]));
    let user = authpb::User { name: "root".into(), roles: vec!["root".into(), "r".into()], ..authpb::User::default() };
    all.push(more("authUsers", b"root", user.encode_to_vec()));
    let permission = authpb::Permission { perm_type: 2, key: "k".into(), range_end: "l".into() };
    let role = authpb::Role { name: "r".into(), key_permission: vec![permission] };
    all.push(more("authRoles", b"r", role.encode_to_vec()));
    all
}

/// Put into a good file, which is then opened as at a start, and lived in.
fn records(input: &[u8]) -> bool {
    let Ok(record) = Record::decode(input) else { return false };
    let disk = disk();
    write(&disk, Path::new(DB), populated());
    let db = bolt::Db::open(disk.clone(), Path::new(DB), bolt::Options::default()).expect("a good file");
    let mut tx = db.begin().expect("a good file");
    let put = tx
        .create_bucket(&record.bucket)
        .and_then(|()| tx.put(&record.bucket, record.key.clone(), record.value.clone(), Fill::Half))
        .and_then(|()| tx.commit());
    drop(db);
    if named(put).is_none() {
        return false;
    }
    let Some(mut store) = named(Store::open(disk, Path::new(DB), store_options())) else { return false };
    let next = store.consistent_index().saturating_add(1);
    for request in requests() {
        drop(named(store.apply(&entry(next, request))));
    }
    settle(&mut store)
}
