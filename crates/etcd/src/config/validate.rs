//! Checks of a loaded configuration, in etcd's order and words (reference/server-config.md section 5), and what this
//! release can't do yet.

use super::gates::Gate;
use super::go::{format_duration, quote};
use super::table::{Config, FLAGS};
use super::url::{Scheme, Url};
use crate::logging::{Level, Note};
use std::net::IpAddr;
use std::time::Duration;

const MAX_ELECTION_MS: u64 = 50_000;
const RECOMMENDED_QUOTA: i64 = 8 << 30;
const RECOMMENDED_REQUEST: u64 = 10 << 20;
/// More would let one request hold gigabytes; the log's records end far below it too.
const MAX_REQUEST: u64 = 256 << 20;

/// Settings of features that come with later releases. Each would be dangerous to ignore.
const UNSUPPORTED: &[&str] = &[
    "force-new-cluster",
    "discovery-token",
    "discovery-endpoints",
    "discovery-srv",
    "discovery-srv-name",
    "cert-file",
    "key-file",
    "client-cert-auth",
    "client-cert-file",
    "client-key-file",
    "client-crl-file",
    "client-cert-allowed-hostname",
    "trusted-ca-file",
    "auto-tls",
    "peer-cert-file",
    "peer-key-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-trusted-ca-file",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-auto-tls",
    "peer-crl-file",
    "peer-skip-client-san-verification",
    "auth-token",
    "listen-client-http-urls",
    "listen-metrics-urls",
    "enable-pprof",
    "enable-log-rotation",
    "enable-distributed-tracing",
    "memory-mlock",
    "bootstrap-defrag-threshold-megabytes",
];

/// Checks `config`; adds warnings to `notes`.
///
/// # Errors
/// The first thing wrong, to be logged as `failed to verify flags`.
pub fn validate(config: &Config, notes: &mut Vec<Note>) -> Result<(), String> {
    logging(config)?;
    for url in config.listen_peer_urls.iter().chain(&config.listen_client_urls) {
        listen_url(url)?;
    }
    advertised(config)?;
    if !["new", "existing"].contains(&config.initial_cluster_state.as_str()) {
        return Err(format!("unexpected clusterState {}", quote(&config.initial_cluster_state)));
    }
    timing(config)?;
    config.auto_compaction()?;
    if config.enabled(Gate::LeaseCheckpointPersist) && !config.enabled(Gate::LeaseCheckpoint) {
        let text = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint";
        return Err(text.into());
    }
    if config.compact_hash_check_time.is_zero() {
        return Err("--compact-hash-check-time must be >0 (set to 0s)".into());
    }
    limits(config)?;
    unsupported(config)?;
    warnings(config, notes);
    Ok(())
}

fn logging(config: &Config) -> Result<(), String> {
    match config.logger.as_str() {
        "zap" => {}
        "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
        other => return Err(format!("unknown logger option {}", quote(other))),
    }
    if config.log_outputs.len() > 1 && config.log_outputs.iter().any(|o| o == "default") {
        return Err("multi logoutput for \"default\" is not supported yet".into());
    }
    if let Some(journal) = config.log_outputs.iter().find(|o| *o == "systemd/journal") {
        return Err(format!(
            "--log-outputs={journal}: this release can't write to the journal itself; use stderr, which systemd collects"
        ));
    }
    match config.log_format.as_str() {
        "json" | "console" => Ok(()),
        other => Err(format!("unknown log format: {other}, supported values json, console")),
    }
}

fn listen_url(url: &Url) -> Result<(), String> {
    let named = !matches!(url.scheme, Scheme::Unix | Scheme::Unixs)
        && !matches!(url.host.as_str(), "" | "localhost")
        && url.host.parse::<IpAddr>().is_err();
    if named { Err(format!("expected IP in URL for binding ({url})")) } else { Ok(()) }
}

fn advertised(config: &Config) -> Result<(), String> {
    let bare = |url: &&Url| matches!(url.scheme, Scheme::Http | Scheme::Https) && url.host.is_empty();
    if let Some(url) = config.initial_advertise_peer_urls.iter().find(bare) {
        return Err(format!(
            "--initial-advertise-peer-urls {} must be \"host:port\" (missing host in address)",
            quote(url.as_str())
        ));
    }
    if let Some(url) = config.advertise_client_urls.iter().find(bare) {
        return Err(format!(
            "--advertise-client-urls {} must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (missing host in address)",
            quote(url.as_str())
        ));
    }
    Ok(())
}

