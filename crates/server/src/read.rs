//! Reads on an immutable [`Applied`]: what reader threads run.

use crate::{Request, Response};
use api::pb::etcdserverpb as pb;
use store::{Applied, Error, Pace};

/// Runs a read at the pace of others. `Error::Fatal` means that the page store failed: the member must stop.
///
/// # Errors
/// `Refused` is the client's answer.
pub fn run(applied: &Applied, request: Request, pace: Pace<'_>) -> Result<Response, Error> {
    match request {
        Request::Range(r) => applied.unhurried_range(&r, pace).map(Response::Range),
        Request::Txn(r) => applied.unhurried_read_txn(&r, pace).map(Response::Txn),
        Request::HashKv(r) => hash_kv(applied, r.revision, pace),
        Request::Hash(_) => {
            let hash = applied.hash(pace)?;
            Ok(Response::Hash(pb::HashResponse { header: Some(applied.header()), hash }))
        }
        Request::MemberList(_) => Ok(Response::MemberList(pb::MemberListResponse {
            header: Some(membership_header(applied)),
            members: applied.members(),
        })),
        other => Err(Error::Fatal(format!("not a read: {other:?}"))),
    }
}

/// Runs a read that takes microseconds and no waiting for the device; `None`: this one belongs to a reader. For threads that have
/// other work waiting.
pub fn quick(applied: &Applied, request: &Request) -> Option<Result<Response, Error>> {
    match request {
        Request::Range(r) => applied.quick_range(r).map(|result| result.map(Response::Range)),
        Request::Txn(r) => applied.quick_read_txn(r).map(|result| result.map(Response::Txn)),
        _ => None,
    }
}

fn hash_kv(applied: &Applied, revision: i64, pace: Pace<'_>) -> Result<Response, Error> {
    let hash = applied.hash_kv(revision, pace)?;
    Ok(Response::HashKv(pb::HashKvResponse {
        header: Some(applied.header()),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    }))
}

/// Membership answers carry no revision (reference/semantics.md 1.5).
fn membership_header(applied: &Applied) -> pb::ResponseHeader {
    pb::ResponseHeader { revision: 0, ..applied.header() }
}
