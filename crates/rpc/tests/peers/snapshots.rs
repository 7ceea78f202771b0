//! Database images from member to member.

use crate::node::{Node, Told};
use crate::raw;
use api::raft::{ConfState, Message, MessageType as T, Snapshot, SnapshotMetadata};
use rpc::peer::Image;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that no two pieces share.
struct Made {
    bytes: Vec<u8>,
    damaged: AtomicBool,
}

impl Made {
    fn new(len: usize) -> Arc<Made> {
        let bytes = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        Arc::new(Made { bytes, damaged: AtomicBool::new(false) })
    }
}

impl Image for Made {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.damaged.load(Ordering::Relaxed) && offset >= self.len() / 2 {
            return Err(io::Error::other("bad sector"));
        }
        let begin = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[begin..begin + buffer.len()]);
        Ok(())
    }
}

fn message(from: u64, to: u64, index: u64) -> Message {
    let conf_state = ConfState { voters: vec![from, to], ..ConfState::default() };
    let metadata = SnapshotMetadata { conf_state, index, term: 5 };
    let snapshot = Some(Snapshot { data: vec![b'{'; 9000].into(), metadata });
    Message { kind: T::MsgSnap, to, from, term: 5, snapshot, ..Message::default() }
}

fn snapshot_of(told: &Told) -> Option<(u64, bool)> {
    match told {
        Told::Snapshot(id, arrived) => Some((*id, *arrived)),
        _ => None,
    }
}

#[test]
fn an_image_of_20_mib_arrives_whole_before_its_message() {
    let (a, b) = (Node::start(1), Node::start(2));
    a.knows(&b);
    let image = Made::new((20 << 20) + 123);
    a.transport.send_snapshot(message(1, 2, 42), image.clone());
    assert_eq!(a.member.wait("report", snapshot_of), (2, true));
    let told = b.member.told();
    let [Told::Image(arrived), Told::Processed(m)] = &told[..] else { panic!("{} things told", told.len()) };
    assert_eq!(Sha256::digest(arrived), Sha256::digest(&image.bytes));
    assert_eq!(*m, message(1, 2, 42));
    let sender = a.transport.metrics().into_iter().find(|m| m.id == 2).unwrap();
    assert_eq!((sender.snapshot_sent, sender.snapshot_sending, sender.snapshot_send_failures), (1, 0, 0));
    assert_eq!(sender.snapshot_send_time.counts.iter().sum::<u64>(), 1);
    let receiver = b.transport.metrics().into_iter().find(|m| m.id == 1).unwrap();
    assert_eq!((receiver.snapshot_received, receiver.snapshot_receiving), (1, 0));
    assert!(receiver.received_bytes > 20 << 20);
    // Nobody holds it any more: the sender has let go.
    a.member.wait_with("release", &mut |_| (Arc::strong_count(&image) == 1).then_some(()), || ());
}

#[test]
fn an_image_that_cannot_be_stored_is_a_failure() {
    let (a, b) = (Node::start(1), Node::start(2));
    a.knows(&b);
    b.member.disk_full.store(true, Ordering::Relaxed);
    a.transport.send_snapshot(message(1, 2, 42), Made::new(1 << 20));
    assert_eq!(a.member.wait("report", snapshot_of), (2, false));
    assert!(a.member.told().contains(&Told::Unreachable(2)));
    assert_eq!(b.member.told(), [Told::Abandoned]);
    b.member.disk_full.store(false, Ordering::Relaxed);
    a.member.forget();
    a.transport.send_snapshot(message(1, 2, 43), Made::new(1 << 20));
    assert_eq!(a.member.wait("report", snapshot_of), (2, true));
}

#[test]
fn an_image_that_cannot_be_read_is_cut_and_abandoned() {
    let (a, b) = (Node::start(1), Node::start(2));
    a.knows(&b);
    // Its first half is more than the sender's buffers hold: some of it has left when the read fails.
    let image = Made::new(20 << 20);
    image.damaged.store(true, Ordering::Relaxed);
    a.transport.send_snapshot(message(1, 2, 42), image);
    assert_eq!(a.member.wait("report", snapshot_of), (2, false));
    b.member.wait_for(&Told::Abandoned);
    assert!(!b.member.told().iter().any(|told| matches!(told, Told::Processed(_) | Told::Image(_))));
}

