//! Clusters with nodes of both kinds over a network that loses, delays, doubles, reorders and cuts; nodes crash with work
//! undone, logs are compacted, leadership is handed over, members come and go.
//!
//! Checked all along: election safety, one vote a term, log matching, leader completeness, state machine safety and
//! linearizable reads; with fixed members also that everybody catches up once the network healed.

use crate::member::{Applied, Kind, Member, Settings, boot};
use crate::{Random, disk::Disk, seeds};
use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, HardState, Message, MessageType};
use raft::Role;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the whole cluster; no node sees it.
#[derive(Default)]
struct Witness {
    leaders: BTreeMap<u64, u64>,
    /// Index and term → the entry and the term before.
    entries: BTreeMap<(u64, u64), (Entry, u64)>,
    /// What was applied, and the term of the first node to do so.
    applied: BTreeMap<u64, (Entry, u64)>,
    /// What a read must cover.
    reads: BTreeMap<u64, u64>,
    reads_done: usize,
    led_by: [usize; 2],
}

struct Node {
    member: Box<dyn Member>,
    kind: Kind,
    applied: u64,
    /// As last seen on disk.
    state: HardState,
}

struct World {
    seed: u64,
    random: Random,
    settings: Settings,
    nodes: Vec<Node>,
    messages: Vec<Message>,
    cut: BTreeSet<(u64, u64)>,
    witness: Witness,
    counter: u64,
    healed: bool,
}

impl World {
    fn new(seed: u64, size: u64, voters: u64) -> World {
        let (mut random, settings) = (Random::new(seed), Settings::of(seed));
        let conf = ConfState { voters: (1..=voters).collect(), ..ConfState::default() };
        // Every mixture comes up, but for those of one kind alone.
        let ours = random.between(1, (1 << size) - 2);
        let nodes = (1..=size).map(|id| {
            let kind = if ours >> (id - 1) & 1 == 1 { Kind::Ours } else { Kind::Theirs };
            let member = boot(kind, id, Disk::new(conf.clone()), settings, seed + id);
            Node { member, kind, applied: 0, state: HardState::default() }
        });
        World {
            seed,
            nodes: nodes.collect(),
            random,
            settings,
            messages: Vec::new(),
            cut: BTreeSet::new(),
            witness: Witness::default(),
            counter: 0,
            healed: false,
        }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    fn any(&mut self) -> u64 {
        1 + self.random.below(self.nodes.len() as u64)
    }

    /// Something happens.
    fn step(&mut self, changing: bool) {
        let id = self.any();
        match self.random.below(1000) {
            0..500 => self.deliver_any(),
            500..620 => self.work(id),
            620..840 => self.node(id).member.tick(),
            840..910 => self.propose(id),
            910..950 => self.read(id),
            950..958 => self.crash(id),
            958..968 => self.cut_or_mend(),
            968..978 => self.node(id).member.compact(),
            978..984 => {
                let to = self.any();
                self.node(id).member.transfer(to);
            }
            984..990 => {
                let to = self.any();
                self.node(id).member.report_unreachable(to);
            }
            _ if changing => self.change_members(id),
            _ => {}
        }
    }

    /// A node's storage does all there is, and its messages leave.
    fn work(&mut self, id: u64) {
        let done = self.node(id).member.work();
        self.messages.extend(done.messages);
        for entry in &done.written {
            self.check_written(id, entry);
        }
        for applied in done.applied {
            self.check_applied(id, applied);
        }
        for read in done.reads {
            let number = u64::from_be_bytes(read.request_ctx[..].try_into().expect("our own context"));
            let least = self.witness.reads[&number];
            assert!(read.index >= least, "seed {}: a stale read at {} < {least}", self.seed, read.index);
            self.witness.reads_done += 1;
        }
        self.check_promises(id);
    }

    /// Before it, in this leader's log and so in everybody's, stands an entry of one and the same term.
    fn check_written(&mut self, id: u64, entry: &Entry) {
        let disk = self.node(id).member.disk();
        if disk.term(entry.index) != Some(entry.term) {
            // Written over, or compacted, in the same round.
            return;
        }
        let Some(before) = disk.term(entry.index - 1) else { return };
        let seen = (entry.clone(), before);
        let known = self.witness.entries.entry((entry.index, entry.term)).or_insert_with(|| seen.clone());
        assert_eq!(*known, seen, "seed {}: the logs don't match at {} of node {id}", self.seed, entry.index);
    }

    fn check_applied(&mut self, id: u64, applied: Applied) {
        let seed = self.seed;
        let term = self.node(id).member.disk().hard_state.term;
        match applied {
            Applied::Snapshot(index, term) => {
                let (known, _) = &self.witness.applied[&index];
                assert_eq!(known.term, term, "seed {seed}: a snapshot of another history");
                self.node(id).applied = index;
            }
            Applied::Entry(entry) => {
                let index = entry.index;
                assert_eq!(index, self.node(id).applied + 1, "seed {seed}: node {id} applies out of order");
                let (known, _) = self.witness.applied.entry(index).or_insert_with(|| (entry.clone(), term));
                assert_eq!(*known, entry, "seed {seed}: node {id} applies something else at {index}");
                self.node(id).applied = index;
            }
        }
    }

    fn check_promises(&mut self, id: u64) {
        let (seed, view) = (self.seed, self.node(id).member.view());
        let (new, node) = (view.disk.hard_state, self.node(id));
        let (old, kind) = (std::mem::replace(&mut node.state, new), node.kind);
        assert!(new.term >= old.term && new.commit >= old.commit, "seed {seed}: node {id} went back: {old:?} {new:?}");
        let changed = new.term == old.term && old.vote != 0 && new.vote != old.vote;
        assert!(!changed, "seed {seed}: node {id} voted twice in term {}", new.term);
        if view.is_over(id) && kind == Kind::Theirs {
            self.crash(id);
        }
        if view.role != Role::Leader {
            return;
        }
        let known = self.witness.leaders.insert(new.term, id);
        assert!(known.is_none_or(|k| k == id), "seed {seed}: {known:?} and {id} lead term {}", new.term);
        if known.is_some() {
            return;
        }
        self.witness.led_by[kind as usize] += 1;
        for (index, (entry, applied_in)) in &self.witness.applied {
            let has = *index < view.disk.base() || view.disk.term(*index) == Some(entry.term);
            assert!(has || *applied_in >= new.term, "seed {seed}: leader {id} of {} lacks {index}", new.term);
        }
    }

    fn deliver_any(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.random.below(self.messages.len() as u64) as usize;
        let message = match self.random.chance(5) {
            true => self.messages[at].clone(),
            false => self.messages.swap_remove(at),
        };
        let lost = self.random.chance(5) || self.cut.contains(&(message.from, message.to));
        self.deliver(message, lost);
        if self.messages.len() > 500 {
            // Nobody gets around to them.
            self.messages.drain(..250);
        }
    }

    fn deliver(&mut self, message: Message, lost: bool) {
        let (from, to) = (message.from, message.to);
        if message.kind == MessageType::MsgSnap {
            // The transport knows whether it got a snapshot across.
            self.node(from).member.report_snapshot(to, !lost);
        }
        if !lost {
            self.node(to).member.step(message);
            if self.healed || self.random.chance(70) {
                self.work(to);
            }
        }
    }

    fn propose(&mut self, id: u64) {
        self.counter += 1;
        let data = self.counter.to_be_bytes().to_vec();
        self.node(id).member.propose(data.into());
    }

    fn read(&mut self, id: u64) {
        self.counter += 1;
        let number = self.counter;
        let least = self.witness.applied.keys().next_back().copied().unwrap_or(0);
        self.witness.reads.insert(number, least);
        self.node(id).member.read(number.to_be_bytes().to_vec().into());
    }

    /// Work that was not done is lost.
    fn crash(&mut self, id: u64) {
        let (settings, seed, node) = (self.settings, self.random.draw(), self.node(id));
        let disk = node.member.disk();
        node.applied = disk.base();
        node.state = HardState { commit: 0, ..disk.hard_state };
        node.member = boot(node.kind, id, disk, settings, seed);
    }

    fn cut_or_mend(&mut self) {
        self.cut.clear();
        if self.random.chance(40) {
            return;
        }
        let (ids, one_way) = (1..=self.nodes.len() as u64, self.random.chance(30));
        let side: BTreeSet<u64> = ids.clone().filter(|_| self.random.chance(40)).collect();
        for a in &side {
            for b in ids.clone().filter(|b| !side.contains(b)) {
                self.cut.insert((*a, b));
                if !one_way {
                    self.cut.insert((b, *a));
                }
            }
        }
    }

    fn change_members(&mut self, id: u64) {
        let node_id = self.any();
        let kind = match self.random.below(3) {
            0 => ConfChangeKind::RemoveNode,
            1 => ConfChangeKind::AddLearnerNode,
            _ => ConfChangeKind::AddNode,
        };
        self.counter += 1;
        let change = ConfChange { id: self.counter, kind, node_id, ..ConfChange::default() };
        self.node(id).member.propose_change(&change);
    }

    /// Nothing is lost any more: everybody catches up.
    fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
        let (ids, before) = (1..=self.nodes.len() as u64, self.witness.applied.len());
        for round in 0..300 {
            for id in ids.clone() {
                self.node(id).member.tick();
                if round % 50 == 40 {
                    self.propose(id);
                }
                self.work(id);
            }
            for message in std::mem::take(&mut self.messages) {
                self.deliver(message, false);
            }
        }
        ids.for_each(|id| self.work(id));
        assert!(self.witness.applied.len() > before, "seed {}: nothing goes on after the network healed", self.seed);
        let last = self.witness.applied.keys().next_back().copied();
        for (id, node) in (1..).zip(&self.nodes) {
            assert_eq!(Some(node.applied), last, "seed {}: node {id} did not catch up", self.seed);
        }
    }
}

