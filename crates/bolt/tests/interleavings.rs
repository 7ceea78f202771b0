//! Pages under views, with threads in every order that a checker can think of: what a view sees never changes, whatever is
//! committed meanwhile (docs/TESTING.md).

use bolt::{Db, Fill, Options};
use bytes::Bytes;
use disk::{SimDisk, SimOptions};
use failpoint::mutant::switch_to;
use shuttle::scheduler::PctScheduler;
use shuttle::{Config, Runner, thread};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

const COMMITS: u64 = 4;
const KEYS: u64 = 12;
const LOOKS: usize = 2;

/// Commit `n` gives each key the value `n`, so that every page is written anew.
fn commit(db: &Db, n: u64) {
    let mut tx = db.begin().unwrap();
    tx.create_bucket(b"b").unwrap();
    for key in 0..KEYS {
        let value = Bytes::from(format!("{n:0>200}"));
        tx.put(b"b", Bytes::from(format!("key{key}")), value, Fill::Half).unwrap();
    }
    tx.commit().unwrap();
}

/// Looks more than once: what a view saw, it sees again, and it is what its commit wrote. Commit 0 has the number `first`.
fn look(db: &Db, first: u64) {
    for _ in 0..LOOKS {
        let view = db.view();
        let all = || {
            let pairs = view.range(b"b", Bound::Unbounded, Bound::Unbounded).unwrap();
            pairs.map(|pair| pair.expect("a whole page").1).collect::<Vec<_>>()
        };
        let written = format!("{:0>200}", view.txid() - first);
        for _ in 0..2 {
            let values = all();
            assert_eq!(values.len() as u64, KEYS);
            assert!(values.iter().all(|value| value == written.as_bytes()), "the view has changed");
        }
    }
}

fn story() {
    let disk = SimDisk::new(SimOptions { seed: 1, capacity: u64::MAX });
    let options = Options { page_size: Some(1024), cache_bytes: 0, no_sync: true, ..Options::default() };
    let db = Db::open(disk.shared(), Path::new("/db"), options).unwrap();
    commit(&db, 0);
    let first = db.view().txid();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let db = db.clone();
            thread::spawn(move || look(&db, first))
        })
        .collect();
    for n in 1..=COMMITS {
        commit(&db, n);
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    db.check().unwrap();
    // What the views kept is free now: a commit finds room without the file growing.
    commit(&db, COMMITS + 1);
    let size = db.size();
    commit(&db, COMMITS + 2);
    commit(&db, COMMITS + 3);
    assert_eq!(db.size(), size, "pages of views that are gone stay taken");
}

/// Runs the story in so many orders; each seed draws others.
fn orders(seed: u64, many: usize) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    Runner::new(PctScheduler::new_from_seed(seed, 3, many), config).run(story);
}

#[test]
fn a_view_never_changes_in_any_order_of_threads() {
    orders(1, 300);
}

#[test]
fn mistakes_that_only_threads_show_are_found() {
    for mutant in ["pagesTakenFromViews", "viewCountedLate"] {
        switch_to(Some(mutant)).unwrap();
        let found = catch_unwind(AssertUnwindSafe(|| orders(2, 2000)));
        switch_to(None).unwrap();
        assert!(found.is_err(), "{mutant} is not noticed");
    }
}