#[test]
fn a_sender_that_dies_half_way_leaves_nothing() {
    let node = Node::start(1);
    let mut stream = raw::connect(&node);
    let headers = raw::headers(2, "Transfer-Encoding: chunked\r\n");
    write!(stream, "POST /raft/snapshot HTTP/1.1\r\n{headers}\r\n").unwrap();
    let head = message(2, 1, 42).encode();
    let body = [&(head.len() as u64).to_be_bytes()[..], &head, &[7; 1000]].concat();
    write!(stream, "{:x}\r\n", body.len()).unwrap();
    stream.write_all(&body).unwrap();
    stream.write_all(b"\r\n").unwrap();
    drop(stream);
    node.member.wait_for(&Told::Abandoned);
    assert_eq!(node.member.told(), [Told::Abandoned]);
}

#[test]
fn the_bytes_of_a_snapshot_are_etcd_s() {
    let node = Node::start(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    node.transport.add_peer(2, &[format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    node.transport.send_snapshot(message(1, 2, 42), Made::new(1000));
    // Readers and probes connect too.
    let (mut stream, head) = loop {
        let (mut stream, _) = listener.accept().unwrap();
        let head = raw::read_head(&mut stream);
        if head.starts_with("POST /raft/snapshot HTTP/1.1\r\n") {
            break (stream, head);
        }
    };
    for line in [
        "X-Server-From: 1",
        "X-Server-Version: 3.7.1",
        "X-Min-Cluster-Version: 3.0.0",
        "X-Etcd-Cluster-Id: c1",
        "Content-Type: application/octet-stream",
        "Transfer-Encoding: chunked",
        &format!("X-Peerurls: http://{}", node.address),
    ] {
        assert!(head.lines().any(|l| l.eq_ignore_ascii_case(line)), "{line} in {head}");
    }
    let mut body = Vec::new();
    while let Some(chunk) = raw::read_chunk(&mut stream) {
        body.extend_from_slice(&chunk);
    }
    let message = message(1, 2, 42).encode();
    assert_eq!(body, [&(message.len() as u64).to_be_bytes()[..], &message, &Made::new(1000).bytes].concat());
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    assert_eq!(node.member.wait("report", snapshot_of), (2, true));
}

#[test]
fn one_image_at_a_time_goes_to_a_peer() {
    let node = Node::start(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    node.transport.add_peer(2, &[format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    node.transport.send_snapshot(message(1, 2, 42), Made::new(1 << 20));
    node.transport.send_snapshot(message(1, 2, 43), Made::new(1 << 20));
    assert_eq!(node.member.wait("report", snapshot_of), (2, false));
    assert!(!node.member.told().contains(&Told::Unreachable(2)));
    // The first one goes on, until its peer closes the connection.
    node.member.forget();
    let posted = loop {
        let (mut stream, _) = listener.accept().unwrap();
        if raw::read_head(&mut stream).starts_with("POST") {
            break stream;
        }
    };
    drop(posted);
    assert_eq!(node.member.wait("report", snapshot_of), (2, false));
    node.transport.send_snapshot(message(1, 9, 43), Made::new(1));
    assert_eq!(node.member.wait("report", |t| snapshot_of(t).filter(|(id, _)| *id == 9)), (9, false));
}

#[test]
fn a_removed_member_that_sends_an_image_is_told() {
    let (a, b) = (Node::start(1), Node::start(2));
    // Streams must not tell first.
    b.member.removed.lock().insert(3);
    a.knows(&b);
    a.transport.send_snapshot(message(3, 2, 42), Made::new(10));
    a.member.wait_for(&Told::WasRemoved);
}

#[test]
fn a_connection_that_is_silent_for_five_seconds_is_closed() {
    let node = Node::start(1);
    let begin = std::time::Instant::now();
    let mut idle = raw::connect(&node);
    let mut within = raw::connect(&node);
    write!(within, "POST /raft HTTP/1.1\r\n{}Content-Length: 10\r\n\r\nabc", raw::headers(2, "")).unwrap();
    let mut kept = raw::connect(&node);
    write!(kept, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(raw::answer(&mut kept).status, 200);
    for stream in [&mut idle, &mut within, &mut kept] {
        drop(stream.read_to_end(&mut Vec::new()));
        let took = begin.elapsed().as_millis();
        assert!((4500..9000).contains(&took), "{took} ms");
    }
}
