//! Keys below a prefix that the caller does not see (clientv3 `namespace`).
//!
//! Requests get the prefix, answers lose it. Requests without a key are refused, as the server would refuse them without
//! a namespace: with one they would mean the prefix itself.

use crate::call::{Client, Stream};
use crate::error::Error;
use crate::watch::Watch;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use bytes::Bytes;
use pb::request_op::Request;
use pb::response_op::Response;

/// `range_end` of everything from a key on.
const TO_THE_END: &[u8] = b"\0";

/// A prefix that all keys have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    prefix: Bytes,
}

impl Namespace {
    /// The namespace of keys that begin with `prefix`.
    pub fn new(prefix: impl Into<Bytes>) -> Namespace {
        Namespace { prefix: prefix.into() }
    }

    /// What the keys begin with.
    pub fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    fn below(&self, key: &[u8]) -> Bytes {
        [&self.prefix[..], key].concat().into()
    }

    /// A range as it is in the store. What goes to the end of all keys goes to the end of the namespace.
    pub fn interval(&self, key: &[u8], end: &[u8]) -> (Bytes, Bytes) {
        let end = match end {
            [] => Bytes::new(),
            TO_THE_END => api::recipes::prefix_end(&self.prefix),
            end => self.below(end),
        };
        (self.below(key), end)
    }

    fn enter(&self, key: &mut Bytes, end: &mut Bytes) -> Result<(), Error> {
        if key.is_empty() {
            return Err(Error::of(&api::Error::EmptyKey));
        }
        (*key, *end) = self.interval(key, end);
        Ok(())
    }

    /// Puts a read into the namespace.
    ///
    /// # Errors
    /// It has no key.
    pub fn range(&self, request: &mut pb::RangeRequest) -> Result<(), Error> {
        self.enter(&mut request.key, &mut request.range_end)
    }

    /// Puts a write into the namespace.
    ///
    /// # Errors
    /// It has no key.
    pub fn put(&self, request: &mut pb::PutRequest) -> Result<(), Error> {
        self.enter(&mut request.key, &mut Bytes::new())
    }

    /// Puts a deletion into the namespace.
    ///
    /// # Errors
    /// It has no key.
    pub fn delete_range(&self, request: &mut pb::DeleteRangeRequest) -> Result<(), Error> {
        self.enter(&mut request.key, &mut request.range_end)
    }

    /// Puts all of a transaction into the namespace.
    ///
    /// # Errors
    /// Something in it has no key.
    pub fn txn(&self, request: &mut pb::TxnRequest) -> Result<(), Error> {
        for compare in &mut request.compare {
            self.enter(&mut compare.key, &mut compare.range_end)?;
        }
        for operation in request.success.iter_mut().chain(&mut request.failure) {
            match &mut operation.request {
                Some(Request::RequestRange(range)) => self.range(range)?,
                Some(Request::RequestPut(put)) => self.put(put)?,
                Some(Request::RequestDeleteRange(delete)) => self.delete_range(delete)?,
                Some(Request::RequestTxn(txn)) => self.txn(txn)?,
                // The server refuses it.
                None => {}
            }
        }
        Ok(())
    }

    /// Puts a watch into the namespace. One without a key is of the whole namespace.
    pub fn watch(&self, request: &mut pb::WatchCreateRequest) {
        (request.key, request.range_end) = self.interval(&request.key, &request.range_end);
    }

    /// Takes the prefix off a key.
    pub fn leave(&self, kv: &mut KeyValue) {
        if kv.key.starts_with(&self.prefix) {
            kv.key = kv.key.slice(self.prefix.len()..);
        }
    }

    fn leave_all<'a>(&self, kvs: impl IntoIterator<Item = &'a mut KeyValue>) {
        kvs.into_iter().for_each(|kv| self.leave(kv));
    }

    /// Takes the prefix off what was read.
    pub fn ranged(&self, response: &mut pb::RangeResponse) {
        self.leave_all(&mut response.kvs);
    }

    /// Takes the prefix off what was there before a write.
    pub fn put_done(&self, response: &mut pb::PutResponse) {
        self.leave_all(&mut response.prev_kv);
    }

    /// Takes the prefix off what was deleted.
    pub fn deleted(&self, response: &mut pb::DeleteRangeResponse) {
        self.leave_all(&mut response.prev_kvs);
    }

    /// Takes the prefix off all that a transaction answered.
    pub fn txn_done(&self, response: &mut pb::TxnResponse) {
        for done in &mut response.responses {
            match &mut done.response {
                Some(Response::ResponseRange(range)) => self.ranged(range),
                Some(Response::ResponsePut(put)) => self.put_done(put),
                Some(Response::ResponseDeleteRange(delete)) => self.deleted(delete),
                Some(Response::ResponseTxn(txn)) => self.txn_done(txn),
                None => {}
            }
        }
    }

    /// Takes the prefix off events.
    pub fn watched(&self, response: &mut pb::WatchResponse) {
        for event in &mut response.events {
            self.leave_all(&mut event.kv);
            self.leave_all(&mut event.prev_kv);
        }
    }

    /// Leaves a lease's keys of the namespace, without the prefix.
    pub fn attached(&self, response: &mut pb::LeaseTimeToLiveResponse) {
        response.keys.retain(|key| key.starts_with(&self.prefix));
        for key in &mut response.keys {
            *key = key.slice(self.prefix.len()..);
        }
    }
}

/// A client whose keys are those of a namespace.
///
/// ```no_run
/// # async fn example() -> Result<(), client::Error> {
/// let client = client::Client::connect(client::Config::default()).await?;
/// let team = client.namespaced("team/");
/// // The key in the store is team/color.
/// let put = api::pb::etcdserverpb::PutRequest { key: "color".into(), value: "blue".into(), ..Default::default() };
/// team.put(put).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Namespaced {
    client: Client,
    namespace: Namespace,
}

