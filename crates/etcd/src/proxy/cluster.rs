//! The members as clients of a proxy shall see them: the proxies that serve the cluster, by which clients that look for more
//! endpoints find proxies again (etcd `proxy/grpcproxy/{cluster,register}.go`).
//!
//! Proxies with the same `--resolver-prefix` find each other by endpoints that live as long as they do (`client::naming`), each with
//! a lease of `--resolver-ttl` and its host as metadata, which is JSON within JSON:
//! ```text
//! PREFIX/ADDRESS  =  {"Op":0,"Addr":"ADDRESS","Metadata":"{\"name\":\"HOST\"}"}
//! ```

use crate::logging::{Level, Note};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::naming::{Endpoint, Naming, Update};
use client::{Client, Error, Namespace, Session};
use parking_lot::Mutex;
use serde_json::Value;
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
    /// The proxies that have registered, by their names.
    registered: Mutex<BTreeMap<Bytes, pb::Member>>,
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
        let warn = |error: &Error| {
            let note = Note::new(Level::Warn, "failed to establish endpoint watch");
            note.text("prefix", &registration.prefix).text("error", &error.to_string()).log();
        };
        let mut updates = match registration.naming() {
            Ok(naming) => naming.watch(),
            Err(e) => return warn(&e),
        };
        loop {
            match updates.next().await {
                Ok(updates) => updates.into_iter().for_each(|update| self.note(update)),
                Err(e) => {
                    warn(&e);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn note(&self, update: Update) {
        let mut registered = self.registered.lock();
        match update {
            Update::Add { name, endpoint } => match proxy(endpoint) {
                Some(member) if registered.len() < PROXIES_MAX || registered.contains_key(&name) => {
                    registered.insert(name, member);
                }
                _ => drop(registered.remove(&name)),
            },
            Update::Delete { name } => drop(registered.remove(&name)),
        }
    }
}

/// The proxy that an endpoint is; `None`: it is another kind of endpoint.
fn proxy(endpoint: Endpoint) -> Option<pb::Member> {
    let about: Value = serde_json::from_str(endpoint.metadata.as_str()?).ok()?;
    let name = about.get("name").and_then(Value::as_str).unwrap_or_default();
    Some(pb::Member { name: name.to_owned(), client_ur_ls: vec![endpoint.addr], ..Default::default() })
}

/// The address that a key's value has: what bytes from outside are read with.
pub fn proxy_address(value: &[u8]) -> Option<String> {
    proxy(Endpoint::parse(value)?)?.client_ur_ls.pop()
}

impl Registration {
    /// The proxies with this prefix.
    fn naming(&self) -> Result<Naming, Error> {
        let target = match &self.namespace {
            Some(namespace) => namespace.interval(self.prefix.as_bytes(), b"").0,
            None => self.prefix.clone().into(),
        };
        Naming::new(&self.client, target)
    }

    fn endpoint(&self) -> Endpoint {
        let about = serde_json::json!({ "name": host_name() }).to_string();
        Endpoint { addr: self.address.clone(), metadata: Value::String(about) }
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
        match self.naming()?.add(&self.address, &self.endpoint(), session.lease()).await {
            Ok(()) => Ok(session),
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
        let proxy = |value: &[u8]| Endpoint::parse(value).and_then(proxy);
        let member = proxy(br#"{"Op":0,"Addr":"a:1","Metadata":"{\"name\":\"host\"}"}"#).unwrap();
        assert_eq!((member.name.as_str(), member.client_ur_ls), ("host", vec!["a:1".to_owned()]));
        for other in [&b""[..], b"{}", b"[1]", br#"{"Addr":"a:1"}"#, br#"{"Addr":1,"Metadata":"{}"}"#, b"\xff"] {
            assert_eq!(proxy(other), None);
        }
    }

    #[test]
    fn proxies_come_and_go_up_to_a_limit() {
        let view = View::new("own:1".into());
        let endpoint = |addr: &str| Endpoint { addr: addr.into(), metadata: "{}".into() };
        let add = |name: String, addr: &str| view.note(Update::Add { name: name.into(), endpoint: endpoint(addr) });
        (0..=PROXIES_MAX).for_each(|n| add(format!("{n:05}"), "a:1"));
        assert_eq!(view.members().unwrap().len(), PROXIES_MAX);
        add("00000".into(), "b:1");
        assert_eq!(view.members().unwrap()[0].client_ur_ls, ["b:1"]);
        view.note(Update::Delete { name: "00000".into() });
        // No proxy's any more.
        view.note(Update::Add { name: "00001".into(), endpoint: Endpoint::new("a:1") });
        assert_eq!(view.members().unwrap().len(), PROXIES_MAX - 2);
    }

    #[test]
    fn members_are_shown_unless_somebody_is_advertised() {
        assert_eq!(View::new(String::new()).members(), None);
        let view = View::new("a:1".into());
        assert_eq!(view.members().unwrap()[0].client_ur_ls, ["a:1"]);
        let other = pb::Member { name: "b".into(), ..Default::default() };
        view.registered.lock().insert("b".into(), other.clone());
        assert_eq!(view.members().unwrap(), [other]);
    }
}
