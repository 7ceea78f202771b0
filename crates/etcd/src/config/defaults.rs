//! Defaults that depend on other settings.

use super::RAFT_TIMEOUT_MIN;
use super::table::{Config, DEFAULT_INITIAL_CLUSTER, DEFAULT_NAME};
use super::url::Url;
use crate::logging::{Level, Note};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

const DEFAULT_HOST: &str = "localhost";
const WARNING_UNARY: Duration = Duration::from_millis(300);

/// Fills in what follows from the rest: addresses when listening everywhere, the one-member cluster of a name.
pub fn fill(config: &mut Config, notes: &mut Vec<Note>) {
    if config.warning_unary_request_duration.is_zero() {
        config.warning_unary_request_duration = WARNING_UNARY;
    }
    config.raft_read_timeout = config.raft_read_timeout.max(RAFT_TIMEOUT_MIN);
    config.raft_write_timeout = config.raft_write_timeout.max(RAFT_TIMEOUT_MIN);
    if advertises_defaults(config) {
        match default_host() {
            Some(host) => advertise(config, &host.to_string(), notes),
            None => notes.push(Note::new(Level::Info, "failed to detect default host")),
        }
    }
    if config.name != DEFAULT_NAME && config.initial_cluster == DEFAULT_INITIAL_CLUSTER {
        config.initial_cluster = initial_cluster_of(config);
    }
}

fn initial_cluster_of(config: &Config) -> String {
    let name = if config.name.is_empty() { DEFAULT_NAME } else { &config.name };
    let members: Vec<String> = config.initial_advertise_peer_urls.iter().map(|u| format!("{name}={u}")).collect();
    members.join(",")
}

fn is_default(urls: &[Url], port: u16) -> bool {
    matches!(urls, [url] if url.host == DEFAULT_HOST && url.port == port)
}

fn listens_everywhere(urls: &[Url]) -> bool {
    urls.first().is_some_and(|u| u.host == "0.0.0.0")
}

fn peers_need_host(config: &Config) -> bool {
    is_default(&config.initial_advertise_peer_urls, 2380) && listens_everywhere(&config.listen_peer_urls)
}

fn clients_need_host(config: &Config) -> bool {
    is_default(&config.advertise_client_urls, 2379) && listens_everywhere(&config.listen_client_urls)
}

fn advertises_defaults(config: &Config) -> bool {
    peers_need_host(config) || clients_need_host(config)
}

fn advertise(config: &mut Config, host: &str, notes: &mut Vec<Note>) {
    if peers_need_host(config) {
        config.initial_advertise_peer_urls =
            vec![rehost(&config.initial_advertise_peer_urls[0], host, &config.listen_peer_urls[0])];
    }
    if clients_need_host(config) {
        config.advertise_client_urls =
            vec![rehost(&config.advertise_client_urls[0], host, &config.listen_client_urls[0])];
    }
    notes.push(Note::new(Level::Info, "detected default host for advertise").text("host", host));
}

/// The advertised URL with the host's address and the port that is listened on.
fn rehost(advertised: &Url, host: &str, listened: &Url) -> Url {
    let mut url = advertised.clone();
    url.port = listened.port;
    url.with_host(host)
}

/// The address from which packets leave by the default route. Connecting a datagram socket sends nothing.
fn default_host() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address of the range reserved for documentation: only the route to it is looked up.
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_founds_a_cluster_of_its_own() {
        let mut config = Config { name: "infra1".into(), ..Config::default() };
        fill(&mut config, &mut Vec::new());
        assert_eq!(config.initial_cluster, "infra1=http://localhost:2380");
        config = Config::default();
        fill(&mut config, &mut Vec::new());
        assert_eq!(config.initial_cluster, DEFAULT_INITIAL_CLUSTER);
    }

    #[test]
    fn listening_everywhere_advertises_the_hosts_address_and_the_listening_port() {
        let mut config =
            Config { listen_client_urls: Url::parse_list("http://0.0.0.0:7379").unwrap(), ..Config::default() };
        advertise(&mut config, "10.1.2.3", &mut Vec::new());
        assert_eq!(config.advertise_client_urls[0].as_str(), "http://10.1.2.3:7379");
        assert_eq!(config.initial_advertise_peer_urls[0].as_str(), "http://localhost:2380");
    }

    #[test]
    fn zero_and_too_short_durations_are_raised() {
        let mut config = Config {
            warning_unary_request_duration: Duration::ZERO,
            raft_read_timeout: Duration::from_secs(1),
            ..Config::default()
        };
        fill(&mut config, &mut Vec::new());
        assert_eq!(config.warning_unary_request_duration, WARNING_UNARY);
        assert_eq!(config.raft_read_timeout, RAFT_TIMEOUT_MIN);
    }
}
