//! From an HTTP request to a call: interceptor rules, deadlines, grpc-go's texts.

use crate::answers::{Body, Terms, answered, refused};
use crate::backend::{Caller, Member};
use crate::call::{Call, Step, Working};
use crate::ends::{End, Open, WeakOpen, late_status};
use crate::gateway::Requests;
use crate::messages::Messages;
use crate::methods::{Kind, Method, Service};
use crate::metrics::calls::{self, Counted};
use crate::plain::{Offer, Web, plain};
use crate::secure::Socket;
use crate::serve::Limits;
use crate::services::{Services, status};
use crate::slow::Remembered;
use crate::spans::Origin;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;

/// Bytes of a header that names a trace: as many as W3C wants passed on at least. Spans that wait keep them.
const TRACE_MAX: usize = 512;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What all calls of a thread share.
pub(crate) struct Port<M> {
    pub services: Services<M>,
    pub limits: Limits,
    pub web: Arc<Web>,
    pub stop: watch::Receiver<bool>,
    /// Weak: an idle connection is not an open call.
    pub open: WeakOpen,
}

/// Who is at the other end of a connection, as far as TLS knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor {
    pub is_encrypted: bool,
    /// Of the certificate that was shown, where certificates stand for users.
    pub common_name: Option<String>,
    /// Where it comes from: shared, since each call remembers it.
    pub remote: Option<Arc<SocketAddr>>,
    /// … and where it came to.
    pub local: Option<SocketAddr>,
}

impl Visitor {
    /// Somebody without TLS.
    pub fn plain(stream: &impl Socket) -> Visitor {
        Visitor { remote: stream.remote().map(Arc::new), local: stream.local(), ..Visitor::default() }
    }
}

/// The port as hyper's service, for one connection.
pub(crate) struct Door<M> {
    pub port: Arc<Port<M>>,
    pub offer: Offer,
    pub visitor: Visitor,
}

impl<M: Member> hyper::service::Service<Request<Incoming>> for Door<M> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call<M>;

    fn call(&self, request: Request<Incoming>) -> Call<M> {
        dispatch(&self.port, self.offer, &self.visitor, request)
    }
}

/// Begins one request. HTTP/2 is gRPC's on this port, HTTP/1 everybody else's; with TLS, HTTP/2 may be anybody's.
fn dispatch<M: Member>(port: &Arc<Port<M>>, offer: Offer, visitor: &Visitor, request: Request<Incoming>) -> Call<M> {
    let of_grpc = || request.headers().get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(GRPC.as_bytes()));
    if request.version() != http::Version::HTTP_2 || (visitor.is_encrypted && offer != Offer::Grpc && !of_grpc()) {
        return Call::boxed(plain(port.clone(), offer, visitor.clone(), request));
    }
    grpc(port, visitor, request, Requests::Network)
}

/// Begins one gRPC call, whose requests come as `requests` has them.
pub(crate) fn grpc<M: Member, B>(
    port: &Arc<Port<M>>,
    visitor: &Visitor,
    request: Request<B>,
    requests: impl FnOnce(B) -> Requests,
) -> Call<M> {
    let Some(open) = port.open.upgrade() else {
        return Call::answered(refused(StatusCode::OK, GRPC, &status(&api::Error::Stopped)));
    };
    let fields = Fields::of(request.headers());
    let content_type = match grpc_content_type(fields.content_type) {
        Ok(content_type) => content_type,
        Err(why) => return Call::answered(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, GRPC, &why)),
    };
    match admit(port, visitor, &request, &fields) {
        Ok(call) => begin(port, open, content_type, call, requests(request.into_body())),
        Err((code, why)) => Call::answered(refused(code, content_type, &why)),
    }
}

/// A call that may be made.
struct Admitted<M: Member> {
    method: &'static Method<M>,
    counted: Option<Counted>,
    caller: Caller,
    remote: Option<Arc<SocketAddr>>,
    /// `grpc-timeout`, from now on.
    limit: Option<Duration>,
    /// As grpc-go: a response is compressed exactly when its request says that it may be, whatever the client accepts.
    gzip: bool,
    wants_leader: bool,
}

