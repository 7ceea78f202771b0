//! Leases' clocks: who expires when. Owned by the member; the time is an input, milliseconds.
//!
//! Only a primary lessor (the leader's) lets leases expire; elsewhere they last for ever. Deadlines lie in timing
//! wheels: expiry looks at due leases only, in order of deadline and id, and a renewal moves one timer.
//!
//! Invariants: a lease has a deadline and a timer in `due` exactly while this is a primary lessor; it has a timer in
//! `checkpoints` while a checkpoint of it is to come.

use crate::wheel::{Timer, Wheel};
use std::collections::BTreeMap;

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
    Renewed { ttl: i64, clear_checkpoint: bool },
    /// There is no such lease.
    Unknown,
    /// Expired, not yet revoked: the answer waits for the revocation.
    Expired,
    /// Leases expire elsewhere.
    NotPrimary,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    ttl: i64,
    remaining: i64,
    /// `None` while this is no primary lessor.
    expires_ms: Option<u64>,
    /// When it is reported next.
    due: Option<Timer>,
    checkpoint: Option<Timer>,
}

/// All leases' clocks.
#[derive(Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Clock>,
    due: Wheel<i64>,
    checkpoints: Wheel<i64>,
    primary: bool,
}

fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

impl Lessor {
    /// No leases, and not primary.
    pub fn new() -> Lessor {
        Lessor::default()
    }

    /// Whether leases expire here.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// A lease read back at start.
    pub fn restore(&mut self, id: i64, ttl: i64, remaining: i64) {
        self.revoke(id);
        let clock = Clock { ttl, remaining, expires_ms: None, due: None, checkpoint: None };
        self.leases.insert(id, clock);
    }

    /// A new lease of `ttl` seconds.
    pub fn grant(&mut self, id: i64, ttl: i64, now_ms: u64) {
        self.restore(id, ttl, 0);
        if self.primary {
            self.set_deadline(id, now_ms, now_ms.saturating_add(millis(ttl)));
        }
    }

    fn set_deadline(&mut self, id: i64, now_ms: u64, expires_ms: u64) {
        let Some(clock) = self.leases.get_mut(&id) else { return };
        clock.expires_ms = Some(expires_ms);
        set(&mut self.due, &mut clock.due, id, Some(expires_ms));
        let checkpoint_ms = now_ms + CHECKPOINT_MS;
        set(&mut self.checkpoints, &mut clock.checkpoint, id, Some(checkpoint_ms).filter(|at| expires_ms > *at));
    }

