//! What raft gets by POST, database images, and the streams that peers open (rafthttp `pipelineHandler`,
//! `snapshotHandler`, `streamHandler`).

use super::check::{RAFT_TO, SERVER_VERSION, hex, parse_hex};
use super::codec::{Frame, MESSAGE_MAX, MessageDecoder};
use super::http::{chunk, text};
use super::local::ImageSink;
use super::metrics::Meter;
use super::serve::{Answer, Body, Cut, Unread, Visit, empty, error, not_allowed, plain};
use super::stream::{Kind, Outgoing};
use api::raft::{Message, MessageType};
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Database images received at a time. A further one is refused: its sender tries again.
pub(crate) const IMAGES_MAX: usize = 4;
/// Pieces of an image that wait for the disk; then the sender waits.
const PIECES: usize = 16;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where senders are counted that are not known.
const UNKNOWN: u64 = 0;

impl Visit {
    // ---- POST /raft ----------------------------------------------------------------------------------------------

    pub(crate) async fn message(&mut self, request: Request<Incoming>) -> Result<Answer, Cut> {
        if request.method() != Method::POST {
            return Ok(not_allowed(Some("POST")));
        }
        if let Some(refused) = self.check(request.headers())? {
            return Ok(self.signed(refused));
        }
        self.remember(request.headers())?;
        let message = match self.decoded(request.into_body()).await {
            Ok(message) => message,
            Err(why) => {
                self.shared.meters.of(UNKNOWN).received_failures.up();
                return Ok(self.signed(error(StatusCode::BAD_REQUEST, why)));
            }
        };
        let answer = match self.process(message).await {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(Unprocessed::Forbidden(answer)) => answer,
            Err(Unprocessed::Failed(_)) => {
                closing(error(StatusCode::INTERNAL_SERVER_ERROR, "error processing raft message"))
            }
        };
        Ok(self.signed(answer))
    }

