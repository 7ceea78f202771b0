//! Generated requests: a few keys, every option, wild numbers. The same seed asks both servers the same.

use super::{compact, delete, hash_kv, put, range, txn};
use crate::ask::{self, Op};
use crate::record::Side;
use crate::rng::Rng;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use pb::compare::TargetUnion;
use tonic::Status;

const KEYS: [&str; 8] = ["a", "aa", "b", "b/1", "b/2", "c", "\u{7f}", "zz"];
const ENDS: [&str; 8] = ["", "\0", "b", "b0", "c", "zz", "a", "zzz"];

/// `count` requests of seed `seed`.
pub async fn talk(side: &mut Side, seed: u64, count: u64) {
    let mut rng = Rng::new(seed);
    // The revision as the answers tell it, so that guesses around it are worth something.
    let mut now = 1;
    for _ in 0..count {
        match rng.below(100) {
            0..25 => {
                let request = a_put(&mut rng);
                put(side, request).await;
            }
            25..35 => {
                let request = a_delete(&mut rng);
                delete(side, request).await;
            }
            35..60 => {
                let request = a_range(&mut rng, now);
                range(side, request).await;
            }
            60..85 => {
                let request = a_txn(&mut rng, now, 2);
                txn(side, request).await;
            }
            85..88 => compact(side, now - i64::try_from(rng.below(12)).unwrap_or(0)).await,
            88..92 => hash_kv(side, now - i64::try_from(rng.below(6)).unwrap_or(0)).await,
            92..96 => {
                let _: Result<pb::LeaseGrantResponse, Status> =
                    side.ask(ask::GRANT, ask::grant(lease(&mut rng), 500)).await;
            }
            96..98 => {
                let request = pb::LeaseRevokeRequest { id: lease(&mut rng) };
                let _: Result<pb::LeaseRevokeResponse, Status> = side.ask(ask::REVOKE, request).await;
            }
            _ => {
                let request = pb::LeaseTimeToLiveRequest { id: lease(&mut rng), keys: true };
                let answer: Result<pb::LeaseTimeToLiveResponse, Status> =
                    side.wire.unary(ask::TIME_TO_LIVE, &request).await;
                let answer = answer.map(|mut a| {
                    a.keys.sort();
                    a.ttl = a.ttl.signum();
                    a
                });
                side.note(format_args!("{request:?}"), &answer, &[]);
            }
        }
        let newest: Result<pb::RangeResponse, Status> = side.wire.unary(ask::RANGE, &ask::get("a")).await;
        now = newest.ok().and_then(|r| r.header).map_or(now, |h| h.revision);
    }
    hash_kv(side, 0).await;
    range(side, ask::everything()).await;
}

fn key(rng: &mut Rng) -> Bytes {
    if rng.one_in(40) { Bytes::new() } else { Bytes::from_static(rng.pick(&KEYS).as_bytes()) }
}

fn end(rng: &mut Rng) -> Bytes {
    if rng.one_in(2) { Bytes::new() } else { Bytes::from_static(rng.pick(&ENDS).as_bytes()) }
}

fn lease(rng: &mut Rng) -> i64 {
    i64::try_from(1 + rng.below(5)).unwrap_or(1)
}

fn number(rng: &mut Rng, now: i64) -> i64 {
    match rng.below(6) {
        0 => *rng.pick(&[-2, -1, 0, i64::MAX, i64::MIN]),
        1 => now + 1,
        _ => i64::try_from(rng.below(now.unsigned_abs() + 2)).unwrap_or(0),
    }
}

fn a_put(rng: &mut Rng) -> pb::PutRequest {
    let len = rng.below(6);
    let mut request = pb::PutRequest {
        key: key(rng),
        value: rng.letters(len).into(),
        prev_kv: rng.one_in(3),
        ignore_value: rng.one_in(12),
        ignore_lease: rng.one_in(12),
        lease: if rng.one_in(4) { lease(rng) } else { 0 },
    };
    if request.ignore_value && rng.one_in(2) {
        request.value = Bytes::new();
    }
    request
}

fn a_delete(rng: &mut Rng) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key(rng), range_end: end(rng), prev_kv: rng.one_in(2) }
}

fn a_range(rng: &mut Rng, now: i64) -> pb::RangeRequest {
    let sometimes = |rng: &mut Rng| if rng.one_in(5) { number(rng, now) } else { 0 };
    pb::RangeRequest {
        key: key(rng),
        range_end: end(rng),
        limit: if rng.one_in(3) { number(rng, 3) } else { 0 },
        revision: if rng.one_in(3) { number(rng, now) } else { 0 },
        sort_order: if rng.one_in(3) { i32::try_from(rng.below(4)).unwrap_or(0) } else { 0 },
        sort_target: if rng.one_in(3) { i32::try_from(rng.below(6)).unwrap_or(0) } else { 0 },
        serializable: rng.one_in(3),
        keys_only: rng.one_in(4),
        count_only: rng.one_in(6),
        min_mod_revision: sometimes(rng),
        max_mod_revision: sometimes(rng),
        min_create_revision: sometimes(rng),
        max_create_revision: sometimes(rng),
    }
}

fn a_compare(rng: &mut Rng, now: i64) -> pb::Compare {
    let with = match rng.below(6) {
        0 => Some(TargetUnion::Version(number(rng, 3))),
        1 => Some(TargetUnion::CreateRevision(number(rng, now))),
        2 => Some(TargetUnion::ModRevision(number(rng, now))),
        3 => {
            let len = rng.below(3);
            Some(TargetUnion::Value(rng.letters(len).into()))
        }
        4 => Some(TargetUnion::Lease(lease(rng))),
        _ => None,
    };
    pb::Compare {
        result: i32::try_from(rng.below(5)).unwrap_or(0),
        target: i32::try_from(rng.below(6)).unwrap_or(0),
        key: key(rng),
        range_end: end(rng),
        target_union: with,
    }
}

fn a_txn(rng: &mut Rng, now: i64, depth: u64) -> pb::TxnRequest {
    let compares = (0..rng.below(3)).map(|_| a_compare(rng, now)).collect();
    let success = some_ops(rng, now, depth);
    let failure = some_ops(rng, now, depth);
    ask::txn(compares, success, failure)
}

fn some_ops(rng: &mut Rng, now: i64, depth: u64) -> Vec<pb::RequestOp> {
    (0..rng.below(4))
        .map(|_| match rng.below(8) {
            0..3 => a_put(rng).op(),
            3 => a_delete(rng).op(),
            4..7 => a_range(rng, now).op(),
            _ if depth > 0 => a_txn(rng, now, depth - 1).op(),
            _ => a_put(rng).op(),
        })
        .collect()
}
