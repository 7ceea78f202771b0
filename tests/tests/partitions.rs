//! Faults under load, round after round: members killed, stopped and continued, cut off from one another in both ways or
//! in one. Meanwhile the majority serves; afterwards all members hold the same, no acknowledged write is lost, and what
//! the clients were told can have come from one store.
//!
//! Cuts need root and `ip`; without them only kills and pauses are left, and the test says so. More: `OXETCD_ROUNDS=200
//! OXETCD_SEED=4711`.

use oxetcd_tests::cluster::Seats;
use oxetcd_tests::linear::{Call, Judged, Operation, Outcome, check};
use oxetcd_tests::net::{self, Net};
use oxetcd_tests::places::{Reference, count, our_etcd};
use oxetcd_tests::recorder::{Habits, Recorder, judge, send};
use oxetcd_tests::rng::Rng;
use oxetcd_tests::temp::TempDir;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the majority may take to serve again.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillLeader,
    KillFollower,
    KillAll,
    PauseLeader,
    PauseFollower,
    /// Nobody reaches the leader, and it reaches nobody.
    IsolateLeader,
    IsolateFollower,
    /// It sends and does not receive.
    DeafLeader,
    /// It receives and does not send.
    MuteLeader,
    DeafFollower,
    /// Leader and one follower lose sight of each other; the third sees both.
    CutPair,
}

const WITH_CUTS: [Fault; 11] = [
    Fault::MuteLeader,
    Fault::KillLeader,
    Fault::IsolateLeader,
    Fault::PauseLeader,
    Fault::DeafLeader,
    Fault::CutPair,
    Fault::KillAll,
    Fault::IsolateFollower,
    Fault::DeafFollower,
    Fault::KillFollower,
    Fault::PauseFollower,
];
const WITHOUT: [Fault; 5] =
    [Fault::KillLeader, Fault::PauseLeader, Fault::KillAll, Fault::KillFollower, Fault::PauseFollower];

/// A cluster under load, and what hurts it.
struct Trial<'a> {
    seats: Seats,
    net: Option<&'a Net>,
    rng: Rng,
    load: Recorder,
}

impl Trial<'_> {
    /// One fault from its beginning to its end. Answers how long the majority took to serve again.
    async fn round(&mut self, fault: Fault) -> Duration {
        let leader = self.seats.leader().await;
        let follower = (leader + 1 + self.rng.below(2) as usize) % self.seats.count();
        let began = Instant::now();
        self.begin(fault, leader, follower);
        let served = match fault {
            Fault::KillAll => began,
            _ => self
                .load
                .progress(10, PATIENCE)
                .await
                .unwrap_or_else(|e| panic!("{fault:?}: {e}\n{}", self.seats.logs())),
        };
        // Faults last different times: less than an election takes, and more.
        tokio::time::sleep(Duration::from_millis(self.rng.below(1500))).await;
        self.end(fault, leader, follower);
        for n in 0..self.seats.count() {
            self.seats.put_soon(n, &format!("after{n}")).await;
        }
        served - began
    }

    fn begin(&mut self, fault: Fault, leader: usize, follower: usize) {
        match fault {
            Fault::KillLeader => self.seats.kill(leader),
            Fault::KillFollower => self.seats.kill(follower),
            Fault::KillAll => (0..self.seats.count()).for_each(|n| self.seats.kill(n)),
            Fault::PauseLeader => self.seats.server(leader).signal(Signal::STOP),
            Fault::PauseFollower => self.seats.server(follower).signal(Signal::STOP),
            Fault::IsolateLeader => self.cut(leader, true, true),
            Fault::IsolateFollower => self.cut(follower, true, true),
            Fault::MuteLeader => self.cut(leader, true, false),
            Fault::DeafLeader => self.cut(leader, false, true),
            Fault::DeafFollower => self.cut(follower, false, true),
            Fault::CutPair => self.net().cut_both(leader, follower),
        }
    }

    /// Cuts what one member sends to all others, or what they send to it, or both.
    fn cut(&self, one: usize, mute: bool, deaf: bool) {
        for other in (0..self.seats.count()).filter(|n| *n != one) {
            if mute {
                self.net().cut(one, other);
            }
            if deaf {
                self.net().cut(other, one);
            }
        }
    }

    fn net(&self) -> &Net {
        self.net.expect("faults that cut are chosen only where there is a network")
    }

    fn end(&mut self, fault: Fault, leader: usize, follower: usize) {
        match fault {
            Fault::KillLeader => self.seats.start(leader),
            Fault::KillFollower => self.seats.start(follower),
            Fault::KillAll => self.seats.start_these(&(0..self.seats.count()).collect::<Vec<_>>()),
            Fault::PauseLeader => self.seats.server(leader).signal(Signal::CONT),
            Fault::PauseFollower => self.seats.server(follower).signal(Signal::CONT),
            _ => self.net().heal(),
        }
    }
}

