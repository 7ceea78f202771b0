//! How long a cluster of three is without a leader: after SIGTERM, when the leader hands over, and after `kill -9`. The
//! figures are printed; only bounds that no machine should miss are asserted. More: `OXETCD_FAILOVERS=50`.

use oxetcd_tests::cluster::Seats;
use oxetcd_tests::places::{count, our_etcd};
use oxetcd_tests::recorder::{Habits, Recorder, judge};
use oxetcd_tests::temp::TempDir;
use std::time::{Duration, Instant};

const BOUND: Duration = Duration::from_secs(10);
/// The same for an election that may be split.
const ELECTION_BOUND: Duration = Duration::from_secs(15);

fn load(seats: &Seats) -> Recorder {
    // Clients that soon ask somebody else: what one member keeps is not what is measured.
    let habits = Habits { clients: 8, patience: Duration::from_millis(300), ..Habits::default() };
    Recorder::start(habits, seats.urls())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_asked_to_stop_hands_over() {
    let folder = TempDir::for_cluster("handover");
    let mut seats = Seats::found(&vec![our_etcd(); 3], folder.path(), &[]);
    let load = load(&seats);
    for _ in 0..3 {
        load.progress(20, BOUND).await.expect("all are there");
        let leader = seats.leader().await;
        let old = seats.id(leader).await;
        let server = seats.taken(leader);
        let began = Instant::now();
        let gone = tokio::task::spawn_blocking(move || {
            server.stop();
            began.elapsed()
        });
        let led = loop {
            let status = seats.status(seats.running()[0]).await.expect("it runs");
            if status.leader != 0 && status.leader != old {
                break began.elapsed();
            }
            assert!(began.elapsed() < BOUND, "nobody takes over\n{}", seats.logs());
            tokio::task::yield_now().await;
        };
        let gone = gone.await.expect("it stops");
        assert!(gone < BOUND, "the process took {gone:?}");
        println!("SIGTERM: the next leader after {led:.1?}, the process gone after {gone:.1?}");
        seats.start(leader);
    }
    let judged = judge(&seats, &load.end().await).await;
    println!("{judged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_is_replaced() {
    let folder = TempDir::for_cluster("failover");
    let mut seats = Seats::found(&vec![our_etcd(); 3], folder.path(), &[]);
    let load = load(&seats);
    let mut times = Vec::new();
    for _ in 0..count("OXETCD_FAILOVERS", 3) {
        load.progress(20, BOUND).await.expect("all are there");
        let leader = seats.leader().await;
        let began = Instant::now();
        seats.kill(leader);
        let served = load.progress(1, ELECTION_BOUND).await.unwrap_or_else(|e| panic!("{e}\n{}", seats.logs()));
        times.push(served - began);
        seats.start(leader);
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    println!("kill -9: the next write after p50 {:.1?}, p95 {:.1?} of {}", at(50), at(95), times.len());
    let judged = judge(&seats, &load.end().await).await;
    println!("{judged:?}");
}
