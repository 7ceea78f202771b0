//! The store: owned by the applier, changed by entries only.
//!
//! Invariants: consistent index and effects move together (same layer, same page-store transaction); an entry at or
//! below the consistent index changes nothing; what an entry does depends on nothing but the state and the entry.

use crate::applied::{Applied, KvHash, KvHasher, key_of};
use crate::backend::{Backend, Layer, Record};
use crate::counts::Counts;
use crate::index::{Batch, Item, KeyIndex, Rev};
use crate::members::{ConfStateJson, Downgrade, Member};
use crate::tree::Tree;
use crate::{Change, Error, Event, schema};
use api::pb::{etcdserverpb as pb, leasepb};
use api::raft::ConfState;
use bolt::{Db, Fill, Pace};
use bytes::Bytes;
use disk::SharedDisk;
use prost::Message as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a store is kept.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Budget of the page cache, bytes.
    pub cache_bytes: usize,
    /// Page size of a new file, bytes; `None` = 4096.
    pub page_size: Option<u32>,
    /// Bytes; ≤ 0 = no quota.
    pub quota_bytes: i64,
    /// Shorter leases are raised to it, seconds.
    pub min_lease_ttl: i64,
    /// Learners that the cluster may have: equal at all members, since it decides at apply.
    pub max_learners: usize,
    /// Gate LeaseCheckpointPersist: keep remaining TTLs even below cluster version 3.6.
    pub lease_checkpoint_persist: bool,
}

/// The state machine.
pub struct Store {
    pub(crate) s: Applied,
    pub(crate) options: Options,
    pub(crate) db: Db,
    pub(crate) disk: SharedDisk,
    path: PathBuf,
    pub(crate) changes: Vec<Change>,
    pub(crate) capture_prev: bool,
    pub(crate) counts: Counts,
    pub(crate) compaction: Option<Compaction>,
    /// Revision of the compaction that follows; of several only the newest, since it covers the others.
    next_compaction: Option<i64>,
    pub(crate) dirty_bytes: usize,
    /// Of `dirty_bytes`' kind, on their way into the page store.
    frozen_bytes: usize,
    /// The consistent index as the page store has it, or is about to.
    frozen_index: u64,
    /// Without what a checkpoint under way has written.
    file: FileSize,
}

/// Sizes of the page store's file as of the view that is read; a commit that is not taken back yet changes nothing,
/// or its changes would count twice.
#[derive(Clone, Copy, Debug)]
struct FileSize {
    size: u64,
    in_use: u64,
}

impl FileSize {
    fn of(db: &Db) -> FileSize {
        FileSize { size: db.size(), in_use: db.in_use_bytes() }
    }
}

/// A compaction under way: first the index, then the records.
#[derive(Debug)]
pub(crate) struct Compaction {
    revision: i64,
    phase: Phase,
    /// Only when the one before had finished when this one was asked for (semantics 6.6).
    hasher: Option<KvHasher>,
    any_kept: bool,
}

#[derive(Debug)]
enum Phase {
    Index(Bytes),
    Records(Rev),
}

impl std::fmt::Debug for KvHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KvHasher")
    }
}

/// How far a compaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done: bool,
    /// A batch of records was deleted, and others are to get their turn before the next: as in Go, which does not
    /// pause in the index.
    pub pause: bool,
}

impl Store {
    /// Opens the page store, making buckets that are missing, and reads the whole state back.
    ///
    /// # Errors
    /// The file is locked, damaged, of an unknown schema, or uses a feature that this build lacks.
    pub fn open(disk: SharedDisk, path: &Path, options: Options) -> Result<Store, Error> {
        let db = Db::open(disk.clone(), path, bolt_options(&options))?;
        create_buckets(&db)?;
        Store::read(disk, path, options, db)
    }

    /// A second one of the same file, for comparison; the file stays this one's.
    pub(crate) fn read_again(&self) -> Result<Store, Error> {
        let options = bolt::Options { read_only: true, unlocked: true, ..bolt_options(&self.options) };
        let db = Db::open(self.disk.clone(), &self.path, options)?;
        Store::read(self.disk.clone(), &self.path, self.options.clone(), db)
    }

