//! `grpc_server_*`, by go-grpc-middleware's names: every method has its counters from the start, and a call holds a
//! handle to its method's. A call costs four additions, and two for its bytes; its latency is measured only with
//! `--metrics=extensive`.

use super::instrument::{Bounds, Counter, Histogram, OTHERS, SETS_MAX, counted, observed};
use super::{Families, GRPC_RECEIVED_BYTES, GRPC_SENT_BYTES};
use prometheus::proto::MetricType;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tonic::Code;

/// etcd's codes by number.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Seconds.
const LATENCIES: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Calls of a version of client, unary and streams. A version that is known costs a comparison.
static VERSIONS: [OnceLock<(Box<str>, [Counter; 2])>; SETS_MAX] = [const { OnceLock::new() }; SETS_MAX];
/// … and of all versions beyond.
static OTHER_VERSIONS: [Counter; 2] = [Counter::new(), Counter::new()];

/// Counts a call by its client's version (`client-api-version`).
pub(crate) fn by_version(stream: bool, version: Option<&str>) {
    let version = version.unwrap_or("unknown");
    let new = || (version.into(), [Counter::new(), Counter::new()]);
    let known = VERSIONS.iter().map(|slot| slot.get_or_init(new)).find(|(known, _)| **known == *version);
    known.map_or(&OTHER_VERSIONS, |(_, counts)| counts)[usize::from(stream)].inc();
}

fn gather_versions(families: &mut Families) {
    let others = OTHER_VERSIONS.iter().any(|count| count.read() > 0).then_some((OTHERS, &OTHER_VERSIONS));
    let known = VERSIONS.iter().filter_map(OnceLock::get).map(|(version, counts)| (&**version, counts));
    let metrics = known.chain(others).flat_map(|(version, counts)| {
        let kinds = counts.iter().zip(["unary", "stream"]).filter(|(count, _)| count.read() > 0);
        kinds.map(move |(count, kind)| counted(&[("type", kind), ("client_api_version", version)], count.read() as f64))
    });
    let help = "Calls by clients' version.";
    families.add("etcd_server_client_requests_total", help, MetricType::COUNTER, metrics.collect());
}

/// Whether latencies are measured.
static EXTENSIVE: AtomicBool = AtomicBool::new(false);

/// `--metrics=extensive`: calls that begin from now on are measured.
pub(crate) fn measure_latencies() {
    EXTENSIVE.store(true, Ordering::Relaxed);
}

/// One method's counters.
#[derive(Debug)]
pub(crate) struct Meter {
    service: &'static str,
    method: &'static str,
    kind: &'static str,
    started: Counter,
    handled: [Counter; CODES.len()],
    received: Counter,
    sent: Counter,
    latency: Histogram,
}

impl Meter {
    const fn new(service: &'static str, method: &'static str, kind: &'static str) -> Meter {
        Meter {
            service,
            method,
            kind,
            started: Counter::new(),
            handled: [const { Counter::new() }; CODES.len()],
            received: Counter::new(),
            sent: Counter::new(),
            latency: Histogram::new(Bounds::Listed(LATENCIES)),
        }
    }

    /// A message of so many bytes came.
    pub fn received(&self, bytes: usize) {
        self.received.inc();
        GRPC_RECEIVED_BYTES.add(bytes as u64);
    }

    /// Lock and Election register late in Go: they appear with their first call.
    fn is_shown(&self) -> bool {
        !self.service.starts_with("v3") || self.started.read() > 0
    }
}

/// Methods of all services.
const METHODS: usize = 52;

/// A service's methods in the order of the table of `methods`: its number there plus the method's is the meter's.
macro_rules! meters {
    ($( in $service:literal: $( $method:literal $kind:literal, )* )*) => {
        static METERS: [Meter; METHODS] = [$( $( Meter::new($service, $method, $kind), )* )*];
    };
}

