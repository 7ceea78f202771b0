//! A node of either kind, as the tests drive and see it.

use crate::disk::Disk;
use crate::ours::Ours;
use crate::theirs::Theirs;
use api::raft::{ConfChange, ConfState, Entry, Message};
use bytes::Bytes;
use raft::{ReadState, Role};

pub const ELECTION_TICK: usize = 6;
pub const HEARTBEAT_TICK: usize = 2;

/// How a node is to behave; the same for both kinds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub pre_vote: bool,
    pub check_quorum: bool,
    pub max_size_per_msg: u64,
    pub max_inflight_msgs: usize,
    /// Ours only: storage as messages to local threads, or as etcd runs.
    pub async_storage: bool,
}

impl Settings {
    /// Half of the seeds run as etcd does, the others with every combination of the guards.
    pub fn of(seed: u64) -> Settings {
        Settings {
            pre_vote: seed.is_multiple_of(2) || seed % 4 == 1,
            check_quorum: seed.is_multiple_of(2) || seed % 8 < 4,
            max_size_per_msg: 60,
            max_inflight_msgs: 4,
            async_storage: !seed.is_multiple_of(3),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Ours,
    Theirs,
}

/// What one round of work did, in order.
#[derive(Debug, Default)]
pub struct Done {
    pub messages: Vec<Message>,
    pub written: Vec<Entry>,
    pub applied: Vec<Applied>,
    pub reads: Vec<ReadState>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    Entry(Entry),
    /// Everything up to an index and its term.
    Snapshot(u64, u64),
}

/// What must be equal.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub role: Role,
    pub leader: u64,
    pub transferee: u64,
    pub conf: ConfState,
    pub disk: Disk,
}

impl View {
    /// Whether this node leads although it votes no more, where ours goes on and the oracle panics, or answers reads
    /// alone if one voter is left: stale ones.
    pub fn is_over(&self, id: u64) -> bool {
        self.role == Role::Leader && !self.conf.voters.contains(&id)
    }
}

pub trait Member {
    fn tick(&mut self);
    /// Only for voters: the oracle doesn't check.
    fn campaign(&mut self);
    /// Says whether it was taken.
    fn propose(&mut self, data: Bytes) -> bool;
    fn propose_change(&mut self, change: &ConfChange) -> bool;
    fn read(&mut self, context: Bytes);
    fn transfer(&mut self, to: u64);
    fn report_unreachable(&mut self, id: u64);
    fn report_snapshot(&mut self, id: u64, arrived: bool);
    fn step(&mut self, message: Message);
    /// Until the next one is drawn.
    fn set_timeout(&mut self, ticks: usize);
    /// Writes, applies and sends all there is.
    fn work(&mut self) -> Done;
    /// Puts a snapshot in place of all that is applied.
    fn compact(&mut self);
    fn view(&self) -> View;
    /// What a leader knows that each member has.
    fn matches(&self) -> Vec<(u64, u64)>;
    fn disk(&self) -> Disk;
}

pub fn boot(kind: Kind, id: u64, disk: Disk, settings: Settings, seed: u64) -> Box<dyn Member> {
    match kind {
        Kind::Ours => Box::new(Ours::boot(id, disk, settings, seed)),
        Kind::Theirs => Box::new(Theirs::boot(id, disk, settings)),
    }
}
