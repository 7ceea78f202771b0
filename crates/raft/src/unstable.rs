//! The part of the log that is not known to be durable: entries, and perhaps a snapshot that replaces all before.
//!
//! ```text
//!        offset          offset_in_progress         last + 1
//!  stable │ handed out to be stored │ not handed out yet │
//! ```
//! Invariants: entries are contiguous from `offset`; `offset ≤ offset_in_progress ≤ last + 1`; with a snapshot,
//! `offset` is past its index, and no entry becomes stable before the snapshot does.

use crate::MemoryStorage;
use crate::logging::{Logs, note};
use api::raft::{Entry, Snapshot};
use std::collections::VecDeque;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Unstable {
    snapshot: Option<Snapshot>,
    snapshot_in_progress: bool,
    entries: VecDeque<Entry>,
    pub offset: u64,
    pub offset_in_progress: u64,
}

impl Unstable {
    /// Nothing is unstable; the next entry has this index.
    pub fn new(offset: u64) -> Unstable {
        Unstable {
            snapshot: None,
            snapshot_in_progress: false,
            entries: VecDeque::new(),
            offset,
            offset_in_progress: offset,
        }
    }

    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn last_index(&self) -> u64 {
        self.offset + self.entries.len() as u64 - 1
    }

    /// `None` outside; a snapshot knows its own.
    pub fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.offset) {
            Some(at) => self.entries.get(at as usize).map(|e| e.term),
            None => self.snapshot.as_ref().filter(|s| s.metadata.index == index).map(|s| s.metadata.term),
        }
    }

    /// Entries from `low`, which must be at or past `offset`.
    pub fn iter_from(&self, low: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range((low - self.offset) as usize..)
    }

    /// Entries to be stored that nobody was told of yet.
    pub fn next_entries(&self) -> Vec<Entry> {
        self.iter_from(self.offset_in_progress).cloned().collect()
    }

    pub fn has_next_entries(&self) -> bool {
        self.offset_in_progress <= self.last_index()
    }

    /// The snapshot to be stored, if nobody was told of it yet.
    pub fn next_snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref().filter(|_| !self.snapshot_in_progress)
    }

    /// What `next_*` answered is being stored.
    pub fn accept_in_progress(&mut self) {
        self.offset_in_progress = self.last_index() + 1;
        self.snapshot_in_progress = self.snapshot.is_some();
    }

    /// Adds entries; what stands at their indexes and after goes, even if it is being stored: the completion of
    /// that carries another term and is ignored.
    pub fn truncate_and_append(&mut self, entries: Vec<Entry>, logs: &mut Logs) {
        let Some(first) = entries.first().map(|e| e.index) else { return };
        let next = self.last_index() + 1;
        assert!(first <= next, "entries before {first} are missing");
        if first <= self.offset && first < next {
            note!(logs, Info, "replace the unstable entries from index {first}");
            self.entries.clear();
            self.offset = first;
        } else if first < next {
            note!(logs, Info, "truncate the unstable entries before index {first}");
            self.entries.truncate((first - self.offset) as usize);
        }
        self.offset_in_progress = self.offset_in_progress.min(first);
        self.entries.extend(entries);
    }

    /// A snapshot takes the place of everything.
    pub fn restore(&mut self, snapshot: Snapshot) {
        *self = Unstable::new(snapshot.metadata.index + 1);
        self.snapshot = Some(snapshot);
    }

    /// The entry at `index`, of `term`, is durable, and so are all before it: they move to storage. Ignored if
    /// another entry stands there by now: the one stored may have been overwritten (an "ABA" of terms).
    pub fn stable_to(&mut self, index: u64, term: u64, storage: &mut MemoryStorage, logs: &mut Logs) {
        let Some(own) = self.term(index) else {
            note!(logs, Info, "entry at index {index} missing from unstable log; ignoring");
            return;
        };
        if index < self.offset || self.snapshot.is_some() {
            note!(logs, Info, "entry at index {index} matched unstable snapshot; ignoring");
            return;
        }
        if own != term {
            note!(
                logs,
                Info,
                "entry at (index,term)=({index},{term}) mismatched with entry at ({index},{own}) in unstable log; ignoring"
            );
            return;
        }
        let count = (index + 1 - self.offset) as usize;
        storage.extend(self.entries.drain(..count));
        self.offset = index + 1;
        self.offset_in_progress = self.offset_in_progress.max(self.offset);
        // A burst's room is not kept for ever.
        if self.entries.is_empty() && self.entries.capacity() > 4096 {
            self.entries.shrink_to(64);
        }
    }

    /// The snapshot at `index` is durable: it moves to storage. Ignored if a newer one took its place.
    pub fn stable_snapshot_to(&mut self, index: u64, storage: &mut MemoryStorage) {
        if let Some(snapshot) = self.snapshot.take_if(|s| s.metadata.index == index) {
            self.snapshot_in_progress = false;
            storage.apply_snapshot(snapshot);
        }
    }
}
