//! What is refused, with which status and words: Go members compare them, and die of 403 and 410.

use crate::node::{CLUSTER, Node, Told, streams_stand};
use crate::raw::{self, ask, headers};
use api::raft::MessageType as T;
use std::io::{Read, Write};
use std::sync::atomic::Ordering;

const NOT_FOUND: (u16, &str) = (404, "404 page not found\n");
const NOT_ALLOWED: (u16, &str) = (405, "Method Not Allowed\n");

#[test]
fn paths_and_methods_are_etcd_s() {
    let node = Node::start(1);
    for (request, (status, body), allow) in [
        ("GET /raft", NOT_ALLOWED, Some("POST")),
        ("GET /raft/snapshot", NOT_ALLOWED, Some("POST")),
        ("POST /raft/stream/message/2", NOT_ALLOWED, Some("GET")),
        ("POST /members", NOT_ALLOWED, Some("GET")),
        ("GET /members/promote/1", NOT_ALLOWED, Some("POST")),
        ("POST /members/hashkv", NOT_ALLOWED, Some("GET")),
        ("GET /leases", NOT_ALLOWED, None),
        ("GET /leases/internal", NOT_ALLOWED, None),
        ("POST /downgrade/enabled", NOT_ALLOWED, Some("GET")),
        ("PUT /version", NOT_ALLOWED, Some("GET")),
        ("GET /", NOT_FOUND, None),
        ("GET /raft/", NOT_FOUND, None),
        ("GET /members/x", NOT_FOUND, None),
        ("GET /health", NOT_FOUND, None),
        ("POST /members/promote/x", (404, "member x not found in cluster\n"), None),
    ] {
        let answer = ask(&node, request, "Host: x\r\n", b"");
        assert_eq!((answer.status, answer.text()), (status, body), "{request}");
        assert_eq!(answer.header("Allow"), allow, "{request}");
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"), "{request}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{request}");
    }
}

#[test]
fn streams_are_refused_in_etcd_s_order_and_words() {
    let node = Node::start(1);
    node.transport.add_peer(2, &["http://127.0.0.1:9".to_owned()]).unwrap();
    node.member.removed.lock().insert(3);
    let ok = headers(2, "X-Raft-To: 1\r\n");
    let old = ok.replace("3.7.1", "2.3.0");
    let other = ok.replace(&format!("X-Etcd-Cluster-ID: {CLUSTER:x}"), "X-Etcd-Cluster-ID: c2");
    for (path, headers, expected) in [
        ("message/2", &old, (412, "incompatible version\n")),
        ("message/2", &other, (412, "cluster ID mismatch\n")),
        ("nothing/2", &other, (412, "cluster ID mismatch\n")),
        ("nothing/2", &ok, (404, "invalid path\n")),
        ("message/x", &ok, (404, "invalid from\n")),
        ("message/", &ok, (404, "invalid from\n")),
        ("message/2/", &ok, (404, "invalid path\n")),
        ("message/3", &ok, (410, "removed member\n")),
        ("message/4", &ok, (404, "error sender not found\n")),
        ("message/2", &headers(2, "X-Raft-To: 9\r\n"), (412, "to field mismatch\n")),
        ("message/2", &headers(2, ""), (412, "to field mismatch\n")),
    ] {
        let answer = ask(&node, &format!("GET /raft/stream/{path}"), headers, b"");
        assert_eq!((answer.status, answer.text()), expected, "{path}");
        assert_eq!(answer.header("X-Server-Version"), Some("3.7.1"));
        assert_eq!(answer.header("X-Etcd-Cluster-Id"), Some("c1"));
    }
}

