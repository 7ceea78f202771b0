//! What survives a crash, in one form for both kinds of nodes.

use api::raft::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Disk {
    pub hard_state: HardState,
    pub snapshot: Snapshot,
    /// Behind the snapshot.
    pub entries: Vec<Entry>,
}

impl Disk {
    /// Empty, but for the first members.
    pub fn new(conf_state: ConfState) -> Disk {
        let metadata = SnapshotMetadata { conf_state, index: 0, term: 0 };
        Disk { snapshot: Snapshot { metadata, ..Snapshot::default() }, ..Disk::default() }
    }

    pub fn base(&self) -> u64 {
        self.snapshot.metadata.index
    }

    pub fn last(&self) -> u64 {
        self.base() + self.entries.len() as u64
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.base())? {
            0 => Some(self.snapshot.metadata.term),
            at => self.entries.get(at as usize - 1).map(|e| e.term),
        }
    }

    /// Entries `[low, high)`, as far as they are there.
    pub fn range(&self, low: u64, high: u64) -> &[Entry] {
        let at = |index: u64| (index.saturating_sub(self.base() + 1) as usize).min(self.entries.len());
        &self.entries[at(low)..at(high).max(at(low))]
    }

    pub fn write(&mut self, entries: &[Entry]) {
        for entry in entries {
            let at = entry.index.checked_sub(self.base() + 1).expect("behind the snapshot") as usize;
            assert!(at <= self.entries.len(), "a gap before {}", entry.index);
            assert!(at >= self.entries.len() || entry.index > self.hard_state.commit, "what is committed changes");
            self.entries.truncate(at);
            self.entries.push(entry.clone());
        }
    }

    pub fn install(&mut self, snapshot: &Snapshot) {
        self.snapshot = snapshot.clone();
        self.entries.clear();
    }

    /// Puts a snapshot in place of the entries up to `index`, which must be applied.
    pub fn compact(&mut self, index: u64, conf_state: ConfState) {
        let term = self.term(index).expect("applied, so it is here");
        self.entries.drain(..(index - self.base()) as usize);
        self.snapshot.metadata = SnapshotMetadata { conf_state, index, term };
    }
}
