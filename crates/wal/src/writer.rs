//! The log, open for appending.
//!
//! ```text
//! segments  [released, unlocked] … [locked] … [tail: written ≤ offset | zeros]      N.tmp: the next one, prepared
//! buffer    records appended and not yet written; `flush` writes it, `sync` makes all of it durable
//! ```

use crate::error::io_at;
use crate::record::{Encoder, Kind};
use crate::replay::{Collector, End, Replay, read_only, scan};
use crate::segment::{self, FILE_MODE, Name, Segment};
use crate::{WalError, WalOptions, WalSnapshot};
use api::raft::{Entry, HardState};
use bytes::Bytes;
use disk::{Disk, File, OpenOptions, SharedDisk};
use std::path::{Path, PathBuf};

const DIR_MODE: u32 = 0o700;
const COPY_CHUNK: usize = 1 << 20;

/// The log of one member. Dropping it leaves what is buffered unwritten, as a crash would.
pub struct Wal {
    disk: SharedDisk,
    dir: PathBuf,
    options: WalOptions,
    metadata: Bytes,
    hard_state: HardState,
    /// Names the next segment: the last index appended, or recorded as a snapshot.
    last_index: u64,
    /// Locked segments; the last one is the tail.
    segments: Vec<Segment>,
    /// End of what is written to the tail.
    offset: u64,
    encoder: Encoder,
    unsynced: bool,
    next: Option<Prepared>,
    prepared: u64,
    poisoned: bool,
}

struct Prepared {
    path: PathBuf,
    file: Box<dyn File>,
}

impl Wal {
    /// Makes a new log in `dir`, which must not hold one. Appears at once or not at all.
    pub fn create(disk: SharedDisk, dir: &Path, metadata: Bytes, options: WalOptions) -> Result<Wal, WalError> {
        if crate::exists(&disk, dir)? {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(WalError::Io { path: dir.to_path_buf(), op: "create a log in", source });
        }
        let mut encoder = Encoder::new(0);
        encoder.crc_record();
        encoder.record(Kind::Metadata, &metadata);
        encoder.record(Kind::Snapshot, &WalSnapshot::default().encode());
        let name = Name { seq: 0, index: 0 };
        let file = create_directory(disk.as_ref(), dir, name, &encoder.buffer, options.segment_bytes)?;
        let offset = encoder.buffer.len() as u64;
        encoder.buffer.clear();
        Ok(Wal {
            disk,
            dir: dir.to_path_buf(),
            options,
            metadata,
            hard_state: HardState::default(),
            last_index: 0,
            segments: vec![Segment { name, path: name.path(dir), file }],
            offset,
            encoder,
            unsynced: false,
            next: None,
            prepared: 0,
            poisoned: false,
        })
    }

