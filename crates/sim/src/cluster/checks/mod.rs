//! What must be true at every moment, one property a file.

pub mod leases;
pub mod permissions;
pub mod raft;
pub mod state;
