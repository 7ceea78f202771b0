//! What a proxy counts: its calls as a member counts them, and what it spared the cluster.

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response};
use http_body::Frame;
use rpc::metrics::{self, Passing};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::{Code, Status};

/// Bytes before each message of gRPC: a flag and a length.
const PREFIX: usize = 5;

/// So many watchers got events that the cluster did not have to send.
pub fn events_coalesced(watchers: usize) {
    metrics::PROXY_EVENTS.add(watchers as u64);
}

/// Counts how a call is answered; one that is none of etcd's is not counted.
pub fn counted(passing: Option<Passing>, response: Response<Body>) -> Response<Body> {
    let Some(mut passing) = passing else { return response };
    if let Some(code) = code_of(response.headers()) {
        passing.end(code);
    }
    response.map(|body| Body::new(Counting { body, passing, messages: Messages::default() }))
}

fn code_of(fields: &HeaderMap) -> Option<Code> {
    fields.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

/// A body whose messages are counted as they pass.
struct Counting {
    body: Body,
    passing: Passing,
    messages: Messages,
}

/// Where one message ends and the next begins.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; PREFIX],
    has: usize,
    /// Bytes of the message that are to come.
    left: usize,
}

impl Messages {
    /// How many messages begin with these bytes, and their lengths' sum.
    fn take(&mut self, mut bytes: &[u8]) -> (u64, u64) {
        let (mut count, mut sum) = (0, 0);
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            bytes.advance(skipped);
            self.left -= skipped;
            let Some(first) = bytes.first().filter(|_| self.left == 0) else { break };
            self.prefix[self.has] = *first;
            self.has += 1;
            bytes.advance(1);
            if self.has == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                self.has = 0;
                count += 1;
                sum += self.left as u64;
            }
        }
        (count, sum)
    }
}

impl http_body::Body for Counting {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(data) = frame.data_ref() {
                let (messages, bytes) = this.messages.take(data);
                this.passing.sent(messages, bytes);
            }
            if let Some(code) = frame.trailers_ref().and_then(code_of) {
                this.passing.end(code);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_they_are_cut() {
        let stream = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9];
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let all = stream.chunks(size).map(|chunk| messages.take(chunk));
            assert_eq!(all.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (3, 4), "{size}");
        }
    }
}
