//! Linearizable reads without asking the server (clientv3 `leasing`): whoever reads a key owns it from then on, keeps its
//! value, and is asked before anybody else of the same circle writes it.
//!
//! ```text
//! key        leasing key      who may write the key
//! a          -                anybody
//! a          PREFIXa = ""     the owner, whose lease is attached to it; whose reads of `a` ask nobody
//! a          PREFIXa = REVOKE somebody waits until the owner deletes it, or its lease ends
//! ```
//!
//! Keys, values and comparisons are those of clientv3, so that its users (`etcd grpc-proxy --experimental-leasing-prefix`)
//! and ours are of one circle. **All who write such keys have to be**: a write past the protocol is not seen by the owner.
//!
//! Invariants:
//! * Every write is guarded by the comparison that nobody owns the key newly: it is done, or the owner is asked first.
//! * A value is kept only while the lease surely lives, counted from before its renewal was sent; [`owned`] has the rest.
//! * Reads of ranges, of old revisions and of keys with a lease ask the server. Limits: [`Limits`].
//!
//! The faults of clientv3's own are not copied: a value kept beside a write in doubt, a lease of the key forgotten, a key
//! given back never when it was owned again meanwhile, a transaction that turns for ever over a key that it owns itself.

mod owned;
mod session;
mod txn;

use crate::call::{Client, Method};
use crate::error::Error;
use crate::recipes::wait_for_deletion;
use api::pb::etcdserverpb as pb;
use api::recipes::{self, created_before, created_is, op, prefix_end};
use bytes::Bytes;
pub use owned::Limits;
use owned::{Known, Leaving, Owned, ReadTicket, WriteTicket};
use parking_lot::Mutex;
use pb::request_op::Request as Op;
use pb::response_op::Response as Done;
use session::Session;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What a leasing key says when somebody waits for it.
const REVOKE: &str = "REVOKE";

impl Default for Limits {
    /// 65,536 keys and 64 MiB.
    fn default() -> Limits {
        Limits { keys: 1 << 16, bytes: 64 << 20 }
    }
}

/// Where leasing keys are: the key itself, with a prefix put in behind the namespace.
#[derive(Debug)]
struct Names {
    namespace: Bytes,
    prefix: Bytes,
}

impl Names {
    fn leasing_key(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&*self.namespace).unwrap_or(key);
        [&self.namespace, &self.prefix, rest].concat().into()
    }

    fn key_of(&self, leasing_key: &[u8]) -> Option<Bytes> {
        let rest = leasing_key.strip_prefix(&*self.namespace)?.strip_prefix(&*self.prefix)?;
        Some([&self.namespace, rest].concat().into())
    }

    /// All leasing keys.
    fn all(&self) -> (Bytes, Bytes) {
        let first = self.leasing_key(&self.namespace);
        let end = prefix_end(&first);
        (first, end)
    }

    /// The leasing keys of a range.
    fn range(&self, key: &[u8], end: &[u8]) -> (Bytes, Bytes) {
        let is_of_namespace = end != b"\0" && end.starts_with(&self.namespace);
        let end = if is_of_namespace { self.leasing_key(end) } else { self.all().1 };
        (self.leasing_key(key), end)
    }
}

#[derive(Debug)]
struct Shared {
    client: Client,
    names: Names,
    /// Seconds.
    ttl: i64,
    owned: Mutex<Owned>,
    /// None while there is none.
    session: Mutex<Option<Session>>,
    /// The lease was found to be gone before its renewal was due.
    lost: Notify,
}

/// A client whose reads of keys it owns ask nobody. Clones share what they own; the last one that goes leaves it to time
/// ([`Leasing::close`] gives it back at once).
///
/// ```no_run
/// # async fn example() -> Result<(), client::Error> {
/// use client::pb::etcdserverpb as pb;
/// let client = client::Client::connect(client::Config::default()).await?;
/// let leasing = client::Leasing::join(&client, "leases/", 60, client::Limits::default()).await?;
/// let get = pb::RangeRequest { key: "config".into(), ..Default::default() };
/// leasing.range(get.clone()).await?; // asks the server
/// leasing.range(get).await?; // does not
/// leasing.close().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Leasing {
    shared: Arc<Shared>,
    client: Client,
    _background: Arc<Background>,
}

