//! etcd's tools for developers, as programs of their own: `etcd-dump-db` shows what is in a page store, `etcd-dump-logs` what
//! is in a log, `etcd-dump-metrics` what a server's metrics are called.
//!
//! Invariant: they read, and change nothing: a locked database is waited for, a torn log stays torn.

mod db;
mod goflag;
mod logs;
mod metrics;
mod prototext;
mod records;
mod web;

pub use db::PROGRAM as DB;
pub use logs::run as logs;
pub use metrics::run as metrics;

/// What reads bytes from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use super::goflag::{Flag, Kind, parse as flags};
    pub use super::logs::normal;
    pub use super::metrics::listing;
    pub use super::records::decoded;
    pub use super::web::body_of;
}

use cobra::Exit;

/// A line of Go's package `log` on standard error.
fn log(text: impl std::fmt::Display) {
    eprintln!("{} {text}", jiff::Zoned::now().strftime("%Y/%m/%d %H:%M:%S"));
}

/// The end of a program that can't go on: all is said.
fn fatal(text: impl std::fmt::Display) -> Exit {
    log(text);
    Exit::code(1)
}
