//! The log's writer: takes what the consensus core wants stored, makes it durable, hands the promises back.
//!
//! Invariant: a response leaves only after everything buffered before it is synced. All appends that queue up
//! between two syncs share one `fdatasync` (group commit). A failed write or sync is fatal: the log poisons itself.

use crate::Fatal;
use api::raft::{HardState, Message};
use wal::{Wal, WalError, WalSnapshot};

/// The part of a segment that is kept for what can't be refused while there is no next one: deletions, revocations,
/// compactions, conf changes.
const RESERVE: u64 = 4;

/// Owns the open log.
pub struct LogWriter {
    wal: Wal,
    hard_state: HardState,
    unsynced: bool,
    promised: Vec<Message>,
}

impl LogWriter {
    /// `hard_state`: what the log holds.
    pub fn new(wal: Wal, hard_state: HardState) -> LogWriter {
        LogWriter { wal, hard_state, unsynced: false, promised: Vec::new() }
    }

    /// Buffers a `MsgStorageAppend`: entries, hard state (term ≠ 0) and the responses that wait for them.
    pub fn append(&mut self, message: Message) -> Result<(), Fatal> {
        failpoint::point!("raftBeforeSave");
        let state = match message.term {
            0 => HardState::default(),
            term => HardState { term, vote: message.vote, commit: message.commit },
        };
        self.store(state, &message.entries)?;
        self.promised.extend(message.responses);
        Ok(())
    }

    /// Buffers entries and a hard state (empty = unchanged).
    pub fn store(&mut self, state: HardState, entries: &[api::raft::Entry]) -> Result<(), Fatal> {
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

    /// Makes what is buffered durable, if it has to be, and answers the promises that rested on it.
    pub fn sync(&mut self) -> Result<Vec<Message>, Fatal> {
        if self.unsynced {
            self.wal.sync()?;
            self.unsynced = false;
            failpoint::point!("raftAfterSave");
        }
        Ok(std::mem::take(&mut self.promised))
    }

    /// Makes everything durable, the commit index too: before a `.snap` that rests on it.
    pub fn sync_all(&mut self) -> Result<(), Fatal> {
        self.wal.sync()?;
        self.unsynced = false;
        Ok(())
    }

    /// Records a snapshot whose `.snap` file is durable and lets older segments go.
    ///
    /// # Panics
    /// If the durable commit index is behind the snapshot: readers would ignore the record.
    pub fn snapshot(&mut self, snapshot: &WalSnapshot) -> Result<(), Fatal> {
        assert!(self.hard_state.commit >= snapshot.index, "snapshot {} is past commit", snapshot.index);
        failpoint::point!("raftBeforeWALSaveSnaphot");
        self.wal.save_snapshot(snapshot)?;
        failpoint::point!("raftAfterSaveSnap");
        self.wal.release_to(snapshot.index)?;
        failpoint::point!("raftAfterWALRelease");
        Ok(())
    }

    /// Deletes released segments beyond `max` (0 = keep all).
    pub fn purge(&mut self, max: usize) -> Result<(), Fatal> {
        self.wal.purge(max)?;
        Ok(())
    }

    /// Prepares the next segment, off the hot path.
    ///
    /// # Errors
    /// There is no room for it: the log goes on while the present segment lasts.
    pub fn prepare_next(&mut self) -> Result<(), WalError> {
        self.wal.prepare_next()
    }

    /// Whether the log takes more. False on a full disk when the present segment is nearly full, too: an append that
    /// needs the next one would be fatal.
    pub fn has_room(&mut self) -> bool {
        let nearly_full = self.wal.room().is_some_and(|(left, of)| left < of / RESERVE);
        !nearly_full || self.wal.prepare_next().is_ok()
    }

    /// Syncs and removes the prepared segment.
    pub fn close(mut self) -> Result<(), Fatal> {
        self.wal.sync()?;
        self.wal.close()?;
        Ok(())
    }
}
