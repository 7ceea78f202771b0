//! What a disk may hold: the log's segments and names, `.snap` files, pages.

use super::peers::snapshot;
use super::world::{DB, disk, entry, read, write};
use super::{EMPTY, named, texts};
use crate::{Shape, Target};
use api::pb::{snappb, walpb};
use api::raft::{ConfState, Entry, EntryKind, HardState};
use bolt::Fill;
use bytes::Bytes;
use prost::Message as _;
use std::path::{Path, PathBuf};
use wal::{Wal, WalOptions, WalSnapshot};

pub const LOG: Target = Target {
    name: "log",
    covers: &[
        "wal/lib.rs::decode",
        "wal/look.rs::content",
        "wal/look.rs::record",
        "wal/record.rs::parse",
        "wal/replay.rs::commit_behind",
        "wal/replay.rs::decode_state",
        "wal/replay.rs::read_between",
        "wal/replay.rs::read_only",
        "wal/replay.rs::scan",
        "wal/replay.rs::valid_snapshots",
        "wal/replay.rs::visit",
        "wal/segment.rs::open_locked",
        "wal/segment.rs::open_read",
        "wal/writer.rs::open",
        "wal/writer.rs::read_only",
    ],
    corpus: log_corpus,
    mend: Some(mend_records),
    run: log,
    ..EMPTY
};

pub const LOG_NAMES: Target = Target {
    name: "log-names",
    covers: &["wal/segment.rs::parse", "wal/segment.rs::hex16"],
    shape: Shape::Text(&["-", ".wal", ".tmp", "0", "f", "\n", "g", "ffffffffffffffff", "0000000000000001", "é", "."]),
    corpus: || {
        texts(&[
            "0000000000000000-0000000000000000.wal\n0000000000000001-0000000000000009.wal",
            "0000000000000000-0000000000000000.wal\n0.tmp\n0000000000000001-0000000000000009.wal.broken",
        ])
    },
    run: log_names,
    ..EMPTY
};

pub const SNAP: Target = Target {
    name: "snap-file",
    covers: &["wal/snap.rs::load"],
    shape: Shape::Proto(0),
    corpus: snap_corpus,
    mend: Some(mend_snap),
    run: snap,
};

pub const PAGE_STORE: Target = Target {
    name: "page-store",
    covers: &[
        "bolt/db.rs::open",
        "bolt/db.rs::read_extent",
        "bolt/db.rs::read_metas",
        "bolt/page.rs::parse",
        "bolt/view.rs::parse_bucket",
        "bolt/view.rs::read_roots",
        "bolt/image.rs::read_at",
        "bolt/view.rs::read_raw",
    ],
    corpus: page_corpus,
    mend: Some(|input| {
        mend_meta(input, 0);
        mend_meta(input, 1024);
    }),
    run: page_store,
    shape: Shape::Bytes,
};

const WAL: &str = "/wal";
const SEGMENT: &str = "/wal/0000000000000000-0000000000000000.wal";

fn wal_options() -> WalOptions {
    WalOptions { segment_bytes: 4096, ..WalOptions::default() }
}

fn origin() -> WalSnapshot {
    WalSnapshot { index: 0, term: 0, conf_state: None }
}

/// One segment with entries, states and a snapshot mark, without the preallocated rest and with it.
fn log_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
    let mut wal = Wal::create(disk.clone(), Path::new(WAL), Bytes::from_static(b"meta"), options).expect("room");
    let entries: Vec<Entry> = (1..20).map(|i| entry(i, vec![b'e'; usize::try_from(i * 7).unwrap_or(1)])).collect();
    wal.append(&HardState { term: 1, vote: 1, commit: 5 }, &entries).expect("room");
    wal.sync().expect("room");
    wal.save_snapshot(&WalSnapshot { index: 5, term: 1, conf_state: Some(ConfState::default()) }).expect("room");
    wal.append(&HardState { term: 1, vote: 1, commit: 19 }, &[entry(20, vec![]), entry(20, b"again".to_vec())])
        .expect("room");
    wal.sync().expect("room");
    drop(wal);
    let whole = read(&disk, Path::new(SEGMENT));
    let end = whole.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    vec![whole[..end.next_multiple_of(8)].to_vec(), whole[..4096].to_vec()]
}

