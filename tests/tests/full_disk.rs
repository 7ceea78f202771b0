//! Disks that fill up in a cluster of three, first a follower's, then the leader's.
//!
//! The member whose disk is full refuses puts (`mvcc: database space exceeded`, no alarm: it ends with the shortage), serves
//! reads and deletes, and hands leadership over if it has it; the cluster goes on. It is only when the rest of its log is
//! used up, too, that it ends, as any member does whose log can't be written. When there is room again, it serves as before,
//! or is started again; nobody has lost what was acknowledged.
//!
//! A member of Go's (v3.7.1) ends as soon as a write to its database or its log fails (`failed to commit tx`, level fatal,
//! a second after the first large puts), leader or not; it refuses nothing before. The others go on, and it comes back when
//! there is room. `gos_end_instead` holds that.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{self, Seats};
use oxetcd_tests::mount::SmallDisk;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::{PATIENCE, Wire};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Status;

/// Leaders stay unless the disk is why they go, also where cores are busy.
const FLAGS: [&str; 2] = ["--heartbeat-interval=100", "--election-timeout=4000"];
/// Room for logs and databases of all that is written here, some times over.
const DISK_BYTES: u64 = 900 << 20;
const VALUE_BYTES: usize = 512 << 10;
/// More than two segments of 64 MiB: what a log can still take is less.
const BEYOND_THE_LOG: usize = 300;
const REFUSED: &str = "etcdserver: mvcc: database space exceeded";
/// Both spell it so, but for the first letter.
const FULL: &str = "o space left on device";

/// Three members, each on a disk of its own, and what they acknowledged: keys with the revision of their last put.
struct Scene {
    seats: Seats,
    disks: Vec<SmallDisk>,
    acknowledged: BTreeMap<String, i64>,
    _folder: TempDir,
}

impl Scene {
    fn set(binary: &Path) -> Option<Scene> {
        let folder = TempDir::new("full");
        let mount = |n: usize| SmallDisk::mount(&folder.join(&format!("disk{n}")), DISK_BYTES);
        let disks: Vec<SmallDisk> = (0..3).map(mount).collect::<Option<_>>()?;
        let place = |n: usize, launch: Launch| {
            let data_dir = folder.join(&format!("disk{n}")).join("data");
            Launch { data_dir, ..launch }.with_flags(&FLAGS)
        };
        let seats = Seats::found_placed(&vec![binary.to_owned(); 3], folder.path(), place);
        Some(Scene { seats, disks, acknowledged: BTreeMap::new(), _folder: folder })
    }

    /// A large put through a member. Few keys, so that there is something to overwrite.
    async fn put(&mut self, through: usize, n: usize) -> Result<(), Status> {
        let key = format!("k{}", n % 10);
        let request =
            pb::PutRequest { key: key.clone().into(), value: vec![7; VALUE_BYTES].into(), ..Default::default() };
        let done: pb::PutResponse = Wire::lazy(&self.seats.url(through), PATIENCE).unary(ask::PUT, &request).await?;
        self.acknowledged.insert(key, done.header.expect("answers have headers").revision);
        Ok(())
    }

    async fn load(&mut self, through: usize, puts: usize) {
        for n in 0..puts {
            let done = self.put(through, n).await;
            done.unwrap_or_else(|e| panic!("put {n} through {through}: {e}\n{}", self.seats.logs()));
        }
    }

    /// Puts through a member until it refuses them for want of room.
    async fn puts_are_refused(&mut self, through: usize) {
        let end = Instant::now() + cluster::PATIENCE;
        for n in 0.. {
            match self.put(through, n).await {
                Err(e) if e.message() == REFUSED => return,
                other => assert!(Instant::now() < end, "{through} takes puts: {other:?}\n{}", self.seats.logs()),
            }
        }
    }

    /// Reads and deletes go on.
    async fn reads_and_deletes(&self, through: usize) {
        let wire = Wire::lazy(&self.seats.url(through), PATIENCE);
        let found: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get("k1")).await.expect("a linearizable read");
        assert_eq!(found.count, 1);
        let deleted: pb::DeleteRangeResponse =
            wire.unary(ask::DELETE, &ask::delete("nothing", "")).await.expect("a delete");
        assert_eq!(deleted.deleted, 0);
    }

    /// All that was acknowledged is there, at every member, and the same.
    async fn nothing_is_lost(&self) {
        self.seats.agree().await;
        for n in self.seats.running() {
            let wire = Wire::lazy(&self.seats.url(n), PATIENCE);
            for (key, revision) in &self.acknowledged {
                let found: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get(key)).await.expect("a read");
                let there = found.kvs.first().map(|kv| kv.mod_revision);
                // A put that was refused may have been done all the same.
                assert!(there >= Some(*revision), "{key} at {n}: {there:?}, acknowledged at {revision}");
            }
        }
    }

    /// Who leads after `before`, which has begun to hand over.
    async fn leader_but(&self, before: usize) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.seats.leader().await;
            if now != before {
                return now;
            }
            assert!(Instant::now() < end, "it leads on\n{}", self.seats.logs());
        }
    }

    /// The member ends for want of room; it is started again when there is some.
    async fn ends_and_comes_back(&mut self, n: usize) {
        let ended = self.seats.server(n).wait_for_log(FULL, Duration::from_secs(120));
        assert!(ended, "{n} has room after all\n{}", self.seats.logs());
        self.seats.kill(n);
        self.disks[n].clear();
        self.seats.start(n);
        self.nothing_is_lost().await;
    }
}

#[tokio::test]
async fn a_full_disk_takes_no_member_down_before_its_log_is_used_up() {
    let Some(mut scene) = Scene::set(&our_etcd()) else { return };
    // Little: a checkpoint that was begun while there was room must not be under way when there is none.
    scene.load(0, 2).await;
    let leader = scene.seats.leader().await;
    let follower = (leader + 1) % 3;

    scene.disks[follower].fill();
    scene.puts_are_refused(follower).await;
    scene.load(leader, 20).await;
    scene.reads_and_deletes(follower).await;
    assert_eq!(scene.seats.leader().await, leader, "a follower's disk is nothing to the leader");
    scene.disks[follower].clear();
    scene.seats.put_soon(follower, "room").await;
    scene.nothing_is_lost().await;

    scene.disks[leader].fill();
    scene.puts_are_refused(leader).await;
    let handed_over = scene.seats.server(leader).wait_for_log("the disk is full: leadership goes to", PATIENCE);
    assert!(handed_over, "{}", scene.seats.logs());
    let next = scene.leader_but(leader).await;
    scene.load(next, 20).await;
    scene.reads_and_deletes(leader).await;
    scene.reads_and_deletes(next).await;

    scene.load(next, BEYOND_THE_LOG).await;
    scene.ends_and_comes_back(leader).await;
}

#[tokio::test]
async fn gos_end_instead() {
    let Some(reference) = Reference::find() else { return };
    let Some(mut scene) = Scene::set(&reference.program("3.7", "etcd")) else { return };
    scene.load(0, 20).await;
    let leader = scene.seats.leader().await;
    let follower = (leader + 1) % 3;
    scene.disks[follower].fill();
    scene.load(leader, 60).await;
    scene.ends_and_comes_back(follower).await;

    let leader = scene.seats.leader().await;
    scene.disks[leader].fill();
    let end = Instant::now() + PATIENCE;
    for n in 0.. {
        match scene.put(leader, n).await {
            Ok(()) => assert!(Instant::now() < end, "the leader has room after all"),
            Err(e) => {
                assert_ne!(e.message(), REFUSED);
                break;
            }
        }
    }
    scene.ends_and_comes_back(leader).await;
}
