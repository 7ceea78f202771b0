//! HTTP/1.1 as a client: one connection at a time, kept for the next request where that is safe.
//!
//! Never ALPN `h2`: a Go member's peer port offers it and can't speak it.

use super::io::{Connector, Timed, Turn};
use super::transport::Timeouts;
use super::url::Url;
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long an idle connection is kept. The other side closes it after 5 s.
const KEPT: Duration = Duration::from_secs(4);
/// Bytes of an answer that is a text or a small value.
pub(crate) const ANSWER_MAX: usize = 1 << 20;

/// What a request carries.
pub(crate) enum Sending {
    /// `None` once it was taken.
    Whole(Option<Bytes>),
    /// Pieces as they come. An error ends the connection, so that the other side sees a cut body.
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
}

impl Sending {
    pub fn nothing() -> Sending {
        Sending::Whole(None)
    }

    pub fn whole(bytes: impl Into<Bytes>) -> Sending {
        Sending::Whole(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Sending::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Sending::Pieces(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Sending::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Sending::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Sending::Pieces(_) => SizeHint::new(),
        }
    }
}

/// How connections are made.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub connector: Arc<dyn Connector>,
    /// For a connection, TLS included.
    pub timeout: Duration,
}

/// At most one connection to a peer.
pub(crate) struct Line {
    dialer: Dialer,
    read: Option<Duration>,
    write: Option<Duration>,
    kept: Option<Kept>,
}

struct Kept {
    url: Url,
    sender: SendRequest<Sending>,
    since: Instant,
}

impl Line {
    /// With deadlines for each read and write, where given.
    pub fn new(dialer: Dialer, read: Option<Duration>, write: Option<Duration>) -> Line {
        Line { dialer, read, write, kept: None }
    }

    /// With both.
    pub fn timed(dialer: Dialer, timeouts: Timeouts) -> Line {
        Line::new(dialer, Some(timeouts.read), Some(timeouts.write))
    }

    /// Sends a request and waits for the head of its answer. A connection that was kept and turns out to be closed is
    /// replaced, if nothing of the request has left.
    ///
    /// # Errors
    /// A text for the log.
    pub async fn ask(&mut self, url: &Url, mut request: Request<Sending>) -> Result<Response<Incoming>, String> {
        let host = HeaderValue::from_str(&url.host).map_err(|e| e.to_string())?;
        request.headers_mut().insert(HOST, host);
        if let Some(mut sender) = self.reusable(url).await {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.keep(url, sender, response)),
                Err(mut e) => match e.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(text(e.error())),
                },
            }
        }
        let mut sender = self.dial(url).await?;
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        Ok(self.keep(url, sender, response))
    }

    /// The connection of the last request, when its answer was read.
    async fn reusable(&mut self, url: &Url) -> Option<SendRequest<Sending>> {
        let mut kept = self.kept.take().filter(|kept| kept.url == *url && kept.since.elapsed() < KEPT)?;
        kept.sender.ready().await.ok()?;
        Some(kept.sender)
    }

    fn keep(&mut self, url: &Url, sender: SendRequest<Sending>, response: Response<Incoming>) -> Response<Incoming> {
        self.kept = Some(Kept { url: url.clone(), sender, since: Instant::now() });
        response
    }

    async fn dial(&self, url: &Url) -> Result<SendRequest<Sending>, String> {
        let connecting = timeout(self.dialer.timeout, self.dialer.connector.connect(url));
        let io = match connecting.await {
            Ok(Ok(io)) => io,
            Ok(Err(e)) => return Err(format!("dial {url}: {e}")),
            Err(_) => return Err(format!("dial {url}: i/o timeout")),
        };
        let io = TokioIo::new(Timed::new(io, Turn::default(), self.read, self.write));
        let (sender, connection) =
            http1::Builder::new().title_case_headers(true).handshake(io).await.map_err(|e| text(&e))?;
        // It ends with the sender and the bodies.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The next request gets a connection of its own.
    pub fn close(&mut self) {
        self.kept = None;
    }
}

/// An error with its cause.
pub(crate) fn text(e: &hyper::Error) -> String {
    match std::error::Error::source(e) {
        Some(cause) => format!("{e}: {cause}"),
        None => e.to_string(),
    }
}

/// The next data of a body; `None` at its end.
pub(crate) async fn chunk(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            // Trailers.
            Ok(Err(_)) => {}
            Err(e) => return Some(Err(e)),
        }
    }
}

/// All of an answer, up to `max` bytes.
///
/// # Errors
/// It is longer, or was cut.
pub(crate) async fn whole(mut body: Incoming, max: usize) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    while let Some(data) = chunk(&mut body).await {
        let data = data.map_err(|e| text(&e))?;
        if data.len() > max - all.len() {
            return Err(format!("response body exceeds {max} bytes limit"));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
