//! `kill -9` under load at random moments: every acknowledged write is there afterwards, and the whole store equals a
//! model. More: `OXETCD_KILLS=300`.

use oxetcd_tests::history::History;
use oxetcd_tests::places::{count, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::rng::Rng;
use oxetcd_tests::temp::TempDir;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost() {
    let seed = count("OXETCD_SEED", 1);
    let mut rng = Rng::new(seed);
    let folder = TempDir::new("kills");
    // Small limits, so that log cuts, snapshots, compactions and checkpoints all happen between two kills.
    let mut launch = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[
        "--snapshot-count=200",
        "--snapshot-catchup-entries=50",
        "--compaction-batch-limit=20",
        "--compaction-sleep-interval=2ms",
    ]);
    let mut history = History::new(seed);
    let mut server = launch.start();
    history.found(&server).await;
    let kills = count("OXETCD_KILLS", 15);
    for _ in 0..kills {
        let load = history.load(&server, 8);
        tokio::time::sleep(Duration::from_millis(20 + rng.below(600))).await;
        server.kill();
        load.end().await;
        server = launch.start();
        history.verify(&server).await;
    }
    assert!(history.verified > kills, "the load wrote something");
    println!("{kills} kills, {} acknowledged writes verified", history.verified);
}
