//! Profiles of this process in the format of pprof (gzipped `profile.proto`), which `go tool pprof` and what collects
//! profiles read.
//!
//! * [`cpu`]: where processors spend their time; sampled by a timer that interrupts whichever thread runs.
//! * [`heap`]: who holds memory; sampled by jemalloc.
//! * [`threads`]: which threads there are. Their stacks are not looked at: nothing can stop a thread of Rust to do so.
//! * [`symbols`]: names of functions for addresses.

pub mod cpu;
mod format;
pub mod heap;
pub mod symbols;
pub mod threads;

pub use format::Profile;
