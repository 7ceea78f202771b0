//! The node: terms, votes, leadership, and what it wants done.

use crate::MemoryStorage;
use crate::log::Log;
use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Message, MessageType};
use bytes::Bytes;

/// Addressee of `MsgStorageAppend`.
pub const LOCAL_APPEND_THREAD: u64 = u64::MAX;
/// Addressee of `MsgStorageApply`.
pub const LOCAL_APPLY_THREAD: u64 = u64::MAX - 1;

/// How a node behaves. Ticks are the caller's.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: u64,
    pub election_tick: usize,
    pub heartbeat_tick: usize,
    /// Index up to which entries are applied already.
    pub applied: u64,
    /// Bytes of entries in one `MsgStorageApply`.
    pub max_size_per_msg: u64,
    /// Seeds the randomised election timeout.
    pub seed: u64,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No leader, or this node may not propose now.
    ProposalDropped,
    /// A completion or message of an older term, or one that this node can't use.
    Stale,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::ProposalDropped => "raft proposal dropped",
            Error::Stale => "raft: stale message",
        })
    }
}

impl std::error::Error for Error {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Follower,
    Candidate,
    Leader,
}

/// A read-index request that was confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    pub index: u64,
    pub request_ctx: Bytes,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    pub read_states: Vec<ReadState>,
    pub messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicStatus {
    pub hard_state: HardState,
    pub applied: u64,
    pub leader: u64,
    pub role: Role,
}

/// One participant.
#[derive(Debug)]
pub struct RawNode {
    config: Config,
    role: Role,
    term: u64,
    vote: u64,
    leader: u64,
    conf: ConfState,
    log: Log,
    elapsed: usize,
    timeout: usize,
    random: u64,
    /// Index of the newest conf change proposed; another waits until it is applied.
    pending_conf_index: u64,
    /// ReadIndex requests made before the first commit of the term.
    early_reads: Vec<Bytes>,
    read_states: Vec<ReadState>,
    /// The hard state last handed out.
    stored: HardState,
    /// Vote and acknowledgement of this node, waiting for their sync.
    vote_pending: bool,
}

impl RawNode {
    /// # Errors
    /// Id 0, no election tick, or a configuration of several voters.
    pub fn new(config: Config, storage: MemoryStorage) -> Result<RawNode, String> {
        if config.id == 0 || config.election_tick <= config.heartbeat_tick {
            return Err("the id must not be 0 and the election tick must exceed the heartbeat tick".into());
        }
        let hard_state = storage.hard_state();
        let conf = storage.conf_state().clone();
        check_conf(&conf)?;
        if hard_state.commit > storage.last_index() {
            return Err(format!(
                "commit index {} is past the end of the log at {}: the log lost entries",
                hard_state.commit,
                storage.last_index()
            ));
        }
        let log = Log::new(storage, config.applied);
        let mut node = RawNode {
            role: Role::Follower,
            term: hard_state.term,
            vote: hard_state.vote,
            leader: 0,
            conf,
            log,
            elapsed: 0,
            timeout: 0,
            random: config.seed,
            pending_conf_index: 0,
            early_reads: Vec::new(),
            read_states: Vec::new(),
            stored: hard_state,
            vote_pending: false,
            config,
        };
        node.draw_timeout();
        Ok(node)
    }

    fn draw_timeout(&mut self) {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        self.elapsed = 0;
        self.timeout = self.config.election_tick + (z % self.config.election_tick as u64) as usize;
    }

    fn promotable(&self) -> bool {
        self.conf.voters.contains(&self.config.id)
    }

    /// Time passed by one tick.
    pub fn tick(&mut self) {
        self.elapsed += 1;
        if self.role != Role::Leader && self.elapsed >= self.timeout {
            self.campaign();
        }
    }

