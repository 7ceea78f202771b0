//! What strangers send to the client port hurts nobody else: the member serves on, in bounded memory.

use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use oxetcd_tests::ask;
use oxetcd_tests::frames::{call, fate, field, frame, greeting, ping};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;
use tonic::Status;

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const QUIET: Duration = Duration::from_millis(300);
/// Longer than a server that means to close may take.
const PATIENCE: Duration = Duration::from_secs(120);
const ENHANCE_YOUR_CALM: u32 = 11;
/// More than any of the attacks may make a member grow.
const GROWTH_MAX_KIB: u64 = 128 << 10;

fn servers(folder: &TempDir) -> Vec<Server> {
    let mut binaries = vec![our_etcd()];
    binaries.extend(Reference::find().map(|reference| reference.program("3.7", "etcd")));
    let start = |(n, binary): (usize, &PathBuf)| Launch::new(binary, &folder.join(&format!("server{n}"))).start();
    binaries.iter().enumerate().map(start).collect()
}

async fn assert_serves(server: &Server, after: &str) {
    let wire = Wire::connect(&server.client_url()).await;
    let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("alive", after)).await;
    put.unwrap_or_else(|e| panic!("after {after}: {e}; log:\n{}", server.log()));
    let all: Result<pb::RangeResponse, Status> = wire.unary(ask::RANGE, &ask::get("alive")).await;
    assert_eq!(all.expect("a range").kvs[0].value, after.as_bytes());
}

#[tokio::test]
async fn clients_that_ping_too_often_are_sent_away_as_go_does() {
    let folder = TempDir::new("pings");
    for server in servers(&folder) {
        let address = server.client_address();
        let pings = |n: usize| ping().repeat(n);
        // The first ping is free, two strikes are borne.
        let borne = fate(&address, &[greeting(), pings(3)].concat(), QUIET);
        assert_eq!((borne.goaway, borne.closed), (None, false), "{}", server.log());
        for open in [vec![], call(1, WATCH, &[])] {
            let fate = fate(&address, &[greeting(), open, pings(4)].concat(), PATIENCE);
            assert_eq!(fate.goaway, Some((ENHANCE_YOUR_CALM, "too_many_pings".to_owned())));
            assert!(fate.closed);
        }
    }
}

/// A gRPC message: compression flag, length, bytes.
fn message(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    [&[compressed], &length.to_be_bytes()[..], bytes].concat()
}

/// Frames of DATA of at most 16 KiB each.
fn data(stream: u32, bytes: &[u8]) -> Vec<u8> {
    bytes.chunks(16 << 10).flat_map(|part| frame(0, 0, stream, part)).collect()
}

/// What strangers send.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let junk: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let open = |more: &[u8]| [&greeting()[..], more].concat();
    let many = |n: u32, each: &dyn Fn(u32) -> Vec<u8>| open(&(0..n).flat_map(each).collect::<Vec<u8>>());
    let long = field("x", &"y".repeat(120));
    let headers = |stream| frame(1, 0, stream, &field(":method", "POST"));
    vec![
        ("junk", junk.clone()),
        ("a TLS hello", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &junk[..500]].concat()),
        ("a preface and junk", open(&junk)),
        ("a frame of 16 MiB", open(&[&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &junk].concat())),
        ("half a frame", open(&call(1, RANGE, &[])[..20])),
        (
            "headers without end",
            [headers(1), long.repeat(100)].iter().fold(greeting(), |all, more| [all, more.clone()].concat()),
        ),
        (
            "continuations without end",
            [open(&headers(1)), (0..40_000).flat_map(|_| frame(9, 0, 1, &long)).collect()].concat(),
        ),
        (
            "rapid resets",
            many(50_000, &|n| [call(2 * n + 1, RANGE, &[]), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()),
        ),
        ("a flood of settings", many(100_000, &|_| frame(4, 0, 0, &[]))),
        ("a flood of empty data", [open(&call(1, WATCH, &[])), frame(0, 0, 1, &[]).repeat(100_000)].concat()),
        ("a flood of priorities", many(100_000, &|n| frame(2, 0, 2 * n + 1, &[0, 0, 0, 0, 1]))),
        ("window updates past the end", many(10, &|_| frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]))),
        ("a window update of nothing", open(&frame(8, 0, 0, &[0; 4]))),
        ("data on no stream", open(&frame(0, 0, 0, b"data"))),
        ("data on an idle stream", open(&frame(0, 0, 77, b"data"))),
        ("an even stream", open(&call(2, RANGE, &[]))),
        ("indices of no table", open(&frame(1, 5, 1, &[0xff; 30]))),
        ("header names with line ends", open(&frame(1, 5, 1, &field("a\r\nb", "c")))),
        ("a message of 4 GiB", open(&[call(1, RANGE, &[]), data(1, &message(0, u32::MAX, &junk))].concat())),
        ("half a message", open(&[call(1, RANGE, &[]), data(1, &message(0, 100, b"half"))].concat())),
        ("a flag of 255", open(&[call(1, RANGE, &[]), data(1, &message(255, 4, b"four"))].concat())),
        (
            "compressed junk",
            open(&[call(1, RANGE, &[("grpc-encoding", "gzip")]), data(1, &message(1, 9, b"not gzip!"))].concat()),
        ),
        ("a thousand streams", many(1000, &|n| call(2 * n + 1, WATCH, &[]))),
    ]
}

