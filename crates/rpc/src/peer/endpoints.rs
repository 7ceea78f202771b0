//! The small endpoints of the peer port: members, promotion, hashes, leases, downgrade, version (etcd `etcdhttp/peer.go`,
//! `leasehttp/http.go`, `corrupt.go`), and the JSON that both sides speak.

use super::check::{CLUSTER_ID, CLUSTER_ID_MISMATCH};
use super::local::{HashKv, LeaseInfo, LeaseRefusal, MemberInfo};
use super::serve::{Answer, Cut, Unread, Visit, error, not_allowed, plain};
use api::pb::etcdserverpb as pb;
use api::pb::leasepb;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::oneshot::error::RecvError;
use tokio::time::timeout;

/// What etcd's bodies say; callers look for these words.
pub(crate) const COMPACTED: &str = "mvcc: required revision has been compacted";
pub(crate) const FUTURE_REV: &str = "mvcc: required revision is a future revision";
pub(crate) const MEMBER_NOT_LEARNER: &str = "membership: can only promote a learner member";
pub(crate) const LEARNER_NOT_READY: &str = "etcdserver: can only promote a learner member which is in sync with leader";
const ID_NOT_FOUND: &str = "membership: ID not found";
const NOT_CAUGHT_UP: &str = "waiting for node to catch up its applied index has timed out";
const LEASE_NOT_FOUND: &str = "lease not found";
const NOT_PRIMARY: &str = "not a primary lessor";
/// etcd's v2 error for what it does not name.
const INTERNAL: &str = r#"{"message":"Internal Server Error"}"#;

/// Path before a member's decimal id.
pub(crate) const PROMOTE: &str = "/members/promote/";

/// Bytes of a lease request (etcd `maxLeaseHTTPRequestSize`), and of a hash request, which is shorter still.
const REQUEST_MAX: usize = 64 << 10;
/// How long a lease request waits until what is committed is applied (etcd `applyTimeout`).
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/protobuf");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

impl Visit {
    pub(crate) fn members(&self, request: &Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return not_allowed(Some("GET"));
        }
        self.signed(plain(StatusCode::OK, JSON, members_json(&self.shared.local.members())))
    }

    pub(crate) fn version(&self, request: &Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return not_allowed(Some("GET"));
        }
        let (cluster, storage) = self.shared.local.versions();
        let server = api::version::SERVER;
        let text = format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#);
        plain(StatusCode::OK, JSON, text)
    }

    pub(crate) async fn promote(&self, request: &Request<Incoming>) -> Answer {
        if request.method() != Method::POST {
            return not_allowed(Some("POST"));
        }
        let text = request.uri().path().trim_start_matches(PROMOTE);
        let Some(id) = parse_decimal(text) else {
            let why = format!("member {text} not found in cluster");
            return self.signed(error(StatusCode::NOT_FOUND, &why));
        };
        let token = request.headers().get(AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let outcome = self.shared.local.promote(id, token).await;
        self.signed(promoted(outcome))
    }

    pub(crate) async fn hash_kv(&mut self, request: Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return not_allowed(Some("GET"));
        }
        let theirs = request.headers().get(CLUSTER_ID).filter(|id| !id.is_empty());
        if theirs.is_some_and(|id| *id != self.shared.cluster) {
            return error(StatusCode::PRECONDITION_FAILED, CLUSTER_ID_MISMATCH);
        }
        let Ok(body) = self.read(request.into_body(), REQUEST_MAX).await else {
            return error(StatusCode::BAD_REQUEST, "error reading body");
        };
        let Some(revision) = parse_hash_kv_request(&body) else {
            return error(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.shared.local.hash_kv(revision).await {
            Ok(Ok(hash)) => self.signed(plain(StatusCode::OK, JSON, hash_kv_json(&hash))),
            Ok(Err(api::Error::Compacted)) => error(StatusCode::BAD_REQUEST, COMPACTED),
            Ok(Err(api::Error::FutureRev)) => error(StatusCode::BAD_REQUEST, FUTURE_REV),
            Ok(Err(why)) => error(StatusCode::BAD_REQUEST, why.message()),
            Err(RecvError { .. }) => error(StatusCode::BAD_REQUEST, api::Error::Stopped.message()),
        }
    }

    pub(crate) async fn downgrade_enabled(&self, request: &Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return not_allowed(Some("GET"));
        }
        let failed = |why: &str| error(StatusCode::INTERNAL_SERVER_ERROR, &format!("failed linearized read: {why}"));
        self.signed(match self.shared.local.downgrade_enabled().await {
            Ok(Ok(enabled)) => plain(StatusCode::OK, TEXT, enabled.to_string()),
            Ok(Err(why)) => failed(&why),
            Err(RecvError { .. }) => failed(api::Error::Stopped.message()),
        })
    }

    pub(crate) async fn lease_renewal(&mut self, request: Request<Incoming>) -> Result<Answer, Cut> {
        let id = match self.lease_request(request, |b| pb::LeaseKeepAliveRequest::decode(b).map(|r| r.id)).await? {
            Ok(id) => id,
            Err(refused) => return Ok(refused),
        };
        let renewed = in_time(self.shared.local.renew_lease(id)).await;
        Ok(lease_answer(renewed.map(|ttl| pb::LeaseKeepAliveResponse { header: None, id, ttl }.encode_to_vec())))
    }

    pub(crate) async fn lease_lookup(&mut self, request: Request<Incoming>) -> Result<Answer, Cut> {
        let decode = |b| leasepb::LeaseInternalRequest::decode(b).map(|r| r.lease_time_to_live_request);
        let asked = match self.lease_request(request, decode).await? {
            Ok(asked) => asked.unwrap_or_default(),
            Err(refused) => return Ok(refused),
        };
        let found = in_time(self.shared.local.lease_time_to_live(asked.id, asked.keys)).await;
        Ok(lease_answer(found.map(|lease| lease_info(asked.id, lease))))
    }

    async fn lease_request<T>(
        &mut self,
        request: Request<Incoming>,
        decode: impl FnOnce(Bytes) -> Result<T, prost::DecodeError>,
    ) -> Result<Result<T, Answer>, Cut> {
        if request.method() != Method::POST {
            return Ok(Err(not_allowed(None)));
        }
        Ok(match self.read(request.into_body(), REQUEST_MAX).await {
            Ok(body) => decode(body).map_err(|_| error(StatusCode::BAD_REQUEST, "error unmarshalling request")),
            Err(Unread::TooLong) => Err(error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")),
            Err(Unread::Cut(_)) => Err(error(StatusCode::BAD_REQUEST, "error reading body")),
        })
    }
}

fn promoted(outcome: Result<Result<Vec<MemberInfo>, api::Error>, RecvError>) -> Answer {
    match outcome {
        Ok(Ok(members)) => plain(StatusCode::OK, JSON, members_json(&members)),
        Ok(Err(api::Error::MemberNotFound)) => error(StatusCode::NOT_FOUND, ID_NOT_FOUND),
        Ok(Err(api::Error::MemberNotLearner)) => error(StatusCode::PRECONDITION_FAILED, MEMBER_NOT_LEARNER),
        Ok(Err(api::Error::LearnerNotReady)) => error(StatusCode::PRECONDITION_FAILED, LEARNER_NOT_READY),
        Ok(Err(_)) | Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, JSON, INTERNAL),
    }
}

