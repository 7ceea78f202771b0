//! The consensus core: a state machine without IO, clock or randomness of its own.
//!
//! It keeps the behaviour, the messages and the log lines of etcd's raft v3.7, and replays its interaction
//! transcripts (`tests/interaction`). Input goes in by the methods of [`RawNode`]; [`RawNode::ready`] hands out what
//! is to be done. Storage writes are asynchronous as in etcd's raft: `MsgStorageAppend` and `MsgStorageApply` carry
//! the responses that rest on them. Synchronous [`Ready`]s, with [`RawNode::advance`], are served too.
//!
//! | module | what it is about |
//! |---|---|
//! | `raw_node` · `config` · `logging` | the owner's side: inputs, [`Ready`], settings, log lines |
//! | `state` · `step` | one participant's state; which rule a message falls under |
//! | `election` · `follower` · `leader` · `replication` · `membership` | what each role does |
//! | `log` · `unstable` · `storage` | the log and how far it is durable, committed, applied |
//! | [`tracker`] · [`progress`] · `inflights` · [`quorum`] · [`confchange`] · `read_only` | members, majorities, reads |
//!
//! Invariants:
//! * One leader a term; a node votes once a term. A vote, and an acknowledgement of entries, counts and leaves only
//!   when it is durable — a node's own too.
//! * A node leads a term only once its own vote of that term is durable, and asks for votes only with a durable log.
//! * A leader commits only entries of its own term by counting (Raft paper, 5.4.2). What is committed never changes.
//! * With asynchronous storage writes, an entry is handed to apply only when it is committed **and** durable here.
//! * A completion of an older term does not count for entries, which may have been replaced since.
//! * A broken invariant is an assertion. A message never breaks one: what no correct peer sends is refused by
//!   [`RawNode::step`] or ignored.
//!
//! Deliberate differences from etcd's raft:
//! * With asynchronous storage etcd's candidate may win by the others' votes, and with entries, that a crash takes
//!   from it; it then wins the same term once more with another log (seeds found it). Ours waits for its own disk.
//! * A read at the only voter waits, too, for the first commit of the term; a leader that was removed is never "the
//!   only voter".
//! * What would make etcd's raft panic when it comes from a peer (a commit index past the log, a malformed conf
//!   change, a read without context) is refused.
//!
//! Entries are all in memory; a follower that needs older ones gets a snapshot.

pub mod confchange;
mod config;
mod election;
mod follower;
mod inflights;
mod leader;
mod log;
mod logging;
mod membership;
pub mod progress;
pub mod quorum;
mod raw_node;
mod read_only;
mod replication;
mod state;
mod step;
mod storage;
pub mod tracker;
mod unstable;

pub use config::{
    BasicStatus, Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, ReadOnlyOption, ReadState, Ready, Role,
    SoftState,
};
pub use inflights::Inflights;
pub use logging::{LogLevel, LogLine};
pub use raw_node::RawNode;
pub use storage::MemoryStorage;
