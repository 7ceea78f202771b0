//! The load tool: etcd's `benchmark` workloads and reports, side-by-side tables of two servers, and the floors they stand on.
//!
//! ```text
//! commands ──► runner ── load threads: pacer → workloads → wire ──► server
//!     │          └─► samples ─► report
//!     ├─► compare: starts the servers itself, alternating, one at a time; rows, medians, ratios
//!     └─► floors: bare HTTP/2, bare gRPC, bare group commit
//! ```
//! Rules: the tool costs less CPU a request than the server (`wire`, `skim`); every answer is checked and every error
//! counted; in an open loop times count from when a request was due.

pub mod affinity;
pub mod commands;
pub mod compare;
pub mod control;
pub mod floors;
pub mod given;
pub mod keys;
pub mod number;
pub mod pacer;
pub mod perfdash;
pub mod procs;
pub mod report;
pub mod runner;
pub mod samples;
pub mod skim;
pub mod wire;
pub mod workloads;
