//! `grpc_server_*`, by go-grpc-middleware's names: every method has its counters from the start. A call costs four
//! additions to its thread's own counters, and two for its bytes; its latency is measured only with
//! `--metrics=extensive`.

use super::Families;
use super::instrument::{Bounds, Counter, Histogram, OTHERS, SETS_MAX, counted, observed};
use super::shards::{self, CODES, METHODS, OfMethod, Own};
use crate::debug::requests::Active;
use crate::spans::{Origin, Span, Spans};
use prometheus::proto::MetricType;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// etcd's codes by number.
const CODE_NAMES: [&str; CODES] = [
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

/// What a method is called.
#[derive(Debug)]
struct Name {
    service: &'static str,
    method: &'static str,
    kind: &'static str,
}

impl Name {
    /// Lock and Election register late in Go: they appear with their first call.
    fn is_late(&self) -> bool {
        self.service.starts_with("v3")
    }

    fn labels(&self) -> [(&'static str, &'static str); 3] {
        [("grpc_type", self.kind), ("grpc_service", self.service), ("grpc_method", self.method)]
    }
}

static LATENCY: [Histogram; METHODS] = [const { Histogram::new(Bounds::Listed(LATENCIES)) }; METHODS];

/// A method's counters, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meter(u8);

impl Meter {
    fn number(self) -> usize {
        usize::from(self.0)
    }

    /// A message of so many bytes came.
    pub fn received(self, bytes: usize) {
        shards::here(|shard| {
            shard.methods[self.number()].received.add(1);
            shard.received_bytes.add(bytes as u64);
        });
    }
}

/// The methods of all services in the order of the table of `methods`.
macro_rules! meters {
    ($( in $service:literal: $( $method:literal $kind:literal, )* )*) => {
        static NAMES: [Name; METHODS] =
            [$( $( Name { service: $service, method: $method, kind: $kind }, )* )*];
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
    meter: Meter,
    pub begun: Instant,
    ended: bool,
    /// Nobody, mostly.
    followed: Option<Box<Followed>>,
}

/// Who is told of a call besides the counters.
#[derive(Debug)]
struct Followed {
    span: Option<Box<dyn Span>>,
    remembered: Option<Active>,
}

impl Followed {
    fn end(self, code: Code) {
        if let Some(remembered) = self.remembered {
            remembered.end(code);
        }
        if let Some(span) = self.span {
            span.end(code);
        }
    }
}

impl Counted {
    /// The method with this number in the table of methods.
    pub fn begin(number: usize) -> Option<Counted> {
        let meter = u8::try_from(number).ok().filter(|_| number < METHODS).map(Meter)?;
        shards::here(|shard| shard.methods[number].started.add(1));
        Some(Counted { meter, begun: Instant::now(), ended: false, followed: None })
    }

    /// `/service/method`.
    pub fn method(&self) -> String {
        let name = &NAMES[self.meter.number()];
        format!("/{}/{}", name.service, name.method)
    }

    pub fn meter(&self) -> Meter {
        self.meter
    }

    /// Tells others of it from now on: who collects spans, and `/debug/requests`.
    pub fn follow(
        &mut self,
        spans: Option<&dyn Spans>,
        origin: &Origin<'_>,
        remote: Option<&SocketAddr>,
        limit: Option<Duration>,
    ) {
        let Name { service, method, .. } = NAMES[self.meter.number()];
        let span = spans.and_then(|spans| spans.begin(service, method, origin));
        let remembered = Active::begin(service, method, remote, limit);
        self.followed = (span.is_some() || remembered.is_some()).then(|| Box::new(Followed { span, remembered }));
    }

    fn remembered(&self) -> Option<&Active> {
        self.followed.as_ref()?.remembered.as_ref()
    }

    /// Something happened that `/debug/requests` shows.
    pub fn note(&self, what: impl FnOnce() -> String) {
        if let Some(remembered) = self.remembered() {
            remembered.note(what);
        }
    }

    pub fn sent(&self, messages: u64, bytes: u64) {
        self.note(|| format!("sent: {messages} messages, {bytes} bytes"));
        shards::here(|shard| {
            shard.methods[self.meter.number()].sent.add(messages);
            shard.sent_bytes.add(bytes);
        });
    }

    /// Ends with an error.
    pub fn fail(&mut self, why: &Status) {
        if let Some(remembered) = self.remembered() {
            remembered.fail(why);
        }
        self.end(why.code());
    }

    pub fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            shards::here(|shard| shard.methods[self.meter.number()].handled[code as usize].add(1));
            if EXTENSIVE.load(Ordering::Relaxed) {
                LATENCY[self.meter.number()].observe_seconds(self.begun.elapsed());
            }
            if let Some(followed) = self.followed.take() {
                followed.end(code);
            }
        }
    }
}

