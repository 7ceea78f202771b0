//! Runs a workload: load threads, each a single-threaded runtime with its own connections and workers.

use crate::pacer::{Alarm, Pace, Pacer};
use crate::procs;
use crate::samples::Samples;
use crate::wire::{Conn, Failure, Target};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// How long answers and requests that are late may still take when the run's time is over.
const GRACE: Duration = Duration::from_secs(60);

/// How much load, and where to.
#[derive(Clone, Debug)]
pub struct Plan {
    pub targets: Vec<Target>,
    /// Connections; connection i goes to target i mod targets.
    pub conns: usize,
    /// Workers; worker i uses connection i mod conns.
    pub clients: usize,
    /// Load threads.
    pub threads: usize,
    /// Requests; without one the time alone ends the run.
    pub total: Option<u64>,
    pub duration: Option<Duration>,
    pub pace: Pace,
    /// Keeps one row a second.
    pub sample: bool,
}

/// One kind of load.
#[expect(async_fn_in_trait, reason = "workers never leave their thread")]
pub trait Workload: Send + Sync + 'static {
    /// What a worker keeps between requests.
    type Worker: 'static;

    /// Reports this workload has.
    fn lanes(&self) -> usize {
        1
    }

    /// Makes a worker ready; not measured.
    async fn prepare(&self, id: usize, conn: &mut Conn) -> Result<Self::Worker, Failure>;

    /// Sends request number `sequence` and checks the answer; says which report it belongs to.
    async fn once(&self, worker: &mut Self::Worker, conn: &mut Conn, sequence: u64) -> (usize, Result<(), Failure>);
}

/// What a run measured.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub lanes: Vec<Samples>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// CPU time this process used meanwhile.
    pub own_cpu: Duration,
}

impl Outcome {
    /// Requests that succeeded.
    pub fn done(&self) -> u64 {
        self.lanes.iter().map(Samples::len).sum()
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.lanes.iter().map(Samples::failed).sum()
    }
}

/// What all load threads share.
struct Shared<W> {
    plan: Plan,
    workload: Arc<W>,
    issued: AtomicU64,
    ready: Barrier,
    threads: usize,
}

/// Runs `workload` to its end.
pub fn run<W: Workload>(plan: &Plan, workload: &Arc<W>) -> io::Result<Outcome> {
    let threads = plan.threads.clamp(1, plan.conns.max(1));
    let (issued, ready) = (AtomicU64::new(0), Barrier::new(threads));
    let shared = Arc::new(Shared { plan: plan.clone(), workload: workload.clone(), issued, ready, threads });
    let start = |thread| {
        let shared = shared.clone();
        std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || load_thread(&shared, thread))
    };
    let handles: Vec<_> = (0..threads).map(start).collect::<io::Result<_>>()?;
    let finish = |handle: std::thread::JoinHandle<_>| {
        handle.join().unwrap_or_else(|_| Err(io::Error::other("a load thread panicked")))
    };
    let parts: Vec<Part> = handles.into_iter().map(finish).collect::<io::Result<_>>()?;
    let mut outcome = join(parts, workload.lanes());
    let unsent = plan.total.map_or(0, |total| total.saturating_sub(shared.issued.load(Ordering::Relaxed)));
    if let Some(lane) = outcome.lanes.first_mut().filter(|_| unsent > 0 && plan.duration.is_none()) {
        lane.fail_many("not sent: the connections were lost".to_owned(), unsent);
    }
    Ok(outcome)
}

/// What one thread measured.
struct Part {
    lanes: Vec<Samples>,
    start: Instant,
    end: Instant,
    cpu_before: Duration,
    cpu_after: Duration,
}

fn join(parts: Vec<Part>, lanes: usize) -> Outcome {
    let start = parts.iter().map(|part| part.start).min();
    let end = parts.iter().map(|part| part.end).max();
    let before = parts.iter().map(|part| part.cpu_before).min().unwrap_or_default();
    let after = parts.iter().map(|part| part.cpu_after).max().unwrap_or_default();
    let mut all: Vec<Samples> = vec![Samples::default(); lanes];
    for part in parts {
        for (sum, lane) in all.iter_mut().zip(part.lanes) {
            sum.merge(lane);
        }
    }
    let elapsed = start.zip(end).map(|(start, end)| end - start).unwrap_or_default();
    Outcome { lanes: all, elapsed, own_cpu: after.saturating_sub(before) }
}

/// A runtime for one load thread.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn load_thread<W: Workload>(shared: &Arc<Shared<W>>, thread: usize) -> io::Result<Part> {
    let prepared = runtime().and_then(|runtime| {
        let local = LocalSet::new();
        let workers = runtime.block_on(local.run_until(prepare(shared, thread)))?;
        Ok((runtime, local, workers))
    });
    // All threads start together, and none waits for one that failed.
    shared.ready.wait();
    let (runtime, local, workers) = prepared?;
    runtime.block_on(local.run_until(drive(shared, workers, thread)))
}

