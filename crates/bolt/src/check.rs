//! Walking the whole tree: which pages are in use, and whether the structure holds.

use crate::db::Inner;
use crate::page::{BUCKET_FLAG, Meta, Page};
use crate::view::{DEPTH_MAX, Root, parse_bucket};
use crate::{Db, Error};
use std::collections::BTreeMap;
use std::sync::Arc;

struct Walk<'a> {
    db: &'a Inner,
    hwm: u64,
    /// Extents in use: start → pages.
    used: BTreeMap<u64, u64>,
}

/// Extents that the tree of this meta uses, ascending.
pub(crate) fn reachable(db: &Inner, meta: &Meta) -> Result<Vec<(u64, u64)>, Error> {
    let mut walk = Walk { db, hwm: meta.hwm, used: BTreeMap::new() };
    walk.tree(meta.root, None, None, 0)?;
    Ok(walk.used.into_iter().collect())
}

/// Extents that the tree of an older meta uses, besides those in `used`, which a newer one's does: as far as they can be
/// read, for they may have been written over.
pub(crate) fn left_behind(db: &Inner, meta: &Meta, used: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut left = BTreeMap::new();
    let mut waiting = vec![meta.root];
    while let Some(id) = waiting.pop() {
        // What both trees have is alike all the way down: pages are never changed where they are.
        let at = used.partition_point(|(start, _)| *start <= id);
        if at > 0 && used[at - 1].0 + used[at - 1].1 > id || left.contains_key(&id) {
            continue;
        }
        let Ok(page) = db.page_in_passing(id, meta.hwm) else { continue };
        let len = 1 + u64::from(page.overflow);
        let into_used = used.get(at).is_some_and(|(start, _)| *start < id + len);
        let into_left = left.range(..id + len).next_back().is_some_and(|(start, n): (&u64, &u64)| start + n > id);
        if into_used || into_left {
            continue;
        }
        left.insert(id, len);
        match page.is_leaf() {
            false => waiting.extend((0..page.count()).map(|i| page.child(i))),
            true => waiting.extend((0..page.count()).filter(|i| page.flags(*i) & BUCKET_FLAG != 0).filter_map(|i| {
                match parse_bucket(page.id, &page.value(i)).ok()?.0 {
                    Root::Page(root) => Some(root),
                    Root::Inline(_) => None,
                }
            })),
        }
    }
    left.into_iter().collect()
}

impl Walk<'_> {
    /// Checks the page at `id`, whose keys must lie in `[low, high)`, and everything below it.
    fn tree(&mut self, id: u64, low: Option<&[u8]>, high: Option<&[u8]>, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::corrupt(id, 0, "the tree is too deep: a cycle"));
        }
        let page = self.db.page_in_passing(id, self.hwm)?;
        self.claim(&page)?;
        check_bounds(&page, low, high)?;
        if page.is_leaf() {
            return self.buckets_in(&page, depth);
        }
        for i in 0..page.count() {
            let next = if i + 1 < page.count() { Some(page.key_slice(i + 1)) } else { high };
            self.tree(page.child(i), Some(page.key_slice(i)), next, depth + 1)?;
        }
        Ok(())
    }

    fn claim(&mut self, page: &Page) -> Result<(), Error> {
        let (start, len) = (page.id, 1 + u64::from(page.overflow));
        let before = self.used.range(..start + len).next_back();
        if before.is_some_and(|(s, n)| s + n > start) {
            return Err(Error::corrupt(start, 0, "page is referenced twice"));
        }
        self.used.insert(start, len);
        Ok(())
    }

    fn buckets_in(&mut self, page: &Arc<Page>, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::corrupt(page.id, 0, "buckets are nested too deeply"));
        }
        for i in 0..page.count() {
            if page.flags(i) & BUCKET_FLAG == 0 {
                continue;
            }
            match parse_bucket(page.id, &page.value(i))?.0 {
                Root::Page(root) => self.tree(root, None, None, depth + 1)?,
                Root::Inline(inline) => self.buckets_in(&inline, depth + 1)?,
            }
        }
        Ok(())
    }
}

fn check_bounds(page: &Page, low: Option<&[u8]>, high: Option<&[u8]>) -> Result<(), Error> {
    let Some(last) = page.count().checked_sub(1) else { return Ok(()) };
    if low.is_some_and(|low| page.key_slice(0) < low) {
        return Err(Error::corrupt(page.id, 0, "first key is below its branch's key"));
    }
    if high.is_some_and(|high| page.key_slice(last) >= high) {
        return Err(Error::corrupt(page.id, 0, "last key is not below the next branch's key"));
    }
    Ok(())
}

impl Db {
    /// Checks every page of the last commit, and that each page below the high-water mark is either in use or free.
    pub fn check(&self) -> Result<(), Error> {
        let view = self.view();
        let (meta, free) = {
            let state = self.0.state();
            (state.meta, state.free.pages())
        };
        let used: u64 = reachable(&self.0, &meta)?.iter().map(|(_, n)| n).sum();
        drop(view);
        // A read-only handle keeps no free list: there the walk is all there is to check.
        if !self.0.options.read_only && used + free + 2 != meta.hwm {
            let what = format!("{used} pages in use and {free} free of {}", meta.hwm);
            return Err(Error::corrupt(0, 0, what));
        }
        Ok(())
    }
}
