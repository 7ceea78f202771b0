//! clientv3's concurrency recipes, over plain requests as in Go: locks and elections that its users hold together with
//! ours exclude each other, because keys and comparisons are the same.

use crate::call::Client;
use crate::error::Error;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb;
use api::recipes::{self, Place};
use bytes::Bytes;

/// A lease that is kept alive as long as the session is driven ([`Session::until_expired`]).
#[derive(Debug)]
pub struct Session {
    client: Client,
    lease: i64,
}

impl Session {
    /// Makes a lease of so many seconds.
    ///
    /// # Errors
    /// The server's.
    pub async fn new(client: &Client, ttl: i64) -> Result<Session, Error> {
        let granted = client.lease_grant(pb::LeaseGrantRequest { ttl, id: 0 }).await?;
        Ok(Session { client: client.clone(), lease: granted.id })
    }

    /// The lease's id.
    pub fn lease(&self) -> i64 {
        self.lease
    }

    /// Renews the lease for as long as this is awaited; answers when it is gone.
    pub async fn until_expired(&self) {
        let mut renewals = self.client.keep_alive(self.lease);
        while let Ok(Some(_)) = renewals.next().await {}
    }

    /// Revokes the lease: all that the session holds is free.
    ///
    /// # Errors
    /// The server's.
    pub async fn close(&self) -> Result<(), Error> {
        self.client.lease_revoke(pb::LeaseRevokeRequest { id: self.lease }).await.map(drop)
    }

    fn key_below(&self, name: &str) -> Bytes {
        recipes::key_of(name.as_bytes(), self.lease)
    }

    /// Gives the session's place in the queue for a name back.
    async fn leave(&self, name: &str) -> Result<(), Error> {
        let request = pb::DeleteRangeRequest { key: self.key_below(name), ..Default::default() };
        self.client.delete_range(request).await.map(drop)
    }
}

/// Puts the session's key unless it is there, and reads who is first.
async fn take_place(session: &Session, name: &str, value: Bytes) -> Result<Place, Error> {
    session.client.txn(recipes::take_place(name.as_bytes(), session.lease, value)).await.map(Place::read)
}

/// Waits until no key below the name is older than `revision`.
async fn wait_for_older(client: &Client, name: &str, revision: i64) -> Result<(), Error> {
    let before = recipes::newest_before(&recipes::below(name.as_bytes()), revision);
    loop {
        let newest_older = client.range(before.clone()).await?;
        let Some(before) = newest_older.kvs.first() else { return Ok(()) };
        let from = newest_older.header.as_ref().map_or(0, |h| h.revision);
        wait_for_deletion(client, before.key.clone(), from).await?;
    }
}

/// Waits until a key is deleted at this revision or later.
pub(crate) async fn wait_for_deletion(client: &Client, key: Bytes, start_revision: i64) -> Result<(), Error> {
    let mut watch = client.watch(pb::WatchCreateRequest { key, start_revision, ..Default::default() });
    while let Some(response) = watch.next().await? {
        if response.canceled {
            return Err(Error::WatchCanceled(response.cancel_reason));
        }
        if response.events.iter().any(|event| event.r#type() == mvccpb::event::EventType::Delete) {
            return Ok(());
        }
    }
    Err(Error::WatchCanceled("lost watcher waiting for delete".into()))
}

/// A lock by name.
#[derive(Debug)]
pub struct Mutex<'a> {
    session: &'a Session,
    name: String,
}

impl<'a> Mutex<'a> {
    pub fn new(session: &'a Session, name: &str) -> Mutex<'a> {
        Mutex { session, name: name.to_owned() }
    }

    /// The key that stands for the lock while it is held.
    pub fn key(&self) -> Bytes {
        self.session.key_below(&self.name)
    }

    /// Waits for the lock. Answers the revision of the moment it was held.
    ///
    /// # Errors
    /// The server's, or that the session's lease ran out while waiting. The key is then gone, or goes with the lease.
    pub async fn lock(&self) -> Result<i64, Error> {
        let place = take_place(self.session, &self.name, Bytes::new()).await?;
        if place.is_first() {
            return Ok(place.header.map_or(0, |h| h.revision));
        }
        let client = &self.session.client;
        wait_for_older(client, &self.name, place.revision).await?;
        let mine = client.range(pb::RangeRequest { key: self.key(), ..Default::default() }).await?;
        if mine.kvs.is_empty() {
            return Err(Error::SessionExpired);
        }
        Ok(mine.header.map_or(0, |h| h.revision))
    }

    /// Gives the lock, or the place in the queue, back.
    ///
    /// # Errors
    /// The server's.
    pub async fn unlock(&self) -> Result<(), Error> {
        self.session.leave(&self.name).await
    }
}

/// An election by name.
#[derive(Debug)]
pub struct Election<'a> {
    session: &'a Session,
    name: String,
}

