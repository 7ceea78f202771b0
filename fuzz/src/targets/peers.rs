//! What peers say: streams, snapshots, requests and answers of the peer port.

use super::world::entry;
use super::{EMPTY, texts};
use crate::{Shape, Target};
use api::raft::{
    ConfChange, ConfChangeKind, ConfState, Entry, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
};
use bytes::{Bytes, BytesMut};
use raft::confchange::ConfChangeV2;
use rpc::decoders::peer;
use rpc::peer::codec;

pub use super::ports::{ANSWERS, REQUESTS};

pub const RAFT_TYPES: Target = Target {
    name: "raft-types",
    covers: &["api/raft.rs::decode", "raft/confchange.rs::decode"],
    shape: Shape::Proto(0),
    corpus: raft_corpus,
    run: raft_types,
    ..EMPTY
};

pub const MESSAGE_STREAM: Target = Target {
    name: "peer-messages",
    covers: &["rpc/peer/codec.rs::next", "rpc/peer/codec.rs::message"],
    corpus: peer_message_corpus,
    mend: Some(|input| mend_lengths(input)),
    run: peer_messages,
    ..EMPTY
};

pub const APPEND_STREAM: Target = Target {
    name: "peer-appends",
    covers: &["rpc/peer/codec.rs::entry", "rpc/peer/codec.rs::count"],
    corpus: peer_append_corpus,
    run: peer_appends,
    ..EMPTY
};

pub const SNAPSHOT_HEAD: Target = Target {
    name: "peer-snapshots",
    covers: &["rpc/peer/codec.rs::into_rest"],
    corpus: peer_snapshot_corpus,
    mend: Some(|input| mend_lengths(input)),
    run: peer_snapshots,
    ..EMPTY
};

pub const ENDPOINT_BODIES: Target = Target {
    name: "peer-bodies",
    covers: &[
        "rpc/peer/endpoints.rs::parse_members",
        "rpc/peer/endpoints.rs::parse_hash_kv",
        "rpc/peer/endpoints.rs::parse_hash_kv_request",
        "rpc/peer/probe.rs::clock",
    ],
    shape: Shape::Text(&[
        "{", "}", "[", "]", ":", ",", "\"", "null", "-1", "1e9", "\\u0000", "\\ud800", "true", "\"id\":",
    ]),
    corpus: || {
        texts(&[
            r#"[{"id":18446744073709551615,"peerURLs":["http://a:1"],"name":"m<1>","clientURLs":["http://c:1"]}]"#,
            r#"[{"id":2,"peerURLs":["http://d:1"],"isLearner":true}]"#,
            r#"{"header":{"revision":9},"hash":3868138104,"compact_revision":-1,"hash_revision":9}"#,
            r#"{"revision":9}"#,
            r#"{"OK":true,"Now":"2026-11-21T03:58:40.123456789+01:00"}"#,
        ])
    },
    run: endpoint_bodies,
    ..EMPTY
};

/// What is understood is written as it would be read.
fn endpoint_bodies(input: &[u8]) -> bool {
    let members = peer::members(input);
    if let Some((members, text)) = &members {
        assert_eq!(peer::members(text.as_bytes()).map(|(members, _)| members).as_ref(), Some(members), "{text}");
    }
    let hash = peer::hash_kv(input);
    if let Some((hash, text)) = &hash {
        assert_eq!(peer::hash_kv(text.as_bytes()).map(|(hash, _)| hash), Some(*hash), "{text}");
    }
    let request = peer::hash_kv_request(input);
    if let Some((revision, text)) = &request {
        assert_eq!(peer::hash_kv_request(text.as_bytes()).map(|(revision, _)| revision), Some(*revision), "{text}");
    }
    let clock = peer::clock(input);
    if let Some((now, text)) = &clock {
        assert_eq!(peer::clock(text.as_bytes()).map(|(now, _)| now), Some(*now), "{text}");
    }
    members.is_some() || hash.is_some() || request.is_some() || clock.is_some()
}

/// Behind the byte that says how the rest is cut: big-endian lengths before each message; the last one is made to fit.
fn mend_lengths(input: &mut [u8]) {
    let mut at = 1;
    while let Some(Ok(length)) = input.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let left = (input.len() - at - 8) as u64;
        let length = u64::from_be_bytes(length);
        if length > left {
            input[at..at + 8].copy_from_slice(&left.to_be_bytes());
            return;
        }
        at += 8 + usize::try_from(length).unwrap_or(usize::MAX);
    }
}

pub fn snapshot() -> Snapshot {
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let metadata = SnapshotMetadata { index: 9, term: 2, conf_state };
    Snapshot { data: Bytes::from_static(b"{}"), metadata }
}

/// Entries, states, messages, conf changes as they come from files and peers.
pub fn raft_corpus() -> Vec<Vec<u8>> {
    let change = ConfChange { id: 1, kind: ConfChangeKind::AddNode, node_id: 7, context: Bytes::from_static(b"{}") };
    let message = Message {
        kind: MessageType::MsgApp,
        to: 1,
        from: 2,
        term: 3,
        entries: vec![entry(4, b"x".to_vec()), entry(5, vec![])],
        snapshot: Some(snapshot()),
        ..Message::default()
    };
    vec![
        entry(3, b"data".to_vec()).encode(),
        HardState { term: 1, vote: 2, commit: 3 }.encode(),
        snapshot().encode(),
        message.encode(),
        change.encode(),
    ]
}

