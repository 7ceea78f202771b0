//! Configuration: one table of flags ([`table`]) drives the command line, `ETCD_*` variables, the YAML file and
//! `--help` (reference/server-config.md).
//!
//! ```text
//! cli (flags, variables) ─┐
//! yaml (file) ────────────┴─► table::Config ─ defaults ─► validate ─► the driver
//! ```
//!
//! A setting whose feature this release lacks is refused by name: nobody shall believe that TLS is on when it is not.

mod cli;
mod defaults;
pub mod documents;
mod founders;
pub mod gates;
mod help;
pub mod table;
mod tls;
pub mod url;
mod validate;
mod yaml;
mod yaml_lines;

pub use self::tls::tls_version;
pub use cli::{Asked, Failure, Loaded, load, variable_of};
pub use founders::{
    Named, distinct, has_log, initial_members, named, pairs, resolve_deadline, same_places, verify_founders,
    verify_joiner,
};
pub use help::{USAGE, flags_help};
pub use table::Config;
pub use url::{Scheme, Url, joined};
pub use validate::{log_settings, validate};
pub use yaml::{kind as json_kind, read as read_file};

use gates::Gate;
use std::path::PathBuf;
use std::time::Duration;

/// Without `--quota-backend-bytes` (etcd `DefaultQuotaBytes`).
const DEFAULT_QUOTA_BYTES: i64 = 2 << 30;
const DEFAULT_COMPACTION_BATCH: usize = 1000;
const DEFAULT_COMPACTION_SLEEP: Duration = Duration::from_millis(10);
const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Connections between members wait at least so long for bytes.
const RAFT_TIMEOUT_MIN: Duration = Duration::from_secs(5);
const HOUR_NS: i64 = 3_600_000_000_000;
/// Shorter ones would let idle watches burn a processor.
const MIN_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

impl Config {
    /// The directory of the member's files.
    pub fn data_path(&self) -> PathBuf {
        match self.data_dir.as_str() {
            "" => format!("{}.etcd", self.name).into(),
            dir => dir.into(),
        }
    }

    /// `--wal-dir`, if given.
    pub fn wal_path(&self) -> Option<PathBuf> {
        (!self.wal_dir.is_empty()).then(|| self.wal_dir.clone().into())
    }

    /// Bytes; ≤ 0 = no quota.
    pub fn quota_bytes(&self) -> i64 {
        match self.quota_backend_bytes {
            0 => DEFAULT_QUOTA_BYTES,
            n => n,
        }
    }

    /// Revisions that a compaction deletes at a time.
    pub fn compaction_batch(&self) -> usize {
        usize::try_from(self.compaction_batch_limit).ok().filter(|n| *n > 0).unwrap_or(DEFAULT_COMPACTION_BATCH)
    }

    /// Pause between two batches of a compaction.
    pub fn compaction_sleep(&self) -> Duration {
        match self.compaction_sleep_interval {
            Duration::ZERO => DEFAULT_COMPACTION_SLEEP,
            d => d,
        }
    }

    /// Time between progress notifications of an idle watch.
    pub fn progress_interval(&self) -> Duration {
        match self.watch_progress_notify_interval {
            Duration::ZERO => DEFAULT_PROGRESS_INTERVAL,
            d => d.max(MIN_PROGRESS_INTERVAL),
        }
    }

    /// Shortest lease, seconds: one and a half election timeouts in whole heartbeats, rounded up.
    pub fn min_lease_ttl(&self) -> i64 {
        let ticks = 3 * (self.election_timeout / self.heartbeat_interval) / 2;
        i64::try_from((ticks * self.heartbeat_interval).div_ceil(1000)).unwrap_or(i64::MAX)
    }

    /// What `--auto-compaction-mode` and `-retention` ask for.
    ///
    /// # Errors
    /// etcd's text.
    pub fn auto_compaction(&self) -> Result<Option<server::Policy>, String> {
        let periodic = self.compacts_by_time()?;
        let text = match self.auto_compaction_retention.as_str() {
            "" => "0",
            text => text,
        };
        let retention = match go::parse_int(text, 10) {
            Ok(hours) if periodic && hours >= 0 => hours.saturating_mul(HOUR_NS),
            Ok(revisions) if revisions >= 0 => revisions,
            // In mode "revision" too: as many revisions as the duration has nanoseconds.
            _ => go::parse_duration(text).map_err(|e| format!("error parsing CompactionRetention: {e}"))?,
        };
        if periodic {
            let period_ms = u64::try_from(retention / 1_000_000).unwrap_or(0);
            return Ok((period_ms > 0).then_some(server::Policy::Periodic { period_ms }));
        }
        Ok((retention > 0).then_some(server::Policy::Revision { retention }))
    }

    /// Whether `--auto-compaction-mode` is `periodic`; else it is `revision`.
    fn compacts_by_time(&self) -> Result<bool, String> {
        match self.auto_compaction_mode.as_str() {
            "periodic" => Ok(true),
            "revision" => Ok(false),
            "" => Err("undefined auto-compaction-mode".into()),
            other => Err(format!("unknown auto-compaction-mode {}", go::quote(other))),
        }
    }

    /// Whether a feature is on.
    pub fn enabled(&self, gate: Gate) -> bool {
        self.feature_gates.enabled(gate)
    }

    /// Whether somebody said that a feature is to be on.
    pub fn asked(&self, gate: Gate) -> bool {
        self.feature_gates.asked(gate)
    }
}

#[cfg(test)]
mod tests;
