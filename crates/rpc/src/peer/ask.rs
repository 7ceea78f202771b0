//! What a member asks of others' peer ports outside of raft: who is in the cluster, versions, and what it forwards to
//! the leader (etcd `cluster_util.go`, `leasehttp`, `corrupt.go`).
//!
//! Each function asks one URL once, within a time; which URLs and how often is the caller's rule.

use super::check::{CLUSTER_ID_MISMATCH, parse_hex};
use super::endpoints::{self, COMPACTED, FUTURE_REV, LEARNER_NOT_READY, MEMBER_NOT_LEARNER};
use super::http::{ANSWER_MAX, Dialer, Line, Sending, whole};
use super::io::Connector;
use super::local::{HashKv, LeaseInfo, MemberInfo};
use super::url::Url;
use api::pb::etcdserverpb as pb;
use api::pb::leasepb;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use prost::Message as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of an answer about a lease, which may have many keys (etcd `maxLeaseHTTPResponseSize`).
const LEASE_ANSWER_MAX: usize = 100 << 20;
/// Bytes of a list of members.
const MEMBERS_MAX: usize = 16 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody there, too late, or not an answer. Another URL may do.
    Failed(String),
    /// The member's refusal, by etcd's table.
    Refused(api::Error),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::Failed(why) => f.write_str(why),
            Unanswered::Refused(why) => f.write_str(why.message()),
        }
    }
}
impl std::error::Error for Unanswered {}

impl From<String> for Unanswered {
    fn from(why: String) -> Self {
        Unanswered::Failed(why)
    }
}

/// How others are asked.
#[derive(Clone)]
pub struct Asker {
    pub connector: Arc<dyn Connector>,
    /// For a connection.
    pub dial_timeout: Duration,
    /// For the whole exchange.
    pub timeout: Duration,
}

/// A `/version` answer. Absent keys are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub server: String,
    pub cluster: String,
    pub storage: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn unknown(&self, what: &str) -> Unanswered {
        Unanswered::Failed(format!("{what}({})", self.text()))
    }
}

impl Asker {
    async fn ask(&self, url: &Url, request: Request<Sending>, max: usize) -> Result<Answer, Unanswered> {
        let dialer = Dialer { connector: self.connector.clone(), timeout: self.dial_timeout };
        let mut line = Line::new(dialer, None, None);
        let exchange = async {
            let (head, body) = line.ask(url, request).await?.into_parts();
            let body = whole(body, max).await?;
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(format!("{url}: request timed out").into()))
    }
}

fn request(method: Method, path: &str, body: Sending) -> Result<Request<Sending>, Unanswered> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::try_from(path).map_err(|e| e.to_string())?;
    Ok(request)
}

fn with(mut request: Request<Sending>, name: HeaderName, value: &str) -> Result<Request<Sending>, Unanswered> {
    let value = HeaderValue::from_str(value).map_err(|e| e.to_string())?;
    request.headers_mut().insert(name, value);
    Ok(request)
}

/// `GET /members`: the cluster's id and its members. A list without members is no answer.
///
/// # Errors
/// See [`Unanswered`].
pub async fn members(asker: &Asker, url: &Url) -> Result<(u64, Vec<MemberInfo>), Unanswered> {
    let answer = asker.ask(url, request(Method::GET, "/members", Sending::nothing())?, MEMBERS_MAX).await?;
    let members = endpoints::parse_members(&answer.body).ok_or_else(|| answer.unknown("no list of members"))?;
    let cluster = answer.headers.get(super::check::CLUSTER_ID).and_then(|v| parse_hex(v.to_str().ok()?));
    match (cluster, members.is_empty()) {
        (Some(cluster), false) => Ok((cluster, members)),
        (None, _) => Err(answer.unknown("no cluster ID")),
        (_, true) => Err("failed to get raft cluster member(s) from the given URLs".to_owned().into()),
    }
}

/// `GET /version`.
///
/// # Errors
/// See [`Unanswered`].
pub async fn versions(asker: &Asker, url: &Url) -> Result<Versions, Unanswered> {
    let answer = asker.ask(url, request(Method::GET, "/version", Sending::nothing())?, ANSWER_MAX).await?;
    let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{url}/version: {e}"))?;
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    match json.is_object() {
        true => Ok(Versions { server: text("etcdserver"), cluster: text("etcdcluster"), storage: text("storage") }),
        false => Err(answer.unknown("no versions")),
    }
}

/// `GET /downgrade/enabled`.
///
/// # Errors
/// See [`Unanswered`].
pub async fn downgrade_enabled(asker: &Asker, url: &Url) -> Result<bool, Unanswered> {
    let answer = asker.ask(url, request(Method::GET, "/downgrade/enabled", Sending::nothing())?, ANSWER_MAX).await?;
    go::parse_bool(&answer.text()).map_err(|_| answer.unknown("neither true nor false"))
}

