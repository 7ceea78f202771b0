//! Frames and records: encoding into one buffer, decoding from a segment.

use crate::WalError;
use crate::error::io_at;
use api::pb::walpb;
use api::raft::{Entry, EntryKind};
use bytes::Bytes;
use disk::File;
use prost::Message as _;
use prost::encoding::encode_varint;
use std::path::{Path, PathBuf};

/// Largest record that is read or written. etcd's requests are far smaller; a damaged length must not make us
/// allocate what it says.
pub(crate) const RECORD_BYTES_MAX: u64 = 512 << 20;
const SECTOR: u64 = 512;
pub(crate) const FRAME_HEAD: u64 = 8;
const READ_CHUNK: usize = 256 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Metadata = 1,
    Entry = 2,
    State = 3,
    Crc = 4,
    Snapshot = 5,
}

impl Kind {
    fn from_number(n: i64) -> Option<Kind> {
        Some(match n {
            1 => Kind::Metadata,
            2 => Kind::Entry,
            3 => Kind::State,
            4 => Kind::Crc,
            5 => Kind::Snapshot,
            _ => return None,
        })
    }
}

/// Appends frames to a buffer and runs the CRC chain.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    pub(crate) buffer: Vec<u8>,
    pub(crate) crc: u32,
    scratch: Vec<u8>,
}

impl Encoder {
    /// Continues a chain.
    pub(crate) fn new(crc: u32) -> Encoder {
        Encoder { crc, ..Encoder::default() }
    }

    /// The record that opens each segment.
    pub(crate) fn crc_record(&mut self) {
        self.frame(Kind::Crc, None);
    }

    pub(crate) fn record(&mut self, kind: Kind, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        self.frame(kind, Some((data, &[])));
    }

    /// As `record(Kind::Entry, &entry.encode())`, but copies the payload once.
    pub(crate) fn entry(&mut self, entry: &Entry) -> Result<(), WalError> {
        if entry.data.len() as u64 > RECORD_BYTES_MAX - 128 {
            return Err(WalError::TooLarge { bytes: entry.data.len() as u64, limit: RECORD_BYTES_MAX - 128 });
        }
        let mut head = std::mem::take(&mut self.scratch);
        head.clear();
        if entry.kind != EntryKind::Normal {
            head.push(0x08);
            encode_varint(entry.kind as u64, &mut head);
        }
        head.push(0x10);
        encode_varint(entry.term, &mut head);
        head.push(0x18);
        encode_varint(entry.index, &mut head);
        if !entry.data.is_empty() {
            head.push(0x22);
            encode_varint(entry.data.len() as u64, &mut head);
        }
        self.crc = crc32c::crc32c_append(crc32c::crc32c_append(self.crc, &head), &entry.data);
        self.frame(Kind::Entry, Some((&head, &entry.data)));
        self.scratch = head;
        Ok(())
    }

    fn frame(&mut self, kind: Kind, data: Option<(&[u8], &[u8])>) {
        let start = self.buffer.len();
        let out = &mut self.buffer;
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&[0x08, kind as u8, 0x10]);
        encode_varint(u64::from(self.crc), out);
        if let Some((head, body)) = data {
            out.push(0x1a);
            encode_varint((head.len() + body.len()) as u64, out);
            out.extend_from_slice(head);
            out.extend_from_slice(body);
        }
        let size = (out.len() - start) as u64 - FRAME_HEAD;
        let padding = padding(size);
        out.resize(out.len() + padding as usize, 0);
        let flag = if padding == 0 { 0 } else { (0x80 | padding) << 56 };
        out[start..start + 8].copy_from_slice(&(size | flag).to_le_bytes());
    }
}

fn padding(size: u64) -> u64 {
    (8 - size % 8) % 8
}

/// What stands at the reader's place.
pub(crate) enum Step {
    Record(Kind, Bytes),
    /// No further record in this segment.
    End,
    /// The last record of the last segment was written in part.
    Torn,
}

/// Reads one segment frame by frame.
pub(crate) struct Reader<'a> {
    path: PathBuf,
    file: &'a dyn File,
    len: u64,
    offset: u64,
    last_segment: bool,
    chunk: Vec<u8>,
    chunk_at: u64,
}

