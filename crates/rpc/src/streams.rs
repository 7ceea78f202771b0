//! What flows out of streamed calls: how each kind of stream ends, and grpc-go's texts for requests that can't be read.

use crate::backend::Pieces;
use crate::messages::{Messages, Unread};
use crate::services::status;
use api::pb::etcdserverpb as pb;
use prost::{DecodeError, Message as _};
use std::pin::Pin;
use std::task::{Context, Poll};
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
    responses: mpsc::Receiver<pb::WatchResponse>,
    /// Why the client's side ended; a sender that is gone is a client that only half-closed.
    failed: Option<oneshot::Receiver<Status>>,
    ended: bool,
}

impl Watching {
    pub fn new(responses: mpsc::Receiver<pb::WatchResponse>, failed: oneshot::Receiver<Status>) -> Watching {
        Watching { responses, failed: Some(failed), ended: false }
    }
}

impl Stream for Watching {
    type Item = Result<pb::WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(failed) = &mut this.failed
            && let Poll::Ready(outcome) = Pin::new(failed).poll(cx)
        {
            this.failed = None;
            if let Ok(why) = outcome {
                this.ended = true;
                return Poll::Ready(Some(Err(why)));
            }
        }
        match std::task::ready!(this.responses.poll_recv(cx)) {
            Some(response) => Poll::Ready(Some(Ok(response))),
            None => {
                this.ended = true;
                // A member that stops: Unavailable, so that clients go on elsewhere. Canceled would end Go's watchers
                // for good.
                Poll::Ready(Some(Err(status(&api::Error::Stopped))))
            }
        }
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
        let mut watching = Watching::new(incoming, failure);
        failed.send(Status::internal("bad")).unwrap();
        assert_eq!(watching.next().await.unwrap().unwrap_err().message(), "bad");
        assert!(watching.next().await.is_none());
        drop(responses);

        let (responses, incoming) = mpsc::channel(8);
        let (failed, failure) = oneshot::channel();
        let mut watching = Watching::new(incoming, failure);
        drop(failed);
        responses.send(pb::WatchResponse::default()).await.unwrap();
        assert!(watching.next().await.unwrap().is_ok());
        drop(responses);
        assert_eq!(watching.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
}
