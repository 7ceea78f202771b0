//! The endpoints of a gateway: which one is next, and which ones are left alone for a while.

use crate::addresses::{dial_text, join_host_port};
use crate::driver::join::dns::Record;
use crate::logging::{Level, Note};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// One attempt to connect. etcd waits for the operating system, which takes two minutes; clients have gone by then.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Beside endpoints with a weight, one in so many connections goes to those without (RFC 2782: "a very small chance").
const UNWEIGHTED_ONE_IN: u32 = 100;

/// All endpoints.
#[derive(Debug)]
pub struct Remotes {
    all: Vec<Record>,
    state: Mutex<State>,
    /// Between attempts to reach an endpoint that failed.
    interval: Duration,
}

#[derive(Debug)]
struct State {
    inactive: Vec<bool>,
    /// For turns.
    picked: usize,
}

impl Remotes {
    /// All are active at first.
    pub fn new(all: Vec<Record>, interval: Duration) -> Remotes {
        let state = Mutex::new(State { inactive: vec![false; all.len()], picked: 0 });
        Remotes { all, state, interval }
    }

    /// `host:port` of each.
    pub fn addresses(&self) -> Vec<String> {
        (0..self.all.len()).map(|at| self.address(at)).collect()
    }

    fn address(&self, at: usize) -> String {
        join_host_port(&self.all[at].target, self.all[at].port)
    }

    /// A connection to one that can be reached; `None`: all are inactive now.
    pub async fn connect(&self) -> Option<TcpStream> {
        while let Some(at) = self.pick(random) {
            match self.dial(at).await {
                Ok(stream) => return Some(stream),
                Err(e) => {
                    self.state.lock().inactive[at] = true;
                    self.note(Level::Warn, "deactivated endpoint", at, &e).log();
                }
            }
        }
        None
    }

    async fn dial(&self, at: usize) -> io::Result<TcpStream> {
        let Record { target, port, .. } = &self.all[at];
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((target.as_str(), *port))).await;
        dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn note(&self, level: Level, text: &str, at: usize, e: &io::Error) -> Note {
        let address = self.address(at);
        Note::new(level, text)
            .text("address", &address)
            .text("interval", &go::format_duration(self.interval))
            .text("error", &dial_text(&address, e))
    }

    /// Which one is next: of the best priority that is active, by weight where there are weights, else in turn.
    fn pick(&self, random: impl Fn(u32) -> u32) -> Option<usize> {
        let mut state = self.state.lock();
        let active = || (0..self.all.len()).filter(|at| !state.inactive[*at]);
        let best = active().map(|at| self.all[at].priority).min()?;
        let (unweighted, weighted): (Vec<usize>, Vec<usize>) =
            active().filter(|at| self.all[*at].priority == best).partition(|at| self.all[*at].weight == 0);
        if weighted.is_empty() || (!unweighted.is_empty() && random(UNWEIGHTED_ONE_IN) == 0) {
            state.picked = state.picked.wrapping_add(1);
            return Some(unweighted[(state.picked - 1) % unweighted.len()]);
        }
        let total = weighted.iter().map(|at| u32::from(self.all[*at].weight)).sum();
        let chosen = random(total);
        let mut sum = 0;
        weighted.into_iter().find(|at| {
            sum += u32::from(self.all[*at].weight);
            chosen < sum
        })
    }

    /// Tries those that failed again, for ever.
    pub async fn monitor(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.interval).await;
            let inactive = self.state.lock().inactive.clone();
            for at in (0..inactive.len()).filter(|at| inactive[*at]) {
                tokio::spawn(self.clone().reactivate(at));
            }
        }
    }

    async fn reactivate(self: Arc<Self>, at: usize) {
        match self.dial(at).await {
            Ok(_) => {
                self.state.lock().inactive[at] = false;
                Note::new(Level::Info, "activated").text("address", &self.address(at)).log();
            }
            Err(e) => {
                self.note(Level::Warn, "failed to activate endpoint (stay inactive for another interval)", at, &e)
                    .log();
            }
        }
    }
}

/// Below `end`, which is not zero.
fn random(end: u32) -> u32 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes) % end,
        // Without randomness the first is as good as any.
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remotes(records: &[(u16, u16)]) -> Remotes {
        let record = |(port, (priority, weight)): (u16, &(u16, u16))| Record {
            target: "a".into(),
            port,
            priority: *priority,
            weight: *weight,
        };
        Remotes::new((1..).zip(records).map(record).collect(), Duration::from_secs(1))
    }

    fn deactivate(remotes: &Remotes, at: usize) {
        remotes.state.lock().inactive[at] = true;
    }

    #[test]
    fn those_without_weights_have_their_turns() {
        let remotes = remotes(&[(0, 0), (0, 0), (0, 0)]);
        let picked = |n: usize| (0..n).map(|_| remotes.pick(|_| 0).unwrap()).collect::<Vec<_>>();
        assert_eq!(picked(4), [0, 1, 2, 0]);
        deactivate(&remotes, 1);
        let rest = picked(4);
        assert!(!rest.contains(&1) && rest.contains(&0) && rest.contains(&2), "{rest:?}");
        deactivate(&remotes, 0);
        deactivate(&remotes, 2);
        assert_eq!(remotes.pick(|_| 0), None);
    }

    #[test]
    fn a_worse_priority_waits_until_the_better_ones_failed() {
        let remotes = remotes(&[(20, 0), (10, 0), (10, 0)]);
        for _ in 0..4 {
            assert_ne!(remotes.pick(|_| 1), Some(0));
        }
        deactivate(&remotes, 1);
        deactivate(&remotes, 2);
        assert_eq!(remotes.pick(|_| 1), Some(0));
    }

    #[test]
    fn weights_share_the_connections_out() {
        let remotes = remotes(&[(0, 1), (0, 1), (0, 2), (0, 0)]);
        // Not one of the rare connections for those without a weight.
        let with = |n: u32| remotes.pick(|end| if end == UNWEIGHTED_ONE_IN { 1 } else { n });
        assert_eq!((0..4).map(with).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(2)]);
        assert_eq!(remotes.pick(|_| 0), Some(3));
    }
}
