//! A database as the file it would be, for those who send it away: read from a view's pages, and from a copy of the rest
//! when it takes so long that the pages kept for it cost more than the copy.
//!
//! ```text
//! Pages (a view) ── move_to ──► Copy (a file without a name)
//!   keeps what commits free       keeps disk space for the rest, no pages
//! ```

use crate::page::Meta;
use crate::view::View;
use crate::{Error, Pace};
use disk::{Disk, File, OpenOptions};
use std::path::Path;

/// Bytes read at a time.
const CHUNK: u64 = 256 << 10;

/// Takes a piece, and where it lies.
type Taker<'a> = &'a mut dyn FnMut(&[u8], u64) -> Result<(), Error>;

/// A database image that is read piece by piece.
pub struct Image {
    source: Source,
    head: Vec<u8>,
    len: u64,
}

enum Source {
    Pages(View),
    /// Bytes from an offset on; before it there are none.
    Copy(Box<dyn File>, u64),
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("len", &self.len).field("copied", &self.is_copy()).finish_non_exhaustive()
    }
}

impl Image {
    pub(crate) fn of(view: View) -> Image {
        let meta = view.meta();
        let mut head = meta.encode(0);
        let older = Meta { txid: meta.txid.saturating_sub(1), ..meta };
        head.extend(older.encode(1));
        Image { len: view.size(), source: Source::Pages(view), head }
    }

    /// Bytes of the whole image.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: an image has two meta pages.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether [`Image::move_to`] was done.
    pub fn is_copy(&self) -> bool {
        matches!(self.source, Source::Copy(..))
    }

    /// Bytes of the database file that could be used again if this image (and older views) were gone.
    pub fn held_bytes(&self) -> u64 {
        match &self.source {
            Source::Pages(view) => view.held_bytes(),
            Source::Copy(..) => 0,
        }
    }

    /// Fills `buf` from `offset`; both must lie inside the image, and behind what [`Image::move_to`] left out.
    ///
    /// # Errors
    /// The disk failed, or the place lies outside.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        if offset.saturating_add(buf.len() as u64) > self.len {
            return Err(Error::Misuse("read past the end of a database image"));
        }
        let in_head = (self.head.len() as u64).saturating_sub(offset).min(buf.len() as u64) as usize;
        let (first, rest) = buf.split_at_mut(in_head);
        if in_head > 0 {
            let at = offset as usize;
            first.copy_from_slice(&self.head[at..at + in_head]);
        }
        let offset = offset + in_head as u64;
        match &self.source {
            Source::Pages(view) => view.read_raw(rest, offset),
            Source::Copy(_, from) if offset < *from => Err(Error::Misuse("read before the copied part of an image")),
            Source::Copy(file, from) => {
                file.read_exact_at(rest, offset - from).map_err(Error::io("read the copy of a database image"))
            }
        }
    }

    /// Copies what lies behind `from` to a new file at `path`, which loses its name at once, and lets go of the pages.
    ///
    /// # Errors
    /// The disk failed or is full: the image is as it was.
    pub fn move_to(&mut self, disk: &dyn Disk, path: &Path, from: u64, pace: Pace<'_>) -> Result<(), Error> {
        let file = disk.open(path, OpenOptions::create_new().mode(0o600)).map_err(Error::io("create a copy"))?;
        disk.remove_file(path).map_err(Error::io("remove a copy's name"))?;
        self.for_each_piece(from, &mut |piece, at| {
            file.write_at(piece, at - from).map_err(Error::io("write a copy"))?;
            pace(piece.len());
            Ok(())
        })?;
        self.source = Source::Copy(file, from);
        Ok(())
    }

    /// Calls `f` with each piece from `from` on, and where it lies.
    ///
    /// # Errors
    /// The first one.
    pub(crate) fn for_each_piece(&self, from: u64, f: Taker<'_>) -> Result<(), Error> {
        let mut at = from;
        while at < self.len {
            let mut piece = vec![0; CHUNK.min(self.len - at) as usize];
            self.read_at(&mut piece, at)?;
            f(&piece, at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}