    fn read(disk: SharedDisk, path: &Path, options: Options, db: Db) -> Result<Store, Error> {
        let backend = Backend { active: Layer::default(), frozen: Layer::default(), view: db.view() };
        let s = Applied {
            index: 0,
            term: 0,
            revision: 1,
            compact_revision: -1,
            keys: KeyIndex::default(),
            backend,
            leases: Tree::default(),
            auth: crate::auth::Auth::default(),
            alarms: Arc::default(),
            members: Arc::default(),
            removed: Arc::default(),
            cluster_version: None,
            storage_version: None,
            downgrade: Arc::default(),
            conf_state: Arc::default(),
            hashes: Arc::default(),
            identity: (0, 0),
        };
        let file = FileSize::of(&db);
        let mut store = Store {
            s,
            options,
            db,
            disk,
            path: path.to_path_buf(),
            changes: Vec::new(),
            capture_prev: false,
            counts: Counts::default(),
            compaction: None,
            next_compaction: None,
            dirty_bytes: 0,
            frozen_bytes: 0,
            frozen_index: 0,
            file,
        };
        store.restore_small()?;
        store.restore_keys()?;
        Ok(store)
    }

    fn restore_small(&mut self) -> Result<(), Error> {
        let b = self.s.backend.clone();
        let number =
            |v: Option<Bytes>| v.and_then(|v| Some(u64::from_be_bytes(v.as_ref().try_into().ok()?))).unwrap_or(0);
        let text = |v: Option<Bytes>| v.and_then(|v| Some(Arc::from(std::str::from_utf8(&v).ok()?)));
        self.s.index = number(b.get(schema::META, schema::CONSISTENT_INDEX)?);
        self.frozen_index = self.s.index;
        self.s.term = number(b.get(schema::META, schema::TERM)?);
        self.s.storage_version = text(b.get(schema::META, schema::STORAGE_VERSION)?);
        self.s.cluster_version = text(b.get(schema::CLUSTER, schema::CLUSTER_VERSION)?);
        self.check_versions()?;
        self.restore_auth()?;
        if let Some(json) = b.get(schema::CLUSTER, schema::DOWNGRADE)? {
            self.s.downgrade = Arc::new(json_value::<Downgrade>("cluster/downgrade", &json)?);
        }
        for (key, _) in b.pairs(schema::ALARM)? {
            let alarm = pb::AlarmMember::decode(key).map_err(|e| bad("alarm", &e))?;
            Arc::make_mut(&mut self.s.alarms).insert((alarm.member_id, alarm.alarm));
        }
        for (_, value) in b.pairs(schema::MEMBERS)? {
            let member: Member = json_value("members", &value)?;
            Arc::make_mut(&mut self.s.members).insert(member.id, member);
        }
        for (key, _) in b.pairs(schema::MEMBERS_REMOVED)? {
            let id = std::str::from_utf8(&key).ok().and_then(|k| u64::from_str_radix(k, 16).ok());
            Arc::make_mut(&mut self.s.removed).extend(id);
        }
        self.derive_conf_state();
        for (_, value) in b.pairs(schema::LEASE)? {
            let lease = leasepb::Lease::decode(value).map_err(|e| bad("lease", &e))?;
            // The minimum follows from this start's election timeout: a lease granted under a shorter one is raised.
            let ttl = lease.ttl.max(self.options.min_lease_ttl);
            let kept = crate::applied::Lease { ttl, remaining_ttl: lease.remaining_ttl, keys: Tree::default() };
            self.s.leases.insert(&lease.id, kept);
        }
        Ok(())
    }

    fn check_versions(&self) -> Result<(), Error> {
        use api::version::{SERVER, Version};
        let own = Version::parse(SERVER).expect("a constant");
        let newer = |v: &Option<Arc<str>>| {
            v.as_deref().and_then(Version::parse).filter(|v| (v.major, v.minor) > (own.major, own.minor))
        };
        if let Some(v) = newer(&self.s.storage_version) {
            return Err(Error::Fatal(format!(
                "version \"{v}\" is not supported: the data directory was written by a newer etcd; run that version, or \
                 downgrade it first (etcdctl downgrade enable 3.7)"
            )));
        }
        match newer(&self.s.cluster_version) {
            Some(v) => Err(Error::Fatal(format!(
                "invalid downgrade; server version is lower than determined cluster version ({SERVER} < {v}); run that \
                 version, or downgrade its cluster first (etcdctl downgrade enable 3.7)"
            ))),
            None => Ok(()),
        }
    }

