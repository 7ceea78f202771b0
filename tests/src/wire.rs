//! A gRPC client without stubs: the path is a string, the messages are bytes.
//!
//! What a server says about malformed, unknown or oversize requests is under test too, so nothing here may
//! refuse a request first.

use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long an answer may take; past it the record shows [`silence`].
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How long a [`Wire::steady`] asks again.
const STEADFASTNESS: Duration = Duration::from_secs(120);
/// Between two of its questions.
const BREATH: Duration = Duration::from_millis(20);

/// One connection to one server.
#[derive(Clone, Debug)]
pub struct Wire {
    channel: Channel,
    /// For one answer.
    patience: Duration,
    /// For asking again where the cluster's state was why there is no answer.
    steadfastness: Duration,
}

/// What goes with a request besides its message.
pub type Metadata<'a> = &'a [(&'static str, &'a str)];

impl Wire {
    /// Connects to `http://host:port`.
    pub async fn connect(url: &str) -> Wire {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("the harness makes valid URLs");
        let channel = endpoint.connect().await.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"));
        Wire { channel, patience: PATIENCE, steadfastness: Duration::ZERO }
    }

    /// A connection that asks again while leaders change: for members of clusters, where that is not what the test is
    /// about. On a machine whose disk or cores stall for an election timeout, leaders change at any moment. An answer
    /// that was lost is asked for again too, so the request may be carried out twice.
    pub fn steady(url: &str) -> Wire {
        Wire { steadfastness: STEADFASTNESS, ..Wire::lazy(url, PATIENCE) }
    }

    /// A connection that is made when it is needed, and again after it broke. An answer may take `patience`.
    pub fn lazy(url: &str, patience: Duration) -> Wire {
        let endpoint = Endpoint::from_shared(url.to_owned()).expect("the harness makes valid URLs");
        Wire { channel: endpoint.connect_timeout(patience).connect_lazy(), patience, steadfastness: Duration::ZERO }
    }

    /// A unary call.
    pub async fn unary<Q: Message, A: Message + Default>(&self, path: &'static str, request: &Q) -> Result<A, Status> {
        decode(self.bytes(path, request.encode_to_vec().into(), &[]).await?)
    }

    /// A unary call with raw bytes and metadata.
    pub async fn bytes(&self, path: &'static str, request: Bytes, metadata: Metadata<'_>) -> Result<Bytes, Status> {
        let end = Instant::now() + self.steadfastness;
        loop {
            match self.once(path, request.clone(), metadata).await {
                Err(status) if between_leaders(&status) && Instant::now() < end => tokio::time::sleep(BREATH).await,
                told => return told,
            }
        }
    }

    async fn once(&self, path: &'static str, request: Bytes, metadata: Metadata<'_>) -> Result<Bytes, Status> {
        let mut grpc = self.grpc();
        let call = async {
            grpc.ready().await.map_err(|error| Status::unavailable(format!("not ready: {error}")))?;
            grpc.unary(with_metadata(request, metadata), path_of(path), RawCodec).await
        };
        tokio::time::timeout(self.patience, call)
            .await
            .unwrap_or_else(|_| Err(silence()))
            .map(|reply| reply.into_inner())
    }

    /// Opens a stream in both directions and lets its first message be `first`; works for server streams too.
    pub fn stream(&self, path: &'static str, first: Bytes, metadata: Metadata<'_>) -> Stream {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let (answers, incoming) = mpsc::unbounded_channel();
        requests.send(first).expect("the receiver is held here");
        let request = with_metadata(UnboundedReceiverStream::new(outgoing), metadata);
        tokio::spawn(pump(self.grpc(), request, path, answers));
        Stream { requests: Some(requests), incoming }
    }

    /// All messages of a server stream, and how it ended.
    pub async fn collect<Q: Message, A: Message + Default>(
        &self,
        path: &'static str,
        request: &Q,
    ) -> (Vec<A>, Result<(), Status>) {
        let mut stream = self.stream(path, request.encode_to_vec().into(), &[]);
        stream.half_close();
        let mut all = Vec::new();
        loop {
            match stream.next().await {
                Ok(Some(message)) => all.push(message),
                Ok(None) => return (all, Ok(())),
                Err(status) => return (all, Err(status)),
            }
        }
    }

