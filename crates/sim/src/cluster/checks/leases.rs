//! A lease does not expire before its time, nor lives on without being renewed.

use crate::model::Model;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug)]
struct Clock {
    grant: u64,
    ttl_ms: u64,
    /// Not revoked before, by the world's clock: a full TTL since the last acknowledged renewal was asked for.
    earliest_us: u64,
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
            let earliest_us = self.end_us(self.asked_us.get(&id).copied().unwrap_or(now_us), ttl_ms);
            let new = Clock { grant, ttl_ms, earliest_us, renewed_us: now_us };
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
            if now_us < clock.earliest_us {
                let early_ms = (clock.earliest_us - now_us) / 1000;
                return Err(format!("lease {id} is revoked {early_ms} ms before its time: {clock:?}"));
            }
        }
        Ok(())
    }

    fn end_us(&self, from_us: u64, ttl_ms: u64) -> u64 {
        // A fast clock shows more than it should; 1 ms for rounding.
        from_us + (ttl_ms * 1000).saturating_sub(ttl_ms * self.drift_ppm / 1000 + 1000)
    }

    /// The renewal asked for at `asked_us`, of this grant, is acknowledged.
    pub fn renewed(&mut self, id: i64, grant: u64, asked_us: u64, now_us: u64) {
        let end = self.clocks.get(&id).map(|clock| self.end_us(asked_us, clock.ttl_ms));
        if let Some(clock) = self.clocks.get_mut(&id).filter(|clock| clock.grant == grant) {
            clock.earliest_us = clock.earliest_us.max(end.unwrap_or(0));
            clock.renewed_us = clock.renewed_us.max(now_us);
        }
    }

    pub fn may_be_gone(&self, id: i64, now_us: u64) -> bool {
        self.revoked.contains(&id) || self.clocks.get(&id).is_none_or(|clock| clock.earliest_us <= now_us)
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
