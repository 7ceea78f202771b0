//! Where a service is to be found: addresses below a name that all agree on, as clientv3's `naming/endpoints` and gRPC's resolver
//! for etcd keep them.
//!
//! ```text
//! TARGET/NAME  =  {"Op":0,"Addr":"ADDRESS","Metadata":ANYTHING}     one key for each instance, mostly with its lease
//! ```
//!
//! Differences from Go's manager: whoever watches is also told when a value is no longer an endpoint's (as of a deletion), and a
//! compaction is no end: all are read again, and what differs is told.

use crate::call::Client;
use crate::error::Error;
use crate::watch::Watch;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::event::EventType;
use api::pb::mvccpb::{Event, KeyValue};
use api::recipes::{op, prefix_end};
use bytes::Bytes;
use pb::request_op::Request as Op;
use serde_json::Value;
use std::collections::BTreeMap;
use tonic::Code;

/// Endpoints of one target that are read at most; more are an error, for a part of them would look like all.
pub const ENDPOINTS_MAX: usize = 16 << 10;
/// Bytes of an endpoint's value at most, written and read; a longer value is no endpoint's.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// An address, and what its owner says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    pub addr: String,
    /// `null`: nothing.
    pub metadata: Value,
}

/// A change of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// It is there from now on, or has another value.
    Add { name: Bytes, endpoint: Endpoint },
    /// It is gone.
    Delete { name: Bytes },
}

impl Endpoint {
    /// An address without metadata.
    pub fn new(addr: impl Into<String>) -> Endpoint {
        Endpoint { addr: addr.into(), metadata: Value::Null }
    }

    /// The value of its key, byte for byte Go's (but for the digits of fractions).
    pub fn encode(&self) -> String {
        let metadata = escaped(&self.metadata.to_string());
        format!("{{\"Op\":0,\"Addr\":{},\"Metadata\":{metadata}}}", go::json_string(&self.addr))
    }

    /// Reads the value of a key by the rules of Go's `json.Unmarshal`: names in any case, what is missing or `null` is empty,
    /// `Op` says nothing. `None`: it is no endpoint's, or has neither address nor metadata.
    pub fn parse(value: &[u8]) -> Option<Endpoint> {
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(value) else { return None };
        let mut field = |name: &str| {
            let same = fields.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
            same.and_then(|key| fields.remove(&key)).unwrap_or_default()
        };
        let is_op = |op: &Value| op.is_null() || op.as_u64().is_some_and(|op| op <= u64::from(u8::MAX));
        if !is_op(&field("Op")) {
            return None;
        }
        let addr = match field("Addr") {
            Value::Null => String::new(),
            Value::String(addr) => addr,
            _ => return None,
        };
        let metadata = field("Metadata");
        (!addr.is_empty() || !metadata.is_null()).then_some(Endpoint { addr, metadata })
    }
}

/// JSON as `encoding/json` writes it. These stand in texts only, where they may be written by number.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// The endpoints of one target.
///
/// ```no_run
/// use client::naming::{Endpoint, Naming, Update};
/// # async fn example() -> Result<(), client::Error> {
/// let client = client::Client::connect(client::Config::default()).await?;
/// let shop = Naming::new(&client, "services/shop")?;
/// // This instance, for as long as its session lives.
/// let session = client::Session::new(&client, 10).await?;
/// shop.add("a", &Endpoint::new("10.0.0.1:8080"), session.lease()).await?;
/// // Everybody, now and later.
/// let mut updates = shop.watch();
/// for update in updates.next().await? {
///     match update {
///         Update::Add { endpoint, .. } => println!("call {}", endpoint.addr),
///         Update::Delete { name } => println!("{name:?} is gone"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Naming {
    client: Client,
    /// What all keys begin with: `TARGET/`.
    prefix: Bytes,
}

impl Naming {
    /// The endpoints below `target/`.
    ///
    /// # Errors
    /// The target is empty.
    pub fn new(client: &Client, target: impl AsRef<[u8]>) -> Result<Naming, Error> {
        let target = target.as_ref();
        if target.is_empty() {
            return Err(invalid("invalid target: it is empty; name what the endpoints are of".into()));
        }
        Ok(Naming { client: client.clone(), prefix: [target, b"/"].concat().into() })
    }

    /// The key of an endpoint.
    pub fn key(&self, name: impl AsRef<[u8]>) -> Bytes {
        [&self.prefix[..], name.as_ref()].concat().into()
    }

