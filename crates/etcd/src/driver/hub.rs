//! The watch hub's thread: a put never waits for it. Its input is bounded; when the core finds it full, the changes
//! are left out and the hub is told later to read them back from history (a gap, never a loss).
//!
//! Answers overtake changes on their way here. So a request waits until the hub has seen the state that was published when
//! it came: who was answered, and then watches, is not told of what he knows.
//!
//! Without streams the hub is told nothing, and sleeps. The first stream makes it look at the published state *after* it
//! asked to be told: the core, which publishes *before* it looks whether anyone wants to be told, can't slip through.

use super::readers::{Job, Readers};
use super::{Clock, Shared, core};
use api::pb::etcdserverpb as pb;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use pb::watch_request::RequestUnion;
use rpc::{Caller, Told, metrics};
use server::{Who, access};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};
use store::watch::{Burst, Effect, HistoryResult, Hub, Input, OUTBOX_MAX, StreamId};
use store::{Applied, Change};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Inputs that may wait for the hub.
const INPUT_MAX: usize = 16_384;
/// How often the hub looks whether slow streams took something (etcd retries victims this often).
const PACE_MS: u64 = 10;
/// … and how often it looks at the clock when there is nothing of that kind.
const IDLE_MS: u64 = 50;
/// … and when there are no streams.
const ASLEEP: Duration = Duration::from_secs(3600);
/// Inputs handled before outboxes are looked at again.
const BATCH_MAX: usize = 1024;
/// Room in a stream's channel: the hub keeps to [`OUTBOX_MAX`] event responses, answers to requests come on top.
const STREAM_CHANNEL: usize = OUTBOX_MAX + 64;
/// Requests of one stream on their way to the hub.
const REQUESTS_MAX: usize = 16;
/// A stream's requests are taken while its channel has this much room: the client reads its answers.
const ANSWERS_ROOM: usize = 48;
/// How long a stream that is not read waits before it looks again.
const ANSWERS_PACE: Duration = Duration::from_millis(2);

/// What the hub's thread is told.
pub enum Message {
    Open {
        stream: StreamId,
        responses: mpsc::Sender<Told>,
        taken: Arc<AtomicUsize>,
        alive: oneshot::Sender<()>,
    },
    /// The permit is one of [`REQUESTS_MAX`].
    Request {
        stream: StreamId,
        who: Who,
        request: pb::WatchRequest,
        permit: OwnedSemaphorePermit,
    },
    Close {
        stream: StreamId,
    },
    Published {
        revision: i64,
        term: u64,
        changes: Vec<Change>,
    },
    Resync {
        revision: i64,
        term: u64,
    },
}

/// The core's and the readers' end.
#[derive(Clone, Debug)]
pub struct Feed {
    inbox: Sender<Message>,
    /// Not bounded by itself: there are never more results than jobs that the hub gave out. A bounded one could hold
    /// up the readers that the hub waits for.
    results: Sender<HistoryResult>,
    gap: Cell<bool>,
    /// Whether there are streams.
    watched: Arc<AtomicBool>,
}

impl Feed {
    /// Passes a batch's changes on, if there is anyone for whom. The state must be visible to all threads already.
    pub fn publish(&self, applied: &Applied, changes: Vec<Change>) {
        fence(Ordering::SeqCst);
        if self.gap.get() || !self.watched.load(Ordering::SeqCst) {
            return;
        }
        let message = Message::Published { revision: applied.revision(), term: applied.term(), changes };
        self.gap.set(matches!(self.inbox.try_send(message), Err(TrySendError::Full(_))));
    }

    /// Changes were left out: who watches has to read them from history.
    pub fn lose(&self) {
        self.gap.set(true);
    }

    /// Tells the hub of a gap once there is room again.
    pub fn mend(&self, applied: &Applied) {
        if self.gap.get() {
            let message = Message::Resync { revision: applied.revision(), term: applied.term() };
            self.gap.set(matches!(self.inbox.try_send(message), Err(TrySendError::Full(_))));
        }
    }

    /// Brings a history read back.
    pub fn history(&self, result: HistoryResult) {
        drop(self.results.send(result));
    }
}