    /// [`Opening::open`] and [`Opening::settle`] in one.
    ///
    /// # Errors
    /// The log is locked, damaged, does not reach back to the snapshot, or the disk failed.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        at: &WalSnapshot,
        options: WalOptions,
    ) -> Result<(Wal, Replay), WalError> {
        let (opening, replay) = Opening::open(disk, dir, at)?;
        Ok((opening.settle(options)?, replay))
    }

    /// Reads the log without locks and without changing anything; a torn tail ends it.
    pub fn read_only(disk: &SharedDisk, dir: &Path, at: &WalSnapshot) -> Result<Replay, WalError> {
        read_only(disk, dir, at)
    }

    /// Buffers entries, then the hard state unless it is empty. Durable after [`Wal::sync`].
    pub fn append(&mut self, state: &HardState, entries: &[Entry]) -> Result<(), WalError> {
        self.alive()?;
        for entry in entries {
            self.encoder.entry(entry)?;
            self.last_index = entry.index;
            self.flush_if_large()?;
        }
        if !state.is_empty() {
            self.encoder.record(Kind::State, &state.encode());
            self.hard_state = *state;
        }
        self.flush_if_large()
    }

    /// Writes what is buffered, without making it durable.
    pub fn flush(&mut self) -> Result<(), WalError> {
        self.alive()?;
        if self.encoder.buffer.is_empty() {
            return Ok(());
        }
        let tail = self.tail();
        let outcome = tail.file.write_at(&self.encoder.buffer, self.offset).map_err(io_at(&tail.path, "write to"));
        self.poison_on_error(outcome)?;
        self.offset += self.encoder.buffer.len() as u64;
        self.encoder.buffer.clear();
        self.encoder.buffer.shrink_to(self.options.buffer_bytes);
        self.unsynced = true;
        Ok(())
    }

    /// Makes everything appended so far durable. Begins a new segment when this one is full.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.flush()?;
        if self.unsynced {
            let tail = self.tail();
            failpoint::point!("walBeforeSync");
            let outcome = tail.file.sync_data().map_err(io_at(&tail.path, "sync"));
            failpoint::point!("walAfterSync");
            self.poison_on_error(outcome)?;
            self.unsynced = false;
        }
        if self.offset >= self.options.segment_bytes {
            let outcome = self.cut();
            self.poison_on_error(outcome)?;
        }
        Ok(())
    }

    /// Records a snapshot, durably. Its `.snap` file must be durable, and the commit index must have reached it.
    pub fn save_snapshot(&mut self, snapshot: &WalSnapshot) -> Result<(), WalError> {
        self.alive()?;
        assert!(snapshot.index == 0 || snapshot.conf_state.is_some(), "a snapshot record names its members");
        self.encoder.record(Kind::Snapshot, &snapshot.encode());
        self.last_index = self.last_index.max(snapshot.index);
        self.sync()
    }

    /// Bytes that the present segment still takes before the next one is needed, and of how many; `None` when the next
    /// one is ready.
    pub fn room(&self) -> Option<(u64, u64)> {
        let bytes = self.options.segment_bytes;
        self.next.is_none().then(|| (bytes.saturating_sub(self.offset), bytes))
    }

    /// Makes the next segment ready, so that no append waits for its allocation. A failure leaves the log usable.
    pub fn prepare_next(&mut self) -> Result<(), WalError> {
        self.alive()?;
        if self.next.is_some() {
            return Ok(());
        }
        let path = self.dir.join(format!("{}.tmp", self.prepared % 2));
        let file = new_file(self.disk.as_ref(), &path, self.options.segment_bytes)?;
        self.prepared += 1;
        self.next = Some(Prepared { path, file });
        Ok(())
    }

    /// Unlocks the segments that a reader at snapshot `index` does not need.
    pub fn release_to(&mut self, index: u64) -> Result<(), WalError> {
        self.alive()?;
        let first_after = self.segments.iter().position(|s| s.name.index >= index).unwrap_or(self.segments.len());
        self.segments.drain(..first_after.saturating_sub(1));
        Ok(())
    }

    /// Deletes the oldest unlocked segments beyond `max` (0: keeps all).
    pub fn purge(&mut self, max: usize) -> Result<(), WalError> {
        self.alive()?;
        let names = segment::list(self.disk.as_ref(), &self.dir)?;
        let surplus = if max == 0 { 0 } else { names.len().saturating_sub(max) };
        let mut removed = false;
        for name in &names[..surplus] {
            let ours = self.segments.iter().any(|s| s.name == *name);
            if ours
                || matches!(segment::open_locked(self.disk.as_ref(), &self.dir, *name), Err(WalError::Locked { .. }))
            {
                break;
            }
            let path = name.path(&self.dir);
            self.disk.remove_file(&path).map_err(io_at(&path, "remove"))?;
            // One at a time and oldest first: a crash must not leave a hole in the sequence.
            self.disk.sync_dir(&self.dir).map_err(io_at(&self.dir, "sync"))?;
            removed = true;
        }
        if removed {
            tracing::info!(dir = %self.dir.display(), max, "purged log segments");
        }
        Ok(())
    }

    /// Syncs and removes the prepared segment.
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()?;
        if let Some(next) = self.next.take() {
            self.disk.remove_file(&next.path).map_err(io_at(&next.path, "remove"))?;
            self.disk.sync_dir(&self.dir).map_err(io_at(&self.dir, "sync"))?;
        }
        Ok(())
    }

    /// Ends the full tail and begins the next segment. Everything appended is durable.
    fn cut(&mut self) -> Result<(), WalError> {
        let tail = self.tail();
        tail.file.set_len(self.offset).map_err(io_at(&tail.path, "truncate"))?;
        tail.file.sync_all().map_err(io_at(&tail.path, "sync"))?;
        let name = Name { seq: tail.name.seq + 1, index: self.last_index + 1 };
        self.prepare_next()?;
        let Prepared { path, file } = self.next.take().expect("prepared just above");
        self.encoder.crc_record();
        self.encoder.record(Kind::Metadata, &self.metadata);
        if !self.hard_state.is_empty() {
            self.encoder.record(Kind::State, &self.hard_state.encode());
        }
        file.write_at(&self.encoder.buffer, 0).map_err(io_at(&path, "write to"))?;
        file.sync_all().map_err(io_at(&path, "sync"))?;
        let target = name.path(&self.dir);
        self.disk.rename(&path, &target).map_err(io_at(&target, "rename to"))?;
        self.disk.sync_dir(&self.dir).map_err(io_at(&self.dir, "sync"))?;
        self.offset = self.encoder.buffer.len() as u64;
        self.encoder.buffer.clear();
        self.segments.push(Segment { name, path: target, file });
        Ok(())
    }

    fn tail(&self) -> &Segment {
        self.segments.last().expect("a log has a tail")
    }

    fn alive(&self) -> Result<(), WalError> {
        if self.poisoned { Err(WalError::Poisoned { path: self.tail().path.clone() }) } else { Ok(()) }
    }

    fn poison_on_error(&mut self, outcome: Result<(), WalError>) -> Result<(), WalError> {
        self.poisoned |= outcome.is_err();
        outcome
    }

    fn flush_if_large(&mut self) -> Result<(), WalError> {
        if self.encoder.buffer.len() >= self.options.buffer_bytes { self.flush() } else { Ok(()) }
    }
}