    fn grpc(&self) -> tonic::client::Grpc<Channel> {
        tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

/// There is no answer since there was no leader, or since it changed.
fn between_leaders(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => status.message() != "etcdserver: rpc not supported for learner",
        Code::DeadlineExceeded => true,
        // Go's leader that is about to hand over says it so.
        Code::Unknown => status.message().contains("raft proposal dropped"),
        _ => false,
    }
}

/// What stands in a record where a server did not answer in time.
pub fn silence() -> Status {
    Status::new(Code::DeadlineExceeded, "(no answer within the test's patience)")
}

/// A stream; its messages are read by a task of its own, so a server is never slowed down by the test.
#[derive(Debug)]
pub struct Stream {
    requests: Option<mpsc::UnboundedSender<Bytes>>,
    incoming: mpsc::UnboundedReceiver<Result<Bytes, Status>>,
}

impl Stream {
    /// Sends a message; nothing happens on a half-closed or ended stream.
    pub fn send<Q: Message>(&self, request: &Q) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request.encode_to_vec().into());
        }
    }

    /// Says that no more requests come.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next message; `None` where the stream ended well; [`silence`] where nothing came.
    pub async fn next<A: Message + Default>(&mut self) -> Result<Option<A>, Status> {
        self.next_within(PATIENCE).await
    }

    /// [`Stream::next`] with another patience.
    pub async fn next_within<A: Message + Default>(&mut self, patience: Duration) -> Result<Option<A>, Status> {
        match tokio::time::timeout(patience, self.incoming.recv()).await {
            Ok(Some(Ok(bytes))) => decode(bytes).map(Some),
            Ok(Some(Err(status))) => Err(status),
            Ok(None) => Ok(None),
            Err(_) => Err(silence()),
        }
    }
}

type Answers = mpsc::UnboundedSender<Result<Bytes, Status>>;

async fn pump(
    mut grpc: tonic::client::Grpc<Channel>,
    request: Request<UnboundedReceiverStream<Bytes>>,
    path: &'static str,
    answers: Answers,
) {
    if let Err(error) = grpc.ready().await {
        let _ = answers.send(Err(Status::unavailable(format!("not ready: {error}"))));
        return;
    }
    match grpc.streaming(request, path_of(path), RawCodec).await {
        Ok(reply) => forward(reply.into_inner(), &answers).await,
        Err(status) => {
            let _ = answers.send(Err(status));
        }
    }
}

/// Passes messages on until the stream or the test is done; dropping the stream cancels it at the server.
async fn forward(mut stream: tonic::Streaming<Bytes>, answers: &Answers) {
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            () = answers.closed() => return,
        };
        let last = match message {
            Ok(Some(bytes)) => answers.send(Ok(bytes)).is_err(),
            Ok(None) => true,
            Err(status) => {
                // A test that is done does not listen any more.
                drop(answers.send(Err(status)));
                true
            }
        };
        if last {
            return;
        }
    }
}

fn decode<A: Message + Default>(bytes: Bytes) -> Result<A, Status> {
    A::decode(bytes).map_err(|error| Status::data_loss(format!("(undecodable answer: {error})")))
}

fn path_of(path: &'static str) -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static(path)
}

fn with_metadata<T>(message: T, metadata: Metadata<'_>) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        let name = AsciiMetadataKey::from_static(name);
        // Not `from_str`: values outside ASCII are part of the test.
        let value = AsciiMetadataValue::try_from(value.as_bytes().to_vec()).expect("no control characters");
        request.metadata_mut().append(name, value);
    }
    request
}

/// Messages as they are.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCodec;
    type Decoder = RawCodec;

    fn encoder(&mut self) -> RawCodec {
        RawCodec
    }

    fn decoder(&mut self) -> RawCodec {
        RawCodec
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }
}
