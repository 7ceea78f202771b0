//! The log: stable entries in storage, unstable ones behind them, and how far they are committed and applied.
//!
//! ```text
//!  first ── storage ── unstable ── last       applied ≤ applying ≤ committed ≤ last
//! ```
//! Invariants: what is committed never changes. With asynchronous storage writes an entry is applied only when it
//! is committed **and** durable here. Bytes handed to apply and not applied yet stay within a limit, but for one
//! entry.

use crate::MemoryStorage;
use crate::logging::{Logs, note};
use crate::unstable::Unstable;
use api::raft::{Entry, Snapshot};
use std::collections::VecDeque;

/// A part handed out to be applied.
#[derive(Debug)]
struct Applying {
    last_index: u64,
    /// Of encoded entries, for the limit of what is being applied.
    bytes: u64,
    /// Of their data, for the limit of what is proposed and uncommitted.
    payload: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Log {
    pub storage: MemoryStorage,
    pub unstable: Unstable,
    pub committed: u64,
    pub applying: u64,
    pub applied: u64,
    in_apply: VecDeque<Applying>,
    applying_bytes: u64,
    applying_bytes_max: u64,
    /// Whether apply has enough to do; until something is applied nothing more is handed out.
    apply_paused: bool,
}

/// Bytes that a proposal counts for.
pub(crate) fn payload(entries: &[Entry]) -> u64 {
    entries.iter().map(|e| e.data.len() as u64).sum()
}

impl Log {
    /// `storage` holds everything up to `committed`; entries up to `applied` are applied.
    pub fn new(storage: MemoryStorage, committed: u64, applied: u64, applying_bytes_max: u64) -> Log {
        let (base, next) = (storage.first_index() - 1, storage.last_index() + 1);
        let applied = applied.max(base);
        let committed = committed.max(applied);
        assert!(committed < next, "commit index {committed} is past the end of the log at {}", next - 1);
        Log {
            storage,
            unstable: Unstable::new(next),
            committed,
            applying: applied,
            applied,
            in_apply: VecDeque::new(),
            applying_bytes: 0,
            applying_bytes_max,
            apply_paused: false,
        }
    }

    pub fn first_index(&self) -> u64 {
        match self.unstable.snapshot() {
            Some(snapshot) => snapshot.metadata.index + 1,
            None => self.storage.first_index(),
        }
    }

    pub fn last_index(&self) -> u64 {
        self.unstable.last_index()
    }

    /// `None` before the log and after it; the index before the first entry still has its term.
    pub fn term(&self, index: u64) -> Option<u64> {
        if let Some(term) = self.unstable.term(index) {
            return Some(term);
        }
        let inside = index >= self.first_index() - 1 && index < self.unstable.offset;
        inside.then(|| self.storage.term(index)).flatten()
    }

    pub fn last_term(&self) -> u64 {
        self.term(self.last_index()).unwrap_or(0)
    }

    fn matches(&self, index: u64, term: u64) -> bool {
        self.term(index) == Some(term)
    }

    /// Whether a log that ends so holds at least what this one does (Raft paper, 5.4.1).
    pub fn is_up_to_date(&self, last_index: u64, last_term: u64) -> bool {
        failpoint::mutant!("voteForShorterLog") || (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    /// Entries `[low, high)` up to `max_bytes`, but at least one; `None` if some are no longer in the log.
    pub fn entries(&self, low: u64, high: u64, max_bytes: u64) -> Option<Vec<Entry>> {
        self.entries_and_size(low, high, max_bytes).map(|(entries, _)| entries)
    }

    /// As [`Log::entries`], with their encoded bytes.
    fn entries_and_size(&self, low: u64, high: u64, max_bytes: u64) -> Option<(Vec<Entry>, u64)> {
        if low < self.first_index() {
            return None;
        }
        let high = high.min(self.last_index() + 1);
        let offset = self.unstable.offset;
        let (mut found, mut bytes) = (Vec::with_capacity(high.saturating_sub(low).min(64) as usize), 0);
        let mut take = |entry: &Entry| {
            let size = entry.encoded_len() as u64;
            let fits = found.is_empty() || bytes + size <= max_bytes;
            if fits {
                bytes += size;
                found.push(entry.clone());
            }
            fits
        };
        let all_stable = self.storage.range(low, high.min(offset)).all(&mut take);
        let first_unstable = low.max(offset);
        if all_stable && first_unstable < high {
            let count = (high - first_unstable) as usize;
            self.unstable.iter_from(first_unstable).take(count).all(&mut take);
        }
        Some((found, bytes))
    }

    /// Appends a leader's entries behind the one at `index`, which must be of `term`. Answers the index up to which
    /// the logs agree now, or `None` if they don't agree before.
    ///
    /// # Panics
    /// If `index` is before what is committed: the caller knows that this agrees.
    pub fn maybe_append(&mut self, index: u64, term: u64, entries: Vec<Entry>, logs: &mut Logs) -> Option<u64> {
        assert!(index >= self.committed, "entries behind {index} would change committed ones");
        if !self.matches(index, term) {
            return None;
        }
        let last_new = index + entries.len() as u64;
        if let Some(conflict) = self.find_conflict(&entries, logs) {
            let fresh = entries.into_iter().skip((conflict - index - 1) as usize).collect();
            self.append(fresh, logs);
        }
        Some(last_new)
    }

    /// The first entry that isn't in the log, or not with its term.
    fn find_conflict(&self, entries: &[Entry], logs: &mut Logs) -> Option<u64> {
        let entry = entries.iter().find(|e| !self.matches(e.index, e.term))?;
        if entry.index <= self.last_index() {
            note!(
                logs,
                Info,
                "found conflict at index {} [existing term: {}, conflicting term: {}]",
                entry.index,
                self.term(entry.index).unwrap_or(0),
                entry.term
            );
        }
        Some(entry.index)
    }

    /// The newest index ≤ `index` whose term is at most `term`, with its term: a log that ends in `(index, term)`
    /// can agree with this one at most up to there. An index outside the log is answered with term 0.
    pub fn find_conflict_by_term(&self, index: u64, term: u64) -> (u64, u64) {
        let mut at = index;
        while at > 0 {
            match self.term(at) {
                None => return (at, 0),
                Some(own) if own <= term => return (at, own),
                Some(_) => at -= 1,
            }
        }
        (0, 0)
    }

    /// # Panics
    /// If a committed entry would change, or if entries are missing before these.
    pub fn append(&mut self, entries: Vec<Entry>, logs: &mut Logs) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.committed, "entry {} is committed (up to {}) already", first.index, self.committed);
        self.unstable.truncate_and_append(entries, logs);
    }