    /// The members bucket is the one truth about the configuration.
    pub(crate) fn derive_conf_state(&mut self) {
        let ids = |learner: bool| {
            self.s.members.values().filter(|m| m.is_learner == learner).map(|m| m.id).collect::<Vec<_>>()
        };
        let conf = ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() };
        self.s.conf_state = Arc::new(conf);
    }

    fn restore_keys(&mut self) -> Result<(), Error> {
        let compacted = |v: Option<Bytes>| v.and_then(|v| Some(schema::parse_revision(&v)?.0.main));
        let b = self.s.backend.clone();
        let finished = compacted(b.get(schema::META, schema::FINISHED_COMPACTION)?);
        let scheduled = compacted(b.get(schema::META, schema::SCHEDULED_COMPACTION)?);
        let mut attached = std::collections::BTreeMap::new();
        let mut revisions = b.revisions(Rev::default())?;
        let mut last = 1;
        let mut batch = Batch::default();
        while let Some((rev, tombstone, value)) = revisions.advance()? {
            let kv = crate::applied::decode_kv(&value)?;
            let item = match tombstone {
                true => Item { rev, created: 0, version: 0 },
                false => Item { rev, created: kv.create_revision, version: kv.version },
            };
            match tombstone || kv.lease == 0 {
                true => drop(attached.remove(&kv.key)),
                // A copy: the key is a part of a page.
                false => drop(attached.insert(Bytes::copy_from_slice(&kv.key), kv.lease)),
            }
            batch.push(&kv.key, item);
            if batch.is_full() {
                self.s.keys.restore(&mut batch);
            }
            last = rev.main;
        }
        self.s.keys.restore(&mut batch);
        for (key, id) in attached {
            self.with_lease(id, |lease| {
                lease.keys.insert(&key, crate::applied::Attached);
            });
        }
        self.s.revision = last.max(finished.unwrap_or(1)).max(scheduled.unwrap_or(1));
        self.s.compact_revision = finished.or(scheduled).map_or(-1, |f| f.max(scheduled.unwrap_or(f)));
        if scheduled.is_some_and(|s| finished.is_none_or(|f| f < s)) {
            self.begin_compaction(scheduled.unwrap_or(0), None);
        } else if let Some(finished) = finished {
            // Records that a compaction removed leave nothing in the index; nothing is to be done.
            self.s.compact_revision = finished;
        }
        Ok(())
    }

    pub fn consistent_index(&self) -> u64 {
        self.s.index
    }

    pub fn compact_revision(&self) -> i64 {
        self.s.compact_revision
    }

    pub fn set_identity(&mut self, cluster_id: u64, member_id: u64) {
        self.s.identity = (cluster_id, member_id);
    }

    /// Whether events are given previous values.
    pub fn captures_prev(&self) -> bool {
        self.capture_prev
    }

    pub fn set_capture_prev(&mut self, on: bool) {
        self.capture_prev = on;
    }

    /// What the quota bounds: bytes up to the file's high-water mark, or to the one that writing what waits for a
    /// checkpoint will lead to. That takes free pages first.
    pub fn size(&self) -> i64 {
        self.file.size.max(self.file.in_use + self.content_bytes()) as i64
    }

    pub fn size_in_use(&self) -> i64 {
        (self.file.in_use + self.content_bytes()) as i64
    }

    fn content_bytes(&self) -> u64 {
        let Backend { active, frozen, .. } = &self.s.backend;
        (active.content_bytes() + frozen.content_bytes()) as u64
    }

    /// Whether anything was applied that no checkpoint has seen.
    pub fn is_ahead(&self) -> bool {
        self.s.index != self.frozen_index || !self.s.backend.active.is_empty()
    }

    /// Bytes that the changes which wait for a checkpoint will take in the page store; deletions take none.
    pub fn new_bytes(&self) -> usize {
        self.s.backend.active.content_bytes()
    }

    /// Memory for changes that wait for a checkpoint, at most: what was replaced or deleted meanwhile counts, too.
    pub fn overlay_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// … with those that a checkpoint is writing.
    pub fn unwritten_bytes(&self) -> usize {
        self.dirty_bytes + self.frozen_bytes
    }

    /// The members, as raft counts them.
    pub fn conf_state(&self) -> &ConfState {
        &self.s.conf_state
    }

    pub fn header(&self) -> pb::ResponseHeader {
        self.s.header()
    }

    /// The state and the changes since the last publication.
    pub fn publish(&mut self) -> (Arc<Applied>, Vec<Change>) {
        (Arc::new(self.s.clone()), std::mem::take(&mut self.changes))
    }

    pub(crate) fn set(&mut self, bucket: &'static str, key: &[u8], value: Option<Bytes>) {
        self.dirty_bytes += key.len() + value.as_ref().map_or(0, Bytes::len) + 64;
        self.s.backend.active.set(bucket, Bytes::copy_from_slice(key), value);
    }

    pub(crate) fn set_record(&mut self, rev: Rev, record: Record) {
        self.dirty_bytes += 17 + record.value.as_ref().map_or(0, Bytes::len) + 64;
        self.s.backend.active.set_record(rev, record);
    }

    pub(crate) fn with_lease(&mut self, id: i64, change: impl FnOnce(&mut crate::applied::Lease)) {
        if self.s.leases.get(&id).is_some() {
            self.s.leases.update(&id, |slot| {
                if let Some(lease) = slot {
                    change(lease);
                }
            });
        }
    }

    pub(crate) fn record_change(&mut self, revision: i64, events: Vec<Event>) {
        if !events.is_empty() {
            self.changes.push(Change { revision, events: events.into() });
        }
    }

    /// The schema's version, if it has one.
    pub fn storage_version(&self) -> Option<&str> {
        self.s.storage_version.as_deref()
    }

    /// Writes the schema's version; local, not replicated. 3.5 has no field for it.
    pub fn set_storage_version(&mut self, version: Option<&str>) {
        self.s.storage_version = version.map(Into::into);
        let bytes = version.map(|version| Bytes::copy_from_slice(version.as_bytes()));
        self.set(schema::META, schema::STORAGE_VERSION, bytes);
    }

    /// raft's configuration after a conf change; kept beside the members it was derived from.
    pub fn set_conf_state(&mut self, state: &ConfState) {
        let json = ConfStateJson { voters: state.voters.clone(), learners: state.learners.clone(), auto_leave: false };
        self.set(schema::META, schema::CONF_STATE, Some(crate::members::go_json(&json).into()));
        self.s.conf_state = Arc::new(state.clone());
    }

    /// What was done since it was opened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Goes on counting where another store left off: this one takes its place, and what is shown never goes back.
    pub fn count_on(&mut self, from: &Counts) {
        self.counts = from.clone();
    }

    // ---- compaction ------------------------------------------------------------------------------------------

    /// Whether a compaction is under way.
    pub fn compaction_pending(&self) -> bool {
        self.compaction.is_some()
    }

    /// Begins a compaction, or lets it follow the one under way: Go's queue finishes that first and keeps its hash, but
    /// none of those that had to wait (semantics 6.6).
    pub(crate) fn begin_compaction(&mut self, revision: i64, previous: Option<i64>) {
        if self.compaction.is_some() {
            self.next_compaction = Some(revision);
            return;
        }
        let hasher = previous.map(|previous| KvHasher::new(revision, previous));
        self.compaction = Some(Compaction { revision, phase: Phase::Index(Bytes::new()), hasher, any_kept: false });
    }

    /// Does a step of the compaction under way: at most `keys` keys or chunks of a key's revisions, or `records` records.
    pub fn compaction_step(&mut self, keys: usize, records: usize) -> Result<Progress, Error> {
        const FINISHED: Progress = Progress { done: true, pause: false };
        let Some(mut c) = self.compaction.take() else { return Ok(FINISHED) };
        let mut pause = false;
        match c.phase {
            Phase::Index(from) => {
                let found = self.s.keys.compact(c.revision, &from, keys);
                c.any_kept |= found.keeps;
                c.phase = found.next.map_or(Phase::Records(Rev::default()), Phase::Index);
            }
            Phase::Records(from) => match self.compact_records(&mut c, from, records, &mut pause)? {
                Some(next) => {
                    failpoint::point!("compactBeforeCommitBatch");
                    c.phase = Phase::Records(next);
                    failpoint::point!("compactAfterCommitBatch");
                }
                None => {
                    self.finish_compaction(&c);
                    self.counts.compactions += 1;
                    let Some(next) = self.next_compaction.take() else { return Ok(FINISHED) };
                    self.begin_compaction(next, None);
                    return Ok(Progress { done: false, pause });
                }
            },
        }
        self.compaction = Some(c);
        Ok(Progress { done: false, pause })
    }

    /// Answers where to go on; sets `pause` when there was anything in the page store or on its way there.
    fn compact_records(
        &mut self,
        c: &mut Compaction,
        from: Rev,
        max: usize,
        pause: &mut bool,
    ) -> Result<Option<Rev>, Error> {
        failpoint::point!("compactAfterAcquiredBatchTxLock");
        let backend = self.s.backend.clone();
        let mut revisions = backend.revisions(from)?;
        let mut seen = 0;
        while let Some((rev, record)) = revisions.step()? {
            if rev.main > c.revision {
                return Ok(None);
            }
            if seen == max {
                return Ok(Some(rev));
            }
            seen += 1;
            // Deleted by the compaction before, and no checkpoint has run yet: looked at, but no work for the disk.
            let Some((tombstone, value)) = record else { continue };
            *pause = true;
            let keep = self.s.keys.get(&key_of(&value)?).is_some_and(|h| h.keeps(rev, c.revision));
            if let Some(hasher) = &mut c.hasher {
                hasher.add(rev, tombstone, &value, c.any_kept, || Ok(keep))?;
            }
            if !keep {
                self.counts.compacted += 1;
                self.set_record(rev, Record { tombstone, value: None });
            }
        }
        Ok(None)
    }

    fn finish_compaction(&mut self, c: &Compaction) {
        let bytes = schema::revision_key(Rev { main: c.revision, sub: 0 }, false);
        failpoint::point!("compactBeforeSetFinishedCompact");
        self.set(schema::META, schema::FINISHED_COMPACTION, Some(bytes.into()));
        failpoint::point!("compactAfterSetFinishedCompact");
        if let Some(hasher) = &c.hasher {
            const KEPT: usize = 10;
            let hashes: &mut Vec<KvHash> = Arc::make_mut(&mut self.s.hashes);
            hashes.push(hasher.finish());
            let extra = hashes.len().saturating_sub(KEPT);
            hashes.drain(..extra);
        }
    }

    // ---- checkpoint ------------------------------------------------------------------------------------------

    /// Freezes what waits for the page store; `None` when nothing does. One at a time.
    pub fn freeze(&mut self) -> Option<Checkpoint> {
        // The consistent index moves in the layer that holds the effects, also for entries without any.
        if !self.is_ahead() {
            return None;
        }
        self.frozen_index = self.s.index;
        assert!(self.s.backend.frozen.is_empty(), "one checkpoint at a time");
        failpoint::point!("commitBeforePreCommitHook");
        self.set(schema::META, schema::CONSISTENT_INDEX, Some(self.s.index.to_be_bytes().to_vec().into()));
        if self.s.term > 0 {
            self.set(schema::META, schema::TERM, Some(self.s.term.to_be_bytes().to_vec().into()));
        }
        failpoint::point!("commitAfterPreCommitHook");
        let layer = std::mem::take(&mut self.s.backend.active);
        self.s.backend.frozen = layer.clone();
        self.frozen_bytes = std::mem::take(&mut self.dirty_bytes);
        if failpoint::mutant!("publishedBeforeDurable") {
            self.s.backend.frozen = Layer::default();
        }
        Some(Checkpoint { layer, db: self.db.clone() })
    }

    /// The checkpoint is durable: reads go to the page store from now on.
    pub fn checkpointed(&mut self, checkpoint: Checkpoint) -> Result<(), Error> {
        drop(checkpoint);
        self.s.backend.frozen = Layer::default();
        self.frozen_bytes = 0;
        self.read_from_file();
        Ok(())
    }

    /// Work for a defragmentation, to be run while no checkpoint runs.
    pub fn defragment(&self) -> Defragment {
        let mut tmp = self.path.clone().into_os_string();
        tmp.push(".tmp.defrag");
        Defragment {
            disk: self.disk.clone(),
            from: self.db.clone(),
            path: self.path.clone(),
            tmp: tmp.into(),
            options: bolt_options(&self.options),
            made: None,
        }
    }

    /// The compacted file took the old one's place.
    pub fn defragmented(&mut self, done: Defragment) -> Result<(), Error> {
        if let Some(db) = done.made {
            self.db = db;
            self.read_from_file();
        }
        Ok(())
    }

    /// Reads see the newest commit from now on.
    fn read_from_file(&mut self) {
        self.s.backend.view = self.db.view();
        self.file = FileSize::of(&self.db);
    }
}

