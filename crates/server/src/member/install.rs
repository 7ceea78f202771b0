//! Database snapshots between members: those sent to followers that are too far behind, and the one that a leader sends.
//!
//! A leader's MsgSnap becomes a *merged* snapshot (reference/peer-protocol.md section 5): the image of the page store right
//! after a checkpoint, and an envelope that says which index, term and members it is of. The log in memory is not
//! shortened while one is on its way, and for a while after: the follower wants what comes behind it.
//!
//! A follower's transport has stored the image as `INDEX.snap.db` before raft hears of it. When the log holds the snapshot,
//! the image takes the database's place (a job like a checkpoint: it takes as long as reading all keys), and only then the
//! snapshot is acknowledged. Reads are answered from the database before, meanwhile. A crash in between is settled at the
//! next start: the log's newest snapshot is above the database, and the image is there.

use super::checkpoint::CheckpointJob;
use super::{Member, Output};
use crate::{Fatal, Layout};
use api::raft::{Message, Snapshot, SnapshotMetadata};
use bytes::Bytes;
use disk::SharedDisk;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use store::Store;
use store::lessor::Lessor;

/// The log is kept for so long after a snapshot arrived (etcd `releaseDelayAfterSnapshot`).
pub const RELEASE_DELAY_MS: u64 = 30_000;

/// The log in memory is looked at each time that so many entries were applied (etcd `memorySnapshotCount`).
pub const RELEASE_ENTRIES: u64 = 100;
/// Memory that applied entries may take, bytes. etcd has no such limit: 5000 entries of 1 MiB are 5 GiB there.
const LOG_BYTES: usize = 256 << 20;

/// Where the member's files are.
#[derive(Clone, Debug)]
pub struct Files {
    pub disk: SharedDisk,
    pub layout: Layout,
    pub store: store::Options,
}

/// Snapshots to peers.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Peers that need one, and raft's message to each; its own snapshot is replaced.
    wanted: BTreeMap<u64, Message>,
    /// Those that the running checkpoint is for.
    frozen: Vec<Message>,
    /// On their way.
    sending: BTreeSet<u64>,
    /// The log is kept until then, ms.
    hold_ms: u64,
}

impl Snapshots {
    pub fn are_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    /// A checkpoint begins: the images will be what is frozen now, and `envelope` says what that is.
    pub fn frozen(&mut self, envelope: Option<Snapshot>) {
        let Some(envelope) = envelope else { return };
        let wanted = std::mem::take(&mut self.wanted).into_values();
        self.frozen.extend(wanted.map(|message| Message { snapshot: Some(envelope.clone()), ..message }));
    }
}

/// The name under which the transport leaves a leader's image.
pub fn image_name(index: u64) -> PathBuf {
    format!("{index:016x}.snap.db").into()
}

/// Moves the image of a leader's snapshot to the database's place.
///
/// # Errors
/// There is none, or the disk failed.
pub fn adopt_image(files: &Files, index: u64) -> Result<(), Fatal> {
    let Files { disk, layout, .. } = files;
    let image = layout.snap.join(image_name(index));
    let failed = |e: std::io::Error| {
        Fatal::new(format!(
            "failed to find database snapshot file (snap: snapshot file doesn't exist): {}: {e}",
            image.display()
        ))
    };
    disk.rename(&image, &layout.db).map_err(failed)?;
    disk.sync_dir(&layout.snap).map_err(failed)
}

/// A leader's database that is to take the place of ours. Opening it reads all its keys: not a thing for the core's thread,
/// which has heartbeats to answer.
#[derive(Debug)]
pub struct Install {
    files: Files,
    metadata: SnapshotMetadata,
}

/// … and that is open now.
#[derive(Debug)]
pub struct Installed {
    store: Store,
    metadata: SnapshotMetadata,
}

