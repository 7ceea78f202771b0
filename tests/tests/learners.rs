//! What a learner serves and refuses: the same as Go's, answer by answer, where `OXETCD_REFERENCE` is set.

use api::pb::{etcdserverpb as pb, grpc_health_v1 as health};
use oxetcd_tests::ask;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server, free_ports};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use prost::Message;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tonic::Status;

const PATIENCE: Duration = Duration::from_secs(120);
const MEMBER_ADD: &str = "/etcdserverpb.Cluster/MemberAdd";
const PROMOTE: &str = "/etcdserverpb.Cluster/MemberPromote";

/// How an answer reads, without what differs from run to run.
fn told<A>(answer: Result<A, Status>, say: impl FnOnce(A) -> String) -> String {
    match answer {
        Ok(answer) => say(answer),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

async fn tell<A: Message + Default>(
    wire: &Wire,
    path: &'static str,
    request: &impl Message,
    say: impl FnOnce(A) -> String,
) -> String {
    format!("{path}: {}", told(wire.unary::<_, A>(path, request).await, say))
}

async fn first<A: Message + Default>(wire: &Wire, path: &'static str, request: &impl Message) -> String {
    let mut stream = wire.stream(path, request.encode_to_vec().into(), &[]);
    stream.half_close();
    format!("{path}: {}", told(stream.next::<A>().await, |first| format!("a message: {}", first.is_some())))
}

/// A cluster of one, and a learner that has joined it.
async fn with_learner(folder: &Path, binary: &Path) -> (Server, Server, u64) {
    let voter = Launch::new(binary, &folder.join("voter")).start();
    let wire = Wire::connect(&voter.client_url()).await;
    for n in 0..5 {
        wire.unary::<_, pb::PutResponse>(ask::PUT, &ask::put(&format!("k{n}"), "v")).await.expect("a put");
    }
    let mut launch = Launch::new(binary, &folder.join("learner"));
    (launch.client_port, launch.peer_port) = free_ports();
    let request = pb::MemberAddRequest { peer_ur_ls: vec![launch.peer_url()], is_learner: true };
    let added: pb::MemberAddResponse = wire.unary(MEMBER_ADD, &request).await.expect("a learner more");
    let cluster = format!("--initial-cluster=default={},learner={}", voter.launch().peer_url(), launch.peer_url());
    let launch = launch.with_flags(&["--name=learner", "--initial-cluster-state=existing", &cluster]);
    let learner = launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}"));
    (voter, learner, added.member.expect("it").id)
}

async fn conversation(binary: &Path) -> Vec<String> {
    let folder = TempDir::for_cluster("learner");
    let (voter, learner, id) = with_learner(folder.path(), binary).await;
    let (to_voter, wire) = (Wire::connect(&voter.client_url()).await, Wire::connect(&learner.client_url()).await);
    let serializable = pb::RangeRequest { serializable: true, ..ask::everything() };
    let until = Instant::now() + PATIENCE;
    while wire.unary::<_, pb::RangeResponse>(ask::RANGE, &serializable).await.expect("a list").kvs.len() < 5 {
        assert!(Instant::now() < until, "the learner does not learn");
    }
    let mut said = vec![
        tell(&wire, ask::RANGE, &serializable, |r: pb::RangeResponse| format!("{} keys", r.kvs.len())).await,
        tell(&wire, ask::RANGE, &ask::everything(), |_: pb::RangeResponse| "served".into()).await,
        tell(&wire, ask::STATUS, &pb::StatusRequest {}, |r: pb::StatusResponse| format!("learner {}", r.is_learner))
            .await,
        first::<pb::SnapshotResponse>(&wire, ask::SNAPSHOT, &pb::SnapshotRequest {}).await,
        first::<pb::RangeStreamResponse>(&wire, ask::RANGE_STREAM, &serializable).await,
        first::<pb::LeaseKeepAliveResponse>(&wire, ask::KEEP_ALIVE, &pb::LeaseKeepAliveRequest { id: 1 }).await,
        first::<pb::WatchResponse>(&wire, ask::WATCH, &pb::WatchRequest::default()).await,
    ];
    let txn = pb::TxnRequest::default();
    let list = pb::MemberListRequest { linearizable: false };
    for refused in [
        tell(&wire, ask::PUT, &ask::put("k", "v"), |_: pb::PutResponse| "served".into()).await,
        tell(&wire, ask::TXN, &txn, |_: pb::TxnResponse| "served".into()).await,
        tell(&wire, ask::GRANT, &pb::LeaseGrantRequest { ttl: 9, id: 0 }, |_: pb::LeaseGrantResponse| "served".into())
            .await,
        tell(&wire, ask::LEASES, &pb::LeaseLeasesRequest {}, |_: pb::LeaseLeasesResponse| "served".into()).await,
        tell(&wire, ask::MEMBER_LIST, &list, |_: pb::MemberListResponse| "served".into()).await,
        tell(&wire, ask::HASH_KV, &pb::HashKvRequest::default(), |_: pb::HashKvResponse| "served".into()).await,
        tell(&wire, ask::ALARM, &pb::AlarmRequest::default(), |_: pb::AlarmResponse| "served".into()).await,
        tell(&wire, PROMOTE, &pb::MemberPromoteRequest { id }, |_: pb::MemberPromoteResponse| "served".into()).await,
        tell(
            &wire,
            "/grpc.health.v1.Health/Check",
            &health::HealthCheckRequest::default(),
            |_: health::HealthCheckResponse| "served".into(),
        )
        .await,
    ] {
        said.push(refused);
    }
    let stranger = pb::MemberPromoteRequest { id: 1 };
    said.push(tell(&to_voter, PROMOTE, &stranger, |_: pb::MemberPromoteResponse| "promoted".into()).await);
    let promote = pb::MemberPromoteRequest { id };
    let voters =
        |r: pb::MemberPromoteResponse| format!("{} voters", r.members.iter().filter(|m| !m.is_learner).count());
    said.push(tell(&to_voter, PROMOTE, &promote, voters).await);
    said.push(tell(&to_voter, PROMOTE, &promote, voters).await);
    // A voter serves everything, once it has heard that it is one.
    while wire.unary::<_, pb::PutResponse>(ask::PUT, &ask::put("k", "v")).await.is_err() {
        assert!(Instant::now() < until, "the learner does not become a voter");
    }
    said.push(tell(&wire, ask::RANGE, &ask::get("k"), |r: pb::RangeResponse| format!("{} keys", r.kvs.len())).await);
    said
}

#[tokio::test]
async fn learners_answer_as_gos_do() {
    let ours = conversation(&our_etcd()).await;
    let refusals = ours.iter().filter(|said| said.ends_with("etcdserver: rpc not supported for learner")).count();
    assert_eq!(refusals, 13, "{ours:#?}");
    let Some(go): Option<PathBuf> = Reference::find().map(|reference| reference.program("3.7", "etcd")) else { return };
    assert_eq!(conversation(&go).await, ours);
    println!("learners: {} equal answers", ours.len());
}
