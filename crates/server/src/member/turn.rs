//! One turn: everything queued goes through raft, the log's sync, commit, apply and publication.
//!
//! ```text
//! held proposals, read-index rounds ─► raft.ready() ─► log tasks ─► LogWriter ─► logged(): raft.step(promises)
//!        ▲                                  │                                              │
//!        │                                  └─► committed and durable: apply, publish      │
//!        └────────────────────────────── the next turn ◄───────────────────────────────────┘
//! ```

use super::{Asked, Member, Output, Reading};
use crate::{Fatal, LogTask, LogWriter, Logged, Request};
use api::raft::{Entry, EntryKind, Message, MessageType};
use bytes::Bytes;
use raft::{LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, Role};

/// Entries applied in one turn, after which ticks, peers and clients get theirs: some 20 ms of small puts …
const TURN_ENTRIES: usize = 2048;
/// … and bytes.
const TURN_BYTES: usize = 8 << 20;

/// A read-index round without an answer is asked again (etcd `readIndexRetryTime`).
const READ_INDEX_RETRY_MS: u64 = 500;

impl<T> Member<T> {
    /// Works until nothing is left to be done here, with the log on the same thread.
    ///
    /// # Errors
    /// As [`Member::turn`].
    pub fn turn_with(&mut self, log: &mut LogWriter) -> Result<(), Fatal> {
        loop {
            self.turn()?;
            let tasks = self.take_log_tasks();
            if tasks.is_empty() {
                return Ok(());
            }
            for task in tasks {
                log.take(task)?;
            }
            self.logged(log.sync()?);
        }
    }

    /// Works until nothing is left that does not wait for the log or for peers, or until enough was applied for one turn.
    ///
    /// # Errors
    /// The disk failed or state is corrupt: drop the member, answer nobody.
    pub fn turn(&mut self) -> Result<(), Fatal> {
        // State and events of what this turn applies go out before its replies, and after what is queued already.
        let mark = self.out.len();
        if !failpoint::mutant!("revokeGuardForgotten") {
            self.follow_leadership();
        }
        self.propose_revocations();
        self.submit_held();
        self.ask_read_index();
        let (mut entries, mut bytes) = (0, 0);
        while self.raft.has_ready() && entries < TURN_ENTRIES && bytes < TURN_BYTES {
            let ready = self.raft.ready();
            for state in ready.read_states {
                self.confirm_reads(state.index, &state.request_ctx);
            }
            if self.raft.leader() == self.member_id {
                failpoint::point!("raftBeforeLeaderSend");
            }
            let mut applies = Vec::new();
            for message in ready.messages {
                self.route(message, &mut applies);
            }
            for apply in applies {
                entries += apply.entries.len();
                bytes += apply.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
                self.apply(apply)?;
            }
        }
        self.settle_moves();
        self.note_leader();
        self.follow_leadership();
        if entries > 0 {
            failpoint::point!("beforeWritebackBuf");
            self.publish_at(mark);
            failpoint::point!("afterWritebackBuf");
        }
        if self.release_reads() {
            return self.turn();
        }
        self.start_checkpoint();
        Ok(())
    }

    /// What the log's writer is to do, in order. All of it must be taken, and then synced.
    pub fn take_log_tasks(&mut self) -> Vec<LogTask> {
        std::mem::take(&mut self.log_tasks)
    }

    /// The log's writer did what it was told.
    pub fn logged(&mut self, mut done: Logged) {
        // Not in order with the rest: a database that waits to be installed waits for the checkpoint that waits for this.
        self.log_room = done.room;
        if !failpoint::mutant!("databaseWaitsForCheckpoint") || done.received.is_none() && self.logged.is_empty() {
            self.checkpoint_logged(done.all_synced, done.recorded);
        }
        self.out.extend(done.notes.drain(..).map(Output::Note));
        self.logged.push_back(done);
        self.settle_logged();
    }

    /// Counts what is durable, in order. A leader's database is installed first, and what came behind it waits meanwhile.
    pub(super) fn settle_logged(&mut self) {
        while let Some(done) = self.logged.pop_front_if(|done| done.received.is_none()) {
            failpoint::point!("raftBeforeAdvance");
            done.promises.into_iter().for_each(|promise| self.post(promise));
        }
        let received = self.logged.front().and_then(|done| done.received.clone());
        if let Some(metadata) = received.filter(|_| !self.checkpoint_runs()) {
            self.start_install(metadata);
        }
    }

    /// A leader's database is in place: its snapshot counts.
    pub(super) fn settle_installed(&mut self) {
        let mut done = self.logged.pop_front().expect("what is installed is at the front until now");
        assert!(done.received.take().is_some(), "what is installed was received");
        failpoint::point!("raftBeforeApplySnap");
        done.promises.into_iter().for_each(|promise| self.post(promise));
        failpoint::point!("raftAfterApplySnap");
        self.settle_logged();
    }

    /// One read-index round for all reads that wait; rounds overlap.
    fn ask_read_index(&mut self) {
        if self.reads_waiting.is_empty() || self.raft.leader() == 0 {
            return;
        }
        let context = self.ids.draw();
        self.raft.read_index(Bytes::copy_from_slice(&context.to_be_bytes()));
        let reads = std::mem::take(&mut self.reads_waiting);
        self.reads_asked.push_back(Asked { context, asked_ms: self.now_ms, reads });
    }

