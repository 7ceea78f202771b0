//! Rules one by one, then a random world against a naive one.

use super::*;
use crate::{Change, Event, History, Prev};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use pb::watch_request::RequestUnion;
use std::sync::Arc;

#[derive(Default)]
struct Past {
    changes: Vec<Change>,
    compacted: i64,
}

impl Past {
    fn put(&mut self, key: &str) -> Change {
        let revision = self.changes.len() as i64 + 2;
        let kv = KeyValue { key: key.to_owned().into(), mod_revision: revision, version: 1, ..Default::default() };
        let change = Change { revision, events: vec![Event::Put { kv: Arc::new(kv), prev: Prev::Unknown }].into() };
        self.changes.push(change.clone());
        change
    }
}

impl History for Past {
    fn revision(&self) -> i64 {
        self.changes.len() as i64 + 1
    }
    fn compact_revision(&self) -> i64 {
        self.compacted
    }
    fn changes(&self, from: i64, to: i64, max: usize, _bytes: usize) -> Result<(Vec<Change>, i64), crate::Error> {
        let inside = self.changes.iter().filter(|c| c.revision >= from && c.revision <= to);
        let found: Vec<Change> = inside.take(max.min(7)).cloned().collect();
        let covered = if found.len() == 7 { found[6].revision } else { to };
        Ok((found, covered))
    }
    fn value_at(&self, _key: &[u8], _revision: i64) -> Result<Option<Arc<KeyValue>>, crate::Error> {
        Ok(None)
    }
}

const S: StreamId = StreamId(1);

fn hub(revision: i64) -> Hub {
    let mut hub = Hub::new(Config {
        member_id: 1,
        cluster_id: 2,
        revision,
        term: 3,
        max_request_bytes: 1 << 20,
        progress_interval_ms: 1000,
    });
    hub.handle(Input::Open { stream: S, now_ms: 0, jitter_ms: 0 }, &mut Vec::new());
    hub
}

fn ask(hub: &mut Hub, union: RequestUnion) -> Vec<pb::WatchResponse> {
    let mut out = Vec::new();
    let request = pb::WatchRequest { request_union: Some(union) };
    hub.handle(Input::Request { stream: S, request, permitted: Ok(()) }, &mut out);
    sent(out)
}

fn sent(out: Vec<Effect>) -> Vec<pb::WatchResponse> {
    out.into_iter().flat_map(responses).collect()
}

/// What an effect sends.
fn responses(effect: Effect) -> Vec<pb::WatchResponse> {
    match effect {
        Effect::Send { response, .. } => vec![response],
        Effect::SendBurst { burst, .. } => burst.responses().collect(),
        Effect::ReadHistory { .. } | Effect::WantPrev(_) => Vec::new(),
    }
}

fn create(key: &str, end: &str, start_revision: i64) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        start_revision,
        ..Default::default()
    }
}

#[test]
fn creation_is_refused_with_etcds_reasons() {
    let mut h = hub(5);
    let reason = |h: &mut Hub, r| {
        let answer = ask(h, RequestUnion::CreateRequest(r)).remove(0);
        assert!(answer.created && answer.canceled && answer.watch_id == -1);
        answer.cancel_reason
    };
    assert_eq!(reason(&mut h, create("a", "", -1)), "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(reason(&mut h, create("b", "a", 0)), "mvcc: watcher range is empty");
    let with_id = pb::WatchCreateRequest { watch_id: 9, ..create("a", "", 0) };
    assert!(!ask(&mut h, RequestUnion::CreateRequest(with_id.clone()))[0].canceled);
    assert_eq!(reason(&mut h, with_id), "mvcc: duplicate watch ID provided on the WatchStream");
}

#[test]
fn a_watcher_of_the_future_gets_nothing_below_its_start() {
    let mut h = hub(1);
    let mut past = Past::default();
    ask(&mut h, RequestUnion::CreateRequest(create("a", "", 4)));
    let mut out = Vec::new();
    for _ in 0..4 {
        let change = past.put("a");
        h.handle(Input::Published { revision: change.revision, term: 3, changes: vec![change] }, &mut out);
    }
    let revisions: Vec<i64> = sent(out).iter().map(|r| r.header.unwrap().revision).collect();
    assert_eq!(revisions, [4, 5]);
}

#[test]
fn a_start_below_the_compaction_is_created_and_then_cancelled() {
    let mut h = hub(1);
    let mut past = Past::default();
    (0..9).for_each(|_| drop(past.put("a")));
    past.compacted = 5;
    h.handle(Input::Resync { revision: past.revision(), term: 3 }, &mut Vec::new());
    let mut out = Vec::new();
    for start in [4, 5] {
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create("a", "", start))) };
        h.handle(Input::Request { stream: S, request, permitted: Ok(()) }, &mut out);
    }
    let responses = run(&mut h, &past, out);
    assert!(responses[0].created && responses[1].created);
    assert!(responses[2].canceled && responses[2].compact_revision == 5 && responses[2].cancel_reason.is_empty());
    assert_eq!((responses[2].watch_id, responses[2].header.unwrap().revision), (0, 0));
    assert_eq!(responses[3].events[0].kv.as_ref().unwrap().mod_revision, 5);
    let again = ask(&mut h, RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 }));
    assert!(again[0].canceled, "the client's own cancel is still answered");
}

