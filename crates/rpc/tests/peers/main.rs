//! Transports that talk to one another on loopback, and to peers that behave badly. Every wait is for something that
//! happens; ports are the system's choice.

mod asks;
mod hostile;
mod node;
mod raw;
mod refusals;
mod snapshots;
mod talk;
mod timeouts;
