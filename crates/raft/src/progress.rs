//! What a leader knows of one follower's log, and how fast it may send to it.
//!
//! ```text
//!            rejected, unreachable                     no longer in the leader's log
//!  Replicate ◄──────────────────────► Probe ─────────────────────────────────────► Snapshot
//!            acknowledged                 ◄─────────────────────────────────────────
//!                                          acknowledged within the log · reported
//! ```
//! * *Probe*: one `MsgApp` at a time, to find where the logs agree.
//! * *Replicate*: a stream, ahead of acknowledgements, as far as the window of inflights allows.
//! * *Snapshot*: nothing until the follower acknowledges an index from which the leader's log can go on.
//!
//! Invariants: `match_index < next`; entries between them are in flight, or were and may be lost.

use crate::inflights::Inflights;
use std::fmt;

/// See the module's page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressState {
    #[default]
    /// Searching where the logs agree.
    Probe,
    /// Streaming.
    Replicate,
    /// Waiting until a snapshot is acknowledged.
    Snapshot,
}

/// One follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Up to here the follower's log is known to be the leader's, durably.
    pub match_index: u64,
    /// The next entry to send.
    pub next: u64,
    /// The highest commit index sent.
    pub sent_commit: u64,
    /// How it is sent to.
    pub state: ProgressState,
    /// Index of the snapshot sent; 0 outside [`ProgressState::Snapshot`].
    pub pending_snapshot: u64,
    /// Heard of since the last quorum check.
    pub recent_active: bool,
    /// Sending rests until an acknowledgement or a heartbeat's answer.
    pub paused: bool,
    /// Messages on their way, while replicating.
    pub inflights: Inflights,
    /// It gets entries but does not count.
    pub is_learner: bool,
}

impl Progress {
    /// Nothing is known of the follower; `next` is probed first.
    pub fn new(next: u64, inflights: Inflights, is_learner: bool) -> Progress {
        Progress {
            match_index: 0,
            next,
            sent_commit: 0,
            state: ProgressState::Probe,
            pending_snapshot: 0,
            recent_active: false,
            paused: false,
            inflights,
            is_learner,
        }
    }

    fn reset_state(&mut self, state: ProgressState) {
        self.paused = false;
        self.pending_snapshot = 0;
        self.state = state;
        self.inflights.reset();
    }

    /// After a snapshot, probing begins behind it: it may well have arrived.
    pub fn become_probe(&mut self) {
        let sent_snapshot = match self.state {
            ProgressState::Snapshot => self.pending_snapshot,
            ProgressState::Probe | ProgressState::Replicate => 0,
        };
        self.reset_state(ProgressState::Probe);
        self.go_back_to(sent_snapshot.max(self.match_index) + 1);
    }

    /// The logs agree up to `match_index`: streams from there.
    pub fn become_replicate(&mut self) {
        self.reset_state(ProgressState::Replicate);
        self.next = self.match_index + 1;
    }

    /// A snapshot at `index` was sent; nothing else is until it is acknowledged.
    pub fn become_snapshot(&mut self, index: u64) {
        self.reset_state(ProgressState::Snapshot);
        self.pending_snapshot = index;
        self.next = index + 1;
        self.sent_commit = index;
    }

    fn go_back_to(&mut self, next: u64) {
        self.next = next;
        self.sent_commit = self.sent_commit.min(next - 1);
    }

    /// A `MsgApp` with so many entries and bytes went out.
    pub fn sent_entries(&mut self, count: u64, bytes: u64) {
        match self.state {
            ProgressState::Replicate => {
                if count > 0 {
                    self.next += count;
                    self.inflights.add(self.next - 1, bytes);
                }
                // An empty message through a full window must not be followed by another one.
                self.paused = self.inflights.is_full();
            }
            // The one message that probes is out. An empty one is only sent in answer to something, so it paces itself.
            ProgressState::Probe if count > 0 => self.paused = true,
            ProgressState::Probe => {}
            ProgressState::Snapshot => unreachable!("entries are never sent to a follower that awaits a snapshot"),
        }
    }

    /// Whether a message with this commit index can teach the follower something it may use.
    pub fn can_bump_commit(&self, index: u64) -> bool {
        index > self.sent_commit && self.sent_commit < self.next - 1
    }

    /// An acknowledgement; says whether it is news.
    pub fn maybe_update(&mut self, index: u64) -> bool {
        if index <= self.match_index {
            return false;
        }
        self.match_index = index;
        self.next = self.next.max(index + 1);
        self.paused = false;
        true
    }

    /// A rejection of the entries behind `rejected`, with a hint where the logs may agree; says whether it is
    /// news or a late echo.
    pub fn maybe_decrease_to(&mut self, rejected: u64, hint: u64) -> bool {
        if self.state == ProgressState::Replicate {
            if rejected <= self.match_index {
                return false;
            }
            self.go_back_to(self.match_index + 1);
            return true;
        }
        if self.next - 1 != rejected {
            return false;
        }
        self.go_back_to(rejected.min(hint.saturating_add(1)).max(self.match_index + 1));
        self.paused = false;
        true
    }

    /// Whether nothing may be sent now.
    pub fn is_paused(&self) -> bool {
        self.paused || self.state == ProgressState::Snapshot
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State{:?} match={} next={}", self.state, self.match_index, self.next)?;
        if self.is_learner {
            f.write_str(" learner")?;
        }
        if self.is_paused() {
            f.write_str(" paused")?;
        }
        if self.pending_snapshot > 0 {
            write!(f, " pendingSnap={}", self.pending_snapshot)?;
        }
        if !self.recent_active {
            f.write_str(" inactive")?;
        }
        if !self.inflights.is_empty() {
            write!(f, " inflight={}{}", self.inflights.len(), if self.inflights.is_full() { "[full]" } else { "" })?;
        }
        Ok(())
    }
}
