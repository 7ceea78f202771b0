//! The peer transport: what members say to one another, as etcd's rafthttp does it (reference/peer-protocol.md).
//!
//! ```text
//!            Transport::send ─► queues ─► stream   ─► the body of a GET that the peer holds open
//!  member ─┤                          └─► pipeline ─► POST /raft
//!            Transport::send_snapshot ──► snapshot ─► POST /raft/snapshot
//!          ◄─ Local::receive ─────────── reader   ◄── the body of a GET that we hold open
//!          ◄─ Local::process ─────────── receive  ◄── POST /raft, POST /raft/snapshot
//!          ◄─ Local::members, … ──────── endpoints ◄─ GET /members, …
//! ```
//! | module | what it knows |
//! |---|---|
//! | [`codec`] | the bytes of streams and snapshots; no IO |
//! | `check` · `url` | headers, versions, ids; where a peer listens |
//! | `transport` | the handle, who is known, which way a message takes |
//! | `outgoing` | which messages leave at all |
//! | `stream` · `reader` | the streams' two ends |
//! | `pipeline` · `snapshot` · `probe` | requests that we make |
//! | `serve` · `receive` · `endpoints` | requests that we answer |
//! | `ask` | what a member asks outside of raft: joining, versions, what it forwards to the leader |
//! | `secure` | TLS |
//! | `http` · `io` · `link` · `metrics` | connections, deadlines, what is known of one peer, counters |
//!
//! Everything runs on one single-threaded runtime, the peer thread; nothing blocks it: files are read and written by
//! threads that may block. Messages may be lost here, at any time, and raft knows how to live with it. They are never
//! waited for: a full queue drops, and reports.
//!
//! | queue | limit | past it |
//! |---|---|---|
//! | messages of a stream | 4096 | dropped, reported unreachable |
//! | messages of a pipeline | 64, and 4 on their way | the same; a MsgSnap is also reported as failed |
//! | database images to a peer | 1 | reported as failed |
//! | database images that arrive | 4 | refused with 500 |
//! | pieces of an image | 2 to the network, 16 to the disk | the other side waits |
//! | bytes of POSTs that are being read | 1 GiB | refused with 400 |
//! | a message; before an image | 512 MiB; 64 MiB | the stream is closed; refused with 400 |
//! | connections of a listener | 1024 | the next waits in the kernel |
//! | remotes | 64 | not answered |
//!
//! Invariants:
//! * A Go member survives everything we send (section 11): 403 and 410 only for members that were removed or messages to
//!   another member; streams are never silent for 5 s; a msgapp stream begins with a whole message.
//! * We survive everything anybody sends: limits, deadlines, no panic.

mod ask;
mod check;
pub mod codec;
#[doc(hidden)]
pub mod decoders;
mod endpoints;
mod http;
mod io;
mod link;
mod local;
mod metrics;
mod outgoing;
mod pipeline;
mod probe;
mod reader;
mod receive;
mod secure;
mod serve;
mod snapshot;
mod stream;
mod transport;
mod url;

pub use ask::{
    Asker, Unanswered, Versions, downgrade_enabled, hash_kv, lease_time_to_live, members, promote, renew_lease,
    versions,
};
pub use io::{Acceptor, BoxedIo, Connecting, Connector, Io, Plain};
pub use local::{Awaited, HashKv, Identity, Image, ImageSink, LeaseInfo, LeaseRefusal, Local, MemberInfo};
pub use metrics::{Distribution, PeerMetrics};
pub use secure::{Dial, Gate};
pub use transport::{Config, Timeouts, Transport};
pub use url::{Scheme, Url};
