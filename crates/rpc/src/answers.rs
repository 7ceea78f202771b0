//! Answers on the wire: messages with their prefix, one of them or a stream, then the trailers that tell how the call
//! ended. Calls that are refused have only headers.

use crate::ends::{End, Open};
use crate::messages::PREFIX;
use crate::metrics::calls::Counted;
use bytes::{BufMut as _, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Frame, SizeHint};
use prost::Message;
use server::Encoded;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_stream::Stream;
use tonic::{Code, Status};

/// Bytes of a stream's messages that are sent together when they are there together.
pub(crate) const TOGETHER: usize = 32 << 10;

/// Bytes that are handed to the connection at once: other calls of the thread get their turn in between.
const PIECE: usize = 64 << 10;
/// Bytes of a message at most: grpc-go's clients and servers take no more.
const MESSAGE_MAX: usize = i32::MAX as usize;

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
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(CONTENT_TYPE, content_type);
    tell(why, &mut headers);
    *response.headers_mut() = headers;
    response
}

/// The response of a stream that ended before its first message: as in grpc-go, there is only a head.
pub(crate) fn ended(mut response: Response<Body>, trailers: HeaderMap) -> Response<Body> {
    response.headers_mut().remove(GRPC_ENCODING);
    response.headers_mut().extend(trailers);
    *response.body_mut() = Body::Empty;
    response
}

fn trailers(why: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    tell(why, &mut trailers);
    trailers
}

fn tell(why: &Status, fields: &mut HeaderMap) {
    // Texts are escaped: only metadata could fail, and there is none.
    let outcome = why.add_header(fields);
    debug_assert!(outcome.is_ok(), "{why}");
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

/// Adds a message with its prefix, or nothing where it can't be sent. As grpc-go: an empty message is never compressed.
pub(crate) fn append(out: &mut Vec<u8>, message: &impl Message, gzip: bool) -> Result<(), Status> {
    let length = message.encoded_len();
    if gzip && length > 0 {
        return append_packed(out, &message.encode_to_vec());
    }
    let prefix = sendable(length)?.to_be_bytes();
    match out.is_empty() {
        // Most often it is the only one.
        true => out.reserve_exact(PREFIX + length),
        false => out.reserve(PREFIX + length),
    }
    out.put_u8(0);
    out.put_slice(&prefix);
    message.encode_raw(out);
    Ok(())
}

/// The same of a message whose fields are encoded already.
pub(crate) fn append_pieces(out: &mut Vec<u8>, pieces: &[&[u8]], gzip: bool) -> Result<(), Status> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    if gzip && length > 0 {
        return append_packed(out, &pieces.concat());
    }
    out.reserve(PREFIX + length);
    out.put_u8(0);
    out.put_u32(sendable(length)?);
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    Ok(())
}

fn append_packed(out: &mut Vec<u8>, plain: &[u8]) -> Result<(), Status> {
    let begin = out.len();
    out.extend_from_slice(&[1, 0, 0, 0, 0]);
    let packed = crate::gzip::deflate(plain, out)
        .map_err(|e| Status::internal(format!("grpc: error while compressing: {e}")))
        .and_then(|()| sendable(out.len() - begin - PREFIX));
    match packed {
        Ok(length) => out[begin + 1..begin + PREFIX].copy_from_slice(&length.to_be_bytes()),
        Err(_) => out.truncate(begin),
    }
    packed.map(drop)
}

fn sendable(length: usize) -> Result<u32, Status> {
    if length > MESSAGE_MAX {
        let text = format!("grpc: trying to send message larger than max ({length} vs. {MESSAGE_MAX})");
        return Err(Status::resource_exhausted(text));
    }
    // As many bits.
    Ok(length as u32)
}

/// The body of a response.
pub(crate) enum Body {
    Empty,
    /// Not gRPC's: nothing follows.
    Text(Bytes),
    /// One message, prefix included; `None` once it is sent and its trailers are not.
    Message(Option<Bytes>),
    /// One large message, prefix included, a frame each.
    Pieces(std::vec::IntoIter<Bytes>),
    Stream(Box<dyn Flow>),
}

