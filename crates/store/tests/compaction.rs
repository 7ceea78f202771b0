//! Compaction through the store's boundary.

mod world;

use api::pb::etcdserverpb as pb;
use store::{History as _, Options};
use world::World;

/// Steps of each kind until the compaction is done: those after which the member pauses, and the others.
fn steps(world: &mut World, batch: usize) -> (usize, usize) {
    let (mut paused, mut others) = (0, 0);
    loop {
        let progress = world.store.compaction_step(batch, batch).unwrap();
        match progress.pause {
            true => paused += 1,
            false => others += 1,
        }
        if progress.done {
            return (paused, others);
        }
    }
}

#[test]
fn only_batches_of_deletions_are_followed_by_a_pause() {
    let mut world = World::new(Options::default());
    for n in 0..300 {
        world.put(&format!("k{n}"), "v").unwrap();
    }
    for _ in 0..6400 {
        world.put("hot", "v").unwrap();
    }
    world.schedule(world.store.header().revision).unwrap();
    let (paused, others) = steps(&mut world, 100);
    assert_eq!(paused, 6700_usize.div_ceil(100) - 1, "a hundred records at once, and no pause after the last");
    // 100 of the first key's 199 chunks of revisions, then all 301 keys; and the last batch of records.
    assert_eq!(others, 1 + 4 + 1, "the index in bounded pieces, too");
}

#[test]
fn a_key_stays_readable_while_its_history_is_taken_off_in_pieces() {
    let mut world = World::new(Options::default());
    for n in 0..2000 {
        world.put("hot", n.to_string()).unwrap();
    }
    // Revision 2 has the value 0.
    world.schedule(1502).unwrap();
    loop {
        let (applied, _) = world.publish();
        for revision in [1502, 1503, 2001] {
            let range = pb::RangeRequest { key: "hot".into(), revision, ..Default::default() };
            assert_eq!(applied.range(&range).unwrap().kvs[0].value, (revision - 2).to_string());
        }
        if world.store.compaction_step(3, 3).unwrap().done {
            break;
        }
    }
    assert_eq!(
        world.publish().0.range(&pb::RangeRequest { key: "hot".into(), ..Default::default() }).unwrap().count,
        1
    );
}

#[test]
fn a_key_that_comes_back_meanwhile_leaves_no_record_of_its_former_life() {
    let mut world = World::new(Options::default());
    world.put("k", "v").unwrap();
    world.delete("k").unwrap();
    world.put("other", "v").unwrap();
    world.schedule(4).unwrap();
    // The index has forgotten it by now.
    world.store.compaction_step(1000, 1000).unwrap();
    world.put("k", "v").unwrap();
    while !world.store.compaction_step(1000, 1000).unwrap().done {}
    let (changes, _) = world.publish().0.changes(1, 5, 10, 1000).unwrap();
    assert_eq!(changes.iter().map(|c| c.revision).collect::<Vec<_>>(), [4, 5]);
}

/// The numbers are Go etcd 3.7.1's.
#[test]
fn a_compactions_hash_leaves_out_what_goes_even_if_only_a_tombstone_stays() {
    let mut world = World::new(Options::default());
    world.put("a", "1").unwrap();
    world.compact(2);
    world.delete("a").unwrap();
    world.compact(3);
    assert_eq!(world.hash_kv(3), (3_681_333_679, 2));
}

fn with_history() -> World {
    let mut world = World::new(Options::default());
    for n in 0..40 {
        world.put(&format!("k{}", n % 3), n.to_string()).unwrap();
    }
    world
}

#[test]
fn a_compaction_finishes_and_keeps_its_hash_though_others_were_asked_for_meanwhile() {
    let mut undisturbed = with_history();
    undisturbed.compact(10);
    let expected = undisturbed.hash_kv(10);

    let mut world = with_history();
    world.schedule(10).unwrap();
    world.store.compaction_step(1, 1).unwrap();
    world.schedule(20).unwrap();
    world.schedule(30).unwrap();
    while !world.store.compaction_step(1, 1).unwrap().done {}
    assert_eq!(world.hash_kv(10), expected);
    let (_, compacted) = world.hash_kv(30);
    assert_eq!(compacted, 30, "those that waited leave no hash behind: this one is made now");
    // … and did their work.
    let mut other = with_history();
    other.compact(30);
    assert_eq!(world.publish().0.hash(&|_| ()).unwrap(), other.publish().0.hash(&|_| ()).unwrap());
}

#[test]
fn records_deleted_before_are_passed_in_bounded_steps_and_without_a_pause() {
    let mut world = World::new(Options::default());
    for _ in 0..1000 {
        world.put("hot", "v").unwrap();
    }
    world.compact(1001);
    world.put("hot", "v").unwrap();
    world.schedule(1002).unwrap();
    let (paused, others) = steps(&mut world, 100);
    // The index, 999 records that no checkpoint has removed yet and one that the first compaction kept; the last batch.
    assert_eq!((paused, others), (1, 1 + 9 + 1));
}

/// Go drops the record of the put and keeps the key in its index: the next read of it ends the server (docs/COMPAT.md).
#[test]
fn a_key_deleted_and_put_in_one_transaction_outlives_a_compaction_at_its_revision() {
    let mut world = World::new(Options::default());
    world.put("n3", "old").unwrap();
    world.txn(vec![world::delete("n", "\0"), world::put("n3", "fresh")]).unwrap();
    world.compact(3);
    world.checkpoint();
    let mut world = world.restart(Options::default());
    let range = pb::RangeRequest { key: "n3".into(), ..Default::default() };
    assert_eq!(world.publish().0.range(&range).unwrap().kvs[0].value, "fresh");
}
