//! The log against a simulated disk: bytes, round trips, crashes at every operation, damage everywhere.

use api::raft::{ConfState, Entry, EntryKind, HardState, Snapshot, SnapshotMetadata};
use bytes::Bytes;
use disk::{Crash, Fault, SharedDisk, SimDisk, SimOptions};
use std::path::{Path, PathBuf};
use wal::snap::Snapshotter;
use wal::{Opening, Replay, Wal, WalError, WalOptions, WalSnapshot, valid_snapshots};

const DIR: &str = "/m/wal";
const OPTIONS: WalOptions = WalOptions { segment_bytes: 2048, buffer_bytes: 700 };

fn sim(seed: u64) -> (SimDisk, SharedDisk) {
    let sim = SimDisk::new(SimOptions { seed, capacity: u64::MAX });
    let disk = sim.shared();
    disk.create_dir_all(Path::new("/m/snap"), 0o700).unwrap();
    disk.sync_dir(Path::new("/m")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (sim, disk)
}

fn metadata() -> Bytes {
    Bytes::from_static(&[0x08, 1, 0x10, 2])
}

fn entry(term: u64, index: u64, size: usize) -> Entry {
    let data: Vec<u8> = (0..size).map(|i| (i as u64 * 7 + index * 13 + term) as u8 | 1).collect();
    let kind = if index % 5 == 1 { EntryKind::ConfChange } else { EntryKind::Normal };
    Entry { term, index, kind, data: data.into() }
}

fn start() -> WalSnapshot {
    WalSnapshot::default()
}

fn at(index: u64, term: u64) -> WalSnapshot {
    WalSnapshot { index, term, conf_state: Some(ConfState { voters: vec![1], ..ConfState::default() }) }
}

fn open(disk: &SharedDisk, at: &WalSnapshot) -> Result<(Wal, Replay), WalError> {
    Wal::open(disk.clone(), Path::new(DIR), at, OPTIONS)
}

fn create(disk: &SharedDisk) -> Result<Wal, WalError> {
    Wal::create(disk.clone(), Path::new(DIR), metadata(), OPTIONS)
}

#[test]
fn a_new_segment_has_the_bytes_that_go_writes() {
    let (sim, disk) = sim(1);
    let mut wal = create(&disk).unwrap();
    wal.append(&HardState { term: 1, vote: 0, commit: 1 }, &[]).unwrap();
    wal.sync().unwrap();
    let bytes = sim.read_whole(&Path::new(DIR).join("0000000000000000-0000000000000000.wal")).unwrap();
    assert_eq!(bytes.len(), 2048);
    assert_eq!(bytes[..16], [4, 0, 0, 0, 0, 0, 0, 0x84, 0x08, 4, 0x10, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[24..27], [0x08, 1, 0x10]);
    let tail = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
    assert!(bytes[..tail].windows(6).any(|w| w == [0x1a, 4, 0x08, 0, 0x10, 0]), "the snapshot record {{0, 0}}");
    assert!(bytes[..tail].windows(8).any(|w| w == [0x1a, 6, 0x08, 1, 0x10, 0, 0x18, 1]), "the hard state");
}

#[test]
fn a_segment_that_go_wrote_is_read() {
    let (_sim, disk) = sim(1);
    disk.create_dir_all(Path::new(DIR), 0o700).unwrap();
    let fixture = include_bytes!("fixtures/go-3.7.wal");
    let path = Path::new(DIR).join("0000000000000000-0000000000000000.wal");
    disk.open(&path, disk::OpenOptions::create()).unwrap().write_at(fixture, 0).unwrap();
    let replay = Wal::read_only(&disk, Path::new(DIR), &start()).unwrap();
    assert!(replay.entries.len() >= 4 && replay.hard_state.commit >= 4, "{replay:?}");
    assert_eq!(replay.entries[0].kind, EntryKind::ConfChange);
    assert!(replay.entries.iter().any(|e| e.data.windows(5).any(|w| w == b"hello")));
    assert_eq!(valid_snapshots(&disk, Path::new(DIR)).unwrap(), [start()]);

    // Writing the same records gives the same bytes.
    let (again, disk) = sim_again();
    let mut wal = Wal::create(disk.clone(), Path::new(DIR), replay.metadata.clone(), WalOptions::default()).unwrap();
    wal.append(&HardState::default(), &replay.entries[..1]).unwrap();
    wal.sync().unwrap();
    let ours = again.read_whole(&path).unwrap();
    let used = ours.iter().rposition(|b| *b != 0).unwrap();
    assert_eq!(ours[..used], fixture[..used]);
}

fn sim_again() -> (SimDisk, SharedDisk) {
    sim(2)
}

#[test]
fn entries_states_and_snapshots_come_back_across_segments() {
    let (sim, disk) = sim(1);
    let mut wal = create(&disk).unwrap();
    let entries: Vec<Entry> = (1..=60).map(|i| entry(1, i, (i as usize * 37) % 400)).collect();
    for e in &entries {
        wal.append(&HardState { term: 1, vote: 1, commit: e.index - 1 }, std::slice::from_ref(e)).unwrap();
        wal.prepare_next().unwrap();
        wal.sync().unwrap();
    }
    wal.save_snapshot(&at(40, 1)).unwrap();
    wal.append(&HardState::default(), &[entry(2, 58, 9)]).unwrap();
    wal.close().unwrap();
    assert!(sim.list().len() > 4 && sim.list().iter().all(|p| p.extension().is_some_and(|e| e == "wal")));
    assert_eq!(valid_snapshots(&disk, Path::new(DIR)).unwrap(), [start(), at(40, 1)]);

    let mut expected = entries[..57].to_vec();
    expected.push(entry(2, 58, 9));
    let whole = Wal::read_only(&disk, Path::new(DIR), &start()).unwrap();
    assert_eq!((whole.entries, whole.metadata), (expected.clone(), metadata()));
    let (mut wal, replay) = open(&disk, &at(40, 1)).unwrap();
    assert_eq!(replay.entries, expected[40..]);
    assert_eq!(replay.hard_state, HardState { term: 1, vote: 1, commit: 59 });
    assert!(matches!(open(&disk, &at(40, 1)), Err(WalError::Locked { .. })));
    assert!(matches!(Wal::read_only(&disk, Path::new(DIR), &at(40, 2)), Err(WalError::SnapshotMismatch { .. })));
    assert!(matches!(Wal::read_only(&disk, Path::new(DIR), &at(41, 1)), Err(WalError::SnapshotNotFound { .. })));

    let before = sim.list().len();
    wal.release_to(40).unwrap();
    wal.purge(before - 2).unwrap();
    assert_eq!(sim.list().len(), before - 2);
    wal.purge(1).unwrap();
    assert!(sim.list().len() > 1, "locked segments stay");
    drop(wal);
    assert_eq!(open(&disk, &at(40, 1)).unwrap().1.entries, expected[40..]);
}

#[test]
fn a_failed_sync_poisons_the_log_and_its_tail_is_settled_at_open() {
    let (sim, disk) = sim(1);
    let mut wal = create(&disk).unwrap();
    wal.append(&HardState { term: 1, vote: 1, commit: 0 }, &[entry(1, 1, 50)]).unwrap();
    sim.inject(Fault::Sync { after: 0 });
    assert!(matches!(wal.sync(), Err(WalError::Io { .. })));
    assert!(matches!(wal.sync(), Err(WalError::Poisoned { .. })));
    assert!(matches!(wal.append(&HardState::default(), &[entry(1, 2, 1)]), Err(WalError::Poisoned { .. })));
    drop(wal);
    let (_, replay) = open(&disk, &start()).unwrap();
    assert_eq!(replay.entries, [entry(1, 1, 50)]);
    sim.reboot(Crash::Lose);
    assert_eq!(open(&disk, &start()).unwrap().1.entries, [entry(1, 1, 50)], "what open answered is durable");
}

/// What the log was told, and how much of it was synced.
#[derive(Default)]
struct Model {
    appended: Vec<Vec<Entry>>,
    synced: usize,
    created: bool,
}

/// Runs a fixed history until the disk crashes.
fn history(disk: &SharedDisk, model: &mut Model) -> Result<(), WalError> {
    let mut wal = create(disk)?;
    model.created = true;
    for round in 0..14u64 {
        let state = HardState { term: 1, vote: 1, commit: round * 2 };
        let entries = [entry(1, round * 2 + 1, (round as usize * 97) % 900), entry(1, round * 2 + 2, 600)];
        model.appended.push(entries.to_vec());
        wal.append(&state, &entries)?;
        if round % 3 == 1 {
            wal.flush()?;
            continue;
        }
        wal.sync()?;
        model.synced = model.appended.len();
        if round == 6 {
            wal.save_snapshot(&at(8, 1))?;
            wal.release_to(8)?;
        }
        if round == 8 {
            wal.prepare_next()?;
        }
    }
    wal.close()?;
    model.synced = model.appended.len();
    Ok(())
}

#[test]
fn a_crash_at_any_operation_loses_nothing_synced_and_invents_nothing() {
    for crash in [Crash::Lose, Crash::Random, Crash::Keep] {
        for n in 0.. {
            let (sim, disk) = sim(n * 31 + 7);
            let mut model = Model::default();
            sim.crash_after(n);
            let finished = history(&disk, &mut model).is_ok();
            sim.reboot(crash);
            check_recovery(&sim, &disk, &model, crash, n);
            if finished {
                break;
            }
        }
    }
}

/// Opens, with a crash during the repair too, and compares.
fn check_recovery(sim: &SimDisk, disk: &SharedDisk, model: &Model, crash: Crash, n: u64) {
    if !model.created && !wal::exists(disk, Path::new(DIR)).unwrap() {
        return create(disk).map(drop).unwrap();
    }
    sim.crash_after(n % 5);
    drop(open(disk, &start()));
    sim.reboot(crash);
    let (mut wal, replay) = open(disk, &start()).unwrap_or_else(|e| panic!("{crash:?} after {n}: {e}"));
    let all: Vec<Entry> = model.appended.concat();
    let synced: usize = model.appended[..model.synced].iter().map(Vec::len).sum();
    assert!(replay.entries.len() >= synced, "{crash:?} after {n}: {} of {synced}", replay.entries.len());
    assert_eq!(replay.entries, all[..replay.entries.len()], "{crash:?} after {n}");
    assert_eq!(replay.metadata, metadata());
    let next = entry(2, replay.entries.len() as u64 + 1, 300);
    wal.append(&HardState { term: 2, vote: 1, commit: 0 }, std::slice::from_ref(&next)).unwrap();
    wal.sync().unwrap();
    sim.reboot(Crash::Lose);
    let after = Wal::read_only(disk, Path::new(DIR), &start()).unwrap();
    assert_eq!(after.entries.last(), Some(&next));
    assert_eq!(after.entries.len(), replay.entries.len() + 1);
}

#[test]
fn flipped_bits_are_reported_or_harmless() {
    let (sim, disk) = sim(1);
    let mut model = Model::default();
    history(&disk, &mut model).unwrap();
    let all = model.appended.concat();
    let mut reported = 0;
    for path in sim.list() {
        for offset in 0..sim.read_whole(&path).unwrap().len() as u64 {
            let xor = 1 << (offset % 8);
            sim.corrupt(&path, offset, xor);
            match Wal::read_only(&disk, Path::new(DIR), &start()) {
                Ok(replay) => assert_eq!(replay.entries, all[..replay.entries.len()], "{path:?} {offset}"),
                Err(_) => reported += 1,
            }
            sim.corrupt(&path, offset, xor);
        }
    }
    assert!(reported > 5000, "{reported}");
}

#[test]
fn a_truncated_tail_is_torn_and_a_truncated_middle_is_damage() {
    let (sim, disk) = sim(1);
    history(&disk, &mut Model::default()).unwrap();
    let paths: Vec<PathBuf> = sim.list();
    for (i, path) in paths.iter().enumerate() {
        let whole = sim.read_whole(path).unwrap();
        let file = disk.open(path, disk::OpenOptions::write()).unwrap();
        for len in (1..whole.len() as u64).step_by(13) {
            file.set_len(len).unwrap();
            let outcome = Wal::read_only(&disk, Path::new(DIR), &start());
            if i > 0 && i + 1 == paths.len() {
                assert!(outcome.is_ok(), "{len}: {:?}", outcome.err());
            }
            if i + 1 < paths.len() {
                assert!(outcome.is_err(), "{path:?} {len}");
            }
            file.write_at(&whole, 0).unwrap();
        }
    }
}

#[test]
fn snapshot_files_come_back_and_broken_ones_are_set_aside() {
    let (sim, disk) = sim(1);
    let dir = Path::new("/m/snap");
    let snaps = Snapshotter::new(disk.clone(), dir);
    let make = |index| Snapshot {
        data: Bytes::from(vec![7; 100]),
        metadata: SnapshotMetadata { conf_state: at(1, 1).conf_state.unwrap(), index, term: 2 },
    };
    for index in [5, 6, 7] {
        snaps.save(&make(index)).unwrap();
    }
    sim.reboot(Crash::Lose);
    assert_eq!(snaps.list().unwrap()[0], "0000000000000002-0000000000000007.snap");
    let recorded = [at(5, 2), at(6, 2)];
    assert_eq!(snaps.newest_available(&recorded).unwrap(), Some(make(6)));
    sim.corrupt(&dir.join("0000000000000002-0000000000000006.snap"), 20, 1);
    assert_eq!(snaps.newest_available(&recorded).unwrap(), Some(make(5)));
    assert!(sim.list().iter().any(|p| p.ends_with("0000000000000002-0000000000000006.snap.broken")));
    disk.open(&dir.join("tmp123"), disk::OpenOptions::create()).unwrap();
    snaps.clear_leftovers().unwrap();
    snaps.purge(1).unwrap();
    assert_eq!(snaps.list().unwrap(), ["0000000000000002-0000000000000007.snap"]);
    assert_eq!(sim.list().len(), 2);
}

/// A batch of single entries, each with the hard state that commits the one before: as an only voter writes them.
fn singles(wal: &mut Wal, entries: std::ops::RangeInclusive<u64>) {
    for index in entries {
        wal.append(&HardState { term: 1, vote: 1, commit: index - 1 }, &[entry(1, index, 40)]).unwrap();
        wal.sync().unwrap();
    }
}

#[test]
fn a_damaged_length_is_told_from_a_torn_write_by_what_stands_behind_it() {
    let (sim, disk) = sim(3);
    let mut wal = create(&disk).unwrap();
    singles(&mut wal, 1..=12);
    drop(wal);
    sim.reboot(Crash::Keep);
    let path = Path::new(DIR).join("0000000000000000-0000000000000000.wal");
    let (clean, _) = Opening::open(disk.clone(), Path::new(DIR), &start()).unwrap();
    assert_eq!(clean.behind_torn().unwrap(), None);
    drop(clean);
    let bytes = disk.read(&path, 1 << 20).unwrap();
    // Every frame's length gets a bit that reaches past the end of the file.
    let (mut at, mut told) = (0, 0);
    while let Some(head) = bytes.get(at..at + 8).filter(|head| head.iter().any(|b| *b != 0)) {
        let word = u64::from_le_bytes(head.try_into().unwrap());
        let size = (word & 0xff_ffff_ffff_ffff) as usize;
        assert!(sim.corrupt(&path, at as u64 + 3, 0x08));
        if let Ok((opening, replay)) = Opening::open(disk.clone(), Path::new(DIR), &start()) {
            let behind = opening.behind_torn().unwrap().expect("a length past the end looks torn");
            assert_eq!(behind.offset, at as u64);
            let last = replay.entries.last().map_or(0, |e| e.index);
            // The last two entries have no chain of two records with a later commit behind them.
            assert!(behind.commit > last || last >= 10, "at {at}: {behind:?}, last {last}");
            told += usize::from(behind.commit > last);
        }
        assert!(sim.corrupt(&path, at as u64 + 3, 0x08));
        at += 8 + size.next_multiple_of(8);
    }
    assert!(told > 15, "{told}");
}

#[test]
fn a_torn_write_has_nothing_behind_it_that_commits_it() {
    for seed in 0..40 {
        let (sim, disk) = sim(seed);
        let mut wal = create(&disk).unwrap();
        singles(&mut wal, 1..=5);
        // One unsynced batch, partly written.
        let batch: Vec<_> = (6..=40).map(|index| entry(1, index, 700)).collect();
        wal.append(&HardState { term: 1, vote: 1, commit: 5 }, &batch).unwrap();
        wal.flush().unwrap();
        drop(wal);
        sim.reboot(Crash::Random);
        let Ok((opening, replay)) = Opening::open(disk.clone(), Path::new(DIR), &start()) else { continue };
        let last = replay.entries.last().map_or(0, |e| e.index);
        if let Some(behind) = opening.behind_torn().unwrap() {
            assert!(behind.commit <= last, "seed {seed}: {behind:?}, last {last}");
        }
        opening.settle(WalOptions::default()).unwrap();
    }
}

#[test]
fn a_full_disk_takes_the_next_segment_but_not_this_one() {
    let (sim, disk) = sim(1);
    let mut wal = create(&disk).unwrap();
    sim.inject(Fault::Full(0));
    assert!(wal.prepare_next().is_err());
    assert!(disk.read_dir(Path::new(DIR)).unwrap().iter().all(|name| !name.ends_with(".tmp")), "it takes no room");
    singles(&mut wal, 1..=3);
    sim.inject(Fault::Heal);
    wal.prepare_next().unwrap();
    assert_eq!(wal.room(), None);
    drop(wal);
    assert_eq!(open(&disk, &start()).unwrap().1.entries.len(), 3);
}

#[test]
fn an_empty_directory_that_is_there_already_is_used() {
    let (_, disk) = sim(1);
    disk.create_dir_all(Path::new(DIR), 0o700).unwrap();
    let mut wal = create(&disk).unwrap();
    singles(&mut wal, 1..=3);
    drop(wal);
    assert_eq!(open(&disk, &start()).unwrap().1.entries.len(), 3);
}