impl Install {
    /// Moves the image to the database's place and opens it.
    ///
    /// # Errors
    /// There is none, it is of another index, or the disk failed.
    pub fn run(self) -> Result<Installed, Fatal> {
        let Install { files, metadata } = self;
        failpoint::point!("applyBeforeOpenSnapshot");
        adopt_image(&files, metadata.index)?;
        let store = Store::open(files.disk.clone(), &files.layout.db, files.store)?;
        let index = store.consistent_index();
        if index != metadata.index {
            return Err(Fatal::new(format!(
                "the leader's database is of index {index}, its snapshot of {}: this member can't go on; remove it, clear its \
                 data directory and add it again",
                metadata.index
            )));
        }
        failpoint::point!("applyAfterOpenSnapshot");
        Ok(Installed { store, metadata })
    }
}

impl<T> Member<T> {
    /// Raft wants a peer to have a snapshot.
    pub(super) fn want_snapshot(&mut self, message: Message) {
        self.snapshots.wanted.insert(message.to, message);
    }

    /// A checkpoint is durable: its image goes to those it was made for.
    pub(super) fn send_snapshots(&mut self) {
        for message in std::mem::take(&mut self.snapshots.frozen) {
            self.snapshots.sending.insert(message.to);
            self.out.push(Output::SendSnapshot { message, applied: self.applied.clone() });
        }
    }

    pub(super) fn snapshot_sent(&mut self, peer: u64, arrived: bool) {
        self.snapshots.sending.remove(&peer);
        if arrived {
            self.snapshots.hold_ms = self.now_ms + self.config.release_delay_ms;
        }
    }

    /// Shortens the log in memory, unless a follower is about to want it. What is applied is in it for followers alone;
    /// those that need more get the database, and raft is told from where they go on.
    pub(super) fn tick_log_release(&mut self) {
        let held = !self.snapshots.sending.is_empty() || self.now_ms < self.snapshots.hold_ms;
        let (index, storage) = (self.applied.index(), self.raft.storage());
        // After a start the page store may be ahead of what raft has handed out: that is still to come by.
        let replayed = self.raft.basic_status().applied >= index;
        let is_long =
            index >= storage.snapshot().metadata.index + self.config.release_entries || storage.bytes() > LOG_BYTES;
        let Some(term) = storage.term(index).filter(|_| is_long && replayed && !held) else { return };
        let metadata = SnapshotMetadata { index, term, conf_state: self.applied.conf_state().clone() };
        let (keep, storage) = (self.config.catchup_entries, self.raft.storage_mut());
        storage.set_snapshot(Snapshot { data: Bytes::new(), metadata });
        storage.compact_behind(index, keep, LOG_BYTES);
    }

    /// Has a leader's database put in the place of ours. Not while another job runs: it may write to the present one.
    pub(super) fn start_install(&mut self, metadata: SnapshotMetadata) {
        let files = self.files.clone();
        self.start_job(|snapshotter| CheckpointJob::install(Install { files, metadata }, snapshotter));
    }

    /// The leader's database is open: it takes over.
    pub(super) fn installed(&mut self, done: Installed) {
        let Installed { mut store, metadata } = done;
        store.set_identity(self.cluster_id, self.member_id);
        store.set_capture_prev(self.store.captures_prev());
        store.count_on(self.store.counts());
        self.store = store;
        self.follow_installed(&metadata);
        self.settle_installed();
    }

    fn follow_installed(&mut self, metadata: &SnapshotMetadata) {
        let (applied, _) = self.store.publish();
        self.applied = applied.clone();
        self.out.push(Output::Replaced { applied });
        self.lessor = Lessor::new();
        for (id, lease) in self.applied.leases() {
            self.lessor.restore(id, lease.ttl(), lease.remaining_ttl());
        }
        self.checkpointing.snapshot_index = metadata.index;
        self.checkpointing.since_ms = self.now_ms;
        if self.store.compaction_pending() {
            self.compaction.start(self.now_ms);
        }
        self.members_changed();
        self.out.push(Output::Note(format!("installed the leader's database of index {}", metadata.index)));
    }
}
