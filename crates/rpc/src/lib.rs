//! Everything with a socket: gRPC services over a [`Member`], connections, limits, graceful stop.
//!
//! ```text
//! accept ─► secure (TLS or not) ─► hyper (h2 or HTTP/1) ─► dispatch ─► interceptor rules ─► call ─► methods ─► Member
//!                                       └── HTTP: plain ─► /version, /health …, gateway ─► the same calls from JSON
//! ```
//!
//! gRPC's framing is our own (`messages`, `answers`): a request is read where it lies, an answer is one buffer, and the
//! future of a call is small. Generated stubs cost several times as much for each call, mostly in moving big futures.
//!
//! Invariants: a connection and its streams stay on the runtime that accepted it; codes and texts are etcd's and
//! grpc-go's (reference/errors.md), because clients match on them.

mod answers;
mod backend;
mod call;
mod concurrency;
mod debug;
#[doc(hidden)]
pub mod decoders;
mod dispatch;
mod ends;
mod frames;
mod gateway;
mod grpc_health;
mod gzip;
mod health;
mod keepalive;
mod messages;
mod methods;
pub mod metrics;
pub mod peer;
mod pings;
mod plain;
mod relay;
mod secure;
mod serve;
mod services;
mod slow;
mod spans;
mod streams;

pub use backend::{Answer, Caller, Member, Pieces, Told, WatchStream};
pub use debug::profiles;
pub use dispatch::{bare_token, deadline};
pub use plain::{Offer, Web};
pub use relay::{Answering, Relay, relay};
pub use secure::{Guard, Security};
pub use serve::{Connection, Limits, Listener, accept, serve};
pub use slow::{range_text, txn_text};
pub use spans::{Origin, Span, Spans};
