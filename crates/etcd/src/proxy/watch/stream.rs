//! One watch stream of a client: its watchers' ids, and an outbox that they share.

use super::hub::{Range, Watcher, Watches};
use api::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use pb::watch_request::RequestUnion;
use prost::Message as _;
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{Notify, mpsc};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;

/// Responses that wait for a client (etcd has as many), and their bytes. One that finds no room leaves its group.
const RESPONSES_MAX: usize = 1024;
const BYTES_MAX: usize = 16 << 20;
/// Watchers of a stream that have ended and whose ids are remembered.
const ENDED_MAX: usize = 4096;
/// The id of a watcher that never was, and of what concerns all of a stream (clientv3 `InvalidWatchID`).
const NO_WATCHER: i64 = -1;

/// Responses on their way to one client, and what is known of its watchers.
#[derive(Debug)]
pub struct Outbox {
    watches: Arc<Watches>,
    out: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    bytes: AtomicUsize,
    /// Told of whenever the client has taken something.
    taken: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    watchers: HashMap<i64, Range>,
    next_id: i64,
    /// Watchers that the cluster has ended and the client has not canceled: their ids are theirs until then.
    ended: HashSet<i64>,
    /// Found no room; they begin again when there is some.
    aside: Vec<(Range, Watcher)>,
    /// Somebody waits for room.
    is_waiting: bool,
    /// Ends for which there was no room.
    ends: Vec<pb::WatchResponse>,
    /// How the stream ends, where there was no room to say so.
    failure: Option<Status>,
    progress: Option<Progress>,
    /// The newest header that was sent.
    header: Option<pb::ResponseHeader>,
}

/// A progress request that is not answered yet.
#[derive(Debug)]
struct Progress {
    waiting: HashSet<i64>,
    /// All watchers have had what happened up to here.
    floor: i64,
}

/// What became of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    Taken,
    Full,
    /// Nobody reads any more, or the watcher has been canceled.
    Gone,
}

impl Outbox {
    /// Whether there is such a watcher.
    pub fn has(&self, id: i64) -> bool {
        self.inner.lock().watchers.contains_key(&id)
    }

    /// Takes a watcher's response if there is room for it.
    pub fn offer(&self, response: pb::WatchResponse) -> Offered {
        self.offer_all(response.watch_id, vec![response])
    }

    /// Takes all pieces of a watcher's response, or none.
    pub fn offer_all(&self, id: i64, pieces: Vec<pb::WatchResponse>) -> Offered {
        let mut inner = self.inner.lock();
        if !inner.watchers.contains_key(&id) {
            return Offered::Gone;
        }
        // Who has nothing to read is given whatever it is, however large.
        if self.out.capacity() < pieces.len() && self.out.capacity() < RESPONSES_MAX {
            return Offered::Full;
        }
        for (n, piece) in pieces.into_iter().enumerate() {
            match self.push(&mut inner, piece, n == 0) {
                Offered::Taken => {}
                refused => return refused,
            }
        }
        Offered::Taken
    }

    /// `is_bounded`: by bytes, too.
    fn push(&self, inner: &mut Inner, response: pb::WatchResponse, is_bounded: bool) -> Offered {
        let size = response.encoded_len();
        let queued = self.bytes.load(Ordering::Relaxed);
        if is_bounded && queued > 0 && queued + size > BYTES_MAX {
            return Offered::Full;
        }
        let header = response.header;
        self.bytes.fetch_add(size, Ordering::Relaxed);
        match self.out.try_send(Ok(response)) {
            Ok(()) => {
                // What compaction ended has no revision in its header.
                let newest = |known: &pb::ResponseHeader| header.as_ref().is_none_or(|h| h.revision < known.revision);
                if !inner.header.as_ref().is_some_and(newest) {
                    inner.header = header;
                }
                Offered::Taken
            }
            Err(refused) => {
                self.bytes.fetch_sub(size, Ordering::Relaxed);
                match refused {
                    mpsc::error::TrySendError::Full(_) => Offered::Full,
                    mpsc::error::TrySendError::Closed(_) => Offered::Gone,
                }
            }
        }
    }

    /// Keeps a watcher that found no room.
    pub fn set_aside(self: &Arc<Self>, range: Range, watcher: Watcher) {
        let mut inner = self.inner.lock();
        if inner.watchers.contains_key(&watcher.id) {
            inner.aside.push((range, watcher));
            self.wait_for_room(&mut inner);
        }
    }

