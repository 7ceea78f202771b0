//! Opening a log that a stop or a crash left.

use crate::read::Reader;
use crate::record::{CRC, ENTRY, METADATA, SNAPSHOT, STATE};
use crate::write::{Segment, lock, parse_name, segment_name};
use crate::{Wal, WalError, WalOptions, WalSnapshot};
use api::raft::{Entry, HardState};
use bytes::Bytes;
use disk::{OpenOptions, SharedDisk};
use std::path::{Path, PathBuf};

/// No segment is longer: a segment is cut at 64 MB, after one batch of appends.
const SEGMENT_MAX: u64 = 4 << 30;

/// What a log holds from a snapshot on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    pub metadata: Bytes,
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
}

/// Whether the directory holds a log.
///
/// # Errors
/// The disk failed.
pub fn exists(disk: &SharedDisk, dir: &Path) -> Result<bool, WalError> {
    if !disk.exists(dir).map_err(WalError::io(dir, "stat"))? {
        return Ok(false);
    }
    let names = disk.read_dir(dir).map_err(WalError::io(dir, "list"))?;
    Ok(names.iter().any(|n| parse_name(n).is_some()))
}

fn segments(disk: &SharedDisk, dir: &Path) -> Result<Vec<(u64, u64)>, WalError> {
    let names = disk.read_dir(dir).map_err(WalError::io(dir, "list"))?;
    Ok(names.iter().filter_map(|n| parse_name(n)).collect())
}

/// Snapshot records that a replay may begin at: not past the last commit index. An unfinished last record ends the
/// search without an error.
///
/// # Errors
/// The log is damaged or the disk failed.
pub fn valid_snapshots(disk: &SharedDisk, dir: &Path) -> Result<Vec<WalSnapshot>, WalError> {
    let names = segments(disk, dir)?;
    let mut snapshots = Vec::new();
    let mut commit = 0;
    let mut crc = None;
    for (i, (seq, index)) in names.iter().enumerate() {
        let path = dir.join(segment_name(*seq, *index));
        let bytes = disk.read(&path, SEGMENT_MAX).map_err(WalError::io(&path, "read"))?;
        let last = i + 1 == names.len();
        let mut reader = Reader::new(&path, bytes.into(), last, crc.unwrap_or(0), crc.is_some());
        loop {
            match reader.advance() {
                Ok(Some(record)) => {
                    let bad = |e: String| WalError::corrupt(&path, 0, e);
                    if record.kind == SNAPSHOT {
                        snapshots.push(WalSnapshot::decode(record.data).map_err(|e| bad(e.to_string()))?);
                    } else if record.kind == STATE {
                        commit = HardState::decode(record.data).map_err(|e| bad(e.to_string()))?.commit;
                    }
                }
                Ok(None) | Err(WalError::Torn { .. }) => break,
                Err(e) => return Err(e),
            }
        }
        crc = Some(reader.crc);
    }
    snapshots.retain(|s| s.index <= commit);
    Ok(snapshots)
}

struct Replaying {
    start: WalSnapshot,
    replay: Replay,
    has_metadata: bool,
}

impl Replaying {
    fn take(&mut self, path: &Path, offset: u64, kind: i64, data: Bytes) -> Result<(), WalError> {
        let bad = |what: String| WalError::corrupt(path, offset, what);
        match kind {
            METADATA if self.has_metadata && self.replay.metadata != data => {
                return Err(WalError::MetadataConflict { path: path.to_path_buf() });
            }
            METADATA => {
                self.has_metadata = true;
                self.replay.metadata = data;
            }
            ENTRY => self.take_entry(Entry::decode(data).map_err(|e| bad(e.to_string()))?).map_err(bad)?,
            STATE => self.replay.hard_state = HardState::decode(data).map_err(|e| bad(e.to_string()))?,
            SNAPSHOT => {
                let s = WalSnapshot::decode(data).map_err(|e| bad(e.to_string()))?;
                if s.index == self.start.index && s.term != self.start.term {
                    let (index, term) = (self.start.index, self.start.term);
                    return Err(WalError::SnapshotMismatch { index, term, found: s.term });
                }
            }
            CRC => {}
            other => return Err(bad(format!("unknown record type {other}"))),
        }
        Ok(())
    }

    /// A later entry of the same index replaces the earlier one and what followed it.
    fn take_entry(&mut self, entry: Entry) -> Result<(), String> {
        if entry.index <= self.start.index {
            return Ok(());
        }
        let at = (entry.index - self.start.index - 1) as usize;
        if at > self.replay.entries.len() {
            return Err(format!("entries before index {} are missing", entry.index));
        }
        self.replay.entries.truncate(at);
        // Own memory: the entry must not keep its whole segment alive.
        let data = Bytes::copy_from_slice(&entry.data);
        self.replay.entries.push(Entry { data, ..entry });
        Ok(())
    }
}

