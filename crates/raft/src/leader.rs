//! What a leader does: takes proposals and reads, keeps its quorum, hands leadership over.
//!
//! How entries reach the followers is in [`crate::replication`].

use crate::confchange::ConfChangeV2;
use crate::config::{Error, ReadOnlyOption, ReadState, Role};
use crate::logging::note;
use crate::read_only::READS_WAITING_MAX;
use crate::state::Raft;
use api::raft::{ConfChange, Entry, EntryKind, Message, MessageType};
use bytes::Bytes;

impl Raft {
    pub fn step_leader(&mut self, m: Message) -> Result<(), Error> {
        use MessageType as T;
        match m.kind {
            T::MsgProp => return self.propose(m.entries),
            T::MsgReadIndex => self.read_index(m),
            T::MsgAppResp | T::MsgHeartbeatResp | T::MsgSnapStatus | T::MsgUnreachable | T::MsgTransferLeader => {
                if !self.tracker.progress.contains_key(&m.from) {
                    note!(self.logs, Debug, "{:x} no progress available for {:x}", self.id, m.from);
                    return Ok(());
                }
                match m.kind {
                    T::MsgAppResp => self.handle_append_resp(&m),
                    T::MsgHeartbeatResp => self.handle_heartbeat_resp(&m),
                    T::MsgSnapStatus => self.handle_snapshot_status(&m),
                    T::MsgUnreachable => self.handle_unreachable(m.from),
                    _ => self.transfer_to(m.from),
                }
            }
            // There is one leader a term: none of the rest can be for it.
            _ => {}
        }
        Ok(())
    }

    /// Steps down unless a quorum was heard of since the last check.
    pub fn check_quorum(&mut self) {
        if !self.tracker.quorum_active() {
            note!(self.logs, Warn, "{:x} stepped down to follower since quorum is not active", self.id);
            self.become_follower(self.term, 0);
        }
        let own = self.id;
        for (id, progress) in &mut self.tracker.progress {
            if *id != own {
                progress.recent_active = false;
            }
        }
    }

    /// Appends proposals and sends them out.
    pub fn propose(&mut self, mut entries: Vec<Entry>) -> Result<(), Error> {
        if !self.tracker.progress.contains_key(&self.id) {
            // Removed while it led: what it appends might never be committed.
            return Err(Error::ProposalDropped);
        }
        if self.transferee != 0 {
            note!(
                self.logs,
                Debug,
                "{:x} [term {}] transfer leadership to {:x} is in progress; dropping proposal",
                self.id,
                self.term,
                self.transferee
            );
            return Err(Error::ProposalDropped);
        }
        let before = self.pending_conf_index;
        if entries.iter().any(|e| e.kind != EntryKind::Normal) {
            self.admit_conf_changes(&mut entries)?;
        }
        if !self.append(entries) {
            self.pending_conf_index = before;
            return Err(Error::ProposalDropped);
        }
        self.broadcast_append();
        Ok(())
    }

    /// Conf changes that must not be appended now become empty entries. Bytes that no member could apply are refused
    /// along with everything beside them.
    fn admit_conf_changes(&mut self, entries: &mut [Entry]) -> Result<(), Error> {
        let changes: Vec<_> = entries.iter().map(conf_change).collect::<Result<_, _>>()?;
        for (index, (entry, change)) in (self.log.last_index() + 1..).zip(entries.iter_mut().zip(changes)) {
            let Some(change) = change else { continue };
            match self.conf_change_fault(&change) {
                Some(fault) if !self.config.disable_conf_change_validation => {
                    note!(
                        self.logs,
                        Info,
                        "{:x} ignoring conf change {change} at config {}: {fault}",
                        self.id,
                        self.tracker.config
                    );
                    *entry = Entry::default();
                }
                _ => self.pending_conf_index = index,
            }
        }
        Ok(())
    }

    /// Why a conf change must not be appended now.
    ///
    /// It is decided against the configuration that is applied, so only one change may be under way.
    fn conf_change_fault(&self, change: &ConfChangeV2) -> Option<String> {
        let joint = self.tracker.config.is_joint();
        if self.pending_conf_index > self.log.applied {
            let (index, applied) = (self.pending_conf_index, self.log.applied);
            return Some(format!("possible unapplied conf change at index {index} (applied to {applied})"));
        }
        match (joint, change.changes.is_empty()) {
            (true, false) => Some("must transition out of joint config first".into()),
            (false, true) => Some("not in joint state; refusing empty conf change".into()),
            _ => None,
        }
    }

    /// Leaves a joint configuration that is to be left automatically, once it is applied.
    pub fn maybe_leave_joint(&mut self) {
        let due = self.tracker.config.auto_leave && self.log.applied >= self.pending_conf_index;
        if !due || self.role != Role::Leader {
            return;
        }
        let leave = Entry { kind: EntryKind::ConfChangeV2, ..Entry::default() };
        match self.propose(vec![leave]) {
            Ok(()) => note!(
                self.logs,
                Info,
                "initiating automatic transition out of joint configuration {}",
                self.tracker.config
            ),
            // Tried again when the next entry is applied.
            Err(e) => note!(
                self.logs,
                Debug,
                "not initiating automatic transition out of joint configuration {}: {e}",
                self.tracker.config
            ),
        }
    }

