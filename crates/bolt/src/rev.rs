//! Pairs of a bucket from the last to the first.

use crate::Error;
use crate::page::Page;
use crate::view::{DEPTH_MAX, Root, View};
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

/// Pairs of a bucket, descending. Pages are read as it goes.
#[derive(Debug)]
pub struct RangeRev {
    view: View,
    root: Option<Root>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    /// The way down: a page, and how many of its elements are still to be visited.
    stack: Vec<(Arc<Page>, usize)>,
    failed: bool,
}

impl RangeRev {
    pub(crate) fn new(view: View, root: Option<Root>, start: Bound<&[u8]>, end: Bound<&[u8]>) -> RangeRev {
        let (start, end) = (start.map(<[u8]>::to_vec), end.map(<[u8]>::to_vec));
        RangeRev { view, root, start, end, stack: Vec::new(), failed: false }
    }

    fn advance(&mut self) -> Result<Option<(Bytes, Bytes)>, Error> {
        if let Some(root) = self.root.take() {
            let page = self.view.load(&root)?;
            self.descend(page, true)?;
        }
        loop {
            let Some((page, left)) = self.stack.last_mut() else { return Ok(None) };
            if *left == 0 {
                self.stack.pop();
                continue;
            }
            *left -= 1;
            let (page, at) = (page.clone(), *left);
            if !page.is_leaf() {
                let child = self.view.page_in_passing(page.child(at))?;
                self.descend(child, false)?;
                continue;
            }
            let before = match &self.start {
                Bound::Included(start) => page.key_slice(at) < start.as_slice(),
                Bound::Excluded(start) => page.key_slice(at) <= start.as_slice(),
                Bound::Unbounded => false,
            };
            if before {
                self.stack.clear();
                return Ok(None);
            }
            return Ok(Some((page.key(at), page.value(at))));
        }
    }

    /// Puts the path to the last pair on the stack. Only the very first descent looks at the end.
    fn descend(&mut self, mut page: Arc<Page>, seek: bool) -> Result<(), Error> {
        loop {
            if self.stack.len() >= DEPTH_MAX {
                return Err(Error::corrupt(page.id, 0, "the tree is too deep: a cycle"));
            }
            let left = match (&self.end, seek) {
                (Bound::Unbounded, _) | (_, false) => page.count(),
                (Bound::Included(key) | Bound::Excluded(key), true) if !page.is_leaf() => page.child_index(key) + 1,
                (Bound::Included(key), true) => page.search(key).map_or_else(|i| i, |i| i + 1),
                (Bound::Excluded(key), true) => page.search(key).unwrap_or_else(|i| i),
            };
            if page.is_leaf() {
                self.stack.push((page, left));
                return Ok(());
            }
            // A branch has at least one element: `Page::parse` saw to it.
            let child = self.view.page_in_passing(page.child(left - 1))?;
            self.stack.push((page, left - 1));
            page = child;
        }
    }
}

impl Iterator for RangeRev {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}
