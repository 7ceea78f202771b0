//! Calls outside the measurement: logins, leases, compactions, readiness. Each waits for its answer.

use crate::runner::runtime;
use crate::wire::{Conn, Failure, Rpc, Target};
use api::pb::etcdserverpb as pb;
use prost::Message;
use std::fmt;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// How long one call may take. A compaction of a million revisions or a defragmentation may take minutes.
const CALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Pause between two looks at a server that is starting.
const READY_CHECK: Duration = Duration::from_millis(2);

/// A connection with a runtime of its own.
pub struct Control {
    runtime: Runtime,
    local: LocalSet,
    conn: Conn,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// Connects.
    pub fn open(target: &Target) -> Result<Control, Failure> {
        let runtime = runtime().map_err(|error| Failure::Transport(error.to_string()))?;
        let local = LocalSet::new();
        let conn = runtime.block_on(local.run_until(Conn::open(target)))?;
        Ok(Control { runtime, local, conn })
    }

    /// One call.
    pub fn call<Q: Message, A: Message + Default>(&mut self, rpc: Rpc, request: &Q) -> Result<A, Failure> {
        let Control { runtime, local, conn } = self;
        let call = async { tokio::time::timeout(CALL_TIMEOUT, conn.call(rpc, request)).await };
        let late = |_| Failure::Transport(format!("no answer within {CALL_TIMEOUT:?}"));
        runtime.block_on(local.run_until(call)).map_err(late)?
    }

    /// The current revision, by a linearizable read.
    pub fn revision(&mut self) -> Result<i64, Failure> {
        let request = pb::RangeRequest { key: "foo".into(), count_only: true, ..pb::RangeRequest::default() };
        let answer: pb::RangeResponse = self.call(Rpc::Range, &request)?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Discards all revisions below `revision`; returns when they are gone from the disk if `physical`.
    pub fn compact(&mut self, revision: i64, physical: bool) -> Result<(), Failure> {
        let request = pb::CompactionRequest { revision, physical };
        self.call::<_, pb::CompactionResponse>(Rpc::Compact, &request).map(|_| ())
    }

    /// What the member says of itself.
    pub fn status(&mut self) -> Result<pb::StatusResponse, Failure> {
        self.call(Rpc::Status, &pb::StatusRequest::default())
    }

    /// Rewrites the database file.
    pub fn defragment(&mut self) -> Result<(), Failure> {
        self.call::<_, pb::DefragmentResponse>(Rpc::Defragment, &pb::DefragmentRequest::default()).map(|_| ())
    }

    /// Keys there are.
    pub fn count(&mut self) -> Result<i64, Failure> {
        let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..pb::RangeRequest::default() };
        let answer: pb::RangeResponse = self.call(Rpc::Range, &pb::RangeRequest { count_only: true, ..all })?;
        Ok(answer.count)
    }
}

/// Asks until a linearizable read is answered; how long that took from `since`. `alive` says whether to go on.
pub fn first_read(
    target: &Target,
    since: Instant,
    patience: Duration,
    mut alive: impl FnMut() -> bool,
) -> Result<Duration, Failure> {
    loop {
        let answer = Control::open(target).and_then(|mut control| control.revision());
        match answer {
            Ok(_) => return Ok(since.elapsed()),
            Err(error) if since.elapsed() > patience => return Err(error),
            Err(error) if !alive() => return Err(Failure::Transport(format!("the server ended: {error}"))),
            Err(_) => std::thread::sleep(READY_CHECK),
        }
    }
}

/// Logs in: the token that goes with each request of `user`.
pub fn authenticate(target: &Target, user: &str, password: &str) -> Result<String, Failure> {
    let request = pb::AuthenticateRequest { name: user.to_owned(), password: password.to_owned() };
    let answer: pb::AuthenticateResponse = Control::open(target)?.call(Rpc::Authenticate, &request)?;
    Ok(answer.token)
}
