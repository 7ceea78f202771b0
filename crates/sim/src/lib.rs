//! The simulator: the code that ships, in a world that is decided by a seed.
//!
//! `cargo run -p sim --bin sim -- --seeds 0..200` runs seeds, each twice: a seed whose two runs differ is a bug of
//! its own. `--sweep SEED` runs a short life and then crashes it at each of its disk operations. On failure the
//! seed is printed and how to replay it with every event.
//!
//! | room | holds |
//! |---|---|
//! | `model` | an etcd that is obviously right, and HashKV from its definition |
//! | `ops` | what clients ask |
//! | `verdict` | which course of events explains what was seen |
//! | `clocks` | which leases may, and which must have expired |
//! | `image` | what a database snapshot holds |
//! | `streams`, `watchers` | the shipping watch hub, its clients, and what each watcher is owed |
//! | `world` | one member, its disk, time, faults, snapshots |
//! | `cluster` | several, and the network between them |

mod clocks;
pub mod cluster;
mod image;
pub mod model;
pub mod ops;
pub mod rng;
mod streams;
pub mod sweep;
mod verdict;
mod watchers;
pub mod world;
