//! The replicated state machine: what a committed entry does, and what readers and watchers see of it.
//!
//! ```text
//! entry ─► apply ─► tree index + layer of changes ─► publish: Applied (immutable) + Change per revision ─► watch
//!                                └── freeze ─► Checkpoint (page store, one transaction)
//! ```
//!
//! Invariants: bytes in the page store are Go etcd's; HashKV is Go's; an entry's effect depends on state and entry
//! only; the consistent index is in the same page-store transaction as the effects of its entry.

mod applied;
mod apply;
pub mod auth;
mod backend;
mod change;
mod counts;
mod error;
mod index;
mod key_history;
pub mod lessor;
mod members;
mod published;
mod schema;
mod store;
mod tree;
mod v2;
pub mod validate;
mod verify;
pub mod watch;
mod wheel;

pub use applied::{Applied, KvHash, Lease, RangeStream};
pub use apply::oldest_reader;
pub use apply::{Applying, ApplyingConf, Effect, Reply};
pub use bolt::{Image, Pace};
pub use change::{Change, Event, History, Prev};
pub use counts::{Counts, Kind, TTL_BOUNDS};
pub use error::Error;
pub use members::{Downgrade, Member, member_json, promotion_json};
pub use published::Published;
pub use store::{Checkpoint, Defragment, Options, Progress, Store};
pub use v2::v2_snapshot_json;