fn timing(config: &Config) -> Result<(), String> {
    let (heartbeat, election) = (config.heartbeat_interval, config.election_timeout);
    if heartbeat == 0 {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".into());
    }
    if election == 0 {
        return Err("--election-timeout must be >0 (set to 0ms)".into());
    }
    if heartbeat.saturating_mul(5) > election {
        return Err(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > MAX_ELECTION_MS {
        return Err(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {MAX_ELECTION_MS}ms"
        ));
    }
    Ok(())
}

fn limits(config: &Config) -> Result<(), String> {
    if config.max_request_bytes > MAX_REQUEST {
        return Err(format!(
            "--max-request-bytes={} is more than {MAX_REQUEST}, the most that one request may have: lower it",
            config.max_request_bytes
        ));
    }
    if config.max_concurrent_streams == 0 {
        return Err("--max-concurrent-streams=0 would let no client in: give a positive number, or leave it out".into());
    }
    Ok(())
}

fn unsupported(config: &Config) -> Result<(), String> {
    for flag in FLAGS.iter().filter(|f| UNSUPPORTED.contains(&f.name) || (f.name.is_empty())) {
        if flag.is_set(config) {
            let name = if flag.name.is_empty() { flag.key.to_owned() } else { format!("--{}", flag.name) };
            return Err(format!(
                "{name} is set, but this release of oxetcd does not have that feature yet: remove the setting, or run Go etcd"
            ));
        }
    }
    let urls = [&config.listen_client_urls, &config.listen_peer_urls, &config.initial_advertise_peer_urls];
    if let Some(url) = urls.into_iter().flatten().find(|u| u.is_tls()) {
        return Err(format!(
            "{url}: this release of oxetcd does not speak TLS yet: use http:// or unix://, or run Go etcd"
        ));
    }
    Ok(())
}

fn warnings(config: &Config, notes: &mut Vec<Note>) {
    let mut warn = |text: &str| notes.push(Note::new(Level::Warn, text));
    if config.listen_client_http_urls.is_empty() {
        warn("Running http and grpc server on single port. This is not recommended for production.");
    }
    if config.enabled(Gate::LeaseCheckpoint) && !config.enabled(Gate::LeaseCheckpointPersist) {
        warn(
            "Detected that checkpointing is enabled without persistence. Consider enabling feature gate LeaseCheckpointPersist",
        );
    }
    if config.unsafe_no_fsync {
        warn("Running with --unsafe-no-fsync: a crash loses acknowledged writes");
    }
    if config.quota_backend_bytes > RECOMMENDED_QUOTA {
        warn("quota size exceeds the recommended maximum of 8 GiB");
    }
    if config.max_request_bytes > RECOMMENDED_REQUEST {
        warn("exceeded recommended request limit of 10 MiB");
    }
    if config.progress_interval() < Duration::from_secs(1) {
        warn(&format!("--watch-progress-notify-interval={} is short", format_duration(config.progress_interval())));
    }
    if config.name == super::table::DEFAULT_NAME {
        let text = "it isn't recommended to use default name, please set a value for --name. Note that etcd might run \
                    into issue when multiple members have the same default name";
        notes.push(Note::new(Level::Warn, text).text("name", &config.name));
    }
}

/// The local member's peer URLs in `--initial-cluster`, checked against what it advertises.
///
/// # Errors
/// etcd's texts for a new directory.
pub fn local_member(config: &Config) -> Result<Vec<String>, String> {
    if config.initial_cluster.is_empty() {
        return Err("initial cluster unset and no discovery endpoints found".into());
    }
    let mut own: Vec<Url> = Vec::new();
    let (mut others, mut seen) = (false, std::collections::BTreeSet::new());
    for pair in config.initial_cluster.split(',') {
        let Some((name, url)) = pair.split_once('=').filter(|(n, u)| !n.is_empty() && !u.is_empty()) else {
            return Err(format!("error setting up initial cluster: empty URL given for {}", quote(pair)));
        };
        let url = Url::parse(url).map_err(|e| format!("error setting up initial cluster: {e}"))?;
        if !seen.insert(url.clone()) {
            return Err(format!("initial cluster {} has duplicate url", config.initial_cluster));
        }
        match name.trim() == config.name {
            true => own.push(url),
            false => others = true,
        }
    }
    if own.is_empty() {
        return Err(format!("couldn't find local name {} in the initial cluster configuration", quote(&config.name)));
    }
    own.sort();
    let join = |urls: &[Url]| urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",");
    if own != config.initial_advertise_peer_urls {
        return Err(format!(
            "--initial-cluster has {}={} but missing from --initial-advertise-peer-urls={}",
            config.name,
            join(&own),
            join(&config.initial_advertise_peer_urls)
        ));
    }
    if others {
        return Err("--initial-cluster names other members too, but this release of oxetcd serves clusters of one member: name only this one, or run Go etcd".into());
    }
    Ok(own.iter().map(Url::to_string).collect())
}
