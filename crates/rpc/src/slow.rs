//! `request stats`: the line of a unary call that took longer than `--warning-unary-request-duration`, and of every one at
//! debug level (etcd `logUnaryRequestStats`). And requests as etcd's log shows them: keys, but no values, no passwords.

use crate::metrics::calls::Counted;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use server::Response;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What etcd has for a figure that it does not know.
const UNKNOWN: i64 = -1;

/// What is remembered of a call until it is answered. References, so that calls stay small.
#[derive(Default)]
pub(crate) struct Remembered {
    remote: Option<Arc<SocketAddr>>,
    request: Bytes,
    answered: Answered,
}

/// What an answer says about its request: how many it found, whether a transaction's comparisons held, or nothing that is
/// shown. A number, so that calls stay small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answered(i64);

impl Answered {
    const OTHERWISE: Answered = Answered(i64::MIN);

    fn chosen(succeeded: bool) -> Answered {
        Answered(i64::from(succeeded))
    }

    fn count(self) -> i64 {
        if self == Answered::OTHERWISE { 0 } else { self.0 }
    }
}

impl Default for Answered {
    fn default() -> Answered {
        Answered::OTHERWISE
    }
}

/// The figures of a line, in its order: what was asked, its bytes, what was found.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    asked: i64,
    bytes: i64,
    found: i64,
    content: String,
}

impl Remembered {
    pub fn of(remote: Option<Arc<SocketAddr>>) -> Remembered {
        Remembered { remote, ..Remembered::default() }
    }

    pub fn request(&mut self, message: &Bytes) {
        self.request = message.clone();
    }

    pub fn answer(&mut self, answer: &Result<Response, api::Error>) {
        self.answered = match answer {
            Ok(Response::Range(r)) => Answered(r.count),
            Ok(Response::LargeRange(_)) => Answered(UNKNOWN),
            Ok(Response::Put(_)) => Answered(0),
            Ok(Response::DeleteRange(r)) => Answered(r.deleted),
            Ok(Response::Txn(r)) => Answered::chosen(r.succeeded),
            _ => Answered::OTHERWISE,
        };
    }

    /// The call has been answered with `bytes`, or with an error.
    pub fn tell(&self, counted: &Counted, slow: Duration, bytes: Option<u64>) {
        let took = counted.begun.elapsed();
        let slow = took > slow;
        if !slow && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let method = counted.method();
        let figures = figures(&method, &self.request, self.answered);
        let spent = go::format_duration(took);
        let start = jiff::Timestamp::now() - jiff::SignedDuration::try_from(took).unwrap_or_default();
        let start = start.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let remote = self.remote.as_ref().map_or_else(|| "No remote client info.".to_owned(), |r| r.to_string());
        let sent = match (figures.bytes, bytes) {
            (UNKNOWN, _) => UNKNOWN,
            (_, bytes) => i64::try_from(bytes.unwrap_or(0)).unwrap_or(i64::MAX),
        };
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    "start time" = start,
                    "time spent" = spent,
                    "remote" = remote,
                    "response type" = method,
                    "request count" = figures.asked,
                    "request size" = figures.bytes,
                    "response count" = figures.found,
                    "response size" = sent,
                    "request content" = figures.content,
                    "request stats"
                )
            };
        }
        // As etcd: at debug level all are told as that, the slow ones too.
        if tracing::enabled!(tracing::Level::DEBUG) { line!(debug) } else { line!(warn) }
    }
}

fn figures(method: &str, request: &Bytes, answered: Answered) -> Figures {
    let unknown = || Figures { asked: UNKNOWN, bytes: UNKNOWN, found: UNKNOWN, content: String::new() };
    let bytes = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
    let of = |asked, found, content| Figures { asked, bytes: bytes(request.len()), found, content };
    if method == "/etcdserverpb.KV/Txn" {
        return pb::TxnRequest::decode(request.clone()).map_or_else(|_| unknown(), |r| txn_figures(&r, answered));
    }
    let found = answered.count();
    shown(method, request).map_or_else(unknown, |content| of(i64::from(method.ends_with("Put")), found, content))
}

