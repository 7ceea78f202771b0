//! Reader threads: everything that only looks, on the newest published state, and takes longer than a network thread may
//! be held up.
//!
//! Unary reads and history share a small pool. A stream (RangeStream, Snapshot) may be as slow as its client, so it has
//! a thread of its own: clients that stop reading must not take the pool away from the others. What it looks at is held
//! in the page store meanwhile; a client that takes nothing for [`STALL_MAX`] is let go.

use super::courtesy::Courtesy;
use super::image::Outgoing;
use super::queue::{Sender, queue};
use super::{Chunks, Image, Shared, Ticket, background, core::die, slow};
use api::pb::etcdserverpb as pb;
use crossbeam_channel::{TrySendError, bounded};
use rpc::metrics;
use server::{Request, Response, Who, access, read};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::watch::{HistoryJob, HistoryResult};
use store::{Applied, Error, Kind, Pace};
use tokio::sync::mpsc;

/// Reads that may wait for a thread; beyond it clients are told that there are too many.
const QUEUE_MAX: usize = 16_384;
/// Bytes in one message of a database snapshot (etcd `snapshotSendBufferSize`).
const SNAPSHOT_CHUNK: usize = 32 * 1024;
/// Streams at a time; each has a thread. Beyond it clients are told that there are too many.
const STREAMS_MAX: usize = 256;
/// A stream whose client takes nothing for so long ends: it holds pages that could be free.
const STALL_MAX: Duration = Duration::from_secs(300);
/// A piece of history counts as so many bytes of work: more than a look at the clock is worth.
const HISTORY: usize = 1 << 20;
/// How long a full stream waits before it looks again.
const STALL_PACE: Duration = Duration::from_millis(2);
/// … and so many times until it looks what it keeps from others.
const STALL_LOOK: u32 = 250;

/// One read.
#[derive(Debug)]
pub enum Job {
    Read { ticket: Ticket, who: Who, request: Request },
    Snapshot { ticket: Ticket },
    History { job: HistoryJob, reply: super::hub::Feed },
}

/// The pool.
#[derive(Clone)]
pub struct Readers {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    streams: Arc<AtomicUsize>,
}

impl Readers {
    /// Starts `threads` reader threads.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub fn start(threads: usize, shared: &Arc<Shared>) -> std::io::Result<Readers> {
        let (jobs, waiting) = queue::<Job>(QUEUE_MAX);
        for n in 0..threads {
            let (waiting, shared) = (waiting.clone(), shared.clone());
            background(format!("reader-{n}"), move || {
                let courtesy = Courtesy::new(shared.clone());
                for job in waiting.iter() {
                    courtesy.begin();
                    work(&shared, job, &courtesy);
                }
            })?;
        }
        Ok(Readers { jobs, shared: shared.clone(), streams: Arc::default() })
    }

    /// Queues a read, or starts a stream.
    pub fn run(&self, job: Job) {
        if let Job::Read { ticket: Ticket::Chunks(_), .. } | Job::Snapshot { .. } = job {
            return self.stream(job);
        }
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(Job::Read { ticket, .. } | Job::Snapshot { ticket })) => {
                ticket.answer(Err(api::Error::RequestTooManyRequests));
            }
            Err(TrySendError::Disconnected(Job::Read { ticket, .. } | Job::Snapshot { ticket })) => {
                ticket.answer(Err(api::Error::Stopped));
            }
            // Catching up must not be lost: there is one of these at most for each watcher.
            Err(TrySendError::Full(job)) => drop(self.jobs.send(job)),
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    fn stream(&self, job: Job) {
        let refuse = |job: Job| {
            if let Job::Read { ticket, .. } | Job::Snapshot { ticket } = job {
                ticket.answer(Err(api::Error::RequestTooManyRequests));
            }
        };
        if self.streams.fetch_add(1, Ordering::Relaxed) >= STREAMS_MAX {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            return refuse(job);
        }
        let (shared, streams) = (self.shared.clone(), self.streams.clone());
        // Handed over when there is a thread to take it: a client must be told when there is none.
        let (hand, taken) = bounded(1);
        let started = background("stream".into(), move || {
            if let Ok(job) = taken.recv() {
                work(&shared, job, &Courtesy::new(shared.clone()));
            }
            streams.fetch_sub(1, Ordering::Relaxed);
        });
        match started {
            // The thread waits for it.
            Ok(_) => drop(hand.send(job)),
            Err(e) => {
                self.streams.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(error = %e, "cannot start a thread for a stream");
                refuse(job);
            }
        }
    }
}