    /// Stands for election, unless it is no voter or a committed conf change is not applied yet.
    pub fn campaign(&mut self) {
        self.draw_timeout();
        if self.role == Role::Leader || !self.promotable() || self.has_unapplied_conf_change() {
            return;
        }
        self.term += 1;
        self.vote = self.config.id;
        self.role = Role::Candidate;
        self.leader = 0;
        // The vote counts when it is durable: its response comes back with the append.
        self.vote_pending = true;
    }

    fn has_unapplied_conf_change(&self) -> bool {
        let (from, to) = (self.log.applied + 1, self.log.committed + 1);
        let entries = self.log.storage.entries(from, to, u64::MAX);
        entries.iter().any(|e| e.kind != EntryKind::Normal)
    }

    fn become_leader(&mut self) {
        self.role = Role::Leader;
        self.leader = self.config.id;
        // Conservatively: an earlier conf change may still be unapplied.
        self.pending_conf_index = self.log.last_index();
        self.append(EntryKind::Normal, Bytes::new());
    }

    fn append(&mut self, kind: EntryKind, data: Bytes) {
        let index = self.log.last_index() + 1;
        self.log.append(Entry { term: self.term, index, kind, data });
    }

    /// Proposes data.
    ///
    /// # Errors
    /// This node does not lead.
    pub fn propose(&mut self, data: Bytes) -> Result<(), Error> {
        if self.role != Role::Leader || !self.promotable() {
            return Err(Error::ProposalDropped);
        }
        self.append(EntryKind::Normal, data);
        Ok(())
    }

