//! What is sent and how answers are checked, one file a kind of load.

pub mod kv;
pub mod lease;
pub mod lock;
pub mod stm;
pub mod watch;
pub mod watch_get;
