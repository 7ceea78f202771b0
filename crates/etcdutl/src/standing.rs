//! What a member's files say of it while no server uses them: who it is, how far its log goes, how far it is applied.

use crate::{file, status};
use api::pb::etcdserverpb::Metadata;
use api::raft::{ConfChange, ConfChangeKind, Entry, EntryKind, HardState};
use bolt::{Db, View};
use cobra::Exit;
use disk::RealDisk;
use prost::Message as _;
use server::Layout;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::Member;
use wal::Wal;

/// A member's files, read. Its database stays locked for as long as this lives.
pub struct Standing {
    pub dir: PathBuf,
    pub member: u64,
    pub cluster: u64,
    pub state: HardState,
    /// Of the newest snapshot that the log records: its entries begin behind it.
    pub snapshot: (u64, u64),
    /// What the log holds behind the snapshot.
    pub entries: Vec<Entry>,
    /// The consistent index: what the database holds.
    pub applied: u64,
    pub revision: i64,
    /// As of the log's end, committed or not.
    pub members: BTreeMap<u64, Member>,
    pub db: Db,
}

impl Standing {
    /// Reads the files of a data directory.
    ///
    /// # Errors
    /// They are in use, damaged, or do not belong together: what helps.
    pub fn of(dir: &Path, wal_dir: Option<&Path>, patience: Duration) -> Result<Standing, Exit> {
        let layout = Layout::new(dir, wal_dir);
        file::must_exist(&layout.db)?;
        let db = file::open(&layout.db, true, patience)?;
        let disk = RealDisk::shared();
        let snapshots = wal::valid_snapshots(&disk, &layout.wal).map_err(Exit::error)?;
        let snapshot = snapshots.into_iter().max_by_key(|snapshot| snapshot.index).unwrap_or_default();
        let log = Wal::read_only(&disk, &layout.wal, &snapshot).map_err(Exit::error)?;
        let metadata = Metadata::decode(log.metadata)
            .map_err(|e| Exit::error(format!("{}: its metadata can't be read: {e}", layout.wal.display())))?;
        let view = db.view();
        let applied = number(&view, b"consistent_index")?;
        let revision = status::records(&view)?.try_fold(0, |_, record| record.map(|record| record.main))?;
        let mut members = members(&view)?;
        log.entries.iter().filter(|entry| entry.index > applied).try_for_each(|entry| change(&mut members, entry))?;
        let standing = Standing {
            dir: dir.to_path_buf(),
            member: metadata.node_id(),
            cluster: metadata.cluster_id(),
            state: log.hard_state,
            snapshot: (snapshot.term, snapshot.index),
            entries: log.entries,
            applied,
            revision,
            members,
            db,
        };
        standing.belongs_together(&layout)?;
        Ok(standing)
    }

    /// Snapshot ≤ consistent index ≤ end of the log, as at a server's start.
    fn belongs_together(&self, layout: &Layout) -> Result<(), Exit> {
        let (first, last) = (self.snapshot.1, self.last().1);
        if (first..=last).contains(&self.applied) {
            return Ok(());
        }
        Err(Exit::error(format!(
            "{} was applied up to index {}, while its log has indexes {first} to {last}: they do not belong together, or a \
             leader's database was on its way. Start this member once, or use another one's directory",
            layout.db.display(),
            self.applied
        )))
    }

    /// Term and index of the log's end: of two members' logs, the one where this is higher has what was committed.
    pub fn last(&self) -> (u64, u64) {
        self.entries.last().map_or(self.snapshot, |entry| (entry.term, entry.index))
    }

    /// The term of the entry at an index, where the log still has it.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let at = index.checked_sub(self.entries.first()?.index)?;
        self.entries.get(usize::try_from(at).ok()?).map(|entry| entry.term)
    }

    /// Ids of those who vote.
    pub fn voters(&self) -> Vec<u64> {
        self.members.values().filter(|member| !member.is_learner).map(|member| member.id).collect()
    }

    /// Its own name, if it has published one.
    pub fn name(&self) -> &str {
        self.members.get(&self.member).map_or("", |member| member.name.as_str())
    }
}

/// A number in the bucket `meta`; 0 where there is none.
fn number(view: &View, name: &[u8]) -> Result<u64, Exit> {
    let stored = view.get(b"meta", name).map_err(file::failed)?.unwrap_or_default();
    Ok(stored.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

fn members(view: &View) -> Result<BTreeMap<u64, Member>, Exit> {
    let mut members = BTreeMap::new();
    for pair in view.range(b"members", Bound::Unbounded, Bound::Unbounded).map_err(file::failed)? {
        let (_, json) = pair.map_err(file::failed)?;
        let member = member_of(&json).map_err(Exit::error)?;
        members.insert(member.id, member);
    }
    Ok(members)
}

/// A record of the bucket `members`, or a change's context.
///
/// # Errors
/// It is none.
pub fn member_of(json: &[u8]) -> Result<Member, String> {
    serde_json::from_slice(json).map_err(|e| format!("a member's record can't be read: {e}"))
}

/// What an entry that is not applied yet makes of the members.
fn change(members: &mut BTreeMap<u64, Member>, entry: &Entry) -> Result<(), Exit> {
    if entry.kind != EntryKind::ConfChange {
        return Ok(());
    }
    let bad = |why: String| Exit::error(format!("log entry {} holds a bad conf change: {why}", entry.index));
    let change = ConfChange::decode(entry.data.clone()).map_err(|e| bad(e.to_string()))?;
    if change.kind == ConfChangeKind::RemoveNode {
        members.remove(&change.node_id);
        return Ok(());
    }
    let told = member_of(&change.context).map_err(bad)?;
    let member = members.entry(change.node_id).or_insert_with(|| Member { id: change.node_id, ..told.clone() });
    match change.kind {
        ConfChangeKind::AddNode => member.is_learner = false,
        ConfChangeKind::AddLearnerNode => member.is_learner = true,
        ConfChangeKind::UpdateNode => member.peer_urls = told.peer_urls,
        ConfChangeKind::RemoveNode => {}
    }
    Ok(())
}