/// A stream of answers.
pub(crate) trait Flow: Send {
    /// Until it is known how the response begins. As in grpc-go, its head goes with the first message, and with the end
    /// where there is none; but it goes alone where no answer is on its way. Answers the trailers of a stream that
    /// ended.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>>;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>>;

    fn is_over(&self) -> bool;
}

impl Body {
    /// A message and the trailers of a call that went well.
    pub fn of(message: &impl Message, gzip: bool) -> Result<Body, Status> {
        frame(message, gzip).map(Body::message)
    }

    /// The same of a message that has its prefix.
    pub fn message(framed: Bytes) -> Body {
        Body::Message(Some(framed))
    }

    /// Bytes of its one message.
    pub fn message_bytes(&self) -> u64 {
        let framed = match self {
            Body::Message(Some(framed)) => framed.len(),
            Body::Pieces(pieces) => pieces.as_slice().iter().map(Bytes::len).sum(),
            Body::Empty | Body::Text(_) | Body::Message(None) | Body::Stream(_) => 0,
        };
        framed.saturating_sub(PREFIX) as u64
    }

    /// The same of a message that is encoded already.
    pub fn of_encoded(message: Encoded, gzip: bool) -> Result<Body, Status> {
        if gzip {
            let mut out = Vec::new();
            append_packed(&mut out, &message.to_vec())?;
            return Ok(Body::Message(Some(out.into())));
        }
        let mut prefix = Vec::with_capacity(PREFIX);
        prefix.put_u8(0);
        prefix.put_u32(sendable(message.len())?);
        let mut pieces = message.into_pieces();
        pieces.insert(0, prefix.into());
        Ok(Body::Pieces(pieces.into_iter()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let frame = match this {
            Body::Stream(flow) => return flow.poll_frame(cx).map(|frame| frame.map(Ok)),
            Body::Empty => return Poll::Ready(None),
            Body::Text(text) => Frame::data(std::mem::take(text)),
            Body::Message(message) => match message {
                Some(rest) if rest.len() > PIECE => return Poll::Ready(Some(Ok(Frame::data(rest.split_to(PIECE))))),
                Some(_) => return Poll::Ready(message.take().map(|last| Ok(Frame::data(last)))),
                None => Frame::trailers(fine()),
            },
            Body::Pieces(pieces) => match pieces.next() {
                Some(piece) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => Frame::trailers(fine()),
            },
        };
        *this = Body::Empty;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Text(_) | Body::Message(_) | Body::Pieces(_) => false,
            Body::Stream(flow) => flow.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Text(text) => SizeHint::with_exact(text.len() as u64),
            Body::Message(_) | Body::Pieces(_) | Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// What a stream's answer needs besides its messages.
pub(crate) struct Terms {
    pub gzip: bool,
    /// What ends the stream if it does not end by itself.
    pub end: End,
    pub open: Open,
    pub counted: Option<Counted>,
}

/// Messages as a body, until they end or have to.
pub(crate) struct Streamed<S, T> {
    phase: Phase<S>,
    append: Append<T>,
    /// What was there when the head went.
    data: Vec<u8>,
    /// What is being handed to the connection.
    sending: Bytes,
    /// Whether an answer is on its way.
    soon: fn(&S) -> bool,
    gzip: bool,
    end: End,
    _open: Open,
    counted: Option<Counted>,
}

/// Adds a message with its prefix; the flag asks for gzip.
type Append<T> = fn(&T, &mut Vec<u8>, bool) -> Result<(), Status>;

enum Phase<S> {
    Flowing(S),
    /// Trailers to come.
    Ended(Status),
    Over,
}

impl<S, T> Streamed<S, T>
where
    S: Stream<Item = Result<T, Status>> + Unpin + Send + 'static,
    T: Message + 'static,
{
    pub fn body(messages: S, terms: Terms) -> Body {
        Streamed::answering(messages, |_| false, terms)
    }

    /// A body that knows from `soon` when an answer is on its way.
    pub fn answering(messages: S, soon: fn(&S) -> bool, terms: Terms) -> Body {
        Streamed::appending(messages, |message, out, gzip| append(out, message, gzip), soon, terms)
    }
}

impl<S, T> Streamed<S, T>
where
    S: Stream<Item = Result<T, Status>> + Unpin + Send + 'static,
    T: 'static,
{
    /// A body of messages that are encoded in their own way.
    pub fn appending(messages: S, append: Append<T>, soon: fn(&S) -> bool, terms: Terms) -> Body {
        let Terms { gzip, end, open, counted } = terms;
        let phase = Phase::Flowing(messages);
        Body::Stream(Box::new(Streamed {
            phase,
            append,
            data: Vec::new(),
            sending: Bytes::new(),
            soon,
            gzip,
            end,
            _open: open,
            counted,
        }))
    }

    /// Gathers what is there, or learns the end.
    fn advance(&mut self, cx: &mut Context<'_>) -> Result<(), Waits> {
        let Phase::Flowing(messages) = &mut self.phase else { return Ok(()) };
        if let Poll::Ready(why) = gather(messages, self.append, &mut self.data, self.gzip, cx) {
            self.phase = Phase::Ended(why);
            return Ok(());
        }
        if !self.data.is_empty() {
            return Ok(());
        }
        let soon = (self.soon)(messages);
        match self.end.poll_unless_answered(soon, cx) {
            Poll::Ready(why) => self.phase = Phase::Ended(why),
            Poll::Pending => return Err(Waits { soon }),
        }
        Ok(())
    }

    /// The trailers of a stream that has ended.
    fn trailers(&mut self) -> Option<HeaderMap> {
        if let (Phase::Ended(why), Some(counted)) = (&self.phase, &mut self.counted) {
            match why.code() {
                Code::Ok => {
                    counted.note(|| "OK".to_owned());
                    counted.end(Code::Ok);
                }
                _ => counted.fail(why),
            }
        }
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Ended(why) if why.code() == Code::Ok => Some(fine()),
            Phase::Ended(why) => Some(trailers(&why)),
            Phase::Flowing(_) | Phase::Over => None,
        }
    }
}

/// There is nothing yet; whether there is soon.
struct Waits {
    soon: bool,
}

impl<S, T> Flow for Streamed<S, T>
where
    S: Stream<Item = Result<T, Status>> + Unpin + Send + 'static,
    T: 'static,
{
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        match self.advance(cx) {
            Err(Waits { soon: true }) => Poll::Pending,
            Ok(()) if self.data.is_empty() => Poll::Ready(self.trailers()),
            Ok(()) | Err(Waits { soon: false }) => Poll::Ready(None),
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.sending.is_empty() && self.data.is_empty() && self.advance(cx).is_err() {
            return Poll::Pending;
        }
        if !self.data.is_empty() {
            if let Some(counted) = &self.counted {
                let (messages, bytes) = tally(&self.data);
                counted.sent(messages, bytes);
            }
            self.sending = std::mem::take(&mut self.data).into();
        }
        Poll::Ready(match self.sending.len() {
            0 => self.trailers().map(Frame::trailers),
            length => Some(Frame::data(self.sending.split_to(length.min(PIECE)))),
        })
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }
}

/// Messages with their prefixes, and their bytes without.
fn tally(mut framed: &[u8]) -> (u64, u64) {
    let (mut messages, mut bytes) = (0, 0);
    while let Some(([_, length @ ..], rest)) = framed.split_first_chunk::<PREFIX>() {
        let length = u32::from_be_bytes(*length) as usize;
        (messages, bytes) = (messages + 1, bytes + length as u64);
        framed = rest.get(length..).unwrap_or_default();
    }
    (messages, bytes)
}

/// Adds the messages that are there, up to [`TOGETHER`]; ready with the stream's end.
fn gather<S, T>(
    messages: &mut S,
    append: Append<T>,
    data: &mut Vec<u8>,
    gzip: bool,
    cx: &mut Context<'_>,
) -> Poll<Status>
where
    S: Stream<Item = Result<T, Status>> + Unpin,
{
    while data.len() < TOGETHER {
        match std::task::ready!(Pin::new(&mut *messages).poll_next(cx)) {
            Some(Ok(message)) => {
                if let Err(why) = append(&message, data, gzip) {
                    return Poll::Ready(why);
                }
                // Packing takes its time, and what it makes says nothing of how much that was.
                if gzip {
                    return Poll::Pending;
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