    async fn decoded(&mut self, body: Incoming) -> Result<Message, &'static str> {
        let max = usize::try_from(MESSAGE_MAX).unwrap_or(usize::MAX);
        let body = self.read(body, max).await.map_err(|why| {
            if let Unread::Cut(error) = why {
                tracing::warn!(error, "failed to read Raft message");
            }
            "error reading raft message"
        })?;
        let len = body.len();
        let message = Message::decode(body).map_err(|e| {
            tracing::warn!(error = %e, "failed to unmarshal Raft message");
            "error unmarshalling raft message"
        })?;
        self.shared.meters.of(message.from).received_bytes.add(len);
        Ok(message)
    }

    async fn process(&self, message: Message) -> Result<(), Unprocessed> {
        if let Err(why) = self.shared.admit(&message) {
            let text = format!(r#"{{"message":"{why}"}}"#);
            return Err(Unprocessed::Forbidden(plain(StatusCode::FORBIDDEN, JSON, text)));
        }
        let outcome = self.shared.local.process(message).await;
        let outcome = outcome.unwrap_or_else(|_| Err(api::Error::Stopped.message().to_owned()));
        outcome.map_err(|error| {
            tracing::warn!(error, "failed to process Raft message");
            Unprocessed::Failed(error)
        })
    }

    // ---- POST /raft/snapshot -------------------------------------------------------------------------------------

    pub(crate) async fn snapshot(&mut self, request: Request<Incoming>) -> Result<Answer, Cut> {
        if request.method() != Method::POST {
            self.shared.meters.of(UNKNOWN).snapshot_receive_failures.up();
            return Ok(not_allowed(Some("POST")));
        }
        if let Some(refused) = self.check(request.headers())? {
            self.shared.meters.of(UNKNOWN).snapshot_receive_failures.up();
            return Ok(self.signed(refused));
        }
        self.remember(request.headers())?;
        let answer = self.image(request.into_body()).await;
        Ok(self.signed(answer))
    }

    async fn image(&mut self, mut body: Incoming) -> Answer {
        let begin = Instant::now();
        let (message, rest) = match head(&mut body).await {
            Ok(head) => head,
            Err(why) => {
                tracing::warn!(error = why, "failed to decode Raft message");
                let unknown = self.shared.meters.of(UNKNOWN);
                unknown.received_failures.up();
                unknown.snapshot_receive_failures.up();
                return error(StatusCode::BAD_REQUEST, &format!("failed to decode raft message ({why})"));
            }
        };
        let meter = self.shared.meters.of(message.from);
        let outcome = self.stored(message, rest, body, &meter).await;
        match outcome {
            Ok(()) => {
                meter.snapshot_received.up();
                meter.snapshot_receive_time.observe(begin.elapsed());
                empty(StatusCode::NO_CONTENT)
            }
            Err(answer) => {
                meter.snapshot_receive_failures.up();
                answer
            }
        }
    }

    /// Stores the image, then gives the message to raft.
    async fn stored(
        &mut self,
        message: Message,
        rest: Bytes,
        body: Incoming,
        meter: &Arc<Meter>,
    ) -> Result<(), Answer> {
        if message.kind != MessageType::MsgSnap {
            return Err(error(StatusCode::BAD_REQUEST, "wrong raft message type"));
        }
        let Some(index) = message.snapshot.as_ref().map(|s| s.metadata.index) else {
            // Go's handler panics of it.
            return Err(error(StatusCode::BAD_REQUEST, "failed to decode raft message (no snapshot)"));
        };
        let _receiving = Receiving::begin(meter);
        let from = hex(message.from);
        tracing::info!(
            remote_snapshot_sender_id = from,
            incoming_snapshot_index = index,
            "receiving database snapshot"
        );
        let bytes = self.save(&message, rest, body, meter).await.map_err(|why| {
            tracing::warn!(
                remote_snapshot_sender_id = from,
                incoming_snapshot_index = index,
                error = why,
                "failed to save incoming database snapshot"
            );
            error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to save KV snapshot ({why})"))
        })?;
        tracing::info!(
            remote_snapshot_sender_id = from,
            incoming_snapshot_index = index,
            incoming_snapshot_size_bytes = bytes,
            "received and saved database snapshot"
        );
        self.process(message).await.map_err(|why| match why {
            Unprocessed::Forbidden(answer) => answer,
            Unprocessed::Failed(why) => {
                error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed to process raft message ({why})"))
            }
        })
    }

    /// Moves the image from the network to a thread that may block. Answers its bytes.
    async fn save(&mut self, message: &Message, rest: Bytes, body: Incoming, meter: &Meter) -> Result<u64, String> {
        let slot = self.shared.images.clone().try_acquire_owned().map_err(|_| "too many snapshots at a time")?;
        let (pieces, arriving) = mpsc::channel(PIECES);
        let (local, message) = (self.shared.local.clone(), message.clone());
        let storing = tokio::task::spawn_blocking(move || {
            let sink = local.receive_image(&message).map_err(|e| e.to_string())?;
            let outcome = store(sink, arriving);
            drop(slot);
            outcome
        });
        let fed = forward(rest, body, &pieces, meter).await;
        drop(pieces);
        if fed.is_ok() {
            self.begin_turn();
        }
        let stored = storing.await.unwrap_or_else(|e| Err(e.to_string()));
        match fed {
            Err(Unfed::Body(why)) => Err(why),
            Err(Unfed::Sink) => stored.and(Err("the image was not taken".to_owned())),
            Ok(bytes) => stored.map(|()| bytes),
        }
    }

    // ---- GET /raft/stream ----------------------------------------------------------------------------------------

    pub(crate) fn stream(&self, request: &Request<Incoming>) -> Result<Answer, Cut> {
        if request.method() != Method::GET {
            return Ok(not_allowed(Some("GET")));
        }
        let mut answer = match self.check(request.headers())? {
            Some(refused) => refused,
            None => self.attached(request.uri().path(), request.headers())?,
        };
        answer.headers_mut().insert(SERVER_VERSION, HeaderValue::from_static(api::version::SERVER));
        Ok(self.signed(answer))
    }

    fn attached(&self, path: &str, headers: &HeaderMap) -> Result<Answer, Cut> {
        let (folder, from) = path.rsplit_once('/').unwrap_or_default();
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.path() == folder) else {
            return Ok(error(StatusCode::NOT_FOUND, "invalid path"));
        };
        let Some(from) = parse_hex(from) else {
            return Ok(error(StatusCode::NOT_FOUND, "invalid from"));
        };
        if self.shared.local.removed(from) {
            tracing::warn!(remote_peer_id_from = %hex(from), "rejected stream from remote peer because it was removed");
            return Ok(error(StatusCode::GONE, "removed member"));
        }
        let Some(peer) = self.shared.peer(from) else {
            self.remember_caller(from, headers)?;
            tracing::warn!(remote_peer_id_from = %hex(from), "failed to find remote peer in cluster");
            return Ok(error(StatusCode::NOT_FOUND, "error sender not found"));
        };
        let own = hex(self.shared.identity.member);
        if headers.get(RAFT_TO).is_none_or(|to| to.as_bytes() != own.as_bytes()) {
            tracing::warn!(remote_peer_id_from = %hex(from), "ignored streaming request; ID mismatch");
            return Ok(error(StatusCode::PRECONDITION_FAILED, "to field mismatch"));
        }
        let stream = Outgoing::attach(peer.link.clone(), kind, peer.writer(kind).clone());
        Ok(Response::new(Body::stream(stream)))
    }

    /// A stream's caller is known by its path.
    fn remember_caller(&self, from: u64, headers: &HeaderMap) -> Result<(), Cut> {
        let mut headers = headers.clone();
        let from = HeaderValue::from_str(&hex(from)).map_err(|_| Cut)?;
        headers.insert(super::check::SERVER_FROM, from);
        self.remember(&headers)
    }
}