/// Opened for writing, appended to, opened again: what was appended is there.
fn log(input: &[u8]) -> bool {
    let disk = disk();
    write(&disk, Path::new(SEGMENT), input);
    drop(named(wal::valid_snapshots(&disk, Path::new(WAL))));
    let read = named(Wal::read_only(&disk, Path::new(WAL), &origin()));
    let mut seen = 0;
    drop(named(wal::look(&disk, Path::new(WAL), &mut |_| seen += 1)));
    assert!(seen <= input.len() / 8, "a record has a length at least");
    let between = named(wal::read_between(&disk, Path::new(WAL), 3, Some(9)));
    assert!(between.is_none_or(|log| log.entries.iter().all(|entry| (3..9).contains(&entry.index))));
    let opened = named(Wal::open(disk.clone(), Path::new(WAL), &origin(), wal_options()));
    let Some((mut wal, replay)) = opened else { return false };
    assert_eq!(read.map(|read| read.entries).as_ref(), Some(&replay.entries), "who only reads sees the same");
    let index = replay.entries.last().map_or(0, |e| e.index) + 1;
    wal.append(&HardState { term: 9, vote: 0, commit: 0 }, &[entry(index, b"new".to_vec())]).expect("room");
    wal.sync().expect("room");
    drop(wal);
    let (_, again) = Wal::open(disk, Path::new(WAL), &origin(), wal_options()).expect("a repaired log opens");
    assert_eq!(again.entries.last().map(|e| e.index), Some(index));
    assert_eq!(again.entries.len(), replay.entries.len() + 1);
    true
}

/// Right checksums for all records, up to the first that is none.
/// A member's log, whose first entry adds it.
pub fn member_log() -> Vec<Vec<u8>> {
    let disk = disk();
    let options = WalOptions { segment_bytes: 1 << 16, ..WalOptions::default() };
    let metadata = api::pb::etcdserverpb::Metadata { node_id: Some(1), cluster_id: Some(1) }.encode_to_vec();
    let mut wal = Wal::create(disk.clone(), Path::new(WAL), metadata.into(), options).expect("room");
    let context = store::member_json(1, &["http://127.0.0.1:1".to_owned()], "a");
    let change = api::raft::ConfChange { id: 0, kind: Default::default(), node_id: 1, context: context.into() };
    let mut entries: Vec<Entry> = (1..6).map(|i| entry(i, Vec::new())).collect();
    entries[0].kind = EntryKind::ConfChange;
    entries[0].data = change.encode().into();
    wal.append(&HardState { term: 1, vote: 1, commit: 0 }, &entries).expect("room");
    wal.sync().expect("room");
    drop(wal);
    vec![disk.read(Path::new(SEGMENT), 1 << 20).expect("a segment")]
}

pub fn mend_records(input: &mut Vec<u8>) {
    let (mut out, mut at, mut crc) = (Vec::new(), 0, 0);
    while let Some((record, next)) = record_at(input, at) {
        let data = record.data.clone().unwrap_or_default();
        crc = if record.r#type() == CRC { record.crc() } else { crc32c::crc32c_append(crc, &data) };
        let bytes = walpb::Record { crc: Some(crc), ..record }.encode_to_vec();
        let padding = (8 - bytes.len() % 8) % 8;
        let flag = if padding == 0 { 0 } else { (0x80 | padding as u64) << 56 };
        out.extend_from_slice(&(bytes.len() as u64 | flag).to_le_bytes());
        out.extend_from_slice(&bytes);
        out.resize(out.len() + padding, 0);
        at = next;
    }
    out.extend_from_slice(&input[at..]);
    *input = out;
}

/// The type of the record that a segment begins with.
const CRC: i64 = 4;

fn record_at(input: &[u8], at: usize) -> Option<(walpb::Record, usize)> {
    let word = u64::from_le_bytes(input.get(at..at + 8)?.try_into().ok()?);
    let size = usize::try_from(word & !(0xff << 56)).ok().filter(|size| *size > 0)?;
    let record = walpb::Record::decode(input.get(at + 8..)?.get(..size)?).ok()?;
    let next = (at + 8).checked_add(size.next_multiple_of(8))?;
    (next <= input.len()).then_some((record, next))
}

/// Files of these names, one a line; the first has a log's beginning.
fn log_names(input: &[u8]) -> bool {
    let disk = disk();
    let whole = log_corpus().swap_remove(0);
    for name in String::from_utf8_lossy(input).lines() {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return false;
        }
        write(&disk, &PathBuf::from(WAL).join(name), &whole);
    }
    disk.create_dir_all(Path::new(WAL), 0o700).expect("room");
    let exists = named(wal::exists(&disk, Path::new(WAL)));
    let snapshots = named(wal::valid_snapshots(&disk, Path::new(WAL)));
    let opened = named(Wal::open(disk, Path::new(WAL), &origin(), wal_options()));
    assert!(opened.is_none() || exists == Some(true), "what is opened is there");
    exists == Some(true) || snapshots.is_some()
}