impl<'a> Reader<'a> {
    /// `last_segment`: a torn record is possible.
    pub(crate) fn new(path: &Path, file: &'a dyn File, last_segment: bool) -> Result<Reader<'a>, WalError> {
        let len = file.len().map_err(io_at(path, "measure"))?;
        Ok(Reader { path: path.to_path_buf(), file, len, offset: 0, last_segment, chunk: Vec::new(), chunk_at: 0 })
    }

    /// End of the last valid record.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next record and advances the chain's `crc`.
    pub(crate) fn next(&mut self, crc: &mut u32) -> Result<Step, WalError> {
        let at = self.offset;
        let left = self.len - at;
        if left == 0 {
            return Ok(Step::End);
        }
        if left < FRAME_HEAD {
            return self.short("the segment ends inside a length");
        }
        let mut word = [0; 8];
        word.copy_from_slice(self.bytes(at, 8)?);
        let word = u64::from_le_bytes(word);
        if word == 0 {
            return Ok(Step::End);
        }
        let (size, padding, formed) = frame_head(word);
        if size > RECORD_BYTES_MAX {
            return Err(self.damage(format!("a record of {size} bytes is past the limit of {RECORD_BYTES_MAX}")));
        }
        if !formed {
            return Err(self.damage(format!("the length {word:#018x} is malformed")));
        }
        if size + padding > left - FRAME_HEAD {
            return self.short("the record's length is past the end of the file");
        }
        // At most 512 MiB: fits.
        let torn_possible = self.last_segment;
        let payload = self.bytes(at + FRAME_HEAD, (size + padding) as usize)?;
        match parse(&payload[..size as usize], crc) {
            Ok((kind, data)) => {
                self.offset = at + FRAME_HEAD + size + padding;
                Ok(Step::Record(kind, data))
            }
            Err(_) if torn_possible && has_zero_sector(payload, at + FRAME_HEAD) => Ok(Step::Torn),
            Err(what) => Err(self.damage(what)),
        }
    }

    fn short(&self, what: &str) -> Result<Step, WalError> {
        if self.last_segment { Ok(Step::Torn) } else { Err(self.damage(what.to_owned())) }
    }

    fn damage(&self, what: String) -> WalError {
        WalError::corrupt(&self.path, self.offset, what)
    }

    /// The caller has checked that the file is long enough.
    fn bytes(&mut self, at: u64, n: usize) -> Result<&[u8], WalError> {
        let inside = at >= self.chunk_at && at + n as u64 <= self.chunk_at + self.chunk.len() as u64;
        if !inside {
            let want = n.max(READ_CHUNK).min((self.len - at) as usize);
            self.chunk.clear();
            self.chunk.resize(want, 0);
            self.chunk_at = at;
            self.file.read_exact_at(&mut self.chunk, at).map_err(io_at(&self.path, "read"))?;
        }
        let start = (at - self.chunk_at) as usize;
        Ok(&self.chunk[start..start + n])
    }
}

/// Size and padding of a frame, and whether its first word is one that is ever written.
pub(crate) fn frame_head(word: u64) -> (u64, u64, bool) {
    let (size, top) = (word & !(0xff << 56), word >> 56);
    let padding = padding(size);
    (size, padding, top == if padding == 0 { 0 } else { 0x80 | padding })
}

/// A record whose predecessors are unknown.
pub(crate) struct Loose {
    pub(crate) kind: Kind,
    pub(crate) data: Bytes,
    crc: u32,
}

impl Loose {
    /// The record at the beginning of `bytes`, and the size of its frame.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Loose, usize)> {
        let (word, rest) = bytes.split_first_chunk::<8>()?;
        let (size, padding, formed) = frame_head(u64::from_le_bytes(*word));
        if size == 0 || !formed || size + padding > rest.len() as u64 {
            return None;
        }
        let record = walpb::Record::decode(&rest[..size as usize]).ok()?;
        let (kind, crc) = (Kind::from_number(record.r#type())?, record.crc());
        Some((Loose { kind, data: record.data.unwrap_or_default(), crc }, (FRAME_HEAD + size + padding) as usize))
    }

    pub(crate) fn follows(&self, before: &Loose) -> bool {
        crc32c::crc32c_append(before.crc, &self.data) == self.crc
    }
}

/// Decodes a record and checks it against the chain.
fn parse(bytes: &[u8], crc: &mut u32) -> Result<(Kind, Bytes), String> {
    let record = walpb::Record::decode(bytes).map_err(|e| format!("not a record: {e}"))?;
    let kind = Kind::from_number(record.r#type()).ok_or_else(|| format!("unknown record type {}", record.r#type()))?;
    let (stored, data) = (record.crc(), record.data.unwrap_or_default());
    if kind == Kind::Crc {
        // A reader that starts in the middle knows no chain yet.
        if *crc != 0 && *crc != stored || !data.is_empty() {
            return Err(format!("crc mismatch: the chain is at {:08x}, the record says {stored:08x}", *crc));
        }
        *crc = stored;
        return Ok((kind, data));
    }
    let computed = crc32c::crc32c_append(*crc, &data);
    if computed != stored {
        return Err(format!("crc mismatch: computed {computed:08x}, stored {stored:08x}"));
    }
    *crc = computed;
    Ok((kind, data))
}

/// etcd's sign of a torn write: a sector (by file offset) of the payload that is all zero.
pub(crate) fn has_zero_sector(payload: &[u8], at: u64) -> bool {
    let first = ((SECTOR - at % SECTOR) as usize).min(payload.len());
    let (head, rest) = payload.split_at(first);
    let zero = |chunk: &[u8]| !chunk.is_empty() && chunk.iter().all(|b| *b == 0);
    zero(head) || rest.chunks(SECTOR as usize).any(zero)
}
