//! Reading one segment, record by record, with the running checksum.

use crate::WalError;
use crate::record::{self, CRC, RECORD_MAX};
use bytes::Bytes;
use std::path::Path;

const SECTOR: u64 = 512;

/// One record and where the next begins.
pub(crate) struct Record {
    pub kind: i64,
    pub data: Bytes,
}

/// A cursor over a segment's bytes.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    bytes: Bytes,
    /// The last segment of the log may end in an unfinished record.
    last: bool,
    pub offset: u64,
    pub crc: u32,
    started: bool,
}

impl<'a> Reader<'a> {
    /// `crc`: the chain so far; 0 and `started = false` at the first segment that is read.
    pub fn new(path: &'a Path, bytes: Bytes, last: bool, crc: u32, started: bool) -> Self {
        Reader { path, bytes, last, offset: 0, crc, started }
    }

    fn torn(&self, what: &'static str) -> WalError {
        WalError::Torn { path: self.path.to_path_buf(), offset: self.offset, what }
    }

    /// The next record; `None` at the end of the written part.
    pub fn advance(&mut self) -> Result<Option<Record>, WalError> {
        let total = self.bytes.len() as u64;
        let left = total - self.offset;
        if left == 0 {
            return Ok(None);
        }
        if left < 8 {
            return Err(self.torn("the file ends inside a length"));
        }
        let at = self.offset as usize;
        let field = u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"));
        if field == 0 {
            return Ok(None);
        }
        let (len, padding) = record::frame_len(field);
        if len > RECORD_MAX || len + padding > left - 8 {
            if !self.last {
                return Err(WalError::corrupt(self.path, self.offset, format!("a record of {len} bytes does not fit")));
            }
            return Err(self.torn("the file ends inside a record"));
        }
        let body = self.bytes.slice(at + 8..at + 8 + (len + padding) as usize);
        let (kind, crc, data) = match record::parse(body.slice(..len as usize)) {
            Ok(parsed) => parsed,
            Err(e) => return Err(self.torn_or_corrupt(&body, format!("a record can't be decoded: {e}"))),
        };
        if kind == CRC {
            if self.started && self.crc != 0 && crc != self.crc {
                return Err(self.torn_or_corrupt(&body, "crc mismatch in the chain of segments".into()));
            }
            self.crc = crc;
        } else {
            let sum = crc32c::crc32c_append(self.crc, &data);
            if sum != crc {
                return Err(self.torn_or_corrupt(&body, "crc mismatch".into()));
            }
            self.crc = sum;
        }
        self.started = true;
        self.offset += 8 + len + padding;
        Ok(Some(Record { kind, data }))
    }

    /// A sector of zeros inside a broken record of the last segment: a write that did not finish.
    fn torn_or_corrupt(&self, body: &[u8], what: String) -> WalError {
        let mut at = self.offset + 8;
        let end = at + body.len() as u64;
        let start = at;
        while self.last && at < end {
            let next = (at / SECTOR + 1) * SECTOR;
            let chunk = &body[(at - start) as usize..(next.min(end) - start) as usize];
            if chunk.iter().all(|b| *b == 0) {
                return self.torn("a sector of the last record was never written");
            }
            at = next;
        }
        WalError::corrupt(self.path, self.offset, what)
    }
}
