//! Views: a commit's state, readable from any thread for as long as someone holds it.

use crate::Error;
use crate::db::Inner;
use crate::image::Image;
use crate::page::{BUCKET_FLAG, Meta, Page, u64_at};
use crate::rev::RangeRev;
use bytes::Bytes;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

/// A tree deeper than this is a cycle: 2^32 elements fit into far fewer levels.
pub(crate) const DEPTH_MAX: usize = 64;

/// A stable state of the database. Clones share it; its pages are kept until the last one is gone.
#[derive(Clone)]
pub struct View(Arc<Registered>);

struct Registered {
    db: Arc<Inner>,
    meta: Meta,
    free_pages: u64,
    /// Where buckets begin, once somebody asked; few, and asked for with every key.
    roots: OnceLock<Vec<(Bytes, Root)>>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.db.state();
        if let Some(n) = state.views.get_mut(&self.meta.txid) {
            *n -= 1;
            if *n == 0 {
                state.views.remove(&self.meta.txid);
            }
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("txid", &self.0.meta.txid).finish_non_exhaustive()
    }
}

/// How pages are brought: [`View::page`] or [`View::page_at_once`].
type Fetch = fn(&View, u64) -> Result<Arc<Page>, Error>;

/// Where a bucket's tree begins.
#[derive(Clone, Debug)]
pub(crate) enum Root {
    Page(u64),
    Inline(Arc<Page>),
}

/// Reads a bucket's header: 16 bytes, and an inline page behind them when the root is 0.
pub(crate) fn parse_bucket(page: u64, value: &Bytes) -> Result<(Root, u64), Error> {
    if value.len() < 16 {
        return Err(Error::corrupt(page, 0, "bucket header is shorter than 16 bytes"));
    }
    let sequence = u64_at(value, 8);
    match u64_at(value, 0) {
        0 => {
            let inline = Page::parse(0, value.slice(16..))?;
            match inline.is_leaf() {
                true => Ok((Root::Inline(Arc::new(inline)), sequence)),
                false => Err(Error::corrupt(page, 0, "inline bucket is not a leaf")),
            }
        }
        root => Ok((Root::Page(root), sequence)),
    }
}

fn root_of<'a>(roots: &'a [(Bytes, Root)], name: &[u8]) -> Option<&'a Root> {
    roots.iter().find(|(known, _)| known == name).map(|(_, root)| root)
}

impl View {
    pub(crate) fn open(db: Arc<Inner>) -> View {
        let (meta, free_pages) = {
            let mut state = db.state();
            let meta = state.meta;
            if failpoint::mutant!("viewCountedLate") {
                drop(state);
                state = db.state();
            }
            *state.views.entry(meta.txid).or_insert(0) += 1;
            (meta, state.free.pages())
        };
        View(Arc::new(Registered { db, meta, free_pages, roots: OnceLock::new() }))
    }

    pub fn txid(&self) -> u64 {
        self.0.meta.txid
    }

    /// Bytes up to the high-water mark.
    pub fn size(&self) -> u64 {
        self.0.meta.hwm * self.0.db.page_size as u64
    }

    /// Bytes of free pages when the view was opened.
    pub fn free_bytes(&self) -> u64 {
        self.0.free_pages * self.0.db.page_size as u64
    }

    pub(crate) fn page(&self, id: u64) -> Result<Arc<Page>, Error> {
        self.0.db.page(id, self.0.meta.hwm)
    }

    fn page_at_once(&self, id: u64) -> Result<Arc<Page>, Error> {
        self.0.db.page_at_once(id, self.0.meta.hwm)
    }

    pub(crate) fn page_in_passing(&self, id: u64) -> Result<Arc<Page>, Error> {
        self.0.db.page_in_passing(id, self.0.meta.hwm)
    }

    pub(crate) fn load(&self, root: &Root) -> Result<Arc<Page>, Error> {
        match root {
            Root::Page(id) => self.page_in_passing(*id),
            Root::Inline(page) => Ok(page.clone()),
        }
    }

