//! `ETCD_VERIFY`: invariants that are checked at the start and at the end when it is set, in the server and in etcdutl.

mod tools;

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use rustix::process::Signal;
use std::path::Path;
use std::time::Duration;
use tonic::Status;
use tools::{ask as say, our_etcdutl, words};

const PASSED: [&str; 2] = ["successful at the start", "successful at the end"];
const UNKNOWN: &str = "unrecognized environment variable";

fn launch(data: &Path, verify: Option<&str>) -> Launch {
    let mut launch = Launch::new(&our_etcd(), data);
    launch.env.extend(verify.map(|value| ("ETCD_VERIFY".into(), value.into())));
    launch
}

/// One key, three times; the member stops.
async fn three_versions(data: &Path, verify: Option<&str>) -> String {
    let server = launch(data, verify).start();
    let wire = Wire::connect(&server.client_url()).await;
    for value in ["1", "2", "3"] {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("verifiedkey", value)).await;
        done.expect("a put");
    }
    server.signal(Signal::TERM);
    if verify.is_some() {
        assert!(server.wait_for_log(PASSED[1], Duration::from_secs(60)), "{}", server.log());
    }
    let log = server.log();
    server.stop();
    log
}

/// Makes the key's third version its ninth, in every page that has it.
fn forge(db: &Path) {
    let mut bytes = std::fs::read(db).expect("a page store");
    let key = b"\x0a\x0bverifiedkey\x10\x02\x18\x04\x20\x03";
    let places: Vec<usize> =
        bytes.windows(key.len()).enumerate().filter(|(_, w)| *w == key).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + key.len() - 1] = 9;
    }
    std::fs::write(db, bytes).expect("a page store");
}

#[tokio::test]
async fn what_is_broken_is_found_when_it_is_asked_for_and_only_then() {
    let folder = TempDir::new("verify");
    let quiet = three_versions(&folder.join("quiet"), None).await;
    assert!(!quiet.contains("verification"), "{quiet}");
    let data = folder.join("data");
    let told = three_versions(&data, Some("all")).await;
    assert!(PASSED.iter().all(|text| told.contains(text)) && !told.contains(UNKNOWN), "{told}");
    forge(&data.join("member/snap/db"));
    // It starts, as it would have without the check.
    drop(launch(&data, None).start());
    let server = launch(&data, Some("no")).start();
    assert!(server.log().contains(UNKNOWN), "{}", server.log());
    drop(server);
    for value in ["all", "assert"] {
        let refused = launch(&data, Some(value)).try_start().expect_err("a broken invariant");
        let clear = ["verification failed", "verifiedkey", "has version 9", "restore a backup"];
        assert!(clear.iter().all(|text| refused.log.contains(text)), "{value}: {refused}");
    }
    let defragment = words(&format!("defrag --data-dir {}", data.display()));
    let offline = |env: &[(&str, &str)]| say(&our_etcdutl(), folder.path(), env, &defragment, b"");
    assert_eq!(offline(&[]).code, Some(0));
    let said = offline(&[("ETCD_VERIFY", "ALL")]);
    assert!(said.code == Some(1) && said.err.contains("has version 9"), "{said:?}");
}
