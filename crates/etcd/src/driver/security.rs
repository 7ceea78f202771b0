//! TLS as the flags ask for it: which files and rules clients and peers get, self-made certificates, and etcd's texts for
//! what does not fit.

use super::join::names_of;
use crate::config::{Config, Url, gates::Gate, joined, tls_version};
use rpc::metrics::TlsFigures;
use rpc::{Guard, peer};
use server::Fatal;
use std::net::IpAddr;
use std::sync::Arc;
use tls::{Live, Settings, self_made};
use tracing::{info, warn};

/// What clients' connections may speak: gRPC's protocol, and what everybody has.
const PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// The files in use.
#[derive(Clone)]
pub struct Credentials {
    /// `None`: clients are served without TLS.
    pub clients: Option<Arc<Live>>,
    /// What peers are dialled with, and served with unless it has no certificate.
    pub peers: Arc<Live>,
    pub connector: Arc<dyn peer::Connector>,
}

impl Credentials {
    /// Reads the files; makes those that the flags ask for.
    ///
    /// # Errors
    /// etcd's text for files that are missing or don't go together.
    pub fn open(config: &Config) -> Result<Credentials, Fatal> {
        let (clients, peers) = (of_clients(config)?, of_peers(config)?);
        let clients = if clients.is_empty() { None } else { Some(Live::open(clients).map_err(Fatal::new)?) };
        let peers = Live::open(peers).map_err(Fatal::new)?;
        let connector = Arc::new(peer::Dial::new(peers.clone(), local_address(config)));
        Ok(Credentials { clients, peers, connector })
    }

    /// The sets of files, for metrics.
    pub fn figures(&self) -> Vec<TlsFigures> {
        let sets = self.clients.iter().map(|live| ("client", live)).chain([("peer", &self.peers)]);
        let figures = |(side, live): (&'static str, &Arc<Live>)| TlsFigures {
            side,
            days: live.expiries().into_iter().map(|expiry| (expiry.file, expiry.days)).collect(),
            reloads: live.reloads(),
            failures: live.failures(),
            stale: live.stale().is_some(),
        };
        sets.map(figures).collect()
    }

    /// How clients are let in by `url`, which is an encrypted one.
    ///
    /// # Errors
    /// etcd's text: there is no certificate, or nobody to trust.
    pub fn guard(&self, config: &Config, url: &Url) -> Result<Guard, Fatal> {
        let text = || {
            format!("TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme")
        };
        let live = self.clients.clone().ok_or_else(|| Fatal::new(text()))?;
        let server = tls::Server::new(live, PROTOCOLS).map_err(Fatal::new)?;
        Ok(Guard { server: Arc::new(server), names_users: config.client_cert_auth, addresses: None })
    }

    /// How scrapers are let in by an encrypted `--listen-metrics-urls`: as clients, and from where their certificates say.
    ///
    /// # Errors
    /// etcd's text: there is no certificate, or nobody to trust.
    pub fn metrics_guard(&self, config: &Config) -> Result<Guard, Fatal> {
        let text = "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url";
        let live = self.clients.clone().ok_or_else(|| Fatal::new(text))?;
        let server = Arc::new(tls::Server::new(live, PROTOCOLS).map_err(Fatal::new)?);
        let addresses = scrapers_names(config);
        Ok(Guard { server, names_users: false, addresses })
    }

    /// How peers are let in by `url`, which is an encrypted one.
    ///
    /// # Errors
    /// etcd's text: there is no certificate, or nobody to trust.
    pub fn gate(&self, config: &Config, url: &Url) -> Result<peer::Gate, Fatal> {
        let addresses = peers_names(config);
        let failed = |why| Fatal::new(format!("cannot listen on TLS for {}: {why}", url.authority()));
        peer::Gate::new(self.peers.clone(), addresses).map_err(failed)
    }
}

/// How the names in members' certificates are compared with where they connect from, if they are.
fn peers_names(config: &Config) -> Option<tls::NamesOf> {
    (!config.peer_skip_client_san_verification).then(names_of)
}

/// … and those in scrapers'.
fn scrapers_names(config: &Config) -> Option<tls::NamesOf> {
    (!config.client_skip_client_san_verification).then(names_of)
}

/// Where peers shall see us come from (gate `SetMemberLocalAddr`; etcd `InferLocalAddr`): the first address of
/// --initial-advertise-peer-urls that other hosts can reach.
fn local_address(config: &Config) -> Option<IpAddr> {
    if !config.enabled(Gate::SetMemberLocalAddr) {
        return None;
    }
    let urls = joined(&config.initial_advertise_peer_urls);
    info!("advertise-peer-urls" = urls, "searching for a suitable member local address in AdvertisePeerURLs");
    let addresses = config.initial_advertise_peer_urls.iter().filter_map(|url| url.host.parse::<IpAddr>().ok());
    let found = addresses.into_iter().find(|ip| !ip.is_loopback() && !ip.is_unspecified());
    match found {
        Some(ip) => info!("LocalAddr" = %ip, "setting member local address"),
        None => warn!(
            "advertise-peer-urls" = urls,
            "unable to set a member local address due to lack of suitable local addresses"
        ),
    }
    found
}

