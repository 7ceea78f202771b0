//! The watch hub: who watches what, and what each has seen. No thread, no clock: inputs in, effects out.
//!
//! ```text
//!             Published: matching events go out at once
//!   ┌──────► synced ──────────────────────────────────► Send
//!   │          │ outbox full, gap, unknown previous value
//!   │          ▼
//!   └─────── behind ── ReadHistory (shared by many) ───► Send, then synced when it reaches the present
//! ```
//!
//! Who watches a changed key is found in an index (ordered map and interval tree), at the cost of what is found; whose turn it
//! is to read history is chosen by age, and among those near the present in between.
//!
//! Invariants:
//! * A watcher gets every matching event at or above its start, once, in order of revision; a revision's events are
//!   never split, unless it asked for fragments. `next` is the first revision it has not been given.
//! * A put never waits: a full outbox makes a victim that reads on from history; a full input makes a gap.
//! * `created` precedes every event of a watcher; nothing follows its cancellation.
//! * Progress says only what all earlier responses of the stream have covered, and nothing below a watcher's start.
//! * Only answers to requests go beyond a full outbox; events, progress and compaction notices wait for room.

mod burst;
mod history;
mod hub;
mod index;
mod intervals;
mod laggards;
mod stream;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

pub use burst::{Burst, Events};
pub use history::{HistoryJob, HistoryResult};
pub use hub::{Config, Counts, Effect, Hub, Input, StreamId};

/// Event responses that may wait in a stream's outbox (etcd `chanBufLen`).
pub const OUTBOX_MAX: usize = 128;
/// … and bytes of events: a stream that holds as many is given no more until its client takes some. One response may go
/// beyond, with a read's worth of history at most. Two reads' worth, so that several watchers share one.
pub const OUTBOX_BYTES: usize = 8 << 20;
/// Watchers served by one history read (etcd `maxWatchersPerSync`).
const WATCHERS_PER_READ: usize = 512;
/// Revisions in one history read (etcd `watchBatchMaxRevs`) …
const REVISIONS_PER_READ: usize = 1000;
/// … and bytes of keys and values.
const BYTES_PER_READ: usize = 4 << 20;
