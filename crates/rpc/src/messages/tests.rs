//! Golden bytes in, messages or grpc-go's words out.

use super::*;
use http_body::Frame;
use std::collections::VecDeque;
use std::convert::Infallible;
use tonic::Code;

const LIMIT: usize = 20;

/// A body of these frames.
pub(crate) struct Pieces(pub VecDeque<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
    }
}

pub(crate) fn pieces(frames: &[&[u8]], gzip: bool) -> Messages<Pieces> {
    Messages::new(Pieces(frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect()), LIMIT, gzip)
}

/// All messages, and how they ended.
fn read(frames: &[&[u8]], gzip: bool) -> (Vec<Bytes>, Option<Unread>) {
    let mut messages = pieces(frames, gzip);
    let mut all = Vec::new();
    loop {
        match messages.poll_message(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Ok(Some(message))) => all.push(message),
            Poll::Ready(Ok(None)) => return (all, None),
            Poll::Ready(Err(why)) => return (all, Some(why)),
            Poll::Pending => unreachable!("everything has come"),
        }
    }
}

fn refusal(frames: &[&[u8]], gzip: bool) -> (Code, String) {
    match read(frames, gzip) {
        (_, Some(Unread::Refused(why))) => (why.code(), why.message().to_owned()),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn messages_are_found_however_the_bytes_are_cut() {
    let bytes = b"\0\0\0\0\x03one\0\0\0\0\0\0\0\0\0\x05three";
    for size in 1..=bytes.len() {
        let frames: Vec<&[u8]> = bytes.chunks(size).collect();
        let (all, end) = read(&frames, false);
        assert_eq!(all, [&b"one"[..], b"", b"three"], "pieces of {size}");
        assert!(end.is_none());
        // Empty frames change nothing.
        let frames: Vec<&[u8]> = frames.into_iter().flat_map(|frame| [&[][..], frame]).collect();
        assert_eq!(read(&frames, false).0.len(), 3);
    }
}

#[test]
fn a_message_of_one_frame_is_not_copied() {
    let frame = Bytes::from_static(b"\0\0\0\0\x03one\0\0\0\0\x03two");
    let mut messages = Messages::new(Pieces([frame.clone()].into()), LIMIT, false);
    for at in [5, 13] {
        match messages.poll_message(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Ok(Some(message))) => assert_eq!(message.as_ptr(), frame[at..].as_ptr()),
            other => panic!("no message: {other:?}"),
        }
    }
}

#[test]
fn a_body_that_ends_within_a_message_is_cut() {
    for frames in [&[&b"\0\0\0\0\x03"[..]][..], &[b"\0\0\0\0\x03on"], &[b"\0\0\0", b"\0\x03o"]] {
        assert!(matches!(read(frames, false), (_, Some(Unread::Cut))), "{frames:?}");
    }
    let (all, end) = read(&[b"\0\0\0\0\x03one\0\0\0\0"], false);
    assert_eq!(all, [&b"one"[..]]);
    assert!(end.is_none(), "as in grpc-go, a part of a prefix is nothing");
    assert!(matches!(read(&[], false), (_, None)));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_there() {
    let text = |found: u32| format!("grpc: received message larger than max ({found} vs. 20)");
    assert_eq!(refusal(&[b"\0\0\0\0\x15"], false), (Code::ResourceExhausted, text(21)));
    assert_eq!(refusal(&[b"\x09\xff\xff\xff\xff"], false), (Code::ResourceExhausted, text(u32::MAX)));
    let whole = [b"\0\0\0\0\x14", &[7; 20][..]].concat();
    assert_eq!(read(&[&whole], false).0, [&[7; 20][..]]);
}

#[test]
fn flags_are_0_or_1_and_1_needs_an_encoding() {
    let text = "grpc: compressed flag set with identity or empty encoding";
    assert_eq!(refusal(&[b"\x01\0\0\0\x01x"], false), (Code::Internal, text.to_owned()));
    let text = "grpc: received unexpected payload format 255";
    assert_eq!(refusal(&[b"\xff\0\0\0\x01x"], false), (Code::Internal, text.to_owned()));
    assert_eq!(refusal(&[b"\xff\0\0\0\x01x"], true), (Code::Internal, text.to_owned()));
    assert_eq!(read(&[b"\0\0\0\0\x01x"], true).0, [&b"x"[..]], "with an encoding, messages may still be plain");
}

/// `[0; count]` as a compressed message, for a limit that the packed bytes keep.
fn packed(count: usize) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 0];
    crate::gzip::deflate(&vec![0; count], &mut bytes).unwrap();
    let length = u32::try_from(bytes.len() - PREFIX).unwrap().to_be_bytes();
    bytes[1..PREFIX].copy_from_slice(&length);
    bytes
}

#[test]
fn compressed_messages_are_made_plain_within_the_limit() {
    let read = |bytes: &[u8], limit| {
        let mut messages = Messages::new(Pieces([Bytes::copy_from_slice(bytes)].into()), limit, true);
        match messages.poll_message(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Ok(message)) => Ok(message.unwrap()),
            Poll::Ready(Err(Unread::Refused(why))) => Err((why.code(), why.message().to_owned())),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&packed(1000), 1000).unwrap(), [0; 1000][..]);
    let text = "grpc: received message after decompression larger than max 999".to_owned();
    assert_eq!(read(&packed(1000), 999), Err((Code::ResourceExhausted, text)));
    for (bytes, why) in [
        (&b"\x01\0\0\0\x0anot gzip!!"[..], "gzip: invalid header"),
        (b"\x01\0\0\0\x03not", "unexpected EOF"),
        (b"\x01\0\0\0\0", "EOF"),
    ] {
        let text = format!("grpc: failed to decompress the message: {why}");
        assert_eq!(read(bytes, 999), Err((Code::Internal, text)));
    }
    let mut cut = packed(1000);
    cut.truncate(cut.len() - 9);
    cut[4] -= 9;
    let (code, text) = read(&cut, 1000).unwrap_err();
    assert_eq!(code, Code::Internal);
    assert!(text.starts_with("grpc: failed to read decompressed data: "), "{text}");
}
