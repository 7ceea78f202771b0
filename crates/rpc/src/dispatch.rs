//! From an HTTP request to a service: interceptor rules, deadlines, grpc-go's texts.

use crate::backend::Member;
use crate::pb::etcdserverpb as stubs;
use crate::pb::health::health_server::HealthServer;
use crate::pb::v3electionpb::election_server::ElectionServer;
use crate::pb::v3lockpb::lock_server::LockServer;
use crate::serve::Limits;
use crate::services::{Services, status};
use crate::stoppable::{End, Open, Stoppable};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tower_service::Service;

/// Every service and its methods: what is not here is unknown, with grpc-go's text.
const METHODS: [(&str, &[&str]); 9] = [
    ("etcdserverpb.KV", &["Range", "RangeStream", "Put", "DeleteRange", "Txn", "Compact"]),
    ("etcdserverpb.Watch", &["Watch"]),
    ("etcdserverpb.Lease", &["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"]),
    ("etcdserverpb.Cluster", &["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"]),
    (
        "etcdserverpb.Maintenance",
        &["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader", "Downgrade"],
    ),
    (
        "etcdserverpb.Auth",
        &[
            "AuthEnable",
            "AuthDisable",
            "AuthStatus",
            "Authenticate",
            "UserAdd",
            "UserGet",
            "UserList",
            "UserDelete",
            "UserChangePassword",
            "UserGrantRole",
            "UserRevokeRole",
            "RoleAdd",
            "RoleGet",
            "RoleList",
            "RoleDelete",
            "RoleGrantPermission",
            "RoleRevokePermission",
        ],
    ),
    ("v3lockpb.Lock", &["Lock", "Unlock"]),
    ("v3electionpb.Election", &["Campaign", "Proclaim", "Leader", "Observe", "Resign"]),
    ("grpc.health.v1.Health", &["Check", "List", "Watch"]),
];
/// Methods whose response is a stream.
const STREAMS: [&str; 5] = ["RangeStream", "Watch", "LeaseKeepAlive", "Snapshot", "Observe"];

/// Calls that may last as long as the client likes: they end when the member stops.
const ENDLESS: [(&str, &str); 6] = [
    ("etcdserverpb.Watch", "Watch"),
    ("etcdserverpb.Lease", "LeaseKeepAlive"),
    ("v3lockpb.Lock", "Lock"),
    ("v3electionpb.Election", "Campaign"),
    ("v3electionpb.Election", "Observe"),
    ("grpc.health.v1.Health", "Watch"),
];

/// Serves one request. HTTP/2 is gRPC's on this port, HTTP/1 everybody else's.
pub(crate) async fn dispatch<M: Member>(
    services: Services<M>,
    limits: &Limits,
    stop: watch::Receiver<bool>,
    open: Open,
    request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    if request.version() != http::Version::HTTP_2 {
        return plain(&services, &request);
    }
    let content_type = request.headers().get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let Some(content_type) = grpc_content_type(content_type) else { return not_grpc(content_type) };
    let mut response = match admit(&services, &request) {
        Err((code, refusal)) => refused(code, refusal),
        Ok(call) => serve(services, limits, stop, open, call, request).await,
    };
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    }
    response
}

/// A call that may be made.
struct Admitted {
    service: &'static str,
    method: &'static str,
    /// `grpc-timeout`, from now on.
    limit: Option<Duration>,
}

fn admit<M: Member>(
    services: &Services<M>,
    request: &Request<hyper::body::Incoming>,
) -> Result<Admitted, (http::StatusCode, Status)> {
    let fine = http::StatusCode::OK;
    if request.method() != http::Method::POST {
        let text =
            format!("Received a HEADERS frame with :method {:?} which should be POST", request.method().as_str());
        return Err((http::StatusCode::METHOD_NOT_ALLOWED, Status::internal(text)));
    }
    // grpc-go knows no query: it is part of the name.
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let name = path.strip_prefix('/').unwrap_or(path).rsplit_once('/');
    let Some((service, method)) = name else {
        return Err((fine, Status::unimplemented(format!("malformed method name: {path:?}"))));
    };
    let (service, method) = check(services, request.headers(), service, method).map_err(|refusal| (fine, refusal))?;
    let limit = deadline(request.headers())
        .map_err(|why| (http::StatusCode::BAD_REQUEST, Status::internal(format!("malformed grpc-timeout: {why}"))))?;
    Ok(Admitted { service, method, limit })
}

