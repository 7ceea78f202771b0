//! A physical compaction is answered when its deletions are in the page store, not before.

use api::pb::etcdserverpb as pb;
use disk::{SharedDisk, SimDisk, SimOptions};
use server::member::{
    Beginning, BootConfig, CheckpointJob, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES,
};
use server::{LogWriter, Member, Output, Request, Response};

type Ticket = &'static str;

struct World {
    member: Member<Ticket>,
    log: LogWriter,
    now_ms: u64,
    jobs: Vec<CheckpointJob>,
    answered: Vec<(Ticket, Result<Response, api::Error>)>,
}

const BATCH: usize = 10;
const PAUSE_MS: u64 = 20_000;

fn boot(disk: SharedDisk) -> BootConfig {
    let member = Config {
        name: "m1".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
        tick_ms: 100,
        election_ticks: 10,
        pre_vote: true,
        seed: 1,
        snapshot_count: 10_000,
        catchup_entries: 10,
        release_entries: RELEASE_ENTRIES,
        release_delay_ms: RELEASE_DELAY_MS,
        max_snapshots: 2,
        max_wals: 2,
        max_request_bytes: 1 << 20,
        max_txn_ops: 128,
        quota_bytes: 0,
        auto_compaction: None,
        compaction_batch: BATCH,
        compaction_sleep_ms: PAUSE_MS,
        alone: true,
        strict_reconfig_check: true,
        lease_checkpoint: false,
        choices: Choices::default(),
        checkpoint_bytes: usize::MAX,
        checkpoint_ms: 5000,
        unwritten_bytes: usize::MAX,
    };
    BootConfig {
        disk,
        data_dir: "/data".into(),
        wal_dir: None,
        wal: wal::WalOptions { segment_bytes: 16 << 10, ..wal::WalOptions::default() },
        store: store::Options::default(),
        member,
        initial: Ok(Beginning {
            cluster_id: 1,
            id: 2,
            founders: vec![Founder { id: 2, name: "m1".into(), peer_urls: vec!["http://127.0.0.1:2380".into()] }],
        }),
        force_new_cluster: None,
        now_ms: 0,
        wall_ms: 1_700_000_000_000,
    }
}

impl World {
    fn new() -> World {
        let disk = SimDisk::new(SimOptions { seed: 0, capacity: u64::MAX }).shared();
        let (member, log, _) = Member::boot(boot(disk)).unwrap();
        let mut world = World { member, log, now_ms: 0, jobs: Vec::new(), answered: Vec::new() };
        while world.member.leader() == 0 {
            world.pass(100);
        }
        world.pass(100);
        world
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.member.tick(self.now_ms).unwrap();
        self.turn();
    }

    fn turn(&mut self) {
        self.member.turn_with(&mut self.log).unwrap();
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

    fn ask(&mut self, ticket: Ticket, request: Request) {
        self.member.call(self.now_ms, ticket, request);
        self.turn();
    }

    fn finish_job(&mut self) {
        let done = self.jobs.remove(0).run(&|_| ()).unwrap();
        self.member.checkpointed(self.now_ms, done).unwrap();
        self.turn();
    }
}

#[test]
fn a_checkpoint_begun_before_the_last_deletion_does_not_answer() {
    let mut world = World::new();
    for _ in 0..2 * BATCH {
        world.ask("put", Request::Put(pb::PutRequest { key: "k".into(), ..Default::default() }));
    }
    assert!(world.jobs.is_empty());
    // Periodic checkpoints come while the compaction pauses: one is on its way when it goes on.
    world.ask("compaction", Request::Compact(pb::CompactionRequest { revision: 12, physical: true }));
    while world.jobs.is_empty() {
        world.pass(100);
    }
    (0..3).for_each(|_| world.pass(PAUSE_MS));
    world.answered.clear();
    world.finish_job();
    assert!(world.answered.is_empty(), "the deletions are in memory only");
    assert_eq!(world.jobs.len(), 1, "… and go to the page store next");
    world.finish_job();
    assert!(matches!(world.answered[..], [("compaction", Ok(Response::Compact(_)))]));
}
