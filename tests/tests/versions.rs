//! Directories of other versions: from Go etcd 3.5 and 3.6 to ours, back to 3.7 at any time, to 3.6 by etcd's own
//! downgrade. Needs `OXETCD_REFERENCE`.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::history::History;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::time::Duration;

async fn write(history: &mut History, server: &Server) {
    let load = history.load(server, 4);
    tokio::time::sleep(Duration::from_millis(300)).await;
    load.end().await;
}

async fn status(server: &Server) -> pb::StatusResponse {
    let wire = Wire::connect(&server.client_url()).await;
    wire.unary(ask::STATUS, &pb::StatusRequest {}).await.expect("a status")
}

/// Waits until the server's storage version is `version`: it follows the cluster version within seconds.
async fn until_storage_is(server: &Server, version: &str) {
    for _ in 0..2400 {
        if status(server).await.storage_version == version {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the storage version never became {version}: {:?}\n{}", status(server).await, server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_older_versions_to_ours_and_on_to_go() {
    let Some(reference) = Reference::find() else { return };
    for version in ["3.5", "3.6"] {
        if !reference.has(version) {
            println!("SKIPPED: the reference has no {version}");
            continue;
        }
        let folder = TempDir::new("older");
        let flags = ["--snapshot-count=100"];
        let mut launch = Launch::new(&reference.program(version, "etcd"), &folder.join("data")).with_flags(&flags);
        let mut history = History::new(1);
        let server = launch.start();
        history.found_keys(&server).await;
        write(&mut history, &server).await;
        history.verify_keys(&server).await;
        let ids = status(&server).await.header.map(|h| (h.cluster_id, h.member_id));
        server.kill();

        let server = launch.clone().with_binary(&our_etcd()).start();
        history.verify(&server).await;
        assert_eq!(status(&server).await.header.map(|h| (h.cluster_id, h.member_id)), ids, "the same member");
        until_storage_is(&server, "3.7.0").await;
        write(&mut history, &server).await;
        history.verify(&server).await;
        server.kill();

        let server = launch.clone().with_binary(&our_etcd()).start();
        history.verify(&server).await;
        server.stop();
        let server = launch.clone().with_binary(&reference.program("3.7", "etcd")).start();
        history.verify(&server).await;
        server.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_to_3_6_by_etcds_own_procedure() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("downgrade");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    let mut history = History::new(2);
    let server = launch.start();
    history.found(&server).await;
    write(&mut history, &server).await;
    history.verify(&server).await;
    until_storage_is(&server, "3.7.0").await;
    server.stop();

    // Without the procedure 3.6 refuses our directory, as it refuses Go's of 3.7.
    let older = launch.clone().with_binary(&reference.program("3.6", "etcd"));
    assert!(older.try_start().is_err(), "3.6 starts on a directory of 3.7");

    let server = launch.start();
    let wire = Wire::connect(&server.client_url()).await;
    let enable = pb::DowngradeRequest { action: 1, version: "3.6".into() };
    let enabled: pb::DowngradeResponse = wire.unary(ask::DOWNGRADE, &enable).await.expect("enabled");
    assert_eq!(enabled.version, "3.7");
    until_storage_is(&server, "3.6.0").await;
    write(&mut history, &server).await;
    history.verify(&server).await;
    server.stop();

    let server = older.try_start().unwrap_or_else(|e| panic!("3.6 does not start after the downgrade: {e}"));
    history.verify_keys(&server).await;
    write(&mut history, &server).await;
    history.verify_keys(&server).await;
    server.kill();

    let server = launch.start();
    history.verify(&server).await;
    server.stop();
}
