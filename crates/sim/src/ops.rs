//! What clients ask: operations that go through the log, and how they are drawn.

mod auth;

pub use auth::{name, root};

use crate::model::Model;
use crate::rng::Rng;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as TxnOp;
use server::Request;

/// Keys that clients write: `k00` … `k11`.
const KEYS: u64 = 12;
/// Fewer than the revocations that a member has under way at once: all that expire together go together.
const LEASES_MAX: usize = 12;

/// A request that the member proposes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke {
        id: i64,
    },
    Compact(pb::CompactionRequest),
    Alarm(pb::AlarmRequest),
    /// Users and roles.
    Auth(Box<Request>),
    /// A downgrade is enabled, to a version, or cancelled.
    Downgrade(pb::DowngradeRequest),
}

impl Op {
    pub fn request(&self) -> Request {
        match self.clone() {
            Op::Put(r) => Request::Put(r),
            Op::Delete(r) => Request::DeleteRange(r),
            Op::Txn(r) => Request::Txn(r),
            Op::Grant { id, ttl } => Request::LeaseGrant(pb::LeaseGrantRequest { ttl, id }),
            Op::Revoke { id } => Request::LeaseRevoke(pb::LeaseRevokeRequest { id }),
            Op::Compact(r) => Request::Compact(r),
            Op::Alarm(r) => Request::Alarm(r),
            Op::Auth(r) => *r,
            Op::Downgrade(r) => Request::Downgrade(r),
        }
    }

    /// Whether it goes another way than the log (reference/semantics.md 5.10).
    pub fn is_read(&self) -> bool {
        let is_range = |op: &pb::RequestOp| matches!(op.request, Some(TxnOp::RequestRange(_)));
        matches!(self, Op::Txn(r) if r.success.iter().chain(&r.failure).all(is_range))
    }

    /// Whether the quota counts it: puts anywhere in it, and leases (reference/semantics.md 10.8).
    pub fn costs(&self) -> bool {
        match self {
            Op::Put(_) | Op::Grant { .. } => true,
            Op::Txn(r) => has_put(r),
            _ => false,
        }
    }
}

fn has_put(r: &pb::TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).any(|op| match &op.request {
        Some(TxnOp::RequestPut(_)) => true,
        Some(TxnOp::RequestTxn(r)) => has_put(r),
        _ => false,
    })
}

/// Draws what is asked next. `serial` makes values and lease ids unique.
pub struct Draw<'a> {
    pub rng: &'a mut Rng,
    pub model: &'a Model,
    pub serial: u64,
    pub member_id: u64,
    /// Shortest and longest TTL of new leases, seconds.
    pub ttl: (u64, u64),
    pub big_values: bool,
    /// There are users and roles. Then ranges end behind their begin: what Go says of permissions for others depends on the
    /// shape of its trees.
    pub auth: bool,
}