fn of_clients(config: &Config) -> Result<Settings, Fatal> {
    let settings = Settings {
        cert: config.cert_file.clone(),
        key: config.key_file.clone(),
        client_cert: config.client_cert_file.clone(),
        client_key: config.client_key_file.clone(),
        trusted_ca: config.trusted_ca_file.clone(),
        crl: config.client_crl_file.clone(),
        client_cert_auth: config.client_cert_auth,
        allowed_cns: config.client_cert_allowed_cn.clone(),
        allowed_hostnames: config.client_cert_allowed_hostname.clone(),
        ..common(config)
    };
    if config.auto_tls && !settings.is_empty() {
        warn!("ignoring client auto TLS since certs given");
    }
    match config.auto_tls && settings.is_empty() {
        true => with_self_made(config, settings, "client", &config.listen_client_urls),
        false => Ok(settings),
    }
}

fn of_peers(config: &Config) -> Result<Settings, Fatal> {
    let settings = Settings {
        cert: config.peer_cert_file.clone(),
        key: config.peer_key_file.clone(),
        client_cert: config.peer_client_cert_file.clone(),
        client_key: config.peer_client_key_file.clone(),
        trusted_ca: config.peer_trusted_ca_file.clone(),
        crl: config.peer_crl_file.clone(),
        client_cert_auth: config.peer_client_cert_auth,
        allowed_cns: config.peer_cert_allowed_cn.clone(),
        allowed_hostnames: config.peer_cert_allowed_hostname.clone(),
        // As etcd: certificates are for the domain that names the members, unless somebody else vouches for them.
        server_name: Some(config.discovery_srv.clone())
            .filter(|domain| !domain.is_empty() && config.peer_trusted_ca_file.is_empty()),
        ..common(config)
    };
    if config.peer_auto_tls && !settings.is_empty() {
        warn!("ignoring peer auto TLS since certs given");
    }
    match config.peer_auto_tls && settings.is_empty() {
        true => with_self_made(config, settings, "peer", &config.listen_peer_urls),
        false => Ok(settings),
    }
}

fn common(config: &Config) -> Settings {
    Settings {
        min: tls_version(&config.tls_min_version),
        max: tls_version(&config.tls_max_version),
        suites: config.cipher_suites.clone(),
        ..Settings::default()
    }
}

/// Nobody else has signed these, so nobody's are verified.
fn with_self_made(config: &Config, settings: Settings, folder: &str, urls: &[Url]) -> Result<Settings, Fatal> {
    let hosts: Vec<String> = urls.iter().map(|url| url.host.clone()).collect();
    let folder = config.data_path().join("fixtures").join(folder);
    let made = self_made(&folder, &hosts, config.self_signed_cert_validity).map_err(Fatal::new)?;
    let (cert, key) = (made.cert.display().to_string(), made.key.display().to_string());
    Ok(Settings { cert, key, skip_verify: true, ..settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_see_the_first_address_that_is_advertised_and_no_loopback_if_the_gate_says_so() {
        let mut config = Config {
            initial_advertise_peer_urls: Url::parse_list("http://127.0.0.1:1,http://192.0.2.7:1,http://name:1")
                .unwrap(),
            ..Config::default()
        };
        assert_eq!(local_address(&config), None);
        config.feature_gates.set("SetMemberLocalAddr=true").unwrap();
        assert_eq!(local_address(&config), Some([192, 0, 2, 7].into()));
        config.initial_advertise_peer_urls = Url::parse_list("http://127.0.0.1:1,http://0.0.0.0:1").unwrap();
        assert_eq!(local_address(&config), None);
    }

    fn read(text: &str) -> Config {
        let mut config = Config::default();
        crate::config::read_file(text, &mut config).unwrap();
        config
    }

    #[test]
    fn files_and_rules_are_those_of_the_settings() {
        let security = "{cert-file: a, key-file: b, client-cert-file: c, client-key-file: d, trusted-ca-file: e, \
                        client-cert-auth: true, allowed-cn: [f], allowed-hostname: [g]}";
        let config = read(&format!(
            "client-transport-security: {security}\npeer-transport-security: {security}\ncipher-suites: [h]\n\
             tls-min-version: TLS1.2\ntls-max-version: TLS1.3\n"
        ));
        let config = Config { client_crl_file: "i".into(), peer_crl_file: "i".into(), ..config };
        let expected = Settings {
            cert: "a".into(),
            key: "b".into(),
            client_cert: "c".into(),
            client_key: "d".into(),
            trusted_ca: "e".into(),
            client_cert_auth: true,
            allowed_cns: vec!["f".into()],
            allowed_hostnames: vec!["g".into()],
            suites: vec!["h".into()],
            min: Some(tls::Version::Tls12),
            max: Some(tls::Version::Tls13),
            crl: "i".into(),
            ..Settings::default()
        };
        assert_eq!(of_clients(&config).unwrap(), expected);
        assert_eq!(of_peers(&config).unwrap(), expected);
    }

    #[test]
    fn names_are_compared_with_addresses_unless_the_settings_say_otherwise() {
        let default = Config::default();
        assert!(peers_names(&default).is_some() && scrapers_names(&default).is_some());
        let peers = read("peer-transport-security: {skip-client-san-verification: true}");
        assert!(peers_names(&peers).is_none() && scrapers_names(&peers).is_some());
        let scrapers = read("client-transport-security: {skip-client-san-verification: true}");
        assert!(peers_names(&scrapers).is_some() && scrapers_names(&scrapers).is_none());
    }
}
