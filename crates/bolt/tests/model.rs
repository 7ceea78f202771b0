//! The page store against a map: random histories, views held across commits, and a crash at every disk operation.

use bolt::{Db, Fill, Options, View};
use bytes::Bytes;
use disk::{Crash, OpenOptions, SharedDisk, SimDisk, SimOptions};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

type Map = BTreeMap<Bytes, BTreeMap<Bytes, Bytes>>;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn options(page_size: u32) -> Options {
    Options { page_size: Some(page_size), cache_bytes: 64 << 10, ..Options::default() }
}

fn open(disk: &SharedDisk, page_size: u32) -> Db {
    Db::open(disk.clone(), Path::new("/db"), options(page_size)).expect("opens")
}

/// One transaction of random changes, on the database and on a copy of the map. `None` when the disk failed.
fn change(db: &Db, map: &Map, rng: &mut Rng) -> (Map, Result<(), bolt::Error>) {
    let mut next = map.clone();
    let outcome = (|| {
        let mut tx = db.begin()?;
        for name in ["key", "meta", "lease"] {
            tx.create_bucket(name.as_bytes())?;
            next.entry(name.into()).or_default();
        }
        let big = rng.below(8) == 0;
        for _ in 0..rng.below(if big { 300 } else { 12 }) {
            let bucket = ["key", "key", "key", "meta", "lease"][rng.below(5) as usize];
            let key = Bytes::from(format!("{:04}", rng.below(600)));
            let entries = next.get_mut(bucket.as_bytes()).unwrap();
            if rng.below(3) == 0 {
                assert_eq!(tx.delete(bucket.as_bytes(), &key)?, entries.remove(&key).is_some());
            } else {
                let len = if rng.below(40) == 0 { 9000 } else { rng.below(120) };
                let value = Bytes::from(vec![b'v'; len as usize]);
                let fill = if rng.below(2) == 0 { Fill::Append } else { Fill::Half };
                tx.put(bucket.as_bytes(), key.clone(), value.clone(), fill)?;
                entries.insert(key, value);
            }
        }
        tx.commit()
    })();
    (next, outcome)
}

fn content(view: &View) -> Map {
    let names = view.buckets().unwrap();
    names
        .into_iter()
        .map(|name| {
            let pairs = view.range(&name, Bound::Unbounded, Bound::Unbounded).unwrap().map(Result::unwrap).collect();
            (name, pairs)
        })
        .collect()
}

#[test]
fn random_histories_equal_a_map_for_all_page_sizes() {
    for (seed, page_size) in [(1, 4096), (2, 4096), (3, 16_384), (4, 65_536), (5, 1024)] {
        let sim = SimDisk::new(SimOptions { seed, capacity: u64::MAX });
        let disk = sim.shared();
        let mut rng = Rng(seed);
        let mut map = Map::new();
        let mut db = open(&disk, page_size);
        let mut held: Vec<(View, Map)> = Vec::new();
        for round in 0..150 {
            let (next, outcome) = change(&db, &map, &mut rng);
            outcome.unwrap();
            map = next;
            let view = db.view();
            assert_eq!(content(&view), map, "seed {seed} round {round}");
            let from = Bytes::from(format!("{:04}", rng.below(600)));
            let some: Vec<_> = view
                .range(b"key", Bound::Excluded(&from), Bound::Included(b"0500"))
                .unwrap()
                .map(|p| p.unwrap().0)
                .collect();
            let expected: Vec<_> =
                map[&b"key"[..]].keys().filter(|k| **k > from && k.as_ref() <= &b"0500"[..]).cloned().collect();
            assert_eq!(some, expected);
            let mut back: Vec<_> = view
                .range_rev(b"key", Bound::Excluded(&from), Bound::Included(b"0500"))
                .unwrap()
                .map(|p| p.unwrap().0)
                .collect();
            back.reverse();
            assert_eq!(back, expected);
            assert_eq!(view.last(b"key").unwrap().map(|p| p.0), map[&b"key"[..]].keys().next_back().cloned());
            held.push((view, map.clone()));
            if held.len() > 5 {
                let (view, before) = held.remove(rng.below(5) as usize);
                assert_eq!(content(&view), before, "a held view changed");
            }
            db.check().unwrap();
            if rng.below(30) == 0 {
                held.clear();
                drop(db);
                db = open(&disk, page_size);
                assert_eq!(content(&db.view()), map);
                db.check().unwrap();
            }
        }
    }
}

