//! The peer port: connections, paths, bodies (rafthttp `http.go`, etcd `etcdhttp/peer.go`). HTTP/1 only.
//!
//! ```text
//! accept ─► handshake ─► hyper ─► Visit::answer ─┬─ /raft, /raft/snapshot      receive
//!                        (5 s of silence: closed)├─ /raft/stream/…             streams, whose body we write to
//!                                                └─ the rest                   endpoints
//! ```
//! Invariant: 403 and 410 kill the process that asked. They are for members that were removed, and for messages to
//! another member; never for "unknown" or "not ready".

use super::check::{CLUSTER_ID, PEER_URLS, Refusal, SERVER_FROM, compatible, parse_hex};
use super::endpoints::PROMOTE;
use super::http::chunk;
use super::io::{Acceptor, BoxedIo, OurTurn, Timed, Turn, set_up};
use super::stream::Outgoing;
use super::transport::{Shared, Timeouts};
use super::url::Url;
use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Connections at a time of one listener. Further ones wait in the kernel. A peer has about ten.
const CONNECTIONS_MAX: usize = 1024;
/// For a TLS handshake (etcd's limit).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_BREATH: Duration = Duration::from_millis(50);
/// Bytes of requests that are being read, of all connections together. Past it: `error reading raft message`.
const BODIES_MAX: usize = 1 << 30;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The connection is closed without an answer, as when a handler of Go panics.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a request that can't be answered")
    }
}
impl std::error::Error for Cut {}

/// Where peers connect.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(BoxedIo, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                set_up(&stream)?;
                Ok((Box::new(stream), Some(remote)))
            }
            Listener::Unix(listener) => Ok((Box::new(listener.accept().await?.0), None)),
        }
    }
}

/// Accepts for ever.
pub(crate) async fn listen(shared: Arc<Shared>, listener: Listener, acceptor: Arc<dyn Acceptor>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((raw, remote)) => {
                tokio::spawn(connection(shared.clone(), acceptor.clone(), raw, remote, slot));
            }
            Err(e) => {
                tracing::warn!(error = %e, "failed to accept a peer connection");
                tokio::time::sleep(ACCEPT_BREATH).await;
            }
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    acceptor: Arc<dyn Acceptor>,
    raw: BoxedIo,
    remote: Option<SocketAddr>,
    slot: OwnedSemaphorePermit,
) {
    let from = remote.map_or_else(|| "unix".to_owned(), |address| address.to_string());
    let outcome = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(raw, remote)).await {
        Ok(Ok(io)) => serve(shared, io).await,
        Ok(Err(e)) => {
            match e.get_ref().and_then(|inner| inner.downcast_ref::<tls::Rejected>()) {
                Some(rejected) => rejected.log("peer", &from),
                None => tracing::warn!("remote-addr" = from, error = %e, "rejected connection on peer endpoint"),
            }
            return;
        }
        Err(_) => Err("handshake timed out".to_owned()),
    };
    if let Err(why) = outcome {
        tracing::debug!(remote_addr = from, error = why, "peer connection ended");
    }
    drop(slot);
}

