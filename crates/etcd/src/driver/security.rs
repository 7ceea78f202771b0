//! TLS as the flags ask for it: which files and rules clients and peers get, self-made certificates, and etcd's texts for
//! what does not fit.

use super::join::names_of;
use crate::config::{Config, Url, tls_version};
use rpc::{Guard, peer};
use server::Fatal;
use std::sync::Arc;
use tls::{Live, Settings, self_made};
use tracing::warn;

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
        let connector = Arc::new(peer::Dial::new(peers.clone()));
        Ok(Credentials { clients, peers, connector })
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
        let addresses = (!config.client_skip_client_san_verification).then(names_of);
        Ok(Guard { server, names_users: false, addresses })
    }

    /// How peers are let in by `url`, which is an encrypted one.
    ///
    /// # Errors
    /// etcd's text: there is no certificate, or nobody to trust.
    pub fn gate(&self, config: &Config, url: &Url) -> Result<peer::Gate, Fatal> {
        let addresses = (!config.peer_skip_client_san_verification).then(names_of);
        let failed = |why| Fatal::new(format!("cannot listen on TLS for {}: {why}", url.authority()));
        peer::Gate::new(self.peers.clone(), addresses).map_err(failed)
    }
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