impl Client {
    /// The same client, whose keys all begin with `prefix` without it being said.
    pub fn namespaced(&self, prefix: impl Into<Bytes>) -> Namespaced {
        Namespaced { client: self.clone(), namespace: Namespace::new(prefix) }
    }
}

/// A watch in a namespace.
#[derive(Debug)]
pub struct NamespacedWatch {
    watch: Watch,
    namespace: Namespace,
}

impl NamespacedWatch {
    /// As [`Watch::next`].
    ///
    /// # Errors
    /// What the server refuses the stream with, other than that it can't be reached.
    pub async fn next(&mut self) -> Result<Option<pb::WatchResponse>, Error> {
        let mut response = self.watch.next().await?;
        response.iter_mut().for_each(|response| self.namespace.watched(response));
        Ok(response)
    }
}

impl Namespaced {
    /// Reads keys.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn range(&self, mut request: pb::RangeRequest) -> Result<pb::RangeResponse, Error> {
        self.namespace.range(&mut request)?;
        let mut response = self.client.range(request).await?;
        self.namespace.ranged(&mut response);
        Ok(response)
    }

    /// Reads keys in pieces, whose keys are those of the store: take the prefix off with [`Namespace::leave`].
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn range_stream(&self, mut request: pb::RangeRequest) -> Result<Stream<pb::RangeStreamResponse>, Error> {
        self.namespace.range(&mut request)?;
        self.client.range_stream(request).await
    }

    /// Writes a key.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn put(&self, mut request: pb::PutRequest) -> Result<pb::PutResponse, Error> {
        self.namespace.put(&mut request)?;
        let mut response = self.client.put(request).await?;
        self.namespace.put_done(&mut response);
        Ok(response)
    }

    /// Deletes keys.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn delete_range(&self, mut request: pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Error> {
        self.namespace.delete_range(&mut request)?;
        let mut response = self.client.delete_range(request).await?;
        self.namespace.deleted(&mut response);
        Ok(response)
    }

    /// Compares, then does one list of requests or the other.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn txn(&self, mut request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        self.namespace.txn(&mut request)?;
        let mut response = self.client.txn(request).await?;
        self.namespace.txn_done(&mut response);
        Ok(response)
    }

    /// Watches keys.
    pub fn watch(&self, mut request: pb::WatchCreateRequest) -> NamespacedWatch {
        self.namespace.watch(&mut request);
        NamespacedWatch { watch: self.client.watch(request), namespace: self.namespace.clone() }
    }

    /// How long a lease has left, and which keys of the namespace are attached to it.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        let mut response = self.client.lease_time_to_live(request).await?;
        self.namespace.attached(&mut response);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clientv3's own table (`namespace/util_test.go`) says the same.
    #[test]
    fn ranges_stay_in_their_namespace() {
        let interval = |prefix: &'static [u8], key: &[u8], end: &[u8]| Namespace::new(prefix).interval(key, end);
        for (prefix, key, end, expected) in [
            (&b"pfx/"[..], &b"a"[..], &b""[..], (&b"pfx/a"[..], &b""[..])),
            (b"pfx/", b"abc", b"def", (b"pfx/abc", b"pfx/def")),
            (b"pfx/", b"abc", b"\0", (b"pfx/abc", b"pfx0")),
            (b"\xff\xff", b"abc", b"\0", (b"\xff\xffabc", b"\0")),
            (b"a\xff", b"", b"\0", (b"a\xff", b"b")),
        ] {
            let (key, end) = interval(prefix, key, end);
            assert_eq!((&key[..], &end[..]), expected);
        }
    }

    #[test]
    fn nothing_in_a_transaction_is_left_out() {
        let space = Namespace::new("p/");
        let put = pb::PutRequest { key: "a".into(), ..Default::default() };
        let get = pb::RangeRequest { key: "b".into(), range_end: "\0".into(), ..Default::default() };
        let operation = |request| pb::RequestOp { request: Some(request) };
        let inner = pb::TxnRequest { failure: vec![operation(Request::RequestRange(get))], ..Default::default() };
        let mut txn = pb::TxnRequest {
            compare: vec![pb::Compare { key: "c".into(), ..Default::default() }],
            success: vec![operation(Request::RequestPut(put)), operation(Request::RequestTxn(inner))],
            failure: Vec::new(),
        };
        space.txn(&mut txn).unwrap();
        assert_eq!(txn.compare[0].key, "p/c");
        let shown = format!("{txn:?}");
        assert!(shown.contains("p/a") && shown.contains("p/b") && shown.contains("p0"), "{shown}");
        let empty = operation(Request::RequestPut(pb::PutRequest::default()));
        let mut refused = pb::TxnRequest { success: vec![empty], ..Default::default() };
        assert!(space.txn(&mut refused).unwrap_err().is(&api::Error::EmptyKey));
    }

    #[test]
    fn answers_lose_the_prefix() {
        let space = Namespace::new("p/");
        let kv = |key: &'static str| KeyValue { key: key.into(), ..Default::default() };
        let mut response = pb::RangeResponse { kvs: vec![kv("p/a"), kv("p/")], ..Default::default() };
        space.ranged(&mut response);
        assert_eq!(response.kvs.iter().map(|kv| &kv.key[..]).collect::<Vec<_>>(), [&b"a"[..], b""]);
        let keys = ["p/a", "q/b", "p"].map(Bytes::from).to_vec();
        let mut attached = pb::LeaseTimeToLiveResponse { keys, ..Default::default() };
        space.attached(&mut attached);
        assert_eq!(attached.keys, ["a"]);
    }
}
