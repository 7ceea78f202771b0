//! A lease does not expire before its time, nor lives on without being renewed.

use crate::model::Model;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Clock {
    grant: u64,
    ttl_ms: u64,
    /// When it was asked for, or the last acknowledged renewal: it is not revoked before a full TTL has passed since.
    asked_us: u64,
    /// The last moment at which it may have been renewed.
    renewed_us: u64,
}

/// One clock a lease.
#[derive(Clone, Debug, Default)]
pub struct Clocks {
    clocks: BTreeMap<i64, Clock>,
    /// When each id was first asked for: a lease that came of it ends no earlier than a TTL after that.
    asked_us: BTreeMap<i64, u64>,
    /// Ids that a client ever asked to be revoked: the request may still be on its way.
    revoked: BTreeSet<i64>,
    /// How much faster than the world's clock a member's may be, parts in a million.
    drift_ppm: u64,
    /// When members' clocks were later all at once, and by how much, ms: any of them may have been the lessor's.
    jumps: Vec<(u64, u64)>,
    pub expired: u64,
}

impl Clocks {
    pub fn new(drift_ppm: u64) -> Clocks {
        Clocks { drift_ppm, ..Clocks::default() }
    }

    /// A client asks for a lease of this id.
    pub fn grant_asked(&mut self, id: i64, now_us: u64) {
        self.asked_us.entry(id).or_insert(now_us);
    }

    /// A client asks for a revocation: from now on it is no surprise.
    pub fn revocation_asked(&mut self, id: i64) {
        self.revoked.insert(id);
    }

    /// Leases that came with the log; those that went.
    ///
    /// # Errors
    /// One went too early.
    pub fn follow(&mut self, model: &Model, now_us: u64) -> Result<(), String> {
        for id in model.lease_ids() {
            let Some((ttl, grant)) = model.lease(id) else { continue };
            let ttl_ms = ttl as u64 * 1000;
            let asked_us = self.asked_us.get(&id).copied().unwrap_or(now_us);
            let new = Clock { grant, ttl_ms, asked_us, renewed_us: now_us };
            let clock = self.clocks.entry(id).or_insert(new);
            if clock.grant != grant {
                *clock = new;
            }
        }
        let gone: Vec<i64> = self.clocks.keys().filter(|id| model.lease(**id).is_none()).copied().collect();
        for id in gone {
            let clock = self.clocks.remove(&id).expect("its key was there");
            if self.revoked.contains(&id) {
                continue;
            }
            self.expired += 1;
            let earliest_us = self.earliest_us(&clock);
            if now_us < earliest_us {
                let early_ms = (earliest_us - now_us) / 1000;
                return Err(format!("lease {id} is revoked {early_ms} ms before its time: {clock:?}"));
            }
        }
        Ok(())
    }

    /// A member's clock jumps.
    pub fn jumped(&mut self, now_us: u64, by_ms: u64) {
        self.jumps.push((now_us, by_ms));
    }

    /// By the world's clock.
    fn earliest_us(&self, clock: &Clock) -> u64 {
        let since = self.jumps.iter().rev().take_while(|(at_us, _)| *at_us >= clock.asked_us);
        let jumped_ms: u64 = since.map(|(_, by_ms)| by_ms).sum();
        // A fast clock shows more than it should; 1 ms for rounding.
        let early_us = clock.ttl_ms * self.drift_ppm / 1000 + 1000 + jumped_ms * 1000;
        clock.asked_us + (clock.ttl_ms * 1000).saturating_sub(early_us)
    }

    /// The renewal asked for at `asked_us`, of this grant, is acknowledged.
    pub fn renewed(&mut self, id: i64, grant: u64, asked_us: u64, now_us: u64) {
        if let Some(clock) = self.clocks.get_mut(&id).filter(|clock| clock.grant == grant) {
            clock.asked_us = clock.asked_us.max(asked_us);
            clock.renewed_us = clock.renewed_us.max(now_us);
        }
    }

    pub fn may_be_gone(&self, id: i64, now_us: u64) -> bool {
        self.revoked.contains(&id) || self.clocks.get(&id).is_none_or(|clock| self.earliest_us(clock) <= now_us)
    }

    /// A lease that should be gone, when all members have served without a fault since `quiet_us`.
    pub fn overdue(&self, quiet_us: u64, now_us: u64) -> Option<i64> {
        const GRACE_US: u64 = 5_000_000;
        let end = |clock: &Clock| {
            let from = clock.renewed_us.max(quiet_us);
            from + clock.ttl_ms * 1000 + clock.ttl_ms * self.drift_ppm / 500 + GRACE_US
        };
        self.clocks.iter().find(|(_, clock)| end(clock) < now_us).map(|(id, _)| *id)
    }
}
