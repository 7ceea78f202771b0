//! What a proxy has to know of a call: who asks, for how long, and how messages are read and written.

use client::Client;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use prost::Message;
use std::pin::Pin;
use std::time::Duration;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

/// Bytes of a request (grpc-go's default, which etcd's proxy leaves as it is).
const REQUEST_MAX: usize = 4 << 20;

/// Who asks, and how.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub token: Option<String>,
    pub leader_required: bool,
    /// The client's deadline, from arrival.
    pub limit: Option<Duration>,
}

impl Asked {
    /// Reads the headers of a call.
    ///
    /// # Errors
    /// A deadline that is none.
    pub fn of(headers: &HeaderMap) -> Result<Asked, Status> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let limit = rpc::deadline(headers.get("grpc-timeout"))
            .map_err(|why| Status::internal(format!("malformed grpc-timeout: {why}")))?;
        if limit == Some(Duration::ZERO) {
            return Err(Status::deadline_exceeded("context deadline exceeded"));
        }
        Ok(Asked {
            token: text("token").or(text("authorization")).map(rpc::bare_token).filter(|token| !token.is_empty()),
            leader_required: text("hasleader") == Some("true"),
            limit,
        })
    }

    /// The client that asks the cluster in this caller's name.
    pub fn speaker(&self, client: &Client) -> Client {
        let client = client.with_token(self.token.clone());
        let client = if self.leader_required { client.with_leader_required() } else { client };
        match self.limit {
            Some(limit) => client.with_timeout(limit),
            None => client,
        }
    }
}

/// A reader and writer of one method's messages.
fn grpc<Q, R>(headers: &HeaderMap) -> Grpc<ProstCodec<R, Q>>
where
    Q: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
{
    let grpc = Grpc::new(ProstCodec::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(REQUEST_MAX);
    // As grpc-go: what is asked in gzip is answered in gzip.
    match headers.get("grpc-encoding").is_some_and(|value| value.as_bytes() == b"gzip") {
        true => grpc.send_compressed(CompressionEncoding::Gzip),
        false => grpc,
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<tonic::Response<T>, Status>> + Send>>;

/// One answer to one request.
struct Unary<F>(Option<F>);

impl<Q, R, F, A> tonic::server::UnaryService<Q> for Unary<F>
where
    R: Send + 'static,
    F: FnOnce(Q) -> A,
    A: Future<Output = Result<R, Status>> + Send + 'static,
{
    type Response = R;
    type Future = Answer<R>;

    fn call(&mut self, request: tonic::Request<Q>) -> Answer<R> {
        let answer = self.0.take().map(|answer| answer(request.into_inner()));
        Box::pin(async move {
            match answer {
                Some(answer) => answer.await.map(tonic::Response::new),
                None => Err(Status::internal("a call is answered once")),
            }
        })
    }
}

/// Answers a call with one message.
pub async fn unary<Q, R, F, A>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
    F: FnOnce(Q) -> A + Send,
    A: Future<Output = Result<R, Status>> + Send + 'static,
{
    grpc::<Q, R>(request.headers()).unary(Unary(Some(answer)), request).await
}

/// A stream of answers to a stream of requests, or to one.
struct Streams<F>(Option<F>);

impl<Q, R, F, S> tonic::server::StreamingService<Q> for Streams<F>
where
    F: FnOnce(Streaming<Q>) -> S,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
    R: Send + 'static,
{
    type Response = R;
    type ResponseStream = S;
    type Future = Answer<S>;

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Answer<S> {
        let answers = self.0.take().map(|answer| answer(request.into_inner()));
        let answers = answers.ok_or_else(|| Status::internal("a call is answered once")).map(tonic::Response::new);
        Box::pin(std::future::ready(answers))
    }
}

/// Answers a call with a stream.
pub async fn streaming<Q, R, F, S>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: Message + Default + Send + 'static,
    R: Message + Default + Send + 'static,
    F: FnOnce(Streaming<Q>) -> S + Send,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
{
    grpc::<Q, R>(request.headers()).streaming(Streams(Some(answer)), request).await
}
