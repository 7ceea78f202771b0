//! Watches through the proxy: clients that watch the same keys share one watch of the cluster.
//!
//! ```text
//! client streams ──► stream.rs: ids, an outbox each ──┐
//!                                                     ├──► hub.rs: one hub a range ──► groups: one watch of the cluster each
//! client streams ──► …                               ─┘         members of a group get its events from their own revision on
//! ```
//!
//! A watcher begins in a group of its own, with its own token: the cluster decides whether it may watch, at which revision
//! "now" is, and whether its history is still there. As soon as it is as far as a group that follows the present, it joins
//! it. Invariants:
//! * all members of a group need nothing older than the group has still to deliver; each passes over what it had before:
//!   nothing is lost, doubled or reordered (etcd#9988, #21813);
//! * a group whose watch ends gives its members groups of their own again, from where they are;
//! * nobody waits for a client that does not read: what finds its outbox full leaves the group, and comes back by a
//!   group of its own when there is room (etcd's proxy ends the client's stream after 50 ms).

mod hub;
mod stream;

pub use hub::Watches;
pub use stream::{Terms, serve};