#[test]
fn a_crash_at_every_disk_operation_leaves_the_last_commit_or_the_one_in_flight() {
    for crash in [Crash::Lose, Crash::Random, Crash::Keep] {
        let mut at = 0;
        loop {
            let sim = SimDisk::new(SimOptions { seed: at, capacity: u64::MAX });
            let disk = sim.shared();
            let mut rng = Rng(77);
            let mut map = Map::new();
            sim.crash_after(at);
            let mut in_flight = None;
            if let Ok(db) = Db::open(disk.clone(), Path::new("/db"), options(4096)) {
                for _ in 0..12 {
                    let (next, outcome) = change(&db, &map, &mut rng);
                    if outcome.is_err() {
                        in_flight = Some(next);
                        break;
                    }
                    map = next;
                }
            }
            let crashed = sim.crashed();
            sim.reboot(crash);
            let db = Db::open(disk.clone(), Path::new("/db"), options(4096)).expect("opens after any crash");
            let found = content(&db.view());
            assert!(found == map || Some(&found) == in_flight.as_ref(), "{crash:?} at {at}");
            db.check().unwrap();
            if !crashed {
                break;
            }
            at += 1;
        }
        assert!(at > 40, "the history has many operations: {at}");
    }
}

/// The process is killed, comes back, and then the power goes: whatever it stood on must have been durable.
#[test]
fn a_kill_and_then_a_power_cut_at_any_disk_operation_lose_no_commit() {
    for (killed_at, then_at) in (0..36).flat_map(|k| (0..12).map(move |t| (k, t))) {
        let sim = SimDisk::new(SimOptions { seed: killed_at, capacity: u64::MAX });
        let disk = sim.shared();
        let mut rng = Rng(77);
        let mut states = vec![Map::new()];
        let mut durable = 0;
        for (at, crash) in [(killed_at, Crash::Keep), (then_at, Crash::Lose)] {
            sim.crash_after(at);
            if let Ok(db) = Db::open(disk.clone(), Path::new("/db"), options(4096)) {
                let found = content(&db.view());
                durable = states.iter().position(|s| *s == found).expect("a state that was committed or on its way");
                while !sim.crashed() {
                    let (next, outcome) = change(&db, &states[durable], &mut rng);
                    states.truncate(durable + 1);
                    states.push(next);
                    durable += usize::from(outcome.is_ok());
                }
            }
            sim.crash_now();
            sim.reboot(crash);
        }
        let db = Db::open(disk, Path::new("/db"), options(4096)).expect("opens after any crash");
        db.check().unwrap();
        let found = content(&db.view());
        assert!(states[durable..].contains(&found), "killed at {killed_at}, power cut {then_at} later");
    }
}

