//! Whole clusters with asynchronous storage over a hostile network, from seeds.
//!
//! Messages are lost, delayed, doubled, reordered and cut off; nodes crash and forget what was not written; logs are
//! compacted; leadership is handed over; members come and go. Checked after every step:
//! * *election safety*: one leader a term; a node's stored vote never changes within a term;
//! * *log matching*: an index and a term name one entry, with one entry before it;
//! * *leader completeness*: a leader has every entry that was applied anywhere in an earlier term;
//! * *state machine safety*: everyone applies the same, in order, and only what is durable there;
//! * *linearizable reads*: a read's index covers everything applied anywhere before it was asked for.

use api::raft::{
    ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Message, MessageType, Snapshot,
    SnapshotMetadata,
};
use raft::{Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage, RawNode, Role};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// splitmix64
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What survives a crash.
#[derive(Clone, Default)]
struct Disk {
    hard_state: HardState,
    /// Written, but lost in a crash unless something after it is synced.
    unsynced: Option<HardState>,
    snapshot: Snapshot,
    /// Behind the snapshot.
    entries: Vec<Entry>,
}

impl Disk {
    fn base(&self) -> u64 {
        self.snapshot.metadata.index
    }

    fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.base())? {
            0 => Some(self.snapshot.metadata.term),
            at => self.entries.get(at as usize - 1).map(|e| e.term),
        }
    }

    fn write(&mut self, entry: &Entry) {
        let at = entry.index.checked_sub(self.base() + 1).expect("behind the snapshot") as usize;
        assert!(at <= self.entries.len(), "a gap before {}", entry.index);
        self.entries.truncate(at);
        self.entries.push(entry.clone());
    }

    fn storage(&self) -> MemoryStorage {
        let mut storage = MemoryStorage::new();
        storage.restore(self.snapshot.clone(), self.hard_state);
        storage.append(&self.entries);
        storage
    }
}

struct Node {
    raw: RawNode,
    disk: Disk,
    appends: VecDeque<Message>,
    applies: VecDeque<Message>,
    applied: u64,
    conf_state: ConfState,
}

/// What is known of the whole cluster; no node sees it.
#[derive(Default)]
struct Witness {
    leaders: BTreeMap<u64, u64>,
    /// Index and term → data and the term before.
    entries: BTreeMap<(u64, u64), (bytes::Bytes, u64)>,
    /// What was applied, and the term of the first node to do so.
    applied: BTreeMap<u64, (Entry, u64)>,
    /// What a read must cover.
    reads: BTreeMap<u64, u64>,
    reads_done: usize,
}

struct World {
    seed: u64,
    random: Random,
    nodes: Vec<Node>,
    messages: Vec<Message>,
    cut: BTreeSet<(u64, u64)>,
    witness: Witness,
    counter: u64,
    healed: bool,
}

impl World {
    fn new(seed: u64, size: u64, voters: u64) -> World {
        let conf_state = ConfState { voters: (1..=voters).collect(), ..ConfState::default() };
        let mut world = World {
            seed,
            random: Random::new(seed),
            nodes: Vec::new(),
            messages: Vec::new(),
            cut: BTreeSet::new(),
            witness: Witness::default(),
            counter: 0,
            healed: false,
        };
        for id in 1..=size {
            let metadata = SnapshotMetadata { conf_state: conf_state.clone(), index: 0, term: 0 };
            let disk = Disk { snapshot: Snapshot { metadata, ..Snapshot::default() }, ..Disk::default() };
            let node = world.boot(id, disk);
            world.nodes.push(node);
        }
        world
    }