/// Serves one connection to its end.
pub(crate) async fn serve(shared: Arc<Shared>, io: BoxedIo) -> Result<(), String> {
    let turn = Turn::default();
    let Timeouts { read, write } = shared.timeouts;
    let io = TokioIo::new(Timed::new(io, turn.clone(), Some(read), Some(write)));
    let service =
        service_fn(move |request| Visit { shared: shared.clone(), turn: turn.clone(), ours: None }.answer(request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read)
        .title_case_headers(true)
        .serve_connection(io, service)
        .await
        .map_err(|e| super::http::text(&e))
}

// ---- requests --------------------------------------------------------------------------------------------------

/// One request.
pub(crate) struct Visit {
    pub shared: Arc<Shared>,
    turn: Turn,
    /// Once the request is read.
    ours: Option<OurTurn>,
}

impl Visit {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Answer, Cut> {
        if request.body().is_end_stream() {
            self.begin_turn();
        }
        let answer = self.dispatch(request).await?;
        let turn = self.ours.take();
        Ok(answer.map(|body| Body { _turn: turn, ..body }))
    }

    async fn dispatch(&mut self, request: Request<Incoming>) -> Result<Answer, Cut> {
        Ok(match request.uri().path() {
            "/raft" => return self.message(request).await,
            "/raft/snapshot" => return self.snapshot(request).await,
            "/raft/probing" => {
                let now = super::probe::answer(jiff::Timestamp::now());
                plain(StatusCode::OK, TEXT, now)
            }
            path if path.starts_with("/raft/stream/") => return self.stream(&request),
            "/members" => self.members(&request),
            "/members/hashkv" => self.hash_kv(request).await,
            path if path.starts_with(PROMOTE) => self.promote(&request).await,
            "/leases" => return self.lease_renewal(request).await,
            "/leases/internal" => return self.lease_lookup(request).await,
            "/downgrade/enabled" => self.downgrade_enabled(&request).await,
            "/version" => self.version(&request),
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        })
    }

    /// The request is read: silence is ours from here to the end of the answer.
    pub(crate) fn begin_turn(&mut self) {
        self.ours = Some(self.turn.ours());
    }

    /// Checks 1 and 2 of section 2.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Option<Answer>, Cut> {
        match compatible(headers, &self.shared.cluster) {
            Ok(()) => Ok(None),
            Err(Refusal::Precondition(text)) => Ok(Some(error(StatusCode::PRECONDITION_FAILED, text))),
            Err(Refusal::NoVersion) => Err(Cut),
        }
    }

    /// Check 3: a sender that our log doesn't know yet is answered where it says.
    pub(crate) fn remember(&self, headers: &HeaderMap) -> Result<(), Cut> {
        let from = headers.get(SERVER_FROM).and_then(|v| parse_hex(v.to_str().ok()?));
        let urls = headers.get(PEER_URLS).filter(|urls| !urls.is_empty());
        if let (Some(from), Some(urls)) = (from, urls) {
            let urls = urls.to_str().map_err(|_| Cut)?;
            let urls = Url::parse_list(urls.split(',')).map_err(|_| Cut)?;
            self.shared.add_remote(from, urls);
        }
        Ok(())
    }

    /// With our cluster's id, where etcd says it.
    pub(crate) fn signed(&self, mut answer: Answer) -> Answer {
        answer.headers_mut().insert(CLUSTER_ID, self.shared.cluster.clone());
        answer
    }

    /// All of a request's body.
    pub(crate) async fn read(&mut self, mut body: Incoming, max: usize) -> Result<Bytes, Unread> {
        let mut held = self.shared.bodies.hold();
        let mut all = BytesMut::new();
        while let Some(data) = chunk(&mut body).await {
            let data = data.map_err(|e| Unread::Cut(super::http::text(&e)))?;
            if data.len() > max - all.len() || !held.more(data.len()) {
                return Err(Unread::TooLong);
            }
            all.extend_from_slice(&data);
        }
        self.begin_turn();
        Ok(all.freeze())
    }
}

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum Unread {
    TooLong,
    Cut(String),
}

/// Bytes of bodies that are being read.
#[derive(Debug, Default)]
pub(crate) struct Bodies(Arc<AtomicUsize>);

/// One body's part; dropped, it gives its room back.
struct Held {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Bodies {
    fn hold(&self) -> Held {
        Held { all: self.0.clone(), bytes: 0 }
    }
}

impl Held {
    /// Whether there is room.
    fn more(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        self.all.fetch_add(bytes, Ordering::Relaxed) + bytes <= BODIES_MAX
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

// ---- answers ---------------------------------------------------------------------------------------------------

pub(crate) type Answer = Response<Body>;

/// A response's body.
pub(crate) struct Body {
    content: Content,
    /// Held until the last byte.
    _turn: Option<OurTurn>,
}

enum Content {
    /// `None` once it was taken.
    Whole(Option<Bytes>),
    Stream(Box<Outgoing>),
}

impl Body {
    pub fn stream(stream: Outgoing) -> Body {
        Body { content: Content::Stream(Box::new(stream)), _turn: None }
    }

    fn whole(bytes: Bytes) -> Body {
        Body { content: Content::Whole(Some(bytes).filter(|b| !b.is_empty())), _turn: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream(stream) => stream.poll_bytes(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Stream(_) => SizeHint::new(),
        }
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

pub(crate) fn plain(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let mut answer = empty(status).map(|_| Body::whole(body.into()));
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// What Go's `http.Error` writes.
pub(crate) fn error(status: StatusCode, text: &str) -> Answer {
    let mut answer = plain(status, TEXT, format!("{text}\n"));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

pub(crate) fn not_allowed(allow: Option<&'static str>) -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Some(allow) = allow {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    answer
}
