//! Status, hashes, alarms, defragmentation, snapshot, membership list, health, and what a lone member refuses.

use super::{hash_kv, put, range, seed};
use crate::ask;
use crate::record::Side;
use api::pb::etcdserverpb as pb;
use sha2::{Digest, Sha256};
use tonic::Status;

/// All of it.
pub async fn talk(side: &mut Side) {
    status(side).await;
    seed(side, &[("a", "1"), ("b", "2")]).await;
    hash_kv(side, 0).await;
    hash_kv(side, -1).await;
    hash_kv(side, 3).await;
    hash_kv(side, 4).await;
    snapshot(side).await;
    let _: Result<pb::DefragmentResponse, Status> = side.ask(ask::DEFRAGMENT, pb::DefragmentRequest {}).await;
    hash_kv(side, 0).await;
    members(side).await;
    leadership(side).await;
    downgrade(side).await;
    health(side).await;
    alarms(side).await;
    status(side).await;
}

async fn status(side: &mut Side) {
    let _: Result<pb::StatusResponse, Status> = side.ask_but(ask::STATUS, pb::StatusRequest {}, &["leader"]).await;
}

async fn alarm(side: &mut Side, action: i32, member_id: u64, alarm: i32) {
    let request = pb::AlarmRequest { action, member_id, alarm };
    let _: Result<pb::AlarmResponse, Status> = side.ask(ask::ALARM, request).await;
}

async fn alarms(side: &mut Side) {
    for kind in 0..4 {
        alarm(side, 0, 0, kind).await;
    }
    alarm(side, 1, 0, 0).await;
    alarm(side, 2, 5, 1).await;
    alarm(side, 1, 5, 1).await;
    alarm(side, 1, 5, 1).await;
    alarm(side, 0, 0, 0).await;
    alarm(side, 0, 5, 1).await;
    alarm(side, 0, 0, 2).await;
    put(side, ask::put("full", "1")).await;
    let _: Result<pb::LeaseGrantResponse, Status> = side.ask(ask::GRANT, ask::grant(9, 100)).await;
    super::txn(side, ask::txn(vec![], vec![ask::Op::op(ask::put("full", "1"))], vec![])).await;
    super::txn(side, ask::txn(vec![], vec![ask::Op::op(ask::get("a"))], vec![ask::Op::op(ask::put("x", "1"))])).await;
    super::txn(side, ask::txn(vec![], vec![ask::Op::op(ask::delete("a", ""))], vec![])).await;
    super::delete(side, ask::delete("b", "")).await;
    super::compact(side, 3).await;
    range(side, ask::everything()).await;
    status(side).await;
    alarm(side, 2, 6, 1).await;
    alarm(side, 2, 5, 2).await;
    alarm(side, 2, 5, 1).await;
    alarm(side, 0, 0, 0).await;
    put(side, ask::put("room", "1")).await;
    alarm(side, 1, 7, 2).await;
    put(side, ask::put("corrupt", "1")).await;
    range(side, ask::everything()).await;
    range(side, pb::RangeRequest { serializable: true, ..ask::everything() }).await;
    super::txn(side, ask::txn(vec![], vec![ask::Op::op(ask::get("a"))], vec![])).await;
    super::txn(side, ask::txn(vec![], vec![ask::Op::op(ask::put("a", "1"))], vec![])).await;
    super::delete(side, ask::delete("room", "")).await;
    super::compact(side, 5).await;
    let _: Result<pb::LeaseGrantResponse, Status> = side.ask(ask::GRANT, ask::grant(10, 100)).await;
    let _: Result<pb::LeaseRevokeResponse, Status> = side.ask(ask::REVOKE, pb::LeaseRevokeRequest { id: 1 }).await;
    alarm(side, 0, 0, 0).await;
    status(side).await;
    alarm(side, 2, 7, 2).await;
    alarm(side, 0, 0, 0).await;
    put(side, ask::put("well", "1")).await;
}

async fn snapshot(side: &mut Side) {
    let (messages, end) = side.wire.collect::<_, pb::SnapshotResponse>(ask::SNAPSHOT, &pb::SnapshotRequest {}).await;
    let total: usize = messages.iter().map(|m| m.blob.len()).sum();
    let mut digest = Sha256::new();
    let mut left = Vec::new();
    for message in &messages[..messages.len().saturating_sub(1)] {
        digest.update(&message.blob);
        left.push(message.remaining_bytes);
    }
    let falling = left.windows(2).all(|w| w[0] > w[1]) && left.last() == Some(&0);
    let last = messages.last();
    let text = format!(
        "chunks ≤ 32 KiB {}, remaining falls to 0: {falling}, multiple of 512 plus digest: {}, digest right: {}, version {:?}, \
         last remaining {:?}, header {:?}, end {:?}",
        messages.iter().all(|m| m.blob.len() <= 32_768),
        total % 512 == 32,
        last.is_some_and(|m| m.blob[..] == digest.finalize()[..]),
        messages.iter().map(|m| m.version.as_str()).collect::<std::collections::BTreeSet<_>>(),
        last.map(|m| m.remaining_bytes),
        last.map(|m| m.header.is_some()),
        end.map_err(|e| crate::record::brief(&e)),
    );
    side.write(ask::SNAPSHOT.into(), text, &[]);
}

async fn members(side: &mut Side) {
    for linearizable in [true, false] {
        let request = pb::MemberListRequest { linearizable };
        let _: Result<pb::MemberListResponse, Status> = side.ask(ask::MEMBER_LIST, request).await;
    }
}

async fn leadership(side: &mut Side) {
    let status: Result<pb::StatusResponse, Status> = side.wire.unary(ask::STATUS, &pb::StatusRequest {}).await;
    let own = status.ok().and_then(|s| s.header).map_or(0, |h| h.member_id);
    for target_id in [0, 4711, own] {
        let request = pb::MoveLeaderRequest { target_id };
        let _: Result<pb::MoveLeaderResponse, Status> = side.ask(ask::MOVE_LEADER, request).await;
    }
}

async fn downgrade(side: &mut Side) {
    for action in [0, 1, 2, 3] {
        for version in ["", "x", "3", "3.7", "3.5.0", "3.8", "4.6", "3.6.x"] {
            let request = pb::DowngradeRequest { action, version: version.into() };
            let _: Result<pb::DowngradeResponse, Status> = side.ask(ask::DOWNGRADE, request).await;
        }
    }
    let validate = pb::DowngradeRequest { action: 0, version: "3.6".into() };
    let _: Result<pb::DowngradeResponse, Status> = side.ask(ask::DOWNGRADE, validate).await;
    let validate = pb::DowngradeRequest { action: 0, version: "3.6.9".into() };
    let _: Result<pb::DowngradeResponse, Status> = side.ask(ask::DOWNGRADE, validate).await;
}

async fn health(side: &mut Side) {
    use api::pb::grpc_health_v1 as health;
    for service in ["", "etcdserverpb.KV", "x"] {
        let request = health::HealthCheckRequest { service: service.into() };
        let _: Result<health::HealthCheckResponse, Status> = side.ask("/grpc.health.v1.Health/Check", request).await;
    }
    let _: Result<health::HealthListResponse, Status> =
        side.ask("/grpc.health.v1.Health/List", health::HealthListRequest {}).await;
    for service in ["", "x"] {
        let request = health::HealthCheckRequest { service: service.into() };
        let mut stream = side.open_stream("/grpc.health.v1.Health/Watch", &request);
        stream.half_close();
        let first: Result<Option<health::HealthCheckResponse>, Status> = stream.next().await;
        side.note(format_args!("health watch {service:?}"), &first, &[]);
    }
}
