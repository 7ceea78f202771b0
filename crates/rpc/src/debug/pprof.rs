//! `/debug/pprof/…`, as Go's net/http/pprof has it: profiles that `go tool pprof` reads. Of what is named after Go's runtime
//! there is what this program has: threads for goroutines, jemalloc's samples for the heap. What it does not measure is
//! said to be missing rather than shown as empty.

use crate::answers::Body;
use crate::gateway::elsewhere;
use crate::health::pairs;
use crate::plain::{answer, error, said};
use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use profile::cpu::Sampling;
use profile::heap::{First, Heap};
use profile::{symbols, threads};
use std::fmt::Write as _;
use std::time::Duration;

/// How long processors are watched unless said otherwise, and at most: samples are kept until the end. Seconds.
const DEFAULT_S: u64 = 30;
const MAX_S: u64 = 3600;
/// Bytes of addresses whose names are asked for.
const ADDRESSES_MAX: usize = 1 << 20;

/// Names and what they stand for.
const PROFILES: [(&str, &str); 7] = [
    ("allocs", "A sampling of all memory allocations since the start"),
    ("cmdline", "The command line of this program"),
    ("goroutine", "The threads of this program, without their stacks"),
    ("heap", "A sampling of the memory that is held"),
    ("profile", "Processor time. Its duration stands in the GET parameter seconds"),
    ("symbol", "Names of functions for addresses, given in a query or a body, separated by plus signs"),
    ("threadcreate", "The threads of this program, without their stacks"),
];

/// Go has them; here nothing measures them.
const MISSING: [&str; 3] = ["block", "mutex", "trace"];

type Answer = Result<Response<Body>, (StatusCode, String)>;

/// Answers one.
pub(super) async fn serve(name: &str, query: &str, body: Incoming) -> Response<Body> {
    let outcome = match name {
        "" => Ok(index()),
        "cmdline" => Ok(said(StatusCode::OK, std::env::args().collect::<Vec<_>>().join("\0"))),
        "symbol" => symbol(query, body).await,
        "profile" => processors(query).await,
        "heap" => heap(name, First::Held, query).await,
        "allocs" => heap(name, First::Allocated, query).await,
        "goroutine" | "threadcreate" => listed(name, query),
        name if MISSING.contains(&name) => {
            let text = format!("oxetcd does not measure what Go's profile {name} shows: see docs/COMPAT.md");
            Err((StatusCode::NOT_IMPLEMENTED, text))
        }
        _ => Err((StatusCode::NOT_FOUND, "Unknown profile".to_owned())),
    };
    let mut response = outcome.unwrap_or_else(|(code, why)| error(code, why));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn index() -> Response<Body> {
    let mut page = String::from(
        "<html>\n<head><title>/debug/pprof/</title></head>\n<body>\n/debug/pprof/\n<br>\n\
         <p>Set debug=1 as a query parameter to read a profile as text</p>\n<br>\nTypes of profiles available:\n<ul>\n",
    );
    for (name, meaning) in PROFILES {
        // Writing to a String can't fail.
        let _ = writeln!(page, "<li><a href='{name}?debug=1'>{name}</a>: {meaning}</li>");
    }
    page += "</ul>\n</body>\n</html>\n";
    answer(StatusCode::OK, HeaderValue::from_static("text/html; charset=utf-8"), page)
}

/// A parameter that is a number; 0 where it is absent or none, as in Go.
fn number(query: &str, name: &str) -> u64 {
    let given = pairs(query).into_iter().find(|(key, _)| key == name);
    given.and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn download(name: &'static str, profile: Vec<u8>) -> Response<Body> {
    let mut response = answer(StatusCode::OK, HeaderValue::from_static("application/octet-stream"), profile);
    let file = match name {
        "allocs" => "attachment; filename=\"allocs\"",
        "heap" => "attachment; filename=\"heap\"",
        "goroutine" => "attachment; filename=\"goroutine\"",
        "threadcreate" => "attachment; filename=\"threadcreate\"",
        _ => "attachment; filename=\"profile\"",
    };
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static(file));
    response
}

/// Watches processors. Who goes away ends it.
async fn processors(query: &str) -> Answer {
    let seconds = match number(query, "seconds") {
        0 => DEFAULT_S,
        seconds if seconds > MAX_S => {
            return Err((StatusCode::BAD_REQUEST, format!("seconds={seconds}: a profile may last {MAX_S} s")));
        }
        seconds => seconds,
    };
    let failed = |why: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("Could not enable CPU profiling: {why}"));
    let sampling = Sampling::start().map_err(failed)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let samples = sampling.finish().map_err(failed)?;
    let profile = elsewhere(move || Ok(samples.into_profile().into_bytes())).await.map_err(failed)?;
    Ok(download("profile", profile))
}

