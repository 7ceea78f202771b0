//! Checkpoints: the page store follows the log at its own pace, on a thread of its own.
//!
//! Order, each step durable before the next: page store at index i → HardState.commit ≥ i → `.snap` → WAL snapshot
//! record → older log released. The second is synced when the job is made, since i is applied and so committed.
//! Snapshots for users, defragmentation and physical compactions wait for a checkpoint; all run one at a time.

use super::{Member, Output};
use crate::{Fatal, Response};
use api::pb::etcdserverpb as pb;
use api::raft::{Snapshot, SnapshotMetadata};
use wal::WalSnapshot;
use wal::snap::Snapshotter;

/// Segments and `.snap` files beyond their maximum are deleted this often (etcd `purgeFileInterval`).
const PURGE_INTERVAL_MS: u64 = 30_000;

/// What waits for a checkpoint, and whether one runs.
#[derive(Debug)]
pub struct Checkpointing<T> {
    pub(super) running: bool,
    /// A checkpoint is wanted now, whatever the overlay holds.
    pub(super) force: bool,
    /// … and a `.snap` with it.
    pub(super) force_snapshot: bool,
    pub(super) snapshots: Vec<T>,
    pub(super) defragments: Vec<T>,
    /// Index of the newest WAL snapshot record.
    snapshot_index: u64,
    snapshotter: Option<Snapshotter>,
    since_ms: u64,
    purge_ms: u64,
    serving_snapshots: Vec<T>,
    serving_defragments: Vec<T>,
}

impl<T> Checkpointing<T> {
    pub fn new(snapshotter: Snapshotter, snapshot_index: u64, now_ms: u64) -> Self {
        Checkpointing {
            running: false,
            force: false,
            force_snapshot: false,
            snapshots: Vec::new(),
            defragments: Vec::new(),
            snapshot_index,
            snapshotter: Some(snapshotter),
            since_ms: now_ms,
            purge_ms: now_ms + PURGE_INTERVAL_MS,
            serving_snapshots: Vec::new(),
            serving_defragments: Vec::new(),
        }
    }

    pub fn drain(&mut self) -> Vec<T> {
        let queues =
            [&mut self.snapshots, &mut self.defragments, &mut self.serving_snapshots, &mut self.serving_defragments];
        queues.into_iter().flat_map(std::mem::take).collect()
    }
}

/// Work for the checkpointer's thread.
#[derive(Debug)]
pub struct CheckpointJob {
    checkpoint: Option<store::Checkpoint>,
    snapshot: Option<Snapshot>,
    snapshotter: Snapshotter,
    defragment: Option<store::Defragment>,
}

/// A finished [`CheckpointJob`].
#[derive(Debug)]
pub struct CheckpointDone {
    checkpoint: Option<store::Checkpoint>,
    snapshot: Option<SnapshotMetadata>,
    snapshotter: Snapshotter,
    defragment: Option<store::Defragment>,
    /// What those who asked for a defragmentation are told.
    defragmented: Result<(), api::Error>,
}

impl CheckpointJob {
    /// Writes the frozen changes, the `.snap` if one is due, and the compacted file if one was asked for, at the pace of
    /// others.
    pub fn run(self, pace: store::Pace<'_>) -> Result<CheckpointDone, Fatal> {
        let CheckpointJob { mut checkpoint, snapshot, snapshotter, mut defragment } = self;
        if let Some(checkpoint) = &mut checkpoint {
            checkpoint.run(pace)?;
        }
        if let Some(snapshot) = &snapshot {
            failpoint::point!("raftBeforeSaveSnap");
            snapshotter.save(snapshot)?;
        }
        let defragmented = match defragment.as_mut().map_or(Ok(()), |d| d.run(pace)) {
            Err(store::Error::Refused(e)) => Err(e),
            outcome => Ok(outcome?),
        };
        let snapshot = snapshot.map(|s| s.metadata);
        Ok(CheckpointDone { checkpoint, snapshot, snapshotter, defragment, defragmented })
    }
}