type Ready<W> = Vec<(<W as Workload>::Worker, Conn)>;

/// Opens this thread's connections and makes its workers ready.
async fn prepare<W: Workload>(shared: &Shared<W>, thread: usize) -> io::Result<Ready<W>> {
    let plan = &shared.plan;
    let mut conns = Vec::new();
    for number in (thread..plan.conns.max(1)).step_by(shared.threads) {
        let target = number.checked_rem(plan.targets.len()).and_then(|place| plan.targets.get(place));
        let target = target.ok_or_else(|| io::Error::other("no endpoint"))?;
        conns.push(Conn::open(target).await.map_err(refused)?);
    }
    let mut workers = Vec::new();
    for id in 0..plan.clients {
        let number = id % plan.conns.max(1);
        let Some(conn) = conns.get(number / shared.threads).filter(|_| number % shared.threads == thread) else {
            continue;
        };
        let mut conn = conn.clone();
        let worker = shared.workload.prepare(id, &mut conn).await.map_err(refused)?;
        workers.push((worker, conn));
    }
    Ok(workers)
}

/// A failed call as an error of this process.
pub fn refused(failure: Failure) -> io::Error {
    io::Error::other(failure.to_string())
}

async fn drive<W: Workload>(shared: &Arc<Shared<W>>, workers: Ready<W>, thread: usize) -> io::Result<Part> {
    let plan = &shared.plan;
    let mut alarm = Alarm::precise()?;
    let (cpu_before, start) = (procs::own_cpu(), Instant::now());
    // Each thread's requests are due between those of the others.
    let offset = if let Pace::Open { rate } = plan.pace { thread as f64 / rate } else { 0.0 };
    let pacer = Rc::new(Pacer::new(plan.pace.shared_by(shared.threads), start + Duration::from_secs_f64(offset)));
    let record = Rc::new(Record::new(plan.sample, shared.workload.lanes()));
    let mut tasks = JoinSet::new();
    for (worker, conn) in workers {
        tasks.spawn_local(work(shared.clone(), worker, conn, pacer.clone(), record.clone()));
    }
    let deadline = plan.duration.map(|duration| start + duration);
    let answered = wait(&mut tasks, &pacer, &mut alarm, deadline).await;
    let end = Instant::now();
    let outstanding = tasks.len() as u64;
    tasks.shutdown().await;
    let mut lanes = record.lanes.take();
    if let Some(lane) = lanes.first_mut().filter(|_| !answered) {
        lane.fail_many("no answer when the run was over".to_owned(), outstanding);
        lane.fail_many("due, but not sent when the run was over".to_owned(), pacer.backlog());
    }
    Ok(Part { lanes, start, end, cpu_before, cpu_after: procs::own_cpu() })
}

/// Waits until all workers are done; false where some were not within the grace.
async fn wait(tasks: &mut JoinSet<()>, pacer: &Pacer, alarm: &mut Alarm, deadline: Option<Instant>) -> bool {
    let workers = async { while tasks.join_next().await.is_some() {} };
    let too_late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline + GRACE).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = pacer.tick(alarm, deadline) => false,
        () = workers => true,
        () = too_late => false,
    }
}

async fn work<W: Workload>(
    shared: Arc<Shared<W>>,
    mut worker: W::Worker,
    mut conn: Conn,
    pacer: Rc<Pacer>,
    record: Rc<Record>,
) {
    while let Some(from) = pacer.turn().await {
        let sequence = shared.issued.fetch_add(1, Ordering::Relaxed);
        if shared.plan.total.is_some_and(|total| sequence >= total) {
            shared.issued.fetch_sub(1, Ordering::Relaxed);
            pacer.close();
            return;
        }
        let (lane, result) = shared.workload.once(&mut worker, &mut conn, sequence).await;
        let broken = result.as_ref().is_err_and(Failure::is_transport);
        record.note(lane, from, result);
        if broken {
            return;
        }
    }
}

/// Where the workers of a thread write what they see.
struct Record {
    lanes: RefCell<Vec<Samples>>,
    sample: bool,
}

impl Record {
    fn new(sample: bool, lanes: usize) -> Record {
        Record { lanes: RefCell::new(vec![Samples::new(sample); lanes]), sample }
    }

    fn note(&self, lane: usize, from: Instant, result: Result<(), Failure>) {
        let took = from.elapsed();
        let mut lanes = self.lanes.borrow_mut();
        let Some(samples) = lanes.get_mut(lane) else {
            return;
        };
        match result {
            Ok(()) if self.sample => samples.add_at(|| unix_second(took), took),
            Ok(()) => samples.add(took),
            Err(failure) => samples.fail(failure.to_string()),
        }
    }
}

fn unix_second(ago: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(ago).as_secs()
}
