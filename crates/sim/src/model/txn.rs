//! Transactions (reference/semantics.md section 5): all compares, then all checks, then all effects.

use super::{Model, Writing, covers};
use api::pb::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;
use std::cmp::Ordering;

/// Which branch each transaction takes, nested ones in order.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

impl Path {
    fn ops<'r>(&self, r: &'r pb::TxnRequest) -> impl Iterator<Item = &'r Request> {
        let ops = if self.succeeded { &r.success } else { &r.failure };
        ops.iter().filter_map(|op| op.request.as_ref())
    }
}

impl Model {
    pub(super) fn txn(&mut self, r: &pb::TxnRequest) -> Result<pb::TxnResponse, api::Error> {
        let path = self.choose(r);
        self.check_path(r, &path)?;
        let mut response = self.write(|w| w.txn(r, &path));
        response.header = self.header();
        Ok(response)
    }

    /// A transaction that changes nothing.
    pub fn read_txn(&self, r: &pb::TxnRequest) -> Result<pb::TxnResponse, api::Error> {
        self.clone().txn(r)
    }

    fn choose(&self, r: &pb::TxnRequest) -> Path {
        let succeeded = r.compare.iter().all(|c| self.compare(c));
        let mut path = Path { succeeded, nested: Vec::new() };
        let nested = path.ops(r).filter_map(|op| if let Request::RequestTxn(r) = op { Some(r) } else { None });
        path.nested = nested.map(|r| self.choose(r)).collect();
        path
    }

    fn check_path(&self, r: &pb::TxnRequest, path: &Path) -> Result<(), api::Error> {
        let mut nested = path.nested.iter();
        for op in path.ops(r) {
            match op {
                Request::RequestRange(r) if r.revision > self.revision => return Err(api::Error::FutureRev),
                Request::RequestRange(r) if r.revision != 0 && r.revision < self.compacted => {
                    return Err(api::Error::Compacted);
                }
                Request::RequestPut(r) => self.check_put(r)?,
                Request::RequestTxn(r) => self.check_path(r, nested.next().expect("one path for each"))?,
                Request::RequestRange(_) | Request::RequestDeleteRange(_) => {}
            }
        }
        Ok(())
    }

    /// Every key in the range must satisfy it; a missing key has no value and zeros.
    fn compare(&self, c: &pb::Compare) -> bool {
        let inside: Vec<_> = self.live.values().filter(|kv| covers(&c.key, &c.range_end, &kv.key)).collect();
        if inside.is_empty() {
            return match c.target() {
                CompareTarget::Value => false,
                _ => holds(c.result(), 0.cmp(&operand(c))),
            };
        }
        inside.iter().all(|kv| {
            let order = match c.target() {
                CompareTarget::Version => kv.version.cmp(&operand(c)),
                CompareTarget::Create => kv.create_revision.cmp(&operand(c)),
                CompareTarget::Mod => kv.mod_revision.cmp(&operand(c)),
                CompareTarget::Lease => kv.lease.cmp(&operand(c)),
                CompareTarget::Value => kv.value.as_ref().cmp(match &c.target_union {
                    Some(TargetUnion::Value(value)) => value.as_ref(),
                    _ => &[],
                }),
            };
            holds(c.result(), order)
        })
    }
}

fn operand(c: &pb::Compare) -> i64 {
    match (c.target(), &c.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(n)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(n)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(n)))
        | (CompareTarget::Lease, Some(TargetUnion::Lease(n))) => *n,
        _ => 0,
    }
}

fn holds(result: CompareResult, order: Ordering) -> bool {
    match result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

impl Writing<'_> {
    fn txn(&mut self, r: &pb::TxnRequest, path: &Path) -> pb::TxnResponse {
        let mut nested = path.nested.iter();
        let mut responses = Vec::new();
        for op in path.ops(r) {
            let response = match op {
                Request::RequestRange(r) => Response::ResponseRange(self.range(r)),
                Request::RequestPut(r) => Response::ResponsePut(self.put(r)),
                Request::RequestDeleteRange(r) => Response::ResponseDeleteRange(self.delete(r)),
                Request::RequestTxn(r) => Response::ResponseTxn(self.txn(r, nested.next().expect("one path for each"))),
            };
            responses.push(pb::ResponseOp { response: Some(response) });
        }
        pb::TxnResponse { header: None, succeeded: path.succeeded, responses }
    }

    /// A range at the present sees what the transaction did so far.
    fn range(&self, r: &pb::RangeRequest) -> pb::RangeResponse {
        let response = self.model.range(r).expect("the path was checked");
        pb::RangeResponse { header: None, ..response }
    }
}

/// Answers as the model gives them: headers hold the revision only, those inside a transaction nothing.
pub fn plain(response: &mut server::Response) {
    let keep = |header: &mut Option<pb::ResponseHeader>| {
        *header = header.take().map(|h| pb::ResponseHeader { revision: h.revision, ..Default::default() });
    };
    match response {
        server::Response::Put(r) => keep(&mut r.header),
        server::Response::DeleteRange(r) => keep(&mut r.header),
        server::Response::Compact(r) => keep(&mut r.header),
        server::Response::LeaseGrant(r) => keep(&mut r.header),
        server::Response::LeaseRevoke(r) => keep(&mut r.header),
        server::Response::Alarm(r) => keep(&mut r.header),
        server::Response::Range(r) => keep(&mut r.header),
        server::Response::AuthEnable(r) => keep(&mut r.header),
        server::Response::AuthDisable(r) => keep(&mut r.header),
        server::Response::AuthStatus(r) => keep(&mut r.header),
        server::Response::UserAdd(r) => keep(&mut r.header),
        server::Response::UserGet(r) => keep(&mut r.header),
        server::Response::UserList(r) => keep(&mut r.header),
        server::Response::UserDelete(r) => keep(&mut r.header),
        server::Response::UserChangePassword(r) => keep(&mut r.header),
        server::Response::UserGrantRole(r) => keep(&mut r.header),
        server::Response::UserRevokeRole(r) => keep(&mut r.header),
        server::Response::RoleAdd(r) => keep(&mut r.header),
        server::Response::RoleGet(r) => keep(&mut r.header),
        server::Response::RoleList(r) => keep(&mut r.header),
        server::Response::RoleDelete(r) => keep(&mut r.header),
        server::Response::RoleGrantPermission(r) => keep(&mut r.header),
        server::Response::RoleRevokePermission(r) => keep(&mut r.header),
        // Of the moment in which it is answered, which is not known.
        server::Response::Downgrade(r) => *r = pb::DowngradeResponse::default(),
        server::Response::TokenAssigned { response, .. } => keep(&mut response.header),
        server::Response::Txn(r) => {
            keep(&mut r.header);
            plain_txn(r);
        }
        _ => {}
    }
}

fn plain_txn(r: &mut pb::TxnResponse) {
    for op in &mut r.responses {
        match &mut op.response {
            Some(Response::ResponseRange(r)) => r.header = None,
            Some(Response::ResponsePut(r)) => r.header = None,
            Some(Response::ResponseDeleteRange(r)) => r.header = None,
            Some(Response::ResponseTxn(r)) => {
                r.header = None;
                plain_txn(r);
            }
            None => {}
        }
    }
}
