//! Peers that send nonsense.

use crate::node::{Node, Told, cluster, streams_stand};
use crate::raw;
use api::raft::MessageType as T;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers every stream with `body` and everything else with nonsense; counts streams.
fn liar(body: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let streams = Arc::new(AtomicUsize::new(0));
    let count = streams.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let count = count.clone();
            std::thread::spawn(move || {
                let mut request = [0; 2000];
                let Ok(n) = stream.read(&mut request) else { return };
                if !request[..n].starts_with(b"GET /raft/stream") {
                    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}}"));
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nX-Server-Version: 3.7.1\r\n\r\n"));
                drop(stream.write_all(body));
                drop(stream.read(&mut request));
            });
        }
    });
    (url, streams)
}

#[test]
fn streams_of_nonsense_are_closed_and_dialled_again() {
    const GARBAGE: [&[u8]; 5] = [
        &[9; 100],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[2, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff],
        &[0xff; 100],
        &[0, 0, 0, 0, 0, 0, 0, 1, 0xff, 2, 0xff, 0xff, 0xff, 0xff],
    ];
    let node = Node::start(1);
    let liars: Vec<_> = GARBAGE.into_iter().map(liar).collect();
    for (id, (url, _)) in (10..).zip(&liars) {
        node.transport.add_peer(id, std::slice::from_ref(url)).unwrap();
    }
    let all_again = || liars.iter().all(|(_, streams)| streams.load(Ordering::Relaxed) > 3).then_some(());
    // Something is told, so that the wait looks.
    node.member
        .wait_with("second dials", &mut |_| all_again(), || node.transport.send(vec![node.message(T::MsgSnap, 10, 1)]));
    assert!(!node.member.told().iter().any(|told| matches!(told, Told::Received(_) | Told::WasRemoved)));
}

#[test]
fn nonsense_on_the_port_harms_nobody() {
    let nodes = cluster(&[1, 2]);
    streams_stand(&nodes[0], &nodes[1], T::MsgHeartbeat);
    for nonsense in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /raft HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"POST /raft HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        &[0; 5000],
    ] {
        let mut stream = TcpStream::connect(nodes[1].address).unwrap();
        drop(stream.write_all(nonsense));
        drop(stream.shutdown(std::net::Shutdown::Write));
        drop(stream.read_to_end(&mut Vec::new()));
    }
    nodes[1].member.forget();
    streams_stand(&nodes[0], &nodes[1], T::MsgHeartbeat);
}

#[test]
fn claims_of_remotes_are_limited() {
    let node = Node::start(1);
    let beat = node.message(T::MsgHeartbeat, 1, 0).encode();
    for from in 100..300 {
        let answer = raw::ask(&node, "POST /raft", &raw::headers(from, "X-PeerURLs: http://127.0.0.1:9\r\n"), &beat);
        assert_eq!(answer.status, 204);
    }
    node.transport.send((100..300).map(|to| node.message(T::MsgHeartbeat, to, 1)).collect());
    // The first 64 were remembered and are tried.
    let mut reported = std::collections::BTreeSet::new();
    node.member.wait("64 reports", |told| {
        if let Told::Unreachable(id) = told {
            reported.insert(*id);
        }
        (reported.len() == 64).then_some(())
    });
    assert_eq!(reported, (100..164).collect());
}
