//! The lock around software transactions: none, clientv3's mutex, or the server's.

use crate::wire::{Conn, Failure, Rpc};
use crate::workloads::kv::{malformed, range_op};
use crate::workloads::watch::framed;
use api::pb::etcdserverpb as pb;
use api::pb::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::pb::etcdserverpb::request_op::Request;
use api::pb::etcdserverpb::response_op::Response;
use api::pb::mvccpb::event::EventType;
use api::pb::v3lockpb;
use bytes::Bytes;
use prost::Message;

const NAME: &str = "stmlock";
/// Seconds a session's lease lives. clientv3 takes 60 and renews it; a run may not last longer than this one.
const TTL: i64 = 3600;

/// Which lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locker {
    /// None.
    Stm,
    /// clientv3's mutex: a key of its own a worker, the oldest one holds.
    Client,
    /// The server's Lock service.
    Rpc,
}

impl Locker {
    /// `stm`, `lock-client`, `lock-rpc`.
    pub fn parse(text: &str) -> Option<Locker> {
        Some(match text {
            "stm" => Locker::Stm,
            "lock-client" => Locker::Client,
            "lock-rpc" => Locker::Rpc,
            _ => return None,
        })
    }
}

/// A worker's lock.
#[derive(Debug)]
pub struct Lock {
    locker: Locker,
    lease: i64,
    /// The key while it is held.
    key: Bytes,
}

impl Lock {
    /// A lock with a session of its own.
    pub async fn new(locker: Locker, conn: &mut Conn) -> Result<Lock, Failure> {
        let mut lock = Lock { locker, lease: 0, key: Bytes::new() };
        if locker != Locker::Stm {
            let grant = pb::LeaseGrantRequest { ttl: TTL, id: 0 };
            lock.lease = conn.call::<_, pb::LeaseGrantResponse>(Rpc::LeaseGrant, &grant).await?.id;
        }
        Ok(lock)
    }

    /// Waits until it is held.
    pub async fn lock(&mut self, conn: &mut Conn) -> Result<(), Failure> {
        match self.locker {
            Locker::Stm => Ok(()),
            Locker::Client => self.lock_client(conn).await,
            Locker::Rpc => {
                let request = v3lockpb::LockRequest { name: NAME.into(), lease: self.lease };
                self.key = conn.call::<_, v3lockpb::LockResponse>(Rpc::Lock, &request).await?.key;
                Ok(())
            }
        }
    }

    /// Gives it back.
    pub async fn unlock(&mut self, conn: &mut Conn) -> Result<(), Failure> {
        let key = std::mem::take(&mut self.key);
        match self.locker {
            Locker::Stm => Ok(()),
            Locker::Client => {
                let request = pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() };
                conn.call::<_, pb::DeleteRangeResponse>(Rpc::DeleteRange, &request).await.map(|_| ())
            }
            Locker::Rpc => conn
                .call::<_, v3lockpb::UnlockResponse>(Rpc::Unlock, &v3lockpb::UnlockRequest { key })
                .await
                .map(|_| ()),
        }
    }

    async fn lock_client(&mut self, conn: &mut Conn) -> Result<(), Failure> {
        self.key = format!("{NAME}/{:x}", self.lease).into();
        let answer: pb::TxnResponse = conn.call(Rpc::Txn, &self.queue_up()).await?;
        let header = answer.header.map_or(0, |header| header.revision);
        let found = answer.responses.into_iter().next().and_then(|op| op.response);
        let mine = match found {
            Some(Response::ResponseRange(range)) if !answer.succeeded => range.kvs.first().map(|kv| kv.create_revision),
            _ => Some(header),
        };
        let mine = mine.ok_or_else(malformed)?;
        while let Some((key, revision)) = before(conn, mine).await? {
            until_deleted(conn, key, revision + 1).await?;
        }
        Ok(())
    }

    /// Makes the worker's key, unless it is there.
    fn queue_up(&self) -> pb::TxnRequest {
        let absent = pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Create as i32,
            key: self.key.clone(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            ..pb::Compare::default()
        };
        let put = pb::PutRequest { key: self.key.clone(), lease: self.lease, ..pb::PutRequest::default() };
        let put = pb::RequestOp { request: Some(Request::RequestPut(put)) };
        let get = range_op(pb::RangeRequest { key: self.key.clone(), ..pb::RangeRequest::default() });
        pb::TxnRequest { compare: vec![absent], success: vec![put], failure: vec![get] }
    }
}

/// The youngest key older than `mine`, and the revision it was seen at.
async fn before(conn: &mut Conn, mine: i64) -> Result<Option<(Bytes, i64)>, Failure> {
    let request = pb::RangeRequest {
        key: format!("{NAME}/").into(),
        range_end: format!("{NAME}0").into(),
        limit: 1,
        sort_order: pb::range_request::SortOrder::Descend as i32,
        sort_target: pb::range_request::SortTarget::Create as i32,
        max_create_revision: mine - 1,
        ..pb::RangeRequest::default()
    };
    let answer: pb::RangeResponse = conn.call(Rpc::Range, &request).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    Ok(answer.kvs.into_iter().next().map(|kv| (kv.key, revision)))
}

async fn until_deleted(conn: &mut Conn, key: Bytes, start_revision: i64) -> Result<(), Failure> {
    let mut call = conn.stream(Rpc::Watch).await?;
    call.sender.send(framed(pb::WatchCreateRequest { key, start_revision, ..pb::WatchCreateRequest::default() }))?;
    loop {
        let answer = call.receiver.next().await?.ok_or_else(malformed)?;
        let answer = pb::WatchResponse::decode(answer).map_err(|_| malformed())?;
        if answer.canceled {
            return Err(Failure::Wrong(format!("canceled: {}", answer.cancel_reason)));
        }
        if answer.events.iter().any(|event| event.r#type == EventType::Delete as i32) {
            return Ok(());
        }
    }
}
