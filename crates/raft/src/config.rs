//! What goes in and comes out beside messages: settings, refusals, and what is to be done.

use crate::logging::LogLevel;
use api::raft::{Entry, HardState, Message, Snapshot};
use bytes::Bytes;

/// Addressee of `MsgStorageAppend`, and the sender of its completion.
pub const LOCAL_APPEND_THREAD: u64 = u64::MAX;
/// Addressee of `MsgStorageApply`, and the sender of its completion.
pub const LOCAL_APPLY_THREAD: u64 = u64::MAX - 1;

/// How a linearizable read is confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnlyOption {
    /// A quorum answers a heartbeat sent after the read arrived (Raft dissertation, 6.4).
    #[default]
    Safe,
    /// The leader's lease suffices; needs `check_quorum` and clocks that drift little. etcd doesn't use it.
    LeaseBased,
}

/// How a node behaves. Ticks are the caller's. [`Config::default`] has etcd's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; neither 0 nor one of the local threads' ids.
    pub id: u64,
    /// Ticks without a leader before standing for election; drawn from `[n, 2n)`.
    pub election_tick: usize,
    /// Ticks between two heartbeats of a leader.
    pub heartbeat_tick: usize,
    /// Index up to which entries are applied already.
    pub applied: u64,
    /// Index up to which entries are known to be committed, whatever commit index was stored: the state machine has kept what
    /// they did. 0: nothing is known.
    pub committed: u64,
    /// Bytes of entries in one message to a peer; one entry always goes.
    pub max_size_per_msg: u64,
    /// Seeds the randomised election timeout.
    pub seed: u64,
    /// Hands out `MsgStorageAppend` and `MsgStorageApply`. Otherwise [`Ready`] carries the work itself and
    /// [`crate::RawNode::advance`] says that it is done.
    pub async_storage_writes: bool,
    /// Asks for votes without a new term first, so that a node returning from a partition disturbs nobody.
    pub pre_vote: bool,
    /// A leader without a quorum of active followers steps down; followers of a live leader ignore votes.
    pub check_quorum: bool,
    /// How reads are confirmed.
    pub read_only: ReadOnlyOption,
    /// Bytes of entries handed to apply and not applied yet; 0: as `max_size_per_msg`.
    pub max_committed_size_per_ready: u64,
    /// Bytes of proposals not committed yet, past which a leader drops more; 0: no limit.
    pub max_uncommitted_size: u64,
    /// `MsgApp`s with entries on their way to one follower.
    pub max_inflight_msgs: usize,
    /// Bytes of entries on their way to one follower; 0: no limit.
    pub max_inflight_bytes: u64,
    /// A leader that applies its own removal or demotion steps down at once.
    pub step_down_on_removal: bool,
    /// A follower refuses proposals instead of sending them to its leader.
    pub disable_proposal_forwarding: bool,
    /// Appends conf changes even if one is unapplied.
    pub disable_conf_change_validation: bool,
    /// Least weighty lines to keep for [`crate::RawNode::take_logs`]; `None`: none.
    pub log_level: Option<LogLevel>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: 0,
            election_tick: 10,
            heartbeat_tick: 1,
            applied: 0,
            committed: 0,
            max_size_per_msg: 1 << 20,
            seed: 0,
            async_storage_writes: true,
            pre_vote: true,
            check_quorum: true,
            read_only: ReadOnlyOption::Safe,
            max_committed_size_per_ready: 0,
            max_uncommitted_size: 0,
            max_inflight_msgs: 512,
            max_inflight_bytes: 0,
            step_down_on_removal: false,
            disable_proposal_forwarding: false,
            disable_conf_change_validation: false,
            log_level: None,
        }
    }
}

impl Config {
    pub(crate) fn validate(&self) -> Result<(), String> {
        let fault = if self.id == 0 || self.id >= LOCAL_APPLY_THREAD {
            "the id must be neither 0 nor that of a local thread"
        } else if self.heartbeat_tick == 0 || self.election_tick <= self.heartbeat_tick {
            "the heartbeat tick must be above 0 and the election tick must exceed it"
        } else if self.max_inflight_msgs == 0 {
            "at least one message must be allowed in flight"
        } else if self.read_only == ReadOnlyOption::LeaseBased && !self.check_quorum {
            "lease-based reads need check_quorum"
        } else {
            return Ok(());
        };
        Err(fault.into())
    }

    pub(crate) fn max_applying_bytes(&self) -> u64 {
        match self.max_committed_size_per_ready {
            0 => self.max_size_per_msg.max(1),
            bytes => bytes,
        }
    }
}

/// Why a call was refused. A refusal changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No leader, or this node may not propose now, or too much is uncommitted.
    ProposalDropped,
    /// A response of a node that is no member.
    PeerNotFound,
    /// A kind of message that a node only sends itself.
    LocalMessage,
    /// A message that no correct peer or driver sends: not for this node, with gaps between its entries, or
    /// lacking what its kind needs.
    Malformed,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Error::ProposalDropped => "raft proposal dropped",
            Error::PeerNotFound => "raft: cannot step as peer not found",
            Error::LocalMessage => "raft: cannot step raft local message",
            Error::Malformed => "raft: cannot step malformed message",
        })
    }
}

impl std::error::Error for Error {}

/// What a node is in its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would win an election, in its old term.
    PreCandidate,
    /// Asks for votes in a term that it began.
    Candidate,
    /// The one leader of its term.
    Leader,
}

/// What need not be durable: who leads, and what this node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftState {
    /// 0 when none is known.
    pub leader: u64,
    /// What it is.
    pub role: Role,
}

/// A read-index request that was confirmed: it may be served once `index` is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// What must be applied before the read is served.
    pub index: u64,
    /// The caller's context.
    pub request_ctx: Bytes,
}

/// What is to be done.
///
/// With asynchronous storage writes, entries, hard state, snapshot and committed entries stand in the storage
/// messages only; with synchronous ones they stand here, and must be durable before `messages` leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Present when it changed.
    pub soft_state: Option<SoftState>,
    /// Reads that were confirmed.
    pub read_states: Vec<ReadState>,
    /// To be delivered to whom they are addressed; some to the local threads.
    pub messages: Vec<Message>,
    /// Synchronous only. Empty when it did not change.
    pub hard_state: HardState,
    /// Synchronous only: to be stored.
    pub entries: Vec<Entry>,
    /// Synchronous only: to be stored in place of the whole log.
    pub snapshot: Option<Snapshot>,
    /// Synchronous only: to be applied, once `entries` are durable.
    pub committed_entries: Vec<Entry>,
    /// Whether what is to be stored must be durable before the messages that rest on it leave.
    pub must_sync: bool,
}

/// Where a node stands, cheaply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicStatus {
    /// Term, vote and commit index, durable or not.
    pub hard_state: HardState,
    /// Index up to which entries are applied.
    pub applied: u64,
    /// 0 when none is known.
    pub leader: u64,
    /// What it is.
    pub role: Role,
    /// Whom leadership is being handed to; 0 for nobody.
    pub transferee: u64,
}
