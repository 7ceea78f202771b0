//! The sizes that the quota and Status go by.

mod world;

use store::{Options, Store};
use world::World;

const QUOTA: i64 = 10 << 20;
const VALUE: usize = 20_000;

fn options() -> Options {
    Options { quota_bytes: QUOTA, ..Options::default() }
}

fn sizes(store: &Store) -> (i64, i64) {
    assert!(store.size_in_use() <= store.size());
    (store.size(), store.size_in_use())
}

#[test]
fn revisions_that_were_compacted_again_do_not_count() {
    let mut world = World::new(options());
    for n in 0..4000 {
        world.put(&format!("k{}", n % 10), vec![b'v'; VALUE]).unwrap();
        if n % 20 == 19 {
            world.compact(world.store.header().revision);
        }
        // As the member: a checkpoint for every 16 MiB of changes.
        if world.store.overlay_bytes() > 16 << 20 {
            world.checkpoint();
        }
        let (size, _) = sizes(&world.store);
        assert!(size < QUOTA / 4, "{size} bytes after {n} puts");
    }
}

#[test]
fn what_waits_counts_as_it_will_in_the_file() {
    let mut world = World::new(options());
    for n in 0..100 {
        world.put(&format!("k{n}"), vec![b'v'; VALUE]).unwrap();
    }
    let (waiting, waiting_in_use) = sizes(&world.store);
    world.checkpoint();
    let (written, written_in_use) = sizes(&world.store);
    let near = |a: i64, b: i64| (a - b).abs() < b / 4;
    assert!(waiting > 100 * VALUE as i64, "{waiting}");
    assert!(
        near(waiting, written) && near(waiting_in_use, written_in_use),
        "{waiting} {written}, {waiting_in_use} {written_in_use}"
    );
}

#[test]
fn deletions_add_nothing_and_free_pages_are_filled_first() {
    let mut world = World::new(options());
    for n in 0..100 {
        world.put(&format!("k{n}"), vec![b'v'; VALUE]).unwrap();
    }
    world.checkpoint();
    let (full, _) = sizes(&world.store);
    for n in 0..100 {
        world.delete(&format!("k{n}")).unwrap();
    }
    world.put("last", "v").unwrap();
    world.compact(world.store.header().revision);
    assert!(sizes(&world.store).0 <= full + (64 << 10), "a hundred deletions waiting");
    world.checkpoint();
    let (mark, in_use) = sizes(&world.store);
    assert!(in_use < full / 4, "{in_use} bytes in use");
    for n in 0..50 {
        world.put(&format!("n{n}"), vec![b'v'; VALUE]).unwrap();
        assert_eq!(sizes(&world.store).0, mark, "there is room below the high-water mark");
    }
}

#[test]
fn what_a_checkpoint_is_writing_counts_once() {
    let mut world = World::new(options());
    for n in 0..100 {
        world.put(&format!("k{n}"), vec![b'v'; VALUE]).unwrap();
    }
    let before = sizes(&world.store);
    let mut checkpoint = world.store.freeze().unwrap();
    assert!(sizes(&world.store).0 - before.0 < 4096, "frozen");
    checkpoint.run(&|_| ()).unwrap();
    assert!(sizes(&world.store).0 - before.0 < 4096, "written, and not taken back yet");
    world.store.checkpointed(checkpoint).unwrap();
}
