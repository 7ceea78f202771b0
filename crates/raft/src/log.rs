//! The log's positions: what is stable, in flight, committed, being applied.
//!
//! ```text
//!  base ── stable ── in flight ── new          applied ≤ applying ≤ min(committed, stable)
//! ```

use crate::MemoryStorage;
use api::raft::Entry;

/// Stable entries in storage, unstable ones here.
#[derive(Debug)]
pub(crate) struct Log {
    pub storage: MemoryStorage,
    unstable: Vec<Entry>,
    /// Index of `unstable[0]`.
    offset: u64,
    /// Entries below this index were handed out to be stored.
    in_flight: u64,
    pub committed: u64,
    pub applying: u64,
    pub applied: u64,
}

impl Log {
    pub fn new(storage: MemoryStorage, applied: u64) -> Log {
        let next = storage.last_index() + 1;
        let committed = storage.hard_state().commit.max(applied);
        Log { storage, unstable: Vec::new(), offset: next, in_flight: next, committed, applying: applied, applied }
    }

    pub fn last_index(&self) -> u64 {
        self.offset + self.unstable.len() as u64 - 1
    }

    pub fn stable_index(&self) -> u64 {
        self.offset - 1
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.offset) {
            Some(at) => self.unstable.get(at as usize).map(|e| e.term),
            None => self.storage.term(index),
        }
    }

    pub fn last_term(&self) -> u64 {
        self.term(self.last_index()).unwrap_or(0)
    }

    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index() + 1, "entries are appended in order");
        self.unstable.push(entry);
    }

    /// Entries not yet handed out; they are in flight from now on.
    pub fn take_unstable(&mut self) -> Vec<Entry> {
        let from = (self.in_flight - self.offset) as usize;
        self.in_flight = self.last_index() + 1;
        self.unstable[from..].to_vec()
    }

    pub fn has_unstable(&self) -> bool {
        self.in_flight <= self.last_index()
    }

    /// The entry at `index`, of `term`, is durable, and so are all before it.
    pub fn stable_to(&mut self, index: u64, term: u64) {
        if index < self.offset || self.term(index) != Some(term) {
            return;
        }
        let stable: Vec<Entry> = self.unstable.drain(..(index - self.offset + 1) as usize).collect();
        self.storage.append(&stable);
        self.offset = index + 1;
    }

    pub fn commit_to(&mut self, index: u64) {
        assert!(index <= self.last_index(), "commit {index} is past the log's end {}", self.last_index());
        self.committed = self.committed.max(index);
    }

    fn appliable(&self) -> u64 {
        self.committed.min(self.stable_index())
    }

    pub fn has_committed(&self) -> bool {
        self.applying < self.appliable()
    }

    /// Committed and durable entries, up to `max_bytes`; they are being applied from now on.
    pub fn take_committed(&mut self, max_bytes: u64) -> Vec<Entry> {
        let entries = self.storage.entries(self.applying + 1, self.appliable() + 1, max_bytes);
        if let Some(last) = entries.last() {
            self.applying = last.index;
        }
        entries
    }
}