    fn boot(&mut self, id: u64, disk: Disk) -> Node {
        let config = Config {
            id,
            election_tick: 6,
            heartbeat_tick: 2,
            applied: disk.base(),
            seed: self.random.next(),
            max_size_per_msg: 100,
            max_inflight_msgs: 4,
            // Half of the seeds run as etcd does, the others with every combination.
            pre_vote: self.seed.is_multiple_of(2) || self.seed % 4 == 1,
            check_quorum: self.seed.is_multiple_of(2) || self.seed % 8 < 4,
            ..Config::default()
        };
        let raw = RawNode::new(config, disk.storage()).expect("what was stored is sound");
        let (applied, conf_state) = (disk.base(), disk.snapshot.metadata.conf_state.clone());
        Node { raw, disk, appends: VecDeque::new(), applies: VecDeque::new(), applied, conf_state }
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
            0..450 => self.deliver_any(),
            450..600 => self.store(id),
            600..720 => self.apply(id),
            720..880 => self.node(id).raw.tick(),
            880..930 => self.propose(id),
            930..970 => self.read(id),
            970..976 => self.crash(id),
            976..984 => self.cut_or_mend(),
            984..990 => self.compact(id),
            990..994 => {
                let to = self.any();
                self.node(id).raw.transfer_leader(to);
            }
            _ if changing => self.change_members(id),
            _ => {}
        }
        self.collect(id);
        self.check_leader(id);
    }

    /// Takes what a node wants done.
    fn collect(&mut self, id: u64) {
        while self.node(id).raw.has_ready() {
            let ready = self.node(id).raw.ready();
            for state in ready.read_states {
                let number = u64::from_be_bytes(state.request_ctx[..].try_into().expect("our own context"));
                let least = self.witness.reads[&number];
                assert!(state.index >= least, "seed {}: a stale read at {} < {least}", self.seed, state.index);
                self.witness.reads_done += 1;
            }
            for message in ready.messages {
                match message.to {
                    LOCAL_APPEND_THREAD => self.node(id).appends.push_back(message),
                    LOCAL_APPLY_THREAD => self.node(id).applies.push_back(message),
                    _ => self.messages.push(message),
                }
            }
        }
    }

    fn deliver_any(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.random.below(self.messages.len() as u64) as usize;
        let message = match self.random.chance(5) && !self.healed {
            true => self.messages[at].clone(),
            false => self.messages.swap_remove(at),
        };
        let lost = !self.healed && (self.random.chance(5) || self.cut.contains(&(message.from, message.to)));
        self.deliver(message, lost);
    }

    fn deliver(&mut self, message: Message, lost: bool) {
        let (from, to) = (message.from, message.to);
        if message.kind == MessageType::MsgSnap {
            // The transport knows whether it got a snapshot across.
            self.node(from).raw.report_snapshot(to, !lost);
            self.collect(from);
        }
        if !lost {
            let _refused = self.node(to).raw.step(message);
            self.collect(to);
            self.check_leader(to);
        }
    }

    /// The log's writer does one append.
    fn store(&mut self, id: u64) {
        let Some(message) = self.node(id).appends.pop_front() else { return };
        self.write(id, &message);
        self.respond(id, message.responses);
    }

    fn write(&mut self, id: u64, m: &Message) {
        let seed = self.seed;
        let lazy = self.random.chance(30);
        let disk = &mut self.nodes[id as usize - 1].disk;
        let old = disk.unsynced.unwrap_or(disk.hard_state);
        let mut must_sync = !m.entries.is_empty() || m.snapshot.is_some();
        if m.term != 0 {
            assert!(m.term >= old.term, "seed {seed}: the term went back");
            let changed = m.term == old.term && old.vote != 0 && m.vote != old.vote;
            assert!(!changed, "seed {seed}: node {id} voted twice in term {}", m.term);
            let promised = (m.term, m.vote) != (old.term, old.vote);
            disk.unsynced = Some(HardState { term: m.term, vote: m.vote, commit: m.commit });
            must_sync |= promised;
        }
        // A commit index alone may be lost, unless something behind it in the log's file survives.
        if must_sync || !lazy {
            disk.hard_state = disk.unsynced.take().unwrap_or(disk.hard_state);
        }
        if let Some(snapshot) = &m.snapshot {
            disk.snapshot = snapshot.clone();
            disk.entries.clear();
            let node = &mut self.nodes[id as usize - 1];
            node.applied = snapshot.metadata.index;
            node.conf_state = snapshot.metadata.conf_state.clone();
            let (entry, _) = &self.witness.applied[&snapshot.metadata.index];
            assert_eq!(entry.term, snapshot.metadata.term, "seed {seed}: a snapshot of another history");
        }
        let disk = &mut self.nodes[id as usize - 1].disk;
        for entry in &m.entries {
            disk.write(entry);
            let before = disk.term(entry.index - 1).expect("no gaps");
            let known = self.witness.entries.entry((entry.index, entry.term)).or_insert((entry.data.clone(), before));
            assert_eq!(*known, (entry.data.clone(), before), "seed {seed}: logs don't match at {}", entry.index);
        }
    }

    fn respond(&mut self, id: u64, responses: Vec<Message>) {
        for message in responses {
            if message.to == id {
                let _stale = self.node(id).raw.step(message);
            } else {
                self.messages.push(message);
            }
        }
        self.collect(id);
        self.check_leader(id);
    }

    fn apply(&mut self, id: u64) {
        let Some(message) = self.node(id).applies.pop_front() else { return };
        for entry in &message.entries {
            self.apply_entry(id, entry);
        }
        self.respond(id, message.responses);
    }

    fn apply_entry(&mut self, id: u64, entry: &Entry) {
        let (seed, index) = (self.seed, entry.index);
        let node = &mut self.nodes[id as usize - 1];
        if index <= node.applied {
            // A snapshot overtook it.
            return;
        }
        assert_eq!(index, node.applied + 1, "seed {seed}: node {id} applies out of order");
        let durable = index <= node.disk.base() || node.disk.term(index) == Some(entry.term);
        assert!(durable, "seed {seed}: node {id} applies {index}, which is not durable there");
        let term = node.raw.basic_status().hard_state.term;
        let (known, _) = self.witness.applied.entry(index).or_insert((entry.clone(), term));
        assert_eq!(known, entry, "seed {seed}: node {id} applies something else at {index}");
        node.applied = index;
        if entry.kind == EntryKind::ConfChange {
            let change = ConfChange::decode(entry.data.clone()).expect("we proposed it");
            // A change that nobody can carry out is one for nobody.
            let nothing = ConfChange::default();
            node.conf_state = match node.raw.apply_conf_change(&change) {
                Ok(state) => state,
                Err(_) => node.raw.apply_conf_change(&nothing).expect("nothing is always possible"),
            };
        }
    }

    fn propose(&mut self, id: u64) {
        self.counter += 1;
        let data = self.counter.to_be_bytes().to_vec();
        let _dropped = self.node(id).raw.propose(data.into());
    }

    fn read(&mut self, id: u64) {
        self.counter += 1;
        let number = self.counter;
        let least = self.witness.applied.keys().next_back().copied().unwrap_or(0);
        self.witness.reads.insert(number, least);
        self.node(id).raw.read_index(number.to_be_bytes().to_vec().into());
    }

    fn crash(&mut self, id: u64) {
        let disk = Disk { unsynced: None, ..self.node(id).disk.clone() };
        *self.node(id) = self.boot(id, disk);
    }

    fn cut_or_mend(&mut self) {
        self.cut.clear();
        if self.random.chance(60) {
            let side: BTreeSet<u64> = (1..=self.nodes.len() as u64).filter(|_| self.random.chance(40)).collect();
            let one_way = self.random.chance(30);
            for a in 1..=self.nodes.len() as u64 {
                for b in 1..=self.nodes.len() as u64 {
                    if side.contains(&a) && !side.contains(&b) {
                        self.cut.insert((a, b));
                        if !one_way {
                            self.cut.insert((b, a));
                        }
                    }
                }
            }
        }
    }

    fn compact(&mut self, id: u64) {
        let keep = self.random.below(6);
        let node = self.node(id);
        let (index, disk) = (node.applied, &mut node.disk);
        if index <= disk.base() || node.raw.basic_status().applied < index {
            return;
        }
        let term = disk.term(index).expect("applied, so durable");
        let metadata = SnapshotMetadata { conf_state: node.conf_state.clone(), index, term };
        let snapshot = Snapshot { metadata, ..Snapshot::default() };
        disk.entries.drain(..(index - disk.base()) as usize);
        disk.snapshot = snapshot.clone();
        node.raw.storage_mut().set_snapshot(snapshot);
        node.raw.storage_mut().compact_behind(index, keep, usize::MAX);
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
        let _dropped = self.node(id).raw.propose_conf_change(&change);
    }

    fn check_leader(&mut self, id: u64) {
        let raw = &self.nodes[id as usize - 1].raw;
        let status = raw.basic_status();
        if status.role != Role::Leader {
            return;
        }
        let term = status.hard_state.term;
        let known = self.witness.leaders.insert(term, id);
        assert!(known.is_none_or(|k| k == id), "seed {}: {known:?} and {id} lead term {term}", self.seed);
        if known.is_none() {
            let durable = self.nodes[id as usize - 1].disk.hard_state;
            assert_eq!((durable.term, durable.vote), (term, id), "seed {}: it could lead this term twice", self.seed);
            for (index, (entry, applied_in)) in &self.witness.applied {
                let own = raw.term(*index);
                let has = own == Some(entry.term) || *index < raw.storage().first_index();
                assert!(has || *applied_in >= term, "seed {}: leader {id} of {term} lacks {index}", self.seed);
            }
        }
    }

    /// Nothing is lost any more: everybody catches up.
    ///
    /// Only fixed memberships promise that. If a leader crashes just after it removed one of two voters, with the
    /// commit index not durable, each may need the other for ever: it as a voter, the removed one as a candidate. etcd
    /// has the same hole.
    fn heal(&mut self) {
        self.healed = true;
        self.cut.clear();
        let before = self.witness.applied.len();
        for round in 0..400 {
            for id in 1..=self.nodes.len() as u64 {
                self.node(id).raw.tick();
                self.collect(id);
                while !self.node(id).appends.is_empty() || !self.node(id).applies.is_empty() {
                    self.store(id);
                    self.apply(id);
                }
                if round % 50 == 49 {
                    self.propose(id);
                    self.collect(id);
                }
            }
            for message in std::mem::take(&mut self.messages) {
                self.deliver(message, false);
            }
        }
        assert!(self.witness.applied.len() > before, "seed {}: nothing goes on after the network healed", self.seed);
        let last = self.witness.applied.keys().next_back().copied();
        for (id, node) in (1..).zip(&self.nodes) {
            assert_eq!(Some(node.applied), last, "seed {}: node {id} did not catch up", self.seed);
        }
    }
}

/// Runs seeds and says what they saw, so that a test which sees nothing fails.
fn run(seeds: std::ops::Range<u64>, size: u64, voters: u64, changing: bool) {
    let (mut leaders, mut applied, mut reads) = (0, 0, 0);
    for seed in seeds.clone() {
        let mut world = World::new(seed, size, voters);
        for _ in 0..6000 {
            world.step(changing);
        }
        if !changing {
            world.heal();
        }
        leaders += world.witness.leaders.len();
        applied += world.witness.applied.len();
        reads += world.witness.reads_done;
    }
    let count = seeds.count();
    println!("{size} nodes, {count} seeds: {leaders} leaders, {applied} entries, {reads} reads");
    assert!(leaders > count && applied > 10 * count && reads > count, "{leaders} {applied} {reads}");
}

#[test]
fn three_nodes_stay_safe_over_a_hostile_network_and_catch_up_when_it_heals() {
    run(0..60, 3, 3, false);
}

#[test]
fn five_nodes_stay_safe_over_a_hostile_network_and_catch_up_when_it_heals() {
    run(100..140, 5, 5, false);
}

#[test]
fn members_that_come_and_go_cost_no_safety() {
    run(200..260, 5, 3, true);
}
