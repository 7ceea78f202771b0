//! Free pages as extents: by place for merging, by size for finding.

use std::collections::{BTreeMap, BTreeSet};

/// Pages that may be handed out, and pages that wait until no view sees them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Free {
    by_start: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
    pages: u64,
    /// Freed by a transaction; (txid, start, pages).
    pending: Vec<(u64, u64, u64)>,
    pending_pages: u64,
}

impl Free {
    /// Pages free or pending.
    pub fn pages(&self) -> u64 {
        self.pages + self.pending_pages
    }

    /// Pages that wait for views of `txid` or older.
    pub fn held(&self, txid: u64) -> u64 {
        self.pending.iter().filter(|(freed, ..)| *freed > txid).map(|(.., len)| len).sum()
    }

    /// Adds an extent that nobody uses.
    pub fn add(&mut self, mut start: u64, mut len: u64) {
        if len == 0 {
            return;
        }
        self.pages += len;
        if let Some((&before, &n)) = self.by_start.range(..start).next_back()
            && before + n == start
        {
            self.take_out(before, n);
            start = before;
            len += n;
        }
        if let Some(&n) = self.by_start.get(&(start + len)) {
            self.take_out(start + len, n);
            len += n;
        }
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn take_out(&mut self, start: u64, len: u64) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }

    /// The smallest extent that holds `n` pages, lowest first among equals.
    pub fn allocate(&mut self, n: u64) -> Option<u64> {
        let &(len, start) = self.by_len.range((n, 0)..).next()?;
        self.take_out(start, len);
        self.pages -= len;
        self.add(start + n, len - n);
        Some(start)
    }

    /// Transaction `txid` no longer needs these pages.
    pub fn free_later(&mut self, txid: u64, start: u64, len: u64) {
        self.pending.push((txid, start, len));
        self.pending_pages += len;
    }

    /// Views older than `oldest` are gone: what transactions up to it freed may be used.
    pub fn release(&mut self, oldest: u64) {
        for (_, start, len) in self.pending.extract_if(.., |(txid, ..)| *txid <= oldest).collect::<Vec<_>>() {
            self.pending_pages -= len;
            self.add(start, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Free;

    #[test]
    fn neighbours_merge_and_the_best_fit_is_taken() {
        let mut free = Free::default();
        free.add(10, 2);
        free.add(14, 2);
        free.add(12, 2);
        free.add(30, 3);
        assert_eq!(free.allocate(3), Some(30));
        assert_eq!(free.allocate(6), Some(10));
        assert_eq!((free.allocate(1), free.pages()), (None, 0));
    }

    #[test]
    fn pages_wait_for_older_views() {
        let mut free = Free::default();
        free.free_later(5, 20, 1);
        free.release(4);
        assert_eq!((free.allocate(1), free.pages()), (None, 1));
        free.release(5);
        assert_eq!(free.allocate(1), Some(20));
    }
}
