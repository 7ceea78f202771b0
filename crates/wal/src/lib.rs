//! The log: etcd's WAL segments and `.snap` files, byte for byte.
//!
//! ```text
//! segment = frame*                         name: %016x-%016x.wal = <sequence>-<first raft index in it>
//! frame   = length i64 LE | Record | 0..7 zero bytes      (8-aligned; low 56 bits: size of Record;
//!                                                          top byte: 0x80 | padding, or 0)
//! Record  = 1 type · 2 crc · 3 data        crc: CRC-32C over the data of all records of the log so far
//! head    = crc, metadata, snapshot{0,0} in the first segment · crc, metadata, hard state in later ones
//! end     = a zero length, or the end of the file at a frame's border
//! ```
//!
//! Invariants: what [`Wal::sync`] returned for is read back after any crash; nothing is read that was not appended.
//! A tail counts only after [`Opening::settle`] has rewritten and synced it: an earlier, failed sync may have left clean
//! pages in memory that the platter never got. After a failed write or sync every further call fails.

mod error;
mod look;
mod record;
mod replay;
mod segment;
pub mod snap;
mod writer;

pub use error::WalError;
pub use look::{Content, Ending, Seen, look};
pub use replay::{Replay, exists, read_between, valid_snapshots};
pub use writer::{Behind, Opening, Wal};

use api::pb::walpb;
use api::raft::{ConfState, Malformed};
use bytes::Bytes;
use prost::Message as _;

/// Where a snapshot stands, as the log records it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalSnapshot {
    pub index: u64,
    pub term: u64,
    /// `None` only at index 0 and in logs older than 3.5.
    pub conf_state: Option<ConfState>,
}

impl WalSnapshot {
    fn encode(&self) -> Vec<u8> {
        let conf_state = self.conf_state.as_ref().map(ConfState::to_pb);
        walpb::Snapshot { index: Some(self.index), term: Some(self.term), conf_state }.encode_to_vec()
    }

    fn decode(bytes: Bytes) -> Result<WalSnapshot, Malformed> {
        let s = walpb::Snapshot::decode(bytes)?;
        Ok(WalSnapshot { index: s.index(), term: s.term(), conf_state: s.conf_state.map(ConfState::from_pb) })
    }
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// A segment is preallocated to this size, and ended by the first sync at or past it. Bytes.
    pub segment_bytes: u64,
    /// Appended bytes held in memory before they are written without waiting for a sync.
    pub buffer_bytes: usize,
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { segment_bytes: 64_000_000, buffer_bytes: 4 << 20 }
    }
}
