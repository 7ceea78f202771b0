//! Segment names, and the choice of the segments that a reader needs.

use crate::WalError;
use crate::error::io_at;
use disk::{Disk, File, LockKind, OpenOptions};
use std::path::{Path, PathBuf};

/// Permission bits of segments.
pub(crate) const FILE_MODE: u32 = 0o600;

/// A segment's name, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) seq: u64,
    /// First raft index that the segment may hold.
    pub(crate) index: u64,
}

impl Name {
    pub(crate) fn parse(name: &str) -> Option<Name> {
        let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
        Some(Name { seq: hex16(seq)?, index: hex16(index)? })
    }

    pub(crate) fn path(self, dir: &Path) -> PathBuf {
        dir.join(format!("{:016x}-{:016x}.wal", self.seq, self.index))
    }
}

/// Sixteen hexadecimal digits.
pub(crate) fn hex16(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok())?
}

/// An open segment. Its lock, if taken, ends with the handle.
pub(crate) struct Segment {
    pub(crate) name: Name,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn File>,
}

/// All segments in the directory, oldest first. Other names are none of ours.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Name>, WalError> {
    let names = disk.read_dir(dir).map_err(io_at(dir, "list"))?;
    let mut names: Vec<Name> = names.iter().filter_map(|n| Name::parse(n)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The segments from the last one that starts at or before `index`; their sequence has no hole.
pub(crate) fn list_from(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Vec<Name>, WalError> {
    let mut names = list(disk, dir)?;
    if names.is_empty() {
        return Err(WalError::NotFound { dir: dir.to_path_buf(), what: "no log segment in the directory" });
    }
    let what = "no segment reaches back to the index to start from";
    let first = names.iter().rposition(|n| n.index <= index);
    let first = first.ok_or(WalError::NotFound { dir: dir.to_path_buf(), what })?;
    names.drain(..first);
    check_sequence(dir, &names)?;
    Ok(names)
}

/// Refuses a hole in the sequence.
pub(crate) fn check_sequence(dir: &Path, names: &[Name]) -> Result<(), WalError> {
    for pair in names.windows(2) {
        if pair[0].seq.checked_add(1) != Some(pair[1].seq) {
            let what = format!("segment {:016x} follows segment {:016x}", pair[1].seq, pair[0].seq);
            return Err(WalError::Gap { path: pair[1].path(dir), offset: 0, what });
        }
    }
    Ok(())
}

/// Opens a segment for reading, without a lock.
pub(crate) fn open_read(disk: &dyn Disk, dir: &Path, name: Name) -> Result<Segment, WalError> {
    let path = name.path(dir);
    let file = disk.open(&path, OpenOptions::read()).map_err(io_at(&path, "open"))?;
    Ok(Segment { name, path, file })
}

/// Opens a segment for writing and locks it.
pub(crate) fn open_locked(disk: &dyn Disk, dir: &Path, name: Name) -> Result<Segment, WalError> {
    let path = name.path(dir);
    let file = disk.open(&path, OpenOptions::write()).map_err(io_at(&path, "open"))?;
    lock(&path, file.as_ref())?;
    Ok(Segment { name, path, file })
}

pub(crate) fn lock(path: &Path, file: &dyn File) -> Result<(), WalError> {
    match file.try_lock(LockKind::OfdExclusive).map_err(io_at(path, "lock"))? {
        true => Ok(()),
        false => Err(WalError::Locked { path: path.to_path_buf() }),
    }
}
