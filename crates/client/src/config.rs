//! How a client is set up, and what an endpoint's text means.

use crate::call::Attempt;
use crate::cause::Failures;
use std::sync::Arc;
use std::time::Duration;

/// Messages up to this size are sent unless told otherwise (clientv3 `defaultClientMaxSendSize`): 2 MiB.
pub const SEND_BYTES_MAX: usize = 2 << 20;

/// Told of every attempt that failed.
pub type Observer = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// A client's settings.
#[derive(Clone)]
pub struct Config {
    /// `host:port`, `http://host:port`, `https://host:port`, `unix:path`, `unixs:path`; tried in turn. The first one's
    /// scheme says for all of them whether TLS is spoken.
    pub endpoints: Vec<String>,
    /// Files and rules of TLS. Without, TLS is spoken where a scheme asks for it only, and the operating system's
    /// authorities are trusted.
    pub tls: Option<tls::Settings>,
    /// How long one connection may take to come up.
    pub dial_timeout: Duration,
    /// Pings on an idle connection; `None`: no pings. Not below 10 s, as in gRPC.
    pub keepalive_time: Option<Duration>,
    pub keepalive_timeout: Duration,
    /// Pings also while nothing is asked.
    pub keepalive_idle: bool,
    /// How long a call waits for an endpoint to be connected, then to be *unavailable*; `None`: as long as its deadline
    /// allows.
    pub connect_patience: Option<Duration>,
    /// Largest request that is sent, bytes.
    pub send_bytes_max: usize,
    /// Largest answer that is taken, bytes.
    pub recv_bytes_max: usize,
    /// Name and password; a token is fetched before the first request.
    pub user: Option<(String, String)>,
    /// A token that is there already.
    pub token: Option<String>,
    pub observer: Option<Observer>,
    /// Where the last cause of each endpoint is written down.
    pub failures: Failures,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: vec!["127.0.0.1:2379".into()],
            tls: None,
            dial_timeout: Duration::from_secs(2),
            keepalive_time: None,
            keepalive_timeout: Duration::from_secs(6),
            keepalive_idle: false,
            connect_patience: None,
            send_bytes_max: SEND_BYTES_MAX,
            recv_bytes_max: i32::MAX as usize,
            user: None,
            token: None,
            observer: None,
            failures: Failures::default(),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Where an endpoint's text leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(String),
    /// A socket file.
    Unix(String),
}

/// What an endpoint's scheme says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// `http`.
    Plain,
    /// `https`, `unixs`.
    Tls,
    /// None, `unix`: TLS if it is set up.
    Either,
}

impl Demand {
    /// Reads an endpoint's scheme by clientv3's rules (`endpoint.RequiresCredentials`).
    pub fn of(endpoint: &str) -> Demand {
        if endpoint.starts_with("https://") || endpoint.starts_with("unixs:") {
            return Demand::Tls;
        }
        if endpoint.starts_with("http://") { Demand::Plain } else { Demand::Either }
    }
}

impl Address {
    /// Reads an endpoint by clientv3's rules: a path behind `host:port` is ignored.
    pub fn parse(endpoint: &str) -> Address {
        if let Some(path) = endpoint.strip_prefix("unix:").or_else(|| endpoint.strip_prefix("unixs:")) {
            return Address::Unix(path.strip_prefix("//").unwrap_or(path).to_owned());
        }
        let bare = match endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://")) {
            Some(rest) => rest.split('/').next().unwrap_or_default(),
            None => endpoint,
        };
        Address::Tcp(bare.to_owned())
    }

    /// The text without its scheme, as gRPC names the target.
    pub fn authority(&self) -> &str {
        match self {
            Address::Tcp(text) | Address::Unix(text) => text,
        }
    }

    /// `host:port` as it is dialled: Go takes any host in brackets (kubeadm's old probes ask `https://[127.0.0.1]:2379`), the
    /// resolver here only IPv6 addresses.
    pub fn dialled(authority: &str) -> std::borrow::Cow<'_, str> {
        match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) if !host.contains(':') => format!("{host}{port}").into(),
            _ => authority.into(),
        }
    }

    /// Whose certificate the server has to show: the host; of a socket file its name, both without a port.
    pub fn server_name(&self) -> &str {
        let name = match self {
            Address::Tcp(text) => text,
            Address::Unix(path) => path.rsplit('/').next().unwrap_or_default(),
        };
        let host = match name.rsplit_once(':') {
            Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
            _ => name,
        };
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl Config {
    /// What connections are secured with; `None`: nothing.
    ///
    /// # Errors
    /// In Go's words: files that are no good, or nobody to trust.
    pub(crate) fn secure(&self) -> Result<Option<tls::Client>, String> {
        let demand = self.endpoints.first().map_or(Demand::Either, |endpoint| Demand::of(endpoint));
        let settings = match (demand, &self.tls) {
            (Demand::Plain, _) | (Demand::Either, None) => return Ok(None),
            (_, settings) => settings.clone().unwrap_or_default(),
        };
        tls::Client::new(tls::Live::open(settings)?, &["h2"]).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::Address::{self, Tcp, Unix};
    use super::Demand;

    #[test]
    fn endpoints_are_read_as_clientv3_reads_them() {
        for (text, address, demand, name) in [
            ("127.0.0.1:2379", Tcp("127.0.0.1:2379".into()), Demand::Either, "127.0.0.1"),
            ("http://a:1/path", Tcp("a:1".into()), Demand::Plain, "a"),
            ("https://a:1/path", Tcp("a:1".into()), Demand::Tls, "a"),
            ("https://[::1]:1", Tcp("[::1]:1".into()), Demand::Tls, "::1"),
            ("unix:///run/etcd.sock", Unix("/run/etcd.sock".into()), Demand::Either, "etcd.sock"),
            ("unix:etcd.sock", Unix("etcd.sock".into()), Demand::Either, "etcd.sock"),
            ("unixs://localhost:1", Unix("localhost:1".into()), Demand::Tls, "localhost"),
            ("unixs:a", Unix("a".into()), Demand::Tls, "a"),
        ] {
            assert_eq!(Address::parse(text), address, "{text}");
            assert_eq!(Demand::of(text), demand, "{text}");
            assert_eq!(address.server_name(), name, "{text}");
        }
    }

    #[test]
    fn brackets_are_for_whoever_wants_them() {
        for (given, dialled) in [
            ("[127.0.0.1]:2379", "127.0.0.1:2379"),
            ("[etcd.example]:1", "etcd.example:1"),
            ("[::1]:2379", "[::1]:2379"),
            ("127.0.0.1:2379", "127.0.0.1:2379"),
            ("[a", "[a"),
        ] {
            assert_eq!(Address::dialled(given), dialled);
        }
        assert_eq!(Tcp("[127.0.0.1]:2379".into()).server_name(), "127.0.0.1");
    }
}
