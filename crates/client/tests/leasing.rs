//! Reads that ask nobody: what leasing clients may keep, and what they must not.
//!
//! A server that stands still (SIGSTOP) answers nobody: what is answered then was kept.

use bytes::Bytes;
use client::pb::etcdserverpb as pb;
use client::{Client, Code, Config, Leasing, Limits};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Proxy, Server};
use oxetcd_tests::temp::TempDir;
use pb::request_op::Request as Op;
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const PREFIX: &str = "leases/";
/// Longer than any test.
const TTL: i64 = 600;
/// For what shall not be answered.
const SHORTLY: Duration = Duration::from_millis(300);

struct Stage {
    _folder: TempDir,
    server: Server,
    client: Client,
}

async fn client_of(endpoint: String) -> Client {
    Client::connect(Config { endpoints: vec![endpoint], ..Config::default() }).await.expect("an endpoint")
}

impl Stage {
    async fn new(label: &str) -> Stage {
        let folder = TempDir::new(label);
        let server = Launch::new(&our_etcd(), &folder.join("data")).start();
        let client = client_of(server.client_address()).await;
        Stage { _folder: folder, server, client }
    }

    async fn leasing(&self) -> Leasing {
        let client = client_of(self.server.client_address()).await;
        Leasing::join(&client, PREFIX, TTL, Limits::default()).await.expect("a session")
    }

    /// What is read while nobody answers; `None`: it was not kept.
    async fn kept(&self, leasing: &Leasing, key: &str) -> Option<Option<Bytes>> {
        self.server.signal(Signal::STOP);
        let outcome = tokio::time::timeout(SHORTLY, read(leasing, key)).await.ok();
        self.server.signal(Signal::CONT);
        outcome
    }

    /// The keys below the prefix.
    async fn leased(&self) -> Vec<Bytes> {
        let range_end = client::prefix_end(PREFIX.as_bytes());
        let request = pb::RangeRequest { key: PREFIX.into(), range_end, ..Default::default() };
        self.client.range(request).await.expect("a read").kvs.into_iter().map(|kv| kv.key).collect()
    }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

async fn read(leasing: &Leasing, key: &str) -> Option<Bytes> {
    leasing.range(get(key)).await.expect("a read").kvs.pop().map(|kv| kv.value)
}

async fn write(leasing: &Leasing, key: &str, value: &str) -> pb::PutResponse {
    let request = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    leasing.put(request).await.expect("a write")
}

#[tokio::test]
async fn what_is_owned_is_read_without_asking_and_given_to_who_writes() {
    let stage = Stage::new("leasing-one").await;
    let (one, other) = (stage.leasing().await, stage.leasing().await);
    write(&one, "a", "1").await;
    assert_eq!(stage.kept(&one, "a").await, None, "a write owns nothing");
    assert_eq!(read(&one, "a").await.unwrap(), "1");
    assert_eq!(stage.leased().await, ["leases/a"]);
    assert_eq!(stage.kept(&one, "a").await.flatten().unwrap(), "1");
    // The other one reads what is owned elsewhere at the server.
    assert_eq!(read(&other, "a").await.unwrap(), "1");
    assert_eq!(stage.kept(&other, "a").await, None);
    // The owner's own write is known at once, with all its revisions.
    write(&one, "a", "2").await;
    assert_eq!(stage.kept(&one, "a").await.flatten().unwrap(), "2");
    let kept = one.range(get("a")).await.unwrap().kvs;
    assert_eq!(kept, stage.client.range(get("a")).await.unwrap().kvs);
    // Somebody else's takes the key away.
    write(&other, "a", "3").await;
    assert_eq!(stage.leased().await, Vec::<Bytes>::new());
    assert_eq!(read(&one, "a").await.unwrap(), "3");
    // That a key is not there is known, too.
    assert_eq!(read(&one, "none").await, None);
    assert_eq!(stage.kept(&one, "none").await, Some(None));
    write(&other, "none", "now").await;
    assert_eq!(read(&one, "none").await.unwrap(), "now");
    one.close().await.expect("its lease");
}

#[tokio::test]
async fn deletions_and_transactions_are_known() {
    let stage = Stage::new("leasing-txn").await;
    let (one, other) = (stage.leasing().await, stage.leasing().await);
    let range = |key: &'static str, end: &'static str| pb::DeleteRangeRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    for key in ["a", "b", "c"] {
        write(&one, key, "1").await;
        assert_eq!(read(if key == "c" { &other } else { &one }, key).await.unwrap(), "1");
    }
    assert_eq!(one.delete_range(range("a", "")).await.unwrap().deleted, 1);
    assert_eq!(stage.kept(&one, "a").await, Some(None));
    // One of the range's keys is owned elsewhere.
    assert_eq!(one.delete_range(range("a", "\0")).await.unwrap().deleted, 2);
    assert_eq!((read(&one, "b").await, read(&other, "c").await), (None, None));

    let op = |request| pb::RequestOp { request: Some(request) };
    let put = |key: &'static str, value: &'static str| {
        op(Op::RequestPut(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }))
    };
    assert_eq!(read(&other, "y").await, None);
    let success = vec![put("x", "1"), put("y", "2"), op(Op::RequestRange(get("x")))];
    let done = one.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    assert_eq!((done.succeeded, done.responses.len()), (true, 3));
    assert_eq!((read(&one, "x").await.unwrap(), read(&other, "y").await.unwrap()), ("1".into(), "2".into()));
    // One that looks at what is owned only asks nobody.
    let looks = pb::TxnRequest { success: vec![op(Op::RequestRange(get("x")))], ..Default::default() };
    stage.server.signal(Signal::STOP);
    let done = tokio::time::timeout(SHORTLY, one.txn(looks)).await;
    stage.server.signal(Signal::CONT);
    assert_eq!(done.expect("it asks nobody").unwrap().responses.len(), 1);
}

