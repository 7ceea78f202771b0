//! How a leader's log reaches its followers, and how it learns what is committed.

use crate::log::payload;
use crate::logging::note;
use crate::progress::ProgressState;
use crate::state::Raft;
use api::raft::{Message, MessageType};

impl Raft {
    /// Sends every follower what it lacks, or the commit index.
    pub fn broadcast_append(&mut self) {
        for to in self.tracker.others(self.id) {
            self.send_append(to);
        }
    }

    /// Sends `to` a `MsgApp`, even an empty one, unless it is paused.
    pub fn send_append(&mut self, to: u64) {
        self.maybe_send_append(to, true);
    }

    /// Sends `to` one message with the next entries, or a snapshot if they are gone. Says whether it did.
    pub fn maybe_send_append(&mut self, to: u64, even_empty: bool) -> bool {
        let Some(progress) = self.tracker.progress.get(&to) else { return false };
        if progress.is_paused() {
            return false;
        }
        let next = progress.next;
        let Some(log_term) = self.log.term(next - 1) else { return self.maybe_send_snapshot(to) };
        // Through a full window only empty messages go: one of them gets things moving if the others were lost.
        let throttled = progress.state == ProgressState::Replicate && progress.inflights.is_full();
        let entries = if throttled {
            Vec::new()
        } else {
            match self.log.entries(next, self.log.last_index() + 1, self.config.max_size_per_msg) {
                Some(entries) => entries,
                None => return self.maybe_send_snapshot(to),
            }
        };
        if entries.is_empty() && !even_empty {
            return false;
        }
        let (count, bytes, commit) = (entries.len() as u64, payload(&entries), self.log.committed);
        if let Some(progress) = self.tracker.progress.get_mut(&to) {
            progress.sent_entries(count, bytes);
            progress.sent_commit = commit;
        }
        let kind = MessageType::MsgApp;
        self.send(Message { kind, to, index: next - 1, log_term, entries, commit, ..Message::default() });
        true
    }

    /// Only an active follower gets a snapshot; and only one from which the log can go on is sent.
    fn maybe_send_snapshot(&mut self, to: u64) -> bool {
        let id = self.id;
        let Some(progress) = self.tracker.progress.get_mut(&to) else { return false };
        if !progress.recent_active {
            note!(self.logs, Debug, "ignore sending snapshot to {to:x} since it is not recently active");
            return false;
        }
        let Some(snapshot) = self.log.storage.snapshot_to_send().cloned() else {
            note!(
                self.logs,
                Debug,
                "{id:x} failed to send snapshot to {to:x} because snapshot is temporarily unavailable"
            );
            return false;
        };
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        note!(
            self.logs,
            Debug,
            "{id:x} [firstindex: {}, commit: {}] sent snapshot[index: {index}, term: {term}] to {to:x} [{progress}]",
            self.log.storage.first_index(),
            self.log.committed
        );
        progress.become_snapshot(index);
        note!(self.logs, Debug, "{id:x} paused sending replication messages to {to:x} [{progress}]");
        self.send(Message { kind: MessageType::MsgSnap, to, snapshot: Some(snapshot), ..Message::default() });
        true
    }

    /// Commits what a quorum has, if it is of this term. Says whether that is news.
    pub fn maybe_commit(&mut self) -> bool {
        self.log.maybe_commit(self.tracker.committed(), self.term)
    }

    pub fn handle_append_resp(&mut self, m: &Message) {
        if let Some(progress) = self.tracker.progress.get_mut(&m.from) {
            progress.recent_active = true;
        }
        if m.reject {
            self.handle_rejection(m);
        } else if m.index <= self.log.last_index() {
            self.handle_acknowledgement(m.from, m.index);
        } else {
            // It claims entries that this leader never had: not believed.
            note!(self.logs, Error, "{:x} ignored an acknowledgement of {} from {:x}", self.id, m.index, m.from);
        }
    }

    /// The follower doesn't have what was assumed: probe where its log and ours may agree.
    fn handle_rejection(&mut self, m: &Message) {
        let (id, from) = (self.id, m.from);
        note!(
            self.logs,
            Debug,
            "{id:x} received MsgAppResp(rejected, hint: (index {}, term {})) from {from:x} for index {}",
            m.reject_hint,
            m.log_term,
            m.index
        );
        // In the hint's term or an older one: our entries of newer terms before it can't be the follower's.
        let hint = match m.log_term {
            0 => m.reject_hint,
            term => self.log.find_conflict_by_term(m.reject_hint, term).0,
        };
        let Some(progress) = self.tracker.progress.get_mut(&from) else { return };
        if !progress.maybe_decrease_to(m.index, hint) {
            return;
        }
        note!(self.logs, Debug, "{id:x} decreased progress of {from:x} to [{progress}]");
        if progress.state == ProgressState::Replicate {
            progress.become_probe();
        }
        self.send_append(from);
    }

    fn handle_acknowledgement(&mut self, from: u64, index: u64) {
        let (id, first) = (self.id, self.log.first_index());
        let Some(progress) = self.tracker.progress.get_mut(&from) else { return };
        // A probe's answer is worth something even if it confirms only what was known.
        let probed = |p: &crate::progress::Progress| p.match_index == index && p.state == ProgressState::Probe;
        if !progress.maybe_update(index) && !probed(progress) {
            return;
        }
        match progress.state {
            ProgressState::Probe => progress.become_replicate(),
            // Wherever the snapshot that it got stands: what counts is that our log goes on from there.
            ProgressState::Snapshot if progress.match_index + 1 >= first => {
                note!(
                    self.logs,
                    Debug,
                    "{id:x} recovered from needing snapshot, resumed sending replication messages to {from:x} [{progress}]"
                );
                progress.become_probe();
                progress.become_replicate();
            }
            ProgressState::Snapshot => {}
            ProgressState::Replicate => progress.inflights.free_to(index),
        }
        let bump = progress.can_bump_commit(self.log.committed);
        if self.maybe_commit() {
            self.release_early_reads();
            self.broadcast_append();
        } else if from != id && bump {
            self.send_append(from);
        }
        if from != id {
            // Room in the window, or a larger one than a probe's: fill it.
            while self.maybe_send_append(from, false) {}
        }
        let caught_up = self.tracker.progress.get(&from).is_some_and(|p| p.match_index == self.log.last_index());
        if from == self.transferee && caught_up {
            note!(self.logs, Info, "{id:x} sent MsgTimeoutNow to {from:x} after received MsgAppResp");
            self.send_timeout_now(from);
        }
    }

    pub fn handle_snapshot_status(&mut self, m: &Message) {
        let id = self.id;
        let Some(progress) = self.tracker.progress.get_mut(&m.from) else { return };
        if progress.state != ProgressState::Snapshot {
            return;
        }
        if m.reject {
            // Probe from what it is known to have, not from behind the snapshot.
            progress.pending_snapshot = 0;
        }
        progress.become_probe();
        note!(
            self.logs,
            Debug,
            "{id:x} snapshot {}, resumed sending replication messages to {:x} [{progress}]",
            if m.reject { "failed" } else { "succeeded" },
            m.from
        );
        // A success is followed by an acknowledgement, a failure by a pause of one heartbeat.
        progress.paused = true;
    }

    /// What is in flight is probably lost.
    pub fn handle_unreachable(&mut self, from: u64) {
        let id = self.id;
        let Some(progress) = self.tracker.progress.get_mut(&from) else { return };
        if progress.state == ProgressState::Replicate {
            progress.become_probe();
        }
        note!(self.logs, Debug, "{id:x} failed to send message to {from:x} because it is unreachable [{progress}]");
    }
}
