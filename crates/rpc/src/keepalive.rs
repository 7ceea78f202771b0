//! Lease.LeaseKeepAlive. Clients open a stream for a single keepalive, so setting one up has to be cheap: the response's
//! body reads the request. A stream with a second one gets a task that reads on, also while the client takes no answers
//! (its window may be full of something else): its leases must not expire for that.

use crate::answers::{Body, Streamed, Terms};
use crate::backend::{Answer, Caller, Member};
use crate::messages::{Messages, Unread};
use crate::services::{Services, status, unexpected};
use crate::streams::{malformed, unreadable};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use server::{Request, Response};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

/// Keepalives of a stream that may be on their way; then it is not read.
const ON_THEIR_WAY_MAX: usize = 1024;

/// One answer a request, in order. Requests that come together are asked together: all leases of a client share a
/// stream, and must not wait for one another.
struct KeepAlive<M> {
    services: Services<M>,
    caller: Caller,
    requests: Requests,
    asked: VecDeque<Answer>,
    /// What was wrong with a request: told after the answers to those before it.
    failed: Option<Status>,
}

/// Where requests come from.
enum Requests {
    /// None has come yet.
    First(Messages),
    /// One has.
    Second(Messages),
    /// A task reads them, and asks.
    Asked(mpsc::Receiver<Result<Answer, Status>>),
    Ended,
}

impl<M: Member> Services<M> {
    pub fn keep_alive(&self, caller: Caller, requests: Messages, terms: Terms) -> Body {
        let requests = Requests::First(requests);
        let stream = KeepAlive { services: self.clone(), caller, requests, asked: VecDeque::new(), failed: None };
        Streamed::answering(stream, |stream| !stream.asked.is_empty(), terms)
    }
}

/// Asks for one lease; `None` at the end of the requests.
fn ask<M: Member>(
    services: &Services<M>,
    caller: &Caller,
    message: Result<Option<Bytes>, Unread>,
) -> Result<Option<Answer>, Status> {
    let Some(message) = message.map_err(unreadable)? else { return Ok(None) };
    let request = pb::LeaseKeepAliveRequest::decode(message).map_err(|e| malformed(&e))?;
    Ok(Some(services.0.call(caller.clone(), Request::LeaseKeepAlive(request))))
}

/// Reads on until either side ends.
async fn read_on<M: Member>(
    services: Services<M>,
    caller: Caller,
    mut requests: Messages,
    asked: mpsc::Sender<Result<Answer, Status>>,
) {
    loop {
        let Ok(room) = asked.reserve().await else { return };
        let message = tokio::select! {
            message = requests.message() => message,
            () = asked.closed() => return,
        };
        match ask(&services, &caller, message) {
            Ok(Some(answer)) => room.send(Ok(answer)),
            Ok(None) => return,
            Err(why) => return room.send(Err(why)),
        }
    }
}

impl<M: Member> KeepAlive<M> {
    /// Asks what has come.
    fn ask(&mut self, cx: &mut Context<'_>) {
        while self.asked.len() < ON_THEIR_WAY_MAX {
            let asked = match &mut self.requests {
                Requests::First(requests) | Requests::Second(requests) => {
                    let Poll::Ready(message) = requests.poll_message(cx) else { return };
                    ask(&self.services, &self.caller, message)
                }
                Requests::Asked(asked) => {
                    let Poll::Ready(asked) = asked.poll_recv(cx) else { return };
                    asked.transpose()
                }
                Requests::Ended => return,
            };
            self.requests = match (std::mem::replace(&mut self.requests, Requests::Ended), &asked) {
                (_, Ok(None) | Err(_)) => Requests::Ended,
                (Requests::First(requests), _) => Requests::Second(requests),
                (Requests::Second(requests), _) => self.hand_over(requests),
                (later, _) => later,
            };
            match asked {
                Ok(answer) => self.asked.extend(answer),
                Err(why) => self.failed = Some(why),
            }
        }
    }

    fn hand_over(&self, requests: Messages) -> Requests {
        let (out, asked) = mpsc::channel(ON_THEIR_WAY_MAX);
        tokio::spawn(read_on(self.services.clone(), self.caller.clone(), requests, out));
        Requests::Asked(asked)
    }
}

impl<M: Member> Stream for KeepAlive<M> {
    type Item = Result<pb::LeaseKeepAliveResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.ask(cx);
        let Some(first) = this.asked.front_mut() else {
            return match (&this.requests, this.failed.take()) {
                (Requests::Ended, failed) => Poll::Ready(failed.map(Err)),
                _ => Poll::Pending,
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
