//! Pages of a bbolt file as they lie there: for tools that look at files which the page store would refuse.
//!
//! ```text
//! page      id u64 | flags u16 | count u16 | overflow u32, then elements; its overflow pages lie behind it
//! branch    count × (pos u32 | ksize u32 | child u64), keys                 pos counts from its own element
//! leaf      count × (flags u32 | pos u32 | ksize u32 | vsize u32), keys and values
//! freelist  count × page u64; count 65535: the first number says how many follow
//! ```
//! Nothing is trusted: what lies outside of its page, or of the file, is an error that says so, in bbolt's words where it has
//! any. Who goes through trees can't be led in circles: no more pages are read than a sound file could ask for.

mod check;
mod meta;
mod tree;

pub use check::check;
pub use meta::{Meta, NO_FREELIST};
pub use tree::{Bucket, Root};

use crate::file;
use cobra::Exit;
use disk::{File, LockKind, OpenOptions, RealDisk};
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

const HEADER: usize = 16;
const ELEMENT: usize = 16;
/// Page sizes that are believed, bytes.
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=1 << 20;

/// A file, its page size, and where its pages end.
pub struct Raw {
    file: Box<dyn File>,
    bytes: u64,
    pub page_size: u64,
    /// The first page that was never used, as the meta says that was looked at.
    pub end: u64,
    /// Pages that may still be read.
    left: Cell<u64>,
}

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Branch,
    Leaf,
    Meta,
    Freelist,
    Unknown(u16),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Branch => f.write_str("branch"),
            Kind::Leaf => f.write_str("leaf"),
            Kind::Meta => f.write_str("meta"),
            Kind::Freelist => f.write_str("freelist"),
            Kind::Unknown(flags) => write!(f, "unknown<{flags:02x}>"),
        }
    }
}

/// A page with its overflow pages, or the page inside a bucket's record.
#[derive(Clone, Debug)]
pub struct Page {
    pub bytes: Vec<u8>,
}

/// An element of a leaf or a branch.
#[derive(Clone, Copy, Debug)]
pub struct Element<'a> {
    pub key: &'a [u8],
    /// Of a leaf's.
    pub value: &'a [u8],
    /// Of a branch's.
    pub child: u64,
    /// Of a leaf's: the value is a bucket.
    pub is_bucket: bool,
    /// Where key and value end, from the element's own place.
    end: usize,
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl Page {
    /// From at least a header's bytes.
    fn new(bytes: Vec<u8>) -> Result<Page, String> {
        if bytes.len() < HEADER {
            return Err(format!("a page of {} bytes is shorter than its header", bytes.len()));
        }
        Ok(Page { bytes })
    }

    pub fn id(&self) -> u64 {
        word(&self.bytes, 0).unwrap_or_default()
    }

    pub fn kind(&self) -> Kind {
        match u16::from_le_bytes([self.bytes[8], self.bytes[9]]) {
            1 => Kind::Branch,
            2 => Kind::Leaf,
            4 => Kind::Meta,
            0x10 => Kind::Freelist,
            other => Kind::Unknown(other),
        }
    }

    pub fn count(&self) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[10], self.bytes[11]]))
    }

    pub fn overflow(&self) -> u64 {
        half(&self.bytes, 12).unwrap_or_default().into()
    }

    /// One of [`Page::count`].
    ///
    /// # Errors
    /// It points outside of the page.
    pub fn element(&self, index: usize) -> Result<Element<'_>, String> {
        let is_leaf = self.kind() == Kind::Leaf;
        self.element_as(index, is_leaf)
            .ok_or_else(|| format!("element {index} of page {} points outside of the page", self.id()))
    }

    fn element_as(&self, index: usize, is_leaf: bool) -> Option<Element<'_>> {
        let at = HEADER + index * ELEMENT;
        let field = |n: usize| Some(half(&self.bytes, at + 4 * n)? as usize);
        let (pos, key_len, value_len) = match is_leaf {
            true => (field(1)?, field(2)?, field(3)?),
            false => (field(0)?, field(1)?, 0),
        };
        let (start, middle) = (at + pos, at + pos + key_len);
        Some(Element {
            key: self.bytes.get(start..middle)?,
            value: self.bytes.get(middle..middle + value_len)?,
            child: if is_leaf { 0 } else { word(&self.bytes, at + 8)? },
            is_bucket: is_leaf && field(0)? & 1 != 0,
            end: pos + key_len + value_len,
        })
    }

    /// Bytes of header, elements, keys and values.
    ///
    /// # Errors
    /// The last element points outside of the page.
    pub fn used(&self) -> Result<usize, String> {
        match self.count() {
            0 => Ok(HEADER),
            count => Ok(HEADER + (count - 1) * ELEMENT + self.element(count - 1)?.end),
        }
    }

    /// How many pages a freelist says that it holds, and those that it has room for.
    pub fn freelist(&self) -> (u64, impl Iterator<Item = u64>) {
        const MANY: usize = 0xffff;
        let (count, first) = match self.count() {
            MANY => (word(&self.bytes, HEADER).unwrap_or_default(), HEADER + 8),
            count => (count as u64, HEADER),
        };
        let pages = self.bytes.get(first..).unwrap_or_default().chunks_exact(8).filter_map(|id| word(id, 0));
        (count, pages.take(usize::try_from(count).unwrap_or(usize::MAX)))
    }

    pub fn set_id(&mut self, id: u64) {
        self.bytes[..8].copy_from_slice(&id.to_le_bytes());
    }

    pub fn set_count(&mut self, count: u16) {
        self.bytes[10..12].copy_from_slice(&count.to_le_bytes());
    }

    pub fn set_overflow(&mut self, overflow: u32) {
        self.bytes[12..16].copy_from_slice(&overflow.to_le_bytes());
    }
}

