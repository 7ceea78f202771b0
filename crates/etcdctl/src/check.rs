//! `check perf | datascale`: loads with pass marks.

use crate::globals::Ctl;
use crate::kv::failed;
use crate::metrics::Metrics;
use crate::web;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Client, Error, prefix_end};
use cobra::{Call, Exit, Flag, Kind};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const LOAD_HELP: &str = "load: s(mall), m(edium), l(arge) or xl(Large)";
const COMPACT_HELP: &str = "compact up to the last revision afterwards";
const DEFRAG_HELP: &str = "defragment the endpoints afterwards";

/// Flags of `check perf`.
pub static PERF_FLAGS: &[Flag] = &[
    Flag::new("load", Kind::Text, "s", LOAD_HELP),
    Flag::new("prefix", Kind::Text, "/etcdctl-check-perf/", "where the keys are written; no key may be there"),
    Flag::switch("auto-compact", COMPACT_HELP),
    Flag::switch("auto-defrag", DEFRAG_HELP),
];
/// Flags of `check datascale`.
pub static DATASCALE_FLAGS: &[Flag] = &[
    Flag::new("load", Kind::Text, "s", LOAD_HELP),
    Flag::new("prefix", Kind::Text, "/etcdctl-check-datascale/", "where the keys are written; no key may be there"),
    Flag::switch("auto-compact", COMPACT_HELP),
    Flag::switch("auto-defrag", DEFRAG_HELP),
];

/// Cleaning up may take this long.
const CLEANUP_TIME: Duration = Duration::from_secs(30);
const PERF_SECONDS: u64 = 60;

/// A load: how many requests in all, at which rate (per second), by how many clients, of which sizes (bytes).
#[derive(Clone, Copy)]
struct Load {
    requests: u64,
    rate: Option<u64>,
    clients: usize,
    key_bytes: usize,
    value_bytes: usize,
}

/// What came of it.
#[derive(Default)]
struct Outcome {
    seconds: f64,
    latencies: Vec<f64>,
    errors: BTreeMap<String, usize>,
}

/// The load's place in the tables.
fn size(call: &Call) -> Result<usize, Exit> {
    match call.given.text("load") {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        other => Err(Exit::feature(format!("unknown load option {other}"))),
    }
}

/// `check perf`.
pub fn perf(call: &mut Call) -> Result<(), Exit> {
    const LOADS: [(u64, usize); 4] = [(150, 50), (1000, 200), (8000, 500), (15_000, 1000)];
    let (rate, clients) = LOADS[size(call)?];
    let prefix = call.given.text("prefix").to_owned();
    let ctl = Ctl::open(call)?;
    must_be_empty(&ctl, &prefix, "'")?;
    let load = Load { requests: rate * PERF_SECONDS, rate: Some(rate), clients, key_bytes: 256, value_bytes: 1024 };
    let outcome = ctl.block_on(run(&ctl.client, &prefix, load))?;
    eprintln!();
    clean_up(call, &ctl, &prefix)?;
    let mut passed = show_errors(&outcome.errors);
    let throughput = outcome.latencies.len() as f64 / outcome.seconds.max(f64::MIN_POSITIVE);
    if throughput / rate as f64 <= 0.9 {
        println!("FAIL: Throughput too low: {} writes/s", throughput as u64 + 1);
        passed = false;
    } else {
        println!("PASS: Throughput is {} writes/s", throughput as u64 + 1);
    }
    let (slowest, deviation) = spread(&outcome.latencies);
    if slowest > 0.5 {
        println!("Slowest request took too long: {slowest:.6}s");
        passed = false;
    } else {
        println!("PASS: Slowest request took {slowest:.6}s");
    }
    if deviation > 0.1 {
        println!("Stddev too high: {deviation:.6}s");
        passed = false;
    } else {
        println!("PASS: Stddev is {deviation:.6}s");
    }
    match passed {
        true => println!("PASS"),
        false => println!("FAIL"),
    }
    if passed { Ok(()) } else { Err(Exit::code(1)) }
}

/// `check datascale`.
pub fn datascale(call: &mut Call) -> Result<(), Exit> {
    const LOADS: [(u64, usize); 4] = [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];
    let (pairs, clients) = LOADS[size(call)?];
    let prefix = call.given.text("prefix").to_owned();
    let ctl = Ctl::open(call)?;
    must_be_empty(&ctl, &prefix, "")?;
    let endpoint = ctl.client.endpoints().first().cloned().unwrap_or_default();
    let memory = |when: &str| {
        resident_bytes(&ctl, &endpoint).ok_or_else(|| {
            println!("FAIL: Could not read process_resident_memory_bytes {when} the put operations.");
            Exit::code(1)
        })
    };
    let before = memory("before")?;
    println!(
        "Start data scale check for work load [{pairs} key-value pairs, 1024 bytes per key-value, {clients} concurrent \
         clients]."
    );
    let load = Load { requests: pairs, rate: None, clients, key_bytes: 512, value_bytes: 512 };
    let outcome = ctl.block_on(run(&ctl.client, &prefix, load))?;
    eprintln!();
    let after = memory("after")?;
    clean_up(call, &ctl, &prefix)?;
    if !show_errors(&outcome.errors) {
        return Err(Exit::code(1));
    }
    println!("PASS: Approximate system memory used : {:.2} MB.", (after - before) / f64::from(1 << 20));
    Ok(())
}