/// Carries out history reads until nothing is asked for.
fn run(h: &mut Hub, past: &Past, mut out: Vec<Effect>) -> Vec<pb::WatchResponse> {
    let mut all = Vec::new();
    while !out.is_empty() {
        let mut next = Vec::new();
        for effect in out {
            match effect {
                Effect::ReadHistory { job } => h.handle(Input::HistoryRead(job.run(past).unwrap()), &mut next),
                effect => all.extend(responses(effect)),
            }
        }
        out = next;
    }
    all
}

#[test]
fn progress_is_reported_only_when_every_watcher_is_current() {
    let mut h = hub(3);
    let ask_progress = |h: &mut Hub| ask(h, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    assert!(ask_progress(&mut h).is_empty(), "no watcher");
    ask(&mut h, RequestUnion::CreateRequest(create("a", "", 0)));
    let answer = ask_progress(&mut h);
    assert_eq!((answer[0].watch_id, answer[0].header.unwrap().revision), (-1, 3));
    ask(&mut h, RequestUnion::CreateRequest(create("a", "", 2)));
    assert!(ask_progress(&mut h).is_empty(), "one is behind");
}

#[test]
fn idle_watchers_that_ask_for_it_are_told_of_progress() {
    let mut h = hub(3);
    ask(&mut h, RequestUnion::CreateRequest(pb::WatchCreateRequest { progress_notify: true, ..create("a", "", 0) }));
    let mut out = Vec::new();
    h.handle(Input::Tick { now_ms: 999 }, &mut out);
    assert!(out.is_empty());
    h.handle(Input::Tick { now_ms: 1000 }, &mut out);
    let r = sent(out).remove(0);
    assert!(r.watch_id == 0 && r.events.is_empty() && r.header.unwrap().revision == 3);
}

#[test]
fn fragments_keep_events_whole_and_mark_all_but_the_last() {
    let big = KeyValue { key: "a".into(), value: vec![b'v'; 900 << 10].into(), mod_revision: 2, ..Default::default() };
    let event = Event::Put { kv: Arc::new(big), prev: Prev::None };
    let change = Change { revision: 2, events: vec![event.clone(), event.clone(), event].into() };
    let mut h = hub(1);
    ask(&mut h, RequestUnion::CreateRequest(pb::WatchCreateRequest { fragment: true, ..create("a", "", 0) }));
    let mut out = Vec::new();
    h.handle(Input::Published { revision: 2, term: 3, changes: vec![change] }, &mut out);
    let shape: Vec<(usize, bool)> = sent(out).iter().map(|r| (r.events.len(), r.fragment)).collect();
    assert_eq!(shape, [(1, true), (1, true), (1, false)]);
}

#[test]
fn a_hundred_thousand_range_watchers_do_not_slow_a_change_of_another_key() {
    let mut h = hub(1);
    let mut past = Past::default();
    for n in 0..100_000 {
        let r = create(&format!("{n:06}"), &format!("{n:06}~"), 0);
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(r)) };
        h.handle(Input::Request { stream: S, request, permitted: Ok(()) }, &mut Vec::new());
    }
    h.handle(Input::Credit { stream: S, n: 100_000 }, &mut Vec::new());
    for (key, hits) in [("", 0), ("zzz", 0), ("050000", 1), ("050000x", 1), ("0500", 0), ("099999~", 0)] {
        let (before, mut out) = (h.counts(), Vec::new());
        let change = past.put(key);
        h.handle(Input::Published { revision: change.revision, term: 3, changes: vec![change] }, &mut out);
        assert_eq!(out.len(), hits, "{key:?}");
        assert!(h.counts().visits - before.visits <= 40, "{key:?}");
    }
}

