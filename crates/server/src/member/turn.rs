//! One turn: everything queued goes through raft, the log's sync, commit, apply and publication.
//!
//! ```text
//! held proposals, read-index rounds ─► raft.ready() ─► log.append … ─► log.sync() ─► raft.step(promises)
//!        ▲                                                                               │ committed
//!        └──────────────── repeat while there is something ready ◄── apply ◄─────────────┘
//! ```

use super::boot::refuse_other_members;
use super::{Member, Output};
use crate::Fatal;
use api::raft::{Entry, EntryKind, Message, MessageType};
use bytes::Bytes;
use raft::{LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD};

impl<T> Member<T> {
    /// Works until nothing is left that this member can do alone.
    ///
    /// # Errors
    /// The disk failed or state is corrupt: drop the member, answer nobody.
    pub fn turn(&mut self) -> Result<(), Fatal> {
        // State and events of what this turn applies go out before its replies, and after what is queued already.
        let mark = self.out.len();
        self.propose_revocations();
        self.submit_held();
        self.ask_read_index();
        let mut applied_something = false;
        loop {
            let mut applies = Vec::new();
            while self.raft.has_ready() {
                let ready = self.raft.ready();
                for state in ready.read_states {
                    self.confirm_reads(state.index, &state.request_ctx);
                }
                if self.raft.leader() == self.member_id {
                    failpoint::point!("raftBeforeLeaderSend");
                }
                for message in ready.messages {
                    self.route(message, &mut applies)?;
                }
            }
            let promises = self.log.sync()?;
            if promises.is_empty() && applies.is_empty() {
                break;
            }
            failpoint::point!("raftBeforeAdvance");
            for promise in promises {
                self.step(promise);
            }
            for apply in applies {
                applied_something |= !apply.entries.is_empty();
                self.apply(apply)?;
            }
        }
        self.note_leadership()?;
        if applied_something {
            failpoint::point!("beforeWritebackBuf");
            self.publish_at(mark);
            failpoint::point!("afterWritebackBuf");
        }
        self.release_reads();
        self.start_checkpoint()
    }

    fn submit_held(&mut self) {
        if self.raft.leader() == 0 {
            return;
        }
        while let Some((id, data)) = self.held.pop_front() {
            if self.pending.contains(id) {
                self.submit_known(id, data);
            }
        }
    }

    /// One read-index round for all reads that wait; rounds overlap.
    fn ask_read_index(&mut self) {
        if self.reads_waiting.is_empty() || self.raft.leader() == 0 {
            return;
        }
        let id = self.ids.draw();
        self.raft.read_index(Bytes::copy_from_slice(&id.to_be_bytes()));
        self.reads_asked.push_back((id, std::mem::take(&mut self.reads_waiting)));
    }

    fn confirm_reads(&mut self, index: u64, context: &[u8]) {
        let Ok(id) = context.try_into().map(u64::from_be_bytes) else { return };
        if let Some(at) = self.reads_asked.iter().position(|(asked, _)| *asked == id) {
            let (_, reads) = self.reads_asked.remove(at).expect("position is inside");
            self.reads_confirmed.push_back((index, reads));
        }
    }

    fn release_reads(&mut self) {
        let applied = self.applied.index();
        let mut waiting = std::collections::VecDeque::new();
        for (index, reads) in std::mem::take(&mut self.reads_confirmed) {
            if index > applied {
                waiting.push_back((index, reads));
                continue;
            }
            let ready = reads.into_iter().map(|r| Output::Read { ticket: r.ticket, request: r.request });
            self.out.extend(ready);
        }
        self.reads_confirmed = waiting;
    }

    fn route(&mut self, message: Message, applies: &mut Vec<Message>) -> Result<(), Fatal> {
        match (message.kind, message.to) {
            (MessageType::MsgStorageAppend, LOCAL_APPEND_THREAD) => self.log.append(message),
            (MessageType::MsgStorageApply, LOCAL_APPLY_THREAD) => {
                applies.push(message);
                Ok(())
            }
            // A member alone has no peers; what raft addresses elsewhere is dropped, as the protocol allows.
            _ => Ok(()),
        }
    }

    fn step(&mut self, message: Message) {
        if message.to == self.member_id {
            // Refusals (stale completions, dropped proposals) are part of the protocol.
            let _refused = self.raft.step(message);
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
            self.step(response);
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
            refuse_other_members(&state)?;
            self.store.set_conf_state(&state);
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

    fn note_leadership(&mut self) -> Result<(), Fatal> {
        let leading = self.raft.leader() == self.member_id;
        if leading != self.leading {
            self.leading = leading;
            match leading {
                true => self.tick_versions()?,
                false => {
                    self.lessor.demote();
                    self.leases.demote();
                }
            }
        }
        Ok(())
    }
}
