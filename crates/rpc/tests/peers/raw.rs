//! HTTP by hand: what is on the wire, to the letter.

use crate::node::{CLUSTER, Node, PATIENCE};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The headers of a peer, and further lines.
pub fn headers(from: u64, more: &str) -> String {
    format!(
        "Host: x\r\nX-Server-From: {from:x}\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\n\
         X-Etcd-Cluster-ID: {CLUSTER:x}\r\n{more}"
    )
}

pub fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An answer: head without the date, and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Reads up to the empty line.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "cut head: {}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// `request` is the request line, `headers` end with line ends.
pub fn ask(node: &Node, request: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = connect(node);
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(stream, "{request} HTTP/1.1\r\n{headers}{length}\r\n").unwrap();
    stream.write_all(body).unwrap();
    answer(&mut stream)
}

pub fn answer(stream: &mut TcpStream) -> Answer {
    let head = read_head(stream);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: Vec::new() };
    let len = answer.header("Content-Length").map_or(0, |n| n.parse().unwrap());
    answer.body = vec![0; len];
    stream.read_exact(&mut answer.body).unwrap();
    answer
}

/// Opens a stream as peer `from` and reads the head.
pub fn open_stream(node: &Node, from: u64, kind: &str) -> (TcpStream, String) {
    let mut stream = connect(node);
    let headers = headers(from, &format!("X-Raft-To: {:x}\r\n", node.id));
    write!(stream, "GET /raft/stream/{kind}/{from:x} HTTP/1.1\r\n{headers}\r\n").unwrap();
    let head = read_head(&mut stream);
    (stream, head)
}

/// The next chunk of a chunked body; `None` at its end.
pub fn read_chunk(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        // The process may be stopped and go on: `read` alone does not hide that.
        match stream.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) => line.push(byte[0]),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::Interrupted, "{e}"),
        }
    }
    let len = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
    let mut chunk = vec![0; len + 2];
    stream.read_exact(&mut chunk).unwrap();
    chunk.truncate(len);
    (len > 0).then_some(chunk)
}
