//! Linearizable reads that wait for a quorum to confirm this leader (Raft dissertation, 6.4).
//!
//! Reads are numbered in the order in which they arrive, for as long as the term lasts. A heartbeat carries the
//! number of the newest read; a follower's answer to it confirms that read and all before it. Callers' contexts
//! never travel: one that is used twice can't be confirmed by an old answer (etcd #20418, a stale read).
//!
//! Invariant: a read is released only when a quorum answered a heartbeat sent after it arrived.

use crate::quorum::JointConfig;
use api::raft::Message;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Reads waiting at once. More are dropped: their callers retry or time out.
pub(crate) const READS_WAITING_MAX: usize = 65_536;

/// The reads of one term of leadership.
#[derive(Debug, Default)]
pub(crate) struct ReadOnly {
    /// How many reads were released.
    released: u64,
    /// Commit index when the read arrived, and its request.
    waiting: VecDeque<(u64, Message)>,
    /// The newest read that each member confirmed.
    confirmed: BTreeMap<u64, u64>,
}

impl ReadOnly {
    /// The number of the newest read.
    fn newest(&self) -> u64 {
        self.released + self.waiting.len() as u64
    }

    /// Takes a read that needs everything up to `commit`; `id`, the leader itself, confirms it at once. Says
    /// whether there was room.
    pub fn add(&mut self, id: u64, commit: u64, request: Message) -> bool {
        let room = self.waiting.len() < READS_WAITING_MAX;
        if room {
            self.waiting.push_back((commit, request));
            self.confirmed.insert(id, self.newest());
        }
        room
    }

    /// What a heartbeat carries: the newest waiting read, or nothing if none waits.
    pub fn heartbeat_context(&self) -> Bytes {
        match self.waiting.is_empty() {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(&self.newest().to_le_bytes()),
        }
    }

    /// Takes a member's answer and releases what a quorum has confirmed by now. A number never given out confirms
    /// nothing.
    pub fn confirm(&mut self, from: u64, context: &[u8], voters: &JointConfig) -> Vec<(u64, Message)> {
        let Ok(number) = context.try_into().map(u64::from_le_bytes) else { return Vec::new() };
        if number > self.newest() {
            return Vec::new();
        }
        let own = self.confirmed.entry(from).or_default();
        *own = (*own).max(number);
        let quorum = voters.committed_index(|id| self.confirmed.get(&id).copied()).min(self.newest());
        let count = quorum.saturating_sub(self.released);
        self.released += count;
        self.waiting.drain(..count as usize).collect()
    }
}
