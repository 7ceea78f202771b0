//! T18: events that many watchers share, and what they keep in memory when nobody reads them.
//!
//! etcd once gave slow watchers events in ever larger pieces, each of which kept what it was cut from (issues 17563, 21355).

mod world;

use api::pb::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use store::Options;
use store::watch::{Config, Effect, Hub, Input, OUTBOX_BYTES, OUTBOX_MAX, StreamId};
use world::World;

const STREAMS: u64 = 4;
const WATCHERS: u64 = 1000;
const VALUE: usize = 16 << 10;
const PUTS: usize = 3000;
/// One response may go beyond the limit: a piece of history, in watch/mod.rs, and what its events are made of.
const ONE_READ: usize = (4 << 20) + (512 << 10);

/// What a transport would hold of each stream.
#[derive(Default)]
struct Transport {
    waiting: BTreeMap<StreamId, Vec<pb::WatchResponse>>,
}

impl Transport {
    /// Does what the hub wants, until it wants nothing.
    fn work(&mut self, hub: &mut Hub, world: &mut World, mut out: Vec<Effect>) {
        while !out.is_empty() {
            let mut next = Vec::new();
            for effect in out {
                match effect {
                    Effect::ReadHistory { job } => {
                        let result = job.run(&*world.publish().0).unwrap();
                        hub.handle(Input::HistoryRead(result), &mut next);
                    }
                    Effect::Send { stream, response } => self.waiting.entry(stream).or_default().push(response),
                    Effect::SendBurst { stream, burst } => {
                        self.waiting.entry(stream).or_default().extend(burst.responses());
                    }
                    Effect::WantPrev(_) => {}
                }
            }
            out = next;
        }
    }

    /// Bytes that the responses of all streams keep, each value once, and what one stream's events are made of.
    fn held(&self) -> usize {
        let mut values = BTreeMap::new();
        let mut parts = 0;
        for event in self.waiting.values().flatten().flat_map(|response| &response.events) {
            parts += size_of_val(event);
            let value = &event.kv.as_ref().unwrap().value;
            values.insert(value.as_ptr(), value.len());
        }
        parts + values.values().sum::<usize>()
    }
}

fn put(world: &mut World, n: usize) {
    world.put(&format!("k{}", n % 50), vec![b'v'; VALUE]).unwrap();
    if world.store.overlay_bytes() > 8 << 20 {
        world.checkpoint();
    }
}

/// Half of the watchers come from the past, half are overtaken by the present; no client takes anything, and at the end all
/// of them get everything.
#[test]
fn t18_slow_watchers_hold_memory_within_the_limit() {
    let mut world = World::new(Options { cache_bytes: 1 << 20, ..Options::default() });
    (0..PUTS / 2).for_each(|n| put(&mut world, n));
    let (applied, _) = world.publish();
    let mut hub = Hub::new(Config {
        member_id: 1,
        cluster_id: 2,
        revision: applied.revision(),
        term: 1,
        max_request_bytes: 3 << 19,
        progress_interval_ms: 600_000,
    });
    let mut transport = Transport::default();
    for n in 0..WATCHERS {
        let stream = StreamId(n % STREAMS);
        let mut out = Vec::new();
        if n < STREAMS {
            hub.handle(Input::Open { stream, now_ms: 0, jitter_ms: 0 }, &mut out);
        }
        let create = pb::WatchCreateRequest {
            key: "k".into(),
            range_end: "l".into(),
            start_revision: if n < WATCHERS / 2 { 2 + (n / STREAMS) as i64 } else { 0 },
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        hub.handle(Input::Request { stream, request, permitted: Ok(()) }, &mut out);
        transport.work(&mut hub, &mut world, out);
    }
    // Answers to requests are read; then the clients stop.
    let mut out = Vec::new();
    for (stream, waiting) in &mut transport.waiting {
        let answers = waiting.extract_if(.., |response| response.created).count();
        hub.handle(Input::Credit { stream: *stream, n: answers }, &mut out);
    }
    transport.work(&mut hub, &mut world, out);
    let limit = STREAMS as usize * (OUTBOX_BYTES + ONE_READ);
    let mut most = 0;
    for n in PUTS / 2..PUTS {
        put(&mut world, n);
        let (applied, changes) = world.publish();
        let mut out = Vec::new();
        hub.handle(Input::Published { revision: applied.revision(), term: 1, changes }, &mut out);
        transport.work(&mut hub, &mut world, out);
        if n % 250 == 0 {
            most = most.max(transport.held());
            assert!(most <= limit, "{most} bytes wait for {STREAMS} streams after {n} puts, the limit is {limit}");
        }
        assert!(transport.waiting.values().all(|waiting| waiting.len() <= OUTBOX_MAX));
    }
    assert!(most > limit / 8, "only {most} bytes were held: nothing was tried");
    assert!(hub.counts().slow > WATCHERS as usize / 2, "{} are slow", hub.counts().slow);
    read_on(&mut hub, &mut world, &mut transport);
}

/// The clients read again. Every watcher gets every revision once, in order.
fn read_on(hub: &mut Hub, world: &mut World, transport: &mut Transport) {
    let newest = world.publish().0.revision();
    let mut seen: BTreeMap<(StreamId, i64), (i64, i64)> = BTreeMap::new();
    loop {
        let waiting = std::mem::take(&mut transport.waiting);
        if waiting.values().all(Vec::is_empty) {
            break;
        }
        let mut out = Vec::new();
        for (stream, responses) in waiting {
            for response in &responses {
                let revisions = response.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision);
                for revision in revisions {
                    let (_, last) = seen.entry((stream, response.watch_id)).or_insert((revision, revision - 1));
                    assert_eq!(revision, *last + 1, "{stream:?}, watcher {}", response.watch_id);
                    *last = revision;
                }
            }
            hub.handle(Input::Credit { stream, n: responses.len() }, &mut out);
        }
        transport.work(hub, world, out);
    }
    assert_eq!(seen.len(), WATCHERS as usize);
    for ((stream, watcher), (first, last)) in seen {
        let (n, present) = (watcher as u64 * STREAMS + stream.0, 2 + PUTS as i64 / 2);
        let start = if n < WATCHERS / 2 { 2 + watcher } else { present };
        assert_eq!((first, last), (start, newest), "watcher {watcher} of {stream:?}");
    }
}
