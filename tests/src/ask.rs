//! Short ways to say requests, so that scripts read like tables.

use bytes::Bytes;

use api::pb::etcdserverpb as pb;
use pb::{compare, request_op, watch_request};

pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
pub const TXN: &str = "/etcdserverpb.KV/Txn";
pub const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
pub const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub const TIME_TO_LIVE: &str = "/etcdserverpb.Lease/LeaseTimeToLive";
pub const LEASES: &str = "/etcdserverpb.Lease/LeaseLeases";
pub const STATUS: &str = "/etcdserverpb.Maintenance/Status";
pub const HASH: &str = "/etcdserverpb.Maintenance/Hash";
pub const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
pub const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
pub const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
pub const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
pub const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";
pub const DOWNGRADE: &str = "/etcdserverpb.Maintenance/Downgrade";
pub const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
pub const MEMBER_REMOVE: &str = "/etcdserverpb.Cluster/MemberRemove";
pub const MEMBER_LIST: &str = "/etcdserverpb.Cluster/MemberList";

/// `range_end` for "all keys from here on".
pub const FROM: &str = "\0";

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The `range_end` of a prefix.
pub fn prefix_end(prefix: &str) -> String {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    String::from_utf8(end).expect("scripts use ASCII keys")
}

/// A range over `[key, end)`; change the rest with struct update.
pub fn range(key: &str, end: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

/// A range of one key.
pub fn get(key: &str) -> pb::RangeRequest {
    range(key, "")
}

/// All keys.
pub fn everything() -> pb::RangeRequest {
    range(FROM, FROM)
}

/// A put.
pub fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: bytes(key), value: bytes(value), ..Default::default() }
}

/// A delete over `[key, end)`.
pub fn delete(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

/// A compaction that is done when it is answered.
pub fn compact(revision: i64) -> pb::CompactionRequest {
    pb::CompactionRequest { revision, physical: true }
}

/// A transaction.
pub fn txn(compare: Vec<pb::Compare>, success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { compare, success, failure }
}

/// One operation of a transaction.
pub trait Op {
    /// Wraps the request.
    fn op(self) -> pb::RequestOp;
}

macro_rules! operations {
    ($($request:ty => $variant:ident),+) => {$(
        impl Op for $request {
            fn op(self) -> pb::RequestOp {
                pb::RequestOp { request: Some(request_op::Request::$variant(self)) }
            }
        }
    )+};
}
operations!(
    pb::RangeRequest => RequestRange,
    pb::PutRequest => RequestPut,
    pb::DeleteRangeRequest => RequestDeleteRange,
    pb::TxnRequest => RequestTxn
);

/// A comparison of any shape; targets and results as numbers, since wrong ones are asked too.
pub fn comparison(key: &str, target: i32, result: i32, with: Option<compare::TargetUnion>) -> pb::Compare {
    pb::Compare { result, target, key: bytes(key), range_end: Bytes::new(), target_union: with }
}

/// `value(key) = value`.
pub fn value_is(key: &str, value: &str) -> pb::Compare {
    comparison(key, 3, 0, Some(compare::TargetUnion::Value(bytes(value))))
}

/// `create_revision(key) = 0`.
pub fn absent(key: &str) -> pb::Compare {
    comparison(key, 1, 0, Some(compare::TargetUnion::CreateRevision(0)))
}

/// `create_revision(key) > 0`.
pub fn present(key: &str) -> pb::Compare {
    comparison(key, 1, 1, Some(compare::TargetUnion::CreateRevision(0)))
}

/// A lease with a chosen id.
pub fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { ttl, id }
}

/// A watch over `[key, end)`.
pub fn watch(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() }
}

/// The request that creates a watch.
pub fn create(request: pb::WatchCreateRequest) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(request)) }
}

/// The request that cancels a watch.
pub fn cancel(watch_id: i64) -> pb::WatchRequest {
    let request = pb::WatchCancelRequest { watch_id };
    pb::WatchRequest { request_union: Some(watch_request::RequestUnion::CancelRequest(request)) }
}

/// The request for progress.
pub fn progress() -> pb::WatchRequest {
    let request = pb::WatchProgressRequest {};
    pb::WatchRequest { request_union: Some(watch_request::RequestUnion::ProgressRequest(request)) }
}

/// Hash of all keys up to a revision (0: now).
pub fn hash_kv(revision: i64) -> pb::HashKvRequest {
    pb::HashKvRequest { revision }
}
