//! The configuration in force and what is known of each of its members.
//!
//! Invariants: `progress` holds exactly the voters of both halves and the learners; a voter is no learner; who is
//! in `learners_next` is a voter of the outgoing half.

use crate::inflights::Inflights;
use crate::progress::Progress;
use crate::quorum::{JointConfig, VoteResult, write_ids};
use api::raft::ConfState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Who votes and who learns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberConfig {
    /// Who decides.
    pub voters: JointConfig,
    /// Whether a joint configuration is to be left as soon as it is applied.
    pub auto_leave: bool,
    /// Who gets entries but does not count.
    pub learners: BTreeSet<u64>,
    /// Voters of the outgoing half that become learners when the joint configuration is left.
    pub learners_next: BTreeSet<u64>,
}

impl MemberConfig {
    /// Whether two majorities must agree.
    pub fn is_joint(&self) -> bool {
        !self.voters.outgoing.is_empty()
    }

    /// As it is stored and sent; ids ascend.
    pub fn conf_state(&self) -> ConfState {
        ConfState {
            voters: self.voters.incoming.to_vec(),
            voters_outgoing: self.voters.outgoing.to_vec(),
            learners: self.learners.iter().copied().collect(),
            learners_next: self.learners_next.iter().copied().collect(),
            auto_leave: self.auto_leave,
        }
    }
}

impl fmt::Display for MemberConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "voters={}", self.voters)?;
        if !self.learners.is_empty() {
            f.write_str(" learners=")?;
            write_ids(f, &self.learners)?;
        }
        if !self.learners_next.is_empty() {
            f.write_str(" learners_next=")?;
            write_ids(f, &self.learners_next)?;
        }
        f.write_str(if self.auto_leave { " autoleave" } else { "" })
    }
}

/// Each member's progress, by id.
pub type ProgressMap = BTreeMap<u64, Progress>;

/// The configuration, its members' progress, and the votes of the election under way.
#[derive(Clone, Debug)]
pub struct Tracker {
    /// In force.
    pub config: MemberConfig,
    /// Of every member.
    pub progress: ProgressMap,
    votes: BTreeMap<u64, bool>,
    inflight_messages_max: usize,
    inflight_bytes_max: u64,
}

impl Tracker {
    /// Without members; limits of each window, see [`Inflights::new`].
    pub fn new(inflight_messages_max: usize, inflight_bytes_max: u64) -> Tracker {
        Tracker {
            config: MemberConfig::default(),
            progress: ProgressMap::new(),
            votes: BTreeMap::new(),
            inflight_messages_max,
            inflight_bytes_max,
        }
    }

    pub(crate) fn inflights(&self) -> Inflights {
        Inflights::new(self.inflight_messages_max, self.inflight_bytes_max)
    }

    /// Whether `id` alone decides.
    pub(crate) fn decides_alone(&self, id: u64) -> bool {
        let voters = &self.config.voters;
        voters.outgoing.is_empty() && voters.incoming.len() == 1 && voters.incoming.contains(id)
    }

    /// Members other than `id`, ascending.
    pub(crate) fn others(&self, id: u64) -> Vec<u64> {
        self.progress.keys().copied().filter(|other| *other != id).collect()
    }

    /// The index that a quorum has durably.
    pub(crate) fn committed(&self) -> u64 {
        self.config.voters.committed_index(|id| self.progress.get(&id).map(|p| p.match_index))
    }

    /// Whether a quorum was heard of since the last check.
    pub(crate) fn quorum_active(&self) -> bool {
        let active = |id| self.progress.get(&id).map(|p| p.recent_active && !p.is_learner);
        self.config.voters.vote_result(active) == VoteResult::Won
    }

    pub(crate) fn reset_votes(&mut self) {
        self.votes.clear();
    }

    /// The first vote of a member counts.
    pub(crate) fn record_vote(&mut self, id: u64, granted: bool) {
        self.votes.entry(id).or_insert(granted);
    }

    pub(crate) fn has_voted(&self, id: u64) -> bool {
        self.votes.contains_key(&id)
    }

    /// Granted, rejected and the outcome. Votes of learners and strangers don't count.
    pub(crate) fn tally_votes(&self) -> (usize, usize, VoteResult) {
        let (mut granted, mut rejected) = (0, 0);
        for (id, progress) in &self.progress {
            match self.votes.get(id) {
                Some(_) if progress.is_learner => {}
                Some(true) => granted += 1,
                Some(false) => rejected += 1,
                None => {}
            }
        }
        (granted, rejected, self.config.voters.vote_result(|id| self.votes.get(&id).copied()))
    }
}
