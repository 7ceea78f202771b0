//! The node as its owner sees it: inputs in, [`Ready`] out.
//!
//! ```text
//!  propose, read_index, tick, step ─► RawNode ─► ready(): send messages, store, apply
//!                 ▲                                   │
//!                 └──── step(response) · advance() ◄──┘
//! ```
//! With asynchronous storage writes, storing and applying are messages to local threads. Each carries the responses
//! that rest on it: they are delivered, to whomever they are addressed, when it is done — a node's own back through
//! [`RawNode::step`]. Appends complete in order, and so do applies; the two may overtake each other, and several may
//! be under way. A peer's message that claims to come from this node must not get here: it would pass for such a
//! response.
//!
//! What appends write must survive a crash as a prefix: an append that only moves the commit index may be lost, but not
//! if anything after it survives. Members of an older configuration could win an election otherwise.

use crate::confchange::ConfChangeV2;
use crate::config::{BasicStatus, Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Ready, Role, SoftState};
use crate::logging::LogLine;
use crate::progress::Progress;
use crate::state::Raft;
use crate::tracker::MemberConfig;
use crate::{MemoryStorage, ReadOnlyOption};
use api::raft::{ConfChange, ConfState, Entry, EntryKind, HardState, Message, MessageType};
use bytes::Bytes;

/// One participant.
#[derive(Debug)]
pub struct RawNode {
    raft: Raft,
    /// What was last handed out.
    soft_state: SoftState,
    hard_state: HardState,
    /// What [`RawNode::advance`] completes.
    on_advance: Vec<Message>,
}

impl RawNode {
    /// # Errors
    /// A setting is out of range, or what is stored contradicts itself.
    pub fn new(config: Config, storage: MemoryStorage) -> Result<RawNode, String> {
        let stored = storage.hard_state();
        let raft = Raft::new(config, storage)?;
        let soft_state = raft.soft_state();
        // What is applied is committed, even if the commit index that says so was never stored: then it will be.
        let hard_state = if stored.is_empty() { raft.hard_state() } else { stored };
        Ok(RawNode { raft, soft_state, hard_state, on_advance: Vec::new() })
    }

    /// Time passed by one tick.
    pub fn tick(&mut self) {
        self.raft.tick();
    }

    /// Stands for election now, unless it leads, is no voter, or a committed conf change is not applied yet.
    pub fn campaign(&mut self) {
        self.raft.hup();
    }

    fn local(&self, kind: MessageType) -> Message {
        Message { kind, from: self.raft.id, ..Message::default() }
    }

    /// Proposes data; a follower sends it to its leader, which may still drop it.
    ///
    /// # Errors
    /// Dropped: no leader is known, leadership is being handed over, or too much is uncommitted.
    pub fn propose(&mut self, data: Bytes) -> Result<(), Error> {
        self.propose_entry(Entry { data, ..Entry::default() })
    }

    /// Proposes a conf change; while another is unapplied it becomes an empty entry, as in etcd.
    ///
    /// # Errors
    /// As [`RawNode::propose`].
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(), Error> {
        let (kind, data) = (EntryKind::ConfChange, change.encode().into());
        self.propose_entry(Entry { kind, data, ..Entry::default() })
    }

    /// Proposes a change of several members, or to leave a joint configuration. etcd never does.
    ///
    /// # Errors
    /// As [`RawNode::propose`].
    pub fn propose_conf_change_v2(&mut self, change: &ConfChangeV2) -> Result<(), Error> {
        let (kind, data) = (EntryKind::ConfChangeV2, change.encode().into());
        self.propose_entry(Entry { kind, data, ..Entry::default() })
    }

    /// Proposes several pieces of data at once: one message to each follower instead of many. All or none of them.
    ///
    /// # Errors
    /// As [`RawNode::propose`].
    pub fn propose_batch(&mut self, data: impl IntoIterator<Item = Bytes>) -> Result<(), Error> {
        let entries: Vec<Entry> = data.into_iter().map(|data| Entry { data, ..Entry::default() }).collect();
        match entries.is_empty() {
            true => Ok(()),
            false => self.propose_entries(entries),
        }
    }

