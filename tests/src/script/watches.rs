//! Watch: replay, live events, filters, fragments, progress, cancels and their reasons.

use super::{compact, delete, put, seed, txn};
use crate::ask::{self, Op};
use crate::record::Side;
use crate::wire::Stream;
use api::pb::etcdserverpb as pb;
use std::time::Duration;
use tonic::Status;

/// Long enough for a server that would answer, short enough for the many questions that have no answer.
const SILENCE: Duration = Duration::from_millis(300);

/// All of it.
pub async fn talk(side: &mut Side) {
    seed(side, &[("a", "1"), ("b", "1"), ("a", "2"), ("w/1", "x"), ("w/2", "y")]).await;
    delete(side, ask::delete("b", "")).await;
    creations(side).await;
    replays(side).await;
    live(side).await;
    several_on_one_stream(side).await;
    progress(side).await;
    compacted(side).await;
    fragments(side).await;
    odd_requests(side).await;
}

async fn expect(side: &mut Side, stream: &mut Stream, what: &str, count: usize) {
    for n in 0..count {
        let answer: Result<Option<pb::WatchResponse>, Status> = stream.next().await;
        side.note(format_args!("{what}: answer {n}"), &answer, &[]);
    }
}

async fn expect_silence(side: &mut Side, stream: &mut Stream, what: &str) {
    let answer: Result<Option<pb::WatchResponse>, Status> = stream.next_within(SILENCE).await;
    side.note(format_args!("{what}: silence"), &answer, &[]);
}

/// A stream with one watch, its first `count` answers, then silence.
async fn watched(side: &mut Side, request: pb::WatchCreateRequest, count: usize) -> Stream {
    let what = format!("watch {request:?}");
    let mut stream = side.open_stream(ask::WATCH, &ask::create(request));
    expect(side, &mut stream, &what, count).await;
    expect_silence(side, &mut stream, &what).await;
    stream
}

async fn creations(side: &mut Side) {
    for (key, end) in [("", ""), ("z", "a"), ("a", "a"), ("a", ask::FROM), ("", ask::FROM), ("a", "b")] {
        watched(side, ask::watch(key, end), 1).await;
    }
    watched(side, pb::WatchCreateRequest { start_revision: -1, ..ask::watch("a", "") }, 1).await;
    watched(side, pb::WatchCreateRequest { watch_id: -5, ..ask::watch("a", "") }, 1).await;
    watched(
        side,
        pb::WatchCreateRequest { watch_id: 7, progress_notify: true, fragment: true, ..ask::watch("a", "") },
        1,
    )
    .await;
}

async fn replays(side: &mut Side) {
    for start_revision in [1, 2, 4, 7] {
        watched(side, pb::WatchCreateRequest { start_revision, ..ask::watch(ask::FROM, ask::FROM) }, 2).await;
    }
    watched(side, pb::WatchCreateRequest { start_revision: 1, prev_kv: true, ..ask::watch("a", "c") }, 2).await;
    for filters in [vec![0], vec![1], vec![0, 1], vec![9], vec![1, 1]] {
        let silent = filters.contains(&0) && filters.contains(&1);
        let count = if silent { 1 } else { 2 };
        watched(side, pb::WatchCreateRequest { start_revision: 1, filters, ..ask::watch("a", "c") }, count).await;
    }
    watched(side, pb::WatchCreateRequest { start_revision: 100, ..ask::watch("a", "") }, 1).await;
}

async fn live(side: &mut Side) {
    let everything = || ask::watch(ask::FROM, ask::FROM);
    let mut plain = watched(side, everything(), 1).await;
    let mut prev = watched(side, pb::WatchCreateRequest { prev_kv: true, ..everything() }, 1).await;
    let mut no_put = watched(side, pb::WatchCreateRequest { filters: vec![0], ..everything() }, 1).await;
    let mut no_delete = watched(side, pb::WatchCreateRequest { filters: vec![1], ..everything() }, 1).await;
    let mut one = watched(side, ask::watch("one", ""), 1).await;
    put(side, ask::put("one", "1")).await;
    put(side, ask::put("one", "2")).await;
    delete(side, ask::delete("one", "")).await;
    delete(side, ask::delete("one", "")).await;
    let ops = vec![ask::put("one", "3").op(), ask::put("two", "1").op(), ask::delete("a", "").op()];
    txn(side, ask::txn(vec![], ops, vec![])).await;
    delete(side, pb::DeleteRangeRequest { prev_kv: true, ..ask::delete("one", "two\0") }).await;
    expect(side, &mut plain, "live", 5).await;
    expect(side, &mut prev, "live with prev_kv", 5).await;
    expect(side, &mut no_put, "live without puts", 3).await;
    expect(side, &mut no_delete, "live without deletes", 3).await;
    expect(side, &mut one, "live on one key", 5).await;
    for stream in [&mut plain, &mut prev, &mut no_put, &mut no_delete, &mut one] {
        expect_silence(side, stream, "live").await;
    }
}

