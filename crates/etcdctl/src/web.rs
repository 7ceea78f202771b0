//! One page over HTTP/1.0, in plain text or over TLS: a member's `/metrics`, its clock and its certificate.

use client::{Address, Config, Demand};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Largest answer that is read, bytes. A page of metrics has about 200 kB.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Largest head of it.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    /// The server's clock when it answered, whole seconds.
    pub date: Option<SystemTime>,
    pub body: String,
    /// The server's certificate.
    pub shown: Option<tls::Shown>,
}

/// How an endpoint is asked: with TLS where its scheme says so, or, without a scheme, where the configuration has any of it.
pub fn secure(config: &Config, endpoint: &str) -> Option<tls::Settings> {
    match (Demand::of(endpoint), &config.tls) {
        (Demand::Plain, _) | (Demand::Either, None) => None,
        (_, settings) => Some(settings.clone().unwrap_or_default()),
    }
}

/// Asks a server for a path; with TLS where settings are given.
///
/// # Errors
/// Why there is no answer.
pub async fn fetch(endpoint: &str, secure: Option<tls::Settings>, path: &str) -> Result<Page, String> {
    let address = Address::parse(endpoint);
    match &address {
        Address::Tcp(host) => {
            let stream = TcpStream::connect(Address::dialled(host).as_ref()).await.map_err(|e| go::os_text(&e))?;
            ask(stream, &address, secure, path).await
        }
        Address::Unix(file) => {
            let stream = UnixStream::connect(file).await.map_err(|e| go::os_text(&e))?;
            ask(stream, &address, secure, path).await
        }
    }
}

async fn ask<S>(stream: S, address: &Address, secure: Option<tls::Settings>, path: &str) -> Result<Page, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let Some(settings) = secure else { return exchange(stream, address, path).await };
    let client = tls::Client::new(tls::Live::open(settings)?, &["http/1.1"])?;
    let stream = client.connect(address.server_name(), stream).await?;
    let shown = stream.shown();
    Ok(Page { shown, ..exchange(stream, address, path).await? })
}

async fn exchange<S>(mut stream: S, address: &Address, path: &str) -> Result<Page, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", address.authority());
    stream.write_all(request.as_bytes()).await.map_err(|e| tls::told(&e))?;
    let mut answer = Vec::new();
    // Who closes TLS without a farewell has said all that counts: the head tells whether it is whole.
    let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
    match (parse(&answer), read) {
        (Some(page), _) => Ok(page),
        (None, Err(e)) => Err(tls::told(&e)),
        (None, Ok(_)) => Err("the answer is none of HTTP".into()),
    }
}

/// Takes an answer apart; `None` where it is none, or not whole.
pub fn parse(answer: &[u8]) -> Option<Page> {
    let end = answer.windows(4).take(HEAD_BYTES_MAX).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut page = Page { status, ..Page::default() };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        match name.to_ascii_lowercase().as_str() {
            "date" => page.date = date(value.trim()),
            "content-length" if value.trim().parse() != Ok(body.len()) => return None,
            _ => {}
        }
    }
    page.body = String::from_utf8_lossy(body).into_owned();
    Some(page)
}

/// `Sun, 22 Nov 2026 22:14:17 GMT`.
fn date(text: &str) -> Option<SystemTime> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(SystemTime::from(parsed))
}

#[cfg(test)]
mod tests {
    use super::parse;
    use std::time::{Duration, SystemTime};

    #[test]
    fn an_answer_is_taken_apart_when_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 22:14:17 GMT\r\ncontent-length: 2\r\n\r\nok";
        let page = parse(answer).unwrap();
        assert_eq!((page.status, page.body.as_str()), (200, "ok"));
        assert_eq!(page.date, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_385_657)));
        for cut in 0..answer.len() {
            assert_eq!(parse(&answer[..cut]), None, "{cut}");
        }
        assert_eq!(parse(b"HTTP/1.0 404 Not Found\r\n\r\n").unwrap().status, 404);
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
    }
}
