//! Reading through the layers: changes not yet in the page store, changes being written to it, the page store.
//!
//! A layer maps revisions to `Some(bytes)` (tombstone or not) or to "deleted by compaction"; other buckets' keys
//! likewise. A layer is a persistent tree, so a published state costs nothing and is never changed.

use crate::Error;
use crate::index::Rev;
use crate::schema::{self, parse_revision, revision_key};
use crate::tree::{Tree, Weigh};
use bolt::Pace;
use bytes::Bytes;
use std::cell::Cell;
use std::ops::Bound;

/// A revision's bytes in bucket `key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub tombstone: bool,
    /// `None`: deleted by compaction.
    pub value: Option<Bytes>,
}

impl Weigh for Record {}
impl Weigh for Option<Bytes> {}

/// One layer of changes.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub revs: Tree<Vec<Rev>, Record>,
    pub other: Tree<Vec<(&'static str, Bytes)>, Option<Bytes>>,
    /// What the content will take in the page store.
    content_bytes: usize,
}

/// Page store bytes of a pair beside key and value (docs: bbolt's leaf element).
const ELEMENT_BYTES: usize = 16;
/// … of a revision's key.
const REVISION_BYTES: usize = 17;

impl Layer {
    pub fn is_empty(&self) -> bool {
        self.revs.is_empty() && self.other.is_empty()
    }

    /// Bytes that the page store takes for what the layer holds now: what was replaced or deleted again takes none,
    /// and a deletion of something stored takes none either.
    pub fn content_bytes(&self) -> usize {
        self.content_bytes
    }

    pub fn set_record(&mut self, rev: Rev, record: Record) {
        let new = pair_bytes(REVISION_BYTES, record.value.as_ref());
        let old = self.revs.insert(&rev, record).map_or(0, |old| pair_bytes(REVISION_BYTES, old.value.as_ref()));
        self.replace(old, new);
    }

    pub fn set(&mut self, bucket: &'static str, key: Bytes, value: Option<Bytes>) {
        let key_len = key.len();
        let new = pair_bytes(key_len, value.as_ref());
        let old = self.other.insert(&(bucket, key), value).map_or(0, |old| pair_bytes(key_len, old.as_ref()));
        self.replace(old, new);
    }

    fn replace(&mut self, old: usize, new: usize) {
        self.content_bytes = self.content_bytes + new - old;
    }
}

fn pair_bytes(key_len: usize, value: Option<&Bytes>) -> usize {
    value.map_or(0, |value| key_len + value.len() + ELEMENT_BYTES)
}

/// Tombstone or not, and its bytes; `None`: deleted.
type Stored = Option<(bool, Bytes)>;

/// All layers of one state, newest first.
#[derive(Clone, Debug)]
pub struct Backend {
    pub active: Layer,
    pub frozen: Layer,
    pub view: bolt::View,
}

/// Where the value of a live (put) revision comes from.
pub trait Records {
    type Error: From<Error>;

    fn put_record(&self, rev: Rev) -> Result<Option<Bytes>, Self::Error>;
}

impl Records for Backend {
    type Error = Error;

    fn put_record(&self, rev: Rev) -> Result<Option<Bytes>, Error> {
        match self.recent(rev) {
            Some(record) => Ok(record.value.clone()),
            None => Ok(self.view.get(schema::KEY.as_bytes(), &revision_key(rev, false))?),
        }
    }
}

/// All records, for those who have time and others who have less.
pub struct Unhurried<'a> {
    pub backend: &'a Backend,
    pub pace: Pace<'a>,
}

impl Records for Unhurried<'_> {
    type Error = Error;

    fn put_record(&self, rev: Rev) -> Result<Option<Bytes>, Error> {
        let value = self.backend.put_record(rev)?;
        (self.pace)(value.as_ref().map_or(0, Bytes::len));
        Ok(value)
    }
}

/// The records that are in memory, a few of them: for those who have other work waiting.
pub struct AtOnce<'a> {
    backend: &'a Backend,
    /// What may still be looked at.
    left: Cell<usize>,
}

/// Why there is no answer at once.
#[derive(Debug)]
pub enum NotAtOnce {
    /// The device would have to be waited for, or it is too much.
    Later,
    Failed(Error),
}

impl From<Error> for NotAtOnce {
    fn from(e: Error) -> Self {
        NotAtOnce::Failed(e)
    }
}

impl<'a> AtOnce<'a> {
    /// Bytes of records, about 100 µs' worth.
    const BUDGET: usize = 64 << 10;
    /// What finding a record costs, as bytes: its way through the pages.
    const FIND: usize = 2 << 10;

    pub fn new(backend: &'a Backend) -> AtOnce<'a> {
        AtOnce { backend, left: Cell::new(AtOnce::BUDGET) }
    }

    fn spend(&self, bytes: usize) -> Result<(), NotAtOnce> {
        let left = self.left.get().checked_sub(bytes).ok_or(NotAtOnce::Later)?;
        self.left.set(left);
        Ok(())
    }
}

impl Records for AtOnce<'_> {
    type Error = NotAtOnce;

