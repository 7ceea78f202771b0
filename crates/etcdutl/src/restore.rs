//! `snapshot restore`: a snapshot file becomes the data directory of a new cluster's member.
//!
//! ```text
//! DATA/member/snap/db                      the snapshot, with the new members, index = number of members, term 1
//! DATA/member/snap/…1-….snap               the membership, for releases before 3.8
//! WAL/0000000000000000-0000000000000000.wal   one conf change a member, all committed, then the snapshot's record
//! ```
//!
//! The file's checksum is proved before anything is made, so a refused restore leaves nothing behind. A restore that lets
//! revisions go back says so.

use crate::cluster::{self, Cluster};
use crate::{file, log, membership, status};
use api::pb::etcdserverpb::Metadata;
use api::raft::{ConfChange, ConfChangeKind, ConfState, Entry, EntryKind, HardState, Snapshot, SnapshotMetadata};
use bolt::Fill;
use bytes::Bytes;
use cobra::{Call, Exit, Flag, Kind};
use disk::RealDisk;
use go::log_string;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wal::snap::Snapshotter;
use wal::{Wal, WalOptions, WalSnapshot};

/// Bytes of a SHA-256 at the end of the file.
const SUM_BYTES: u64 = 32;
/// Databases are multiples of this, so a checksum shows in the size.
const SECTOR_BYTES: u64 = 512;
const COPY_BYTES: usize = 1 << 20;

/// Flags of `snapshot restore`.
pub const FLAGS: &[Flag] = &[
    Flag::new("data-dir", Kind::Text, "", "directory to make (default: NAME.etcd)"),
    Flag::new("wal-dir", Kind::Text, "", "directory of the log (default: inside the data directory)"),
    Flag::new("initial-cluster", Kind::Text, "default=http://localhost:2380", "members of the new cluster"),
    Flag::new("initial-cluster-token", Kind::Text, "etcd-cluster", "token of the new cluster"),
    Flag::new("initial-advertise-peer-urls", Kind::Text, "http://localhost:2380", "this member's peer URLs"),
    Flag::new("name", Kind::Text, "default", "this member's name"),
    Flag::switch("skip-hash-check", "take a file without a checksum, such as a copy from a data directory"),
    Flag::new("initial-memory-map-size", Kind::Uint, "10737418240", "has no effect here: the file is not mapped"),
    Flag::new("bump-revision", Kind::Uint, "0", "how far to raise the newest revision"),
    Flag::switch("mark-compacted", "count everything up to the raised revision as compacted (with --bump-revision)"),
];

/// The cluster that is founded, and where its member's files go.
pub struct Plan {
    source: PathBuf,
    pub data_dir: PathBuf,
    wal_dir: PathBuf,
    name: String,
    cluster: Cluster,
    skip_hash_check: bool,
    bump: u64,
    map_bytes: u64,
}

/// `snapshot restore FILE`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("snapshot restore requires exactly one argument"));
    }
    let plan = Plan::new(call, Path::new(&call.arg(0)))?;
    plan.vacant()?;
    plan.log("snapshot/v3_snapshot.go:306", "restoring snapshot");
    let (mut source, size) = verified(&plan)?;
    plan.copy(&mut source, size)?;
    plan.found()?;
    plan.log("snapshot/v3_snapshot.go:334", "restored snapshot");
    Ok(())
}

/// A cluster that goes back in revisions looks healthy while its clients go wrong: nothing else will tell them.
fn warn_of_old_revisions(newest: i64) {
    eprintln!(
        "WARNING: the restored cluster goes on at revision {newest}. Clients that saw later ones (watches, caches, \
         Kubernetes) will miss changes without an error.\n\
         WARNING: to make them read anew, restore all members with --bump-revision 1000000000 --mark-compacted."
    );
}

/// As flags of [`FLAGS`] have it.
fn plan(call: &Call, source: &Path) -> Result<Plan, Exit> {
    let given = &call.given;
    let (bump, marks) = (given.uint("bump-revision"), given.is_true("mark-compacted"));
    if (bump > 0) != marks {
        return Err(Exit::arguments("--mark-compacted required if --revision-bump > 0"));
    }
    let name = given.text("name").to_owned();
    let data_dir = match given.text("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        dir => PathBuf::from(dir),
    };
    let wal_dir = match given.text("wal-dir") {
        "" => data_dir.join("member/wal"),
        dir => PathBuf::from(dir),
    };
    let advertised = cluster::url_list(given.text("initial-advertise-peer-urls")).map_err(Exit::error)?;
    let urls = cluster::initial_cluster(given.text("initial-cluster")).map_err(Exit::error)?;
    cluster::verify(&name, &urls, &advertised).map_err(Exit::error)?;
    let cluster = Cluster::new(&urls, given.text("initial-cluster-token")).map_err(Exit::error)?;
    Ok(Plan {
        source: source.to_path_buf(),
        data_dir,
        wal_dir,
        name,
        cluster,
        skip_hash_check: given.is_true("skip-hash-check"),
        bump,
        map_bytes: given.uint("initial-memory-map-size"),
    })
}

