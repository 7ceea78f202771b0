//! What the machine allows at best: bare HTTP/2, bare gRPC, bare group commit.
//!
//! * *HTTP/2*: the crate `h2` answers every request with the same bytes.
//! * *gRPC*: tonic decodes a put and encodes its answer, and does nothing else.
//! * *group commit*: all writers' records in one write and one `fdatasync`, to a preallocated file.
//!
//! The first two run as a process of their own on the servers' core, under the same load tool as a server.

pub mod commit;
pub mod grpc;
pub mod http2;

use crate::affinity;
use crate::compare::measure::Measure;
use crate::compare::server::end;
use crate::keys::Random;
use crate::procs::Usage;
use crate::runner::{self, Plan, Workload};
use crate::skim;
use crate::wire::{Conn, Failure, Rpc, Target, frame};
use crate::workloads::kv::malformed;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the puts that the bare servers get: as in the tables.
const KEY: usize = 32;
const VALUE: usize = 256;
const CONNS_MAX: usize = 100;

/// One floor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Floor {
    /// Requests a second.
    pub rate: f64,
    /// Microseconds of the server's CPU time a request.
    pub cpu: f64,
    /// … and of the load tool's.
    pub load_cpu: f64,
    /// Milliseconds.
    pub p50: f64,
    pub p99: f64,
}

/// Floors by number of clients.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    pub http2: BTreeMap<usize, Floor>,
    pub grpc: BTreeMap<usize, Floor>,
    pub commit: BTreeMap<usize, Floor>,
}

impl Floors {
    /// The floor of a row: bare gRPC, and for writes no more than bare group commit.
    pub fn of(&self, clients: usize, writes: bool) -> Option<Floor> {
        let grpc = self.grpc.get(&clients).copied()?;
        let commit = self.commit.get(&clients).filter(|_| writes);
        Some(commit.map_or(grpc, |commit| Floor { rate: grpc.rate.min(commit.rate), ..grpc }))
    }

    /// All floors with their names and numbers of clients.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, usize, &Floor)> {
        let named =
            [("HTTP/2 (h2, fixed answer)", &self.http2), ("gRPC (tonic)", &self.grpc), ("group commit", &self.commit)];
        named.into_iter().flat_map(|(name, floors)| floors.iter().map(move |(clients, floor)| (name, *clients, floor)))
    }

    /// A Markdown table.
    pub fn table(&self) -> String {
        let mut text = "| floor | clients | rate /s | p50 ms | p99 ms | server CPU µs/op | load CPU µs/op |\n\
                        |---|---|---|---|---|---|---|\n"
            .to_owned();
        for (name, clients, floor) in self.all() {
            let Floor { rate, cpu, load_cpu, p50, p99 } = floor;
            text.push_str(&format!(
                "| {name} | {clients} | {rate:.0} | {p50:.3} | {p99:.3} | {cpu:.2} | {load_cpu:.2} |\n"
            ));
        }
        text
    }

    /// One JSON object a floor.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let line = |(name, clients, floor): (&str, usize, &Floor)| {
            json!({
                "floor": name, "clients": clients, "rate": floor.rate, "p50 ms": floor.p50, "p99 ms": floor.p99,
                "server CPU µs/op": floor.cpu, "load CPU µs/op": floor.load_cpu,
            })
        };
        self.all().map(line).collect()
    }
}

/// Runs of which the best counts: a floor is what the machine allows, and neighbours on its core only take from it.
const RUNS: u32 = 3;

/// Measures all floors for each number of clients, each as the best of several runs of `duration` in all.
pub fn measure(clients: &[usize], dir: &Path, core: Option<usize>, duration: Duration) -> io::Result<Floors> {
    let mut floors = Floors::default();
    let run = duration / RUNS;
    for clients in clients {
        floors.http2.insert(*clients, best(|| bare_server("http2", *clients, core, run))?);
        floors.grpc.insert(*clients, best(|| bare_server("grpc", *clients, core, run))?);
        floors.commit.insert(*clients, best(|| affinity::started_on(core, || commit::measure(dir, *clients, run)))?);
    }
    Ok(floors)
}

fn best(run: impl Fn() -> io::Result<Floor>) -> io::Result<Floor> {
    let mut best = Floor::default();
    for _ in 0..RUNS {
        let floor = run()?;
        if floor.rate > best.rate {
            best = floor;
        }
    }
    Ok(best)
}

/// Serves a bare server (`http2`, `grpc`) on a free port until it is ended; the address is the first line of output.
pub fn serve(kind: &str) -> io::Result<()> {
    let runtime = runner::runtime()?;
    let serve = async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        match kind {
            "http2" => http2::serve(listener).await,
            "grpc" => grpc::serve(listener).await,
            other => Err(io::Error::other(format!("no bare server {other:?}: http2, grpc"))),
        }
    };
    runtime.block_on(tokio::task::LocalSet::new().run_until(serve))
}

/// A bare server's process.
struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn bare_server(kind: &str, clients: usize, core: Option<usize>, duration: Duration) -> io::Result<Floor> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["floor-server", kind]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut bare = Bare(affinity::started_on(core, || command.spawn())?);
    let mut address = String::new();
    let output = bare.0.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    BufReader::new(output).read_line(&mut address)?;
    let target = Target::new(address.trim());
    let plan = Measure::plan(&target, clients.min(CONNS_MAX), clients);
    let put = Arc::new(BarePut::new());
    runner::run(&Plan { duration: Some(duration / 4), ..plan.clone() }, &put)?;
    let before = Usage::of(bare.0.id())?;
    let outcome = runner::run(&Plan { duration: Some(duration), ..plan }, &put)?;
    let after = Usage::of(bare.0.id())?;
    if outcome.failed() > 0 {
        return Err(io::Error::other(format!("{:?}", outcome.lanes[0].errors())));
    }
    let distribution = outcome.lanes[0].distribution();
    let per_op = |cpu: Duration| cpu.as_secs_f64() * 1e6 / outcome.done().max(1) as f64;
    Ok(Floor {
        rate: outcome.done() as f64 / outcome.elapsed.as_secs_f64(),
        cpu: per_op(after.cpu.saturating_sub(before.cpu)),
        load_cpu: per_op(outcome.own_cpu),
        p50: distribution.percentile(50.0) * 1e3,
        p99: distribution.percentile(99.0) * 1e3,
    })
}

/// The put that bare servers get; their revision stands still.
struct BarePut {
    framed: Bytes,
}

impl BarePut {
    fn new() -> BarePut {
        let mut random = Random::new(1);
        let (key, value) = (random.bytes(KEY), random.bytes(VALUE));
        BarePut { framed: frame(&pb::PutRequest { key, value, ..Default::default() }) }
    }
}

/// What bare servers answer.
fn answer() -> pb::PutResponse {
    let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision: 1 << 20, raft_term: 2 };
    pb::PutResponse { header: Some(header), prev_kv: None }
}

impl Workload for BarePut {
    type Worker = ();

    async fn prepare(&self, _id: usize, _conn: &mut Conn) -> Result<(), Failure> {
        Ok(())
    }

    async fn once(&self, _worker: &mut (), conn: &mut Conn, _sequence: u64) -> (usize, Result<(), Failure>) {
        let answer = conn.unary(Rpc::Put, self.framed.clone()).await;
        (0, answer.and_then(|answer| skim::revision(&answer).map(|_| ()).ok_or_else(malformed)))
    }
}
