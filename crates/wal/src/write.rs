//! Appending: records gather in one buffer; a sync writes the buffer with one call and makes it durable.

use crate::record::{CRC, ENTRY, METADATA, SNAPSHOT, STATE, put_frame};
use crate::{WalError, WalSnapshot};
use api::raft::{Entry, HardState};
use bytes::Bytes;
use disk::{File, LockKind, OpenOptions, SharedDisk};
use std::path::{Path, PathBuf};

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// A segment is cut once it is this long, and preallocated to it, bytes.
    pub segment_bytes: u64,
    /// Leaves out every sync (`--unsafe-no-fsync`).
    pub no_sync: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        WalOptions { segment_bytes: 64_000_000, no_sync: false }
    }
}

/// A segment that this process holds locked.
pub(crate) struct Segment {
    pub seq: u64,
    pub index: u64,
    pub file: Box<dyn File>,
}

/// The log, open for appending.
pub struct Wal {
    pub(crate) disk: SharedDisk,
    pub(crate) dir: PathBuf,
    pub(crate) options: WalOptions,
    pub(crate) metadata: Bytes,
    pub(crate) hard_state: HardState,
    /// Locked segments, oldest first; the last is the tail.
    pub(crate) segments: Vec<Segment>,
    pub(crate) offset: u64,
    pub(crate) crc: u32,
    pub(crate) last_index: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
    pub(crate) next: Option<(PathBuf, Box<dyn File>)>,
    pub(crate) poisoned: bool,
}

pub(crate) fn segment_name(seq: u64, index: u64) -> String {
    format!("{seq:016x}-{index:016x}.wal")
}

/// Sequence and first index of a segment's name; `None` for other files.
pub(crate) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (seq, index) = name.strip_suffix(".wal")?.split_once('-')?;
    (seq.len() == 16 && index.len() == 16)
        .then(|| Some((u64::from_str_radix(seq, 16).ok()?, u64::from_str_radix(index, 16).ok()?)))?
}

pub(crate) fn lock(file: &dyn File, path: &Path) -> Result<(), WalError> {
    match file.try_lock(LockKind::OfdExclusive).map_err(WalError::io(path, "lock"))? {
        true => Ok(()),
        false => Err(WalError::Locked { path: path.to_path_buf() }),
    }
}

impl Wal {
    /// Makes a log: built beside its place and renamed, so that it is there whole or not at all.
    ///
    /// # Errors
    /// The disk failed.
    pub fn create(disk: SharedDisk, dir: &Path, metadata: Bytes, options: WalOptions) -> Result<Wal, WalError> {
        let mut tmp = dir.as_os_str().to_owned();
        tmp.push(".tmp");
        let tmp = PathBuf::from(tmp);
        if disk.exists(&tmp).map_err(WalError::io(&tmp, "stat"))? {
            disk.remove_dir_all(&tmp).map_err(WalError::io(&tmp, "remove"))?;
        }
        disk.create_dir_all(&tmp, 0o700).map_err(WalError::io(&tmp, "create"))?;
        let name = segment_name(0, 0);
        let path = tmp.join(&name);
        let file = disk.open(&path, OpenOptions::create().mode(0o600)).map_err(WalError::io(&path, "create"))?;
        lock(&*file, &path)?;
        file.allocate(options.segment_bytes).map_err(WalError::io(&path, "preallocate"))?;
        let mut wal = Wal {
            disk: disk.clone(),
            dir: tmp.clone(),
            options,
            metadata,
            hard_state: HardState::default(),
            segments: vec![Segment { seq: 0, index: 0, file }],
            offset: 0,
            crc: 0,
            last_index: 0,
            buffer: Vec::new(),
            scratch: Vec::new(),
            next: None,
            poisoned: false,
        };
        wal.put_head();
        let zero = WalSnapshot::default().encode();
        wal.put(SNAPSHOT, &zero);
        wal.write_out(true)?;
        disk.sync_dir(&tmp).map_err(WalError::io(&tmp, "sync"))?;
        if disk.exists(dir).map_err(WalError::io(dir, "stat"))? {
            disk.remove_dir_all(dir).map_err(WalError::io(dir, "remove"))?;
        }
        disk.rename(&tmp, dir).map_err(WalError::io(dir, "rename to"))?;
        let parent = dir.parent().unwrap_or(Path::new("/"));
        disk.sync_dir(parent).map_err(WalError::io(parent, "sync"))?;
        wal.dir = dir.to_path_buf();
        Ok(wal)
    }

