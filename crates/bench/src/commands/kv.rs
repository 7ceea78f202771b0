//! `put`, `range`, `txn-put`, `txn-mixed`.

use super::{Done, Problem, Session};
use crate::control::Control;
use crate::given::Given;
use crate::keys::{self, Random};
use crate::runner::Outcome;
use crate::wire::{Rpc, Target};
use crate::workloads::kv::{KeySpace, MixedRead, Put, READS, Range, RangeMode, TxnMixed, TxnPut, WRITES};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use cobra::{Flag, Kind};
use std::time::{Duration, Instant};

/// Any seed: values are random once a run.
const VALUE_SEED: u64 = 1;

pub const PUT: &[Flag] = &[
    Flag::new("key-size", Kind::Int, "8", "Key size of put request"),
    Flag::new("val-size", Kind::Int, "8", "Value size of put request"),
    Flag::new("rate", Kind::Int, "0", "Maximum puts per second (0 is no limit)"),
    Flag::new("total", Kind::Int, "10000", "Total number of put requests"),
    Flag::new("key-space-size", Kind::Int, "1", "Maximum possible keys"),
    Flag::new("sequential-keys", Kind::Bool, "false", "Use sequential keys"),
    Flag::new(
        "compact-interval",
        Kind::Duration,
        "0s",
        "Interval to compact database (e.g. --compact-interval=5m compacts every 5-minute)",
    ),
    Flag::new(
        "compact-index-delta",
        Kind::Int,
        "1000",
        "Delta between current revision and compact revision (e.g. current revision 10000, compact at 9000)",
    ),
    Flag::new("check-hashkv", Kind::Bool, "false", "'true' to check hashkv"),
];

pub const RANGE: &[Flag] = &[
    Flag::new("rate", Kind::Int, "0", "Maximum range requests per second (0 is no limit)"),
    Flag::new("total", Kind::Int, "10000", "Total number of range requests"),
    Flag::new("consistency", Kind::Text, "l", "Linearizable(l) or Serializable(s)"),
    Flag::new("limit", Kind::Int, "0", "Maximum number of results to return from range request (0 is no limit)"),
    Flag::new("count-only", Kind::Bool, "false", "Only returns the count of keys"),
    Flag::new("keys-only", Kind::Bool, "false", "Only returns the keys"),
    Flag::new("stream", Kind::Bool, "false", "Use RangeStream instead of unary Range"),
    Flag::new("paginate", Kind::Bool, "false", "Use paginated unary range with 10k-key pages"),
    Flag::new("prefix", Kind::Bool, "false", "Range over all keys with the given key as prefix"),
];

pub const TXN: &[Flag] = &[
    Flag::new("key-size", Kind::Int, "8", "Key size of txn put"),
    Flag::new("val-size", Kind::Int, "8", "Value size of txn put"),
    Flag::new("txn-ops", Kind::Int, "1", "Number of puts per txn"),
    Flag::new("rate", Kind::Int, "0", "Maximum txns per second (0 is no limit)"),
    Flag::new("total", Kind::Int, "10000", "Total number of txn requests"),
    Flag::new("key-space-size", Kind::Int, "1", "Maximum possible keys"),
];

pub const MIXED: &[Flag] = &[
    Flag::new("key-size", Kind::Int, "8", "Key size of mixed txn"),
    Flag::new("val-size", Kind::Int, "8", "Value size of mixed txn"),
    Flag::new("rate", Kind::Int, "0", "Maximum txns per second (0 is no limit)"),
    Flag::new("total", Kind::Int, "10000", "Total number of txn requests"),
    Flag::new(
        "end-key",
        Kind::Text,
        "",
        "Read operation range end key. By default, we do full range query with the default limit of 1000.",
    ),
    Flag::new("limit", Kind::Int, "1000", "Read operation range result limit"),
    Flag::new("key-space-size", Kind::Int, "1", "Maximum possible keys"),
    Flag::new("consistency", Kind::Text, "l", "Linearizable(l) or Serializable(s)"),
    Flag::new("rw-ratio", Kind::Float, "1", "Read/write ops ratio"),
];

/// `put`
pub fn put(parsed: &Given) -> Done {
    let space = key_space(parsed, parsed.is("sequential-keys"))?;
    let session = Session::start(parsed)?;
    compact_in_background(&session, parsed.duration("compact-interval"), parsed.int("compact-index-delta"));
    let pace = session.pace(parsed.count("rate"), 1)?;
    let outcome = session.run(parsed.count("total"), pace, Put { space, value: value(parsed) })?;
    print_with_line(&session, "put", &outcome)?;
    if parsed.is("check-hashkv") { print_hash(&session) } else { Ok(()) }
}

/// `range`
pub fn range(parsed: &Given) -> Done {
    let request = range_request(parsed)?;
    let mode = match (parsed.is("stream"), parsed.is("paginate")) {
        (true, true) => return Err(Problem::Failed("--stream and --paginate exclude each other".to_owned())),
        (_, true) if request.limit != 0 => {
            return Err(Problem::Failed("--paginate and --limit exclude each other".to_owned()));
        }
        (true, _) => RangeMode::Stream,
        (_, true) => RangeMode::Pages,
        _ => RangeMode::Unary,
    };
    println!("bench with {} range", if request.serializable { "serializable" } else { "linearizable" });
    let session = Session::start(parsed)?;
    let pace = session.pace(parsed.count("rate"), 1)?;
    let outcome = session.run(parsed.count("total"), pace, Range::fixed(request, mode, None))?;
    session.perfdash("range", &outcome.lanes[0])?;
    print!("{}", session.report(&outcome.lanes[0], outcome.elapsed));
    Ok(())
}

