//! Locks: the standard library's, or those of the checker that runs threads in every order it can think of
//! (docs/TESTING.md). What is between two locks is the same code in both.

#[cfg(feature = "interleavings")]
pub use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(feature = "interleavings"))]
pub use std::sync::{Mutex, MutexGuard};