/// `POST /members/promote/<id>`: answers all members. `token` is the client's.
///
/// # Errors
/// Refused: not a member, not a learner, not in sync, timed out. Failed: anything else, see [`Unanswered`].
pub async fn promote(asker: &Asker, url: &Url, id: u64, token: Option<&str>) -> Result<Vec<MemberInfo>, Unanswered> {
    use api::Error as E;
    let path = format!("{}{id}", endpoints::PROMOTE);
    let mut request = request(Method::POST, &path, Sending::nothing())?;
    if let Some(token) = token {
        request = with(request, AUTHORIZATION, token)?;
    }
    let answer = asker.ask(url, request, MEMBERS_MAX).await?;
    let text = answer.text();
    let refused = match answer.status {
        StatusCode::REQUEST_TIMEOUT => E::Timeout,
        // One holds the other's words: this order.
        StatusCode::PRECONDITION_FAILED if text.contains(LEARNER_NOT_READY) => E::LearnerNotReady,
        StatusCode::PRECONDITION_FAILED if text.contains(MEMBER_NOT_LEARNER) => E::MemberNotLearner,
        StatusCode::NOT_FOUND => E::MemberNotFound,
        StatusCode::OK => {
            return endpoints::parse_members(&answer.body).ok_or_else(|| answer.unknown("no list of members"));
        }
        _ => return Err(answer.unknown("member promote: unknown error")),
    };
    Err(Unanswered::Refused(refused))
}

/// `GET /members/hashkv` for a revision, zero being the present one.
///
/// # Errors
/// Refused: compacted, of the future, of another cluster. Failed: anything else, see [`Unanswered`].
pub async fn hash_kv(asker: &Asker, url: &Url, cluster: u64, revision: i64) -> Result<HashKv, Unanswered> {
    use api::Error as E;
    let body = endpoints::hash_kv_request(revision);
    let request = request(Method::GET, "/members/hashkv", Sending::whole(body))?;
    let request = with(request, CONTENT_TYPE, "application/json")?;
    let request = with(request, super::check::CLUSTER_ID, &super::check::hex(cluster))?;
    let answer = asker.ask(url, request, ANSWER_MAX).await?;
    let text = answer.text();
    let refused = match answer.status {
        StatusCode::BAD_REQUEST if text.contains(COMPACTED) => E::Compacted,
        StatusCode::BAD_REQUEST if text.contains(FUTURE_REV) => E::FutureRev,
        StatusCode::PRECONDITION_FAILED if text.contains(CLUSTER_ID_MISMATCH) => E::ClusterIDMismatch,
        StatusCode::OK => return endpoints::parse_hash_kv(&answer.body).ok_or_else(|| answer.unknown("no hash")),
        _ => return Err(answer.unknown("unknown error")),
    };
    Err(Unanswered::Refused(refused))
}

/// `POST /leases`: renews at the leader; answers the TTL in seconds.
///
/// # Errors
/// Refused: no such lease, or the leader has not applied enough. Failed: anything else, see [`Unanswered`].
pub async fn renew_lease(asker: &Asker, url: &Url, id: i64) -> Result<i64, Unanswered> {
    let body = pb::LeaseKeepAliveRequest { id }.encode_to_vec();
    let answer = lease(asker, url, "/leases", body).await?;
    let response = pb::LeaseKeepAliveResponse::decode(answer).map_err(|e| format!("lease: {e}"))?;
    match response.id == id {
        true => Ok(response.ttl),
        false => Err("lease: renew id mismatch".to_owned().into()),
    }
}

/// `POST /leases/internal`: looks up at the leader.
///
/// # Errors
/// As [`renew_lease`].
pub async fn lease_time_to_live(asker: &Asker, url: &Url, id: i64, keys: bool) -> Result<LeaseInfo, Unanswered> {
    let question = pb::LeaseTimeToLiveRequest { id, keys };
    let body = leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(question) }.encode_to_vec();
    let answer = lease(asker, url, "/leases/internal", body).await?;
    let response = leasepb::LeaseInternalResponse::decode(answer).map_err(|e| format!("lease: {e}"))?;
    match response.lease_time_to_live_response {
        Some(lease) if lease.id == id => {
            Ok(LeaseInfo { ttl: lease.ttl, granted_ttl: lease.granted_ttl, keys: lease.keys })
        }
        _ => Err("lease: TTL id mismatch".to_owned().into()),
    }
}

async fn lease(asker: &Asker, url: &Url, path: &str, body: Vec<u8>) -> Result<Bytes, Unanswered> {
    let request = with(request(Method::POST, path, Sending::whole(body))?, CONTENT_TYPE, "application/protobuf")?;
    let answer = asker.ask(url, request, LEASE_ANSWER_MAX).await?;
    match answer.status {
        StatusCode::OK => Ok(answer.body),
        StatusCode::NOT_FOUND => Err(Unanswered::Refused(api::Error::LeaseNotFound)),
        StatusCode::REQUEST_TIMEOUT => Err(Unanswered::Refused(api::Error::TimeoutWaitAppliedIndex)),
        _ => Err(answer.unknown("lease: unknown error")),
    }
}
