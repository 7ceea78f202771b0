//! Txn: compares of all forms, branches, nesting, limits, the duplicate-key rule.

use super::{compact, range, seed, txn};
use crate::ask::{self, Op};
use crate::record::Side;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use pb::compare::TargetUnion;

/// All of it.
pub async fn talk(side: &mut Side) {
    seed(side, &[("a", "1"), ("b", "2"), ("b", "3"), ("p/1", "x"), ("p/2", "y")]).await;
    compares(side).await;
    branches(side).await;
    duplicates(side).await;
    limits(side).await;
    revisions(side).await;
    range(side, ask::everything()).await;
}

fn targets() -> [Option<TargetUnion>; 9] {
    [
        None,
        Some(TargetUnion::Version(1)),
        Some(TargetUnion::Version(2)),
        Some(TargetUnion::CreateRevision(2)),
        Some(TargetUnion::ModRevision(4)),
        Some(TargetUnion::ModRevision(0)),
        Some(TargetUnion::Value(Bytes::from_static(b"1"))),
        Some(TargetUnion::Value(Bytes::new())),
        Some(TargetUnion::Lease(0)),
    ]
}

async fn compares(side: &mut Side) {
    for target in -1..6 {
        for with in targets() {
            let ops: Vec<_> = (-1..5)
                .flat_map(|result| ["a", "b", "missing"].map(|key| (result, key)))
                .map(|(result, key)| {
                    let compare = ask::comparison(key, target, result, with.clone());
                    ask::txn(vec![compare], vec![], vec![ask::get("a").op()]).op()
                })
                .collect();
            // Nested, so that one question holds eighteen.
            txn(side, ask::txn(vec![], ops, vec![])).await;
        }
    }
    for (key, end) in [("p/", "p0"), ("a", "c"), ("x", "z"), ("z", "a"), ("a", ask::FROM), ("", "")] {
        for result in 0..4 {
            for with in [TargetUnion::Version(1), TargetUnion::Value(Bytes::from_static(b"x"))] {
                let target = if matches!(with, TargetUnion::Version(_)) { 0 } else { 3 };
                let mut compare = ask::comparison(key, target, result, Some(with));
                compare.range_end = Bytes::copy_from_slice(end.as_bytes());
                txn(side, ask::txn(vec![compare], vec![], vec![])).await;
            }
        }
    }
}

async fn branches(side: &mut Side) {
    txn(side, ask::txn(vec![], vec![], vec![])).await;
    txn(side, ask::txn(vec![ask::value_is("a", "1")], vec![ask::put("a", "2").op()], vec![ask::get("a").op()])).await;
    txn(side, ask::txn(vec![ask::value_is("a", "1")], vec![ask::put("a", "2").op()], vec![ask::get("a").op()])).await;
    txn(side, ask::txn(vec![ask::absent("n"), ask::present("a")], vec![ask::put("n", "1").op()], vec![])).await;
    let everything = ask::everything;
    let mixed = vec![
        ask::put("m", "1").op(),
        everything().op(),
        ask::delete("a", "").op(),
        everything().op(),
        pb::PutRequest { prev_kv: true, ..ask::put("b", "4") }.op(),
        pb::DeleteRangeRequest { prev_kv: true, ..ask::delete("p/", "p0") }.op(),
        everything().op(),
        ask::txn(vec![ask::present("a")], vec![ask::put("then", "1").op()], vec![ask::put("else", "1").op()]).op(),
        everything().op(),
    ];
    txn(side, ask::txn(vec![], mixed, vec![])).await;
    txn(side, ask::txn(vec![], vec![ask::delete("nothing", "").op()], vec![])).await;
    let serializable = pb::RangeRequest { serializable: true, ..everything() };
    txn(side, ask::txn(vec![], vec![serializable.op(), everything().op()], vec![ask::get("a").op()])).await;
    let deep = (0..5).fold(ask::put("deep", "1").op(), |inner, _| ask::txn(vec![], vec![inner], vec![]).op());
    txn(side, ask::txn(vec![], vec![deep], vec![])).await;
}

