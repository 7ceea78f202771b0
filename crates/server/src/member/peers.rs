//! Peers: what is sent to them, what they send, and how long this member has been without a leader.
//!
//! A leader's messages may leave before anything is synced, and so does everything that [`Member::take_messages`]
//! answers: what rests on the disk (votes, acknowledgements) comes back from the log's writer as a promise first.

use super::{Member, Output};
use api::raft::{Message, MessageType};
use std::collections::BTreeSet;

/// When this member last knew a leader.
#[derive(Debug, Default)]
pub struct Leadership {
    /// Since when it knows none; the driver's clock, ms.
    lost_ms: Option<u64>,
    /// The last leader that was known, and since when.
    last: u64,
    elected_ms: u64,
    /// Nobody waits any longer: the election timeout is over.
    pub(super) hopeless: bool,
}

/// Whether the log's disk keeps up.
#[derive(Debug, Default)]
pub struct Stall {
    /// The last entry that is durable here, and since when nothing came behind it though something was to come.
    durable: u64,
    since_ms: u64,
    /// When a leader without room for its log may hand over again, ms.
    full_again_ms: u64,
}

/// Election timeouts between two attempts of a leader without room: where all members lack it, leadership must not go round
/// at every tick.
const FULL_PAUSE_TIMEOUTS: u64 = 10;

impl<T> Member<T> {
    /// What peers are to be sent, in order.
    ///
    /// Only the last acknowledgement to each is kept: it says all that the others say.
    pub fn take_messages(&mut self) -> Vec<Message> {
        let mut messages = std::mem::take(&mut self.messages);
        if !messages.is_empty() && self.leads.is_none() {
            failpoint::point!("raftBeforeFollowerSend");
        }
        let mut acknowledged = BTreeSet::new();
        let mut kept: Vec<Message> = Vec::with_capacity(messages.len());
        while let Some(message) = messages.pop() {
            let superseded = message.kind == MessageType::MsgAppResp && !acknowledged.insert(message.to);
            if !superseded {
                kept.push(message);
            }
        }
        kept.reverse();
        kept
    }

    /// A message for a peer, or a promise to this node itself. Who is removed hears nothing more; but what told him that his
    /// removal is committed was posted before it was applied.
    pub(super) fn post(&mut self, message: Message) {
        if message.to == self.member_id {
            // Refusals (stale completions, dropped proposals) are part of the protocol.
            let _refused = self.raft.step(message);
        } else if message.to != 0 && !self.store.is_removed(message.to) {
            match message.kind {
                MessageType::MsgSnap => self.want_snapshot(message),
                _ => self.messages.push(message),
            }
        }
    }

    /// A peer's message. What is not for this member, or not from a peer, is dropped.
    pub fn receive(&mut self, message: Message) {
        // Whom this member took for the leader passes its requests on, to this member if it leads by now.
        let passed_on = matches!(message.kind, MessageType::MsgProp | MessageType::MsgReadIndex);
        let own = message.from == self.member_id && !passed_on;
        let strange = message.to != self.member_id || own || message.from == 0;
        if strange || self.stopping || self.applied.is_removed(message.from) {
            return;
        }
        let Some(message) = self.hold_peers(message) else { return };
        // What raft refuses (old terms, proposals without a leader) is lost, as any message may be.
        let _refused = self.raft.step(message);
    }

    /// The transport could not reach a peer: what is on its way to it is probably lost.
    pub fn report_unreachable(&mut self, peer: u64) {
        self.raft.report_unreachable(peer);
    }

    /// Whether the database snapshot sent to a peer arrived.
    pub fn report_snapshot(&mut self, peer: u64, arrived: bool) {
        self.snapshot_sent(peer, arrived);
        self.raft.report_snapshot(peer, arrived);
    }

    /// Lets all but two ticks of the election timeout pass (etcd `advanceTicks`): a member that has just started and whose
    /// peers are there need not wait as long as one that has just lost its leader. With a leader there is nothing to
    /// hasten.
    pub fn hasten_election(&mut self) {
        if self.raft.leader() != 0 {
            return;
        }
        for _ in 2..self.config.election_ticks {
            self.raft.tick();
        }
    }

    /// Whether others belong to the cluster, as of the newest applied entry.
    pub fn has_peers(&self) -> bool {
        !self.is_alone()
    }

    /// Whether this member is a learner, as of the newest applied entry.
    pub fn is_learner(&self) -> bool {
        self.applied.conf_state().learners.contains(&self.member_id)
    }

