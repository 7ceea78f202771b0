//! One node of each kind on the bench, fed the same inputs: after each of them state, log and answers must be equal.
//!
//! What peers say is made up, but consistent: a [`History`] of terms, each with a leader, a log and a commit index, such
//! as raft's own rules allow. So the bench reaches states that a cluster seldom gets into.

use crate::member::{Done, ELECTION_TICK, Kind, Member, Settings, boot};
use crate::{Random, disk::Disk, seeds};
use api::raft::{ConfState, Entry, HardState, Message, MessageType, Snapshot, SnapshotMetadata};
use bytes::Bytes;
use raft::Role;

const OWN: u64 = 1;
/// The one peer that would vote for the node, which so never wins.
const FRIEND: u64 = 2;
const SIZE: u64 = 5;

/// One term's leader.
#[derive(Clone, Debug)]
struct Reign {
    term: u64,
    leader: u64,
    /// From index 1 on.
    log: Vec<Entry>,
    commit: u64,
}

impl Reign {
    fn last(&self) -> u64 {
        self.log.len() as u64
    }

    fn term_at(&self, index: u64) -> u64 {
        index.checked_sub(1).map_or(0, |at| self.log[at as usize].term)
    }
}

/// Reigns by ascending term: each one's log begins with all that was committed before it.
struct History(Vec<Reign>);

impl History {
    fn new(random: &mut Random, conf: &ConfState) -> History {
        let mut reigns: Vec<Reign> = Vec::new();
        for term in 1..=random.between(4, 12) {
            let committed = reigns.last().map_or(0, |r| r.commit);
            let heir = random.below(reigns.len() as u64) as usize;
            let mut log = match reigns.get(heir).filter(|r| r.last() >= committed) {
                Some(reign) => reign.log[..random.between(committed, reign.last()) as usize].to_vec(),
                None => reigns.last().map_or(vec![], |r| r.log.clone()),
            };
            // What an older log holds in place of committed entries is no heir's.
            if let Some(last) = reigns.last() {
                log.splice(..committed as usize, last.log[..committed as usize].iter().cloned());
                if log.windows(2).any(|w| w[0].term > w[1].term) {
                    log = last.log.clone();
                }
            }
            for _ in 0..random.between(1, 5) {
                let data = vec![b'd'; random.below(30) as usize].into();
                log.push(Entry { term, index: log.len() as u64 + 1, data, ..Entry::default() });
            }
            let leader = random.between(2, conf.voters.len() as u64);
            let commit = if random.chance(60) { random.between(committed, log.len() as u64) } else { committed };
            reigns.push(Reign { term, leader, log, commit });
        }
        History(reigns)
    }

    fn any<'a>(&'a self, random: &mut Random, from: u64) -> &'a Reign {
        &self.0[random.between(from, self.0.len() as u64 - 1) as usize]
    }
}

/// Up to where a node's log is a reign's.
fn agreed(disk: &Disk, reign: &Reign) -> u64 {
    let same = |index: &u64| disk.term(*index).is_none_or(|term| term == reign.term_at(*index));
    (1..=disk.last().min(reign.last())).take_while(same).last().unwrap_or(0)
}

/// Both nodes, and what led here.
struct Pair {
    ours: Box<dyn Member>,
    theirs: Box<dyn Member>,
    past: Vec<String>,
    place: String,
    answers: usize,
}

impl Pair {
    fn new(disk: &Disk, settings: Settings, seed: u64) -> Pair {
        let node = |kind| boot(kind, OWN, disk.clone(), settings, seed);
        let place = format!("seed {seed}");
        let mut pair = Pair { ours: node(Kind::Ours), theirs: node(Kind::Theirs), past: vec![], place, answers: 0 };
        pair.set_timeouts();
        pair
    }

    fn set_timeouts(&mut self) {
        self.both("", |m| m.set_timeout(ELECTION_TICK + 2));
    }

    fn both(&mut self, what: &str, input: impl Fn(&mut dyn Member)) {
        if !what.is_empty() {
            self.past.push(what.to_string());
        }
        input(&mut *self.ours);
        input(&mut *self.theirs);
    }

    fn step(&mut self, message: Message) {
        self.both(&format!("{message:?}"), |m| m.step(message.clone()));
    }

