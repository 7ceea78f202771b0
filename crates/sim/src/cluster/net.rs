//! The network between members: delay, loss, doubling, overtaking, and who can't reach whom.

use super::plan::Plan;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Links are named by their ends, from and to.
#[derive(Debug)]
pub struct Net {
    cut: BTreeSet<(u64, u64)>,
    /// When the link was last cut, mended or broken.
    changed_us: BTreeMap<(u64, u64), u64>,
    /// When the last message on the link arrives: without overtaking, later ones come later.
    last_us: BTreeMap<(u64, u64), u64>,
    delay_us: (u64, u64),
    /// Of a thousand.
    lost: u64,
    doubled: u64,
    reorder: bool,
}

/// When a message arrives: never, once, or twice.
pub type Arrivals = Vec<u64>;

impl Net {
    pub fn new(plan: &Plan) -> Net {
        Net {
            cut: BTreeSet::new(),
            changed_us: BTreeMap::new(),
            last_us: BTreeMap::new(),
            delay_us: plan.delay_us,
            lost: plan.lost,
            doubled: plan.doubled,
            reorder: plan.reorder,
        }
    }

    /// No more faults; what was cut is mended.
    pub fn heal(&mut self, now_us: u64) {
        (self.lost, self.doubled, self.reorder) = (0, 0, false);
        self.mend(now_us);
    }

    /// Mends what was cut.
    pub fn mend(&mut self, now_us: u64) {
        for link in std::mem::take(&mut self.cut) {
            self.changed_us.insert(link, now_us);
        }
    }

    pub fn cut(&mut self, from: u64, to: u64, now_us: u64) {
        self.cut.insert((from, to));
        self.changed_us.insert((from, to), now_us);
    }

    /// Connections between the two are new from now on.
    pub fn broken(&mut self, from: u64, to: u64, now_us: u64) {
        self.changed_us.insert((from, to), now_us);
        self.changed_us.insert((to, from), now_us);
    }

    pub fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Since when the two can talk, if they can.
    pub fn connected_since_us(&self, a: u64, b: u64) -> Option<u64> {
        let since = |link: (u64, u64)| self.changed_us.get(&link).copied().unwrap_or(0);
        (!self.is_cut(a, b) && !self.is_cut(b, a)).then(|| since((a, b)).max(since((b, a))))
    }

    /// What becomes of a message; `once`: it travels on a connection that is not tried again.
    pub fn carry(&mut self, rng: &mut Rng, now_us: u64, link: (u64, u64), once: bool) -> Arrivals {
        if self.cut.contains(&link) || rng.below(1000) < self.lost {
            return Vec::new();
        }
        let copies = if !once && rng.below(1000) < self.doubled { 2 } else { 1 };
        (0..copies).map(|_| self.arrival(rng, now_us, link)).collect()
    }

    fn arrival(&mut self, rng: &mut Rng, now_us: u64, link: (u64, u64)) -> u64 {
        let (low, high) = self.delay_us;
        let at = now_us + low + rng.below(high - low + 1);
        if self.reorder {
            return at;
        }
        let last = self.last_us.entry(link).or_default();
        *last = at.max(*last + 1);
        *last
    }
}
