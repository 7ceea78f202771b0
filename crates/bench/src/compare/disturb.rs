//! What goes on beside an open-loop load: the tails are compared while it does.

use crate::control::Control;
use crate::runner::{self, Plan};
use crate::skim;
use crate::wire::{Conn, Failure, Rpc, Target};
use crate::workloads::kv::{Range, RangeMode, malformed};
use crate::workloads::watch;
use crate::{pacer::Pace, runner::runtime};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;

/// Clients that list everything.
const LISTERS: usize = 20;
/// The disturbance shares the load's core; its own work must not delay the measured requests.
const NICE: i32 = 19;
/// How long the load runs alone before it is disturbed.
const DELAY: Duration = Duration::from_millis(500);

/// A disturbance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// A watcher of everything, this many revisions behind, catches up.
    Watch {
        behind: u64,
    },
    /// A compaction of this many revisions.
    Compact {
        revisions: u64,
    },
    Defragment,
    /// Twenty clients list all keys over and over.
    List {
        keys: u64,
    },
}

impl Disturbance {
    /// Revisions that must have been written before.
    pub fn history(self) -> u64 {
        match self {
            Disturbance::Watch { behind } => behind,
            Disturbance::Compact { revisions } => revisions,
            _ => 0,
        }
    }
}

/// What it did: how long it took, and how many events or lists.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub took: Duration,
    pub count: u64,
}

/// Starts a disturbance beside a load of `duration`, on a thread of its own.
pub fn start(what: Disturbance, target: &Target, duration: Duration) -> JoinHandle<Result<Done, Failure>> {
    let target = target.clone();
    std::thread::spawn(move || {
        // On Linux this is the thread's and its children's own. Where it is refused the load's times grow, never shrink.
        let _ = rustix::process::setpriority_process(None, NICE);
        std::thread::sleep(DELAY);
        let since = Instant::now();
        let count = disturb(what, &target, duration.saturating_sub(DELAY))?;
        Ok(Done { took: since.elapsed(), count })
    })
}

fn disturb(what: Disturbance, target: &Target, duration: Duration) -> Result<u64, Failure> {
    match what {
        Disturbance::Watch { behind } => {
            let revision = Control::open(target)?.revision()?;
            let behind = i64::try_from(behind).unwrap_or(i64::MAX);
            catch_up(target, (revision - behind).max(1), revision)
        }
        Disturbance::Compact { .. } => {
            let mut control = Control::open(target)?;
            let revision = control.revision()?;
            control.compact(revision, true).map(|()| 1)
        }
        Disturbance::Defragment => Control::open(target)?.defragment().map(|()| 1),
        Disturbance::List { keys } => list(target, keys, duration),
    }
}

/// Reads all events from `start` to `end`, in order; how many.
fn catch_up(target: &Target, start: i64, end: i64) -> Result<u64, Failure> {
    let runtime = runtime().map_err(|error| Failure::Transport(error.to_string()))?;
    let read = async {
        let mut conn = Conn::open(target).await?;
        let mut call = conn.stream(Rpc::Watch).await?;
        call.sender.send(everything(start))?;
        let (mut last, mut events) = (start - 1, 0);
        while last < end {
            let answer = call.receiver.next().await?.ok_or_else(malformed)?;
            let mut ordered = true;
            let seen = skim::watch(&answer, |_, pair| {
                ordered &= pair.mod_revision >= last;
                last = pair.mod_revision;
                events += 1;
            });
            if seen.ok_or_else(malformed)?.canceled || !ordered {
                return Err(Failure::Wrong("canceled or out of order while catching up".to_owned()));
            }
        }
        Ok(events)
    };
    runtime.block_on(LocalSet::new().run_until(read))
}

fn everything(start_revision: i64) -> Bytes {
    let all = Bytes::from_static(&[0]);
    let create = pb::WatchCreateRequest { key: all.clone(), range_end: all, start_revision, ..Default::default() };
    watch::framed(create)
}

fn list(target: &Target, keys: u64, duration: Duration) -> Result<u64, Failure> {
    let all = Bytes::from_static(&[0]);
    let request = pb::RangeRequest { key: all.clone(), range_end: all, serializable: true, ..Default::default() };
    let plan = Plan {
        targets: vec![target.clone()],
        conns: LISTERS,
        clients: LISTERS,
        threads: 1,
        total: None,
        duration: Some(duration),
        pace: Pace::Unlimited,
        sample: false,
    };
    let range = Arc::new(Range::fixed(request, RangeMode::Unary, Some(keys)));
    let outcome = runner::run(&plan, &range).map_err(|error| Failure::Transport(error.to_string()))?;
    match outcome.lanes.first().and_then(|lane| lane.errors().keys().next()) {
        Some(error) => Err(Failure::Wrong(error.clone())),
        None => Ok(outcome.done()),
    }
}