enum Unprocessed {
    Forbidden(Answer),
    Failed(String),
}

fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Reads the message before an image, and what came with it.
async fn head(body: &mut Incoming) -> Result<(Message, Bytes), String> {
    let mut decoder = MessageDecoder::snapshot();
    loop {
        match decoder.next().map_err(|e| e.to_string())? {
            Some(Frame::Message(message)) => return Ok((message, decoder.into_rest())),
            // Not a MsgSnap, as the next check says.
            Some(Frame::LinkHeartbeat) => {
                return Ok((Message { kind: MessageType::MsgHeartbeat, ..Message::default() }, Bytes::new()));
            }
            None => {}
        }
        match chunk(body).await {
            Some(Ok(data)) => decoder.push(data),
            Some(Err(e)) => return Err(text(&e)),
            None if decoder.is_within() => return Err("unexpected EOF".to_owned()),
            None => return Err("EOF".to_owned()),
        }
    }
}

/// Why an image did not reach its sink.
enum Unfed {
    /// It was cut on its way.
    Body(String),
    /// The sink gave up, and says why.
    Sink,
}

/// Moves pieces and the end. Answers the bytes.
async fn forward(
    rest: Bytes,
    mut body: Incoming,
    pieces: &mpsc::Sender<Option<Bytes>>,
    meter: &Meter,
) -> Result<u64, Unfed> {
    let mut bytes = 0;
    let mut piece = rest;
    loop {
        bytes += piece.len() as u64;
        meter.received_bytes.add(piece.len());
        pieces.send(Some(piece)).await.map_err(|_| Unfed::Sink)?;
        piece = match chunk(&mut body).await {
            Some(data) => data.map_err(|e| Unfed::Body(text(&e)))?,
            None => break,
        };
    }
    pieces.send(None).await.map_err(|_| Unfed::Sink)?;
    Ok(bytes)
}

/// On a thread of its own: pieces, then `None` for the end. A channel that closes before was cut.
fn store(mut sink: Box<dyn ImageSink>, mut arriving: mpsc::Receiver<Option<Bytes>>) -> Result<(), String> {
    loop {
        match arriving.blocking_recv() {
            Some(Some(piece)) => {
                if let Err(e) = sink.write(&piece) {
                    sink.abandon();
                    return Err(e.to_string());
                }
            }
            Some(None) => return sink.finish().map_err(|e| e.to_string()),
            None => {
                sink.abandon();
                return Err("unexpected EOF".to_owned());
            }
        }
    }
}

/// Counts an image while it arrives.
struct Receiving(Arc<Meter>);

impl Receiving {
    fn begin(meter: &Arc<Meter>) -> Receiving {
        meter.snapshot_receiving.up();
        Receiving(meter.clone())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.snapshot_receiving.down();
    }
}
