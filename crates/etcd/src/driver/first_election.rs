//! `--initial-election-tick-advance`: the first election need not wait for a whole timeout (etcd `adjustTicks`).
//!
//! A member that has just started does not know whether there is a leader. As soon as it is connected to two others, all but
//! two ticks of its timeout pass at once: a leader that is there says so within a tick.

use super::peers::Peers;

/// So long peers are waited for (etcd: `ConnReadTimeout`), ms.
const WAIT_MS: u64 = 5_000;
/// They are looked for this often, ms.
const PACE_MS: u64 = 50;
/// Fewer connected peers than that change nothing.
const PEERS_MIN: usize = 2;

/// Whether, and until when, it is to be hastened.
#[derive(Debug)]
pub struct FirstElection {
    until_ms: u64,
    next_ms: u64,
}

impl FirstElection {
    /// `on`: the flag.
    pub fn new(on: bool, now_ms: u64) -> FirstElection {
        FirstElection { until_ms: if on { now_ms + WAIT_MS } else { 0 }, next_ms: now_ms + PACE_MS }
    }

    /// True once at most: now.
    pub fn is_due(&mut self, now_ms: u64, peers: &Peers) -> bool {
        if now_ms < self.next_ms || now_ms >= self.until_ms {
            return false;
        }
        self.next_ms = now_ms + PACE_MS;
        let connected = peers.active_since_ms(now_ms).len();
        if connected < PEERS_MIN {
            return false;
        }
        self.until_ms = 0;
        tracing::info!(
            "active-remote-members" = connected,
            "initialized peer connections; fast-forwarding election ticks"
        );
        true
    }
}