async fn duplicates(side: &mut Side) {
    let nested = |then: Vec<pb::RequestOp>, other: Vec<pb::RequestOp>| ask::txn(vec![], then, other).op();
    let put = |key: &str| ask::put(key, "d").op();
    let delete = |key: &str, end: &str| ask::delete(key, end).op();
    let cases: Vec<Vec<pb::RequestOp>> = vec![
        vec![put("k"), put("k")],
        vec![put("k"), delete("k", "")],
        vec![delete("k", ""), put("k")],
        vec![delete("a", "z"), put("k")],
        vec![put("k"), delete("a", "k")],
        vec![delete("a", "z"), delete("k", "")],
        vec![put("k"), delete("a", ask::FROM)],
        vec![nested(vec![put("k")], vec![put("k")])],
        vec![nested(vec![put("k")], vec![]), nested(vec![put("k")], vec![])],
        vec![put("k"), nested(vec![put("k")], vec![])],
        vec![put("k"), nested(vec![delete("k", "")], vec![])],
        vec![delete("k", ""), nested(vec![put("k")], vec![])],
        vec![nested(vec![delete("k", "")], vec![]), nested(vec![put("k")], vec![])],
        vec![nested(vec![put("k")], vec![]), nested(vec![delete("k", "")], vec![])],
        vec![nested(vec![put("k")], vec![delete("k", "")])],
        vec![nested(vec![put("k"), put("k")], vec![])],
        vec![put("k"), put("l"), nested(vec![put("m"), nested(vec![put("n")], vec![put("l")])], vec![])],
    ];
    for ops in cases {
        txn(side, ask::txn(vec![], ops.clone(), vec![])).await;
        txn(side, ask::txn(vec![ask::present("missing")], vec![ask::get("a").op()], ops)).await;
    }
}

async fn limits(side: &mut Side) {
    let gets = |n: usize| (0..n).map(|_| ask::get("a").op()).collect::<Vec<_>>();
    for n in [128, 129] {
        txn(side, ask::txn(vec![], gets(n), vec![])).await;
        txn(side, ask::txn(vec![], vec![], gets(n))).await;
        txn(side, ask::txn((0..n).map(|_| ask::present("missing")).collect(), vec![], vec![])).await;
    }
    // 1 op outside leaves 127 inside.
    for n in [127, 128] {
        txn(side, ask::txn(vec![], vec![ask::txn(vec![], gets(n), vec![]).op()], vec![])).await;
    }
    let two = vec![ask::txn(vec![], gets(126), vec![]).op(), ask::txn(vec![], gets(126), vec![]).op()];
    txn(side, ask::txn(vec![], two, vec![])).await;
    for bad in [
        vec![ask::get("").op()],
        vec![ask::put("", "x").op()],
        vec![ask::delete("", "x").op()],
        vec![pb::RequestOp { request: None }],
        vec![pb::PutRequest { ignore_value: true, ..ask::put("a", "x") }.op()],
        vec![pb::PutRequest { ignore_lease: true, lease: 1, ..ask::put("a", "x") }.op()],
        vec![pb::PutRequest { ignore_value: true, ..ask::put("missing", "") }.op()],
        vec![pb::PutRequest { lease: 4711, ..ask::put("a", "x") }.op()],
        vec![pb::RangeRequest { sort_order: 9, ..ask::get("a") }.op()],
        vec![pb::RangeRequest { sort_target: 9, ..ask::get("a") }.op()],
    ] {
        txn(side, ask::txn(vec![], vec![ask::put("first", "1").op(), bad[0].clone()], vec![])).await;
        txn(side, ask::txn(vec![], vec![], bad.clone())).await;
        txn(side, ask::txn(vec![], vec![ask::txn(vec![], vec![], bad).op()], vec![])).await;
    }
    txn(side, ask::txn(vec![ask::present("")], vec![], vec![])).await;
}

async fn revisions(side: &mut Side) {
    compact(side, 5).await;
    for revision in [-2, -1, 1, 4, 5, 6, 1000] {
        let old = pb::RangeRequest { revision, ..ask::everything() };
        txn(side, ask::txn(vec![], vec![old.clone().op()], vec![])).await;
        txn(side, ask::txn(vec![], vec![ask::put("w", "1").op(), old.clone().op()], vec![])).await;
        txn(side, ask::txn(vec![ask::present("missing")], vec![old.op()], vec![ask::get("w").op()])).await;
    }
}