/// What is shown of a request; `None` of one that is none of the store's.
fn shown(method: &str, request: &Bytes) -> Option<String> {
    match method {
        "/etcdserverpb.KV/Range" => pb::RangeRequest::decode(request.clone()).map(|r| range_text(&r)),
        "/etcdserverpb.KV/Put" => pb::PutRequest::decode(request.clone()).map(|r| put_text(&r)),
        "/etcdserverpb.KV/DeleteRange" => pb::DeleteRangeRequest::decode(request.clone()).map(|r| delete_text(&r)),
        "/etcdserverpb.KV/Txn" => pb::TxnRequest::decode(request.clone()).map(|r| txn_text(&r)),
        _ => return None,
    }
    .ok()
}

/// The same, or how large it is.
pub(crate) fn content(method: &str, request: &Bytes) -> String {
    shown(method, request).unwrap_or_else(|| format!("{} bytes", request.len()))
}

/// Only the operations that were chosen count.
fn txn_figures(r: &pb::TxnRequest, answered: Answered) -> Figures {
    if answered == Answered::OTHERWISE {
        return Figures { asked: 0, bytes: 0, found: 0, content: String::new() };
    }
    let chosen = if answered == Answered::chosen(true) { &r.success } else { &r.failure };
    let bytes: usize = chosen.iter().map(prost::Message::encoded_len).sum();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Figures { asked: count(chosen.len()), bytes: count(bytes), found: 0, content: txn_text(r) }
}

/// Fields in protobuf's text form, those that are not set left out.
#[derive(Default)]
struct Text(String);

impl Text {
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        let space = if self.0.is_empty() { "" } else { " " };
        // Writing to a String can't fail.
        let _ = write!(self.0, "{space}{name}:{value}");
    }

    fn bytes(mut self, name: &str, value: &[u8]) -> Text {
        if !value.is_empty() {
            self.put(name, format_args!("\"{}\"", escaped(value)));
        }
        self
    }

    fn number(mut self, name: &str, value: i64) -> Text {
        if value != 0 {
            self.put(name, value);
        }
        self
    }

    fn flag(mut self, name: &str, value: bool) -> Text {
        if value {
            self.put(name, true);
        }
        self
    }

    fn choice(mut self, name: &str, value: i32, shown: &str) -> Text {
        if value != 0 {
            self.put(name, shown);
        }
        self
    }
}

/// As protobuf's text form quotes bytes.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            0x20..=0x7e => out.push(char::from(*byte)),
            other => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\{other:03o}");
            }
        }
    }
    out
}

/// A range as etcd's log shows it.
pub fn range_text(r: &pb::RangeRequest) -> String {
    Text::default()
        .bytes("key", &r.key)
        .bytes("range_end", &r.range_end)
        .number("limit", r.limit)
        .number("revision", r.revision)
        .choice("sort_order", r.sort_order, r.sort_order().as_str_name())
        .choice("sort_target", r.sort_target, r.sort_target().as_str_name())
        .flag("serializable", r.serializable)
        .flag("keys_only", r.keys_only)
        .flag("count_only", r.count_only)
        .number("min_mod_revision", r.min_mod_revision)
        .number("max_mod_revision", r.max_mod_revision)
        .number("min_create_revision", r.min_create_revision)
        .number("max_create_revision", r.max_create_revision)
        .0
}

/// The value's size stands for the value, which may be a secret.
fn put_text(r: &pb::PutRequest) -> String {
    let size = i64::try_from(r.value.len()).unwrap_or(i64::MAX);
    Text::default()
        .bytes("key", &r.key)
        .number("value_size", size)
        .number("lease", r.lease)
        .flag("prev_kv", r.prev_kv)
        .flag("ignore_value", r.ignore_value)
        .flag("ignore_lease", r.ignore_lease)
        .0
        + " "
}

