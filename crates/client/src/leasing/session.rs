//! The session of a leasing client: the lease that its leasing keys hang on, and the watch that tells who wants one back.

use super::Shared;
use super::owned::Leaving;
use crate::error::Error;
use crate::watch::Watch;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::Event;
use api::pb::mvccpb::event::EventType;
use api::recipes::{created_before, op};
use pb::request_op::Request as Op;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

/// Between attempts to have a session, or to give a key back.
const RETRY: Duration = Duration::from_millis(250);
/// Keys that are given back at once.
const LEAVING_MAX: usize = 64;

/// A lease, and until when it surely lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub lease: i64,
    pub lives_until: Instant,
}

/// Makes a lease and a watch from behind its making, which sees all that happens to leasing keys of this session.
pub(super) async fn open(shared: &Shared) -> Result<(Session, Watch), Error> {
    // The server counts from later on.
    let lives_until = Instant::now() + Duration::from_secs(shared.ttl.unsigned_abs());
    let granted = shared.client.lease_grant(pb::LeaseGrantRequest { ttl: shared.ttl, id: 0 }).await?;
    let revision = granted.header.as_ref().map_or(0, |header| header.revision);
    let (key, range_end) = shared.names.all();
    let start_revision = revision + 1;
    let request = pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() };
    Ok((Session { lease: granted.id, lives_until }, shared.client.watch(request)))
}

/// Has a session for ever, another one whenever one is lost.
pub(super) async fn keep(shared: Arc<Shared>, first: (Session, Watch)) {
    let mut next = Some(first);
    loop {
        if let Some((session, watch)) = next.take() {
            *shared.session.lock() = Some(session);
            live(&shared, session.lease, watch).await;
            *shared.session.lock() = None;
            shared.owned.lock().clear();
            // Where the lease is gone this says so; where it can't be reached it ends by itself.
            let revoke = pb::LeaseRevokeRequest { id: session.lease };
            drop(shared.client.with_timeout(RETRY).lease_revoke(revoke).await);
        }
        tokio::time::sleep(RETRY).await;
        next = open(&shared).await.ok();
    }
}

/// Until the lease or the watch ends, or the lease is found to be gone.
async fn live(shared: &Arc<Shared>, lease: i64, watch: Watch) {
    let mut parts = JoinSet::new();
    parts.spawn(renew(shared.clone(), lease));
    parts.spawn(follow(shared.clone(), lease, watch));
    tokio::select! {
        _ = parts.join_next() => {}
        () = shared.lost.notified() => {}
    }
}

async fn renew(shared: Arc<Shared>, lease: i64) {
    let mut renewals = shared.client.keep_alive(lease);
    while let Ok(Some(_)) = renewals.next().await {
        if let (Some(session), Some(lives_until)) = (&mut *shared.session.lock(), renewals.lives_until()) {
            session.lives_until = lives_until;
        }
    }
}

/// Gives keys back as they are wanted. A watch that ends has missed something.
async fn follow(shared: Arc<Shared>, lease: i64, mut watch: Watch) {
    let room = Arc::new(Semaphore::new(LEAVING_MAX));
    let mut leavings = JoinSet::new();
    while let Ok(Some(response)) = watch.next().await {
        if response.canceled {
            return;
        }
        for leaving in response.events.iter().filter_map(|event| taken(&shared, lease, event)) {
            let permit = room.clone().acquire_owned().await.expect("nobody closes it");
            let shared = shared.clone();
            leavings.spawn(async move {
                give_back(&shared, &leaving).await;
                drop(permit);
            });
        }
        while leavings.try_join_next().is_some() {}
    }
}

/// Notes that a leasing key is wanted or gone. Answers what is to be given back.
fn taken(shared: &Shared, lease: i64, event: &Event) -> Option<Leaving> {
    let kv = event.kv.as_ref()?;
    let key = shared.names.key_of(&kv.key)?;
    let revision = kv.mod_revision;
    if event.r#type() == EventType::Delete {
        shared.owned.lock().lose(&key, revision, false, Instant::now());
        return None;
    }
    if kv.value != super::REVOKE || kv.lease != lease {
        return None;
    }
    shared.owned.lock().lose(&key, revision, true, Instant::now());
    // Ours was created before it was wanted.
    Some(Leaving { key, revision: revision - 1 })
}

/// Deletes a leasing key, unless it is a later one. Whether it was ours or is gone by now makes no difference.
pub(super) async fn give_back(shared: &Shared, leaving: &Leaving) {
    let key = shared.names.leasing_key(&leaving.key);
    let compare = vec![created_before(&key, leaving.revision + 1)];
    let success = vec![op(Op::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }))];
    let request = pb::TxnRequest { compare, success, failure: Vec::new() };
    while shared.client.txn(request.clone()).await.is_err() {
        tokio::time::sleep(RETRY).await;
    }
    shared.owned.lock().left(leaving);
}
