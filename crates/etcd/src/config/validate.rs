//! Checks of a loaded configuration, in etcd's order and words (reference/server-config.md section 5).

use super::cli::Failure;
use super::gates::Gate;
use super::table::Config;
use super::tls;
use super::url::{Scheme, Url, joined};
use crate::logging::{JOURNAL, Level, Note, Rotation, Settings};
use go::{format_duration, format_nanoseconds, quote, quote_all};
use std::net::IpAddr;
use std::time::Duration;

const DEFAULT_OUTPUT: &str = "default";
const MAX_ELECTION_MS: u64 = 50_000;
const RECOMMENDED_QUOTA: i64 = 8 << 30;
const RECOMMENDED_REQUEST: u64 = 10 << 20;
/// More would let one request hold gigabytes; the log's records end far below it too.
const MAX_REQUEST: u64 = 256 << 20;

/// Checks `config`; adds warnings to `notes`.
///
/// # Errors
/// The first thing wrong, to be logged as `failed to verify flags`.
pub fn validate(config: &Config, notes: &mut Vec<Note>) -> Result<(), String> {
    let served = [
        &config.listen_peer_urls,
        &config.listen_client_urls,
        &config.listen_client_http_urls,
        &config.listen_metrics_urls,
    ];
    served.into_iter().flatten().try_for_each(listen_url)?;
    advertised(config)?;
    if !["new", "existing"].contains(&config.initial_cluster_state.as_str()) {
        return Err(format!("unexpected clusterState {}", quote(&config.initial_cluster_state)));
    }
    discovery(config)?;
    timing(config)?;
    if config.advertise_client_urls.is_empty() {
        return Err("--advertise-client-urls is required when --listen-client-urls is set explicitly".into());
    }
    config.compacts_by_time()?;
    tracing(config)?;
    if config.enabled(Gate::LeaseCheckpointPersist) && !config.enabled(Gate::LeaseCheckpoint) {
        let text = "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint";
        return Err(text.into());
    }
    if config.compact_hash_check_time <= 0 {
        let given = format_nanoseconds(config.compact_hash_check_time);
        return Err(format!("--compact-hash-check-time must be >0 (set to {given})"));
    }
    tls::versions(config)?;
    limits(config)?;
    // What Go etcd finds out while it starts.
    ports(config)?;
    config.auto_compaction()?;
    tls::cipher_suites(config)?;
    auth_token(&config.auth_token)?;
    if config.max_learners < 0 {
        return Err("membership: too many learner members in cluster".into());
    }
    warnings(config, notes);
    Ok(())
}

/// The log that `config` asks for. It comes before everything else: what is wrong with the rest shall be read there.
///
/// # Errors
/// The first thing wrong with its settings. A bad level makes Go etcd panic: code 2.
pub fn log_settings(config: &Config) -> Result<Settings, Failure> {
    let refused = |text: String| Err(Failure::Verify(text));
    match config.logger.as_str() {
        "zap" => {}
        "capnslog" => return refused("--logger=capnslog is removed in v3.5".into()),
        other => return refused(format!("unknown logger option {}", quote(other))),
    }
    let outputs = &config.log_outputs;
    if outputs.len() > 1 && outputs.iter().any(|o| o == DEFAULT_OUTPUT) {
        return refused("multi logoutput for \"default\" is not supported yet".into());
    }
    let rotation = if config.enable_log_rotation { Some(rotation(config).map_err(Failure::Verify)?) } else { None };
    if outputs.len() > 1 && outputs.iter().any(|o| o == JOURNAL) {
        return refused(format!(
            "running with {JOURNAL} but other '--log-outputs' values ({}) are configured with 'default'; override \
             'default' value with something else",
            quote_all(outputs)
        ));
    }
    let Some(level) = Level::parse(&config.log_level) else {
        return Err(Failure::Misuse(format!("unrecognized level: {}", quote(&config.log_level))));
    };
    let console = match config.log_format.as_str() {
        "json" | "" => false,
        "console" => true,
        other => return refused(format!("unknown log format: {other}, supported values json, console")),
    };
    let outputs = if outputs.is_empty() { vec![DEFAULT_OUTPUT.into()] } else { outputs.clone() };
    Ok(Settings { outputs, rotation, level, console })
}