#[tokio::test]
async fn hostile_bytes_hurt_only_their_sender() {
    let folder = TempDir::new("hostile");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    assert_serves(&server, "nothing").await;
    let before = resident_kib(&server);
    for (what, bytes) in attacks() {
        let address = server.client_address();
        let attack = tokio::task::spawn_blocking(move || fate(&address, &bytes, QUIET));
        attack.await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_serves(&server, what).await;
        let grown = resident_kib(&server).saturating_sub(before);
        assert!(grown < GROWTH_MAX_KIB, "{what}: the member grew by {grown} KiB");
        assert!(!server.log().contains("panicked"), "{what}: {}", server.log());
    }
}

/// 1 GiB of zeros is 1 MB of gzip: what it would become is refused, and never made.
#[tokio::test]
async fn a_small_message_that_inflates_is_refused_in_bounded_memory() {
    let folder = TempDir::new("bomb");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    assert_serves(&server, "nothing").await;
    let before = resident_kib(&server);
    let address = server.client_address();
    let bomb = zeros_in_gzip(1 << 30);
    let body = Bytes::from(message(1, u32::try_from(bomb.len()).expect("it is small"), &bomb));
    let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-encoding", "gzip")];
    let answer = oxetcd_tests::http::post(&address, RANGE, &headers, body).await.expect("an answer");
    let status = answer.fields.iter().find(|(name, _)| name == "grpc-status").map(|(_, value)| value.as_str());
    assert_eq!(status, Some("8"), "resource exhausted: {answer:?}");
    assert_serves(&server, "a bomb").await;
    let grown = resident_kib(&server).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "the member grew by {grown} KiB");
}

fn zeros_in_gzip(count: u64) -> Vec<u8> {
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::repeat(0).take(count), &mut zip).expect("memory takes all");
    zip.finish().expect("memory takes all")
}

fn resident_kib(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.pid());
    let status = std::fs::read_to_string(path).expect("the server runs");
    // VmHWM: the most it ever was.
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("Linux tells it");
    let number = line.split_whitespace().nth(1).expect("it has a value");
    number.parse().expect("it is a number")
}

/// A hundred heads that never end (a thousand by hand: docs/TESTING.md): others are served, and so is who ends his at last.
#[tokio::test]
async fn clients_that_do_not_end_their_heads_keep_nobody_waiting() {
    use std::io::Write as _;
    let folder = TempDir::new("slow-heads");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let begin = || {
        let mut stream = std::net::TcpStream::connect(server.client_address()).expect("it listens");
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ").expect("it is open");
        stream
    };
    let mut slow: Vec<_> = (0..100).map(|_| begin()).collect();
    let wire = Wire::connect(&server.client_url()).await;
    let mut took = Vec::new();
    for n in 0..100 {
        let begun = std::time::Instant::now();
        let put: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("k", &n.to_string())).await;
        put.expect("others are served");
        took.push(begun.elapsed());
    }
    took.sort();
    println!("p99 of others' puts: {:?}", took[98]);
    let mut last = slow.pop().expect("a hundred");
    last.set_read_timeout(Some(PATIENCE)).expect("a nonzero timeout is valid");
    last.write_all(b"b\r\nConnection: close\r\n\r\n").expect("it is still open");
    let mut said = String::new();
    last.read_to_string(&mut said).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
}
