//! The page cache: two generations. What was used since the last turn lives in the young one; when that is full the
//! old one is dropped and they change places. Cheap, scan-tolerant enough, and never above its budget.

use crate::page::Page;
use fnv::FnvBuildHasher;
use std::sync::Arc;

#[expect(clippy::disallowed_types, reason = "no random seed, and nobody walks it: the order does not matter")]
type Pages = std::collections::HashMap<u64, Arc<Page>, FnvBuildHasher>;

/// Pages that left the cache.
#[derive(Debug, Default)]
pub(crate) struct Dropped(#[expect(dead_code, reason = "it is there to be dropped")] Pages);

/// Pages by id, bounded by bytes.
#[derive(Debug)]
pub(crate) struct Cache {
    budget: usize,
    young: Pages,
    old: Pages,
    young_bytes: usize,
}

impl Cache {
    pub fn new(budget: usize) -> Cache {
        Cache { budget, young: Pages::default(), old: Pages::default(), young_bytes: 0 }
    }

    /// The page, and what is dropped for it: not here, where others wait for the lock.
    pub fn find(&mut self, id: u64) -> Option<(Arc<Page>, Dropped)> {
        if let Some(page) = self.young.get(&id) {
            return Some((page.clone(), Dropped::default()));
        }
        let page = self.old.remove(&id)?;
        Some((page.clone(), self.insert(page)))
    }

    /// Answers what is dropped for it.
    #[must_use]
    pub fn insert(&mut self, page: Arc<Page>) -> Dropped {
        self.young_bytes += page.len();
        if let Some(before) = self.young.insert(page.id, page) {
            self.young_bytes -= before.len();
        }
        if self.young_bytes > self.budget / 2 {
            self.young_bytes = 0;
            return Dropped(std::mem::replace(&mut self.old, std::mem::take(&mut self.young)));
        }
        Dropped::default()
    }

    /// The page's bytes are about to change.
    pub fn forget(&mut self, id: u64) {
        if let Some(page) = self.young.remove(&id) {
            self.young_bytes -= page.len();
        }
        self.old.remove(&id);
    }
}
