//! `watch`, `watch-latency`, `watch-get`.
//!
//! etcd's `watch` reports how long its own loop took over an event that has come; here an event's time is from the sending
//! of its put. Layout and counts are etcd's.

use super::{Done, Problem, Session};
use crate::control::Control;
use crate::given::Given;
use crate::keys::{KeyEncoder, Random};
use crate::pacer::Pace;
use crate::report::Report;
use crate::wire::Rpc;
use crate::workloads::watch::{self, Origin, Outcome, Plan};
use crate::workloads::watch_get::{self, WatchGet};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use cobra::{Flag, Kind};

pub const WATCH: &[Flag] = &[
    Flag::new("streams", Kind::Int, "10", "Total watch streams"),
    Flag::new("watch-per-stream", Kind::Int, "100", "Total watchers per stream"),
    Flag::new("watched-key-total", Kind::Int, "1", "Total number of keys to be watched"),
    Flag::new("put-rate", Kind::Int, "0", "Number of keys to put per second"),
    Flag::new("put-total", Kind::Int, "1000", "Number of put requests"),
    Flag::new("key-size", Kind::Int, "32", "Key size of watch request"),
    Flag::new("key-space-size", Kind::Int, "1", "Maximum possible keys"),
    Flag::new("sequential-keys", Kind::Bool, "false", "Use sequential keys"),
];

pub const LATENCY: &[Flag] = &[
    Flag::new("streams", Kind::Int, "10", "Total watch streams"),
    Flag::new("watchers-per-stream", Kind::Int, "10", "Total watchers per stream"),
    Flag::new("prevkv", Kind::Bool, "false", "PrevKV enabled on watch requests"),
    Flag::new("put-total", Kind::Int, "1000", "Total number of put requests"),
    Flag::new("put-rate", Kind::Int, "100", "Number of keys to put per second"),
    Flag::new("key-size", Kind::Int, "32", "Key size of watch response"),
    Flag::new("val-size", Kind::Int, "32", "Value size of watch response"),
];

pub const GET: &[Flag] = &[
    Flag::new("watchers", Kind::Int, "10000", "Total number of watchers"),
    Flag::new("streams", Kind::Int, "1", "Total number of watcher streams"),
    Flag::new("events", Kind::Int, "8", "Number of events per watcher"),
];

/// Streams a connection bears before etcd's tool warns.
const STREAMS_PER_CONN: usize = 100;
/// A put's value needs room for its number.
const VALUE: usize = 8;
const LATENCY_KEY_SEED: u64 = 3;

/// `watch`
pub fn watch(parsed: &Given) -> Done {
    let session = Session::start(parsed)?;
    let (streams, conns) = (parsed.size("streams"), parsed.size("conns").max(1));
    if streams / STREAMS_PER_CONN + 1 > conns {
        eprintln!("{streams} streams on {conns} connections: use more, servers may limit the streams of one");
    }
    let plan = Plan {
        keys: watched_keys(parsed)?,
        watchers_per_stream: parsed.size("watch-per-stream"),
        put_clients: parsed.size("clients").max(1),
        pace: session.pace(parsed.count("put-rate"), 1)?,
        ..plan(&session)?
    };
    let outcome = watch::run(&plan)?;
    let precise = parsed.is("precise");
    let created = Report::new(&outcome.creation, outcome.creation_took, precise).text();
    print!("Watch creation summary:\n{created}Watch events received summary:\n{}", events(&outcome, precise));
    failed_puts(&outcome)
}

/// `watch-latency`
pub fn latency(parsed: &Given) -> Done {
    let session = Session::start(parsed)?;
    let rate = parsed.count("put-rate");
    let plan = Plan {
        keys: vec![Random::new(LATENCY_KEY_SEED).bytes(parsed.size("key-size").max(1))],
        watchers_per_stream: parsed.size("watchers-per-stream"),
        prev_kv: parsed.is("prevkv"),
        value_size: parsed.size("val-size"),
        put_clients: 1,
        // etcd's bucket holds a second's puts.
        pace: session.pace(rate, rate.max(1))?,
        origin: Origin::Answered,
        ..plan(&session)?
    };
    let outcome = watch::run(&plan)?;
    let precise = parsed.is("precise");
    let puts = Report::new(&outcome.puts, outcome.took, precise).text();
    print!("\nPut summary:\n{puts}\nWatch events summary:\n{}", events(&outcome, precise));
    Ok(())
}

/// `watch-get`
pub fn get(parsed: &Given) -> Done {
    let session = Session::start(parsed)?;
    let target = session.targets.first().ok_or("no endpoint")?;
    let mut control = Control::open(target)?;
    let mut first = 0;
    for number in 0..parsed.count("events") {
        let put = pb::PutRequest { key: watch_get::KEY.into(), value: number.to_string().into(), ..Default::default() };
        let answer: pb::PutResponse = control.call(Rpc::Put, &put)?;
        let revision = answer.header.map_or(0, |header| header.revision);
        first = if number == 0 { revision } else { first };
    }
    let work = WatchGet {
        target: target.clone(),
        streams: parsed.size("streams").max(1),
        watchers: parsed.size("watchers"),
        events: parsed.count("events"),
        first_revision: first,
    };
    let (samples, took) = watch_get::run(&work)?;
    print!("Get during watch summary:\n{}", session.report(&samples, took));
    Ok(())
}

/// What `watch` and `watch-latency` share.
fn plan(session: &Session<'_>) -> Result<Plan, Problem> {
    let parsed = session.parsed;
    let duration = Some(parsed.duration("duration")).filter(|duration| !duration.is_zero());
    Ok(Plan {
        target: session.targets.first().ok_or("no endpoint")?.clone(),
        conns: parsed.size("conns").max(1),
        streams: parsed.size("streams"),
        watchers_per_stream: 0,
        keys: Vec::new(),
        prev_kv: false,
        value_size: VALUE,
        put_clients: 1,
        puts: Some(parsed.count("put-total")).filter(|_| duration.is_none()),
        duration,
        pace: Pace::Unlimited,
        origin: Origin::Sent,
    })
}

fn watched_keys(parsed: &Given) -> Result<Vec<Bytes>, Problem> {
    let (size, space) = (parsed.size("key-size"), parsed.count("key-space-size").max(1));
    let mut encoder = KeyEncoder::fresh(size);
    let mut random = Random::new(LATENCY_KEY_SEED);
    let mut keys = Vec::new();
    for number in 0..parsed.count("watched-key-total").max(1) {
        let number = if parsed.is("sequential-keys") { number % space } else { random.below(space) };
        let key = encoder.key(i64::try_from(number).unwrap_or(i64::MAX));
        keys.push(Bytes::copy_from_slice(key.ok_or_else(|| format!("keys of {size} bytes do not hold {number}"))?));
    }
    Ok(watch::distinct(keys))
}

fn events(outcome: &Outcome, precise: bool) -> String {
    Report::new(&outcome.events, outcome.took, precise).text()
}

fn failed_puts(outcome: &Outcome) -> Done {
    match outcome.puts.errors().iter().next() {
        Some((error, count)) => Err(Problem::Failed(format!("{count} puts failed: {error}"))),
        None => Ok(()),
    }
}
