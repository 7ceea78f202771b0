//! The stable part of the log, in memory.

use api::raft::{ConfState, Entry, HardState, Snapshot};
use std::collections::VecDeque;

/// Entries behind a snapshot, the snapshot's place, and the hard state a restart began with.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Term and index before the first entry.
    base: (u64, u64),
    entries: VecDeque<Entry>,
}

impl MemoryStorage {
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// Begins at a snapshot, with the hard state that the log holds.
    pub fn restore(&mut self, snapshot: Snapshot, hard_state: HardState) {
        self.base = (snapshot.metadata.term, snapshot.metadata.index);
        self.snapshot = snapshot;
        self.hard_state = hard_state;
        self.entries.clear();
    }

    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub fn conf_state(&self) -> &ConfState {
        &self.snapshot.metadata.conf_state
    }

    pub fn first_index(&self) -> u64 {
        self.base.1 + 1
    }

    pub fn last_index(&self) -> u64 {
        self.base.1 + self.entries.len() as u64
    }

    /// The term at an index; `None` outside the log.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.1 {
            return Some(self.base.0);
        }
        let at = index.checked_sub(self.first_index())?;
        self.entries.get(at as usize).map(|e| e.term)
    }

    /// Adds entries, replacing what stands at their indexes and after.
    ///
    /// # Panics
    /// If they leave a gap: the core never makes one.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last_index() + 1, "entries before {} are missing", first.index);
        let skip = self.first_index().saturating_sub(first.index) as usize;
        let entries = entries.get(skip..).unwrap_or_default();
        if let Some(first) = entries.first() {
            self.entries.truncate((first.index - self.first_index()) as usize);
            self.entries.extend(entries.iter().cloned());
        }
    }

    /// Entries `[low, high)`, up to `max_bytes` but at least one.
    pub fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Vec<Entry> {
        let from = low.saturating_sub(self.first_index()) as usize;
        let to = high.saturating_sub(self.first_index()) as usize;
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in self.entries.range(from..to.min(self.entries.len())) {
            bytes += entry.encoded_len() as u64;
            if !found.is_empty() && bytes > max_bytes {
                break;
            }
            found.push(entry.clone());
        }
        found
    }

    /// Forgets entries that lie more than `keep` behind `index`.
    pub fn compact_behind(&mut self, index: u64, keep: u64) {
        let to = index.saturating_sub(keep).min(self.last_index());
        while self.base.1 < to
            && let Some(entry) = self.entries.pop_front()
        {
            self.base = (entry.term, entry.index);
        }
    }
}
