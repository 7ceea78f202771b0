//! `watch-get`: serializable gets of one client while many watchers read the past.

use crate::runner::{refused, runtime};
use crate::samples::Samples;
use crate::skim;
use crate::wire::{Conn, Failure, Rpc, Target, frame};
use crate::workloads::kv::malformed;
use crate::workloads::watch::create;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use std::io;
use std::time::Duration;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// The key that is watched.
pub const KEY: &str = "watchkey";

/// What to do.
#[derive(Clone, Debug)]
pub struct WatchGet {
    pub target: Target,
    pub streams: usize,
    pub watchers: usize,
    /// Events each watcher waits for.
    pub events: u64,
    pub first_revision: i64,
}

/// The gets' times, and how long the watchers took.
pub fn run(work: &WatchGet) -> io::Result<(Samples, Duration)> {
    let runtime = runtime()?;
    let local = LocalSet::new();
    runtime.block_on(local.run_until(measure(work))).map_err(refused)
}

async fn measure(work: &WatchGet) -> Result<(Samples, Duration), Failure> {
    let mut conn = Conn::open(&work.target).await?;
    let mut gets = Conn::open(&work.target).await?;
    let mut streams = JoinSet::new();
    let start = Instant::now();
    for number in 0..work.streams {
        let watchers = work.watchers / work.streams + usize::from(number < work.watchers % work.streams);
        let call = conn.stream(Rpc::Watch).await?;
        streams.spawn_local(watchers_of_a_stream(call, watchers, work.events, work.first_revision));
    }
    let mut samples = Samples::default();
    let get = frame(&pb::RangeRequest { key: "abc".into(), serializable: true, ..pb::RangeRequest::default() });
    let mut read = async || {
        loop {
            let start = Instant::now();
            match gets.unary(Rpc::Range, get.clone()).await {
                Ok(_) => samples.add(start.elapsed()),
                Err(failure) if failure.is_transport() => return failure,
                Err(failure) => samples.fail(failure.to_string()),
            }
        }
    };
    let all = async {
        while let Some(ended) = streams.join_next().await {
            ended.unwrap_or_else(|error| Err(Failure::Transport(error.to_string())))?;
        }
        Ok::<(), Failure>(())
    };
    tokio::select! {
        outcome = all => outcome?,
        failure = read() => return Err(failure),
    }
    Ok((samples, start.elapsed()))
}

async fn watchers_of_a_stream(
    mut call: crate::wire::Duplex,
    watchers: usize,
    events: u64,
    first_revision: i64,
) -> Result<(), Failure> {
    let key = Bytes::from_static(KEY.as_bytes());
    for watcher in 0..watchers {
        call.sender.send(create(&key, watcher as i64 + 1, first_revision, false))?;
    }
    let mut missing = watchers as u64 * events;
    while missing > 0 {
        let answer = call.receiver.next().await?.ok_or_else(malformed)?;
        let mut here = 0;
        let seen = skim::watch(&answer, |_, _| here += 1).ok_or_else(malformed)?;
        if seen.canceled {
            return Err(Failure::Wrong(format!("canceled: {}", String::from_utf8_lossy(seen.cancel_reason))));
        }
        missing = missing.saturating_sub(here);
    }
    Ok(())
}
