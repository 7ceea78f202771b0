//! The same script for a cluster of each kind. Whenever the network rests, the two must be alike: roles, terms, votes,
//! leaders, commit indexes, logs, members, and everything that was applied.
//!
//! How many messages it takes to get there differs in allowed ways (how a commit index is passed on, what a full window
//! lets through), so a script says which links are cut, not which message is lost.

use crate::member::{Applied, ELECTION_TICK, Kind, Member, Settings, View, boot};
use crate::{Random, disk::Disk, seeds};
use api::raft::{ConfChange, ConfChangeKind, ConfState, Message, MessageType};
use raft::Role;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Debug)]
enum Op {
    /// One tick at some nodes, one after the other: who wins a race is not the point.
    Tick(Vec<u64>),
    Campaign(u64),
    Propose(u64, u64),
    Change(u64, ConfChange),
    Read(u64, u64),
    Transfer(u64, u64),
    Compact(u64),
    Restart(u64),
    Cut(BTreeSet<u64>, bool),
    Mend,
}

struct Cluster {
    kind: Kind,
    settings: Settings,
    members: Vec<Box<dyn Member>>,
    cut: BTreeSet<(u64, u64)>,
    applied: Vec<Vec<Applied>>,
    reads: BTreeMap<u64, (u64, u64)>,
    messages: VecDeque<Message>,
}

impl Cluster {
    fn new(kind: Kind, settings: Settings, size: u64, conf: &ConfState) -> Cluster {
        let disk = Disk::new(conf.clone());
        let members: Vec<_> = (1..=size).map(|id| boot(kind, id, disk.clone(), settings, id)).collect();
        let applied = vec![vec![]; size as usize];
        let (cut, reads, messages) = (BTreeSet::new(), BTreeMap::new(), VecDeque::new());
        let mut cluster = Cluster { kind, settings, members, cut, applied, reads, messages };
        cluster.set_timeouts();
        cluster
    }

    fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.members.len() as u64
    }

    fn at(&mut self, id: u64) -> &mut dyn Member {
        &mut *self.members[id as usize - 1]
    }

    /// Drawn at random by each kind; here the same.
    fn set_timeouts(&mut self) {
        for id in self.ids() {
            self.at(id).set_timeout(ELECTION_TICK + (id as usize * 2) % ELECTION_TICK);
        }
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Tick(ids) => ids.iter().for_each(|id| {
                self.at(*id).tick();
                self.settle();
                self.set_timeouts();
            }),
            Op::Campaign(id) => self.at(*id).campaign(),
            Op::Propose(id, number) => {
                self.at(*id).propose(number.to_be_bytes().to_vec().into());
            }
            Op::Change(id, change) => {
                self.at(*id).propose_change(change);
            }
            Op::Read(id, number) => self.at(*id).read(number.to_be_bytes().to_vec().into()),
            Op::Transfer(id, to) => self.at(*id).transfer(*to),
            Op::Compact(id) => self.at(*id).compact(),
            Op::Restart(id) => self.restart(*id),
            Op::Cut(side, both_ways) => self.divide(side, *both_ways),
            Op::Mend => self.cut.clear(),
        }
        self.settle();
        self.set_timeouts();
    }

    fn restart(&mut self, id: u64) {
        let disk = self.at(id).disk();
        self.applied[id as usize - 1].clear();
        self.members[id as usize - 1] = boot(self.kind, id, disk, self.settings, id);
    }

    fn divide(&mut self, side: &BTreeSet<u64>, both_ways: bool) {
        for a in side {
            for b in self.ids().filter(|b| !side.contains(b)) {
                self.cut.insert((*a, b));
                if both_ways {
                    self.cut.insert((b, *a));
                }
            }
        }
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        for rounds in 0.. {
            assert!(rounds < 10_000, "the network never rests");
            self.ids().for_each(|id| self.work(id));
            let Some(message) = self.messages.pop_front() else { return };
            let (from, to) = (message.from, message.to);
            // A snapshot from before its addressee was added is refused, and without a pause it would be sent for ever.
            let conf = message.snapshot.as_ref().map(|s| &s.metadata.conf_state);
            let refused = conf.is_some_and(|c| !c.voters.contains(&to) && !c.learners.contains(&to));
            let lost = refused || self.cut.contains(&(from, to));
            if message.kind == MessageType::MsgSnap {
                self.at(from).report_snapshot(to, !lost);
            }
            if !lost {
                self.at(to).step(message);
            }
        }
    }

    fn work(&mut self, id: u64) {
        let mut done = self.at(id).work();
        // The oracle's order is that of a hash map.
        done.messages.sort_by_key(|m| m.to);
        self.messages.extend(done.messages);
        self.applied[id as usize - 1].extend(done.applied);
        for read in done.reads {
            let number = u64::from_be_bytes(read.request_ctx[..].try_into().expect("our own context"));
            self.reads.insert(number, (id, read.index));
        }
        if self.at(id).view().is_over(id) {
            self.restart(id);
        }
    }

    fn views(&self) -> Vec<View> {
        self.members.iter().map(|m| m.view()).collect()
    }
}