meters! {
    in "etcdserverpb.KV":
        "Range" "unary", "Put" "unary", "Txn" "unary", "DeleteRange" "unary", "Compact" "unary",
        "RangeStream" "server_stream",
    in "etcdserverpb.Watch": "Watch" "bidi_stream",
    in "etcdserverpb.Lease":
        "LeaseGrant" "unary", "LeaseRevoke" "unary", "LeaseTimeToLive" "unary", "LeaseLeases" "unary",
        "LeaseKeepAlive" "bidi_stream",
    in "etcdserverpb.Cluster":
        "MemberAdd" "unary", "MemberRemove" "unary", "MemberUpdate" "unary", "MemberList" "unary",
        "MemberPromote" "unary",
    in "etcdserverpb.Maintenance":
        "Alarm" "unary", "Status" "unary", "Defragment" "unary", "Hash" "unary", "HashKV" "unary",
        "MoveLeader" "unary", "Downgrade" "unary", "Snapshot" "server_stream",
    in "etcdserverpb.Auth":
        "AuthStatus" "unary", "Authenticate" "unary", "AuthEnable" "unary", "AuthDisable" "unary",
        "UserAdd" "unary", "UserGet" "unary", "UserList" "unary", "UserDelete" "unary",
        "UserChangePassword" "unary", "UserGrantRole" "unary", "UserRevokeRole" "unary", "RoleAdd" "unary",
        "RoleGet" "unary", "RoleList" "unary", "RoleDelete" "unary", "RoleGrantPermission" "unary",
        "RoleRevokePermission" "unary",
    in "v3lockpb.Lock": "Lock" "unary", "Unlock" "unary",
    in "v3electionpb.Election":
        "Campaign" "unary", "Proclaim" "unary", "Leader" "unary", "Observe" "server_stream", "Resign" "unary",
    in "grpc.health.v1.Health": "Check" "unary", "List" "unary", "Watch" "server_stream",
}

/// A call that is counted: as started when it is made, as handled when it has ended, and as cancelled where it is dropped
/// before.
#[derive(Debug)]
pub(crate) struct Counted {
    meter: &'static Meter,
    begun: Option<Instant>,
    ended: bool,
}

impl Counted {
    /// The method with this number in the table of methods.
    pub fn begin(number: usize) -> Option<Counted> {
        let meter = METERS.get(number)?;
        meter.started.inc();
        let begun = EXTENSIVE.load(Ordering::Relaxed).then(Instant::now);
        Some(Counted { meter, begun, ended: false })
    }

    pub fn meter(&self) -> &'static Meter {
        self.meter
    }

    pub fn sent(&self, messages: u64, bytes: u64) {
        self.meter.sent.add(messages);
        GRPC_SENT_BYTES.add(bytes);
    }

    pub fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.meter.handled[code as usize].inc();
            if let Some(begun) = self.begun {
                self.meter.latency.observe_seconds(begun.elapsed());
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// Name, help, and the counter of a method.
type Row = (&'static str, &'static str, fn(&Meter) -> &Counter);

pub(super) fn gather(families: &mut Families, extensive: bool) {
    gather_versions(families);
    let shown = || METERS.iter().filter(|meter| meter.is_shown());
    let labels = |meter: &'static Meter| {
        [("grpc_type", meter.kind), ("grpc_service", meter.service), ("grpc_method", meter.method)]
    };
    let simple: [Row; 3] = [
        ("grpc_server_started_total", "Calls begun.", |meter| &meter.started),
        ("grpc_server_msg_received_total", "Messages received.", |meter| &meter.received),
        ("grpc_server_msg_sent_total", "Messages sent.", |meter| &meter.sent),
    ];
    for (name, help, counter) in simple {
        let metrics = shown().map(|meter| counted(&labels(meter), counter(meter).read() as f64));
        families.add(name, help, MetricType::COUNTER, metrics.collect());
    }
    let handled = shown().flat_map(|meter| {
        let early = !meter.service.starts_with("v3");
        let codes = CODES.iter().zip(&meter.handled).filter(move |(_, count)| early || count.read() > 0);
        codes.map(move |(code, count)| {
            let [kind, service, method] = labels(meter);
            counted(&[kind, service, method, ("grpc_code", *code)], count.read() as f64)
        })
    });
    families.add("grpc_server_handled_total", "Calls ended.", MetricType::COUNTER, handled.collect());
    if extensive {
        let latencies = shown().map(|meter| observed(&labels(meter), meter.latency.proto()));
        let help = "Seconds that calls took.";
        families.add("grpc_server_handling_seconds", help, MetricType::HISTOGRAM, latencies.collect());
    }
}

/// `service/method` by number, to be compared with the table of methods.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    METERS.iter().map(|meter| format!("/{}/{}", meter.service, meter.method)).collect()
}

/// The kind of the method with this number.
#[cfg(test)]
pub(crate) fn kind(number: usize) -> &'static str {
    METERS[number].kind
}