fn events_of(keys: &[(&str, usize)], revision: i64) -> Change {
    let event = |(key, size): &(&str, usize)| {
        let (key, value) = ((*key).to_owned().into(), vec![b'v'; *size].into());
        Event::Put {
            kv: Arc::new(KeyValue { key, value, mod_revision: revision, ..Default::default() }),
            prev: Prev::None,
        }
    };
    Change { revision, events: keys.iter().map(event).collect() }
}

#[test]
fn a_revision_is_one_response_with_the_watchers_own_events_in_their_order() {
    let mut h = hub(1);
    for (key, end) in [("a", "c"), ("c", ""), ("b", "\0"), ("x", "z"), ("a", "c")] {
        ask(&mut h, RequestUnion::CreateRequest(create(key, end, 0)));
    }
    let mut out = Vec::new();
    let change = events_of(&[("c", 1), ("b", 1), ("a", 1), ("bb", 1), ("d", 1)], 2);
    h.handle(Input::Published { revision: 2, term: 3, changes: vec![change] }, &mut out);
    let keys = |r: &pb::WatchResponse| {
        r.events.iter().map(|e| String::from_utf8_lossy(&e.kv.as_ref().unwrap().key).into_owned()).collect::<Vec<_>>()
    };
    let got: Vec<(i64, String)> = sent(out).iter().map(|r| (r.watch_id, keys(r).join(" "))).collect();
    let expected = [(0, "b a bb"), (1, "c"), (2, "c b bb d"), (4, "b a bb")].map(|(id, keys)| (id, keys.to_owned()));
    assert_eq!(got, expected);
}

/// `progress_notify` and progress requests: "only if … current ≥ start_revision".
#[test]
fn progress_is_never_reported_below_a_watchers_start() {
    let mut h = hub(3);
    let r = pb::WatchCreateRequest { progress_notify: true, ..create("a", "", 4) };
    ask(&mut h, RequestUnion::CreateRequest(r));
    let mut out = Vec::new();
    h.handle(Input::Tick { now_ms: 1000 }, &mut out);
    assert!(out.is_empty(), "told of a time before its start");
    assert!(ask(&mut h, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).is_empty());
    h.handle(Input::Published { revision: 4, term: 3, changes: vec![events_of(&[("b", 1)], 4)] }, &mut out);
    h.handle(Input::Tick { now_ms: 2000 }, &mut out);
    assert_eq!(sent(out)[0].header.unwrap().revision, 4);
    assert_eq!(ask(&mut h, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).len(), 1);
}

#[test]
fn a_fragment_of_many_small_events_stays_below_the_limit() {
    use prost::Message as _;
    let mut h = hub(1);
    ask(&mut h, RequestUnion::CreateRequest(pb::WatchCreateRequest { fragment: true, ..create("a", "", 0) }));
    let mut out = Vec::new();
    let change = events_of(&[("a", 1); 200_000], 2);
    h.handle(Input::Published { revision: 2, term: 3, changes: vec![change] }, &mut out);
    let parts = sent(out);
    assert!(parts.len() > 1 && parts.iter().all(|p| p.encoded_len() < (1 << 20) + (512 << 10)));
    assert_eq!(parts.iter().map(|p| p.events.len()).sum::<usize>(), 200_000);
}