/// Pages behind the file's end that are tried, and told one by one as Go does: of a file that was cut short somewhat more is
/// wrong than its last pages.
const BEHIND_MAX: u64 = 1000;

impl Raw {
    /// Opens a file for reading, whatever is in it: for [`Raw::meta`] and [`Raw::newest`].
    ///
    /// # Errors
    /// No such file, or one that can't be read.
    pub fn bare(path: &Path) -> Result<Raw, Exit> {
        let failed = |e: std::io::Error| Exit::error(format!("open {}: {}", path.display(), go::os_text(&e)));
        let file = RealDisk::shared().open(path, OpenOptions::read()).map_err(failed)?;
        let bytes = file.len().map_err(failed)?;
        Ok(Raw { file, bytes, page_size: 0, end: 0, left: Cell::new(0) })
    }

    /// The pages of a file as they are, as far as its first meta says; somebody may be writing it.
    ///
    /// # Errors
    /// No such file, or no database.
    pub fn unlocked(path: &Path) -> Result<Raw, Exit> {
        let raw = Raw::bare(path)?;
        let meta = raw.meta(0).map_err(|why| Exit::error(format!("read Page size: {why}")))?;
        match meta.has_magic() {
            true => raw.with(path, &meta),
            false => Err(Exit::error("read Page size: the Meta Page has wrong (unexpected) magic")),
        }
    }

    /// The pages of the file's newest sound state, once nobody writes it.
    ///
    /// # Errors
    /// No such file, locked for longer than that, or no database.
    pub fn locked(path: &Path, patience: Duration) -> Result<Raw, Exit> {
        let raw = Raw::bare(path)?;
        let lock = || raw.file.try_lock(LockKind::FlockShared).map_err(Exit::error);
        if !file::wait_for(patience, lock)? {
            return Err(file::locked(path));
        }
        match raw.newest() {
            Some((_, meta)) => raw.with(path, &meta),
            None => {
                let fault = raw.meta(0).ok().and_then(|meta| meta.fault()).unwrap_or("the file is too short");
                Err(Exit::error(format!("invalid database ({}: {fault}); use a copy of it", path.display())))
            }
        }
    }

    fn with(mut self, path: &Path, meta: &Meta) -> Result<Raw, Exit> {
        if !PAGE_BYTES.contains(&meta.page_size) || !meta.page_size.is_power_of_two() {
            return Err(Exit::error(format!("{}: a page size of {} bytes is none", path.display(), meta.page_size)));
        }
        self.page_size = meta.page_size.into();
        self.end = meta.end;
        // What a few walks over all pages of the file ask for.
        self.left.set(8 * (self.bytes / self.page_size) + 4 * BEHIND_MAX);
        Ok(self)
    }

    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, String> {
        let fits = at.checked_add(len as u64).is_some_and(|end| end <= self.bytes);
        if !fits {
            return Err("EOF".into());
        }
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    fn meta_at(&self, offset: u64) -> Result<Meta, String> {
        let bytes = self.read(offset, HEADER + meta::BYTES)?;
        Meta::of_page(&bytes).ok_or_else(|| "EOF".to_owned())
    }

    /// A meta page's content, sound or not; the second one stands where the first one's page size says.
    ///
    /// # Errors
    /// The file ends before it.
    pub fn meta(&self, which: u64) -> Result<Meta, String> {
        match which {
            0 => self.meta_at(0),
            _ => self.meta_at(self.meta_at(0)?.page_size.into()),
        }
    }

    /// The newest sound meta, and its page.
    pub fn newest(&self) -> Option<(u64, Meta)> {
        let sound = |which| self.meta(which).ok().filter(|meta| meta.fault().is_none()).map(|meta| (which, meta));
        let (first, second) = (sound(0), sound(1));
        if second.as_ref().is_some_and(|(_, b)| first.as_ref().is_none_or(|(_, a)| b.txid > a.txid)) {
            return second;
        }
        first
    }

    /// Where walks over all pages end: at the high-water mark, but not far behind the file's end, whatever a damaged meta says.
    pub fn walk_end(&self) -> u64 {
        self.end.min((self.bytes / self.page_size).saturating_add(BEHIND_MAX))
    }

    /// A page with its overflow pages.
    ///
    /// # Errors
    /// The file ends before it, or what lies there is another page, or one that can't be so large.
    pub fn page(&self, id: u64) -> Result<Page, String> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err("pages are asked for again and again: they refer to one another in a circle".into()),
        }
        let at = id.checked_mul(self.page_size).ok_or("EOF")?;
        // At most a MiB.
        let page = Page::new(self.read(at, self.page_size as usize)?)?;
        if page.id() != id {
            return Err(format!("error: invalid value due to unexpected Page id: {} != {id}", page.id()));
        }
        let overflow = page.overflow();
        // Without the two metas and the page itself.
        if overflow >= self.end.saturating_sub(3) && overflow > 0 {
            return Err(format!(
                "error: invalid value, Page claims to have {overflow} overflow pages (>=hwm={}). Interrupting to avoid \
                 risky OOM",
                self.end
            ));
        }
        match usize::try_from((overflow + 1) * self.page_size) {
            Ok(len) if overflow > 0 => Page::new(self.read(at, len)?),
            _ => Ok(page),
        }
    }

    /// The bytes of one page, whatever they are.
    ///
    /// # Errors
    /// The file ends before them.
    pub fn bytes_of(&self, id: u64) -> Result<Vec<u8>, String> {
        self.read(id.checked_mul(self.page_size).ok_or("EOF")?, self.page_size as usize)
    }
}