async fn heap(name: &str, first: First, query: &str) -> Answer {
    lasting(name, query)?;
    let as_text = number(query, "debug") > 0;
    let work = move || {
        let heap = Heap::now()?;
        Ok(if as_text { heap.text().into_bytes() } else { heap.profile(first).into_bytes() })
    };
    let made = elsewhere(work).await.map_err(|why| (StatusCode::INTERNAL_SERVER_ERROR, why))?;
    let name = if first == First::Held { "heap" } else { "allocs" };
    Ok(if as_text { said(StatusCode::OK, made) } else { download(name, made) })
}

fn listed(name: &str, query: &str) -> Answer {
    lasting(name, query)?;
    let failed = |e: std::io::Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("/proc: {}", go::os_text(&e)));
    let threads = threads::all().map_err(failed)?;
    let name = if name == "goroutine" { "goroutine" } else { "threadcreate" };
    Ok(match number(query, "debug") > 0 {
        true => said(StatusCode::OK, threads::text(name, &threads)),
        false => download(name, threads::profile(name, &threads).into_bytes()),
    })
}

/// Go's profiles of what changed meanwhile: `go tool pprof -base` takes two of ours.
fn lasting(name: &str, query: &str) -> Result<(), (StatusCode, String)> {
    if number(query, "seconds") == 0 {
        return Ok(());
    }
    let cure = format!("fetch two and compare them: go tool pprof -base first second (of {name})");
    Err((StatusCode::BAD_REQUEST, format!("\"seconds\" parameter is not supported for this profile: {cure}")))
}

/// As many answers as addresses that lie in functions.
async fn symbol(query: &str, body: Incoming) -> Answer {
    let asked = match query {
        "" => gathered(body).await?,
        query => Bytes::copy_from_slice(query.as_bytes()),
    };
    let work = move || {
        let mut text = String::from("num_symbols: 1\n");
        for address in addresses(&String::from_utf8_lossy(&asked)) {
            if let Some(name) = symbols::function_at(address) {
                let _ = writeln!(text, "{address:#x} {name}");
            }
        }
        Ok(text)
    };
    let text = elsewhere(work).await.map_err(|why| (StatusCode::INTERNAL_SERVER_ERROR, why))?;
    Ok(said(StatusCode::OK, text))
}

/// `0x55d0+0x55e8`: decimal or hexadecimal; what is no number is passed over, as in Go.
pub(crate) fn addresses(text: &str) -> impl Iterator<Item = usize> {
    text.split('+').filter_map(|word| {
        let word = word.trim();
        match word.strip_prefix("0x") {
            Some(digits) => usize::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        }
        .filter(|address| *address != 0)
    })
}

async fn gathered(body: Incoming) -> Result<Bytes, (StatusCode, String)> {
    let mut source = crate::gateway::Source::Http(body);
    let mut all = Vec::new();
    while let Some(piece) = source.next().await {
        if all.len() + piece.len() > ADDRESSES_MAX {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("addresses may take {ADDRESSES_MAX} bytes")));
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_others_passed_over() {
        let all: Vec<_> = addresses("0x10+17+x+0xfg+0+ 0x20\n+99999999999999999999").collect();
        assert_eq!(all, [16, 17, 32]);
    }

    #[test]
    fn numbers_of_a_query_are_zero_where_they_are_none() {
        assert_eq!(number("seconds=5&debug=1", "seconds"), 5);
        assert_eq!(number("seconds=abc", "seconds"), 0);
        assert_eq!(number("", "debug"), 0);
        assert_eq!(lasting("heap", "seconds=1").unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
