//! Just enough of HTTP/1.1 to ask a server of etcd's in plain text: one request a connection.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

/// An answer may not be longer, bytes: metrics of the largest clusters are far shorter.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server's address, from `http://host:port`, with or without a path.
///
/// # Errors
/// Another scheme, or none.
pub fn address(url: &str) -> Result<String, String> {
    let Some(rest) = url.strip_prefix("http://") else {
        return Err(format!("{url} is no http:// URL: give one that is served in plain text (--listen-metrics-urls)"));
    };
    let host = rest.split('/').next().unwrap_or_default();
    Ok(if host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    })
}

fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn send(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<TcpStream> {
    let mut stream = connect(address)?;
    let len = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

/// Asks, and answers the body.
///
/// # Errors
/// No connection, no answer, or one that says no.
pub fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("{method} http://{address}{path}: {}", go::os_text(&e));
    let stream = send(address, method, path, body).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(failed)?;
    body_of(&answer).map_err(|why| format!("{method} http://{address}{path}: {why}"))
}

/// Asks for a stream, and leaves when it begins.
///
/// # Errors
/// No connection, or no answer.
pub fn begin(address: &str, path: &str, body: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("POST http://{address}{path}: {}", go::os_text(&e));
    let mut stream = send(address, "POST", path, body).map_err(failed)?;
    let mut first = [0; 1024];
    match stream.read(&mut first).map_err(failed)? {
        0 => Err(format!("POST http://{address}{path}: no answer")),
        _ => Ok(()),
    }
}

/// The body of a whole answer, if its code is 200.
///
/// # Errors
/// No answer of HTTP/1.1, cut short, or another code.
pub fn body_of(answer: &[u8]) -> Result<String, String> {
    const END: &[u8] = b"\r\n\r\n";
    let end = answer.windows(END.len()).position(|bytes| bytes == END).ok_or("no head of an answer of HTTP/1.1")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let body = &answer[end + END.len()..];
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let chunked = lines.any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
    });
    let body = if chunked { whole(body)? } else { body.to_vec() };
    let body = String::from_utf8_lossy(&body).into_owned();
    match status.split(' ').nth(1) {
        Some("200") if status.starts_with("HTTP/1.") => Ok(body),
        _ => Err(format!("{status}: {}", body.trim())),
    }
}

/// Chunks put together.
fn whole(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    const CUT: &str = "the answer was cut short";
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n").ok_or(CUT)?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        let digits = line.split(';').next().unwrap_or_default().trim();
        let len = usize::from_str_radix(digits, 16).map_err(|_| format!("{digits:?} is no length of a chunk"))?;
        rest = &rest[end + 2..];
        if len == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..len).ok_or(CUT)?);
        rest = rest[len..].strip_prefix(b"\r\n").ok_or(CUT)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_whole_or_not_at_all() {
        assert_eq!(body_of(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nxy"), Ok("xy".into()));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;q=1\r\nxy\r\n1\r\nz\r\n0\r\n\r\n";
        assert_eq!(body_of(chunked), Ok("xyz".into()));
        for end in 0..chunked.len() - 4 {
            assert!(body_of(&chunked[..end]).is_err(), "{end}");
        }
        assert_eq!(body_of(b"HTTP/1.1 404 Not Found\r\n\r\nno\n"), Err("HTTP/1.1 404 Not Found: no".into()));
    }

    #[test]
    fn addresses_are_those_of_urls_in_plain_text() {
        assert_eq!(address("http://a:1/metrics"), Ok("a:1".into()));
        assert_eq!(address("http://[::1]"), Ok("[::1]:80".into()));
        assert!(address("https://a:1").is_err() && address("a:1").is_err());
    }
}
