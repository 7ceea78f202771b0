//! Lock and Election over the member's own KV and Watch (reference/semantics.md 12 and 13).
//!
//! Errors of the inner calls reach the client with code Unknown and their text, as upstream, where these services call
//! the server through an in-process client.

use crate::answers::{Body, Streamed, Terms};
use crate::backend::{Caller, Member, Told};
use crate::services::{Services, unexpected};
use api::pb::{etcdserverpb as pb, mvccpb, v3electionpb as elect, v3lockpb as lock};
use api::recipes::{self, Place, created_is, oldest, op, prefix_end};
use bytes::Bytes;
use pb::request_op::Request as Op;
use server::{Request as Call, Response as Answered};
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Seconds a session's lease lives when the caller brings none (etcd `defaultSessionTTL`).
const SESSION_TTL: i64 = 60;

fn unknown(e: &api::Error) -> Status {
    Status::unknown(e.message())
}

fn get(key: &Bytes) -> pb::RangeRequest {
    pb::RangeRequest { key: key.clone(), ..Default::default() }
}

/// The next response of a stream that has one watcher, whose bursts are of one.
async fn next_of_one(stream: &mut crate::WatchStream) -> Option<pb::WatchResponse> {
    let told = stream.responses.recv().await?;
    stream.taken.fetch_add(1, Ordering::Relaxed);
    match told {
        Told::Response(response) => Some(response),
        Told::Burst(burst) => burst.responses().next(),
    }
}

impl<M: Member> Services<M> {
    async fn txn(&self, caller: &Caller, r: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        match self.ask(caller.clone(), Call::Txn(r)).await {
            Ok(Answered::Txn(r)) => Ok(r),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(unknown(&e)),
        }
    }

    async fn range_of(&self, caller: &Caller, r: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        match self.ask(caller.clone(), Call::Range(r)).await {
            Ok(Answered::Range(r)) => Ok(r),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(unknown(&e)),
        }
    }

    async fn session(&self, caller: &Caller, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let grant = Call::LeaseGrant(pb::LeaseGrantRequest { ttl: SESSION_TTL, id: 0 });
        match self.ask(caller.clone(), grant).await {
            Ok(Answered::LeaseGrant(r)) => Ok(r.id),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(unknown(&e)),
        }
    }

    /// Takes a place: puts the key unless it is there, and learns who is first.
    async fn queue(&self, caller: &Caller, name: &Bytes, lease: i64, value: Bytes) -> Result<Place, Status> {
        self.txn(caller, recipes::take_place(name, lease, value)).await.map(Place::read)
    }

    /// Waits until everyone below the name who came before `revision` is gone.
    async fn wait(&self, caller: &Caller, name: &Bytes, revision: i64) -> Result<(), Status> {
        let before = recipes::newest_before(&recipes::below(name), revision);
        loop {
            let response = self.range_of(caller, before.clone()).await?;
            let Some(kv) = response.kvs.first() else { return Ok(()) };
            let from = response.header.as_ref().map_or(0, |h| h.revision);
            self.wait_for_delete(caller, &kv.key, from).await?;
        }
    }

    async fn wait_for_delete(&self, caller: &Caller, key: &Bytes, from: i64) -> Result<(), Status> {
        let mut stream = self.open_watch(caller, key, &Bytes::new(), from).await?;
        while let Some(response) = next_of_one(&mut stream).await {
            if response.canceled {
                break;
            }
            if response.events.iter().any(|e| e.r#type == mvccpb::event::EventType::Delete as i32) {
                return Ok(());
            }
        }
        Err(Status::unknown("lost watcher waiting for delete"))
    }

    /// A stream of one watcher: see [`next_of_one`].
    async fn open_watch(
        &self,
        caller: &Caller,
        key: &Bytes,
        end: &Bytes,
        from: i64,
    ) -> Result<crate::WatchStream, Status> {
        let stream = self.0.watch(caller.clone());
        let create = pb::WatchCreateRequest {
            key: key.clone(),
            range_end: end.clone(),
            start_revision: from,
            ..Default::default()
        };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let request = pb::WatchRequest { request_union: Some(union) };
        stream.requests.send(request).await.map_err(|_| unknown(&api::Error::Stopped))?;
        Ok(stream)
    }

