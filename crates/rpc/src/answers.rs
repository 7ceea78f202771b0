//! Answers on the wire: messages with their prefix, one of them or a stream, then the trailers that tell how the call
//! ended. Calls that are refused have only headers.

use crate::ends::{End, Open};
use crate::messages::PREFIX;
use bytes::{BufMut as _, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use prost::Message;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tonic::{Code, Status};

/// Bytes of a stream's messages that are sent together when they are there together.
const TOGETHER: usize = 32 << 10;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A call's answer that went well so far.
pub(crate) fn answered(content_type: HeaderValue, gzip: bool, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CONTENT_TYPE, content_type);
    if gzip {
        headers.insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
    }
    *response.headers_mut() = headers;
    response
}

/// A call's answer where there is no message.
pub(crate) fn refused(code: StatusCode, content_type: HeaderValue, why: &Status) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = code;
    *response.headers_mut() = trailers(why);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn trailers(why: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    // Texts are escaped: only metadata could fail, and there is none.
    let outcome = why.add_header(&mut trailers);
    debug_assert!(outcome.is_ok(), "{why}");
    trailers
}

fn fine() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// A message with its prefix.
pub(crate) fn frame(message: &impl Message, gzip: bool) -> Result<Bytes, Status> {
    let mut out = Vec::new();
    append(&mut out, message, gzip)?;
    Ok(out.into())
}

/// As grpc-go: an empty message is never compressed.
fn append(out: &mut Vec<u8>, message: &impl Message, gzip: bool) -> Result<(), Status> {
    let length = message.encoded_len();
    if gzip && length > 0 {
        return append_packed(out, &message.encode_to_vec());
    }
    match out.is_empty() {
        // Most often it is the only one.
        true => out.reserve_exact(PREFIX + length),
        false => out.reserve(PREFIX + length),
    }
    out.put_u8(0);
    out.put_u32(sendable(length)?);
    message.encode_raw(out);
    Ok(())
}

fn append_packed(out: &mut Vec<u8>, plain: &[u8]) -> Result<(), Status> {
    let begin = out.len();
    out.extend_from_slice(&[1, 0, 0, 0, 0]);
    crate::gzip::deflate(plain, out).map_err(|e| Status::internal(format!("grpc: error while compressing: {e}")))?;
    let length = sendable(out.len() - begin - PREFIX)?;
    out[begin + 1..begin + PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

fn sendable(length: usize) -> Result<u32, Status> {
    let too_large = |_| Status::resource_exhausted(format!("grpc: message too large ({length} bytes)"));
    u32::try_from(length).map_err(too_large)
}

/// The body of a response.
pub(crate) enum Body {
    Empty,
    /// Not gRPC's: nothing follows.
    Text(Bytes),
    /// One message, prefix included; `None` once it is sent and its trailers are not.
    Message(Option<Bytes>),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = Infallible> + Send>>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let frame = match this {
            Body::Stream(body) => return body.as_mut().poll_frame(cx),
            Body::Empty => return Poll::Ready(None),
            Body::Text(text) => Frame::data(std::mem::take(text)),
            Body::Message(message) => match message.take() {
                Some(message) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                None => Frame::trailers(fine()),
            },
        };
        *this = Body::Empty;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Text(_) | Body::Message(_) => false,
            Body::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Text(text) => SizeHint::with_exact(text.len() as u64),
            Body::Message(_) | Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// What a stream's answer needs besides its messages.
pub(crate) struct Terms {
    pub gzip: bool,
    /// What ends the stream if it does not end by itself.
    pub end: End,
    pub open: Open,
}

/// Messages as a body, until they end or have to.
pub(crate) struct Streamed<S> {
    phase: Phase<S>,
    gzip: bool,
    end: End,
    _open: Open,
}

enum Phase<S> {
    Flowing(S),
    /// Trailers to come.
    Ended(Status),
    Over,
}

impl<S, T> Streamed<S>
where
    S: Stream<Item = Result<T, Status>> + Unpin + Send + 'static,
    T: Message + 'static,
{
    pub fn body(messages: S, terms: Terms) -> Body {
        let Terms { gzip, end, open } = terms;
        Body::Stream(Box::pin(Streamed { phase: Phase::Flowing(messages), gzip, end, _open: open }))
    }
}

impl<S, T> http_body::Body for Streamed<S>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
    T: Message,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Streamed { phase, gzip, end, .. } = self.get_mut();
        if let Phase::Flowing(messages) = phase {
            let mut data = Vec::new();
            if let Poll::Ready(why) = gather(messages, &mut data, *gzip, cx) {
                *phase = Phase::Ended(why);
            } else if data.is_empty() {
                *phase = Phase::Ended(std::task::ready!(end.poll(cx)));
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data.into()))));
            }
        }
        Poll::Ready(match std::mem::replace(phase, Phase::Over) {
            Phase::Ended(why) if why.code() == Code::Ok => Some(Ok(Frame::trailers(fine()))),
            Phase::Ended(why) => Some(Ok(Frame::trailers(trailers(&why)))),
            Phase::Flowing(_) | Phase::Over => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
}

/// Adds the messages that are there, up to [`TOGETHER`]; ready with the stream's end.
fn gather<S, T>(messages: &mut S, data: &mut Vec<u8>, gzip: bool, cx: &mut Context<'_>) -> Poll<Status>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
    T: Message,
{
    while data.len() < TOGETHER {
        match std::task::ready!(Pin::new(&mut *messages).poll_next(cx)) {
            Some(Ok(message)) => {
                if let Err(why) = append(data, &message, gzip) {
                    return Poll::Ready(why);
                }
            }
            Some(Err(why)) => return Poll::Ready(why),
            None => return Poll::Ready(Status::ok("")),
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests;
