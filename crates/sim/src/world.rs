//! One member in a world that breaks: the shipping actors on a simulated disk and simulated time.
//!
//! The world draws what clients ask, when time passes, when a checkpoint's work completes, when watchers read, and
//! when the disk fails. After every crash the member must come back with every acknowledged change, a prefix of the
//! others in the order they were proposed, and nothing else; answers, events and HashKV must be the model's.

mod asks;
mod images;
mod reboot;
mod turn;

use crate::clocks::Clocks;
use crate::model::Model;
use crate::ops::Draw;
use crate::rng::Rng;
use crate::streams::{Streams, anybody};
use crate::verdict::Asked;
use asks::Call;
use disk::{Crash, Fault, SimDisk, SimOptions};
use images::{Image, Pin};
use server::member::{CheckpointDone, CheckpointJob};
use server::{Fatal, LogWriter, Member};
use std::collections::{BTreeMap, VecDeque};

const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;
const CLUSTER_ID: u64 = 0xcdf8_18e1_94e3_a8c4;
const TICK_MS: u64 = 100;
const COMPACTION_PAUSE_MS: u64 = 10;
const ELECTION_TICKS: u64 = 10;
/// How the member sees it: 5 s and two election timeouts.
const TIMEOUT_MS: u64 = 5000 + 2 * TICK_MS * ELECTION_TICKS;

/// What a run did: equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// FNV-1a over everything that happened.
    pub trace: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub crashes: u64,
    pub reads: u64,
    /// Watch events that clients checked.
    pub events: u64,
    /// Times that the hub's inbox was full.
    pub gaps: u64,
    /// Watchers that a compaction overtook.
    pub overtaken: u64,
    /// Leases that ran out.
    pub expired: u64,
    /// Database snapshots opened and compared.
    pub images: u64,
    pub defragmented: u64,
    /// Disk operations.
    pub operations: u64,
}

impl Report {
    pub fn add(&mut self, other: &Report) {
        self.trace ^= other.trace;
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.reads += other.reads;
        self.events += other.events;
        self.gaps += other.gaps;
        self.overtaken += other.overtaken;
        self.expired += other.expired;
        self.images += other.images;
        self.defragmented += other.defragmented;
        self.operations += other.operations;
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} operations acknowledged, {} refused, {} reads, {} crashes, {} watch events, {} gaps, {} watchers \
             overtaken by compactions, {} leases gone, {} snapshots compared, {} defragmentations, {} disk operations",
            self.acknowledged,
            self.refused,
            self.reads,
            self.crashes,
            self.events,
            self.gaps,
            self.overtaken,
            self.expired,
            self.images,
            self.defragmented,
            self.operations
        )
    }
}

/// What this seed's world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The disk fails and the process is killed at random.
    pub faults: bool,
    /// Bytes; 0 = none.
    quota: i64,
    lease_checkpoint: bool,
    streams: u64,
    /// TTL of leases, seconds.
    ttl: (u64, u64),
    /// Longest pause of the process and longest downtime, ms.
    pause_ms: u64,
    downtime_ms: u64,
    big_values: bool,
    snapshot_count: u64,
    checkpoint_bytes: usize,
    checkpoint_ms: u64,
    unwritten_bytes: usize,
    compaction_batch: usize,
}

impl Plan {
    /// Swarm: each seed has its own mix.
    fn draw(rng: &mut Rng) -> Plan {
        Plan {
            faults: true,
            quota: if rng.one_in(4) { 60_000 + rng.below(150_000) as i64 } else { 0 },
            lease_checkpoint: rng.one_in(2),
            streams: rng.below(5),
            ttl: [(1, 6), (2, 60), (500, 4000)][rng.below(3) as usize],
            pause_ms: [0, 3_000, 20_000, 900_000, 3 * 3_600_000][rng.below(5) as usize],
            downtime_ms: [0, 2_000, 60_000, 5 * 3_600_000][rng.below(4) as usize],
            big_values: rng.one_in(3),
            snapshot_count: 5 + rng.below(40),
            checkpoint_bytes: 1 << (10 + rng.below(6)),
            checkpoint_ms: 200 + rng.below(2000),
            unwritten_bytes: if rng.one_in(8) { 2048 << rng.below(4) } else { usize::MAX },
            compaction_batch: 1 + rng.below(8) as usize,
        }
    }
}