    /// Writes an endpoint. With a lease it goes when the lease does; 0: it stays until it is deleted.
    ///
    /// # Errors
    /// Its value is too large, or the server's. When the answer is lost the endpoint may be there or not; adding it again does
    /// no harm.
    pub async fn add(&self, name: impl AsRef<[u8]>, endpoint: &Endpoint, lease: i64) -> Result<(), Error> {
        let name = Bytes::copy_from_slice(name.as_ref());
        self.update(&[Update::Add { name, endpoint: endpoint.clone() }], lease).await
    }

    /// Deletes an endpoint; none there is no error.
    ///
    /// # Errors
    /// The server's.
    pub async fn delete(&self, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.update(&[Update::Delete { name: Bytes::copy_from_slice(name.as_ref()) }], 0).await
    }

    /// Adds and deletes several at once: whoever reads or watches sees all of it or nothing. All that are added have the same
    /// lease (0: none).
    ///
    /// # Errors
    /// A value is too large, or the server's: a name that comes twice, more updates than a transaction may have.
    pub async fn update(&self, updates: &[Update], lease: i64) -> Result<(), Error> {
        let success = updates.iter().map(|update| self.operation(update, lease)).collect::<Result<_, _>>()?;
        self.client.txn(pb::TxnRequest { success, ..Default::default() }).await.map(drop)
    }

    fn operation(&self, update: &Update, lease: i64) -> Result<pb::RequestOp, Error> {
        Ok(op(match update {
            Update::Add { name, endpoint } => {
                let value = endpoint.encode();
                if value.len() > VALUE_BYTES_MAX {
                    let size = value.len();
                    return Err(invalid(format!("endpoint {name:?} takes {size} bytes, more than {VALUE_BYTES_MAX}")));
                }
                Op::RequestPut(pb::PutRequest { key: self.key(name), value: value.into(), lease, ..Default::default() })
            }
            Update::Delete { name } => {
                Op::RequestDeleteRange(pb::DeleteRangeRequest { key: self.key(name), ..Default::default() })
            }
        }))
    }

    /// All endpoints by their names, as some member knows them: without a quorum too, and maybe a moment old. Values that are
    /// no endpoints are left out.
    ///
    /// # Errors
    /// There are more than [`ENDPOINTS_MAX`] keys, or the server's.
    pub async fn list(&self) -> Result<BTreeMap<Bytes, Endpoint>, Error> {
        self.read(true).await.map(|(found, _)| found)
    }

    async fn read(&self, serializable: bool) -> Result<(BTreeMap<Bytes, Endpoint>, i64), Error> {
        let request = pb::RangeRequest {
            key: self.prefix.clone(),
            range_end: prefix_end(&self.prefix),
            limit: ENDPOINTS_MAX as i64 + 1,
            serializable,
            ..Default::default()
        };
        let response = self.client.range(request).await?;
        if response.kvs.len() > ENDPOINTS_MAX {
            return Err(self.too_many());
        }
        let known = |kv: &KeyValue| Some((self.name(&kv.key)?, Endpoint::parse(&kv.value)?));
        let found = response.kvs.iter().filter_map(known).collect();
        Ok((found, response.header.map_or(0, |header| header.revision)))
    }

    fn name(&self, key: &Bytes) -> Option<Bytes> {
        key.starts_with(&self.prefix).then(|| key.slice(self.prefix.len()..))
    }

    fn too_many(&self) -> Error {
        let below = String::from_utf8_lossy(&self.prefix);
        let message =
            format!("endpoints: more than {ENDPOINTS_MAX} keys below {below}: is the target meant for endpoints?");
        Error::Rpc { code: Code::ResourceExhausted, message }
    }

    /// All endpoints, then every change. Nothing is sent before the first [`Updates::next`].
    pub fn watch(&self) -> Updates {
        Updates { naming: self.clone(), known: Known::default(), watch: None, begun: false }
    }
}

/// An error of the caller's, with the code that Go's manager has for it.
fn invalid(message: String) -> Error {
    Error::Rpc { code: Code::InvalidArgument, message: format!("endpoints: {message}") }
}

/// The endpoints of a target as they come and go.
#[derive(Debug)]
pub struct Updates {
    naming: Naming,
    known: Known,
    /// `None`: all are to be read (again).
    watch: Option<Watch>,
    /// Whether the first answer was given.
    begun: bool,
}