/// With one file among the outputs, and how it is to be rotated.
fn rotation(config: &Config) -> Result<Rotation, String> {
    let standard = |output: &&String| ["default", "stderr", "stdout"].contains(&output.as_str());
    let outputs = if config.log_outputs.is_empty() { &vec![DEFAULT_OUTPUT.to_owned()] } else { &config.log_outputs };
    let files = outputs.iter().filter(|output| !standard(output)).count();
    if files > 1 || (files == 0 && outputs.len() == 1) {
        return Err("--log-outputs requires a single file path when --log-rotate-config-json is defined".into());
    }
    Rotation::parse(&config.log_rotation_config_json)
}

/// What is asked of traces, where there are to be any.
fn tracing(config: &Config) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("distributed tracing configurition is not valid: ({why})"));
    match config.distributed_tracing_sampling_rate {
        _ if !config.enable_distributed_tracing => Ok(()),
        rate if rate < 0 => wrong("tracing sampling rate must be positive"),
        rate if rate > 1_000_000 => wrong("tracing sampling rate must be less than 1000000"),
        _ => Ok(()),
    }
}

fn listen_url(url: &Url) -> Result<(), String> {
    let named = !matches!(url.scheme, Scheme::Unix | Scheme::Unixs)
        && url.host != "localhost"
        && url.host.parse::<IpAddr>().is_err();
    if named { Err(format!("expected IP in URL for binding ({url})")) } else { Ok(()) }
}

fn advertised(config: &Config) -> Result<(), String> {
    let bare = |url: &&Url| matches!(url.scheme, Scheme::Http | Scheme::Https) && url.host.is_empty();
    if let Some(url) = config.initial_advertise_peer_urls.iter().find(bare) {
        return Err(format!(
            "--initial-advertise-peer-urls {} must be \"host:port\" (unexpected empty host ({url}))",
            quote(joined(&config.initial_advertise_peer_urls))
        ));
    }
    if let Some(url) = config.advertise_client_urls.iter().find(bare) {
        return Err(format!(
            "--advertise-client-urls {} must be in the format \"host:port\", \"unix:/path/to/socket\" or \
             \"unixs:/path/to/socket\" (unexpected empty host ({url}))",
            quote(joined(&config.advertise_client_urls))
        ));
    }
    Ok(())
}

/// At most one way to find the founders, and all that it needs.
fn discovery(config: &Config) -> Result<(), String> {
    let ways =
        [!config.initial_cluster.is_empty(), !config.discovery_srv.is_empty(), !config.discovery_endpoints.is_empty()];
    if ways.into_iter().filter(|given| *given).count() > 1 {
        let text = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" \
                    or \"discovery-srv\"";
        return Err(text.into());
    }
    if config.discovery_token.is_empty() != config.discovery_endpoints.is_empty() {
        return Err("both --discovery-token and --discovery-endpoints must be set".into());
    }
    match config.discovery_endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        true => Err("--discovery-endpoints must not contain empty endpoints".into()),
        false => Ok(()),
    }
}

fn ports(config: &Config) -> Result<(), String> {
    let mut urls = config.listen_peer_urls.iter().chain(&config.listen_client_urls);
    let wrong = urls.find(|u| u.socket_path().is_none() && !u.has_port());
    wrong.map_or(Ok(()), |u| Err(format!("listen tcp: address {}: invalid port", u.port_text().unwrap_or_default())))
}

/// `kind[,option=value…]`; nothing at all: no tokens.
fn auth_token(text: &str) -> Result<(), String> {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = std::collections::BTreeSet::new();
    let well_formed = parts.all(|part| match part.split_once('=') {
        Some((option, value)) => !value.contains('=') && options.insert(option),
        None => false,
    });
    match kind {
        _ if !well_formed => Err("auth: invalid auth options".into()),
        "" | "simple" | "jwt" => Ok(()),
        _ => Err("auth: invalid auth options".into()),
    }
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
    if config.data_dir.is_empty() {
        let note = Note::new(Level::Warn, "'data-dir' was empty; using default");
        notes.push(note.text("data-dir", &config.data_path().display().to_string()));
    }
    if config.name == super::table::DEFAULT_NAME {
        let text = "it isn't recommended to use default name, please set a value for --name. Note that etcd might run \
                    into issue when multiple members have the same default name";
        notes.push(Note::new(Level::Warn, text).text("name", &config.name));
    }
}
