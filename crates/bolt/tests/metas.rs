//! When the last meta page can't be read, the one before it counts, and all that its tree needs is there: also when another
//! commit had begun, before the file was opened anew or after.

use bolt::{Db, Fill, Options};
use disk::{Crash, SimDisk, SimOptions};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

const PATH: &str = "/db";
const PAGE: u64 = 4096;
const KEYS: u64 = 300;

type State = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(disk: &SimDisk) -> Result<Db, bolt::Error> {
    Db::open(disk.shared(), Path::new(PATH), Options { page_size: Some(PAGE as u32), ..Options::default() })
}

/// Changes a third of all keys, and deletes some: pages are freed, and used again.
fn commit(db: &Db, round: u64, state: &mut State) -> Result<(), bolt::Error> {
    let mut tx = db.begin()?;
    tx.create_bucket(b"key")?;
    for n in (0..KEYS).filter(|n| (n + round).is_multiple_of(3)) {
        let key = format!("k{n:04}").into_bytes();
        if (n + round).is_multiple_of(21) {
            tx.delete(b"key", &key)?;
            state.remove(&key);
        } else {
            let value = vec![b'a' + (round % 26) as u8; 200];
            tx.put(b"key", key.clone().into(), value.clone().into(), Fill::Half)?;
            state.insert(key, value);
        }
    }
    tx.commit()
}

fn content(db: &Db) -> State {
    let view = db.view();
    let pairs = view.range(b"key", Bound::Unbounded, Bound::Unbounded).unwrap().map(Result::unwrap);
    pairs.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn txid_of(disk: &SimDisk, slot: u64) -> u64 {
    let file = disk.read_whole(Path::new(PATH)).unwrap();
    let at = (slot * PAGE) as usize + 64;
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

/// Some commits, one that a crash cuts after so many operations, and the last meta damaged; whether the crash came in time.
fn damaged_after(operations: u64, reopened: bool) -> bool {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let mut states = BTreeMap::new();
    let mut state = State::new();
    let mut db = open(&disk).unwrap();
    for round in 0..6 {
        commit(&db, round, &mut state).unwrap();
        states.insert(db.view().txid(), state.clone());
    }
    if reopened {
        drop(db);
        db = open(&disk).unwrap();
    }
    let next = db.view().txid() + 1;
    disk.crash_after(operations);
    let cut = commit(&db, 6, &mut state).is_err();
    states.insert(next, state);
    drop(db);
    disk.crash_now();
    disk.reboot(Crash::Keep);
    let (a, b) = (txid_of(&disk, 0), txid_of(&disk, 1));
    assert!(disk.corrupt(Path::new(PATH), u64::from(b > a) * PAGE + 70, 0x10));
    let db = open(&disk).unwrap();
    assert_eq!(db.view().txid(), a.min(b));
    db.check().unwrap();
    let (found, expected) = (content(&db), &states[&a.min(b)]);
    let sizes = (found.len(), expected.len());
    assert!(found == *expected, "after {operations} operations, opened anew: {reopened}; keys: {sizes:?}");
    cut
}

/// A copy is made by many commits, and none of them but the last is a state that ever was.
#[test]
fn a_copy_is_whole_by_either_of_its_metas() {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let (db, mut state) = (open(&disk).unwrap(), State::new());
    (0..4).for_each(|round| commit(&db, round, &mut state).unwrap());
    for slot in 0..2 {
        let path = format!("/copy{slot}");
        let path = Path::new(&path);
        db.compact_to(disk.shared(), path).unwrap();
        assert!(disk.corrupt(path, slot * PAGE + 70, 0x10));
        let copy = Db::open(disk.shared(), path, Options::default()).unwrap();
        copy.check().unwrap();
        let found = content(&copy);
        assert!(found == state, "without meta {slot}: {} of {} keys", found.len(), state.len());
    }
}

#[test]
fn the_meta_before_a_damaged_one_has_its_whole_tree() {
    for reopened in [false, true] {
        let cut = (0..).take_while(|operations| damaged_after(*operations, reopened)).count();
        assert!(cut > 2, "a commit has more operations than {cut}");
    }
}
