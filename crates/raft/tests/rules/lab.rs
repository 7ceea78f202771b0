//! One node on the bench: what it begins with, its storage threads, and hand-written messages of its peers.

use api::raft::{ConfChange, ConfState, Entry, EntryKind, HardState, Message, MessageType, Snapshot, SnapshotMetadata};
use raft::progress::Progress;
use raft::{Config, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MemoryStorage, RawNode};

/// What a node begins with: node 1, unless told otherwise, without pre-vote and quorum checks.
#[derive(Clone)]
pub struct Setup {
    pub config: Config,
    pub conf: ConfState,
    /// Terms of the entries from index 1 on.
    pub terms: Vec<u64>,
    pub commit: u64,
}

pub const ELECTION_TICK: usize = 10;

pub fn voters(ids: &[u64]) -> Setup {
    Setup {
        config: Config {
            id: 1,
            election_tick: ELECTION_TICK,
            pre_vote: false,
            check_quorum: false,
            ..Config::default()
        },
        conf: ConfState { voters: ids.to_vec(), ..ConfState::default() },
        terms: vec![],
        commit: 0,
    }
}

impl Setup {
    pub fn terms(self, terms: &[u64]) -> Setup {
        Setup { terms: terms.to_vec(), ..self }
    }

    pub fn commit(self, commit: u64) -> Setup {
        Setup { commit, ..self }
    }

    pub fn learners(mut self, ids: &[u64]) -> Setup {
        self.conf.learners = ids.to_vec();
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Setup {
        change(&mut self.config);
        self
    }

    /// With pre-vote and quorum checks, as etcd runs.
    pub fn guarded(self) -> Setup {
        self.with(|c| (c.pre_vote, c.check_quorum) = (true, true))
    }

    pub fn build(self) -> RawNode {
        let mut storage = MemoryStorage::new();
        let term = self.terms.last().copied().unwrap_or(0);
        let metadata = SnapshotMetadata { conf_state: self.conf, index: 0, term: 0 };
        let hard_state = HardState { term, vote: 0, commit: self.commit };
        storage.restore(Snapshot { metadata, ..Snapshot::default() }, hard_state);
        let entries: Vec<_> = (1..).zip(self.terms).map(|(index, term)| entry(term, index)).collect();
        storage.append(&entries);
        RawNode::new(Config { applied: self.commit, ..self.config }, storage).expect("a sound setup")
    }

    /// Built, and leading by the votes of all other voters; its first entry went out and is not acknowledged.
    pub fn leading(self) -> RawNode {
        let (id, pre_vote, others) = (self.config.id, self.config.pre_vote, self.conf.voters.clone());
        let mut raw = self.build();
        raw.campaign();
        let kinds: &[MessageType] = match pre_vote {
            true => &[MessageType::MsgPreVoteResp, MessageType::MsgVoteResp],
            false => &[MessageType::MsgVoteResp],
        };
        for kind in kinds {
            let asked = work(&mut raw);
            let term = asked.first().map_or(0, |m| m.term);
            for other in others.iter().filter(|other| **other != id) {
                let _decided_already = raw.step(from(*other, *kind, term));
            }
        }
        work(&mut raw);
        assert_eq!(raw.leader(), id);
        raw
    }
}

pub fn entry(term: u64, index: u64) -> Entry {
    Entry { term, index, ..Entry::default() }
}

pub fn from(from: u64, kind: MessageType, term: u64) -> Message {
    Message { kind, from, term, ..Message::default() }
}

/// An acknowledgement up to `index`, in the node's term.
pub fn ack(raw: &RawNode, peer: u64, index: u64) -> Message {
    Message { index, ..from(peer, MessageType::MsgAppResp, term(raw)) }
}

/// An answer to a heartbeat.
pub fn beat(raw: &RawNode, peer: u64) -> Message {
    from(peer, MessageType::MsgHeartbeatResp, term(raw))
}

pub fn snapshot(term: u64, index: u64, voters: &[u64]) -> Snapshot {
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    Snapshot { metadata: SnapshotMetadata { conf_state, index, term }, ..Snapshot::default() }
}

pub fn term(raw: &RawNode) -> u64 {
    raw.basic_status().hard_state.term
}

pub fn commit(raw: &RawNode) -> u64 {
    raw.basic_status().hard_state.commit
}

pub fn progress(raw: &RawNode, id: u64) -> Progress {
    raw.progress().find(|(other, _)| *other == id).expect("a member").1.clone()
}

pub fn ticks(raw: &mut RawNode, count: usize) {
    (0..count).for_each(|_| raw.tick());
}

pub fn step(raw: &mut RawNode, message: Message) -> Vec<Message> {
    raw.step(message).expect("not refused");
    work(raw)
}

/// Lets the storage threads do all there is. Answers the messages to peers.
pub fn work(raw: &mut RawNode) -> Vec<Message> {
    let mut out = Vec::new();
    while raw.has_ready() {
        for message in raw.ready().messages {
            match message.to {
                LOCAL_APPEND_THREAD => out.extend(deliver(raw, message.responses)),
                LOCAL_APPLY_THREAD => {
                    apply(raw, &message.entries);
                    out.extend(deliver(raw, message.responses));
                }
                _ => out.push(message),
            }
        }
    }
    out
}

/// Steps what is addressed to the node itself; answers the rest.
pub fn deliver(raw: &mut RawNode, responses: Vec<Message>) -> Vec<Message> {
    let own = raw.id();
    let (to_self, others): (Vec<_>, Vec<_>) = responses.into_iter().partition(|m| m.to == own);
    for message in to_self {
        let _stale = raw.step(message);
    }
    others
}

pub fn apply(raw: &mut RawNode, entries: &[Entry]) {
    for entry in entries.iter().filter(|e| e.kind == EntryKind::ConfChange) {
        let change = ConfChange::decode(entry.data.clone()).expect("a conf change");
        raw.apply_conf_change(&change).expect("a legal change");
    }
}

/// The messages of one kind.
pub fn only(messages: &[Message], kind: MessageType) -> Vec<Message> {
    messages.iter().filter(|m| m.kind == kind).cloned().collect()
}