    fn place(&self) -> String {
        format!("{}, after {:#?}", self.place, &self.past[self.past.len().saturating_sub(8)..])
    }

    /// Both do their work and are compared; answers what ours and the oracle's did.
    fn work(&mut self, comparable: impl Fn(&Message) -> bool) -> (Done, Done) {
        let (ours, theirs) = (self.ours.work(), self.theirs.work());
        assert_eq!(self.ours.view(), self.theirs.view(), "{}", self.place());
        let (own, other) = (canonical(&ours.messages, &comparable), canonical(&theirs.messages, &comparable));
        assert_eq!(own, other, "{}", self.place());
        assert_eq!(ours.applied, theirs.applied, "{}", self.place());
        assert_eq!(ours.reads, theirs.reads, "{}", self.place());
        self.answers += own.len();
        self.set_timeouts();
        (ours, theirs)
    }
}

/// By addressee, since the oracle's order is that of a hash map; contexts of heartbeats are each kind's own.
fn canonical(messages: &[Message], comparable: impl Fn(&Message) -> bool) -> Vec<Message> {
    let mut messages: Vec<_> = messages.iter().filter(|m| comparable(m)).cloned().collect();
    messages.iter_mut().filter(|m| m.kind == MessageType::MsgHeartbeat).for_each(|m| m.context = Bytes::new());
    messages.sort_by_key(|m| m.to);
    messages
}

fn conf(seed: u64) -> ConfState {
    match seed % 5 {
        // A learner that is asked for votes, too.
        4 => ConfState { voters: (2..=SIZE).collect(), learners: vec![OWN], ..ConfState::default() },
        _ => ConfState { voters: (1..=SIZE).collect(), ..ConfState::default() },
    }
}

/// What a node may hold that lived until some reign.
fn lived(random: &mut Random, reign: &Reign, conf: ConfState) -> Disk {
    let mut disk = Disk::new(conf);
    disk.entries = reign.log[..random.below(reign.last() + 1) as usize].to_vec();
    let commit = random.below(reign.commit.min(disk.last()) + 1);
    disk.hard_state = HardState { term: reign.term, vote: if random.chance(50) { reign.leader } else { 0 }, commit };
    disk
}

/// Something that a peer says to a node that follows, or wants to lead.
fn said(random: &mut Random, history: &History, now: u64, disk: &Disk) -> Message {
    use MessageType as T;
    let reign = history.any(random, now.saturating_sub(2));
    let (term, from) = (reign.term, reign.leader);
    let base = |kind, from, term| Message { kind, from, to: OWN, term, ..Message::default() };
    let stranger = random.between(2, SIZE);
    match random.below(100) {
        0..40 => append(random, reign),
        40..52 => {
            let commit = random.below(agreed(disk, reign).min(reign.commit) + 1);
            let context = if random.chance(30) { "a read".into() } else { Bytes::new() };
            Message { commit, context, ..base(T::MsgHeartbeat, from, term) }
        }
        52..57 if reign.commit > 0 => {
            let index = random.between(1, reign.commit);
            let conf_state = disk.snapshot.metadata.conf_state.clone();
            let metadata = SnapshotMetadata { conf_state, index, term: reign.term_at(index) };
            Message { snapshot: Some(Snapshot { metadata, data: "s".into() }), ..base(T::MsgSnap, from, term) }
        }
        57..80 => {
            let other = history.any(random, 0);
            let index = random.below(other.last() + 1);
            let term = (other.term_at(index) + random.below(4)).max(disk.hard_state.term + random.below(3)).max(1);
            let context = if random.chance(20) { "CampaignTransfer".into() } else { Bytes::new() };
            let kind = if random.chance(50) { T::MsgVote } else { T::MsgPreVote };
            Message { index, log_term: other.term_at(index), context, ..base(kind, stranger, term) }
        }
        80..88 => {
            let kind = if random.chance(50) { T::MsgVoteResp } else { T::MsgPreVoteResp };
            let term = disk.hard_state.term + random.below(2);
            Message { reject: stranger != FRIEND, ..base(kind, stranger, term.max(1)) }
        }
        88..91 => base(T::MsgTimeoutNow, from, term),
        91..94 => Message { index: 1, ..base(T::MsgAppResp, stranger, term) },
        94..96 => base(T::MsgHeartbeatResp, stranger, term),
        96..98 => Message { entries: vec![request(random)], ..base(T::MsgProp, stranger, 0) },
        98 => Message { entries: vec![request(random)], ..base(T::MsgReadIndex, stranger, 0) },
        // The oracle takes this index for a commit index, too: nothing new, then.
        _ => {
            let (index, entries) = (disk.hard_state.commit, vec![request(random)]);
            Message { index, entries, ..base(T::MsgReadIndexResp, from, term) }
        }
    }
}