#[tokio::test]
async fn what_may_vanish_by_itself_is_not_kept() {
    let stage = Stage::new("leasing-lease").await;
    let one = stage.leasing().await;
    assert_eq!(read(&one, "a").await, None);
    let lease = stage.client.lease_grant(pb::LeaseGrantRequest { ttl: TTL, id: 0 }).await.unwrap().id;
    let request = pb::PutRequest { key: "a".into(), value: "1".into(), lease, ..Default::default() };
    one.put(request).await.unwrap();
    assert_eq!(read(&one, "a").await.unwrap(), "1");
    assert_eq!(stage.kept(&one, "a").await, None);
    stage.client.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.unwrap();
    assert_eq!(read(&one, "a").await, None);
}

#[tokio::test]
async fn a_session_that_ends_keeps_nothing_and_another_begins() {
    let stage = Stage::new("leasing-session").await;
    let one = stage.leasing().await;
    write(&one, "a", "1").await;
    assert_eq!(read(&one, "a").await.unwrap(), "1");
    let owner = || async { stage.client.range(get("leases/a")).await.unwrap().kvs.pop().map_or(0, |kv| kv.lease) };
    let first = owner().await;
    assert_ne!(first, 0);
    stage.client.lease_revoke(pb::LeaseRevokeRequest { id: first }).await.unwrap();
    // Reads own the key again, once there is another session.
    while [0, first].contains(&owner().await) {
        assert_eq!(read(&one, "a").await.unwrap(), "1");
    }
    assert_eq!(stage.kept(&one, "a").await.flatten().unwrap(), "1");
}

#[tokio::test]
async fn what_is_too_much_is_given_back() {
    let stage = Stage::new("leasing-limits").await;
    let limits = Limits { keys: 2, ..Limits::default() };
    let one = Leasing::join(&stage.client, PREFIX, TTL, limits).await.unwrap();
    for key in ["a", "b", "c"] {
        read(&one, key).await;
    }
    while stage.leased().await.len() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.leased().await, ["leases/b", "leases/c"]);
}

