//! The bare HTTP/2 server: `h2`, fixed bytes.

use super::answer;
use crate::wire::frame;
use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::io;
use tokio::net::{TcpListener, TcpStream};

/// Windows as our server has them.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Serves until the process ends.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let fixed = frame(&answer());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let fixed = fixed.clone();
        tokio::task::spawn_local(async move {
            // A client that goes away is no concern of a floor.
            let _ = connection(socket, fixed).await;
        });
    }
}

async fn connection(socket: TcpStream, fixed: Bytes) -> Result<(), h2::Error> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let mut connection = builder.handshake(socket).await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        let fixed = fixed.clone();
        tokio::task::spawn_local(async move {
            let _ = reply(request, respond, fixed).await;
        });
    }
    Ok(())
}

async fn reply(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    fixed: Bytes,
) -> Result<(), h2::Error> {
    let mut body = request.into_body();
    while let Some(chunk) = body.data().await {
        let len = chunk?.len();
        body.flow_control().release_capacity(len)?;
    }
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(response, false)?;
    stream.send_data(fixed, false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}
