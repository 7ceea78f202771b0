//! One member as actors that exchange values. No tokio, no clock, no environment: requests, the time and the disk
//! come in, replies and jobs come out.
//!
//! ```text
//! Call ─► Member ── LogTask ──────────► LogWriter ─► wal       Member owns raft, leases' clocks, who waits for what
//!           │ ◄──── Logged ──────────────┘
//!           ├── committed entries ────► Applier ─► store ─► Applied   (published, immutable)
//!           └── Output: Reply · Read · Published · Checkpoint · Snapshot …
//! ```
//!
//! A member alone in its cluster runs Member, LogWriter and Applier inline on one thread: everything that queued up
//! while the last sync ran shares the next one. Reads, checkpoints and watches are jobs for other threads, on an
//! immutable [`store::Applied`].

pub mod access;
mod autocompact;
pub mod corruption;
mod fatal;
mod ids;
mod layout;
mod log_writer;
pub mod member;
pub mod read;
mod request;
mod tokens;

pub use access::Who;
pub use autocompact::{AutoCompactor, Policy};
pub use fatal::Fatal;
pub use ids::IdGenerator;
pub use layout::Layout;
pub use log_writer::{LogTask, LogWriter, Logged};
pub use member::{Member, Output};
pub use request::{Encoded, Request, Response};
pub use tokens::{TokenChange, Tokens, index as token_index};