impl Updates {
    /// First all endpoints, even if there are none; then what changes, in order. Connections that break are opened anew, and
    /// nothing is missed: where history was compacted meanwhile, all are read again and what differs is told. Nothing is lost
    /// when the future is dropped before it is done.
    ///
    /// # Errors
    /// The server's, or more than [`ENDPOINTS_MAX`] endpoints. Asking again goes on from what was told before.
    pub async fn next(&mut self) -> Result<Vec<Update>, Error> {
        loop {
            let first = !self.begun;
            let updates = match &mut self.watch {
                None => self.read_all().await?,
                Some(watch) => {
                    let response = watch.next().await;
                    self.take(response)?
                }
            };
            if first || !updates.is_empty() {
                return Ok(updates);
            }
        }
    }

    /// What an answer of the watch says. Without the watch all are read again next time.
    fn take(&mut self, response: Result<Option<pb::WatchResponse>, Error>) -> Result<Vec<Update>, Error> {
        let watch = self.watch.take();
        match response? {
            Some(response) if response.canceled && response.compact_revision == 0 => {
                Err(Error::WatchCanceled(response.cancel_reason))
            }
            Some(response) if !response.canceled => {
                let (updates, whole) = self.known.apply(&self.naming, &response.events);
                self.watch = watch.filter(|_| whole);
                Ok(updates)
            }
            // Compacted: what happened meanwhile shows in what is there now.
            Some(_) | None => Ok(Vec::new()),
        }
    }

    /// The first time any member may answer. After a compaction one that lags would not do.
    async fn read_all(&mut self) -> Result<Vec<Update>, Error> {
        let (found, revision) = self.naming.read(!self.begun).await?;
        let request = pb::WatchCreateRequest {
            key: self.naming.prefix.clone(),
            range_end: prefix_end(&self.naming.prefix),
            start_revision: revision + 1,
            // The watch goes on from where it was told to be, not from the last change, which may be compacted by then.
            progress_notify: true,
            ..Default::default()
        };
        self.watch = Some(self.naming.client.watch(request));
        self.begun = true;
        Ok(self.known.replace(found))
    }
}

/// What was told so far.
#[derive(Debug, Default)]
struct Known(BTreeMap<Bytes, Endpoint>);

impl Known {
    /// Now these are there: what leads from what was told to them.
    fn replace(&mut self, found: BTreeMap<Bytes, Endpoint>) -> Vec<Update> {
        let old = std::mem::replace(&mut self.0, found);
        let gone = old.keys().filter(|name| !self.0.contains_key(*name));
        let deleted = gone.map(|name| Update::Delete { name: name.clone() });
        let fresh = self.0.iter().filter(|(name, endpoint)| old.get(*name) != Some(endpoint));
        let added = fresh.map(|(name, endpoint)| Update::Add { name: name.clone(), endpoint: endpoint.clone() });
        deleted.chain(added).collect()
    }

