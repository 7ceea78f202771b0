//! What targets stand on: a disk, a store, a member.

use api::raft::{Entry, EntryKind};
use disk::{OpenOptions, SharedDisk, SimDisk, SimOptions};
use server::member::{Beginning, BootConfig, Choices, Config, Founder, RELEASE_DELAY_MS, RELEASE_ENTRIES};
use server::{Fatal, LogWriter, Member};
use std::path::Path;
use store::Store;

pub const DB: &str = "/db/db";

pub fn disk() -> SharedDisk {
    SimDisk::new(SimOptions { seed: 1, capacity: 64 << 20 }).shared()
}

/// Puts a file, and the folders above it.
pub fn write(disk: &SharedDisk, path: &Path, bytes: &[u8]) {
    disk.create_dir_all(path.parent().expect("a file in a folder"), 0o700).expect("the simulated disk has room");
    let file = disk.open(path, OpenOptions::create()).expect("the simulated disk has room");
    file.write_at(bytes, 0).expect("the simulated disk has room");
}

pub fn read(disk: &SharedDisk, path: &Path) -> Vec<u8> {
    disk.read(path, 16 << 20).expect("the file is there")
}

pub fn entry(index: u64, data: Vec<u8>) -> Entry {
    Entry { term: 1, index, kind: EntryKind::Normal, data: data.into() }
}

pub fn store_options() -> store::Options {
    store::Options { page_size: Some(4096), cache_bytes: 64 << 10, ..store::Options::default() }
}

/// An empty store.
pub fn store() -> Store {
    let disk = disk();
    disk.create_dir_all(Path::new("/db"), 0o700).expect("room");
    Store::open(disk, Path::new(DB), store_options()).expect("a new store")
}

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
        max_request_bytes: 64 << 10,
        max_txn_ops: 16,
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

/// A member on this disk, a founder of a cluster of so many.
///
/// # Errors
/// The files that are there are none of a member's.
pub fn boot(disk: &SharedDisk, founders: u64, force: bool) -> Result<(Member<u32>, LogWriter), Fatal> {
    let founder = |id: u64| Founder { id, name: format!("m{id}"), peer_urls: vec![format!("http://10.0.0.{id}:2380")] };
    let boot = BootConfig {
        disk: disk.clone(),
        data_dir: "/data".into(),
        wal_dir: None,
        wal: wal::WalOptions { segment_bytes: 16 << 10, ..wal::WalOptions::default() },
        store: store_options(),
        member: config(),
        initial: Ok(Beginning { cluster_id: 7, id: 1, founders: (1..=founders).map(founder).collect() }),
        force_new_cluster: force.then(|| vec!["http://10.0.0.1:2380".into()]),
        now_ms: 0,
        wall_ms: 1_700_000_000_000,
    };
    Member::boot(boot).map(|(member, log, _)| (member, log))
}
