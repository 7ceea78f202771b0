//! Members are replaced one by one under load, Go's 3.7 by ours and back: in place, with the program exchanged, and by
//! removing one and adding a fresh one, which gets the leader's database. No acknowledged write is lost, all members hold
//! the same after every step, leases keep their keys and their time. Needs `OXETCD_REFERENCE`.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{PATIENCE, Seats};
use oxetcd_tests::places::{Reference, count, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::recorder::{Habits, Recorder, judge};
use oxetcd_tests::temp::TempDir;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So small that a member which is not there for a moment needs the database.
const FLAGS: [&str; 2] = ["--snapshot-count=50", "--snapshot-catchup-entries=5"];
/// Longer than the test.
const LONG_LEASE: i64 = 7;
const LONG_TTL: i64 = 600;
/// Ends while members are replaced.
const SHORT_TTL: i64 = 4;

fn load(seats: &Seats) -> Recorder {
    let habits = Habits {
        seed: count("OXETCD_SEED", 1),
        clients: 4,
        pause: Duration::from_millis(5),
        patience: Duration::from_secs(8),
        insist: Some(Duration::from_secs(10)),
        ..Habits::default()
    };
    Recorder::start(habits, seats.urls())
}

/// Grants a lease and attaches a key to it.
async fn lease(seats: &Seats, id: i64, ttl: i64) -> String {
    let key = format!("leased{id}");
    let wire = seats.steady(seats.leader().await);
    let granted: pb::LeaseGrantResponse = wire.unary(ask::GRANT, &ask::grant(id, ttl)).await.expect("a lease");
    assert_eq!(granted.ttl, ttl);
    let put = pb::PutRequest { lease: id, ..ask::put(&key, "v") };
    let _: pb::PutResponse = wire.unary(ask::PUT, &put).await.expect("a put");
    key
}

/// Every member says that the long lease has its key, and about the time that is left of it. A new leader starts the
/// time anew, so only the upper bound is sharp.
async fn long_lease_lives(seats: &Seats, granted: Instant) {
    for n in seats.running() {
        let request = pb::LeaseTimeToLiveRequest { id: LONG_LEASE, keys: true };
        let lease: pb::LeaseTimeToLiveResponse = seats
            .steady(n)
            .unary(ask::TIME_TO_LIVE, &request)
            .await
            .unwrap_or_else(|e| panic!("{n}: {e}\n{}", seats.logs()));
        assert_eq!((lease.granted_ttl, lease.keys.len()), (LONG_TTL, 1), "member {n}: {lease:?}");
        let passed = i64::try_from(granted.elapsed().as_secs()).expect("small");
        assert!(lease.ttl <= LONG_TTL && lease.ttl >= LONG_TTL - passed - 2, "member {n} after {passed} s: {lease:?}");
    }
}

/// A lease that ends takes its key along, not before its time and not long after it: each new leader may start it anew.
async fn short_lease_ends(seats: &Seats, key: &str, granted: Instant) {
    let least = Duration::from_secs(SHORT_TTL as u64) - Duration::from_millis(100);
    let end = Instant::now() + PATIENCE;
    let wire = seats.steady(seats.leader().await);
    loop {
        let found: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get(key)).await.expect("a range");
        let passed = granted.elapsed();
        if found.count == 0 {
            return assert!(passed >= least, "{key} is gone after {passed:?}");
        }
        assert!(Instant::now() < end, "{key} is still there after {passed:?}\n{}", seats.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a step does to the cluster; the short lease spans it.
async fn around(seats: &mut Seats, load: &Recorder, step: i64, change: impl AsyncFnOnce(&mut Seats)) {
    let began = Instant::now();
    let key = lease(seats, 100 + step, SHORT_TTL).await;
    let granted = Instant::now();
    change(seats).await;
    load.redirect(seats.urls());
    seats.agree().await;
    load.progress(10, PATIENCE).await.unwrap_or_else(|e| panic!("step {step}: {e}\n{}", seats.logs()));
    let changed = began.elapsed();
    short_lease_ends(seats, &key, granted).await;
    println!("step {step}: {changed:.1?}, lease ended after {:.1?}", granted.elapsed());
}

async fn finish(seats: &Seats, load: Recorder, began: Instant) {
    let record = load.end().await;
    println!("errors: {:?}", record.errors);
    let judged = judge(seats, &record).await;
    println!("{judged:?} in {:.1?}", began.elapsed());
}

fn programs() -> Option<(PathBuf, PathBuf)> {
    Some((Reference::find()?.program("3.7", "etcd"), our_etcd()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_exchanged_in_place_and_back() {
    let Some((go, ours)) = programs() else { return };
    let (folder, began) = (TempDir::for_cluster("rolling"), Instant::now());
    let mut seats = Seats::found(&vec![go.clone(); 3], folder.path(), &FLAGS);
    lease(&seats, LONG_LEASE, LONG_TTL).await;
    let granted = Instant::now();
    let load = load(&seats);
    let steps = [&ours, &go].into_iter().flat_map(|program| (0..3).map(move |n| (n, program)));
    for (step, (n, program)) in (1..).zip(steps) {
        let exchange = async |seats: &mut Seats| {
            seats.stop(n);
            seats.launch(n).binary.clone_from(program);
            seats.start(n);
        };
        around(&mut seats, &load, step, exchange).await;
        long_lease_lives(&seats, granted).await;
    }
    finish(&seats, load, began).await;
}

/// A fresh member with this program instead of a member.
async fn replace(seats: &mut Seats, n: usize, program: &Path, folder: &TempDir) {
    let through = seats.running().into_iter().find(|other| *other != n).expect("a cluster of several");
    seats.remove(n, through).await;
    let through = seats.leader().await;
    let data = folder.join(&format!("fresh{}", seats.count()));
    let seat = seats.join(through, Launch::new(program, &data).with_flags(&FLAGS)).await;
    let saved = if program == our_etcd() { "database snapshot" } else { "applied snapshot" };
    assert!(seats.server(seat).wait_for_log(saved, PATIENCE), "no {saved:?} in {}", seats.server(seat).log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_removed_and_fresh_ones_get_the_database() {
    let Some((go, ours)) = programs() else { return };
    let (folder, began) = (TempDir::for_cluster("renewal"), Instant::now());
    let mut seats = Seats::found(&vec![go.clone(); 3], folder.path(), &FLAGS);
    lease(&seats, LONG_LEASE, LONG_TTL).await;
    let granted = Instant::now();
    let load = load(&seats);
    // More entries than a leader keeps.
    load.progress(300, PATIENCE).await.expect("all are there");
    // Seats 0, 1, 2 are Go's, 3, 4, 5 ours, 6 Go's again: its database comes from one of ours.
    for (step, (n, program)) in (1..).zip([(0, &ours), (1, &ours), (2, &ours), (3, &go)]) {
        around(&mut seats, &load, step, async |seats: &mut Seats| replace(seats, n, program, &folder).await).await;
        long_lease_lives(&seats, granted).await;
    }
    finish(&seats, load, began).await;
}
