//! One row on one server, once.

use super::disturb::{self, Disturbance};
use super::rows::{Kind, Row, Sizes, State, UNWATCHED_KEYS};
use super::seeds::Seeds;
use super::server::{Place, Running, Side};
use crate::control::Control;
use crate::keys::Random;
use crate::pacer::Pace;
use crate::procs::Usage;
use crate::runner::{self, Outcome, Plan};
use crate::samples::Samples;
use crate::wire::Target;
use crate::workloads::kv::{KeySpace, MixedRead, Put, Range, TxnMixed, TxnPut, Window};
use crate::workloads::lease::KeepAlive;
use crate::workloads::watch::{self, Origin};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a key.
const KEY_SIZE: usize = 32;
/// Puts in one transaction of the preload; etcd's limit is 128.
const PRELOAD_OPS: u64 = 100;
const PRELOAD_CLIENTS: usize = 32;
/// Clients that put the preload's revisions one by one.
const HISTORY_CLIENTS: usize = 512;
/// Neighbouring keys that a read of `txn-mixed` asks for.
const MIXED_WIDTH: usize = 10;
/// Any seed: all values are the same random bytes.
const VALUE_SEED: u64 = 1;
/// Streams of the watch rows; the watchers are spread over them.
const WATCH_STREAMS: usize = 10;
const WATCH_CONNS: usize = 10;

/// Start of the names of the runs' folders.
const RUN_DIR: &str = "oxetcd-bench";

/// How long and how, and the states that runs begin on.
#[derive(Debug)]
pub struct Measure {
    pub sizes: Sizes,
    pub place: Place,
    pub duration: Duration,
    pub warmup: Duration,
    /// Puts a second of the open-loop rows.
    pub open_rate: f64,
    pub seeds: Seeds,
}

/// What one run of one row gave: metrics by name, in the table's order, and errors.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub metrics: Vec<(&'static str, f64)>,
    pub errors: BTreeMap<String, u64>,
}

impl Figures {
    /// What stands for a run that came to nothing.
    pub fn of_error(error: &io::Error) -> Figures {
        Figures { metrics: Vec::new(), errors: BTreeMap::from([(format!("no figures: {error}"), 1)]) }
    }

    /// The load tool's CPU time a request as a share of the server's.
    pub fn load_share(&self) -> Option<f64> {
        Some(self.get(LOAD_CPU)? / self.get(SERVER_CPU).filter(|cpu| *cpu > 0.0)?)
    }

    /// A metric by name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(metric, _)| *metric == name).map(|(_, value)| *value)
    }

    fn push(&mut self, name: &'static str, value: f64) {
        self.metrics.push((name, value));
    }

    fn rate_and_times(&mut self, samples: &Samples, elapsed: Duration) {
        let distribution = samples.distribution();
        self.push(RATE, distribution.len() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
        for (name, percentile) in [("p50 ms", 50.0), ("p99 ms", 99.0), ("p99.9 ms", 99.9)] {
            self.push(name, distribution.percentile(percentile) * 1e3);
        }
        self.note_errors(samples);
    }

    /// The puts beside watchers: their own rate and times.
    fn puts(&mut self, samples: &Samples, elapsed: Duration) {
        let distribution = samples.distribution();
        self.push("puts /s", distribution.len() as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
        self.push("put p50 ms", distribution.percentile(50.0) * 1e3);
        self.push(PUT_P99, distribution.percentile(99.0) * 1e3);
        self.note_errors(samples);
    }

    fn note_errors(&mut self, samples: &Samples) {
        for (text, count) in samples.errors() {
            *self.errors.entry(text.clone()).or_default() += count;
        }
    }

    fn cost(&mut self, before: &Usage, after: &Usage, own: Duration, operations: u64) {
        let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / operations.max(1) as f64;
        self.push(SERVER_CPU, per_op(after.cpu.saturating_sub(before.cpu)));
        self.push(LOAD_CPU, per_op(own));
        self.memory(after);
    }

    fn memory(&mut self, usage: &Usage) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.push(RSS_ANON, mib(usage.rss_anon));
        self.push("VmRSS MiB", mib(usage.vm_rss));
        self.push("VmHWM MiB", mib(usage.vm_hwm));
    }
}

/// Names of metrics that are compared with the floors, across rows, or with targets.
pub const RATE: &str = "rate /s";
pub const PUT_P99: &str = "put p99 ms";
pub const RSS_ANON: &str = "RssAnon MiB";
pub const RSS_ANON_RESTARTED: &str = "RssAnon restarted MiB";
pub const RESTART: &str = "restart to first read s";
pub const SERVER_CPU: &str = "server CPU µs/op";
pub const LOAD_CPU: &str = "load CPU µs/op";

