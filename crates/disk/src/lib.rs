//! The Disk port: everything the log and the page store ask of an operating system's files.
//!
//! [`RealDisk`] is Linux. [`SimDisk`] keeps files in memory and knows what a crash may lose: bytes not synced,
//! names whose directory was not synced, halves of sectors. Every call that touches a platform is here, so
//! nothing above this crate names `std::fs` or a system call.
//!
//! Durability rules (POSIX on ext4/xfs, what etcd relies on): written bytes are durable after
//! [`File::sync_data`]; a created, renamed or removed name is durable after [`Disk::sync_dir`] of its parent, and
//! a rename within a directory that is not durable yet is undone by a crash as a whole or not at all;
//! `sync_data` makes a changed file length durable too.

mod real;
mod sim;

pub use real::RealDisk;
pub use sim::{Crash, Fault, SimDisk, SimOptions};

use std::io;
use std::path::Path;
use std::sync::Arc;

/// A disk handle that is shared by all parts of a member.
pub type SharedDisk = Arc<dyn Disk>;

impl std::fmt::Debug for dyn Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

/// How [`Disk::open`] opens a file. Files are always opened for reading; never with truncation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub write: bool,
    /// Create the file when it is absent.
    pub create: bool,
    /// Fail with `AlreadyExists` when it is there.
    pub create_new: bool,
    /// Permission bits of a created file (before umask); 0 means 0o600.
    pub mode: u32,
}

impl OpenOptions {
    pub const fn read() -> Self {
        OpenOptions { write: false, create: false, create_new: false, mode: 0 }
    }
    pub const fn write() -> Self {
        OpenOptions { write: true, create: false, create_new: false, mode: 0 }
    }
    pub const fn create() -> Self {
        OpenOptions { write: true, create: true, create_new: false, mode: 0 }
    }
    pub const fn create_new() -> Self {
        OpenOptions { write: true, create: true, create_new: true, mode: 0 }
    }
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub is_dir: bool,
    /// Bytes; 0 for a directory.
    pub len: u64,
    /// Permission bits (0o777 mask).
    pub mode: u32,
}

/// Which lock, of which kind: Go etcd sees only the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Open-file-description write lock on the whole file (`F_OFD_SETLK`): WAL segments.
    OfdExclusive,
    /// `flock(LOCK_EX)`: the page store opened for writing.
    FlockExclusive,
    /// `flock(LOCK_SH)`: the page store opened read-only.
    FlockShared,
}

/// One open file. Locks end when it is dropped.
pub trait File: Send + Sync {
    /// Reads at most `buf.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Fills `buf` from `offset` if that takes no waiting for the device: `false` when it would, or when the platform can't
    /// say.
    fn read_at_once(&self, buf: &mut [u8], offset: u64) -> io::Result<bool>;
    /// Writes all of `buf` at `offset`, growing the file if needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and all metadata durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Truncates or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space for `[0, len)` and extends the file to `len` with zeros; falls back to `set_len` where the
    /// file system has no reservation.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Gives the space of `[offset, offset + len)` back; the range reads as zeros. `Unsupported` where it can't.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Takes the lock without waiting: `false` when another holder has it.
    fn try_lock(&self, kind: LockKind) -> io::Result<bool>;
    /// Releases a lock taken by [`File::try_lock`].
    fn unlock(&self, kind: LockKind) -> io::Result<()>;

    /// Fills `buf` from `offset` or fails with `UnexpectedEof`.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(())
    }

    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Files by path. Paths are taken as given; nothing here follows a working directory of its own.
pub trait Disk: Send + Sync {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>>;
    /// `NotFound` when nothing stands there.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Names in a directory, sorted; names that are not UTF-8 are left out (etcd makes none).
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Creates the directory and its missing parents with permission bits `mode`, durably.
    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Renames a file or directory, replacing a file of the target's name. Within one directory a crash leaves the names
    /// of before or those of after.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in the directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes an unprivileged writer may still use on the file system that holds `path`.
    fn available(&self, path: &Path) -> io::Result<u64>;

    /// Whether something stands at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The whole file, refused with `InvalidData` when it is longer than `limit` bytes.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenOptions::read())?;
        let len = file.len()?;
        if len > limit {
            let text = format!("{} is {len} bytes long, more than the limit of {limit}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}
