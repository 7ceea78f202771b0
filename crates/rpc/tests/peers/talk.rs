//! Messages between transports: every way, reconnection, replacement, full queues.

use crate::node::{CLUSTER, Node, Told, cluster, streams_stand};
use crate::raw;
use api::raft::{Entry, EntryKind, Message, MessageType as T};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

#[test]
fn messages_go_by_post_until_the_streams_stand() {
    let (a, b) = (Node::start(0xa), Node::start(0xb));
    // B doesn't know A: no streams. A's messages are posted, and B answers where A says it listens.
    a.knows(&b);
    a.send(a.message(T::MsgApp, 0xb, 7));
    b.member.wait_for(&Told::Processed(a.message(T::MsgApp, 0xb, 7)));
    b.send(b.message(T::MsgAppResp, 0xa, 7));
    a.member.wait_for(&Told::Processed(b.message(T::MsgAppResp, 0xa, 7)));
    // A remote is never active, whatever reaches it.
    assert_eq!(b.transport.active_since(0xa), None);

    b.knows(&a);
    for kind in [T::MsgApp, T::MsgHeartbeat, T::MsgProp] {
        streams_stand(&a, &b, kind);
        streams_stand(&b, &a, kind);
    }
    assert!(a.transport.active_since(0xb).is_some() && b.transport.active_since(0xa).is_some());
}

#[test]
fn what_a_message_holds_arrives() {
    let nodes = cluster(&[1, 2]);
    streams_stand(&nodes[0], &nodes[1], T::MsgApp);
    streams_stand(&nodes[0], &nodes[1], T::MsgHeartbeat);
    let entry = |index, len| Entry { term: 5, index, kind: EntryKind::Normal, data: vec![7; len].into() };
    let mut sent = Vec::new();
    for n in 0..2000 {
        let index = 10 + 3 * n;
        let entries = vec![entry(index + 1, 10), entry(index + 2, 0), entry(index + 3, 400)];
        sent.push(Message { entries, commit: index, ..nodes[0].message(T::MsgApp, 2, index) });
    }
    sent.push(Message { entries: vec![entry(6011, 3 << 20)], ..nodes[0].message(T::MsgApp, 2, 6010) });
    nodes[1].member.forget();
    nodes[0].transport.send(sent.clone());
    let mut arrived = Vec::new();
    nodes[1].member.wait("all appends", |told| {
        match told {
            // Not what still arrives of the messages that waited for the streams: their index is 1.
            Told::Received(m) if m.kind == T::MsgApp && m.index >= 10 => arrived.push(m.clone()),
            _ => {}
        }
        (arrived.len() == sent.len()).then_some(())
    });
    assert!(arrived == sent);
    let beat = Message { context: vec![1, 2, 3].into(), commit: 9, ..nodes[0].message(T::MsgHeartbeat, 2, 0) };
    nodes[0].send(beat.clone());
    nodes[1].member.wait_for(&Told::Received(beat));
}

#[test]
fn three_members_hear_one_another() {
    let nodes = cluster(&[1, 2, 3]);
    for from in &nodes {
        for to in nodes.iter().filter(|to| to.id != from.id) {
            streams_stand(from, to, T::MsgApp);
            streams_stand(from, to, T::MsgVote);
        }
    }
    let metrics = nodes[0].transport.metrics();
    for id in [2, 3] {
        let of = metrics.iter().find(|m| m.id == id).unwrap();
        assert!(of.active == 1 && of.sent_bytes > 0 && of.received_bytes > 0, "{of:?}");
    }
}

#[test]
fn messages_to_nobody_are_dropped() {
    let a = Node::start(1);
    a.transport.send(vec![a.message(T::MsgApp, 0, 1), a.message(T::MsgApp, 77, 1), a.message(T::MsgHup, 1, 1)]);
    assert_eq!(a.member.told(), []);
}