/// A call that goes through a proxy, counted as one of its own.
#[derive(Debug)]
pub struct Passing(Counted);

impl Passing {
    /// `None`: `/service/method` is none of etcd's.
    pub fn begin(path: &str) -> Option<Passing> {
        let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
        let number = NAMES.iter().position(|name| name.service == service && name.method == method)?;
        Counted::begin(number).map(Passing)
    }

    /// Messages of so many bytes in all went to the client.
    pub fn sent(&self, messages: u64, bytes: u64) {
        self.0.sent(messages, bytes);
    }

    /// The call ended; one that is dropped without was canceled.
    pub fn end(&mut self, code: Code) {
        self.0.end(code);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

/// etcd's name of a code.
pub(crate) fn code_name(code: Code) -> &'static str {
    CODE_NAMES[code as usize]
}

/// The services of all methods.
pub(crate) fn services() -> impl Iterator<Item = &'static str> {
    let begins = |n: &usize| *n == 0 || NAMES[*n - 1].service != NAMES[*n].service;
    (0..METHODS).filter(begins).map(|n| NAMES[n].service)
}

/// Name, help, and the counter of a method.
type Row = (&'static str, &'static str, fn(&OfMethod) -> &Own);

pub(super) fn gather(families: &mut Families, extensive: bool) {
    gather_versions(families);
    let bytes = shards::sum(|shard| &shard.sent_bytes) as f64;
    families.counter("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages to clients.", bytes);
    let bytes = shards::sum(|shard| &shard.received_bytes) as f64;
    families.counter("etcd_network_client_grpc_received_bytes_total", "Bytes of messages from clients.", bytes);
    let of = |number: usize, counter: fn(&OfMethod) -> &Own| shards::sum(|shard| counter(&shard.methods[number]));
    let called = |number: usize| of(number, |method| &method.started) > 0;
    let shown: Vec<_> = NAMES.iter().enumerate().filter(|(n, name)| !name.is_late() || called(*n)).collect();
    let simple: [Row; 3] = [
        ("grpc_server_started_total", "Calls begun.", |method| &method.started),
        ("grpc_server_msg_received_total", "Messages received.", |method| &method.received),
        ("grpc_server_msg_sent_total", "Messages sent.", |method| &method.sent),
    ];
    for (name, help, counter) in simple {
        let metrics = shown.iter().map(|(n, method)| counted(&method.labels(), of(*n, counter) as f64));
        families.add(name, help, MetricType::COUNTER, metrics.collect());
    }
    let mut handled = Vec::new();
    for (n, method) in &shown {
        for (code, shown) in CODE_NAMES.iter().enumerate() {
            let count = shards::sum(|shard| &shard.methods[*n].handled[code]);
            if count > 0 || !method.is_late() {
                let [kind, service, name] = method.labels();
                handled.push(counted(&[kind, service, name, ("grpc_code", *shown)], count as f64));
            }
        }
    }
    families.add("grpc_server_handled_total", "Calls ended.", MetricType::COUNTER, handled);
    if extensive {
        let latencies = shown.iter().map(|(n, method)| observed(&method.labels(), LATENCY[*n].proto()));
        let help = "Seconds that calls took.";
        families.add("grpc_server_handling_seconds", help, MetricType::HISTOGRAM, latencies.collect());
    }
}

/// `service/method` by number, to be compared with the table of methods.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    NAMES.iter().map(|name| format!("/{}/{}", name.service, name.method)).collect()
}

/// The kind of the method with this number.
#[cfg(test)]
pub(crate) fn kind(number: usize) -> &'static str {
    NAMES[number].kind
}
