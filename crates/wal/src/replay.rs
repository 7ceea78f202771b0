//! Reading the log back.

use crate::error::io_at;
use crate::record::{FRAME_HEAD, Kind, Loose, Reader, Step};
use crate::segment::{self, Segment};
use crate::{WalError, WalSnapshot};
use api::raft::{Entry, HardState, Malformed};
use bytes::Bytes;
use disk::SharedDisk;
use std::path::Path;

/// So far behind a torn record its successors are looked for: more than a segment.
const BEHIND_BYTES_MAX: u64 = 256 << 20;

/// What the log holds after the snapshot it was opened at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// As given to [`crate::Wal::create`].
    pub metadata: Bytes,
    /// The last one written.
    pub hard_state: HardState,
    /// Contiguous, from the snapshot's index + 1.
    pub entries: Vec<Entry>,
}

/// Where a record stands.
pub(crate) struct Place<'a> {
    pub(crate) path: &'a Path,
    pub(crate) offset: u64,
}

impl Place<'_> {
    fn corrupt(&self, e: &Malformed) -> WalError {
        WalError::corrupt(self.path, self.offset, e.to_string())
    }
}

/// Where the last segment's valid records end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) offset: u64,
    pub(crate) crc: u32,
    pub(crate) torn: bool,
}

/// Visits the records of the segments in order.
pub(crate) fn scan(
    segments: &[Segment],
    visit: &mut dyn FnMut(Place<'_>, Kind, Bytes) -> Result<(), WalError>,
) -> Result<End, WalError> {
    let mut end = End { offset: 0, crc: 0, torn: false };
    for (i, s) in segments.iter().enumerate() {
        let mut reader = Reader::new(&s.path, s.file.as_ref(), i + 1 == segments.len())?;
        loop {
            let offset = reader.offset();
            match reader.next(&mut end.crc)? {
                Step::Record(Kind::Crc, _) => {}
                Step::Record(kind, data) => visit(Place { path: &s.path, offset }, kind, data)?,
                Step::End => break,
                Step::Torn => {
                    end.torn = true;
                    break;
                }
            }
        }
        end.offset = reader.offset();
    }
    Ok(end)
}

/// The highest commit index in the hard states behind `offset`, where a record can't be read. The chain of checksums is
/// broken there, so only records count that continue one another's.
pub(crate) fn commit_behind(tail: &Segment, offset: u64) -> Result<u64, WalError> {
    let len = tail.file.len().map_err(io_at(&tail.path, "measure"))?;
    let mut bytes = vec![0; (len - offset).min(BEHIND_BYTES_MAX) as usize];
    tail.file.read_exact_at(&mut bytes, offset).map_err(io_at(&tail.path, "read"))?;
    let (mut commit, mut at) = (0, FRAME_HEAD as usize);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (chained, end) = chain_at(rest);
        // Nothing vouches for the data of the first.
        let states = chained.iter().skip(1).filter(|loose| loose.kind == Kind::State);
        let commits = states.filter_map(|loose| HardState::decode(loose.data.clone()).ok()).map(|state| state.commit);
        commit = commits.fold(commit, u64::max);
        // Frames are aligned to eight bytes.
        at += end.max(FRAME_HEAD as usize);
    }
    Ok(commit)
}

/// Records that begin here and continue one another's checksum, if there are two at least, and where they end.
fn chain_at(bytes: &[u8]) -> (Vec<Loose>, usize) {
    let (mut chain, mut end) = (Vec::<Loose>::new(), 0);
    while let Some((loose, size)) = Loose::parse(&bytes[end..]) {
        if chain.last().is_some_and(|before| !loose.follows(before)) {
            break;
        }
        chain.push(loose);
        end += size;
    }
    if chain.len() < 2 { (Vec::new(), 0) } else { (chain, end) }
}

