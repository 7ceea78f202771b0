//! Leases: all requests, attachments, expiry.

use super::{delete, put, range, txn};
use crate::ask::{self, Op};
use crate::record::Side;
use api::pb::etcdserverpb as pb;
use std::time::Duration;
use tonic::Status;

const ID: i64 = 0x1234_5678;
/// Longest wait for a lease of two seconds to end.
const EXPIRY: Duration = Duration::from_secs(60);

/// All of it.
pub async fn talk(side: &mut Side) {
    grants(side).await;
    attachments(side).await;
    keepalives(side).await;
    expiry(side).await;
}

async fn grant(side: &mut Side, id: i64, ttl: i64) {
    let _: Result<pb::LeaseGrantResponse, Status> = side.ask(ask::GRANT, ask::grant(id, ttl)).await;
}

async fn revoke(side: &mut Side, id: i64) {
    let _: Result<pb::LeaseRevokeResponse, Status> = side.ask(ask::REVOKE, pb::LeaseRevokeRequest { id }).await;
}

/// Remaining seconds depend on the moment.
async fn time_to_live(side: &mut Side, id: i64, keys: bool) {
    let request = pb::LeaseTimeToLiveRequest { id, keys };
    let answer: Result<pb::LeaseTimeToLiveResponse, Status> = side.wire.unary(ask::TIME_TO_LIVE, &request).await;
    let answer = answer.map(|mut a| {
        a.keys.sort();
        a.ttl = if a.ttl > 0 && a.ttl <= a.granted_ttl { 1 } else { a.ttl };
        a
    });
    side.note(format_args!("{} {request:?}", ask::TIME_TO_LIVE), &answer, &[]);
}

async fn leases(side: &mut Side) {
    let _: Result<pb::LeaseLeasesResponse, Status> = side.ask(ask::LEASES, pb::LeaseLeasesRequest {}).await;
}

async fn grants(side: &mut Side) {
    leases(side).await;
    for (id, ttl) in [
        (ID, 100),
        (ID, 100),
        (1, 0),
        (2, -5),
        (3, 1),
        (4, 9_000_000_000),
        (5, 9_000_000_001),
        (6, i64::MAX),
        (7, i64::MIN),
        (-1, 50),
        (-1, 50),
    ] {
        grant(side, id, ttl).await;
    }
    let drawn: Result<pb::LeaseGrantResponse, Status> = side.wire.unary(ask::GRANT, &ask::grant(0, 60)).await;
    let drawn = drawn.expect("the server draws an id");
    side.name_lease(drawn.id, "DRAWN");
    side.note("grant of a drawn id", &Ok::<_, Status>(drawn.clone()), &[]);
    for id in [1, 2, 3, 7, -1, drawn.id, 4711] {
        time_to_live(side, id, true).await;
        revoke(side, id).await;
        revoke(side, id).await;
        time_to_live(side, id, false).await;
    }
    revoke(side, 0).await;
    time_to_live(side, 0, true).await;
    leases(side).await;
}

async fn attachments(side: &mut Side) {
    grant(side, 10, 1000).await;
    grant(side, 11, 2000).await;
    for (key, lease) in [("l/b", 10), ("l/a", 10), ("l/c", 11), ("l/b", 11), ("l/a", 0), ("l/d", 10), ("l/a", 10)] {
        put(side, pb::PutRequest { lease, prev_kv: true, ..ask::put(key, "v") }).await;
        time_to_live(side, 10, true).await;
        time_to_live(side, 11, true).await;
    }
    put(side, pb::PutRequest { ignore_lease: true, prev_kv: true, ..ask::put("l/a", "w") }).await;
    put(side, pb::PutRequest { ignore_value: true, lease: 11, prev_kv: true, ..ask::put("l/d", "") }).await;
    put(side, pb::PutRequest { lease: 12, ..ask::put("l/e", "v") }).await;
    delete(side, ask::delete("l/b", "")).await;
    time_to_live(side, 10, true).await;
    time_to_live(side, 11, true).await;
    let ops = vec![pb::PutRequest { lease: 10, ..ask::put("l/t", "v") }.op(), ask::delete("l/c", "").op()];
    txn(side, ask::txn(vec![], ops, vec![])).await;
    let bad = vec![ask::put("l/u", "v").op(), pb::PutRequest { lease: 99, ..ask::put("l/v", "v") }.op()];
    txn(side, ask::txn(vec![], bad, vec![])).await;
    range(side, ask::everything()).await;
    revoke(side, 10).await;
    range(side, ask::everything()).await;
    revoke(side, 11).await;
    range(side, ask::everything()).await;
}

async fn keepalives(side: &mut Side) {
    grant(side, 20, 100).await;
    let first = pb::LeaseKeepAliveRequest { id: 20 };
    let mut stream = side.open_stream(ask::KEEP_ALIVE, &first);
    for id in [4711, 20, 0, -7] {
        stream.send(&pb::LeaseKeepAliveRequest { id });
    }
    for n in 0..5 {
        let answer: Result<Option<pb::LeaseKeepAliveResponse>, Status> = stream.next().await;
        side.note(format_args!("keepalive answer {n}"), &answer, &[]);
    }
    revoke(side, 20).await;
    stream.send(&first);
    let answer: Result<Option<pb::LeaseKeepAliveResponse>, Status> = stream.next().await;
    side.note("keepalive of a revoked lease", &answer, &[]);
    stream.half_close();
    let end: Result<Option<pb::LeaseKeepAliveResponse>, Status> = stream.next().await;
    side.note("end of keepalives", &end, &[]);
}

async fn expiry(side: &mut Side) {
    grant(side, 30, 2).await;
    put(side, pb::PutRequest { lease: 30, ..ask::put("short/b", "v") }).await;
    put(side, pb::PutRequest { lease: 30, ..ask::put("short/a", "v") }).await;
    let mut stream = side.open_stream(ask::WATCH, &ask::create(ask::watch("short/", "short0")));
    for n in 0..2 {
        let answer: Result<Option<pb::WatchResponse>, Status> = stream.next_within(EXPIRY).await;
        side.note(format_args!("watch of keys that expire, {n}"), &answer, &[]);
    }
    time_to_live(side, 30, true).await;
    leases(side).await;
}
