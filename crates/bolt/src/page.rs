//! Pages as bytes: parsed and checked once when read, encoded when written. All integers are little endian.
//!
//! ```text
//! header   id u64 | flags u16 | count u16 | overflow u32
//! branch   count × (pos u32 | ksize u32 | child u64), keys          pos counts from its own element
//! leaf     count × (flags u32 | pos u32 | ksize u32 | vsize u32), keys and values
//! meta     magic u32 | version u32 | page size u32 | flags u32 | root u64 | sequence u64 | freelist u64 | hwm u64
//!          | txid u64 | FNV-1a 64 of the 56 bytes before
//! ```

use crate::Error;
use bytes::Bytes;

pub(crate) const HEADER: usize = 16;
pub(crate) const ELEMENT: usize = 16;
pub(crate) const NO_FREELIST: u64 = u64::MAX;
/// A leaf element whose value is a bucket.
pub(crate) const BUCKET_FLAG: u32 = 1;

pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREELIST: u16 = 0x10;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

/// Transactions are counted up from here on: no file has seen so many, at one a nanosecond for a century.
const TXID_MAX: u64 = 1 << 62;

/// A meta page's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub page_size: u32,
    pub root: u64,
    pub sequence: u64,
    pub freelist: u64,
    pub hwm: u64,
    pub txid: u64,
}

impl Meta {
    /// Reads a meta from the first 80 bytes of a page; says what is wrong with it.
    pub fn parse(b: &[u8]) -> Result<Meta, &'static str> {
        if b.len() < 80 {
            return Err("file is too short");
        }
        if u32_at(b, 16) != MAGIC {
            return Err("wrong magic");
        }
        if u32_at(b, 20) != VERSION {
            return Err("version is not 2");
        }
        if u64_at(b, 72) != fnv1a(&b[16..72]) {
            return Err("checksum mismatch");
        }
        let meta = Meta {
            page_size: u32_at(b, 24),
            root: u64_at(b, 32),
            sequence: u64_at(b, 40),
            freelist: u64_at(b, 48),
            hwm: u64_at(b, 56),
            txid: u64_at(b, 64),
        };
        let sane = meta.page_size.is_power_of_two() && (512..=1 << 20).contains(&meta.page_size);
        if !sane {
            return Err("page size is out of range");
        }
        if meta.hwm < 3 || meta.hwm > u64::MAX / u64::from(meta.page_size) || meta.root >= meta.hwm || meta.root < 2 {
            return Err("root or high-water mark is out of range");
        }
        if meta.txid > TXID_MAX {
            return Err("transaction id is out of range");
        }
        Ok(meta)
    }

    /// The whole meta page, as page `id`.
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let mut b = vec![0; self.page_size as usize];
        put_header(&mut b, id, META, 0, 0);
        b[16..20].copy_from_slice(&MAGIC.to_le_bytes());
        b[20..24].copy_from_slice(&VERSION.to_le_bytes());
        b[24..28].copy_from_slice(&self.page_size.to_le_bytes());
        for (at, v) in [(32, self.root), (40, self.sequence), (48, self.freelist), (56, self.hwm), (64, self.txid)] {
            b[at..at + 8].copy_from_slice(&v.to_le_bytes());
        }
        let sum = fnv1a(&b[16..72]);
        b[72..80].copy_from_slice(&sum.to_le_bytes());
        b
    }
}

fn fnv1a(b: &[u8]) -> u64 {
    use std::hash::Hasher;
    let mut h = fnv::FnvHasher::default();
    h.write(b);
    h.finish()
}

pub(crate) fn put_header(b: &mut [u8], id: u64, flags: u16, count: u16, overflow: u32) {
    b[0..8].copy_from_slice(&id.to_le_bytes());
    b[8..10].copy_from_slice(&flags.to_le_bytes());
    b[10..12].copy_from_slice(&count.to_le_bytes());
    b[12..16].copy_from_slice(&overflow.to_le_bytes());
}

/// A branch or leaf page whose every element was checked to lie inside it, keys in order.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub id: u64,
    pub overflow: u32,
    leaf: bool,
    count: usize,
    bytes: Bytes,
}