async fn in_time<T>(answer: super::local::Awaited<Result<T, LeaseRefusal>>) -> Result<T, LeaseRefusal> {
    match timeout(APPLY_TIMEOUT, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(RecvError { .. })) => Err(LeaseRefusal::Other(api::Error::Stopped.message().to_owned())),
        Err(_) => Err(LeaseRefusal::NotCaughtUp),
    }
}

fn lease_info(id: i64, lease: LeaseInfo) -> Vec<u8> {
    let response = pb::LeaseTimeToLiveResponse {
        header: Some(pb::ResponseHeader::default()),
        id,
        ttl: lease.ttl,
        granted_ttl: lease.granted_ttl,
        keys: lease.keys,
    };
    leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(response) }.encode_to_vec()
}

fn lease_answer(outcome: Result<Vec<u8>, LeaseRefusal>) -> Answer {
    match outcome {
        Ok(bytes) => plain(StatusCode::OK, PROTOBUF, bytes),
        Err(LeaseRefusal::NotFound) => error(StatusCode::NOT_FOUND, LEASE_NOT_FOUND),
        Err(LeaseRefusal::NotCaughtUp) => error(StatusCode::REQUEST_TIMEOUT, NOT_CAUGHT_UP),
        Err(LeaseRefusal::NotPrimary) => error(StatusCode::BAD_REQUEST, NOT_PRIMARY),
        // A lessor that was demoted while it looked.
        Err(LeaseRefusal::Demoted) => error(StatusCode::INTERNAL_SERVER_ERROR, NOT_PRIMARY),
        Err(LeaseRefusal::Other(why)) => error(StatusCode::BAD_REQUEST, &why),
    }
}

/// Go's `strconv.ParseUint(text, 10, 64)`.
fn parse_decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

// ---- JSON ------------------------------------------------------------------------------------------------------

fn strings_json(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| go::json_string(text)).collect();
    format!("[{}]", quoted.join(","))
}