    /// The lease is gone; an unknown one is no matter.
    pub fn revoke(&mut self, id: i64) {
        if let Some(mut clock) = self.leases.remove(&id) {
            set(&mut self.due, &mut clock.due, id, None);
            set(&mut self.checkpoints, &mut clock.checkpoint, id, None);
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
        self.set_deadline(id, now_ms, now_ms.saturating_add(millis(ttl)));
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
            .map(|(id, c)| (if c.remaining > 0 { c.remaining } else { c.ttl }, *id))
            .map(|(left, id)| (if failpoint::mutant!("leaseExpiresAtElection") { 0 } else { left }, id))
            .map(|(left, id)| ((now_ms + extend_ms).saturating_add(millis(left)), id))
            .collect();
        deadlines.sort_unstable();
        if deadlines.len() >= SPREAD_ABOVE {
            let mut next_us = 0;
            for (at, _) in &mut deadlines {
                let at_us = at.saturating_mul(1000).max(next_us);
                *at = at_us / 1000;
                next_us = at_us.saturating_add(1_000_000_u64.div_ceil(SPREAD_PER_SECOND));
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
            (clock.expires_ms, clock.due, clock.checkpoint) = (None, None, None);
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
        let found = self.due.pop(now_ms, limit);
        for (_, id) in &found {
            if let Some(clock) = self.leases.get_mut(id) {
                clock.due = Some(self.due.insert(now_ms + RETRY_MS, *id));
            }
        }
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Leases whose remaining TTL (seconds) is to be checkpointed now.
    pub fn checkpoints_due(&mut self, now_ms: u64) -> Vec<(i64, i64)> {
        let mut due = Vec::new();
        for (_, id) in self.checkpoints.pop(now_ms, usize::MAX) {
            let Some(clock) = self.leases.get_mut(&id) else { continue };
            let left = clock.expires_ms.unwrap_or(now_ms).saturating_sub(now_ms);
            clock.checkpoint = (left > CHECKPOINT_MS).then(|| self.checkpoints.insert(now_ms + CHECKPOINT_MS, id));
            due.push((id, left.div_ceil(1000) as i64));
        }
        due
    }

    /// Nothing expires and nothing is to be checkpointed before this time; it may be too early, never too late.
    /// `None`: nothing until leases or leadership change.
    pub fn next_deadline(&self) -> Option<u64> {
        self.due.next_deadline().into_iter().chain(self.checkpoints.next_deadline()).min()
    }
}

/// Sets, moves or takes back one timer of a lease.
fn set(wheel: &mut Wheel<i64>, timer: &mut Option<Timer>, id: i64, at_ms: Option<u64>) {
    match (*timer, at_ms) {
        (None, None) => {}
        (Some(t), Some(at)) if wheel.rearm(t, at) => {}
        (_, Some(at)) => *timer = Some(wheel.insert(at, id)),
        (Some(t), None) => {
            wheel.cancel(t);
            *timer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let first = l.expired(6_999, 9_999).len();
        assert!((700..=750).contains(&first), "{first} in the first second");
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

    /// What a lease should do, with plain numbers that are searched every time.
    #[derive(Default)]
    struct Plain {
        ttl: i64,
        due: u64,
        expires: u64,
        checkpoint: Option<u64>,
    }

    impl Plain {
        fn set(&mut self, now: u64) {
            self.expires = now + millis(self.ttl);
            self.due = self.expires;
            self.checkpoint = Some(now + CHECKPOINT_MS).filter(|at| self.expires > *at);
        }
    }

    /// All that are due by `at`, in order, at most `limit`.
    fn due(model: &BTreeMap<i64, Plain>, now: u64, limit: usize, at: impl Fn(&Plain) -> Option<u64>) -> Vec<i64> {
        let mut due: Vec<_> = model.iter().filter_map(|(id, p)| Some((at(p)?, *id))).collect();
        due.retain(|(at, _)| *at <= now);
        due.sort_unstable();
        due.into_iter().take(limit).map(|(_, id)| id).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn leases_end_in_order_of_deadline_and_id(steps in prop::collection::vec((0..7_u8, 0..12_i64, 0..2_000_u64), 1..150)) {
            let mut lessor = Lessor::new();
            lessor.promote(0, 0);
            let mut model: BTreeMap<i64, Plain> = BTreeMap::new();
            let mut now = 0;
            for (step, id, n) in steps {
                match step {
                    0 if !model.contains_key(&id) => {
                        let ttl = n as i64 % 900 + 1;
                        lessor.grant(id, ttl, now);
                        model.entry(id).or_insert(Plain { ttl, ..Plain::default() }).set(now);
                    }
                    1 => {
                        let renewed = matches!(lessor.renew(id, now), Renewal::Renewed { .. });
                        let alive = model.get_mut(&id).filter(|p| p.expires > now);
                        prop_assert_eq!(renewed, alive.is_some());
                        alive.into_iter().for_each(|p| p.set(now));
                    }
                    2 => {
                        lessor.revoke(id);
                        model.remove(&id);
                    }
                    3 | 4 => {
                        let expired = due(&model, now, n as usize % 4, |p| Some(p.due));
                        prop_assert_eq!(lessor.expired(now, n as usize % 4), &expired[..]);
                        expired.iter().for_each(|id| model.get_mut(id).unwrap().due = now + RETRY_MS);
                    }
                    5 => {
                        let found = due(&model, now, usize::MAX, |p| p.checkpoint);
                        let reported: Vec<i64> = lessor.checkpoints_due(now).into_iter().map(|(id, _)| id).collect();
                        prop_assert_eq!(&reported, &found);
                        for id in found {
                            let p = model.get_mut(&id).unwrap();
                            p.checkpoint = Some(now + CHECKPOINT_MS).filter(|_| p.expires > now + CHECKPOINT_MS);
                        }
                    }
                    _ => now += n * if id < 6 { 1 } else { 200 },
                }
                let first = model.values().flat_map(|p| [Some(p.due), p.checkpoint]).flatten().min();
                prop_assert!(lessor.next_deadline() <= first && lessor.next_deadline().is_some() == first.is_some());
            }
        }
    }
}
