//! What operators may choose (`server::member::Choices`), each seen by what it changes.

use api::pb::etcdserverpb as pb;
use disk::{SharedDisk, SimDisk, SimOptions};
use server::member::{
    Beginning, BootConfig, CheckpointJob, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES,
};
use server::{LogWriter, Member, Output, Request, Response};

const TICK_MS: u64 = 100;
/// More than are applied in one turn and than may wait for it, and fewer than may where revocations have priority.
const BACKLOG: usize = 9000;
/// … each of these: raft hands out some two megabytes at a time.
const BACKLOG_BYTES: usize = 700;
const LEASE: i64 = 77;

type Answer = Result<Response, api::Error>;

struct World {
    member: Member<&'static str>,
    log: LogWriter,
    now_ms: u64,
    answered: Vec<(&'static str, Answer)>,
    jobs: Vec<CheckpointJob>,
}

fn disk() -> SharedDisk {
    SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX }).shared()
}

fn boot(disk: SharedDisk, choices: Choices) -> BootConfig {
    let member = Config {
        name: "m1".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        tick_ms: TICK_MS,
        election_ticks: 10,
        pre_vote: true,
        seed: 1,
        snapshot_count: 100_000,
        catchup_entries: 10,
        release_entries: RELEASE_ENTRIES,
        release_delay_ms: RELEASE_DELAY_MS,
        max_snapshots: 2,
        max_wals: 2,
        max_request_bytes: 1 << 20,
        max_txn_ops: 128,
        quota_bytes: 0,
        auto_compaction: None,
        compaction_batch: 100_000,
        compaction_sleep_ms: 1,
        alone: true,
        strict_reconfig_check: true,
        lease_checkpoint: false,
        choices,
        checkpoint_bytes: usize::MAX,
        checkpoint_ms: u64::MAX / 2,
        unwritten_bytes: usize::MAX,
    };
    let founders = vec![Founder { id: 1, name: "m1".into(), peer_urls: vec!["http://127.0.0.1:2380".into()] }];
    BootConfig {
        disk,
        data_dir: "/data".into(),
        wal_dir: None,
        wal: wal::WalOptions::default(),
        store: store::Options::default(),
        member,
        initial: Ok(Beginning { cluster_id: 7, id: 1, founders }),
        force_new_cluster: None,
        now_ms: 0,
        wall_ms: 1_700_000_000_000,
    }
}

fn put(bytes: usize) -> Request {
    Request::Put(pb::PutRequest { key: "k".into(), value: vec![7; bytes].into(), ..Default::default() })
}

impl World {
    fn new(choices: Choices) -> World {
        World::on(disk(), choices)
    }

    fn on(disk: SharedDisk, choices: Choices) -> World {
        let (member, log, _) = Member::boot(boot(disk, choices)).unwrap();
        let mut world = World { member, log, now_ms: 0, answered: Vec::new(), jobs: Vec::new() };
        for _ in 0..100 {
            world.pass();
        }
        assert_eq!(world.member.leader(), 1);
        world
    }

    fn pass(&mut self) {
        self.now_ms += TICK_MS;
        self.member.tick(self.now_ms).unwrap();
        self.settle();
    }

    fn settle(&mut self) {
        self.member.turn_with(&mut self.log).unwrap();
        self.take();
    }