    /// Follows events; answers also whether it could follow all of them, which it can't beyond the limit.
    fn apply(&mut self, naming: &Naming, events: &[Event]) -> (Vec<Update>, bool) {
        let mut updates = Vec::new();
        for event in events {
            let Some((kv, name)) = event.kv.as_ref().and_then(|kv| Some((kv, naming.name(&kv.key)?))) else { continue };
            let put = event.r#type() == EventType::Put;
            match Endpoint::parse(&kv.value).filter(|_| put) {
                Some(_) if self.0.len() >= ENDPOINTS_MAX && !self.0.contains_key(&name) => return (updates, false),
                Some(endpoint) => {
                    self.0.insert(name.clone(), endpoint.clone());
                    updates.push(Update::Add { name, endpoint });
                }
                None if self.0.remove(&name).is_some() => updates.push(Update::Delete { name }),
                None => {}
            }
        }
        (updates, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn naming() -> Naming {
        Naming::new(&Client::connect(crate::Config::default()).await.unwrap(), "svc").unwrap()
    }

    fn kv(key: &'static str, value: String) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), ..Default::default() }
    }

    fn put(key: &'static str, value: String) -> Event {
        Event { kv: Some(kv(key, value)), ..Default::default() }
    }

    fn add(name: &'static str, addr: &str) -> Update {
        Update::Add { name: name.into(), endpoint: Endpoint::new(addr) }
    }

    fn delete(name: &'static str) -> Update {
        Update::Delete { name: name.into() }
    }

    /// Written by Go's manager (client/v3 v3.7.1).
    #[test]
    fn values_are_those_of_go() {
        let all = json!({"b": ["<&>", 1, null], "a": {"x": true}});
        for (addr, metadata, value) in [
            ("127.0.0.1:1", Value::Null, r#"{"Op":0,"Addr":"127.0.0.1:1","Metadata":null}"#),
            ("a", json!("{\"name\":\"h\"}"), r#"{"Op":0,"Addr":"a","Metadata":"{\"name\":\"h\"}"}"#),
            (
                "<é>",
                all,
                r#"{"Op":0,"Addr":"\u003cé\u003e","Metadata":{"a":{"x":true},"b":["\u003c\u0026\u003e",1,null]}}"#,
            ),
            ("", json!("\u{2028}"), r#"{"Op":0,"Addr":"","Metadata":"\u2028"}"#),
        ] {
            let endpoint = Endpoint { addr: addr.into(), metadata };
            assert_eq!(endpoint.encode(), value);
            assert_eq!(Endpoint::parse(value.as_bytes()), Some(endpoint));
        }
    }

    #[test]
    fn values_are_read_as_go_reads_them() {
        for value in
            [r#"{"Addr":"a"}"#, r#"{"addr":"a","op":1,"more":[]}"#, r#" {"ADDR":"a","Op":null,"metadata":null} "#]
        {
            assert_eq!(Endpoint::parse(value.as_bytes()), Some(Endpoint::new("a")), "{value}");
        }
        for value in
            ["", "null", "[]", "{}", "\"a\"", r#"{"Addr":1}"#, r#"{"Addr":"a","Op":-1}"#, r#"{"Addr":"a","Op":256}"#]
        {
            assert_eq!(Endpoint::parse(value.as_bytes()), None, "{value}");
        }
        let long = |size: usize| Endpoint::new("a".repeat(size - Endpoint::new("").encode().len())).encode();
        assert!(Endpoint::parse(long(VALUE_BYTES_MAX).as_bytes()).is_some());
        assert!(Endpoint::parse(long(VALUE_BYTES_MAX + 1).as_bytes()).is_none());
    }

    #[tokio::test]
    async fn what_is_told_leads_to_what_is_there() {
        let naming = naming().await;
        let value = |addr: &str| Endpoint::new(addr).encode();
        let mut known = Known::default();
        let all = |all: &[(&'static str, &str)]| {
            all.iter().map(|(name, addr)| (Bytes::from(*name), Endpoint::new(*addr))).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(known.replace(all(&[("a", "1"), ("b", "2")])), [add("a", "1"), add("b", "2")]);
        let gone = Event { r#type: EventType::Delete as i32, ..put("svc/b", String::new()) };
        let events =
            [put("svc/c", value("3")), gone.clone(), gone, put("svc/a", "junk".into()), put("svc/d", "junk".into())];
        assert_eq!(known.apply(&naming, &events), (vec![add("c", "3"), delete("b"), delete("a")], true));
        // Read again after a compaction: c has another address, d is new.
        assert_eq!(known.replace(all(&[("c", "4"), ("d", "5")])), [add("c", "4"), add("d", "5")]);
        assert_eq!(known.replace(all(&[("d", "5")])), [delete("c")]);
    }

    #[tokio::test]
    async fn more_than_the_limit_are_not_followed() {
        let naming = naming().await;
        let many = (0..ENDPOINTS_MAX).map(|n| (Bytes::from(n.to_string()), Endpoint::new("x")));
        let mut known = Known(many.collect());
        let value = || Endpoint::new("y").encode();
        let (updates, whole) = known.apply(&naming, &[put("svc/0", value()), put("svc/new", value())]);
        assert_eq!((updates, whole), (vec![add("0", "y")], false));
        assert_eq!(known.0.len(), ENDPOINTS_MAX);
    }

    #[tokio::test]
    async fn what_can_not_be_meant_is_refused() {
        let client = Client::connect(crate::Config::default()).await.unwrap();
        assert_eq!(Naming::new(&client, "").unwrap_err().code(), Some(Code::InvalidArgument));
        let large = Endpoint::new("a".repeat(VALUE_BYTES_MAX));
        let refused = naming().await.add("a", &large, 0).await.unwrap_err();
        assert!(refused.message().starts_with("endpoints: endpoint b\"a\" takes"), "{refused}");
    }
}
