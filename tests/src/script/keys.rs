//! Range, RangeStream, Put, DeleteRange, Compact.

use super::{compact, delete, hash_kv, put, range, seed};
use crate::ask;
use crate::record::Side;
use api::pb::etcdserverpb as pb;

/// Every option of the key requests, alone and combined, on a store with history.
pub async fn talk(side: &mut Side) {
    puts(side).await;
    ranges(side).await;
    streams(side).await;
    deletes(side).await;
    compactions(side).await;
}

async fn puts(side: &mut Side) {
    range(side, ask::everything()).await;
    put(side, ask::put("a", "1")).await;
    put(side, pb::PutRequest { prev_kv: true, ..ask::put("a", "2") }).await;
    put(side, pb::PutRequest { prev_kv: true, ..ask::put("new", "") }).await;
    put(side, ask::put("", "v")).await;
    put(side, pb::PutRequest { lease: 77, ..ask::put("a", "x") }).await;
    for ignore_value in [false, true] {
        for ignore_lease in [false, true] {
            for (key, value, lease) in [("a", "", 0), ("a", "v", 0), ("a", "", 5), ("missing", "", 0)] {
                let request = pb::PutRequest { ignore_value, ignore_lease, lease, ..ask::put(key, value) };
                put(side, request).await;
            }
        }
    }
    range(side, ask::everything()).await;
}

async fn ranges(side: &mut Side) {
    seed(side, &[("b", "9"), ("c", "1"), ("b/1", "x"), ("b/2", "y"), ("b", "3"), ("d", "zz"), ("b/1", "y")]).await;
    let all = ask::everything;
    range(side, ask::get("a")).await;
    range(side, ask::get("nothing")).await;
    range(side, ask::range("b/", &ask::prefix_end("b/"))).await;
    range(side, ask::range("c", ask::FROM)).await;
    range(side, ask::range("z", "a")).await;
    range(side, ask::range("a", "a")).await;
    range(side, ask::range("", "z")).await;
    for limit in [-5, -1, 0, 1, 2, 3, 100, i64::MAX] {
        range(side, pb::RangeRequest { limit, ..all() }).await;
    }
    for revision in [-2, -1, 0, 1, 2, 3, 8, 12, 99, i64::MAX, i64::MIN] {
        range(side, pb::RangeRequest { revision, ..all() }).await;
        range(side, pb::RangeRequest { revision, ..ask::get("b") }).await;
    }
    for sort_order in -1..4 {
        for sort_target in -1..6 {
            range(side, pb::RangeRequest { sort_order, sort_target, ..all() }).await;
        }
    }
    for sort_target in 0..5 {
        range(side, pb::RangeRequest { sort_order: 2, sort_target, limit: 2, ..all() }).await;
    }
    for bound in [-1, 0, 1, 3, 5, 9, 100] {
        range(side, pb::RangeRequest { min_mod_revision: bound, ..all() }).await;
        range(side, pb::RangeRequest { max_mod_revision: bound, ..all() }).await;
        range(side, pb::RangeRequest { min_create_revision: bound, limit: 2, ..all() }).await;
        range(side, pb::RangeRequest { max_create_revision: bound, count_only: true, ..all() }).await;
    }
    for (keys_only, count_only, serializable) in [(true, false, false), (false, true, true), (true, true, false)] {
        range(side, pb::RangeRequest { keys_only, count_only, serializable, ..all() }).await;
        range(side, pb::RangeRequest { keys_only, count_only, serializable, limit: 1, ..all() }).await;
        range(side, pb::RangeRequest { keys_only, sort_order: 1, sort_target: 4, ..all() }).await;
    }
}

/// The chunks of a stream may be cut differently; what they hold together may not.
async fn stream(side: &mut Side, request: pb::RangeRequest) {
    let shown = format!("{} {request:?}", ask::RANGE_STREAM);
    let (chunks, end) = side.wire.collect::<_, pb::RangeStreamResponse>(ask::RANGE_STREAM, &request).await;
    let mut kvs = Vec::new();
    let mut last = None;
    for chunk in chunks.into_iter().filter_map(|c| c.range_response) {
        kvs.extend(chunk.kvs);
        last = Some((chunk.header, chunk.more, chunk.count));
    }
    let end = end.map_err(|e| crate::record::brief(&e));
    side.write(shown, format!("{kvs:#?}\nlast: {last:#?}\nend: {end:?}"), &[]);
}

async fn streams(side: &mut Side) {
    let all = ask::everything;
    stream(side, all()).await;
    stream(side, ask::get("nothing")).await;
    stream(side, ask::get("a")).await;
    stream(side, ask::range("", "")).await;
    for limit in [1, 3, 1000] {
        stream(side, pb::RangeRequest { limit, ..all() }).await;
    }
    for revision in [-1, 1, 2, 5, 1000] {
        stream(side, pb::RangeRequest { revision, ..all() }).await;
    }
    for sort_order in 0..4 {
        for sort_target in [0, 1, 4, 7] {
            stream(side, pb::RangeRequest { sort_order, sort_target, ..all() }).await;
        }
    }
    stream(side, pb::RangeRequest { min_mod_revision: 3, ..all() }).await;
    stream(side, pb::RangeRequest { max_create_revision: 3, ..all() }).await;
    stream(side, pb::RangeRequest { count_only: true, ..all() }).await;
    stream(side, pb::RangeRequest { keys_only: true, ..all() }).await;
}

async fn deletes(side: &mut Side) {
    delete(side, ask::delete("", "")).await;
    delete(side, ask::delete("nothing", "")).await;
    delete(side, ask::delete("z", "a")).await;
    delete(side, pb::DeleteRangeRequest { prev_kv: true, ..ask::delete("b/", &ask::prefix_end("b/")) }).await;
    delete(side, pb::DeleteRangeRequest { prev_kv: true, ..ask::delete("b/", &ask::prefix_end("b/")) }).await;
    delete(side, ask::delete("a", "")).await;
    put(side, pb::PutRequest { prev_kv: true, ..ask::put("a", "again") }).await;
    range(side, ask::everything()).await;
    delete(side, pb::DeleteRangeRequest { prev_kv: true, ..ask::delete("d", ask::FROM) }).await;
    range(side, ask::everything()).await;
}

async fn compactions(side: &mut Side) {
    for revision in [-1, 0, 999] {
        compact(side, revision).await;
    }
    for revision in [0, 1, 5, 12, 99] {
        hash_kv(side, revision).await;
    }
    compact(side, 8).await;
    for revision in [8, 7, 0, -1, 3] {
        compact(side, revision).await;
    }
    for revision in [-2, -1, 0, 1, 7, 8, 9] {
        range(side, pb::RangeRequest { revision, ..ask::everything() }).await;
        hash_kv(side, revision).await;
    }
    delete(side, ask::delete(ask::FROM, ask::FROM)).await;
    put(side, ask::put("after", "1")).await;
    let now = pb::CompactionRequest { revision: 14, physical: false };
    let _: Result<pb::CompactionResponse, _> = side.ask(ask::COMPACT, now).await;
    // Waits for the one before, whose hash is kept only once it is done.
    compact(side, 14).await;
    compact(side, 15).await;
    hash_kv(side, 0).await;
    hash_kv(side, 14).await;
    hash_kv(side, 15).await;
    range(side, ask::everything()).await;
}
