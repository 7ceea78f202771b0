//! A random world for the hub: streams that open, stall and close; watchers with filters, previous values and ends of
//! all kinds; gaps, compactions, delayed reads. Each watcher is held against what it must see. (etcd's robustness
//! tests name the guarantees: ordered, unique, atomic, reliable, resumable, bookmarkable, filter, prevKV.)

use super::*;
use crate::{Change, Event, History, Prev};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::{self, KeyValue};
use pb::watch_request::RequestUnion;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: [&str; 5] = ["a", "ab", "b", "c", "d"];

struct Rng(u64);

impl Rng {
    fn draw(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Everything that happened, with previous values.
#[derive(Default)]
struct Past {
    changes: Vec<Change>,
    live: BTreeMap<&'static str, Arc<KeyValue>>,
    compacted: i64,
}

impl Past {
    /// A transaction; what is published of it may lack previous values.
    fn write(&mut self, random: &mut Rng) -> Change {
        let revision = self.changes.len() as i64 + 2;
        let mut events = Vec::new();
        for key in KEYS {
            if random.draw(3) > 0 && !(events.is_empty() && key == KEYS[4]) {
                continue;
            }
            let prev = self.live.get(key).map_or(Prev::None, |kv| Prev::Some(Arc::clone(kv)));
            let kv = KeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
            if prev != Prev::None && random.draw(3) == 0 {
                self.live.remove(key);
                events.push(Event::Delete { kv: Arc::new(kv), prev });
            } else {
                let kv = Arc::new(KeyValue { value: format!("{revision}").into(), version: 1, ..kv });
                self.live.insert(key, Arc::clone(&kv));
                events.push(Event::Put { kv, prev });
            }
        }
        self.changes.push(Change { revision, events: events.into() });
        without_prev(&self.changes[self.changes.len() - 1], random.draw(2) == 0)
    }
}

fn without_prev(change: &Change, unknown: bool) -> Change {
    let strip = |e: &Event| match e.clone() {
        e if !unknown => e,
        Event::Put { kv, .. } => Event::Put { kv, prev: Prev::Unknown },
        Event::Delete { kv, .. } => Event::Delete { kv, prev: Prev::Unknown },
    };
    Change { revision: change.revision, events: change.events.iter().map(strip).collect() }
}

impl History for Past {
    fn revision(&self) -> i64 {
        self.changes.len() as i64 + 1
    }
    fn compact_revision(&self) -> i64 {
        self.compacted
    }
    fn changes(&self, from: i64, to: i64, _: usize, _: usize) -> Result<(Vec<Change>, i64), crate::Error> {
        let inside = self.changes.iter().filter(|c| c.revision >= from && c.revision <= to);
        let found: Vec<Change> = inside.take(7).map(|c| without_prev(c, true)).collect();
        let covered = if found.len() == 7 { found[6].revision } else { to };
        Ok((found, covered))
    }
    fn value_at(&self, key: &[u8], revision: i64) -> Result<Option<Arc<KeyValue>>, crate::Error> {
        let changes = self.changes.iter().filter(|c| c.revision <= revision && revision >= self.compacted);
        Ok(changes.flat_map(|c| c.events.iter()).rfind(|e| e.kv().key == key).and_then(|e| match e {
            Event::Put { kv, .. } => Some(Arc::clone(kv)),
            Event::Delete { .. } => None,
        }))
    }
}

/// A watcher as its client knows it.
struct Client {
    request: pb::WatchCreateRequest,
    from: i64,
    created: bool,
    cancelled: bool,
    got: Vec<mvccpb::Event>,
    /// Told that nothing at or below this is to come.
    bookmark: i64,
}

impl Client {
    fn expects<'a>(&'a self, past: &'a Past) -> impl Iterator<Item = &'a Event> {
        let (key, end) = (&self.request.key, &self.request.range_end);
        let inside = move |k: &[u8]| match end.as_ref() {
            [] => k == key.as_ref(),
            [0] => k >= key.as_ref(),
            end => k >= key.as_ref() && k < end,
        };
        let changes = past.changes.iter().filter(|c| c.revision >= self.from);
        changes.flat_map(|c| c.events.iter()).filter(move |e| {
            let filter = i32::from(matches!(e, Event::Delete { .. }));
            inside(&e.kv().key) && !self.request.filters.contains(&filter)
        })
    }

    fn take(&mut self, response: &pb::WatchResponse, past: &Past) {
        assert!(!self.cancelled, "something follows the cancellation");
        assert_eq!(self.created, !response.created, "created comes first, and once");
        self.created = true;
        self.cancelled = response.canceled;
        let Some(first) = response.events.first().map(revision_of) else { return };
        assert!(
            first > self.bookmark && first > self.got.last().map_or(0, revision_of),
            "a revision was split or repeated"
        );
        let expected: Vec<&Event> = self.expects(past).skip(self.got.len()).take(response.events.len()).collect();
        assert_eq!(expected.len(), response.events.len());
        for (event, expected) in response.events.iter().zip(expected) {
            assert_eq!(event.kv.as_ref(), Some(expected.kv().as_ref()));
            let prev = match expected.prev() {
                Prev::Some(kv) if self.request.prev_kv => Some(kv.as_ref()),
                _ => None,
            };
            let lost = event.prev_kv.is_none() && revision_of(event) - 1 < past.compacted;
            assert!(event.prev_kv.as_ref() == prev || lost, "previous value of {event:?} is {prev:?}");
        }
        self.got.extend(response.events.iter().cloned());
    }

    /// Nothing that it should have seen by `revision` is missing.
    fn is_at(&self, revision: i64, past: &Past) {
        let due = self.expects(past).filter(|e| e.kv().mod_revision <= revision).count();
        assert_eq!(self.got.len(), due, "progress {revision} leaves events out, or is late");
    }
}

fn revision_of(event: &mvccpb::Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

struct World {
    random: Rng,
    hub: Hub,
    past: Past,
    /// Watchers by stream and id.
    clients: BTreeMap<(u64, i64), Client>,
    streams: Vec<u64>,
    opened: u64,
    /// Responses not yet taken, by stream.
    outbox: BTreeMap<u64, usize>,
    jobs: Vec<HistoryJob>,
    published: i64,
    now_ms: u64,
    events: usize,
    fullest: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let config = Config {
            member_id: 1,
            cluster_id: 2,
            revision: 1,
            term: 3,
            max_request_bytes: 1 << 20,
            progress_interval_ms: 5,
        };
        World {
            random: Rng(seed),
            hub: Hub::new(config),
            past: Past { compacted: -1, ..Past::default() },
            clients: BTreeMap::new(),
            streams: Vec::new(),
            opened: 0,
            outbox: BTreeMap::new(),
            jobs: Vec::new(),
            published: 1,
            now_ms: 0,
            events: 0,
            fullest: 0,
        }
    }

    fn give(&mut self, input: Input) {
        let mut out = Vec::new();
        self.hub.handle(input, &mut out);
        for effect in out {
            match effect {
                Effect::Send { stream, response } => self.absorb(stream.0, &response),
                Effect::SendBurst { stream, burst } => {
                    burst.responses().for_each(|response| self.absorb(stream.0, &response));
                }
                Effect::ReadHistory { job } => self.jobs.push(job),
                Effect::WantPrev(_) => {}
            }
        }
        assert!(self.jobs.len() <= 1, "one read at a time");
    }

    fn absorb(&mut self, stream: u64, response: &pb::WatchResponse) {
        let waiting = self.outbox.entry(stream).or_default();
        *waiting += 1;
        let answer = response.created || response.canceled && response.compact_revision == 0;
        assert!(answer || *waiting <= OUTBOX_MAX, "more than the transport holds");
        self.fullest = self.fullest.max(*waiting);
        self.events += response.events.len();
        let revision = response.header.map_or(0, |h| h.revision);
        if response.watch_id == -1 && response.canceled {
            return;
        }
        let progress = response.events.is_empty() && !response.created && !response.canceled;
        let all = progress && response.watch_id == -1;
        let mine = self.clients.range_mut((stream, i64::MIN)..=(stream, i64::MAX));
        for ((_, id), client) in mine.filter(|((_, id), _)| all || *id == response.watch_id) {
            if progress {
                if !client.cancelled {
                    assert!(client.created && revision >= client.request.start_revision, "{id} is told too early");
                    client.is_at(revision, &self.past);
                    client.bookmark = revision;
                }
                continue;
            }
            if response.canceled && response.compact_revision > 0 {
                let missed = client.expects(&self.past).nth(client.got.len()).map(|e| e.kv().mod_revision);
                let compacted = self.past.compacted;
                assert!(client.from < compacted && response.compact_revision <= compacted, "{missed:?} was there");
            }
            client.take(response, &self.past);
        }
    }

    fn ask(&mut self, stream: u64, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.give(Input::Request { stream: StreamId(stream), request, permitted: Ok(()) });
    }

    fn create(&mut self, stream: u64) {
        let start_revision = match self.random.draw(3) {
            0 => 0,
            1 => self.published + self.random.draw(4) as i64,
            _ => 1 + self.random.draw(self.past.changes.len() + 4) as i64,
        };
        let (key, range_end) =
            [("a", ""), ("b", ""), ("a", "b"), ("ab", "d"), ("b", "\0"), ("a", "\0")][self.random.draw(6)];
        // An id of the client's choice: the world must know the watcher before it is answered.
        let watch_id = 1 + self.random.draw(40) as i64;
        if self.clients.get(&(stream, watch_id)).is_some_and(|c| !c.cancelled) {
            return;
        }
        let request = pb::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            watch_id,
            prev_kv: self.random.draw(3) == 0,
            progress_notify: self.random.draw(2) == 0,
            filters: [vec![], vec![0], vec![1]][self.random.draw(3)].clone(),
            ..Default::default()
        };
        self.clients.remove(&(stream, watch_id));
        // The id of a watcher that was cancelled for a compaction is taken until the client cancels it, too.
        self.ask(stream, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
        let from = if start_revision == 0 { self.published + 1 } else { start_revision };
        let client =
            Client { request: request.clone(), from, created: false, cancelled: false, got: Vec::new(), bookmark: 0 };
        self.clients.insert((stream, watch_id), client);
        self.ask(stream, RequestUnion::CreateRequest(request));
    }

    fn cancel(&mut self, stream: u64) {
        let watch_id = 1 + self.random.draw(40) as i64;
        if self.clients.get(&(stream, watch_id)).is_some_and(|c| !c.cancelled) {
            self.ask(stream, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
            assert!(self.clients[&(stream, watch_id)].cancelled, "a known id is answered at once");
        }
    }

    fn publish(&mut self) {
        let random = &mut self.random;
        let changes: Vec<Change> = (0..1 + random.draw(4)).map(|_| self.past.write(random)).collect();
        self.published = self.past.revision();
        let (revision, term) = (self.published, 3);
        if self.random.draw(12) == 0 {
            self.give(Input::Resync { revision, term });
        } else {
            self.give(Input::Published { revision, term, changes });
        }
    }

    fn take(&mut self, stream: u64) {
        let waiting = self.outbox.get(&stream).copied().unwrap_or_default();
        let n = self.random.draw(waiting + 1);
        self.outbox.insert(stream, waiting - n);
        self.give(Input::Credit { stream: StreamId(stream), n });
    }

    fn read(&mut self) {
        if let Some(job) = self.jobs.pop() {
            let result = job.run(&self.past).unwrap();
            // The state moves on before the answer is there.
            if self.random.draw(3) == 0 {
                self.publish();
            }
            self.give(Input::HistoryRead(result));
        }
    }

    fn step(&mut self) {
        let open = self.streams.len();
        let stream = self.streams.get(self.random.draw(open.max(1))).copied();
        match (self.random.draw(40), stream) {
            (0..2, _) if open < 4 => {
                self.opened += 1;
                self.streams.push(self.opened);
                let (stream, now_ms) = (StreamId(self.opened), self.now_ms);
                self.give(Input::Open { stream, now_ms, jitter_ms: 0 });
            }
            (2, Some(stream)) if open > 1 => {
                self.streams.retain(|s| *s != stream);
                self.give(Input::Close { stream: StreamId(stream) });
                self.clients.retain(|(s, _), _| *s != stream);
                self.outbox.remove(&stream);
            }
            (3..8, Some(stream)) => self.create(stream),
            (8..10, Some(stream)) => self.cancel(stream),
            (10..24, _) => self.publish(),
            (24..28, _) => self.read(),
            (28..31, Some(stream)) => self.take(stream),
            (31, _) if self.published > 20 => {
                self.past.compacted = self.past.compacted.max(self.published - self.random.draw(20) as i64);
            }
            (32..35, Some(stream)) => self.ask(stream, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
            _ => {
                self.now_ms += 1;
                self.give(Input::Tick { now_ms: self.now_ms });
            }
        }
    }

    /// Lets everything come to rest: whoever still watches has seen all.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            for stream in self.streams.clone() {
                let n = self.outbox.insert(stream, 0).unwrap_or_default();
                self.give(Input::Credit { stream: StreamId(stream), n });
            }
            let Some(job) = self.jobs.pop() else { break };
            let result = job.run(&self.past).unwrap();
            self.give(Input::HistoryRead(result));
        }
        assert!(self.jobs.is_empty() && self.hub.counts().slow == 0, "someone never catches up");
        for client in self.clients.values().filter(|c| !c.cancelled) {
            client.is_at(self.published, &self.past);
        }
        let watching = self.clients.values().filter(|c| !c.cancelled).count();
        assert_eq!((self.hub.counts().watchers, self.hub.counts().streams), (watching, self.streams.len()));
        assert_eq!(self.hub.counts().events, self.events as u64);
    }
}

#[test]
fn every_watcher_sees_what_it_must_and_nothing_else() {
    let (mut events, mut stalled) = (0, 0);
    for seed in 1..=150 {
        let mut world = World::new(seed);
        (0..800).for_each(|_| world.step());
        world.settle();
        events += world.events;
        stalled += usize::from(world.fullest >= OUTBOX_MAX);
    }
    assert!(events > 100_000 && stalled > 30, "the worlds are too quiet: {events} events, {stalled} stalls");
}
