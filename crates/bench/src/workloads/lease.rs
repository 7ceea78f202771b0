//! `lease-keepalive`: each worker has a lease and keeps it alive, a stream a time, as `KeepAliveOnce` does.

use crate::runner::Workload;
use crate::skim;
use crate::wire::{Conn, Failure, Rpc, frame};
use crate::workloads::kv::malformed;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;

/// Seconds a lease lives.
const TTL: i64 = 100;

/// The workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAlive;

/// A worker's lease and the request that renews it.
#[derive(Debug)]
pub struct Lease {
    id: i64,
    framed: Bytes,
}

impl Workload for KeepAlive {
    type Worker = Lease;

    async fn prepare(&self, _id: usize, conn: &mut Conn) -> Result<Lease, Failure> {
        let grant = pb::LeaseGrantRequest { ttl: TTL, id: 0 };
        let granted: pb::LeaseGrantResponse = conn.call(Rpc::LeaseGrant, &grant).await?;
        let framed = frame(&pb::LeaseKeepAliveRequest { id: granted.id });
        Ok(Lease { id: granted.id, framed })
    }

    async fn once(&self, lease: &mut Lease, conn: &mut Conn, _sequence: u64) -> (usize, Result<(), Failure>) {
        (0, keep_alive(lease, conn).await)
    }
}

async fn keep_alive(lease: &Lease, conn: &mut Conn) -> Result<(), Failure> {
    let mut call = conn.stream(Rpc::LeaseKeepAlive).await?;
    call.sender.send(lease.framed.clone())?;
    call.sender.finish()?;
    let answer = call.receiver.next().await?.ok_or_else(|| Failure::Wrong("no message".to_owned()))?;
    let (id, ttl) = skim::keep_alive(&answer).ok_or_else(malformed)?;
    if id != lease.id || ttl != TTL {
        return Err(Failure::Wrong(format!("lease {id:x} with {ttl} s")));
    }
    // etcd's client cancels the stream here; a clean end costs the server no more and can be checked.
    match call.receiver.next().await? {
        None => Ok(()),
        Some(_) => Err(Failure::Wrong("more than one message".to_owned())),
    }
}
