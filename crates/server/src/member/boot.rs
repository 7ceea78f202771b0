//! How a member comes up: a new directory, or whatever a crash, a stop or another etcd left.
//!
//! Rule at open: newest `.snap` record ≤ consistent index of the page store ≤ last log entry; otherwise the member
//! refuses to start and names the cure. Conf changes at or below the consistent index are not fed to raft again:
//! the bucket `members` already holds what they did.

use super::checkpoint::Checkpointing;
use super::{Config, Member, force, install, leases, membership, peers, replies, versions};
use crate::autocompact::AutoCompactor;
use crate::{Fatal, IdGenerator, Layout, LogWriter};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    pub id: u64,
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// How a new log begins, and whose it is.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    pub cluster_id: u64,
    pub id: u64,
    /// Who founds the cluster, all of them, this member too. Empty: it joins one that exists, whose leader tells it
    /// everything.
    pub founders: Vec<Founder>,
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
    pub initial: Result<Beginning, String>,
    /// An old log's member goes on alone (see `force`); with the peer URLs it has in case its log does not know it.
    pub force_new_cluster: Option<Vec<String>>,
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
    /// Opens or creates the member. Answers it with its log, and with warnings for people.
    ///
    /// # Errors
    /// The flags, the files or the disk: what is wrong and what helps.
    pub fn boot(boot: BootConfig) -> Result<(Member<T>, LogWriter, Vec<String>), Fatal> {
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
        let (member, log) = assemble(boot, &layout, opened)?;
        Ok((member, log, warnings))
    }
}

/// The `.snap` files of a directory that is locked: in another member's, leftovers may be work in progress.
fn snapshotter(boot: &BootConfig, layout: &Layout) -> Result<Snapshotter, Fatal> {
    let snapshotter = Snapshotter::new(boot.disk.clone(), &layout.snap);
    snapshotter.clear_leftovers()?;
    Ok(snapshotter)
}

fn initial(boot: &BootConfig) -> Result<&Beginning, Fatal> {
    boot.initial.as_ref().map_err(|why| Fatal::new(why.clone()))
}

