//! Streams, and what ends them: bad requests, deadlines, stops; and that nothing else does.

use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use oxetcd_tests::ask;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use prost::Message as _;
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Code, Status};

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

fn servers(folder: &TempDir) -> Vec<Server> {
    let mut binaries = vec![our_etcd()];
    binaries.extend(Reference::find().map(|reference| reference.program("3.7", "etcd")));
    let start = |(n, binary): (usize, &PathBuf)| Launch::new(binary, &folder.join(&format!("server{n}"))).start();
    binaries.iter().enumerate().map(start).collect()
}

#[tokio::test]
async fn a_client_may_ask_for_many_watches_before_it_reads() {
    let folder = TempDir::new("manywatches");
    for server in servers(&folder) {
        let wire = Wire::connect(&server.client_url()).await;
        let create = |n: i64| ask::create(pb::WatchCreateRequest { watch_id: n, ..ask::watch(&format!("k{n}"), "") });
        let mut stream = wire.stream(ask::WATCH, create(1).encode_to_vec().into(), &[]);
        for n in 2..=3000 {
            stream.send(&create(n));
        }
        for n in 1..=3000 {
            let response: pb::WatchResponse = stream.next().await.expect("an answer").expect("no end");
            assert!(response.created && response.watch_id == n, "{n}: {response:?}");
        }
        for n in 1..=2999 {
            stream.send(&ask::cancel(n));
        }
        for n in 1..=2999 {
            let response: pb::WatchResponse = stream.next().await.expect("an answer").expect("no end");
            assert!(response.canceled && response.watch_id == n, "{n}: {response:?}");
        }
        let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("k3000", "v")).await;
        put.expect("a put");
        let response: pb::WatchResponse = stream.next().await.expect("an event").expect("no end");
        assert_eq!((response.watch_id, response.events.len()), (3000, 1));
    }
}

/// What was answered before a watch is no news to it, and none that follows is missed: with other streams, and without
/// any, when nobody was told of the changes before.
#[tokio::test]
async fn a_watch_begins_at_its_own_moment() {
    let folder = TempDir::new("moments");
    for others in [false, true] {
        watch_again_and_again(&folder.join(&others.to_string()), others).await;
    }
}

async fn watch_again_and_again(data: &std::path::Path, others: bool) {
    let server = Launch::new(&our_etcd(), data).start();
    let (wire, other) = (Wire::connect(&server.client_url()).await, Wire::connect(&server.client_url()).await);
    let put = async |wire: &Wire, key: &str| -> i64 {
        let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(key, "v")).await;
        put.expect("a put").header.expect("a header").revision
    };
    let idle = ask::create(ask::watch("nothing", "")).encode_to_vec();
    let _standing = others.then(|| other.stream(ask::WATCH, idle.into(), &[]));
    let noise = async {
        loop {
            put(&other, "noise").await;
        }
    };
    let watches = async {
        for n in 0..300 {
            let before = put(&wire, "k").await;
            let create = ask::create(ask::watch("k", ""));
            let mut stream = wire.stream(ask::WATCH, create.encode_to_vec().into(), &[]);
            let created: pb::WatchResponse = stream.next().await.expect("an answer").expect("no end");
            assert!(created.created && created.header.expect("a header").revision >= before, "{n}");
            let after = put(&wire, "k").await;
            let told: pb::WatchResponse = stream.next().await.expect("an event").expect("no end");
            let revisions = told.events.iter().filter_map(|e| e.kv.as_ref()).map(|kv| kv.mod_revision);
            assert_eq!(revisions.collect::<Vec<_>>(), [after], "{n}");
        }
    };
    tokio::select! {
        () = watches => {}
        () = noise => {}
    }
}

