//! Connections whose requests somebody else answers: TLS, limits and the policing of pings are those of a member's doors.
//! A proxy serves so.

use crate::pings::Policed;
use crate::secure::{Secured, Socket};
use crate::serve::{Connection, Limits, Stream, builder};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

/// Answers a proxy's requests.
pub trait Relay: Clone + Send + Sync + 'static {
    /// What answers are made of.
    type Body: Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// Answers one request; `is_encrypted`: its connection speaks TLS.
    fn answer(&self, request: Request<Incoming>, is_encrypted: bool) -> Answering<Self::Body>;
}

/// An answer in the making.
pub type Answering<B> = Pin<Box<dyn Future<Output = Response<B>> + Send>>;

/// Serves `connections` for ever.
pub async fn relay(mut connections: mpsc::UnboundedReceiver<Connection>, limits: Limits, relay: impl Relay) {
    let (builder, pace) = (Arc::new(builder(&limits)), tls::Pace::default());
    while let Some(connection) = connections.recv().await {
        let server = Server { builder: builder.clone(), pace: pace.clone(), limits, relay: relay.clone() };
        let opened = match connection.stream {
            Stream::Tcp(s) => TcpStream::from_std(s)
                .map(|s| drop(tokio::spawn(server.connect(s, connection.security, connection.slot)))),
            Stream::Unix(s) => UnixStream::from_std(s)
                .map(|s| drop(tokio::spawn(server.connect(s, connection.security, connection.slot)))),
        };
        if let Err(e) = opened {
            tracing::warn!(error = %e, "failed to serve a client connection");
        }
    }
}

struct Server<R> {
    builder: Arc<auto::Builder<TokioExecutor>>,
    pace: tls::Pace,
    limits: Limits,
    relay: R,
}

impl<R: Relay> Server<R> {
    async fn connect<S: Socket>(
        self,
        stream: S,
        security: Arc<crate::Security>,
        slot: tokio::sync::OwnedSemaphorePermit,
    ) {
        match security.take(stream, &self.pace).await {
            Some(Secured::Plain(stream)) => self.talk(stream, false).await,
            Some(Secured::Tls(stream, _)) => self.talk(stream, true).await,
            None => {}
        }
        drop(slot);
    }

    async fn talk<S>(self, stream: S, is_encrypted: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Policed::new(stream, self.limits.client_pings(), Arc::default());
        let relay = self.relay;
        let service = service_fn(move |request| {
            let answer = relay.answer(request, is_encrypted);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        if let Err(e) = self.builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(error = %e, "client connection ended");
        }
    }
}
