//! Leases' clocks: who expires when. Owned by the member; the time is an input, milliseconds.
//!
//! Only a primary lessor (the leader's) lets leases expire; elsewhere they last for ever. Deadlines are kept ordered,
//! so expiry looks at due leases only, and a renewal moves one entry.

use std::collections::{BTreeMap, BTreeSet};

/// An expired lease is reported again after this long, if nobody revoked it (etcd `expiredLeaseRetryInterval` and its
/// proposal's deadline).
const RETRY_MS: u64 = 7_000;
/// Above this many leases a new leader spreads their expiry …
const SPREAD_ABOVE: usize = 1_000;
/// … to so many a second: three quarters of the revocations it can make.
const SPREAD_PER_SECOND: u64 = 750;
/// Checkpoints are made for leases with more than this left, and as often.
const CHECKPOINT_MS: u64 = 5 * 60_000;

/// What became of a keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Lives on for `ttl` seconds. `clear_checkpoint`: a checkpointed remaining TTL has to be cleared first.
    Renewed {
        ttl: i64,
        clear_checkpoint: bool,
    },
    Unknown,
    /// Expired, not yet revoked: the answer waits for the revocation.
    Expired,
    NotPrimary,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    ttl: i64,
    remaining: i64,
    /// `None` while this is no primary lessor.
    expires_ms: Option<u64>,
    /// When it is reported next.
    due_ms: u64,
    checkpoint_ms: Option<u64>,
}

/// All leases' clocks.
#[derive(Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Clock>,
    due: BTreeSet<(u64, i64)>,
    checkpoints: BTreeSet<(u64, i64)>,
    primary: bool,
}

fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

impl Lessor {
    pub fn new() -> Lessor {
        Lessor::default()
    }

    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// A lease read back at start.
    pub fn restore(&mut self, id: i64, ttl: i64, remaining: i64) {
        let clock = Clock { ttl, remaining, expires_ms: None, due_ms: 0, checkpoint_ms: None };
        self.leases.insert(id, clock);
    }

    pub fn grant(&mut self, id: i64, ttl: i64, now_ms: u64) {
        self.restore(id, ttl, 0);
        if self.primary {
            self.set_deadline(id, now_ms, now_ms + millis(ttl));
        }
    }

    fn set_deadline(&mut self, id: i64, now_ms: u64, expires_ms: u64) {
        let Some(clock) = self.leases.get_mut(&id) else { return };
        if clock.expires_ms.is_some() {
            self.due.remove(&(clock.due_ms, id));
        }
        if let Some(at) = clock.checkpoint_ms.take() {
            self.checkpoints.remove(&(at, id));
        }
        clock.expires_ms = Some(expires_ms);
        clock.due_ms = expires_ms;
        self.due.insert((expires_ms, id));
        if expires_ms > now_ms + CHECKPOINT_MS {
            clock.checkpoint_ms = Some(now_ms + CHECKPOINT_MS);
            self.checkpoints.insert((now_ms + CHECKPOINT_MS, id));
        }
    }

    pub fn revoke(&mut self, id: i64) {
        if let Some(clock) = self.leases.remove(&id) {
            self.due.remove(&(clock.due_ms, id));
            if let Some(at) = clock.checkpoint_ms {
                self.checkpoints.remove(&(at, id));
            }
        }
    }

    /// Another full TTL from now.
    pub fn renew(&mut self, id: i64, now_ms: u64) -> Renewal {
        if !self.primary {
            return Renewal::NotPrimary;
        }
        let Some(clock) = self.leases.get_mut(&id) else { return Renewal::Unknown };
        if clock.expires_ms.is_some_and(|at| at <= now_ms) {
            return Renewal::Expired;
        }
        let (ttl, clear_checkpoint) = (clock.ttl, clock.remaining > 0);
        clock.remaining = 0;
        self.set_deadline(id, now_ms, now_ms + millis(ttl));
        Renewal::Renewed { ttl, clear_checkpoint }
    }

    /// A checkpoint was applied.
    pub fn checkpointed(&mut self, id: i64, remaining: i64) {
        if let Some(clock) = self.leases.get_mut(&id) {
            clock.remaining = remaining;
        }
    }