    /// A round may be lost on its way, or with the leader it was asked of: its reads go with the next one. A context is
    /// never used again, so that no answer to the old round counts for the new one.
    pub(super) fn tick_reads(&mut self) {
        let late = self.now_ms.saturating_sub(READ_INDEX_RETRY_MS);
        while let Some(asked) = self.reads_asked.pop_front_if(|asked| asked.asked_ms <= late) {
            self.tally.reads_asked_again += 1;
            self.reads_waiting.extend(asked.reads);
        }
    }

    fn confirm_reads(&mut self, index: u64, context: &[u8]) {
        let Ok(context) = context.try_into().map(u64::from_be_bytes) else { return };
        if let Some(at) = self.reads_asked.iter().position(|asked| asked.context == context) {
            let asked = self.reads_asked.remove(at).expect("position is inside");
            self.reads_confirmed.push_back((index, asked.reads));
        }
    }

    /// Whether one of them was a question that leads to a proposal.
    fn release_reads(&mut self) -> bool {
        let mut proposed = false;
        let applied = self.applied.index();
        let mut waiting = std::collections::VecDeque::new();
        for (index, mut reads) in std::mem::take(&mut self.reads_confirmed) {
            let mut ready = std::mem::take(&mut reads);
            if index > applied && !failpoint::mutant!("readsReleasedEarly") {
                (ready, reads) = ready.into_iter().partition(|reading| self.is_fast(&reading.request));
                if !reads.is_empty() {
                    waiting.push_back((index, reads));
                }
            }
            for Reading { ticket, who, request, .. } in ready {
                match request {
                    Request::LeaseKeepAlive(r) => self.keep_alive(ticket, &who, r.id),
                    Request::LeaseTimeToLive(r) => self.time_to_live(ticket, &who, &r),
                    Request::Downgrade(r) => {
                        self.judge_downgrade(ticket, &who, &r);
                        proposed = true;
                    }
                    request => self.out.push(Output::Read { ticket, who, request }),
                }
            }
        }
        self.reads_confirmed = waiting;
        proposed
    }

    /// Whether an answer rests on this member's leadership alone, and not on what it has applied (etcd
    /// `FastLeaseKeepAlive`). A lease that is not known may be about to be granted.
    fn is_fast(&self, request: &Request) -> bool {
        let known = |lease| self.lessor.time_to_live(lease, self.now_ms).is_some();
        matches!(request, Request::LeaseKeepAlive(r) if self.config.choices.fast_lease_keep_alive && known(r.id))
    }

    fn route(&mut self, message: Message, applies: &mut Vec<Message>) {
        match (message.kind, message.to) {
            (MessageType::MsgStorageAppend, LOCAL_APPEND_THREAD) => self.log_tasks.push(LogTask::Append(message)),
            (MessageType::MsgStorageApply, LOCAL_APPLY_THREAD) => applies.push(message),
            _ => self.post(message),
        }
    }

    fn apply(&mut self, message: Message) -> Result<(), Fatal> {
        for entry in &message.entries {
            match entry.kind {
                EntryKind::Normal => self.apply_normal(entry)?,
                EntryKind::ConfChange => self.apply_conf_change(entry)?,
                EntryKind::ConfChangeV2 => {
                    let text = format!("log entry {} is a ConfChangeV2, which etcd never writes", entry.index);
                    return Err(Fatal::new(text));
                }
            }
        }
        for response in message.responses {
            self.post(response);
        }
        Ok(())
    }

    fn apply_normal(&mut self, entry: &Entry) -> Result<(), Fatal> {
        failpoint::point!("beforeApplyOneEntryNormal");
        let done = self.store.apply(entry)?;
        self.follow(done.effects)?;
        if let Some(id) = done.request_id {
            self.settle(id, done.reply);
        }
        Ok(())
    }

    fn apply_conf_change(&mut self, entry: &Entry) -> Result<(), Fatal> {
        failpoint::point!("beforeApplyOneConfChange");
        let done = self.store.apply_conf_change(entry)?;
        if let Some(change) = done.change {
            let state = self.raft.apply_conf_change(&change).map_err(Fatal::new)?;
            self.store.set_conf_state(&state);
            self.members_changed();
        }
        if done.request_id != 0 {
            self.settle_conf_change(done.request_id, done.reply);
        }
        Ok(())
    }

    pub(super) fn publish(&mut self) {
        self.publish_at(self.out.len());
    }

    fn publish_at(&mut self, at: usize) {
        let (applied, changes) = self.store.publish();
        self.applied = applied.clone();
        self.out.insert(at, Output::Published { applied, changes });
    }

    /// Takes notice of what raft knows: whether this member leads, and in which term. Whoever rests on that (above all what
    /// expired leases are revoked by) must ask after everything that came was heard, and after the clock's ticks: a leader
    /// that was paused learns of its successor in the same moment in which it learns how late it is.
    pub(super) fn follow_leadership(&mut self) {
        let status = self.raft.basic_status();
        let leads = (status.role == Role::Leader).then_some(status.hard_state.term);
        if leads == self.leads {
            return;
        }
        if self.leads.is_some() {
            self.demote_lessor();
        }
        self.leads = leads;
        if leads.is_some() {
            self.tick_versions();
        }
    }
}
