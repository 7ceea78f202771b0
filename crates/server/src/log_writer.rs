//! The log's writer: takes what the consensus core wants stored, makes it durable, hands the promises back.
//!
//! ```text
//! Member ── LogTask, in order ──► LogWriter ── take, take, take, sync ──► Logged ──► Member
//! ```
//!
//! Invariant: a response leaves only after everything buffered before it is synced. All appends that queue up
//! between two syncs share one `fdatasync` (group commit). A failed write or sync is fatal: the log poisons itself.

use crate::Fatal;
use api::raft::{HardState, Message, Snapshot, SnapshotMetadata};
use wal::snap::Snapshotter;
use wal::{Wal, WalSnapshot};

/// The part of a segment that is kept for what can't be refused while there is no next one: deletions, revocations,
/// compactions, conf changes.
const RESERVE: u64 = 4;

/// Work for the log's writer.
#[derive(Debug)]
pub enum LogTask {
    /// A `MsgStorageAppend`: a leader's snapshot, entries, hard state (term ≠ 0) and the responses that wait for them.
    Append(Message),
    /// Makes everything durable, the commit index too: before a `.snap` that rests on it.
    SyncAll,
    /// The `.snap` file is durable: records it and lets older segments go.
    Snapshot(WalSnapshot),
    /// Deletes released segments and prepares the next one, off the hot path.
    KeepHouse,
    /// Looks whether the disk has room again.
    LookForRoom,
}

/// What became of the tasks before a sync.
#[derive(Debug, Default)]
pub struct Logged {
    /// Responses that rest on what is durable now: to peers, and to this node.
    pub promises: Vec<Message>,
    /// Everything was durable at some moment after a [`LogTask::SyncAll`] was taken.
    pub all_synced: bool,
    /// Index of the newest snapshot of this member's own that was recorded.
    pub recorded: Option<u64>,
    /// A leader's snapshot is durable in the log: its database is to be installed before the promises count.
    pub received: Option<SnapshotMetadata>,
    /// Whether the log takes more. False on a full disk when the present segment is nearly full, too: an append that
    /// needs the next one would be fatal.
    pub room: bool,
    /// What an operator should read.
    pub notes: Vec<String>,
}

/// Owns the open log.
pub struct LogWriter {
    wal: Wal,
    hard_state: HardState,
    unsynced: bool,
    /// Segments that are kept (0 = all).
    max_wals: usize,
    snapshotter: Snapshotter,
    /// Index of the newest snapshot that was recorded since the log was opened.
    newest_snapshot: u64,
    done: Logged,
}

impl LogWriter {
    /// `hard_state`: what the log holds.
    pub fn new(wal: Wal, hard_state: HardState, max_wals: usize, snapshotter: Snapshotter) -> LogWriter {
        LogWriter {
            wal,
            hard_state,
            unsynced: false,
            max_wals,
            snapshotter,
            newest_snapshot: 0,
            done: Logged::default(),
        }
    }

    /// Does a task, but for the sync that what it appends needs.
    ///
    /// # Errors
    /// The disk failed.
    ///
    /// # Panics
    /// If a snapshot is to be recorded that the commit index has not reached: readers would ignore the record.
    pub fn take(&mut self, task: LogTask) -> Result<(), Fatal> {
        match task {
            LogTask::Append(message) => self.append(message),
            LogTask::SyncAll => self.sync_all(),
            LogTask::Snapshot(snapshot) => self.snapshot(&snapshot),
            LogTask::KeepHouse => self.keep_house(),
            LogTask::LookForRoom => Ok(()),
        }
    }

    fn append(&mut self, message: Message) -> Result<(), Fatal> {
        failpoint::point!("raftBeforeSave");
        let state = match message.term {
            0 => HardState::default(),
            term => HardState { term, vote: message.vote, commit: message.commit },
        };
        if let Some(snapshot) = message.snapshot {
            self.receive(snapshot)?;
        }
        self.store(state, &message.entries)?;
        self.done.promises.extend(message.responses);
        Ok(())
    }

