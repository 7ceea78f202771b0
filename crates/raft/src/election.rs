//! Elections: standing for one, voting in one, winning or losing it.
//!
//! With pre-vote a node first asks, in its old term, whether it would win; only then it begins a new term. One's
//! own vote counts like any other's: when it is durable.

use crate::config::{Error, Role};
use crate::logging::note;
use crate::quorum::VoteResult;
use crate::state::Raft;
use crate::step::CAMPAIGN_TRANSFER;
use api::raft::{Entry, EntryKind, Message, MessageType};
use bytes::Bytes;

/// Bytes of log looked through at once for conf changes.
const SCAN_BYTES: u64 = 1 << 20;

/// How a node comes to stand for election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Campaign {
    /// Asks whether it would win.
    PreVote,
    Vote,
    /// Its leader told it to: followers vote despite their leader's lease.
    Transfer,
}

impl Raft {
    /// Stands for election in the way that is configured.
    pub fn hup(&mut self) {
        self.stand(if self.config.pre_vote { Campaign::PreVote } else { Campaign::Vote });
    }

    /// Stands for election unless it leads, may not lead, or has committed conf changes that are not applied: it
    /// would count by an old configuration.
    pub fn stand(&mut self, campaign: Campaign) {
        if self.role == Role::Leader {
            note!(self.logs, Debug, "{:x} ignoring MsgHup because already leader", self.id);
        } else if !self.promotable() {
            note!(self.logs, Warn, "{:x} is unpromotable and can not campaign", self.id);
        } else if self.has_unapplied_conf_change() {
            note!(
                self.logs,
                Warn,
                "{:x} cannot campaign at term {} since there are still pending configuration changes to apply",
                self.id,
                self.term
            );
        } else {
            note!(self.logs, Info, "{:x} is starting a new election at term {}", self.id, self.term);
            self.campaign(campaign);
        }
    }

    fn has_unapplied_conf_change(&self) -> bool {
        let mut next = self.log.applied + 1;
        while next <= self.log.committed {
            let page = self.log.entries(next, self.log.committed + 1, SCAN_BYTES).unwrap_or_default();
            let Some(last) = page.last() else { return false };
            if page.iter().any(|e| e.kind != EntryKind::Normal) {
                return true;
            }
            next = last.index + 1;
        }
        false
    }

    fn campaign(&mut self, campaign: Campaign) {
        let (ask, answer, term) = match campaign {
            Campaign::PreVote => {
                self.become_pre_candidate();
                (MessageType::MsgPreVote, MessageType::MsgPreVoteResp, self.term + 1)
            }
            Campaign::Vote | Campaign::Transfer => {
                self.become_candidate();
                (MessageType::MsgVote, MessageType::MsgVoteResp, self.term)
            }
        };
        let (index, log_term) = (self.log.last_index(), self.log.last_term());
        let context = if campaign == Campaign::Transfer { CAMPAIGN_TRANSFER } else { b"" };
        for to in self.tracker.config.voters.ids() {
            if to == self.id {
                self.send(Message { kind: answer, to, term, ..Message::default() });
                continue;
            }
            note!(
                self.logs,
                Info,
                "{:x} [logterm: {log_term}, index: {index}] sent {} request to {to:x} at term {}",
                self.id,
                ask.as_str_name(),
                self.term
            );
            let context = Bytes::from_static(context);
            self.send(Message { kind: ask, to, term, index, log_term, context, ..Message::default() });
        }
    }

    /// Neither term nor vote change: nothing is promised yet.
    fn become_pre_candidate(&mut self) {
        assert!(self.role != Role::Leader, "a leader can't become a candidate");
        self.tracker.reset_votes();
        self.leader = 0;
        self.role = Role::PreCandidate;
        note!(self.logs, Info, "{:x} became pre-candidate at term {}", self.id, self.term);
    }

    fn become_candidate(&mut self) {
        assert!(self.role != Role::Leader, "a leader can't become a candidate");
        self.reset(self.term + 1);
        self.vote = self.id;
        self.role = Role::Candidate;
        note!(self.logs, Info, "{:x} became candidate at term {}", self.id, self.term);
    }