    fn wait_for_room(self: &Arc<Self>, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.is_waiting, true) {
            tokio::spawn(self.clone().resume());
        }
    }

    /// A watcher's last response.
    pub fn end_with(self: &Arc<Self>, id: i64, response: pb::WatchResponse) {
        let mut inner = self.inner.lock();
        if inner.watchers.remove(&id).is_none() {
            return;
        }
        if response.watch_id == id && inner.ended.len() < ENDED_MAX {
            inner.ended.insert(id);
        }
        self.say(&mut inner, response);
        self.settle(&mut inner, id, None);
    }

    /// What has to be said, now or when there is room.
    fn say(self: &Arc<Self>, inner: &mut Inner, response: pb::WatchResponse) {
        if !inner.ends.is_empty() || self.push(inner, response.clone(), true) == Offered::Full {
            inner.ends.push(response);
            self.wait_for_room(inner);
        }
    }

    /// Ends the stream.
    pub fn fail(self: &Arc<Self>, status: Status) {
        if let Err(mpsc::error::TrySendError::Full(Err(status))) = self.out.try_send(Err(status)) {
            let mut inner = self.inner.lock();
            inner.failure = Some(status);
            self.wait_for_room(&mut inner);
        }
    }

    /// Whether the client wants to know how far this watcher is.
    pub fn awaits_progress_of(&self, id: i64) -> bool {
        self.inner.lock().progress.as_ref().is_some_and(|progress| progress.waiting.contains(&id))
    }

    /// A watcher has had everything up to the header's revision.
    pub fn note_progress(&self, id: i64, header: Option<&pb::ResponseHeader>) {
        self.settle(&mut self.inner.lock(), id, header);
    }

    fn settle(&self, inner: &mut Inner, id: i64, header: Option<&pb::ResponseHeader>) {
        let Some(progress) = &mut inner.progress else { return };
        if !progress.waiting.remove(&id) {
            return;
        }
        if let Some(header) = header {
            progress.floor = progress.floor.min(header.revision);
        }
        if !progress.waiting.is_empty() {
            return;
        }
        let floor = progress.floor;
        inner.progress = None;
        let header = header.copied().or(inner.header);
        if let Some(header) = header.filter(|_| floor < i64::MAX) {
            let header = pb::ResponseHeader { revision: floor, ..header };
            // Where there is no room the client will ask once more.
            let told = pb::WatchResponse { header: Some(header), watch_id: NO_WATCHER, ..Default::default() };
            self.push(inner, told, true);
        }
    }

    /// Half of everything is free.
    fn has_room(&self) -> bool {
        self.out.capacity() >= RESPONSES_MAX / 2 && self.bytes.load(Ordering::Relaxed) <= BYTES_MAX / 2
    }

    /// Once there is room, or nobody left to read: what waited for it comes.
    async fn resume(self: Arc<Self>) {
        loop {
            let mut taken = std::pin::pin!(self.taken.notified());
            taken.as_mut().enable();
            if self.has_room() || self.out.is_closed() {
                break;
            }
            taken.await;
        }
        let mut inner = self.inner.lock();
        inner.is_waiting = false;
        let ends = std::mem::take(&mut inner.ends);
        ends.into_iter().for_each(|end| self.say(&mut inner, end));
        let (failure, aside) = (inner.failure.take(), std::mem::take(&mut inner.aside));
        drop(inner);
        if let Some(status) = failure {
            self.fail(status);
        }
        aside.into_iter().for_each(|(range, watcher)| self.watches.begin(&range, watcher));
    }
}

/// Who asks, and how.
#[derive(Clone, Debug)]
pub struct Terms {
    pub token: Option<String>,
    pub leader_required: bool,
}

/// Serves a stream: takes requests in a task of its own, answers the responses.
pub fn serve(watches: &Arc<Watches>, terms: Terms, requests: tonic::Streaming<pb::WatchRequest>) -> Responses {
    let (out, responses) = mpsc::channel(RESPONSES_MAX);
    let outbox = Outbox {
        watches: watches.clone(),
        out,
        bytes: AtomicUsize::new(0),
        taken: Notify::new(),
        inner: Mutex::default(),
    };
    let outbox = Arc::new(outbox);
    let asked = Asked { outbox: outbox.clone(), terms };
    let taking = tokio::spawn(asked.take(requests)).abort_handle();
    Responses { responses, outbox, taking }
}

/// The requests of a stream.
struct Asked {
    outbox: Arc<Outbox>,
    terms: Terms,
}

