//! Who may and who must have expired: what the clients know of their leases, on the member's clock.

use crate::model::Model;
use std::collections::BTreeMap;

/// A round of revocations each 500 ms, on ticks of 100 ms.
const REVOKED_WITHIN_MS: u64 = 600;
/// What a lease has left is stored each 5 minutes: after a restart it has at most this much more than it had, with the
/// round of looking and the rounding to whole seconds.
const CHECKPOINT_WITHIN_MS: u64 = 300_000 + REVOKED_WITHIN_MS + 1000;

#[derive(Clone, Copy, Debug)]
struct Clock {
    grant: u64,
    ttl_ms: u64,
    /// Not revoked before: a full TTL since the last acknowledged renewal.
    earliest_ms: u64,
    /// Revoked soon after: whatever a new leader may add.
    latest_ms: u64,
}

/// One clock a lease.
#[derive(Clone, Debug, Default)]
pub struct Clocks(BTreeMap<i64, Clock>);

impl Clocks {
    /// Leases that came and went with the log.
    pub fn follow(&mut self, model: &Model, now_ms: u64) {
        self.0.retain(|id, c| model.lease(*id).is_some_and(|(_, grant)| grant == c.grant));
        for id in model.lease_ids() {
            let Some((ttl, grant)) = model.lease(id) else { continue };
            let ttl_ms = ttl as u64 * 1000;
            let at = now_ms + ttl_ms;
            self.0.entry(id).or_insert(Clock { grant, ttl_ms, earliest_ms: at, latest_ms: at });
        }
    }

    /// A client asks for a renewal, which may count from now on.
    pub fn asked(&mut self, id: i64, now_ms: u64) {
        if let Some(c) = self.0.get_mut(&id) {
            c.latest_ms = c.latest_ms.max(now_ms + c.ttl_ms);
        }
    }

    /// The renewal that was asked for at `asked_ms` is acknowledged now.
    pub fn renewed(&mut self, id: i64, asked_ms: u64, now_ms: u64) {
        if let Some(c) = self.0.get_mut(&id) {
            c.earliest_ms = asked_ms + c.ttl_ms;
            c.latest_ms = c.latest_ms.max(now_ms + c.ttl_ms);
        }
    }

    /// A leader was elected: the promises stand, and what a lease has left counts anew. `checkpointed_ms`: when the
    /// leader of before was last seen at work, if it stored now and then what was left.
    pub fn elected(&mut self, now_ms: u64, extend_ms: u64, checkpointed_ms: Option<u64>) {
        for c in self.0.values_mut() {
            let left = checkpointed_ms.map_or(u64::MAX, |at| c.latest_ms.saturating_sub(at) + CHECKPOINT_WITHIN_MS);
            c.latest_ms = now_ms + left.min(c.ttl_ms) + extend_ms;
        }
    }

    pub fn may_expire(&self, id: i64, now_ms: u64) -> bool {
        self.0.get(&id).is_some_and(|c| c.earliest_ms <= now_ms)
    }

    /// A lease that should be gone by now.
    pub fn overdue(&self, now_ms: u64) -> Option<i64> {
        self.0.iter().find(|(_, c)| c.latest_ms + REVOKED_WITHIN_MS <= now_ms).map(|(id, _)| *id)
    }

    /// The bounds of what a client may be told is left, in whole seconds.
    pub fn left(&self, id: i64, now_ms: u64) -> Option<(i64, i64)> {
        let left = |at: u64| (at as i64 - now_ms as i64) / 1000;
        self.0.get(&id).map(|c| (left(c.earliest_ms), left(c.latest_ms)))
    }
}
