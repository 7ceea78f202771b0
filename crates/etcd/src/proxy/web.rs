//! What a proxy answers over plain HTTP: the metrics and the health of the cluster, and its own below `/proxy/`.

use crate::addresses::without_scheme;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::{Address, Client, Demand};
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::body::Body;

/// How long a health check reads, and how long it waits for a watch (etcd `checkHealth`, `checkProxyHealth`).
const READ_PATIENCE: Duration = Duration::from_secs(1);
const WATCH_PATIENCE: Duration = Duration::from_secs(3);
/// For a member's metrics.
const METRICS_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of them; a member has about 100 KiB.
const METRICS_MAX: usize = 32 << 20;
/// The key that health checks look at.
const KEY: &[u8] = b"a";

/// What plain HTTP is answered with.
#[derive(Debug)]
pub struct Web {
    /// Asks the cluster.
    pub cluster: Client,
    /// Asks this proxy as its clients do; `None`: nobody knows its address.
    pub own: Option<Client>,
    /// The member whose metrics are shown.
    pub endpoint: String,
    /// What it is dialled with.
    pub secure: Option<tls::Client>,
    pub profiles: bool,
}

impl Web {
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let is_get = request.method() == Method::GET;
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/proxy/metrics" => rpc::metrics::scrape_proxy(request.headers()).map(Body::new),
            "/health" | "/proxy/health" if !is_get => {
                let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                response
            }
            "/health" => health(unwell(&self.cluster).await),
            "/proxy/health" => health(self.own_health().await),
            _ if self.profiles => match rpc::profiles(request).await {
                Some(response) => response.map(Body::new),
                None => error(StatusCode::NOT_FOUND, "404 page not found"),
            },
            _ => error(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    async fn own_health(&self) -> Option<String> {
        let Some(own) = &self.own else { return Some("no connection to proxy".into()) };
        if let Some(reason) = unwell(own).await {
            return Some(reason);
        }
        let request = pb::WatchCreateRequest { key: Bytes::from_static(KEY), ..Default::default() };
        let mut watch = own.watch(request);
        match tokio::time::timeout(WATCH_PATIENCE, watch.next()).await {
            Ok(_) => None,
            Err(_) => Some("WATCH TIMEOUT".into()),
        }
    }

    async fn metrics(&self) -> Response<Body> {
        match tokio::time::timeout(METRICS_PATIENCE, self.ask_metrics()).await {
            Ok(Ok(page)) => answer(StatusCode::OK, "text/plain; version=0.0.4", page),
            Ok(Err(why)) => {
                tracing::warn!(endpoint = self.endpoint, error = why, "failed to get a member's metrics");
                error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error")
            }
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
        }
    }

    async fn ask_metrics(&self) -> Result<Vec<u8>, String> {
        let address = Address::parse(&self.endpoint);
        let authority = without_scheme(&self.endpoint);
        let stream = TcpStream::connect(Address::dialled(authority).as_ref()).await.map_err(|e| go::os_text(&e))?;
        let is_secure = Demand::of(&self.endpoint) != Demand::Plain;
        match self.secure.as_ref().filter(|_| is_secure) {
            Some(secure) => get(secure.connect(address.server_name(), stream).await?, authority).await,
            None => get(stream, authority).await,
        }
    }
}

/// `GET /metrics` on a connection of its own.
async fn get<S>(stream: S, host: &str) -> Result<Vec<u8>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shown = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(shown)?;
    // It ends with the last of its answers.
    tokio::spawn(connection);
    let request = Request::get("/metrics").header(http::header::HOST, host).body(Body::empty());
    let response = sender.send_request(request.map_err(|e| e.to_string())?).await.map_err(shown)?;
    let mut body = response.into_body();
    let mut page = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(shown)?.into_data() {
            page.extend_from_slice(&data);
        }
        if page.len() > METRICS_MAX {
            return Err(format!("the page has more than {METRICS_MAX} bytes"));
        }
    }
    Ok(page)
}

/// Why the cluster can't be read, if it can't. Who may not read has got an answer.
async fn unwell(client: &Client) -> Option<String> {
    let request = pb::RangeRequest { key: Bytes::from_static(KEY), ..Default::default() };
    match client.with_timeout(READ_PATIENCE).range(request).await {
        Ok(_) => None,
        Err(e) if e.is(&api::Error::PermissionDenied) || e.is(&api::Error::UserEmpty) => None,
        Err(e) => Some(format!("GET ERROR:{e}")),
    }
}

fn health(reason: Option<String>) -> Response<Body> {
    match reason {
        None => answer(StatusCode::OK, "text/plain; charset=utf-8", r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let reason = go::json_string(&reason);
            error(StatusCode::SERVICE_UNAVAILABLE, &format!(r#"{{"health":"false","reason":{reason}}}"#))
        }
    }
}

/// As Go's `http.Error`.
fn error(code: StatusCode, text: &str) -> Response<Body> {
    let mut response = answer(code, "text/plain; charset=utf-8", format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn answer(code: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Text(Some(text.into()))));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body that is there as a whole.
struct Text(Option<Bytes>);

impl http_body::Body for Text {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|text| Ok(http_body::Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}