    pub(super) fn is_alone(&self) -> bool {
        let conf = self.applied.conf_state();
        conf.voters.len() + conf.learners.len() <= 1
    }

    /// Whether this member has known no leader for an election timeout: it does not serve what needs one.
    pub fn is_leaderless(&self) -> bool {
        self.leadership.hopeless && self.raft.leader() == 0
    }

    /// A leader was elected, perhaps.
    pub(super) fn note_leader(&mut self) {
        let leader = self.raft.leader();
        if leader != 0 && leader != self.leadership.last {
            (self.leadership.last, self.leadership.elected_ms) = (leader, self.now_ms);
        }
    }

    /// Why a proposal made at `since_ms` was not applied in time (etcd `parseProposeCtxErr`).
    pub(super) fn lateness(&self, since_ms: u64) -> api::Error {
        let (elected_ms, leader) = (self.leadership.elected_ms, self.raft.leader());
        let lost_ms = elected_ms.saturating_sub(2 * self.config.tick_ms * self.config.election_ticks);
        if since_ms > lost_ms && since_ms < elected_ms {
            return api::Error::TimeoutDueToLeaderFail;
        }
        let connected = match leader {
            0 => true,
            own if own == self.member_id => {
                let members = self.applied.members();
                self.connected(&members, since_ms) > members.len() / 2
            }
            leader => self.is_connected(leader, since_ms),
        };
        if connected { api::Error::Timeout } else { api::Error::TimeoutDueToConnectionLost }
    }

    /// A leader whose log has stood still for an election timeout hands over: its followers commit without it, but it can't
    /// apply, and so can't answer.
    pub(super) fn tick_stall(&mut self) {
        self.tick_shortage();
        let (durable, last) = (self.raft.storage().last_index(), self.raft.last_index());
        if durable >= last || durable != self.stall.durable {
            (self.stall.durable, self.stall.since_ms) = (durable, self.now_ms);
            return;
        }
        if self.leads.is_some() && self.now_ms - self.stall.since_ms >= self.config.tick_ms * self.config.election_ticks
        {
            // Should it come to nothing, the next attempt is as far away.
            self.stall.since_ms = self.now_ms;
            self.hand_over("the log's disk has not finished a write for an election timeout");
        }
    }

    /// A leader whose disk has no room for the rest of the log, or for a checkpoint, refuses puts, which others may still take.
    fn tick_shortage(&mut self) {
        if self.leads.is_some() && !self.has_room() && self.now_ms >= self.stall.full_again_ms {
            let timeout_ms = self.config.tick_ms * self.config.election_ticks;
            self.stall.full_again_ms = self.now_ms + FULL_PAUSE_TIMEOUTS * timeout_ms;
            self.hand_over("the disk is full");
        }
    }

    fn hand_over(&mut self, why: &str) {
        let voters = self.raft.progress().filter(|(id, progress)| *id != self.member_id && !progress.is_learner);
        let reachable = voters.filter(|(id, _)| self.is_connected(*id, self.now_ms));
        let Some((target, _)) = reachable.max_by_key(|(_, progress)| progress.match_index) else { return };
        self.out.push(Output::Note(format!("{why}: leadership goes to {target:x}; look at this member's disk")));
        self.raft.transfer_leader(target);
    }

    /// Follows what raft knows of a leader. After an election timeout without one, those who wait for one are told.
    pub(super) fn tick_leadership(&mut self) {
        if self.raft.leader() != 0 {
            (self.leadership.lost_ms, self.leadership.hopeless) = (None, false);
            return;
        }
        let lost_ms = *self.leadership.lost_ms.get_or_insert(self.now_ms);
        if self.now_ms - lost_ms >= self.config.tick_ms * self.config.election_ticks {
            self.leadership.hopeless = true;
            self.give_up_on_a_leader();
        }
    }

    pub(super) fn give_up_on_a_leader(&mut self) {
        for waiter in self.give_up_held() {
            self.abandon(waiter, api::Error::NoLeader);
        }
        let asked = std::mem::take(&mut self.reads_asked).into_iter().flat_map(|asked| asked.reads);
        let reads: Vec<_> = asked.chain(std::mem::take(&mut self.reads_waiting)).collect();
        for reading in reads {
            self.reply(reading.ticket, Err(api::Error::NoLeader));
        }
    }

    /// Members changed: the transport follows. A member that finds itself removed has nothing left to do here.
    pub(super) fn members_changed(&mut self) {
        self.out.push(match self.store.is_removed(self.member_id) {
            true => Output::Removed,
            false => Output::MembersChanged,
        });
    }
}
