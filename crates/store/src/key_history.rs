//! One key's revisions: the newest in hand, the older ones in chunks under a tree.
//!
//! ```text
//! older.chunks: [1 … 32] [33 … 64] … ─ older.tail: [… n-1] ─ last: n
//! ```
//!
//! Invariants: revisions ascend from the first chunk over the tail to `last`; a chunk's key is its first revision; no
//! chunk is empty, and a key without older revisions has no `older`.
//!
//! A key may have millions of revisions between two compactions. So finding one and taking off the oldest are
//! O(log n), a clone costs the writer one tail, and a drop goes no deeper than the tree is high: a list of chunks did
//! none of that, and its drop ran out of stack.

use crate::index::{Item, Rev};
use crate::tree::{Tree, Weigh};
use std::sync::Arc;

const CHUNK: usize = 32;

type Chunk = Arc<[Item]>;

impl Weigh for Chunk {}

/// A key's revisions. `version` 0 is a tombstone; the key counts (weighs) while it lives.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub last: Item,
    older: Option<Arc<Older>>,
}

#[derive(Clone, Debug, Default)]
struct Older {
    /// `None` for the many keys whose revisions fit into the tail.
    chunks: Option<Tree<Vec<Rev>, Chunk>>,
    /// At most [`CHUNK`].
    tail: Vec<Item>,
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
        Arc::make_mut(self.older.get_or_insert_default()).push(old);
    }

    /// The newest revision at or below `main`, a tombstone too.
    pub fn at(&self, main: i64) -> Option<&Item> {
        match self.last.rev.main <= main {
            true => Some(&self.last),
            false => self.older.as_ref()?.at(main),
        }
    }

    /// This very revision.
    pub fn find(&self, rev: Rev) -> Option<&Item> {
        let next = Rev { sub: rev.sub + 1, ..rev };
        self.before(next).filter(|item| item.rev == rev)
    }

    /// The newest revision before this one.
    pub fn before(&self, rev: Rev) -> Option<&Item> {
        match self.last.rev < rev {
            true => Some(&self.last),
            false => self.older.as_ref()?.before(rev),
        }
    }

    /// How many revisions there are.
    pub fn revisions(&self) -> usize {
        let older = self.older.as_deref();
        let chunks = older.and_then(|older| older.chunks.as_ref()).into_iter().flat_map(|chunks| chunks.iter());
        1 + chunks.map(|(_, chunk)| chunk.len()).sum::<usize>() + older.map_or(0, |older| older.tail.len())
    }

    /// Whether compaction at `main` leaves something at or below `main`: the newest there, unless it is a tombstone
    /// older than `main`.
    pub fn keeps_one(&self, main: i64) -> bool {
        self.at(main).is_some_and(|i| survives(i, main))
    }

    /// Whether compaction at `main` keeps `rev`. That one may be of an earlier life of the key, which is gone from here
    /// while its records wait to be deleted.
    pub fn keeps(&self, rev: Rev, main: i64) -> bool {
        rev.main > main || self.at(main).is_some_and(|i| i.rev == rev && survives(i, main))
    }

    /// Whether compaction at `main` has something to take off.
    pub fn has_old(&self, main: i64) -> bool {
        self.first().rev < self.first_kept(main)
    }

    /// Whether compaction at `main` leaves nothing of the key.
    pub fn is_gone(&self, main: i64) -> bool {
        self.last.rev < self.first_kept(main)
    }

    /// Takes off what compaction at `main` removes, oldest first and `budget` chunks at most; whether that was all.
    /// `last` stays in any case: see [`History::is_gone`].
    pub fn compact(&mut self, main: i64, budget: &mut usize) -> bool {
        let first_kept = self.first_kept(main);
        let Some(older) = &mut self.older else { return true };
        let older = Arc::make_mut(older);
        let done = older.take_off(first_kept, budget);
        if older.is_empty() {
            self.older = None;
        }
        done
    }

    /// Compaction at `main` removes the revisions below this one.
    fn first_kept(&self, main: i64) -> Rev {
        match self.at(main) {
            None => Rev::default(),
            Some(item) if survives(item, main) => item.rev,
            Some(tombstone) => Rev { sub: tombstone.rev.sub + 1, ..tombstone.rev },
        }
    }

    fn first(&self) -> &Item {
        self.older.as_ref().and_then(|older| older.first()).unwrap_or(&self.last)
    }
}

