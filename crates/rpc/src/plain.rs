//! Plain HTTP on the client port (reference/http.md): who may ask, and who answers.
//!
//! ```text
//! access (paths of old, Host, CORS, OPTIONS) ─► /v3/… gateway, /version, /health …, /metrics, /debug/…
//! ```

use crate::answers::Body;
use crate::backend::Member;
use crate::debug;
use crate::dispatch::{Port, Visitor};
use crate::gateway::{self, Asked, Source};
use crate::health;
use crate::metrics;
use crate::spans::Spans;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_TYPE, HOST,
    LOCATION, ORIGIN, SEC_WEBSOCKET_VERSION, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::sync::Arc;

pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// etcd's text for a certificate that names a user (CVE-2018-16886).
const PASSED_OVER: &str =
    "CommonName of client sending a request against gateway will be ignored and not used as expected";

/// What a listener's clients can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// gRPC and HTTP on one port.
    #[default]
    All,
    /// `--listen-client-urls` where HTTP has addresses of its own.
    Grpc,
    /// `--listen-client-http-urls`.
    Http,
    /// `--listen-metrics-urls`: metrics and health alone, whoever asks.
    Metrics,
}

/// Settings of plain HTTP.
#[derive(Clone, Debug)]
pub struct Web {
    /// `--enable-grpc-gateway`.
    pub gateway: bool,
    /// `--cors`; empty or `*`: all.
    pub cors: Vec<String>,
    /// `--host-whitelist`; empty or `*`: all.
    pub host_whitelist: Vec<String>,
    /// `--metrics=extensive`.
    pub extensive: bool,
    /// `/debug/pprof/`: `--enable-pprof`, or debug level.
    pub profiles: bool,
    /// `/debug/requests` and `/debug/events`: debug level.
    pub traces: bool,
    /// Who is told of calls (`--enable-distributed-tracing`).
    pub spans: Option<Arc<dyn Spans>>,
}

impl Default for Web {
    fn default() -> Web {
        Web {
            gateway: true,
            cors: Vec::new(),
            host_whitelist: Vec::new(),
            extensive: false,
            profiles: false,
            traces: false,
            spans: None,
        }
    }
}

impl Web {
    fn is_allowed(list: &[String], given: &str) -> bool {
        list.is_empty() || list.iter().any(|known| known == "*" || known == given)
    }

