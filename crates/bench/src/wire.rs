//! A gRPC client for load: HTTP/2 by the crate `h2`, messages framed by hand, one thread.
//!
//! A connection and all its calls stay on the thread that opened it. Windows are so large that a server is never slowed
//! down by them. An answer counts only when its `grpc-status` is 0 and it carried what the call promises.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use prost::Message;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes a server may send ahead of our reading: per stream and per connection.
const STREAM_WINDOW: u32 = 64 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Largest frame taken.
const FRAME_MAX: u32 = 1 << 20;
/// Streams opened before the server has said how many it takes.
const STREAMS_AT_FIRST: usize = 1 << 20;
/// Bytes before each gRPC message: a flag and the length.
const PREFIX: usize = 5;
/// How long a TCP connection may take where `--dial-timeout` says nothing.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server refused it.
    Status { code: u32, message: String },
    /// The connection or the stream broke.
    Transport(String),
    /// The answer is not what was asked for.
    Wrong(String),
}

impl Failure {
    /// Whether the connection is of no more use.
    pub fn is_transport(&self) -> bool {
        matches!(self, Failure::Transport(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // clientv3 shows etcd's own errors by their text alone.
            Failure::Status { message, .. } if message.starts_with("etcdserver: ") => f.write_str(message),
            Failure::Status { code, message } => write!(f, "rpc error: code = {} desc = {message}", code_name(*code)),
            Failure::Transport(text) => write!(f, "rpc error: code = Unavailable desc = {text}"),
            Failure::Wrong(text) => write!(f, "wrong answer: {text}"),
        }
    }
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Failure {
        Failure::Transport(error.to_string())
    }
}

fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(code as usize).copied().unwrap_or("Code(?)")
}

/// The calls the workloads make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rpc {
    Put,
    Range,
    RangeStream,
    Txn,
    Compact,
    DeleteRange,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    Status,
    HashKv,
    Defragment,
    Authenticate,
    Lock,
    Unlock,
}

impl Rpc {
    const ALL: [Rpc; 16] = [
        Rpc::Put,
        Rpc::Range,
        Rpc::RangeStream,
        Rpc::Txn,
        Rpc::Compact,
        Rpc::DeleteRange,
        Rpc::Watch,
        Rpc::LeaseGrant,
        Rpc::LeaseRevoke,
        Rpc::LeaseKeepAlive,
        Rpc::Status,
        Rpc::HashKv,
        Rpc::Defragment,
        Rpc::Authenticate,
        Rpc::Lock,
        Rpc::Unlock,
    ];

    fn path(self) -> &'static str {
        match self {
            Rpc::Put => "/etcdserverpb.KV/Put",
            Rpc::Range => "/etcdserverpb.KV/Range",
            Rpc::RangeStream => "/etcdserverpb.KV/RangeStream",
            Rpc::Txn => "/etcdserverpb.KV/Txn",
            Rpc::Compact => "/etcdserverpb.KV/Compact",
            Rpc::DeleteRange => "/etcdserverpb.KV/DeleteRange",
            Rpc::Watch => "/etcdserverpb.Watch/Watch",
            Rpc::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Rpc::LeaseRevoke => "/etcdserverpb.Lease/LeaseRevoke",
            Rpc::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Rpc::Status => "/etcdserverpb.Maintenance/Status",
            Rpc::HashKv => "/etcdserverpb.Maintenance/HashKV",
            Rpc::Defragment => "/etcdserverpb.Maintenance/Defragment",
            Rpc::Authenticate => "/etcdserverpb.Auth/Authenticate",
            Rpc::Lock => "/v3lockpb.Lock/Lock",
            Rpc::Unlock => "/v3lockpb.Lock/Unlock",
        }
    }
}

/// Where to connect and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// The token of `--user`.
    pub token: Option<String>,
    /// How long the TCP connection may take.
    pub dial_timeout: Duration,
    /// What the connection is secured with.
    pub secure: Option<Arc<tls::Client>>,
}

impl Target {
    /// A target without a user.
    pub fn new(address: &str) -> Target {
        let bare = address.trim_start_matches("http://").trim_start_matches("https://");
        let address = bare.trim_end_matches('/').to_owned();
        Target { address, token: None, dial_timeout: DIAL_TIMEOUT, secure: None }
    }
}

