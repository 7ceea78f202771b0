//! The page cache: two generations. What was used since the last turn lives in the young one; when that is full the
//! old one is dropped and they change places. Cheap, scan-tolerant enough, and never above its budget.

use crate::page::Page;
use fnv::FnvBuildHasher;
use std::sync::Arc;

#[expect(clippy::disallowed_types, reason = "no random seed, and nobody walks it: the order does not matter")]
type Pages = std::collections::HashMap<u64, Arc<Page>, FnvBuildHasher>;

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

    pub fn find(&mut self, id: u64) -> Option<Arc<Page>> {
        if let Some(page) = self.young.get(&id) {
            return Some(page.clone());
        }
        let page = self.old.remove(&id)?;
        self.insert(page.clone());
        Some(page)
    }

    pub fn insert(&mut self, page: Arc<Page>) {
        self.young_bytes += page.len();
        if let Some(before) = self.young.insert(page.id, page) {
            self.young_bytes -= before.len();
        }
        if self.young_bytes > self.budget / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    /// The page's bytes are about to change.
    pub fn forget(&mut self, id: u64) {
        if let Some(page) = self.young.remove(&id) {
            self.young_bytes -= page.len();
        }
        self.old.remove(&id);
    }
}
