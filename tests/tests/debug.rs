//! What is served below `/debug/` to those who look into a member, beside Go etcd 3.7: when it is served, the pages of calls and
//! events, and profiles in pprof's format.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use oxetcd_tests::{ask, web};
use prost::Message;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "planted-secret";

/// Our program, and Go's where it is.
fn programs() -> Vec<PathBuf> {
    let gos = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    [our_etcd()].into_iter().chain(gos).collect()
}

fn get(server: &Server, path: &str) -> web::Reply {
    web::send(&server.client_address(), "GET", path, &[], "")
}

#[test]
fn pages_are_served_at_debug_level_and_profiles_when_asked_for_too() {
    let folder = TempDir::new("debug-served");
    for (n, etcd) in programs().iter().enumerate() {
        for (flag, profiles, calls) in
            [("--log-level=info", 404, 404), ("--enable-pprof", 200, 404), ("--log-level=debug", 200, 200)]
        {
            let data = folder.join(&format!("data{n}{flag}"));
            let server = Launch::new(etcd, &data).with_flags(&[flag]).start();
            let codes = ["/debug/pprof/", "/debug/pprof/cmdline", "/debug/requests", "/debug/events"]
                .map(|path| get(&server, path).status);
            assert_eq!(codes, [profiles, profiles, calls, calls], "{} {flag}", etcd.display());
            assert_eq!(get(&server, "/debug/vars").status, 200);
            assert_eq!(get(&server, "/debug/requests/").status, 404);
            let expected = if profiles == 200 { 307 } else { 404 };
            assert_eq!(get(&server, "/debug/pprof").status, expected);
        }
    }
}

/// A page without its tags, one space between words, and the head of the page left out.
fn words(page: &str) -> String {
    let body = page.split_once("<h1>").map_or(page, |(_, body)| body);
    let texts = body.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text));
    let text: String = texts.flat_map(|text| [text, " "]).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Fetches until the page is as it is to be: a call is finished a moment after its answer.
fn settled(server: &Server, path: &str, done: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let reply = get(server, path);
        assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
        if done(&reply.body) {
            return reply.body;
        }
        assert!(Instant::now() < end, "{path}: {}", reply.body);
        std::thread::yield_now();
    }
}

/// Something that works, something that fails, something that goes on.
async fn talk(server: &Server) -> oxetcd_tests::wire::Stream {
    let wire = Wire::connect(&server.client_url()).await;
    let put: Result<pb::PutResponse, _> = wire.unary(ask::PUT, &ask::put("key", SECRET)).await;
    put.expect("it is stored");
    let range: Result<pb::RangeResponse, _> = wire.unary(ask::RANGE, &ask::get("key")).await;
    assert_eq!(range.expect("it is found").count, 1);
    let compact = pb::CompactionRequest { revision: 100, ..Default::default() };
    let compacted: Result<pb::CompactionResponse, _> = wire.unary(ask::COMPACT, &compact).await;
    compacted.expect_err("that is in the future");
    let user = pb::AuthUserAddRequest { name: "u".into(), password: SECRET.into(), ..Default::default() };
    let added: Result<pb::AuthUserAddResponse, _> = wire.unary("/etcdserverpb.Auth/UserAdd", &user).await;
    added.expect("it is added");
    let mut watch = wire.stream(ask::WATCH, ask::create(ask::watch("key", "")).encode_to_vec().into(), &[]);
    watch.next::<pb::WatchResponse>().await.expect("it is created");
    watch
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_shown_as_on_gos_page_but_for_their_secrets() {
    let folder = TempDir::new("debug-requests");
    let mut seen = Vec::new();
    for (n, etcd) in programs().iter().enumerate() {
        let data = folder.join(&format!("data{n}"));
        let server = Launch::new(etcd, &data).with_flags(&["--log-level=debug", "--bcrypt-cost=4"]).start();
        let watch = talk(&server).await;
        let family = "fam=grpc.Recv.etcdserverpb.KV";
        // All three calls have ended.
        let titles = |page: &str| page.matches("<td>/etcdserverpb.KV/").count();
        settled(&server, &format!("/debug/requests?{family}&b=0"), |page| titles(page) == 3);
        let idle = "grpc.Recv.etcdserverpb.Auth [0 active]";
        let status = words(&settled(&server, "/debug/requests", |page| words(page).contains(idle)));
        let failed = settled(&server, &format!("/debug/requests?{family}&b=8&exp=1"), |page| {
            page.contains("Completed Requests")
        });
        let failed: Vec<String> = [
            "Family: grpc.Recv.etcdserverpb.KV",
            "[Normal/Expanded]",
            "/etcdserverpb.KV/Compact",
            "RPC: from 127.0.0.1:",
            "recv: ",
            "rpc error: code = OutOfRange desc = etcdserver: mvcc: required revision is a \
             future revision",
        ]
        .iter()
        .map(|text| format!("{text} {}", words(&failed).contains(text)))
        .collect();
        let active = words(&get(&server, "/debug/requests?fam=grpc.Recv.etcdserverpb.Watch&b=-1&exp=1").body);
        assert!(active.contains("Active Requests") && active.contains("/etcdserverpb.Watch/Watch"), "{active}");
        let events = words(&get(&server, "/debug/events").body);
        seen.push((status, failed, events));
        if n == 0 {
            let lists = ["KV", "Auth", "Watch"].into_iter().flat_map(|service| [-1, 0, 8].map(|list| (service, list)));
            let pages = lists.map(|(service, list)| {
                get(&server, &format!("/debug/requests?fam=grpc.Recv.etcdserverpb.{service}&b={list}&exp=1")).body
            });
            let pages: String = pages.collect();
            assert!(pages.contains("value_size:14") && pages.contains("/etcdserverpb.Auth/UserAdd"), "{pages}");
            assert!(!pages.contains(SECRET), "{pages}");
            let all = words(&get(&server, "/debug/events?fam=grpc.Server&b=0&exp=1").body);
            assert!(all.contains("RegisterService(&#34;etcdserverpb.KV&#34;)") && all.contains("serving"), "{all}");
        }
        drop(watch);
    }
    let ours = seen[0].clone();
    assert!(ours.0.contains("grpc.Recv.etcdserverpb.Watch [1 active]"), "{}", ours.0);
    assert!(ours.1.iter().all(|line| line.ends_with("true")), "{:?}", ours.1);
    for gos in &seen {
        assert_eq!(*gos, ours);
    }
}

/// Names and labels of a profile.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(string, repeated, tag = "6")]
    strings: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    locations: Vec<u64>,
}

