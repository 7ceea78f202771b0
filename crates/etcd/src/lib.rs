//! The server program: configuration, logging, and the driver that owns threads, queues, sockets and timers.

pub mod arch;
pub mod config;
pub mod driver;
pub mod logging;
