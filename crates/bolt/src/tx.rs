//! The write transaction: copy on write, two syncs a commit.

use crate::db::Inner;
use crate::node::{Child, Fill, Item, Kind, Node};
use crate::page::{BUCKET_FLAG, ELEMENT, HEADER, Meta, NO_FREELIST};
use crate::view::{DEPTH_MAX, Root, parse_bucket};
use crate::{Db, Error, Options, Pace, View};
use bytes::Bytes;
use disk::SharedDisk;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

/// bbolt's limits: a key has 1 to 32768 bytes, a value at most 2^31 - 2.
const KEY_MAX: usize = 32_768;
const VALUE_MAX: usize = (1 << 31) - 2;
/// Files grow in steps: doubling up to this size, then by it.
const GROWTH_MAX: u64 = 16 << 20;

/// Pages of a transaction: allocation, what was freed, what is to be written.
pub(crate) struct Pages {
    db: Arc<Inner>,
    txid: u64,
    hwm: u64,
    free: crate::free::Free,
    dirty: BTreeMap<u64, Vec<u8>>,
}

/// Bytes of pages between two syncs of a large commit. They are not needed there, but somebody else's sync (the log's)
/// waits for all that the device was given before it.
const SYNC_EVERY: usize = 256 << 10;

impl Pages {
    pub fn page_size(&self) -> usize {
        self.db.page_size
    }

    /// The first of `n` adjacent pages: free ones, else new ones at the high-water mark.
    pub fn allocate(&mut self, n: u64) -> u64 {
        self.free.allocate(n).unwrap_or_else(|| {
            let id = self.hwm;
            self.hwm += n;
            id
        })
    }

    /// Looks the key up below an unchanged page.
    pub fn get(&self, mut id: u64, key: &[u8]) -> Result<Option<Bytes>, Error> {
        for _ in 0..DEPTH_MAX {
            let page = self.db.page(id, self.hwm)?;
            if page.is_leaf() {
                return Ok(page.search(key).ok().map(|i| page.value(i)));
            }
            id = page.child(page.child_index(key));
        }
        Err(Error::corrupt(id, 0, "the tree is too deep: a cycle"))
    }

    pub fn write(&mut self, id: u64, bytes: Vec<u8>) {
        self.dirty.insert(id, bytes);
    }

    /// Decodes a page that will be written anew elsewhere.
    pub fn take(&mut self, id: u64) -> Result<Node, Error> {
        let page = self.db.page(id, self.hwm)?;
        self.free.free_later(self.txid, id, 1 + u64::from(page.overflow));
        Ok(Node::decode(&page))
    }