#[test]
fn watchers_that_take_fragments_keep_to_the_outbox_too() {
    let mut h = hub(1);
    let watchers = 2 * OUTBOX_MAX;
    for _ in 0..watchers {
        ask(&mut h, RequestUnion::CreateRequest(pb::WatchCreateRequest { fragment: true, ..create("a", "", 0) }));
    }
    h.handle(Input::Credit { stream: S, n: watchers }, &mut Vec::new());
    let mut past = Past::default();
    let (mut out, mut seen, mut rounds) = (Vec::new(), 0, 0);
    h.handle(Input::Published { revision: 2, term: 3, changes: vec![past.put("a")] }, &mut out);
    assert_eq!(h.counts().slow, watchers - OUTBOX_MAX);
    while seen < watchers {
        let responses = run(&mut h, &past, std::mem::take(&mut out));
        assert!((1..=OUTBOX_MAX).contains(&responses.len()), "{} responses", responses.len());
        seen += responses.len();
        rounds += 1;
        h.handle(Input::Credit { stream: S, n: responses.len() }, &mut out);
    }
    assert_eq!((seen, rounds), (watchers, 2));
}

/// The transport ends a stream whose outbox runs over; nothing but answers to requests may go beyond it.
#[test]
fn what_nobody_waits_for_waits_for_room() {
    let mut h = hub(9);
    let mut past = Past::default();
    (0..8).for_each(|_| drop(past.put("a")));
    for n in 0..1000 {
        let start = if n < 500 { 0 } else { 2 };
        ask(
            &mut h,
            RequestUnion::CreateRequest(pb::WatchCreateRequest { progress_notify: true, ..create("a", "", start) }),
        );
    }
    past.compacted = 5;
    let (mut told, mut cancelled, mut out) = (0, 0, Vec::new());
    assert!(ask(&mut h, RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).is_empty(), "no room");
    let mut waiting = 1000;
    for now_ms in 1000..1020 {
        h.handle(Input::Tick { now_ms }, &mut out);
        let responses = run(&mut h, &past, std::mem::take(&mut out));
        waiting += responses.len();
        assert!(now_ms == 1000 && responses.is_empty() || waiting <= OUTBOX_MAX, "{waiting} responses wait");
        told += responses.iter().filter(|r| !r.canceled).count();
        cancelled += responses.iter().filter(|r| r.canceled).count();
        h.handle(Input::Credit { stream: S, n: waiting }, &mut out);
        waiting = 0;
    }
    assert_eq!((told, cancelled), (500, 500), "all are told in the end");
}

#[test]
fn a_watcher_near_the_present_does_not_wait_for_those_who_come_from_far() {
    let mut h = hub(3001);
    let mut past = Past::default();
    (0..3000).for_each(|_| drop(past.put("a")));
    let mut out = Vec::new();
    let mut got = Vec::new();
    for (n, start) in [2, 2990].into_iter().chain([2; 40]).enumerate() {
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create("a", "", start))) };
        h.handle(Input::Request { stream: S, request, permitted: Ok(()) }, &mut out);
        h.handle(Input::Credit { stream: S, n: 9999 }, &mut out);
        let mut next = Vec::new();
        for effect in std::mem::take(&mut out) {
            match effect {
                Effect::ReadHistory { job } if n > 1 => {
                    h.handle(Input::HistoryRead(job.run(&past).unwrap()), &mut next)
                }
                Effect::ReadHistory { job } => next.push(Effect::ReadHistory { job }),
                effect => {
                    let mine = responses(effect).into_iter().filter(|response| response.watch_id == 1);
                    got.extend(mine.flat_map(|response| response.events));
                }
            }
        }
        out = next;
    }
    assert_eq!(got.len(), 12, "starved by new laggards");
}