/// Runs seeds and says what they saw, so that a test which sees nothing fails.
fn run(seeds: std::ops::Range<u64>, size: u64, voters: u64, changing: bool) {
    let (mut led_by, mut applied, mut reads) = ([0; 2], 0, 0);
    let count = seeds.clone().count();
    for seed in seeds {
        let mut world = World::new(seed, size, voters);
        for _ in 0..5000 {
            world.step(changing);
        }
        if !changing {
            world.heal();
        }
        led_by[0] += world.witness.led_by[0];
        led_by[1] += world.witness.led_by[1];
        applied += world.witness.applied.len();
        reads += world.witness.reads_done;
    }
    println!(
        "{size} nodes, {count} seeds: ours led {} terms, theirs {}; {applied} entries, {reads} reads",
        led_by[0], led_by[1]
    );
    assert!(
        led_by.iter().all(|n| *n > count / 2) && applied > 10 * count && reads > count,
        "{led_by:?} {applied} {reads}"
    );
}

#[test]
fn three_nodes_of_both_kinds_stay_safe_and_catch_up() {
    run(seeds(1000, 40), 3, 3, false);
}

#[test]
fn five_nodes_of_both_kinds_stay_safe_and_catch_up() {
    run(seeds(2000, 24), 5, 5, false);
}

#[test]
fn members_of_both_kinds_that_come_and_go_cost_no_safety() {
    run(seeds(3000, 40), 5, 3, true);
}