impl Plan {
    /// From the flags of [`FLAGS`], for the database in this file.
    ///
    /// # Errors
    /// etcd's text for what is wrong with them.
    pub fn new(call: &Call, source: &Path) -> Result<Plan, Exit> {
        plan(call, source)
    }

    /// Nothing may be overwritten.
    ///
    /// # Errors
    /// Something is there.
    pub fn vacant(&self) -> Result<(), Exit> {
        vacant(self)
    }

    fn snap_dir(&self) -> PathBuf {
        self.data_dir.join("member/snap")
    }

    /// The new member's database.
    pub fn database(&self) -> PathBuf {
        self.snap_dir().join("db")
    }

    /// Makes the directories, and the database from the first bytes of a file.
    ///
    /// # Errors
    /// They can't be read or written.
    pub fn copy(&self, source: &mut File, size: u64) -> Result<(), Exit> {
        let text = |e: std::io::Error| Exit::error(format!("{}: {}", self.data_dir.display(), go::os_text(&e)));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(self.snap_dir()).map_err(text)?;
        copy(source, size, &self.database()).map_err(text)
    }

    /// Makes the database that was copied the one of a new cluster's member, with a log; says so where revisions go back.
    ///
    /// # Errors
    /// The database can't be read, or the disk failed.
    pub fn found(&self) -> Result<(), Exit> {
        let newest = change_database(self, &self.database())?;
        write_log(self, &self.snap_dir())?;
        crate::verify::directory(&self.data_dir, Some(&self.wal_dir))?;
        if self.bump == 0 {
            warn_of_old_revisions(newest);
        }
        Ok(())
    }

    fn log(&self, caller: &str, message: &str) {
        let path = |path: &Path| log_string(&path.display().to_string());
        log::info(
            caller,
            message,
            &[
                ("path", path(&self.source)),
                ("wal-dir", path(&self.wal_dir)),
                ("data-dir", path(&self.data_dir)),
                ("snap-dir", path(&self.data_dir.join("member/snap"))),
                ("initial-memory-map-size", self.map_bytes.to_string()),
            ],
        );
    }
}

/// Nothing is overwritten.
fn vacant(plan: &Plan) -> Result<(), Exit> {
    let taken = match std::fs::read_dir(&plan.data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) => e.kind() != std::io::ErrorKind::NotFound,
    };
    if taken {
        let dir = log_string(&plan.data_dir.display().to_string());
        return Err(Exit::error(format!("data-dir {dir} not empty or could not be read")));
    }
    match plan.wal_dir.exists() {
        true => Err(Exit::error(format!("wal-dir {} exists", log_string(&plan.wal_dir.display().to_string())))),
        false => Ok(()),
    }
}

/// Opens the snapshot and proves its checksum. Answers the file, at its start, and the bytes of the database in it.
fn verified(plan: &Plan) -> Result<(File, u64), Exit> {
    let shown = plan.source.display();
    let text = |what: &str, e: &std::io::Error| Exit::error(format!("{what} {shown}: {}", go::os_text(e)));
    let mut source = File::open(&plan.source).map_err(|e| text("open", &e))?;
    let size = source.metadata().map_err(|e| text("stat", &e))?.len();
    if size < SUM_BYTES {
        return Err(Exit::error(format!("seek {shown}: invalid argument")));
    }
    let has_sum = size % SECTOR_BYTES == SUM_BYTES;
    if !has_sum && !plan.skip_hash_check {
        return Err(Exit::error("snapshot missing hash but --skip-hash-check=false"));
    }
    let size = if has_sum { size - SUM_BYTES } else { size };
    if has_sum && !plan.skip_hash_check {
        let mut sum = Sha256::new();
        each_piece(&mut source, size, |piece| {
            sum.update(piece);
            Ok(())
        })
        .map_err(|e| text("read", &e))?;
        let mut stored = [0; SUM_BYTES as usize];
        source.read_exact(&mut stored).map_err(|e| text("read", &e))?;
        let computed = sum.finalize();
        if computed.as_slice() != stored {
            let (stored, computed) = (numbers(&stored), numbers(&computed));
            return Err(Exit::error(format!("expected sha256 {stored}, got {computed}")));
        }
    }
    source.seek(SeekFrom::Start(0)).map_err(|e| text("seek", &e))?;
    Ok((source, size))
}

/// `[1 2 3]`.
fn numbers(bytes: &[u8]) -> String {
    let texts: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", texts.join(" "))
}

fn each_piece(source: &mut File, size: u64, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut left = size;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(COPY_BYTES).min(COPY_BYTES);
        source.read_exact(&mut buffer[..n])?;
        each(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(())
}

fn copy(source: &mut File, size: u64, target: &Path) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    each_piece(source, size, |piece| file.write_all(piece))?;
    file.sync_all()
}