#[tokio::test]
async fn watchers_that_a_compaction_overtakes_are_all_told() {
    let folder = TempDir::new("overtaken");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    for n in 0..10 {
        let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("k", &n.to_string())).await;
        put.expect("a put");
    }
    let compacted: Result<pb::CompactionResponse, Status> = wire.unary(ask::COMPACT, &ask::compact(8)).await;
    compacted.expect("a compaction");
    let create = |n: i64| {
        ask::create(pb::WatchCreateRequest { watch_id: n, start_revision: 2, ..ask::watch(&format!("k{n}"), "") })
    };
    let mut stream = wire.stream(ask::WATCH, create(1).encode_to_vec().into(), &[]);
    for n in 2..=1000 {
        stream.send(&create(n));
    }
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 1000 {
        let response: pb::WatchResponse = stream.next().await.expect("an answer").expect("no end");
        if response.canceled {
            assert_eq!(response.compact_revision, 8);
            assert!(told.insert(response.watch_id), "{response:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_read_ends_its_stream_with_gos_error() {
    let folder = TempDir::new("badstreams");
    for server in servers(&folder) {
        let wire = Wire::connect(&server.client_url()).await;
        let huge = Bytes::from(vec![0; 3 << 20]);
        for path in [ask::WATCH, KEEP_ALIVE] {
            for (message, code, text) in [
                (Bytes::from_static(&[0xff; 3]), Code::Internal, "grpc: failed to unmarshal the received message: "),
                (huge.clone(), Code::ResourceExhausted, "grpc: received message larger than max (3145728 vs. 2097152)"),
            ] {
                let mut stream = wire.stream(path, message, &[]);
                let ended = stream.next::<pb::WatchResponse>().await.expect_err("it ends with an error");
                assert_eq!(ended.code(), code, "{path}: {ended}");
                assert!(ended.message().starts_with(text), "{path}: {ended}");
            }
        }
    }
}

/// The status of a call with a deadline, as the server sends it: tonic's client would keep the time itself.
async fn status_of(server: &Server, path: &str, message: &[u8], timeout: &str) -> String {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    let body = Bytes::from([&[0], &length[..], message].concat());
    let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", timeout)];
    match oxetcd_tests::http::post(&server.client_address(), path, &headers, body).await {
        Ok(answer) => {
            let status = answer.fields.into_iter().find(|(name, _)| name == "grpc-status");
            status.map(|(_, code)| code).unwrap_or_default()
        }
        // Go resets the stream when the time is over, and its status may come too late for it.
        Err(e) if e.contains("stream no longer needed") => "4".into(),
        Err(e) => e,
    }
}

#[tokio::test]
async fn a_deadline_ends_streams_and_keeps_late_calls_from_beginning() {
    let folder = TempDir::new("deadlines");
    for server in servers(&folder) {
        let wire = Wire::connect(&server.client_url()).await;
        let create = ask::create(ask::watch("k", "")).encode_to_vec();
        assert_eq!(status_of(&server, ask::WATCH, &create, "300m").await, "4");
        assert_eq!(status_of(&server, ask::PUT, &ask::put("late", "v").encode_to_vec(), "0n").await, "4");
        let held: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get("late")).await.expect("a range");
        assert_eq!(held.count, 0);
    }
}

/// A stop waits for answers that are being taken, however slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_a_slow_reader_have_its_answer() {
    let folder = TempDir::new("slowstop");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let value = "v".repeat(1_000_000);
    for n in 0..20 {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(&format!("big{n}"), &value)).await;
        done.expect("a put");
    }
    let tcp = tokio::net::TcpStream::connect(server.client_address()).await.expect("the server listens");
    let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let request = http::Request::post(format!("http://{}{}", server.client_address(), ask::RANGE))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request");
    let (response, mut body) = client.send_request(request, false).expect("sent");
    let message = ask::everything().encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    frame.extend(message);
    body.send_data(frame.into(), true).expect("sent");
    let mut body = response.await.expect("an answer begins").into_body();
    server.signal(Signal::TERM);
    let mut taken = 0;
    while let Some(data) = body.data().await {
        let data = data.expect("the answer is not cut off");
        taken += data.len();
        body.flow_control().release_capacity(data.len()).expect("it was received");
        if taken % (1 << 20) < data.len() {
            // Slow, but never silent for long.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(taken > 20_000_000, "only {taken} bytes");
    let trailers = body.trailers().await.expect("the answer is whole").expect("a status");
    assert_eq!(trailers.get("grpc-status").expect("a status"), "0");
}
