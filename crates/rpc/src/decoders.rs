//! What reads bytes from outside, opened to the fuzzer (crate `oxetcd-fuzz`). No part of this crate's interface.

use crate::backend::{Caller, Member};
use crate::messages::{Messages, Unread};
use crate::methods::{Kind, Service};
use crate::services::Services;
use crate::{dispatch, frames, gateway, gzip};
use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame};
use prost::DecodeError;
use server::Request;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tonic::Status;

pub use crate::peer::decoders as peer;
pub use crate::serve::serve_one;

/// Pieces that are all there.
struct Pieces(VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// All messages of a body that arrives in pieces of so many bytes.
///
/// # Errors
/// As a caller is told. A body that ends within a message is [`tonic::Code::Internal`] here.
pub fn messages(body: &[u8], piece: usize, limit: usize, gzip: bool) -> Result<Vec<Bytes>, Status> {
    let pieces = body.chunks(piece.max(1)).map(Bytes::copy_from_slice).collect();
    let mut messages = Messages::new(Pieces(pieces), limit, gzip);
    let mut cx = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        match messages.poll_message(&mut cx) {
            Poll::Ready(Ok(Some(message))) => all.push(message),
            Poll::Ready(Ok(None)) => return Ok(all),
            Poll::Ready(Err(Unread::Refused(status))) => return Err(status),
            Poll::Ready(Err(Unread::Cut)) => return Err(Status::internal("cut")),
            Poll::Pending => return Err(Status::internal("pieces that are there were waited for")),
        }
    }
}

/// A message without its compression.
///
/// # Errors
/// It is no gzip, or larger than `limit`.
pub fn inflate(packed: &[u8], limit: usize) -> Result<Bytes, Status> {
    gzip::inflate(packed, limit)
}

/// A request of the gateway as its gRPC message, without the prefix.
///
/// # Errors
/// The parser's text, or that there is no such method.
pub fn json_request(path: &str, json: &[u8]) -> Result<Bytes, String> {
    let (kind, _) = gateway::messages_of(path).ok_or("no such method")?;
    gateway::decode_request(&kind, json).map(|framed| framed.slice(crate::messages::PREFIX..))
}

/// A message that goes into a method as JSON.
///
/// # Errors
/// It is none.
pub fn json_of_request(path: &str, message: &[u8]) -> Result<Vec<u8>, String> {
    let (kind, _) = gateway::messages_of(path).ok_or("no such method")?;
    let mut json = Vec::new();
    gateway::encode_answer(&kind, message, &mut json).map(|()| json)
}

/// JSON values of a body that arrives in pieces of so many bytes: where each ends.
pub fn json_values(body: &[u8], piece: usize) -> Vec<Bytes> {
    let (mut scanner, mut held, mut values) = (gateway::Scanner::default(), Vec::new(), Vec::new());
    for piece in body.chunks(piece.max(1)) {
        held.extend_from_slice(piece);
        while let Some(end) = scanner.scan(&held) {
            let rest = held.split_off(end);
            values.push(std::mem::replace(&mut held, rest).into());
            scanner = gateway::Scanner::default();
        }
    }
    values
}

/// What `/proc` says of a process and its network.
pub fn proc_files(text: &str) -> bool {
    crate::metrics::reads_proc(text)
}

/// Queries of the pages below `/debug/`: whether they name addresses or a list.
pub fn debug_pages(query: &str) -> bool {
    crate::debug::understands(query)
}

/// The HTTP/2 frames that begin in these bytes, and whether another could begin behind them.
pub fn frames(bytes: &[u8], piece: usize) -> (usize, bool) {
    let (mut scanner, mut seen) = (frames::Scanner::default(), 0);
    bytes.chunks(piece.max(1)).for_each(|piece| scanner.feed(piece, |_| seen += 1));
    (seen, scanner.between_frames())
}

/// `grpc-timeout`.
///
/// # Errors
/// grpc-go's text.
pub fn deadline(text: &HeaderValue) -> Result<Option<Duration>, String> {
    dispatch::deadline(Some(text))
}

/// `content-type`.
///
/// # Errors
/// grpc-go's.
pub fn content_type(text: &HeaderValue) -> Result<HeaderValue, Status> {
    dispatch::grpc_content_type(Some(text))
}

/// What a method makes of a request's bytes.
#[derive(Debug)]
pub enum Decoded {
    /// The member's to answer.
    Request(Box<Request>),
    /// This crate's to answer.
    Served,
    /// Needs a connection.
    Stream,
}

/// `/service/method` of all methods.
pub fn methods<M: Member>() -> Vec<String> {
    let of = |service: &'static Service<M>| service.methods.iter().map(|m| format!("/{}/{}", service.name, m.name));
    Service::<M>::ALL.iter().flat_map(of).collect()
}

/// Reads a request as its method does.
///
/// # Errors
/// It is none.
pub fn request<M: Member>(member: &Arc<M>, path: &str, bytes: Bytes) -> Result<Decoded, DecodeError> {
    let Ok(method) = dispatch::find::<M>(path) else { return Ok(Decoded::Stream) };
    match &method.kind {
        Kind::Asked(asked) => (asked.decode)(bytes).map(|request| Decoded::Request(Box::new(request))),
        Kind::Served(serve) => {
            serve(&Services(member.clone()), Caller::default(), bytes, false).map(|_| Decoded::Served)
        }
        Kind::Many(_) | Kind::Both(_) => Ok(Decoded::Stream),
    }
}