/// A connection, or one worker's handle of it: clones share the connection.
#[derive(Clone)]
pub struct Conn {
    send: SendRequest<Bytes>,
    /// A request for each [`Rpc`], in its order, made once.
    requests: std::rc::Rc<[Request<()>]>,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

impl Conn {
    /// Connects; the connection is driven by a task of the current `LocalSet`.
    pub async fn open(target: &Target) -> Result<Conn, Failure> {
        let dial = tokio::time::timeout(target.dial_timeout, TcpStream::connect(&target.address)).await;
        let broken = |error: &dyn fmt::Display| Failure::Transport(format!("dialing {}: {error}", target.address));
        let socket = dial.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
        socket.set_nodelay(true).map_err(|error| broken(&error))?;
        let send = match &target.secure {
            None => Conn::drive(socket).await?,
            Some(secure) => {
                let host = target.address.rsplit_once(':').map_or(target.address.as_str(), |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Conn::drive(secure.connect(host, socket).await.map_err(|why| broken(&why))?).await?
            }
        };
        Ok(Conn { send, requests: requests(target)? })
    }

    async fn drive<S>(stream: S) -> Result<SendRequest<Bytes>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (send, connection) = builder().handshake(stream).await?;
        tokio::task::spawn_local(async move {
            // Every call on it learns why it ended.
            let _ = connection.await;
        });
        Ok(send)
    }

    /// A call with one message each way; the answer's bytes.
    pub async fn unary(&mut self, rpc: Rpc, framed: Bytes) -> Result<Bytes, Failure> {
        let (response, mut body) = self.start(rpc).await?;
        body.send_data(framed, true)?;
        let mut messages = Messages::of(open(response).await?);
        let first = messages.next().await?;
        // The status comes after the message, so the stream must be read to its end.
        let answer = first.ok_or_else(|| Failure::Wrong("no message".to_owned()))?;
        match messages.next().await? {
            None => Ok(answer),
            Some(_) => Err(Failure::Wrong("more than one message".to_owned())),
        }
    }

    /// [`Conn::unary`] with typed messages, for all that is not measured.
    pub async fn call<Q: Message, A: Message + Default>(&mut self, rpc: Rpc, request: &Q) -> Result<A, Failure> {
        let answer = self.unary(rpc, frame(request)).await?;
        A::decode(answer).map_err(|error| Failure::Wrong(error.to_string()))
    }

    /// Opens a call that goes on.
    pub async fn stream(&mut self, rpc: Rpc) -> Result<Duplex, Failure> {
        let (response, send) = self.start(rpc).await?;
        Ok(Duplex { sender: Sender { send }, receiver: Receiver::Waiting(Box::new(response)) })
    }

    async fn start(&mut self, rpc: Rpc) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
        poll_fn(|cx| self.send.poll_ready(cx)).await?;
        Ok(self.send.send_request(self.requests[rpc as usize].clone(), false)?)
    }
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .initial_max_send_streams(STREAMS_AT_FIRST)
        .enable_push(false);
    builder
}

fn requests(target: &Target) -> Result<std::rc::Rc<[Request<()>]>, Failure> {
    Rpc::ALL.iter().map(|rpc| request(target, rpc.path())).collect()
}

fn request(target: &Target, path: &'static str) -> Result<Request<()>, Failure> {
    let bad = |error: &dyn fmt::Display| Failure::Transport(format!("{}: {error}", target.address));
    let uri = Uri::builder().scheme("http").authority(target.address.as_str()).path_and_query(path);
    let mut request = Request::builder()
        .version(Version::HTTP_2)
        .method(Method::POST)
        .uri(uri.build().map_err(|error| bad(&error))?)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(token) = &target.token {
        request = request.header("token", token.as_str());
    }
    request.body(()).map_err(|error| bad(&error))
}

/// A message with its five bytes in front.
pub fn frame<M: Message>(message: &M) -> Bytes {
    let len = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + len);
    framed.put_u8(0);
    framed.put_u32(len as u32);
    message.encode_raw(&mut framed);
    framed.freeze()
}

/// A call with many messages each way.
#[derive(Debug)]
pub struct Duplex {
    pub sender: Sender,
    pub receiver: Receiver,
}

/// The half that sends; dropping it without [`Sender::finish`] cancels the call.
#[derive(Debug)]
pub struct Sender {
    send: SendStream<Bytes>,
}

impl Sender {
    /// Sends a framed message.
    pub fn send(&mut self, framed: Bytes) -> Result<(), Failure> {
        Ok(self.send.send_data(framed, false)?)
    }

    /// Says that no more messages come.
    pub fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.send.send_data(Bytes::new(), true)?)
    }
}

/// The half that receives. A server may answer headers only with its first message.
#[derive(Debug)]
pub enum Receiver {
    Waiting(Box<ResponseFuture>),
    Open(Messages),
}

