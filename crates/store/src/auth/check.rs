//! What a request of keys or leases needs (etcd `authApplierV3`): asked when it is applied, and when a read is answered.
//! Whatever is inside a transaction needs what it would need alone.

use super::{Auth, Claim, Wish};
use crate::applied::Applied;
use api::pb::etcdserverpb as pb;
use pb::request_op::Request as Op;

type Checked = Result<(), api::Error>;

impl Applied {
    /// Users and roles of this state.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// # Errors
    /// As [`Auth::check`].
    pub fn check_range(&self, claim: &Claim, r: &pb::RangeRequest) -> Checked {
        self.auth.check(claim, &r.key, &r.range_end, Wish::Read)
    }

    /// A put needs the lease's other keys, too: who attaches a key must be able to revoke the lease.
    ///
    /// # Errors
    /// As [`Auth::check`].
    pub fn check_put(&self, claim: &Claim, r: &pb::PutRequest) -> Checked {
        self.auth.check(claim, &r.key, &[], Wish::Write)?;
        self.check_lease(claim, r.lease, Wish::Write)?;
        match r.prev_kv {
            true => self.auth.check(claim, &r.key, &[], Wish::Read),
            false => Ok(()),
        }
    }

    /// # Errors
    /// As [`Auth::check`].
    pub fn check_delete_range(&self, claim: &Claim, r: &pb::DeleteRangeRequest) -> Checked {
        self.auth.check(claim, &r.key, &r.range_end, Wish::Write)?;
        match r.prev_kv && !failpoint::mutant!("permissionForgotten") {
            true => self.auth.check(claim, &r.key, &r.range_end, Wish::Read),
            false => Ok(()),
        }
    }

    /// All compares, and the operations of both branches.
    ///
    /// # Errors
    /// As [`Auth::check`].
    pub fn check_txn(&self, claim: &Claim, r: &pb::TxnRequest) -> Checked {
        // Nested ones are looked at level by level: nothing is to be found where nobody asks.
        if !self.auth.is_enabled() {
            return Ok(());
        }
        r.compare.iter().try_for_each(|c| self.auth.check(claim, &c.key, &c.range_end, Wish::Read))?;
        r.success.iter().chain(&r.failure).try_for_each(|op| self.check_op(claim, op))
    }

    fn check_op(&self, claim: &Claim, op: &pb::RequestOp) -> Checked {
        match &op.request {
            Some(Op::RequestRange(r)) => self.check_range(claim, r),
            Some(Op::RequestPut(r)) => self.check_put(claim, r),
            Some(Op::RequestDeleteRange(r)) => self.check_delete_range(claim, r),
            Some(Op::RequestTxn(_)) if failpoint::mutant!("permissionOfNestedTxnSkipped") => Ok(()),
            Some(Op::RequestTxn(r)) => self.check_txn(claim, r),
            None => Ok(()),
        }
    }

    /// Whether the claim's user may read or write all keys that are attached to the lease. A lease that is not there
    /// has none.
    ///
    /// # Errors
    /// As [`Auth::check`].
    pub fn check_lease(&self, claim: &Claim, id: i64, wish: Wish) -> Checked {
        if self.auth.check_admin(claim).is_ok() {
            return Ok(());
        }
        let Some(lease) = self.leases.get(&id) else { return Ok(()) };
        lease.keys.iter().try_for_each(|(key, _)| self.auth.check(claim, key, &[], wish))
    }
}
