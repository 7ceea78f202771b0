//! What a member's log holds, as its disk was told: which entries, and how far they are durable.

use api::raft::{Entry, Message};
use server::LogTask;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Shadow {
    entries: BTreeMap<u64, Entry>,
    /// A snapshot stands for everything up to here.
    base: u64,
    last: u64,
    /// Everything up to here survives whatever happens.
    synced: u64,
}

impl Shadow {
    /// What a member found in its log when it came up.
    pub fn found(base: u64, entries: Vec<Entry>) -> Shadow {
        let last = entries.last().map_or(base, |e| e.index);
        let entries = entries.into_iter().map(|e| (e.index, e)).collect();
        Shadow { entries, base, last, synced: last }
    }

    /// The log's writer is about to take the task; what it syncs is for [`Shadow::sync`] to say, afterwards.
    pub fn take(&mut self, task: &LogTask) {
        if let LogTask::Append(message) = task {
            self.append(message);
        }
    }

    fn append(&mut self, message: &Message) {
        if let Some(snapshot) = &message.snapshot {
            let index = snapshot.metadata.index;
            let synced = self.synced.min(index);
            *self = Shadow { entries: BTreeMap::new(), base: index, last: index, synced };
        }
        let Some(first) = message.entries.first() else { return };
        self.entries.split_off(&first.index);
        self.entries.extend(message.entries.iter().map(|e| (e.index, e.clone())));
        self.last = message.entries.last().map_or(self.last, |e| e.index);
        self.synced = self.synced.min(first.index - 1);
    }

    pub fn sync(&mut self) {
        self.synced = self.last;
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn synced(&self) -> u64 {
        self.synced
    }

    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(&index)
    }

    /// Whether the entry, or a snapshot that stands for it, is durable.
    pub fn holds(&self, index: u64, term: u64) -> bool {
        index <= self.base || index <= self.synced && self.entries.get(&index).is_some_and(|e| e.term == term)
    }

    /// What was durable must be there when the member comes back.
    ///
    /// # Errors
    /// It is not.
    pub fn survives_in(&self, found: &Shadow) -> Result<(), String> {
        if found.last < self.synced {
            return Err(format!("the log was durable up to {}, it comes back up to {}", self.synced, found.last));
        }
        for (index, entry) in self.entries.range(..=self.synced) {
            match found.entries.get(index) {
                Some(other) if other == entry => {}
                None if *index <= found.base => {}
                other => return Err(format!("durable was {entry:?}, it comes back as {other:?}")),
            }
        }
        Ok(())
    }
}