/// Every decoder of raft's types on the same bytes; what is understood must survive a round trip.
fn raft_types(input: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(input);
    let entry = Entry::decode(bytes.clone()).ok();
    if let Some(e) = &entry {
        assert_eq!(Entry::decode(e.encode().into()).as_ref().ok(), Some(e));
    }
    let state = HardState::decode(bytes.clone()).ok();
    if let Some(s) = &state {
        assert_eq!(HardState::decode(s.encode().into()).as_ref().ok(), Some(s));
    }
    let snapshot = Snapshot::decode(bytes.clone()).ok();
    if let Some(s) = &snapshot {
        assert_eq!(Snapshot::decode(s.encode().into()).as_ref().ok(), Some(s));
    }
    let message = Message::decode(bytes.clone()).ok();
    if let Some(m) = &message {
        assert_eq!(Message::decode(m.encode().into()).as_ref().ok(), Some(m));
    }
    let change = ConfChange::decode(bytes.clone()).ok();
    if let Some(c) = &change {
        assert_eq!(ConfChange::decode(c.encode().into()).as_ref().ok(), Some(c));
    }
    let second = ConfChangeV2::decode(bytes).is_ok();
    entry.is_some() || state.is_some() || snapshot.is_some() || message.is_some() || change.is_some() || second
}

/// The first byte says in which chunks the rest arrives.
fn chunks(input: &[u8]) -> impl Iterator<Item = Bytes> {
    let (size, rest) = input.split_first().map_or((1, &[][..]), |(size, rest)| (usize::from(*size).max(1), rest));
    rest.chunks(size).map(Bytes::copy_from_slice)
}

fn chunked(size: u8, buffer: &BytesMut) -> Vec<u8> {
    [&[size], &buffer[..]].concat()
}

pub fn append(index: u64, entries: Vec<Entry>) -> Message {
    let kind = MessageType::MsgApp;
    Message { kind, to: 1, from: 2, term: 3, log_term: 3, index, entries, commit: index, ..Message::default() }
}

pub fn of_term(index: u64, len: usize) -> Entry {
    Entry { term: 3, ..entry(index, vec![b'e'; len]) }
}

fn peer_message_corpus() -> Vec<Vec<u8>> {
    let mut buffer = BytesMut::new();
    codec::put_message(&mut buffer, &append(7, vec![of_term(8, 3)]));
    codec::put_message_heartbeat(&mut buffer);
    let context = Bytes::from_static(b"CampaignTransfer");
    codec::put_message(&mut buffer, &Message { kind: MessageType::MsgVote, context, ..append(9, vec![]) });
    vec![chunked(1, &buffer), chunked(200, &buffer)]
}

/// What is understood must survive a round trip.
fn peer_messages(input: &[u8]) -> bool {
    let mut decoder = codec::MessageDecoder::stream();
    let mut understood = false;
    for chunk in chunks(input) {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(codec::Frame::Message(message))) => {
                    understood = true;
                    again(&message);
                }
                Ok(Some(codec::Frame::LinkHeartbeat)) => {}
                Ok(None) => break,
                Err(_) => return understood,
            }
        }
    }
    understood
}

fn again(message: &Message) {
    let mut buffer = BytesMut::new();
    codec::put_message(&mut buffer, message);
    let mut decoder = codec::MessageDecoder::stream();
    decoder.push(buffer.freeze());
    assert_eq!(decoder.next(), Ok(Some(codec::Frame::Message(message.clone()))));
}

/// All frames of the msgapp stream.
fn peer_append_corpus() -> Vec<Vec<u8>> {
    let mut buffer = BytesMut::new();
    let mut encoder = codec::AppEncoder::default();
    encoder.put(&mut buffer, &append(7, vec![of_term(8, 3)]));
    codec::AppEncoder::put_heartbeat(&mut buffer);
    encoder.put(&mut buffer, &append(8, vec![of_term(9, 0), of_term(10, 40)]));
    encoder.put(&mut buffer, &append(10, vec![]));
    vec![chunked(1, &buffer), chunked(200, &buffer)]
}

/// What is understood must survive a round trip through a new connection.
fn peer_appends(input: &[u8]) -> bool {
    let mut understood = false;
    let mut decoder = codec::AppDecoder::new(1, 2);
    let mut encoder = codec::AppEncoder::default();
    let mut mirror = codec::AppDecoder::new(1, 2);
    for chunk in chunks(input) {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(codec::Frame::Message(message))) => {
                    understood = true;
                    let mut buffer = BytesMut::new();
                    encoder.put(&mut buffer, &message);
                    mirror.push(buffer.freeze());
                    let frame = mirror.next();
                    // Other fields than an append's are left out where entries go alone.
                    assert!(matches!(&frame, Ok(Some(codec::Frame::Message(m))) if m.entries == message.entries));
                }
                Ok(Some(codec::Frame::LinkHeartbeat)) => {}
                Ok(None) => break,
                Err(_) => return understood,
            }
        }
    }
    understood
}

fn peer_snapshot_corpus() -> Vec<Vec<u8>> {
    let mut buffer = BytesMut::new();
    let message = Message { kind: MessageType::MsgSnap, snapshot: Some(snapshot()), ..append(0, vec![]) };
    codec::put_message(&mut buffer, &message);
    buffer.extend_from_slice(b"the image");
    vec![chunked(1, &buffer), chunked(200, &buffer)]
}

/// The message before an image, and then all the rest.
fn peer_snapshots(input: &[u8]) -> bool {
    let mut decoder = codec::MessageDecoder::snapshot();
    for chunk in chunks(input) {
        decoder.push(chunk);
        match decoder.next() {
            Ok(None) => {}
            Ok(Some(_)) => {
                assert!(decoder.into_rest().len() <= input.len());
                return true;
            }
            Err(_) => return false,
        }
    }
    false
}