fn admit<M: Member, B>(
    port: &Port<M>,
    visitor: &Visitor,
    request: &Request<B>,
    fields: &Fields<'_>,
) -> Result<Admitted<M>, (StatusCode, Status)> {
    if request.method() != http::Method::POST {
        let text =
            format!("Received a HEADERS frame with :method {:?} which should be POST", request.method().as_str());
        return Err((StatusCode::METHOD_NOT_ALLOWED, Status::internal(text)));
    }
    // grpc-go knows no query: it is part of the name.
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let fine = |why| (StatusCode::OK, why);
    let (number, method) = numbered(path).map_err(fine)?;
    let mut counted = Counted::begin(number);
    calls::by_version(method.kind.is_stream(), fields.version.and_then(text));
    let (follow, spans) = (port.web.traces || port.web.spans.is_some(), port.web.spans.as_deref());
    if let Some(counted) = counted.as_mut().filter(|_| follow) {
        let limit = deadline(fields.timeout).ok().flatten();
        counted.follow(spans, &fields.origin(visitor), visitor.remote.as_deref(), limit);
    }
    let checked = check(port, method, fields).map_err(fine).and_then(|()| {
        let malformed = |why| Status::internal(format!("malformed grpc-timeout: {why}"));
        deadline(fields.timeout).map_err(|why| (StatusCode::BAD_REQUEST, malformed(why)))
    });
    // A call whose time is over is not begun.
    let checked =
        checked.and_then(|limit| if limit == Some(Duration::ZERO) { Err(fine(late_status())) } else { Ok(limit) });
    if let (Err((_, why)), Some(counted)) = (&checked, &mut counted) {
        counted.fail(why);
    }
    let (gzip, wants_leader) = (fields.gzip(), fields.wants_leader());
    let caller = Caller { common_name: fields.common_name(visitor), ..fields.caller() };
    Ok(Admitted { method, counted, caller, remote: visitor.remote.clone(), limit: checked?, gzip, wants_leader })
}

fn begin<M: Member>(
    port: &Arc<Port<M>>,
    open: Open,
    content_type: HeaderValue,
    call: Admitted<M>,
    body: Requests,
) -> Call<M> {
    let Admitted { method, mut counted, caller, remote, limit, gzip, wants_leader } = call;
    let stop = method.endless.then(|| port.stop.clone());
    if stop.as_ref().is_some_and(|stop| *stop.borrow()) {
        let why = status(&api::Error::Stopped);
        if let Some(counted) = &mut counted {
            counted.fail(&why);
        }
        return Call::answered(refused(StatusCode::OK, content_type, &why));
    }
    let leader = (method.endless && wants_leader && method.kind.is_stream())
        .then(|| (port.services.0.leader_known(), port.limits.leaderless()));
    let end = End::new(limit, stop, leader);
    let meter = counted.as_ref().map(Counted::meter);
    let messages = Messages::new(body, port.limits.max_message(), gzip).counted_by(meter);
    if let Kind::Both(stream) = &method.kind {
        let body = stream(&port.services, caller, messages, Terms { gzip, end, open, counted });
        return Call::opened(answered(content_type, gzip, body));
    }
    let step = Step::Reading { caller, first: None };
    let (port, end, open) = (port.clone(), Some(end), Some(open));
    let told = Remembered::of(remote);
    Call::working(Working { port, method, content_type, gzip, end, open, counted, told, asked: None, messages, step })
}

/// The request's fields that mean something here; of one that comes several times, the first.
#[derive(Default)]
struct Fields<'a> {
    content_type: Option<&'a HeaderValue>,
    encoding: Option<&'a HeaderValue>,
    timeout: Option<&'a HeaderValue>,
    version: Option<&'a HeaderValue>,
    leader: Option<&'a HeaderValue>,
    token: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    /// What grpc-gateway makes of `Accept`.
    gateway: Option<&'a HeaderValue>,
    traceparent: Option<&'a HeaderValue>,
    tracestate: Option<&'a HeaderValue>,
}