    /// This member leads: every lease gets its remaining TTL and `extend_ms`; many are spread out.
    pub fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        self.primary = true;
        let mut deadlines: Vec<(u64, i64)> = self
            .leases
            .iter()
            .map(|(id, c)| (now_ms + extend_ms + millis(if c.remaining > 0 { c.remaining } else { c.ttl }), *id))
            .collect();
        deadlines.sort_unstable();
        if deadlines.len() >= SPREAD_ABOVE {
            let mut next = 0;
            for (at, _) in &mut deadlines {
                *at = (*at).max(next);
                next = *at + 1000 / SPREAD_PER_SECOND + 1;
            }
        }
        for (at, id) in deadlines {
            self.set_deadline(id, now_ms, at);
        }
    }

    /// This member no longer leads: leases last for ever here.
    pub fn demote(&mut self) {
        self.primary = false;
        self.due.clear();
        self.checkpoints.clear();
        for clock in self.leases.values_mut() {
            clock.expires_ms = None;
            clock.checkpoint_ms = None;
        }
    }

    /// Whole seconds left, possibly 0 or less just before the revocation; `None` when unknown.
    pub fn time_to_live(&self, id: i64, now_ms: u64) -> Option<i64> {
        let clock = self.leases.get(&id)?;
        Some(match clock.expires_ms {
            Some(at) => (at as i64 - now_ms as i64) / 1000,
            None => clock.ttl,
        })
    }

    /// All leases, those that expire first at the front.
    pub fn leases(&self) -> Vec<i64> {
        let mut all: Vec<(Option<u64>, i64)> = self.leases.iter().map(|(id, c)| (c.expires_ms, *id)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Up to `limit` expired leases; each again only after a pause.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Vec<i64> {
        let found: Vec<(u64, i64)> = self.due.range(..=(now_ms, i64::MAX)).take(limit).copied().collect();
        for (at, id) in &found {
            self.due.remove(&(*at, *id));
            if let Some(clock) = self.leases.get_mut(id) {
                clock.due_ms = now_ms + RETRY_MS;
                self.due.insert((clock.due_ms, *id));
            }
        }
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Leases whose remaining TTL (seconds) is to be checkpointed now.
    pub fn checkpoints_due(&mut self, now_ms: u64) -> Vec<(i64, i64)> {
        let found: Vec<(u64, i64)> = self.checkpoints.range(..=(now_ms, i64::MAX)).copied().collect();
        let mut due = Vec::with_capacity(found.len());
        for (at, id) in found {
            self.checkpoints.remove(&(at, id));
            let Some(clock) = self.leases.get_mut(&id) else { continue };
            let left = clock.expires_ms.unwrap_or(now_ms).saturating_sub(now_ms);
            clock.checkpoint_ms = (left > CHECKPOINT_MS).then_some(now_ms + CHECKPOINT_MS);
            if let Some(at) = clock.checkpoint_ms {
                self.checkpoints.insert((at, id));
            }
            due.push((id, left.div_ceil(1000) as i64));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_expires_only_at_a_primary_and_is_reported_again_after_a_pause() {
        let mut l = Lessor::new();
        l.grant(1, 2, 0);
        assert!(l.expired(10_000, 9).is_empty());
        l.promote(10_000, 1_000);
        assert_eq!(l.time_to_live(1, 10_000), Some(3));
        assert!(l.expired(12_999, 9).is_empty());
        assert_eq!(l.expired(13_000, 9), [1]);
        assert_eq!(l.renew(1, 13_000), Renewal::Expired);
        assert!(l.expired(19_999, 9).is_empty());
        assert_eq!(l.expired(20_000, 9), [1]);
        l.revoke(1);
        assert!(l.expired(99_000, 9).is_empty() && l.renew(1, 99_000) == Renewal::Unknown);
    }

    #[test]
    fn a_renewal_gives_a_full_ttl_and_a_demotion_eternity() {
        let mut l = Lessor::new();
        l.promote(0, 0);
        l.grant(7, 10, 0);
        assert_eq!(l.renew(7, 9_000), Renewal::Renewed { ttl: 10, clear_checkpoint: false });
        assert!(l.expired(18_999, 9).is_empty());
        l.demote();
        assert_eq!(l.renew(7, 20_000), Renewal::NotPrimary);
        assert!(l.expired(1_000_000, 9).is_empty());
    }

    #[test]
    fn a_thousand_leases_do_not_expire_at_once_after_an_election() {
        let mut l = Lessor::new();
        (0..2_000).for_each(|id| l.grant(id, 5, 0));
        l.promote(0, 1_000);
        assert!(l.expired(7_000, 9_999).len() <= 750);
        assert_eq!(l.expired(60_000, 9_999).len(), 2_000);
    }

    #[test]
    fn long_leases_are_checkpointed_every_five_minutes() {
        let mut l = Lessor::new();
        l.promote(0, 0);
        l.grant(1, 1_000, 0);
        l.grant(2, 100, 0);
        assert!(l.checkpoints_due(299_999).is_empty());
        assert_eq!(l.checkpoints_due(300_000), [(1, 700)]);
        assert_eq!(l.checkpoints_due(600_000), [(1, 400)]);
        l.checkpointed(1, 400);
        assert_eq!(l.renew(1, 600_001), Renewal::Renewed { ttl: 1_000, clear_checkpoint: true });
    }
}
