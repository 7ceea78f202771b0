//! What a follower does: takes its leader's entries, commits and snapshots, and passes requests on to it.
//!
//! An acknowledgement promises durability: it waits for the append that makes it true.

use crate::confchange;
use crate::config::{Error, ReadOnlyOption, ReadState, Role};
use crate::election::Campaign;
use crate::logging::note;
use crate::state::Raft;
use crate::tracker::Tracker;
use api::raft::{Message, MessageType, Snapshot};

impl Raft {
    pub fn step_follower(&mut self, m: Message) -> Result<(), Error> {
        use MessageType as T;
        match m.kind {
            T::MsgProp => return self.forward_proposal(m),
            T::MsgApp | T::MsgHeartbeat | T::MsgSnap => {
                self.election_elapsed = 0;
                self.leader = m.from;
                match m.kind {
                    T::MsgApp => self.handle_append(m),
                    T::MsgHeartbeat => self.handle_heartbeat(m),
                    _ => self.handle_snapshot(m),
                }
            }
            T::MsgTransferLeader => self.forward(m, "leader transfer"),
            T::MsgReadIndex => self.forward(m, "index reading"),
            T::MsgTimeoutNow => {
                note!(
                    self.logs,
                    Info,
                    "{:x} [term {}] received MsgTimeoutNow from {:x} and starts an election to get leadership.",
                    self.id,
                    self.term,
                    m.from
                );
                // At once and without a pre-vote: the leader chose this.
                self.stand(Campaign::Transfer);
            }
            T::MsgReadIndexResp => {
                let request_ctx = m.entries.into_iter().next().map(|e| e.data).unwrap_or_default();
                self.read_states.push(ReadState { index: m.index, request_ctx });
            }
            _ => {}
        }
        Ok(())
    }

    fn forward_proposal(&mut self, m: Message) -> Result<(), Error> {
        if self.leader == 0 {
            note!(self.logs, Info, "{:x} no leader at term {}; dropping proposal", self.id, self.term);
            return Err(Error::ProposalDropped);
        }
        if self.config.disable_proposal_forwarding {
            note!(
                self.logs,
                Info,
                "{:x} not forwarding to leader {:x} at term {}; dropping proposal",
                self.id,
                self.leader,
                self.term
            );
            return Err(Error::ProposalDropped);
        }
        self.send(Message { to: self.leader, ..m });
        Ok(())
    }

    fn forward(&mut self, m: Message, what: &str) {
        if self.leader == 0 {
            note!(self.logs, Info, "{:x} no leader at term {}; dropping {what} msg", self.id, self.term);
            return;
        }
        self.send(Message { to: self.leader, ..m });
    }

    /// Forgets who leads, so that it may vote for another at once; the election timer goes on.
    pub fn forget_leader(&mut self) {
        if self.role != Role::Follower {
            return;
        }
        if self.config.read_only == ReadOnlyOption::LeaseBased {
            // The leader's lease rests on its followers' loyalty.
            note!(self.logs, Error, "ignoring MsgForgetLeader due to ReadOnlyLeaseBased");
        } else if self.leader != 0 {
            note!(self.logs, Info, "{:x} forgetting leader {:x} at term {}", self.id, self.leader, self.term);
            self.leader = 0;
        }
    }

    fn acknowledge(&mut self, to: u64, index: u64) {
        self.send(Message { kind: MessageType::MsgAppResp, to, index, ..Message::default() });
    }

    fn handle_append(&mut self, m: Message) {
        // What is committed agrees with any leader's log: no need to look.
        if m.index < self.log.committed {
            self.acknowledge(m.from, self.log.committed);
            return;
        }
        if let Some(last_new) = self.log.maybe_append(m.index, m.log_term, m.entries, &mut self.logs) {
            // Behind what this message vouches for there may be entries of another leader.
            self.log.commit_to(m.commit.min(last_new));
            self.acknowledge(m.from, last_new);
            return;
        }
        note!(
            self.logs,
            Debug,
            "{:x} [logterm: {}, index: {}] rejected MsgApp [logterm: {}, index: {}] from {:x}",
            self.id,
            self.log.term(m.index).unwrap_or(0),
            m.index,
            m.log_term,
            m.index,
            m.from
        );
        // Up to the hint the logs may agree: whole terms that can't are skipped.
        let last = m.index.min(self.log.last_index());
        let (reject_hint, log_term) = self.log.find_conflict_by_term(last, m.log_term);
        self.send(Message {
            kind: MessageType::MsgAppResp,
            to: m.from,
            index: m.index,
            reject: true,
            reject_hint,
            log_term,
            ..Message::default()
        });
    }

    fn handle_heartbeat(&mut self, m: Message) {
        if m.commit <= self.log.last_index() {
            self.log.commit_to(m.commit);
        } else {
            // The leader believes that this node has entries which it hasn't: it came back without its log. It must
            // not commit what it has instead, nor die by a message.
            note!(
                self.logs,
                Error,
                "tocommit({}) is out of range [lastIndex({})]. Was the raft log corrupted, truncated, or lost?",
                m.commit,
                self.log.last_index()
            );
        }
        let (kind, context) = (MessageType::MsgHeartbeatResp, m.context);
        self.send(Message { kind, to: m.from, context, ..Message::default() });
    }

    fn handle_snapshot(&mut self, m: Message) {
        let Some(snapshot) = m.snapshot else { return };
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        let restored = self.restore(snapshot);
        note!(
            self.logs,
            Info,
            "{:x} [commit: {}] {} snapshot [index: {index}, term: {term}]",
            self.id,
            self.log.committed,
            if restored { "restored" } else { "ignored" }
        );
        let known = if restored { self.log.last_index() } else { self.log.committed };
        self.acknowledge(m.from, known);
    }

    /// Puts the snapshot in the log's place, unless it brings nothing or its configuration is not one that this
    /// node is in.
    fn restore(&mut self, snapshot: Snapshot) -> bool {
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        if index <= self.log.committed {
            return false;
        }
        let state = &snapshot.metadata.conf_state;
        let mut members = state.voters.iter().chain(&state.learners).chain(&state.voters_outgoing);
        if !members.any(|id| *id == self.id) {
            note!(
                self.logs,
                Warn,
                "{:x} attempted to restore snapshot but it is not in the ConfState {state:?}; should never happen",
                self.id
            );
            return false;
        }
        if self.log.term(index) == Some(term) {
            note!(
                self.logs,
                Info,
                "{} fast-forwarded commit to snapshot [index: {index}, term: {term}]",
                self.place_and_commit()
            );
            self.log.commit_to(index);
            return false;
        }
        let tracker = Tracker::new(self.config.max_inflight_msgs, self.config.max_inflight_bytes);
        let Ok(changed) = confchange::restore(tracker, index, state) else {
            note!(self.logs, Error, "{:x} can't restore a snapshot with the ConfState {state:?}", self.id);
            return false;
        };
        self.log.restore(snapshot, &mut self.logs);
        self.switch_to(changed);
        note!(self.logs, Info, "{} restored snapshot [index: {index}, term: {term}]", self.place_and_commit());
        true
    }

    fn place_and_commit(&self) -> String {
        let (commit, index, term) = (self.log.committed, self.log.last_index(), self.log.last_term());
        format!("{:x} [commit: {commit}, lastindex: {index}, lastterm: {term}]", self.id)
    }
}
