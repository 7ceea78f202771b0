//! The key index: for every key its revisions, newest first to hand.
//!
//! A key's newest revision lives in the tree itself; older ones hang behind it in chunks, so that a clone of the tree
//! costs the writer at most one chunk per key. `version` 0 is a tombstone. A key counts (weighs) while it lives.

use crate::tree::{Tree, Weigh};
use bytes::Bytes;
use std::sync::Arc;

const CHUNK: usize = 32;

/// Main revision and the change's number inside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rev {
    pub main: i64,
    pub sub: i64,
}

/// One revision of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Item {
    pub rev: Rev,
    pub created: i64,
    /// 0 is a tombstone.
    pub version: i64,
}

#[derive(Clone, Debug)]
struct Chunk {
    /// Ascending.
    items: Vec<Item>,
    before: Option<Arc<Chunk>>,
}

/// A key's revisions.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub last: Item,
    older: Option<Arc<Chunk>>,
}

impl Weigh for History {
    fn weight(&self) -> usize {
        usize::from(self.last.version > 0)
    }
}

impl History {
    pub fn new(last: Item) -> History {
        History { last, older: None }
    }

    pub fn push(&mut self, item: Item) {
        let old = std::mem::replace(&mut self.last, item);
        match &mut self.older {
            Some(chunk) if chunk.items.len() < CHUNK => Arc::make_mut(chunk).items.push(old),
            older => *older = Some(Arc::new(Chunk { items: vec![old], before: older.take() })),
        }
    }

    /// Newest first.
    fn items(&self) -> impl Iterator<Item = &Item> {
        let chunks = std::iter::successors(self.older.as_deref(), |c| c.before.as_deref());
        std::iter::once(&self.last).chain(chunks.flat_map(|c| c.items.iter().rev()))
    }

    /// The newest revision at or below `main`, a tombstone too.
    pub fn at(&self, main: i64) -> Option<&Item> {
        self.items().find(|i| i.rev.main <= main)
    }

    /// Whether compaction at `main` keeps `rev`: newer, or the newest at or below, unless a tombstone below `main`.
    pub fn keeps(&self, rev: Rev, main: i64) -> bool {
        rev.main > main || self.at(main).is_some_and(|i| i.rev == rev && (i.version > 0 || rev.main == main))
    }

    /// What compaction at `main` leaves; `None` when nothing.
    fn compact(&self, main: i64) -> Option<History> {
        let mut kept: Vec<Item> = self.items().filter(|i| i.rev.main > main).copied().collect();
        kept.extend(self.at(main).filter(|i| i.version > 0 || i.rev.main == main));
        let mut kept = kept.into_iter().rev();
        let mut history = History::new(kept.next()?);
        kept.for_each(|item| history.push(item));
        Some(history)
    }

    fn has_old(&self, main: i64) -> bool {
        self.last.rev.main <= main && (self.older.is_some() || self.last.version == 0)
            || self.older.as_ref().is_some_and(|c| {
                std::iter::successors(Some(&**c), |c| c.before.as_deref()).any(|c| c.items[0].rev.main <= main)
            })
    }
}

/// All keys.
#[derive(Clone, Debug, Default)]
pub struct KeyIndex(Tree<Bytes, History>);

/// Keys `[key, end)`; what etcd's key and range_end say.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pub key: &'a Bytes,
    pub end: &'a Bytes,
}

impl Span<'_> {
    /// Whether it names one key.
    pub fn is_point(&self) -> bool {
        self.end.is_empty()
    }

    fn open_ended(&self) -> bool {
        self.end.as_ref() == [0]
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        match self.is_point() {
            true => key == self.key.as_ref(),
            false => key >= self.key.as_ref() && (self.open_ended() || key < self.end.as_ref()),
        }
    }
}

impl KeyIndex {
    pub fn get(&self, key: &Bytes) -> Option<&History> {
        self.0.get(key)
    }

    /// Records a put: answers created revision and version of it.
    pub fn put(&mut self, key: &Bytes, rev: Rev) -> (i64, i64) {
        self.0.update(key.clone(), |slot| {
            let (created, version) = match slot {
                Some(h) if h.last.version > 0 => (h.last.created, h.last.version + 1),
                _ => (rev.main, 1),
            };
            extend(slot, Item { rev, created, version });
            (created, version)
        })
    }

    pub fn tombstone(&mut self, key: &Bytes, rev: Rev) {
        self.0.update(key.clone(), |slot| extend(slot, Item { rev, created: 0, version: 0 }));
    }

    /// A revision read back at start, in ascending order.
    pub fn restore(&mut self, key: Bytes, item: Item) {
        self.0.update(key, |slot| extend(slot, item));
    }

    /// Live keys of the span at `main`, ascending, with their item.
    pub fn live<'a>(&'a self, span: Span<'a>, main: i64) -> impl Iterator<Item = (&'a Bytes, &'a Item)> + 'a {
        let found = self.0.range_from(span.key).take_while(move |(key, _)| span.contains(key));
        found.filter_map(move |(key, h)| Some((key, h.at(main)?))).filter(|(_, item)| item.version > 0)
    }

    /// Live keys of the span now, in O(log n).
    pub fn count(&self, span: Span<'_>) -> usize {
        if span.is_point() {
            return self.get(span.key).map_or(0, Weigh::weight);
        }
        if !span.open_ended() && span.end <= span.key {
            return 0;
        }
        let to = if span.open_ended() { self.0.weight() } else { self.0.weight_before(span.end) };
        to - self.0.weight_before(span.key)
    }

    /// Compacts up to `max` keys from `from` on; answers where to go on.
    pub fn compact(&mut self, main: i64, from: &Bytes, max: usize) -> Option<Bytes> {
        let mut todo = Vec::new();
        let mut next = None;
        for (n, (key, history)) in self.0.range_from(from).enumerate() {
            if n == max {
                next = Some(key.clone());
                break;
            }
            if history.has_old(main) {
                todo.push((key.clone(), history.compact(main)));
            }
        }
        for (key, left) in todo {
            match left {
                Some(history) => drop(self.0.insert(key, history)),
                None => drop(self.0.remove(&key)),
            }
        }
        next
    }
}

fn extend(slot: &mut Option<History>, item: Item) {
    match slot {
        Some(history) => history.push(item),
        None => *slot = Some(History::new(item)),
    }
}
