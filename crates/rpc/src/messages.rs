//! Messages out of a request's body, in grpc-go's order of checks and with its words.
//!
//! ```text
//! | flag 1: 0 plain, 1 compressed | length 4, big endian | message … |      however DATA frames cut it
//! ```
//!
//! A message that lies in one frame is a slice of it; else the frames are gathered into one buffer, of no more than
//! the largest message and a frame.

use crate::gateway::Requests;
use crate::metrics::calls::Meter;
use bytes::Bytes;
use http_body::Body;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;

/// Flag and length before each message.
pub(crate) const PREFIX: usize = 5;

/// Why there is no next message, where the body did not just end.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The body ended within a message: each kind of call has its own code for that.
    Cut,
    Refused(Status),
}

/// The messages of a body.
pub(crate) struct Messages<B = Requests> {
    body: B,
    held: Held,
    /// Bytes that a message may have, plain.
    limit: usize,
    /// The request's `grpc-encoding` is gzip.
    gzip: bool,
    /// Counts what comes.
    meter: Option<Meter>,
}

/// What has come and is no message yet.
enum Held {
    /// Of one frame, perhaps empty.
    Frame(Bytes),
    Gathered(Vec<u8>),
}

impl<B> Messages<B> {
    pub fn new(body: B, limit: usize, gzip: bool) -> Messages<B> {
        Messages { body, held: Held::Frame(Bytes::new()), limit, gzip, meter: None }
    }

    /// The same, counted.
    pub fn counted_by(self, meter: Option<Meter>) -> Messages<B> {
        Messages { meter, ..self }
    }
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    /// The next message, plain; `None` at the end. After an error there is none.
    pub fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Unread>> {
        loop {
            if let Some(message) = self.split().map_err(Unread::Refused)? {
                if let Some(meter) = self.meter {
                    meter.received(message.len());
                }
                return Poll::Ready(Ok(Some(message)));
            }
            let data = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().ok(),
                Some(Err(e)) => return Poll::Ready(Err(Unread::Refused(Status::from_error(e.into())))),
                None => None,
            };
            match data {
                Some(data) => self.held.add(data),
                // As in grpc-go, a few bytes of a prefix are nothing.
                None if self.held.bytes().len() < PREFIX => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(Unread::Cut)),
            }
        }
    }

    /// Ready when the client has ended its side; what it still sends is nobody's.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.body.is_end_stream() {
            if !matches!(ready!(Pin::new(&mut self.body).poll_frame(cx)), Some(Ok(_))) {
                break;
            }
        }
        Poll::Ready(())
    }

    pub async fn message(&mut self) -> Result<Option<Bytes>, Unread> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Takes a message off what is held, once it is whole.
    fn split(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((&[flag, ref length @ ..], rest)) = self.held.bytes().split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.limit {
            let text = format!("grpc: received message larger than max ({length} vs. {})", self.limit);
            return Err(Status::resource_exhausted(text));
        }
        match flag {
            0 => {}
            1 if self.gzip => {}
            1 => return Err(Status::internal("grpc: compressed flag set with identity or empty encoding")),
            flag => return Err(Status::internal(format!("grpc: received unexpected payload format {flag}"))),
        }
        if rest.len() < length {
            return Ok(None);
        }
        let message = self.held.take(PREFIX + length).slice(PREFIX..);
        if flag == 0 { Ok(Some(message)) } else { crate::gzip::inflate(&message, self.limit).map(Some) }
    }
}

impl Held {
    fn bytes(&self) -> &[u8] {
        match self {
            Held::Frame(bytes) => bytes,
            Held::Gathered(bytes) => bytes,
        }
    }

    fn add(&mut self, data: Bytes) {
        match self {
            Held::Frame(bytes) if bytes.is_empty() => *bytes = data,
            Held::Frame(bytes) => *self = Held::Gathered([&bytes[..], &data[..]].concat()),
            Held::Gathered(bytes) => bytes.extend_from_slice(&data),
        }
    }

    /// The first `n` bytes; there are so many.
    fn take(&mut self, n: usize) -> Bytes {
        let mut first = match self {
            Held::Frame(bytes) => std::mem::take(bytes),
            Held::Gathered(bytes) => Bytes::from(std::mem::take(bytes)),
        };
        *self = Held::Frame(first.split_off(n));
        first
    }
}

#[cfg(test)]
mod tests;