async fn serve<M: Member>(
    services: Services<M>,
    limits: &Limits,
    stop: watch::Receiver<bool>,
    open: Open,
    call: Admitted,
    request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    let Admitted { service, method, limit } = call;
    let stop = ENDLESS.contains(&(service, method)).then_some(stop);
    let leader = (stop.is_some() && STREAMS.contains(&method) && wants_leader(request.headers()))
        .then(|| (services.0.leader_known(), limits.leaderless()));
    let work = answer(services, service, limits.max_message(), request);
    let streamed = STREAMS.contains(&method);
    if stop.is_none() && limit.is_none() && !streamed {
        return work.await;
    }
    let mut end: End = Box::pin(must_end(stop, leader, limit));
    tokio::select! {
        // A call whose time is over is not begun.
        biased;
        why = &mut end => why.into_http(),
        response = work => match streamed {
            true => response.map(|body| Body::new(Stoppable::new(body, end, open))),
            false => response,
        },
    }
}

/// Waits until a call has to end: its time is over, or it is endless and the member stops, or it wants a leader and there
/// has been none for as long as given with it (etcd `monitorLeader`).
async fn must_end(
    stop: Option<watch::Receiver<bool>>,
    leader: Option<(watch::Receiver<bool>, Duration)>,
    limit: Option<Duration>,
) -> Status {
    let late = async {
        match limit {
            Some(Duration::ZERO) => {}
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let leaderless = async {
        match leader {
            Some((known, patience)) => no_leader_for(known, patience).await,
            None => std::future::pending().await,
        }
    };
    let stopped = async {
        match stop {
            // A sender that is gone stops everything, too.
            Some(mut stop) => drop(stop.wait_for(|stop| *stop).await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stopped => status(&api::Error::Stopped),
        () = leaderless => status(&api::Error::NoLeader),
        () = late => Status::deadline_exceeded("context deadline exceeded"),
    }
}

async fn no_leader_for(mut known: watch::Receiver<bool>, patience: Duration) {
    while known.wait_for(|known| !*known).await.is_ok() {
        if tokio::time::timeout(patience, known.wait_for(|known| *known)).await.is_err() {
            return;
        }
    }
    // The member is gone: its stop ends the stream.
    std::future::pending().await
}

fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|v| v.as_bytes() == b"true")
}

/// `application/grpc`, with `+` or `;` and anything: what the answer carries too, in grpc-go's spelling.
fn grpc_content_type(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    match text.strip_prefix("application/grpc")?.split_at_checked(1) {
        None => Some(text),
        Some(("+" | ";", subtype)) => Some(format!("application/grpc+{subtype}")),
        Some(_) => None,
    }
}

/// grpc-go's answer to an HTTP/2 request that is none of its.
fn not_grpc(content_type: &str) -> Response<Body> {
    let text = format!("invalid gRPC request content-type {content_type:?}");
    refused(http::StatusCode::UNSUPPORTED_MEDIA_TYPE, Status::invalid_argument(text))
}

fn refused(code: http::StatusCode, status: Status) -> Response<Body> {
    let mut response = status.into_http::<Body>();
    *response.status_mut() = code;
    response
}

async fn answer<M: Member>(
    services: Services<M>,
    service: &str,
    max_message: usize,
    request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    translate(call(services, service, max_message, request).await)
}

/// The answer to calls that come after the stop began.
pub(crate) fn stopped() -> Response<Body> {
    status(&api::Error::Stopped).into_http()
}

/// Known method, valid client version, a leader where one is asked for. Answers the names as they stand in [`METHODS`].
fn check<M: Member>(
    services: &Services<M>,
    headers: &HeaderMap,
    service: &str,
    method: &str,
) -> Result<(&'static str, &'static str), Status> {
    let Some((service, methods)) = METHODS.iter().find(|(name, _)| *name == service) else {
        return Err(Status::unimplemented(format!("unknown service {service}")));
    };
    let Some(method) = methods.iter().find(|name| **name == method) else {
        return Err(Status::unimplemented(format!("unknown method {method} for service {service}")));
    };
    if let Some(encoding) = headers.get("grpc-encoding").and_then(|v| v.to_str().ok())
        && !["gzip", "identity"].contains(&encoding)
    {
        let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
        return Err(Status::unimplemented(text));
    }
    let version = headers.get("client-api-version").map(HeaderValue::as_bytes);
    if version.is_some_and(|v| std::str::from_utf8(v).is_err()) {
        return Err(status(&api::Error::InvalidClientAPIVersion));
    }
    if wants_leader(headers) && !*services.0.leader_known().borrow() {
        return Err(status(&api::Error::NoLeader));
    }
    Ok((service, method))
}

/// `grpc-timeout`: at most eight digits and a unit. Errors are grpc-go's.
fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, String> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    if text.len() < 2 {
        return Err(format!("transport: timeout string is too short: {text:?}"));
    }
    if text.len() > 9 {
        return Err(format!("transport: timeout string is too long: {text:?}"));
    }
    let unknown = || format!("transport: timeout unit is not recognized: {text:?}");
    let (digits, unit) = text.split_at_checked(text.len() - 1).ok_or_else(unknown)?;
    let unit = match unit {
        "H" => Duration::from_secs(3600),
        "M" => Duration::from_secs(60),
        "S" => Duration::from_secs(1),
        "m" => Duration::from_millis(1),
        "u" => Duration::from_micros(1),
        "n" => Duration::from_nanos(1),
        _ => return Err(unknown()),
    };
    let plain = !digits.starts_with('+');
    let n: u32 = digits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"))?;
    Ok(Some(unit * n))
}

async fn call<M: Member>(
    services: Services<M>,
    service: &str,
    max_message: usize,
    mut request: Request<hyper::body::Incoming>,
) -> Response<Body> {
    // As grpc-go: a response is compressed exactly when its request says that it may be, whatever the client accepts.
    let gzip = request.headers().get("grpc-encoding").is_some_and(|v| v.as_bytes() == b"gzip");
    if gzip {
        request.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static("gzip"));
    }
    macro_rules! serve {
        ($server:ty) => {{
            let mut server = <$server>::new(services)
                .max_decoding_message_size(max_message)
                .max_encoding_message_size(usize::MAX)
                .accept_compressed(CompressionEncoding::Gzip);
            if gzip {
                server = server.send_compressed(CompressionEncoding::Gzip);
            }
            let answer: Result<Response<Body>, Infallible> = server.call(request).await;
            match answer {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }};
    }
    match service {
        "etcdserverpb.KV" => serve!(stubs::kv_server::KvServer<Services<M>>),
        "etcdserverpb.Watch" => serve!(stubs::watch_server::WatchServer<Services<M>>),
        "etcdserverpb.Lease" => serve!(stubs::lease_server::LeaseServer<Services<M>>),
        "etcdserverpb.Cluster" => serve!(stubs::cluster_server::ClusterServer<Services<M>>),
        "etcdserverpb.Maintenance" => serve!(stubs::maintenance_server::MaintenanceServer<Services<M>>),
        "etcdserverpb.Auth" => serve!(stubs::auth_server::AuthServer<Services<M>>),
        "v3lockpb.Lock" => serve!(LockServer<Services<M>>),
        "v3electionpb.Election" => serve!(ElectionServer<Services<M>>),
        _ => serve!(HealthServer<Services<M>>),
    }
}

/// tonic's texts where grpc-go has others.
fn translate(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let text = headers.get("grpc-message").and_then(|v| v.to_str().ok()).map(decode_percent);
    let code = headers.get("grpc-status").and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<i32>().ok());
    let (Some(text), Some(code)) = (text, code.map(Code::from_i32)) else { return response };
    let replaced = match code {
        Code::OutOfRange => oversize(&text).map(|t| (Code::ResourceExhausted, t)),
        Code::Internal if text.contains("received message with compressed-flag but no grpc-encoding") => {
            Some((code, "grpc: compressed flag set with identity or empty encoding".to_owned()))
        }
        Code::Internal if text == "Missing request message." || text == "Unexpected EOF decoding stream." => {
            Some((Code::Unknown, "EOF".to_owned()))
        }
        Code::Internal if text.contains("received message with invalid compression flag: ") => {
            let flag =
                text.split("compression flag: ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            Some((code, format!("grpc: received unexpected payload format {flag}")))
        }
        Code::Internal if text.contains("failed to decode Protobuf") => {
            Some((Code::Internal, format!("grpc: error unmarshalling request: {text}")))
        }
        _ => None,
    };
    if let Some((code, text)) = replaced {
        let replacement = Status::new(code, text).into_http::<Body>();
        for name in ["grpc-status", "grpc-message"] {
            if let Some(value) = replacement.headers().get(name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    response
}

/// tonic: `Error, decoded message length too large: found N bytes, the limit is: L bytes`.
pub(crate) fn oversize(text: &str) -> Option<String> {
    let rest = text.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

fn decode_percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What is not gRPC.
fn plain<M: Member>(services: &Services<M>, request: &Request<hyper::body::Incoming>) -> Response<Body> {
    let mut response = match request.uri().path() {
        "/version" if request.method() != http::Method::GET => {
            let mut response = Response::new(Body::new(http_body_util::Full::from("Method Not Allowed\n")));
            *response.status_mut() = http::StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET"));
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, text);
            response
        }
        "/version" => {
            let (cluster, storage) = services.0.versions();
            let text = format!(
                r#"{{"etcdserver":"{}","etcdcluster":"{cluster}","storage":"{storage}"}}"#,
                api::version::SERVER
            );
            let mut response = Response::new(Body::new(http_body_util::Full::from(text)));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            response
        }
        _ => {
            let mut response = Response::new(Body::new(http_body_util::Full::from("404 page not found\n")));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, text);
            response
        }
    };
    response.headers_mut().remove(http::header::DATE);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_at_most_eight_digits_and_a_unit() {
        let parse = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(text.as_bytes()).unwrap());
            deadline(&headers)
        };
        assert_eq!(parse("5S"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(parse("1500m"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(parse("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3600))));
        assert_eq!(deadline(&HeaderMap::new()), Ok(None));
        for bad in ["", "S", "5x", "123456789S", "+5S", "-5S", "1 S", "\u{e9}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// The clock stands still but for what is waited for.
    #[tokio::test(start_paused = true)]
    async fn streams_that_want_a_leader_end_after_three_election_timeouts_without_one() {
        let (stop, stopped) = watch::channel(false);
        let (leader, known) = watch::channel(true);
        let second = Duration::from_secs(1);
        let begin = tokio::time::Instant::now();
        let end = tokio::spawn(must_end(Some(stopped.clone()), Some((known, 3 * second)), None));
        let indifferent = tokio::spawn(must_end(Some(stopped), None, None));
        for known in [false, true, false] {
            tokio::time::sleep(2 * second).await;
            leader.send_replace(known);
        }
        assert_eq!(end.await.unwrap().message(), "etcdserver: no leader");
        assert_eq!(begin.elapsed().as_secs(), 6 + 3, "a leader in between starts the count again");
        stop.send_replace(true);
        assert_eq!(indifferent.await.unwrap().message(), "etcdserver: server stopped");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_every_call_and_none_begins_after_it() {
        let begin = tokio::time::Instant::now();
        let end = must_end(None, None, Some(Duration::from_millis(500))).await;
        assert_eq!((end.code(), begin.elapsed().as_millis()), (Code::DeadlineExceeded, 500));
        assert_eq!(must_end(None, None, Some(Duration::ZERO)).await.code(), Code::DeadlineExceeded);
        assert_eq!(begin.elapsed().as_millis(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_streams_that_want_a_leader_too() {
        let (stop, stopped) = watch::channel(false);
        let (leader, known) = watch::channel(false);
        drop(leader);
        let end = tokio::spawn(must_end(Some(stopped), Some((known, Duration::from_secs(1))), None));
        drop(stop);
        assert_eq!(end.await.unwrap().code(), Code::Unavailable);
    }

    #[test]
    fn oversize_texts_are_grpc_gos() {
        let tonic = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        assert_eq!(oversize(tonic).unwrap(), "grpc: received message larger than max (9 vs. 4)");
        assert_eq!(decode_percent("a%2Cb%"), "a,b%");
    }
}