impl Draw<'_> {
    pub fn op(&mut self) -> Op {
        let full = self.model.full();
        match self.rng.below(if full { 44 } else { 40 }) {
            0..=14 => Op::Put(self.put_request()),
            15..=19 => Op::Delete(self.delete_request()),
            20..=28 => Op::Txn(self.txn_request()),
            29..=31 if self.model.lease_ids().len() < LEASES_MAX => {
                Op::Grant { id: self.new_lease(), ttl: self.draw_ttl() }
            }
            29..=32 => Op::Revoke { id: self.lease_or_unknown() },
            33..=37 => self.compact(),
            38 => self.alarm(pb::alarm_request::AlarmAction::Get, pb::AlarmType::None),
            39 if self.rng.one_in(4) => self.alarm(pb::alarm_request::AlarmAction::Activate, pb::AlarmType::Nospace),
            _ => self.alarm(pb::alarm_request::AlarmAction::Deactivate, pb::AlarmType::Nospace),
        }
    }

    /// Mostly to the only version that there is to downgrade to.
    pub fn downgrade(&mut self) -> pb::DowngradeRequest {
        use pb::downgrade_request::DowngradeAction;
        let action = match self.rng.below(4) {
            0 => DowngradeAction::Validate,
            1..=2 => DowngradeAction::Enable,
            _ => DowngradeAction::Cancel,
        };
        let version = ["3.6.0", "3.6.0", "3.6.0", "3.5.0", "3.7.0", "x"][self.rng.below(6) as usize];
        let version = if action == DowngradeAction::Cancel { "" } else { version };
        pb::DowngradeRequest { action: action as i32, version: version.into() }
    }

    pub fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{:02}", self.rng.below(KEYS)))
    }

    /// A key, or a range: up to a key, or everything above.
    pub fn span(&mut self) -> (Bytes, Bytes) {
        let (key, end) = (self.key(), self.end());
        match self.auth && end.len() > 1 && end <= key {
            true if end == key => (key, Bytes::new()),
            true => (end, key),
            false => (key, end),
        }
    }

    fn end(&mut self) -> Bytes {
        match self.rng.below(8) {
            0..=3 => Bytes::new(),
            4..=6 => self.key(),
            _ => Bytes::from_static(&[0]),
        }
    }

    fn value(&mut self) -> Bytes {
        let size = match self.rng.below(100) {
            0 if self.big_values => 60_000,
            1..=4 => 6000,
            _ => 1 + self.rng.below(40),
        };
        let mut value = format!("{}:", self.serial).into_bytes();
        value.resize(value.len() + size as usize, b'a' + self.rng.below(26) as u8);
        value.into()
    }

    fn lease(&mut self) -> i64 {
        if self.rng.one_in(3) { self.lease_or_unknown() } else { 0 }
    }

    /// Mostly one that lives.
    pub fn lease_or_unknown(&mut self) -> i64 {
        let leases = self.model.lease_ids();
        if leases.is_empty() || self.rng.one_in(10) {
            return 1 + self.rng.below(self.serial) as i64;
        }
        leases[self.rng.below(leases.len() as u64) as usize]
    }

    fn new_lease(&mut self) -> i64 {
        if self.rng.one_in(8) { self.lease_or_unknown() } else { self.serial as i64 }
    }

    fn draw_ttl(&mut self) -> i64 {
        let (low, high) = self.ttl;
        (low + self.rng.below(high - low + 1)) as i64
    }

    fn put_request(&mut self) -> pb::PutRequest {
        let key = self.key();
        self.put_to(key)
    }

    fn put_to(&mut self, key: Bytes) -> pb::PutRequest {
        let (ignore_value, ignore_lease) = (self.rng.one_in(12), self.rng.one_in(12));
        let value = if ignore_value { Bytes::new() } else { self.value() };
        let lease = if ignore_lease { 0 } else { self.lease() };
        pb::PutRequest { key, value, lease, prev_kv: self.rng.one_in(4), ignore_value, ignore_lease }
    }

    fn delete_request(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.span();
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.rng.one_in(3) }
    }

    fn compact(&mut self) -> Op {
        let back = self.rng.below(30) as i64;
        // Now and then a revision that is not there yet.
        let ahead = if self.rng.one_in(12) { 40 } else { 0 };
        let revision = (self.model.revision + ahead - back).max(1);
        Op::Compact(pb::CompactionRequest { revision, physical: self.rng.one_in(3) })
    }

    fn alarm(&mut self, action: pb::alarm_request::AlarmAction, alarm: pb::AlarmType) -> Op {
        Op::Alarm(pb::AlarmRequest { action: action as i32, member_id: self.member_id, alarm: alarm as i32 })
    }

    pub fn range_request(&mut self) -> pb::RangeRequest {
        let old = self.rng.one_in(3);
        let back = self.rng.below(40) as i64;
        let (key, range_end) =
            if self.rng.one_in(3) { (Bytes::from_static(&[0]), Bytes::from_static(&[0])) } else { self.span() };
        pb::RangeRequest {
            key,
            range_end,
            revision: if old { (self.model.revision - back).max(0) } else { 0 },
            limit: if self.rng.one_in(3) { self.rng.below(4) as i64 } else { 0 },
            count_only: self.rng.one_in(6),
            keys_only: self.rng.one_in(6),
            ..pb::RangeRequest::default()
        }
    }

    fn txn_request(&mut self) -> pb::TxnRequest {
        // No key twice in what a transaction writes: etcd would refuse it before it is proposed.
        let mut keys: Vec<Bytes> = (0..KEYS).map(|n| Bytes::from(format!("k{n:02}"))).collect();
        for at in (1..keys.len()).rev() {
            keys.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        self.txn_of(&mut keys, 2)
    }

    fn txn_of(&mut self, keys: &mut Vec<Bytes>, depth: u32) -> pb::TxnRequest {
        let compares = self.rng.below(3);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: self.branch(keys, depth),
            failure: self.branch(keys, depth),
        }
    }

    fn branch(&mut self, keys: &mut Vec<Bytes>, depth: u32) -> Vec<pb::RequestOp> {
        let n = self.rng.below(4);
        let ops = (0..n).filter_map(|_| match self.rng.below(8) {
            0..=3 => keys.pop().map(|key| TxnOp::RequestPut(self.put_to(key))),
            4 => keys.pop().map(|key| {
                let prev_kv = self.rng.one_in(2);
                TxnOp::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end: Bytes::new(), prev_kv })
            }),
            5..=6 => Some(TxnOp::RequestRange(self.range_request())),
            _ if depth > 0 => Some(TxnOp::RequestTxn(self.txn_of(keys, depth - 1))),
            _ => None,
        });
        ops.map(|op| pb::RequestOp { request: Some(op) }).collect()
    }

    fn compare(&mut self) -> pb::Compare {
        let result = match self.rng.below(4) {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            _ => CompareResult::NotEqual,
        };
        let near = (self.model.revision - self.rng.below(20) as i64).max(0);
        let (target, union) = match self.rng.below(5) {
            0 => (CompareTarget::Version, TargetUnion::Version(self.rng.below(3) as i64)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(if self.rng.one_in(2) { 0 } else { near })),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(near)),
            3 => (CompareTarget::Lease, TargetUnion::Lease(self.lease())),
            _ => (CompareTarget::Value, TargetUnion::Value(self.value())),
        };
        let (key, range_end) = self.span();
        pb::Compare { result: result as i32, target: target as i32, key, target_union: Some(union), range_end }
    }
}