impl Measure {
    /// Starts `side`, brings it to where the row begins, and measures the row.
    pub fn row(&mut self, row: &Row, side: &Side) -> io::Result<Figures> {
        let mut server = match row.state(&self.sizes) {
            None => Running::start(side, &self.place, RUN_DIR)?,
            Some(state) => self.seeded(side, state)?,
        };
        match row.kind {
            Kind::Load => self.load(row, &mut server),
            Kind::Watch { keys, rate } => self.watch(row, &server, keys, rate),
            Kind::Open { disturbance } => self.open(row, &server, disturbance),
            _ => self.closed(row, &server),
        }
    }

    /// The closed-loop put rate of `side` with the clients of the open-loop rows.
    pub fn peak(&mut self, side: &Side) -> io::Result<f64> {
        let row = Row { name: "peak".to_owned(), kind: Kind::Put { single: false }, clients: self.sizes.open_clients };
        Ok(self.row(&row, side)?.get(RATE).unwrap_or_default())
    }

    fn space(&self, size: u64, sequential: bool) -> KeySpace {
        KeySpace { key_size: KEY_SIZE, size, sequential, as_etcd: false }
    }

    fn value(&self) -> Bytes {
        Random::new(VALUE_SEED).bytes(self.sizes.value)
    }

    fn put(&self, keys: u64, sequential: bool) -> Put {
        Put { space: self.space(keys, sequential), value: self.value() }
    }

    /// A plan of closed-loop load.
    pub fn plan(target: &Target, conns: usize, clients: usize) -> Plan {
        Plan {
            targets: vec![target.clone()],
            conns,
            clients,
            threads: 1,
            total: None,
            duration: None,
            pace: Pace::Unlimited,
            sample: false,
        }
    }

    /// A server that holds `state`.
    fn seeded(&mut self, side: &Side, state: State) -> io::Result<Running> {
        let keys =
            TxnPut { space: self.space(state.keys, true), value: self.value(), ops: PRELOAD_OPS.min(state.keys) };
        let history = self.put(state.keys, false);
        let load = |server: &Running| preload(&server.target(), state, keys, history);
        self.seeds.start(side, state, &self.place, load)
    }

    fn run_closed(&self, row: &Row, plan: &Plan) -> io::Result<Outcome> {
        let keys = self.sizes.keys;
        match row.kind {
            Kind::Put { single } => runner::run(plan, &Arc::new(self.put(if single { 1 } else { keys }, false))),
            Kind::Range { serializable } => {
                runner::run(plan, &Arc::new(Range::of_space(self.space(keys, false), serializable)))
            }
            Kind::Lease => runner::run(plan, &Arc::new(KeepAlive)),
            Kind::TxnMixed => runner::run(plan, &Arc::new(self.mixed())),
            Kind::Open { .. } | Kind::Watch { .. } | Kind::Load => Err(io::Error::other("not a closed loop")),
        }
    }

    fn mixed(&self) -> TxnMixed {
        let space = self.space(self.sizes.keys, false);
        let read = MixedRead::Window(Window::new(&space, MIXED_WIDTH));
        TxnMixed { space, value: self.value(), read, ratio: 1.0 }
    }

    fn closed(&self, row: &Row, server: &Running) -> io::Result<Figures> {
        let plan = Measure::plan(&server.target(), row.conns(), row.clients);
        all_well(&self.run_closed(row, &Plan { duration: Some(self.warmup), ..plan.clone() })?)?;
        let before = server.usage()?;
        let outcome = self.run_closed(row, &Plan { duration: Some(self.duration), ..plan })?;
        let after = server.usage()?;
        let mut figures = Figures::default();
        figures.rate_and_times(&together(&outcome), outcome.elapsed);
        figures.cost(&before, &after, outcome.own_cpu, outcome.done());
        Ok(figures)
    }

    fn open(&self, row: &Row, server: &Running, disturbance: Option<Disturbance>) -> io::Result<Figures> {
        let target = server.target();
        let put = Arc::new(self.put(self.sizes.keys, false));
        let pace = Pace::Open { rate: self.open_rate };
        let plan = Plan { pace, ..Measure::plan(&target, row.conns(), row.clients) };
        all_well(&runner::run(&Plan { duration: Some(self.warmup), ..plan.clone() }, &put)?)?;
        let before = server.usage()?;
        let beside = disturbance.map(|what| disturb::start(what, &target, self.duration));
        let outcome = runner::run(&Plan { duration: Some(self.duration), ..plan }, &put)?;
        let after = server.usage()?;
        let mut figures = Figures::default();
        figures.rate_and_times(&together(&outcome), outcome.elapsed);
        figures.cost(&before, &after, outcome.own_cpu, outcome.done());
        if let Some(beside) = beside {
            match beside.join().unwrap_or_else(|_| Ok(disturb::Done::default())) {
                Ok(done) => {
                    figures.push("disturbance s", done.took.as_secs_f64());
                    figures.push("disturbance count", done.count as f64);
                }
                Err(failure) => *figures.errors.entry(format!("disturbance: {failure}")).or_default() += 1,
            }
        }
        Ok(figures)
    }

