use super::*;
use api::raft::{EntryKind, Snapshot, SnapshotMetadata};
use proptest::prelude::*;

fn entry(term: u64, index: u64, data: &[u8]) -> Entry {
    Entry { term, index, kind: EntryKind::Normal, data: Bytes::copy_from_slice(data) }
}

fn app(term: u64, log_term: u64, index: u64, entries: Vec<Entry>, commit: u64) -> Message {
    let kind = MessageType::MsgApp;
    Message { kind, to: 1, from: 2, term, log_term, index, entries, commit, ..Message::default() }
}

/// All frames of `bytes`, given in chunks of `size`.
fn app_frames(bytes: &[u8], size: usize) -> Result<Vec<Frame>, Broken> {
    let mut decoder = AppDecoder::new(1, 2);
    let mut frames = Vec::new();
    for chunk in bytes.chunks(size) {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn message_frames(bytes: &[u8], size: usize) -> Result<Vec<Frame>, Broken> {
    let mut decoder = MessageDecoder::stream();
    let mut frames = Vec::new();
    for chunk in bytes.chunks(size) {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn heartbeats_of_the_link_have_the_bytes_go_3_7_writes() {
    let mut buffer = BytesMut::new();
    put_message_heartbeat(&mut buffer);
    assert_eq!(buffer[..], [0, 0, 0, 0, 0, 0, 0, 2, 8, 8]);
    assert_eq!(message_frames(&buffer, 3), Ok(vec![Frame::LinkHeartbeat]));
    buffer.clear();
    AppEncoder::put_heartbeat(&mut buffer);
    assert_eq!(buffer[..], [0]);
    assert_eq!(app_frames(&buffer, 1), Ok(vec![Frame::LinkHeartbeat]));
}

/// 3.5 and 3.6 write every scalar, and an empty snapshot with empty metadata.
#[test]
fn heartbeats_of_older_members_are_recognised_by_their_fields() {
    let gogo = [
        8, 8, 0x10, 0, 0x18, 0, 0x20, 0, 0x28, 0, 0x30, 0, 0x40, 0, 0x4a, 8, 0x12, 6, 0x0a, 0, 0x10, 0, 0x18, 0, 0x50,
        0, 0x58, 0, 0x68, 0,
    ];
    let mut bytes = (gogo.len() as u64).to_be_bytes().to_vec();
    bytes.extend_from_slice(&gogo);
    assert_eq!(message_frames(&bytes, 7), Ok(vec![Frame::LinkHeartbeat]));
}

/// reference/peer-protocol.md section 10.
#[test]
fn answers_have_the_bytes_go_3_7_writes() {
    use MessageType as T;
    let from_to = |kind| Message { kind, to: 5, from: 6, term: 7, ..Message::default() };
    for (message, bytes) in [
        (from_to(T::MsgPreVoteResp), &[8, 0x12, 0x10, 5, 0x18, 6, 0x20, 7][..]),
        (from_to(T::MsgVoteResp), &[8, 6, 0x10, 5, 0x18, 6, 0x20, 7]),
        (Message { index: 9, ..from_to(T::MsgAppResp) }, &[8, 4, 0x10, 5, 0x18, 6, 0x20, 7, 0x30, 9]),
        (Message { commit: 9, ..from_to(T::MsgHeartbeat) }, &[8, 8, 0x10, 5, 0x18, 6, 0x20, 7, 0x40, 9]),
        (from_to(T::MsgHeartbeatResp), &[8, 9, 0x10, 5, 0x18, 6, 0x20, 7]),
    ] {
        let mut buffer = BytesMut::new();
        put_message(&mut buffer, &message);
        assert_eq!(buffer[..8], (bytes.len() as u64).to_be_bytes());
        assert_eq!(buffer[8..], *bytes);
    }
}

#[test]
fn a_msgapp_stream_begins_with_a_whole_message_and_goes_on_with_entries() {
    let mut encoder = AppEncoder::default();
    let mut buffer = BytesMut::new();
    let mut frame = |m: &Message| {
        buffer.clear();
        encoder.put(&mut buffer, m);
        buffer.to_vec()
    };
    // 0x02: rebased at (3, 11).
    let first = frame(&app(3, 3, 10, vec![entry(3, 11, b"a")], 9));
    assert_eq!(first[0], 2);
    // 0x01 with one entry: 3.7's bytes of an entry, then the commit index.
    let second = frame(&app(3, 3, 11, vec![entry(3, 12, b"x")], 11));
    assert_eq!(
        second,
        [
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0x10, 3, 0x18, 12, 0x22, 1, b'x'][..],
            &11u64.to_be_bytes()
        ]
        .concat()
    );
    // The commit index alone.
    assert_eq!(frame(&app(3, 3, 12, vec![], 12)), [&[1, 0, 0, 0, 0, 0, 0, 0, 0][..], &12u64.to_be_bytes()].concat());
    // A probe further back, another log term, a new term: whole messages.
    assert_eq!(frame(&app(3, 2, 5, vec![], 12))[0], 2);
    assert_eq!(frame(&app(3, 2, 5, vec![], 12))[0], 2);
    assert_eq!(frame(&app(4, 3, 5, vec![], 12))[0], 2);
}

#[test]
fn nothing_of_term_zero_and_no_gap_goes_as_entries() {
    let mut buffer = BytesMut::new();
    AppEncoder::default().put(&mut buffer, &app(0, 0, 0, vec![], 0));
    assert_eq!(buffer[0], 2);
    let mut encoder = AppEncoder { term: 3, index: 10 };
    buffer.clear();
    encoder.put(&mut buffer, &app(3, 3, 10, vec![entry(3, 13, b"")], 0));
    assert_eq!(buffer[0], 2);
    // An empty log: etcd's first frame after start.
    buffer.clear();
    AppEncoder::default().put(&mut buffer, &app(1, 0, 0, vec![entry(1, 1, b"")], 0));
    assert_eq!(buffer[0], 2);
}

#[test]
fn frames_of_entries_are_rebuilt() {
    let mut encoder = AppEncoder::default();
    let mut buffer = BytesMut::new();
    let messages = [
        app(3, 2, 10, vec![entry(3, 11, b"a"), entry(3, 12, &[7; 5000])], 9),
        app(3, 3, 12, vec![entry(3, 13, b""), entry(3, 14, b"b")], 12),
        app(3, 3, 14, vec![], 14),
        app(4, 3, 14, vec![], 14),
    ];
    for m in &messages {
        encoder.put(&mut buffer, m);
    }
    let expected: Vec<Frame> = messages.into_iter().map(Frame::Message).collect();
    for size in [1, 2, 9, 64, 1 << 20] {
        assert_eq!(app_frames(&buffer, size).as_ref(), Ok(&expected), "chunks of {size}");
    }
}

#[test]
fn a_snapshot_body_has_a_message_and_then_the_image() {
    let metadata = SnapshotMetadata { index: 8, term: 2, ..SnapshotMetadata::default() };
    let snapshot = Some(Snapshot { data: Bytes::from_static(b"{}"), metadata });
    let message = Message { kind: MessageType::MsgSnap, to: 1, from: 2, term: 2, snapshot, ..Message::default() };
    let mut buffer = BytesMut::new();
    put_message(&mut buffer, &message);
    buffer.put_slice(b"image");
    for size in [1, 10, 1000] {
        let mut decoder = MessageDecoder::snapshot();
        let mut chunks = buffer.chunks(size);
        let head = loop {
            match decoder.next().unwrap() {
                Some(head) => break head,
                None => decoder.push(Bytes::copy_from_slice(chunks.next().unwrap())),
            }
        };
        assert_eq!(head, Frame::Message(message.clone()));
        let mut image = decoder.into_rest().to_vec();
        image.extend(chunks.flatten());
        assert_eq!(image, b"image");
    }
}

fn claim(len: u64) -> Vec<u8> {
    len.to_be_bytes().to_vec()
}

#[test]
fn claims_beyond_the_limits_are_refused_at_once() {
    let too_long = Broken::TooLong { len: MESSAGE_MAX + 1, max: MESSAGE_MAX };
    assert_eq!(message_frames(&claim(MESSAGE_MAX + 1), 8), Err(too_long));
    let too_long = Broken::TooLong { len: MESSAGE_MAX + 1, max: MESSAGE_MAX };
    assert_eq!(app_frames(&[&[2][..], &claim(MESSAGE_MAX + 1)].concat(), 64), Err(too_long));
    let mut head = MessageDecoder::snapshot();
    head.push(claim(SNAPSHOT_MESSAGE_MAX + 1).into());
    assert_eq!(head.next(), Err(Broken::TooLong { len: SNAPSHOT_MESSAGE_MAX + 1, max: SNAPSHOT_MESSAGE_MAX }));

    let mut decoder = AppDecoder { term: 1, ..AppDecoder::new(1, 2) };
    decoder.push([&[1][..], &claim(u64::MAX)].concat().into());
    assert_eq!(decoder.next(), Err(Broken::TooManyEntries(u64::MAX)));
}

#[test]
fn claims_within_the_limits_reserve_nothing() {
    let mut decoder = MessageDecoder::stream();
    decoder.push([&claim(MESSAGE_MAX)[..], &[0; 100]].concat().into());
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.input.partial.capacity() <= GROWTH);
    let mut decoder = AppDecoder { term: 1, ..AppDecoder::new(1, 2) };
    decoder.push([&[1][..], &claim(ENTRIES_MAX)].concat().into());
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.entries.capacity(), 0);
}

#[test]
fn the_entries_of_one_frame_share_a_limit() {
    let mut decoder = AppDecoder { term: 1, ..AppDecoder::new(1, 2) };
    decoder.push([&[1][..], &claim(2)].concat().into());
    assert_eq!(decoder.next(), Ok(None));
    decoder.bytes = MESSAGE_MAX - 1;
    decoder.push(claim(2).into());
    assert_eq!(decoder.next(), Err(Broken::TooLong { len: 2, max: 1 }));
}

#[test]
fn entries_before_any_message_are_refused() {
    let bytes = [&[1][..], &claim(0), &claim(0)].concat();
    assert_eq!(app_frames(&bytes, 100), Err(Broken::Unbased));
    assert_eq!(app_frames(&[3], 1), Err(Broken::UnknownType(3)));
}

#[test]
fn garbage_is_an_error_where_go_dies() {
    assert!(matches!(message_frames(&[&claim(1)[..], &[0xff]].concat(), 99), Err(Broken::Malformed(_))));
    assert!(matches!(app_frames(&[&[2][..], &claim(1), &[0xff]].concat(), 99), Err(Broken::Malformed(_))));
    let mut bytes = BytesMut::new();
    AppEncoder::default().put(&mut bytes, &app(1, 1, 1, vec![], 1));
    bytes.put_slice(&[&[1][..], &claim(1), &claim(1), &[0xff]].concat());
    assert!(matches!(app_frames(&bytes, 99), Err(Broken::Malformed(_))));
}

#[test]
fn indexes_at_the_end_of_the_numbers_do_not_overflow() {
    let mut bytes = BytesMut::new();
    AppEncoder::default().put(&mut bytes, &app(1, 1, u64::MAX, vec![], 1));
    for _ in 0..2 {
        bytes.put_slice(&[&[1][..], &claim(1), &claim(2), &[0x10, 1], &claim(7)].concat());
    }
    assert_eq!(app_frames(&bytes, 5).map(|frames| frames.len()), Ok(3));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    (0..4u64, 0..9u64, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(term, index, data)| Entry {
        term,
        index,
        kind: EntryKind::Normal,
        data: data.into(),
    })
}

/// Appends with terms and indexes close enough to one another that both kinds of frame occur.
fn any_app() -> impl Strategy<Value = Message> {
    let numbers = (1..4u64, 1..4u64, 0..9u64, any::<u64>());
    (numbers, proptest::collection::vec(any_entry(), 0..4), any::<bool>()).prop_map(
        |((term, log_term, index, commit), mut entries, orderly)| {
            if orderly {
                for (n, e) in (1..).zip(&mut entries) {
                    (e.term, e.index) = (term, index + n);
                }
            }
            app(term, log_term, index, entries, commit)
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    (any_app(), 0..19i32, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(m, kind, reject, context)| Message {
            kind: MessageType::try_from(kind).expect("a number of the table"),
            reject,
            context: context.into(),
            ..m
        },
    )
}

proptest! {
    #[test]
    fn what_goes_over_a_message_stream_arrives(
        messages in proptest::collection::vec(any_message(), 0..6),
        size in 1..200usize,
    ) {
        let mut buffer = BytesMut::new();
        messages.iter().for_each(|m| put_message(&mut buffer, m));
        let expected: Vec<Frame> = messages.into_iter().map(Frame::Message).collect();
        prop_assert_eq!(message_frames(&buffer, size), Ok(expected));
    }

    #[test]
    fn what_goes_over_a_msgapp_stream_arrives(
        messages in proptest::collection::vec(any_app(), 0..12),
        size in 1..200usize,
    ) {
        let mut encoder = AppEncoder::default();
        let mut buffer = BytesMut::new();
        for m in &messages {
            encoder.put(&mut buffer, m);
            AppEncoder::put_heartbeat(&mut buffer);
        }
        let expected: Vec<Frame> =
            messages.into_iter().flat_map(|m| [Frame::Message(m), Frame::LinkHeartbeat]).collect();
        prop_assert_eq!(app_frames(&buffer, size), Ok(expected));
    }

    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1..50usize) {
        drop(app_frames(&bytes, size));
        drop(message_frames(&bytes, size));
        // … also behind a good frame, when entries may come.
        let mut behind = BytesMut::new();
        AppEncoder::default().put(&mut behind, &app(1, 1, 1, vec![], 1));
        behind.put_slice(&bytes);
        drop(app_frames(&behind, size));
    }

    #[test]
    fn chunks_do_not_matter(bytes in proptest::collection::vec(0..10u8, 0..120), size in 1..30usize) {
        prop_assert_eq!(app_frames(&bytes, size), app_frames(&bytes, 1));
    }
}