struct World {
    rng: Rng,
    plan: Plan,
    disk: SimDisk,
    /// A fault is armed: the member may die of it.
    armed: bool,
    /// A fault was armed since the member came up: it may have refused something.
    harmed: bool,
    /// The disk was filled up: the member may have refused what takes space.
    full: bool,
    /// In a sweep: the disk operation, counted from the beginning, at which the power goes.
    crash_at: Option<u64>,
    /// What every crash leaves; `None`: drawn.
    crash_mode: Option<Crash>,
    now_ms: u64,
    /// When the member last finished a turn.
    worked_ms: u64,
    member: Option<Member<u64>>,
    log: Option<LogWriter>,
    job: Option<Box<CheckpointJob>>,
    done: Option<CheckpointDone>,
    /// The state when the running job was made.
    frozen: Model,
    /// Everything acknowledged.
    model: Model,
    clocks: Clocks,
    /// Asked and not answered, in the order of asking, which is the order of the log.
    asked: VecDeque<Asked>,
    /// Everything else that waits for an answer.
    calls: BTreeMap<u64, Call>,
    streams: Option<Streams>,
    images: Vec<Image>,
    pins: Vec<Pin>,
    next_ticket: u64,
    report: Report,
    verbose: bool,
}

/// Runs one seed.
///
/// # Errors
/// What went wrong, for people.
pub fn run(seed: u64, steps: u64, verbose: bool) -> Result<Report, String> {
    let mut world = World::new(seed, verbose);
    world.start()?;
    world.live(steps)
}

/// Runs one seed without random faults and crashes at disk operation `at`, counted from the beginning; `None`: never.
/// Every crash of this life but the last leaves what `crash` says; the last loses everything that was not synced.
///
/// # Errors
/// What went wrong, for people.
pub fn run_with_crash(seed: u64, steps: u64, at: Option<u64>, crash: Crash, verbose: bool) -> Result<Report, String> {
    let mut world = World::new(seed, verbose);
    world.plan.faults = false;
    world.plan.streams = world.plan.streams.min(1);
    world.plan.big_values = false;
    world.crash_mode = Some(crash);
    world.crash_at = at;
    world.arm_sweep();
    world.start_crashing()?;
    world.live(steps)
}

impl World {
    fn new(seed: u64, verbose: bool) -> World {
        let mut rng = Rng::new(seed);
        let disk = SimDisk::new(SimOptions { seed: rng.draw(), capacity: u64::MAX });
        World {
            plan: Plan::draw(&mut rng),
            rng,
            disk,
            armed: false,
            harmed: false,
            full: false,
            crash_at: None,
            crash_mode: None,
            now_ms: 0,
            worked_ms: 0,
            member: None,
            log: None,
            job: None,
            done: None,
            frozen: Model::default(),
            model: Model::default(),
            clocks: Clocks::default(),
            asked: VecDeque::new(),
            calls: BTreeMap::new(),
            streams: None,
            images: Vec::new(),
            pins: Vec::new(),
            next_ticket: 1,
            report: Report { trace: 0xcbf2_9ce4_8422_2325, ..Report::default() },
            verbose,
        }
    }

