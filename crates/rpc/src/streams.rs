//! What flows out of streamed calls: how each kind of stream ends, and grpc-go's texts for requests that can't be read.

use crate::answers::{TOGETHER, append, append_pieces};
use crate::backend::{Pieces, Told};
use crate::messages::{Messages, PREFIX, Unread};
use crate::services::status;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::{DecodeError, Message as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use store::watch::{Burst, Events};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

/// A stream that ends by itself. One that was given up must not look like one that is complete.
pub(crate) struct Finite<T> {
    pieces: Pieces<T>,
    ended: bool,
}

impl<T> Finite<T> {
    pub fn new(pieces: Pieces<T>) -> Finite<T> {
        Finite { pieces, ended: false }
    }
}

impl<T> Stream for Finite<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(this.pieces.poll_recv(cx));
        this.ended = !matches!(piece, Some(Ok(Some(_))));
        Poll::Ready(match piece {
            Some(Ok(piece)) => piece.map(Ok),
            Some(Err(e)) => Some(Err(status(&e))),
            None => Some(Err(Status::unavailable(
                "oxetcd: the stream was given up, since nothing was taken from it for too long: read it faster, or ask again",
            ))),
        })
    }
}

/// The responses of a watch stream: they end when a request can't be read, and when the member stops.
pub(crate) struct Watching {
    told: mpsc::Receiver<Told>,
    taken: Arc<AtomicUsize>,
    /// What is left of a burst.
    burst: Option<Parts>,
    /// Why the client's side ended; a sender that is gone is a client that only half-closed.
    failed: Option<oneshot::Receiver<Status>>,
    ended: bool,
}

/// Responses that are alike but for the watcher's id: header and events are encoded already.
pub(crate) struct Parts {
    /// The field `header`, encoded.
    header: Bytes,
    watch_ids: Vec<i64>,
    events: Arc<Events>,
}

/// Responses of a watch stream.
pub(crate) enum Responses {
    One(pb::WatchResponse),
    Parts(Parts),
}

/// Bytes of the field `watch_id` at most.
const ID_MAX: usize = 11;

impl Responses {
    /// Adds them with their prefixes.
    pub fn append(&self, out: &mut Vec<u8>, gzip: bool) -> Result<(), Status> {
        match self {
            Responses::One(response) => append(out, response, gzip),
            Responses::Parts(parts) => parts.append(out, gzip),
        }
    }
}

impl Parts {
    /// Bytes that each takes at most.
    fn each(&self) -> usize {
        PREFIX + self.header.len() + ID_MAX + self.events.encoded().len()
    }

    fn append(&self, out: &mut Vec<u8>, gzip: bool) -> Result<(), Status> {
        if !gzip {
            out.reserve(self.watch_ids.len() * self.each());
        }
        for watch_id in &self.watch_ids {
            let mut room = [0; ID_MAX];
            let id = id_field(*watch_id, &mut room);
            // Fields in the order of their numbers, as everyone encodes them: header, id, events.
            append_pieces(out, &[&self.header, id, self.events.encoded()], gzip)?;
        }
        Ok(())
    }

    /// The first of them, as many as go out together; the others stay.
    fn split(&mut self, together: usize) -> Parts {
        let count = (together / self.each()).clamp(1, self.watch_ids.len().max(1));
        let rest = self.watch_ids.split_off(count.min(self.watch_ids.len()));
        let watch_ids = std::mem::replace(&mut self.watch_ids, rest);
        Parts { header: self.header.clone(), watch_ids, events: self.events.clone() }
    }
}

/// The field `watch_id`, which is left out when it is 0.
fn id_field(watch_id: i64, room: &mut [u8; ID_MAX]) -> &[u8] {
    const WATCH_ID: u32 = 2;
    let mut left = room.as_mut_slice();
    if watch_id != 0 {
        prost::encoding::int64::encode(WATCH_ID, &watch_id, &mut left);
    }
    let length = ID_MAX - left.len();
    room.get(..length).unwrap_or_default()
}