impl Receiver {
    /// The next message; `None` where the call ended well.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Receiver::Waiting(response) = self {
            *self = Receiver::Open(Messages::of(open(response).await?));
        }
        match self {
            Receiver::Open(messages) => messages.next().await,
            Receiver::Waiting(_) => Ok(None),
        }
    }
}

async fn open(
    response: impl Future<Output = Result<http::Response<RecvStream>, h2::Error>>,
) -> Result<RecvStream, Failure> {
    let response = response.await?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Transport(format!("HTTP status {}", response.status())));
    }
    if response.headers().contains_key("grpc-status") {
        // Headers and trailers in one: nothing else comes.
        status(response.headers())?;
    }
    Ok(response.into_body())
}

/// Takes the messages out of the DATA frames, which cut them anywhere.
#[derive(Debug)]
pub struct Messages {
    body: RecvStream,
    /// The chunk that is being read; most messages lie in one and are not copied.
    chunk: Bytes,
    /// A message that came in several chunks, so far.
    partial: BytesMut,
}

impl Messages {
    fn of(body: RecvStream) -> Messages {
        Messages { body, chunk: Bytes::new(), partial: BytesMut::new() }
    }

    /// The next message; `None` where the call ended with status 0.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            let Some(chunk) = self.body.data().await else {
                return self.end().await.map(|()| None);
            };
            let chunk = chunk?;
            self.body.flow_control().release_capacity(chunk.len())?;
            self.chunk = chunk;
        }
    }

    /// A whole message out of what has come; otherwise all of that is in `partial` afterwards.
    fn buffered(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.partial.is_empty()
            && let Some(len) = message_len(&self.chunk)?.filter(|len| self.chunk.len() >= PREFIX + len)
        {
            self.chunk.advance(PREFIX);
            return Ok(Some(self.chunk.split_to(len)));
        }
        self.gather(PREFIX);
        let Some(len) = message_len(&self.partial)? else {
            return Ok(None);
        };
        self.gather(PREFIX + len);
        if self.partial.len() < PREFIX + len {
            return Ok(None);
        }
        let mut message = self.partial.split().freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    /// Moves bytes from the chunk until `partial` has `wanted`.
    fn gather(&mut self, wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len()).min(self.chunk.len());
        if self.partial.capacity() < wanted {
            self.partial.reserve(wanted - self.partial.len());
        }
        self.partial.extend_from_slice(&self.chunk.split_to(missing));
    }

    async fn end(&mut self) -> Result<(), Failure> {
        if !self.partial.is_empty() {
            return Err(Failure::Wrong("a message was cut".to_owned()));
        }
        match self.body.trailers().await? {
            Some(trailers) => status(&trailers),
            None => Err(Failure::Wrong("no grpc-status".to_owned())),
        }
    }
}

fn message_len(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some((&[flag, a, b, c, d], _)) = bytes.split_first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    if flag != 0 {
        return Err(Failure::Wrong(format!("compressed message (flag {flag})")));
    }
    Ok(Some(u32::from_be_bytes([a, b, c, d]) as usize))
}

fn status(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        Some("0") => Ok(()),
        Some(code) => {
            let message = percent_decode(text("grpc-message").unwrap_or_default());
            Err(Failure::Status { code: code.parse().unwrap_or(2), message })
        }
        None => Err(Failure::Wrong("no grpc-status".to_owned())),
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_as_clientv3_shows_them() {
        let refused = |code, message: &str| Failure::Status { code, message: message.to_owned() }.to_string();
        assert_eq!(
            refused(8, "etcdserver: mvcc: database space exceeded"),
            "etcdserver: mvcc: database space exceeded"
        );
        assert_eq!(refused(14, "bye"), "rpc error: code = Unavailable desc = bye");
        assert_eq!(percent_decode("a%20b%c3%a4 100%"), "a bä 100%");
    }

    #[test]
    fn requests_stand_in_the_order_of_the_calls() {
        for (place, rpc) in Rpc::ALL.iter().enumerate() {
            assert_eq!(*rpc as usize, place);
        }
    }

    #[test]
    fn a_frame_is_a_flag_a_length_and_the_message() {
        let framed = frame(&api::pb::etcdserverpb::RangeRequest { key: "k".into(), ..Default::default() });
        assert_eq!(framed[..], [0, 0, 0, 0, 3, 0x0a, 1, b'k']);
        assert_eq!(message_len(&framed), Ok(Some(3)));
        assert_eq!(message_len(&framed[..4]), Ok(None));
    }
}