#[test]
fn a_member_that_restarts_is_found_again() {
    let nodes = cluster(&[1, 2]);
    let [a, b] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    streams_stand(&a, &b, T::MsgHeartbeat);
    streams_stand(&b, &a, T::MsgHeartbeat);
    let address = b.address;
    drop(b);
    // What is sent meanwhile is reported.
    let mut unreachable = |told: &Told| (*told == Told::Unreachable(2)).then_some(());
    a.member.wait_with("report", &mut unreachable, || a.send(a.message(T::MsgHeartbeat, 2, 1)));

    let b = Node::on(2, CLUSTER, TcpListener::bind(address).unwrap());
    b.knows(&a);
    a.member.forget();
    for kind in [T::MsgApp, T::MsgHeartbeat] {
        streams_stand(&a, &b, kind);
        streams_stand(&b, &a, kind);
    }
}

#[test]
fn a_member_that_moved_is_found_at_its_new_url() {
    let nodes = cluster(&[1, 2]);
    let [a, b] = <[Node; 2]>::try_from(nodes).ok().unwrap();
    streams_stand(&a, &b, T::MsgHeartbeat);
    drop(b);
    let b = Node::start(2);
    b.knows(&a);
    a.transport.update_peer(2, &b.urls()).unwrap();
    streams_stand(&b, &a, T::MsgHeartbeat);
    streams_stand(&a, &b, T::MsgApp);
    assert!(a.transport.update_peer(2, &[]).is_err());
    assert!(a.transport.add_peer(3, &["nonsense".to_owned()]).is_err());
}

#[test]
fn of_several_urls_one_that_works_is_found() {
    let (a, b) = (Node::start(1), Node::start(2));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let urls = [vec![format!("http://{closed}")], b.urls()].concat();
    a.transport.add_peer(2, &urls).unwrap();
    b.knows(&a);
    streams_stand(&b, &a, T::MsgHeartbeat);
    streams_stand(&a, &b, T::MsgHeartbeat);
}

#[test]
fn a_removed_peer_gets_and_says_nothing_more() {
    let nodes = cluster(&[1, 2]);
    let [a, b] = &nodes[..] else { unreachable!() };
    streams_stand(a, b, T::MsgApp);
    streams_stand(b, a, T::MsgApp);
    a.transport.remove_peer(2);
    a.transport.remove_peer(2);
    assert_eq!(a.transport.active_since(2), None);
    b.member.forget();
    a.send(a.message(T::MsgApp, 2, 99));
    // B's stream ends, and it finds nobody who knows it: 404, which harms nobody.
    let (_, head) = raw::open_stream(a, 2, "message");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    // A comes back.
    a.knows(b);
    streams_stand(a, b, T::MsgApp);
    assert!(!b.member.told().contains(&Told::Received(a.message(T::MsgApp, 2, 99))));
    a.transport.remove_all();
    assert_eq!(a.transport.active_since(2), None);
}

#[test]
fn what_was_sent_to_a_peer_before_its_removal_arrives() {
    let nodes = cluster(&[1, 2]);
    let [a, b] = &nodes[..] else { unreachable!() };
    for kind in [T::MsgApp, T::MsgHeartbeat] {
        streams_stand(a, b, kind);
    }
    for kind in [T::MsgApp, T::MsgHeartbeat] {
        (100..200).for_each(|index| a.send(a.message(kind, 2, index)));
    }
    a.transport.remove_peer(2);
    for kind in [T::MsgApp, T::MsgHeartbeat] {
        (100..200).for_each(|index| b.member.wait_for(&Told::Received(a.message(kind, 2, index))));
    }
}

#[test]
fn a_stream_begins_at_once_and_is_never_silent() {
    let node = Node::start(1);
    // A peer whose own listener is closed: all goes by the stream that it opened.
    node.transport.add_peer(2, &["http://127.0.0.1:9".to_owned()]).unwrap();
    for (kind, beat) in [("msgapp", &[0][..]), ("message", &[0, 0, 0, 0, 0, 0, 0, 2, 8, 8])] {
        let (mut stream, head) = raw::open_stream(&node, 2, kind);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        for line in ["X-Server-Version: 3.7.1", "X-Etcd-Cluster-Id: c1", "Transfer-Encoding: chunked"] {
            assert!(head.lines().any(|l| l.eq_ignore_ascii_case(line)), "{line} in {head}");
        }
        let begin = Instant::now();
        for _ in 0..4 {
            assert_eq!(raw::read_chunk(&mut stream).unwrap(), beat);
        }
        // Longer than the 5 s after which a connection without a turn would be closed, and each sooner than that.
        let took = begin.elapsed().as_millis();
        assert!((6000..20_000).contains(&took), "{took} ms");
    }
}