/// `quote` stands around the command that helps: etcd has one for each check.
fn must_be_empty(ctl: &Ctl, prefix: &str, quote: &str) -> Result<(), Exit> {
    let range = pb::RangeRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        limit: 1,
        ..Default::default()
    };
    let found = ctl.block_on(ctl.timed().range(range)).map_err(failed)?;
    match found.kvs.is_empty() {
        true => Ok(()),
        false => Err(Exit::input(format!(
            "prefix {} has keys. Delete with {quote}etcdctl del --prefix {prefix}{quote} first",
            go::quote(prefix)
        ))),
    }
}

/// Puts keys from many clients, each with a connection of its own, paced together. Ctrl-C ends it early.
async fn run(client: &Client, prefix: &str, load: Load) -> Result<Outcome, Exit> {
    let issued = Arc::new(AtomicU64::new(0));
    let start = tokio::time::Instant::now();
    let (results, mut done) = mpsc::channel(load.clients);
    for _ in 0..load.clients {
        let client = client.apart();
        let (issued, results, prefix) = (issued.clone(), results.clone(), prefix.to_owned());
        tokio::spawn(async move {
            loop {
                let n = issued.fetch_add(1, Ordering::Relaxed);
                if n >= load.requests {
                    return;
                }
                if let Some(rate) = load.rate {
                    tokio::time::sleep_until(start + Duration::from_secs_f64(n as f64 / rate as f64)).await;
                }
                let begun = Instant::now();
                let outcome = client.put(request(&prefix, n, load)).await;
                if results.send((begun.elapsed(), outcome.map(drop))).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(results);
    let mut outcome = Outcome::default();
    let collecting = async {
        while let Some((took, result)) = done.recv().await {
            note(&mut outcome, took, result);
            show_progress(outcome.latencies.len() as u64, load.requests);
        }
    };
    tokio::select! {
        () = collecting => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    outcome.seconds = start.elapsed().as_secs_f64();
    Ok(outcome)
}

fn note(outcome: &mut Outcome, took: Duration, result: Result<(), Error>) {
    match result {
        Ok(()) => outcome.latencies.push(took.as_secs_f64()),
        Err(e) => *outcome.errors.entry(e.to_string()).or_default() += 1,
    }
}

/// A line that rewrites itself at each percent.
fn show_progress(done: u64, all: u64) {
    if done.is_multiple_of((all / 100).max(1)) {
        eprint!("\r {done} / {all} {:3}%", done * 100 / all.max(1));
        let _ = std::io::stderr().flush();
    }
}

/// Key: prefix, number, zeros. Numbers are mixed so that keys do not arrive in order.
fn request(prefix: &str, n: u64, load: Load) -> pb::PutRequest {
    let mut key = vec![0; load.key_bytes];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let key = [prefix.as_bytes(), &key].concat();
    pb::PutRequest { key: key.into(), value: vec![0; load.value_bytes].into(), ..Default::default() }
}

fn clean_up(call: &Call, ctl: &Ctl, prefix: &str) -> Result<(), Exit> {
    let client = ctl.client.with_timeout(CLEANUP_TIME);
    let all = pb::DeleteRangeRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        prev_kv: false,
    };
    let deleted = ctl.block_on(client.delete_range(all)).map_err(failed)?;
    if call.given.is_true("auto-compact") {
        let revision = deleted.header.as_ref().map_or(0, |header| header.revision);
        println!("Compacting with revision {revision}");
        let request = pb::CompactionRequest { revision, physical: true };
        ctl.block_on(ctl.client.with_timeout(CLEANUP_TIME).compact(request)).map_err(failed)?;
        println!("Compacted with revision {revision}");
    }
    if call.given.is_true("auto-defrag") {
        for endpoint in ctl.client.endpoints() {
            println!("Defragmenting {endpoint:?}");
            let one = ctl.client.only(endpoint).with_timeout(CLEANUP_TIME);
            ctl.block_on(one.defragment(pb::DefragmentRequest {})).map_err(failed)?;
            println!("Defragmented {endpoint:?}");
        }
    }
    Ok(())
}

/// Prints the errors. Answers whether there were none.
fn show_errors(errors: &BTreeMap<String, usize>) -> bool {
    if !errors.is_empty() {
        println!("FAIL: too many errors");
        errors.iter().for_each(|(e, n)| println!("FAIL: ERROR({e}) -> {n}"));
    }
    errors.is_empty()
}

/// The slowest, and the standard deviation; seconds.
fn spread(latencies: &[f64]) -> (f64, f64) {
    let count = (latencies.len() as f64).max(1.0);
    let mean = latencies.iter().sum::<f64>() / count;
    let variance = latencies.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / count;
    (latencies.iter().copied().fold(0.0, f64::max), variance.sqrt())
}

/// `process_resident_memory_bytes` of the server's metrics.
fn resident_bytes(ctl: &Ctl, endpoint: &str) -> Option<f64> {
    let secure = web::secure(&ctl.asked.config, endpoint);
    let page = async { tokio::time::timeout(CLEANUP_TIME, web::fetch(endpoint, secure, "/metrics")).await };
    Metrics::parse(&ctl.block_on(page).ok()?.ok()?.body).sum("process_resident_memory_bytes")
}
