//! What flows out of streamed calls: how each kind of stream ends, and grpc-go's texts for requests that can't be read.

use crate::answers::{append, append_pieces};
use crate::backend::{Pieces, Told};
use crate::messages::{Messages, Unread};
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

/// A burst on its way out.
struct Parts {
    /// The field `header`, encoded.
    header: Bytes,
    watch_ids: std::vec::IntoIter<i64>,
    events: Arc<Events>,
}

/// A response of a watch stream.
pub(crate) enum Response {
    Whole(pb::WatchResponse),
    /// One of a burst: header and events are encoded already.
    Part {
        header: Bytes,
        watch_id: i64,
        events: Arc<Events>,
    },
}

impl Response {
    /// Adds it with its prefix.
    pub fn append(&self, out: &mut Vec<u8>, gzip: bool) -> Result<(), Status> {
        match self {
            Response::Whole(response) => append(out, response, gzip),
            Response::Part { header, watch_id, events } => {
                // Fields in the order of their numbers, as everyone encodes them: header, id, events.
                let id = pb::WatchResponse { watch_id: *watch_id, ..Default::default() };
                append_pieces(out, &[header, &id.encode_to_vec(), events.encoded()], gzip)
            }
        }
    }
}

impl From<Burst> for Parts {
    fn from(burst: Burst) -> Parts {
        let header = pb::WatchResponse { header: Some(burst.header), ..Default::default() };
        Parts { header: header.encode_to_vec().into(), watch_ids: burst.watch_ids.into_iter(), events: burst.events }
    }
}

impl Watching {
    pub fn new(told: mpsc::Receiver<Told>, taken: Arc<AtomicUsize>, failed: oneshot::Receiver<Status>) -> Watching {
        Watching { told, taken, burst: None, failed: Some(failed), ended: false }
    }

    /// The next of a burst that has begun.
    fn next_part(&mut self) -> Option<Response> {
        let Parts { header, watch_ids, events } = self.burst.as_mut()?;
        let Some(watch_id) = watch_ids.next() else {
            self.burst = None;
            return None;
        };
        Some(Response::Part { header: header.clone(), watch_id, events: events.clone() })
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
    type Item = Result<Response, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(why) = this.poll_failed(cx) {
            this.ended = true;
            return Poll::Ready(Some(Err(why)));
        }
        let response = loop {
            if let Some(part) = this.next_part() {
                break part;
            }
            match std::task::ready!(this.told.poll_recv(cx)) {
                Some(Told::Response(response)) => break Response::Whole(response),
                Some(Told::Burst(burst)) => this.burst = Some(burst.into()),
                None => {
                    this.ended = true;
                    // A member that stops: Unavailable, so that clients go on elsewhere. Canceled would end Go's
                    // watchers for good.
                    return Poll::Ready(Some(Err(status(&api::Error::Stopped))));
                }
            }
        };
        this.taken.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(response)))
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
            // Nobody listens where the client is gone.
            Err(why) => return drop(failed.send(why)),
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
    fn a_burst() -> (Burst, Vec<pb::WatchResponse>) {
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
        let kv = Arc::new(KeyValue { key: "k".into(), value: "v".into(), mod_revision: 2, ..Default::default() });
        let change = store::Change { revision: 2, events: [store::Event::Put { kv, prev: store::Prev::None }].into() };
        hub.handle(Input::Published { revision: 2, term: 3, changes: vec![change] }, &mut out);
        match out.pop() {
            Some(Effect::SendBurst { burst, .. }) => (burst.clone(), burst.responses().collect()),
            other => unreachable!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_responses_of_a_burst_are_what_each_would_be_alone() {
        let (burst, whole) = a_burst();
        assert_eq!(whole.iter().map(|r| (r.watch_id, r.events.len())).collect::<Vec<_>>(), [(0, 1), (1, 1), (2, 1)]);
        for gzip in [false, true] {
            let (told, incoming) = mpsc::channel(8);
            let (_failed, failure) = oneshot::channel();
            let taken = Arc::<AtomicUsize>::default();
            let mut watching = Watching::new(incoming, taken.clone(), failure);
            told.send(Told::Burst(burst.clone())).await.unwrap();
            for (n, whole) in whole.iter().enumerate() {
                let part = watching.next().await.unwrap().unwrap_or_else(|e| unreachable!("{e}"));
                let (mut ours, mut theirs) = (Vec::new(), Vec::new());
                part.append(&mut ours, gzip).unwrap();
                append(&mut theirs, whole, gzip).unwrap();
                assert_eq!(ours, theirs);
                assert_eq!(taken.load(Ordering::Relaxed), n + 1);
            }
        }
    }
}