/// Members that soon notice a leader's end, with logs that are cut now and then.
const FLAGS: [&str; 3] = ["--heartbeat-interval=50", "--election-timeout=500", "--snapshot-count=500"];

fn found(net: Option<&Net>, binaries: &[PathBuf], folder: &TempDir) -> Seats {
    Seats::found_placed(binaries, folder.path(), |n, launch| {
        let launch = net.map_or_else(|| launch.clone(), |net| net.place(n, launch.clone()));
        launch.with_flags(&FLAGS)
    })
}

/// All rounds. Different `first` begin with different faults.
async fn suffer(net: Option<&Net>, binaries: &[PathBuf], rounds: u64, seed: u64, first: u64) -> Judged {
    let folder = TempDir::for_cluster("partitions");
    let seats = found(net, binaries, &folder);
    let load = Recorder::start(Habits { seed, ..Habits::default() }, seats.urls());
    let mut trial = Trial { seats, net, rng: Rng::new(seed ^ first), load };
    let faults: &[Fault] = if net.is_some() { &WITH_CUTS } else { &WITHOUT };
    for round in first..first + rounds {
        let fault = faults[(round % faults.len() as u64) as usize];
        let served = trial.round(fault).await;
        println!("round {round}: {fault:?}, served again after {served:.1?}");
    }
    let record = trial.load.end().await;
    println!("errors: {:?}", record.errors);
    judge(&trial.seats, &record).await
}

fn trial(name: &str, binaries: &[PathBuf], rounds: u64, first: u64) {
    let (seed, began) = (count("OXETCD_SEED", 1), Instant::now());
    let net = Net::routed(binaries.len());
    if net.is_none() {
        println!("{name}: only kills and pauses");
    }
    println!("{name}: OXETCD_SEED={seed}, {rounds} rounds");
    let judged = net::run(net.as_ref(), suffer(net.as_ref(), binaries, rounds, seed, first));
    assert!(judged.written as u64 > rounds, "the load wrote something: {judged:?}");
    println!("{name}: {judged:?} in {:.1?}", began.elapsed());
}

fn rounds() -> u64 {
    count("OXETCD_ROUNDS", 10)
}

/// Ours and Go's members of this version.
fn mixed(name: &str, version: &str, ours: usize, first: u64) {
    let Some(reference) = Reference::find() else { return };
    let mut binaries = vec![our_etcd(); ours];
    binaries.resize(3, reference.program(version, "etcd"));
    trial(name, &binaries, rounds().div_ceil(3), first);
}

#[test]
fn three_of_ours_stay_one_store() {
    trial("three of ours", &[our_etcd(), our_etcd(), our_etcd()], rounds(), 0);
}

#[test]
fn two_of_ours_and_one_of_gos_stay_one_store() {
    mixed("two of ours, one of Go's 3.7", "3.7", 2, 2);
}

#[test]
fn one_of_ours_and_two_of_gos_stay_one_store() {
    mixed("one of ours, two of Go's 3.7", "3.7", 1, 0);
}

#[test]
fn one_of_ours_and_two_of_gos_3_6_stay_one_store() {
    mixed("one of ours, two of Go's 3.6", "3.6", 1, 4);
}

/// The judge's own test: who reads old data from a leader that was cut off is found out.
#[test]
fn stale_reads_are_found_out() {
    let Some(net) = Net::routed(3) else { return };
    net::run(Some(&net), async {
        let folder = TempDir::for_cluster("stale");
        let seats = found(Some(&net), &vec![our_etcd(); 3], &folder);
        let leader = seats.leader().await;
        let mut history = Vec::new();
        asked(&mut history, &seats, leader, Call::Put(1)).await.expect("it leads");
        for other in (0..3).filter(|n| *n != leader) {
            net.cut_both(leader, other);
        }
        let (mut value, end) = (2, Instant::now() + PATIENCE);
        while asked(&mut history, &seats, (leader + 1) % 3, Call::Put(value)).await.is_none() {
            assert!(Instant::now() < end, "no other leader\n{}", seats.logs());
            value += 1;
        }
        assert_eq!(check(&history).map(|judged| judged.written), Ok(2));
        asked(&mut history, &seats, leader, Call::Get).await.expect("a serializable read needs nobody");
        let refused = check(&history).expect_err("nobody noticed the stale read");
        assert!(refused.contains("revisions go back"), "{refused}");
    });
}

/// Asks after all that was asked before, and writes it down. Reads are serializable.
async fn asked(history: &mut Vec<Operation>, seats: &Seats, n: usize, call: Call) -> Option<Outcome> {
    let answer = send(&seats.wire(n), "r/k", call, true).await.ok();
    let (from, outcome) = (2 * history.len() as u64, answer.unwrap_or(Outcome::Unknown));
    history.push(Operation { key: "r/k".to_owned(), call, from, till: from + 1, outcome });
    answer
}