    /// Proposes a conf change; while another is unapplied it becomes an empty entry, as in etcd.
    ///
    /// # Errors
    /// This node does not lead.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(), Error> {
        if self.role != Role::Leader || !self.promotable() {
            return Err(Error::ProposalDropped);
        }
        if self.pending_conf_index > self.log.applied {
            self.append(EntryKind::Normal, Bytes::new());
        } else {
            self.append(EntryKind::ConfChange, change.encode().into());
            self.pending_conf_index = self.log.last_index();
        }
        Ok(())
    }

    /// Takes a committed conf change into effect; `node_id` 0 changes nothing.
    ///
    /// # Errors
    /// The change would make a configuration that this stage can't serve.
    pub fn apply_conf_change(&mut self, change: &ConfChange) -> Result<ConfState, String> {
        let mut conf = self.conf.clone();
        let id = change.node_id;
        if id != 0 && change.kind != ConfChangeKind::UpdateNode {
            conf.voters.retain(|v| *v != id);
            conf.learners.retain(|v| *v != id);
            match change.kind {
                ConfChangeKind::AddNode => conf.voters.push(id),
                ConfChangeKind::AddLearnerNode => conf.learners.push(id),
                ConfChangeKind::RemoveNode | ConfChangeKind::UpdateNode => {}
            }
            conf.voters.sort_unstable();
            conf.learners.sort_unstable();
        }
        check_conf(&conf)?;
        self.conf = conf;
        Ok(self.conf.clone())
    }

    /// Asks for the index that a linearizable read must wait for; answered by a [`ReadState`].
    pub fn read_index(&mut self, context: Bytes) {
        match self.role {
            Role::Leader if self.committed_in_term() => self.confirm_read(context),
            Role::Leader => self.early_reads.push(context),
            // Without a leader raft drops the request; its caller has a deadline.
            Role::Follower | Role::Candidate => {}
        }
    }

    fn committed_in_term(&self) -> bool {
        self.log.term(self.log.committed) == Some(self.term)
    }

    /// The only voter is its own quorum.
    fn confirm_read(&mut self, request_ctx: Bytes) {
        self.read_states.push(ReadState { index: self.log.committed, request_ctx });
    }

    /// Takes a completion of local storage work.
    ///
    /// # Errors
    /// It is stale, or a kind of message that this stage does not serve.
    pub fn step(&mut self, message: Message) -> Result<(), Error> {
        match message.kind {
            MessageType::MsgStorageAppendResp => self.appended(&message),
            MessageType::MsgStorageApplyResp => {
                if let Some(last) = message.entries.last() {
                    self.log.applied = self.log.applied.max(last.index);
                }
                Ok(())
            }
            MessageType::MsgVoteResp if message.term == self.term && self.role == Role::Candidate => {
                self.become_leader();
                Ok(())
            }
            MessageType::MsgAppResp if message.term == self.term && self.role == Role::Leader => {
                self.acknowledged(message.index);
                Ok(())
            }
            _ => Err(Error::Stale),
        }
    }

    fn appended(&mut self, message: &Message) -> Result<(), Error> {
        if message.term != self.term {
            return Err(Error::Stale);
        }
        if message.index != 0 {
            self.log.stable_to(message.index, message.log_term);
        }
        Ok(())
    }

    /// This node's own durable match index: with one voter it is the quorum's.
    fn acknowledged(&mut self, index: u64) {
        if self.promotable() && index > self.log.committed && self.log.term(index) == Some(self.term) {
            self.log.commit_to(index);
            for context in std::mem::take(&mut self.early_reads) {
                self.confirm_read(context);
            }
        }
    }

    fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.log.committed }
    }

    pub fn has_ready(&self) -> bool {
        !self.read_states.is_empty()
            || self.log.has_unstable()
            || self.log.has_committed()
            || self.vote_pending
            || self.hard_state() != self.stored
    }

    /// Everything to be done now. Appends and applies are answered through [`RawNode::step`].
    pub fn ready(&mut self) -> Ready {
        let mut messages = Vec::new();
        let entries = self.log.take_unstable();
        let state = self.hard_state();
        if !entries.is_empty() || state != self.stored || self.vote_pending {
            messages.push(self.storage_append(entries, state));
            self.stored = state;
        }
        if self.log.has_committed() {
            let entries = self.log.take_committed(self.config.max_size_per_msg);
            messages.push(self.storage_apply(entries));
        }
        Ready { read_states: std::mem::take(&mut self.read_states), messages }
    }

    fn storage_append(&mut self, entries: Vec<Entry>, state: HardState) -> Message {
        let to_self =
            |kind| Message { kind, to: self.config.id, from: self.config.id, term: self.term, ..Message::default() };
        let mut responses = Vec::new();
        if let Some(last) = entries.last() {
            let done = to_self(MessageType::MsgStorageAppendResp);
            responses.push(Message { from: LOCAL_APPEND_THREAD, index: last.index, log_term: last.term, ..done });
            if self.role == Role::Leader {
                responses.push(Message { index: last.index, ..to_self(MessageType::MsgAppResp) });
            }
        }
        if std::mem::take(&mut self.vote_pending) {
            responses.push(to_self(MessageType::MsgVoteResp));
        }
        Message {
            kind: MessageType::MsgStorageAppend,
            to: LOCAL_APPEND_THREAD,
            from: self.config.id,
            term: state.term,
            vote: state.vote,
            commit: state.commit,
            entries,
            responses,
            ..Message::default()
        }
    }

    fn storage_apply(&self, entries: Vec<Entry>) -> Message {
        let done = Message {
            kind: MessageType::MsgStorageApplyResp,
            to: self.config.id,
            from: LOCAL_APPLY_THREAD,
            // Only the place matters, not the bytes.
            entries: entries.last().map(|e| Entry { data: Bytes::new(), ..e.clone() }).into_iter().collect(),
            ..Message::default()
        };
        Message {
            kind: MessageType::MsgStorageApply,
            to: LOCAL_APPLY_THREAD,
            from: self.config.id,
            entries,
            responses: vec![done],
            ..Message::default()
        }
    }

    /// 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.leader
    }

    pub fn basic_status(&self) -> BasicStatus {
        BasicStatus { hard_state: self.hard_state(), applied: self.log.applied, leader: self.leader, role: self.role }
    }

    pub fn storage_mut(&mut self) -> &mut MemoryStorage {
        &mut self.log.storage
    }

    /// Term of the last entry, for assertions.
    pub fn last_term(&self) -> u64 {
        self.log.last_term()
    }
}