impl From<Burst> for Parts {
    fn from(burst: Burst) -> Parts {
        let header = pb::WatchResponse { header: Some(burst.header), ..Default::default() };
        Parts { header: header.encode_to_vec().into(), watch_ids: burst.watch_ids, events: burst.events }
    }
}

impl Watching {
    pub fn new(told: mpsc::Receiver<Told>, taken: Arc<AtomicUsize>, failed: oneshot::Receiver<Status>) -> Watching {
        Watching { told, taken, burst: None, failed: Some(failed), ended: false }
    }

    /// The next of a burst that has begun, as many as go out together.
    fn next_parts(&mut self) -> Option<Parts> {
        let mut burst = self.burst.take()?;
        let parts = burst.split(TOGETHER);
        if !burst.watch_ids.is_empty() {
            self.burst = Some(burst);
        }
        Some(parts)
    }

    /// Why the client's side ended, if it failed.
    fn poll_failed(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        let failed = self.failed.as_mut()?;
        let Poll::Ready(outcome) = Pin::new(failed).poll(cx) else { return None };
        self.failed = None;
        outcome.ok()
    }
}

impl Stream for Watching {
    type Item = Result<Responses, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(why) = this.poll_failed(cx) {
            this.ended = true;
            return Poll::Ready(Some(Err(why)));
        }
        let (responses, count) = loop {
            if let Some(parts) = this.next_parts() {
                let count = parts.watch_ids.len();
                break (Responses::Parts(parts), count);
            }
            match std::task::ready!(this.told.poll_recv(cx)) {
                Some(Told::Response(response)) => break (Responses::One(response), 1),
                Some(Told::Burst(burst)) => this.burst = Some(burst.into()),
                None => {
                    this.ended = true;
                    // A member that stops: Unavailable, so that clients go on elsewhere. Canceled would end Go's
                    // watchers for good.
                    return Poll::Ready(Some(Err(status(&api::Error::Stopped))));
                }
            }
        };
        this.taken.fetch_add(count, Ordering::Relaxed);
        Poll::Ready(Some(Ok(responses)))
    }
}