/// A file that has them all is not written to: an open that is going to be refused changes nothing.
fn create_buckets(db: &Db) -> Result<(), Error> {
    let there = db.view().buckets()?;
    if schema::BUCKETS.iter().all(|bucket| there.iter().any(|name| name == bucket.as_bytes())) {
        return Ok(());
    }
    let mut tx = db.begin()?;
    for bucket in schema::BUCKETS {
        tx.create_bucket(bucket.as_bytes())?;
    }
    Ok(tx.commit()?)
}

fn bolt_options(options: &Options) -> bolt::Options {
    bolt::Options { page_size: options.page_size, cache_bytes: options.cache_bytes, ..bolt::Options::default() }
}

pub(crate) fn bad(what: &str, e: &dyn std::fmt::Display) -> Error {
    Error::Fatal(format!("bucket {what} holds a value that can't be read: {e}"))
}

fn json_value<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| bad(what, &e))
}

/// A frozen layer on its way into the page store.
#[derive(Debug)]
pub struct Checkpoint {
    layer: Layer,
    db: Db,
}

impl Checkpoint {
    /// Writes everything in one transaction, at the pace of others.
    pub fn run(&mut self, pace: Pace<'_>) -> Result<(), Error> {
        failpoint::point!("beforeStartDBTxn");
        let mut tx = self.db.begin()?;
        failpoint::point!("afterStartDBTxn");
        for (rev, record) in self.layer.revs.iter() {
            let key = Bytes::from(schema::revision_key(*rev, record.tombstone));
            pace(key.len() + record.value.as_ref().map_or(0, Bytes::len));
            match &record.value {
                Some(value) => {
                    tx.put(schema::KEY.as_bytes(), key, value.clone(), Fill::Append)?;
                }
                None => drop(tx.delete(schema::KEY.as_bytes(), &key)?),
            }
        }
        for ((bucket, key), value) in self.layer.other.iter() {
            match value {
                Some(value) => tx.put(bucket.as_bytes(), key.clone(), value.clone(), Fill::Half)?,
                None => drop(tx.delete(bucket.as_bytes(), key)?),
            }
        }
        failpoint::point!("beforeCommit");
        tx.commit_paced(pace)?;
        failpoint::point!("afterCommit");
        Ok(())
    }
}

