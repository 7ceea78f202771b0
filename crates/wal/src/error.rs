//! What can be wrong with a log. Every variant says where, and its text says what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the log can't be used. All of these stop the member.
#[derive(Debug)]
pub enum WalError {
    /// Bytes inside the log are not what was written.
    Corrupt { path: PathBuf, offset: u64, what: String },
    /// The last record was cut short by a crash; only [`crate::Wal::open`] repairs that.
    TornTail { path: PathBuf, offset: u64 },
    /// Two segments belong to different members or clusters.
    MetadataConflict { path: PathBuf, offset: u64 },
    /// No record of the snapshot to start from.
    SnapshotNotFound { dir: PathBuf, index: u64, term: u64 },
    /// The record of the snapshot to start from has another term.
    SnapshotMismatch { path: PathBuf, offset: u64, index: u64, term: u64, wanted: u64 },
    /// Somebody else holds the file.
    Locked { path: PathBuf },
    /// Entries or segments are missing in between.
    Gap { path: PathBuf, offset: u64, what: String },
    /// The directory holds no log, or none that reaches back to the start.
    NotFound { dir: PathBuf, what: &'static str },
    /// A directory for a new log holds something else.
    Foreign { dir: PathBuf, name: String },
    /// A record larger than the format's limit was to be written.
    TooLarge { bytes: u64, limit: u64 },
    /// An earlier write or sync failed; what the disk holds is unknown.
    Poisoned { path: PathBuf },
    /// The disk refused.
    Io { path: PathBuf, op: &'static str, source: io::Error },
}

impl WalError {
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> WalError {
        WalError::Corrupt { path: path.to_path_buf(), offset, what: what.into() }
    }
}

/// For `map_err`: names the file and the operation.
pub(crate) fn io_at<'a>(path: &'a Path, op: &'static str) -> impl FnOnce(io::Error) -> WalError + 'a {
    move |source| WalError::Io { path: path.to_path_buf(), op, source }
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalError::Corrupt { path, offset, what } => write!(
                f,
                "wal: {} is damaged at offset {offset}: {what}. Remove this member and add it anew, or restore a \
                 backup of the data directory",
                path.display()
            ),
            WalError::TornTail { path, offset } => write!(
                f,
                "wal: the last record of {} (offset {offset}) was cut short by a crash. Starting the member repairs it",
                path.display()
            ),
            WalError::MetadataConflict { path, offset } => write!(
                f,
                "wal: conflicting metadata found in {} at offset {offset}: segments of different members are mixed. \
                 Remove the foreign files",
                path.display()
            ),
            WalError::SnapshotNotFound { dir, index, term } => write!(
                f,
                "wal: snapshot not found: {} holds no record of the snapshot at index {index}, term {term}. Restore \
                 the log that belongs to this data directory",
                dir.display()
            ),
            WalError::SnapshotMismatch { path, offset, index, term, wanted } => write!(
                f,
                "wal: snapshot mismatch: {} at offset {offset} records the snapshot at index {index} with term {term}, \
                 not {wanted}. Restore the log that belongs to this data directory",
                path.display()
            ),
            WalError::Locked { path } => write!(
                f,
                "wal: file already locked: another process has {} open. Stop it, or use another data directory",
                path.display()
            ),
            WalError::Gap { path, offset, what } => write!(
                f,
                "wal: {} at offset {offset}: {what}. Restore the missing segments, or remove this member and add it anew",
                path.display()
            ),
            WalError::NotFound { dir, what } => write!(f, "wal: file not found: {}: {what}", dir.display()),
            WalError::Foreign { dir, name } => write!(
                f,
                "wal: {} holds no log but {name:?}: a new log needs a directory of its own. Give an empty one or one \
                 that does not exist yet",
                dir.display()
            ),
            WalError::TooLarge { bytes, limit } => {
                write!(f, "wal: a record of {bytes} bytes is larger than the limit of {limit} bytes")
            }
            WalError::Poisoned { path } => write!(
                f,
                "wal: an earlier write or sync of {} failed. Check the disk and restart the member",
                path.display()
            ),
            WalError::Io { path, op, source } => write!(
                f,
                "wal: cannot {op} {}: {source}. Check the disk's health, free space and permissions",
                path.display()
            ),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
