//! The simulator: the code that ships, in a world that is decided by a seed.
//!
//! `cargo run -p sim --bin sim -- --seeds 0..200` runs seeds, each twice: a seed whose two runs differ is a bug of
//! its own. On failure it prints the seed and how to replay it with every event.

pub mod model;
pub mod rng;
pub mod world;
