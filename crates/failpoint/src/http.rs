//! gofail's control server: HTTP/1.1, one request a connection, one connection at a time.
//!
//! ```text
//! GET /            name=term lines of all names, in order      PUT /name        body = term             → 204
//! GET /name        its term                                    PUT /failpoints  body = name=term;…      → 204
//! GET /name/count  how often a term of it was taken            DELETE /name                             → 204
//! ```
//!
//! Answers to what can't be done have gofail's codes and texts. An answer is with the kernel before a failpoint may end
//! the process (see [`Registry::quiet`]); the whole request was read by then, so that closing the socket drops nothing.

use crate::registry::{Refusal, Registry, split_settings};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Request line and headers; beyond it 431.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A term, or all names with theirs; beyond it 413.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Reads from a client after its request was refused, 4 KiB each.
const DRAINS_MAX: usize = 64;
/// A client has this long for its request, so that a silent one does not keep others out for good.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left) this long, rather than spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the process ends.
pub fn serve(listener: &TcpListener, registry: &Registry) {
    for connection in listener.incoming() {
        match connection {
            // What is wrong with one connection is its client's affair.
            Ok(stream) => drop(converse(&stream, registry)),
            Err(_) => std::thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn converse(stream: &TcpStream, registry: &Registry) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = Reader { stream, until: Instant::now() + PATIENCE, bytes: Vec::new() };
    let asked = match read_request(&mut reader) {
        Ok(asked) => asked,
        Err(Unreadable::Io(e)) => return Err(e),
        Err(Unreadable::Refused(response)) => {
            send(stream, &response)?;
            return reader.drain();
        }
    };
    let _until_sent = registry.quiet();
    send(stream, &answer(registry, &asked))
}

fn send(mut stream: &TcpStream, response: &Response) -> io::Result<()> {
    stream.write_all(response.encode().as_bytes())?;
    stream.flush()
}

#[derive(Debug)]
struct Request {
    method: String,
    target: String,
    body: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Response {
    code: u16,
    body: String,
}

impl Response {
    fn ok(body: String) -> Response {
        Response { code: 200, body }
    }

    /// As Go's `http.Error`.
    fn error(code: u16, text: impl std::fmt::Display) -> Response {
        Response { code, body: format!("{text}\n") }
    }

    fn encode(&self) -> String {
        let Response { code, body } = self;
        let reason = match code {
            200 => "OK",
            204 => "No Content",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            413 => "Request Entity Too Large",
            431 => "Request Header Fields Too Large",
            _ => "Internal Server Error",
        };
        let kind = "Content-Type: text/plain; charset=utf-8\r\n";
        let headers = match code {
            204 => String::new(),
            200 => format!("{kind}Content-Length: {}\r\n", body.len()),
            // gofail means to name three, and names the last.
            405 => format!("Allow: PUT\r\n{kind}X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n", body.len()),
            _ => format!("{kind}X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\n", body.len()),
        };
        format!("HTTP/1.1 {code} {reason}\r\n{headers}Connection: close\r\n\r\n{body}")
    }
}

fn answer(registry: &Registry, asked: &Request) -> Response {
    let Some(key) = asked.target.strip_prefix('/') else {
        return Response::error(400, "malformed request URI");
    };
    match asked.method.as_str() {
        "PUT" => put(registry, key, &asked.body),
        "GET" => get(registry, key),
        "DELETE" => match registry.disable(key) {
            Ok(()) => Response { code: 204, body: String::new() },
            Err(e) => Response::error(400, format_args!("failed to delete failpoint {e}")),
        },
        _ => Response::error(405, "Method not allowed"),
    }
}

fn put(registry: &Registry, key: &str, body: &str) -> Response {
    let settings = match key.eq_ignore_ascii_case("failpoints") {
        true => split_settings(body),
        false => Ok([(key, body)].into()),
    };
    let settings = match settings {
        Ok(settings) => settings,
        Err(e) => return Response::error(400, format_args!("fail to parse failpoint: {e}")),
    };
    match settings.into_iter().try_for_each(|(name, term)| registry.enable(name, term)) {
        Ok(()) => Response { code: 204, body: String::new() },
        Err(e) => Response::error(400, format_args!("fail to set failpoint: {e}")),
    }
}

fn get(registry: &Registry, key: &str) -> Response {
    if key.is_empty() {
        return Response::ok(registry.listing());
    }
    let refused = |code, e| Response::error(code, format_args!("failed to GET: {e}"));
    if let Some(name) = key.strip_suffix("/count") {
        return match registry.status(name) {
            Ok((_, count)) => Response::ok(count.to_string()),
            Err(e @ Refusal::Unknown) => refused(404, e),
            Err(e) => refused(500, e),
        };
    }
    match registry.status(key) {
        Ok((term, _)) => Response::ok(format!("{term}\n")),
        // gofail goes on after its error and writes the empty term, too.
        Err(e) => Response { code: 404, body: format!("failed to GET: {e}\n\n") },
    }
}

/// Why there is no request.
#[derive(Debug)]
enum Unreadable {
    Io(io::Error),
    Refused(Response),
}

impl From<io::Error> for Unreadable {
    fn from(e: io::Error) -> Self {
        Unreadable::Io(e)
    }
}

fn bad_request() -> Unreadable {
    Unreadable::Refused(Response { code: 400, body: "400 Bad Request".into() })
}

fn too_large(code: u16) -> Unreadable {
    Unreadable::Refused(Response::error(code, "too large"))
}

#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

fn read_request(reader: &mut Reader<'_>) -> Result<Request, Unreadable> {
    let mut head_left = HEAD_BYTES_MAX;
    let line = reader.line(&mut head_left)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad_request());
    };
    if !version.starts_with("HTTP/1.") {
        return Err(bad_request());
    }
    let (framing, expects) = read_headers(reader, head_left)?;
    if expects {
        reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = match framing {
        Framing::Length(n) if n > BODY_BYTES_MAX => return Err(too_large(413)),
        Framing::Length(n) => reader.take(n)?,
        Framing::Chunked => read_chunks(reader)?,
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Request { method: method.to_owned(), target: target.to_owned(), body })
}

/// How the body is framed, and whether the client waits to be told to send it.
fn read_headers(reader: &mut Reader<'_>, mut left: usize) -> Result<(Framing, bool), Unreadable> {
    let (mut framing, mut expects) = (Framing::Length(0), false);
    loop {
        let line = reader.line(&mut left)?;
        if line.is_empty() {
            return Ok((framing, expects));
        }
        let (name, value) = line.split_once(':').ok_or_else(bad_request)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && !matches!(framing, Framing::Chunked) {
            framing = Framing::Length(value.parse().map_err(|_| bad_request())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(bad_request());
            }
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("expect") {
            expects = value.eq_ignore_ascii_case("100-continue");
        }
    }
}

fn read_chunks(reader: &mut Reader<'_>) -> Result<Vec<u8>, Unreadable> {
    let mut body = Vec::new();
    let mut left = HEAD_BYTES_MAX;
    loop {
        let line = reader.line(&mut left)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let n = usize::from_str_radix(digits, 16).map_err(|_| bad_request())?;
        if n > BODY_BYTES_MAX - body.len() {
            return Err(too_large(413));
        }
        if n == 0 {
            // Trailers say nothing to us.
            while !reader.line(&mut left)?.is_empty() {}
            return Ok(body);
        }
        body.extend(reader.take(n)?);
        if !reader.line(&mut left)?.is_empty() {
            return Err(bad_request());
        }
    }
}

/// Reads from a client that has until a certain time.
struct Reader<'a> {
    stream: &'a TcpStream,
    until: Instant,
    /// Read and not yet taken.
    bytes: Vec<u8>,
}

impl Reader<'_> {
    fn fill(&mut self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.bytes.extend(&chunk[..n]);
                Ok(())
            }
        }
    }

    /// A line without its end; `left` bytes may still be spent on lines.
    fn line(&mut self, left: &mut usize) -> Result<String, Unreadable> {
        let end = loop {
            let end = self.bytes.iter().position(|b| *b == b'\n');
            if end.unwrap_or(self.bytes.len()) > *left {
                return Err(too_large(431));
            }
            match end {
                Some(end) => break end,
                None => self.fill()?,
            }
        };
        *left -= end;
        let line = self.take(end + 1)?;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        String::from_utf8(line.to_vec()).map_err(|_| bad_request())
    }

    /// Reads on for a while: closing a socket with bytes unread would throw the answer away.
    fn drain(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        for _ in 0..DRAINS_MAX {
            self.bytes.clear();
            self.fill()?;
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.bytes.len() < n {
            self.fill()?;
        }
        let rest = self.bytes.split_off(n);
        Ok(std::mem::replace(&mut self.bytes, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{Kind, Point};
    use std::net::SocketAddr;
    use std::sync::Arc;

    static POINTS: [Point; 2] = [
        Point { package: "go/pkg", name: "one", kind: Kind::Unit },
        Point { package: "go/pkg", name: "two", kind: Kind::Unit },
    ];

    fn server() -> (SocketAddr, Arc<Registry>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has a port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let registry = Arc::new(Registry::new(&POINTS, 1));
        let served = registry.clone();
        std::thread::spawn(move || serve(&listener, &served));
        (address, registry)
    }

    /// Sends bytes; answers all that comes back.
    fn raw(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the server answers in text and closes");
        text
    }

    /// Code and body.
    fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let text =
            raw(address, &format!("{method} {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"));
        let (head, body) = text.split_once("\r\n\r\n").expect("a head ends with an empty line");
        let code = head.strip_prefix("HTTP/1.1 ").and_then(|h| h.get(..3)).and_then(|c| c.parse().ok());
        (code.expect("a status line"), body.to_owned())
    }

    #[test]
    fn a_name_is_set_shown_counted_and_deleted() {
        let (at, registry) = server();
        let get = |path| ask(at, "GET", path, "");
        assert_eq!(get("/"), (200, "one=\ntwo=\n".into()));
        assert_eq!(ask(at, "PUT", "/one", "2*return"), (204, String::new()));
        assert_eq!(get("/one"), (200, "2*return\n".into()));
        assert_eq!(get("/"), (200, "one=2*return\ntwo=\n".into()));
        assert_eq!(get("/one/count"), (200, "0".into()));
        (0..5).for_each(|_| drop(registry.hit("one")));
        assert_eq!(get("/one/count"), (200, "2".into()));
        assert_eq!(ask(at, "PUT", "/go/pkg/one", "off"), (204, String::new()));
        assert_eq!(get("/go/pkg/one/count"), (200, "0".into()));
        assert_eq!(ask(at, "DELETE", "/one", ""), (204, String::new()));
        assert_eq!(get("/"), (200, "one=\ntwo=\n".into()));
    }

    #[test]
    fn several_names_are_set_at_once() {
        let (at, _) = server();
        assert_eq!(ask(at, "PUT", "/failpoints", "one=sleep(\"1ms\");two=off;"), (204, String::new()));
        assert_eq!(ask(at, "GET", "/", ""), (200, "one=sleep(\"1ms\")\ntwo=off\n".into()));
        assert_eq!(
            ask(at, "PUT", "/FailPoints", "one"),
            (400, "fail to parse failpoint: bad failpoint \"one\"\n".into())
        );
        let unknown = "fail to set failpoint: failpoint: failpoint does not exist\n";
        assert_eq!(ask(at, "PUT", "/failpoints", "none=off"), (400, unknown.into()));
    }

    #[test]
    fn what_cannot_be_done_is_answered_in_gofails_words() {
        let (at, _) = server();
        let no_name = "failpoint: failpoint does not exist";
        let is_off = "failpoint: failpoint is disabled";
        for (method, path, body, code, text) in [
            ("PUT", "/none", "off", 400, format!("fail to set failpoint: {no_name}\n")),
            ("PUT", "/one", "nonsense", 400, "fail to set failpoint: failpoint: could not parse terms\n".into()),
            ("PUT", "/one", "", 400, "fail to set failpoint: failpoint: could not parse terms\n".into()),
            ("PUT", "/", "off", 400, format!("fail to set failpoint: {no_name}\n")),
            ("GET", "/none", "", 404, format!("failed to GET: {no_name}\n\n")),
            ("GET", "/one", "", 404, format!("failed to GET: {is_off}\n\n")),
            ("GET", "/none/count", "", 404, format!("failed to GET: {no_name}\n")),
            ("GET", "/one/count", "", 500, format!("failed to GET: {is_off}\n")),
            ("DELETE", "/none", "", 400, format!("failed to delete failpoint {no_name}\n")),
            ("DELETE", "/one", "", 400, format!("failed to delete failpoint {is_off}\n")),
            ("POST", "/one", "off", 405, "Method not allowed\n".into()),
            ("GET", "http://h/one", "", 400, "malformed request URI\n".into()),
        ] {
            assert_eq!(ask(at, method, path, body), (code, text), "{method} {path} {body:?}");
        }
    }

    #[test]
    fn an_answer_has_gos_headers_and_closes() {
        let (at, _) = server();
        let head = "Connection: close\r\n\r\n";
        let plain = "Content-Type: text/plain; charset=utf-8\r\n";
        let list = raw(at, "GET / HTTP/1.1\r\n\r\n");
        assert_eq!(list, format!("HTTP/1.1 200 OK\r\n{plain}Content-Length: 10\r\n{head}one=\ntwo=\n"));
        let set = raw(at, "PUT /one HTTP/1.1\r\ncontent-length: 3\r\n\r\noff");
        assert_eq!(set, format!("HTTP/1.1 204 No Content\r\n{head}"));
        let method = raw(at, "PATCH /one HTTP/1.0\r\n\r\n");
        let allow = format!("Allow: PUT\r\n{plain}X-Content-Type-Options: nosniff\r\nContent-Length: 19\r\n");
        assert_eq!(method, format!("HTTP/1.1 405 Method Not Allowed\r\n{allow}{head}Method not allowed\n"));
    }

    #[test]
    fn a_body_may_come_in_chunks_and_on_demand() {
        let (at, registry) = server();
        let chunked =
            "PUT /one HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n3*\r\n3\r\noff\r\n0\r\nt: u\r\n\r\n";
        assert!(raw(at, chunked).starts_with("HTTP/1.1 204 "));
        assert_eq!(registry.status("one"), Ok(("3*off".into(), 0)));
        let expecting = "PUT /one HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nprint";
        assert!(raw(at, expecting).starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 "));
    }

    #[test]
    fn too_much_and_nonsense_are_refused() {
        let (at, _) = server();
        let long = "x".repeat(HEAD_BYTES_MAX);
        for (request, code) in [
            (format!("GET /{long}"), 431),
            (format!("GET / HTTP/1.1\r\na: {long}"), 431),
            (format!("PUT /one HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1), 413),
            (format!("PUT /one HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", BODY_BYTES_MAX + 1), 413),
            ("PUT /one HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n".into(), 400),
            ("PUT /one HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n".into(), 400),
            ("PUT /one HTTP/1.1\r\nContent-Length: -1\r\n\r\n".into(), 400),
            ("GET /one\r\n".into(), 400),
            ("GET /one HTTP/2.0\r\n".into(), 400),
            ("GET /one HTTP/1.1 x\r\n".into(), 400),
            ("GET / HTTP/1.1\r\nnonsense\r\n\r\n".into(), 400),
        ] {
            let text = raw(at, &request);
            assert!(text.starts_with(&format!("HTTP/1.1 {code} ")), "{:.60}: {text}", request);
        }
    }

    #[test]
    fn a_client_that_leaves_early_does_no_harm() {
        let (at, _) = server();
        let mut stream = TcpStream::connect(at).expect("the server listens");
        stream.write_all(b"PUT /one HTTP/1.1\r\nContent-Length: 9\r\n\r\noff").expect("the server reads");
        stream.shutdown(Shutdown::Both).expect("a connection can be ended");
        assert_eq!(ask(at, "GET", "/one", "").0, 404);
    }
}
