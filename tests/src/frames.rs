//! HTTP/2 by hand, for what no decent client sends: frames of any bytes on a bare socket.
//!
//! ```text
//! | length 3 | type 1 | flags 1 | stream 4 | payload … |      big endian, RFC 9113 section 4.1
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a client's HTTP/2 connection begins with.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GOAWAY: u8 = 7;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a test's frame is small");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The preface and empty settings.
pub fn greeting() -> Vec<u8> {
    [PREFACE.to_vec(), frame(4, 0, 0, &[])].concat()
}

/// What a server sends first: the payload of its SETTINGS.
///
/// # Panics
/// When it sends something else, or nothing within two minutes.
pub fn announced(address: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a nonzero timeout is valid");
    stream.write_all(&greeting()).expect("the server reads");
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!(head[3], 4, "SETTINGS come first");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).expect("the whole frame");
    settings
}

/// A ping that wants an answer.
pub fn ping() -> Vec<u8> {
    frame(6, 0, 0, &[7; 8])
}

/// One header field, literal and not indexed (RFC 7541 section 6.2.2); name and value below 127 bytes.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|n| *n < 127).expect("a short text");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// HEADERS of a gRPC call; the request goes on.
pub fn call(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let always = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let block: Vec<u8> = always.iter().chain(more).flat_map(|(name, value)| field(name, value)).collect();
    frame(1, 4, stream, &block)
}

/// What a server did on one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Error code and debug data of the last GOAWAY.
    pub goaway: Option<(u32, String)>,
    pub closed: bool,
}

/// Sends the bytes and reads until the server closes, or says nothing for as long as given.
pub fn fate(address: &str, bytes: &[u8], patience: Duration) -> Fate {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(patience)).expect("a nonzero timeout is valid");
    let mut writer = stream.try_clone().expect("a socket can be shared");
    let bytes = bytes.to_vec();
    // A server may stop reading, and close, before all is sent: that is one of the fates.
    let writing = std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let mut answer = Vec::new();
    let closed = match stream.read_to_end(&mut answer) {
        Ok(_) => true,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    drop(stream.shutdown(std::net::Shutdown::Both));
    writing.join().expect("it does not panic");
    Fate { goaway: last_goaway(&answer), closed }
}

fn last_goaway(mut bytes: &[u8]) -> Option<(u32, String)> {
    let mut last = None;
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if head[3] == GOAWAY
            && let Some((fixed, debug)) = payload.split_first_chunk::<8>()
        {
            let code = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
            last = Some((code, String::from_utf8_lossy(debug).into_owned()));
        }
        bytes = rest;
    }
    last
}
