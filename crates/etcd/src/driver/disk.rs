//! The operating system's disk, with a stopwatch: metrics know files by their names.

use ::disk::{Disk, File, LockKind, Metadata, OpenOptions, RealDisk, SharedDisk};
use rpc::metrics::{self, Histogram};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// A disk whose writes and syncs are measured.
#[derive(Debug)]
struct Measured {
    disk: SharedDisk,
    syncs: bool,
}

/// The operating system's disk, measured. Without `syncs` nothing is synced (`--unsafe-no-fsync`), and no sync is counted.
pub fn measured(syncs: bool) -> SharedDisk {
    let disk = if syncs { RealDisk::shared() } else { RealDisk::without_sync() };
    Arc::new(Measured { disk, syncs })
}

/// What a file is to the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Log,
    Snapshot,
    /// A database that another member sent.
    Image,
    PageStore,
    Other,
}

impl Part {
    fn of(path: &Path) -> Part {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match name.as_ref() {
            "db" => Part::PageStore,
            // Segments that are not named yet are prepared beside the log.
            name if name.ends_with(".wal") || name.ends_with(".tmp") => Part::Log,
            name if name.contains(".snap.db") => Part::Image,
            name if name.contains(".snap") => Part::Snapshot,
            _ => Part::Other,
        }
    }

    fn syncs(self) -> Option<&'static Histogram> {
        match self {
            Part::Log => Some(&metrics::WAL_FSYNC),
            Part::Snapshot => Some(&metrics::SNAP_FSYNC),
            Part::Image => Some(&metrics::SNAP_DB_FSYNC),
            Part::PageStore => Some(&metrics::COMMIT_WRITE),
            Part::Other => None,
        }
    }
}

struct MeasuredFile {
    file: Box<dyn File>,
    part: Part,
    syncs: bool,
}

impl MeasuredFile {
    fn counted(&self) -> Option<&'static Histogram> {
        self.part.syncs().filter(|_| self.syncs)
    }
}

fn timed<T>(histogram: Option<&Histogram>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    let outcome = work();
    if let Some(histogram) = histogram {
        histogram.observe_seconds(begun.elapsed());
    }
    outcome
}

impl Disk for Measured {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn File>> {
        let file = self.disk.open(path, options)?;
        Ok(Box::new(MeasuredFile { file, part: Part::of(path), syncs: self.syncs }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk.metadata(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.read_dir(path)
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.disk.create_dir_all(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        self.disk.available(path)
    }
}

impl File for MeasuredFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn read_at_once(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.file.read_at_once(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.part != Part::Log {
            return self.file.write_at(buf, offset);
        }
        metrics::WAL_WRITE_BYTES.add(i64::try_from(buf.len()).unwrap_or(i64::MAX));
        timed(Some(&metrics::WAL_WRITE), || self.file.write_at(buf, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        timed(self.counted(), || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        timed(self.counted(), || self.file.sync_all())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch_hole(offset, len)
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.file.try_lock(kind)
    }

    fn unlock(&self, kind: LockKind) -> io::Result<()> {
        self.file.unlock(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        for (name, part) in [
            ("member/wal/0000000000000000-0000000000000000.wal", Part::Log),
            ("member/wal/0.tmp", Part::Log),
            ("member/snap/0000000000000002-0000000000000011.snap", Part::Snapshot),
            ("member/snap/0000000000000011.snap.db", Part::Image),
            ("member/snap/db", Part::PageStore),
            ("elsewhere", Part::Other),
        ] {
            assert_eq!(Part::of(Path::new(name)), part, "{name}");
        }
    }
}
