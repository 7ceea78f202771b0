//! `ETCD_VERIFY`: invariants that production does not pay for, looked at when a member opens and closes, and by the offline
//! tool when it has made or changed a directory (etcd `server/verify`, `client/pkg/verify`).

use super::{Member, Output, boot};
use crate::{Fatal, Layout, LogWriter};
use disk::SharedDisk;
use store::Store;
use wal::Wal;

/// What is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verify {
    /// Files: the page store's pages, its index between the newest snapshot and the end of the log, and that a restart
    /// changes nothing.
    pub files: bool,
    /// State: key index and records, leases and keys, members and configuration.
    pub state: bool,
}

impl Verify {
    /// The variable that asks for it.
    pub const VARIABLE: &str = "ETCD_VERIFY";

    /// What a value of [`Verify::VARIABLE`] asks for, in any case of letters as in Go; `None` for one that means nothing.
    pub fn parse(value: &str) -> Option<Verify> {
        match value.to_lowercase().as_str() {
            "all" => Some(Verify { files: true, state: true }),
            "assert" => Some(Verify { files: false, state: true }),
            "storage_wal" => Some(Verify { files: true, state: false }),
            _ => None,
        }
    }

    /// Whether anything is.
    pub fn any(self) -> bool {
        self.files || self.state
    }

    fn store(self, store: &Store) -> Result<(), Fatal> {
        if self.files {
            store.verify_pages().map_err(failed)?;
        }
        if self.state {
            store.verify().map_err(failed)?;
        }
        Ok(())
    }

    /// Checks the files of a directory that nobody uses. One without a page store or a log is left alone, as in Go.
    ///
    /// # Errors
    /// The first contradiction, or what can't be read.
    pub fn directory(self, disk: &SharedDisk, layout: &Layout, options: store::Options) -> Result<(), Fatal> {
        let there = |path| disk.exists(path).map_err(|e| Fatal::new(format!("{}: {e}", layout.db.display())));
        if !self.any() || !there(&layout.db)? {
            return Ok(());
        }
        let store = Store::open(disk.clone(), &layout.db, options)?;
        self.store(&store)?;
        if self.files && wal::exists(disk, &layout.wal)? {
            let snapshots = wal::valid_snapshots(disk, &layout.wal)?;
            let newest = snapshots.into_iter().max_by_key(|snapshot| snapshot.index).unwrap_or_default();
            let replay = Wal::read_only(disk, &layout.wal, &newest)?;
            boot::check_indexes(layout, &newest, &store, &replay).map_err(|e| failed(&e))?;
        }
        Ok(())
    }
}

/// What people read, whatever was found.
fn failed(why: impl std::fmt::Display) -> Fatal {
    Fatal::new(format!(
        "verification failed ({} asks for it): {why}. The files are left as they are: keep a copy of them for a bug report, \
         then let this member join again with an empty data directory, or restore a backup",
        Verify::VARIABLE
    ))
}

impl<T> Member<T> {
    /// Checks a member that has come up, or any other between two turns while no checkpoint runs.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn verify(&self, verify: Verify) -> Result<(), Fatal> {
        verify.store(&self.store)?;
        if !verify.state {
            return Ok(());
        }
        let (snapshot, index, last) =
            (self.checkpointing.snapshot_index, self.store.consistent_index(), self.raft.last_index());
        if !(snapshot..=last).contains(&index) {
            return Err(failed(format!(
                "an invariant does not hold: the consistent index {index} is not between the newest snapshot's {snapshot} \
                 and the log's end {last}"
            )));
        }
        Ok(())
    }

    /// As [`Member::stop`], and then checks what the next start will read.
    ///
    /// # Errors
    /// The disk failed, or the first contradiction.
    pub fn stop_and_verify(mut self, log: LogWriter, verify: Verify, into: &mut Vec<Output<T>>) -> Result<(), Fatal> {
        self.halt(into)?;
        if !self.checkpoint_runs() {
            self.verify(verify)?;
            if verify.files {
                self.store.verify_restart().map_err(failed)?;
            }
        }
        log.close()
    }
}