    fn free_tree(&mut self, id: u64, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::corrupt(id, 0, "the tree is too deep: a cycle"));
        }
        if let Kind::Branch(children) = self.take(id)?.kind {
            for (_, child) in children {
                if let Child::Page(id) = child {
                    self.free_tree(id, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

struct Bucket {
    root: Child,
    sequence: u64,
    fill: Fill,
    changed: bool,
}

/// The one write transaction. Dropping it rolls back.
pub struct WriteTx {
    db: Arc<Inner>,
    /// The state it started from; keeps its pages.
    base: View,
    meta: Meta,
    pages: Pages,
    root: Node,
    buckets: BTreeMap<Bytes, Bucket>,
    finished: bool,
}

impl WriteTx {
    pub(crate) fn begin(db: Arc<Inner>) -> Result<WriteTx, Error> {
        let base = View::open(db.clone());
        let (meta, free) = {
            let mut state = db.state();
            if state.poisoned {
                return Err(Error::Poisoned);
            }
            if state.writing {
                return Err(Error::Misuse("a write transaction is under way"));
            }
            state.writing = true;
            let newest = state.meta.txid;
            let oldest = state.views.keys().next().copied().unwrap_or(newest);
            // The meta before the last one is still there, for the day on which the last one can't be read: what its tree needs
            // must not be written over while it is (bbolt does).
            let oldest = oldest.min(newest.saturating_sub(1));
            let oldest = if failpoint::mutant!("pagesTakenFromViews") { newest } else { oldest };
            state.free.release(oldest);
            (state.meta, state.free.clone())
        };
        let mut pages = Pages { db: db.clone(), txid: meta.txid + 1, hwm: meta.hwm, free, dirty: BTreeMap::new() };
        let root = match load_root(&mut pages, meta.root) {
            Ok(root) => root,
            Err(e) => {
                db.state().writing = false;
                return Err(e);
            }
        };
        Ok(WriteTx { db, base, meta, pages, root, buckets: BTreeMap::new(), finished: false })
    }

    fn bucket(&mut self, name: &[u8]) -> Result<&mut Bucket, Error> {
        if !self.buckets.contains_key(name) {
            let Some(item) = find(&mut self.root, &mut self.pages, name)? else {
                return Err(Error::Misuse("no such bucket"));
            };
            let (root, sequence) = parse_bucket(self.meta.root, &item)?;
            let root = match root {
                Root::Page(id) => Child::Page(id),
                Root::Inline(page) => Child::Node(Box::new(Node::decode(&page))),
            };
            let bucket = Bucket { root, sequence, fill: Fill::Half, changed: false };
            self.buckets.insert(Bytes::copy_from_slice(name), bucket);
        }
        self.buckets.get_mut(name).ok_or(Error::Misuse("no such bucket"))
    }

    /// Creates the bucket if it is absent.
    pub fn create_bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        check_key(name)?;
        if self.buckets.contains_key(name) || find(&mut self.root, &mut self.pages, name)?.is_some() {
            return Ok(());
        }
        let bucket =
            Bucket { root: Child::Node(Box::new(Node::empty())), sequence: 0, fill: Fill::Half, changed: true };
        self.buckets.insert(Bytes::copy_from_slice(name), bucket);
        Ok(())
    }

    /// Removes the bucket and everything in it; whether it was there.
    pub fn delete_bucket(&mut self, name: &[u8]) -> Result<bool, Error> {
        if !self.buckets.contains_key(name) && find(&mut self.root, &mut self.pages, name)?.is_none() {
            return Ok(false);
        }
        self.bucket(name)?;
        let Some(bucket) = self.buckets.remove(name) else { return Ok(false) };
        self.free_child(bucket.root)?;
        self.root.delete(&mut self.pages, name)?;
        Ok(true)
    }

    fn free_child(&mut self, child: Child) -> Result<(), Error> {
        match child {
            Child::Page(id) => self.pages.free_tree(id, 0),
            Child::Node(node) => match node.kind {
                Kind::Leaf(_) => Ok(()),
                Kind::Branch(children) => children.into_iter().try_for_each(|(_, child)| self.free_child(child)),
            },
        }
    }

    /// Inserts or replaces.
    pub fn put(&mut self, bucket: &[u8], key: Bytes, value: Bytes, fill: Fill) -> Result<(), Error> {
        check_key(&key)?;
        if value.len() > VALUE_MAX {
            return Err(Error::Misuse("a value is too large"));
        }
        self.bucket(bucket)?;
        failpoint::point!("beforeBucketPut");
        let bucket = self.buckets.get_mut(bucket).ok_or(Error::Misuse("no such bucket"))?;
        bucket.fill = fill;
        bucket.changed = true;
        let root = crate::node::load(&mut bucket.root, &mut self.pages)?;
        root.put(&mut self.pages, Item { key, value, flags: 0 })
    }

    /// The key's value as this transaction sees it.
    pub fn get(&mut self, bucket: &[u8], key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.bucket(bucket)?;
        match self.buckets.get(bucket).map(|b| &b.root) {
            Some(Child::Node(node)) => node.get(&self.pages, key),
            Some(Child::Page(id)) => self.pages.get(*id, key),
            None => Ok(None),
        }
    }

    /// Sets the bucket's sequence number, which etcd keeps at 0.
    pub fn set_sequence(&mut self, bucket: &[u8], sequence: u64) -> Result<(), Error> {
        let bucket = self.bucket(bucket)?;
        bucket.sequence = sequence;
        bucket.changed = true;
        Ok(())
    }

    /// Removes the key; whether it was there.
    pub fn delete(&mut self, bucket: &[u8], key: &[u8]) -> Result<bool, Error> {
        self.bucket(bucket)?;
        let bucket = self.buckets.get_mut(bucket).ok_or(Error::Misuse("no such bucket"))?;
        bucket.changed = true;
        let root = crate::node::load(&mut bucket.root, &mut self.pages)?;
        root.delete(&mut self.pages, key)
    }

    /// Makes everything durable. On an error the file still holds the state before.
    pub fn commit(self) -> Result<(), Error> {
        self.commit_paced(&|_| ())
    }

    /// The same, at the pace of others.
    pub fn commit_paced(mut self, pace: Pace<'_>) -> Result<(), Error> {
        let outcome = self.write_out(pace);
        self.finished = true;
        let mut state = self.db.state();
        state.writing = false;
        match outcome {
            Ok(meta) => {
                state.meta = meta;
                state.free = std::mem::take(&mut self.pages.free);
                Ok(())
            }
            Err(e) => {
                state.poisoned = true;
                Err(e)
            }
        }
    }

    fn write_out(&mut self, pace: Pace<'_>) -> Result<Meta, Error> {
        for (name, bucket) in std::mem::take(&mut self.buckets) {
            if bucket.changed {
                let value = self.spill_bucket(bucket, pace)?;
                self.root.put(&mut self.pages, Item { key: name, value, flags: BUCKET_FLAG })?;
            }
        }
        let root = std::mem::replace(&mut self.root, Node::empty());
        let root = match spill_tree(root, &mut self.pages, Fill::Half, pace)? {
            Child::Page(id) => id,
            Child::Node(node) => node.write(&mut self.pages)?,
        };
        let meta = Meta { root, freelist: NO_FREELIST, hwm: self.pages.hwm, txid: self.meta.txid + 1, ..self.meta };
        self.write_pages(&meta, pace)?;
        Ok(meta)
    }

    /// Writes the bucket's tree; answers its header, with the tree inside when it is small.
    fn spill_bucket(&mut self, bucket: Bucket, pace: Pace<'_>) -> Result<Bytes, Error> {
        let header = |root: u64| {
            let mut value = root.to_le_bytes().to_vec();
            value.extend(bucket.sequence.to_le_bytes());
            value
        };
        let node = match bucket.root {
            Child::Page(id) => return Ok(header(id).into()),
            Child::Node(node) => *node,
        };
        match spill_tree(node, &mut self.pages, bucket.fill, pace)? {
            Child::Page(id) => Ok(header(id).into()),
            Child::Node(node) if fits_inline(&node, self.db.page_size) => {
                let mut value = header(0);
                value.extend(node.encode(0, 1)?);
                Ok(value.into())
            }
            Child::Node(node) => Ok(header(node.write(&mut self.pages)?).into()),
        }
    }

    fn write_pages(&mut self, meta: &Meta, pace: Pace<'_>) -> Result<(), Error> {
        let size = self.db.page_size as u64;
        self.grow((meta.hwm + 1) * size)?;
        let dirty = std::mem::take(&mut self.pages.dirty);
        let mut run: Vec<u8> = Vec::new();
        let (mut at, mut unsynced) = (0, 0);
        for (id, bytes) in dirty {
            self.db.forget(id);
            for inner in 1..bytes.len() as u64 / size {
                self.db.forget(id + inner);
            }
            if !run.is_empty() && (at + run.len() as u64 != id * size || run.len() >= SYNC_EVERY) {
                self.db.file.write_at(&run, at).map_err(Error::io("write pages"))?;
                unsynced += run.len();
                run.clear();
                if unsynced >= SYNC_EVERY {
                    self.sync()?;
                    unsynced = 0;
                }
            }
            if run.is_empty() {
                at = id * size;
            }
            pace(bytes.len());
            run.extend(bytes);
        }
        if !run.is_empty() {
            self.db.file.write_at(&run, at).map_err(Error::io("write pages"))?;
        }
        failpoint::point!("beforeSyncDataPages");
        self.sync()?;
        failpoint::point!("beforeWriteMetaError", |v| return Err(Error::io("write a meta page")(injected(&v))));
        let slot = meta.txid % 2;
        self.db.file.write_at(&meta.encode(slot), slot * size).map_err(Error::io("write a meta page"))?;
        failpoint::point!("beforeSyncMetaPage");
        self.sync()
    }

    fn sync(&self) -> Result<(), Error> {
        match self.db.options.no_sync {
            true => Ok(()),
            false => self.db.file.sync_data().map_err(Error::io("sync the database file")),
        }
    }

    fn grow(&mut self, needed: u64) -> Result<(), Error> {
        let len = self.db.state().file_len;
        if needed <= len {
            return Ok(());
        }
        failpoint::point!("lackOfDiskSpace", |v| return Err(Error::io("grow the database file")(injected(&v))));
        failpoint::point!("resizeFileError", |v| return Err(Error::io("grow the database file")(injected(&v))));
        let mut target = needed.next_power_of_two();
        if needed > GROWTH_MAX {
            target = needed.div_ceil(GROWTH_MAX) * GROWTH_MAX;
        }
        self.db.file.set_len(target).map_err(Error::io("grow the database file"))?;
        self.db.state().file_len = target;
        Ok(())
    }
}

impl Drop for WriteTx {
    fn drop(&mut self) {
        if !self.finished {
            self.base.txid();
            let mut state = self.db.state();
            state.writing = false;
        }
    }
}

/// The disk's error that a failpoint stands for.
#[cfg(feature = "failpoints")]
fn injected(value: &failpoint::Value) -> std::io::Error {
    std::io::Error::other(value.to_string())
}

fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::Misuse("a key is empty")),
        n if n > KEY_MAX => Err(Error::Misuse("a key is longer than 32768 bytes")),
        _ => Ok(()),
    }
}