fn script(random: &mut Random, size: u64, views: &[View], number: u64, changing: bool) -> Op {
    let id = random.between(1, size);
    let other = random.between(1, size);
    match random.below(100) {
        0..48 => Op::Tick((1..=size).filter(|_| random.chance(75)).collect()),
        48..52 if views[id as usize - 1].conf.voters.contains(&id) => Op::Campaign(id),
        52..72 => Op::Propose(id, number),
        72..78 => Op::Read(id, number),
        78..81 => Op::Transfer(id, other),
        81..84 => Op::Compact(id),
        84..86 => Op::Restart(id),
        86..91 => Op::Cut((1..=size).filter(|_| random.chance(40)).collect(), random.chance(70)),
        91..94 => Op::Mend,
        94.. if changing => {
            let kinds = [ConfChangeKind::AddNode, ConfChangeKind::AddLearnerNode, ConfChangeKind::RemoveNode];
            let kind = kinds[random.below(3) as usize];
            Op::Change(id, ConfChange { id: number, kind, node_id: other, ..ConfChange::default() })
        }
        _ => Op::Tick((1..=size).collect()),
    }
}

fn run(seeds: std::ops::Range<u64>, size: u64, changing: bool) {
    let (mut terms, mut commits, mut reads) = (0, 0, 0);
    let count = seeds.clone().count() as u64;
    for seed in seeds {
        // Windows that never fill: what they let through when full differs.
        let settings = Settings { max_inflight_msgs: 256, max_size_per_msg: 1 << 20, ..Settings::of(seed) };
        let mut random = Random::new(seed);
        let learners = if seed % 4 == 3 { vec![size] } else { vec![] };
        let voters = (1..=size - learners.len() as u64).collect();
        let conf = ConfState { voters, learners, ..ConfState::default() };
        let mut ours = Cluster::new(Kind::Ours, settings, size, &conf);
        let mut theirs = Cluster::new(Kind::Theirs, settings, size, &conf);
        let mut past = Vec::new();
        for number in 0..400 {
            let op = script(&mut random, size, &ours.views(), number, changing);
            ours.run(&op);
            theirs.run(&op);
            past.push(op);
            let recent = &past[past.len().saturating_sub(12)..];
            compare(&ours, &theirs, changing, &format!("seed {seed}, step {number}: {recent:?}"));
        }
        let last = ours.views().iter().map(|v| v.disk.hard_state).max_by_key(|h| (h.term, h.commit));
        terms += last.map_or(0, |h| h.term);
        commits += last.map_or(0, |h| h.commit);
        reads += theirs.reads.len();
    }
    println!("{size} nodes, {count} seeds: {terms} terms, {commits} entries, {reads} reads");
    assert!(terms > count && commits > 10 * count && reads as u64 > count, "{terms} {commits} {reads}");
}

fn compare(ours: &Cluster, theirs: &Cluster, changing: bool, place: &str) {
    for (id, (own, other)) in (1..).zip(ours.views().iter().zip(&theirs.views())) {
        assert_eq!(own, other, "node {id}, {place}");
    }
    assert_eq!(ours.applied, theirs.applied, "{place}");
    for ((id, own), other) in (1..).zip(&ours.members).zip(&theirs.members) {
        if own.view().role == Role::Leader {
            assert_eq!(own.matches(), other.matches(), "progress at node {id}, {place}");
        }
    }
    // Ours keeps reads that come before the first commit of the term, which the oracle drops; and one answer may confirm
    // older reads along with its own. As etcd's raft it doesn't take answers from who was removed.
    for (number, read) in &theirs.reads {
        let own = ours.reads.get(number);
        assert!(own == Some(read) || (own.is_none() && changing), "read {number}: {own:?}, not {read:?}, {place}");
    }
}

#[test]
fn three_nodes_behave_like_the_oracle_s() {
    run(seeds(1, 60), 3, false);
}

#[test]
fn five_nodes_behave_like_the_oracle_s() {
    run(seeds(500, 40), 5, false);
}

#[test]
fn members_come_and_go_as_the_oracle_s_do() {
    run(seeds(800, 60), 5, true);
}