    fn read_index(&mut self, m: Message) {
        if self.take_read(m) {
            self.broadcast_heartbeat();
        }
    }

    /// Takes a read; says whether a quorum must confirm it.
    ///
    /// Before its first commit of the term a leader may not know all that is committed: reads wait for it. That
    /// holds for the only voter too, since what it knew before a restart may have been behind.
    fn take_read(&mut self, m: Message) -> bool {
        if !self.committed_in_term() && !failpoint::mutant!("readBeforeFirstCommit") {
            if self.early_reads.len() < READS_WAITING_MAX {
                self.early_reads.push(m);
            }
            return false;
        }
        // A leader that was removed does not decide alone, even if one voter is left.
        let alone = self.tracker.decides_alone(self.id) || failpoint::mutant!("readWithoutQuorum");
        if alone || self.config.read_only == ReadOnlyOption::LeaseBased {
            self.answer_read(self.log.committed, m);
            return false;
        }
        self.read_only.add(self.id, self.log.committed, m)
    }

    /// One round of heartbeats is for all of them: many may have waited.
    pub fn release_early_reads(&mut self) {
        let mut unconfirmed = false;
        for m in std::mem::take(&mut self.early_reads) {
            unconfirmed |= self.take_read(m);
        }
        if unconfirmed {
            self.broadcast_heartbeat();
        }
    }

    /// Answers whoever asked: this node's owner, or a follower.
    fn answer_read(&mut self, index: u64, request: Message) {
        if request.from == 0 || request.from == self.id {
            let request_ctx = request.entries.into_iter().next().map(|e| e.data).unwrap_or_default();
            self.read_states.push(ReadState { index, request_ctx });
            return;
        }
        let kind = MessageType::MsgReadIndexResp;
        self.send(Message { kind, to: request.from, index, entries: request.entries, ..Message::default() });
    }

    pub fn broadcast_heartbeat(&mut self) {
        let context = self.read_only.heartbeat_context();
        for to in self.tracker.others(self.id) {
            self.send_heartbeat(to, context.clone());
        }
    }

    fn send_heartbeat(&mut self, to: u64, context: Bytes) {
        let Some(progress) = self.tracker.progress.get_mut(&to) else { return };
        // Beyond its match the follower may hold other entries, which it must not commit.
        let commit = progress.match_index.min(self.log.committed);
        progress.sent_commit = commit;
        self.send(Message { kind: MessageType::MsgHeartbeat, to, commit, context, ..Message::default() });
    }

    fn handle_heartbeat_resp(&mut self, m: &Message) {
        let last = self.log.last_index();
        if let Some(progress) = self.tracker.progress.get_mut(&m.from) {
            progress.recent_active = true;
            progress.paused = false;
            // A message may have been lost: the follower gets another one, an empty one if its window is full.
            if progress.match_index < last || progress.state == crate::progress::ProgressState::Probe {
                self.send_append(m.from);
            }
        }
        if self.config.read_only != ReadOnlyOption::Safe || m.context.is_empty() {
            return;
        }
        for (index, request) in self.read_only.confirm(m.from, &m.context, &self.tracker.config.voters) {
            self.answer_read(index, request);
        }
    }

    /// Hands leadership to `to`, as soon as its log is as long as ours; until then, and at most for an election
    /// timeout, proposals are dropped.
    fn transfer_to(&mut self, to: u64) {
        let Some(progress) = self.tracker.progress.get(&to) else { return };
        if progress.is_learner {
            note!(self.logs, Debug, "{:x} is learner. Ignored transferring leadership", self.id);
            return;
        }
        let caught_up = progress.match_index == self.log.last_index();
        let (id, term) = (self.id, self.term);
        if self.transferee == to {
            note!(
                self.logs,
                Info,
                "{id:x} [term {term}] transfer leadership to {to:x} is in progress, ignores request to same node {to:x}"
            );
            return;
        }
        if self.transferee != 0 {
            note!(
                self.logs,
                Info,
                "{id:x} [term {term}] abort previous transferring leadership to {:x}",
                self.transferee
            );
            self.transferee = 0;
        }
        if to == id {
            note!(self.logs, Debug, "{id:x} is already leader. Ignored transferring leadership to self");
            return;
        }
        note!(self.logs, Info, "{id:x} [term {term}] starts to transfer leadership to {to:x}");
        self.election_elapsed = 0;
        self.transferee = to;
        if caught_up {
            self.send_timeout_now(to);
            note!(
                self.logs,
                Info,
                "{id:x} sends MsgTimeoutNow to {to:x} immediately as {to:x} already has up-to-date log"
            );
        } else {
            self.send_append(to);
        }
    }

    pub fn send_timeout_now(&mut self, to: u64) {
        self.send(Message { kind: MessageType::MsgTimeoutNow, to, ..Message::default() });
    }
}

/// The change that an entry carries, in its general form.
fn conf_change(entry: &Entry) -> Result<Option<ConfChangeV2>, Error> {
    let decoded = match entry.kind {
        EntryKind::Normal => return Ok(None),
        EntryKind::ConfChange => ConfChange::decode(entry.data.clone()).map(|c| ConfChangeV2::from(&c)),
        EntryKind::ConfChangeV2 => ConfChangeV2::decode(entry.data.clone()),
    };
    decoded.map(Some).map_err(|_| Error::Malformed)
}