#[tokio::test]
async fn a_write_waits_for_an_owner_no_longer_than_it_may() {
    let stage = Stage::new("leasing-wait").await;
    // An owner that answers nobody: its key, without anyone behind it.
    let lease = stage.client.lease_grant(pb::LeaseGrantRequest { ttl: TTL, id: 0 }).await.unwrap().id;
    let owned = pb::PutRequest { key: "leases/a".into(), lease, ..Default::default() };
    stage.client.put(owned).await.unwrap();
    let one = stage.leasing().await;
    let hurried = one.with(stage.client.with_timeout(SHORTLY));
    let put = || pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
    // Who notices first, the server or we, tells it in its own way.
    assert_eq!(hurried.put(put()).await.unwrap_err().code(), Some(Code::DeadlineExceeded));
    assert_eq!(stage.client.range(get("leases/a")).await.unwrap().kvs[0].value, "REVOKE");
    assert_eq!(read(&one, "a").await, None, "nothing was written");
    stage.client.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.unwrap();
    one.put(put()).await.unwrap();
    assert_eq!(read(&one, "a").await.unwrap(), "1");
}

/// Whoever reads behind an acknowledged write reads it or a later one, whoever owns the key by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_linearizable_while_owners_change() {
    let stage = Stage::new("leasing-linear").await;
    let written = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(stage.leasing().await);
    }
    let numbers = Arc::new(tokio::sync::Mutex::new(0_u64));
    let mut tasks = Vec::new();
    for (n, leasing) in clients.iter().cloned().enumerate() {
        let (written, numbers) = (written.clone(), numbers.clone());
        tasks.push(tokio::spawn(async move {
            for round in 0..60 {
                let mut number = numbers.lock().await;
                *number += 1;
                match (n + round) % 3 {
                    0 => drop(write(&leasing, "key", &number.to_string()).await),
                    _ => {
                        let put = pb::PutRequest {
                            key: "key".into(),
                            value: number.to_string().into(),
                            ..Default::default()
                        };
                        let success = vec![pb::RequestOp { request: Some(Op::RequestPut(put)) }];
                        leasing.txn(pb::TxnRequest { success, ..Default::default() }).await.expect("a transaction");
                    }
                }
                written.store(*number, Ordering::SeqCst);
            }
        }));
    }
    let mut readers = Vec::new();
    for leasing in clients {
        let written = written.clone();
        readers.push(tokio::spawn(async move {
            let mut last = 0;
            while last < 180 {
                let floor = written.load(Ordering::SeqCst).max(last);
                let value = read(&leasing, "key")
                    .await
                    .map_or(0, |value| std::str::from_utf8(&value).expect("digits").parse::<u64>().expect("a number"));
                assert!(value >= floor, "read {value} behind {floor}");
                last = value;
                tokio::task::yield_now().await;
            }
        }));
    }
    for task in tasks.into_iter().chain(readers) {
        task.await.expect("no panic");
    }
}

/// Go's proxy is of the same circle: it takes keys from us, and we from it.
#[tokio::test]
async fn gos_leasing_proxy_and_ours_respect_each_other() {
    let Some(reference) = Reference::find() else { return };
    let stage = Stage::new("leasing-go").await;
    let endpoints = format!("--endpoints={}", stage.server.client_address());
    let flags = [endpoints.as_str(), "--experimental-leasing-prefix=leases/"];
    let go = Proxy::start(&reference.program("3.7", "etcd"), "grpc-proxy", &flags, "started gRPC proxy");
    let theirs = client_of(go.address().to_owned()).await;
    let one = stage.leasing().await;
    write(&one, "a", "1").await;
    assert_eq!(read(&one, "a").await.unwrap(), "1");
    let put = |value: &'static str| pb::PutRequest { key: "a".into(), value: value.into(), ..Default::default() };
    theirs.put(put("theirs")).await.expect("we give it back");
    assert_eq!(read(&one, "a").await.unwrap(), "theirs");
    // Once they own it, our write waits for them, and their reads know of it.
    theirs.range(get("b")).await.expect("they own it");
    assert_eq!(stage.leased().await, ["leases/b"]);
    write(&one, "b", "ours").await;
    assert_eq!(theirs.range(get("b")).await.unwrap().kvs[0].value, "ours");
}