impl Fields<'_> {
    /// One walk over the few that there are is quicker than looking up each.
    fn of(headers: &HeaderMap) -> Fields<'_> {
        let mut fields = Fields::default();
        for (name, value) in headers {
            let field = match name.as_str() {
                "content-type" => &mut fields.content_type,
                "grpc-encoding" => &mut fields.encoding,
                "grpc-timeout" => &mut fields.timeout,
                "client-api-version" => &mut fields.version,
                "hasleader" => &mut fields.leader,
                "token" => &mut fields.token,
                "authorization" => &mut fields.authorization,
                "grpcgateway-accept" => &mut fields.gateway,
                "traceparent" => &mut fields.traceparent,
                "tracestate" => &mut fields.tracestate,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        fields
    }

    fn gzip(&self) -> bool {
        self.encoding.is_some_and(|v| v.as_bytes() == b"gzip")
    }

    /// What a span is told of where its call comes from.
    fn origin(&self, visitor: &Visitor) -> Origin<'_> {
        let short = |value: &&HeaderValue| value.len() <= TRACE_MAX;
        Origin {
            server: visitor.local,
            traceparent: self.traceparent.filter(short).and_then(text),
            tracestate: self.tracestate.filter(short).and_then(text),
        }
    }

    /// The user that a certificate names. Who says that he is a gateway shows the gateway's, not a user's.
    fn common_name(&self, visitor: &Visitor) -> Option<String> {
        if self.gateway.is_some() { None } else { visitor.common_name.clone() }
    }

    fn wants_leader(&self) -> bool {
        self.leader.is_some_and(|v| v.as_bytes() == b"true")
    }

    fn caller(&self) -> Caller {
        // What is no text is no token of anybody's either.
        let token = self.token.or(self.authorization).map(|v| bare_token(text(v).unwrap_or_default()));
        Caller { token, ..Caller::default() }
    }
}

/// A token without the word that may stand before it.
pub fn bare_token(text: &str) -> String {
    text.strip_prefix("Bearer ").unwrap_or(text).to_owned()
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// `application/grpc`, with `+` or `;` and anything: what the answer carries too, in grpc-go's spelling. Else grpc-go's
/// answer to an HTTP/2 request that is none of its.
pub(crate) fn grpc_content_type(value: Option<&HeaderValue>) -> Result<HeaderValue, Status> {
    if value.is_some_and(|v| v.as_bytes() == GRPC.as_bytes()) {
        return Ok(GRPC);
    }
    let given = value.and_then(text).unwrap_or("");
    let lower = given.to_ascii_lowercase();
    let spelled = match lower.strip_prefix("application/grpc").map(|rest| rest.split_at_checked(1)) {
        Some(None) => Some(GRPC),
        Some(Some(("+" | ";", subtype))) => HeaderValue::from_str(&format!("application/grpc+{subtype}")).ok(),
        _ => None,
    };
    spelled.ok_or_else(|| Status::invalid_argument(format!("invalid gRPC request content-type {given:?}")))
}

/// The method of `/service/method`.
pub(crate) fn find<M: Member>(path: &str) -> Result<&'static Method<M>, Status> {
    numbered(path).map(|(_, method)| method)
}

/// The same with its number among the methods of all services.
fn numbered<M: Member>(path: &str) -> Result<(usize, &'static Method<M>), Status> {
    let name = path.strip_prefix('/').unwrap_or(path).rsplit_once('/');
    let Some((service, method)) = name else {
        return Err(Status::unimplemented(format!("malformed method name: {path:?}")));
    };
    let mut before = 0;
    let known = Service::<M>::ALL.iter().find(|known| {
        let found = known.name == service;
        before += if found { 0 } else { known.methods.len() };
        found
    });
    let Some(known) = known else { return Err(Status::unimplemented(format!("unknown service {service}"))) };
    let unknown = || Status::unimplemented(format!("unknown method {method} for service {service}"));
    let at = known.methods.iter().position(|known| known.name == method).ok_or_else(unknown)?;
    Ok((before + at, &known.methods[at]))
}