/// A log that is locked and read, and not yet changed: the time to refuse it.
pub struct Opening {
    disk: SharedDisk,
    dir: PathBuf,
    segments: Vec<Segment>,
    end: End,
    last_index: u64,
    metadata: Bytes,
    hard_state: HardState,
}

impl Opening {
    /// Locks the log and reads it from a snapshot that it records.
    ///
    /// # Errors
    /// The log is locked, damaged, does not reach back to the snapshot, or the disk failed.
    pub fn open(disk: SharedDisk, dir: &Path, at: &WalSnapshot) -> Result<(Opening, Replay), WalError> {
        let names = segment::list_from(disk.as_ref(), dir, at.index)?;
        let segments: Result<Vec<_>, _> = names.iter().map(|n| segment::open_locked(disk.as_ref(), dir, *n)).collect();
        let segments = segments?;
        let mut collector = Collector::new(at);
        let end = scan(&segments, &mut |place, kind, data| collector.visit(&place, kind, data))?;
        let last_index = collector.last_index;
        let replay = collector.finish(dir)?;
        let (metadata, hard_state) = (replay.metadata.clone(), replay.hard_state);
        Ok((Opening { disk, dir: dir.to_path_buf(), segments, end, last_index, metadata, hard_state }, replay))
    }

    /// What stands behind a torn record, if there is one: a damaged length or sector inside the log looks like a torn
    /// write at its end, but records of later syncs follow it.
    ///
    /// # Errors
    /// The disk failed.
    pub fn behind_torn(&self) -> Result<Option<Behind>, WalError> {
        if !self.end.torn {
            return Ok(None);
        }
        let tail = self.segments.last().expect("list_from answers at least one");
        let commit = crate::replay::commit_behind(tail, self.end.offset)?;
        Ok(Some(Behind { path: tail.path.clone(), offset: self.end.offset, commit }))
    }

    /// Makes the log ready for appending: removes what crashes left, repairs a torn tail (a copy of the damaged segment
    /// stays as `<name>.broken`), rewrites and syncs the tail.
    ///
    /// # Errors
    /// The disk failed.
    pub fn settle(self, options: WalOptions) -> Result<Wal, WalError> {
        let Opening { disk, dir, segments, end, last_index, metadata, hard_state } = self;
        clear_leftovers(disk.as_ref(), &dir)?;
        let tail = segments.last().expect("list_from answers at least one");
        settle_tail(disk.as_ref(), &dir, tail, end, options.segment_bytes)?;
        Ok(Wal {
            disk,
            dir,
            options,
            metadata,
            hard_state,
            last_index,
            segments,
            offset: end.offset,
            encoder: Encoder::new(end.crc),
            unsynced: false,
            next: None,
            prepared: 0,
            poisoned: false,
        })
    }
}

/// See [`Opening::behind_torn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    pub path: PathBuf,
    /// Where the torn record stands, bytes.
    pub offset: u64,
    /// The highest commit index in readable hard states behind it; 0 = none.
    pub commit: u64,
}

/// Removes segments that were prepared and never used (`0.tmp`, `1.tmp`, as Go names them too).
fn clear_leftovers(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    for name in disk.read_dir(dir).map_err(io_at(dir, "list"))? {
        let prepared = name.strip_suffix(".tmp").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if prepared {
            let path = dir.join(name);
            disk.remove_file(&path).map_err(io_at(&path, "remove"))?;
        }
    }
    Ok(())
}