    /// Deletes the key if it is still the one created then.
    async fn give_up(&self, caller: &Caller, key: &Bytes, revision: i64) -> Result<pb::TxnResponse, Status> {
        let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
        let r = pb::TxnRequest {
            compare: vec![created_is(key, revision)],
            success: vec![op(Op::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        self.txn(caller, r).await
    }

    fn leaving(&self, caller: &Caller, key: &Bytes, revision: i64) -> Leaving<M> {
        Leaving { services: self.clone(), caller: caller.clone(), key: Some((key.clone(), revision)) }
    }
}

/// Deletes the key when a wait is given up: a waiter that is gone leaves none behind.
struct Leaving<M: Member> {
    services: Services<M>,
    caller: Caller,
    key: Option<(Bytes, i64)>,
}

impl<M: Member> Leaving<M> {
    fn stay(mut self) {
        self.key = None;
    }
}

impl<M: Member> Drop for Leaving<M> {
    fn drop(&mut self) {
        if let Some((key, revision)) = self.key.take() {
            let (services, caller) = (self.services.clone(), self.caller.clone());
            // The caller has his own error already; if this fails too, the lease's end removes the key.
            tokio::spawn(async move { drop(services.give_up(&caller, &key, revision).await) });
        }
    }
}

impl<M: Member> Services<M> {
    pub async fn lock(&self, caller: &Caller, r: lock::LockRequest) -> Result<lock::LockResponse, Status> {
        let lease = self.session(caller, r.lease).await?;
        let key = recipes::key_of(&r.name, lease);
        let place = self.queue(caller, &r.name, lease, Bytes::new()).await?;
        let mut header = place.header;
        if !place.is_first() {
            let guard = self.leaving(caller, &key, place.revision);
            self.wait(caller, &r.name, place.revision).await?;
            // The wait may have outlived the lease: holding the lock means that the key is still there.
            let own = self.range_of(caller, get(&key)).await?;
            guard.stay();
            if own.kvs.is_empty() {
                return Err(Status::unknown("mutex: session is expired"));
            }
            header = own.header;
        }
        Ok(lock::LockResponse { header, key })
    }

    pub async fn unlock(&self, caller: &Caller, r: lock::UnlockRequest) -> Result<lock::UnlockResponse, Status> {
        let delete = pb::DeleteRangeRequest { key: r.key, ..Default::default() };
        match self.ask(caller.clone(), Call::DeleteRange(delete)).await {
            Ok(Answered::DeleteRange(r)) => Ok(lock::UnlockResponse { header: r.header }),
            Ok(other) => Err(unexpected(&other)),
            Err(e) => Err(unknown(&e)),
        }
    }
}

const NO_LEADER_FIELD: &str = "\"leader\" field must be provided";

impl<M: Member> Services<M> {
    pub async fn campaign(
        &self,
        caller: &Caller,
        r: elect::CampaignRequest,
    ) -> Result<elect::CampaignResponse, Status> {
        let lease = self.session(caller, r.lease).await?;
        let key = recipes::key_of(&r.name, lease);
        let place = self.queue(caller, &r.name, lease, r.value.clone()).await?;
        if place.existing.as_ref().is_some_and(|kv| kv.value != r.value) {
            let guard = self.leaving(caller, &key, place.revision);
            self.proclaim_at(caller, &key, place.revision, lease, r.value).await?;
            guard.stay();
        }
        if !place.is_first() {
            let guard = self.leaving(caller, &key, place.revision);
            let outcome = self.wait(caller, &r.name, place.revision).await;
            // As upstream: a candidate whose wait fails keeps his place, one who leaves does not.
            guard.stay();
            outcome?;
        }
        let leader = elect::LeaderKey { name: r.name, key, rev: place.revision, lease };
        Ok(elect::CampaignResponse { header: place.header, leader: Some(leader) })
    }

    pub async fn proclaim(
        &self,
        caller: &Caller,
        r: elect::ProclaimRequest,
    ) -> Result<elect::ProclaimResponse, Status> {
        let leader = r.leader.ok_or_else(|| Status::unknown(NO_LEADER_FIELD))?;
        let header = self.proclaim_at(caller, &leader.key, leader.rev, leader.lease, r.value).await?;
        Ok(elect::ProclaimResponse { header })
    }

    pub async fn resign(&self, caller: &Caller, r: elect::ResignRequest) -> Result<elect::ResignResponse, Status> {
        let leader = r.leader.ok_or_else(|| Status::unknown(NO_LEADER_FIELD))?;
        let response = self.give_up(caller, &leader.key, leader.rev).await?;
        Ok(elect::ResignResponse { header: response.header })
    }

    pub async fn leader(&self, caller: &Caller, r: elect::LeaderRequest) -> Result<elect::LeaderResponse, Status> {
        let prefix = recipes::below(&r.name);
        let response = self.range_of(caller, oldest(&prefix)).await?;
        let kv = response.kvs.into_iter().next().ok_or_else(|| Status::unknown("election: no leader"))?;
        Ok(elect::LeaderResponse { header: response.header, kv: Some(kv) })
    }

    pub fn observe(&self, caller: Caller, r: elect::LeaderRequest, terms: Terms) -> Body {
        let prefix = recipes::below(&r.name);
        let (out, leaders) = mpsc::channel(16);
        let services = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                // A failed read or watch ends the stream with OK, as upstream.
                _ended = services.observe_all(&caller, &prefix, &out) => {}
                () = out.closed() => {}
            }
        });
        Streamed::body(ReceiverStream::new(leaders), terms)
    }
}

