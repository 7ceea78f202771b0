//! `etcd grpc-proxy`: what a member answers is what a proxy before it answers, and what many clients want alike reaches the
//! cluster once. The conversations are those of the differential runner: held with a member, and with a proxy before one.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::Seats;
use oxetcd_tests::frames;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Proxy, Server};
use oxetcd_tests::record::{Entry, Side, differences, hold, hold_through_proxy};
use oxetcd_tests::scrape;
use oxetcd_tests::script;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::web;
use oxetcd_tests::wire::{Stream, Wire};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const READY: &str = "started gRPC proxy";

fn proxy(endpoints: &str, flags: &[&str]) -> Proxy {
    let endpoints = format!("--endpoints={endpoints}");
    let flags: Vec<&str> = [endpoints.as_str()].into_iter().chain(flags.iter().copied()).collect();
    Proxy::start(&our_etcd(), "grpc-proxy", &flags, READY)
}

fn member(folder: &TempDir) -> Server {
    Launch::new(&our_etcd(), &folder.join("data")).start()
}

/// Waits until something is so. It must come to be: how soon is the machine's affair.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn figure(address: &str, path: &str, name: &str) -> f64 {
    let page = web::send(address, "GET", path, &[], "").body;
    scrape::value(&page, name).unwrap_or_else(|| panic!("no {name} at {path}:\n{page}"))
}

/// Without hashes, which are of the keys as they are stored: with their namespace.
fn comparable(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| !entry.request.contains("/HashKV"));
    entries
}

macro_rules! same_through_proxy {
    ($($name:ident: $flags:expr => $talk:path;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let talk = async |side: &mut Side| $talk(side).await;
            let direct = comparable(hold(&our_etcd(), stringify!($name), &[], talk).await);
            let label = concat!(stringify!($name), "-proxy");
            let through = comparable(hold_through_proxy(&our_etcd(), &our_etcd(), label, $flags, talk).await);
            let text = differences(&direct, &through);
            assert!(text.is_empty(), "{text}");
            println!("{}: {} equal answers", stringify!($name), direct.len());
        }
    )*};
}

same_through_proxy! {
    keys: &[] => script::keys::talk;
    transactions: &[] => script::transactions::talk;
    leases: &[] => script::leases::talk;
    watches: &[] => script::watches::talk;
    maintenance: &[] => script::maintenance::talk;
    concurrency: &[] => script::concurrency::talk;
    keys_in_order: &["--experimental-serializable-ordering"] => script::keys::talk;
    keys_of_a_namespace: &["--namespace=team/"] => script::keys::talk;
    leases_of_a_namespace: &["--namespace=team/"] => script::leases::talk;
}

/// Without gRPC's codes, which Go's proxy loses, and without the lists in pieces that it does not have.
fn as_go_tells(entries: Vec<Entry>) -> Vec<Entry> {
    let plain = |mut entry: Entry| {
        if entry.answer.starts_with("error ") {
            entry.answer = entry.answer.split_once(") ").map_or("", |(_, text)| text).to_owned();
        }
        entry
    };
    entries.into_iter().filter(|entry| !entry.request.contains("/RangeStream")).map(plain).collect()
}

/// Where the reference is there: what Go's proxy before our member answers, ours before ours does.
macro_rules! same_as_gos_proxy {
    ($($name:ident => $talk:path;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let Some(reference) = Reference::find() else { return };
            let talk = async |side: &mut Side| $talk(side).await;
            let go = reference.program("3.7", "etcd");
            let theirs = hold_through_proxy(&our_etcd(), &go, concat!(stringify!($name), "-go"), &[], talk).await;
            let ours = hold_through_proxy(&our_etcd(), &our_etcd(), stringify!($name), &[], talk).await;
            let text = differences(&as_go_tells(theirs), &as_go_tells(ours));
            assert!(text.is_empty(), "{text}");
        }
    )*};
}

same_as_gos_proxy! {
    keys_beside_go => script::keys::talk;
    concurrency_beside_go => script::concurrency::talk;
}

async fn put(wire: &Wire, key: &str, value: &str) -> i64 {
    let done: Result<pb::PutResponse, _> = wire.unary(ask::PUT, &ask::put(key, value)).await;
    let done = done.unwrap_or_else(|e| panic!("put {key}: {e}"));
    done.header.expect("a header").revision
}