#[test]
fn no_flipped_byte_and_no_truncation_panics() {
    let sim = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let disk = sim.shared();
    let mut rng = Rng(9);
    let mut map = Map::new();
    let db = open(&disk, 1024);
    for _ in 0..6 {
        map = change(&db, &map, &mut rng).0;
    }
    let size = db.size();
    drop(db);
    let (mut refused, mut read) = (0, 0);
    for offset in 0..size {
        sim.corrupt(Path::new("/db"), offset, 1 << (offset % 8));
        match Db::open(disk.clone(), Path::new("/db"), Options { read_only: offset % 2 == 0, ..options(1024) }) {
            Ok(db) => {
                read += 1;
                let view = db.view();
                for name in view.buckets().unwrap_or_default() {
                    if let Ok(range) = view.range(&name, Bound::Unbounded, Bound::Unbounded) {
                        range.take_while(Result::is_ok).for_each(drop);
                    }
                }
            }
            Err(_) => refused += 1,
        }
        sim.corrupt(Path::new("/db"), offset, 1 << (offset % 8));
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn a_failed_sync_poisons_the_database() {
    let sim = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let disk = sim.shared();
    let db = open(&disk, 4096);
    sim.inject(disk::Fault::Sync { after: 0 });
    let (_, outcome) = change(&db, &Map::new(), &mut Rng(3));
    assert!(outcome.is_err() && matches!(db.begin(), Err(bolt::Error::Poisoned)));
}

#[test]
fn a_second_opener_is_told_of_the_lock() {
    let sim = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let disk = sim.shared();
    let _db = open(&disk, 4096);
    let second = Db::open(disk, Path::new("/db"), options(4096));
    assert!(matches!(second, Err(bolt::Error::Locked { .. })));
}

/// Deep trees (small pages, long keys), filled and then thinned by ranges, so that whole levels merge away.
#[test]
fn deep_trees_grow_and_shrink() {
    for seed in 1..6 {
        let sim = SimDisk::new(SimOptions { seed, capacity: u64::MAX });
        let db = open(&sim.shared(), 1024);
        let mut rng = Rng(seed * 31);
        let mut map: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        for _ in 0..60 {
            let mut tx = db.begin().unwrap();
            tx.create_bucket(b"key").unwrap();
            let from = rng.below(3000);
            let remove = rng.below(2) == 0;
            for n in from..from + rng.below(1500) {
                let key = Bytes::from(format!("{n:0100}"));
                if remove && rng.below(20) > 0 {
                    assert_eq!(tx.delete(b"key", &key).unwrap(), map.remove(&key).is_some());
                } else if !remove {
                    tx.put(b"key", key.clone(), key.clone(), Fill::Half).unwrap();
                    map.insert(key.clone(), key.clone());
                }
                assert_eq!(tx.get(b"key", &key).unwrap().as_ref(), map.get(&key));
            }
            tx.commit().unwrap();
            db.check().unwrap();
            let found: BTreeMap<_, _> =
                db.view().range(b"key", Bound::Unbounded, Bound::Unbounded).unwrap().map(Result::unwrap).collect();
            assert!(found == map, "seed {seed}");
        }
    }
}

#[test]
fn a_copy_and_an_image_hold_the_same_content() {
    let sim = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let disk = sim.shared();
    let db = open(&disk, 4096);
    let (mut map, mut rng) = (Map::new(), Rng(5));
    for _ in 0..40 {
        map = change(&db, &map, &mut rng).0;
    }
    db.compact_to(disk.clone(), Path::new("/copy")).unwrap();
    let copy = Db::open(disk.clone(), Path::new("/copy"), options(4096)).unwrap();
    copy.check().unwrap();
    assert!(content(&copy.view()) == map && copy.size() <= db.size());

    let file = disk.open(Path::new("/image"), disk::OpenOptions::create()).unwrap();
    let mut at = 0;
    db.view()
        .write_to(&mut |piece| {
            file.write_at(piece, at)?;
            at += piece.len() as u64;
            Ok(())
        })
        .unwrap();
    assert_eq!(at, db.size());
    let image = Db::open(disk, Path::new("/image"), options(4096)).unwrap();
    image.check().unwrap();
    assert!(content(&image.view()) == map);
}

#[test]
fn a_truncated_file_is_refused() {
    let sim = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let disk = sim.shared();
    let db = open(&disk, 1024);
    let (mut map, mut rng) = (Map::new(), Rng(5));
    for _ in 0..5 {
        map = change(&db, &map, &mut rng).0;
    }
    let size = db.size();
    drop(db);
    let file = disk.open(Path::new("/db"), disk::OpenOptions::write()).unwrap();
    for len in (1..size).rev().step_by(7) {
        file.set_len(len).unwrap();
        assert!(Db::open(disk.clone(), Path::new("/db"), options(1024)).is_err(), "{len} of {size}");
    }
}

#[test]
fn a_bucket_is_removed_with_all_its_pages() {
    let sim = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let db = open(&sim.shared(), 1024);
    let (mut map, mut rng) = (Map::new(), Rng(5));
    for _ in 0..20 {
        map = change(&db, &map, &mut rng).0;
    }
    let mut tx = db.begin().unwrap();
    assert!(tx.delete_bucket(b"key").unwrap() && !tx.delete_bucket(b"none").unwrap());
    tx.commit().unwrap();
    map.remove(&b"key"[..]);
    db.check().unwrap();
    assert!(content(&db.view()) == map && !db.view().bucket_exists(b"key").unwrap());
}

/// Adds `n` keys of 1000 bytes, or replaces them.
fn rewrite(db: &Db, n: usize, byte: u8) {
    let mut tx = db.begin().unwrap();
    tx.create_bucket(b"key").unwrap();
    for n in 0..n {
        let value = Bytes::from(vec![byte; 1000]);
        tx.put(b"key", format!("{n:04}").into(), value, Fill::Half).unwrap();
    }
    tx.commit().unwrap();
}

#[test]
fn an_image_holds_pages_until_its_rest_is_copied() {
    let disk: SharedDisk = std::sync::Arc::new(SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX }));
    let db = open(&disk, 4096);
    rewrite(&db, 500, b'a');
    let expected = content(&db.view());
    let mut image = db.view().image();
    assert_eq!(image.held_bytes(), 0);
    for byte in b"bcde" {
        rewrite(&db, 500, *byte);
    }
    let held = image.held_bytes();
    assert!(held > 4 * 500 * 1000, "all that was replaced is kept, and {held} bytes are");
    let grown = db.size();

    let copy = Path::new("/copy");
    let from = 4096 * 7 + 5;
    let mut first = vec![0; from as usize];
    image.read_at(&mut first, 0).unwrap();
    let paced = std::cell::Cell::new(0);
    image.move_to(&*disk, copy, from, &|bytes| paced.set(paced.get() + bytes)).unwrap();
    assert_eq!(paced.get() as u64, image.len() - from);
    assert!(!disk.exists(copy).unwrap() && image.is_copy() && image.held_bytes() == 0);
    // What is freed from now on is used again.
    for byte in b"fghi" {
        rewrite(&db, 500, *byte);
    }
    assert_eq!(db.size(), grown);

    let mut rest = vec![0; (image.len() - from) as usize];
    image.read_at(&mut rest, from).unwrap();
    let sent = disk.open(Path::new("/sent"), OpenOptions::create_new()).unwrap();
    sent.write_at(&[first, rest].concat(), 0).unwrap();
    let sent = Db::open(disk.clone(), Path::new("/sent"), options(4096)).unwrap();
    assert!(content(&sent.view()) == expected, "the image is the view's, wherever it is read from");
    assert!(image.read_at(&mut [0], from - 1).is_err() && image.read_at(&mut [0], image.len()).is_err());
}

#[test]
fn an_image_that_cannot_be_copied_stays_as_it_was() {
    let disk: SharedDisk = std::sync::Arc::new(SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX }));
    let db = open(&disk, 4096);
    rewrite(&db, 50, b'a');
    let mut image = db.view().image();
    assert!(image.move_to(&*disk, Path::new("/no/such/folder/copy"), 0, &|_| ()).is_err());
    let mut whole = vec![0; image.len() as usize];
    image.read_at(&mut whole, 0).unwrap();
    assert!(!image.is_copy() && whole.windows(1000).any(|bytes| bytes == [b'a'; 1000]));
}
