//! Everything with a socket: gRPC services over a [`Member`], connections, limits, graceful stop.
//!
//! ```text
//! accept ─► hyper (h2c or HTTP/1) ─► dispatch ─► interceptor rules ─► generated tonic service ─► Member
//!                                       └── other paths: /version
//! ```
//!
//! Invariants: a connection and its streams stay on the runtime that accepted it; codes and texts are etcd's and
//! grpc-go's (reference/errors.md), because clients match on them.

mod auth;
mod backend;
mod concurrency;
mod dispatch;
mod frames;
mod health;
mod pings;
mod serve;
mod services;
mod stoppable;
mod streams;

pub use backend::{Answer, Caller, Member, Pieces, WatchStream};
pub use serve::{Connection, Limits, Listener, accept, serve};

/// Generated gRPC stubs: servers, and clients for tests and tools.
pub mod pb {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]

    /// KV, Watch, Lease, Cluster, Maintenance, Auth.
    pub mod etcdserverpb {
        include!("pb/etcdserverpb.rs");
    }
    /// Election.
    pub mod v3electionpb {
        include!("pb/v3electionpb.rs");
    }
    /// Lock.
    pub mod v3lockpb {
        include!("pb/v3lockpb.rs");
    }
    /// Health.
    pub mod health {
        include!("pb/grpc.health.v1.rs");
    }
}