/// Every watcher gets exactly the events at or above its start, in order, whatever stalls, gaps and delays there are.
#[test]
fn nothing_is_lost_doubled_or_reordered() {
    for seed in 1..200_u64 {
        let mut random = seed;
        let mut draw = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        let mut h = hub(1);
        let mut past = Past::default();
        let mut starts: Vec<(i64, String, String)> = Vec::new();
        let mut got: Vec<Vec<i64>> = Vec::new();
        let (mut jobs, mut taken) = (Vec::new(), 0);
        for step in 0..600 {
            let mut out = Vec::new();
            match draw(10) {
                0 if starts.len() < 12 && step < 400 => {
                    let start = draw(past.revision() as u64 + 4) as i64;
                    let (key, end) = [("a", ""), ("a", "c"), ("b", "\0")][draw(3) as usize];
                    let r = RequestUnion::CreateRequest(create(key, end, start));
                    let request = pb::WatchRequest { request_union: Some(r) };
                    let from = if start == 0 { h.revision() + 1 } else { start };
                    starts.push((from, key.into(), end.into()));
                    got.push(Vec::new());
                    h.handle(Input::Request { stream: S, request, permitted: Ok(()) }, &mut out);
                }
                1..=5 => {
                    let changes: Vec<Change> =
                        (0..1 + draw(4)).map(|_| past.put(["a", "b", "c"][draw(3) as usize])).collect();
                    if draw(12) == 0 {
                        h.handle(Input::Resync { revision: past.revision(), term: 3 }, &mut out);
                    } else {
                        h.handle(Input::Published { revision: past.revision(), term: 3, changes }, &mut out);
                    }
                }
                6 | 7 if !jobs.is_empty() => {
                    let job: HistoryJob = jobs.remove(0);
                    h.handle(Input::HistoryRead(job.run(&past).unwrap()), &mut out);
                }
                8 => {
                    let n = taken;
                    taken = 0;
                    h.handle(Input::Credit { stream: S, n }, &mut out);
                }
                _ => h.handle(Input::Tick { now_ms: step }, &mut out),
            }
            absorb(out, &mut got, &mut jobs, &mut taken);
        }
        for _ in 0..2000 {
            let mut out = Vec::new();
            h.handle(Input::Credit { stream: S, n: taken }, &mut out);
            taken = 0;
            if let Some(job) = jobs.pop() {
                h.handle(Input::HistoryRead(job.run(&past).unwrap()), &mut out);
            }
            absorb(out, &mut got, &mut jobs, &mut taken);
        }
        for ((start, key, end), got) in starts.iter().zip(&got) {
            let inside = |k: &[u8]| match end.as_str() {
                "" => k == key.as_bytes(),
                "\0" => k >= key.as_bytes(),
                end => k >= key.as_bytes() && k < end.as_bytes(),
            };
            let expected: Vec<i64> = past
                .changes
                .iter()
                .filter(|c| c.revision >= *start && inside(&c.events[0].kv().key))
                .map(|c| c.revision)
                .collect();
            assert_eq!(*got, expected, "seed {seed}, watcher of {key:?} {end:?} from {start}");
        }
    }
}

fn absorb(out: Vec<Effect>, got: &mut [Vec<i64>], jobs: &mut Vec<HistoryJob>, taken: &mut usize) {
    for effect in out {
        if let Effect::ReadHistory { job } = effect {
            jobs.push(job);
            continue;
        }
        for response in responses(effect) {
            *taken += 1;
            let revisions = response.events.iter().map(|e| e.kv.as_ref().unwrap().mod_revision);
            got[response.watch_id as usize].extend(revisions);
        }
    }
}

/// Go answers no progress request of such a stream until the client cancels the watcher, which clients don't: it was
/// cancelled (docs/COMPAT.md).
#[test]
fn progress_is_reported_though_a_watcher_was_cancelled_by_a_compaction() {
    let mut h = hub(1);
    let mut past = Past::default();
    (0..9).for_each(|_| drop(past.put("a")));
    past.compacted = 5;
    h.handle(Input::Resync { revision: past.revision(), term: 3 }, &mut Vec::new());
    let mut out = Vec::new();
    for start in [3, 0] {
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create("a", "", start))) };
        h.handle(Input::Request { stream: S, request, permitted: Ok(()) }, &mut out);
    }
    assert!(run(&mut h, &past, out).iter().any(|r| r.canceled && r.watch_id == 0));
    let answer = ask(&mut h, RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    assert_eq!((answer[0].watch_id, answer[0].header.unwrap().revision), (-1, 10));
}
