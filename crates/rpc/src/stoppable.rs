//! Responses and what ends them from outside: the stop of the member, the loss of its leader, the call's deadline. An
//! endless stream ends with the status that makes clients go elsewhere, everything else is waited for.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Held while a call is open; the server's stop waits for the last of them.
pub(crate) type Open = mpsc::Sender<()>;
/// What connections hold between calls.
pub(crate) type WeakOpen = mpsc::WeakSender<()>;

/// Why a stream has to end, once it has.
pub(crate) type End = Pin<Box<dyn Future<Output = tonic::Status> + Send>>;

/// Passes `inner` on until `end`; then drops it and sends trailers.
pub(crate) struct Stoppable {
    /// `None` once the end was sent.
    inner: Option<tonic::body::Body>,
    end: End,
    _open: Open,
}

impl Stoppable {
    /// A body that `end` ends, if it does not end by itself.
    pub(crate) fn new(inner: tonic::body::Body, end: End, open: Open) -> Stoppable {
        Stoppable { inner: Some(inner), end, _open: open }
    }
}

impl Body for Stoppable {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Poll::Ready(why) = this.end.as_mut().poll(cx) else { return Poll::Pending };
        this.inner = None;
        let mut trailers = http::HeaderMap::new();
        if let Err(e) = why.add_header(&mut trailers) {
            return Poll::Ready(Some(Err(e)));
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