const SNAP_DIR: &str = "/snap";

fn snap_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    disk.create_dir_all(Path::new(SNAP_DIR), 0o700).expect("room");
    let snapshotter = wal::snap::Snapshotter::new(disk.clone(), Path::new(SNAP_DIR));
    snapshotter.save(&snapshot()).expect("room");
    let name = snapshotter.list().expect("a folder").pop().expect("just saved");
    vec![read(&disk, &PathBuf::from(SNAP_DIR).join(name))]
}

fn snap(input: &[u8]) -> bool {
    let disk = disk();
    let name = "0000000000000002-0000000000000009.snap";
    write(&disk, &PathBuf::from(SNAP_DIR).join(name), input);
    let snapshotter = wal::snap::Snapshotter::new(disk, Path::new(SNAP_DIR));
    let loaded = named(snapshotter.load(name));
    let recorded = [WalSnapshot { index: 9, term: 2, conf_state: None }];
    drop(snapshotter.newest_available(&recorded));
    loaded.is_some()
}

fn mend_snap(input: &mut Vec<u8>) {
    if let Ok(mut wrapped) = snappb::Snapshot::decode(&input[..]) {
        wrapped.crc = Some(crc32c::crc32c(wrapped.data.as_deref().unwrap_or_default()));
        *input = wrapped.encode_to_vec();
    }
}

fn page_options() -> bolt::Options {
    bolt::Options { page_size: Some(1024), cache_bytes: 64 << 10, ..bolt::Options::default() }
}

/// A small file with branches, leaves, an overflow page and free pages.
fn page_corpus() -> Vec<Vec<u8>> {
    let disk = disk();
    disk.create_dir_all(Path::new("/db"), 0o700).expect("room");
    let db = bolt::Db::open(disk.clone(), Path::new(DB), page_options()).expect("a new file");
    let mut tx = db.begin().expect("a new file");
    for bucket in ["key", "meta"] {
        tx.create_bucket(bucket.as_bytes()).expect("room");
        for n in 0..80u32 {
            let value = vec![b'v'; if n == 40 { 3000 } else { 40 }];
            tx.put(bucket.as_bytes(), n.to_be_bytes().to_vec().into(), value.into(), Fill::Append).expect("room");
        }
    }
    tx.commit().expect("room");
    let mut tx = db.begin().expect("a good file");
    for n in 0..30u32 {
        tx.delete(b"key", &n.to_be_bytes()).expect("a good file");
    }
    tx.commit().expect("room");
    drop(db);
    vec![read(&disk, Path::new(DB))]
}

/// Opened, checked, read through, written to; then what was written is there.
fn page_store(input: &[u8]) -> bool {
    let disk = disk();
    write(&disk, Path::new(DB), input);
    let Some(db) = named(bolt::Db::open(disk.clone(), Path::new(DB), page_options())) else { return false };
    let sound = named(db.check()).is_some();
    let view = db.view();
    for bucket in view.buckets().unwrap_or_default() {
        drop(view.last(&bucket));
        drop(view.get(&bucket, b"\0\0\0\x07"));
        if let Ok(range) = view.range(&bucket, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded) {
            // A cycle of pages must end in an error, not in an endless walk.
            let pairs = range.take_while(Result::is_ok).take(100_000).count();
            assert!(pairs < 100_000, "an endless walk");
        }
    }
    drop(view);
    let written = named(rewrite(&db)).is_some();
    assert!(written || !sound, "a file that passes the check can be written");
    if sound {
        db.check().expect("a sound file stays sound");
        drop(db);
        bolt::Db::open(disk, Path::new(DB), page_options()).expect("a sound file opens again");
    }
    sound
}

fn rewrite(db: &bolt::Db) -> Result<(), bolt::Error> {
    let mut tx = db.begin()?;
    for bucket in [&b"key"[..], b"meta"] {
        tx.create_bucket(bucket)?;
    }
    for n in 20..60u32 {
        let key = n.to_be_bytes();
        tx.put(b"key", key.to_vec().into(), Bytes::from_static(b"changed"), Fill::Append)?;
        tx.delete(b"meta", &key)?;
    }
    tx.commit()
}

/// The same for a file of pages of 4096 bytes.
pub fn mend_metas(input: &mut [u8]) {
    mend_meta(input, 0);
    mend_meta(input, 4096);
}

/// FNV-1a over the first 56 bytes of a meta (bbolt's checksum).
fn mend_meta(file: &mut [u8], page: usize) {
    let Some(meta) = file.get_mut(page + 16..page + 80) else { return };
    let sum =
        meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    meta[56..64].copy_from_slice(&sum.to_le_bytes());
}
