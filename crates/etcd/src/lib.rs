//! The server program: configuration, logging, and the driver that owns threads, queues, sockets and timers.

mod addresses;
pub mod arch;
pub mod commands;
pub mod config;
mod discover;
pub mod driver;
mod gateway;
pub mod logging;
mod proxy;
mod systemd;

/// Ways to what reads bytes from outside, for the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use super::addresses::host_of;
    pub use super::proxy::proxy_address;
}
