//! Copies of data folders that behave on the disk as the folders they were made of.
//!
//! A log that was preallocated and not yet written costs more to append to than one whose blocks were written before: a
//! copy that filled the rest with zeros would make every `fdatasync` cheaper. So holes stay holes, and room that was
//! reserved is reserved again.

use rustix::fs::{Advice, FallocateFlags, SeekFrom, fadvise, fallocate, seek, syncfs};
use rustix::io::Errno;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Copies a folder with all that is in it into the empty folder `to`; the copy is on the disk when this returns, so that
/// its writing disturbs nothing.
pub fn folder(from: &Path, to: &Path) -> io::Result<()> {
    entries(from, to)?;
    Ok(syncfs(File::open(to)?)?)
}

fn entries(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            fs::create_dir(&copy)?;
            entries(&source, &copy)?;
        } else {
            file(&source, &copy)?;
        }
        fs::set_permissions(&copy, entry.metadata()?.permissions())?;
    }
    Ok(())
}

fn file(from: &Path, to: &Path) -> io::Result<()> {
    let (source, copy) = (File::open(from)?, File::create(to)?);
    let metadata = source.metadata()?;
    reserve(&copy, &metadata)?;
    // No reading ahead: what was reserved and is in the page cache counts as written when the next copy looks.
    fadvise(&source, 0, None, Advice::Random)?;
    let mut place = 0;
    while let Some(start) = data_from(&source, place)? {
        place = seek(&source, SeekFrom::Hole(start))?;
        seek(&source, SeekFrom::Start(start))?;
        seek(&copy, SeekFrom::Start(start))?;
        io::copy(&mut (&source).take(place - start), &mut &copy)?;
    }
    Ok(())
}

/// Gives `copy` its length, with blocks where the source has them all.
fn reserve(copy: &File, source: &Metadata) -> io::Result<()> {
    let has_all = source.len() > 0 && source.blocks().saturating_mul(BLOCK) >= source.len();
    if has_all && fallocate(copy, FallocateFlags::empty(), 0, source.len()).is_ok() {
        return Ok(());
    }
    copy.set_len(source.len())
}

/// Where the next bytes that were written begin.
fn data_from(file: &File, place: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(place)) {
        Ok(start) => Ok(Some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::server::TempDir;
    use std::io::Write as _;

    #[test]
    fn a_copy_has_the_bytes_the_holes_and_the_reserved_room() -> io::Result<()> {
        const LEN: u64 = 1 << 20;
        let (from, to) =
            (TempDir::new(&std::env::temp_dir(), "copy-test")?, TempDir::new(&std::env::temp_dir(), "copy-test")?);
        fs::create_dir(from.path().join("wal"))?;
        let mut log = File::create(from.path().join("wal/0.wal"))?;
        // Where the file system has no such call, the log is sparse as well.
        let _ = fallocate(&log, FallocateFlags::empty(), 0, LEN);
        log.set_len(LEN)?;
        log.write_all(b"a record")?;
        let sparse = File::create(from.path().join("db"))?;
        sparse.set_len(LEN)?;
        File::create(from.path().join("empty"))?;
        folder(from.path(), to.path())?;
        for name in ["wal/0.wal", "db", "empty"] {
            let (source, copy) = (from.path().join(name), to.path().join(name));
            let blocks = |path: &Path| fs::metadata(path).map(|metadata| metadata.blocks() * BLOCK >= LEN);
            assert_eq!(blocks(&source)?, blocks(&copy)?, "{name}");
            // Room that was reserved and never written counts as a hole, until it is read.
            let written_behind = |path: &Path| File::open(path).and_then(|file| data_from(&file, LEN / 2));
            assert_eq!(written_behind(&source)?, None, "{name}");
            assert_eq!(written_behind(&copy)?, None, "{name}");
            assert!(fs::read(&source)? == fs::read(&copy)?, "{name}");
        }
        Ok(())
    }
}