#[derive(Debug)]
struct Background(AbortHandle);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Leasing {
    /// Joins the circle of those who lease below `prefix`, with a lease of so many seconds: so long a key of a client that
    /// vanished can't be written. Runs a task on the present runtime.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn join(client: &Client, prefix: impl Into<Bytes>, ttl: i64, limits: Limits) -> Result<Leasing, Error> {
        Leasing::join_in(client, Bytes::new(), prefix, ttl, limits).await
    }

    /// As [`Leasing::join`], for keys that all begin with a namespace: the prefix follows it in leasing keys.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn join_in(
        client: &Client,
        namespace: impl Into<Bytes>,
        prefix: impl Into<Bytes>,
        ttl: i64,
        limits: Limits,
    ) -> Result<Leasing, Error> {
        let names = Names { namespace: namespace.into(), prefix: prefix.into() };
        let owned = Mutex::new(Owned::new(limits));
        // What runs in the background has no deadline.
        let background = client.without_deadline();
        let shared =
            Arc::new(Shared { client: background, names, ttl, owned, session: Mutex::new(None), lost: Notify::new() });
        let first = session::open(&shared).await?;
        *shared.session.lock() = Some(first.0);
        let task = tokio::spawn(session::keep(shared.clone(), first));
        let background = Arc::new(Background(task.abort_handle()));
        Ok(Leasing { shared, client: client.clone(), _background: background })
    }

    /// The same with another deadline, or on behalf of somebody else. Writes of others find what is owned here; their reads
    /// ask the server, which knows what they may read.
    pub fn with(&self, client: Client) -> Leasing {
        Leasing { client, ..self.clone() }
    }

    /// Gives all keys back and ends.
    ///
    /// # Errors
    /// The server's; keys are then free when the lease ends.
    pub async fn close(self) -> Result<(), Error> {
        self._background.0.abort();
        self.shared.owned.lock().clear();
        let session = self.shared.session.lock().take();
        match session {
            Some(session) => self.client.lease_revoke(pb::LeaseRevokeRequest { id: session.lease }).await.map(drop),
            None => Ok(()),
        }
    }

    /// Reads keys; one key that is owned without asking.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        if !is_kept(&request) || !self.is_own() {
            return self.client.range(request).await;
        }
        if let Some(known) = self.known(&request.key) {
            return Ok(answer(&known, &request));
        }
        if request.serializable {
            return self.client.range(request).await;
        }
        match self.acquire(&request.key).await? {
            Some(known) => Ok(answer(&known, &request)),
            None => self.client.range(request).await,
        }
    }

    fn known(&self, key: &Bytes) -> Option<Known> {
        // The lock of what is owned is held while the lease is looked at: a session that ends clears it behind that.
        let mut owned = self.shared.owned.lock();
        self.own_lease()?;
        owned.known(key).cloned()
    }

    /// Whether this asks on behalf of whoever joined.
    fn is_own(&self) -> bool {
        self.client.is_same_user(&self.shared.client)
    }

    fn own_lease(&self) -> Option<i64> {
        self.lease().filter(|_| self.is_own())
    }

    /// The lease, if it surely lives.
    fn lease(&self) -> Option<i64> {
        let session = *self.shared.session.lock();
        session.filter(|session| Instant::now() < session.lives_until).map(|session| session.lease)
    }

    /// Reads a key, and owns it if nobody else does; `None`: it may not be owned now.
    async fn acquire(&self, key: &Bytes) -> Result<Option<Known>, Error> {
        let Some(ticket) = self.shared.owned.lock().begin_read(key, Instant::now()) else { return Ok(None) };
        let reading = Reading { leasing: self, ticket: Some(ticket) };
        let outcome = match self.lease() {
            Some(lease) => self.ask_to_own(key, lease).await,
            None => Ok(None),
        };
        let (known, is_ours) = match outcome {
            Ok(Some((known, is_ours))) => (Ok(Some(known)), is_ours),
            Ok(None) => (Ok(None), false),
            Err(e) if e.is(&api::Error::LeaseNotFound) => {
                self.shared.lost.notify_waiters();
                (Ok(None), false)
            }
            Err(e) => (Err(e), false),
        };
        let kept = known.as_ref().ok().and_then(Clone::clone).filter(|_| is_ours && self.lease().is_some());
        reading.end(kept);
        known
    }

    /// Reads a key and makes its leasing key, where there is none. Answers also whether it is ours. May be sent twice: who
    /// owns it already is told so.
    async fn ask_to_own(&self, key: &Bytes, lease: i64) -> Result<Option<(Known, bool)>, Error> {
        let leasing_key = self.shared.names.leasing_key(key);
        let get = |key: Bytes| op(Op::RequestRange(pb::RangeRequest { key, ..Default::default() }));
        let put = pb::PutRequest { key: leasing_key.clone(), lease, ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![created_is(&leasing_key, 0), recipes::is_without_lease(key)],
            success: vec![get(key.clone()), op(Op::RequestPut(put))],
            failure: vec![get(key.clone()), get(leasing_key)],
        };
        let method = Method { path: "/etcdserverpb.KV/Txn", repeatable: true };
        let done: pb::TxnResponse = self.client.unary(method, request).await?;
        let succeeded = done.succeeded;
        let header = done.header.unwrap_or_default();
        let mut ranges = done.responses.into_iter().filter_map(|response| match response.response {
            Some(Done::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
            _ => None,
        });
        let Some(kv) = ranges.next() else { return Ok(None) };
        // One that somebody waits for is given back already.
        let mut is_ours = || ranges.next().flatten().is_some_and(|kv| kv.lease == lease && kv.value.is_empty());
        let is_ours = succeeded || is_ours();
        Ok(Some((Known { header, kv }, is_ours)))
    }

    /// Has keys given back by and by. Where no runtime is left to do it, the lease ends sooner or later.
    fn give_back(&self, all: Vec<Leaving>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for leaving in all {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move { session::give_back(&shared, &leaving).await });
        }
    }

    /// Writes a key.
    ///
    /// # Errors
    /// The server's, or that the deadline passed, be it while another owner has the key.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        let key = request.key.clone();
        let (header, done) = self.write_one(&key, Op::RequestPut(request)).await?;
        match done {
            Some(Done::ResponsePut(put)) => Ok(pb::PutResponse { header, ..put }),
            _ => Err(unexpected()),
        }
    }

    /// Deletes keys.
    ///
    /// # Errors
    /// The server's, or that the deadline passed, be it while another owner has a key.
    pub async fn delete_range(&self, request: pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Error> {
        let key = request.key.clone();
        let range = (key.clone(), request.range_end.clone());
        let is_one = range.1.is_empty();
        let request = Op::RequestDeleteRange(request);
        let (header, done) = match is_one {
            true => self.write_one(&key, request).await?,
            false => {
                let written = txn::Written { keys: Vec::new(), ranges: vec![range] };
                let (header, mut responses) = self.write(&written, vec![op(request)], None).await?;
                (header, responses.drain(..).next().and_then(|response| response.response))
            }
        };
        match done {
            Some(Done::ResponseDeleteRange(delete)) => Ok(pb::DeleteRangeResponse { header, ..delete }),
            _ => Err(unexpected()),
        }
    }

    /// Forgets history.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn compact(&self, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Error> {
        self.client.compact(request).await
    }

    /// Writes one key and reads it in the same transaction, so that what is kept is what is there.
    async fn write_one(&self, key: &Bytes, request: Op) -> Result<(Option<pb::ResponseHeader>, Option<Done>), Error> {
        let written = txn::Written { keys: vec![key.clone()], ranges: Vec::new() };
        let mut requests = vec![op(request)];
        // Others may be allowed to write it only.
        let reads = Some(key).filter(|_| self.is_own());
        if reads.is_some() {
            requests.push(op(Op::RequestRange(pb::RangeRequest { key: key.clone(), ..Default::default() })));
        }
        let (header, mut responses) = self.write(&written, requests, reads).await?;
        Ok((header, responses.drain(..).next().and_then(|response| response.response)))
    }

    /// Asks an owner for its key, and waits until it is free.
    async fn ask_back(&self, key: &Bytes, created: i64) -> Result<(), Error> {
        let put = pb::PutRequest { key: key.clone(), value: REVOKE.into(), ignore_lease: true, ..Default::default() };
        let request = pb::TxnRequest {
            compare: vec![created_is(key, created)],
            success: vec![op(Op::RequestPut(put))],
            failure: Vec::new(),
        };
        // Asked twice is asked once: it may be sent again.
        let method = Method { path: "/etcdserverpb.KV/Txn", repeatable: true };
        let done: pb::TxnResponse = self.client.unary(method, request).await?;
        if !done.succeeded {
            return Ok(());
        }
        let from = done.header.map_or(0, |header| header.revision) + 1;
        let gone = wait_for_deletion(&self.client, key.clone(), from);
        self.client.in_time(gone).await
    }

    /// That nobody owns a key newly.
    fn guard(&self, key: &Bytes) -> pb::Compare {
        let revision = self.shared.owned.lock().revision(key);
        created_before(&self.shared.names.leasing_key(key), revision + 1)
    }
}

