//! Where ours is right and Go etcd is not (docs/COMPAT.md): asked of ours alone.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask::{self, Op};
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use tonic::Status;

#[tokio::test]
async fn a_txn_that_kills_go_etcd_is_refused_whole() {
    let folder = TempDir::new("poison");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("k", "kept")).await;
    let before = put.expect("a put").header.map_or(0, |h| h.revision);
    for (ignore_value, ignore_lease) in [(true, false), (false, true)] {
        let keep = pb::PutRequest { ignore_value, ignore_lease, ..ask::put("k", if ignore_value { "" } else { "x" }) };
        let nested = ask::txn(vec![], vec![keep.clone().op()], vec![]);
        for ops in
            [vec![ask::delete("a", ask::FROM).op(), keep.op()], vec![ask::delete("a", ask::FROM).op(), nested.op()]]
        {
            let answer: Result<pb::TxnResponse, Status> = wire.unary(ask::TXN, &ask::txn(vec![], ops, vec![])).await;
            assert_eq!(answer.expect_err("refused").message(), "etcdserver: key not found");
        }
    }
    let held: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get("k")).await.expect("a range");
    assert_eq!(held.header.map_or(0, |h| h.revision), before, "nothing was done");
    assert_eq!(held.kvs[0].value, "kept");
}

#[tokio::test]
async fn an_unknown_alarm_action_is_harmless() {
    let folder = TempDir::new("alarm");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let request = pb::AlarmRequest { action: 9, member_id: 0, alarm: 0 };
    let answer: Result<pb::AlarmResponse, Status> = wire.unary(ask::ALARM, &request).await;
    assert!(answer.expect("an empty answer").alarms.is_empty());
}

/// However deep: what is proposed can be read back from the log.
#[tokio::test]
async fn nested_transactions_never_keep_the_member_from_starting() {
    let folder = TempDir::new("nested");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    let server = launch.start();
    let wire = Wire::connect(&server.client_url()).await;
    let mut request = ask::txn(vec![], vec![ask::put("deep", "v").op()], vec![]);
    for depth in 1..=130 {
        request = ask::txn(vec![], vec![request.op()], vec![]);
        let answer: Result<pb::TxnResponse, Status> = wire.unary(ask::TXN, &request).await;
        assert_eq!(answer.is_ok(), depth <= 48, "{depth}: {answer:?}");
    }
    server.stop();
    let server = launch.start();
    let wire = Wire::connect(&server.client_url()).await;
    let held: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get("deep")).await.expect("a range");
    assert_eq!(held.kvs[0].version, 48);
}