/// Passes a watch stream's requests on until either side ends. Half-closing is fine: the responses go on. Dropping them
/// ends the stream.
pub(crate) async fn forward(
    mut incoming: Messages,
    requests: mpsc::Sender<pb::WatchRequest>,
    failed: oneshot::Sender<Status>,
) {
    loop {
        let message = tokio::select! {
            message = incoming.message() => message.map_err(unreadable),
            () = requests.closed() => return,
        };
        // From a slice, so that its fields are copied: watchers keep them, and must not keep a whole frame.
        let request = message.and_then(|message| {
            message.map(|bytes| pb::WatchRequest::decode(&bytes[..])).transpose().map_err(|e| malformed(&e))
        });
        match request {
            Ok(Some(request)) => {
                if requests.send(request).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(why) => {
                if why.code() != tonic::Code::Cancelled {
                    crate::metrics::STREAM_FAILURES.with(&["receive", "watch"], crate::metrics::Counter::inc);
                }
                // Nobody listens where the client is gone.
                return drop(failed.send(why));
            }
        }
    }
}

/// What grpc-go tells a client whose streamed request can't be read.
pub(crate) fn unreadable(why: Unread) -> Status {
    match why {
        Unread::Cut => Status::internal("unexpected EOF"),
        Unread::Refused(why) => why,
    }
}

/// … or not be decoded.
pub(crate) fn malformed(e: &DecodeError) -> Status {
    Status::internal(format!("grpc: failed to unmarshal the received message: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    #[tokio::test]
    async fn a_stream_that_was_given_up_does_not_look_complete() {
        let (out, pieces) = mpsc::channel(8);
        out.send(Ok(Some(1))).await.unwrap();
        out.send(Ok(Some(2))).await.unwrap();
        drop(out);
        let all: Vec<_> = Finite::new(pieces).collect().await;
        assert_eq!(all.len(), 3);
        assert_eq!(all[2].as_ref().unwrap_err().code(), Code::Unavailable);

        let (out, pieces) = mpsc::channel(8);
        out.send(Ok(Some(1))).await.unwrap();
        out.send(Ok(None)).await.unwrap();
        drop(out);
        let all: Vec<Result<i32, Status>> = Finite::new(pieces).collect().await;
        assert!(matches!(all[..], [Ok(1)]), "{all:?}");
    }

    #[tokio::test]
    async fn a_watch_stream_ends_with_what_was_wrong_with_a_request_but_not_by_half_closing() {
        let (responses, incoming) = mpsc::channel(8);
        let (failed, failure) = oneshot::channel();
        let mut watching = Watching::new(incoming, Arc::default(), failure);
        failed.send(Status::internal("bad")).unwrap();
        assert_eq!(watching.next().await.unwrap().err().unwrap().message(), "bad");
        assert!(watching.next().await.is_none());
        drop(responses);

        let (responses, incoming) = mpsc::channel(8);
        let (failed, failure) = oneshot::channel();
        let mut watching = Watching::new(incoming, Arc::default(), failure);
        drop(failed);
        responses.send(Told::Response(pb::WatchResponse::default())).await.unwrap();
        assert!(watching.next().await.unwrap().is_ok());
        drop(responses);
        assert_eq!(watching.next().await.unwrap().err().unwrap().code(), Code::Unavailable);
    }

    /// Any hub makes them: here one that watches a key three times.
    fn a_burst(value: usize) -> (Burst, Vec<pb::WatchResponse>) {
        use api::pb::mvccpb::KeyValue;
        use store::watch::{Config, Effect, Hub, Input, StreamId};
        let config = Config {
            member_id: 1,
            cluster_id: 2,
            revision: 1,
            term: 3,
            max_request_bytes: 1 << 20,
            progress_interval_ms: 1000,
        };
        let (mut hub, stream, mut out) = (Hub::new(config), StreamId(1), Vec::new());
        hub.handle(Input::Open { stream, now_ms: 0, jitter_ms: 0 }, &mut out);
        for _ in 0..3 {
            let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
            let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
            hub.handle(
                Input::Request { stream, request: pb::WatchRequest { request_union }, permitted: Ok(()) },
                &mut out,
            );
        }
        out.clear();
        let kv =
            Arc::new(KeyValue { key: "k".into(), value: vec![7; value].into(), mod_revision: 2, ..Default::default() });
        let change = store::Change { revision: 2, events: [store::Event::Put { kv, prev: store::Prev::None }].into() };
        hub.handle(Input::Published { revision: 2, term: 3, changes: vec![change] }, &mut out);
        match out.pop() {
            Some(Effect::SendBurst { burst, .. }) => (burst.clone(), burst.responses().collect()),
            other => unreachable!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_responses_of_a_burst_are_what_each_would_be_alone() {
        for (value, gzip, turns) in [(1, false, 1), (1, true, 1), (TOGETHER / 2, false, 3), (TOGETHER * 2, true, 3)] {
            let (burst, whole) = a_burst(value);
            let ids: Vec<_> = whole.iter().map(|r| (r.watch_id, r.events.len())).collect();
            assert_eq!(ids, [(0, 1), (1, 1), (2, 1)]);
            let (told, incoming) = mpsc::channel(8);
            let (_failed, failure) = oneshot::channel();
            let taken = Arc::<AtomicUsize>::default();
            let mut watching = Watching::new(incoming, taken.clone(), failure);
            told.send(Told::Burst(burst.clone())).await.unwrap();
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for turn in 1..=turns {
                let parts = watching.next().await.unwrap().unwrap_or_else(|e| unreachable!("{e}"));
                parts.append(&mut ours, gzip).unwrap();
                assert_eq!(taken.load(Ordering::Relaxed), whole.len() * turn / turns);
            }
            whole.iter().for_each(|whole| append(&mut theirs, whole, gzip).unwrap());
            assert_eq!(ours, theirs, "{value} bytes, gzip {gzip}");
        }
    }
}