/// A copy of the page store without free pages, made beside it and renamed over it.
#[derive(Debug)]
pub struct Defragment {
    disk: SharedDisk,
    from: Db,
    path: PathBuf,
    tmp: PathBuf,
    options: bolt::Options,
    made: Option<Db>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("index", &self.s.index)
            .field("revision", &self.s.revision)
            .finish_non_exhaustive()
    }
}

impl Defragment {
    /// Copies, syncs and renames. Readers and writers go on meanwhile.
    ///
    /// # Errors
    /// Refused, as in Go etcd: the copy could not be made (no space, say); the old file stays. Fatal: the rename failed.
    pub fn run(&mut self, pace: Pace<'_>) -> Result<(), Error> {
        let db = match self.copy(pace) {
            Ok(db) => db,
            Err(e) => {
                // What can't be removed now is removed by the next defragmentation or start.
                let _left = self.disk.remove_file(&self.tmp);
                return Err(Error::Refused(api::Error::Other(e.to_string().into())));
            }
        };
        failpoint::point!("defragBeforeRename");
        self.disk.rename(&self.tmp, &self.path).map_err(io)?;
        self.disk.sync_dir(self.path.parent().unwrap_or(Path::new("/"))).map_err(io)?;
        self.made = Some(db);
        Ok(())
    }

    fn copy(&self, pace: Pace<'_>) -> Result<Db, Error> {
        if self.disk.exists(&self.tmp).map_err(io)? {
            self.disk.remove_file(&self.tmp).map_err(io)?;
        }
        let options = bolt::Options { page_size: Some(self.from.page_size()), ..self.options.clone() };
        failpoint::point!("defragOpenFileError", |v| return Err(Error::Fatal(v.to_string())));
        let db = Db::open(self.disk.clone(), &self.tmp, options)?;
        failpoint::point!("defragBeforeCopy");
        failpoint::point!("defragdbFail", |v| return Err(Error::Fatal(v.to_string())));
        self.from.copy_to(&db, pace)?;
        Ok(db)
    }
}

fn io(e: std::io::Error) -> Error {
    Error::Fatal(format!("defragment: {e}"))
}
