//! Typed client of the v3 API: endpoints with failover, safe retries, watches that resume, leases that stay alive.
//!
//! ```text
//! Client (cheap to clone: connection pool, token, deadline)
//!   ├─ kv · lease · cluster · maintenance · auth     one request, one answer  methods.rs ─► call.rs ─► pool.rs ─► dial.rs
//!   │                                                what an endpoint failed with: cause.rs
//!   ├─ Watch        a stream that is opened anew behind the last revision seen     watch.rs
//!   ├─ KeepAlive    a stream of renewals, one each third of the TTL                lease.rs
//!   ├─ Session, Mutex, Election     clientv3's concurrency recipes over the above  recipes.rs
//!   ├─ transact      reads and writes that are done as one, or anew                stm.rs
//!   ├─ Mirror        all keys of a prefix, then what changes                       mirror.rs
//!   ├─ save_snapshot     a member's database in a file                             snapshot.rs
//!   ├─ Namespaced    keys below a prefix that nobody sees                          namespace.rs
//!   ├─ naming        where a service is to be found: endpoints below a name         naming.rs
//!   ├─ Ordered       reads that never go back to an older revision                 ordering.rs
//!   ├─ Leasing       reads of what one owns, which ask nobody                      leasing/
//!   └─ relay         a call of somebody else's, passed on as it is                 relay.rs
//! ```
//!
//! Invariants, which are clientv3's (`client/v3/retry.go`, `retry_interceptor.go`):
//! * A call waits until an endpoint is connected, as long as its deadline allows.
//! * A read is sent again when the answer was *unavailable*; a write is never sent twice, since the first one may have
//!   been done.
//! * Requests and answers are the messages of crate `api`: callers decide, this crate delivers.

mod call;
mod cause;
mod config;
mod dial;
mod error;
mod lease;
mod leasing;
mod methods;
mod mirror;
mod namespace;
pub mod naming;
mod ordering;
mod pool;
mod probe;
mod recipes;
mod relay;
pub mod snapshot;
mod stm;
mod watch;

pub use api::pb;
pub use api::recipes::prefix_end;
pub use call::{Attempt, Client, Method, Stream};
pub use cause::{Cause, Failure, Failures};
pub use config::{Address, Config, Demand, Observer};
pub use error::Error;
pub use lease::KeepAlive;
pub use leasing::{Leasing, Limits};
pub use mirror::Mirror;
pub use namespace::{Namespace, Namespaced, NamespacedWatch};
pub use ordering::Ordered;
pub use probe::{Speaks, speaks};
pub use recipes::{Election, Mutex, Session};
pub use snapshot::{SaveError, Saved};
pub use stm::{Committed, Isolation, Stm};
pub use tonic::Code;
pub use watch::Watch;