impl Wal {
    /// Opens the log for appending, replaying from `start`. A torn tail is repaired once, with a copy kept in
    /// `<segment>.broken`. What is read is written back and synced before it counts: an earlier process may have died
    /// on a failed sync, after which the page cache lies.
    ///
    /// # Errors
    /// The log is locked, damaged, or the disk failed.
    pub fn open(
        disk: SharedDisk,
        dir: &Path,
        start: &WalSnapshot,
        options: WalOptions,
    ) -> Result<(Wal, Replay), WalError> {
        let names = segments(&disk, dir)?;
        let from = names.iter().rposition(|(_, index)| *index <= start.index);
        let missing = || WalError::Missing { dir: dir.to_path_buf(), index: start.index };
        let names = &names[from.ok_or_else(missing)?..];
        if names.windows(2).any(|w| w[1].0 != w[0].0 + 1) {
            return Err(missing());
        }
        let mut state =
            Replaying { start: start.clone(), replay: Replay::default(), has_metadata: false };
        let mut held = Vec::new();
        let (mut crc, mut offset) = (None, 0);
        for (i, (seq, index)) in names.iter().enumerate() {
            let path = dir.join(segment_name(*seq, *index));
            let file = disk.open(&path, OpenOptions::write()).map_err(WalError::io(&path, "open"))?;
            lock(&*file, &path)?;
            let last = i + 1 == names.len();
            let bytes = Bytes::from(disk.read(&path, SEGMENT_MAX).map_err(WalError::io(&path, "read"))?);
            let mut reader = Reader::new(&path, bytes.clone(), last, crc.unwrap_or(0), crc.is_some());
            loop {
                let at = reader.offset;
                match reader.advance() {
                    Ok(Some(record)) => state.take(&path, at, record.kind, record.data)?,
                    Ok(None) => break,
                    Err(WalError::Torn { .. }) if last => {
                        keep_copy(&disk, &path, &bytes)?;
                        break;
                    }
                    Err(e) => return Err(e),
                }
            }
            (crc, offset) = (Some(reader.crc), reader.offset);
            if last {
                settle_tail(&*file, &path, &bytes[..offset as usize], &options)?;
            }
            held.push(Segment { seq: *seq, index: *index, file });
        }
        clear_leftovers(&disk, dir)?;
        let last_index = state.replay.entries.last().map_or(start.index, |e| e.index);
        let wal = Wal {
            disk,
            dir: dir.to_path_buf(),
            options,
            metadata: state.replay.metadata.clone(),
            hard_state: state.replay.hard_state,
            segments: held,
            offset,
            crc: crc.unwrap_or(0),
            last_index,
            buffer: Vec::new(),
            scratch: Vec::new(),
            next: None,
            poisoned: false,
        };
        Ok((wal, state.replay))
    }
}

fn keep_copy(disk: &SharedDisk, path: &Path, bytes: &[u8]) -> Result<(), WalError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".broken");
    let copy = PathBuf::from(name);
    let file = disk.open(&copy, OpenOptions::create().mode(0o600)).map_err(WalError::io(&copy, "create"))?;
    file.set_len(0).map_err(WalError::io(&copy, "truncate"))?;
    file.write_at(bytes, 0).map_err(WalError::io(&copy, "write"))?;
    file.sync_all().map_err(WalError::io(&copy, "sync"))
}

/// Rewrites the valid part, zeroes what follows, and syncs.
fn settle_tail(file: &dyn disk::File, path: &Path, valid: &[u8], options: &WalOptions) -> Result<(), WalError> {
    file.set_len(valid.len() as u64).map_err(WalError::io(path, "truncate"))?;
    file.write_at(valid, 0).map_err(WalError::io(path, "write"))?;
    let len = options.segment_bytes.max(valid.len() as u64);
    file.allocate(len).map_err(WalError::io(path, "preallocate"))?;
    file.sync_all().map_err(WalError::io(path, "sync"))
}

/// Prepared segments of an earlier process.
fn clear_leftovers(disk: &SharedDisk, dir: &Path) -> Result<(), WalError> {
    for name in ["0.tmp", "1.tmp"] {
        let path = dir.join(name);
        if disk.exists(&path).map_err(WalError::io(&path, "stat"))? {
            disk.remove_file(&path).map_err(WalError::io(&path, "remove"))?;
        }
    }
    Ok(())
}
