//! Lease.LeaseKeepAlive without a task of its own: the response's body reads the requests. Clients open a stream for
//! a single keepalive, so setting one up has to be cheap.

use crate::answers::{Body, Streamed, Terms};
use crate::backend::{Answer, Caller, Member};
use crate::messages::Messages;
use crate::services::{Services, status, unexpected};
use crate::streams::{malformed, unreadable};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use hyper::body::Incoming;
use prost::Message as _;
use server::{Request, Response};
use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_stream::Stream;
use tonic::Status;

/// Keepalives of a stream that may be on their way; then it is not read.
const ON_THEIR_WAY_MAX: usize = 1024;

/// One answer a request, in order. Requests that come together are asked together: all leases of a client share a
/// stream, and must not wait for one another.
struct KeepAlive<M, B = Incoming> {
    services: Services<M>,
    caller: Caller,
    /// `None` after their end.
    requests: Option<Messages<B>>,
    asked: VecDeque<Answer>,
    /// What was wrong with a request: told after the answers to those before it.
    failed: Option<Status>,
}

impl<M: Member> Services<M> {
    pub fn keep_alive(&self, caller: Caller, requests: Messages, terms: Terms) -> Body {
        let requests = Some(requests);
        let stream = KeepAlive { services: self.clone(), caller, requests, asked: VecDeque::new(), failed: None };
        Streamed::answering(stream, |stream| !stream.asked.is_empty(), terms)
    }
}

impl<M, B> KeepAlive<M, B>
where
    M: Member,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    /// Asks what has come.
    fn ask(&mut self, cx: &mut Context<'_>) {
        while let Some(requests) = &mut self.requests
            && self.asked.len() < ON_THEIR_WAY_MAX
        {
            let Poll::Ready(message) = requests.poll_message(cx) else { return };
            let request = message.map_err(unreadable).and_then(|message| {
                message.map(pb::LeaseKeepAliveRequest::decode).transpose().map_err(|e| malformed(&e))
            });
            match request {
                Ok(Some(request)) => {
                    self.asked.push_back(self.services.0.call(self.caller.clone(), Request::LeaseKeepAlive(request)));
                }
                Ok(None) => self.requests = None,
                Err(why) => {
                    self.requests = None;
                    self.failed = Some(why);
                }
            }
        }
    }
}

impl<M, B> Stream for KeepAlive<M, B>
where
    M: Member,
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin,
{
    type Item = Result<pb::LeaseKeepAliveResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.ask(cx);
        let Some(first) = this.asked.front_mut() else {
            return match (&this.requests, this.failed.take()) {
                (Some(_), _) => Poll::Pending,
                (None, failed) => Poll::Ready(failed.map(Err)),
            };
        };
        let answer = ready!(Pin::new(first).poll(cx)).unwrap_or(Err(api::Error::Stopped));
        this.asked.pop_front();
        Poll::Ready(Some(match answer {
            Ok(Response::LeaseKeepAlive(response)) => Ok(response),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(status(&e)),
        }))
    }
}