impl Asked {
    async fn take(self, mut requests: tonic::Streaming<pb::WatchRequest>) {
        loop {
            let request = match requests.next().await {
                Some(Ok(request)) => request,
                Some(Err(status)) => return self.outbox.fail(status),
                // The client has nothing more to ask: what it watches goes on, as at a member.
                None => return,
            };
            match request.request_union {
                Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
                Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
                Some(RequestUnion::ProgressRequest(_)) => self.progress(),
                // As at a member.
                None => {}
            }
        }
    }

    /// Waits for room: a client that does not read is not read from either.
    async fn reply(&self, response: pb::WatchResponse) {
        self.outbox.bytes.fetch_add(response.encoded_len(), Ordering::Relaxed);
        // The client is gone, or will see.
        drop(self.outbox.out.send(Ok(response)).await);
    }

    async fn refuse(&self, reason: &str) {
        let header = self.outbox.inner.lock().header.unwrap_or_default();
        let told = pb::WatchResponse {
            header: Some(header),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..Default::default()
        };
        self.reply(told).await;
    }

    async fn create(&self, request: pb::WatchCreateRequest) {
        let range = range_of(&request, self.terms.leader_required);
        let Some(id) = self.outbox.inner.lock().register(request.watch_id, &range) else {
            return self.refuse("mvcc: duplicate watch ID provided on the WatchStream").await;
        };
        let watcher = Watcher {
            outbox: self.outbox.clone(),
            id,
            next: request.start_revision,
            created: false,
            wants_progress: request.progress_notify,
            takes_fragments: request.fragment,
            filters: request.filters,
            token: self.terms.token.clone(),
        };
        self.outbox.watches.begin(&range, watcher);
    }

    async fn cancel(&self, id: i64) {
        let (range, was_ended, header) = {
            let mut inner = self.outbox.inner.lock();
            let (range, was_ended) = (inner.watchers.remove(&id), inner.ended.remove(&id));
            inner.aside.retain(|(_, watcher)| watcher.id != id);
            self.outbox.settle(&mut inner, id, None);
            (range, was_ended, inner.header)
        };
        match range {
            Some(range) => self.outbox.watches.end(&range, &self.outbox, id),
            None if was_ended => {}
            None => return,
        }
        let header = Some(header.unwrap_or_default());
        self.reply(pb::WatchResponse { header, watch_id: id, canceled: true, ..Default::default() }).await;
    }

    /// All watchers of the stream are asked about, and answered for by the slowest.
    fn progress(&self) {
        let watchers = {
            let mut inner = self.outbox.inner.lock();
            let waiting: HashSet<i64> = inner.watchers.keys().copied().collect();
            inner.progress = (!waiting.is_empty()).then_some(Progress { waiting, floor: i64::MAX });
            inner.watchers.clone()
        };
        for (id, range) in watchers {
            self.outbox.watches.ask_progress(&range, &self.outbox, id);
        }
    }
}

fn range_of(request: &pb::WatchCreateRequest, leader_required: bool) -> Range {
    Range { key: request.key.clone(), end: request.range_end.clone(), prev_kv: request.prev_kv, leader_required }
}

impl Inner {
    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.ended.contains(&id)
    }

    /// The id asked for, else the next that is free; `None`: the one asked for is taken.
    fn register(&mut self, wanted: i64, range: &Range) -> Option<i64> {
        let id = match wanted {
            0 => {
                while self.is_taken(self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            wanted if self.is_taken(wanted) => return None,
            wanted => wanted,
        };
        self.watchers.insert(id, range.clone());
        Some(id)
    }
}

/// The responses of a stream. Its watchers end with it.
#[derive(Debug)]
pub struct Responses {
    responses: mpsc::Receiver<Result<pb::WatchResponse, Status>>,
    outbox: Arc<Outbox>,
    taking: tokio::task::AbortHandle,
}

impl Stream for Responses {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let taken = this.responses.poll_recv(cx);
        if let Poll::Ready(Some(response)) = &taken {
            if let Ok(response) = response {
                this.outbox.bytes.fetch_sub(response.encoded_len(), Ordering::Relaxed);
            }
            this.outbox.taken.notify_waiters();
        }
        taken
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        self.taking.abort();
        self.responses.close();
        self.outbox.taken.notify_waiters();
        let watchers = {
            let mut inner = self.outbox.inner.lock();
            inner.aside.clear();
            std::mem::take(&mut inner.watchers)
        };
        for (id, range) in watchers {
            self.outbox.watches.end(&range, &self.outbox, id);
        }
    }
}