#[test]
fn a_msgapp_stream_has_the_frames_of_msgappv2() {
    let node = Node::start(1);
    node.transport.add_peer(2, &["http://127.0.0.1:9".to_owned()]).unwrap();
    let (mut stream, _) = raw::open_stream(&node, 2, "msgapp");
    node.send(node.message(T::MsgApp, 2, 7));
    assert_eq!(
        raw::read_chunk(&mut stream).unwrap(),
        [2, 0, 0, 0, 0, 0, 0, 0, 12, 8, 3, 0x10, 2, 0x18, 1, 0x20, 5, 0x28, 5, 0x30, 7]
    );
    node.send(Message { commit: 7, ..node.message(T::MsgApp, 2, 7) });
    let commit_only = [&[1, 0, 0, 0, 0, 0, 0, 0, 0][..], &7u64.to_be_bytes()].concat();
    assert_eq!(raw::read_chunk(&mut stream).unwrap(), commit_only);
    // Another connection begins anew.
    let (mut again, _) = raw::open_stream(&node, 2, "msgapp");
    node.send(node.message(T::MsgApp, 2, 7));
    assert_eq!(raw::read_chunk(&mut again).unwrap()[0], 2);
}

#[test]
fn a_second_stream_ends_the_first() {
    let node = Node::start(1);
    node.transport.add_peer(2, &["http://127.0.0.1:9".to_owned()]).unwrap();
    let (mut first, _) = raw::open_stream(&node, 2, "message");
    let (mut second, _) = raw::open_stream(&node, 2, "message");
    // Its end, perhaps after a heartbeat.
    while raw::read_chunk(&mut first).is_some() {}
    node.send(node.message(T::MsgHeartbeat, 2, 0));
    assert!(raw::read_chunk(&mut second).is_some());
}

#[test]
fn a_full_pipeline_drops_and_reports() {
    let node = Node::start(1);
    // Connects, never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    node.transport.add_peer(2, &[format!("http://{}", silent.local_addr().unwrap())]).unwrap();
    let mut reported = |told: &Told| (*told == Told::Unreachable(2)).then_some(());
    node.member.wait_with("report", &mut reported, || {
        node.transport.send((0..40).map(|n| node.message(T::MsgHeartbeat, 2, n)).collect());
    });
    let mut failed = |told: &Told| (*told == Told::Snapshot(2, false)).then_some(());
    node.member.wait_with("failed snapshot", &mut failed, || node.send(node.message(T::MsgSnap, 2, 1)));
}

#[test]
fn a_reader_that_stalls_costs_messages_and_then_its_stream() {
    let node = Node::start(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    node.transport.add_peer(2, &[format!("http://{}", listener.local_addr().unwrap())]).unwrap();
    let (stalled, _) = raw::open_stream(&node, 2, "message");
    let posted = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let posted = posted.clone();
        move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                posted.fetch_or(raw::read_head(&mut stream).starts_with("POST /raft "), Ordering::Relaxed);
            }
        }
    });
    let message = Message { context: vec![7; 64 << 10].into(), ..node.message(T::MsgHeartbeat, 2, 1) };
    let send = || node.transport.send(vec![message.clone(); 500]);
    node.member.wait_with("report", &mut |told| (*told == Told::Unreachable(2)).then_some(()), send);
    // While the stream stands nothing is posted. 5 s without progress end it.
    assert!(!posted.load(Ordering::Relaxed));
    node.member.wait_with("POST", &mut |_| posted.load(Ordering::Relaxed).then_some(()), send);
    drop(stalled);
}

#[test]
fn stopping_ends_the_thread_and_later_calls_harm_nobody() {
    let nodes = cluster(&[1, 2]);
    streams_stand(&nodes[0], &nodes[1], T::MsgApp);
    nodes[0].transport.stop();
    nodes[0].transport.stop();
    nodes[0].send(nodes[0].message(T::MsgApp, 2, 1));
    nodes[0].knows(&nodes[1]);
    nodes[0].transport.remove_peer(2);
    assert!(std::net::TcpStream::connect(nodes[0].address).is_err());
}
