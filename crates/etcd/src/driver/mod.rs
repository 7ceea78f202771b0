//! The driver: owns threads, queues, sockets and timers, and runs one member.
//!
//! ```text
//! network threads ──Call──► core (member, log, apply) ──► readers ─┐
//!       ▲ ▲────post───────────┤   └─ Checkpoint ─► checkpointer    │ post: answers
//!       │ responses           └─ Published ─► hub ─ ReadHistory ─► readers
//!       └──────────────────────────────────────┴──────────────────┘
//! ```

mod auth;
pub mod core;
mod corruption;
pub mod courtesy;
mod disk;
pub mod door;
mod first_election;
mod forward;
pub mod hub;
pub mod image;
pub(crate) mod join;
mod log;
mod memory;
mod meter;
pub(crate) mod net;
mod peers;
pub mod post;
mod queue;
pub mod readers;
pub mod security;
mod slow;
mod spans;
mod start;
mod summary;

/// What reads bytes from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use super::auth::decoders::*;
    pub use super::join::decoders::*;
}
pub use start::run;

use api::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use server::Fatal;
use server::member::Outcome;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use store::Published;
use tokio::sync::{mpsc, oneshot, watch};

/// The core's inbox.
pub type Inbox = queue::Sender<core::Message>;

type Chunks = mpsc::Sender<Result<Option<pb::RangeStreamResponse>, api::Error>>;
type Image = mpsc::Sender<Result<Option<pb::SnapshotResponse>, api::Error>>;

/// Who waits for an answer, and how it reaches him.
#[derive(Debug)]
pub enum Ticket {
    Unary {
        out: oneshot::Sender<Outcome>,
        home: post::Home,
    },
    Chunks(Chunks),
    Image(Image),
    /// Not a client's: somebody who takes the outcome where it is made.
    Then(Then),
}

/// What is done with an outcome. Must not block.
pub struct Then(Box<dyn FnOnce(Outcome) + Send>);

impl std::fmt::Debug for Then {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Then")
    }
}

impl Ticket {
    /// A ticket whose outcome goes to `then`.
    pub fn then(then: impl FnOnce(Outcome) + Send + 'static) -> Ticket {
        Ticket::Then(Then(Box::new(then)))
    }
}

/// What all threads see.
pub struct Shared {
    /// The newest published state.
    pub applied: Published,
    /// Whether a leader is known.
    pub leader: watch::Sender<bool>,
    /// Who leads; 0 for nobody known.
    pub leader_id: AtomicU64,
    /// Whether this member is a learner.
    pub learner: AtomicBool,
    /// gRPC health of service "".
    pub healthy: watch::Sender<bool>,
    /// The member published its attributes.
    pub serving: AtomicBool,
    /// What long work looks at to learn whether anyone waits.
    pub calls: courtesy::Calls,
    /// Tokens and passwords.
    pub auth: auth::Auth,
    /// Where database images go that are read too slowly.
    pub images: image::Room,
    /// Certificates, for metrics.
    pub credentials: security::Credentials,
    /// The same of the member.
    pub standing: Mutex<meter::Standing>,
    /// Feature gates: name, stage, and whether it is on.
    pub features: Vec<(String, &'static str, bool)>,
    /// Bytes.
    pub quota: i64,
    /// An apply that takes longer counts as slow.
    pub slow_apply: Duration,
    /// Bytes; sizes the chunks of RangeStream.
    pub max_request_bytes: usize,
    pub progress_interval_ms: u64,
}

/// Monotonic milliseconds since the process started.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now_ms(self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// How far long work steps back (`nice`): where processors are short, log, apply and network get three times the share.
/// More would let a checkpoint fall behind the writes that fill it.
const BACKGROUND_NICE: i32 = 5;

/// Starts a thread for work that may take long and that nobody's put waits for.
///
/// # Errors
/// The operating system gave no thread.
fn background(name: String, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || {
        // Linux: of this thread alone.
        if let Err(e) = rustix::process::nice(BACKGROUND_NICE) {
            tracing::debug!(error = %e, "background work keeps its priority");
        }
        work();
    })
}

/// Starts a thread.
///
/// # Errors
/// The operating system gave none.
fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Fatal> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|e| Fatal::new(format!("cannot start a thread: {e}")))
}

/// Tells whoever waits that the member serves: the log line that scripts match, and systemd.
fn ready() {
    tracing::info!("ready to serve client requests");
    if let Err(e) = crate::systemd::ready() {
        tracing::warn!(error = %e, "failed to notify systemd for readiness");
    }
}
