//! `.snap` files: raft snapshots on disk, `<term>-<index>.snap`, each a `snappb.Snapshot{crc, data}`.
//!
//! A file appears under its name complete and durable, or not at all.

use crate::error::io_at;
use crate::segment::hex16;
use crate::{WalError, WalSnapshot};
use api::pb::snappb;
use api::raft::Snapshot;
use bytes::Bytes;
use disk::{OpenOptions, SharedDisk};
use prost::Message as _;
use std::path::{Path, PathBuf};

/// Largest `.snap` file that is read: it holds the membership, a few KB.
const SNAP_BYTES_MAX: u64 = 512 << 20;
/// Go creates them with 0666 less the umask.
const FILE_MODE: u32 = 0o666;

/// The `.snap` files of one member.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    disk: SharedDisk,
    dir: PathBuf,
}

impl Snapshotter {
    /// `dir`: `member/snap`.
    pub fn new(disk: SharedDisk, dir: &Path) -> Snapshotter {
        Snapshotter { disk, dir: dir.to_path_buf() }
    }

    /// Stores a snapshot, durably. An empty one is none.
    pub fn save(&self, snapshot: &Snapshot) -> Result<(), WalError> {
        if snapshot.is_empty() {
            return Ok(());
        }
        let data = Bytes::from(snapshot.encode());
        let crc = crc32c::crc32c(&data);
        let bytes = snappb::Snapshot { crc: Some(crc), data: Some(data) }.encode_to_vec();
        let name = format!("{:016x}-{:016x}.snap", snapshot.metadata.term, snapshot.metadata.index);
        let (path, temporary) = (self.dir.join(&name), self.dir.join(format!("tmp.{name}")));
        let options = OpenOptions::create().mode(FILE_MODE);
        let file = self.disk.open(&temporary, options).map_err(io_at(&temporary, "create"))?;
        file.set_len(0).map_err(io_at(&temporary, "truncate"))?;
        file.write_at(&bytes, 0).map_err(io_at(&temporary, "write to"))?;
        file.sync_all().map_err(io_at(&temporary, "sync"))?;
        self.disk.rename(&temporary, &path).map_err(io_at(&path, "rename to"))?;
        self.sync_dir()
    }

    /// Reads one file by its name.
    pub fn load(&self, name: &str) -> Result<Snapshot, WalError> {
        let path = self.dir.join(name);
        let bytes = self.disk.read(&path, SNAP_BYTES_MAX).map_err(io_at(&path, "read"))?;
        let broken = |what: String| WalError::corrupt(&path, 0, what);
        let wrapped = snappb::Snapshot::decode(bytes.as_slice()).map_err(|e| broken(e.to_string()))?;
        let (crc, data) = (wrapped.crc(), wrapped.data.unwrap_or_default());
        if data.is_empty() || crc == 0 {
            return Err(broken("empty snapshot".to_owned()));
        }
        let computed = crc32c::crc32c(&data);
        if crc != computed {
            return Err(broken(format!("crc mismatch: computed {computed:08x}, stored {crc:08x}")));
        }
        Snapshot::decode(data).map_err(|e| broken(e.to_string()))
    }

    /// Names of the `.snap` files, newest first.
    pub fn list(&self) -> Result<Vec<String>, WalError> {
        let mut names = self.names()?;
        names.retain(|n| is_snap(n));
        names.reverse();
        Ok(names)
    }

    /// The newest readable snapshot that the log records. Unreadable ones are renamed `.broken`.
    pub fn newest_available(&self, recorded: &[WalSnapshot]) -> Result<Option<Snapshot>, WalError> {
        for name in self.list()? {
            match self.load(&name) {
                Ok(s) => {
                    let here = (s.metadata.term, s.metadata.index);
                    if recorded.iter().any(|r| (r.term, r.index) == here) {
                        return Ok(Some(s));
                    }
                }
                Err(WalError::Corrupt { path, what, .. }) => self.set_aside(&path, &what)?,
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Deletes the oldest `.snap` and `.snap.db` files beyond `max` of each (0: keeps all).
    pub fn purge(&self, max: usize) -> Result<(), WalError> {
        if max == 0 {
            return Ok(());
        }
        let names = self.names()?;
        let kinds: [fn(&str) -> bool; 2] = [is_snap, |n| n.ends_with(".snap.db")];
        let mut surplus = Vec::new();
        for kind in kinds {
            let of_kind: Vec<&String> = names.iter().filter(|n| kind(n)).collect();
            surplus.extend_from_slice(&of_kind[..of_kind.len().saturating_sub(max)]);
        }
        self.remove(&surplus)
    }

    /// Deletes what an interrupted save, receive or defragmentation left.
    pub fn clear_leftovers(&self) -> Result<(), WalError> {
        let names = self.names()?;
        let leftovers: Vec<&String> =
            names.iter().filter(|n| n.starts_with("tmp") || n.starts_with("db.tmp")).collect();
        self.remove(&leftovers)
    }

    fn names(&self) -> Result<Vec<String>, WalError> {
        self.disk.read_dir(&self.dir).map_err(io_at(&self.dir, "list"))
    }

    fn remove(&self, names: &[&String]) -> Result<(), WalError> {
        for name in names {
            let path = self.dir.join(name);
            self.disk.remove_file(&path).map_err(io_at(&path, "remove"))?;
        }
        if names.is_empty() { Ok(()) } else { self.sync_dir() }
    }

    fn set_aside(&self, path: &Path, what: &str) -> Result<(), WalError> {
        let mut broken = path.as_os_str().to_owned();
        broken.push(".broken");
        tracing::warn!(path = %path.display(), what, "a snapshot file is damaged and was renamed .broken");
        self.disk.rename(path, Path::new(&broken)).map_err(io_at(path, "rename"))?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), WalError> {
        self.disk.sync_dir(&self.dir).map_err(io_at(&self.dir, "sync"))
    }
}

fn is_snap(name: &str) -> bool {
    let parts = name.strip_suffix(".snap").and_then(|stem| stem.split_once('-'));
    parts.is_some_and(|(term, index)| hex16(term).is_some() && hex16(index).is_some())
}
