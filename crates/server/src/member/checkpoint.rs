//! Checkpoints: the page store follows the log at its own pace, on a thread of its own.
//!
//! Order, each step durable before the next: page store at index i → HardState.commit ≥ i → `.snap` → WAL snapshot
//! record → older log released. The second is synced when the job is made, since i is applied and so committed.
//! Snapshots for users, defragmentation and physical compactions wait for a checkpoint; all run one at a time.

use super::install::{Install, Installed};
use super::{Member, Output};
use crate::{Fatal, LogTask, Response};
use api::pb::etcdserverpb as pb;
use api::raft::{Snapshot, SnapshotMetadata};
use wal::WalSnapshot;
use wal::snap::Snapshotter;

/// How much more memory than [`super::Config::checkpoint_bytes`] changes may take when they are mostly deletions.
const DELETIONS_WEIGH_LESS: usize = 4;
/// Segments and `.snap` files beyond their maximum are deleted this often (etcd `purgeFileInterval`).
const PURGE_INTERVAL_MS: u64 = 30_000;
/// Pages that a checkpoint writes beside what changed (branches, metas, a `.snap`), bytes. The changes themselves are counted
/// twice: each may split its page.
const CHECKPOINT_MARGIN: u64 = 1 << 20;

/// What waits for a checkpoint, and whether one runs.
#[derive(Debug)]
pub struct Checkpointing<T> {
    pub(super) running: bool,
    /// The next one, until the log is durable up to the commit index that its `.snap` rests on.
    waiting: Option<Box<CheckpointJob>>,
    /// A checkpoint is wanted now, whatever the overlay holds.
    pub(super) force: bool,
    /// … and a `.snap` with it.
    pub(super) force_snapshot: bool,
    pub(super) snapshots: Vec<T>,
    pub(super) defragments: Vec<T>,
    /// Index of the newest WAL snapshot record.
    pub(super) snapshot_index: u64,
    snapshotter: Option<Snapshotter>,
    pub(super) since_ms: u64,
    /// Index of the newest entry that a checkpoint holds, or is about to.
    frozen_index: u64,
    purge_ms: u64,
    serving_snapshots: Vec<T>,
    serving_defragments: Vec<T>,
}

impl<T> Checkpointing<T> {
    pub fn new(snapshotter: Snapshotter, snapshot_index: u64, now_ms: u64) -> Self {
        Checkpointing {
            running: false,
            waiting: None,
            force: false,
            force_snapshot: false,
            snapshots: Vec::new(),
            defragments: Vec::new(),
            snapshot_index,
            snapshotter: Some(snapshotter),
            since_ms: now_ms,
            frozen_index: 0,
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
    install: Option<Install>,
}

/// What a job is for; a defragmentation begins with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    Checkpoint,
    Defragment,
    Install,
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
    installed: Option<Installed>,
}

impl CheckpointJob {
    /// A job that does nothing but install a leader's database.
    pub(super) fn install(install: Install, snapshotter: Snapshotter) -> CheckpointJob {
        CheckpointJob { checkpoint: None, snapshot: None, snapshotter, defragment: None, install: Some(install) }
    }

    pub fn kind(&self) -> JobKind {
        match (&self.install, &self.defragment) {
            (Some(_), _) => JobKind::Install,
            (None, Some(_)) => JobKind::Defragment,
            (None, None) => JobKind::Checkpoint,
        }
    }

    /// Whether it writes changes to the page store.
    pub fn is_commit(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Writes the frozen changes, the `.snap` if one is due, and the compacted file if one was asked for, at the pace of
    /// others; or installs a leader's database.
    ///
    /// # Errors
    /// The disk failed, or the database is not what its snapshot says.
    pub fn run(self, pace: store::Pace<'_>) -> Result<CheckpointDone, Fatal> {
        let CheckpointJob { mut checkpoint, snapshot, snapshotter, mut defragment, install } = self;
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
        let installed = install.map(Install::run).transpose()?;
        let snapshot = snapshot.map(|s| s.metadata);
        Ok(CheckpointDone { checkpoint, snapshot, snapshotter, defragment, defragmented, installed })
    }
}

impl<T> Member<T> {
    /// Makes a checkpoint job if one is due and none runs. Alone, not while the log has something to do: what is about to be
    /// applied goes into this checkpoint, not into the next. With peers the log always has something to do.
    pub(super) fn start_checkpoint(&mut self) {
        let c = &self.checkpointing;
        let soon = self.is_alone() && !self.log_tasks.is_empty();
        if c.running || soon || !self.checkpoint_due() {
            return;
        }
        self.store_room = self.has_room_for_checkpoint();
        if !self.store_room {
            return;
        }
        let index = self.applied.index();
        let behind = index.saturating_sub(c.snapshot_index);
        let snapshot_due = index > c.snapshot_index && (c.force_snapshot || behind > self.config.snapshot_count);
        let checkpoint = self.store.freeze();
        self.compaction.frozen();
        let defragment = match self.checkpointing.defragments.is_empty() {
            true => None,
            false => Some(self.store.defragment()),
        };
        let snapshot = snapshot_due.then(|| self.raft_snapshot());
        let envelope = self.snapshots.are_wanted().then(|| self.raft_snapshot());
        self.snapshots.frozen(envelope);
        let c = &mut self.checkpointing;
        c.frozen_index = index;
        c.force = false;
        c.force_snapshot = false;
        c.serving_snapshots = std::mem::take(&mut c.snapshots);
        c.serving_defragments = std::mem::take(&mut c.defragments);
        self.start_job(|snapshotter| CheckpointJob { checkpoint, snapshot, snapshotter, defragment, install: None });
    }