    fn propose_entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.propose_entries(vec![entry])
    }

    fn propose_entries(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        match self.raft.role {
            Role::Leader => self.raft.propose(entries),
            _ => self.raft.step(Message { entries, ..self.local(MessageType::MsgProp) }),
        }
    }

    /// Takes a committed conf change into effect, when its entry is applied; `node_id` 0 changes nothing.
    ///
    /// # Errors
    /// The change is against the rules, for example removes the last voter; nothing changed.
    pub fn apply_conf_change(&mut self, change: &ConfChange) -> Result<ConfState, String> {
        self.raft.apply_conf_change(&ConfChangeV2::from(change))
    }

    /// As [`RawNode::apply_conf_change`].
    ///
    /// # Errors
    /// The change is against the rules; nothing changed.
    pub fn apply_conf_change_v2(&mut self, change: &ConfChangeV2) -> Result<ConfState, String> {
        self.raft.apply_conf_change(change)
    }

    /// Asks for the index that a linearizable read must wait for; answered by a [`crate::ReadState`] with the same
    /// context, or never: without a leader, or if a message is lost, the caller asks again.
    pub fn read_index(&mut self, context: Bytes) {
        let entries = vec![Entry { data: context, ..Entry::default() }];
        let message = self.local(MessageType::MsgReadIndex);
        // Dropped requests have a deadline at their caller; there is nothing to say about them here.
        let _dropped = self.raft.step(Message { entries, ..message });
    }

    /// Hands leadership to `to`. Ask at the leader, or at a follower, which passes it on.
    pub fn transfer_leader(&mut self, to: u64) {
        let message = Message { kind: MessageType::MsgTransferLeader, from: to, ..Message::default() };
        let _nothing_to_refuse = self.raft.step(message);
    }

    /// A follower forgets who leads, in the same term, and may vote for another at once.
    pub fn forget_leader(&mut self) {
        self.raft.forget_leader();
    }

    /// The transport could not reach `id`: what is in flight to it is probably lost.
    pub fn report_unreachable(&mut self, id: u64) {
        let message = Message { kind: MessageType::MsgUnreachable, from: id, ..Message::default() };
        let _nothing_to_refuse = self.raft.step(message);
    }

    /// Whether the snapshot sent to `id` arrived.
    pub fn report_snapshot(&mut self, id: u64, arrived: bool) {
        let kind = MessageType::MsgSnapStatus;
        let _nothing_to_refuse = self.raft.step(Message { kind, from: id, reject: !arrived, ..Message::default() });
    }

    /// Takes a peer's message, or the completion of local storage work.
    ///
    /// # Errors
    /// It is refused and nothing changed; refusals are part of the protocol. No message makes the core panic.
    pub fn step(&mut self, message: Message) -> Result<(), Error> {
        self.raft.step_outside(message)
    }

    fn durable_only(&self) -> bool {
        self.raft.config.async_storage_writes
    }

    /// Whether there is anything to be done.
    pub fn has_ready(&self) -> bool {
        let raft = &self.raft;
        raft.log.unstable.has_next_entries()
            || raft.log.has_committed(self.durable_only())
            || !raft.messages.is_empty()
            || !raft.after_append.is_empty()
            || !raft.read_states.is_empty()
            || raft.hard_state() != self.hard_state
            || raft.soft_state() != self.soft_state
            || raft.log.unstable.next_snapshot().is_some()
    }

    /// Everything to be done now. It counts as begun: the next call answers only what comes after.
    ///
    /// # Panics
    /// With synchronous storage writes, if the last one was not [advanced](RawNode::advance).
    pub fn ready(&mut self) -> Ready {
        assert!(self.on_advance.is_empty(), "a Ready was taken while another one was not advanced");
        let mut ready = Ready {
            soft_state: Some(self.raft.soft_state()).filter(|s| *s != self.soft_state),
            read_states: std::mem::take(&mut self.raft.read_states),
            messages: std::mem::take(&mut self.raft.messages),
            hard_state: Some(self.raft.hard_state()).filter(|s| *s != self.hard_state).unwrap_or_default(),
            entries: self.raft.log.unstable.next_entries(),
            snapshot: self.raft.log.unstable.next_snapshot().cloned(),
            committed_entries: Vec::new(),
            must_sync: false,
        };
        let before = self.hard_state;
        if let Some(state) = ready.soft_state {
            self.soft_state = state;
        }
        if !ready.hard_state.is_empty() {
            self.hard_state = ready.hard_state;
        }
        let promised = (self.hard_state.term, self.hard_state.vote) != (before.term, before.vote);
        ready.must_sync = promised || !ready.entries.is_empty();
        let durable_only = self.durable_only() && !failpoint::mutant!("applyBeforeDurable");
        ready.committed_entries = self.raft.log.take_committed(durable_only);
        self.raft.log.unstable.accept_in_progress();
        let after_append = std::mem::take(&mut self.raft.after_append);
        if self.durable_only() {
            self.hand_out(&mut ready, after_append);
        } else {
            self.keep_for_advance(&mut ready, after_append);
        }
        ready
    }

    /// Turns the work of a Ready into messages.
    fn hand_out(&self, ready: &mut Ready, responses: Vec<Message>) {
        let entries = std::mem::take(&mut ready.entries);
        let state = std::mem::take(&mut ready.hard_state);
        let snapshot = ready.snapshot.take();
        if !entries.is_empty() || !state.is_empty() || snapshot.is_some() || !responses.is_empty() {
            ready.messages.push(self.storage_append(entries, state, snapshot, responses));
        }
        let committed = std::mem::take(&mut ready.committed_entries);
        if !committed.is_empty() {
            ready.messages.push(self.storage_apply(committed));
        }
    }

    /// The completion is of the newest unstable entry, not of the newest in this message: what was stored by an
    /// older append in flight, and dropped as stale by a change of term, is covered by this one.
    fn storage_append(
        &self,
        entries: Vec<Entry>,
        state: HardState,
        snapshot: Option<api::raft::Snapshot>,
        mut responses: Vec<Message>,
    ) -> Message {
        responses.extend(self.raft.storage_append_resp());
        Message {
            kind: MessageType::MsgStorageAppend,
            to: LOCAL_APPEND_THREAD,
            from: self.raft.id,
            term: state.term,
            vote: state.vote,
            commit: state.commit,
            entries,
            snapshot,
            responses,
            ..Message::default()
        }
    }

    fn storage_apply(&self, entries: Vec<Entry>) -> Message {
        let responses = vec![self.applied(&entries)];
        let kind = MessageType::MsgStorageApply;
        let (to, from) = (LOCAL_APPLY_THREAD, self.raft.id);
        Message { kind, to, from, entries, responses, ..Message::default() }
    }

    /// The completion of an apply: only the last place matters, not the bytes.
    fn applied(&self, entries: &[Entry]) -> Message {
        let last = entries.last().map(|e| Entry { data: Bytes::new(), ..*e });
        Message {
            kind: MessageType::MsgStorageApplyResp,
            to: self.raft.id,
            from: LOCAL_APPLY_THREAD,
            entries: last.into_iter().collect(),
            ..Message::default()
        }
    }

    /// Messages leave after the work is done; what is meant for this node itself waits for [`RawNode::advance`].
    fn keep_for_advance(&mut self, ready: &mut Ready, after_append: Vec<Message>) {
        let (own, others): (Vec<_>, Vec<_>) = after_append.into_iter().partition(|m| m.to == self.raft.id);
        ready.messages.extend(others);
        self.on_advance = own;
        self.on_advance.extend(self.raft.storage_append_resp());
        if !ready.committed_entries.is_empty() {
            self.on_advance.push(self.applied(&ready.committed_entries));
        }
    }

    /// With synchronous storage writes: what the last [`Ready`] asked for is stored and applied.
    pub fn advance(&mut self) {
        for message in std::mem::take(&mut self.on_advance) {
            // A completion may have become stale by the one before it.
            let _refused = self.raft.step(message);
        }
    }

    /// This node.
    pub fn id(&self) -> u64 {
        self.raft.id
    }

    /// 0 when none is known.
    pub fn leader(&self) -> u64 {
        self.raft.leader
    }

    /// Where this node stands.
    pub fn basic_status(&self) -> BasicStatus {
        BasicStatus {
            hard_state: self.raft.hard_state(),
            applied: self.raft.log.applied,
            leader: self.raft.leader,
            role: self.raft.role,
            transferee: self.raft.transferee,
        }
    }

    /// Of a leader: what its entries hold that are not committed yet, bytes.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.raft.uncommitted_bytes
    }

    /// What is known of each member, by ascending id; of worth only at the leader.
    pub fn progress(&self) -> impl Iterator<Item = (u64, &Progress)> {
        self.raft.tracker.progress.iter().map(|(id, progress)| (*id, progress))
    }

    /// The configuration in force.
    pub fn member_config(&self) -> &MemberConfig {
        &self.raft.tracker.config
    }

    /// How reads are confirmed.
    pub fn read_only_option(&self) -> ReadOnlyOption {
        self.raft.config.read_only
    }

    /// The durable part of the log.
    pub fn storage(&self) -> &MemoryStorage {
        &self.raft.log.storage
    }

    /// To compact the log, and to say which snapshot to send. Entries are the core's.
    pub fn storage_mut(&mut self) -> &mut MemoryStorage {
        &mut self.raft.log.storage
    }

    /// Index of the last entry, durable or not.
    pub fn last_index(&self) -> u64 {
        self.raft.log.last_index()
    }

    /// The term of an entry, durable or not; `None` outside the log.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.raft.log.term(index)
    }

    /// Term of the last entry, for assertions.
    pub fn last_term(&self) -> u64 {
        self.raft.log.last_term()
    }

    /// Lines for the log since the last call; empty unless [`Config::log_level`] asks for some.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        self.raft.logs.take()
    }

    /// Replaces the election timeout, in ticks, until the next one is drawn: for tests that count ticks.
    pub fn set_election_timeout(&mut self, ticks: usize) {
        self.raft.timeout = ticks;
    }
}
