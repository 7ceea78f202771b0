//! Leases in a cluster: asked for anywhere, kept by the leader's clock, and outliving leaders. Beside Go's members where
//! `OXETCD_REFERENCE` is set: their followers ask our leader, and ours theirs.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{Cluster, plan};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::{Stream, Wire};
use prost::Message;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tonic::Status;

const PATIENCE: Duration = Duration::from_secs(120);

async fn call<A: Message + Default>(server: &Server, path: &'static str, request: &impl Message) -> Result<A, Status> {
    Wire::steady(&server.client_url()).unary(path, request).await
}

async fn is_leader(server: &Server) -> bool {
    let status: pb::StatusResponse = call(server, ask::STATUS, &pb::StatusRequest {}).await.expect("a status");
    status.leader == status.header.expect("a header").member_id
}

/// Its place among the members.
async fn leader(members: &[Server]) -> usize {
    let until = Instant::now() + PATIENCE;
    loop {
        for (at, server) in members.iter().enumerate() {
            if is_leader(server).await {
                return at;
            }
        }
        assert!(Instant::now() < until, "nobody leads");
    }
}

async fn grant(server: &Server, ttl: i64, key: &str) -> i64 {
    let granted: pb::LeaseGrantResponse =
        call(server, ask::GRANT, &pb::LeaseGrantRequest { ttl, id: 0 }).await.expect("a lease");
    let put = pb::PutRequest { lease: granted.id, ..ask::put(key, "v") };
    call::<pb::PutResponse>(server, ask::PUT, &put).await.expect("a put");
    granted.id
}

/// Asked again while leaders change, as Go's members want it.
async fn left(server: &Server, id: i64) -> Result<pb::LeaseTimeToLiveResponse, Status> {
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = call(server, ask::TIME_TO_LIVE, &pb::LeaseTimeToLiveRequest { id, keys: true }).await;
        if !answer
            .as_ref()
            .is_err_and(|e: &Status| e.message() == "etcdserver: leader changed" && Instant::now() < until)
        {
            return answer;
        }
    }
}

/// The lease as everybody sees it.
async fn assert_alive(members: &[Server], id: i64, granted_ttl: i64, key: &str) {
    for server in members {
        let left = left(server, id).await.expect("somebody keeps its time");
        assert_eq!((left.granted_ttl, left.keys), (granted_ttl, vec![key.to_owned().into()]));
        // A new leader adds an election timeout.
        assert!((granted_ttl - 15..=granted_ttl + 1).contains(&left.ttl), "{}", left.ttl);
    }
}

async fn wait_until_gone(members: &[Server], key: &str) {
    let until = Instant::now() + PATIENCE;
    let serializable = pb::RangeRequest { serializable: true, ..ask::get(key) };
    for server in members {
        while !call::<pb::RangeResponse>(server, ask::RANGE, &serializable).await.expect("a range").kvs.is_empty() {
            assert!(Instant::now() < until, "{key} stays:\n{}", server.log());
        }
    }
}

async fn keep_alive(stream: &mut Stream, id: i64) -> i64 {
    stream.send(&pb::LeaseKeepAliveRequest { id });
    let kept: pb::LeaseKeepAliveResponse = stream.next().await.expect("kept").expect("an answer");
    kept.ttl
}

/// Keeps a lease of two seconds for three. False: between two answers there was more than a second, so that nobody knows
/// whether it had to live.
async fn lives(first_answer: i64, stream: &mut Stream, id: i64) -> bool {
    let until = Instant::now() + Duration::from_secs(3);
    let (mut kept, mut ttl) = (Instant::now(), first_answer);
    while Instant::now() < until {
        if kept.elapsed() > Duration::from_secs(1) {
            return false;
        }
        assert_eq!(ttl, 2, "it was kept {:?} ago", kept.elapsed());
        kept = Instant::now();
        ttl = keep_alive(stream, id).await;
    }
    true
}

async fn are_kept(binaries: [PathBuf; 3]) {
    let folder = TempDir::for_cluster("leases");
    let launches = plan(&binaries[0], folder.path(), 3);
    let launches: Vec<Launch> =
        launches.into_iter().zip(&binaries).map(|(launch, binary)| launch.with_binary(binary)).collect();
    let Cluster { mut members } = Cluster::start(&launches).unwrap_or_else(|refusal| panic!("{refusal}"));
    let first = leader(&members).await;
    let follower = (first + 1) % 3;
    let long = grant(&members[follower], 60, "long").await;
    assert_alive(&members, long, 60, "long").await;

    // A second more than it would live by itself.
    let wire = Wire::connect(&members[follower].client_url()).await;
    let (mut stream, short) = loop {
        let short = grant(&members[follower], 2, "short").await;
        let request = pb::LeaseKeepAliveRequest { id: short };
        let mut stream = wire.stream(ask::KEEP_ALIVE, request.encode_to_vec().into(), &[]);
        let first_answer: pb::LeaseKeepAliveResponse = stream.next().await.expect("kept").expect("an answer");
        if lives(first_answer.ttl, &mut stream, short).await {
            break (stream, short);
        }
        println!("this machine stood still: another lease");
        wait_until_gone(&members, "short").await;
    };
    assert_eq!(keep_alive(&mut stream, 0x7777).await, 0, "unknown");
    wait_until_gone(&members, "short").await;
    assert_eq!(left(&members[follower], short).await.expect("an answer").ttl, -1);

    let launch = members[first].launch().clone();
    members.remove(first).kill();
    let second = leader(&members).await;
    assert_alive(&members, long, 60, "long").await;
    members.push(launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}")));
    assert_alive(&members, long, 60, "long").await;
    let expiring = grant(&members[(second + 1) % 3], 2, "expiring").await;
    wait_until_gone(&members, "expiring").await;
    assert_eq!(left(&members[second], expiring).await.expect("an answer").ttl, -1);
    let revoke = pb::LeaseRevokeRequest { id: long };
    call::<pb::LeaseRevokeResponse>(&members[(second + 1) % 3], ask::REVOKE, &revoke).await.expect("revoked");
    wait_until_gone(&members, "long").await;
}

fn go(version: &str) -> Option<PathBuf> {
    Some(Reference::find()?.program(version, "etcd"))
}

#[tokio::test]
async fn leases_outlive_their_leaders() {
    are_kept([our_etcd(), our_etcd(), our_etcd()]).await;
}

#[tokio::test]
async fn leases_are_kept_beside_gos_members() {
    let Some(go) = go("3.7") else { return };
    are_kept([our_etcd(), go.clone(), our_etcd()]).await;
    are_kept([go.clone(), our_etcd(), go]).await;
}

#[tokio::test]
async fn leases_are_kept_beside_members_of_go_3_6() {
    let Some(go) = go("3.6") else { return };
    are_kept([go.clone(), our_etcd(), go]).await;
}