/// The root tree is small (etcd has ten buckets): it is decoded whole and written by every commit.
fn load_root(pages: &mut Pages, id: u64) -> Result<Node, Error> {
    pages.take(id)
}

fn find(root: &mut Node, pages: &mut Pages, key: &[u8]) -> Result<Option<Bytes>, Error> {
    let mut node = root;
    for _ in 0..DEPTH_MAX {
        match &mut node.kind {
            Kind::Leaf(items) => {
                let found = items.iter().find(|i| i.key == key && i.flags & BUCKET_FLAG != 0);
                return Ok(found.map(|i| i.value.clone()));
            }
            Kind::Branch(children) => {
                let at = crate::node::child_index(children, key);
                node = crate::node::load(&mut children[at].1, pages)?;
            }
        }
    }
    Err(Error::corrupt(0, 0, "the tree is too deep: a cycle"))
}

/// Merges, splits and writes until one root is left: a page, or a node that fits one page and is not yet written.
fn spill_tree(mut node: Node, pages: &mut Pages, fill: Fill, pace: Pace<'_>) -> Result<Child, Error> {
    node.rebalance(pages)?;
    loop {
        match &mut node.kind {
            Kind::Branch(children) if children.is_empty() => return Ok(Child::Node(Box::new(Node::empty()))),
            Kind::Branch(children) if children.len() == 1 => match children.remove(0).1 {
                Child::Page(id) => return Ok(Child::Page(id)),
                Child::Node(child) => {
                    node = *child;
                    continue;
                }
            },
            Kind::Leaf(items) if items.len() <= 4 || fits_a_page(items, pages.page_size()) => {
                return Ok(Child::Node(Box::new(node)));
            }
            _ => {}
        }
        let parts = node.spill(pages, fill, pace)?;
        match parts.as_slice() {
            [] => return Ok(Child::Node(Box::new(Node::empty()))),
            [(_, id)] => return Ok(Child::Page(*id)),
            _ => {}
        }
        let children = parts.into_iter().map(|(key, id)| (key, Child::Page(id))).collect();
        node = Node { kind: Kind::Branch(children), unbalanced: false };
    }
}