/// Sends when there is room; false when the client is gone, or as good as gone: then the channel closes without an end,
/// which is not mistaken for one.
fn send<T>(out: &mpsc::Sender<T>, message: T) -> bool {
    send_meanwhile(out, message, &mut || ())
}

/// As [`send`]; calls `meanwhile` now and then while there is no room.
fn send_meanwhile<T>(out: &mpsc::Sender<T>, mut message: T, meanwhile: &mut dyn FnMut()) -> bool {
    let mut full_since = None;
    let mut naps = 0u32;
    loop {
        match out.try_send(message) {
            Ok(()) => return true,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
            Err(mpsc::error::TrySendError::Full(back)) => message = back,
        }
        if full_since.get_or_insert_with(Instant::now).elapsed() >= STALL_MAX {
            return false;
        }
        std::thread::sleep(STALL_PACE);
        naps += 1;
        if naps.is_multiple_of(STALL_LOOK) {
            meanwhile();
        }
    }
}

fn work(shared: &Shared, job: Job, courtesy: &Courtesy) {
    metrics::OPEN_READS.add(1);
    look(shared, job, courtesy);
    metrics::OPEN_READS.add(-1);
}

fn look(shared: &Shared, job: Job, courtesy: &Courtesy) {
    let applied = shared.applied.load_full();
    let pace: Pace<'_> = &|bytes| courtesy.step(bytes);
    match job {
        Job::Snapshot { ticket: Ticket::Image(out) } => {
            let begun = Instant::now();
            snapshot(shared, applied, &out, pace);
            metrics::BACKEND_SNAPSHOT.observe_seconds(begun.elapsed());
        }
        Job::Read { ticket: Ticket::Chunks(out), who, request: Request::Range(request) } => {
            range_stream(shared, &applied, &who, request, &out, pace);
        }
        // The state may be another than the one that was asked before.
        Job::Read { ticket, who, request } => match checked(&applied, &who, request, pace, shared.slow_apply) {
            Ok(response) => ticket.answer(Ok(response.encode_if_large(pace))),
            Err(Error::Refused(e)) => ticket.answer(Err(e)),
            Err(Error::Fatal(text)) => die(&server::Fatal::new(text)),
        },
        Job::Snapshot { ticket } => ticket.answer(Err(api::Error::Other("not a snapshot stream".into()))),
        Job::History { job, reply } => {
            let result: HistoryResult = match job.run(&*applied) {
                Ok(result) => result,
                Err(e) => die(&server::Fatal::new(e.to_string())),
            };
            reply.history(result);
            pace(HISTORY);
        }
    }
}

fn checked(applied: &Applied, who: &Who, request: Request, pace: Pace<'_>, limit: Duration) -> Result<Response, Error> {
    access::check_read(who, &request, applied)?;
    let histograms = |well| match &request {
        Request::Range(_) => Some(metrics::RANGE.of(Kind::Range, well)),
        Request::Hash(_) => Some(&metrics::HASH),
        Request::HashKv(_) => Some(&metrics::HASH_KV),
        _ => None,
    };
    let (well, ill) = (histograms(true), histograms(false));
    metrics::RANGES.add(u64::from(matches!(request, Request::Range(_))));
    let shown = matches!(request, Request::Range(_) | Request::Txn(_)).then(|| request.clone());
    let begun = Instant::now();
    let outcome = read::run(applied, request, pace);
    if let Some(request) = shown {
        slow::read(&request, outcome.as_ref().map_err(ToString::to_string), begun.elapsed(), limit);
    }
    if let Some(histogram) = if outcome.is_ok() { well } else { ill } {
        histogram.observe_seconds(begun.elapsed());
    }
    outcome
}