fn request(random: &mut Random) -> Entry {
    Entry { data: random.draw().to_be_bytes().to_vec().into(), ..Entry::default() }
}

fn append(random: &mut Random, reign: &Reign) -> Message {
    let index = random.below(reign.last() + 1);
    let entries = reign.log[index as usize..random.between(index, reign.last()) as usize].to_vec();
    Message {
        kind: MessageType::MsgApp,
        from: reign.leader,
        to: OWN,
        term: reign.term,
        index,
        log_term: reign.term_at(index),
        entries,
        commit: random.below(reign.commit + 1),
        ..Message::default()
    }
}

fn follow(seed: u64, answers: &mut usize) {
    let mut random = Random::new(seed);
    let conf = conf(seed);
    let history = History::new(&mut random, &conf);
    let now = random.below(history.0.len() as u64);
    let mut disk = lived(&mut random, &history.0[now as usize], conf.clone());
    if disk.hard_state.commit > 0 && random.chance(30) {
        disk.compact(random.between(1, disk.hard_state.commit), conf);
    }
    let learns = disk.snapshot.metadata.conf_state.learners.contains(&OWN);
    let mut pair = Pair::new(&disk, Settings::of(seed), seed);
    for at in 0..200 {
        let now = now.max(at * history.0.len() as u64 / 200).min(history.0.len() as u64 - 1);
        match random.below(20) {
            0..3 => pair.both("tick", |m| m.tick()),
            3 if !learns => pair.both("campaign", |m| m.campaign()),
            4 => {
                let data = request(&mut random).data;
                pair.both("propose", |m| {
                    m.propose(data.clone());
                });
            }
            5 => pair.both("read", |m| m.read("mine".into())),
            6 => pair.both("transfer", |m| m.transfer(3)),
            7 => pair.both("compact", |m| m.compact()),
            _ => {
                let message = said(&mut random, &history, now, &pair.ours.disk());
                pair.step(message);
            }
        }
        pair.work(|_| true);
    }
    *answers += pair.answers;
}

/// Votes come in until the node leads.
fn crowned(random: &mut Random, seed: u64) -> Option<Pair> {
    let conf = ConfState { voters: (1..=3 + seed % 2 * 2).collect(), learners: vec![6], ..ConfState::default() };
    let history = History::new(random, &conf);
    let reign = history.any(random, 0);
    let mut disk = lived(random, reign, conf.clone());
    disk.hard_state.vote = 0;
    let settings = Settings { max_inflight_msgs: 256, ..Settings::of(seed) };
    let mut pair = Pair::new(&disk, settings, seed);
    pair.both("campaign", |m| m.campaign());
    for _ in 0..2 {
        let (own, _) = pair.work(|_| true);
        let Some(asked) = own.messages.first().cloned() else { continue };
        let pre = asked.kind == MessageType::MsgPreVote;
        let kind = if pre { MessageType::MsgPreVoteResp } else { MessageType::MsgVoteResp };
        for from in conf.voters.iter().copied().filter(|id| *id != OWN).take(conf.voters.len() / 2) {
            pair.step(Message { kind, from, to: OWN, term: asked.term, ..Message::default() });
        }
    }
    pair.work(replicates);
    (pair.ours.view().role == Role::Leader).then_some(pair)
}

/// How a commit index is passed on, and what goes through a full window, differs: by messages without entries.
fn replicates(m: &Message) -> bool {
    m.kind != MessageType::MsgApp || !m.entries.is_empty()
}

