//! `etcdctl`: the v3 API from a shell, as Go's etcdctl 3.7.1 answers it.
//!
//! * `commands` is the table of all commands; each `run` stands in the module of its topic.
//! * `doctor` asks all members and judges what they say, `top` shows them again and again; `web` and `metrics` read their pages.
//! * `hints` adds to a failure what was found at the endpoints, and what to type.
//! * `globals` reads flags and environment and sets the client up; `output` prints answers in five formats.
//!
//! Invariant: what a script can see (standard output, exit code, first words of an error) is Go's, except where
//! `docs/COMPAT.md` says otherwise.

mod auth;
mod check;
mod cluster;
mod commands;
mod concurrency;
mod doctor;
pub mod documents;
mod globals;
mod hints;
mod kv;
mod lease;
mod log;
mod metrics;
mod mirror;
mod output;
mod prompt;
mod snapshot;
mod top;
mod txn;
mod watch;
mod web;

pub use commands::PROGRAM;

/// Runs a command line (without the program's name). Answers the exit code; a command that failed has said what to do.
pub fn run(words: Vec<std::ffi::OsString>) -> u8 {
    let code = cobra::run(&PROGRAM, words);
    if code != 0 {
        hints::print();
    }
    code
}

/// What reads lines from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use crate::metrics::Metrics;
    pub use crate::txn::{read as read_txn, words};
    pub use crate::web::parse as parse_page;
}
