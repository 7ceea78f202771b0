//! Metrics that are counted as things happen, one a row: static, name, kind, buckets, help.

use super::Families;
use super::instrument::{Counter, Gauge, Histogram, Instrument, Labelled, observed};
use prometheus::proto::{Metric, MetricType};
use store::Kind;

macro_rules! table {
    ($( $name:ident: $kind:ty = $new:expr, $text:literal, $help:literal; )*) => {
        $( #[doc = concat!("`", $text, "`: ", $help)] pub static $name: $kind = $new; )*

        /// Adds all of them.
        pub(super) fn gather(families: &mut Families) {
            $( families.instrument($text, $help, &$name); )*
        }
    };
}

/// Durations of writes, syncs and answers: 1 ms and up, doubled.
const fn from_1ms() -> Histogram {
    Histogram::exponential(0.001, 2.0, 14)
}

/// Durations of what is done in memory: 0.1 ms and up.
const fn from_100us() -> Histogram {
    Histogram::exponential(0.0001, 2.0, 20)
}

/// Durations of what moves a database: 0.1 s and up.
const fn from_100ms(count: usize) -> Histogram {
    Histogram::exponential(0.1, 2.0, count)
}

table! {
    HEALTH_SUCCESS: Counter = Counter::new(), "etcd_server_health_success", "Times that /health was answered well.";
    HEALTH_FAILURES: Counter = Counter::new(), "etcd_server_health_failures", "Times that /health was not.";
    HEALTHCHECK: Labelled<Gauge> = Labelled::new(&["type", "name"]), "etcd_server_healthcheck", "Outcome of each check when it was last made.";
    HEALTHCHECKS: Labelled<Counter> = Labelled::new(&["type", "name", "status"]), "etcd_server_healthchecks_total", "Checks made.";

    SNAP_MARSHAL: Histogram = from_1ms(), "etcd_debugging_snap_save_marshalling_duration_seconds", "Encoding a .snap file.";
    SNAP_SAVE: Histogram = from_1ms(), "etcd_debugging_snap_save_total_duration_seconds", "Saving a .snap file.";
    SNAP_FSYNC: Histogram = from_1ms(), "etcd_snap_fsync_duration_seconds", "Syncs of .snap files.";
    SNAP_DB_SAVE: Histogram = from_100ms(10), "etcd_snap_db_save_total_duration_seconds", "Saving a database that another member sent.";
    SNAP_DB_FSYNC: Histogram = from_1ms(), "etcd_snap_db_fsync_duration_seconds", "Syncs of databases that other members sent.";
    WAL_FSYNC: Histogram = from_1ms(), "etcd_disk_wal_fsync_duration_seconds", "Syncs of the log.";
    WAL_WRITE: Histogram = from_1ms(), "etcd_disk_wal_write_duration_seconds", "Writes to the log.";
    WAL_WRITE_BYTES: Gauge = Gauge::new(), "etcd_disk_wal_write_bytes_total", "Bytes written to the log.";
    BACKEND_COMMIT: Histogram = from_1ms(), "etcd_disk_backend_commit_duration_seconds", "Checkpoints of the page store.";
    COMMIT_REBALANCE: Histogram = from_1ms(), "etcd_debugging_disk_backend_commit_rebalance_duration_seconds", "Part of a commit; our page store rebalances while it spills.";
    COMMIT_SPILL: Histogram = from_1ms(), "etcd_debugging_disk_backend_commit_spill_duration_seconds", "Part of a commit: all but syncs.";
    COMMIT_WRITE: Histogram = from_1ms(), "etcd_debugging_disk_backend_commit_write_duration_seconds", "Part of a commit: syncs.";
    DEFRAG: Histogram = from_100ms(13), "etcd_disk_backend_defrag_duration_seconds", "Defragmentations.";
    DEFRAG_INFLIGHT: Gauge = Gauge::new(), "etcd_disk_defrag_inflight", "1 while the page store is defragmented.";
    BACKEND_SNAPSHOT: Histogram = Histogram::exponential(0.01, 2.0, 17), "etcd_disk_backend_snapshot_duration_seconds", "Streaming the database.";

    STREAM_FAILURES: Labelled<Counter> = Labelled::new(&["Type", "API"]), "etcd_network_server_stream_failures_total", "Streams that failed, but not by their clients' wish.";

    WATCH_SEND: Histogram = from_1ms(), "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", "Handing events to a stream.";
    WATCH_SEND_PER_EVENT: Histogram = from_1ms(), "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds", "The same for each event.";
    WATCH_CONTROL: Histogram = from_1ms(), "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds", "Handing answers to a stream.";
    WATCH_PROGRESS: Histogram = from_1ms(), "etcd_debugging_server_watch_send_loop_progress_duration_seconds", "Handing progress notifications to streams.";
    WATCH_STREAMS: Gauge = Gauge::new(), "etcd_debugging_mvcc_watch_stream_total", "Watch streams.";
    WATCHERS: Gauge = Gauge::new(), "etcd_debugging_mvcc_watcher_total", "Watchers.";
    SLOW_WATCHERS: Gauge = Gauge::new(), "etcd_debugging_mvcc_slow_watcher_total", "Watchers that are behind.";
    EVENTS: Counter = Counter::new(), "etcd_debugging_mvcc_events_total", "Events sent.";
    PENDING_EVENTS: Gauge = Gauge::new(), "etcd_debugging_mvcc_pending_events_total", "Responses with events that wait for their streams.";

    LEADER_CHANGES: Counter = Counter::new(), "etcd_server_leader_changes_seen_total", "Leaders that became known.";
    PROMOTE_FAILURES: Labelled<Counter> = Labelled::new(&["Reason"]), "etcd_server_learner_promote_failures", "Learners that could not be promoted.";
    PROMOTE_SUCCESSES: Counter = Counter::new(), "etcd_server_learner_promote_successes", "Learners that were promoted while this member led.";
    HEARTBEAT_FAILURES: Counter = Counter::new(), "etcd_server_heartbeat_send_failures_total", "Heartbeats that left late.";
    SNAPSHOT_APPLY: Gauge = Gauge::new(), "etcd_server_snapshot_apply_in_progress_total", "1 while a leader's database is installed.";
    PROPOSALS_FAILED: Counter = Counter::new(), "etcd_server_proposals_failed_total", "Proposals that failed.";
    SLOW_READ_INDEX: Counter = Counter::new(), "etcd_server_slow_read_indexes_total", "Rounds for linearizable reads that were asked again.";
    FAILED_READ_INDEX: Counter = Counter::new(), "etcd_server_read_indexes_failed_total", "Linearizable reads that got no index.";
    SLOW_APPLY: Counter = Counter::new(), "etcd_server_slow_apply_total", "Applies and reads that took long.";
    REQUEST: ByKind<true> = ByKind::new(&[], "type"), "etcd_server_request_duration_seconds", "Answers to requests.";
    APPLY: ByKind<false> = ByKind::new(&[("version", "v3")], "op"), "etcd_server_apply_duration_seconds", "Applying entries: each has its part of its batch.";
    RANGE: ByKind<false> = ByKind::new(&[], ""), "etcd_server_range_duration_seconds", "Ranges.";

    LEASE_EXPIRED: Counter = Counter::new(), "etcd_debugging_server_lease_expired_total", "Leases that expired under this leader.";
    LEASE_GRANTED: Counter = Counter::new(), "etcd_debugging_lease_granted_total", "Leases granted.";
    LEASE_REVOKED: Counter = Counter::new(), "etcd_debugging_lease_revoked_total", "Leases revoked.";
    LEASE_RENEWED: Counter = Counter::new(), "etcd_debugging_lease_renewed_total", "Leases renewed by this leader.";
    LEASE_TTL: Histogram = Histogram::exponential(1.0, 2.0, 24), "etcd_debugging_lease_ttl_total", "Seconds that leases were granted for.";

    RANGES: Counter = Counter::new(), "etcd_mvcc_range_total", "Ranges.";
    PUTS: Counter = Counter::new(), "etcd_mvcc_put_total", "Puts.";
    DELETES: Counter = Counter::new(), "etcd_mvcc_delete_total", "Deletions of ranges.";
    TXNS: Counter = Counter::new(), "etcd_mvcc_txn_total", "Transactions of several operations.";
    PUT_BYTES: Gauge = Gauge::new(), "etcd_debugging_mvcc_total_put_size_in_bytes", "Bytes of keys and values put.";
    HASH: Histogram = Histogram::exponential(0.01, 2.0, 15), "etcd_mvcc_hash_duration_seconds", "Hashes of the database.";
    HASH_KV: Histogram = Histogram::exponential(0.01, 2.0, 15), "etcd_mvcc_hash_rev_duration_seconds", "Hashes of the keys.";
    OPEN_READS: Gauge = Gauge::new(), "etcd_mvcc_db_open_read_transactions", "Views of the page store that are read now.";
    INDEX_COMPACTION_PAUSE: Histogram = Histogram::exponential(0.5, 2.0, 14), "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds", "Steps of a compaction in the index.";
    COMPACTION_PAUSE: Histogram = Histogram::exponential(1.0, 2.0, 13), "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", "Steps of a compaction in the records.";
    COMPACTION_TOTAL: Histogram = Histogram::exponential(100.0, 2.0, 14), "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds", "Compactions.";
    COMPACTION_LAST: Gauge = Gauge::new(), "etcd_debugging_mvcc_db_compaction_last", "When a compaction last ended, seconds since 1970.";
    COMPACTION_KEYS: Counter = Counter::new(), "etcd_debugging_mvcc_db_compaction_keys_total", "Revisions that compactions removed.";

    // Of the second store that Go etcd carries along, and of the proxy: always so here.
    STORE_EXPIRES: Counter = Counter::new(), "etcd_debugging_store_expires_total", "Of etcd 2: none.";
    STORE_WATCH_REQUESTS: Counter = Counter::new(), "etcd_debugging_store_watch_requests_total", "Of etcd 2: none.";
    STORE_WATCHERS: Gauge = Gauge::new(), "etcd_debugging_store_watchers", "Of etcd 2: none.";
    PROXY_WATCHERS: Gauge = Gauge::new(), "etcd_grpc_proxy_watchers_coalescing_total", "Of the proxy.";
    PROXY_EVENTS: Counter = Counter::new(), "etcd_grpc_proxy_events_coalescing_total", "Of the proxy.";
    PROXY_KEYS: Gauge = Gauge::new(), "etcd_grpc_proxy_cache_keys_total", "Of the proxy.";
    PROXY_HITS: Gauge = Gauge::new(), "etcd_grpc_proxy_cache_hits_total", "Of the proxy.";
    PROXY_MISSES: Gauge = Gauge::new(), "etcd_grpc_proxy_cache_misses_total", "Of the proxy.";
}

/// A histogram for each kind of request and each outcome: nothing is looked up when one is observed. Bounds from 1 ms
/// where `SLOW`, else from 0.1 ms. Those without an observation are not shown, as in Go.
#[derive(Debug)]
pub struct ByKind<const SLOW: bool> {
    fixed: &'static [(&'static str, &'static str)],
    /// The label that names the kind, if one does.
    label: &'static str,
    outcomes: [[Histogram; 2]; Kind::COUNT],
}

impl<const SLOW: bool> ByKind<SLOW> {
    const fn new(fixed: &'static [(&'static str, &'static str)], label: &'static str) -> Self {
        ByKind { fixed, label, outcomes: [const { Self::pair() }; Kind::COUNT] }
    }

    const fn pair() -> [Histogram; 2] {
        [Self::one(), Self::one()]
    }

    const fn one() -> Histogram {
        if SLOW { from_1ms() } else { from_100us() }
    }

    /// The one of a kind and an outcome.
    pub fn of(&self, kind: Kind, well: bool) -> &Histogram {
        &self.outcomes[kind as usize][usize::from(!well)]
    }

    /// The same by number of kind and outcome.
    pub fn at(&self, kind: usize, outcome: usize) -> Option<&Histogram> {
        self.outcomes.get(kind)?.get(outcome)
    }
}

impl<const SLOW: bool> Instrument for ByKind<SLOW> {
    fn metrics(&self) -> (MetricType, Vec<Metric>) {
        let mut metrics = Vec::new();
        for (name, outcomes) in Kind::NAMES.iter().zip(&self.outcomes) {
            for (histogram, success) in outcomes.iter().zip(["true", "false"]) {
                if histogram.count() > 0 {
                    let kind = (!self.label.is_empty()).then_some((self.label, *name));
                    let labels: Vec<_> = self.fixed.iter().copied().chain(kind).chain([("success", success)]).collect();
                    metrics.push(observed(&labels, histogram.proto()));
                }
            }
        }
        (MetricType::HISTOGRAM, metrics)
    }
}