impl<T> Member<T> {
    /// Makes a checkpoint job if one is due and none runs.
    pub(super) fn start_checkpoint(&mut self) -> Result<(), Fatal> {
        let c = &self.checkpointing;
        if c.running || !self.checkpoint_due() {
            return Ok(());
        }
        let index = self.applied.index();
        let behind = index.saturating_sub(c.snapshot_index);
        let snapshot_due = index > c.snapshot_index && (c.force_snapshot || behind > self.config.snapshot_count);
        let Some(snapshotter) = self.checkpointing.snapshotter.take() else { return Ok(()) };
        let checkpoint = self.store.freeze();
        self.compaction.frozen();
        let defragment = match self.checkpointing.defragments.is_empty() {
            true => None,
            false => Some(self.store.defragment()),
        };
        let snapshot = snapshot_due.then(|| self.raft_snapshot());
        if snapshot.is_some() {
            self.log.sync_all()?;
        }
        let c = &mut self.checkpointing;
        c.running = true;
        c.force = false;
        c.force_snapshot = false;
        c.serving_snapshots = std::mem::take(&mut c.snapshots);
        c.serving_defragments = std::mem::take(&mut c.defragments);
        let job = CheckpointJob { checkpoint, snapshot, snapshotter, defragment };
        self.out.push(Output::Checkpoint(Box::new(job)));
        Ok(())
    }

    fn checkpoint_due(&self) -> bool {
        let c = &self.checkpointing;
        let asked = c.force || c.force_snapshot || !c.snapshots.is_empty() || !c.defragments.is_empty();
        let bytes = self.store.overlay_bytes();
        let full = bytes >= self.config.checkpoint_bytes;
        let old = self.store.is_ahead() && self.now_ms >= c.since_ms + self.config.checkpoint_ms;
        asked || full || old
    }

    /// The membership as of the newest applied entry: what a `.snap` holds.
    fn raft_snapshot(&self) -> Snapshot {
        Snapshot {
            data: store::v2_snapshot_json(&self.applied).into(),
            metadata: SnapshotMetadata {
                conf_state: self.applied.conf_state().clone(),
                index: self.applied.index(),
                term: self.applied.term(),
            },
        }
    }

    /// Takes a finished job back.
    pub fn checkpointed(&mut self, now_ms: u64, done: CheckpointDone) -> Result<(), Fatal> {
        self.now_ms = self.now_ms.max(now_ms);
        if let Some(checkpoint) = done.checkpoint {
            self.store.checkpointed(checkpoint)?;
        }
        if let Some(defragment) = done.defragment {
            self.store.defragmented(defragment)?;
        }
        if let Some(snapshot) = done.snapshot {
            self.record_snapshot(snapshot)?;
        }
        let c = &mut self.checkpointing;
        c.running = false;
        c.since_ms = self.now_ms;
        c.snapshotter = Some(done.snapshotter);
        let snapshots = std::mem::take(&mut c.serving_snapshots);
        let defragments = std::mem::take(&mut c.serving_defragments);
        self.publish();
        self.settle_physical_compactions();
        self.out.extend(snapshots.into_iter().map(|ticket| Output::Snapshot { ticket }));
        for ticket in defragments {
            let outcome = done.defragmented.clone();
            self.reply(ticket, outcome.map(|()| Response::Defragment(pb::DefragmentResponse::default())));
        }
        Ok(())
    }

    /// Whether a job is out.
    pub fn checkpoint_runs(&self) -> bool {
        self.checkpointing.running
    }

    /// Writes what no checkpoint has written yet: a stopped member's page store is complete, as Go's is, for tools that
    /// look at nothing else. Call while no job is out.
    pub(super) fn last_checkpoint(&mut self) -> Result<(), Fatal> {
        if let Some(mut checkpoint) = self.store.freeze() {
            checkpoint.run(&|_| ())?;
            self.store.checkpointed(checkpoint)?;
        }
        Ok(())
    }

    fn record_snapshot(&mut self, snapshot: SnapshotMetadata) -> Result<(), Fatal> {
        let (index, term) = (snapshot.index, snapshot.term);
        self.log.snapshot(&WalSnapshot { index, term, conf_state: Some(snapshot.conf_state) })?;
        self.checkpointing.snapshot_index = index;
        self.raft.storage_mut().compact_behind(index, self.config.catchup_entries);
        self.out.push(Output::Note(format!("saved snapshot at index {index}")));
        Ok(())
    }

    pub(super) fn tick_checkpoint(&mut self) -> Result<(), Fatal> {
        if self.now_ms >= self.checkpointing.purge_ms {
            self.checkpointing.purge_ms = self.now_ms + PURGE_INTERVAL_MS;
            self.log.purge(self.config.max_wals)?;
            if let Err(e) = self.log.prepare_next() {
                self.out.push(Output::Note(format!("the next log segment can't be prepared, free some space: {e}")));
            }
            if let Some(snapshotter) = &self.checkpointing.snapshotter {
                snapshotter.purge(self.config.max_snapshots)?;
            }
        }
        Ok(())
    }
}