#[test]
fn posts_are_refused_in_etcd_s_words() {
    let node = Node::start(1);
    node.member.removed.lock().insert(3);
    let ok = headers(2, "");
    let message = |from, to| node.message(T::MsgHeartbeat, to, 0).encode_from(from);
    let removed = (403, r#"{"message":"cannot process message from removed member"}"#);
    let mismatch = (403, r#"{"message":"cannot process message to mismatch member"}"#);
    for (headers, body, expected) in [
        (ok.clone(), message(2, 1), (204, "")),
        (ok.replace("3.7.1", "2.9.9"), message(2, 1), (412, "incompatible version\n")),
        (ok.replace(": c1", ": c2"), message(2, 1), (412, "cluster ID mismatch\n")),
        (ok.clone(), vec![0xff], (400, "error unmarshalling raft message\n")),
        (ok.clone(), message(3, 1), removed),
        (ok.clone(), message(2, 7), mismatch),
    ] {
        let answer = ask(&node, "POST /raft", &headers, &body);
        assert_eq!((answer.status, answer.text()), expected);
        assert_eq!(answer.header("X-Etcd-Cluster-Id"), Some("c1"));
        let json = expected.0 == 403;
        assert_eq!(answer.header("Content-Type") == Some("application/json"), json);
    }
    node.member.refuses.store(true, Ordering::Relaxed);
    let answer = ask(&node, "POST /raft", &ok, &message(2, 1));
    assert_eq!((answer.status, answer.text()), (500, "error processing raft message\n"));
    assert_eq!(answer.header("Connection").map(str::to_lowercase), Some("close".to_owned()));
}

trait EncodeFrom {
    fn encode_from(self, from: u64) -> Vec<u8>;
}

impl EncodeFrom for api::raft::Message {
    fn encode_from(self, from: u64) -> Vec<u8> {
        api::raft::Message { from, ..self }.encode()
    }
}

#[test]
fn snapshots_are_refused_in_etcd_s_words() {
    let node = Node::start(1);
    let ok = headers(2, "");
    let beat = node.message(T::MsgHeartbeat, 1, 0).encode_from(2);
    let framed = [&(beat.len() as u64).to_be_bytes()[..], &beat].concat();
    let snap = node.message(T::MsgSnap, 1, 0).encode_from(2);
    let without = [&(snap.len() as u64).to_be_bytes()[..], &snap].concat();
    for (body, expected) in [
        (vec![0; 3], "failed to decode raft message (unexpected EOF)\n"),
        (vec![0, 0, 0, 0, 0, 0, 0, 9, 1], "failed to decode raft message (unexpected EOF)\n"),
        (vec![0xff; 8], "failed to decode raft message (rafthttp: error limit exceeded)\n"),
        (framed, "wrong raft message type\n"),
        (without, "failed to decode raft message (no snapshot)\n"),
    ] {
        let answer = ask(&node, "POST /raft/snapshot", &ok, &body);
        assert_eq!((answer.status, answer.text()), (400, expected));
    }
    let answer = ask(&node, "POST /raft/snapshot", &ok, b"");
    assert_eq!((answer.status, answer.text()), (400, "failed to decode raft message (EOF)\n"));
}

/// etcd's handlers panic, which closes the connection without an answer.
#[test]
fn nonsense_in_headers_closes_the_connection() {
    let node = Node::start(1);
    let bad_version = headers(2, "").replace("3.7.1", "new");
    let bad_urls = headers(2, "X-PeerURLs: nonsense\r\n");
    for headers in [bad_version, bad_urls] {
        let mut stream = raw::connect(&node);
        write!(stream, "POST /raft HTTP/1.1\r\n{headers}Content-Length: 0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"");
    }
}

#[test]
fn a_member_that_was_removed_is_told_by_streams_and_posts() {
    for by_post in [false, true] {
        let (a, b) = (Node::start(1), Node::start(2));
        b.member.removed.lock().insert(1);
        if by_post {
            // A stream would tell first: the message comes from another removed member.
            b.member.removed.lock().clear();
            b.member.removed.lock().insert(3);
            a.knows(&b);
            a.send(api::raft::Message { from: 3, ..a.message(T::MsgHeartbeat, 2, 1) });
        } else {
            a.knows(&b);
        }
        a.member.wait_for(&Told::WasRemoved);
        // Said once, and nothing reached the other's raft.
        assert_eq!(a.member.told().iter().filter(|t| **t == Told::WasRemoved).count(), 1);
        assert_eq!(b.member.told(), []);
    }
}

#[test]
fn members_of_different_clusters_do_not_mix() {
    let (a, b) = (Node::of_cluster(1, 0xc1), Node::of_cluster(2, 0xc2));
    a.knows(&b);
    b.knows(&a);
    let mut unreachable = |told: &Told| (*told == Told::Unreachable(2)).then_some(());
    a.member.wait_with("report", &mut unreachable, || a.send(a.message(T::MsgHeartbeat, 2, 1)));
    assert_eq!(a.transport.active_since(2), None);
    assert!(!a.member.told().contains(&Told::WasRemoved));
    assert_eq!(b.member.told(), []);
}

#[test]
fn a_stream_brings_nothing_of_removed_members() {
    let (a, b) = (Node::start(1), Node::start(2));
    a.knows(&b);
    b.knows(&a);
    streams_stand(&a, &b, T::MsgHeartbeat);
    b.member.removed.lock().insert(9);
    b.member.forget();
    a.send(api::raft::Message { from: 9, ..a.message(T::MsgHeartbeat, 2, 1) });
    a.send(a.message(T::MsgHeartbeatResp, 2, 1));
    b.member.wait_for(&Told::Received(a.message(T::MsgHeartbeatResp, 2, 1)));
    assert!(!b.member.told().iter().any(|told| matches!(told, Told::Received(m) if m.from == 9)));
}