/// The header's `overflow` of page `id`, after a check of the header against the page's own number.
pub(crate) fn check_header(id: u64, b: &[u8]) -> Result<(u16, usize, u32), Error> {
    if b.len() < HEADER {
        return Err(Error::corrupt(id, 0, "page is shorter than its header"));
    }
    if u64_at(b, 0) != id {
        return Err(Error::corrupt(id, 0, format!("header names page {}", u64_at(b, 0))));
    }
    Ok((u16_at(b, 8), u16_at(b, 10) as usize, u32_at(b, 12)))
}

impl Page {
    /// Checks a whole page (with its overflow pages) or an inline bucket's page (id 0).
    pub fn parse(id: u64, bytes: Bytes) -> Result<Page, Error> {
        let (flags, count, overflow) = check_header(id, &bytes)?;
        let leaf = match flags {
            LEAF => true,
            BRANCH => false,
            other => return Err(Error::corrupt(id, 8, format!("flags {other:#x} are neither branch nor leaf"))),
        };
        let page = Page { id, overflow, leaf, count, bytes };
        if HEADER + count * ELEMENT > page.bytes.len() {
            return Err(Error::corrupt(id, 10, format!("{count} elements do not fit")));
        }
        if !leaf && count == 0 {
            return Err(Error::corrupt(id, 10, "branch page without elements"));
        }
        page.check_elements()?;
        Ok(page)
    }

    fn check_elements(&self) -> Result<(), Error> {
        for i in 0..self.count {
            let at = HEADER + i * ELEMENT;
            let (start, klen, vlen) = self.extent(i);
            if start + klen + vlen > self.bytes.len() {
                return Err(Error::corrupt(self.id, at, format!("element {i} points outside the page")));
            }
            if i > 0 && self.key_slice(i - 1) >= self.key_slice(i) {
                return Err(Error::corrupt(self.id, at, format!("key {i} is not above the one before")));
            }
        }
        Ok(())
    }

    /// Start of the key, key length, value length. Sums can't overflow: usize has 64 bits, these have 32.
    fn extent(&self, i: usize) -> (usize, usize, usize) {
        let at = HEADER + i * ELEMENT;
        let word = |n: usize| u32_at(&self.bytes, at + 4 * n) as usize;
        match self.leaf {
            true => (at + word(1), word(2), word(3)),
            false => (at + word(0), word(1), 0),
        }
    }

    pub fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn key_slice(&self, i: usize) -> &[u8] {
        let (start, klen, _) = self.extent(i);
        &self.bytes[start..start + klen]
    }

    pub fn key(&self, i: usize) -> Bytes {
        let (start, klen, _) = self.extent(i);
        self.bytes.slice(start..start + klen)
    }

    pub fn value(&self, i: usize) -> Bytes {
        let (start, klen, vlen) = self.extent(i);
        self.bytes.slice(start + klen..start + klen + vlen)
    }

    /// A leaf element's flags.
    pub fn flags(&self, i: usize) -> u32 {
        u32_at(&self.bytes, HEADER + i * ELEMENT)
    }

    /// A branch element's child.
    pub fn child(&self, i: usize) -> u64 {
        u64_at(&self.bytes, HEADER + i * ELEMENT + 8)
    }

    /// Index of the key, or where it would stand.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let mid = low + (high - low) / 2;
            match self.key_slice(mid).cmp(key) {
                std::cmp::Ordering::Equal => return Ok(mid),
                std::cmp::Ordering::Less => low = mid + 1,
                std::cmp::Ordering::Greater => high = mid,
            }
        }
        Err(low)
    }

    /// The child of a branch that may hold the key.
    pub fn child_index(&self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(i) => i,
            Err(i) => i.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_whose_numbers_leave_no_room_is_none() {
        let meta = Meta { page_size: 4096, root: 3, sequence: 0, freelist: 2, hwm: 4, txid: 1 };
        assert_eq!(Meta::parse(&meta.encode(0)), Ok(meta));
        let last = Meta { txid: u64::MAX, ..meta };
        assert_eq!(Meta::parse(&last.encode(0)), Err("transaction id is out of range"));
        let high = Meta { hwm: u64::MAX / 4096 + 1, ..meta };
        assert_eq!(Meta::parse(&high.encode(0)), Err("root or high-water mark is out of range"));
    }
}
