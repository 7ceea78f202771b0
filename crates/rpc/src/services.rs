//! What the services have in common, and those of the member's that are streams.

use crate::answers::{Body, Streamed, Terms};
use crate::backend::{Caller, Member};
use crate::messages::Messages;
use crate::streams::{Finite, Watching, forward};
use api::pb::etcdserverpb as pb;
use prost::Message as _;
use server::{Request, Response};
use std::sync::Arc;
use tokio::sync::oneshot;
use tonic::Status;

/// The services over one member.
pub(crate) struct Services<M>(pub Arc<M>);

impl<M> Clone for Services<M> {
    fn clone(&self) -> Self {
        Services(self.0.clone())
    }
}

/// etcd's error as a gRPC status.
pub(crate) fn status(e: &api::Error) -> Status {
    Status::new(tonic::Code::from_i32(e.code() as i32), e.message())
}

/// A fault of ours.
pub(crate) fn unexpected(answer: &Response) -> Status {
    Status::internal(format!("the member answered {answer:?}"))
}

impl<M: Member> Services<M> {
    pub async fn ask(&self, caller: Caller, request: Request) -> Result<Response, api::Error> {
        match self.0.call(caller, request).await.unwrap_or(Err(api::Error::Stopped))? {
            Response::LargeRange(encoded) => {
                let range = pb::RangeResponse::decode(encoded.to_vec().as_slice());
                range.map(Response::Range).map_err(|e| api::Error::Other(e.to_string().into()))
            }
            response => Ok(response),
        }
    }

    pub fn range_stream(&self, caller: Caller, request: pb::RangeRequest, terms: Terms) -> Body {
        Streamed::body(Finite::new(self.0.range_stream(caller, request)), terms)
    }

    pub fn snapshot(&self, caller: Caller, _: pb::SnapshotRequest, terms: Terms) -> Body {
        Streamed::body(Finite::new(self.0.snapshot(caller)), terms)
    }

    pub fn watch(&self, caller: Caller, requests: Messages, terms: Terms) -> Body {
        let stream = self.0.watch(caller);
        let (failed, failure) = oneshot::channel();
        // A task of its own: requests are taken also while the client does not read the responses.
        tokio::spawn(forward(requests, stream.requests, failed));
        let watching = Watching::new(stream.responses, stream.taken, failure);
        Streamed::appending(watching, crate::streams::Responses::append, |_| false, terms)
    }
}