/// The doors' end: opens streams and passes their requests on.
#[derive(Clone)]
pub struct Streams {
    inbox: Sender<Message>,
    next: Arc<AtomicU64>,
}

impl Streams {
    /// Opens a stream. The task that forwards its requests runs on the caller's runtime and ends with the stream.
    pub fn open(&self, runtime: &tokio::runtime::Handle, caller: Caller, shared: Arc<Shared>) -> rpc::WatchStream {
        let stream = StreamId(self.next.fetch_add(1, Ordering::Relaxed));
        let (requests, inputs) = mpsc::channel(16);
        let (outputs, responses) = mpsc::channel(STREAM_CHANNEL);
        let taken = Arc::<AtomicUsize>::default();
        let client = Client { caller, shared };
        runtime.spawn(forward(self.inbox.clone(), stream, client, inputs, outputs, taken.clone()));
        rpc::WatchStream { requests, responses, taken }
    }
}

/// Who has a stream.
struct Client {
    caller: Caller,
    shared: Arc<Shared>,
}

impl Client {
    /// Asked for each watch anew: tokens end before streams do.
    async fn who(&self) -> Who {
        match self.caller == Caller::default() {
            true => Who::Stranger,
            false => self.shared.auth.judge_patiently(&self.caller, || self.shared.applied.load_full()).await,
        }
    }
}

async fn forward(
    inbox: Sender<Message>,
    stream: StreamId,
    client: Client,
    mut requests: mpsc::Receiver<pb::WatchRequest>,
    responses: mpsc::Sender<Told>,
    taken: Arc<AtomicUsize>,
) {
    let closed = responses.clone();
    // Ends when the hub drops the stream: this task's hold on the responses must not keep them open then.
    let (alive, mut dropped) = oneshot::channel();
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    if !put(&inbox, Message::Open { stream, responses, taken, alive }).await {
        return;
    }
    loop {
        tokio::select! {
            () = closed.closed() => break,
            _ = &mut dropped => return,
            request = requests.recv() => match request {
                Some(request) => {
                    let Some(permit) = admit(&permits, &closed).await else { break };
                    let who = client.who().await;
                    if !put(&inbox, Message::Request { stream, who, request, permit }).await {
                        return;
                    }
                }
                // Half-closed by the client: events go on until one side leaves.
                None => tokio::select! {
                    () = closed.closed() => break,
                    _ = &mut dropped => return,
                },
            },
        }
    }
    put(&inbox, Message::Close { stream }).await;
}

/// Waits until the client has read most of the answers it asked for; `None` when it is gone. Until then it is not read
/// from either, as in Go etcd.
async fn admit(permits: &Arc<Semaphore>, responses: &mpsc::Sender<Told>) -> Option<OwnedSemaphorePermit> {
    while responses.capacity() < ANSWERS_ROOM {
        if responses.is_closed() {
            return None;
        }
        tokio::time::sleep(ANSWERS_PACE).await;
    }
    permits.clone().acquire_owned().await.ok()
}