/// Whether a leaf needs no split.
fn fits_a_page(items: &[Item], page_size: usize) -> bool {
    HEADER + items.iter().map(|i| ELEMENT + i.key.len() + i.value.len()).sum::<usize>() < page_size
}

/// bbolt's rule: a leaf without sub-buckets that takes at most a quarter of a page.
fn fits_inline(node: &Node, page_size: usize) -> bool {
    match &node.kind {
        Kind::Leaf(items) => node.size() <= page_size / 4 && items.iter().all(|i| i.flags & BUCKET_FLAG == 0),
        Kind::Branch(_) => false,
    }
}

impl Db {
    /// Copies everything into a new file, in key order, well filled, and leaves no free page (etcd's defragmentation).
    /// The target is durable when this returns.
    pub fn copy_to(&self, target: &Db, pace: Pace<'_>) -> Result<(), Error> {
        const BATCH: usize = 10_000;
        let view = self.view();
        for name in view.buckets()? {
            let mut tx = target.begin()?;
            tx.create_bucket(&name)?;
            let mut n = 0;
            tx.set_sequence(&name, view.sequence(&name)?.unwrap_or(0))?;
            let mut range = view.range(&name, Bound::Unbounded, Bound::Unbounded)?;
            while let Some((key, value, flags)) = range.advance()? {
                if flags & BUCKET_FLAG != 0 {
                    return Err(Error::Misuse("buckets inside buckets can't be copied; etcd makes none"));
                }
                pace(key.len() + value.len());
                tx.put(&name, key, value, Fill::Append)?;
                n += 1;
                if n == BATCH {
                    tx.commit_paced(pace)?;
                    n = 0;
                    tx = target.begin()?;
                }
            }
            tx.commit_paced(pace)?;
        }
        // The meta before the last one has it all, too: who can't read the last one must not go on with half of a copy.
        target.begin()?.commit_paced(pace)
    }

    /// [`Db::copy_to`] a file that must not exist yet, of the same page size. It is durable and closed on return.
    pub fn compact_to(&self, disk: SharedDisk, path: &Path) -> Result<(), Error> {
        if disk.exists(path).map_err(Error::io("stat the target file"))? {
            return Err(Error::Misuse("the target file exists"));
        }
        let options = Options { page_size: Some(self.page_size()), ..self.0.options.clone() };
        let target = Db::open(disk, path, Options { read_only: false, ..options })?;
        self.copy_to(&target, &|_| ())
    }
}
