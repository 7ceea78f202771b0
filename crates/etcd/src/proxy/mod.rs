//! `etcd grpc-proxy start`: a proxy between clients and a cluster, which spares the cluster what several clients want alike.
//!
//! ```text
//! clients ─► rpc::relay (TLS, limits, pings) ─► dispatch ─┬─ kv       namespace, order of reads, answers that are kept (cache)
//!                                                         ├─ watch    one watch of the cluster for many watchers
//!                                                         ├─ lease    one stream of renewals for all clients
//!                                                         ├─ cluster  the proxies in place of the members
//!                                                         ├─ web      /metrics, /health, /proxy/…
//!                                                         └─ all else passes as it is ─► client::Client::relay ─► members
//! ```
//! Invariants: whoever calls, calls under his own token, here and at the cluster; the proxy has no rights of its own. Nothing
//! waits for a client that does not read. Differences from etcd's proxy: docs/COMPAT.md.

mod cache;
mod call;
mod cluster;
mod dispatch;
mod flags;
mod kv;
mod lease;
mod metrics;
mod start;
mod watch;
mod web;

pub use cluster::proxy_address;
use cobra::Command;

/// `etcd grpc-proxy`.
pub const COMMAND: Command = Command {
    usage: "grpc-proxy <subcommand>",
    short: "grpc-proxy related command",
    commands: &[Command {
        usage: "start",
        short: "start the grpc proxy",
        flags: flags::FLAGS,
        run: Some(start::start),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};