fn delete_text(r: &pb::DeleteRangeRequest) -> String {
    Text::default().bytes("key", &r.key).bytes("range_end", &r.range_end).flag("prev_kv", r.prev_kv).0
}

/// A transaction as etcd's log shows it: without values.
pub fn txn_text(r: &pb::TxnRequest) -> String {
    let compares: Vec<String> = r.compare.iter().map(compare_text).collect();
    let ops = |ops: &[pb::RequestOp]| ops.iter().map(op_text).collect::<Vec<_>>().join(" ");
    format!("compare:<{}> success:<{}> failure:<{}>", compares.join(" "), ops(&r.success), ops(&r.failure))
}

fn compare_text(c: &pb::Compare) -> String {
    use pb::compare::TargetUnion;
    let text = Text::default()
        .choice("result", c.result, c.result().as_str_name())
        .choice("target", c.target, c.target().as_str_name())
        .bytes("key", &c.key);
    let text = match &c.target_union {
        Some(TargetUnion::Value(value)) => text.number("value_size", i64::try_from(value.len()).unwrap_or(i64::MAX)),
        Some(TargetUnion::Version(n)) => text.number("version", *n),
        Some(TargetUnion::CreateRevision(n)) => text.number("create_revision", *n),
        Some(TargetUnion::ModRevision(n)) => text.number("mod_revision", *n),
        Some(TargetUnion::Lease(n)) => text.number("lease", *n),
        None => text,
    };
    text.bytes("range_end", &c.range_end).0
}

fn op_text(op: &pb::RequestOp) -> String {
    use pb::request_op::Request;
    match &op.request {
        Some(Request::RequestRange(r)) => format!("request_range:<{}>", range_text(r)),
        Some(Request::RequestPut(r)) => format!("request_put:<{}>", put_text(r)),
        Some(Request::RequestDeleteRange(r)) => format!("request_delete_range:<{}>", delete_text(r)),
        Some(Request::RequestTxn(r)) => format!("request_txn:<{}>", txn_text(r)),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_shown_as_in_etcds_log_and_without_values() {
        let put = pb::PutRequest { key: "a".into(), value: "secret".into(), lease: 7, ..Default::default() };
        assert_eq!(put_text(&put), "key:\"a\" value_size:6 lease:7 ");
        let range = pb::RangeRequest { key: "\"\u{1}".into(), limit: 2, keys_only: true, ..Default::default() };
        assert_eq!(range_text(&range), "key:\"\\\"\\001\" limit:2 keys_only:true");
        let compare = pb::Compare {
            key: "k".into(),
            target: pb::compare::CompareTarget::Value as i32,
            target_union: Some(pb::compare::TargetUnion::Value("secret".into())),
            ..Default::default()
        };
        let op = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
        let txn = pb::TxnRequest { compare: vec![compare], success: vec![op], failure: Vec::new() };
        let text = "compare:<target:VALUE key:\"k\" value_size:6> success:<request_put:<key:\"a\" value_size:6 lease:7 >> failure:<>";
        assert_eq!(txn_text(&txn), text);
        let figures = figures("/etcdserverpb.KV/Txn", &txn.encode_to_vec().into(), Answered::chosen(true));
        assert_eq!((figures.asked, figures.found, figures.content.as_str()), (1, 0, text));
    }

    #[test]
    fn figures_are_of_what_the_store_answers_and_of_nothing_else() {
        let password = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
        let shown = figures("/etcdserverpb.Auth/Authenticate", &password.encode_to_vec().into(), Answered::OTHERWISE);
        assert_eq!(shown, Figures { asked: -1, bytes: -1, found: -1, content: String::new() });
        let range = Bytes::from(pb::RangeRequest { key: "a".into(), ..Default::default() }.encode_to_vec());
        let shown = figures("/etcdserverpb.KV/Range", &range, Answered(5));
        assert_eq!(shown, Figures { asked: 0, bytes: 3, found: 5, content: "key:\"a\"".into() });
    }
}