/// Something that a follower says to its leader, or a caller asks of it.
fn asked(random: &mut Random, pair: &mut Pair, contexts: &[(u64, Bytes, Bytes)]) {
    use MessageType as T;
    let view = pair.ours.view();
    let (term, last) = (view.disk.hard_state.term, view.disk.last());
    let peer = random.between(2, 6);
    let known = pair.ours.matches().iter().find(|(id, _)| *id == peer).map_or(0, |(_, index)| *index);
    let base = |kind| Message { kind, from: peer, to: OWN, term, ..Message::default() };
    match random.below(100) {
        // What is known already tells etcd's raft that a probe got through; the oracle doesn't look at it.
        0..5 if known > 0 => pair.step(Message { index: random.below(known), ..base(T::MsgAppResp) }),
        5..30 if known < last => pair.step(Message { index: random.between(known + 1, last), ..base(T::MsgAppResp) }),
        30..40 if known < last => {
            let index = random.between(known + 1, last);
            let reject_hint = random.between(known, index);
            let log_term = random.below(term);
            // The oracle would go back behind what is acknowledged (its #557).
            if (known + 1..=reject_hint).any(|at| view.disk.term(at) <= Some(log_term)) || reject_hint == known {
                pair.step(Message { index, reject: true, reject_hint, log_term, ..base(T::MsgAppResp) });
            }
        }
        40..50 => {
            let (own, other) = (base(T::MsgHeartbeatResp), base(T::MsgHeartbeatResp));
            let at = random.below(contexts.len() as u64 + 1) as usize;
            let (_, ours, theirs) = contexts.get(at).cloned().unwrap_or_default();
            pair.past.push(format!("{own:?} {ours:?}"));
            pair.ours.step(Message { context: ours, ..own });
            pair.theirs.step(Message { context: theirs, ..other });
        }
        50..66 => {
            let data = request(random).data;
            pair.both("propose", |m| {
                m.propose(data.clone());
            });
        }
        66..78 => pair.both("tick", |m| m.tick()),
        // With more voters the oracle counts each read's confirmations apart; before the first commit it drops reads.
        78..88 if view.conf.voters.len() == 3 && view.disk.term(view.disk.hard_state.commit) == Some(term) => {
            let context = request(random).data;
            pair.both("read", |m| m.read(context.clone()));
        }
        88..90 => pair.both("transfer", |m| m.transfer(peer)),
        90..92 => pair.both("unreachable", |m| m.report_unreachable(peer)),
        92..94 => pair.both("snapshot failed", |m| m.report_snapshot(peer, false)),
        _ => pair.step(Message { entries: vec![request(random)], ..Message { term: 0, ..base(T::MsgProp) } }),
    }
}

fn lead(seed: u64, answers: &mut usize) {
    let mut random = Random::new(seed);
    let Some(mut pair) = crowned(&mut random, seed) else { return };
    // By addressee: what each kind writes in its heartbeats for the same reads.
    let mut contexts: Vec<(u64, Bytes, Bytes)> = Vec::new();
    for _ in 0..200 {
        asked(&mut random, &mut pair, &contexts);
        let (own, other) = pair.work(replicates);
        assert_eq!(pair.ours.matches(), pair.theirs.matches(), "{}", pair.place());
        if pair.ours.view().role != Role::Leader {
            break;
        }
        let beat = |done: &Done| {
            let mut found = done.messages.iter().filter(|m| m.kind == MessageType::MsgHeartbeat && m.to == 2);
            found.next_back().map(|m| m.context.clone()).filter(|c| !c.is_empty())
        };
        match (beat(&own), beat(&other)) {
            (Some(ours), Some(theirs)) => contexts.push((2, ours, theirs)),
            (None, None) => {}
            odd => panic!("one of them asks for confirmation: {odd:?}, {}", pair.place()),
        }
    }
    *answers += pair.answers;
}

#[test]
fn followers_and_candidates_answer_as_the_oracle_does() {
    let (seeds, mut answers) = (seeds(1, 400), 0);
    let count = seeds.clone().count();
    seeds.for_each(|seed| follow(seed, &mut answers));
    println!("{count} seeds: {answers} answers");
    assert!(answers > 50 * count, "{answers}");
}

#[test]
fn leaders_commit_and_send_as_the_oracle_does() {
    let (seeds, mut answers) = (seeds(10_000, 400), 0);
    let count = seeds.clone().count();
    seeds.for_each(|seed| lead(seed, &mut answers));
    println!("{count} seeds: {answers} answers");
    assert!(answers > 50 * count, "{answers}");
}
