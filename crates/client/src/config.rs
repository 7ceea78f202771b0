//! How a client is set up, and what an endpoint's text means.

use crate::call::Attempt;
use std::sync::Arc;
use std::time::Duration;

/// Messages up to this size are sent unless told otherwise (clientv3 `defaultClientMaxSendSize`): 2 MiB.
pub const SEND_BYTES_MAX: usize = 2 << 20;

/// Told of every attempt that failed.
pub type Observer = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// A client's settings.
#[derive(Clone)]
pub struct Config {
    /// `host:port`, `http://host:port`, `unix:path`; tried in turn.
    pub endpoints: Vec<String>,
    /// How long one connection may take to come up.
    pub dial_timeout: Duration,
    /// Pings on an idle connection; `None`: no pings. Not below 10 s, as in gRPC.
    pub keepalive_time: Option<Duration>,
    pub keepalive_timeout: Duration,
    /// Largest request that is sent, bytes.
    pub send_bytes_max: usize,
    /// Largest answer that is taken, bytes.
    pub recv_bytes_max: usize,
    /// Name and password; a token is fetched before the first request.
    pub user: Option<(String, String)>,
    /// A token that is there already.
    pub token: Option<String>,
    pub observer: Option<Observer>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            endpoints: vec!["127.0.0.1:2379".into()],
            dial_timeout: Duration::from_secs(2),
            keepalive_time: None,
            keepalive_timeout: Duration::from_secs(6),
            send_bytes_max: SEND_BYTES_MAX,
            recv_bytes_max: i32::MAX as usize,
            user: None,
            token: None,
            observer: None,
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
    /// `host:port`, in plain text.
    Tcp(String),
    /// A socket file.
    Unix(String),
    /// `https://` or `unixs:`, which this release can't speak.
    Tls(String),
}

impl Address {
    /// Reads an endpoint by clientv3's rules: a missing scheme is plain text, a path behind `host:port` is ignored.
    pub fn parse(endpoint: &str) -> Address {
        if let Some(path) = endpoint.strip_prefix("unix:") {
            return Address::Unix(path.strip_prefix("//").unwrap_or(path).to_owned());
        }
        if endpoint.starts_with("unixs:") || endpoint.starts_with("https://") {
            return Address::Tls(endpoint.to_owned());
        }
        let bare = match endpoint.strip_prefix("http://") {
            Some(rest) => rest.split('/').next().unwrap_or_default(),
            None => endpoint,
        };
        Address::Tcp(bare.to_owned())
    }

    /// The text without its scheme, as gRPC names the target.
    pub fn authority(&self) -> &str {
        match self {
            Address::Tcp(text) | Address::Unix(text) | Address::Tls(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address::{self, Tcp, Tls, Unix};

    #[test]
    fn endpoints_are_read_as_clientv3_reads_them() {
        for (text, address) in [
            ("127.0.0.1:2379", Tcp("127.0.0.1:2379".into())),
            ("http://a:1/path", Tcp("a:1".into())),
            ("unix:///run/etcd.sock", Unix("/run/etcd.sock".into())),
            ("unix:etcd.sock", Unix("etcd.sock".into())),
            ("https://a:1", Tls("https://a:1".into())),
            ("unixs:a", Tls("unixs:a".into())),
        ] {
            assert_eq!(Address::parse(text), address, "{text}");
        }
    }
}