async fn several_on_one_stream(side: &mut Side) {
    let mut stream = watched(side, ask::watch("s/a", ""), 1).await;
    let more = [
        pb::WatchCreateRequest { watch_id: 1, ..ask::watch("s/b", "") },
        pb::WatchCreateRequest { watch_id: 1, ..ask::watch("s/c", "") },
        ask::watch("s/", "s0"),
        ask::watch("s/d", "s/a"),
        pb::WatchCreateRequest { start_revision: -3, ..ask::watch("s/a", "") },
        pb::WatchCreateRequest { watch_id: i64::MAX, ..ask::watch("s/z", "") },
    ];
    for request in more {
        let what = format!("on the same stream: {request:?}");
        stream.send(&ask::create(request));
        expect(side, &mut stream, &what, 1).await;
    }
    put(side, ask::put("s/b", "1")).await;
    let mut both = Vec::new();
    for _ in 0..2 {
        let answer: Result<Option<pb::WatchResponse>, Status> = stream.next().await;
        both.push(format!("{:#?}", answer.map_err(|e| crate::record::brief(&e))));
    }
    // Which watch of a stream is served first is nobody's promise.
    both.sort();
    side.write("two watches, one event".into(), both.join("\n"), &[]);
    for id in [1, 99, 1, 2, -1] {
        stream.send(&ask::cancel(id));
        let what = format!("cancel {id}");
        if id == 1 || id == 2 {
            let answer: Result<Option<pb::WatchResponse>, Status> = stream.next_within(SILENCE).await;
            side.note(&what, &answer, &[]);
        } else {
            expect_silence(side, &mut stream, &what).await;
        }
    }
    put(side, ask::put("s/b", "2")).await;
    expect_silence(side, &mut stream, "after the cancels").await;
    stream.send(&ask::create(pb::WatchCreateRequest { watch_id: 1, ..ask::watch("s/b", "") }));
    expect(side, &mut stream, "a freed id again", 1).await;
    stream.half_close();
    put(side, ask::put("s/b", "3")).await;
    expect(side, &mut stream, "after half-close", 1).await;
}

async fn progress(side: &mut Side) {
    let mut stream = side.open_stream(ask::WATCH, &ask::progress());
    expect_silence(side, &mut stream, "progress without watches").await;
    stream.send(&ask::create(ask::watch("none", "")));
    expect(side, &mut stream, "a watch", 1).await;
    stream.send(&ask::progress());
    expect(side, &mut stream, "progress", 1).await;
    put(side, ask::put("other", "1")).await;
    stream.send(&ask::progress());
    expect(side, &mut stream, "progress after a put", 1).await;
    stream.send(&ask::create(pb::WatchCreateRequest { start_revision: 10_000, ..ask::watch("none", "") }));
    expect(side, &mut stream, "a watch of the future", 1).await;
    stream.send(&ask::progress());
    expect_silence(side, &mut stream, "progress with a watch of the future").await;
}

async fn compacted(side: &mut Side) {
    compact(side, 9).await;
    for start_revision in [1, 8] {
        watched(side, pb::WatchCreateRequest { start_revision, ..ask::watch("one", "") }, 2).await;
    }
    watched(side, pb::WatchCreateRequest { start_revision: 9, ..ask::watch("one", "") }, 2).await;
    watched(side, pb::WatchCreateRequest { start_revision: 9, prev_kv: true, ..ask::watch("one", "") }, 2).await;
    let mut stream = watched(side, pb::WatchCreateRequest { start_revision: 3, ..ask::watch("one", "") }, 2).await;
    stream.send(&ask::cancel(0));
    expect(side, &mut stream, "cancel of a watch that compaction ended", 1).await;
}

async fn fragments(side: &mut Side) {
    let value = "v".repeat(400_000);
    let first = pb::WatchCreateRequest { fragment: true, ..ask::watch("f/", "f0") };
    let mut stream = side.open_stream(ask::WATCH, &ask::create(first));
    expect(side, &mut stream, "fragments", 1).await;
    let mut start = 0;
    for n in 0..7 {
        let answer: Result<pb::PutResponse, Status> =
            side.wire.unary(ask::PUT, &ask::put(&format!("f/{n}"), &value)).await;
        start = if n == 0 { answer.expect("a large value fits").header.map_or(0, |h| h.revision) } else { start };
    }
    brief_events(side, &mut stream, 7).await;
    // All seven in one replay: more than a response may have.
    for fragment in [true, false] {
        let replay = pb::WatchCreateRequest { fragment, start_revision: start, ..ask::watch("f/", "f0") };
        let mut stream = side.open_stream(ask::WATCH, &ask::create(replay));
        expect(side, &mut stream, "replay", 1).await;
        brief_events(side, &mut stream, 7).await;
    }
}

/// Keys, revisions and fragment marks of responses, until `events` came: the values are too long for a record.
async fn brief_events(side: &mut Side, stream: &mut Stream, events: usize) {
    let (mut seen, mut text) = (0, String::new());
    while seen < events {
        let answer: Result<Option<pb::WatchResponse>, Status> = stream.next().await;
        match answer {
            Ok(Some(response)) => {
                seen += response.events.len();
                let keys =
                    response.events.iter().filter_map(|e| e.kv.as_ref()).map(|kv| (kv.key.clone(), kv.mod_revision));
                text += &format!("fragment {} events {:?}\n", response.fragment, keys.collect::<Vec<_>>());
            }
            other => {
                text += &format!("{other:?}");
                break;
            }
        }
    }
    side.write("responses".into(), text, &[]);
}

async fn odd_requests(side: &mut Side) {
    let mut stream = side.open_stream(ask::WATCH, &pb::WatchRequest { request_union: None });
    expect_silence(side, &mut stream, "an empty request").await;
    stream.send(&ask::cancel(0));
    expect_silence(side, &mut stream, "cancel of nothing").await;
    stream.send(&ask::create(ask::watch("x", "")));
    expect(side, &mut stream, "still alive", 1).await;
}
