//! etcd's HTTP/JSON gateway, `POST /v3/…` (reference/http.md section 6): the same calls as gRPC, made inside the process.
//!
//! ```text
//! body ─► values ─► json::decode_request ─► dispatch::grpc ─► answer ─► json::encode_answer ─► body
//! websocket ─┘      (one, or each of a stream)   (rules, limits and metrics of every other call)
//! ```
//!
//! Go's gateway dials its own server; here the call is handed over as it is, with the same headers.

mod answer;
mod error;
mod json;
mod routes;
mod source;
mod values;
mod websocket;

pub(crate) use answer::elsewhere;
pub(crate) use json::{decode_request, encode_answer, messages_of};
pub(crate) use source::{Requests, Source};
pub(crate) use websocket::{is_upgrade, upgrade};

use crate::answers::Body;
use crate::backend::Member;
use crate::dispatch::{self, Port, Visitor};
use crate::methods::Kind;
use bytes::Bytes;
use error::{no_route, refused};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use prost_reflect::MessageDescriptor;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Code, Status};
pub(crate) use values::Scanner;
use values::{Unread, Values};

/// A request's JSON may have so many times the bytes that its message may: base64 takes a third more, names and spaces
/// the rest. What is read of it takes several times that in memory, for as long as it takes to read.
const JSON_TIMES: usize = 2;
/// Requests of a stream that are read ahead.
const AHEAD: usize = 1;
/// Messages' own prefix for headers that become metadata.
const METADATA: &str = "grpc-metadata-";

/// A request to the gateway, without its body.
pub(crate) struct Asked {
    pub method: Method,
    /// Its path, decoded.
    pub path: String,
    pub headers: HeaderMap,
}

/// Answers a request.
pub(crate) async fn serve<M: Member>(port: Arc<Port<M>>, asked: Asked, mut source: Source) -> Response<Body> {
    let Some(path) = routes::method_of(&asked.path) else {
        source.spend().await;
        return no_route(StatusCode::NOT_FOUND, Code::NotFound, "Not Found");
    };
    let method = match overridden(&asked) {
        Some(method) => {
            // Go reads the form, and so the body, before it looks further.
            source = Source::pieces([]);
            method
        }
        None => asked.method.clone(),
    };
    if method != Method::POST {
        source.spend().await;
        return no_route(StatusCode::NOT_IMPLEMENTED, Code::Unimplemented, "Method Not Allowed");
    }
    let known = json::messages_of(path).zip(dispatch::find::<M>(path).ok());
    let Some(((input, output), method)) = known else {
        source.spend().await;
        return no_route(StatusCode::NOT_FOUND, Code::NotFound, "Not Found");
    };
    let head = match head_of(path, &asked.headers) {
        Ok(head) => head,
        Err(why) => {
            source.spend().await;
            return refused(&why);
        }
    };
    let limit = port.limits.max_message().saturating_mul(JSON_TIMES);
    let mut values = Values::new(source, limit);
    let requests = match &method.kind {
        Kind::Both(_) => {
            let (out, requests) = mpsc::channel(AHEAD);
            tokio::spawn(pass_on(values, input, out));
            Requests::Many(requests)
        }
        Kind::Asked(_) | Kind::Served(_) | Kind::Many(_) => match first(&mut values, input).await {
            Ok(message) => Requests::One(Some(message)),
            Err(why) => return refused(&why),
        },
    };
    let call = dispatch::grpc(&port, &Visitor::default(), head, |()| requests);
    let response = match call.await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    match method.kind.is_stream() {
        true => answer::stream(output, response).await,
        false => answer::unary(output, response).await,
    }
}

/// What `X-HTTP-Method-Override` makes of a form's POST (grpc-gateway honours it for nothing else).
fn overridden(asked: &Asked) -> Option<Method> {
    let form = asked.headers.get(CONTENT_TYPE).is_some_and(|v| v == "application/x-www-form-urlencoded");
    let named = asked.headers.get("x-http-method-override").filter(|v| !v.is_empty())?;
    let method = || Method::from_bytes(named.to_str().ok()?.to_ascii_uppercase().as_bytes()).ok();
    (form && asked.method == Method::POST).then(method).flatten()
}

/// The request of a call that has one; an empty body is an empty message.
async fn first(values: &mut Values, kind: MessageDescriptor) -> Result<Bytes, Status> {
    let value = match values.next().await {
        Ok(value) => value.unwrap_or_else(|| Bytes::from_static(b"{}")),
        Err(Unread::TooLarge(limit)) => {
            let text = format!("oxetcd: the JSON of a request may have {limit} bytes: see --max-request-bytes");
            return Err(Status::resource_exhausted(text));
        }
    };
    decoded(kind, value).await.map_err(Status::invalid_argument)
}

async fn decoded(kind: MessageDescriptor, value: Bytes) -> Result<Bytes, String> {
    match value.len() > answer::HERE_MAX {
        true => answer::elsewhere(move || decode_request(&kind, &value)).await,
        false => decode_request(&kind, &value),
    }
}

/// Hands a stream's requests on until they end, or the call does. As grpc-gateway: what can't be read ends them without a
/// word, and the stream goes on.
async fn pass_on(mut values: Values, kind: MessageDescriptor, out: mpsc::Sender<Bytes>) {
    loop {
        let value = tokio::select! {
            value = values.next() => value,
            () = out.closed() => return,
        };
        let Ok(Some(value)) = value else { return };
        let Ok(message) = decoded(kind.clone(), value).await else { return };
        if out.send(message).await.is_err() {
            return;
        }
    }
}

/// The call's head: what of the request's becomes metadata that etcd knows.
fn head_of(path: &'static str, headers: &HeaderMap) -> Result<Request<()>, Status> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = http::Uri::from_static(path);
    *head.version_mut() = http::Version::HTTP_2;
    let fields = head.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    if let Some(token) = headers.get(AUTHORIZATION) {
        fields.append(AUTHORIZATION, token.clone());
    }
    for (name, value) in headers {
        let known = |name: &&str| {
            ["token", "authorization", "hasleader", "client-api-version", "traceparent", "tracestate"].contains(name)
        };
        let name = name.as_str().strip_prefix(METADATA).filter(known);
        if let Some(name) = name.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()) {
            fields.append(name, value.clone());
        }
    }
    if let Some(timeout) = headers.get("grpc-timeout") {
        let known = dispatch::deadline(Some(timeout));
        let text = || format!("invalid grpc-timeout: {}", String::from_utf8_lossy(timeout.as_bytes()));
        known.map_err(|_| Status::invalid_argument(text()))?;
        fields.insert("grpc-timeout", timeout.clone());
    }
    Ok(head)
}