/// Whether a key's newest revision at or below `main` outlives a compaction there.
fn survives(newest: &Item, main: i64) -> bool {
    newest.version > 0 || newest.rev.main == main
}

impl Older {
    fn push(&mut self, item: Item) {
        if self.tail.len() == CHUNK {
            let full = std::mem::take(&mut self.tail);
            self.add(full.into());
        }
        // Most keys have few older revisions: room for four of them, as `Vec` begins, would be the most of an index's memory.
        if self.tail.len() == self.tail.capacity() {
            self.tail.reserve_exact((self.tail.len() / 2).clamp(1, CHUNK - self.tail.len()));
        }
        self.tail.push(item);
    }

    fn add(&mut self, chunk: Chunk) {
        if let Some(first) = chunk.first().map(|item| item.rev) {
            self.chunks.get_or_insert_default().insert(&first, chunk);
        }
    }

    fn at(&self, main: i64) -> Option<&Item> {
        let newest = |items: &'_ [Item]| items.partition_point(|i| i.rev.main <= main).checked_sub(1);
        if let Some(found) = newest(&self.tail) {
            return self.tail.get(found);
        }
        let (_, chunk) = self.chunks.as_ref()?.floor(&Rev { main, sub: i64::MAX })?;
        chunk.get(newest(chunk)?)
    }

    fn before(&self, rev: Rev) -> Option<&Item> {
        let newest = |items: &'_ [Item]| items.partition_point(|i| i.rev < rev).checked_sub(1);
        if let Some(found) = newest(&self.tail) {
            return self.tail.get(found);
        }
        let (_, chunk) = self.chunks.as_ref()?.floor(&Rev { sub: rev.sub - 1, ..rev })?;
        chunk.get(newest(chunk)?)
    }

    fn first_chunk(&self) -> Option<&Chunk> {
        self.chunks.as_ref()?.iter().next().map(|(_, chunk)| chunk)
    }

    fn first(&self) -> Option<&Item> {
        self.first_chunk().map_or(self.tail.first(), |chunk| chunk.first())
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_none() && self.tail.is_empty()
    }

    fn take_off(&mut self, first_kept: Rev, budget: &mut usize) -> bool {
        let old = |chunk: &&Chunk| chunk.first().is_some_and(|i| i.rev < first_kept);
        while let Some(chunk) = self.first_chunk().filter(old).cloned() {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            self.remove(&chunk);
            self.add(chunk.iter().copied().filter(|i| i.rev >= first_kept).collect());
        }
        self.tail.retain(|i| i.rev >= first_kept);
        self.tail.shrink_to_fit();
        true
    }