    /// The whole life after the first start: steps, peace, a last crash, peace again.
    fn live(mut self, steps: u64) -> Result<Report, String> {
        for _ in 0..steps {
            self.step()?;
        }
        self.settle()?;
        self.crash(Crash::Lose)?;
        self.settle()?;
        if let Some(streams) = &self.streams {
            self.report.events = streams.delivered;
            self.report.gaps = streams.gaps;
            self.report.overtaken = streams.compacted;
        }
        self.report.operations = self.disk.operations();
        Ok(self.report)
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        let text = what();
        for byte in text.bytes() {
            self.report.trace = (self.report.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.verbose {
            println!("{:>8} ms  {:.400}", self.now_ms, text);
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(100) {
            0..=42 => self.ask(),
            43..=49 => self.ask_read(),
            50..=55 => self.ask_lease(),
            56..=58 => self.ask_maintenance(),
            59..=66 => self.pass(400),
            67 => self.pass(self.plan.pause_ms),
            68..=77 => self.advance_job(),
            78..=89 => self.watch(),
            90..=91 if self.plan.faults => self.break_disk(),
            92 if self.plan.faults => {
                let crash = self.draw_crash();
                self.crash(crash)
            }
            93..=94 => self.look_at_images(),
            _ => self.work(),
        }
    }

    fn pass(&mut self, most_ms: u64) -> Result<(), String> {
        self.now_ms += self.rng.below(most_ms + 1);
        self.work()
    }

    fn draw_crash(&mut self) -> Crash {
        self.crash_mode.unwrap_or_else(|| [Crash::Lose, Crash::Random, Crash::Keep][self.rng.below(3) as usize])
    }

    /// Arms a failure somewhere in the next disk operations; it shows as a fatal error in some later step.
    fn break_disk(&mut self) -> Result<(), String> {
        let after = self.rng.below(40);
        match self.rng.below(4) {
            0 => self.disk.inject(Fault::Sync { after }),
            1 => self.disk.inject(Fault::Write { after }),
            2 => {
                self.disk.inject(Fault::Full(after * 512));
                self.full = true;
            }
            _ => self.disk.crash_after(after),
        }
        (self.armed, self.harmed) = (true, true);
        self.say(|| format!("the disk will fail after {after} operations"));
        Ok(())
    }

    fn draw(&mut self) -> Draw<'_> {
        Draw {
            rng: &mut self.rng,
            model: &self.model,
            serial: self.next_ticket,
            member_id: MEMBER_ID,
            ttl: self.plan.ttl,
            big_values: self.plan.big_values,
            auth: false,
        }
    }

    /// The member's storage failed: it must have a reason.
    fn died(&mut self, e: &Fatal) -> Result<(), String> {
        if !self.armed && !self.disk.crashed() {
            return Err(format!("the member stopped without a fault: {e}"));
        }
        self.say(|| format!("the member stopped: {e}"));
        let crash = self.draw_crash();
        self.crash(crash)
    }

    /// The checkpointer runs its job, or brings it back.
    fn advance_job(&mut self) -> Result<(), String> {
        let outcome = match (self.done.take(), self.job.take(), &mut self.member) {
            (Some(done), _, Some(member)) => {
                let outcome = member.checkpointed(self.now_ms, done);
                self.say(|| "checkpoint".into());
                outcome
            }
            (None, Some(job), _) => job.run(&|_| ()).map(|done| self.done = Some(done)),
            _ => Ok(()),
        };
        match outcome {
            Ok(()) => self.work(),
            Err(e) => self.died(&e),
        }
    }

    /// The hub, its readers and its clients do something.
    fn watch(&mut self) -> Result<(), String> {
        let (what, now_ms) = (self.rng.below(6), self.now_ms);
        let n = 1 + self.rng.below(8) as usize;
        let serial = self.next_ticket;
        let Some(streams) = &mut self.streams else { return Ok(()) };
        match what {
            0..=1 => {
                let mut draw = Draw {
                    rng: &mut self.rng,
                    model: &self.model,
                    serial,
                    member_id: MEMBER_ID,
                    ttl: self.plan.ttl,
                    big_values: false,
                    auth: false,
                };
                streams.act(&mut draw, now_ms);
                streams.pump(n, now_ms, &anybody);
            }
            2 => streams.read(&mut self.rng, &self.model)?,
            3 => return self.read_history(),
            _ => streams.pump(n, now_ms, &anybody),
        }
        self.capture_prev();
        let (events, gaps) = self.streams.as_ref().map_or((0, 0), |s| (s.delivered, s.gaps));
        self.say(|| format!("watch: {events} events, {gaps} gaps"));
        Ok(())
    }

    /// A reader runs the hub's read on whatever is newest now.
    fn read_history(&mut self) -> Result<(), String> {
        let Some(job) = self.streams.as_mut().and_then(Streams::take_job) else { return Ok(()) };
        let Some(member) = &self.member else { return Err("no member".into()) };
        match job.run(&**member.applied()) {
            Ok(result) => {
                self.streams.as_mut().expect("it made the job").history(result);
                Ok(())
            }
            Err(e) => self.died(&Fatal::new(e.to_string())),
        }
    }

    fn capture_prev(&mut self) {
        if let (Some(streams), Some(member)) = (&mut self.streams, &mut self.member)
            && let Some(on) = streams.want_prev.take()
        {
            member.set_capture_prev(on);
        }
    }

    /// Whether a compaction has anything left to do: its next batch is due after the pause, which is shorter than a tick.
    fn compacting(&self) -> bool {
        self.member.as_ref().is_some_and(|m| m.next_tick_ms() <= self.now_ms + COMPACTION_PAUSE_MS)
    }

    /// Without faults everything asked is answered, watchers are owed nothing, and the state is the model's.
    fn settle(&mut self) -> Result<(), String> {
        // In a sweep the one crash may still be to come, here too.
        if self.plan.faults {
            self.disk.inject(Fault::Heal);
            self.armed = false;
        }
        for round in 0.. {
            let busy = self.compacting();
            self.now_ms += if busy { COMPACTION_PAUSE_MS } else { 230 };
            self.work()?;
            self.advance_job()?;
            self.look_at_images()?;
            self.read_history()?;
            let quiet = match &mut self.streams {
                Some(streams) => streams.drain(&self.model, self.now_ms, &anybody)?,
                None => true,
            };
            self.capture_prev();
            let answered = self.asked.is_empty() && self.calls.is_empty() && self.images.is_empty();
            if round >= 20 && !busy && quiet && answered && self.job.is_none() && self.done.is_none() {
                break;
            }
            if round > 4000 {
                let waiting = self.calls.values().next();
                return Err(format!("there is no peace; quiet: {quiet}, waiting: {waiting:?}"));
            }
        }
        self.full = false;
        if let Some(streams) = &self.streams {
            streams.check_nothing_owed(&self.model)?;
        }
        self.check_hash(true)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn equal_seeds_live_equal_lives() {
        for seed in 0..20 {
            let (first, second) = (super::run(seed, 300, false).unwrap(), super::run(seed, 300, false).unwrap());
            assert_eq!(first, second, "seed {seed}");
            assert!(first.acknowledged > 20, "{first}");
        }
    }
}
