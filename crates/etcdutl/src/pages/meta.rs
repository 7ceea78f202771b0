//! Meta pages, sound or not.
//!
//! ```text
//! magic u32 | version u32 | page size u32 | flags u32 | root u64 | sequence u64 | freelist u64 | end u64 | txid u64
//! | FNV-1a 64 of the 56 bytes before
//! ```

use super::{HEADER, half, word};
use std::hash::Hasher as _;

/// Bytes of a meta behind its page's header.
pub(super) const BYTES: usize = 64;
const SUMMED: usize = 56;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// No list of free pages is stored.
pub const NO_FREELIST: u64 = u64::MAX;

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub magic: u32,
    pub version: u32,
    pub page_size: u32,
    pub flags: u32,
    pub root: u64,
    pub sequence: u64,
    pub freelist: u64,
    pub end: u64,
    pub txid: u64,
    pub sum: u64,
}

impl Meta {
    /// From a page's bytes; `None` where they are too few.
    pub fn of_page(page: &[u8]) -> Option<Meta> {
        let field = |n: usize| half(page, HEADER + 4 * n);
        let long = |n: usize| word(page, HEADER + 16 + 8 * n);
        Some(Meta {
            magic: field(0)?,
            version: field(1)?,
            page_size: field(2)?,
            flags: field(3)?,
            root: long(0)?,
            sequence: long(1)?,
            freelist: long(2)?,
            end: long(3)?,
            txid: long(4)?,
            sum: long(5)?,
        })
    }

    fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (n, value) in [self.magic, self.version, self.page_size, self.flags].into_iter().enumerate() {
            bytes[4 * n..4 * n + 4].copy_from_slice(&value.to_le_bytes());
        }
        let long = [self.root, self.sequence, self.freelist, self.end, self.txid, self.sum];
        for (n, value) in long.into_iter().enumerate() {
            bytes[16 + 8 * n..24 + 8 * n].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Writes it into a page.
    pub fn put(&self, page: &mut [u8]) {
        page[HEADER..HEADER + BYTES].copy_from_slice(&self.bytes());
    }

    /// The checksum that belongs to what it says.
    pub fn right_sum(&self) -> u64 {
        let mut hash = fnv::FnvHasher::default();
        hash.write(&self.bytes()[..SUMMED]);
        hash.finish()
    }

    pub fn has_magic(&self) -> bool {
        self.magic == MAGIC
    }

    /// What is wrong with it, in bbolt's words.
    pub fn fault(&self) -> Option<&'static str> {
        match () {
            () if !self.has_magic() => Some("invalid database"),
            () if self.version != VERSION => Some("version mismatch"),
            () if self.sum != self.right_sum() => Some("checksum error"),
            () => None,
        }
    }

    /// The same, with what every meta has, and the checksum of all that.
    pub fn mended(mut self) -> Meta {
        (self.magic, self.version, self.flags) = (MAGIC, VERSION, 4);
        self.sum = self.right_sum();
        self
    }

    /// Whether a list of free pages is stored.
    pub fn has_freelist(&self) -> bool {
        self.freelist != NO_FREELIST
    }
}