    fn remove(&mut self, chunk: &Chunk) {
        if let (Some(chunks), Some(first)) = (&mut self.chunks, chunk.first()) {
            chunks.remove(&first.rev);
            self.chunks.take_if(|chunks| chunks.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::floor_steps;

    fn item(main: i64, sub: i64, version: i64) -> Item {
        Item { rev: Rev { main, sub }, created: 1, version }
    }

    fn history(revisions: i64) -> History {
        let mut history = History::new(item(1, 0, 1));
        (2..=revisions).for_each(|n| history.push(item(n, 0, n)));
        history
    }

    /// All that is kept, as a list would have it.
    fn naive(items: &[Item], main: i64) -> Vec<Item> {
        let newest = items.iter().rfind(|i| i.rev.main <= main);
        let stays = newest.filter(|i| i.version > 0 || i.rev.main == main);
        items.iter().filter(|i| i.rev.main > main || Some(*i) == stays).copied().collect()
    }

    fn items(history: &History) -> Vec<Item> {
        let older = history.older.as_deref();
        let chunks = older.and_then(|o| o.chunks.as_ref()).into_iter().flat_map(|c| c.iter());
        let chunked = chunks.flat_map(|(_, chunk)| chunk.iter());
        chunked.chain(older.into_iter().flat_map(|o| &o.tail)).chain([&history.last]).copied().collect()
    }

    #[test]
    fn a_history_of_millions_is_dropped_on_a_small_stack() {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        thread.spawn(|| drop(history(5_000_000))).unwrap().join().unwrap();
    }

    #[test]
    fn looking_up_any_revision_of_a_hot_key_takes_a_few_steps() {
        let history = history(300_000);
        for main in [1, 33, 150_000, 299_999] {
            let before = floor_steps();
            assert_eq!(history.at(main).unwrap().rev.main, main);
            assert!(history.keeps(Rev { main, sub: 0 }, main) && !history.keeps(Rev { main: main - 1, sub: 0 }, main));
            let steps = floor_steps() - before;
            assert!(steps <= 5 * 3, "{steps} nodes of the tree for three look-ups");
        }
    }

    #[test]
    fn compaction_takes_off_at_most_its_budget_at_once() {
        let mut history = history(100_000);
        let mut rounds = 0;
        loop {
            let before = items(&history).len();
            let mut budget = 10;
            let done = history.compact(99_000, &mut budget);
            assert!(before - items(&history).len() <= 10 * CHUNK + CHUNK, "a tail beyond the chunks");
            assert_eq!(history.at(99_000).unwrap().rev.main, 99_000, "readable all the time");
            rounds += 1;
            if done {
                break;
            }
        }
        assert_eq!(rounds, (99_000_usize / CHUNK).div_ceil(10));
        assert!(!history.has_old(99_000) && !history.is_gone(99_000));
        assert_eq!(items(&history).first().unwrap().rev.main, 99_000);
    }

    #[test]
    fn it_keeps_what_a_list_would_keep() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % n) as i64
        };
        for _ in 0..300 {
            let mut list = vec![item(1, 0, 1)];
            let mut history = History::new(list[0]);
            let mut rev = Rev { main: 1, sub: 0 };
            for _ in 0..draw(400) {
                rev = match draw(4) {
                    0 => Rev { sub: rev.sub + 1, ..rev },
                    _ => Rev { main: rev.main + 1 + draw(3), sub: draw(2) },
                };
                let next = item(rev.main, rev.sub, if draw(5) == 0 { 0 } else { 1 });
                list.push(next);
                history.push(next);
                let main = draw(rev.main as u64 + 2);
                assert_eq!(history.at(main), list.iter().rfind(|i| i.rev.main <= main));
            }
            let main = draw(rev.main as u64 + 2);
            let kept = naive(&list, main);
            assert_eq!(history.has_old(main), kept.len() < list.len());
            assert_eq!(history.keeps_one(main), kept.iter().any(|i| i.rev.main <= main));
            for i in &list {
                assert_eq!(history.keeps(i.rev, main), kept.contains(i), "{i:?} at {main}");
            }
            let published = history.clone();
            while !history.compact(main, &mut 1) {}
            assert_eq!(history.is_gone(main), kept.is_empty());
            if !kept.is_empty() {
                assert_eq!(items(&history), kept);
            }
            assert_eq!(items(&published), list);
        }
    }

    /// Simulation seed 293: a key that was gone is put again between the index's and the records' turn.
    #[test]
    fn a_record_of_an_earlier_life_is_not_kept_for_the_new_one() {
        let reborn = History::new(item(9, 0, 1));
        assert!(!reborn.keeps(Rev { main: 3, sub: 0 }, 5));
        assert!(reborn.keeps(Rev { main: 9, sub: 0 }, 5));
    }
}
