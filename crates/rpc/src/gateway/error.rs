//! gRPC's errors as HTTP has them (grpc-gateway's `HTTPStatusFromCode`, google.rpc.Status).

use crate::answers::Body;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use tonic::{Code, Status};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Canceled: nginx's number, which has no name.
const CLIENT_CLOSED_REQUEST: u16 = 499;

pub(crate) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST),
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// `{"code":N,"message":"…"}`; an empty message is left out.
fn told(why: &Status) -> serde_json::Value {
    match why.message() {
        "" => json!({"code": why.code() as i32}),
        message => json!({"code": why.code() as i32, "message": message}),
    }
}

/// The answer of a call that failed.
pub(crate) fn refused(why: &Status) -> Response<Body> {
    let mut response = with(http_status(why.code()), told(why).to_string());
    if why.code() == Code::Unauthenticated
        && let Ok(message) = HeaderValue::from_str(why.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, message);
    }
    response
}

/// A call that is none: `code` is gRPC's for `status`, as grpc-gateway's routing has it.
pub(crate) fn no_route(status: StatusCode, code: Code, message: &str) -> Response<Body> {
    with(status, told(&Status::new(code, message)).to_string())
}

/// A stream that failed before its first message.
pub(crate) fn refused_stream(why: &Status) -> Response<Body> {
    with(http_status(why.code()), line(why))
}

/// The end of a stream that failed: its last line.
pub(crate) fn line(why: &Status) -> String {
    let json = json!({"error": told(why)}).to_string();
    let escaped = super::json::escape_html(json.into_bytes());
    // Escapes only stand for text.
    String::from_utf8_lossy(&escaped).into_owned() + "\n"
}

fn with(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::Text(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_code_and_message_and_no_details() {
        assert_eq!(line(&Status::out_of_range("a < b")), "{\"error\":{\"code\":11,\"message\":\"a \\u003c b\"}}\n");
        assert_eq!(told(&Status::unknown("")).to_string(), r#"{"code":2}"#);
        assert_eq!(http_status(Code::Cancelled).as_u16(), 499);
        let response = refused(&Status::unauthenticated("etcdserver: invalid auth token"));
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["www-authenticate"], "etcdserver: invalid auth token");
    }
}
