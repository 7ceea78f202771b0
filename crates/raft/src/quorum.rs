//! Majorities, single and joint: what they have committed and how they have voted.
//!
//! Invariants: ids are unique and ascending; an empty majority agrees to everything, so that a joint quorum with
//! an empty half is the other half.

use std::fmt;

/// Outcome of a vote so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// Missing votes decide.
    Pending,
    /// A quorum of yes is out of reach.
    Lost,
    /// A quorum said yes.
    Won,
}

/// A set of voters that decides by majority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MajorityConfig {
    voters: Vec<u64>,
}

/// Voters for whom indexes are compared without allocating.
const SMALL: usize = 7;

impl MajorityConfig {
    /// Whether there are no voters.
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty()
    }

    /// How many voters there are.
    pub fn len(&self) -> usize {
        self.voters.len()
    }

    /// Whether `id` votes.
    pub fn contains(&self, id: u64) -> bool {
        self.voters.binary_search(&id).is_ok()
    }

    /// Voters, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.voters.iter().copied()
    }

    /// Makes `id` a voter.
    pub fn insert(&mut self, id: u64) {
        if let Err(at) = self.voters.binary_search(&id) {
            self.voters.insert(at, id);
        }
    }

    /// Makes `id` no voter.
    pub fn remove(&mut self, id: u64) {
        self.voters.retain(|v| *v != id);
    }

    /// Voters, ascending.
    pub fn to_vec(&self) -> Vec<u64> {
        self.voters.clone()
    }

    /// The highest index that a majority has acknowledged; an index never heard of counts as 0. `u64::MAX` for an
    /// empty majority.
    pub fn committed_index(&self, acked: impl Fn(u64) -> Option<u64>) -> u64 {
        let n = self.voters.len();
        let (mut small, mut large);
        let acks: &mut [u64] = match n {
            0 => return u64::MAX,
            1..=SMALL => {
                small = [0; SMALL];
                &mut small[..n]
            }
            _ => {
                large = vec![0; n];
                &mut large
            }
        };
        for (slot, id) in acks.iter_mut().zip(&self.voters) {
            *slot = acked(*id).unwrap_or(0);
        }
        acks.sort_unstable();
        // The middle, or the lower of the two middle ones: a majority stands there or above.
        if failpoint::mutant!("quorumOneShort") && n > 1 {
            return acks[n - n / 2];
        }
        acks[n - (n / 2 + 1)]
    }

    /// The outcome, given each voter's vote so far.
    pub fn vote_result(&self, votes: impl Fn(u64) -> Option<bool>) -> VoteResult {
        let quorum = self.voters.len() / 2 + 1;
        let (mut yes, mut missing) = (0, 0);
        for id in &self.voters {
            match votes(*id) {
                Some(true) => yes += 1,
                Some(false) => {}
                None => missing += 1,
            }
        }
        if self.is_empty() || yes >= quorum {
            VoteResult::Won
        } else if yes + missing >= quorum {
            VoteResult::Pending
        } else {
            VoteResult::Lost
        }
    }
}

impl FromIterator<u64> for MajorityConfig {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> MajorityConfig {
        let mut voters: Vec<u64> = ids.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        MajorityConfig { voters }
    }
}

impl fmt::Display for MajorityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ids(f, &self.voters)
    }
}

/// `(1 2 3)`
pub(crate) fn write_ids<'a>(f: &mut fmt::Formatter<'_>, ids: impl IntoIterator<Item = &'a u64>) -> fmt::Result {
    f.write_str("(")?;
    for (at, id) in ids.into_iter().enumerate() {
        write!(f, "{}{id}", if at == 0 { "" } else { " " })?;
    }
    f.write_str(")")
}

/// Two majorities that must both agree while the configuration changes; the outgoing one is mostly empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JointConfig {
    /// The voters to be, or all there are.
    pub incoming: MajorityConfig,
    /// The voters that were; empty unless the configuration is joint.
    pub outgoing: MajorityConfig,
}

impl JointConfig {
    /// Whether `id` votes in either half.
    pub fn contains(&self, id: u64) -> bool {
        self.incoming.contains(id) || self.outgoing.contains(id)
    }

    /// Voters of either half, ascending.
    pub fn ids(&self) -> Vec<u64> {
        match self.outgoing.is_empty() {
            true => self.incoming.to_vec(),
            false => self.incoming.iter().chain(self.outgoing.iter()).collect::<MajorityConfig>().voters,
        }
    }

    /// What both halves have committed, see [`MajorityConfig::committed_index`].
    pub fn committed_index(&self, acked: impl Fn(u64) -> Option<u64>) -> u64 {
        self.incoming.committed_index(&acked).min(self.outgoing.committed_index(&acked))
    }

    /// Won if both halves are, lost if one is.
    pub fn vote_result(&self, votes: impl Fn(u64) -> Option<bool>) -> VoteResult {
        match (self.incoming.vote_result(&votes), self.outgoing.vote_result(&votes)) {
            (a, b) if a == b => a,
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            _ => VoteResult::Pending,
        }
    }
}

impl fmt::Display for JointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outgoing.is_empty() {
            true => write!(f, "{}", self.incoming),
            false => write!(f, "{}&&{}", self.incoming, self.outgoing),
        }
    }
}
