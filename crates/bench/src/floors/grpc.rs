//! The bare gRPC server: hyper and tonic, a decoded put, an encoded answer, one thread.

use super::answer;
use api::pb::etcdserverpb::{PutRequest, PutResponse};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Keeps a connection's streams on its thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// The method: takes a put, answers.
#[derive(Clone, Copy, Debug)]
struct Put;

impl tower_service::Service<Request<PutRequest>> for Put {
    type Response = Response<PutResponse>;
    type Error = Status;
    type Future = Ready<Result<Response<PutResponse>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<PutRequest>) -> Self::Future {
        ready(Ok(Response::new(answer())))
    }
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let service = service_fn(|request| async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<PutResponse, PutRequest>::default());
            Ok::<_, Infallible>(grpc.unary(Put, request).await)
        });
        let mut builder = http2::Builder::new(Local);
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(None)
            .auto_date_header(false);
        tokio::task::spawn_local(async move {
            // A client that goes away is no concern of a floor.
            let _ = builder.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}