    /// The element of the bucket with exactly this key: value and flags. `fetch` brings pages.
    fn find(&self, root: &Root, key: &[u8], fetch: Fetch) -> Result<Option<(Bytes, u32)>, Error> {
        let mut page = match root {
            Root::Page(id) => fetch(self, *id)?,
            Root::Inline(page) => page.clone(),
        };
        for _ in 0..DEPTH_MAX {
            if page.is_leaf() {
                return Ok(page.search(key).ok().map(|i| (page.value(i), page.flags(i))));
            }
            page = fetch(self, page.child(page.child_index(key)))?;
        }
        Err(Error::corrupt(page.id, 0, "the tree is too deep: a cycle"))
    }

    fn bucket(&self, name: &[u8]) -> Result<Option<&Root>, Error> {
        let roots = match self.0.roots.get() {
            Some(roots) => roots,
            None => {
                let roots = self.read_roots()?;
                self.0.roots.get_or_init(|| roots)
            }
        };
        Ok(root_of(roots, name))
    }

    fn read_roots(&self) -> Result<Vec<(Bytes, Root)>, Error> {
        let root = self.0.meta.root;
        let mut range = Range::new(self.clone(), Some(Root::Page(root)), Bound::Unbounded, Bound::Unbounded);
        let mut roots = Vec::new();
        while let Some((key, value, flags)) = range.advance()? {
            if flags & BUCKET_FLAG != 0 {
                roots.push((key, parse_bucket(root, &value)?.0));
            }
        }
        Ok(roots)
    }

    /// Names of all buckets, ascending.
    pub fn buckets(&self) -> Result<Vec<Bytes>, Error> {
        Ok(self.read_roots()?.into_iter().map(|(name, _)| name).collect())
    }

    /// The key's value; `None` when bucket or key is absent.
    pub fn get(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self.bucket(bucket)? {
            Some(root) => Ok(self.find(root, key, View::page)?.map(|(value, _)| value)),
            None => Ok(None),
        }
    }

