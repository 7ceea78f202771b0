//! Stream readers: they dial the peer and receive what it writes (rafthttp `streamReader`).
//!
//! ```text
//!      ┌────────────── at most ten dials a second ───────────────┐
//!      ▼                                                         │
//!    dial ─ 200 ─► decode until an error or the end ─────────────┤
//!      ├─ 410 ─► this member was removed: fatal ─────────────────┤
//!      └─ anything else ─► next URL ─────────────────────────────┘
//! ```

use super::check::{hex, serves_streams};
use super::codec::{AppDecoder, Broken, Frame, MessageDecoder};
use super::http::{ANSWER_MAX, Line, Sending, chunk, text, whole};
use super::link::Link;
use super::pipeline::precondition;
use super::stream::Kind;
use super::url::Url;
use api::raft::Message;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two dials (etcd `DialRetryFrequency`).
const DIAL_INTERVAL: Duration = Duration::from_millis(100);

/// Why there is no stream.
enum Undialled {
    /// Its version has no such streams; says nothing about its health.
    Unsupported,
    Failed(String),
}

impl From<String> for Undialled {
    fn from(why: String) -> Self {
        Undialled::Failed(why)
    }
}

/// Reads for ever.
pub(crate) async fn run(link: Arc<Link>, kind: Kind) {
    loop {
        let begin = Instant::now();
        match dial(&link, kind).await {
            Ok(body) => serve(&link, kind, body).await,
            Err(Undialled::Unsupported) => {}
            Err(Undialled::Failed(why)) => link.deactivate("dial", kind.name(), why),
        }
        tokio::time::sleep_until(begin + DIAL_INTERVAL).await;
    }
}

async fn serve(link: &Link, kind: Kind, body: Incoming) {
    link.activate();
    let remote_peer_id = hex(link.id);
    let stream_reader_type = kind.name();
    tracing::info!(stream_reader_type, remote_peer_id, "established TCP streaming connection with remote peer");
    let outcome = read(link, kind, body).await;
    let error = outcome.as_ref().err().map_or("EOF", String::as_str);
    tracing::warn!(stream_reader_type, remote_peer_id, error, "lost TCP streaming connection with remote peer");
    if let Err(why) = outcome {
        link.deactivate("read", kind.name(), why);
    }
}

// ---- dialling --------------------------------------------------------------------------------------------------

async fn dial(link: &Link, kind: Kind) -> Result<Incoming, Undialled> {
    let url = link.picker.pick();
    let outcome = exchange(link, kind, &url).await;
    if outcome.is_err() {
        link.picker.unreachable(&url);
    }
    outcome
}

async fn exchange(link: &Link, kind: Kind, url: &Url) -> Result<Incoming, Undialled> {
    let mut line = Line::timed(link.shared.dialer.clone(), link.shared.timeouts);
    let response = line.ask(url, request(link, kind)?).await?;
    match serves_streams(response.headers()) {
        Some(true) => {}
        Some(false) => return Err(Undialled::Unsupported),
        None => return Err(Undialled::Failed("the peer's version is no version".to_owned())),
    }
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        _ => Err(refusal(link, response).await.into()),
    }
}

fn request(link: &Link, kind: Kind) -> Result<Request<Sending>, String> {
    let path = format!("{}/{:x}", kind.path(), link.shared.identity.member);
    let mut request = Request::new(Sending::nothing());
    *request.uri_mut() = Uri::try_from(path).map_err(|e| e.to_string())?;
    request.headers_mut().extend(link.shared.signature.clone());
    let to = HeaderValue::from_str(&hex(link.id)).map_err(|e| e.to_string())?;
    request.headers_mut().insert(super::check::RAFT_TO, to);
    Ok(request)
}

async fn refusal(link: &Link, response: Response<Incoming>) -> String {
    match response.status() {
        StatusCode::GONE => {
            link.shared.was_removed();
            "the member has been permanently removed from the cluster".to_owned()
        }
        StatusCode::NOT_FOUND => {
            format!("peer {} failed to find local node {:x}", hex(link.id), link.shared.identity.member)
        }
        StatusCode::PRECONDITION_FAILED => match whole(response.into_body(), ANSWER_MAX).await {
            Ok(body) => precondition(link, &body),
            Err(why) => why,
        },
        other => format!("unhandled http status {}", other.as_u16()),
    }
}

// ---- reading ---------------------------------------------------------------------------------------------------

enum Decoder {
    App(AppDecoder),
    Message(MessageDecoder),
}

impl Decoder {
    fn new(link: &Link, kind: Kind) -> Decoder {
        match kind {
            Kind::App => Decoder::App(AppDecoder::new(link.shared.identity.member, link.id)),
            Kind::Message => Decoder::Message(MessageDecoder::stream()),
        }
    }

    fn push(&mut self, chunk: Bytes) {
        match self {
            Decoder::App(decoder) => decoder.push(chunk),
            Decoder::Message(decoder) => decoder.push(chunk),
        }
    }

    fn next(&mut self) -> Result<Option<Frame>, Broken> {
        match self {
            Decoder::App(decoder) => decoder.next(),
            Decoder::Message(decoder) => decoder.next(),
        }
    }
}

/// Until the peer ends the stream, which is `Ok`.
async fn read(link: &Link, kind: Kind, mut body: Incoming) -> Result<(), String> {
    let mut decoder = Decoder::new(link, kind);
    while let Some(data) = chunk(&mut body).await {
        let data = data.map_err(|e| text(&e))?;
        link.meter.received_bytes.add(data.len());
        decoder.push(data);
        while let Some(frame) = decoder.next().map_err(|e| e.to_string())? {
            failpoint::point!("raftDropHeartbeat", |_v| continue);
            if let Frame::Message(message) = frame {
                deliver(link, message);
            }
        }
    }
    Ok(())
}

fn deliver(link: &Link, message: Message) {
    let (kind, from) = (message.kind, message.from);
    if let Err(why) = link.shared.admit(&message) {
        tracing::warn!(message_type = ?kind, from = %hex(from), error = why, "failed to process Raft message");
        return;
    }
    if !link.shared.local.receive(message) {
        link.meter.received_failures.up();
        tracing::debug!(
            message_type = ?kind,
            from = %hex(from),
            "dropped Raft message since receiving buffer is full (overloaded network)"
        );
    }
}