    /// A leader's snapshot takes the log's place. As Go: file, then record, then the hard state that commits it: a record
    /// above the last commit index is ignored, so that a crash in between leaves the log as it was.
    fn receive(&mut self, snapshot: Snapshot) -> Result<(), Fatal> {
        self.snapshotter.save(&snapshot)?;
        let metadata = snapshot.metadata;
        let (index, term) = (metadata.index, metadata.term);
        self.wal.save_snapshot(&WalSnapshot { index, term, conf_state: Some(metadata.conf_state.clone()) })?;
        self.unsynced = true;
        self.newest_snapshot = index;
        self.done.received = Some(metadata);
        Ok(())
    }

    /// Buffers entries and a hard state (empty = unchanged).
    fn store(&mut self, state: HardState, entries: &[api::raft::Entry]) -> Result<(), Fatal> {
        let changed = !state.is_empty() && state != self.hard_state;
        if !changed && entries.is_empty() {
            return Ok(());
        }
        self.wal.append(if changed { &state } else { &HardState { term: 0, vote: 0, commit: 0 } }, entries)?;
        // A commit index alone need not be durable: it is rebuilt from the quorum (etcd's MustSync).
        self.unsynced |=
            !entries.is_empty() || changed && (state.term, state.vote) != (self.hard_state.term, self.hard_state.vote);
        if changed {
            self.hard_state = state;
        }
        Ok(())
    }

    /// Makes what is buffered durable, if it has to be, and tells what rests on it.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync(&mut self) -> Result<Logged, Fatal> {
        if self.unsynced && !failpoint::mutant!("logSyncSkipped") {
            self.wal.sync()?;
            self.unsynced = false;
            failpoint::point!("raftAfterSave");
        }
        self.done.room = self.has_room();
        Ok(std::mem::take(&mut self.done))
    }

    fn sync_all(&mut self) -> Result<(), Fatal> {
        if !failpoint::mutant!("syncBeforeSnapshotSkipped") {
            self.wal.sync()?;
            self.unsynced = false;
        }
        self.done.all_synced = true;
        Ok(())
    }

    /// A leader's snapshot may have overtaken this one, which was being written then: behind it an older record would tell
    /// readers to begin where the entries are no longer whole.
    fn snapshot(&mut self, snapshot: &WalSnapshot) -> Result<(), Fatal> {
        if snapshot.index < self.newest_snapshot && !failpoint::mutant!("olderSnapshotRecorded") {
            return Ok(());
        }
        self.newest_snapshot = snapshot.index;
        assert!(self.hard_state.commit >= snapshot.index, "snapshot {} is past commit", snapshot.index);
        failpoint::point!("raftBeforeWALSaveSnaphot");
        self.wal.save_snapshot(snapshot)?;
        failpoint::point!("raftAfterSaveSnap");
        self.wal.release_to(snapshot.index)?;
        failpoint::point!("raftAfterWALRelease");
        self.done.recorded = Some(snapshot.index);
        Ok(())
    }

    fn keep_house(&mut self) -> Result<(), Fatal> {
        self.wal.purge(self.max_wals)?;
        // Without room for it the log goes on while the present segment lasts.
        if let Err(e) = self.wal.prepare_next() {
            self.done.notes.push(format!("the next log segment can't be prepared, free some space: {e}"));
        }
        Ok(())
    }

    fn has_room(&mut self) -> bool {
        let nearly_full = self.wal.room().is_some_and(|(left, of)| left < of / RESERVE);
        !nearly_full || self.wal.prepare_next().is_ok()
    }

    /// Syncs and removes the prepared segment.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(mut self) -> Result<(), Fatal> {
        self.wal.sync()?;
        self.wal.close()?;
        Ok(())
    }
}