/// Collects a [`Replay`].
pub(crate) struct Collector<'a> {
    start: &'a WalSnapshot,
    metadata: Option<Bytes>,
    hard_state: HardState,
    entries: Vec<Entry>,
    matched: bool,
    /// Index of the last entry or snapshot record: names the next segment.
    pub(crate) last_index: u64,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(start: &'a WalSnapshot) -> Collector<'a> {
        let (hard_state, entries) = (HardState::default(), Vec::new());
        Collector { start, metadata: None, hard_state, entries, matched: false, last_index: start.index }
    }

    pub(crate) fn visit(&mut self, place: &Place<'_>, kind: Kind, data: Bytes) -> Result<(), WalError> {
        match kind {
            Kind::Metadata => self.metadata(place, data),
            Kind::Entry => self.entry(place, Entry::decode(data).map_err(|e| place.corrupt(&e))?),
            Kind::State => {
                self.hard_state = decode_state(place, data)?;
                Ok(())
            }
            Kind::Snapshot => self.snapshot(place, &WalSnapshot::decode(data).map_err(|e| place.corrupt(&e))?),
            Kind::Crc => Ok(()),
        }
    }

    fn metadata(&mut self, place: &Place<'_>, data: Bytes) -> Result<(), WalError> {
        if self.metadata.as_ref().is_some_and(|known| *known != data) {
            return Err(WalError::MetadataConflict { path: place.path.to_path_buf(), offset: place.offset });
        }
        self.metadata = Some(data);
        Ok(())
    }

    /// A later record of an index overrides it and all that follow.
    fn entry(&mut self, place: &Place<'_>, entry: Entry) -> Result<(), WalError> {
        self.last_index = entry.index;
        if entry.index <= self.start.index {
            return Ok(());
        }
        let position = entry.index - self.start.index - 1;
        if position > self.entries.len() as u64 {
            let expected = self.start.index + self.entries.len() as u64 + 1;
            let what = format!("entry {} follows, but entry {expected} is missing", entry.index);
            return Err(WalError::Gap { path: place.path.to_path_buf(), offset: place.offset, what });
        }
        // At most the vector's own length: fits.
        self.entries.truncate(position as usize);
        self.entries.push(entry);
        Ok(())
    }

    fn snapshot(&mut self, place: &Place<'_>, s: &WalSnapshot) -> Result<(), WalError> {
        self.last_index = self.last_index.max(s.index);
        if s.index != self.start.index {
            return Ok(());
        }
        if s.term != self.start.term {
            let (path, offset, wanted) = (place.path.to_path_buf(), place.offset, self.start.term);
            return Err(WalError::SnapshotMismatch { path, offset, index: s.index, term: s.term, wanted });
        }
        self.matched = true;
        Ok(())
    }

    pub(crate) fn finish(self, dir: &Path) -> Result<Replay, WalError> {
        if !self.matched {
            let (index, term) = (self.start.index, self.start.term);
            return Err(WalError::SnapshotNotFound { dir: dir.to_path_buf(), index, term });
        }
        let what = "the log has no metadata record";
        let metadata = self.metadata.ok_or(WalError::NotFound { dir: dir.to_path_buf(), what })?;
        Ok(Replay { metadata, hard_state: self.hard_state, entries: self.entries })
    }
}

/// All versions of etcd write all three fields, so other bytes are no hard state: a record's type is not covered
/// by its checksum.
fn decode_state(place: &Place<'_>, data: Bytes) -> Result<HardState, WalError> {
    let state = HardState::decode(data.clone()).map_err(|e| place.corrupt(&e))?;
    if state.encode() != data {
        return Err(WalError::corrupt(place.path, place.offset, "not a hard state"));
    }
    Ok(state)
}

pub(crate) fn read_only(disk: &SharedDisk, dir: &Path, at: &WalSnapshot) -> Result<Replay, WalError> {
    let names = segment::list_from(disk.as_ref(), dir, at.index)?;
    let segments: Result<Vec<_>, _> = names.iter().map(|n| segment::open_read(disk.as_ref(), dir, *n)).collect();
    let mut collector = Collector::new(at);
    scan(&segments?, &mut |place, kind, data| collector.visit(&place, kind, data))?;
    collector.finish(dir)
}

/// Metadata, the last hard state, and the entries from an index on, but those from `end` on, of a log that is only looked at:
/// no snapshot need be recorded where it begins, and nothing is repaired.
///
/// # Errors
/// No segment reaches back so far, entries are missing in between, or damage.
pub fn read_between(disk: &SharedDisk, dir: &Path, first: u64, end: Option<u64>) -> Result<Replay, WalError> {
    let before = WalSnapshot { index: first.saturating_sub(1), ..WalSnapshot::default() };
    let names = segment::list_from(disk.as_ref(), dir, before.index)?;
    let segments: Result<Vec<_>, _> = names.iter().map(|n| segment::open_read(disk.as_ref(), dir, *n)).collect();
    let mut collector = Collector::new(&before);
    collector.matched = true;
    scan(&segments?, &mut |place, kind, data| match kind {
        Kind::Snapshot => Ok(()),
        Kind::Entry => {
            let entry = Entry::decode(data.clone()).map_err(|e| place.corrupt(&e))?;
            if end.is_some_and(|end| entry.index >= end) { Ok(()) } else { collector.visit(&place, kind, data) }
        }
        _ => collector.visit(&place, kind, data),
    })?;
    collector.finish(dir)
}

/// Whether the directory holds a log.
pub fn exists(disk: &SharedDisk, dir: &Path) -> Result<bool, WalError> {
    if !disk.exists(dir).map_err(io_at(dir, "look for"))? {
        return Ok(false);
    }
    Ok(!segment::list(disk.as_ref(), dir)?.is_empty())
}

/// The snapshots a member may start from, oldest first: those recorded with an index that the last HardState
/// commits. Takes no lock; a torn tail ends the log.
pub fn valid_snapshots(disk: &SharedDisk, dir: &Path) -> Result<Vec<WalSnapshot>, WalError> {
    let names = segment::list(disk.as_ref(), dir)?;
    segment::check_sequence(dir, &names)?;
    let segments: Result<Vec<_>, _> = names.iter().map(|n| segment::open_read(disk.as_ref(), dir, *n)).collect();
    let (mut snapshots, mut commit) = (Vec::new(), 0);
    scan(&segments?, &mut |place, kind, data| {
        match kind {
            Kind::Snapshot => snapshots.push(WalSnapshot::decode(data).map_err(|e| place.corrupt(&e))?),
            Kind::State => commit = decode_state(&place, data)?.commit,
            Kind::Metadata | Kind::Entry | Kind::Crc => {}
        }
        Ok(())
    })?;
    snapshots.retain(|s| s.index <= commit);
    Ok(snapshots)
}
