//! How a member comes up: a new directory, or whatever a crash, a stop or another etcd left.
//!
//! Rule at open: newest `.snap` record ≤ consistent index of the page store ≤ last log entry; otherwise the member
//! refuses to start and names the cure. Conf changes at or below the consistent index are not fed to raft again:
//! the bucket `members` already holds what they did.

use super::checkpoint::Checkpointing;
use super::{Config, Member, leases, replies, versions};
use crate::autocompact::AutoCompactor;
use crate::log_writer::LogWriter;
use crate::{Fatal, IdGenerator, Layout};
use api::pb::etcdserverpb::Metadata;
use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Snapshot, SnapshotMetadata};
use bytes::Bytes;
use disk::SharedDisk;
use prost::Message as _;
use raft::{MemoryStorage, RawNode};
use std::collections::VecDeque;
use std::path::PathBuf;
use store::Store;
use store::lessor::Lessor;
use wal::snap::Snapshotter;
use wal::{Opening, Replay, Wal, WalOptions, WalSnapshot};

/// A member of a new cluster, as `--initial-cluster` names it.
#[derive(Clone, Debug)]
pub struct InitialMember {
    pub cluster_id: u64,
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// What a member needs to come up.
pub struct BootConfig {
    pub disk: SharedDisk,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    pub wal: WalOptions,
    pub store: store::Options,
    pub member: Config,
    /// Who a new log is made for, or what is wrong with the flags that say so; an old log knows who it is.
    pub initial: Result<InitialMember, String>,
    /// Driver's clock, ms; wall clock, ms since the epoch.
    pub now_ms: u64,
    pub wall_ms: u64,
}

struct Opened {
    wal: Wal,
    replay: Replay,
    store: Store,
    snapshot: WalSnapshot,
    snapshotter: Snapshotter,
}

impl<T> Member<T> {
    /// Opens or creates the member. Answers it with warnings for the log.
    pub fn boot(boot: BootConfig) -> Result<(Member<T>, Vec<String>), Fatal> {
        let layout = Layout::new(&boot.data_dir, boot.wal_dir.as_deref());
        let known = wal::exists(&boot.disk, &layout.wal);
        if let Ok(false) = known {
            // Wrong flags make no directory.
            initial(&boot)?;
        }
        let warnings = layout.prepare(&boot.disk)?;
        let opened = match known? {
            true => open_existing(&boot, &layout)?,
            false => create_new(&boot, &layout)?,
        };
        Ok((assemble(boot, opened)?, warnings))
    }
}

/// The `.snap` files of a directory that is locked: in another member's, leftovers may be work in progress.
fn snapshotter(boot: &BootConfig, layout: &Layout) -> Result<Snapshotter, Fatal> {
    let snapshotter = Snapshotter::new(boot.disk.clone(), &layout.snap);
    snapshotter.clear_leftovers()?;
    Ok(snapshotter)
}

fn initial(boot: &BootConfig) -> Result<&InitialMember, Fatal> {
    boot.initial.as_ref().map_err(|why| Fatal::new(why.clone()))
}

fn create_new(boot: &BootConfig, layout: &Layout) -> Result<Opened, Fatal> {
    let initial = initial(boot)?;
    let store = Store::open(boot.disk.clone(), &layout.db, boot.store.clone())?;
    if store.consistent_index() > 0 {
        return Err(Fatal::new(format!(
            "the log directory {} is missing, but {} was used: its index is {}. Restore the log directory (see \
             --wal-dir), or start from a snapshot in an empty --data-dir",
            layout.wal.display(),
            layout.db.display(),
            store.consistent_index()
        )));
    }
    let snapshotter = snapshotter(boot, layout)?;
    let metadata = Metadata { node_id: Some(initial.id), cluster_id: Some(initial.cluster_id) };
    let metadata = Bytes::from(metadata.encode_to_vec());
    let mut wal = Wal::create(boot.disk.clone(), &layout.wal, metadata.clone(), boot.wal)?;
    let mut replay = Replay { metadata, hard_state: HardState::default(), entries: Vec::new() };
    bootstrap(&mut wal, &mut replay, initial)?;
    let snapshot = WalSnapshot { index: 0, term: 0, conf_state: None };
    Ok(Opened { wal, replay, store, snapshot, snapshotter })
}

/// As Go's StartNode: one AddNode entry per initial member, term 1, committed from the start.
fn bootstrap(wal: &mut Wal, replay: &mut Replay, initial: &InitialMember) -> Result<(), Fatal> {
    replay.entries = vec![bootstrap_entry(initial)?];
    replay.hard_state = HardState { term: 1, vote: 0, commit: 1 };
    wal.append(&replay.hard_state, &replay.entries)?;
    wal.sync()?;
    Ok(())
}

/// A crash at the very first start may leave a log without its first hard state: nobody was promised anything, and
/// without members nobody would ever lead. It is begun again, but only as the cluster that the log was made for.
fn begin_again(boot: &BootConfig, wal: &mut Wal, replay: &mut Replay) -> Result<(), Fatal> {
    let (node_id, cluster_id) = identity(&replay.metadata)?;
    let initial = initial(boot)?;
    if (node_id, cluster_id) != (initial.id, initial.cluster_id) {
        return Err(Fatal::new(format!(
            "the log holds no entries and belongs to member {node_id:x} of cluster {cluster_id:x}, while the flags name \
             member {:x} of a new cluster {:x}: remove the data directory, or start with the flags it was made with",
            initial.id, initial.cluster_id
        )));
    }
    bootstrap(wal, replay, initial)
}

/// Member and cluster, as the log's first record names them.
fn identity(metadata: &Bytes) -> Result<(u64, u64), Fatal> {
    let metadata = Metadata::decode(metadata.clone())
        .map_err(|e| Fatal::new(format!("the log's metadata record can't be read: {e}")))?;
    Ok((metadata.node_id(), metadata.cluster_id()))
}

fn bootstrap_entry(member: &InitialMember) -> Result<Entry, Fatal> {
    let context = store::member_json(member.id, &member.peer_urls, &member.name);
    let change = ConfChange { id: 0, kind: ConfChangeKind::AddNode, node_id: member.id, context: context.into() };
    Ok(Entry { term: 1, index: 1, kind: EntryKind::ConfChange, data: change.encode().into() })
}

fn open_existing(boot: &BootConfig, layout: &Layout) -> Result<Opened, Fatal> {
    let snapshots = wal::valid_snapshots(&boot.disk, &layout.wal)?;
    let Some(snapshot) = snapshots.last().cloned() else {
        return Err(Fatal::new(format!(
            "the log in {} has no snapshot record, so it can't be replayed: restore it from a backup",
            layout.wal.display()
        )));
    };
    if !boot.disk.exists(&layout.db).map_err(|e| Fatal::new(format!("{}: {e}", layout.db.display())))? {
        return Err(Fatal::new(format!("database file ({}) of the backend is missing", layout.db.display())));
    }
    // Both are locked and read before anything is changed: who is refused keeps what may be rescued.
    let store = Store::open(boot.disk.clone(), &layout.db, boot.store.clone())?;
    let (opening, mut replay) = Opening::open(boot.disk.clone(), &layout.wal, &snapshot)?;
    refuse_other_members(store.conf_state())?;
    check_indexes(layout, &snapshot, &store, &replay)?;
    check_torn(&store, &opening, &replay)?;
    let snapshotter = snapshotter(boot, layout)?;
    let mut wal = opening.settle(boot.wal)?;
    if replay.hard_state.is_empty() && snapshot.index == 0 && store.consistent_index() == 0 {
        begin_again(boot, &mut wal, &mut replay)?;
    }
    Ok(Opened { wal, replay, store, snapshot, snapshotter })
}

fn check_indexes(layout: &Layout, snapshot: &WalSnapshot, store: &Store, replay: &Replay) -> Result<(), Fatal> {
    let index = store.consistent_index();
    if index < snapshot.index {
        return Err(Fatal::new(format!(
            "failed to find database snapshot file (snap: snapshot file doesn't exist): database file ({} index {index}) \
             does not match with snapshot (index {}). Restore the page store that belongs to this log, or start from a \
             backup",
            layout.db.display(),
            snapshot.index
        )));
    }
    let last = replay.entries.last().map_or(snapshot.index, |e| e.index);
    if index > last {
        return Err(Fatal::new(format!(
            "database file ({} index {index}) is ahead of the log, which ends at index {last}: the log lost entries \
             that were applied. Restore the log that belongs to it, or start from a snapshot",
            layout.db.display()
        )));
    }
    Ok(())
}

/// A torn write is one that was never synced. Where an only voter's later record commits what the torn one held, it was
/// synced, and acknowledged: the log is damaged, and cutting it there would lose what clients were promised. With other
/// voters a commit index may stand in the same unsynced batch as its entries, and proves nothing.
fn check_torn(store: &Store, opening: &Opening, replay: &Replay) -> Result<(), Fatal> {
    let last = replay.entries.last().map_or(0, |e| e.index);
    // The page store may not know of the newest changes, nor, right after the first start, of anybody.
    let changes = replay.entries.iter().filter(|e| e.kind != EntryKind::Normal && e.index > store.consistent_index());
    let alone = store.conf_state().voters.len() + changes.count() <= 1;
    match opening.behind_torn()? {
        Some(behind) if alone && behind.commit > last => Err(Fatal::new(format!(
            "wal: {} is damaged at offset {}: a record can't be read, and it is no torn write, since later records \
             commit entries up to {}, while the readable ones end at {last}. Restore a backup of the data directory, or \
             start from a snapshot",
            behind.path.display(),
            behind.offset,
            behind.commit
        ))),
        _ => Ok(()),
    }
}

fn assemble<T>(boot: BootConfig, opened: Opened) -> Result<Member<T>, Fatal> {
    let Opened { wal, replay, mut store, snapshot, snapshotter } = opened;
    let (member_id, cluster_id) = identity(&replay.metadata)?;
    store.set_identity(cluster_id, member_id);
    let (applied, _) = store.publish();

    let mut storage = MemoryStorage::new();
    storage.restore(
        Snapshot {
            data: Bytes::new(),
            metadata: SnapshotMetadata {
                conf_state: applied.conf_state().clone(),
                index: snapshot.index,
                term: snapshot.term,
            },
        },
        replay.hard_state,
    );
    storage.append(&replay.entries);
    let config = boot.member;
    let raft_config = raft::Config {
        id: member_id,
        election_tick: config.election_ticks as usize,
        heartbeat_tick: 1,
        applied: snapshot.index,
        max_size_per_msg: 1 << 20,
        seed: config.seed,
        ..raft::Config::default()
    };
    let raft = RawNode::new(raft_config, storage).map_err(|e| Fatal::new(format!("consensus: {e}")))?;
    let mut lessor = Lessor::new();
    for (id, lease) in applied.leases() {
        lessor.restore(id, lease.ttl(), lease.remaining_ttl());
    }
    let mut member = Member {
        member_id,
        cluster_id,
        raft,
        log: LogWriter::new(wal, replay.hard_state),
        ids: IdGenerator::new(member_id, boot.wall_ms),
        now_ms: boot.now_ms,
        next_tick_ms: boot.now_ms + config.tick_ms,
        pending: Default::default(),
        held: VecDeque::new(),
        reads_waiting: Vec::new(),
        reads_asked: VecDeque::new(),
        reads_confirmed: VecDeque::new(),
        lessor,
        leases: leases::Keeper::default(),
        compactor: config.auto_compaction.map(|policy| AutoCompactor::new(policy, boot.now_ms)),
        compaction: replies::Compacting::default(),
        checkpointing: Checkpointing::new(snapshotter, snapshot.index, boot.now_ms),
        versions: versions::Versions::default(),
        leading: false,
        stopping: false,
        out: Vec::new(),
        config,
        store,
        applied,
    };
    if member.store.compaction_pending() {
        member.compaction.start(boot.now_ms);
    }
    member.come_up()?;
    Ok(member)
}

/// This release has no peer port: it must not come up, or go on, in a cluster whose quorum it can't reach.
pub(super) fn refuse_other_members(conf: &ConfState) -> Result<(), Fatal> {
    let others = conf.voters.len() > 1 || !conf.learners.is_empty() || !conf.voters_outgoing.is_empty();
    match others {
        true => Err(Fatal::new(format!(
            "consensus: the cluster has several members (voters {:x?}, learners {:x?}); this release serves clusters of \
             one member: remove the others first, or use Go etcd",
            conf.voters, conf.learners
        ))),
        false => Ok(()),
    }
}

impl<T> Member<T> {
    /// Replays what is committed; a member alone elects itself at once instead of waiting for a timeout.
    fn come_up(&mut self) -> Result<(), Fatal> {
        self.turn()?;
        let conf = self.applied.conf_state();
        if conf.voters == [self.member_id] {
            self.raft.campaign();
            self.turn()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_members_are_refused_by_name() {
        let conf = ConfState { voters: vec![1, 2], ..ConfState::default() };
        assert!(refuse_other_members(&conf).unwrap_err().to_string().contains("one member"));
        assert!(refuse_other_members(&ConfState { voters: vec![1], ..ConfState::default() }).is_ok());
    }
}
