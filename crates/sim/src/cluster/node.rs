//! One machine: its disk, its clock, and the process on it, which is the shipping member and log writer.
//!
//! ```text
//! inbox ─► core: Member ──Effects──► (visible when the turn is over) ─► network, log, clients, watch hub
//!            ▲      ▲                        │ log tasks
//!            │      └── Logged ◄── log writer ◄┘   (takes at once, has synced when its time is over)
//!            └── Checkpointed ◄── checkpointer
//! ```
//! A crash discards what is not visible yet: turns, syncs and checkpoints that are under way.

use super::images::Sending;
use super::plan::Plan;
use super::shadow::Shadow;
use crate::model::MIN_LEASE_TTL;
use crate::rng::Rng;
use crate::streams::Streams;
use api::raft::Message;
use disk::{SimDisk, SimOptions};
use server::member::{Beginning, BootConfig, CheckpointDone, CheckpointJob, Choices, Config, Founder, JobKind};
use server::{Fatal, LogTask, LogWriter, Logged, Member, Output, Request, Who};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use store::Applied;

pub const TICK_MS: u64 = 100;
pub const ELECTION_TICKS: u64 = 10;
pub const CLUSTER_ID: u64 = 0xcdf8_18e1_94e3_a8c4;
const COMPACTION_PAUSE_MS: u64 = 10;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticket {
    Client(u64),
    /// A member asked on behalf of its client.
    Forwarded {
        from: u64,
        life: u64,
        id: u64,
    },
}

/// What a member hears.
#[derive(Debug)]
pub enum Input {
    Call(Ticket, Who, Request),
    Raft(Message),
    Unreachable(u64),
    Snapshot { to: u64, arrived: bool },
    Checkpointed(Box<CheckpointDone>),
    Logged(Logged),
    Versions(BTreeMap<u64, Option<String>>),
}

/// What a turn brought forth; not visible to anybody before it is over.
#[derive(Debug)]
pub struct Effects {
    pub messages: Vec<Message>,
    pub tasks: Vec<LogTask>,
    pub outputs: Vec<Output<Ticket>>,
}

/// A running member.
pub struct Process {
    pub member: Member<Ticket>,
    pub log: LogWriter,
    pub inbox: VecDeque<Input>,
    /// A turn is under way.
    pub busy: bool,
    /// Given to the log's writer, which is busy.
    pub queued: Vec<LogTask>,
    pub writing: bool,
    pub job: Option<Box<CheckpointJob>>,
    /// Of the job that is under way.
    pub job_kind: Option<JobKind>,
    /// Snapshots on their way to users.
    pub images: Vec<Sending>,
    /// The newest published state.
    pub visible: Arc<Applied>,
    /// When the core looks again.
    pub wake_us: Option<u64>,
    pub started_us: u64,
}

/// A machine.
pub struct Node {
    pub id: u64,
    pub disk: SimDisk,
    founders: Vec<Founder>,
    /// The clock's rate, parts in a million more than that of the world's.
    drift_ppm: i64,
    /// What it jumped, all together.
    pub jumped_ms: u64,
    pub process: Option<Process>,
    /// Counts processes: what was meant for an older one is nothing to a newer.
    pub life: u64,
    /// Stands still until then.
    pub paused_until_us: u64,
    /// Syncs take so much longer until then.
    pub slow: (u64, u64),
    /// A disk fault is armed.
    pub armed: bool,
    /// Bytes of its files are not what was written.
    pub rotten: bool,
    pub shadow: Shadow,
    /// The page store holds what entries up to here did, whatever happens; and up to where it will when the job is done.
    pub checkpointed: u64,
    pub checkpointing: u64,
    pub streams: Option<Streams>,
    /// A database came, and is not installed yet.
    pub received: bool,
    /// The last job that was done, and when the last database was installed.
    pub last_job: Option<(JobKind, u64)>,
    pub installed_us: Option<u64>,
}

pub fn peer_url(id: u64) -> String {
    format!("http://10.0.{}.{}:2380", id >> 8 & 0xff, id & 0xff)
}

pub fn founder(id: u64) -> Founder {
    Founder { id, name: format!("m{id}"), peer_urls: vec![peer_url(id)] }
}

impl Node {
    pub fn new(id: u64, founders: Vec<Founder>, rng: &mut Rng, plan: &Plan) -> Node {
        let drift = plan.drift_ppm as i64;
        Node {
            id,
            disk: SimDisk::new(SimOptions { seed: rng.draw(), capacity: u64::MAX }),
            founders,
            drift_ppm: rng.below(2 * plan.drift_ppm + 1) as i64 - drift,
            jumped_ms: 0,
            process: None,
            life: 0,
            paused_until_us: 0,
            slow: (0, 0),
            armed: false,
            rotten: false,
            shadow: Shadow::default(),
            checkpointed: 0,
            checkpointing: 0,
            streams: None,
            received: false,
            last_job: None,
            installed_us: None,
        }
    }

    /// The machine's own clock, ms.
    pub fn clock_ms(&self, now_us: u64) -> u64 {
        let off = now_us as i64 / 1_000_000 * self.drift_ppm;
        (now_us as i64 + off) as u64 / 1000 + self.jumped_ms
    }

