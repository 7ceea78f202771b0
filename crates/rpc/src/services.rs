//! KV, Lease, Cluster, Maintenance and Watch: each call becomes a [`server::Request`].

use crate::backend::{Answer, Caller, Member};
use crate::pb::etcdserverpb::{
    cluster_server::Cluster, kv_server::Kv, lease_server::Lease, maintenance_server::Maintenance, watch_server::Watch,
};
use crate::streams::{Finite, Watching, unreadable};
use api::pb::etcdserverpb as pb;
use server::{Request as Call, Response as Answered};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Answers of a keepalive stream that may wait for the client.
const KEEPALIVE_QUEUE: usize = 16;
/// Keepalives of a stream that may be on their way; then it is not read.
const KEEPALIVES_MAX: usize = 1024;

pub(crate) type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

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

pub(crate) fn caller<T>(request: &Request<T>) -> Caller {
    let text = |name: &str| request.metadata().get(name).and_then(|v| v.to_str().ok());
    let token = text("token").or_else(|| text("authorization").map(|v| v.strip_prefix("Bearer ").unwrap_or(v)));
    Caller { token: token.map(str::to_owned), timeout: None }
}

impl<M: Member> Services<M> {
    pub async fn ask(&self, caller: Caller, call: Call) -> Result<Answered, api::Error> {
        self.0.call(caller, call).await.unwrap_or(Err(api::Error::Stopped))
    }
}

/// What an async method of a generated trait returns.
pub(crate) type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

/// One unary method: request variant in, response variant out. Written as `async_trait` would expand it, since a macro
/// inside an impl is expanded after the attribute.
macro_rules! unary {
    ($($method:ident, $request:ident, $variant:ident, $response:ident;)+) => {$(
        fn $method<'s, 'a>(&'s self, request: Request<pb::$request>) -> Answering<'a, pb::$response>
        where
            's: 'a,
            Self: 'a,
        {
            Box::pin(async move {
                let caller = caller(&request);
                match self.ask(caller, Call::$variant(request.into_inner())).await {
                    Ok(Answered::$variant(response)) => Ok(Response::new(response)),
                    Ok(other) => Err(Status::internal(format!("the member answered {other:?}"))),
                    Err(e) => Err(status(&e)),
                }
            })
        }
    )+};
}

#[tonic::async_trait]
impl<M: Member> Kv for Services<M> {
    type RangeStreamStream = Out<pb::RangeStreamResponse>;

    unary! {
        range, RangeRequest, Range, RangeResponse;
        put, PutRequest, Put, PutResponse;
        delete_range, DeleteRangeRequest, DeleteRange, DeleteRangeResponse;
        txn, TxnRequest, Txn, TxnResponse;
        compact, CompactionRequest, Compact, CompactionResponse;
    }

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let caller = caller(&request);
        Ok(Response::new(Box::pin(Finite::new(self.0.range_stream(caller, request.into_inner())))))
    }
}

#[tonic::async_trait]
impl<M: Member> Lease for Services<M> {
    type LeaseKeepAliveStream = Out<pb::LeaseKeepAliveResponse>;

    unary! {
        lease_grant, LeaseGrantRequest, LeaseGrant, LeaseGrantResponse;
        lease_revoke, LeaseRevokeRequest, LeaseRevoke, LeaseRevokeResponse;
        lease_time_to_live, LeaseTimeToLiveRequest, LeaseTimeToLive, LeaseTimeToLiveResponse;
        lease_leases, LeaseLeasesRequest, LeaseLeases, LeaseLeasesResponse;
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let caller = caller(&request);
        let (out, answers) = mpsc::channel(KEEPALIVE_QUEUE);
        tokio::spawn(keep_alive(self.clone(), caller, request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// One answer a request, in order. Requests that come together are asked together: all leases of a client share a stream,
/// and must not wait for one another.
async fn keep_alive<M: Member>(
    services: Services<M>,
    caller: Caller,
    mut requests: Streaming<pb::LeaseKeepAliveRequest>,
    out: mpsc::Sender<Result<pb::LeaseKeepAliveResponse, Status>>,
) {
    let mut asked = VecDeque::<Answer>::new();
    let mut closed = false;
    while !closed || !asked.is_empty() {
        tokio::select! {
            biased;
            answer = async { asked.front_mut()?.await.ok() }, if !asked.is_empty() => {
                asked.pop_front();
                let answer = match answer.unwrap_or(Err(api::Error::Stopped)) {
                    Ok(Answered::LeaseKeepAlive(response)) => Ok(response),
                    Ok(other) => Err(Status::internal(format!("the member answered {other:?}"))),
                    Err(e) => Err(status(&e)),
                };
                let last = answer.is_err();
                if out.send(answer).await.is_err() || last {
                    return;
                }
            }
            request = requests.message(), if !closed && asked.len() < KEEPALIVES_MAX => match request {
                Ok(Some(request)) => asked.push_back(services.0.call(caller.clone(), Call::LeaseKeepAlive(request))),
                Ok(None) => closed = true,
                Err(e) => {
                    // A client that is gone does not listen.
                    drop(out.send(Err(unreadable(e))).await);
                    return;
                }
            },
        }
    }
}

#[tonic::async_trait]
impl<M: Member> Cluster for Services<M> {
    unary! {
        member_add, MemberAddRequest, MemberAdd, MemberAddResponse;
        member_remove, MemberRemoveRequest, MemberRemove, MemberRemoveResponse;
        member_update, MemberUpdateRequest, MemberUpdate, MemberUpdateResponse;
        member_list, MemberListRequest, MemberList, MemberListResponse;
        member_promote, MemberPromoteRequest, MemberPromote, MemberPromoteResponse;
    }
}

#[tonic::async_trait]
impl<M: Member> Maintenance for Services<M> {
    type SnapshotStream = Out<pb::SnapshotResponse>;

    unary! {
        alarm, AlarmRequest, Alarm, AlarmResponse;
        status, StatusRequest, Status, StatusResponse;
        defragment, DefragmentRequest, Defragment, DefragmentResponse;
        hash, HashRequest, Hash, HashResponse;
        hash_kv, HashKvRequest, HashKv, HashKvResponse;
        move_leader, MoveLeaderRequest, MoveLeader, MoveLeaderResponse;
        downgrade, DowngradeRequest, Downgrade, DowngradeResponse;
    }

    async fn snapshot(&self, request: Request<pb::SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        Ok(Response::new(Box::pin(Finite::new(self.0.snapshot(caller(&request))))))
    }
}

#[tonic::async_trait]
impl<M: Member> Watch for Services<M> {
    type WatchStream = Out<pb::WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stream = self.0.watch(caller(&request));
        let mut incoming = request.into_inner();
        let requests = stream.requests;
        let (failed, failure) = oneshot::channel();
        // Half-closing is fine: the task ends, the responses go on. Dropping the responses ends the stream.
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = incoming.message() => request,
                    () = requests.closed() => return,
                };
                match request {
                    Ok(Some(request)) => {
                        if requests.send(request).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    // Nobody listens where the client is gone.
                    Err(e) => return drop(failed.send(unreadable(e))),
                }
            }
        });
        Ok(Response::new(Box::pin(Watching::new(stream.responses, failure))))
    }
}
