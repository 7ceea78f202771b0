//! `--discovery-token`: founders meet in another etcd (etcd `v3discovery`).
//!
//! ```text
//! /_etcd/registry/TOKEN/_config/size       how many they shall be, put there beforehand
//! /_etcd/registry/TOKEN/members/ID         name=url,name=url: each puts its own; the first so many are the founders
//! ```

use crate::config::Config;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::{KeyValue, event::EventType};
use client::{Client, Error};
use std::fmt;
use std::time::Duration;
use tracing::{info, warn};

const PREFIX: &str = "/_etcd/registry";
/// The wait between attempts doubles so often: 2 s to 256 s. They never end, as in etcd.
const DOUBLINGS_MAX: u32 = 8;

/// Why no cluster came of it.
#[derive(Debug)]
enum Failure {
    /// Told as etcd tells it.
    Refused(&'static str),
    Client(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(text) => f.write_str(text),
            Failure::Client(e) => e.fmt(f),
        }
    }
}

/// Puts this member (`own`, as `--initial-cluster` would have it) into the registry and waits for the others. Answers all
/// founders as `--initial-cluster` would have them.
///
/// # Errors
/// etcd's text, and what helps.
pub fn join(config: &Config, id: u64, own: &str) -> Result<String, String> {
    let failed = |why: &dyn fmt::Display| {
        format!(
            "failed to join discovery cluster ({why}): a discovery token founds one cluster and no other; make a new one for \
             a new cluster, and put its size under {PREFIX}/TOKEN/_config/size at {}",
            config.discovery_endpoints.join(",")
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
    info!("discovery-token" = config.discovery_token, "Bootstrapping cluster using v3 discovery.");
    runtime
        .block_on(async {
            let client = Client::connect(settings(config)).await.map_err(Failure::Client)?;
            let mut discovery = Discovery {
                client,
                request_timeout: config.discovery_request_timeout,
                token: config.discovery_token.clone(),
                own_key: member_key(&config.discovery_token, id),
                failures: 0,
            };
            discovery.join(own).await
        })
        .map_err(|why: Failure| failed(&why))
}

fn settings(config: &Config) -> client::Config {
    // etcd's help has name:password, and a flag of its own for the latter.
    let (name, password) = config.discovery_user.split_once(':').unwrap_or((&config.discovery_user, ""));
    let password = if config.discovery_password.is_empty() { password } else { &config.discovery_password };
    let default = client::Config::default();
    let given = |bytes: i64, default| usize::try_from(bytes).ok().filter(|bytes| *bytes > 0).unwrap_or(default);
    client::Config {
        endpoints: config.discovery_endpoints.clone(),
        tls: tls(config),
        dial_timeout: config.discovery_dial_timeout,
        keepalive_time: Some(config.discovery_keepalive_time),
        keepalive_timeout: config.discovery_keepalive_timeout,
        user: (!name.is_empty() && !password.is_empty()).then(|| (name.to_owned(), password.to_owned())),
        token: Some(config.discovery_auth_token.clone()).filter(|token| !token.is_empty()),
        send_bytes_max: given(config.discovery_max_request_bytes, default.send_bytes_max),
        recv_bytes_max: given(config.discovery_max_recv_bytes, default.recv_bytes_max),
        ..default
    }
}

/// `None`: TLS only where an endpoint's scheme asks for it.
fn tls(config: &Config) -> Option<tls::Settings> {
    let settings = tls::Settings {
        cert: config.discovery_cert.clone(),
        key: config.discovery_key.clone(),
        trusted_ca: config.discovery_cacert.clone(),
        skip_verify: config.discovery_insecure_skip_tls_verify,
        server_name: Some(config.discovery_server_name.clone()).filter(|name| !name.is_empty()),
        ..tls::Settings::default()
    };
    let nothing = settings == tls::Settings::default() && config.discovery_insecure_transport;
    (!nothing).then_some(settings)
}

fn members_prefix(token: &str) -> String {
    format!("{PREFIX}/{token}/members")
}

fn member_key(token: &str, id: u64) -> String {
    format!("{}/{id:x}", members_prefix(token))
}

struct Discovery {
    client: Client,
    request_timeout: Duration,
    token: String,
    own_key: String,
    /// Attempts that failed since the last that did not.
    failures: u32,
}

impl Discovery {
    async fn join(&mut self, own: &str) -> Result<String, Failure> {
        self.check().await?;
        self.register(own).await;
        loop {
            let (mut registry, size, revision) = self.check().await?;
            match self.wait_for_others(&mut registry, size, revision).await {
                Ok(()) => return registry.founders(size),
                Err(e) => self.back_off("waiting for peers", &e).await,
            }
        }
    }

    /// A client whose next call has the time that a request may take.
    fn client(&self) -> Client {
        self.client.with_timeout(self.request_timeout)
    }

    async fn back_off(&mut self, step: &str, why: &Error) {
        self.failures = (self.failures + 1).min(DOUBLINGS_MAX);
        let wait = Duration::from_secs(1 << self.failures);
        warn!(reason = step, error = %why, backoff = ?wait, "retry connecting to discovery service");
        tokio::time::sleep(wait).await;
    }

    /// Who is there, how many there shall be, and as of which revision; again and again until the service answers.
    async fn check(&mut self) -> Result<(Registry, usize, i64), Failure> {
        loop {
            match self.look().await {
                Err(Failure::Client(e)) => self.back_off("cluster status check", &e).await,
                answered => {
                    self.failures = 0;
                    return answered;
                }
            }
        }
    }

    async fn look(&self) -> Result<(Registry, usize, i64), Failure> {
        let size = self.size().await?;
        let prefix = members_prefix(&self.token);
        let request = pb::RangeRequest {
            range_end: prefix_end(&prefix).into(),
            key: prefix.clone().into(),
            ..pb::RangeRequest::default()
        };
        let found = self.client().range(request).await.map_err(Failure::Client)?;
        let mut registry = Registry::default();
        found.kvs.iter().for_each(|kv| registry.add(kv));
        if !registry.has_room(&self.own_key, size) {
            return Err(Failure::Refused("discovery: cluster is full"));
        }
        Ok((registry, size, found.header.map_or(0, |header| header.revision)))
    }

    async fn size(&self) -> Result<usize, Failure> {
        let key = format!("{PREFIX}/{}/_config/size", self.token);
        let request = pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() };
        let found = self.client().range(request).await.map_err(Failure::Client)?;
        let Some(kv) = found.kvs.first() else {
            return Err(Failure::Refused("discovery: size key not found"));
        };
        parse_size(&kv.value).ok_or(Failure::Refused("discovery: size key is bad"))
    }

    async fn register(&mut self, own: &str) {
        let key = self.own_key.clone();
        let request =
            pb::PutRequest { key: key.clone().into(), value: own.to_owned().into(), ..pb::PutRequest::default() };
        while let Err(e) = self.client().put(request.clone()).await {
            self.back_off("register member itself", &e).await;
        }
        self.failures = 0;
        info!("memberKey" = key, "memberInfo" = own, "register member itself successfully");
    }

    async fn wait_for_others(&self, registry: &mut Registry, size: usize, revision: i64) -> Result<(), Error> {
        let prefix = members_prefix(&self.token);
        let request = pb::WatchCreateRequest {
            range_end: prefix_end(&prefix).into(),
            key: prefix.into(),
            start_revision: revision + 1,
            ..pb::WatchCreateRequest::default()
        };
        let mut watch = self.client.watch(request);
        info!("clusterSize" = size, "found-peers" = registry.members.len(), "waiting for peers from discovery service");
        while registry.members.len() < size {
            let ended = || Error::WatchCanceled("the service ended the watch".into());
            let response = watch.next().await?.ok_or_else(ended)?;
            let puts = response.events.iter().filter(|event| event.r#type() == EventType::Put);
            puts.filter_map(|event| event.kv.as_ref()).for_each(|kv| registry.add(kv));
        }
        info!(
            "clusterSize" = size,
            "found-peers" = registry.members.len(),
            "found all needed peers from discovery service"
        );
        Ok(())
    }
}

fn parse_size(value: &[u8]) -> Option<usize> {
    let size = std::str::from_utf8(value).ok().and_then(|text| go::parse_int(text, 10).ok());
    size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0)
}

/// What a registry's answers make of the founders, `own` being this member's key; for the fuzzer.
///
/// # Errors
/// etcd's text.
pub fn founders_of(size: &[u8], own: &str, members: &[KeyValue]) -> Result<String, String> {
    let size = parse_size(size).ok_or("discovery: size key is bad")?;
    let mut registry = Registry::default();
    members.iter().for_each(|kv| registry.add(kv));
    match registry.has_room(own, size) {
        true => registry.founders(size).map_err(|e| e.to_string()),
        false => Err("discovery: cluster is full".into()),
    }
}

/// The end of the range of all keys with this prefix, which ends with a letter.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Who has registered: key and value, by the revision of its first put.
#[derive(Debug, Default)]
struct Registry {
    members: Vec<(i64, String, String)>,
}

impl Registry {
    fn add(&mut self, kv: &KeyValue) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, value) = (text(&kv.key), text(&kv.value));
        let fault = if !value.contains('=') {
            "invalid peer info returned from discovery service"
        } else if self.members.iter().any(|(_, known, _)| *known == key) {
            "found duplicate peer from discovery service"
        } else {
            info!("memberKey" = key, "memberInfo" = value, "found peer from discovery service");
            self.members.push((kv.create_revision, key, value));
            return self.members.sort();
        };
        warn!("memberKey" = key, "memberInfo" = value, "{fault}");
    }

    /// Whether `own` is among the first `size`, or can still be.
    fn has_room(&self, own: &str, size: usize) -> bool {
        self.members.len() < size || self.members[..size].iter().any(|(_, key, _)| key == own)
    }

    fn founders(&self, size: usize) -> Result<String, Failure> {
        let founders: Vec<&str> = self.members.iter().take(size).map(|(.., value)| value.as_str()).collect();
        let text = founders.join(",");
        match crate::config::named(&text) {
            Ok(_) => Ok(text),
            Err(_) => Err(Failure::Refused("discovery: invalid peer URL")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, create_revision: i64) -> KeyValue {
        KeyValue { key: key.to_owned().into(), value: value.to_owned().into(), create_revision, ..KeyValue::default() }
    }

    #[test]
    fn the_registry_is_asked_as_the_settings_say() {
        let mut config = Config::default();
        let plain = settings(&config);
        assert_eq!((plain.tls, plain.user, plain.token), (None, None, None));
        assert_eq!((plain.dial_timeout.as_secs(), plain.keepalive_timeout.as_secs()), (2, 6));
        let text = "discovery-config:\n  token: t\n  client:\n    endpoints: [a:1]\n    dial-timeout: 11000000000\n    \
                    keepalive-time: 12000000000\n    keepalive-timeout: 13000000000\n    max-request-bytes: 14\n    \
                    max-recv-bytes: 15\n    auth: {username: u, password: p, token: k}\n    secure: {cert: c, key: kk, \
                    cacert: a, server-name: nn, insecure-skip-tls-verify: true}\n";
        crate::config::read_file(text, &mut config).unwrap();
        let asked = settings(&config);
        assert_eq!(asked.endpoints, ["a:1"]);
        assert_eq!((asked.dial_timeout.as_secs(), asked.keepalive_timeout.as_secs()), (11, 13));
        assert_eq!(asked.keepalive_time.map(|t| t.as_secs()), Some(12));
        assert_eq!((asked.send_bytes_max, asked.recv_bytes_max), (14, 15));
        assert_eq!((asked.user, asked.token), (Some(("u".into(), "p".into())), Some("k".into())));
        let expected = tls::Settings {
            cert: "c".into(),
            key: "kk".into(),
            trusted_ca: "a".into(),
            server_name: Some("nn".into()),
            skip_verify: true,
            ..tls::Settings::default()
        };
        assert_eq!(asked.tls, Some(expected));
        config = Config { discovery_insecure_transport: false, ..Config::default() };
        assert_eq!(settings(&config).tls, Some(tls::Settings::default()), "TLS without a file of its own");
        config = Config { discovery_user: "u:p".into(), ..Config::default() };
        assert_eq!(settings(&config).user, Some(("u".into(), "p".into())));
    }

    #[test]
    fn the_first_to_register_are_the_founders() {
        let mut registry = Registry::default();
        for (key, value, revision) in [
            ("c", "c=http://c:1", 9),
            ("a", "a=http://a:1", 7),
            ("a", "a=http://other:1", 8),
            ("bad", "http://bad:1", 1),
            ("b", "b=http://b:1,b=http://b:2", 8),
        ] {
            registry.add(&kv(key, value, revision));
        }
        assert_eq!(registry.founders(2).unwrap(), "a=http://a:1,b=http://b:1,b=http://b:2");
        assert!(registry.has_room("a", 2) && registry.has_room("b", 2) && !registry.has_room("c", 2));
        assert!(registry.has_room("c", 3) && registry.has_room("new", 4) && !registry.has_room("new", 3));
        registry.add(&kv("d", "d=nowhere", 10));
        assert!(matches!(registry.founders(4), Err(Failure::Refused("discovery: invalid peer URL"))));
    }

    #[test]
    fn keys_are_those_of_gos_members() {
        assert_eq!(member_key("t", 0xd040), "/_etcd/registry/t/members/d040");
        assert_eq!(prefix_end("/members"), b"/membert");
    }
}
