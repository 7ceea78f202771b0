//! Plain HTTP/1.1, as curl speaks it: one request a connection, its answer whole or line by line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long the next bytes of an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Headers that say something about the answer; the others are the libraries' own.
const SHOWN: [&str; 10] = [
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "allow",
    "content-type",
    "grpc-metadata-content-type",
    "location",
    "sec-websocket-protocol",
    "www-authenticate",
    "x-content-type-options",
];

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Reply {
    /// Its body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Status, telling headers and body.
    pub fn shown(&self) -> String {
        let telling = self.headers.iter().filter(|(name, _)| SHOWN.contains(&name.as_str()));
        let headers: String = telling.map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{}\n{headers}\n{}", self.status, self.body)
    }
}

/// An answer that is still coming.
#[derive(Debug)]
pub struct Coming {
    pub head: Reply,
    reader: BufReader<TcpStream>,
    /// Bytes of this chunk that are to come; `None`: the body is not chunked.
    chunk: Option<usize>,
    ended: bool,
}

/// Sends a request whose body is whole; reads all of the answer.
pub fn send(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    open(address, method, path, headers, body).whole()
}

/// `curl -d body http://address/path`.
pub fn post(address: &str, path: &str, body: &str) -> Reply {
    send(address, "POST", path, &[], body)
}

/// Sends a request; reads the head of the answer.
pub fn open(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Coming {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a nonzero timeout is valid");
    let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !given("host") {
        request += &format!("Host: {address}\r\n");
    }
    if !given("connection") {
        request += "Connection: close\r\n";
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if method != "GET" {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).expect("the server reads");
    Coming::begin(stream)
}

impl Coming {
    fn begin(stream: TcpStream) -> Coming {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let mut head = Reply { status: status.unwrap_or_default(), ..Reply::default() };
        loop {
            line.clear();
            reader.read_line(&mut line).expect("the answer goes on");
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            head.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let chunked = head.headers.get("transfer-encoding").is_some_and(|v| v == "chunked");
        Coming { head, reader, chunk: chunked.then_some(0), ended: false }
    }

    /// The next bytes; none at the end.
    fn piece(&mut self) -> Vec<u8> {
        let mut piece = vec![0; 64 << 10];
        let length = match self.chunk {
            _ if self.ended => 0,
            None => self.reader.read(&mut piece).expect("the answer goes on"),
            Some(0) => {
                let mut size = String::new();
                self.reader.read_line(&mut size).expect("a chunk");
                let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
                piece.resize(size, 0);
                self.reader.read_exact(&mut piece).expect("a whole chunk");
                self.reader.read_line(&mut String::new()).expect("its end");
                size
            }
            Some(_) => 0,
        };
        self.ended |= length == 0;
        piece.truncate(length);
        piece
    }

    /// The next line of the body, without its end; what follows in the same piece is lost if `lines` are not asked
    /// together.
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        let mut held = Vec::new();
        while held.iter().filter(|byte| **byte == b'\n').count() < count {
            let piece = self.piece();
            if piece.is_empty() {
                break;
            }
            held.extend(piece);
        }
        String::from_utf8_lossy(&held).lines().map(str::to_owned).collect()
    }

    /// Reads to the end, as text.
    pub fn whole(self) -> Reply {
        let (head, body) = self.bytes();
        Reply { body: String::from_utf8_lossy(&body).into_owned(), ..head }
    }

    /// Reads to the end: the head, and the body as it is.
    pub fn bytes(mut self) -> (Reply, Vec<u8>) {
        let length = self.head.headers.get("content-length").and_then(|text| text.parse::<usize>().ok());
        let mut body = Vec::new();
        while length.is_none_or(|length| body.len() < length) {
            let piece = self.piece();
            if piece.is_empty() {
                break;
            }
            body.extend(piece);
        }
        (self.head, body)
    }

    /// The connection, behind the head: for what is no HTTP any longer.
    pub fn into_parts(self) -> (Reply, BufReader<TcpStream>) {
        (self.head, self.reader)
    }

    /// Hangs up.
    pub fn hang_up(self) {
        let _ = self.reader.get_ref().shutdown(Shutdown::Both);
    }
}