fn check_conf(conf: &ConfState) -> Result<(), String> {
    let others = conf.voters.len() > 1 || !conf.learners.is_empty() || !conf.voters_outgoing.is_empty();
    match others {
        true => Err(format!(
            "the cluster has several members (voters {:x?}, learners {:x?}); this release serves clusters of one member: \
             remove the others first, or use Go etcd",
            conf.voters, conf.learners
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::raft::{Snapshot, SnapshotMetadata};

    fn node(storage: MemoryStorage) -> RawNode {
        let config =
            Config { id: 1, election_tick: 10, heartbeat_tick: 1, applied: 0, max_size_per_msg: 1 << 20, seed: 7 };
        RawNode::new(config, storage).unwrap()
    }

    fn voter() -> MemoryStorage {
        let mut storage = MemoryStorage::new();
        let conf_state = ConfState { voters: vec![1], ..ConfState::default() };
        let metadata = SnapshotMetadata { conf_state, index: 0, term: 0 };
        storage.restore(Snapshot { metadata, ..Snapshot::default() }, HardState::default());
        storage
    }

    /// Runs the appends; answers applied entries.
    fn settle(node: &mut RawNode) -> Vec<Entry> {
        let mut applied = Vec::new();
        while node.has_ready() {
            for message in node.ready().messages {
                if message.to == LOCAL_APPLY_THREAD {
                    applied.extend(message.entries);
                }
                message.responses.into_iter().for_each(|r| node.step(r).unwrap());
            }
        }
        applied
    }

    #[test]
    fn one_voter_elects_itself_and_commits_what_is_durable() {
        let mut n = node(voter());
        n.campaign();
        assert_eq!(n.basic_status().role, Role::Candidate, "its own vote is not durable yet");
        assert_eq!(settle(&mut n).len(), 1);
        n.propose("x".into()).unwrap();
        let append = n.ready().messages.remove(0);
        assert!(!n.log.has_committed(), "not durable, so not committed");
        append.responses.into_iter().for_each(|r| n.step(r).unwrap());
        let applied = settle(&mut n);
        assert_eq!((applied[0].index, applied[0].data.as_ref()), (2, &b"x"[..]));
        assert_eq!(n.basic_status().applied, 2);
    }

    #[test]
    fn a_read_before_the_first_commit_of_the_term_waits_for_it() {
        let mut n = node(voter());
        n.campaign();
        let vote = n.ready().messages.remove(0);
        vote.responses.into_iter().for_each(|r| n.step(r).unwrap());
        n.read_index("ctx".into());
        assert!(n.read_states.is_empty());
        settle(&mut n);
        n.read_index("later".into());
        assert_eq!(n.ready().read_states, [ReadState { index: 1, request_ctx: "later".into() }]);
    }

    #[test]
    fn a_completion_of_an_older_term_is_ignored() {
        let mut n = node(voter());
        n.campaign();
        settle(&mut n);
        n.propose("x".into()).unwrap();
        let mut append = n.ready().messages.remove(0);
        append.responses[0].term -= 1;
        assert_eq!(n.step(append.responses.remove(0)), Err(Error::Stale));
    }

    #[test]
    fn a_second_conf_change_becomes_an_empty_entry_while_one_is_unapplied() {
        let mut n = node(voter());
        n.campaign();
        settle(&mut n);
        let change = ConfChange { node_id: 1, kind: ConfChangeKind::UpdateNode, ..ConfChange::default() };
        n.propose_conf_change(&change).unwrap();
        n.propose_conf_change(&change).unwrap();
        let kinds: Vec<_> = settle(&mut n).iter().map(|e| e.kind).collect();
        assert_eq!(kinds, [EntryKind::ConfChange, EntryKind::Normal]);
    }

    #[test]
    fn several_voters_are_refused_by_name() {
        let mut n = node(voter());
        let change = ConfChange { node_id: 2, ..ConfChange::default() };
        assert!(n.apply_conf_change(&change).unwrap_err().contains("one member"));
    }
}
