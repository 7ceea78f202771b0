//! What a request must satisfy before it is proposed (reference/semantics.md 2, 3, 5; errors.md).

use api::Error;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use pb::request_op::Request as Op;
use std::collections::BTreeSet;

/// What a lease costs against the quota, bytes.
pub const LEASE_GRANT_COST: i64 = 64;
/// What a key costs beside its bytes.
const KV_OVERHEAD: i64 = 256;

pub fn check_range(r: &pb::RangeRequest) -> Result<(), Error> {
    if r.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let order = pb::range_request::SortOrder::try_from(r.sort_order);
    let target = pb::range_request::SortTarget::try_from(r.sort_target);
    if order.is_err() || target.is_err() { Err(Error::InvalidSortOption) } else { Ok(()) }
}

pub fn check_put(r: &pb::PutRequest) -> Result<(), Error> {
    if r.key.is_empty() {
        Err(Error::EmptyKey)
    } else if r.ignore_value && !r.value.is_empty() {
        Err(Error::ValueProvided)
    } else if r.ignore_lease && r.lease != 0 {
        Err(Error::LeaseProvided)
    } else {
        Ok(())
    }
}

pub fn check_delete_range(r: &pb::DeleteRangeRequest) -> Result<(), Error> {
    if r.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Budget, keys and options of every level and branch, then duplicate keys.
pub fn check_txn(r: &pb::TxnRequest, budget: usize) -> Result<(), Error> {
    check_txn_level(r, budget)?;
    check_intervals(&r.success)?;
    check_intervals(&r.failure).map(drop)
}

fn check_txn_level(r: &pb::TxnRequest, budget: usize) -> Result<(), Error> {
    let ops = r.compare.len().max(r.success.len()).max(r.failure.len());
    if ops > budget {
        return Err(Error::TooManyOps);
    }
    if r.compare.iter().any(|c| c.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    r.success.iter().chain(&r.failure).try_for_each(|op| match &op.request {
        Some(Op::RequestRange(r)) => check_range(r),
        Some(Op::RequestPut(r)) => check_put(r),
        Some(Op::RequestDeleteRange(r)) => check_delete_range(r),
        Some(Op::RequestTxn(r)) => check_txn_level(r, budget - ops),
        None => Err(Error::KeyNotFound),
    })
}

#[derive(Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Touched {
    fn deletes_key(&self, key: &Bytes) -> bool {
        // As upstream: an interval from a key to its end; "from key on" is never seen to overlap.
        self.deletes.iter().any(|(low, end)| match end.is_empty() {
            true => key == low,
            false => key >= low && key < end,
        })
    }
}

/// The duplicate-key rule with its known gaps (semantics 5.7): a nested put is checked against the parent's deletes and
/// those of earlier siblings only.
fn check_intervals(ops: &[pb::RequestOp]) -> Result<Touched, Error> {
    let mut all = Touched::default();
    for op in ops {
        if let Some(Op::RequestDeleteRange(r)) = &op.request {
            all.deletes.push((r.key.clone(), r.range_end.clone()));
        }
    }
    for op in ops {
        let Some(Op::RequestTxn(r)) = &op.request else { continue };
        let then = check_intervals(&r.success)?;
        let other = check_intervals(&r.failure)?;
        // The same key in both branches is fine: only one of them runs.
        let nested: BTreeSet<Bytes> = then.puts.union(&other.puts).cloned().collect();
        for key in nested {
            if all.deletes_key(&key) || !all.puts.insert(key) {
                return Err(Error::DuplicateKey);
            }
        }
        all.deletes.extend(then.deletes);
        all.deletes.extend(other.deletes);
    }
    for op in ops {
        let Some(Op::RequestPut(r)) = &op.request else { continue };
        if all.deletes_key(&r.key) || !all.puts.insert(r.key.clone()) {
            return Err(Error::DuplicateKey);
        }
    }
    Ok(all)
}

/// Every op of both branches, at the top level, is a range.
pub fn is_read_only(r: &pb::TxnRequest) -> bool {
    r.success.iter().chain(&r.failure).all(|op| matches!(op.request, Some(Op::RequestRange(_))))
}

/// Somebody said that stale answers will do: there are ranges, and all are serializable. (In Go a txn without ops counts as
/// serializable: what its compares say may be stale without anybody having asked for that. Not here: docs/COMPAT.md.)
pub fn is_serializable(r: &pb::TxnRequest) -> bool {
    let mut ops = r.success.iter().chain(&r.failure).peekable();
    ops.peek().is_some() && ops.all(|op| matches!(&op.request, Some(Op::RequestRange(r)) if r.serializable))
}

pub fn put_cost(r: &pb::PutRequest) -> i64 {
    KV_OVERHEAD + (r.key.len() + r.value.len()) as i64
}

/// The dearer branch; nested txns included.
pub fn txn_cost(r: &pb::TxnRequest) -> i64 {
    let branch = |ops: &[pb::RequestOp]| {
        let cost = |op: &pb::RequestOp| match &op.request {
            Some(Op::RequestPut(r)) => put_cost(r),
            Some(Op::RequestTxn(r)) => txn_cost(r),
            _ => 0,
        };
        ops.iter().map(cost).sum::<i64>()
    };
    branch(&r.success).max(branch(&r.failure))
}
