//! `apply request took too long`: what takes longer than `--warning-apply-duration` (etcd `txn.WarnOfExpensive…`).

use rpc::metrics;
use server::{Request, Response};
use std::time::Duration;
use tracing::warn;

/// Tells of a read that took long.
pub fn read(request: &Request, outcome: Result<&Response, String>, took: Duration, slow: Duration) {
    if took <= slow {
        return;
    }
    let (prefix, text) = match request {
        Request::Range(r) => ("read-only range ", rpc::range_text(r)),
        Request::Txn(r) => ("read-only txn ", rpc::txn_text(r)),
        _ => return,
    };
    let response = outcome.as_ref().map_or_else(|_| String::new(), |response| found(response));
    tell(prefix, &text, &response, outcome.err(), took, slow);
    metrics::SLOW_APPLY.inc();
}

/// Tells of entries that took `each` so long, as equal parts of their batch; up to `index`.
pub fn entries(count: u64, index: u64, each: Duration, slow: Duration) {
    let first = (index + 1).saturating_sub(count);
    let text = if count == 1 { format!("entry {index}") } else { format!("entries {first} to {index}, each") };
    tell("", &text, "", None, each, slow);
    metrics::SLOW_APPLY.add(count);
}

fn tell(prefix: &str, request: &str, response: &str, error: Option<String>, took: Duration, slow: Duration) {
    let (took, slow) = (go::format_duration(took), go::format_duration(slow));
    let text = "apply request took too long";
    match error {
        None => warn!(took, "expected-duration" = slow, prefix, request, response, "{text}"),
        Some(error) => warn!(took, "expected-duration" = slow, prefix, request, response, error, "{text}"),
    }
}

fn found(response: &Response) -> String {
    use prost::Message as _;
    match response {
        Response::Range(r) => format!("range_response_count:{} size:{}", r.kvs.len(), r.encoded_len()),
        Response::LargeRange(r) => format!("size:{}", r.len()),
        Response::Txn(r) => format!("responses:{} size:{}", r.responses.len(), r.encoded_len()),
        _ => String::new(),
    }
}
