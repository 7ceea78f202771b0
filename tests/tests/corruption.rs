//! Members whose data rotted are found: while they run, by the hashes of compactions, and before they serve again. Beside
//! Go's members, which ask ours and are asked by ours, where `OXETCD_REFERENCE` is set.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{Cluster, plan};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use prost::Message;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tonic::Status;

const PATIENCE: Duration = Duration::from_secs(120);
const SOUND: &[u8] = b"sound-value";
const ROTTEN: &[u8] = b"rotten-valu";

async fn call<A: Message + Default>(server: &Server, path: &'static str, request: &impl Message) -> Result<A, Status> {
    Wire::steady(&server.client_url()).unary(path, request).await
}

async fn status(server: &Server) -> pb::StatusResponse {
    call(server, ask::STATUS, &pb::StatusRequest {}).await.expect("a status")
}

fn id(status: &pb::StatusResponse) -> u64 {
    status.header.expect("a header").member_id
}

/// Three members with keys whose values can be found in their files.
async fn cluster(folder: &TempDir, binaries: [PathBuf; 3], flags: &[&str]) -> Cluster {
    let launches = plan(&binaries[0], folder.path(), 3);
    let launches: Vec<Launch> = launches
        .into_iter()
        .zip(&binaries)
        .map(|(launch, binary)| launch.with_binary(binary).with_flags(flags))
        .collect();
    let cluster = Cluster::start(&launches).unwrap_or_else(|refusal| panic!("{refusal}"));
    for n in 0..20 {
        let request = pb::PutRequest { key: format!("k{n}").into(), value: SOUND.into(), ..Default::default() };
        call::<pb::PutResponse>(&cluster.members[0], ask::PUT, &request).await.expect("a put");
    }
    cluster
}

/// Member `at` follows, stops, and its file is changed. Answers its id, and how it is started again.
async fn rot(cluster: &mut Cluster, at: usize) -> (u64, Launch) {
    let own = id(&status(&cluster.members[at]).await);
    let other = id(&status(&cluster.members[(at + 1) % 3]).await);
    let until = Instant::now() + PATIENCE;
    while status(&cluster.members[at]).await.leader == own {
        let request = pb::MoveLeaderRequest { target_id: other };
        let moved = call::<pb::MoveLeaderResponse>(&cluster.members[at], ask::MOVE_LEADER, &request).await;
        // A vote that a slow disk holds up is too late.
        assert!(moved.is_ok() || Instant::now() < until, "{moved:?}");
    }
    let server = cluster.members.remove(at);
    let launch = server.launch().clone();
    server.stop();
    let path = launch.data_dir.join("member/snap/db");
    let mut bytes = std::fs::read(&path).expect("the database");
    let places: Vec<usize> =
        bytes.windows(SOUND.len()).enumerate().filter(|(_, w)| *w == SOUND).map(|(place, _)| place).collect();
    assert!(!places.is_empty(), "the values are in the file");
    places.into_iter().for_each(|place| bytes[place..place + ROTTEN.len()].copy_from_slice(ROTTEN));
    std::fs::write(&path, bytes).expect("the database");
    (own, launch)
}

/// Waits for the alarm that blames the member.
async fn blamed(cluster: &Cluster, member: u64) {
    let until = Instant::now() + PATIENCE;
    let get = pb::AlarmRequest::default();
    loop {
        let found: pb::AlarmResponse = call(&cluster.members[0], ask::ALARM, &get).await.expect("alarms");
        if !found.alarms.is_empty() {
            let corrupt = pb::AlarmMember { member_id: member, alarm: pb::AlarmType::Corrupt as i32 };
            assert_eq!(found.alarms, [corrupt]);
            return;
        }
        assert!(Instant::now() < until, "nobody is blamed:\n{}", cluster.members[0].log());
    }
}

async fn is_found_while_it_runs(binaries: [PathBuf; 3], at: usize, flags: &[&str]) {
    let folder = TempDir::for_cluster("rotten");
    let mut cluster = cluster(&folder, binaries, flags).await;
    let (member, launch) = rot(&mut cluster, at).await;
    cluster.members.push(launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}")));
    if flags == COMPACTIONS {
        let compact = pb::CompactionRequest { revision: 15, physical: false };
        call::<pb::CompactionResponse>(&cluster.members[0], ask::COMPACT, &compact).await.expect("a compaction");
    }
    // The periodic check needs nothing to be asked, and may have found it by now.
    blamed(&cluster, member).await;
    let refused = call::<pb::PutResponse>(&cluster.members[0], ask::PUT, &ask::put("k", "v")).await;
    assert_eq!(refused.expect_err("nothing is written any more").message(), "etcdserver: corrupt cluster");
}

const EVERY_SECOND: &[&str] = &["--corrupt-check-time=1s"];
const COMPACTIONS: &[&str] = &["--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=1s"];

fn ours() -> [PathBuf; 3] {
    [our_etcd(), our_etcd(), our_etcd()]
}

fn go() -> Option<PathBuf> {
    Some(Reference::find()?.program("3.7", "etcd"))
}

#[tokio::test]
async fn the_leader_finds_rotten_data() {
    is_found_while_it_runs(ours(), 0, EVERY_SECOND).await;
}

#[tokio::test]
async fn the_leader_finds_rotten_data_by_the_hashes_of_compactions() {
    is_found_while_it_runs(ours(), 1, COMPACTIONS).await;
}

#[tokio::test]
async fn gos_leader_finds_our_rotten_data() {
    let Some(go) = go() else { return };
    is_found_while_it_runs([go.clone(), our_etcd(), go.clone()], 1, EVERY_SECOND).await;
    is_found_while_it_runs([go.clone(), our_etcd(), go], 1, COMPACTIONS).await;
}

#[tokio::test]
async fn our_leader_finds_gos_rotten_data() {
    let Some(go) = go() else { return };
    is_found_while_it_runs([our_etcd(), go.clone(), our_etcd()], 1, EVERY_SECOND).await;
    is_found_while_it_runs([our_etcd(), go, our_etcd()], 1, COMPACTIONS).await;
}

#[tokio::test]
async fn rotten_data_is_found_before_a_member_serves_again() {
    let folder = TempDir::for_cluster("rotten-start");
    let check = ["--feature-gates=InitialCorruptCheck=true"];
    let mut cluster = cluster(&folder, ours(), &check).await;
    // A sound one starts.
    let server = cluster.members.remove(0);
    let launch = server.launch().clone();
    server.stop();
    cluster.members.insert(0, launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}")));
    let (_, launch) = rot(&mut cluster, 0).await;
    let refusal = launch.try_start().expect_err("it differs from its peers");
    assert!(refusal.log.contains("found data inconsistency with peers"), "{refusal}");
}