/// A read under way, also one that its caller gives up.
struct Reading<'a> {
    leasing: &'a Leasing,
    ticket: Option<ReadTicket>,
}

impl Reading<'_> {
    fn end(mut self, known: Option<Known>) {
        self.finish(known);
    }

    fn finish(&mut self, known: Option<Known>) {
        let Some(ticket) = self.ticket.take() else { return };
        let leaving = self.leasing.shared.owned.lock().end_read(ticket, known);
        self.leasing.give_back(leaving);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.finish(None);
    }
}

/// A write under way. Of one that failed, or that its caller gave up, nobody knows whether it was done or is still to come.
struct Writing<'a> {
    leasing: &'a Leasing,
    ticket: Option<WriteTicket>,
}

impl Writing<'_> {
    /// It was done, or surely not.
    fn end(mut self, known: Option<(&Bytes, Known)>) {
        if let Some(ticket) = self.ticket.take() {
            self.leasing.shared.owned.lock().end_write(ticket, known);
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let leaving = self.leasing.shared.owned.lock().doubt(ticket);
        self.leasing.give_back(leaving);
    }
}

fn unexpected() -> Error {
    Error::Rpc { code: tonic::Code::Internal, message: "the server answered another request".into() }
}

/// Whether the answer to a read can be kept: of one key as it is now.
fn is_kept(request: &pb::RangeRequest) -> bool {
    request.range_end.is_empty() && request.revision <= 0 && !request.key.is_empty()
}