fn range_stream(
    shared: &Shared,
    applied: &Arc<Applied>,
    who: &Who,
    request: pb::RangeRequest,
    out: &Chunks,
    pace: Pace<'_>,
) {
    let stream = applied.range_stream(&request, shared.max_request_bytes);
    let stream =
        stream.and_then(|stream| Ok(access::check_read(who, &Request::Range(request), applied).map(|()| stream)?));
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(Error::Refused(e)) => {
            send(out, Err(e));
            return;
        }
        Err(Error::Fatal(text)) => die(&server::Fatal::new(text)),
    };
    loop {
        failpoint::point!("beforeRangeStreamChunk");
        match stream.next_chunk(pace) {
            Ok(None) => {
                send(out, unchanged(shared, applied, who).map(|()| None));
                return;
            }
            Ok(Some(chunk)) => {
                let response = pb::RangeStreamResponse { range_response: Some(chunk) };
                if !send(out, Ok(Some(response))) {
                    return;
                }
            }
            Err(Error::Refused(e)) => {
                send(out, Err(e));
                return;
            }
            Err(Error::Fatal(text)) => die(&server::Fatal::new(text)),
        }
    }
}

/// As etcd, a stream that took longer than users and roles stayed the same ends with an error, complete as it is.
fn unchanged(shared: &Shared, applied: &Applied, who: &Who) -> Result<(), api::Error> {
    access::check_revision(&who.claim(applied.auth())?, shared.applied.load().auth())
}

fn snapshot(shared: &Shared, applied: Arc<Applied>, out: &Image, pace: Pace<'_>) {
    let mut image = Outgoing::new(applied.image(), shared.images.clone());
    let version = applied.storage_version().unwrap_or_default().to_owned();
    // The rest of it would be kept as long as the client takes.
    drop(applied);
    let total = image.size();
    let mut digest = Sha256::new();
    let mut sent = 0;
    let mut buffer = vec![0; SNAPSHOT_CHUNK];
    while sent < total {
        let n = usize::try_from(total - sent).unwrap_or(SNAPSHOT_CHUNK).min(SNAPSHOT_CHUNK);
        if let Err(e) = image.read_at(&mut buffer[..n], sent, pace) {
            die(&server::Fatal::new(format!("page store: {e}")));
        }
        digest.update(&buffer[..n]);
        pace(n);
        sent += n as u64;
        let blob = bytes::Bytes::copy_from_slice(&buffer[..n]);
        let message =
            pb::SnapshotResponse { header: None, remaining_bytes: total - sent, blob, version: version.clone() };
        if !send_meanwhile(out, Ok(Some(message)), &mut || image.relieve(sent, pace)) {
            return;
        }
    }
    let blob = bytes::Bytes::copy_from_slice(&digest.finalize());
    let last = pb::SnapshotResponse { header: None, remaining_bytes: 0, blob, version };
    if send(out, Ok(Some(last))) {
        send(out, Ok(None));
    }
}

impl Ticket {
    /// Delivers the answer; a caller that went away is fine.
    pub fn answer(self, result: Result<Response, api::Error>) {
        match (self, result) {
            (Ticket::Unary { out, .. }, result) => drop(out.send(result)),
            (Ticket::Then(then), result) => (then.0)(result),
            (Ticket::Chunks(out), Err(e)) => drop(out.try_send(Err(e))),
            (Ticket::Image(out), Err(e)) => drop(out.try_send(Err(e))),
            (Ticket::Chunks(_) | Ticket::Image(_), Ok(_)) => {}
        }
    }
}