    fn take(&mut self) {
        let mut outputs = Vec::new();
        self.member.take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Reply { ticket, result } => self.answered.push((ticket, result)),
                Output::Checkpoint(job) => self.jobs.push(*job),
                _ => {}
            }
        }
    }

    fn ask(&mut self, ticket: &'static str, request: Request) {
        self.member.call(self.now_ms, ticket, request);
        self.settle();
    }

    fn answer(&mut self, ticket: &str) -> Option<Answer> {
        let at = self.answered.iter().position(|(of, _)| *of == ticket)?;
        Some(self.answered.remove(at).1)
    }

    /// Commits more than one turn applies, and stops right behind that turn.
    fn fall_behind(&mut self) {
        for _ in 0..BACKLOG {
            self.member.call(self.now_ms, "put", put(BACKLOG_BYTES));
        }
        self.member.turn().unwrap();
        for task in self.member.take_log_tasks() {
            self.log.take(task).unwrap();
        }
        let synced = self.log.sync().unwrap();
        self.member.logged(synced);
        self.member.turn().unwrap();
        self.take();
        self.answered.clear();
    }

    fn finish_jobs(&mut self) {
        while !self.jobs.is_empty() {
            let done = self.jobs.remove(0).run(&|_| ()).unwrap();
            self.member.checkpointed(self.now_ms, done).unwrap();
            self.settle();
        }
    }
}

/// A world with a lease, which is as far behind as that puts are refused.
fn overloaded(choices: Choices) -> World {
    let mut world = World::new(choices);
    world.ask("grant", Request::LeaseGrant(pb::LeaseGrantRequest { id: LEASE, ttl: 1000 }));
    assert!(matches!(world.answer("grant"), Some(Ok(_))));
    world.fall_behind();
    world.member.call(world.now_ms, "late put", put(1));
    world.take();
    assert_eq!(world.answer("late put"), Some(Err(api::Error::RequestTooManyRequests)), "it is behind");
    world
}

#[test]
fn revocations_have_priority_where_the_gate_says_so() {
    for priority_request in [false, true] {
        let mut world = overloaded(Choices { priority_request, ..Choices::default() });
        world.member.call(world.now_ms, "revoke", Request::LeaseRevoke(pb::LeaseRevokeRequest { id: LEASE }));
        world.take();
        let refused = world.answer("revoke");
        match priority_request {
            true => assert_eq!(refused, None, "it goes its way"),
            false => assert_eq!(refused, Some(Err(api::Error::RequestTooManyRequests))),
        }
    }
}

#[test]
fn keepalives_of_leases_that_are_known_do_not_wait_where_the_gate_says_so() {
    for fast_lease_keep_alive in [false, true] {
        let mut world = overloaded(Choices { fast_lease_keep_alive, ..Choices::default() });
        for (ticket, id) in [("known", LEASE), ("unknown", LEASE + 1)] {
            world.member.call(world.now_ms, ticket, Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }));
        }
        // One turn: what the entry behind which the question came has done is not applied yet.
        world.member.turn().unwrap();
        world.take();
        assert_eq!(world.answer("unknown"), None, "it may be about to be granted");
        assert_eq!(world.answer("known").is_some(), fast_lease_keep_alive);
        world.settle();
        while world.member.next_tick_ms() <= world.now_ms {
            world.settle();
        }
        let ttl = |answer| match answer {
            Some(Ok(Response::LeaseKeepAlive(r))) => Some(r.ttl),
            _ => None,
        };
        assert_eq!(ttl(world.answer("unknown")), Some(0));
        assert_eq!(ttl(world.answer("known")), (!fast_lease_keep_alive).then_some(1000));
    }
}

#[test]
fn a_checkpoint_starts_after_as_many_entries_as_were_asked_for() {
    for (checkpoint_entries, checkpoints) in [(None, 0), (Some(5), 4)] {
        let mut world = World::new(Choices { checkpoint_entries, ..Choices::default() });
        world.finish_jobs();
        let mut seen = 0;
        for _ in 0..20 {
            world.ask("put", put(1));
            seen += world.jobs.len();
            world.finish_jobs();
        }
        assert_eq!(seen, checkpoints);
    }
}

