//! From a gRPC response inside the process to an HTTP one: a message becomes its JSON, a stream's messages a line each.

use super::error::{JSON, line, refused, refused_stream};
use super::json::{encode_answer, escape_html};
use crate::answers::{Body, Flow};
use crate::messages::PREFIX;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body as _, Frame};
use prost_reflect::MessageDescriptor;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::{Code, Status};

/// Bytes from which on a message is worked on elsewhere: so much takes about a millisecond, and the thread serves others.
pub(crate) const HERE_MAX: usize = 64 << 10;

/// What grpc-gateway passes on of a response's head.
const CONTENT_TYPE_OF_CALL: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// The messages of a gRPC response, and how it ended.
struct Replies {
    body: Body,
    held: BytesMut,
    end: Option<Status>,
}

impl Replies {
    fn new(response: Response<Body>) -> Replies {
        let end = Status::from_header_map(response.headers());
        Replies { body: response.into_body(), held: BytesMut::new(), end }
    }

    /// The next message; `None` after the last of a call that went well.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            if let Some(message) = self.split() {
                return Poll::Ready(Some(Ok(message)));
            }
            if let Some(end) = &self.end {
                let failed = (end.code() != Code::Ok).then(|| Err(end.clone()));
                self.end = Some(Status::ok(""));
                return Poll::Ready(failed);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held.extend_from_slice(&data),
                    Err(frame) => self.end = frame.into_trailers().ok().and_then(|t| Status::from_header_map(&t)),
                },
                None => self.end = Some(Status::internal("the call ended without a word")),
                Some(Err(never)) => match never {},
            }
        }
    }

    fn split(&mut self) -> Option<Bytes> {
        let (prefix, _) = self.held.split_first_chunk::<PREFIX>()?;
        let [_, length @ ..] = *prefix;
        let end = PREFIX + u32::from_be_bytes(length) as usize;
        (self.held.len() >= end).then(|| self.held.split_to(end).freeze().slice(PREFIX..))
    }

    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// The answer of a call with one message.
pub(crate) async fn unary(kind: MessageDescriptor, response: Response<Body>) -> Response<Body> {
    let mut replies = Replies::new(response);
    let mut message = Bytes::new();
    while let Some(reply) = replies.next().await {
        match reply {
            Ok(reply) => message = reply,
            // grpc-gateway tells nothing of the call's head where it failed.
            Err(why) => return refused(&why),
        }
    }
    let large = message.len() > HERE_MAX;
    let encode = move || {
        let mut out = Vec::with_capacity(message.len() * 2);
        encode_answer(&kind, &message, &mut out).map(|()| out)
    };
    let json = if large { elsewhere(encode).await } else { encode() };
    match json {
        Ok(json) => with_metadata(well(Body::Text(json.into()))),
        Err(why) => refused(&Status::internal(why)),
    }
}

/// Runs what takes long, without keeping this thread's other calls waiting.
pub(crate) async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

/// The answer of a call with a stream of messages. It begins with the first of them, as grpc-gateway's.
pub(crate) async fn stream(kind: MessageDescriptor, response: Response<Body>) -> Response<Body> {
    let mut replies = Replies::new(response);
    match replies.next().await {
        None => Response::new(Body::Empty),
        Some(Err(why)) => refused_stream(&why),
        Some(Ok(first)) => {
            let lines = Lines { first: Some(first), replies, kind, over: false };
            with_metadata(well(Body::Stream(Box::new(lines))))
        }
    }
}

fn well(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn with_metadata(mut response: Response<Body>) -> Response<Body> {
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE_OF_CALL, grpc);
    response
}

/// `{"result":{…}}`, a line each.
struct Lines {
    first: Option<Bytes>,
    replies: Replies,
    kind: MessageDescriptor,
    over: bool,
}

impl Lines {
    fn line(&self, message: &[u8]) -> Result<Vec<u8>, Status> {
        let mut out = Vec::with_capacity(message.len() * 2);
        out.extend_from_slice(b"{\"result\":");
        encode_answer(&self.kind, message, &mut out).map_err(Status::internal)?;
        out.extend_from_slice(b"}\n");
        Ok(escape_html(out))
    }
}

impl Flow for Lines {
    fn poll_head(&mut self, _: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        Poll::Ready(None)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let reply = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => ready!(self.replies.poll_next(cx)),
        };
        let outcome = reply.map(|reply| reply.and_then(|message| self.line(&message)));
        self.over = !matches!(outcome, Some(Ok(_)));
        Poll::Ready(match outcome {
            Some(Ok(json)) => Some(Frame::data(json.into())),
            Some(Err(why)) => Some(Frame::data(line(&why).into())),
            None => None,
        })
    }

    fn is_over(&self) -> bool {
        self.over
    }
}