/// An encoding that is known, a method that learners have, a valid client version, a leader where one is asked for.
fn check<M: Member>(port: &Port<M>, method: &Method<M>, fields: &Fields<'_>) -> Result<(), Status> {
    if let Some(encoding) = fields.encoding
        && !matches!(encoding.as_bytes(), b"gzip" | b"identity")
    {
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{encoding}\"");
        return Err(Status::unimplemented(text));
    }
    if !method.learner && port.services.0.is_learner() {
        return Err(status(&api::Error::NotSupportedForLearner));
    }
    if fields.version.is_some_and(|v| std::str::from_utf8(v.as_bytes()).is_err()) {
        return Err(status(&api::Error::InvalidClientAPIVersion));
    }
    if fields.wants_leader() && !*port.services.0.leader_known().borrow() {
        return Err(status(&api::Error::NoLeader));
    }
    Ok(())
}

/// `grpc-timeout`: at most eight digits and a unit. Errors are grpc-go's.
///
/// # Errors
/// grpc-go's text.
pub fn deadline(value: Option<&HeaderValue>) -> Result<Option<Duration>, String> {
    let Some(value) = value else { return Ok(None) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_meter() {
        use crate::call::tests::Fake;
        let names: Vec<_> = crate::decoders::methods::<Fake>();
        assert_eq!(calls::names(), names);
        for (number, name) in names.iter().enumerate() {
            let (found, method) = numbered::<Fake>(name).unwrap();
            assert_eq!(found, number);
            let kind = match method.kind {
                Kind::Asked(_) | Kind::Served(_) => "unary",
                Kind::Many(_) => "server_stream",
                Kind::Both(_) => "bidi_stream",
            };
            assert_eq!(calls::kind(number), kind, "{name}");
        }
    }

    #[test]
    fn timeouts_have_at_most_eight_digits_and_a_unit() {
        let parse = |text: &'static str| deadline(Some(&HeaderValue::from_bytes(text.as_bytes()).unwrap()));
        assert_eq!(parse("5S"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(parse("1500m"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(parse("99999999H"), Ok(Some(Duration::from_secs(99_999_999 * 3600))));
        assert_eq!(deadline(None), Ok(None));
        for bad in ["", "S", "5x", "123456789S", "+5S", "-5S", "1 S", "\u{e9}"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn content_types_are_answered_in_grpc_gos_spelling() {
        let spelled = |text: &str| grpc_content_type(Some(&HeaderValue::from_str(text).unwrap()));
        for (given, answered) in [
            ("application/grpc", "application/grpc"),
            ("Application/gRPC", "application/grpc"),
            ("application/grpc+Proto", "application/grpc+proto"),
            ("application/grpc;proto", "application/grpc+proto"),
        ] {
            assert_eq!(spelled(given).unwrap(), answered);
        }
        for bad in ["", "application/grpcs", "text/plain"] {
            let text = format!("invalid gRPC request content-type {bad:?}");
            assert_eq!(spelled(bad).unwrap_err().message(), text);
        }
    }

    #[test]
    fn a_gateways_certificate_names_nobody() {
        let visitor = Visitor { common_name: Some("etcd".into()), ..Visitor::default() };
        let mut headers = HeaderMap::new();
        assert_eq!(Fields::of(&headers).common_name(&visitor).as_deref(), Some("etcd"));
        headers.insert("grpcgateway-accept", HeaderValue::from_static("*/*"));
        assert_eq!(Fields::of(&headers).common_name(&visitor), None);
    }

    #[test]
    fn headers_of_traces_are_short() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static("00-1-2-01"));
        headers.insert("tracestate", HeaderValue::from_str(&"a=b,".repeat(1000)).unwrap());
        let fields = Fields::of(&headers);
        let origin = fields.origin(&Visitor::default());
        assert_eq!((origin.traceparent, origin.tracestate), (Some("00-1-2-01"), None));
    }

    #[test]
    fn of_a_field_that_comes_twice_the_first_counts() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("token", "one"), ("token", "two"), ("authorization", "Bearer three")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(Fields::of(&headers).caller().token.as_deref(), Some("one"));
        headers.remove("token");
        assert_eq!(Fields::of(&headers).caller().token.as_deref(), Some("three"));
    }
}