fn member_json(member: &MemberInfo) -> String {
    let mut text = format!(r#"{{"id":{},"peerURLs":{}"#, member.id, strings_json(&member.peer_urls));
    if member.is_learner {
        text += r#","isLearner":true"#;
    }
    if !member.name.is_empty() {
        text += &format!(r#","name":{}"#, go::json_string(&member.name));
    }
    if !member.client_urls.is_empty() {
        text += &format!(r#","clientURLs":{}"#, strings_json(&member.client_urls));
    }
    text + "}"
}

pub(crate) fn members_json(members: &[MemberInfo]) -> String {
    let members: Vec<String> = members.iter().map(member_json).collect();
    format!("[{}]\n", members.join(","))
}

/// `None`: no list of members.
pub(crate) fn parse_members(body: &[u8]) -> Option<Vec<MemberInfo>> {
    match serde_json::from_slice(body).ok()? {
        Value::Null => Some(Vec::new()),
        Value::Array(members) => members.iter().map(parse_member).collect(),
        _ => None,
    }
}

fn parse_member(json: &Value) -> Option<MemberInfo> {
    let member = json.as_object()?;
    Some(MemberInfo {
        id: member.get("id").map_or(Some(0), Value::as_u64)?,
        peer_urls: parse_strings(member.get("peerURLs"))?,
        is_learner: member.get("isLearner").map_or(Some(false), Value::as_bool)?,
        name: member.get("name").map_or(Some(""), Value::as_str)?.to_owned(),
        client_urls: parse_strings(member.get("clientURLs"))?,
    })
}

fn parse_strings(json: Option<&Value>) -> Option<Vec<String>> {
    match json {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(list) => list.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
    }
}

/// Go leaves zeros out.
pub(crate) fn hash_kv_request(revision: i64) -> String {
    if revision == 0 { "{}".to_owned() } else { format!(r#"{{"revision":{revision}}}"#) }
}

pub(crate) fn parse_hash_kv_request(body: &[u8]) -> Option<i64> {
    let json: Value = serde_json::from_slice(body).ok()?;
    integer(json.as_object()?.get("revision"))
}

fn integer(json: Option<&Value>) -> Option<i64> {
    json.map_or(Some(0), Value::as_i64)
}

pub(crate) fn hash_kv_json(hash: &HashKv) -> String {
    let fields = [
        ("hash", i64::from(hash.hash)),
        ("compact_revision", hash.compact_revision),
        ("hash_revision", hash.hash_revision),
    ];
    let rest: String = fields.iter().filter(|(_, n)| *n != 0).map(|(name, n)| format!(r#","{name}":{n}"#)).collect();
    format!(r#"{{"header":{}{rest}}}"#, hash_kv_request(hash.revision))
}

pub(crate) fn parse_hash_kv(body: &[u8]) -> Option<HashKv> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let fields = json.as_object()?;
    Some(HashKv {
        revision: integer(fields.get("header").and_then(|header| header.get("revision")))?,
        hash: u32::try_from(integer(fields.get("hash"))?).ok()?,
        compact_revision: integer(fields.get("compact_revision"))?,
        hash_revision: integer(fields.get("hash_revision"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_listed_as_go_lists_them() {
        let members = [
            MemberInfo {
                id: u64::MAX,
                peer_urls: vec!["http://a:1".into(), "http://b:1".into()],
                name: "m<1>".into(),
                client_urls: vec!["http://c:1".into()],
                is_learner: false,
            },
            MemberInfo { id: 2, peer_urls: vec!["http://d:1".into()], is_learner: true, ..MemberInfo::default() },
        ];
        let text = members_json(&members);
        assert_eq!(
            text,
            concat!(
                r#"[{"id":18446744073709551615,"peerURLs":["http://a:1","http://b:1"],"name":"m\u003c1\u003e","#,
                r#""clientURLs":["http://c:1"]},{"id":2,"peerURLs":["http://d:1"],"isLearner":true}]"#,
                "\n"
            )
        );
        assert_eq!(parse_members(text.as_bytes()), Some(members.to_vec()));
        assert_eq!(parse_members(b"null"), Some(vec![]));
        let nulls = br#"[{"id":1,"peerURLs":null}]"#;
        assert_eq!(parse_members(nulls), Some(vec![MemberInfo { id: 1, ..MemberInfo::default() }]));
        for bad in ["", "{}", "[1]", r#"[{"id":"1"}]"#, r#"[{"id":-1}]"#, r#"[{"id":1,"peerURLs":"x"}]"#] {
            assert_eq!(parse_members(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn hashes_have_the_bytes_of_go() {
        let hash = HashKv { revision: 9, hash: 3_868_138_104, compact_revision: -1, hash_revision: 9 };
        let text = r#"{"header":{"revision":9},"hash":3868138104,"compact_revision":-1,"hash_revision":9}"#;
        assert_eq!(hash_kv_json(&hash), text);
        assert_eq!(parse_hash_kv(text.as_bytes()), Some(hash));
        assert_eq!(hash_kv_json(&HashKv::default()), r#"{"header":{}}"#);
        assert_eq!(parse_hash_kv(br#"{"header":{}}"#), Some(HashKv::default()));
        assert_eq!(parse_hash_kv(b"{\"hash\":4294967296}"), None);
        assert_eq!(parse_hash_kv_request(b"{\"revision\":9}"), Some(9));
        assert_eq!(parse_hash_kv_request(b"{}"), Some(0));
        assert_eq!(parse_hash_kv_request(b""), None);
        assert_eq!(parse_hash_kv_request(b"{\"revision\":\"9\"}"), None);
    }
}