    /// What browsers are told of an origin.
    fn shared_with(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if Web::is_allowed(&self.cors, "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = headers.get(ORIGIN)?;
        Web::is_allowed(&self.cors, origin.to_str().ok()?).then(|| origin.clone())
    }
}

/// Answers a request of HTTP.
pub(crate) async fn plain<M: Member>(
    port: Arc<Port<M>>,
    offer: Offer,
    visitor: Visitor,
    request: Request<Incoming>,
) -> Response<Body> {
    let path = unescape(request.uri().path(), false).unwrap_or_else(|| request.uri().path().to_owned());
    if offer == Offer::Metrics {
        return match observed(&port, &path, &request).await {
            Some(response) => response,
            None => not_found(),
        };
    }
    let path = match path.strip_prefix("/v3beta/") {
        Some(below) => format!("/v3/{below}"),
        None => path,
    };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !visitor.is_encrypted && !Web::is_allowed(&port.web.host_whitelist, host_name(host)) {
        let response = error(StatusCode::MISDIRECTED_REQUEST, misdirected(host_name(host)));
        Source::Http(request.into_body()).spend().await;
        return response;
    }
    // The gateway's calls are nobody's but a token's: a certificate that names somebody else would be passed over.
    let is_named = visitor.common_name.is_some_and(|name| !name.is_empty());
    if is_named && port.web.gateway && path.starts_with("/v3/") && port.services.0.is_auth_enabled() {
        Source::Http(request.into_body()).spend().await;
        return error(StatusCode::BAD_REQUEST, PASSED_OVER);
    }
    let origin = port.web.shared_with(request.headers());
    let mut response = match *request.method() {
        Method::OPTIONS => Response::new(Body::Empty),
        _ => answered(port, path, request).await,
    };
    if let Some(origin) = origin {
        let fields = response.headers_mut();
        fields.append(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
        fields.append(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let headers = HeaderValue::from_static("accept, content-type, authorization");
        fields.append(ACCESS_CONTROL_ALLOW_HEADERS, headers);
    }
    response
}

async fn answered<M: Member>(port: Arc<Port<M>>, path: String, request: Request<Incoming>) -> Response<Body> {
    if port.web.gateway && path.starts_with("/v3/") {
        if !gateway::is_upgrade(request.headers()) {
            let (head, body) = request.into_parts();
            let asked = Asked { method: head.method, path, headers: head.headers };
            return gateway::serve(port, asked, Source::Http(body)).await;
        }
        return gateway::upgrade(port, request, path).unwrap_or_else(|code| {
            let mut response = error(code, code.canonical_reason().unwrap_or_default());
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            response
        });
    }
    if let Some(response) = observed(&port, &path, &request).await {
        return response;
    }
    match path.as_str() {
        "/v3" if port.web.gateway => below(request.method(), "/v3/"),
        "/version" if request.method() == Method::GET => version(&*port.services.0),
        "/debug/vars" if request.method() == Method::GET => metrics::variables(&port.services.0.figures().raft),
        "/version" | "/debug/vars" => only_get(),
        path if path.starts_with("/debug/") => debug::serve(&port.web, path, request).await,
        _ => not_found(),
    }
}

/// What a port for metrics offers, too; `None` of anything else.
async fn observed<M: Member>(port: &Arc<Port<M>>, path: &str, request: &Request<Incoming>) -> Option<Response<Body>> {
    if path == "/metrics" {
        return Some(metrics::scrape(&*port.services.0, port.web.extensive, request.headers()));
    }
    let query = request.uri().query().unwrap_or_default();
    let probe = health::Probe::of(path, query)?;
    Some(if request.method() == Method::GET { probe.run(&*port.services.0).await } else { only_get() })
}

fn version<M: Member>(member: &M) -> Response<Body> {
    let (cluster, storage) = member.versions();
    let text =
        format!(r#"{{"etcdserver":"{}","etcdcluster":"{cluster}","storage":"{storage}"}}"#, api::version::SERVER);
    answer(StatusCode::OK, JSON, text)
}

/// Go's mux sends whoever asks for a folder by its bare name to the folder.
pub(crate) fn below(method: &Method, folder: &'static str) -> Response<Body> {
    let mut response = match *method {
        Method::GET | Method::HEAD => {
            let html = HeaderValue::from_static("text/html; charset=utf-8");
            answer(StatusCode::TEMPORARY_REDIRECT, html, format!("<a href=\"{folder}\">Temporary Redirect</a>.\n\n"))
        }
        _ => Response::new(Body::Empty),
    };
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(folder));
    response
}

fn only_get() -> Response<Body> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    response
}

fn not_found() -> Response<Body> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// As Go's `http.Error`.
pub(crate) fn error(code: StatusCode, text: impl std::fmt::Display) -> Response<Body> {
    said(code, format!("{text}\n"))
}

/// Text that no browser is to take for something else.
pub(crate) fn said(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = answer(code, TEXT, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(crate) fn answer(code: StatusCode, content_type: HeaderValue, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Text(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// The host of `host:port`; all of what has another form (etcd `httputil.GetHostname`).
fn host_name(given: &str) -> &str {
    let name = match given.strip_prefix('[') {
        Some(address) => address.split_once("]:").map(|(name, _)| name),
        None => given.rsplit_once(':').map(|(name, _)| name).filter(|name| !name.contains(':')),
    };
    name.unwrap_or(given)
}

fn misdirected(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
         - e.g. etcd --host-whitelist {}\n\n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n",
        go::quote(host)
    )
}

/// Undoes percent signs, and `+` for a space in a query; `None` where they stand for nothing.
pub(crate) fn unescape(text: &str, query: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_without_their_ports() {
        for (given, name) in
            [("a.b:2379", "a.b"), ("a.b", "a.b"), ("[::1]:2379", "::1"), ("[::1]", "[::1]"), ("::1", "::1"), ("", "")]
        {
            assert_eq!(host_name(given), name);
        }
    }

    #[test]
    fn percent_signs_are_undone() {
        assert_eq!(unescape("/v3/kv/r%61nge+", false).as_deref(), Some("/v3/kv/range+"));
        assert_eq!(unescape("a+b%2B", true).as_deref(), Some("a b+"));
        for bad in ["%", "%4", "%4g", "%ff"] {
            assert_eq!(unescape(bad, true), None, "{bad}");
        }
    }

    #[test]
    fn origins_and_hosts_that_are_listed_are_let_in() {
        let mut web = Web { cors: vec!["http://a".into()], ..Web::default() };
        let from = |origin: &'static str| HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        assert_eq!(web.shared_with(&from("http://a")).unwrap(), "http://a");
        assert_eq!(web.shared_with(&from("http://b")), None);
        assert_eq!(web.shared_with(&HeaderMap::new()), None);
        web.cors.push("*".into());
        assert_eq!(web.shared_with(&from("http://b")).unwrap(), "*");
    }
}
