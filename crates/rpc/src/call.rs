//! One call: the future that hyper makes a task of. It is kept small, since it is moved into that task; what is rare
//! is boxed.
//!
//! ```text
//! Reading ─request─► Asked (the member answers) ──► Ending ─end of the requests─► response
//!    │  └──────────► Served (a service of ours does) ─┘
//!    └─ end of the requests ─► a stream's response            End may cut in anywhere
//! ```
//!
//! An answer that overtook the end of its requests would reset their stream; h2 counts such resets, and past a thousand
//! takes the client for an attacker and ends the connection.

use crate::answers::{Body, Terms, answered, ended, refused};
use crate::backend::{Answer, Caller, Member};
use crate::dispatch::Port;
use crate::ends::{End, Open};
use crate::messages::{Messages, Unread};
use crate::methods::{Kind, Method, Work};
use crate::metrics::{self, calls::Counted};
use crate::services::status;
use crate::slow::{self, Remembered};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use prost::DecodeError;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use store::Kind as Kinds;
use tonic::{Code, Status};

/// A call on its way to its response.
pub(crate) struct Call<M: Member>(State<M>);

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every call is of the largest; a box would cost each an allocation"
)]
enum State<M: Member> {
    /// `None` once it was taken.
    Answered(Option<Response<Body>>),
    /// … and a stream, whose head may have to wait.
    Opened(Option<Response<Body>>),
    Working(Working<M>),
    /// Not gRPC's, and rare.
    Boxed(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// A call whose response is not there yet.
pub(crate) struct Working<M: Member> {
    pub port: Arc<Port<M>>,
    pub method: &'static Method<M>,
    /// The response's.
    pub content_type: HeaderValue,
    pub gzip: bool,
    /// Both are `None` once a stream's response has them.
    pub end: Option<End>,
    pub open: Option<Open>,
    pub counted: Option<Counted>,
    /// For the log, should it take long.
    pub told: Remembered,
    /// What the member was asked.
    pub asked: Option<Kinds>,
    pub messages: Messages,
    pub step: Step,
}

pub(crate) enum Step {
    Reading {
        caller: Caller,
        /// The request of a call that has a stream for an answer: the end of the requests is still to come.
        first: Option<Bytes>,
    },
    Asked(Answer),
    Served(Work),
    /// Answered, but the client has not ended its side.
    Ending(Option<Result<Body, Status>>),
}

impl<M: Member> Call<M> {
    pub fn answered(response: Response<Body>) -> Call<M> {
        Call(State::Answered(Some(response)))
    }

    pub fn boxed(response: impl Future<Output = Response<Body>> + Send + 'static) -> Call<M> {
        Call(State::Boxed(Box::pin(response)))
    }

    pub fn opened(response: Response<Body>) -> Call<M> {
        Call(State::Opened(Some(response)))
    }

    pub fn working(call: Working<M>) -> Call<M> {
        Call(State::Working(call))
    }
}

impl<M: Member> Future for Call<M> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Answered(response) => Poll::Ready(Ok(taken(response))),
            State::Boxed(response) => response.as_mut().poll(cx).map(Ok),
            State::Opened(response) => {
                if let Some(Body::Stream(flow)) = response.as_mut().map(Response::body_mut)
                    && let Some(trailers) = ready!(flow.poll_head(cx))
                {
                    return Poll::Ready(Ok(ended(taken(response), trailers)));
                }
                Poll::Ready(Ok(taken(response)))
            }
            State::Working(call) => {
                let outcome = ready!(call.poll(cx));
                call.count(&outcome);
                let content_type = call.content_type.clone();
                Poll::Ready(Ok(match outcome {
                    Ok(body) => answered(content_type, call.gzip, body),
                    Err(why) => refused(StatusCode::OK, content_type, &why),
                }))
            }
        }
    }
}

fn taken(response: &mut Option<Response<Body>>) -> Response<Body> {
    response.take().expect("a future is not polled after it was ready")
}

