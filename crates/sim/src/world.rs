//! One member in a world that breaks: the shipping actors on a simulated disk and simulated time.
//!
//! The world draws what clients ask, when time passes, when a checkpoint's work completes, and when the disk fails.
//! After every crash the member must come back with every acknowledged change, a prefix of the others in the order
//! they were proposed, and nothing else; the answers must be the model's; HashKV must be the model's bit for bit.

use crate::model::{Model, Op};
use crate::rng::Rng;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use disk::{Crash, Fault, SimDisk, SimOptions};
use server::member::{BootConfig, CheckpointJob, Config, InitialMember};
use server::{Fatal, Member, Output, Request, Response, read};
use std::collections::VecDeque;

const MEMBER_ID: u64 = 0x8e9e_05c5_2164_694d;
const CLUSTER_ID: u64 = 0xcdf8_18e1_94e3_a8c4;

/// What a run did: equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// FNV-1a over everything that happened.
    pub trace: u64,
    pub acknowledged: u64,
    pub refused: u64,
    pub crashes: u64,
    pub reads: u64,
}

/// An operation on its way: asked, not answered.
struct Asked {
    ticket: u64,
    op: Op,
}

struct World {
    rng: Rng,
    disk: SimDisk,
    now_ms: u64,
    member: Option<Member<u64>>,
    job: Option<Box<CheckpointJob>>,
    /// Everything acknowledged.
    model: Model,
    /// Asked and not answered, in the order of asking, which is the order of the log.
    asked: VecDeque<Asked>,
    reads: Vec<(u64, Vec<pb::RangeResponse>)>,
    next_ticket: u64,
    report: Report,
    verbose: bool,
}

/// Runs one seed.
///
/// # Errors
/// What went wrong, for people.
pub fn run(seed: u64, steps: u64, verbose: bool) -> Result<Report, String> {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(SimOptions { seed: rng.draw(), capacity: u64::MAX });
    let mut world = World {
        rng,
        disk,
        now_ms: 0,
        member: None,
        job: None,
        model: Model::default(),
        asked: VecDeque::new(),
        reads: Vec::new(),
        next_ticket: 1,
        report: Report { trace: 0xcbf2_9ce4_8422_2325, ..Report::default() },
        verbose,
    };
    world.reboot(Crash::Keep)?;
    for _ in 0..steps {
        world.step()?;
    }
    world.settle()?;
    world.crash(Crash::Lose)?;
    world.settle()?;
    Ok(world.report)
}

