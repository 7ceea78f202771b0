//! etcd's messages, error table and versions: the vocabulary that every other crate speaks. No IO.
//!
//! * [`pb`] — protobuf code generated from `proto/` by `cargo run -p xtask -- protos`; message types only.
//! * [`raft`] — the plain types of the consensus protocol and their exact wire form. The rest of the tree
//!   works on these; `pb::raftpb` (proto2, every field optional) is touched only here.
//! * [`recipes`] — the requests of locks and elections.
//! * [`error`] — etcd's error table: code and text are API, clients match on them.
//! * [`version`] — what this build says it is.

pub mod error;
pub mod identity;
pub mod pb;
pub mod raft;
pub mod recipes;
pub mod version;

pub use error::{Code, Error};