    fn put_head(&mut self) {
        put_frame(&mut self.buffer, CRC, self.crc, None);
        let metadata = self.metadata.clone();
        self.put(METADATA, &metadata);
    }

    fn put(&mut self, kind: i64, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        put_frame(&mut self.buffer, kind, self.crc, Some(data));
    }

    /// Buffers entries, then the hard state unless it is empty. Nothing is durable before [`Wal::sync`].
    ///
    /// # Errors
    /// The log is poisoned.
    pub fn append(&mut self, state: &HardState, entries: &[Entry]) -> Result<(), WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        for entry in entries {
            self.scratch.clear();
            put_entry(&mut self.scratch, entry);
            self.crc = crc32c::crc32c_append(self.crc, &self.scratch);
            put_frame(&mut self.buffer, ENTRY, self.crc, Some(&self.scratch));
            self.last_index = entry.index;
        }
        if !state.is_empty() {
            self.hard_state = *state;
            let bytes = state.encode();
            self.put(STATE, &bytes);
        }
        Ok(())
    }

    /// Writes the buffer and makes it durable; cuts the segment when it is full.
    ///
    /// # Errors
    /// The disk failed: the log is poisoned.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.write_out(true)?;
        if self.offset >= self.options.segment_bytes { self.guard(Wal::cut) } else { Ok(()) }
    }

    /// Records a snapshot and makes it durable.
    ///
    /// # Errors
    /// The disk failed: the log is poisoned.
    pub fn save_snapshot(&mut self, snapshot: &WalSnapshot) -> Result<(), WalError> {
        self.put(SNAPSHOT, &snapshot.encode());
        self.last_index = self.last_index.max(snapshot.index);
        self.write_out(true)
    }

    fn write_out(&mut self, sync: bool) -> Result<(), WalError> {
        self.guard(|wal| {
            let path = wal.tail_path();
            let file = &wal.segments.last().expect("a log has a tail").file;
            if !wal.buffer.is_empty() {
                file.write_at(&wal.buffer, wal.offset).map_err(WalError::io(&path, "write"))?;
                wal.offset += wal.buffer.len() as u64;
                wal.buffer.clear();
            }
            if sync && !wal.options.no_sync {
                file.sync_data().map_err(WalError::io(&path, "sync"))?;
            }
            Ok(())
        })
    }

    fn guard(&mut self, work: impl FnOnce(&mut Wal) -> Result<(), WalError>) -> Result<(), WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let outcome = work(self);
        self.poisoned = outcome.is_err();
        outcome
    }

    fn tail_path(&self) -> PathBuf {
        let tail = self.segments.last().expect("a log has a tail");
        self.dir.join(segment_name(tail.seq, tail.index))
    }

    /// Preallocates the next segment, so that a cut costs little. To be called off the hot path.
    ///
    /// # Errors
    /// The disk failed.
    pub fn prepare_next(&mut self) -> Result<(), WalError> {
        if self.next.is_some() || self.poisoned {
            return Ok(());
        }
        let seq = self.segments.last().expect("a log has a tail").seq;
        let path = self.dir.join(format!("{}.tmp", (seq + 1) % 2));
        if self.disk.exists(&path).map_err(WalError::io(&path, "stat"))? {
            self.disk.remove_file(&path).map_err(WalError::io(&path, "remove"))?;
        }
        let file =
            self.disk.open(&path, OpenOptions::create().mode(0o600)).map_err(WalError::io(&path, "create"))?;
        lock(&*file, &path)?;
        file.allocate(self.options.segment_bytes).map_err(WalError::io(&path, "preallocate"))?;
        self.next = Some((path, file));
        Ok(())
    }

    /// Ends the tail and begins the next segment, under a temporary name until its head is durable.
    fn cut(&mut self) -> Result<(), WalError> {
        let tail_path = self.tail_path();
        let tail = self.segments.last().expect("a log has a tail");
        tail.file.set_len(self.offset).map_err(WalError::io(&tail_path, "truncate"))?;
        tail.file.sync_data().map_err(WalError::io(&tail_path, "sync"))?;
        let (seq, index) = (tail.seq + 1, self.last_index + 1);
        self.prepare_next()?;
        let (tmp, file) = self.next.take().expect("just prepared");
        self.put_head();
        if !self.hard_state.is_empty() {
            let bytes = self.hard_state.encode();
            self.put(STATE, &bytes);
        }
        file.write_at(&self.buffer, 0).map_err(WalError::io(&tmp, "write"))?;
        self.offset = self.buffer.len() as u64;
        self.buffer.clear();
        file.sync_data().map_err(WalError::io(&tmp, "sync"))?;
        let path = self.dir.join(segment_name(seq, index));
        self.disk.rename(&tmp, &path).map_err(WalError::io(&path, "rename to"))?;
        self.disk.sync_dir(&self.dir).map_err(WalError::io(&self.dir, "sync"))?;
        self.segments.push(Segment { seq, index, file });
        Ok(())
    }

    /// Unlocks segments that a replay from `index` does not need.
    ///
    /// # Errors
    /// The disk failed.
    pub fn release_to(&mut self, index: u64) -> Result<(), WalError> {
        let needed = self.segments.iter().rposition(|s| s.index < index.max(1)).unwrap_or(0);
        for segment in self.segments.drain(..needed) {
            let path = self.dir.join(segment_name(segment.seq, segment.index));
            segment.file.unlock(LockKind::OfdExclusive).map_err(WalError::io(&path, "unlock"))?;
        }
        Ok(())
    }

    /// Deletes the oldest released segments beyond `max`; 0 keeps all.
    ///
    /// # Errors
    /// The disk failed.
    pub fn purge(&mut self, max: usize) -> Result<(), WalError> {
        if max == 0 {
            return Ok(());
        }
        let names = self.disk.read_dir(&self.dir).map_err(WalError::io(&self.dir, "list"))?;
        let files: Vec<(u64, String)> = names.into_iter().filter_map(|n| Some((parse_name(&n)?.0, n))).collect();
        let first_held = self.segments.first().expect("a log has a tail").seq;
        let beyond = files.len().saturating_sub(max);
        let mut removed = false;
        for (_, name) in files.iter().take(beyond).filter(|(seq, _)| *seq < first_held) {
            let path = self.dir.join(name);
            self.disk.remove_file(&path).map_err(WalError::io(&path, "remove"))?;
            removed = true;
        }
        match removed {
            true => self.disk.sync_dir(&self.dir).map_err(WalError::io(&self.dir, "sync")),
            false => Ok(()),
        }
    }

    /// Ends the log in good order; the prepared segment goes.
    ///
    /// # Errors
    /// The disk failed.
    pub fn close(self) -> Result<(), WalError> {
        match self.next {
            Some((path, _)) => self.disk.remove_file(&path).map_err(WalError::io(&path, "remove")),
            None => Ok(()),
        }
    }
}

/// An entry's bytes as Go 3.7 writes them (see `api::raft::Entry::encode`), without an allocation of its own.
fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    use prost::Message as _;
    entry.to_pb().encode(out).expect("a Vec grows");
}