    /// When the world's clock shows what is `at_ms` on this machine's, at the earliest.
    pub fn world_us(&self, at_ms: u64, now_us: u64) -> u64 {
        at_ms.saturating_sub(self.clock_ms(now_us)) * 1000
    }

    /// Starts the process on whatever the disk holds.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(&mut self, now_us: u64, rng: &mut Rng, plan: &Plan) -> Result<Effects, Fatal> {
        let config = self.boot_config(now_us, rng, plan);
        let (mut member, log, _warnings) = Member::boot(config)?;
        let mut effects = effects(&mut member);
        // It begins with all of it: nobody sees what was in between.
        effects.outputs.retain(|output| !matches!(output, Output::Published { .. }));
        let visible = member.applied().clone();
        self.life += 1;
        self.process = Some(Process {
            member,
            log,
            inbox: VecDeque::new(),
            busy: false,
            queued: Vec::new(),
            writing: false,
            job: None,
            job_kind: None,
            images: Vec::new(),
            visible,
            wake_us: None,
            started_us: now_us,
        });
        Ok(effects)
    }

    /// What the process found in its log.
    pub fn found(&self) -> Shadow {
        let Some(process) = &self.process else { return Shadow::default() };
        let storage = process.member.raft().storage();
        let (first, last) = (storage.first_index(), storage.last_index());
        Shadow::found(first - 1, storage.entries(first, last + 1, u64::MAX))
    }

    fn boot_config(&self, now_us: u64, rng: &mut Rng, plan: &Plan) -> BootConfig {
        let now_ms = self.clock_ms(now_us);
        let off_ms = if plan.time_of_day_off_ms > 0 { rng.below(plan.time_of_day_off_ms) } else { 0 };
        BootConfig {
            disk: self.disk.shared(),
            data_dir: "/data".into(),
            wal_dir: None,
            wal: wal::WalOptions { segment_bytes: 16 << 10, ..wal::WalOptions::default() },
            store: store_options(plan),
            member: self.member_config(rng, plan),
            initial: Ok(Beginning { cluster_id: CLUSTER_ID, id: self.id, founders: self.founders.clone() }),
            force_new_cluster: None,
            now_ms,
            wall_ms: 1_700_000_000_000 + now_ms + off_ms - plan.time_of_day_off_ms / 2,
        }
    }

    fn member_config(&self, rng: &mut Rng, plan: &Plan) -> Config {
        Config {
            name: format!("m{:x}", self.id),
            client_urls: vec![format!("http://10.0.0.{}:2379", self.id & 0xff)],
            tick_ms: TICK_MS,
            election_ticks: ELECTION_TICKS,
            pre_vote: plan.pre_vote,
            seed: rng.draw(),
            snapshot_count: plan.snapshot_count,
            catchup_entries: plan.catchup_entries,
            release_entries: plan.release_entries,
            release_delay_ms: plan.release_delay_ms,
            max_snapshots: 2,
            max_wals: 2,
            max_request_bytes: 1 << 20,
            max_txn_ops: 128,
            quota_bytes: plan.quota,
            auto_compaction: None,
            compaction_batch: plan.compaction_batch,
            compaction_sleep_ms: COMPACTION_PAUSE_MS,
            alone: false,
            strict_reconfig_check: true,
            lease_checkpoint: plan.lease_checkpoint,
            choices: Choices::default(),
            checkpoint_bytes: plan.checkpoint_bytes,
            checkpoint_ms: plan.checkpoint_ms,
            unwritten_bytes: plan.unwritten_bytes,
        }
    }
}

pub fn store_options(plan: &Plan) -> store::Options {
    store::Options {
        cache_bytes: 256 << 10,
        page_size: Some(4096),
        quota_bytes: plan.quota,
        min_lease_ttl: MIN_LEASE_TTL,
        max_learners: 1,
        ..store::Options::default()
    }
}

fn effects(member: &mut Member<Ticket>) -> Effects {
    let mut outputs = Vec::new();
    member.take_outputs(&mut outputs);
    Effects { messages: member.take_messages(), tasks: member.take_log_tasks(), outputs }
}

impl Process {
    /// Takes everything that came, and works until it has to wait for others.
    ///
    /// # Errors
    /// The disk failed, or state is corrupt.
    pub fn turn(&mut self, now_ms: u64, active: BTreeMap<u64, u64>) -> Result<Effects, Fatal> {
        self.member.set_active(active);
        for input in std::mem::take(&mut self.inbox) {
            self.hear(now_ms, input)?;
        }
        self.member.tick(now_ms)?;
        self.member.turn()?;
        Ok(effects(&mut self.member))
    }

    fn hear(&mut self, now_ms: u64, input: Input) -> Result<(), Fatal> {
        let member = &mut self.member;
        match input {
            Input::Call(ticket, who, request) => member.call_as(now_ms, ticket, &who, request),
            Input::Raft(message) => member.receive(message),
            Input::Unreachable(peer) => member.report_unreachable(peer),
            Input::Snapshot { to, arrived } => member.report_snapshot(to, arrived),
            Input::Checkpointed(done) => return member.checkpointed(now_ms, *done),
            Input::Logged(done) => member.logged(done),
            Input::Versions(versions) => member.peer_versions(&versions),
        }
        Ok(())
    }
}