/// What the server would answer.
fn answer(known: &Known, request: &pb::RangeRequest) -> pb::RangeResponse {
    let is_wanted = |revision: i64, min: i64, max: i64| revision >= min && (max == 0 || revision <= max);
    let kv = known.kv.as_ref();
    let found = kv.filter(|kv| {
        !request.count_only
            && is_wanted(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
            && is_wanted(kv.create_revision, request.min_create_revision, request.max_create_revision)
    });
    let mut kvs: Vec<_> = found.cloned().into_iter().collect();
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    pb::RangeResponse { header: Some(known.header), kvs, more: false, count: i64::from(kv.is_some()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leasing_keys_are_in_the_namespace() {
        let names = |namespace: &'static str| Names { namespace: namespace.into(), prefix: "l/".into() };
        for (namespace, key, leasing_key) in [("", "a", "l/a"), ("ns/", "ns/a", "ns/l/a"), ("ns/", "ns/", "ns/l/")] {
            assert_eq!(names(namespace).leasing_key(key.as_bytes()), leasing_key);
            assert_eq!(names(namespace).key_of(leasing_key.as_bytes()).unwrap(), key);
        }
        assert_eq!(names("ns/").key_of(b"ns/a"), None);
        for (namespace, key, end, first, last) in [
            ("", "a", "b", "l/a", "l/b"),
            ("", "a", "\0", "l/a", "l0"),
            ("ns/", "ns/a", "ns/b", "ns/l/a", "ns/l/b"),
            ("ns/", "ns/", "ns0", "ns/l/", "ns/l0"),
        ] {
            assert_eq!(names(namespace).range(key.as_bytes(), end.as_bytes()), (first.into(), last.into()));
        }
    }

    #[test]
    fn answers_are_filtered_as_the_server_does() {
        let kv = api::pb::mvccpb::KeyValue {
            key: "a".into(),
            value: "v".into(),
            create_revision: 3,
            mod_revision: 5,
            ..Default::default()
        };
        let known = Known { header: pb::ResponseHeader { revision: 6, ..Default::default() }, kv: Some(kv) };
        let get = pb::RangeRequest::default();
        let found = |request: pb::RangeRequest| answer(&known, &request);
        assert_eq!(found(get.clone()).kvs[0].value, "v");
        assert_eq!(found(pb::RangeRequest { keys_only: true, ..get.clone() }).kvs[0].value, "");
        for request in [
            pb::RangeRequest { count_only: true, ..get.clone() },
            pb::RangeRequest { min_mod_revision: 6, ..get.clone() },
            pb::RangeRequest { max_mod_revision: 4, ..get.clone() },
            pb::RangeRequest { min_create_revision: 4, ..get.clone() },
            pb::RangeRequest { max_create_revision: 2, ..get.clone() },
        ] {
            let response = found(request);
            assert_eq!((response.kvs.len(), response.count), (0, 1));
        }
    }
}
