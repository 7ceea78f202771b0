//! What the member says of itself when somebody asks: levels, not counts.

use super::Families;
use super::instrument::{counted, gauged, histogram, observed};
use crate::peer::{Distribution, PeerMetrics};
use prometheus::proto::{Metric, MetricType};

/// A member at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub cluster_version: Option<String>,
    pub auth_revision: u64,
    pub is_learner: bool,
    /// Bytes.
    pub quota: i64,
    pub db_size: i64,
    pub db_in_use: i64,
    /// Name, stage, and whether it is on.
    pub features: Vec<(String, &'static str, bool)>,
    /// Who raised which alarm.
    pub alarms: Vec<(u64, &'static str)>,
    pub revision: i64,
    /// -1 when nothing was compacted.
    pub compact_revision: i64,
    /// That are there now.
    pub keys: i64,
    /// Proposals that wait.
    pub pending: u64,
    pub raft: RaftFigures,
    pub peers: Vec<PeerMetrics>,
    /// All members.
    pub members: Vec<u64>,
    pub tls: Vec<TlsFigures>,
}

/// A set of TLS files.
#[derive(Clone, Debug, Default)]
pub struct TlsFigures {
    /// Whom it is for: `client` or `peer`.
    pub side: &'static str,
    /// Which file's certificate ends in how many days; negative: it has ended.
    pub days: Vec<(String, i64)>,
    /// How often new files were taken into use, and how often they were not since they don't go together.
    pub reloads: u64,
    pub failures: u64,
    /// The files that are there now are not those in use.
    pub stale: bool,
}

/// raft's state, as `/debug/vars` and the metrics show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftFigures {
    pub id: u64,
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
    pub applied: u64,
    /// 0: nobody known.
    pub lead: u64,
    /// `StateLeader` and so on.
    pub state: &'static str,
    pub transferee: u64,
    /// A leader's view of all members, itself included.
    pub progress: Vec<Progress>,
}

/// One member as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub id: u64,
    pub match_index: u64,
    pub next: u64,
    /// `StateProbe` and so on.
    pub state: &'static str,
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

pub(super) fn gather(families: &mut Families, of: &Figures) {
    identity(families, of);
    let raft = &of.raft;
    for (name, help, value) in [
        ("etcd_debugging_auth_revision", "Revision of users and roles.", of.auth_revision as f64),
        ("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", of.compact_revision as f64),
        ("etcd_debugging_mvcc_current_revision", "The store's revision.", of.revision as f64),
        ("etcd_debugging_mvcc_keys_total", "Keys.", of.keys as f64),
        ("etcd_mvcc_db_total_size_in_bytes", "Size of the database file, bytes.", of.db_size as f64),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "The same without free pages.", of.db_in_use as f64),
        ("etcd_server_quota_backend_bytes", "What the database may have, bytes.", of.quota as f64),
        ("etcd_server_has_leader", "1 while a leader is known.", flag(raft.lead != 0)),
        ("etcd_server_is_leader", "1 on the leader.", flag(raft.lead == raft.id)),
        ("etcd_server_is_learner", "1 on a learner.", flag(of.is_learner)),
        ("etcd_server_proposals_applied_total", "Index of the last entry applied.", raft.applied as f64),
        ("etcd_server_proposals_committed_total", "Index of the last entry committed.", raft.commit as f64),
        ("etcd_server_proposals_pending", "Proposals that wait.", of.pending as f64),
    ] {
        families.gauge(name, help, value);
    }
    peers(families, of);
    tls(families, &of.tls);
}

/// Go's etcd has none of these. A member without TLS shows none either.
fn tls(families: &mut Families, sets: &[TlsFigures]) {
    let days = sets.iter().flat_map(|set| {
        set.days.iter().map(|(file, days)| gauged(&[("side", set.side), ("file", file)], *days as f64))
    });
    let help = "Days until the first certificate of a TLS file ends; negative when it has ended.";
    families.add("oxetcd_tls_certificate_expiry_days", help, MetricType::GAUGE, days.collect());
    let used = || sets.iter().filter(|set| !set.days.is_empty());
    let stale = used().map(|set| gauged(&[("side", set.side)], flag(set.stale)));
    let help = "1 while TLS files have changed and do not go together, so that those read before stay in use.";
    families.add("oxetcd_tls_files_stale", help, MetricType::GAUGE, stale.collect());
    let reloads = used().flat_map(|set| {
        let outcomes = [("true", set.reloads), ("false", set.failures)];
        outcomes.map(|(well, count)| counted(&[("side", set.side), ("success", well)], count as f64))
    });
    let help = "How often TLS files that had changed were read, by whether they were taken into use.";
    families.add("oxetcd_tls_reloads_total", help, MetricType::COUNTER, reloads.collect());
}

