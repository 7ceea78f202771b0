//! All records of a log as they lie there, for people who look at a damaged one: nothing is repaired, and a wrong checksum is
//! told and read over.

use crate::error::io_at;
use crate::record::{FRAME_HEAD, RECORD_BYTES_MAX, frame_head, has_zero_sector};
use crate::{WalError, WalSnapshot};
use api::pb::walpb;
use api::raft::{Entry, HardState};
use bytes::Bytes;
use disk::{File, OpenOptions, SharedDisk};
use prost::Message as _;
use std::path::Path;

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Metadata(Bytes),
    Entry(Entry),
    State(HardState),
    /// Where the chain of checksums goes on.
    Crc(u32),
    Snapshot(WalSnapshot),
    /// A kind that no version of etcd writes.
    Unknown(i64),
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of the segment's file.
    pub file: String,
    /// Where the record begins in it, bytes.
    pub offset: u64,
    pub content: Content,
    /// Whether its checksum continues the chain.
    pub is_sound: bool,
}

/// How the log ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its last record.
    Whole,
    /// Amid one.
    Cut(String),
    /// At one that can't be read.
    Unreadable(String),
}

/// Calls with each record of the directory's `.wal` files, in the order of their names.
///
/// # Errors
/// The disk's.
pub fn look(disk: &SharedDisk, dir: &Path, visit: &mut dyn FnMut(Seen)) -> Result<Ending, WalError> {
    let mut names = disk.read_dir(dir).map_err(io_at(dir, "list"))?;
    names.retain(|name| name.ends_with(".wal"));
    names.sort_unstable();
    let mut crc = 0;
    for (n, name) in names.iter().enumerate() {
        let path = dir.join(name);
        let file = disk.open(&path, OpenOptions::read()).map_err(io_at(&path, "open"))?;
        let len = file.len().map_err(io_at(&path, "measure"))?;
        let mut segment = Segment { file: &*file, name, len, offset: 0, is_last: n + 1 == names.len() };
        loop {
            match segment.next(&mut crc).map_err(io_at(&path, "read"))? {
                Step::Record(seen) => visit(seen),
                Step::End => break,
                Step::Stop(ending) => return Ok(ending),
            }
        }
    }
    Ok(Ending::Whole)
}

enum Step {
    Record(Seen),
    End,
    Stop(Ending),
}

struct Segment<'a> {
    file: &'a dyn File,
    name: &'a str,
    len: u64,
    offset: u64,
    is_last: bool,
}

impl Segment<'_> {
    fn place(&self) -> String {
        format!("in file '{}' at position: {}", self.name, self.offset)
    }

    fn next(&mut self, crc: &mut u32) -> std::io::Result<Step> {
        let left = self.len - self.offset;
        let mut word = [0; 8];
        if left == 0 {
            return Ok(Step::End);
        }
        if left < FRAME_HEAD {
            return Ok(Step::Stop(Ending::Cut(format!("unexpected EOF: {}", self.place()))));
        }
        self.file.read_exact_at(&mut word, self.offset)?;
        let word = u64::from_le_bytes(word);
        if word == 0 {
            return Ok(Step::End);
        }
        let (size, padding, _) = frame_head(word);
        if size.saturating_add(padding) > left - FRAME_HEAD || size > RECORD_BYTES_MAX {
            let what = "unexpected EOF: [wal] max entry size limit exceeded: a record of";
            return Ok(Step::Stop(Ending::Cut(format!("{what} {size} bytes {}", self.place()))));
        }
        // At most 512 MiB: fits.
        let mut payload = vec![0; (size + padding) as usize];
        self.file.read_exact_at(&mut payload, self.offset + FRAME_HEAD)?;
        Ok(self.record(&payload, size as usize, crc))
    }

    fn record(&mut self, payload: &[u8], size: usize, crc: &mut u32) -> Step {
        let torn = self.is_last && has_zero_sector(payload, self.offset + FRAME_HEAD);
        let cut = |place: String| Step::Stop(Ending::Cut(format!("unexpected EOF: {place}")));
        let record = match walpb::Record::decode(&payload[..size]) {
            Ok(record) => record,
            Err(_) if torn => return cut(self.place()),
            Err(e) => return Step::Stop(Ending::Unreadable(format!("{e}: {}", self.place()))),
        };
        let stored = record.crc();
        let (kind, data) = (record.r#type(), record.data.unwrap_or_default());
        let is_sound = kind == 4 || crc32c::crc32c_append(*crc, &data) == stored;
        if !is_sound && torn {
            return cut(self.place());
        }
        // As Go, which goes on with what it has read and not with what the record says.
        *crc = if kind == 4 { stored } else { crc32c::crc32c_append(*crc, &data) };
        let (file, offset) = (self.name.to_owned(), self.offset);
        match content(kind, stored, data) {
            Ok(content) => {
                self.offset += FRAME_HEAD + payload.len() as u64;
                Step::Record(Seen { file, offset, content, is_sound })
            }
            Err(why) => Step::Stop(Ending::Unreadable(format!("{why}: {}", self.place()))),
        }
    }
}

fn content(kind: i64, crc: u32, data: Bytes) -> Result<Content, api::raft::Malformed> {
    Ok(match kind {
        1 => Content::Metadata(data),
        2 => Content::Entry(Entry::decode(data)?),
        3 => Content::State(HardState::decode(data)?),
        4 => Content::Crc(crc),
        5 => Content::Snapshot(WalSnapshot::decode(data)?),
        other => Content::Unknown(other),
    })
}