/// New members, new index and term, and the raised revision, in one transaction. Answers the snapshot's revision.
fn change_database(plan: &Plan, path: &Path) -> Result<i64, Exit> {
    let db = file::open(path, false, Duration::ZERO)?;
    let newest = status::records(&db.view())?.try_fold(0, |_, record| record.map(|r| r.main))?;
    let mut tx = db.begin().map_err(file::failed)?;
    log::info("schema/membership.go:125", "Trimming membership information from the backend...", &[]);
    for bucket in ["members", "members_removed"] {
        tx.delete_bucket(bucket.as_bytes()).map_err(file::failed)?;
        tx.create_bucket(bucket.as_bytes()).map_err(file::failed)?;
    }
    for bucket in ["key", "meta"] {
        tx.create_bucket(bucket.as_bytes()).map_err(file::failed)?;
    }
    let mut put = |bucket: &str, key: Bytes, value: Bytes| {
        tx.put(bucket.as_bytes(), key, value, Fill::Half).map_err(file::failed)
    };
    if plan.bump > 0 {
        let raised = raise(newest, plan.bump)?;
        put("key", revision_bytes(raised), Bytes::new())?;
        put("meta", Bytes::from_static(b"scheduledCompactRev"), revision_bytes(raised))?;
    }
    for member in &plan.cluster.members {
        put("members", format!("{:x}", member.id).into(), member.json().into())?;
        let urls: Vec<String> = member.peer_urls.iter().map(|url| log_string(url)).collect();
        log::info(
            "membership/cluster.go:408",
            "added member",
            &[
                ("cluster-id", log_string(&format!("{:x}", plan.cluster.id))),
                ("local-member-id", log_string("0")),
                ("added-peer-id", log_string(&format!("{:x}", member.id))),
                ("added-peer-peer-urls", format!("[{}]", urls.join(", "))),
                ("added-peer-is-learner", "false".into()),
            ],
        );
    }
    let count = plan.cluster.members.len() as u64;
    put("meta", Bytes::from_static(b"consistent_index"), Bytes::copy_from_slice(&count.to_be_bytes()))?;
    put("meta", Bytes::from_static(b"term"), Bytes::copy_from_slice(&1u64.to_be_bytes()))?;
    tx.commit().map_err(file::failed)?;
    Ok(newest)
}

fn raise(newest: i64, bump: u64) -> Result<i64, Exit> {
    let raised = i64::try_from(bump).ok().and_then(|bump| newest.checked_add(bump)).ok_or_else(|| {
        Exit::error(format!("--bump-revision={bump} raises revision {newest} beyond the largest there is (2^63-1)"))
    })?;
    log::info(
        "snapshot/v3_snapshot.go:397",
        "bumping latest revision",
        &[
            ("latest-revision", newest.to_string()),
            ("bump-amount", bump.to_string()),
            ("new-latest-revision", raised.to_string()),
        ],
    );
    log::info("snapshot/v3_snapshot.go:414", "marking revision compacted", &[("revision", raised.to_string())]);
    Ok(raised)
}

fn revision_bytes(main: i64) -> Bytes {
    let mut bytes = main.to_be_bytes().to_vec();
    bytes.push(b'_');
    bytes.extend_from_slice(&0i64.to_be_bytes());
    bytes.into()
}

/// Log and `.snap` of a cluster whose only past is that its members joined.
fn write_log(plan: &Plan, snap_dir: &Path) -> Result<(), Exit> {
    let failed = |e: wal::WalError| Exit::error(e);
    let members = &plan.cluster.members;
    let own =
        members.iter().find(|m| m.name == plan.name).ok_or_else(|| Exit::error("the member is not its cluster's"))?;
    let metadata = Metadata { node_id: Some(own.id), cluster_id: Some(plan.cluster.id) };
    let disk = RealDisk::shared();
    let mut log = Wal::create(disk.clone(), &plan.wal_dir, metadata.encode_to_vec().into(), WalOptions::default())
        .map_err(failed)?;
    let entries: Vec<Entry> = (1..).zip(members).map(|(index, member)| joining(index, member)).collect();
    let (commit, term) = (members.len() as u64, 1);
    let vote = members.first().map_or(0, |member| member.id);
    log.append(&HardState { term, vote, commit }, &entries).map_err(failed)?;
    let conf_state = ConfState { voters: members.iter().map(|m| m.id).collect(), ..ConfState::default() };
    let snapshot = Snapshot {
        data: membership::v2_json(members).into(),
        metadata: SnapshotMetadata { conf_state: conf_state.clone(), index: commit, term },
    };
    Snapshotter::new(disk, snap_dir).save(&snapshot).map_err(failed)?;
    log.save_snapshot(&WalSnapshot { index: commit, term, conf_state: Some(conf_state) }).map_err(failed)?;
    log.sync().map_err(failed)?;
    log.close().map_err(failed)
}

fn joining(index: u64, member: &cluster::Member) -> Entry {
    let change = ConfChange { id: 0, kind: ConfChangeKind::AddNode, node_id: member.id, context: member.json().into() };
    Entry { term: 1, index, kind: EntryKind::ConfChange, data: change.encode().into() }
}