/// A directory that holds anything but leftovers is somebody's.
fn refuse_foreign(disk: &dyn Disk, dir: &Path) -> Result<(), WalError> {
    let names = disk.read_dir(dir).map_err(io_at(dir, "list"))?;
    match names.into_iter().find(|n| !n.ends_with(".tmp") && !n.ends_with(".broken")) {
        Some(name) => Err(WalError::Foreign { dir: dir.to_path_buf(), name }),
        None => Ok(()),
    }
}

/// Makes the directory and the first segment in it, which gets its name when it is whole. Go renames a directory
/// instead; this works on mount points and through links, too.
fn create_directory(
    disk: &dyn Disk,
    dir: &Path,
    name: Name,
    head: &[u8],
    segment_bytes: u64,
) -> Result<Box<dyn File>, WalError> {
    disk.create_dir_all(dir, DIR_MODE).map_err(io_at(dir, "create"))?;
    refuse_foreign(disk, dir)?;
    let temporary = dir.join("0.tmp");
    let file = new_file(disk, &temporary, segment_bytes)?;
    file.write_at(head, 0).map_err(io_at(&temporary, "write to"))?;
    file.sync_all().map_err(io_at(&temporary, "sync"))?;
    let path = name.path(dir);
    disk.rename(&temporary, &path).map_err(io_at(&path, "rename to"))?;
    disk.sync_dir(dir).map_err(io_at(dir, "sync"))?;
    Ok(file)
}

/// A new, locked file of zeros. What stands there is a leftover.
fn new_file(disk: &dyn Disk, path: &Path, bytes: u64) -> Result<Box<dyn File>, WalError> {
    if disk.exists(path).map_err(io_at(path, "look for"))? {
        disk.remove_file(path).map_err(io_at(path, "remove"))?;
    }
    let file = disk.open(path, OpenOptions::create_new().mode(FILE_MODE)).map_err(io_at(path, "create"))?;
    segment::lock(path, file.as_ref())?;
    if let Err(e) = file.allocate(bytes) {
        // What there is of it would only take room on a full disk; that it can't be removed changes nothing.
        drop(disk.remove_file(path));
        return Err(io_at(path, "allocate")(e));
    }
    Ok(file)
}

/// Rewrites the valid part of the tail, zeroes the rest, makes both durable. A torn segment is copied away first.
fn settle_tail(disk: &dyn Disk, dir: &Path, tail: &Segment, end: End, segment_bytes: u64) -> Result<(), WalError> {
    if end.torn {
        let mut broken = tail.path.as_os_str().to_owned();
        broken.push(".broken");
        let broken = PathBuf::from(broken);
        let copy = disk.open(&broken, OpenOptions::create().mode(FILE_MODE)).map_err(io_at(&broken, "create"))?;
        copy.set_len(0).map_err(io_at(&broken, "truncate"))?;
        let len = tail.file.len().map_err(io_at(&tail.path, "measure"))?;
        copy_bytes(tail, len, &broken, copy.as_ref())?;
        copy.sync_all().map_err(io_at(&broken, "sync"))?;
        tracing::warn!(path = %tail.path.display(), offset = end.offset, "repaired a torn record at the end of the log");
    }
    copy_bytes(tail, end.offset, &tail.path, tail.file.as_ref())?;
    tail.file.set_len(end.offset).map_err(io_at(&tail.path, "truncate"))?;
    if end.offset < segment_bytes {
        tail.file.allocate(segment_bytes).map_err(io_at(&tail.path, "allocate"))?;
    }
    tail.file.sync_all().map_err(io_at(&tail.path, "sync"))?;
    disk.sync_dir(dir).map_err(io_at(dir, "sync"))
}

/// Copies the first `len` bytes of a segment to the same place of `to`, which may be the segment itself.
fn copy_bytes(from: &Segment, len: u64, to_path: &Path, to: &dyn File) -> Result<(), WalError> {
    let mut chunk = vec![0; COPY_CHUNK.min(len as usize)];
    let mut at = 0;
    while at < len {
        let n = chunk.len().min((len - at) as usize);
        from.file.read_exact_at(&mut chunk[..n], at).map_err(io_at(&from.path, "read"))?;
        to.write_at(&chunk[..n], at).map_err(io_at(to_path, "write to"))?;
        at += n as u64;
    }
    Ok(())
}