impl<'a> Election<'a> {
    pub fn new(session: &'a Session, name: &str) -> Election<'a> {
        Election { session, name: name.to_owned() }
    }

    /// The candidate's key.
    pub fn key(&self) -> Bytes {
        self.session.key_below(&self.name)
    }

    /// Proposes a value and waits to be elected.
    ///
    /// # Errors
    /// The server's.
    pub async fn campaign(&self, value: Bytes) -> Result<(), Error> {
        let place = take_place(self.session, &self.name, value.clone()).await?;
        if place.existing.is_some_and(|old| old.value != value) {
            let put = pb::PutRequest { key: self.key(), value, lease: self.session.lease, ..Default::default() };
            self.session.client.put(put).await?;
        }
        wait_for_older(&self.session.client, &self.name, place.revision).await
    }

    /// Steps down.
    ///
    /// # Errors
    /// The server's.
    pub async fn resign(&self) -> Result<(), Error> {
        self.session.leave(&self.name).await
    }

    /// Waits for a leader and then for each change of leader or proposal, and hands over what `Get` of the leader's
    /// key would answer, until `seen` answers false.
    ///
    /// # Errors
    /// The server's.
    pub async fn observe(
        client: &Client,
        name: &str,
        mut seen: impl FnMut(pb::RangeResponse) -> bool,
    ) -> Result<(), Error> {
        let all = recipes::oldest(&recipes::below(name.as_bytes()));
        loop {
            let response = client.range(all.clone()).await?;
            let mut header = response.header;
            let leader = match response.kvs.into_iter().next() {
                Some(kv) => kv,
                None => {
                    let revision = header.map_or(0, |h| h.revision);
                    let (kv, at) = first_candidate(client, &all, revision).await?;
                    header = at;
                    kv
                }
            };
            if let Some(h) = &mut header {
                h.revision = leader.mod_revision;
            }
            let from = leader.mod_revision + 1;
            let key = leader.key.clone();
            if !seen(pb::RangeResponse { header, kvs: vec![leader], ..Default::default() }) {
                return Ok(());
            }
            if !follow(client, key, from, &mut seen).await? {
                return Ok(());
            }
        }
    }
}

/// Waits for the first put below the prefix.
async fn first_candidate(
    client: &Client,
    all: &pb::RangeRequest,
    revision: i64,
) -> Result<(mvccpb::KeyValue, Option<pb::ResponseHeader>), Error> {
    let mut watch = client.watch(pb::WatchCreateRequest {
        key: all.key.clone(),
        range_end: all.range_end.clone(),
        start_revision: revision,
        filters: vec![pb::watch_create_request::FilterType::Nodelete as i32],
        ..Default::default()
    });
    while let Some(response) = watch.next().await? {
        if response.canceled {
            return Err(Error::WatchCanceled(response.cancel_reason));
        }
        if let Some(kv) = response.events.into_iter().next().and_then(|event| event.kv) {
            return Ok((kv, response.header));
        }
    }
    Err(Error::WatchCanceled("election: no leader".into()))
}

/// Hands over each new proposal of the leader. Answers whether to go on when it is gone.
async fn follow(
    client: &Client,
    key: Bytes,
    start_revision: i64,
    seen: &mut impl FnMut(pb::RangeResponse) -> bool,
) -> Result<bool, Error> {
    let mut watch = client.watch(pb::WatchCreateRequest { key, start_revision, ..Default::default() });
    while let Some(response) = watch.next().await? {
        if response.canceled {
            return Err(Error::WatchCanceled(response.cancel_reason));
        }
        for event in response.events {
            let deleted = event.r#type() == mvccpb::event::EventType::Delete;
            let Some(kv) = event.kv.filter(|_| !deleted) else { return Ok(true) };
            let mut header = response.header;
            if let Some(h) = &mut header {
                h.revision = kv.mod_revision;
            }
            if !seen(pb::RangeResponse { header, kvs: vec![kv], ..Default::default() }) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
