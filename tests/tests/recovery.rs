//! What interrupted starts, damage and second processes leave of a directory.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::fs;
use std::path::Path;
use tonic::Status;

async fn members(server: &Server) -> pb::MemberListResponse {
    let wire = Wire::connect(&server.client_url()).await;
    let request = pb::MemberListRequest { linearizable: true };
    wire.unary("/etcdserverpb.Cluster/MemberList", &request).await.expect("a list")
}

async fn put(server: &Server, key: &str, value: &str) {
    let wire = Wire::connect(&server.client_url()).await;
    let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(key, value)).await;
    done.unwrap_or_else(|e| panic!("put {key}: {e}; log:\n{}", server.log()));
}

/// A first start may end (no space, a kill) before there is a log: the next one is the first again.
#[tokio::test]
async fn a_first_start_that_was_interrupted_founds_nothing() {
    let folder = TempDir::new("interrupted");
    let mut launch = Launch::new(&our_etcd(), &folder.join("whole"));
    let server = launch.start();
    let whole = members(&server).await;
    assert!(!whole.members[0].peer_ur_ls.is_empty());
    server.stop();
    for parts in ["member", "member/snap", "member/wal", "member/snap/db"] {
        launch.data_dir = folder.join(&parts.replace('/', "-"));
        match parts.strip_suffix("/db") {
            Some(dir) => {
                fs::create_dir_all(launch.data_dir.join(dir)).expect("a new folder");
                fs::write(launch.data_dir.join(parts), vec![0; 16384]).expect("a new file");
            }
            None => fs::create_dir_all(launch.data_dir.join(parts)).expect("a new folder"),
        }
        let server = launch.try_start().unwrap_or_else(|refusal| panic!("{parts}: {refusal}"));
        let list = members(&server).await;
        assert_eq!(list.members, whole.members, "{parts}");
        let id = |list: &pb::MemberListResponse| list.header.as_ref().map(|h| (h.cluster_id, h.member_id));
        assert_eq!(id(&list), id(&whole), "{parts}");
        server.stop();
    }
}

#[tokio::test]
async fn a_second_process_touches_nothing_of_the_first() {
    let folder = TempDir::new("second");
    let data = folder.join("data");
    let server = Launch::new(&our_etcd(), &data).start();
    put(&server, "k", "v").await;
    let work =
        [data.join("member/snap/db.tmp.defrag"), data.join("member/snap/tmp.0.snap"), data.join("member/wal/7.tmp")];
    for path in &work {
        fs::write(path, "in progress").expect("a writable folder");
    }
    let refusal = Launch::new(&our_etcd(), &data).try_start().expect_err("one process at a time");
    assert!(refusal.log.contains("lock"), "{refusal}");
    for path in &work {
        assert!(path.exists(), "{} is gone", path.display());
    }
    put(&server, "k", "w").await;
}

fn segment(data: &Path) -> std::path::PathBuf {
    let entries = fs::read_dir(data.join("member/wal")).expect("the folder is there");
    let mut segments: Vec<_> = entries.map(|e| e.expect("a folder can be listed").path()).collect();
    segments.retain(|path| path.extension().is_some_and(|e| e == "wal"));
    segments.into_iter().max().expect("a segment")
}

/// What is behind a sector of zeros that lost its checksum was acknowledged: cutting the log there would lose it.
#[tokio::test]
async fn damage_inside_the_last_segment_is_no_torn_write() {
    let folder = TempDir::new("inside");
    let data = folder.join("data");
    let mut launch = Launch::new(&our_etcd(), &data);
    let server = launch.start();
    put(&server, "zeros", &"\0".repeat(3000)).await;
    for n in 0..20 {
        put(&server, &format!("after{n}"), "acknowledged").await;
    }
    server.kill();
    let path = segment(&data);
    let mut bytes = fs::read(&path).expect("the file is there");
    let key = bytes.windows(5).position(|w| w == b"zeros").expect("it is there");
    bytes[key + 1500] ^= 1;
    fs::write(&path, &bytes).expect("the file is writable");
    let refusal = launch.try_start().expect_err("the log is damaged");
    for word in [".wal", "damaged at offset", "no torn write", "Restore"] {
        assert!(refusal.log.contains(word), "no {word:?} in {refusal}");
    }
    assert_eq!(fs::read(&path).expect("the file is there"), bytes, "a refused start changes nothing");
    bytes[key + 1500] ^= 1;
    fs::write(&path, &bytes).expect("the file is writable");
    let server = launch.start();
    let wire = Wire::connect(&server.client_url()).await;
    let all: pb::RangeResponse = wire.unary(ask::RANGE, &ask::everything()).await.expect("a range");
    assert_eq!(all.count, 21);
}

#[tokio::test]
async fn a_refused_start_leaves_the_page_store_as_it_was() {
    let folder = TempDir::new("refused");
    let data = folder.join("data");
    let mut launch = Launch::new(&our_etcd(), &data).with_flags(&["--snapshot-count=10"]);
    let server = launch.start();
    let value = "v".repeat(1000);
    // A checkpoint comes after 16 MiB or five seconds.
    for round in 0.. {
        assert!(round < 5000, "100,000 entries and no .snap; log:\n{}", server.log());
        for n in 0..20 {
            put(&server, &format!("k{n}"), &value).await;
        }
        let names = fs::read_dir(data.join("member/snap")).expect("the folder is there");
        if names.filter_map(Result::ok).any(|e| e.path().extension().is_some_and(|e| e == "snap")) {
            break;
        }
    }
    // At least one more checkpoint, when it stops: the older meta is behind this, but not behind the first snapshot.
    put(&server, "last", "one").await;
    server.stop();
    let db = data.join("member/snap/db");
    let mut bytes = fs::read(&db).expect("the file is there");
    let txid = |at: usize| u64::from_le_bytes(bytes[at + 16 + 48..at + 16 + 56].try_into().expect("eight bytes"));
    let newest = if txid(0) > txid(4096) { 0 } else { 4096 };
    bytes[newest + 16 + 20] ^= 0xff;
    bytes.truncate(bytes.len() - bytes.len() % 4096);
    fs::write(&db, &bytes).expect("the file is writable");
    let log = fs::OpenOptions::new().write(true).open(segment(&data)).expect("it is there");
    log.set_len(5000).expect("the file is writable");
    let refusal = launch.try_start().expect_err("the log lost what was applied");
    assert!(refusal.log.contains("is ahead of the log"), "{refusal}");
    assert!(fs::read(&db).expect("the file is there") == bytes, "a refused start changed the page store");
}