impl World {
    fn say(&mut self, what: impl FnOnce() -> String) {
        let text = what();
        for byte in text.bytes() {
            self.report.trace = (self.report.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.verbose {
            println!("{:>8} ms  {text}", self.now_ms);
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(100) {
            0..=59 => self.ask(),
            60..=69 => self.ask_read(),
            70..=84 => {
                self.now_ms += self.rng.below(400);
                self.work()
            }
            85..=91 => self.finish_job(),
            92..=93 => self.break_disk(),
            94 => {
                let crash = self.draw_crash();
                self.crash(crash)
            }
            _ => self.work(),
        }
    }

    fn draw_crash(&mut self) -> Crash {
        match self.rng.below(3) {
            0 => Crash::Lose,
            1 => Crash::Random,
            _ => Crash::Keep,
        }
    }

    /// Arms a failure somewhere in the next disk operations; it shows as a fatal error in some later step.
    fn break_disk(&mut self) -> Result<(), String> {
        let after = self.rng.below(40);
        match self.rng.below(4) {
            0 => self.disk.inject(Fault::Sync { after }),
            1 => self.disk.inject(Fault::Write { after }),
            2 => self.disk.inject(Fault::Full(after * 512)),
            _ => self.disk.crash_after(after),
        }
        self.say(|| format!("the disk will fail after {after} operations"));
        Ok(())
    }

    fn ask(&mut self) -> Result<(), String> {
        let op = self.draw_op();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.say(|| format!("ask {ticket}: {op:?}"));
        let request = request(&op);
        let now = self.now_ms;
        let Some(member) = &mut self.member else { return Err("no member".into()) };
        member.call(now, ticket, request);
        self.asked.push_back(Asked { ticket, op });
        if self.rng.one_in(3) { self.work() } else { Ok(()) }
    }

    fn draw_key(&mut self) -> Bytes {
        Bytes::from(format!("k{:02}", self.rng.below(12)))
    }

    fn draw_op(&mut self) -> Op {
        let key = self.draw_key();
        let size = if self.rng.one_in(20) { 6000 } else { 1 + self.rng.below(40) };
        let value = Bytes::from(vec![b'a' + self.rng.below(26) as u8; size as usize]);
        match self.rng.below(20) {
            0..=9 => {
                let lease = if self.rng.one_in(4) { 1 + self.rng.below(4) as i64 } else { 0 };
                Op::Put { key, value, lease }
            }
            10..=12 => Op::Delete { key, end: if self.rng.one_in(2) { Bytes::new() } else { self.draw_key() } },
            13..=15 => {
                let other = Bytes::from(format!("o{}", self.rng.below(4)));
                Op::Txn { key, version: self.rng.below(3) as i64, value, other }
            }
            16 => Op::Grant { id: 1 + self.rng.below(4) as i64, ttl: 1_000_000 },
            17 => Op::Revoke { id: 1 + self.rng.below(4) as i64 },
            _ => {
                let back = self.rng.below(10) as i64;
                Op::Compact { revision: (self.model.revision - back).max(1) }
            }
        }
    }

    fn ask_read(&mut self) -> Result<(), String> {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        // Everything acknowledged before the read was asked must be seen, and any prefix of what is on its way may.
        let mut allowed = Vec::new();
        let mut model = self.model.clone();
        allowed.push(all_keys(&model));
        for asked in &self.asked {
            if model.apply(&asked.op).is_ok() {
                allowed.push(all_keys(&model));
            }
        }
        self.reads.push((ticket, allowed));
        let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..pb::RangeRequest::default() };
        let now = self.now_ms;
        let Some(member) = &mut self.member else { return Err("no member".into()) };
        member.call(now, ticket, Request::Range(range));
        self.work()
    }

    /// Lets the member work and checks what comes out. A fatal error is a crash of the process.
    fn work(&mut self) -> Result<(), String> {
        let now = self.now_ms;
        let Some(member) = &mut self.member else { return Err("no member".into()) };
        match member.tick(now).and_then(|()| member.turn()) {
            Ok(()) => self.take_outputs(),
            Err(e) => self.died(&e),
        }
    }

    fn died(&mut self, e: &Fatal) -> Result<(), String> {
        self.say(|| format!("the member stopped: {e}"));
        let crash = self.draw_crash();
        self.crash(crash)
    }

    fn take_outputs(&mut self) -> Result<(), String> {
        let mut outputs = Vec::new();
        if let Some(member) = &mut self.member {
            member.take_outputs(&mut outputs);
        }
        for output in outputs {
            match output {
                Output::Reply { ticket, result } => self.check_reply(ticket, result)?,
                Output::Read { ticket, request } => self.check_read(ticket, request)?,
                Output::Checkpoint(job) => self.job = Some(job),
                Output::Note(text) => self.say(|| text),
                Output::Published { .. } | Output::Snapshot { .. } | Output::Serving => {}
            }
        }
        Ok(())
    }

    fn check_reply(&mut self, ticket: u64, result: Result<Response, api::Error>) -> Result<(), String> {
        let Some(asked) = self.asked.pop_front() else { return Err(format!("an answer to nobody: {ticket}")) };
        if asked.ticket != ticket {
            return Err(format!("{ticket} answered before {} ({:?})", asked.ticket, asked.op));
        }
        let expected = self.model.apply(&asked.op);
        self.say(|| format!("answer {ticket}: {:?}", result.as_ref().map(|_| ())));
        match (&result, &expected) {
            (Ok(_), Ok(())) => self.report.acknowledged += 1,
            (Err(a), Err(b)) if a == b => self.report.refused += 1,
            _ => return Err(format!("{:?} answered {result:?}, the model says {expected:?}", asked.op)),
        }
        let revision = result.ok().and_then(|r| header_revision(&r));
        match revision {
            Some(revision) if revision != self.model.revision => {
                Err(format!("{:?} answered revision {revision}, the model is at {}", asked.op, self.model.revision))
            }
            _ => Ok(()),
        }
    }

    fn check_read(&mut self, ticket: u64, request: Request) -> Result<(), String> {
        let Some(member) = &self.member else { return Err("no member".into()) };
        let response = match read::run(member.applied(), request) {
            Ok(Response::Range(mut r)) => {
                r.header = None;
                r
            }
            other => return Err(format!("read {ticket}: {other:?}")),
        };
        let at = self.reads.iter().position(|(t, _)| *t == ticket).ok_or("a read nobody asked")?;
        let (_, allowed) = self.reads.swap_remove(at);
        self.report.reads += 1;
        match allowed.contains(&response) {
            true => Ok(()),
            false => Err(format!("read {ticket} saw {response:?}, which was never the state while it was under way")),
        }
    }

    fn finish_job(&mut self) -> Result<(), String> {
        let Some(job) = self.job.take() else { return self.work() };
        let now = self.now_ms;
        let outcome = job.run(&mut |_| {}).and_then(|done| match &mut self.member {
            Some(member) => member.checkpointed(now, done),
            None => Ok(()),
        });
        match outcome {
            Ok(()) => {
                self.say(|| "checkpoint".into());
                self.work()
            }
            Err(e) => self.died(&e),
        }
    }

    fn crash(&mut self, crash: Crash) -> Result<(), String> {
        self.report.crashes += 1;
        self.say(|| format!("crash {crash:?}"));
        self.member = None;
        self.job = None;
        self.reads.clear();
        self.disk.crash_now();
        self.reboot(crash)?;
        self.reconcile()
    }

    fn reboot(&mut self, crash: Crash) -> Result<(), String> {
        self.disk.reboot(crash);
        self.disk.inject(Fault::Heal);
        let boot = self.boot_config();
        let (member, _warnings) = Member::boot(boot).map_err(|e| format!("the member does not come back: {e}"))?;
        self.member = Some(member);
        self.now_ms += 1;
        self.work()
    }

    /// After a crash: the state is everything acknowledged and some prefix of what was on its way.
    fn reconcile(&mut self) -> Result<(), String> {
        let member = self.member.as_ref().ok_or("no member")?;
        let applied = member.applied().clone();
        let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..pb::RangeRequest::default() };
        let mut seen = applied.range(&range).map_err(|e| e.to_string())?;
        seen.header = None;
        let leases = applied.leases().map(|(id, _)| id).collect();
        let mut model = self.model.clone();
        let mut asked = std::mem::take(&mut self.asked).into_iter();
        loop {
            let same = model.revision == applied.revision()
                && model.compacted == applied.compact_revision()
                && all_keys(&model) == seen
                && model.leases() == leases;
            if same {
                break;
            }
            let Some(next) = asked.next() else {
                return Err(format!(
                    "after the crash the member is at revision {} (compacted {}), which no prefix of what was asked \
                     explains; acknowledged: {} (compacted {})",
                    applied.revision(),
                    applied.compact_revision(),
                    self.model.revision,
                    self.model.compacted
                ));
            };
            // A refused operation changes nothing and may have been in the log or not.
            let _refused = model.apply(&next.op);
        }
        self.model = model;
        // As in Go, HashKV ignores its keep set when nothing lives, and then sees what a compaction has not deleted yet:
        // only once it is done is the hash defined by the state. `settle` looks then.
        if self.model.live().is_empty() { Ok(()) } else { self.check_hash() }
    }

    fn check_hash(&mut self) -> Result<(), String> {
        let member = self.member.as_ref().ok_or("no member")?;
        let hash = member.applied().hash_kv(0).map_err(|e| e.to_string())?.hash;
        let expected = self.model.hash_kv();
        self.say(|| format!("hash {hash:08x}"));
        match hash == expected {
            true => Ok(()),
            false => Err(format!("HashKV is {hash:08x}, the model says {expected:08x}")),
        }
    }

    /// Without faults everything asked is answered and the state is the model's.
    fn settle(&mut self) -> Result<(), String> {
        self.disk.inject(Fault::Heal);
        for _ in 0..20 {
            self.now_ms += 200;
            self.work()?;
            self.finish_job()?;
        }
        if !self.asked.is_empty() || !self.reads.is_empty() {
            return Err(format!("{} operations and {} reads are never answered", self.asked.len(), self.reads.len()));
        }
        let member = self.member.as_ref().ok_or("no member")?;
        let range = pb::RangeRequest { key: "a".into(), range_end: "z".into(), ..pb::RangeRequest::default() };
        let mut seen = member.applied().range(&range).map_err(|e| e.to_string())?;
        seen.header = None;
        if seen != all_keys(&self.model) {
            return Err("the state at the end is not the model's".into());
        }
        self.check_hash()
    }

    fn boot_config(&mut self) -> BootConfig {
        let store = store::Options {
            cache_bytes: 256 << 10,
            page_size: Some(4096),
            quota_bytes: 0,
            min_lease_ttl: 2,
            ..store::Options::default()
        };
        let member = Config {
            name: "m1".into(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
            tick_ms: 100,
            election_ticks: 10,
            seed: self.rng.draw(),
            snapshot_count: 20,
            catchup_entries: 10,
            max_snapshots: 2,
            max_wals: 2,
            max_request_bytes: 1 << 20,
            max_txn_ops: 128,
            quota_bytes: 0,
            auto_compaction: None,
            compaction_batch: 3,
            compaction_sleep_ms: 10,
            lease_checkpoint: false,
            checkpoint_bytes: 4 << 10,
            checkpoint_ms: 700,
        };
        BootConfig {
            disk: self.disk.shared(),
            data_dir: "/data".into(),
            wal_dir: None,
            wal: wal::WalOptions { segment_bytes: 16 << 10, ..wal::WalOptions::default() },
            store,
            member,
            initial: InitialMember {
                id: MEMBER_ID,
                name: "m1".into(),
                peer_urls: vec!["http://127.0.0.1:2380".into()],
            },
            cluster_id: CLUSTER_ID,
            now_ms: self.now_ms,
            wall_ms: 1_700_000_000_000 + self.now_ms,
        }
    }
}

fn all_keys(model: &Model) -> pb::RangeResponse {
    let kvs = model.live();
    pb::RangeResponse { header: None, count: kvs.len() as i64, kvs, more: false }
}

fn header_revision(response: &Response) -> Option<i64> {
    let header = match response {
        Response::Put(r) => &r.header,
        Response::DeleteRange(r) => &r.header,
        Response::Txn(r) => &r.header,
        Response::Compact(r) => &r.header,
        _ => return None,
    };
    header.as_ref().map(|h| h.revision)
}

fn request(op: &Op) -> Request {
    match op.clone() {
        Op::Put { key, value, lease } => {
            Request::Put(pb::PutRequest { key, value, lease, ..pb::PutRequest::default() })
        }
        Op::Delete { key, end } => Request::DeleteRange(pb::DeleteRangeRequest { key, range_end: end, prev_kv: false }),
        Op::Txn { key, version, value, other } => Request::Txn(txn(key, version, value, other)),
        Op::Grant { id, ttl } => Request::LeaseGrant(pb::LeaseGrantRequest { ttl, id }),
        Op::Revoke { id } => Request::LeaseRevoke(pb::LeaseRevokeRequest { id }),
        Op::Compact { revision } => Request::Compact(pb::CompactionRequest { revision, physical: false }),
    }
}

fn txn(key: Bytes, version: i64, value: Bytes, other: Bytes) -> pb::TxnRequest {
    use pb::compare::{CompareResult, CompareTarget, TargetUnion};
    use pb::request_op::Request as Op;
    let compare = pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Version(version)),
        range_end: Bytes::new(),
    };
    let op = |op| pb::RequestOp { request: Some(op) };
    let put = |key: &Bytes| {
        Op::RequestPut(pb::PutRequest { key: key.clone(), value: value.clone(), ..pb::PutRequest::default() })
    };
    let delete = Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.clone(), ..Default::default() });
    pb::TxnRequest { compare: vec![compare], success: vec![op(put(&key)), op(put(&other))], failure: vec![op(delete)] }
}