    fn watch(&self, row: &Row, server: &Running, keys: usize, rate: Option<u64>) -> io::Result<Figures> {
        let watched = keys > 0;
        let plan = watch::Plan {
            target: server.target(),
            conns: WATCH_CONNS,
            streams: if watched { WATCH_STREAMS } else { 0 },
            watchers_per_stream: self.sizes.watchers.div_ceil(WATCH_STREAMS),
            keys: self.first_keys(if watched { keys } else { UNWATCHED_KEYS }),
            prev_kv: false,
            value_size: self.sizes.value,
            put_clients: row.clients,
            puts: None,
            duration: Some(self.duration),
            pace: rate.map_or(Pace::Unlimited, |rate| Pace::Open { rate: rate as f64 }),
            origin: Origin::Sent,
        };
        let warmup = watch::Plan { streams: 0, duration: Some(self.warmup), ..plan.clone() };
        well(&watch::run(&warmup)?.puts)?;
        let before = server.usage()?;
        let outcome = watch::run(&plan)?;
        let after = server.usage()?;
        let mut figures = Figures::default();
        if watched {
            figures.rate_and_times(&outcome.events, outcome.took);
        }
        figures.puts(&outcome.puts, outcome.took);
        let counted = if watched { &outcome.events } else { &outcome.puts };
        figures.cost(&before, &after, outcome.own_cpu, counted.len());
        Ok(figures)
    }

    /// The first keys of the key space.
    fn first_keys(&self, keys: usize) -> Vec<Bytes> {
        let mut encoder = self.space(keys as u64, true).encoder();
        (0..keys).filter_map(|key| encoder.key(key as i64).map(Bytes::copy_from_slice)).collect()
    }

    fn load(&self, row: &Row, server: &mut Running) -> io::Result<Figures> {
        let plan =
            Plan { total: Some(self.sizes.load_keys), ..Measure::plan(&server.target(), row.conns(), row.clients) };
        let before = server.usage()?;
        let outcome = runner::run(&plan, &Arc::new(self.put(self.sizes.load_keys, true)))?;
        let after = server.usage()?;
        let mut figures = Figures::default();
        figures.rate_and_times(&together(&outcome), outcome.elapsed);
        figures.cost(&before, &after, outcome.own_cpu, outcome.done());
        server.restart()?;
        figures.push(RESTART, server.first_read.as_secs_f64());
        let counting = Instant::now();
        let count = Control::open(&server.target()).and_then(|mut control| control.count()).map_err(runner::refused)?;
        figures.push("count after restart ms", counting.elapsed().as_secs_f64() * 1e3);
        if u64::try_from(count) != Ok(self.sizes.load_keys) {
            figures.errors.insert(format!("{count} keys after the restart"), 1);
        }
        let usage = server.usage()?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        figures.push(RSS_ANON_RESTARTED, mib(usage.rss_anon));
        figures.push("VmRSS restarted MiB", mib(usage.vm_rss));
        Ok(figures)
    }
}

/// Writes all keys, then revisions to random ones of them.
fn preload(target: &Target, state: State, keys: TxnPut, history: Put) -> io::Result<()> {
    let plan = Measure::plan(target, PRELOAD_CLIENTS, PRELOAD_CLIENTS);
    let txns = Plan { total: Some(state.keys.div_ceil(PRELOAD_OPS)), ..plan.clone() };
    all_well(&runner::run(&txns, &Arc::new(keys))?)?;
    if state.history > 0 {
        let puts = Plan { total: Some(state.history), clients: HISTORY_CLIENTS, ..plan };
        all_well(&runner::run(&puts, &Arc::new(history))?)?;
    }
    Ok(())
}

fn together(outcome: &Outcome) -> Samples {
    let mut all = Samples::default();
    outcome.lanes.iter().for_each(|lane| all.merge(lane.clone()));
    all
}

/// Nothing may fail before the measurement.
fn all_well(outcome: &Outcome) -> io::Result<()> {
    outcome.lanes.iter().try_for_each(well)
}

fn well(samples: &Samples) -> io::Result<()> {
    match samples.errors().iter().next() {
        Some((error, count)) => Err(io::Error::other(format!("{error} ({count} times) before the measurement"))),
        None => Ok(()),
    }
}