/// etcd looks every 30 s.
#[test]
fn as_many_snapshots_and_segments_stay_as_were_asked_for() {
    let disk = disk();
    let mut config = boot(disk.clone(), Choices::default());
    config.wal.segment_bytes = 16 << 10;
    config.member.snapshot_count = 10;
    (config.member.max_snapshots, config.member.max_wals) = (3, 4);
    let (member, log, _) = Member::boot(config).unwrap();
    let mut world = World { member, log, now_ms: 0, answered: Vec::new(), jobs: Vec::new() };
    let count = |folder: &str, end: &str| {
        let names = disk.read_dir(folder.as_ref()).unwrap().into_iter();
        names.filter(|name| name.ends_with(end)).count()
    };
    for round in 0..20 {
        for _ in 0..20 {
            world.ask("put", put(1000));
        }
        world.ask("snapshot", Request::Snapshot(pb::SnapshotRequest {}));
        world.finish_jobs();
        world.pass();
        assert!(world.member.leader() == 1 || round < 12);
    }
    let before = (count("/data/member/snap", ".snap"), count("/data/member/wal", ".wal"));
    assert!(before.0 > 3 && before.1 > 4, "{before:?}");
    for _ in 0..301 {
        world.pass();
        world.finish_jobs();
    }
    assert_eq!((count("/data/member/snap", ".snap"), count("/data/member/wal", ".wal")), (3, 4));
}

/// A directory whose page store holds three megabytes that nobody needs.
fn bloated() -> SharedDisk {
    let disk = disk();
    let mut world = World::on(disk.clone(), Choices::default());
    for _ in 0..30 {
        world.ask("put", put(100_000));
    }
    world.ask("defragment", Request::Defragment(pb::DefragmentRequest {}));
    world.finish_jobs();
    let revision = world.member.applied().revision();
    world.ask("compact", Request::Compact(pb::CompactionRequest { revision, physical: true }));
    for _ in 0..10 {
        world.pass();
        world.finish_jobs();
    }
    assert!(matches!(world.answer("compact"), Some(Ok(_))), "its deletions are in the page store");
    world.member.stop(world.log, &mut Vec::new()).unwrap();
    disk
}

#[test]
fn a_start_defragments_if_that_frees_as_much_as_was_asked_for() {
    let size_after = |least| {
        let mut world = World::on(bloated(), Choices { defragment_from: least, ..Choices::default() });
        world.ask("status", Request::Status(pb::StatusRequest {}));
        match world.answer("status") {
            Some(Ok(Response::Status(status))) => status.db_size,
            other => panic!("{other:?}"),
        }
    };
    let large = size_after(None);
    assert!(large > 3_000_000, "{large}");
    assert_eq!(size_after(Some(100 << 20)), large, "so much is not to be had");
    let small = size_after(Some(1 << 20));
    assert!(small < 500_000, "{small} of {large}");
}

/// The leader writes down every five minutes how long leases still live: the next start goes on from there.
#[test]
fn leases_live_as_long_as_was_written_down_where_the_gate_says_so() {
    for (lease_checkpoint, left) in [(false, 900..=1000), (true, 600..=720)] {
        let disk = disk();
        let boot = || {
            let mut config = boot(disk.clone(), Choices::default());
            config.member.lease_checkpoint = lease_checkpoint;
            let (member, log, _) = Member::boot(config).unwrap();
            World { member, log, now_ms: 0, answered: Vec::new(), jobs: Vec::new() }
        };
        let mut world = boot();
        (0..100).for_each(|_| world.pass());
        world.ask("grant", Request::LeaseGrant(pb::LeaseGrantRequest { id: LEASE, ttl: 1000 }));
        for _ in 0..3100 {
            world.pass();
            world.finish_jobs();
        }
        world.member.stop(world.log, &mut Vec::new()).unwrap();
        let mut world = boot();
        (0..100).for_each(|_| world.pass());
        world.ask("ttl", Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: LEASE, keys: false }));
        match world.answer("ttl") {
            Some(Ok(Response::LeaseTimeToLive(r))) => assert!(left.contains(&r.ttl), "{lease_checkpoint}: {}", r.ttl),
            other => panic!("{other:?}"),
        }
    }
}
