//! Raft's safety, as far as messages show it: one leader a term, one vote a term, and nothing acknowledged that is not
//! durable; and as far as members know it: leaders count replicas of their own term's entries only, and what is applied is
//! committed. (That all members apply the same entries, `history` sees to.)

use crate::cluster::shadow::Shadow;
use api::raft::{Message, MessageType};
use raft::{RawNode, Role};
use std::collections::BTreeMap;

/// Who led and who voted for whom, in each term. It outlives crashes: that is the point.
#[derive(Debug, Default)]
pub struct Terms {
    leaders: BTreeMap<u64, u64>,
    votes: BTreeMap<(u64, u64), u64>,
    /// Of each member that leads: its term, and what it had committed when it was last looked at.
    committed: BTreeMap<u64, (u64, u64)>,
}

impl Terms {
    /// A member whose term is `term` sends the message; `log` is its log.
    ///
    /// What was promised to the leader of an older term may leave late, when a newer one's entries have replaced it already:
    /// that this newer leader was elected without it means that no majority will ever promise it.
    ///
    /// # Errors
    /// It must not.
    pub fn sent(&mut self, message: &Message, term: u64, log: &Shadow) -> Result<(), String> {
        match message.kind {
            MessageType::MsgApp | MessageType::MsgHeartbeat | MessageType::MsgSnap => self.leads(message),
            MessageType::MsgVoteResp if !message.reject => self.votes(message),
            MessageType::MsgAppResp if !message.reject && message.term == term && message.index > log.synced() => {
                Err(format!(
                    "{:x} acknowledges {}, durable is its log up to {}: {message:?}",
                    message.from,
                    message.index,
                    log.synced()
                ))
            }
            _ => Ok(()),
        }
    }

    /// A member stands so after a turn, and has applied so much.
    ///
    /// # Errors
    /// It must not: what it applied is not committed, or it committed by counting an entry of another's term (Raft paper,
    /// 5.4.2), which a later leader may replace.
    pub fn stands(&mut self, id: u64, raft: &RawNode, applied: u64) -> Result<(), String> {
        let status = raft.basic_status();
        let (term, commit) = (status.hard_state.term, status.hard_state.commit);
        if commit < applied {
            return Err(format!("{id:x} applied {applied}, committed is its log up to {commit}"));
        }
        if status.role != Role::Leader {
            self.committed.remove(&id);
            return Ok(());
        }
        let before = self.committed.insert(id, (term, commit)).filter(|(led, _)| *led == term);
        let counted = before.filter(|(_, before)| *before < commit).and_then(|_| raft.term(commit));
        match counted.is_none_or(|of| of == term) {
            true => Ok(()),
            false => Err(format!("{id:x} leads term {term} and commits {commit}, of term {counted:?}")),
        }
    }

    /// How many there were.
    pub fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    fn leads(&mut self, message: &Message) -> Result<(), String> {
        let leader = *self.leaders.entry(message.term).or_insert(message.from);
        match leader == message.from {
            true => Ok(()),
            false => Err(format!("term {} has two leaders, {leader:x} and {:x}", message.term, message.from)),
        }
    }

    fn votes(&mut self, message: &Message) -> Result<(), String> {
        let candidate = *self.votes.entry((message.term, message.from)).or_insert(message.to);
        match candidate == message.to {
            true => Ok(()),
            false => Err(format!(
                "{:x} votes twice in term {}, for {candidate:x} and {:x}",
                message.from, message.term, message.to
            )),
        }
    }
}
