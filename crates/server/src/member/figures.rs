//! Numbers for metrics: what was counted, and how things stand. Nothing that the member does depends on them.

use super::Member;
use store::Counts;

/// What the member itself counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Leases that ran out while this member led.
    pub leases_expired: u64,
    /// Keepalives that this leader granted.
    pub leases_renewed: u64,
    /// Rounds for linearizable reads that were asked again.
    pub reads_asked_again: u64,
    /// Reads that got no index in time.
    pub reads_failed: u64,
    /// Clients' proposals that were given up.
    pub proposals_failed: u64,
    /// Learners promoted while this member led.
    pub promoted: u64,
}

/// A member at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Figures<'a> {
    /// Since the store was opened.
    pub counts: &'a Counts,
    pub tally: Tally,
    /// Bytes of the page store's file, and those of pages in use.
    pub db_size: i64,
    pub db_in_use: i64,
    /// Proposals that wait.
    pub pending: usize,
}

impl<T> Member<T> {
    /// How things stand.
    pub fn figures(&self) -> Figures<'_> {
        Figures {
            counts: self.store.counts(),
            tally: self.tally,
            db_size: self.store.size(),
            db_in_use: self.store.size_in_use(),
            pending: self.pending.len(),
        }
    }
}
