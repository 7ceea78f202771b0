//! Conversations held with both servers, one fresh server each. Everything a script asks must have one right answer.

pub mod auth;
pub mod concurrency;
pub mod gateway;
pub mod health;
pub mod keys;
pub mod leases;
pub mod maintenance;
pub mod random;
pub mod refusals;
pub mod transactions;
pub mod transport;
pub mod watches;

use crate::ask;
use crate::record::Side;
use api::pb::etcdserverpb as pb;
use tonic::Status;

/// Puts without recording: scenery.
pub async fn seed(side: &mut Side, pairs: &[(&str, &str)]) {
    for (key, value) in pairs {
        let done: Result<pb::PutResponse, Status> = side.wire.unary(ask::PUT, &ask::put(key, value)).await;
        done.unwrap_or_else(|e| panic!("scenery: put {key}: {e}"));
    }
}

/// Asks a range and records it.
pub async fn range(side: &mut Side, request: pb::RangeRequest) {
    let _: Result<pb::RangeResponse, Status> = side.ask(ask::RANGE, request).await;
}

/// Asks a put and records it.
pub async fn put(side: &mut Side, request: pb::PutRequest) {
    let _: Result<pb::PutResponse, Status> = side.ask(ask::PUT, request).await;
}

/// Asks a delete and records it.
pub async fn delete(side: &mut Side, request: pb::DeleteRangeRequest) {
    let _: Result<pb::DeleteRangeResponse, Status> = side.ask(ask::DELETE, request).await;
}

/// Asks a transaction and records it.
pub async fn txn(side: &mut Side, request: pb::TxnRequest) {
    let _: Result<pb::TxnResponse, Status> = side.ask(ask::TXN, request).await;
}

/// Asks a compaction and records it.
pub async fn compact(side: &mut Side, revision: i64) {
    let _: Result<pb::CompactionResponse, Status> = side.ask(ask::COMPACT, ask::compact(revision)).await;
}

/// Asks for the hash of keys and records it.
pub async fn hash_kv(side: &mut Side, revision: i64) {
    let _: Result<pb::HashKvResponse, Status> = side.ask(ask::HASH_KV, ask::hash_kv(revision)).await;
}