async fn watch(wire: &Wire, request: pb::WatchCreateRequest) -> Stream {
    let mut stream = wire.stream(ask::WATCH, prost::Message::encode_to_vec(&ask::create(request)).into(), &[]);
    let created = next(&mut stream).await;
    assert!(created.created && !created.canceled, "{created:?}");
    stream
}

async fn next(stream: &mut Stream) -> pb::WatchResponse {
    let told: Result<Option<pb::WatchResponse>, _> = stream.next_within(PATIENCE).await;
    told.expect("the stream goes on").expect("there is more")
}

/// Revisions of the next so many events.
async fn revisions(stream: &mut Stream, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    while found.len() < count {
        let told = next(stream).await;
        assert!(!told.canceled, "{told:?}");
        found.extend(told.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision));
    }
    found
}

const WATCHERS: &str = "etcd_debugging_mvcc_watcher_total";

#[tokio::test(flavor = "multi_thread")]
async fn many_watchers_are_one_to_the_cluster() {
    let folder = TempDir::new("proxy-watchers");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &[]);
    let wire = Wire::connect(&proxy.url()).await;
    for n in 2..=5 {
        assert_eq!(put(&wire, "key", "old").await, n);
    }
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(watch(&wire, ask::watch("key", "")).await);
    }
    // One that wants history, and one that begins where the others are.
    streams.push(watch(&wire, pb::WatchCreateRequest { start_revision: 3, ..ask::watch("key", "") }).await);
    streams.push(watch(&wire, pb::WatchCreateRequest { start_revision: 6, ..ask::watch("key", "") }).await);
    put(&wire, "key", "new").await;
    for (n, stream) in streams.iter_mut().enumerate() {
        let expected = if n == 10 { vec![3, 4, 5, 6] } else { vec![6] };
        assert_eq!(revisions(stream, expected.len()).await, expected, "watcher {n}");
    }
    until("one watcher is left", || figure(&server.client_address(), "/metrics", WATCHERS) == 1.0);
    let shared = || figure(proxy.address(), "/proxy/metrics", "etcd_grpc_proxy_watchers_coalescing_total");
    assert_eq!(shared(), 11.0);
    for round in 0..5 {
        let revision = put(&wire, "key", "more").await;
        for stream in &mut streams {
            assert_eq!(revisions(stream, 1).await, [revision], "round {round}");
        }
    }
    assert!(figure(proxy.address(), "/proxy/metrics", "etcd_grpc_proxy_events_coalescing_total") >= 55.0);
    drop(streams);
    until("all watchers are gone", || figure(&server.client_address(), "/metrics", WATCHERS) == 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_miss_nothing_while_members_come_and_go() {
    let folder = TempDir::new("proxy-restarts");
    let mut seats = Seats::found(&vec![our_etcd(); 3], &folder.join("cluster"), &[]);
    let urls = seats.urls();
    let proxy = proxy(&urls.join(","), &[]);
    let wire = Wire::connect(&proxy.url()).await;
    let first = put_somehow(&wire, 0).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let request = pb::WatchCreateRequest { start_revision: first, ..ask::watch("key", "") };
        streams.push(watch(&wire, request).await);
    }
    for n in 0..3 {
        seats.kill(n);
        for round in 0..5 {
            put_somehow(&wire, n * 5 + round).await;
        }
        seats.start(n);
    }
    let last = put_somehow(&wire, 99).await;
    let mut all: Option<Vec<i64>> = None;
    for stream in &mut streams {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            seen.extend(revisions(stream, 1).await);
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert!(seen.len() >= 17, "{seen:?}");
        assert_eq!(all.get_or_insert_with(|| seen.clone()), &seen);
    }
}

