//! Oversize and malformed requests, unknown services, wrong metadata.

use super::{put, range};
use crate::ask;
use crate::record::Side;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use tonic::Status;

/// All of it.
pub async fn talk(side: &mut Side) {
    sizes(side).await;
    malformed(side).await;
    metadata(side).await;
    unknown(side).await;
    range(side, pb::RangeRequest { keys_only: true, ..ask::everything() }).await;
}

/// Requests and answers here are too long to record whole.
async fn brief_put(side: &mut Side, len: usize) {
    let answer: Result<pb::PutResponse, Status> = side.wire.unary(ask::PUT, &ask::put("big", &"x".repeat(len))).await;
    side.note(format_args!("a put of {len} bytes"), &answer, &[]);
}

async fn sizes(side: &mut Side) {
    for len in [1_572_000, 1_572_800, 1_572_840, 1_572_864, 1_600_000, 2_097_100, 2_097_152, 2_200_000, 5_000_000] {
        brief_put(side, len).await;
    }
    let value = "x".repeat(100_000);
    let ops = |n: usize| (0..n).map(|i| ask::Op::op(ask::put(&format!("k{i}"), &value))).collect();
    for n in [15, 16, 25] {
        let answer: Result<pb::TxnResponse, Status> =
            side.wire.unary(ask::TXN, &ask::txn(vec![], ops(n), vec![])).await;
        side.note(format_args!("a txn of {n} puts"), &answer, &[]);
    }
    // Reads go through no log: only the transport limits them.
    let long = "k".repeat(1_700_000);
    let answer: Result<pb::RangeResponse, Status> = side.wire.unary(ask::RANGE, &ask::get(&long)).await;
    side.note("a get of a long key", &answer, &[]);
}

async fn malformed(side: &mut Side) {
    let cases: [(&str, &'static str, &[u8]); 8] = [
        ("an unfinished field", ask::RANGE, &[0x0a, 0x05, b'a']),
        ("a varint without end", ask::PUT, &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("a wrong wire type", ask::PUT, &[0x0f]),
        ("field number 0", ask::TXN, &[0x02, 0x00]),
        ("text that is not UTF-8", "/etcdserverpb.Maintenance/Downgrade", &[0x12, 0x01, 0xff]),
        ("unknown fields", ask::RANGE, &[0x0a, 0x01, b'a', 0xfa, 0x3e, 0x02, b'h', b'i']),
        ("nothing", ask::TXN, &[]),
        ("a group", ask::RANGE, &[0x0a, 0x01, b'a', 0xfb, 0x3e, 0xfc, 0x3e]),
    ];
    for (what, path, message) in cases {
        let answer = side.wire.bytes(path, Bytes::copy_from_slice(message), &[]).await;
        // The decoders' own words differ; code and grpc's prefix do not.
        let text = match answer {
            Ok(_) => "accepted".to_owned(),
            Err(e) => {
                let prefix = e.message().starts_with("grpc: error unmarshalling request: ");
                format!("{:?}, with grpc's prefix: {prefix}", e.code())
            }
        };
        side.write(what.into(), text, &[]);
    }
}

async fn metadata(side: &mut Side) {
    let get: Bytes = ask::get("a").encode_to_vec().into();
    for metadata in [
        vec![("hasleader", "true")],
        vec![("hasleader", "x")],
        vec![("client-api-version", "3.7")],
        vec![("client-api-version", "x y")],
        vec![("token", "nonsense.1")],
        vec![("authorization", "Bearer nonsense")],
        vec![("authorization", "")],
    ] {
        let answer = side.wire.bytes(ask::RANGE, get.clone(), &metadata).await;
        let text = answer.map_or_else(|e| crate::record::brief(&e), |_| "answered".into());
        side.write(format!("{metadata:?}"), text, &[]);
    }
    for (what, metadata) in [("token", vec![("token", "bad.1")]), ("hasleader", vec![("hasleader", "true")])] {
        let first = ask::create(ask::watch("a", "")).encode_to_vec().into();
        let mut stream = side.wire.stream(ask::WATCH, first, &metadata);
        let answer: Result<Option<pb::WatchResponse>, Status> = stream.next().await;
        side.note(format_args!("watch with {what}"), &answer, &[]);
    }
}

async fn unknown(side: &mut Side) {
    for path in [
        "/etcdserverpb.KV/Nothing",
        "/etcdserverpb.Nothing/Range",
        "/nothing",
        "/a/b/c",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/etcdserverpb.kv/range",
    ] {
        let answer = side.wire.bytes(path, Bytes::new(), &[]).await;
        let text = answer.map_or_else(|e| crate::record::brief(&e), |_| "answered".into());
        side.write(path.into(), text, &[]);
    }
    put(side, ask::put("alive", "1")).await;
}
