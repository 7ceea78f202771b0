//! What is not gRPC.

use crate::answers::Body;
use crate::backend::Member;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The answer to a request of HTTP/1.
pub(crate) fn plain<M: Member, B>(member: &M, request: &Request<B>) -> Response<Body> {
    match request.uri().path() {
        "/version" if request.method() != Method::GET => {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        }
        "/version" => {
            let (cluster, storage) = member.versions();
            let text = format!(
                r#"{{"etcdserver":"{}","etcdcluster":"{cluster}","storage":"{storage}"}}"#,
                api::version::SERVER
            );
            answer(StatusCode::OK, JSON, text)
        }
        _ => answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
    }
}

fn answer(code: StatusCode, content_type: HeaderValue, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::Text(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