/// Puts until somebody says that it is done; what was not answered may have been done, too.
async fn put_somehow(wire: &Wire, n: usize) -> i64 {
    let end = Instant::now() + PATIENCE;
    loop {
        let request = ask::put("key", &n.to_string());
        let done: Result<pb::PutResponse, _> = wire.unary(ask::PUT, &request).await;
        match done {
            Ok(done) => return done.header.expect("a header").revision,
            Err(e) => assert!(Instant::now() < end, "put {n}: {e}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_keeps_nobody_waiting_and_misses_nothing() {
    let folder = TempDir::new("proxy-slow");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &[]);
    let (quick, slow) = (Wire::connect(&proxy.url()).await, Wire::connect(&proxy.url()).await);
    let mut reader = watch(&quick, ask::watch("key", "")).await;
    let mut sleeper = watch(&slow, ask::watch("key", "")).await;
    // Far more than windows and the outbox hold.
    let (value, count) = ("v".repeat(1 << 20), 60);
    let mut expected = Vec::new();
    for _ in 0..count {
        let revision = put(&quick, "key", &value).await;
        assert_eq!(revisions(&mut reader, 1).await, [revision]);
        expected.push(revision);
    }
    assert_eq!(revisions(&mut sleeper, count).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_of_all_watchers_at_once() {
    let folder = TempDir::new("proxy-progress");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &[]);
    let wire = Wire::connect(&proxy.url()).await;
    let mut stream = watch(&wire, ask::watch("a", "")).await;
    stream.send(&ask::create(ask::watch("b", "")));
    assert!(next(&mut stream).await.created);
    let revision = put(&wire, "elsewhere", "x").await;
    stream.send(&ask::progress());
    let told = next(&mut stream).await;
    assert_eq!((told.watch_id, told.events.len()), (-1, 0));
    assert_eq!(told.header.expect("a header").revision, revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn serializable_reads_are_answered_from_the_cache_until_somebody_writes() {
    let folder = TempDir::new("proxy-cache");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &[]);
    let wire = Wire::connect(&proxy.url()).await;
    let hits = || figure(proxy.address(), "/proxy/metrics", "etcd_grpc_proxy_cache_hits_total");
    let misses = || figure(proxy.address(), "/proxy/metrics", "etcd_grpc_proxy_cache_misses_total");
    let read = async || {
        let request = pb::RangeRequest { serializable: true, ..ask::range("a", "c") };
        let found: Result<pb::RangeResponse, _> = wire.unary(ask::RANGE, &request).await;
        found.expect("a read").kvs.iter().map(|kv| kv.value.to_vec()).collect::<Vec<_>>()
    };
    put(&wire, "a", "1").await;
    assert_eq!(read().await, [b"1"]);
    assert_eq!((hits(), misses()), (0.0, 1.0));
    assert_eq!(read().await, [b"1"]);
    assert_eq!((hits(), misses()), (1.0, 1.0));
    put(&wire, "b", "2").await;
    assert_eq!(read().await, [b"1", b"2"]);
    assert_eq!((hits(), misses()), (1.0, 2.0));
    let put_b = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(ask::put("b", "3"))) };
    let done: Result<pb::TxnResponse, _> =
        wire.unary(ask::TXN, &ask::txn(vec![ask::present("a")], vec![put_b], Vec::new())).await;
    assert!(done.expect("a transaction").succeeded);
    assert_eq!(read().await, [b"1", b"3"]);
    let done: Result<pb::DeleteRangeResponse, _> = wire.unary(ask::DELETE, &ask::delete("a", "")).await;
    assert_eq!(done.expect("a deletion").deleted, 1);
    assert_eq!(read().await, [b"3"]);
    assert_eq!((hits(), misses()), (1.0, 4.0));
    assert!(figure(proxy.address(), "/proxy/metrics", "etcd_grpc_proxy_cache_keys_total") >= 1.0);
}

#[test]
fn a_client_may_have_so_many_streams_of_a_proxy() {
    let folder = TempDir::new("proxy-streams");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &["--max-concurrent-streams=7"]);
    let settings = frames::announced(proxy.address());
    assert!(settings.windows(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "{settings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_key_is_read_without_the_cluster_and_given_to_the_proxy_that_writes_it() {
    let folder = TempDir::new("proxy-leasing");
    let server = member(&folder);
    let flags = ["--experimental-leasing-prefix=leases/", "--namespace=team/"];
    let (one, other) = (proxy(&server.client_address(), &flags), proxy(&server.client_address(), &flags));
    let (one, other) = (Wire::connect(&one.url()).await, Wire::connect(&other.url()).await);
    let read = async |wire: &Wire| {
        let found: Result<pb::RangeResponse, _> = wire.unary(ask::RANGE, &ask::get("a")).await;
        found.expect("a read").kvs.pop().map(|kv| (kv.key, kv.value))
    };
    let is = |value: &'static str| Some(("a".into(), value.into()));
    put(&one, "a", "1").await;
    assert_eq!(read(&one).await, is("1"));
    // The member answers nobody now.
    server.signal(Signal::STOP);
    assert_eq!(read(&one).await, is("1"));
    server.signal(Signal::CONT);
    let outside = Wire::connect(&server.client_url()).await;
    let leased: Result<pb::RangeResponse, _> = outside.unary(ask::RANGE, &ask::get("team/leases/a")).await;
    assert_eq!(leased.expect("a read").count, 1);
    put(&other, "a", "2").await;
    assert_eq!((read(&one).await, read(&other).await), (is("2"), is("2")));
    let put_a = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(ask::put("a", "3"))) };
    let txn = ask::txn(vec![ask::value_is("a", "2")], vec![put_a], Vec::new());
    let done: Result<pb::TxnResponse, _> = other.unary(ask::TXN, &txn).await;
    assert!(done.expect("a transaction").succeeded);
    let deleted: Result<pb::DeleteRangeResponse, _> = one.unary(ask::DELETE, &ask::delete("a", "\0")).await;
    assert_eq!(deleted.expect("a deletion").deleted, 1);
    assert_eq!((read(&one).await, read(&other).await), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_seen_by_nobody_in_it() {
    let folder = TempDir::new("proxy-namespace");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &["--namespace=team/"]);
    let (inside, outside) = (Wire::connect(&proxy.url()).await, Wire::connect(&server.client_url()).await);
    put(&outside, "tea", "x").await;
    put(&outside, "team0", "x").await;
    put(&inside, "a", "b").await;
    let request = pb::WatchCreateRequest { start_revision: 1, prev_kv: true, ..ask::watch("", "\0") };
    let mut events = watch(&inside, request).await;
    put(&inside, "a", "c").await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(next(&mut events).await.events);
    }
    assert!(seen.iter().all(|event| event.kv.as_ref().is_some_and(|kv| kv.key == "a")), "{seen:?}");
    assert_eq!(seen[1].prev_kv.as_ref().map(|kv| (&kv.key[..], &kv.value[..])), Some((&b"a"[..], &b"b"[..])));
    let all: Result<pb::RangeResponse, _> = inside.unary(ask::RANGE, &ask::everything()).await;
    let keys: Vec<_> = all.expect("a read").kvs.into_iter().map(|kv| kv.key).collect();
    assert_eq!(keys, ["a"]);
    let (pieces, end) = inside.collect::<_, pb::RangeStreamResponse>(ask::RANGE_STREAM, &ask::everything()).await;
    end.expect("a whole list");
    let listed = pieces.into_iter().filter_map(|piece| piece.range_response).flat_map(|range| range.kvs);
    assert_eq!(listed.map(|kv| kv.key).collect::<Vec<_>>(), ["a"]);
    let found: Result<pb::RangeResponse, _> = outside.unary(ask::RANGE, &ask::get("team/a")).await;
    assert_eq!(found.expect("a read").count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_in_pieces_pass() {
    let folder = TempDir::new("proxy-pieces");
    let server = member(&folder);
    let proxy = proxy(&server.client_address(), &[]);
    let wire = Wire::connect(&proxy.url()).await;
    put(&wire, "a", "b").await;
    let (pieces, end) = wire.collect::<_, pb::RangeStreamResponse>(ask::RANGE_STREAM, &ask::everything()).await;
    end.expect("a whole list");
    assert_eq!(
        pieces.into_iter().filter_map(|piece| piece.range_response).map(|range| range.kvs.len()).sum::<usize>(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_find_each_other_and_stand_for_the_members() {
    let folder = TempDir::new("proxy-register");
    let server = member(&folder);
    let start = |address: &str| {
        let own = format!("--advertise-client-url={address}");
        proxy(&server.client_address(), &[&own, "--resolver-prefix=proxies", "--resolver-ttl=2"])
    };
    let (one, two) = (start("one.example:1"), start("two.example:2"));
    let wire = Wire::connect(&one.url()).await;
    let shown = async || {
        let list: Result<pb::MemberListResponse, _> =
            wire.unary(ask::MEMBER_LIST, &pb::MemberListRequest::default()).await;
        let mut urls: Vec<String> = list.expect("a list").members.into_iter().flat_map(|m| m.client_ur_ls).collect();
        urls.sort();
        urls
    };
    let end = Instant::now() + PATIENCE;
    while shown().await != ["one.example:1", "two.example:2"] {
        assert!(Instant::now() < end, "{:?}", shown().await);
    }
    let outside = Wire::connect(&server.client_url()).await;
    let found: Result<pb::RangeResponse, _> = outside.unary(ask::RANGE, &ask::get("proxies/two.example:2")).await;
    let found = found.expect("a read").kvs.remove(0);
    let value = String::from_utf8_lossy(&found.value).into_owned();
    assert!(value.starts_with("{\"Op\":0,\"Addr\":\"two.example:2\",\"Metadata\":\"{\\\"name\\\":"), "{value}");
    assert_ne!(found.lease, 0);
    drop(two);
    while shown().await != ["one.example:1"] {
        assert!(Instant::now() < end, "{:?}", shown().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_the_clusters_and_its_own() {
    let folder = TempDir::new("proxy-web");
    let server = member(&folder);
    let metrics = format!("127.0.0.1:{}", oxetcd_tests::process::free_ports().0);
    let extra = format!("--metrics-addr=http://{metrics}");
    let proxy = proxy(&server.client_address(), &[&extra, "--enable-pprof", "--advertise-client-url=127.0.0.1:1"]);
    for address in [proxy.address(), &metrics] {
        let healthy = web::send(address, "GET", "/health", &[], "");
        assert_eq!((healthy.status, healthy.body.as_str()), (200, "{\"health\":\"true\",\"reason\":\"\"}"));
        assert_eq!(web::send(address, "POST", "/health", &[], "").status, 405);
        assert_eq!(figure(address, "/metrics", "etcd_server_has_leader"), 1.0);
        assert!(figure(address, "/proxy/metrics", "etcd_grpc_proxy_cache_hits_total") >= 0.0);
        // Nobody listens where it says that it is.
        let own = web::send(address, "GET", "/proxy/health", &[], "");
        assert_eq!(own.status, 503, "{}", own.body);
        assert!(own.body.contains("\"health\":\"false\",\"reason\":\"GET ERROR:"), "{}", own.body);
        assert_eq!(web::send(address, "GET", "/nothing", &[], "").status, 404);
    }
    assert_eq!(web::send(proxy.address(), "GET", "/debug/pprof/", &[], "").status, 200);
    server.kill();
    let ill = web::send(proxy.address(), "GET", "/health", &[], "");
    assert_eq!(ill.status, 503);
    assert!(ill.body.contains("context deadline exceeded"), "{}", ill.body);
    assert_eq!(web::send(proxy.address(), "GET", "/metrics", &[], "").status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_are_found_where_the_proxy_looks_for_them() {
    let folder = TempDir::new("proxy-sync");
    let mut seats = Seats::found(&vec![our_etcd(); 3], &folder.join("cluster"), &[]);
    // It is told of one.
    let proxy = proxy(&seats.url(0), &["--endpoints-auto-sync-interval=20ms", "--debug"]);
    let wire = Wire::connect(&proxy.url()).await;
    assert!(proxy.wait_for_log("set etcd endpoints by autoSync"), "{}", proxy.log());
    let all = || seats.urls().iter().all(|url| proxy.log().contains(url.as_str()));
    until("it has found all three", all);
    seats.kill(0);
    put_somehow(&wire, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_a_leader_is_told_that_there_is_none() {
    let folder = TempDir::new("proxy-leader");
    let mut seats = Seats::found(&vec![our_etcd(); 3], &folder.join("cluster"), &[]);
    let proxy = proxy(&seats.url(0), &[]);
    let wire = Wire::connect(&proxy.url()).await;
    put_somehow(&wire, 0).await;
    let open = |metadata| {
        let create = prost::Message::encode_to_vec(&ask::create(ask::watch("key", "")));
        wire.stream(ask::WATCH, create.into(), metadata)
    };
    let (mut patient, mut demanding) = (open(&[]), open(&[("hasleader", "true")]));
    for stream in [&mut patient, &mut demanding] {
        assert!(next(stream).await.created);
    }
    seats.kill(1);
    seats.kill(2);
    let told: Result<Option<pb::WatchResponse>, _> = demanding.next_within(PATIENCE).await;
    let status = told.expect_err("its stream ends");
    assert_eq!((status.code() as i32, status.message()), (14, "etcdserver: no leader"));
    seats.start_these(&[1, 2]);
    let revision = put_somehow(&wire, 1).await;
    // One that was not answered may have been done before.
    while revisions(&mut patient, 1).await.last() != Some(&revision) {}
}
