//! Pages for those who look into a member: profiles (`--enable-pprof`, and at debug level) and the calls and events that it
//! remembers (debug level alone). Who may reach the client port over HTTP may read them, as in Go.

mod events;
mod history;
mod html;
mod pprof;
pub(crate) mod requests;

use crate::answers::Body;
use crate::plain::{self, Web};
use http::Response;
use http::{Request, StatusCode};
use hyper::body::Incoming;

/// As of now, calls are remembered for `/debug/requests`.
pub(crate) use requests::remember;

/// Whether a query asks for something, for the fuzzer.
pub(crate) fn understands(query: &str) -> bool {
    pprof::addresses(query).count() + usize::from(html::Asked::of(query).list.is_some()) > 0
}

/// Answers what lies below `/debug/pprof/` of a proxy; `None` of anything else.
pub async fn profiles(
    request: Request<Incoming>,
) -> Option<Response<impl http_body::Body<Data = bytes::Bytes, Error = std::convert::Infallible>>> {
    let web = Web { profiles: true, ..Web::default() };
    let path = request.uri().path().to_owned();
    if path != "/debug/pprof" && !path.starts_with("/debug/pprof/") {
        return None;
    }
    Some(serve(&web, &path, request).await)
}

/// Answers what lies below `/debug/`, but for `/debug/vars`.
pub(crate) async fn serve(web: &Web, path: &str, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    match path {
        "/debug/requests" if web.traces => html::page(requests::page(&html::Asked::of(&query))),
        "/debug/events" if web.traces => html::page(events::page(&html::Asked::of(&query))),
        "/debug/pprof" if web.profiles => plain::below(request.method(), "/debug/pprof/"),
        _ => match path.strip_prefix("/debug/pprof/").filter(|_| web.profiles) {
            Some(name) => pprof::serve(name, &query, request.into_body()).await,
            None => plain::error(StatusCode::NOT_FOUND, "404 page not found"),
        },
    }
}
