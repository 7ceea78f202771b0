//! Clusters of real processes: ours alone, and ours beside Go's.

use api::pb::raftpb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{PATIENCE, Seats};
use oxetcd_tests::http::exchange_bytes;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use prost::Message as _;
use std::path::PathBuf;

async fn outlives_its_leader(binaries: &[PathBuf]) {
    let folder = TempDir::for_cluster("cluster");
    let mut seats = Seats::found(binaries, folder.path(), &[]);
    let mut revision = 0;
    for n in 0..30 {
        revision = seats.put_soon(n % binaries.len(), &format!("k{n}")).await;
    }
    seats.agree_at(revision).await;
    for round in 0..binaries.len() {
        let leader = seats.leader().await;
        seats.kill(leader);
        let left = seats.running();
        revision = seats.put_soon(left[round % left.len()], &format!("round{round}")).await;
        seats.agree_at(revision).await;
        seats.start(leader);
        seats.agree_at(revision).await;
    }
}

#[tokio::test]
async fn three_of_ours_outlive_their_leaders() {
    outlives_its_leader(&[our_etcd(), our_etcd(), our_etcd()]).await;
}

#[tokio::test]
async fn two_of_ours_and_one_of_gos_outlive_their_leaders() {
    let Some(go) = go("3.7") else { return };
    outlives_its_leader(&[our_etcd(), go, our_etcd()]).await;
}

#[tokio::test]
async fn one_of_ours_and_two_of_gos_outlive_their_leaders() {
    let Some(go) = go("3.7") else { return };
    outlives_its_leader(&[go.clone(), our_etcd(), go]).await;
}

#[tokio::test]
async fn ours_live_beside_go_3_6() {
    let Some(go) = go("3.6") else { return };
    outlives_its_leader(&[go.clone(), our_etcd(), go]).await;
}

#[tokio::test]
async fn ours_live_beside_go_3_5() {
    let Some(go) = go("3.5") else { return };
    outlives_its_leader(&[go.clone(), our_etcd(), go]).await;
}

fn go(version: &str) -> Option<PathBuf> {
    Some(Reference::find()?.program(version, "etcd"))
}

#[tokio::test]
async fn a_member_joins_a_running_cluster_and_is_removed_again() {
    let folder = TempDir::for_cluster("join");
    let mut seats = Seats::found(&[our_etcd()], folder.path(), &[]);
    for n in 0..20 {
        seats.put_soon(0, &format!("k{n}")).await;
    }
    let second = seats.join(0, Launch::new(&our_etcd(), &folder.join("second"))).await;
    let revision = seats.put_soon(second, "after").await;
    seats.agree_at(revision).await;
    seats.remove(second, 0).await;
    seats.put_soon(0, "alone again").await;
    let wire = seats.steady(0);
    let request = api::pb::etcdserverpb::MemberListRequest { linearizable: true };
    let list: api::pb::etcdserverpb::MemberListResponse = wire.unary(ask::MEMBER_LIST, &request).await.expect("a list");
    assert_eq!(list.members.len(), 1);
}

/// What a sender of Go's puts on the pipeline, as bytes.
fn pipeline(cluster: u64, host: &str, message: &raftpb::Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let from = message.from.unwrap_or_default();
    let head = [
        "POST /raft HTTP/1.1".to_owned(),
        format!("Host: {host}"),
        "Connection: close".to_owned(),
        "Content-Type: application/protobuf".to_owned(),
        format!("Content-Length: {}", body.len()),
        format!("X-Etcd-Cluster-ID: {cluster:x}"),
        format!("X-Server-From: {from:x}"),
        "X-Server-Version: 3.7.1".to_owned(),
        "X-Min-Cluster-Version: 3.0.0".to_owned(),
    ];
    let mut request = format!("{}\r\n\r\n", head.join("\r\n")).into_bytes();
    request.extend(body);
    request
}

/// A snapshot far ahead of the log, as the leader of a term would send it, but without its database.
fn snapshot(from: u64, to: u64, term: u64, voters: &[u64]) -> raftpb::Message {
    let conf_state = raftpb::ConfState { voters: voters.to_vec(), ..Default::default() };
    let metadata = raftpb::SnapshotMetadata { conf_state: Some(conf_state), index: Some(1_000_000), term: Some(term) };
    raftpb::Message {
        r#type: Some(raftpb::MessageType::MsgSnap as i32),
        from: Some(from),
        to: Some(to),
        term: Some(term),
        snapshot: Some(raftpb::Snapshot { data: Some(b"{}".as_slice().into()), metadata: Some(metadata) }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_snapshot_without_its_database_harms_nobody() {
    let folder = TempDir::for_cluster("msgsnap");
    let mut seats = Seats::found(&vec![our_etcd(); 3], folder.path(), &[]);
    seats.agree().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(seats.id(n).await);
    }
    // First as the leader says it to a follower; then of a later term, which takes the leader's place.
    for later in [0, 1] {
        let leader = seats.leader().await;
        let target = if later == 0 { (leader + 1) % 3 } else { leader };
        let status = seats.status(leader).await.expect("it leads");
        let from = ids[if target == leader { (leader + 1) % 3 } else { leader }];
        let message = snapshot(from, ids[target], status.raft_term + later, &ids);
        let address = seats.launch(target).peer_url().replace("http://", "");
        let cluster = status.header.expect("answers have headers").cluster_id;
        let (head, body) = exchange_bytes(&address, &pipeline(cluster, &address, &message));
        assert!(head.starts_with("HTTP/1.1 "), "{head} {body}");
        let told = seats.server(target).wait_for_log("snapshot without its database", PATIENCE);
        assert!(told, "{head} {body}\n{}", seats.logs());
        seats.agree().await;
        // It stored nothing of it either.
        seats.kill(target);
        seats.start(target);
        seats.agree().await;
    }
}
