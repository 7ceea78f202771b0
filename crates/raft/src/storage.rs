//! The stable part of the log, in memory.

use api::raft::{ConfState, Entry, HardState, Snapshot};
use std::collections::VecDeque;

/// Entries behind a base, the newest snapshot to send, and the hard state a restart began with.
///
/// Invariants: entries are contiguous from just behind the base; the base is what the log was cut back to, or the
/// snapshot it began with.
#[derive(Clone, Debug, Default)]
pub struct MemoryStorage {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Term and index before the first entry.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    /// Memory that the entries take.
    bytes: usize,
}

fn memory(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len()
}

impl MemoryStorage {
    /// Empty: for a node that waits to be added.
    pub fn new() -> MemoryStorage {
        MemoryStorage::default()
    }

    /// Begins at a snapshot, with the hard state that the log holds.
    pub fn restore(&mut self, snapshot: Snapshot, hard_state: HardState) {
        self.hard_state = hard_state;
        self.apply_snapshot(snapshot);
    }

    /// Replaces everything before and at the snapshot, and all entries.
    pub fn apply_snapshot(&mut self, snapshot: Snapshot) {
        self.base = (snapshot.metadata.term, snapshot.metadata.index);
        self.snapshot = snapshot;
        self.entries.clear();
        self.bytes = 0;
    }

    /// Makes a snapshot the one that is sent to followers which need entries that are gone. Entries stay.
    ///
    /// It should be at or past everything cut off by [`MemoryStorage::compact_behind`]: else it leads no follower
    /// back into the log, and none is sent. An older one than the present is ignored.
    pub fn set_snapshot(&mut self, snapshot: Snapshot) {
        if snapshot.metadata.index >= self.snapshot.metadata.index {
            self.snapshot = snapshot;
        }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The snapshot to send, if there is one from which the log can go on.
    pub(crate) fn snapshot_to_send(&self) -> Option<&Snapshot> {
        (!self.snapshot.is_empty() && self.snapshot.metadata.index >= self.base.1).then_some(&self.snapshot)
    }

    /// The hard state that a restart begins with.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The configuration as of the newest snapshot.
    pub fn conf_state(&self) -> &ConfState {
        &self.snapshot.metadata.conf_state
    }

    /// Index of the first entry, or of the first to come.
    pub fn first_index(&self) -> u64 {
        self.base.1 + 1
    }

    /// Index of the last entry; the base's if there is none.
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
        self.extend(entries.iter().cloned());
    }

    pub(crate) fn extend(&mut self, entries: impl Iterator<Item = Entry>) {
        let first_index = self.first_index();
        let mut entries = entries.skip_while(|e| e.index < first_index).peekable();
        let Some(first) = entries.peek().map(|e| e.index) else { return };
        assert!(first <= self.last_index() + 1, "entries before {first} are missing");
        for replaced in self.entries.drain((first - first_index) as usize..) {
            self.bytes -= memory(&replaced);
        }
        self.entries.extend(entries.inspect(|entry| self.bytes += memory(entry)));
    }

    /// What the entries take, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries `[low, high)` as far as they are there.
    pub(crate) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = &Entry> {
        let at = |index: u64| (index.saturating_sub(self.first_index()) as usize).min(self.entries.len());
        self.entries.range(at(low)..at(high).max(at(low)))
    }

    /// Entries `[low, high)`, up to `max_bytes` but at least one.
    pub fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Vec<Entry> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in self.range(low, high) {
            bytes += entry.encoded_len() as u64;
            if !found.is_empty() && bytes > max_bytes {
                break;
            }
            found.push(entry.clone());
        }
        found
    }

    /// Forgets entries that lie more than `keep` behind `index`, which must be applied, and then the oldest up to `index`
    /// until the rest takes no more than `keep_bytes`.
    pub fn compact_behind(&mut self, index: u64, keep: u64, keep_bytes: usize) {
        let (to, last) = (index.saturating_sub(keep), index.min(self.last_index()));
        while self.base.1 < last
            && (self.base.1 < to || self.bytes > keep_bytes)
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= memory(&entry);
            self.base = (entry.term, entry.index);
        }
    }
}
