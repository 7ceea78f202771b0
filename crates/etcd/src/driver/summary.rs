//! `starting an etcd server`: the settings that count, in one line of the log, with the names that etcd's line has for
//! them (etcd `embed.print`). Scripts look some of them up there.

use crate::config::{Config, Url};
use crate::logging::{Level, Note};
use go::{format_duration, format_nanoseconds};
use std::time::Duration;

/// Logs it. `has_log`: the member is not new.
pub fn log(config: &Config, has_log: bool) {
    let note = Note::new(Level::Info, "starting an etcd server");
    [program, place, timing, addresses, limits, checks, discovery]
        .iter()
        .fold(note.with("member-initialized", has_log), |note, part| part(note, config))
        .log();
}

fn urls(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn program(note: Note, _: &Config) -> Note {
    // What a quota leaves of the processors, and how many there are to run on: as Go tells the two apart.
    let within_quota = std::thread::available_parallelism().map_or(1, usize::from);
    let there = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    note.text("etcd-version", api::version::SERVER)
        .text("go-os", std::env::consts::OS)
        .text("go-arch", crate::arch::here())
        .with("max-cpu-set", within_quota)
        .with("max-cpu-available", there)
}

fn place(note: Note, config: &Config) -> Note {
    let data = config.data_path();
    note.text("name", &config.name)
        .text("data-dir", &data.display().to_string())
        .text("wal-dir", &config.wal_dir)
        .text("wal-dir-dedicated", &config.wal_dir)
        .text("member-dir", &data.join("member").display().to_string())
        .with("force-new-cluster", config.force_new_cluster)
}

fn timing(note: Note, config: &Config) -> Note {
    let ms = |ms| format_duration(Duration::from_millis(ms));
    note.text("heartbeat-interval", &ms(config.heartbeat_interval))
        .text("election-timeout", &ms(config.election_timeout))
        .with("initial-election-tick-advance", config.initial_election_tick_advance)
        .with("snapshot-count", config.snapshot_count)
        .with("max-wals", config.max_wals)
        .with("max-snapshots", config.max_snapshots)
        .with("snapshot-catchup-entries", config.snapshot_catchup_entries)
}

fn addresses(note: Note, config: &Config) -> Note {
    note.with("initial-advertise-peer-urls", urls(&config.initial_advertise_peer_urls))
        .with("listen-peer-urls", urls(&config.listen_peer_urls))
        .with("advertise-client-urls", urls(&config.advertise_client_urls))
        .with("listen-client-urls", urls(&config.listen_client_urls))
        .with("listen-metrics-urls", urls(&config.listen_metrics_urls))
        .with("cors", config.cors.clone())
        .with("host-whitelist", config.host_whitelist.clone())
        .text("initial-cluster", &config.initial_cluster)
        .text("initial-cluster-state", &config.initial_cluster_state)
        .text("initial-cluster-token", &config.initial_cluster_token)
}

fn limits(note: Note, config: &Config) -> Note {
    note.with("quota-backend-bytes", config.quota_bytes())
        .with("max-request-bytes", config.max_request_bytes)
        .with("max-concurrent-streams", config.max_concurrent_streams)
        .with("max-learners", config.max_learners)
        .with("pre-vote", config.pre_vote)
        .text("feature-gates", &config.feature_gates.to_string())
        // Whatever was given.
        .text("v2-deprecation", "write-only")
}

fn checks(note: Note, config: &Config) -> Note {
    let retention = match config.auto_compaction() {
        Ok(Some(server::Policy::Periodic { period_ms })) => Duration::from_millis(period_ms),
        // As etcd: so many nanoseconds.
        Ok(Some(server::Policy::Revision { retention })) => Duration::from_nanos(retention.unsigned_abs()),
        Ok(None) | Err(_) => Duration::ZERO,
    };
    let retention = format_duration(retention);
    note.text("corrupt-check-time-interval", &format_duration(config.corrupt_check_time))
        .text("compact-check-time-interval", &format_nanoseconds(config.compact_hash_check_time))
        .text("auto-compaction-mode", &config.auto_compaction_mode)
        .text("auto-compaction-retention", &retention)
        .text("auto-compaction-interval", &retention)
        .text("downgrade-check-interval", &format_duration(config.downgrade_check_time))
}

fn discovery(note: Note, config: &Config) -> Note {
    // Who may join would know from the token; as in etcd it is shown. The password is not.
    let user = config.discovery_user.split(':').next().unwrap_or_default();
    note.text("discovery-token", &config.discovery_token)
        .text("discovery-endpoints", &config.discovery_endpoints.join(","))
        .text("discovery-dial-timeout", &format_duration(config.discovery_dial_timeout))
        .text("discovery-request-timeout", &format_duration(config.discovery_request_timeout))
        .text("discovery-keepalive-time", &format_duration(config.discovery_keepalive_time))
        .text("discovery-keepalive-timeout", &format_duration(config.discovery_keepalive_timeout))
        .with("discovery-insecure-transport", config.discovery_insecure_transport)
        .with("discovery-insecure-skip-tls-verify", config.discovery_insecure_skip_tls_verify)
        .text("discovery-cert", &config.discovery_cert)
        .text("discovery-key", &config.discovery_key)
        .text("discovery-cacert", &config.discovery_cacert)
        .text("discovery-user", user)
}
