//! The consensus core: a state machine without IO, clock or randomness of its own.
//!
//! It follows etcd's raft v3.7 with asynchronous storage writes: [`RawNode::ready`] hands out `MsgStorageAppend` and
//! `MsgStorageApply`; their responses come back through [`RawNode::step`] once the work is durable or applied.
//!
//! Scope of this stage: a configuration of one voter — elections, the log, commit by quorum, V1 conf changes,
//! ReadIndex. Messages to other members are neither made nor understood yet; a configuration of several voters is
//! refused by [`RawNode::apply_conf_change`] rather than half served.
//!
//! Invariants:
//! * An entry is handed to apply only when it is committed **and** locally durable.
//! * A vote for oneself counts only when it is durable, as does one's own acknowledgement of an entry.
//! * A leader commits only entries of its own term by counting (Raft paper, 5.4.2).
//! * A completion of an older term is ignored (the entry may have been replaced since).

mod log;
mod raw_node;
mod storage;

pub use raw_node::{
    BasicStatus, Config, Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, RawNode, ReadState, Ready, Role,
};
pub use storage::MemoryStorage;
