//! The page store: bbolt's file format (version 2) without a memory mapping.
//!
//! ```text
//! page 0, 1   metas: the one with the higher txid and a right checksum is current
//! page 2..    B+tree pages, each with a 16-byte header; a page may have overflow pages behind it
//! hwm         first page that was never allocated; bytes behind it are preallocation
//! ```
//!
//! Invariants:
//! * One writer. A commit writes new pages, syncs, writes one meta, syncs: the other meta stays a way back.
//! * A page freed by transaction t is reused only when no open view is older than t.
//! * A free list is never stored (as etcd does); free extents are rebuilt at open by walking the tree.
//! * Nothing read from the file is trusted: [`Error::Corrupt`] names page, offset in the page, and what is wrong.
//! * Reads are positioned reads through a page cache with a byte budget: a bad sector is an error, not a signal.

mod cache;
mod check;
mod db;
mod error;
mod free;
mod image;
mod node;
mod page;
mod rev;
mod sync;
mod tx;
mod view;

pub use db::{Db, Options};
pub use error::Error;
pub use image::Image;
pub use node::Fill;
pub use rev::RangeRev;
pub use tx::WriteTx;
pub use view::{Range, View};

/// What long work calls after each small step, with the bytes that it went through: it may wait, to let others go first.
pub type Pace<'a> = &'a dyn Fn(usize);