    /// The same for those who can't wait for the device: [`Error::NotInMemory`] when that would be needed.
    pub fn get_at_once(&self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>, Error> {
        let roots = self.0.roots.get().ok_or(Error::NotInMemory)?;
        match root_of(roots, bucket) {
            Some(root) => Ok(self.find(root, key, View::page_at_once)?.map(|(value, _)| value)),
            None => Ok(None),
        }
    }

    /// The bucket's pairs between the bounds, ascending; nothing when the bucket is absent.
    pub fn range(&self, bucket: &[u8], start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<Range, Error> {
        let root = self.bucket(bucket)?.cloned();
        Ok(Range::new(self.clone(), root, start, end))
    }

    /// The same pairs, descending.
    pub fn range_rev(&self, bucket: &[u8], start: Bound<&[u8]>, end: Bound<&[u8]>) -> Result<RangeRev, Error> {
        let root = self.bucket(bucket)?.cloned();
        Ok(RangeRev::new(self.clone(), root, start, end))
    }

    /// Whether there is such a bucket.
    pub fn bucket_exists(&self, name: &[u8]) -> Result<bool, Error> {
        Ok(self.bucket(name)?.is_some())
    }

    /// The bucket's sequence number; `None` when the bucket is absent.
    pub fn sequence(&self, name: &[u8]) -> Result<Option<u64>, Error> {
        let root = self.0.meta.root;
        match self.find(&Root::Page(root), name, View::page)? {
            Some((value, flags)) if flags & BUCKET_FLAG != 0 => Ok(Some(parse_bucket(root, &value)?.1)),
            _ => Ok(None),
        }
    }

    /// Streams the database as bbolt's `Tx.WriteTo` does: two metas, then all pages below the high-water mark.
    pub fn write_to(&self, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        self.image().for_each_piece(0, &mut |piece, _| out(piece).map_err(Error::io("write a database image")))
    }

    /// The bucket's last pair.
    pub fn last(&self, bucket: &[u8]) -> Result<Option<(Bytes, Bytes)>, Error> {
        self.range_rev(bucket, Bound::Unbounded, Bound::Unbounded)?.next().transpose()
    }

    /// The database as a file: what bbolt's `Tx.WriteTo` writes.
    pub fn image(&self) -> Image {
        Image::of(self.clone())
    }

    pub(crate) fn meta(&self) -> Meta {
        self.0.meta
    }

    /// Bytes of pages that later transactions no longer need and that are kept for this view, and older ones.
    pub(crate) fn held_bytes(&self) -> u64 {
        let pages = self.0.db.state().free.held(self.0.meta.txid);
        pages * self.0.db.page_size as u64
    }

    /// Fills `buf` with the file's bytes at `offset`, whatever they are.
    pub(crate) fn read_raw(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.0.db.file.read_exact_at(buf, offset).map_err(Error::io("read a page"))
    }
}

/// Pairs of a bucket, ascending. Pages are read as it goes.
#[derive(Debug)]
pub struct Range {
    view: View,
    root: Option<Root>,
    start: Bound<Vec<u8>>,
    end: Bound<Vec<u8>>,
    stack: Vec<(Arc<Page>, usize)>,
    failed: bool,
}

fn own(bound: Bound<&[u8]>) -> Bound<Vec<u8>> {
    bound.map(<[u8]>::to_vec)
}

impl Range {
    fn new(view: View, root: Option<Root>, start: Bound<&[u8]>, end: Bound<&[u8]>) -> Range {
        Range { view, root, start: own(start), end: own(end), stack: Vec::new(), failed: false }
    }

    /// The next pair with its flags.
    pub(crate) fn advance(&mut self) -> Result<Option<(Bytes, Bytes, u32)>, Error> {
        if let Some(root) = self.root.take() {
            let page = self.view.load(&root)?;
            self.descend(page, true)?;
        }
        loop {
            let Some((page, next)) = self.stack.last_mut() else { return Ok(None) };
            if *next >= page.count() {
                self.stack.pop();
                continue;
            }
            let (page, at) = (page.clone(), *next);
            *next += 1;
            if !page.is_leaf() {
                let child = self.view.page_in_passing(page.child(at))?;
                self.descend(child, false)?;
                continue;
            }
            let past = match &self.end {
                Bound::Included(end) => page.key_slice(at) > end.as_slice(),
                Bound::Excluded(end) => page.key_slice(at) >= end.as_slice(),
                Bound::Unbounded => false,
            };
            if past {
                self.stack.clear();
                return Ok(None);
            }
            return Ok(Some((page.key(at), page.value(at), page.flags(at))));
        }
    }

    /// Puts the path to the first pair on the stack. Only the very first descent looks at the start.
    fn descend(&mut self, mut page: Arc<Page>, seek: bool) -> Result<(), Error> {
        loop {
            if self.stack.len() >= DEPTH_MAX {
                return Err(Error::corrupt(page.id, 0, "the tree is too deep: a cycle"));
            }
            let from = match (&self.start, seek) {
                (Bound::Unbounded, _) | (_, false) => 0,
                (Bound::Included(key) | Bound::Excluded(key), true) if !page.is_leaf() => page.child_index(key),
                (Bound::Included(key), true) => page.search(key).unwrap_or_else(|i| i),
                (Bound::Excluded(key), true) => page.search(key).map_or_else(|i| i, |i| i + 1),
            };
            if page.is_leaf() {
                self.stack.push((page, from));
                return Ok(());
            }
            let child = self.view.page_in_passing(page.child(from))?;
            self.stack.push((page, from + 1));
            page = child;
        }
    }
}

impl Iterator for Range {
    type Item = Result<(Bytes, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.advance() {
            Ok(pair) => pair.map(|(key, value, _)| Ok((key, value))),
            Err(e) => {
                self.failed = true;
                Some(Err(e))
            }
        }
    }
}
