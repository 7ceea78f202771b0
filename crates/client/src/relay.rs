//! Calls of somebody else's, passed on as they are: a proxy's way to the cluster. Only the connection is chosen here; what
//! is asked and answered is not looked at.

use crate::call::Client;
use crate::dial::Link;
use http_body::Frame;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service as _;

impl Client {
    /// Sends a gRPC request of HTTP/2 to one endpoint and answers its response. Where the connection breaks while the answer
    /// comes, the answer ends with the status *unavailable*.
    ///
    /// # Errors
    /// No endpoint is connected in time, or the connection broke before an answer began.
    pub async fn relay(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let link = self.link().await?;
        let mut channel = link.channel.clone();
        let response = async {
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            channel.call(request).await
        };
        match response.await {
            Ok(response) => Ok(response.map(|body| Body::new(Relayed { body, link, over: false }))),
            Err(e) => {
                link.lose();
                Err(Status::unavailable(format!("error reading from server: {e}")))
            }
        }
    }
}

/// An answer that is on its way.
struct Relayed {
    body: Body,
    link: Arc<Link>,
    over: bool,
}

impl http_body::Body for Relayed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let failed = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Err(failed)) => failed,
            other => return Poll::Ready(other),
        };
        this.over = true;
        this.link.lose();
        let told = Status::unavailable(format!("error reading from server: {}", failed.message()));
        let mut trailers = http::HeaderMap::with_capacity(2);
        Poll::Ready(Some(told.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}