/// Waits for room without holding the network thread.
async fn put(inbox: &Sender<Message>, mut message: Message) -> bool {
    loop {
        match inbox.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(back)) => message = back,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Outlet {
    responses: mpsc::Sender<Told>,
    /// Counted by the transport.
    taken: Arc<AtomicUsize>,
    /// Responses sent and, as far as the hub was told, not yet taken.
    outstanding: usize,
    /// Did not fit: cancellations of many watchers at once, mostly. Never more than the stream has watchers, since its
    /// requests are taken at the pace of its answers.
    overflow: VecDeque<Told>,
    /// Dropped with the outlet.
    _alive: oneshot::Sender<()>,
}

impl Outlet {
    fn new(responses: mpsc::Sender<Told>, taken: Arc<AtomicUsize>, alive: oneshot::Sender<()>) -> Outlet {
        Outlet { responses, taken, outstanding: 0, overflow: VecDeque::new(), _alive: alive }
    }

    /// Sends `count` responses.
    fn send(&mut self, told: Told, count: usize) {
        self.outstanding += count;
        self.overflow.push_back(told);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(response) = self.overflow.pop_front() {
            match self.responses.try_send(response) {
                Ok(()) => {}
                // Its close is on its way.
                Err(mpsc::error::TrySendError::Closed(_)) => self.overflow.clear(),
                Err(mpsc::error::TrySendError::Full(response)) => return self.overflow.push_front(response),
            }
        }
    }
}

/// The hub's end of its queues.
pub struct Inputs {
    messages: Receiver<Message>,
    history: Receiver<HistoryResult>,
}

/// The hub's thread.
pub struct Runner {
    hub: Hub,
    inputs: Inputs,
    outlets: BTreeMap<u64, Outlet>,
    readers: Readers,
    feed: Feed,
    core: super::Inbox,
    shared: Arc<Shared>,
    clock: Clock,
    jitter: u64,
    /// Requests that came before the changes up to this revision did, in order. As many as there are permits.
    early: VecDeque<(i64, Message)>,
}

/// Both ends of the hub's inbox.
pub fn channel() -> (Feed, Streams, Inputs) {
    let (inbox, messages) = bounded(INPUT_MAX);
    let (results, history) = unbounded();
    let feed = Feed { inbox: inbox.clone(), results, gap: Cell::new(false), watched: Arc::default() };
    (feed, Streams { inbox, next: Arc::new(AtomicU64::new(1)) }, Inputs { messages, history })
}

impl Runner {
    pub fn new(
        hub: Hub,
        inputs: Inputs,
        readers: Readers,
        feed: Feed,
        core: super::Inbox,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> Runner {
        Runner {
            hub,
            inputs,
            outlets: BTreeMap::new(),
            readers,
            feed,
            core,
            shared,
            clock,
            jitter: 0x9e37_79b9_7f4a_7c15,
            early: VecDeque::new(),
        }
    }

    /// Runs as long as the process.
    pub fn run(mut self) {
        let mut effects = Vec::new();
        loop {
            let pace = self.pace();
            let (messages, history) = (self.inputs.messages.clone(), self.inputs.history.clone());
            crossbeam_channel::select! {
                recv(messages) -> message => if let Ok(message) = message { self.take(message, &mut effects) },
                recv(history) -> result => if let Ok(result) = result { self.take_history(result, &mut effects) },
                default(pace) => {}
            }
            for _ in 0..BATCH_MAX {
                let Ok(message) = messages.try_recv() else { break };
                self.take(message, &mut effects);
            }
            for _ in 0..BATCH_MAX {
                let Ok(result) = history.try_recv() else { break };
                self.take_history(result, &mut effects);
            }
            self.give_credit(&mut effects);
            self.hub.handle(Input::Tick { now_ms: self.clock.now_ms() }, &mut effects);
            self.carry_out(&mut effects);
            self.count();
        }
    }

    fn count(&self) {
        let counts = self.hub.counts();
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        metrics::WATCH_STREAMS.set(gauge(counts.streams));
        metrics::WATCHERS.set(gauge(counts.watchers));
        metrics::SLOW_WATCHERS.set(gauge(counts.slow));
        metrics::EVENTS.set(counts.events);
        metrics::PENDING_EVENTS.set(gauge(self.outlets.values().map(|outlet| outlet.outstanding).sum()));
    }

    /// How long to wait for inputs. Somebody to look after: not long. Nobody: only the clock of progress notifications.
    fn pace(&self) -> Duration {
        if self.outlets.is_empty() {
            return ASLEEP;
        }
        let busy = self.outlets.values().any(|o| o.outstanding > 0);
        Duration::from_millis(if busy { PACE_MS } else { IDLE_MS })
    }

    fn take_history(&mut self, result: HistoryResult, effects: &mut Vec<Effect>) {
        self.hub.handle(Input::HistoryRead(result), effects);
        self.carry_out(effects);
    }

    fn take(&mut self, message: Message, effects: &mut Vec<Effect>) {
        if let Message::Request { .. } = message {
            let present = self.shared.applied.load().revision();
            if present > self.hub.revision() || !self.early.is_empty() {
                return self.early.push_back((present, message));
            }
        }
        self.handle(message, effects);
        while let Some((_, message)) = self.early.pop_front_if(|(present, _)| *present <= self.hub.revision()) {
            self.handle(message, effects);
        }
    }

    fn handle(&mut self, message: Message, effects: &mut Vec<Effect>) {
        let now_ms = self.clock.now_ms();
        let input = match message {
            Message::Open { stream, responses, taken, alive } => {
                if self.outlets.is_empty() {
                    self.wake_up(effects);
                }
                self.outlets.insert(stream.0, Outlet::new(responses, taken, alive));
                Input::Open { stream, now_ms, jitter_ms: self.draw_jitter() }
            }
            Message::Request { stream, who, request, permit } => {
                drop(permit);
                let permitted = self.permitted(&who, &request);
                Input::Request { stream, request, permitted }
            }
            Message::Close { stream } => {
                self.outlets.remove(&stream.0);
                if self.outlets.is_empty() {
                    self.feed.watched.store(false, Ordering::SeqCst);
                }
                Input::Close { stream }
            }
            Message::Published { revision, term, changes } => Input::Published { revision, term, changes },
            Message::Resync { revision, term } => Input::Resync { revision, term },
        };
        self.hub.handle(input, effects);
        self.carry_out(effects);
    }

    fn permitted(&self, who: &Who, request: &pb::WatchRequest) -> Result<(), api::Error> {
        match &request.request_union {
            Some(RequestUnion::CreateRequest(r)) => access::check_watch(who, r, &self.shared.applied.load()),
            _ => Ok(()),
        }
    }

    /// Asks to be told of changes, and takes in those that it was not told of.
    fn wake_up(&mut self, effects: &mut Vec<Effect>) {
        self.feed.watched.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let applied = self.shared.applied.load();
        self.hub.handle(Input::Resync { revision: applied.revision(), term: applied.term() }, effects);
    }

    /// Up to a tenth of the progress interval, different for each stream, so that streams do not tick together.
    fn draw_jitter(&mut self) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter % (self.shared.progress_interval_ms / 10).max(1)
    }

    fn give_credit(&mut self, effects: &mut Vec<Effect>) {
        let mut credits = Vec::new();
        for (id, outlet) in &mut self.outlets {
            outlet.flush();
            let taken = outlet.taken.swap(0, Ordering::Relaxed);
            if taken > 0 {
                outlet.outstanding = outlet.outstanding.saturating_sub(taken);
                credits.push((StreamId(*id), taken));
            }
        }
        for (stream, n) in credits {
            self.hub.handle(Input::Credit { stream, n }, effects);
        }
    }

    fn carry_out(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { stream, response } => self.send(stream, response),
                Effect::SendBurst { stream, burst } => self.send_burst(stream, burst),
                Effect::ReadHistory { job } => self.readers.run(Job::History { job, reply: self.feed.clone() }),
                Effect::WantPrev(on) => drop(self.core.send(core::Message::CapturePrev(on))),
            }
        }
    }

    fn send(&mut self, stream: StreamId, response: pb::WatchResponse) {
        let Some(outlet) = self.outlets.get_mut(&stream.0) else { return };
        // Answers to requests take another way in Go etcd.
        if !response.created && !response.canceled {
            failpoint::point!("beforeSendWatchResponse");
        }
        let (begun, events) = (Instant::now(), response.events.len());
        outlet.send(Told::Response(response), 1);
        match events {
            0 => metrics::WATCH_CONTROL.observe_seconds(begun.elapsed()),
            events => {
                let took = begun.elapsed().as_secs_f64();
                metrics::WATCH_SEND.observe(took);
                metrics::WATCH_SEND_PER_EVENT.observe(took / events as f64);
            }
        }
    }

    fn send_burst(&mut self, stream: StreamId, burst: Burst) {
        let Some(outlet) = self.outlets.get_mut(&stream.0) else { return };
        failpoint::point!("beforeSendWatchResponse");
        let (begun, count) = (Instant::now(), burst.count());
        outlet.send(Told::Burst(burst), count);
        let took = begun.elapsed().as_secs_f64();
        metrics::WATCH_SEND.observe(took);
        metrics::WATCH_SEND_PER_EVENT.observe(took / count.max(1) as f64);
    }
}
