//! `POST /raft`, one message a request: what there is while streams are not (rafthttp `pipeline.go`).

use super::check::{CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION};
use super::http::{ANSWER_MAX, Line, Sending, whole};
use super::link::Link;
use super::url::Url;
use api::raft::{Message, MessageType};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

/// Messages that wait for a connection. Full: the message is dropped and reported (etcd `pipelineBufSize`).
pub(crate) const QUEUE: usize = 64;
/// Requests at a time (etcd `connPerPipeline`).
const CONNECTIONS: usize = 4;
/// How long an answer may take. etcd waits for ever; a proposal that finds no leader at the other side would hold a
/// connection as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a POST failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// 403: this member was removed from the cluster.
    Removed,
    Other(String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failed::Removed => f.write_str("the member has been permanently removed from the cluster"),
            Failed::Other(why) => f.write_str(why),
        }
    }
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Failed::Other(why)
    }
}

/// The tasks of a pipeline; they end when they are aborted.
pub(crate) fn start(link: &Arc<Link>, queue: mpsc::Receiver<Message>) -> Vec<impl Future<Output = ()> + use<>> {
    let queue = Arc::new(Mutex::new(queue));
    (0..CONNECTIONS).map(|_| work(link.clone(), queue.clone())).collect()
}

async fn work(link: Arc<Link>, queue: Arc<Mutex<mpsc::Receiver<Message>>>) {
    let mut line = Line::new(link.shared.dialer.clone(), None, None);
    loop {
        let Some(message) = queue.lock().await.recv().await else { return };
        let url = link.picker.pick();
        match post(&link, &mut line, &url, &message).await {
            Ok(bytes) => sent(&link, &message, bytes),
            Err(why) => failed(&link, &url, &message, &why),
        }
    }
}

fn sent(link: &Link, message: &Message, bytes: usize) {
    link.activate();
    link.meter.sent_bytes.add(bytes);
    if message.kind == MessageType::MsgSnap {
        link.shared.local.report_snapshot(message.to, true);
    }
}

fn failed(link: &Link, url: &Url, message: &Message, why: &Failed) {
    link.picker.unreachable(url);
    if *why == Failed::Removed {
        link.shared.was_removed();
    }
    link.deactivate("write", "pipeline", why);
    link.meter.sent_failures.up();
    link.shared.local.report_unreachable(message.to);
    if message.kind == MessageType::MsgSnap {
        link.shared.local.report_snapshot(message.to, false);
    }
}

/// Answers the bytes sent.
async fn post(link: &Link, line: &mut Line, url: &Url, message: &Message) -> Result<usize, Failed> {
    let body = Bytes::from(message.encode());
    let len = body.len();
    let request = request(link, "/raft", "application/protobuf", Sending::whole(body));
    let exchange = async {
        let response = line.ask(url, request).await?;
        verdict(link, url, response).await
    };
    match timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(outcome) => outcome.map(|()| len),
        Err(_) => {
            line.close();
            Err(Failed::Other(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
        }
    }
}

/// A POST as peers send it.
pub(crate) fn request(link: &Link, path: &'static str, content_type: &'static str, body: Sending) -> Request<Sending> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().extend(link.shared.signature.clone());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    request
}

/// What the answer to a POST means (rafthttp `checkPostResponse`).
pub(crate) async fn verdict(link: &Link, url: &Url, response: Response<Incoming>) -> Result<(), Failed> {
    let status = response.status();
    let body = whole(response.into_body(), ANSWER_MAX).await?;
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        StatusCode::FORBIDDEN => Err(Failed::Removed),
        StatusCode::PRECONDITION_FAILED => Err(Failed::Other(precondition(link, &body))),
        other => Err(Failed::Other(format!("unexpected http status {other} while posting to {url}"))),
    }
}

/// What a 412 says.
pub(crate) fn precondition(link: &Link, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_end_matches('\n');
    let known = text == INCOMPATIBLE_VERSION || text == CLUSTER_ID_MISMATCH;
    if !known {
        return format!("unhandled error {text:?} when precondition failed");
    }
    let id = super::check::hex(link.id);
    tracing::debug!(remote_peer_id = %id, error = text, "request sent was ignored by remote peer");
    text.to_owned()
}
