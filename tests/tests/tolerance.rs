//! Of N members (N − 1) / 2 may be down: the others serve. With one more down writes and linearizable reads are refused as
//! etcd refuses them, serializable reads work, and when it is back everything does.

use api::pb::{etcdserverpb as pb, grpc_health_v1 as health};
use health::health_check_response::ServingStatus;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::Seats;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::{PATIENCE, Wire};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Half of what members do by default, so that the test need not wait as long for what must fail.
const FLAGS: [&str; 2] = ["--heartbeat-interval=50", "--election-timeout=500"];

/// Well below the 6 s after which requests time out there, well above what a busy machine takes to answer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What etcd says where there is no quorum, however it comes to know.
const REFUSALS: [&str; 4] = [
    "etcdserver: no leader",
    "etcdserver: request timed out",
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
];

async fn reads(wire: &Wire, serializable: bool) -> Result<i64, Status> {
    let request = pb::RangeRequest { serializable, ..ask::get("before") };
    let found: Result<pb::RangeResponse, Status> = wire.unary(ask::RANGE, &request).await;
    found.map(|found| found.count)
}

/// All refusals of puts and of linearizable reads, asked everywhere at once.
async fn refusals(seats: &Seats) -> BTreeSet<String> {
    let all = async |n: usize| {
        [seats.put(n, "never").await.err(), reads(&Wire::lazy(&seats.url(n), PATIENCE), false).await.err()]
    };
    let running = seats.running();
    let asked = running.into_iter().map(all);
    let mut said = BTreeSet::new();
    for answers in together(asked).await {
        for (what, answer) in ["a put", "a linearizable read"].into_iter().zip(answers) {
            let error = answer.unwrap_or_else(|| panic!("{what} was served without a quorum"));
            let known = error.code() == Code::Unavailable && REFUSALS.contains(&error.message());
            assert!(known, "{what}: {error:?}\n{}", seats.logs());
            said.insert(format!("{what}: {}", error.message()));
        }
    }
    said
}

/// Waits for all of them at once.
async fn together<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in &mut waiting {
            if done.is_none()
                && let std::task::Poll::Ready(answer) = one.as_mut().poll(context)
            {
                *done = Some(answer);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

/// Kills a member: the leader first, then any.
async fn one_down(seats: &mut Seats, n: usize) {
    let victim = if n == 0 { seats.leader().await } else { seats.running()[n % seats.running().len()] };
    seats.kill(victim);
}

async fn tolerates(binary: &Path, count: usize) {
    let (folder, began) = (TempDir::for_cluster("tolerance"), Instant::now());
    let mut seats = Seats::found(&vec![binary.to_owned(); count], folder.path(), &FLAGS);
    seats.put_soon(0, "before").await;
    seats.agree().await;
    let tolerated = (count - 1) / 2;
    for n in 0..tolerated {
        one_down(&mut seats, n).await;
    }
    for n in seats.running() {
        seats.put_soon(n, "while").await;
        assert_eq!(reads(&seats.steady(n), false).await.expect("a quorum is there"), 1);
    }
    one_down(&mut seats, tolerated).await;
    for n in seats.running() {
        assert_eq!(reads(&seats.wire(n), true).await.expect("a serializable read needs nobody"), 1);
    }
    let said = refusals(&seats).await;
    let down: Vec<usize> = (0..count).filter(|n| !seats.running().contains(n)).collect();
    // One of them makes the quorum; where that one was all there was, it is alone.
    seats.start_these(&down[..1]);
    for n in seats.running() {
        seats.put_soon(n, "after").await;
    }
    seats.start_these(&down[1..]);
    seats.agree().await;
    println!("{count} members, {tolerated} may be down; then {said:?}; {:.1?}", began.elapsed());
}

#[tokio::test]
async fn one_and_two_members_tolerate_none() {
    tolerates(&our_etcd(), 1).await;
    tolerates(&our_etcd(), 2).await;
}

#[tokio::test]
async fn three_members_tolerate_one() {
    tolerates(&our_etcd(), 3).await;
}

#[tokio::test]
async fn four_members_tolerate_one() {
    tolerates(&our_etcd(), 4).await;
}

#[tokio::test]
async fn five_members_tolerate_two() {
    tolerates(&our_etcd(), 5).await;
}

#[tokio::test]
async fn seven_members_tolerate_three() {
    tolerates(&our_etcd(), 7).await;
}

/// So do Go's, by the same list of words.
#[tokio::test]
async fn three_members_of_gos_do_the_same() {
    let Some(reference) = Reference::find() else { return };
    tolerates(&reference.program("3.7", "etcd"), 3).await;
}

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Waits for its gRPC health.
async fn health_becomes(wire: &Wire, status: ServingStatus) {
    let end = Instant::now() + PATIENCE;
    loop {
        let found: health::HealthCheckResponse =
            wire.unary(HEALTH, &health::HealthCheckRequest::default()).await.expect("everybody may ask");
        if found.status() == status {
            return;
        }
        assert!(Instant::now() < end, "{found:?}, not {status:?}");
    }
}

#[tokio::test]
async fn who_has_no_leader_refuses_at_once_and_is_not_healthy_until_there_is_one() {
    let folder = TempDir::for_cluster("leaderless");
    let mut seats = Seats::found(&vec![our_etcd(); 2], folder.path(), &FLAGS);
    seats.put_soon(0, "before").await;
    let wire = Wire::connect(&seats.url(0)).await;
    health_becomes(&wire, ServingStatus::Serving).await;
    seats.kill(1);
    health_becomes(&wire, ServingStatus::NotServing).await;
    let asked = Instant::now();
    for refused in [seats.put(0, "never").await.err(), reads(&wire, false).await.err()] {
        assert_eq!(refused.expect("there is no quorum").message(), "etcdserver: no leader");
    }
    assert!(asked.elapsed() < AT_ONCE, "not at once: {:?}", asked.elapsed());
    seats.start(1);
    health_becomes(&wire, ServingStatus::Serving).await;
    seats.put_soon(0, "after").await;
}

/// A member whose leader is gone for longer than an election knows that it has none, and says so at once to those who ask
/// it to (`hasleader`).
#[tokio::test]
async fn who_requires_a_leader_is_told_at_once_that_there_is_none() {
    let folder = TempDir::for_cluster("hasleader");
    let mut seats = Seats::found(&vec![our_etcd(); 2], folder.path(), &FLAGS);
    seats.put_soon(0, "before").await;
    seats.kill(1);
    let wire = Wire::connect(&seats.url(0)).await;
    let request = prost::Message::encode_to_vec(&ask::put("never", "v"));
    let end = Instant::now() + PATIENCE;
    loop {
        let asked = Instant::now();
        let answer = wire.bytes(ask::PUT, request.clone().into(), &[("hasleader", "true")]).await;
        let error = answer.expect_err("there is no quorum");
        if error.message() == "etcdserver: no leader" {
            assert!(asked.elapsed() < AT_ONCE, "not at once: {:?}", asked.elapsed());
            return;
        }
        assert!(Instant::now() < end, "{error:?}");
    }
}
