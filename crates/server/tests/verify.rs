//! `ETCD_VERIFY`: what is looked at when it is asked for, and only then.

use api::pb::etcdserverpb as pb;
use disk::{Crash, SimDisk, SimOptions};
use server::member::{Beginning, BootConfig, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES, Verify};
use server::{Layout, LogWriter, Member, Request};
use std::path::Path;

const ALL: Verify = Verify { files: true, state: true };

fn boot(disk: &SimDisk) -> (Member<u32>, LogWriter) {
    let founder = Founder { id: 1, name: "m1".into(), peer_urls: vec!["http://10.0.0.1:1".into()] };
    let boot = BootConfig {
        disk: disk.shared(),
        data_dir: "/data".into(),
        wal_dir: None,
        wal: wal::WalOptions { segment_bytes: 64 << 10, ..wal::WalOptions::default() },
        store: store::Options::default(),
        member: Config {
            name: "m1".into(),
            client_urls: Vec::new(),
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
        },
        initial: Ok(Beginning { cluster_id: 7, id: 1, founders: vec![founder] }),
        force_new_cluster: None,
        now_ms: 0,
        wall_ms: 1_700_000_000_000,
    };
    let (member, log, _) = Member::boot(boot).unwrap();
    (member, log)
}

/// A stopped member's disk: some puts and a deletion, all in the page store.
fn stopped(verify: Verify) -> SimDisk {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let (mut member, mut log) = boot(&disk);
    member.verify(verify).unwrap();
    for n in 0..20 {
        let put = pb::PutRequest { key: "k".into(), value: vec![n; 100].into(), ..Default::default() };
        member.call(0, u32::from(n), Request::Put(put));
        member.turn_with(&mut log).unwrap();
    }
    member.stop_and_verify(log, verify, &mut Vec::new()).unwrap();
    disk.crash_now();
    disk.reboot(Crash::Lose);
    disk
}

/// Puts a pair into the page store, behind everybody's back.
fn forge(disk: &SimDisk, bucket: &str, key: &[u8], value: &[u8]) {
    let db = bolt::Db::open(disk.shared(), Path::new("/data/member/snap/db"), bolt::Options::default()).unwrap();
    let mut tx = db.begin().unwrap();
    let (key, value) = (bytes::Bytes::copy_from_slice(key), bytes::Bytes::copy_from_slice(value));
    tx.put(bucket.as_bytes(), key, value, bolt::Fill::Half).unwrap();
    tx.commit().unwrap();
}

#[test]
fn a_sound_directory_passes_and_the_variable_changes_nothing() {
    let image = |verify| {
        let disk = stopped(verify);
        let db = bolt::Db::open(disk.shared(), Path::new("/data/member/snap/db"), bolt::Options::default()).unwrap();
        let mut bytes = Vec::new();
        db.view()
            .write_to(&mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        drop(db);
        let layout = Layout::new(Path::new("/data"), None);
        verify.directory(&disk.shared(), &layout, store::Options::default()).unwrap();
        bytes
    };
    assert!(image(ALL) == image(Verify::default()), "verifying wrote something");
}

#[test]
fn a_broken_invariant_is_found_when_it_is_asked_for() {
    let forgeries: [(&str, &[u8], &[u8], &str); 1] = [("members_removed", b"1", b"removed", "member 1 was removed")];
    for (bucket, key, value, name) in forgeries {
        let disk = stopped(Verify::default());
        forge(&disk, bucket, key, value);
        let layout = Layout::new(Path::new("/data"), None);
        let offline = |verify: Verify| verify.directory(&disk.shared(), &layout, store::Options::default());
        offline(Verify::default()).unwrap();
        offline(Verify::parse("storage_wal").unwrap()).unwrap();
        let why = offline(ALL).unwrap_err().to_string();
        assert!(why.contains(name) && why.contains("ETCD_VERIFY"), "{why}");
        let (member, _log) = boot(&disk);
        member.verify(Verify::default()).unwrap();
        let why = member.verify(ALL).unwrap_err().to_string();
        assert!(why.contains(name), "{why}");
    }
}

/// The rule of every open, which the tool looks at, too.
#[test]
fn a_page_store_ahead_of_the_log_is_found_offline() {
    let disk = stopped(Verify::default());
    forge(&disk, "meta", b"consistent_index", &1_000_000_u64.to_be_bytes());
    let layout = Layout::new(Path::new("/data"), None);
    let offline = |verify: Verify| verify.directory(&disk.shared(), &layout, store::Options::default());
    offline(Verify::parse("assert").unwrap()).unwrap();
    let why = offline(ALL).unwrap_err().to_string();
    assert!(why.contains("is ahead of the log"), "{why}");
}

#[test]
fn values_are_gos_in_any_case() {
    assert_eq!(Verify::parse("ALL"), Some(ALL));
    assert_eq!(Verify::parse("assert"), Some(Verify { files: false, state: true }));
    assert_eq!(Verify::parse("Storage_WAL"), Some(Verify { files: true, state: false }));
    assert_eq!((Verify::parse(""), Verify::parse("yes")), (None, None));
}
