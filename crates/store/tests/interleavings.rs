//! What apply publishes, looked at by threads in every order that a checker can think of, while changes go into the page
//! store and pages are used again: a state says the same as long as somebody holds it (docs/TESTING.md).

mod world;

use api::pb::etcdserverpb as pb;
use failpoint::mutant::switch_to;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::{Config, Runner, thread};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use store::{Applied, Checkpoint, Options, Published};
use world::World;

const STEPS: i64 = 24;
const LOOKS: usize = 4;
/// The compaction takes part from this step on.
const COMPACTED: i64 = 6;

/// Keys and values behind each revision, from the beginning.
type Expected = Vec<BTreeMap<String, String>>;

fn expected() -> Expected {
    let mut states = vec![BTreeMap::new(), BTreeMap::new()];
    for n in 0..STEPS {
        let mut state = states[states.len() - 1].clone();
        match n % 4 {
            3 => drop(state.remove("k1")),
            _ => drop(state.insert(format!("k{}", n % 3), format!("{n:0>300}"))),
        }
        states.push(state);
    }
    states
}

fn step(world: &mut World, n: i64) {
    match n % 4 {
        3 => drop(world.delete("k1").unwrap()),
        _ => drop(world.put(&format!("k{}", n % 3), format!("{n:0>300}")).unwrap()),
    }
}

/// The state is what it must be, now and in its past.
fn check(applied: &Applied, expected: &Expected) {
    let newest = applied.revision();
    for revision in [0, (newest - 1).max(applied.compact_revision()).max(1)] {
        let request = pb::RangeRequest { key: "k".into(), range_end: "l".into(), revision, ..Default::default() };
        let range = applied.range(&request).unwrap();
        let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let found: BTreeMap<_, _> = range.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect();
        let at = if revision == 0 { newest } else { revision };
        assert_eq!(&found, &expected[at as usize], "at {at}, held at {newest}");
    }
}

/// Answers what it looked at, to be held on to.
fn read(published: &Published, expected: &Expected) -> Vec<Arc<Applied>> {
    let mut held = Vec::new();
    let mut last: Arc<Applied> = published.load_full();
    for _ in 0..LOOKS {
        check(&last, expected);
        let next = published.load_full();
        assert!(next.revision() >= last.revision() && next.index() >= last.index(), "time goes back");
        check(&last, expected);
        held.push(std::mem::replace(&mut last, next));
    }
    check(&last, expected);
    held.push(last);
    held
}

/// The thread that writes checkpoints.
fn checkpointer(jobs: &Receiver<Checkpoint>, done: &Sender<Checkpoint>) {
    while let Ok(mut job) = jobs.recv() {
        job.run(&|_| thread::yield_now()).unwrap();
        if done.send(job).is_err() {
            return;
        }
    }
}

/// As the driver's core: apply, publish, hand out a checkpoint when none is under way, take it back when it is done.
fn story() {
    let expected = Arc::new(expected());
    let mut world = World::new(Options { cache_bytes: 0, page_size: Some(1024), ..Options::default() });
    step(&mut world, 0);
    let published = Arc::new(Published::new(world.publish().0));
    let ((jobs, job_queue), (done, done_queue)) = (channel(), channel());
    let writer = thread::spawn(move || checkpointer(&job_queue, &done));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (published, expected) = (published.clone(), expected.clone());
            thread::spawn(move || read(&published, &expected))
        })
        .collect();
    let mut writing = false;
    for n in 1..STEPS {
        step(&mut world, n);
        if n == COMPACTED {
            world.schedule(3).unwrap();
        }
        world.store.compaction_step(2, 2).unwrap();
        if writing && let Ok(job) = done_queue.try_recv() {
            world.store.checkpointed(job).unwrap();
            writing = false;
        }
        if !writing && let Some(job) = world.store.freeze() {
            jobs.send(job).unwrap();
            writing = true;
        }
        published.store(world.publish().0);
        thread::yield_now();
    }
    if writing {
        world.store.checkpointed(done_queue.recv().unwrap()).unwrap();
    }
    drop(jobs);
    writer.join().unwrap();
    let held: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    held.iter().for_each(|applied| check(applied, &expected));
    drop(held);
    world.store.verify_pages().unwrap();
    world.store.verify().unwrap();
    check(&published.load(), &expected);
}

fn orders(seed: u64, many: usize) {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    // Threads that stand still for long, and threads that take turns: each finds what the other does not.
    Runner::new(PctScheduler::new_from_seed(seed, 3, many), config.clone()).run(story);
    Runner::new(RandomScheduler::new_from_seed(seed, many), config).run(story);
}

#[test]
fn a_published_state_never_changes_in_any_order_of_threads() {
    orders(1, 150);
}

#[test]
fn mistakes_that_only_threads_show_are_found() {
    for mutant in ["pagesTakenFromViews", "publishedBeforeDurable"] {
        switch_to(Some(mutant)).unwrap();
        let found = catch_unwind(AssertUnwindSafe(|| orders(2, 1000)));
        switch_to(None).unwrap();
        assert!(found.is_err(), "{mutant} is not noticed");
    }
}