impl<M: Member> Working<M> {
    fn count(&mut self, outcome: &Result<Body, Status>) {
        // A stream's body counts for itself.
        let Some(counted) = &mut self.counted else { return };
        if let Some(kind) = self.asked {
            // As etcd: what the store refused was answered all the same.
            let lost = |why: &Status| {
                matches!(why.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Internal)
            };
            let read = matches!(kind, Kinds::Range | Kinds::ReadonlyTxn);
            let well = outcome.as_ref().err().is_none_or(|why| !read && !lost(why));
            metrics::REQUEST.of(kind, well).observe_seconds(counted.begun.elapsed());
        }
        match outcome {
            Ok(body) => {
                counted.note(|| "OK".to_owned());
                counted.sent(1, body.message_bytes());
                counted.end(Code::Ok);
            }
            Err(why) => counted.fail(why),
        }
        self.told.tell(counted, self.port.limits.slow_call, outcome.as_ref().ok().map(Body::message_bytes));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Status>> {
        // A call whose time is over is not begun.
        if let Some(end) = &mut self.end
            && let Poll::Ready(why) = end.poll(cx)
        {
            return Poll::Ready(Err(why));
        }
        loop {
            let message = match &mut self.step {
                Step::Reading { first, .. } if self.method.kind.is_stream() => {
                    ready!(only(&mut self.messages, first, cx))
                }
                Step::Reading { .. } => ready!(self.messages.poll_message(cx)).map_err(unreadable).and_then(
                    // grpc-go's word for nothing, where it reads the one request of a unary call.
                    |message| message.ok_or_else(|| Status::unknown("EOF")),
                ),
                Step::Asked(answer) => {
                    let answer = ready!(Pin::new(answer).poll(cx)).unwrap_or(Err(api::Error::Stopped));
                    self.told.answer(&answer);
                    self.step = Step::Ending(Some(self.encode(answer)));
                    continue;
                }
                Step::Served(work) => {
                    let answer = ready!(work.as_mut().poll(cx)).map(Body::message);
                    self.step = Step::Ending(Some(answer));
                    continue;
                }
                Step::Ending(answer) => {
                    ready!(self.messages.poll_end(cx));
                    return Poll::Ready(answer.take().expect("a future is not polled after it was ready"));
                }
            };
            match message.and_then(|message| self.begin(message)) {
                Ok(None) => {}
                Ok(Some(stream)) => return Poll::Ready(Ok(stream)),
                Err(why) => return Poll::Ready(Err(why)),
            }
        }
    }

    /// The request is there. Answers the body where that is a stream.
    fn begin(&mut self, message: Bytes) -> Result<Option<Body>, Status> {
        let services = &self.port.services;
        let caller = match &mut self.step {
            Step::Reading { caller, .. } => std::mem::take(caller),
            Step::Asked(_) | Step::Served(_) | Step::Ending(_) => Caller::default(),
        };
        self.told.request(&message);
        if let Some(counted) = &self.counted {
            counted.note(|| format!("recv: {}", slow::content(&counted.method(), &message)));
        }
        self.step = match &self.method.kind {
            Kind::Asked(asked) => {
                let request = (asked.decode)(message).map_err(|e| malformed(&e))?;
                self.asked = kind_of(&request);
                Step::Asked(services.0.call(caller, request))
            }
            Kind::Served(serve) => {
                Step::Served(serve(services, caller, message, self.gzip).map_err(|e| malformed(&e))?)
            }
            Kind::Many(open) => {
                let terms = self.end.take().zip(self.open.take());
                let counted = self.counted.take();
                let terms = terms.map(|(end, open)| Terms { gzip: self.gzip, end, open, counted });
                let terms = terms.expect("a stream begins once");
                return open(services, caller, message, terms).map(Some).map_err(|e| crate::streams::malformed(&e));
            }
            Kind::Both(_) => return Err(Status::internal("a stream of requests has no first one")),
        };
        Ok(None)
    }

    fn encode(&self, answer: Result<server::Response, api::Error>) -> Result<Body, Status> {
        let response = answer.map_err(|e| status(&e))?;
        match &self.method.kind {
            Kind::Asked(asked) => (asked.encode)(response, self.gzip),
            _ => Err(crate::services::unexpected(&response)),
        }
    }
}

/// What etcd's metrics call a request: of those that the store answers.
fn kind_of(request: &server::Request) -> Option<Kinds> {
    use server::Request;
    Some(match request {
        Request::Range(_) => Kinds::Range,
        Request::Put(_) => Kinds::Put,
        Request::DeleteRange(_) => Kinds::DeleteRange,
        Request::Txn(r) if store::validate::is_read_only(r) => Kinds::ReadonlyTxn,
        Request::Txn(_) => Kinds::Txn,
        Request::Compact(_) => Kinds::Compaction,
        Request::LeaseGrant(_) => Kinds::LeaseGrant,
        Request::LeaseRevoke(_) => Kinds::LeaseRevoke,
        Request::Alarm(_) => Kinds::Alarm,
        Request::Authenticate(_) | Request::AssignToken(_) => Kinds::Authenticate,
        Request::AuthEnable(_) => Kinds::AuthEnable,
        Request::AuthDisable(_) => Kinds::AuthDisable,
        Request::UserAdd(_) => Kinds::AuthUserAdd,
        Request::UserGet(_) => Kinds::AuthUserGet,
        Request::UserList(_) => Kinds::AuthUserList,
        Request::UserDelete(_) => Kinds::AuthUserDelete,
        Request::UserChangePassword(_) => Kinds::AuthUserChangePassword,
        Request::UserGrantRole(_) => Kinds::AuthUserGrantRole,
        Request::UserRevokeRole(_) => Kinds::AuthUserRevokeRole,
        Request::RoleAdd(_) => Kinds::AuthRoleAdd,
        Request::RoleGet(_) => Kinds::AuthRoleGet,
        Request::RoleList(_) => Kinds::AuthRoleList,
        Request::RoleDelete(_) => Kinds::AuthRoleDelete,
        Request::RoleGrantPermission(_) => Kinds::AuthRoleGrantPermission,
        Request::RoleRevokePermission(_) => Kinds::AuthRoleRevokePermission,
        Request::AuthStatus(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_)
        | Request::Status(_)
        | Request::Defragment(_)
        | Request::Hash(_)
        | Request::HashKv(_)
        | Request::MoveLeader(_)
        | Request::Downgrade(_)
        | Request::MemberAdd(_)
        | Request::MemberRemove(_)
        | Request::MemberUpdate(_)
        | Request::MemberPromote(_)
        | Request::MemberList(_)
        | Request::Snapshot(_) => return None,
    })
}

/// The one request of a call that has a stream for an answer, once the client said that there is no other.
fn only(messages: &mut Messages, first: &mut Option<Bytes>, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
    loop {
        let message = ready!(messages.poll_message(cx)).map_err(crate::streams::unreadable)?;
        match (message, first.take()) {
            (Some(message), None) => *first = Some(message),
            (None, Some(message)) => return Poll::Ready(Ok(message)),
            (None, None) => {
                let text = "cardinality violation: received no request message from non-client-streaming RPC";
                return Poll::Ready(Err(Status::internal(text)));
            }
            (Some(_), Some(_)) => {
                let text = "cardinality violation: received multiple request messages for non-client-streaming RPC";
                return Poll::Ready(Err(Status::internal(text)));
            }
        }
    }
}

fn unreadable(why: Unread) -> Status {
    match why {
        Unread::Cut => Status::unknown("unexpected EOF"),
        Unread::Refused(why) => why,
    }
}

fn malformed(e: &DecodeError) -> Status {
    Status::internal(format!("grpc: error unmarshalling request: {e}"))
}

#[cfg(test)]
pub(crate) mod tests;
