//! Directories that a crash or an operator left: how a member comes up on them.

use api::pb::etcdserverpb as pb;
use api::raft::{ConfChange, ConfChangeKind, Message, MessageType};
use disk::{Crash, SimDisk, SimOptions};
use server::member::{Beginning, BootConfig, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES};
use server::{LogWriter, Member, Output, Request};

fn config() -> Config {
    Config {
        name: "m1".into(),
        client_urls: vec!["http://10.0.0.1:2379".into()],
        tick_ms: 100,
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
        compaction_batch: 100,
        compaction_sleep_ms: 10,
        alone: false,
        strict_reconfig_check: true,
        lease_checkpoint: false,
        choices: Choices::default(),
        checkpoint_bytes: 1 << 20,
        checkpoint_ms: 5000,
        unwritten_bytes: usize::MAX,
    }
}

fn boot(disk: &SimDisk, initial: Beginning, force: bool) -> (Member<u32>, LogWriter) {
    let boot = BootConfig {
        disk: disk.shared(),
        data_dir: "/data".into(),
        wal_dir: None,
        wal: wal::WalOptions { segment_bytes: 64 << 10, ..wal::WalOptions::default() },
        store: store::Options::default(),
        member: config(),
        initial: Ok(initial),
        force_new_cluster: force.then(|| vec!["http://10.0.0.1:2380".into()]),
        now_ms: 0,
        wall_ms: 1_700_000_000_000,
    };
    let (member, log, _) = Member::boot(boot).unwrap();
    (member, log)
}

fn crash(disk: &SimDisk) {
    disk.crash_now();
    disk.reboot(Crash::Lose);
}

fn disk() -> SimDisk {
    SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX })
}

fn founders(ids: &[u64]) -> Beginning {
    let founder =
        |id: &u64| Founder { id: *id, name: format!("m{id}"), peer_urls: vec![format!("http://10.0.0.{id}:1")] };
    Beginning { cluster_id: 7, id: 1, founders: ids.iter().map(founder).collect() }
}

#[test]
fn who_joined_and_received_nothing_comes_up_without_being_told_again() {
    let disk = disk();
    let (member, _log) = boot(&disk, Beginning { cluster_id: 7, id: 5, founders: Vec::new() }, false);
    assert_eq!(member.identity(), (5, 7));
    drop(member);
    crash(&disk);
    let (member, _log) = boot(&disk, Beginning::default(), false);
    assert_eq!((member.identity(), member.leader()), ((5, 7), 0));
}

#[test]
fn a_founder_goes_on_alone_in_its_own_name_and_after_any_crash() {
    let disk = disk();
    drop(boot(&disk, founders(&[1, 2, 3]), false));
    for force in [true, true, false] {
        crash(&disk);
        let (member, _log) = boot(&disk, founders(&[1, 2, 3]), force);
        let members: Vec<u64> = member.applied().members().iter().map(|m| m.id).collect();
        assert_eq!((member.identity(), member.leader(), members), ((1, 7), 1, vec![1]), "force {force}");
        assert!(member.applied().is_removed(2) && member.applied().is_removed(3));
    }
}

/// What a leader had sent may have been acknowledged, though this log does not know that it was committed.
#[test]
fn entries_that_are_not_known_to_be_committed_are_kept() {
    let disk = disk();
    let (mut member, mut log) = boot(&disk, founders(&[1, 2]), false);
    let context = store::member_json(9, &["http://10.0.0.9:1".into()], "m9");
    let change = ConfChange { id: 0, kind: ConfChangeKind::AddNode, node_id: 9, context: context.into() };
    let entry =
        api::raft::Entry { term: 2, index: 3, kind: api::raft::EntryKind::ConfChange, data: change.encode().into() };
    let append = Message {
        kind: MessageType::MsgApp,
        from: 2,
        to: 1,
        term: 2,
        log_term: 1,
        index: 2,
        commit: 2,
        entries: vec![entry],
        ..Message::default()
    };
    member.receive(append);
    member.turn_with(&mut log).unwrap();
    drop((member, log));
    crash(&disk);
    let (member, _log) = boot(&disk, founders(&[1, 2]), true);
    let members: Vec<u64> = member.applied().members().iter().map(|m| m.id).collect();
    assert_eq!((member.leader(), members), (1, vec![1]));
    assert!(member.applied().is_removed(9), "it was one, before all others were removed");
}

/// The page store is a checkpoint that may be ahead of the newest `.snap`: what lies between is handed out again,
/// some four thousand of these entries a turn. A start that left some of it for later lost it to the log's release, and the member ended.
#[test]
fn a_start_with_a_long_log_replays_it_whatever_ticks_meanwhile() {
    let disk = disk();
    let (mut member, mut log) = boot(&disk, founders(&[1]), false);
    let mut now_ms = 0;
    let mut pass = |member: &mut Member<u32>, log: &mut LogWriter| {
        now_ms += 100;
        member.tick(now_ms).unwrap();
        member.turn_with(log).unwrap();
        now_ms
    };
    let mut outputs = Vec::new();
    let put = pb::PutRequest { key: "k".into(), value: vec![7; 500].into(), ..Default::default() };
    for round in 0..400 {
        let now_ms = pass(&mut member, &mut log);
        (0..100).for_each(|n| member.call(now_ms, round * 100 + n, Request::Put(put.clone())));
        member.turn_with(&mut log).unwrap();
        member.take_outputs(&mut outputs);
        // No `.snap` comes of it, so that more is to be replayed than one turn takes.
        for output in outputs.drain(..) {
            if let Output::Checkpoint(job) = output {
                member.checkpointed(now_ms, job.run(&|_| ()).unwrap()).unwrap();
            }
        }
    }
    let revision = member.applied().revision();
    member.stop(log, &mut outputs).unwrap();
    drop(outputs);
    let (mut member, mut log) = boot(&disk, founders(&[1]), false);
    for _ in 0..100 {
        pass(&mut member, &mut log);
    }
    assert_eq!((member.leader(), member.applied().revision()), (1, revision));
}
