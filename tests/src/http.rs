//! Below gRPC: plain HTTP/1.1 questions and hand-made HTTP/2 requests.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

/// The status line and body of `GET path` over HTTP/1.1.
pub fn get(address: &str, path: &str) -> (String, String) {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// Sends `request` as it is and reads until the server closes.
pub fn exchange(address: &str, request: &str) -> (String, String) {
    exchange_bytes(address, request.as_bytes())
}

/// [`exchange`] of what is no text.
pub fn exchange_bytes(address: &str, request: &[u8]) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(crate::wire::PATIENCE)).expect("a nonzero timeout is valid");
    stream.write_all(request).expect("the server reads");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// What came back for a hand-made HTTP/2 request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `content-type`, `grpc-status`, `grpc-message`, `grpc-encoding` of headers and trailers, where present.
    pub fields: Vec<(String, String)>,
    /// Whether a body came with it, and its first byte (gRPC's compression flag).
    pub body: Option<u8>,
}

/// One POST over h2c with exactly these headers and this body.
pub async fn post(address: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, String> {
    let talk = async {
        let tcp = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (client, connection) = h2::client::handshake(tcp).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let answer = talk(client, address, path, headers, body).await.map_err(|error| error.to_string());
        driver.abort();
        answer
    };
    tokio::time::timeout(crate::wire::PATIENCE, talk).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

async fn talk(
    client: h2::client::SendRequest<Bytes>,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, h2::Error> {
    let mut client = client.ready().await?;
    let mut request = http::Request::post(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("the harness makes valid headers");
    let (response, mut stream) = client.send_request(request, false)?;
    stream.send_data(body, true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut answer = Answer { status: head.status.as_u16(), ..Answer::default() };
    answer.keep(&head.headers);
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        answer.body = answer.body.or_else(|| chunk.first().copied());
        body.flow_control().release_capacity(chunk.len())?;
    }
    if let Some(trailers) = body.trailers().await? {
        answer.keep(&trailers);
    }
    Ok(answer)
}

impl Answer {
    fn keep(&mut self, headers: &http::HeaderMap) {
        for name in ["content-type", "grpc-status", "grpc-message", "grpc-encoding"] {
            // An empty message says nothing; grpc-go sends it, others don't.
            if let Some(value) = headers.get(name).filter(|v| !v.is_empty()) {
                // Percent signs protect what servers like: the text is what counts.
                let text = String::from_utf8_lossy(value.as_bytes()).replace("%20", " ").replace("%22", "\"");
                self.fields.push((name.to_owned(), text));
            }
        }
    }
}