    fn put_record(&self, rev: Rev) -> Result<Option<Bytes>, NotAtOnce> {
        self.spend(AtOnce::FIND)?;
        let value = match self.backend.recent(rev) {
            Some(record) => record.value.clone(),
            None => match self.backend.view.get_at_once(schema::KEY.as_bytes(), &revision_key(rev, false)) {
                Ok(value) => value,
                Err(bolt::Error::NotInMemory) => return Err(NotAtOnce::Later),
                Err(e) => return Err(NotAtOnce::Failed(e.into())),
            },
        };
        self.spend(value.as_ref().map_or(0, Bytes::len))?;
        Ok(value)
    }
}

impl Backend {
    /// A revision that the page store lacks.
    fn recent(&self, rev: Rev) -> Option<&Record> {
        [&self.active, &self.frozen].into_iter().find_map(|layer| layer.revs.get(&rev))
    }

    pub fn get(&self, bucket: &'static str, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let at = (bucket, Bytes::copy_from_slice(key));
        for layer in [&self.active, &self.frozen] {
            if let Some(value) = layer.other.get(&at) {
                return Ok(value.clone());
            }
        }
        Ok(self.view.get(bucket.as_bytes(), key)?)
    }

    /// All pairs of a bucket other than `key`.
    pub fn pairs(&self, bucket: &'static str) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let stored = self.view.range(bucket.as_bytes(), Bound::Unbounded, Bound::Unbounded)?;
        let mut pairs = stored.collect::<Result<std::collections::BTreeMap<_, _>, _>>()?;
        for layer in [&self.frozen, &self.active] {
            let from = (bucket, Bytes::new());
            for ((_, key), value) in layer.other.range_from(&from).take_while(|((b, _), _)| *b == bucket) {
                match value {
                    Some(value) => drop(pairs.insert(key.clone(), value.clone())),
                    None => drop(pairs.remove(key)),
                }
            }
        }
        Ok(pairs.into_iter().collect())
    }

    /// Revisions from `from` on, ascending, merged from all layers.
    pub fn revisions(&self, from: Rev) -> Result<Revisions<'_>, Error> {
        let start = revision_key(from, false);
        let stored = self.view.range(schema::KEY.as_bytes(), Bound::Included(&start), Bound::Unbounded)?;
        let mut merged = Revisions {
            stored,
            layers: [self.active.revs.range_from(&from), self.frozen.revs.range_from(&from)],
            next_stored: None,
            next: [None, None],
        };
        merged.pull_stored()?;
        merged.next = [merged.layers[0].next(), merged.layers[1].next()];
        Ok(merged)
    }
}

type LayerIter<'a> = crate::tree::Iter<'a, Vec<Rev>, Record>;

/// Revisions in ascending order: revision, tombstone, bytes.
pub struct Revisions<'a> {
    stored: bolt::Range,
    layers: [LayerIter<'a>; 2],
    next_stored: Option<(Rev, bool, Bytes)>,
    next: [Option<(&'a Rev, &'a Record)>; 2],
}

impl Revisions<'_> {
    fn pull_stored(&mut self) -> Result<(), Error> {
        self.next_stored = match self.stored.next() {
            None => None,
            Some(pair) => {
                let (key, value) = pair?;
                let (rev, tombstone) = parse_revision(&key)
                    .ok_or_else(|| Error::Fatal(format!("bucket key holds {key:?}, which is no revision")))?;
                Some((rev, tombstone, value))
            }
        };
        Ok(())
    }

    /// The next revision.
    pub fn advance(&mut self) -> Result<Option<(Rev, bool, Bytes)>, Error> {
        loop {
            match self.step()? {
                None => return Ok(None),
                Some((rev, Some((tombstone, value)))) => return Ok(Some((rev, tombstone, value))),
                Some((_, None)) => {}
            }
        }
    }

    /// The next revision, be it one that was deleted and waits for a checkpoint: for those who bound their steps.
    pub fn step(&mut self) -> Result<Option<(Rev, Stored)>, Error> {
        let heads =
            [self.next[0].map(|(r, _)| *r), self.next[1].map(|(r, _)| *r), self.next_stored.as_ref().map(|s| s.0)];
        let Some(rev) = heads.iter().flatten().min().copied() else { return Ok(None) };
        let mut found = None;
        if heads[2] == Some(rev) {
            found = self.next_stored.take().map(|(_, tombstone, value)| (tombstone, value));
            self.pull_stored()?;
        }
        for i in [1, 0] {
            if heads[i] == Some(rev)
                && let Some((_, record)) = self.next[i]
            {
                found = record.value.clone().map(|value| (record.tombstone, value));
                self.next[i] = self.layers[i].next();
            }
        }
        Ok(Some((rev, found)))
    }
}