fn identity(families: &mut Families, of: &Figures) {
    let mut one = |name: &str, help: &str, label: &str, value: &str| {
        families.add(name, help, MetricType::GAUGE, vec![gauged(&[(label, value)], 1.0)]);
    };
    one("etcd_server_version", "The version of etcd that this is.", "server_version", api::version::SERVER);
    one("etcd_server_go_version", "What runs it.", "server_go_version", super::go::VERSION);
    one("etcd_server_id", "The member's id.", "server_id", &format!("{:x}", of.raft.id));
    if let Some(version) = &of.cluster_version {
        let short = version.rsplit_once('.').map_or(version.as_str(), |(short, _)| short);
        one("etcd_cluster_version", "The version that all members have.", "cluster_version", short);
    }
    let features = of.features.iter().map(|(name, stage, on)| gauged(&[("name", name), ("stage", stage)], flag(*on)));
    families.add("etcd_server_feature_enabled", "1 for features that are on.", MetricType::GAUGE, features.collect());
    let alarms =
        of.alarms.iter().map(|(id, kind)| gauged(&[("server_id", &format!("{id:x}")), ("alarm_type", kind)], 1.0));
    families.add("etcd_debugging_server_alarms", "Alarms that are raised.", MetricType::GAUGE, alarms.collect());
}

/// A row of the table of peers: name, kind, and the figure.
type Row = (&'static str, MetricType, fn(&PeerMetrics) -> u64);

/// … of durations: name, the label of the other end, and the figure.
type Times = (&'static str, &'static str, fn(&PeerMetrics) -> &Distribution);

/// Those that are labelled with both ends.
const LINKS: [Row; 2] = [
    ("etcd_network_active_peers", MetricType::GAUGE, |of| of.active),
    ("etcd_network_disconnected_peers_total", MetricType::COUNTER, |of| of.disconnected),
];
/// … with the receiver.
const TO: [Row; 5] = [
    ("etcd_network_peer_sent_bytes_total", MetricType::COUNTER, |of| of.sent_bytes),
    ("etcd_network_peer_sent_failures_total", MetricType::COUNTER, |of| of.sent_failures),
    ("etcd_network_snapshot_send_success", MetricType::COUNTER, |of| of.snapshot_sent),
    ("etcd_network_snapshot_send_failures", MetricType::COUNTER, |of| of.snapshot_send_failures),
    ("etcd_network_snapshot_send_inflights_total", MetricType::GAUGE, |of| of.snapshot_sending),
];
/// … with the sender.
const FROM: [Row; 5] = [
    ("etcd_network_peer_received_bytes_total", MetricType::COUNTER, |of| of.received_bytes),
    ("etcd_network_peer_received_failures_total", MetricType::COUNTER, |of| of.received_failures),
    ("etcd_network_snapshot_receive_success", MetricType::COUNTER, |of| of.snapshot_received),
    ("etcd_network_snapshot_receive_failures", MetricType::COUNTER, |of| of.snapshot_receive_failures),
    ("etcd_network_snapshot_receive_inflights_total", MetricType::GAUGE, |of| of.snapshot_receiving),
];

fn peers(families: &mut Families, of: &Figures) {
    let local = format!("{:x}", of.raft.id);
    let known = of.members.iter().map(|id| gauged(&[("Local", &local), ("Remote", &format!("{id:x}"))], 1.0));
    families.add("etcd_network_known_peers", "Members that are known.", MetricType::GAUGE, known.collect());
    let rows = LINKS.iter().map(|row| (row, true, "Remote"));
    let rows = rows.chain(TO.iter().map(|row| (row, false, "To"))).chain(FROM.iter().map(|row| (row, false, "From")));
    for ((name, kind, figure), both, end) in rows {
        // As in Go, one appears with the first that it counts; a level stays when it is 0 again.
        let seen = |peer: &&PeerMetrics| figure(peer) > 0 || *kind == MetricType::GAUGE && was_above(name, peer);
        let metrics = of.peers.iter().filter(seen).map(|peer| {
            let id = format!("{:x}", peer.id);
            let labels = [("Local", local.as_str()), (end, id.as_str())];
            let labels = if both { &labels[..] } else { &labels[1..] };
            let value = figure(peer) as f64;
            if *kind == MetricType::GAUGE { gauged(labels, value) } else { counted(labels, value) }
        });
        families.add(name, "Of the network between members.", *kind, metrics.collect());
    }
    let times: [Times; 3] = [
        ("etcd_network_snapshot_send_total_duration_seconds", "To", |of| &of.snapshot_send_time),
        ("etcd_network_snapshot_receive_total_duration_seconds", "From", |of| &of.snapshot_receive_time),
        ("etcd_network_peer_round_trip_time_seconds", "To", |of| &of.round_trip_time),
    ];
    for (name, end, time) in times {
        let seen = of.peers.iter().filter(|peer| time(peer).counts.iter().any(|count| *count > 0));
        let metrics = seen.map(|peer| distributed(end, peer.id, time(peer)));
        families.add(name, "Of the network between members.", MetricType::HISTOGRAM, metrics.collect());
    }
}

/// Whether a level that is 0 was higher before: something has ended.
fn was_above(name: &str, of: &PeerMetrics) -> bool {
    match name {
        "etcd_network_active_peers" => of.disconnected > 0,
        "etcd_network_snapshot_send_inflights_total" => of.snapshot_sent + of.snapshot_send_failures > 0,
        _ => of.snapshot_received + of.snapshot_receive_failures > 0,
    }
}

fn distributed(end: &str, id: u64, times: &Distribution) -> Metric {
    let bounds = times.bounds.iter().map(|bound| bound.as_secs_f64()).collect();
    observed(&[(end, &format!("{id:x}"))], histogram(bounds, &times.counts, times.sum.as_secs_f64()))
}
