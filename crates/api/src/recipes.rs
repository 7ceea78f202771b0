//! The requests of clientv3's concurrency recipes: locks and elections of our clients, of our Lock and Election services
//! and of Go's programs exclude each other, because keys and comparisons are the same (`client/v3/concurrency`).
//!
//! Whoever waits for a name holds a key `name/LEASE` below it; the oldest of these owns the name.

use crate::pb::etcdserverpb as pb;
use crate::pb::mvccpb;
use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;

/// The end of the range of all keys that begin with `prefix`; `\0`, every key from there on, where there is none.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// An operation of a transaction.
pub fn op(op: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(op) }
}

fn compare(key: &Bytes, target: CompareTarget, result: CompareResult, value: TargetUnion) -> pb::Compare {
    pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.clone(),
        target_union: Some(value),
        range_end: Bytes::new(),
    }
}

/// That the key was created at this revision; 0: that it is not there.
pub fn created_is(key: &Bytes, revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Create, CompareResult::Equal, TargetUnion::CreateRevision(revision))
}

/// That the key was created before this revision, or is not there.
pub fn created_before(key: &Bytes, revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Create, CompareResult::Less, TargetUnion::CreateRevision(revision))
}

/// That the key was written last at this revision; 0: that it is not there.
pub fn modified_is(key: &Bytes, revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Mod, CompareResult::Equal, TargetUnion::ModRevision(revision))
}

/// That the key was written last before this revision, or is not there.
pub fn modified_before(key: &Bytes, revision: i64) -> pb::Compare {
    compare(key, CompareTarget::Mod, CompareResult::Less, TargetUnion::ModRevision(revision))
}

/// That no lease is attached to the key.
pub fn is_without_lease(key: &Bytes) -> pb::Compare {
    compare(key, CompareTarget::Lease, CompareResult::Equal, TargetUnion::Lease(0))
}

/// Where the keys of a name are: `name/`.
pub fn below(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// The key of a name and a session's lease.
pub fn key_of(name: &[u8], lease: i64) -> Bytes {
    [name, format!("/{lease:x}").as_bytes()].concat().into()
}

/// The oldest key that begins with `prefix`.
pub fn oldest(prefix: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        ..Default::default()
    }
}

/// The newest of the keys that begin with `prefix` and are older than `revision`.
pub fn newest_before(prefix: &Bytes, revision: i64) -> pb::RangeRequest {
    pb::RangeRequest { sort_order: SortOrder::Descend as i32, max_create_revision: revision - 1, ..oldest(prefix) }
}

/// Puts a session's key below a name, unless it is there, and asks for the owner.
pub fn take_place(name: &[u8], lease: i64, value: Bytes) -> pb::TxnRequest {
    let key = key_of(name, lease);
    let get = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let owner = || op(Op::RequestRange(oldest(&below(name))));
    pb::TxnRequest {
        compare: vec![created_is(&key, 0)],
        failure: vec![op(Op::RequestRange(get)), owner()],
        success: vec![op(Op::RequestPut(pb::PutRequest { key, value, lease, ..Default::default() })), owner()],
    }
}

/// A place in the queue for a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// When the key was created: the place itself.
    pub revision: i64,
    pub header: Option<pb::ResponseHeader>,
    /// The session's key, if it was there before.
    pub existing: Option<mvccpb::KeyValue>,
    pub owner: Option<mvccpb::KeyValue>,
}

impl Place {
    /// Reads the answer to [`take_place`].
    pub fn read(response: pb::TxnResponse) -> Place {
        let mut ranges = response.responses.into_iter().filter_map(|r| match r.response {
            Some(Done::ResponseRange(r)) => Some(r.kvs.into_iter().next()),
            _ => None,
        });
        let existing = if response.succeeded { None } else { ranges.next().flatten() };
        let owner = ranges.next().flatten();
        let now = response.header.as_ref().map_or(0, |h| h.revision);
        let revision = existing.as_ref().map_or(now, |kv| kv.create_revision);
        Place { revision, header: response.header, existing, owner }
    }

    /// Whether nobody was there before.
    pub fn is_first(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| owner.create_revision == self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        for (prefix, end) in [
            (&b"foo"[..], &b"fop"[..]),
            (b"ab", b"ac"),
            (b"a\xff", b"b"),
            (b"\x01\xff", b"\x02"),
            (b"\xff", b"\0"),
            (b"", b"\0"),
        ] {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }

    #[test]
    fn keys_are_below_their_name() {
        assert_eq!(key_of(b"lock", 0x1f), "lock/1f");
        assert_eq!(below(b"lock"), "lock/");
    }
}