fn profile(server: &Server, name: &str) -> Profile {
    let reply = web::open(&server.client_address(), "GET", &format!("/debug/pprof/{name}"), &[], "");
    let (head, body) = reply.bytes();
    assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "application/octet-stream"), "{name}");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("it is gzipped");
    Profile::decode(&plain[..]).expect("it is a profile")
}

impl Profile {
    fn has(&self, text: &str) -> bool {
        self.strings.iter().any(|string| string.contains(text))
    }
}

#[test]
fn profiles_are_of_this_very_program_and_in_pprofs_format() {
    let folder = TempDir::new("debug-pprof");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&["--enable-pprof"]).start();
    assert!(server.wait_for_log("pprof is enabled", PATIENCE));
    let index = get(&server, "/debug/pprof/").body;
    for name in ["allocs", "cmdline", "goroutine", "heap", "profile", "symbol", "threadcreate"] {
        assert!(index.contains(&format!("<a href='{name}?debug=1'>{name}</a>")), "{index}");
    }
    let threads = profile(&server, "goroutine");
    assert!(threads.has("core") && threads.has("network-0") && threads.has("watch-hub"), "{threads:?}");
    let text = get(&server, "/debug/pprof/goroutine?debug=1").body;
    assert!(text.starts_with("goroutine profile: total ") && text.contains(": core, "), "{text}");
    // Somebody has to work for that.
    let address = server.client_address();
    let processors = std::thread::scope(|scope| {
        let (work, over) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                web::post(&address, "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#);
            }
        });
        let end = Instant::now() + PATIENCE;
        loop {
            let profile = profile(&server, "profile?seconds=1");
            let threads: BTreeSet<_> =
                profile.strings.iter().filter(|s| ["core", "network-0"].contains(&s.as_str())).collect();
            if !threads.is_empty() || Instant::now() > end {
                drop(work);
                return profile;
            }
        }
    });
    assert!(!processors.samples.is_empty() && processors.has("nanoseconds"), "{processors:?}");
    assert!(processors.has("etcd::driver::"), "functions have names: {processors:?}");
    let heap = profile(&server, "heap");
    assert!(heap.has("inuse_space") && heap.has("alloc_objects"), "{heap:?}");
    assert!(get(&server, "/debug/pprof/heap?debug=1").body.starts_with("heap profile: "));
    profile(&server, "allocs");
}

#[test]
fn what_there_is_not_is_said() {
    let folder = TempDir::new("debug-pprof-not");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&["--enable-pprof"]).start();
    for (path, status, text) in [
        ("nonsense", 404, "Unknown profile"),
        ("mutex", 501, "does not measure"),
        ("block", 501, "does not measure"),
        ("trace?seconds=1", 501, "does not measure"),
        ("heap?seconds=1", 400, "is not supported"),
        ("profile?seconds=99999", 400, "may last"),
        ("symbol", 200, "num_symbols: 1\n"),
        ("symbol?0x10+nonsense", 200, "num_symbols: 1\n"),
    ] {
        let reply = get(&server, &format!("/debug/pprof/{path}"));
        assert!(reply.status == status && reply.body.contains(text), "{path}: {reply:?}");
        assert_eq!(reply.headers["x-content-type-options"], "nosniff", "{path}");
    }
    let posted = web::post(&server.client_address(), "/debug/pprof/symbol", &"1+".repeat(1 << 20));
    assert_eq!(posted.status, 413);
    let line = get(&server, "/debug/pprof/cmdline").body;
    assert!(line.split('\0').any(|word| word == "--enable-pprof"), "{line}");
    // One at a time.
    let first = web::open(&server.client_address(), "GET", "/debug/pprof/symbol", &[], "").whole();
    assert_eq!(first.status, 200);
}