    /// # Panics
    /// If the log ends before `index`.
    pub fn commit_to(&mut self, index: u64) {
        if index > self.committed {
            assert!(index <= self.last_index(), "commit {index} is past the log's end {}", self.last_index());
            self.committed = index;
        }
    }

    /// Commits what a quorum has, if that entry is of `term`: older ones are committed only along with it (Raft
    /// paper, 5.4.2).
    pub fn maybe_commit(&mut self, index: u64, term: u64) -> bool {
        let counts = self.matches(index, term) || failpoint::mutant!("commitOlderTerms");
        let news = index > self.committed && counts;
        if news {
            self.commit_to(index);
        }
        news
    }

    /// A leader's snapshot takes the place of the log; it is committed.
    pub fn restore(&mut self, snapshot: Snapshot, logs: &mut Logs) {
        let (index, term) = (snapshot.metadata.index, snapshot.metadata.term);
        note!(
            logs,
            Info,
            "log [committed={}, applied={}, applying={}, unstable.offset={}, unstable.offsetInProgress={}, \
             len(unstable.Entries)={}] starts to restore snapshot [index: {index}, term: {term}]",
            self.committed,
            self.applied,
            self.applying,
            self.unstable.offset,
            self.unstable.offset_in_progress,
            self.unstable.len()
        );
        assert!(index > self.committed, "snapshot {index} is behind what is committed, {}", self.committed);
        self.committed = index;
        self.unstable.restore(snapshot);
    }

    /// Storage work is done: entries up to `(index, term)`, and the snapshot at `snapshot`.
    pub fn stored(&mut self, entries: Option<(u64, u64)>, snapshot: Option<u64>, logs: &mut Logs) {
        if let Some(index) = snapshot {
            self.unstable.stable_snapshot_to(index, &mut self.storage);
        }
        if let Some((index, term)) = entries {
            self.unstable.stable_to(index, term, &mut self.storage, logs);
        }
    }

    /// The last index that may be applied; `durable_only` leaves unstable entries for later.
    fn appliable(&self, durable_only: bool) -> u64 {
        match durable_only {
            true => self.committed.min(self.unstable.offset - 1),
            false => self.committed,
        }
    }

    pub fn has_committed(&self, durable_only: bool) -> bool {
        // What a snapshot stands for is applied by whoever stores it, before any entry behind it.
        !self.apply_paused && self.unstable.snapshot().is_none() && self.applying < self.appliable(durable_only)
    }

    /// Entries to be applied next, as many as the limit allows; they are being applied from now on.
    pub fn take_committed(&mut self, durable_only: bool) -> Vec<Entry> {
        if !self.has_committed(durable_only) {
            return Vec::new();
        }
        let high = self.appliable(durable_only);
        let room = self.applying_bytes_max - self.applying_bytes;
        let (entries, bytes) = self.entries_and_size(self.applying + 1, high + 1, room).unwrap_or_default();
        let last_index = entries.last().map_or(0, |e| e.index);
        assert!(last_index > self.applying, "committed entries behind {} are missing from the log", self.applying);
        self.in_apply.push_back(Applying { last_index, bytes, payload: payload(&entries) });
        self.applying = last_index;
        self.applying_bytes += bytes;
        self.apply_paused = self.applying_bytes >= self.applying_bytes_max || last_index < high;
        entries
    }

    /// Entries up to `index` are applied. Answers the bytes of data among them.
    ///
    /// # Panics
    /// If they were never handed out.
    pub fn applied_to(&mut self, index: u64) -> u64 {
        assert!(index <= self.committed, "applied {index} is past what is committed, {}", self.committed);
        self.applied = self.applied.max(index);
        self.applying = self.applying.max(index);
        let mut data = 0;
        while let Some(part) = self.in_apply.front()
            && part.last_index <= index
        {
            self.applying_bytes -= part.bytes;
            data += part.payload;
            self.in_apply.pop_front();
        }
        self.apply_paused = self.applying_bytes >= self.applying_bytes_max;
        data
    }
}
