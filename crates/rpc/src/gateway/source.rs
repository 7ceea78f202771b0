//! Where a request's JSON comes from, and how it goes on as a gRPC body inside the process.

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Bytes of a refused request that are read for nothing; as many as Go's server reads.
const SPENT_MAX: u64 = 256 << 10;

/// Bytes of a request as they come.
pub(crate) enum Source {
    /// The body of an HTTP request.
    Http(Incoming),
    /// Texts of a websocket.
    Texts(mpsc::Receiver<Bytes>),
    /// Pieces that are there.
    Pieces(VecDeque<Bytes>),
}

impl Source {
    pub fn pieces(pieces: impl IntoIterator<Item = Bytes>) -> Source {
        Source::Pieces(pieces.into_iter().collect())
    }

    /// The next bytes; `None` at the end, and where the client is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self {
            Source::Http(body) => loop {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?.ok()?;
                if let Ok(data) = frame.into_data() {
                    return Some(data);
                }
            },
            Source::Texts(texts) => texts.recv().await,
            Source::Pieces(pieces) => pieces.pop_front(),
        }
    }

    /// Reads what is left of a request of known, small length before it is refused. Over HTTP/2 a stream whose request was not
    /// read ends with a reset behind the answer: a client that is still sending sees that first (curl: code 92) and loses
    /// the answer. One whose requests have no known end may wait for the answer before it goes on.
    pub async fn spend(mut self) {
        let Source::Http(body) = &self else { return };
        if body.size_hint().upper().is_some_and(|length| length <= SPENT_MAX) {
            while self.next().await.is_some() {}
        }
    }
}

/// The requests of a gRPC call: off the network, or from a door of our own.
pub(crate) enum Requests {
    Network(Incoming),
    /// One message with its prefix.
    One(Option<Bytes>),
    /// Messages with their prefixes.
    Many(mpsc::Receiver<Bytes>),
}

impl Body for Requests {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Requests::Network(body) => Pin::new(body).poll_frame(cx),
            Requests::One(message) => Poll::Ready(message.take().map(|message| Ok(Frame::data(message)))),
            Requests::Many(messages) => messages.poll_recv(cx).map(|message| message.map(|m| Ok(Frame::data(m)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Requests::Network(body) => body.is_end_stream(),
            Requests::One(message) => message.is_none(),
            Requests::Many(messages) => messages.is_closed() && messages.is_empty(),
        }
    }
}