    fn become_leader(&mut self) {
        assert!(self.role == Role::Candidate, "only a candidate becomes leader");
        self.reset(self.term);
        self.leader = self.id;
        self.role = Role::Leader;
        if let Some(own) = self.tracker.progress.get_mut(&self.id) {
            own.become_replicate();
            own.recent_active = true;
        }
        // Some entry of an older term may be a conf change that is not applied yet.
        self.pending_conf_index = self.log.last_index();
        assert!(self.append(vec![Entry::default()]), "an empty entry is never too much");
        note!(self.logs, Info, "{:x} became leader at term {}", self.id, self.term);
    }

    /// A request for a vote or a pre-vote of at least this term.
    ///
    /// Learners vote when asked: the candidate may know of their promotion before they do.
    pub fn vote_on(&mut self, m: &Message) {
        let (pre, answer) = match m.kind {
            MessageType::MsgPreVote => (true, MessageType::MsgPreVoteResp),
            _ => (false, MessageType::MsgVoteResp),
        };
        let free = failpoint::mutant!("voteTwice")
            || self.vote == m.from
            || (self.vote == 0 && self.leader == 0)
            || (pre && m.term > self.term);
        let granted = free && self.log.is_up_to_date(m.index, m.log_term);
        note!(
            self.logs,
            Info,
            "{} {} {} {} {:x} [logterm: {}, index: {}] at term {}",
            self.place_and_vote(),
            if granted { "cast" } else { "rejected" },
            m.kind.as_str_name(),
            if granted { "for" } else { "from" },
            m.from,
            m.log_term,
            m.index,
            self.term
        );
        // A grant carries the candidate's term, which for a pre-vote is not ours; a rejection our own.
        let term = if granted { m.term } else { self.term };
        self.send(Message { kind: answer, to: m.from, term, reject: !granted, ..Message::default() });
        if granted && !pre {
            self.election_elapsed = 0;
            self.vote = m.from;
        }
    }

    pub fn step_candidate(&mut self, m: Message) -> Result<(), Error> {
        use MessageType as T;
        let awaited = if self.role == Role::PreCandidate { T::MsgPreVoteResp } else { T::MsgVoteResp };
        match m.kind {
            T::MsgProp => {
                note!(self.logs, Info, "{:x} no leader at term {}; dropping proposal", self.id, self.term);
                return Err(Error::ProposalDropped);
            }
            // Somebody leads this term.
            T::MsgApp | T::MsgHeartbeat | T::MsgSnap => {
                self.become_follower(m.term, m.from);
                return self.step_follower(m);
            }
            kind if kind == awaited => self.count_vote(&m),
            T::MsgTimeoutNow => note!(
                self.logs,
                Debug,
                "{:x} [term {} state State{:?}] ignored MsgTimeoutNow from {:x}",
                self.id,
                self.term,
                self.role,
                m.from
            ),
            _ => {}
        }
        Ok(())
    }

    fn count_vote(&mut self, m: &Message) {
        let name = m.kind.as_str_name();
        note!(
            self.logs,
            Info,
            "{:x} received {name}{} from {:x} at term {}",
            self.id,
            if m.reject { " rejection" } else { "" },
            m.from,
            self.term
        );
        self.tracker.record_vote(m.from, !m.reject);
        let (granted, rejected, result) = self.tracker.tally_votes();
        note!(self.logs, Info, "{:x} has received {granted} {name} votes and {rejected} vote rejections", self.id);
        match result {
            VoteResult::Won if self.role == Role::PreCandidate => self.campaign(Campaign::Vote),
            // The others alone may be a quorum. But if this node crashed before its term and vote are durable, it could
            // win the same term twice, with two logs: it leads only once they are.
            VoteResult::Won if !self.tracker.has_voted(self.id) => {}
            VoteResult::Won => {
                self.become_leader();
                self.broadcast_append();
            }
            // The answer to a pre-vote carries the term asked for, which must not become ours.
            VoteResult::Lost => self.become_follower(self.term, 0),
            VoteResult::Pending => {}
        }
    }
}