fn create_new(boot: &BootConfig, layout: &Layout) -> Result<Opened, Fatal> {
    let initial = initial(boot)?;
    if initial.id == 0 {
        return Err(Fatal::new(format!("{} holds files of a log, but no log: remove them", layout.wal.display())));
    }
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

/// As Go's StartNode: one AddNode entry per founder, ascending, term 1, committed from the start: equal logs at all of
/// them. Who joins begins with nothing.
fn bootstrap(wal: &mut Wal, replay: &mut Replay, initial: &Beginning) -> Result<(), Fatal> {
    if initial.founders.is_empty() {
        return Ok(());
    }
    let mut founders: Vec<&Founder> = initial.founders.iter().collect();
    founders.sort_by_key(|founder| founder.id);
    replay.entries = (1..).zip(founders).map(|(index, founder)| bootstrap_entry(index, founder)).collect();
    replay.hard_state = HardState { term: 1, vote: 0, commit: replay.entries.len() as u64 };
    wal.append(&replay.hard_state, &replay.entries)?;
    wal.sync()?;
    Ok(())
}

/// A crash at the very first start may leave a log without its first hard state: nobody was promised anything, and
/// without members nobody would ever lead. It is begun again, but only as the cluster that the log was made for. Who
/// joined one waits for its leader.
fn begin_again(boot: &BootConfig, wal: &mut Wal, replay: &mut Replay) -> Result<(), Fatal> {
    let (node_id, cluster_id) = identity(&replay.metadata)?;
    let initial = initial(boot)?;
    if initial.founders.is_empty() {
        return Ok(());
    }
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

fn bootstrap_entry(index: u64, founder: &Founder) -> Entry {
    let context = store::member_json(founder.id, &founder.peer_urls, &founder.name);
    let change = ConfChange { id: 0, kind: ConfChangeKind::AddNode, node_id: founder.id, context: context.into() };
    Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode().into() }
}

fn open_existing(boot: &BootConfig, layout: &Layout) -> Result<Opened, Fatal> {
    let snapshots = wal::valid_snapshots(&boot.disk, &layout.wal)?;
    // Not the last record: one of this member's own may have come behind a newer one of a leader's.
    let newest = match failpoint::mutant!("olderSnapshotRecorded") {
        true => snapshots.last(),
        false => snapshots.iter().max_by_key(|snapshot| snapshot.index),
    };
    let Some(snapshot) = newest.cloned() else {
        return Err(Fatal::new(format!(
            "the log in {} has no snapshot record, so it can't be replayed: restore it from a backup",
            layout.wal.display()
        )));
    };
    if !boot.disk.exists(&layout.db).map_err(|e| Fatal::new(format!("{}: {e}", layout.db.display())))? {
        return Err(Fatal::new(format!("database file ({}) of the backend is missing", layout.db.display())));
    }
    // Both are locked and read before anything is changed: who is refused keeps what may be rescued.
    let mut store = Store::open(boot.disk.clone(), &layout.db, boot.store.clone())?;
    let (opening, mut replay) = Opening::open(boot.disk.clone(), &layout.wal, &snapshot)?;
    if boot.member.alone {
        refuse_other_members(store.conf_state())?;
    }
    let lacks_image = lacks_image(boot, layout, &snapshot, &store)?;
    if !lacks_image {
        check_indexes(layout, &snapshot, &store, &replay)?;
        // Who got a leader's database is not the only voter.
        check_torn(&store, &opening, &replay)?;
    }
    let snapshotter = snapshotter(boot, layout)?;
    let mut wal = opening.settle(boot.wal)?;
    if lacks_image {
        store = adopt_image(boot, layout, &snapshot, &replay, store)?;
    }
    if replay.hard_state.is_empty() && snapshot.index == 0 && store.consistent_index() == 0 {
        begin_again(boot, &mut wal, &mut replay)?;
    }
    if let Some(peer_urls) = &boot.force_new_cluster {
        let (own, _) = identity(&replay.metadata)?;
        let (conf, index, removed) = (store.conf_state(), store.consistent_index(), store.is_removed(own));
        force::new_cluster(&mut wal, &mut replay, &force::Known { own, peer_urls, conf, index, removed })?;
    }
    Ok(Opened { wal, replay, store, snapshot, snapshotter })
}

/// Whether a leader's database still has to take the page store's place: a crash came in between.
fn lacks_image(boot: &BootConfig, layout: &Layout, snapshot: &WalSnapshot, store: &Store) -> Result<bool, Fatal> {
    let image = layout.snap.join(install::image_name(snapshot.index));
    let there = boot.disk.exists(&image).map_err(|e| Fatal::new(format!("{}: {e}", image.display())))?;
    Ok(there && store.consistent_index() < snapshot.index)
}

/// Puts a leader's database in the page store's place. Only when the log that says so is durable: a record that was read
/// may be gone after the next crash, and a database without it is ahead of its log.
fn adopt_image(
    boot: &BootConfig,
    layout: &Layout,
    snapshot: &WalSnapshot,
    replay: &Replay,
    store: Store,
) -> Result<Store, Fatal> {
    drop(store);
    install::adopt_image(&files(boot, layout), snapshot.index)?;
    let store = Store::open(boot.disk.clone(), &layout.db, boot.store.clone())?;
    check_indexes(layout, snapshot, &store, replay)?;
    Ok(store)
}

fn files(boot: &BootConfig, layout: &Layout) -> install::Files {
    install::Files { disk: boot.disk.clone(), layout: layout.clone(), store: boot.store.clone() }
}

/// Newest snapshot ≤ consistent index ≤ end of the log.
pub(super) fn check_indexes(
    layout: &Layout,
    snapshot: &WalSnapshot,
    store: &Store,
    replay: &Replay,
) -> Result<(), Fatal> {
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

/// etcd `maybeDefragBackend`. What can't be done for want of room is left for later.
fn defragment(store: &mut Store, least: u64) -> Result<(), Fatal> {
    let (size, in_use) = (store.size(), store.size_in_use());
    if size.abs_diff(in_use) < least {
        tracing::info!(
            "current-db-size-bytes" = size,
            "current-db-size-in-use-bytes" = in_use,
            "bootstrap-defrag-threshold-bytes" = least,
            "Skipping defragmentation"
        );
        return Ok(());
    }
    let mut work = store.defragment();
    match work.run(&|_| ()) {
        Ok(()) => {}
        Err(store::Error::Refused(e)) => {
            tracing::warn!(error = %e, "the database can't be defragmented before the start; it is served as it is");
            return Ok(());
        }
        Err(e) => return Err(e.into()),
    }
    store.defragmented(work)?;
    tracing::info!(
        "current-db-size-bytes" = store.size(),
        "current-db-size-bytes-diff" = store.size() - size,
        "finished defragmenting directory"
    );
    Ok(())
}

fn assemble<T>(boot: BootConfig, layout: &Layout, opened: Opened) -> Result<(Member<T>, LogWriter), Fatal> {
    let Opened { wal, replay, mut store, snapshot, snapshotter } = opened;
    let (member_id, cluster_id) = identity(&replay.metadata)?;
    if let Some(least) = boot.member.choices.defragment_from {
        defragment(&mut store, least)?;
    }
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
    let files = files(&boot, layout);
    let config = boot.member;
    let raft_config = raft::Config {
        id: member_id,
        election_tick: config.election_ticks as usize,
        heartbeat_tick: 1,
        applied: snapshot.index,
        // A commit index alone is not synced; a page store that is ahead of it vouches for what it holds.
        committed: if failpoint::mutant!("commitNotRaised") { 0 } else { applied.index() },
        max_size_per_msg: 1 << 20,
        seed: config.seed,
        pre_vote: config.pre_vote,
        ..raft::Config::default()
    };
    let raft = RawNode::new(raft_config, storage).map_err(|e| Fatal::new(format!("consensus: {e}")))?;
    let mut lessor = Lessor::new();
    for (id, lease) in applied.leases() {
        lessor.restore(id, lease.ttl(), lease.remaining_ttl());
    }
    let mut log = LogWriter::new(wal, replay.hard_state, config.max_wals, snapshotter.clone());
    let mut member = Member {
        member_id,
        cluster_id,
        raft,
        membership: membership::Membership::default(),
        wall_offset_ms: boot.wall_ms.saturating_sub(boot.now_ms),
        messages: Vec::new(),
        leadership: peers::Leadership::default(),
        stall: peers::Stall::default(),
        log_tasks: Vec::new(),
        logged: VecDeque::new(),
        files,
        snapshots: install::Snapshots::default(),
        log_room: true,
        store_room: true,
        ids: IdGenerator::new(member_id, boot.wall_ms),
        now_ms: boot.now_ms,
        next_tick_ms: boot.now_ms + config.tick_ms,
        pending: Default::default(),
        held: super::held::Held::default(),
        reads_waiting: Vec::new(),
        reads_asked: VecDeque::new(),
        reads_confirmed: VecDeque::new(),
        lessor,
        leases: leases::Keeper::default(),
        compactor: config.auto_compaction.map(|policy| AutoCompactor::new(policy, boot.now_ms)),
        compaction: replies::Compacting::default(),
        checkpointing: Checkpointing::new(snapshotter, snapshot.index, boot.now_ms),
        versions: versions::Versions::default(),
        leads: None,
        stopping: false,
        tally: Default::default(),
        out: Vec::new(),
        config,
        store,
        applied,
    };
    if member.store.compaction_pending() {
        member.compaction.start(boot.now_ms);
    }
    member.come_up(&mut log)?;
    Ok((member, log))
}

/// Without a transport a member must not come up in a cluster whose quorum it can't reach.
fn refuse_other_members(conf: &ConfState) -> Result<(), Fatal> {
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
    fn come_up(&mut self, log: &mut LogWriter) -> Result<(), Fatal> {
        self.replay(log)?;
        let conf = self.applied.conf_state();
        if conf.voters == [self.member_id] {
            self.raft.campaign();
            self.replay(log)?;
        }
        Ok(())
    }

    /// All there is, however many turns that takes: nobody waits yet.
    fn replay(&mut self, log: &mut LogWriter) -> Result<(), Fatal> {
        self.turn_with(log)?;
        while self.raft.has_ready() {
            self.turn_with(log)?;
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