/// `txn-put`
pub fn txn_put(parsed: &Given) -> Done {
    let space = key_space(parsed, true)?;
    let ops = parsed.count("txn-ops");
    if ops > space.size {
        return Err(Problem::Failed(format!(
            "expected --txn-ops no larger than --key-space-size, got txn-ops({ops}) key-space-size({})",
            space.size
        )));
    }
    let session = Session::start(parsed)?;
    let pace = session.pace(parsed.count("rate"), 1)?;
    let outcome = session.run(parsed.count("total"), pace, TxnPut { space, value: value(parsed), ops })?;
    print_with_line(&session, "txn-put", &outcome)
}

/// `txn-mixed`
pub fn mixed(parsed: &Given) -> Done {
    let space = key_space(parsed, false)?;
    let serializable = serializable(parsed)?;
    let end = parsed.text("end-key");
    // etcd's tool ignores its KEY argument: it reads every key.
    let range_end = if end.is_empty() { Bytes::from_static(&[0]) } else { end.to_owned().into() };
    let key = Bytes::from_static(&[0]);
    let range =
        pb::RangeRequest { key, range_end, limit: parsed.int("limit"), serializable, ..pb::RangeRequest::default() };
    let session = Session::start(parsed)?;
    let pace = session.pace(parsed.count("rate"), 1)?;
    let read = MixedRead::same(range);
    let workload = TxnMixed { space, value: value(parsed), read, ratio: parsed.float("rw-ratio") };
    let outcome = session.run(parsed.count("total"), pace, workload)?;
    for (name, lane) in [("Read", READS), ("Write", WRITES)] {
        let samples = &outcome.lanes[lane];
        let ops = samples.len() + samples.failed();
        println!("Total {name} Ops: {ops}\nDetails:{}", session.report(samples, outcome.elapsed));
    }
    Ok(())
}

fn print_with_line(session: &Session<'_>, operation: &str, outcome: &Outcome) -> Done {
    session.perfdash(operation, &outcome.lanes[0])?;
    println!("{}", session.report(&outcome.lanes[0], outcome.elapsed));
    Ok(())
}

fn value(parsed: &Given) -> Bytes {
    Random::new(VALUE_SEED).bytes(parsed.size("val-size"))
}

fn key_space(parsed: &Given, sequential: bool) -> Result<KeySpace, Problem> {
    let size = parsed.int("key-space-size");
    if size <= 0 {
        return Err(Problem::Failed(format!("expected positive --key-space-size, got ({size})")));
    }
    let space =
        KeySpace { key_size: parsed.size("key-size"), size: parsed.count("key-space-size"), sequential, as_etcd: true };
    if !keys::fits(space.key_size, space.size) {
        return Err(Problem::Failed(format!("keys of {} bytes do not hold {size} numbers", space.key_size)));
    }
    Ok(space)
}

fn serializable(parsed: &Given) -> Result<bool, Problem> {
    match parsed.text("consistency") {
        "l" => Ok(false),
        "s" => Ok(true),
        other => Err(Problem::Failed(format!("consistency must be l or s, not {other:?}"))),
    }
}

fn range_request(parsed: &Given) -> Result<pb::RangeRequest, Problem> {
    let prefix = parsed.is("prefix");
    let (key, end) = match (parsed.args.as_slice(), prefix) {
        ([], true) => (vec![0], vec![0]),
        ([key], true) if key.is_empty() => (vec![0], vec![0]),
        ([key], true) => (key.clone().into_bytes(), api::recipes::prefix_end(key.as_bytes()).to_vec()),
        ([key], false) => (key.clone().into_bytes(), Vec::new()),
        ([key, end], false) => (key.clone().into_bytes(), end.clone().into_bytes()),
        _ => return Err(Problem::Usage("range takes a key and perhaps an end".to_owned())),
    };
    Ok(pb::RangeRequest {
        key: key.into(),
        range_end: end.into(),
        limit: parsed.int("limit"),
        serializable: serializable(parsed)?,
        count_only: parsed.is("count-only"),
        keys_only: parsed.is("keys-only"),
        ..pb::RangeRequest::default()
    })
}

/// Compacts every `interval` until the program ends.
fn compact_in_background(session: &Session<'_>, interval: Duration, delta: i64) {
    let Some(target) = session.targets.first().cloned().filter(|_| !interval.is_zero()) else {
        return;
    };
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            if let Err(error) = compact(&target, delta) {
                eprintln!("compaction failed: {error}");
                return;
            }
        }
    });
}

fn compact(target: &Target, delta: i64) -> Result<(), crate::wire::Failure> {
    let mut control = Control::open(target)?;
    let revision = control.revision()?;
    control.compact((revision - delta).max(0), false)
}

fn print_hash(session: &Session<'_>) -> Done {
    let target = session.targets.first().ok_or("no endpoint")?;
    let mut control = Control::open(target)?;
    let start = Instant::now();
    let hash: pb::HashKvResponse = control.call(Rpc::HashKv, &pb::HashKvRequest::default())?;
    let took = start.elapsed();
    let size = u64::try_from(control.status()?.db_size).unwrap_or_default();
    println!(
        "HashKV Summary:\n\tHashKV: {}\n\tEndpoint: {}\n\tTime taken to get hashkv: {}\n\tDB size: {}",
        hash.hash,
        session.parsed.text("endpoints"),
        go::format_duration(took),
        go::bytes_text(size)
    );
    Ok(())
}
