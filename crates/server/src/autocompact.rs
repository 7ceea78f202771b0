//! Automatic compaction (etcd `v3compactor`): decides when and at which revision the leader compacts.
//!
//! Periodic: the revision is sampled every `min(period, 1h) / 10`; nothing happens for the first `period`, then
//! every `min(period, 1h)` the store is compacted to the revision sampled `period` ago; after a failure, or when that
//! revision is compacted already, it is tried again at the next sample. Revision: every 5 minutes to
//! `current - retention`, if that is positive and new. A follower samples on, so that a new leader has history.

use std::collections::VecDeque;

const HOUR_MS: u64 = 3_600_000;
/// How often revision mode looks (etcd `revInterval`).
const REVISION_INTERVAL_MS: u64 = 5 * 60_000;

/// What `--auto-compaction-mode` and `--auto-compaction-retention` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Keep this many milliseconds of history.
    Periodic { period_ms: u64 },
    /// Keep this many revisions.
    Revision { retention: i64 },
}

/// The automatic compactor of one member.
#[derive(Debug)]
pub struct AutoCompactor {
    policy: Policy,
    next_ms: u64,
    /// Periodic mode: start of the wait that must have passed before a compaction.
    last_ms: u64,
    /// … which is the whole period before the first one.
    tried: bool,
    samples: VecDeque<i64>,
    done: i64,
}

impl AutoCompactor {
    pub fn new(policy: Policy, now_ms: u64) -> AutoCompactor {
        let mut compactor =
            AutoCompactor { policy, next_ms: now_ms, last_ms: now_ms, tried: false, samples: VecDeque::new(), done: 0 };
        if let Policy::Revision { .. } = policy {
            compactor.next_ms = now_ms + REVISION_INTERVAL_MS;
        }
        compactor
    }

    /// Called as time passes. Answers the revision to compact at; the outcome comes back by [`Self::compacted`].
    pub fn poll(&mut self, now_ms: u64, revision: i64, leader: bool) -> Option<i64> {
        if now_ms < self.next_ms {
            return None;
        }
        match self.policy {
            Policy::Periodic { period_ms } => self.poll_periodic(now_ms, period_ms, revision, leader),
            Policy::Revision { retention } => {
                self.next_ms = now_ms + REVISION_INTERVAL_MS;
                let target = revision - retention;
                (leader && target > 0 && target != self.done).then_some(target)
            }
        }
    }

    /// As Go's loop: what was sampled before is judged, then the present is sampled, so that at least the whole period
    /// is kept.
    fn poll_periodic(&mut self, now_ms: u64, period_ms: u64, revision: i64, leader: bool) -> Option<i64> {
        let interval = (period_ms.min(HOUR_MS) / 10).max(1);
        self.next_ms = now_ms + interval;
        let target = self.samples.front().copied();
        let kept = usize::try_from(period_ms / interval).unwrap_or(usize::MAX).saturating_add(1);
        self.samples.push_back(revision);
        while self.samples.len() > kept {
            self.samples.pop_front();
        }
        let wait = if self.tried { period_ms.min(HOUR_MS) } else { period_ms };
        let target = target.filter(|target| leader && now_ms - self.last_ms >= wait && *target != self.done)?;
        self.tried = true;
        Some(target)
    }

    /// The compaction at `revision` succeeded, or was done already.
    pub fn compacted(&mut self, revision: i64, now_ms: u64) {
        self.done = revision;
        self.last_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periodic_compacts_to_the_revision_one_period_ago() {
        let period_ms = 1000;
        let mut c = AutoCompactor::new(Policy::Periodic { period_ms }, 0);
        let mut compactions = Vec::new();
        for step in 0..40 {
            let now = step * 100;
            if let Some(rev) = c.poll(now, step as i64 + 1, true) {
                compactions.push((now, rev));
                c.compacted(rev, now);
            }
        }
        assert_eq!(compactions, [(1000, 1), (2000, 10), (3000, 20)]);
    }

    #[test]
    fn a_failed_periodic_compaction_is_tried_at_the_next_sample() {
        let mut c = AutoCompactor::new(Policy::Periodic { period_ms: 1000 }, 0);
        let tries: Vec<u64> =
            (0..13).map(|s| s * 100).filter(|&now| c.poll(now, now as i64 + 5, true).is_some()).collect();
        assert_eq!(tries, [1000, 1100, 1200]);
    }

    #[test]
    fn a_quiet_store_is_compacted_at_the_first_sample_that_has_something_new() {
        let mut c = AutoCompactor::new(Policy::Periodic { period_ms: 1000 }, 0);
        let mut compactions = Vec::new();
        for now in (0..50).map(|step| step * 100) {
            if let Some(rev) = c.poll(now, if now < 2300 { 7 } else { 8 }, true) {
                compactions.push((now, rev));
                c.compacted(rev, now);
            }
        }
        assert_eq!(compactions, [(1000, 7), (3400, 8)]);
    }

    #[test]
    fn revision_mode_keeps_the_retention_and_skips_what_is_done() {
        let mut c = AutoCompactor::new(Policy::Revision { retention: 10 }, 0);
        assert_eq!(c.poll(1, 100, true), None);
        assert_eq!(c.poll(REVISION_INTERVAL_MS, 100, true), Some(90));
        c.compacted(90, REVISION_INTERVAL_MS);
        assert_eq!(c.poll(2 * REVISION_INTERVAL_MS, 100, true), None);
        assert_eq!(c.poll(3 * REVISION_INTERVAL_MS, 105, true), Some(95));
        assert_eq!(c.poll(4 * REVISION_INTERVAL_MS, 5, true), None);
    }

    #[test]
    fn a_follower_never_compacts() {
        let mut c = AutoCompactor::new(Policy::Periodic { period_ms: 10 }, 0);
        assert!((0..100).all(|now| c.poll(now, 50, false).is_none()));
    }
}
