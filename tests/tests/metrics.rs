//! `/metrics` beside Go etcd 3.7's after the same requests: names, types, labels, buckets. Every difference stands with its
//! reason in testdata/metrics/differences.txt. Needs `OXETCD_REFERENCE`.

use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::scrape::{differences, value};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::web;
use std::collections::BTreeSet;
use std::path::Path;

const DIFFERENCES: &str = include_str!("../testdata/metrics/differences.txt");

/// Something of every kind, through the gateway, which counts as any client.
const LOAD: &[(&str, &str)] = &[
    ("kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#),
    ("kv/range", r#"{"key":"Zm9v"}"#),
    ("kv/range", r#"{"key":"Zm9v","serializable":true}"#),
    ("kv/txn", r#"{"success":[{"request_put":{"key":"YQ=="}},{"request_range":{"key":"YQ=="}}]}"#),
    ("kv/txn", r#"{"success":[{"request_range":{"key":"YQ=="}}]}"#),
    ("kv/put", r#"{"key":"Zm9v","lease":"99"}"#),
    ("kv/deleterange", r#"{"key":"Zm9v"}"#),
    ("lease/grant", r#"{"TTL":600,"ID":77}"#),
    ("lease/keepalive", r#"{"ID":77}"#),
    ("lease/revoke", r#"{"ID":77}"#),
    ("kv/compaction", r#"{"revision":2,"physical":true}"#),
    ("maintenance/hash", "{}"),
    ("maintenance/hashkv", "{}"),
    ("maintenance/status", "{}"),
    ("maintenance/defragment", "{}"),
    ("maintenance/snapshot", "{}"),
    ("auth/role/add", r#"{"name":"r"}"#),
    ("auth/role/list", "{}"),
    ("lock/lock", r#"{"name":"bA=="}"#),
    ("maintenance/alarm", r#"{"action":"ACTIVATE","alarm":"NOSPACE","memberID":5}"#),
];

fn served(binary: &Path, folder: &TempDir) -> Server {
    Launch::new(binary, &folder.join("data")).with_flags(&["--metrics=extensive"]).start()
}

fn page_after_load(server: &Server) -> String {
    let address = server.client_address();
    for (path, body) in LOAD {
        web::post(&address, &format!("/v3/{path}"), body);
    }
    for path in ["/health", "/livez", "/readyz", "/health?serializable=true"] {
        web::send(&address, "GET", path, &[], "");
    }
    web::send(&address, "GET", "/metrics", &[], "").body
}

#[test]
fn names_types_labels_and_buckets_are_go_etcds_but_for_those_explained() {
    let Some(reference) = Reference::find() else { return };
    let (theirs, ours) = (TempDir::new("metrics-go"), TempDir::new("metrics-ours"));
    let theirs = page_after_load(&served(&reference.program("3.7", "etcd"), &theirs));
    let ours = page_after_load(&served(&our_etcd(), &ours));
    let found: BTreeSet<String> = differences(&theirs, &ours).into_iter().collect();
    let rows = DIFFERENCES.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let explained: BTreeSet<String> = rows
        .map(|row| {
            let (difference, reason) = row.split_once(" # ").expect("a difference and its reason");
            assert!(!reason.trim().is_empty(), "{row} has no reason");
            difference.trim().to_owned()
        })
        .collect();
    let unexplained: Vec<_> = found.difference(&explained).collect();
    let stale: Vec<_> = explained.difference(&found).collect();
    assert!(unexplained.is_empty() && stale.is_empty(), "not explained: {unexplained:#?}\nno longer so: {stale:#?}");
    println!("{} differences, all explained", found.len());
}

#[test]
fn what_was_done_is_counted() {
    let folder = TempDir::new("metrics-counts");
    let server = served(&our_etcd(), &folder);
    let before = web::send(&server.client_address(), "GET", "/metrics", &[], "").body;
    let page = page_after_load(&server);
    let grown = |series: &str| value(&page, series).unwrap_or(0.0) - value(&before, series).unwrap_or(0.0);
    for (series, count) in [
        ("etcd_mvcc_put_total", 3.0),
        ("etcd_mvcc_delete_total", 1.0),
        // One is the lock's.
        ("etcd_mvcc_txn_total", 2.0),
        ("etcd_debugging_lease_granted_total", 2.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_debugging_lease_renewed_total", 1.0),
        ("etcd_server_health_success", 0.0),
        ("etcd_server_health_failures", 2.0),
        ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"true\"}", 1.0),
        ("etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"false\"}", 1.0),
        ("grpc_server_started_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"}", 2.0),
        (
            "grpc_server_handled_total{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\",grpc_code=\"NotFound\"}",
            1.0,
        ),
        (
            "grpc_server_handling_seconds_count{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"Range\"}",
            2.0,
        ),
        (
            "grpc_server_msg_sent_total{grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.Lease\",grpc_method=\"LeaseKeepAlive\"}",
            1.0,
        ),
    ] {
        let exact = (grown(series) - count).abs() < 0.5;
        assert!(exact, "{series}: {} instead of {count}", grown(series));
    }
    for series in [
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_write_bytes_total",
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
        "etcd_disk_backend_commit_duration_seconds_count",
        "etcd_disk_backend_defrag_duration_seconds_count",
        "process_resident_memory_bytes",
        "process_open_fds",
        "go_threads",
    ] {
        assert!(value(&page, series).is_some_and(|n| n > 0.0), "{series}: {:?}", value(&page, series));
    }
}

/// Addresses of their own: metrics and health for everybody, HTTP without gRPC, gRPC without HTTP.
#[tokio::test]
async fn metrics_and_http_can_have_addresses_of_their_own() {
    let folder = TempDir::new("metrics-apart");
    let spare = Launch::new(&our_etcd(), &folder.join("unused"));
    let (metrics, http) = (format!("127.0.0.1:{}", spare.client_port), format!("127.0.0.1:{}", spare.peer_port));
    let flags = [
        format!("--listen-metrics-urls=http://{metrics}"),
        format!("--listen-client-http-urls=http://{http}"),
        "--host-whitelist=nobody.example".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&flags).start();
    for path in ["/metrics", "/health", "/livez", "/readyz?verbose"] {
        let reply = web::send(&metrics, "GET", path, &[("Origin", "http://a.example")], "");
        assert_eq!((reply.status, reply.headers.get("access-control-allow-origin")), (200, None), "{path}");
    }
    for path in ["/version", "/v3/kv/range", "/debug/vars"] {
        assert_eq!(web::send(&metrics, "GET", path, &[], "").status, 404, "{path}");
    }
    assert_eq!(web::send(&http, "GET", "/health", &[], "").status, 421);
    assert_eq!(web::send(&http, "GET", "/health", &[("Host", "nobody.example:1")], "").status, 200);
    let wire = oxetcd_tests::wire::Wire::connect(&server.client_url()).await;
    let put: Result<api::pb::etcdserverpb::PutResponse, _> =
        wire.unary(oxetcd_tests::ask::PUT, &oxetcd_tests::ask::put("k", "v")).await;
    put.expect("gRPC is served where clients listen");
}
