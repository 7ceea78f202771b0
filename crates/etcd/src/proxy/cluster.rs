//! The members as clients of a proxy shall see them: the proxies that serve the cluster, by which clients that look for more
//! endpoints find proxies again (etcd `proxy/grpcproxy/{cluster,register}.go`).
//!
//! Proxies with the same `--resolver-prefix` find each other by keys that live as long as they do:
//! ```text
//! PREFIX/ADDRESS  =  {"Op":0,"Addr":"ADDRESS","Metadata":"{\"name\":\"HOST\"}"}   (a lease of --resolver-ttl)
//! ```

use crate::logging::{Level, Note};
use api::pb::etcdserverpb as pb;
use client::{Client, Error, Namespace, Session, prefix_end};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Between attempts to register, and to watch the others (etcd `registerRetryRate`, `resolveRetryRate`).
const RETRY: Duration = Duration::from_secs(1);
/// Proxies that are shown at most: a prefix that is no proxies' may have anything below it.
const PROXIES_MAX: usize = 1024;

/// How clients see the cluster.
#[derive(Debug)]
pub struct View {
    /// `--advertise-client-url`; empty: members are shown as they are.
    pub address: String,
    /// The proxies that have registered, by their keys.
    registered: Mutex<BTreeMap<Vec<u8>, pb::Member>>,
}

/// What a proxy is found by.
#[derive(Clone, Debug)]
pub struct Registration {
    pub client: Client,
    pub namespace: Option<Namespace>,
    pub prefix: String,
    pub address: String,
    /// Seconds.
    pub ttl: i64,
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim_end().to_owned()
}

impl View {
    pub fn new(address: String) -> Arc<View> {
        Arc::new(View { address, registered: Mutex::default() })
    }

    /// The proxies, in place of the members; `None`: show the members.
    pub fn members(&self) -> Option<Vec<pb::Member>> {
        if self.address.is_empty() {
            return None;
        }
        let registered: Vec<pb::Member> = self.registered.lock().values().cloned().collect();
        if !registered.is_empty() {
            return Some(registered);
        }
        let own = pb::Member { name: host_name(), client_ur_ls: vec![self.address.clone()], ..Default::default() };
        Some(vec![own])
    }

    /// Follows who registers, for ever.
    pub async fn follow(self: Arc<Self>, registration: Registration) {
        loop {
            if let Err(e) = self.follow_once(&registration).await {
                let note = Note::new(Level::Warn, "failed to establish endpoint watch");
                note.text("prefix", &registration.prefix).text("error", &e.to_string()).log();
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow_once(&self, registration: &Registration) -> Result<(), Error> {
        let (key, end) = registration.range();
        let request = pb::RangeRequest { key: key.clone(), range_end: end.clone(), ..Default::default() };
        let response = registration.client.range(request).await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let found = response.kvs.iter().filter_map(|kv| Some((kv.key.to_vec(), proxy(&kv.value)?)));
        *self.registered.lock() = found.take(PROXIES_MAX).collect();
        let request =
            pb::WatchCreateRequest { key, range_end: end, start_revision: revision + 1, ..Default::default() };
        let mut watch = registration.client.watch(request);
        while let Some(response) = watch.next().await? {
            let mut registered = self.registered.lock();
            for event in &response.events {
                let Some(kv) = &event.kv else { continue };
                match proxy(&kv.value) {
                    Some(member) if registered.len() < PROXIES_MAX => {
                        registered.insert(kv.key.to_vec(), member);
                    }
                    _ => drop(registered.remove(&kv.key[..])),
                }
            }
        }
        Ok(())
    }
}

/// The proxy that a value names; `None`: it is no such value, or that of a key that was deleted.
fn proxy(value: &[u8]) -> Option<pb::Member> {
    let value: serde_json::Value = serde_json::from_slice(value).ok()?;
    let address = value.get("Addr")?.as_str()?;
    let about: serde_json::Value = serde_json::from_str(value.get("Metadata")?.as_str()?).ok()?;
    let name = about.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
    Some(pb::Member { name: name.to_owned(), client_ur_ls: vec![address.to_owned()], ..Default::default() })
}

/// The address that a value has: what bytes from outside are read with.
pub fn proxy_address(value: &[u8]) -> Option<String> {
    proxy(value)?.client_ur_ls.pop()
}

impl Registration {
    /// The keys of all proxies with this prefix.
    fn range(&self) -> (bytes::Bytes, bytes::Bytes) {
        let key = self.key("");
        let end = prefix_end(&key);
        (key, end)
    }

    fn key(&self, address: &str) -> bytes::Bytes {
        let key = format!("{}/{address}", self.prefix);
        match &self.namespace {
            Some(namespace) => namespace.interval(key.as_bytes(), b"").0,
            None => key.into(),
        }
    }

    fn value(&self) -> String {
        let about = serde_json::json!({ "name": host_name() }).to_string();
        let (address, about) = (go::json_string(&self.address), go::json_string(&about));
        format!("{{\"Op\":0,\"Addr\":{address},\"Metadata\":{about}}}")
    }

    /// Is found, for ever.
    pub async fn keep(self) {
        loop {
            match self.register().await {
                Ok(session) => {
                    let note = Note::new(Level::Info, "registered session with lease").text("addr", &self.address);
                    note.with("lease-ttl", self.ttl).log();
                    session.until_expired().await;
                    let text = "session expired; possible network partition or server restart";
                    Note::new(Level::Warn, text).log();
                    Note::new(Level::Warn, "creating a new session to rejoin").log();
                }
                Err(e) => Note::new(Level::Warn, "failed to create a session").text("error", &e.to_string()).log(),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn register(&self) -> Result<Session, Error> {
        let session = Session::new(&self.client, self.ttl).await?;
        let put = pb::PutRequest {
            key: self.key(&self.address),
            value: self.value().into(),
            lease: session.lease(),
            ..Default::default()
        };
        match self.client.put(put).await {
            Ok(_) => Ok(session),
            Err(e) => {
                // It ends by itself, too.
                drop(session.close().await);
                Err(e)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_known_by_their_values_alone() {
        let member = proxy(br#"{"Op":0,"Addr":"a:1","Metadata":"{\"name\":\"host\"}"}"#).unwrap();
        assert_eq!((member.name.as_str(), member.client_ur_ls), ("host", vec!["a:1".to_owned()]));
        for other in [&b""[..], b"{}", b"[1]", br#"{"Addr":"a:1"}"#, br#"{"Addr":1,"Metadata":"{}"}"#, b"\xff"] {
            assert_eq!(proxy(other), None);
        }
    }

    #[test]
    fn members_are_shown_unless_somebody_is_advertised() {
        assert_eq!(View::new(String::new()).members(), None);
        let view = View::new("a:1".into());
        assert_eq!(view.members().unwrap()[0].client_ur_ls, ["a:1"]);
        let other = pb::Member { name: "b".into(), ..Default::default() };
        view.registered.lock().insert(b"p/b".to_vec(), other.clone());
        assert_eq!(view.members().unwrap(), [other]);
    }
}
