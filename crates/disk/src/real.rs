//! The disk of the operating system: Linux, through `std::fs` and `rustix`.

use crate::{Disk, File, LockKind, Metadata, OpenOptions, SharedDisk};
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

/// The machine's own file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk {
    lazy: bool,
}

impl RealDisk {
    pub fn shared() -> SharedDisk {
        Arc::new(RealDisk { lazy: false })
    }

    /// Every sync is left out (`--unsafe-no-fsync`): a crash of the machine loses data.
    pub fn without_sync() -> SharedDisk {
        Arc::new(RealDisk { lazy: true })
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(options.write)
            .create(options.create && !options.create_new)
            .create_new(options.create_new)
            .mode(if options.mode == 0 { 0o600 } else { options.mode })
            .open(path)?;
        Ok(Box::new(RealFile(file, *self)))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let m = fs::metadata(path)?;
        Ok(Metadata {
            is_dir: m.is_dir(),
            len: if m.is_dir() { 0 } else { m.len() },
            mode: m.permissions().mode() & 0o777,
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        let missing = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect::<Vec<_>>();
        fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
        for made in missing.into_iter().rev() {
            // A bare name has the parent "", which no system call takes.
            let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            match self.sync_dir(parent) {
                // One may make names in a directory that one may not open.
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.lazy { Ok(()) } else { fs::File::open(path)?.sync_all() }
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        let s = rustix::fs::statvfs(path)?;
        Ok(s.f_bavail.saturating_mul(s.f_frsize))
    }
}

struct RealFile(fs::File, RealDisk);

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn read_at_once(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let len = buf.len();
        match rustix::io::preadv2(&self.0, &mut [io::IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(n) => Ok(n == len),
            // Not in the kernel's cache; or a kernel or file system that can't tell.
            Err(Errno::AGAIN | Errno::INTR | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.1.lazy { Ok(()) } else { self.0.sync_data() }
    }

    fn sync_all(&self) -> io::Result<()> {
        if self.1.lazy { Ok(()) } else { self.0.sync_all() }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match unless_interrupted(|| rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            // As etcd: a file system that can't, or that signals always come between.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) if self.len()? < len => self.set_len(len),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        unless_interrupted(|| rustix::fs::fallocate(&self.0, flags, offset, len)).map_err(|e| match e {
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS => io::ErrorKind::Unsupported.into(),
            other => other.into(),
        })
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        match kind {
            LockKind::OfdExclusive => ofd_lock(&self.0, libc::F_WRLCK),
            LockKind::FlockExclusive => flock(&self.0, FlockOperation::NonBlockingLockExclusive),
            LockKind::FlockShared => flock(&self.0, FlockOperation::NonBlockingLockShared),
        }
    }

    fn unlock(&self, kind: LockKind) -> io::Result<()> {
        match kind {
            LockKind::OfdExclusive => ofd_lock(&self.0, libc::F_UNLCK).map(drop),
            LockKind::FlockExclusive | LockKind::FlockShared => flock(&self.0, FlockOperation::Unlock).map(drop),
        }
    }
}

/// Tries that signals may interrupt: a profile of processors sends a hundred a second, and some file systems give up then.
const TRIES: usize = 100;

fn unless_interrupted(mut call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    let outcome = (0..TRIES).map(|_| call()).find(|outcome| !matches!(outcome, Err(Errno::INTR)));
    outcome.unwrap_or(Err(Errno::INTR))
}

fn flock(file: &fs::File, operation: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Go's fileutil locks WAL segments with open-file-description locks, which rustix has no call for.
fn ofd_lock(file: &fs::File, kind: libc::c_int) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for the call's duration (borrowed from `file`), and `lock` is a valid,
    // initialised struct flock that the kernel only reads for F_OFD_SETLK.
    let outcome = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if outcome == 0 {
        return Ok(true);
    }
    let e = io::Error::last_os_error();
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(e),
    }
}