    /// Hands out a job, when the log is where its `.snap` wants it to be.
    pub(super) fn start_job(&mut self, make: impl FnOnce(Snapshotter) -> CheckpointJob) {
        let c = &mut self.checkpointing;
        assert!(!c.running, "jobs run one at a time");
        c.running = true;
        let job = Box::new(make(c.snapshotter.take().expect("it is with the job that runs, and none does")));
        match job.snapshot {
            Some(_) => {
                c.waiting = Some(job);
                self.log_tasks.push(LogTask::SyncAll);
            }
            None => self.out.push(Output::Checkpoint(job)),
        }
    }

    /// The log did what a checkpoint waits for.
    pub(super) fn checkpoint_logged(&mut self, all_synced: bool, recorded: Option<u64>) {
        let job = self.checkpointing.waiting.take_if(|_| all_synced);
        self.out.extend(job.map(Output::Checkpoint));
        if let Some(index) = recorded {
            self.out.push(Output::Note(format!("saved snapshot at index {index}")));
        }
    }

    fn checkpoint_due(&self) -> bool {
        let c = &self.checkpointing;
        let clients = !c.snapshots.is_empty() || !c.defragments.is_empty();
        let asked = c.force || c.force_snapshot || clients || self.snapshots.are_wanted();
        let max = self.config.checkpoint_bytes;
        let full =
            self.store.new_bytes() >= max || self.store.overlay_bytes() >= max.saturating_mul(DELETIONS_WEIGH_LESS);
        let old = self.store.is_ahead() && self.now_ms >= c.since_ms + self.config.checkpoint_ms;
        let waiting = self.applied.index().saturating_sub(c.frozen_index);
        let many = self.store.is_ahead() && self.config.choices.checkpoint_entries.is_some_and(|n| waiting >= n);
        asked || full || old || many
    }

    /// A checkpoint that fails for want of room would end the process, and so it is not begun: the log has what it would
    /// write. Changes stay in memory meanwhile, and who would bring more is refused. What can't be measured is tried.
    fn has_room_for_checkpoint(&self) -> bool {
        let available = self.files.disk.available(&self.files.layout.snap).unwrap_or(u64::MAX);
        let free_pages = self.store.size().abs_diff(self.store.size_in_use());
        let bytes = 2 * self.store.overlay_bytes() as u64 + CHECKPOINT_MARGIN;
        available.saturating_add(free_pages) >= bytes
    }

    /// Whether the disk takes what puts bring: the rest of the log, and the next checkpoint.
    pub(super) fn has_room(&self) -> bool {
        self.log_room && self.store_room
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
            self.record_snapshot(snapshot);
        }
        let c = &mut self.checkpointing;
        c.running = false;
        c.since_ms = self.now_ms;
        c.snapshotter = Some(done.snapshotter);
        let snapshots = std::mem::take(&mut c.serving_snapshots);
        let defragments = std::mem::take(&mut c.serving_defragments);
        self.publish();
        self.settle_physical_compactions();
        self.send_snapshots();
        self.out.extend(snapshots.into_iter().map(|ticket| Output::Snapshot { ticket }));
        for ticket in defragments {
            let outcome = done.defragmented.clone();
            self.reply(ticket, outcome.map(|()| Response::Defragment(pb::DefragmentResponse::default())));
        }
        match done.installed {
            Some(installed) => self.installed(installed),
            None => self.settle_logged(),
        }
        Ok(())
    }

    /// Whether somebody waits for a defragmentation.
    pub fn is_defragmenting(&self) -> bool {
        !self.checkpointing.defragments.is_empty() || !self.checkpointing.serving_defragments.is_empty()
    }

    /// Whether a job is out.
    pub fn checkpoint_runs(&self) -> bool {
        self.checkpointing.running
    }

    /// Writes what no checkpoint has written yet: a stopped member's page store is complete, as Go's is, for tools that
    /// look at nothing else. Call while no job is out.
    pub(super) fn last_checkpoint(&mut self) -> Result<(), Fatal> {
        if !self.has_room_for_checkpoint() {
            tracing::warn!(
                "the disk is full: the page store is left as the last checkpoint made it, the log has the rest"
            );
            return Ok(());
        }
        if let Some(mut checkpoint) = self.store.freeze() {
            checkpoint.run(&|_| ())?;
            self.store.checkpointed(checkpoint)?;
        }
        Ok(())
    }

    fn record_snapshot(&mut self, snapshot: SnapshotMetadata) {
        let (index, term) = (snapshot.index, snapshot.term);
        self.checkpointing.snapshot_index = index;
        let record = WalSnapshot { index, term, conf_state: Some(snapshot.conf_state) };
        self.log_tasks.push(LogTask::Snapshot(record));
    }

    pub(super) fn tick_checkpoint(&mut self) -> Result<(), Fatal> {
        if self.now_ms >= self.checkpointing.purge_ms {
            self.checkpointing.purge_ms = self.now_ms + PURGE_INTERVAL_MS;
            self.log_tasks.push(LogTask::KeepHouse);
            if let Some(snapshotter) = &self.checkpointing.snapshotter {
                snapshotter.purge(self.config.max_snapshots)?;
            }
        }
        Ok(())
    }
}