type Leaders = mpsc::Sender<Result<elect::LeaderResponse, Status>>;

impl<M: Member> Services<M> {
    async fn proclaim_at(
        &self,
        caller: &Caller,
        key: &Bytes,
        revision: i64,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let put = pb::PutRequest { key: key.clone(), value, lease, ..Default::default() };
        let r = pb::TxnRequest {
            compare: vec![created_is(key, revision)],
            success: vec![op(Op::RequestPut(put))],
            failure: Vec::new(),
        };
        let response = self.txn(caller, r).await?;
        if response.succeeded { Ok(response.header) } else { Err(Status::unknown("election: not leader")) }
    }

    /// One leader after the other, and each value that it proclaims.
    async fn observe_all(&self, caller: &Caller, prefix: &Bytes, out: &Leaders) -> Result<(), Status> {
        let send = async |header: Option<pb::ResponseHeader>, kv: mvccpb::KeyValue| {
            let response = elect::LeaderResponse { header, kv: Some(kv) };
            out.send(Ok(response)).await.map_err(|_| Status::cancelled("observer left"))
        };
        loop {
            let response = self.range_of(caller, oldest(prefix)).await?;
            let (mut header, now) = (response.header, response.header.as_ref().map_or(0, |h| h.revision));
            let kv = match response.kvs.into_iter().next() {
                Some(kv) => kv,
                None => {
                    let kv = self.first_put(caller, prefix, now + 1).await?;
                    header = header.map(|h| pb::ResponseHeader { revision: kv.mod_revision, ..h });
                    kv
                }
            };
            let (key, from) = (kv.key.clone(), header.as_ref().map_or(0, |h| h.revision) + 1);
            send(header, kv).await?;
            let mut stream = self.open_watch(caller, &key, &Bytes::new(), from).await?;
            'term: while let Some(response) = next_of_one(&mut stream).await {
                if response.canceled {
                    return Ok(());
                }
                for event in response.events {
                    if event.r#type == mvccpb::event::EventType::Delete as i32 {
                        break 'term;
                    }
                    let kv = event.kv.unwrap_or_default();
                    let header = response.header.map(|h| pb::ResponseHeader { revision: kv.mod_revision, ..h });
                    send(header, kv).await?;
                }
            }
        }
    }

    async fn first_put(&self, caller: &Caller, prefix: &Bytes, from: i64) -> Result<mvccpb::KeyValue, Status> {
        let mut stream = self.open_watch(caller, prefix, &prefix_end(prefix), from).await?;
        while let Some(response) = next_of_one(&mut stream).await {
            if response.canceled {
                break;
            }
            let put = mvccpb::event::EventType::Put as i32;
            if let Some(event) = response.events.into_iter().find(|e| e.r#type == put) {
                return Ok(event.kv.unwrap_or_default());
            }
        }
        Err(Status::unknown("lost the watch for a leader"))
    }
}
