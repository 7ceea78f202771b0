//! The same data directory under Go etcd and ours in turn: data, history and HashKV stay equal, and Go's offline tools
//! find every file well. Needs `OXETCD_REFERENCE`. More: `OXETCD_FILES=200`.

use oxetcd_tests::history::History;
use oxetcd_tests::places::{Reference, count, our_etcd};
use oxetcd_tests::process::{Launch, stdout_of};
use oxetcd_tests::rng::Rng;
use oxetcd_tests::temp::TempDir;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What Go's tools say of the page store, against the model.
fn inspect(reference: &Reference, data: &Path, history: &History) {
    let db = data.join("member/snap/db");
    let check = stdout_of(Command::new(reference.tool("bbolt")).arg("check").arg(&db));
    assert!(check.contains("OK"), "bbolt check: {check}");
    let utl = || Command::new(reference.program("3.7", "etcdutl"));
    let status = stdout_of(utl().args(["snapshot", "status", "-w", "json"]).arg(&db));
    let status: serde_json::Value = serde_json::from_str(&status).expect("etcdutl prints JSON");
    assert!(status["revision"].as_i64().is_some_and(|r| r > 1), "{status}");
    let hash = stdout_of(utl().args(["hashkv", "-w", "json"]).arg(&db));
    let hash: serde_json::Value = serde_json::from_str(&hash).expect("etcdutl prints JSON");
    let number = |key: &str| hash[key].as_i64().unwrap_or_else(|| panic!("no {key} in {hash}"));
    let (revision, compacted) = (number("hashRevision"), number("compactRevision"));
    let model = history.hash(revision, compacted);
    assert_eq!(number("hash"), i64::from(model), "etcdutl hashkv {hash}");
    assert_eq!(revision, history.revision, "a server that stopped has written everything to its page store");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_served_by_both() {
    let Some(reference) = Reference::find() else { return };
    let (ours, go) = (our_etcd(), reference.program("3.7", "etcd"));
    let mut verified = 0;
    for seed in 0..count("OXETCD_FILES", 10) {
        let mut rng = Rng::new(seed);
        let folder = TempDir::new("files");
        let data = folder.join("data");
        let mut launch =
            Launch::new(&ours, &data).with_flags(&["--snapshot-count=100", "--snapshot-catchup-entries=20"]);
        launch.binary = if seed % 2 == 0 { ours.clone() } else { go.clone() };
        let mut history = History::new(seed);
        let mut server = launch.start();
        history.found(&server).await;
        for _ in 0..4 {
            let load = history.load(&server, 4);
            tokio::time::sleep(Duration::from_millis(50 + rng.below(250))).await;
            if rng.one_in(2) {
                server.kill();
                load.end().await;
            } else {
                load.end().await;
                history.verify(&server).await;
                server.stop();
            }
            // The model must know what the log holds before the tools are asked about it.
            let other = if rng.one_in(2) { &go } else { &ours };
            server = launch.clone().with_binary(other).start();
            history.verify(&server).await;
            server.stop();
            inspect(&reference, &data, &history);
            let next = if rng.one_in(2) { &go } else { &ours };
            server = launch.clone().with_binary(next).start();
            history.verify(&server).await;
        }
        verified += history.verified;
    }
    println!("{verified} acknowledged writes verified");
}
