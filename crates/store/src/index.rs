//! The key index: for every key its revisions, the newest first to hand.

use crate::key_history::History;
use crate::tree::{Strings, Tree, Weigh};
use bytes::Bytes;

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

/// All keys.
#[derive(Clone, Debug, Default)]
pub struct KeyIndex(Tree<Strings, History>);

/// Revisions on their way into the index. In the order of keys neighbours share the way down.
#[derive(Debug, Default)]
pub struct Batch {
    keys: Vec<u8>,
    /// Where in `keys` the key begins and ends.
    items: Vec<(usize, usize, Item)>,
}

impl Batch {
    /// Revisions, and bytes of keys, that make a batch worth its memory.
    const ITEMS: usize = 64 << 10;
    const BYTES: usize = 4 << 20;

    pub fn push(&mut self, key: &[u8], item: Item) {
        let start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.items.push((start, self.keys.len(), item));
    }

    pub fn is_full(&self) -> bool {
        self.items.len() >= Batch::ITEMS || self.keys.len() >= Batch::BYTES
    }
}

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
    pub fn get(&self, key: &[u8]) -> Option<&History> {
        self.0.get(key)
    }

    /// Records a put: answers created revision and version of it.
    pub fn put(&mut self, key: &[u8], rev: Rev) -> (i64, i64) {
        self.0.update(key, |slot| {
            let (created, version) = match slot {
                Some(h) if h.last.version > 0 => (h.last.created, h.last.version + 1),
                _ => (rev.main, 1),
            };
            extend(slot, Item { rev, created, version });
            (created, version)
        })
    }

    pub fn tombstone(&mut self, key: &[u8], rev: Rev) {
        self.0.update(key, |slot| extend(slot, Item { rev, created: 0, version: 0 }));
    }

    /// Takes in what was read back at start: of each key in ascending order of revisions, from one batch to the next,
    /// too.
    pub fn restore(&mut self, batch: &mut Batch) {
        let Batch { keys, items } = batch;
        let key = |&(start, end, _): &(usize, usize, Item)| &keys[start..end];
        // Stable: a key's revisions stay in order.
        items.sort_by(|a, b| key(a).cmp(key(b)));
        self.0.update_ascending(items.iter().map(|item| (key(item), item.2)), extend);
        keys.clear();
        items.clear();
    }

    /// Live keys of the span at `main`, ascending, with their item.
    pub fn live<'a>(&'a self, span: Span<'a>, main: i64) -> impl Iterator<Item = (&'a [u8], &'a Item)> + 'a {
        self.all(span).filter_map(move |(key, h)| Some((key, h.at(main)?))).filter(|(_, item)| item.version > 0)
    }

    /// Keys of the span, ascending, dead ones too.
    pub fn all<'a>(&'a self, span: Span<'a>) -> impl Iterator<Item = (&'a [u8], &'a History)> + 'a {
        // A single key takes no iterator with a stack.
        let one = span.is_point().then(|| Some((span.key.as_ref(), self.get(span.key)?))).flatten();
        let many = (!span.is_point()).then(|| self.0.range_from(span.key));
        let many = many.into_iter().flatten().take_while(move |(key, _)| span.contains(key));
        one.into_iter().chain(many)
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

    /// Compacts a piece of the index: looks at `max` keys and takes off `max` chunks of revisions, at most.
    pub fn compact(&mut self, main: i64, from: &Bytes, max: usize) -> Compacted {
        let mut found = self.look(main, from, max);
        let mut budget = max;
        for key in std::mem::take(&mut found.old) {
            if !self.0.update(&key, |slot| slot.as_mut().is_none_or(|h| h.compact(main, &mut budget))) {
                return Compacted { next: Some(key), ..found };
            }
            if self.get(&key).is_some_and(|h| h.is_gone(main)) {
                self.0.remove(&key);
            }
        }
        found
    }

    fn look(&self, main: i64, from: &Bytes, max: usize) -> Compacted {
        let mut found = Compacted::default();
        for (n, (key, history)) in self.0.range_from(from).enumerate() {
            if n == max {
                found.next = Some(Bytes::copy_from_slice(key));
                break;
            }
            found.keeps |= history.keeps_one(main);
            if history.has_old(main) {
                found.old.push(Bytes::copy_from_slice(key));
            }
        }
        found
    }
}

/// What a piece of the index's compaction found.
#[derive(Debug, Default)]
pub struct Compacted {
    /// Where to go on; `None` at the end.
    pub next: Option<Bytes>,
    /// Some key keeps a revision at or below the compacted one: Go's set of what is kept is not empty.
    pub keeps: bool,
    old: Vec<Bytes>,
}

fn extend(slot: &mut Option<History>, item: Item) {
    match slot {
        Some(history) => history.push(item),
        None => *slot = Some(History::new(item)),
    }
}
