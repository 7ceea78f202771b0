//! The `json` format: one line an answer, as Go's encoding/json writes the protobuf structs.

use super::{Answer, Health};
use api::pb::authpb::Permission;
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::{Event, KeyValue};

use pb::response_op::Response as Done;

/// A JSON object under construction, fields in the order they are added.
#[derive(Debug, Default)]
pub struct Object {
    text: String,
}

impl Object {
    /// Adds a field whose value is JSON already.
    pub fn raw(mut self, name: &str, json: &str) -> Object {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text += &format!("{}:{json}", go::json_string(name));
        self
    }

    /// Adds a number.
    pub fn number(self, name: &str, n: impl ToString) -> Object {
        self.raw(name, &n.to_string())
    }

    /// Adds a text.
    pub fn text(self, name: &str, text: &str) -> Object {
        self.raw(name, &go::json_string(text))
    }

    /// Adds a number unless it is zero.
    fn some(self, name: &str, n: impl ToString + Default + PartialEq + Copy) -> Object {
        if n == Default::default() { self } else { self.number(name, n) }
    }

    fn some_text(self, name: &str, text: &str) -> Object {
        if text.is_empty() { self } else { self.text(name, text) }
    }

    fn some_bool(self, name: &str, yes: bool) -> Object {
        if yes { self.raw(name, "true") } else { self }
    }

    fn some_bytes(self, name: &str, bytes: &[u8]) -> Object {
        if bytes.is_empty() { self } else { self.raw(name, &base64(bytes)) }
    }

    fn some_list(self, name: &str, items: Vec<String>) -> Object {
        if items.is_empty() { self } else { self.raw(name, &list(items)) }
    }

    fn some_object(self, name: &str, object: Option<Object>) -> Object {
        match object {
            Some(object) => self.raw(name, &object.finish()),
            None => self,
        }
    }

    /// The object's text.
    pub fn finish(self) -> String {
        format!("{{{}}}", self.text)
    }

    fn then(self, more: impl FnOnce(Object) -> Object) -> Object {
        more(self)
    }
}

fn list(items: Vec<String>) -> String {
    format!("[{}]", items.join(","))
}

/// Standard base64 with padding, in quotes.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("\"");
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = (n >> (18 - 6 * i)) as usize & 63;
            out.push(if i <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    out.push('"');
    out
}

/// One line, without its end.
pub fn text(answer: Answer<'_>, hex: bool) -> String {
    let object = Object::default();
    match answer {
        Answer::Get(r) => range(r),
        Answer::Put(r) => put(r),
        Answer::Del(r) => del(r),
        Answer::Txn(r) => txn(r),
        Answer::Watch(r) => watch(r),
        Answer::Grant(r) => {
            object.then(flat(&r.header)).number("ID", r.id).number("TTL", r.ttl).text("Error", &r.error)
        }
        Answer::KeepAlive(r) => object.then(flat(&r.header)).number("ID", r.id).number("TTL", r.ttl),
        Answer::TimeToLive(r, _) => {
            let keys = if r.keys.is_empty() { "null".into() } else { list(r.keys.iter().map(|k| base64(k)).collect()) };
            let object = object.then(flat(&r.header)).number("id", r.id).number("ttl", r.ttl);
            object.number("granted-ttl", r.granted_ttl).raw("keys", &keys)
        }
        Answer::Leases(r) => {
            let leases = r.leases.iter().map(|lease| Object::default().number("id", lease.id).finish()).collect();
            object.then(flat(&r.header)).raw("leases", &list(leases))
        }
        Answer::Revoke(_, r) => object.then(headed(&r.header)),
        Answer::Members(r) => members(&r.header, &r.members, hex),
        Answer::MemberRemove(_, r) => members(&r.header, &r.members, hex),
        Answer::MemberUpdate(_, r) => members(&r.header, &r.members, hex),
        Answer::MemberPromote(_, r) => members(&r.header, &r.members, hex),
        Answer::MemberAdd(r) => {
            let object =
                if hex { object.raw("header", &hex_header(&r.header)) } else { object.then(headed(&r.header)) };
            let object = object.some_object("member", r.member.as_ref().map(|m| member(m, hex)));
            with_members(object, &r.members, hex)
        }
        Answer::MoveLeader(_, _, r) => object.then(headed(&r.header)),
        Answer::Downgrade(_, r) => object.then(headed(&r.header)).some_text("version", &r.version),
        Answer::Alarm(r) => {
            let alarm =
                |a: &pb::AlarmMember| Object::default().some("memberID", a.member_id).some("alarm", a.alarm).finish();
            object.then(headed(&r.header)).some_list("alarms", r.alarms.iter().map(alarm).collect())
        }
        Answer::Done(_, header) => object.then(headed(&header)),
        Answer::AuthStatus(r) => {
            object.then(headed(&r.header)).some_bool("enabled", r.enabled).some("authRevision", r.auth_revision)
        }
        Answer::User(_, r) => object.then(headed(&r.header)).some_list("roles", texts(&r.roles)),
        Answer::Users(r) => object.then(headed(&r.header)).some_list("users", texts(&r.users)),
        Answer::Roles(r) => object.then(headed(&r.header)).some_list("roles", texts(&r.roles)),
        Answer::Role(_, r) => {
            let perms = r.perm.iter().map(|perm| permission(perm).finish()).collect();
            object.then(headed(&r.header)).some_list("perm", perms)
        }
        Answer::Health(healths) => return list(healths.iter().map(|h| health(h).finish()).collect()),
        Answer::Status(list) => return per_endpoint("Status", list, status),
        Answer::HashKv(list) => return per_endpoint("HashKV", list, hash_kv),
    }
    .finish()
}

fn header(h: &pb::ResponseHeader) -> Object {
    let object = Object::default().some("cluster_id", h.cluster_id).some("member_id", h.member_id);
    object.some("revision", h.revision).some("raft_term", h.raft_term)
}

fn headed(h: &Option<pb::ResponseHeader>) -> impl FnOnce(Object) -> Object {
    let header = h.as_ref().map(header);
    move |object| object.some_object("header", header)
}

/// The header's fields in the object itself: lease answers have that shape.
fn flat(h: &Option<pb::ResponseHeader>) -> impl FnOnce(Object) -> Object {
    let h = h.unwrap_or_default();
    move |object| {
        let object = object.some("cluster_id", h.cluster_id).some("member_id", h.member_id);
        object.some("revision", h.revision).some("raft_term", h.raft_term)
    }
}

fn kv(kv: &KeyValue) -> Object {
    Object::default()
        .some_bytes("key", &kv.key)
        .some("create_revision", kv.create_revision)
        .some("mod_revision", kv.mod_revision)
        .some("version", kv.version)
        .some_bytes("value", &kv.value)
        .some("lease", kv.lease)
}

fn kvs(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|pair| kv(pair).finish()).collect()
}

fn range(r: &pb::RangeResponse) -> Object {
    let object = Object::default().then(headed(&r.header)).some_list("kvs", kvs(&r.kvs));
    object.some_bool("more", r.more).some("count", r.count)
}

fn put(r: &pb::PutResponse) -> Object {
    Object::default().then(headed(&r.header)).some_object("prev_kv", r.prev_kv.as_ref().map(kv))
}

fn del(r: &pb::DeleteRangeResponse) -> Object {
    Object::default().then(headed(&r.header)).some("deleted", r.deleted).some_list("prev_kvs", kvs(&r.prev_kvs))
}

fn txn(r: &pb::TxnResponse) -> Object {
    let object = Object::default().then(headed(&r.header)).some_bool("succeeded", r.succeeded);
    let responses = r.responses.iter().map(|response| {
        let done = match &response.response {
            Some(Done::ResponseRange(r)) => Object::default().raw("response_range", &range(r).finish()),
            Some(Done::ResponsePut(r)) => Object::default().raw("response_put", &put(r).finish()),
            Some(Done::ResponseDeleteRange(r)) => Object::default().raw("response_delete_range", &del(r).finish()),
            Some(Done::ResponseTxn(r)) => Object::default().raw("response_txn", &txn(r).finish()),
            None => return "{\"Response\":null}".to_owned(),
        };
        Object::default().raw("Response", &done.finish()).finish()
    });
    object.some_list("responses", responses.collect())
}

fn watch(r: &pb::WatchResponse) -> Object {
    let header = r.header.as_ref().map_or_else(|| "{}".to_owned(), |h| header(h).finish());
    let events = if r.events.is_empty() {
        "null".to_owned()
    } else {
        list(r.events.iter().map(|e| event(e).finish()).collect())
    };
    Object::default()
        .raw("Header", &header)
        .raw("Events", &events)
        .number("CompactRevision", r.compact_revision)
        .number("Canceled", r.canceled)
        .number("Created", r.created)
        .text("CancelReason", &r.cancel_reason)
}

fn event(e: &Event) -> Object {
    let object = Object::default().some("type", e.r#type).some_object("kv", e.kv.as_ref().map(kv));
    object.some_object("prev_kv", e.prev_kv.as_ref().map(kv))
}

fn hex_header(h: &Option<pb::ResponseHeader>) -> String {
    let h = h.unwrap_or_default();
    Object::default()
        .text("cluster_id", &format!("{:x}", h.cluster_id))
        .text("member_id", &format!("{:x}", h.member_id))
        .some("revision", h.revision)
        .some("raft_term", h.raft_term)
        .finish()
}

fn members(h: &Option<pb::ResponseHeader>, members: &[pb::Member], hex: bool) -> Object {
    let object = if hex { Object::default().raw("header", &hex_header(h)) } else { Object::default().then(headed(h)) };
    with_members(object, members, hex)
}

fn with_members(object: Object, members: &[pb::Member], hex: bool) -> Object {
    let items: Vec<String> = members.iter().map(|m| member(m, hex).finish()).collect();
    if hex { object.raw("members", &list(items)) } else { object.some_list("members", items) }
}

fn texts(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| go::json_string(text)).collect()
}

fn permission(perm: &Permission) -> Object {
    let object = Object::default().some("permType", perm.perm_type);
    object.some_bytes("key", &perm.key).some_bytes("range_end", &perm.range_end)
}

fn member(m: &pb::Member, hex: bool) -> Object {
    let object = match hex {
        true => Object::default().text("ID", &format!("{:x}", m.id)),
        false => Object::default().some("ID", m.id),
    };
    object
        .some_text("name", &m.name)
        .some_list("peerURLs", texts(&m.peer_ur_ls))
        .some_list("clientURLs", texts(&m.client_ur_ls))
        .some_bool("isLearner", m.is_learner)
}

fn health(h: &Health) -> Object {
    Object::default()
        .text("endpoint", &h.endpoint)
        .number("health", h.healthy)
        .text("took", &go::format_duration(h.took))
        .some_text("error", &h.error)
}

fn per_endpoint<R>(name: &str, answers: &[(String, R)], object: impl Fn(&R) -> Object) -> String {
    if answers.is_empty() {
        return "null".to_owned();
    }
    let item = |(endpoint, answer): &(String, R)| {
        Object::default().text("Endpoint", endpoint).raw(name, &object(answer).finish()).finish()
    };
    list(answers.iter().map(item).collect())
}

fn status(s: &pb::StatusResponse) -> Object {
    let downgrade = s
        .downgrade_info
        .as_ref()
        .map(|d| Object::default().some_bool("enabled", d.enabled).some_text("targetVersion", &d.target_version));
    Object::default()
        .then(headed(&s.header))
        .some_text("version", &s.version)
        .some("dbSize", s.db_size)
        .some("leader", s.leader)
        .some("raftIndex", s.raft_index)
        .some("raftTerm", s.raft_term)
        .some("raftAppliedIndex", s.raft_applied_index)
        .some_list("errors", s.errors.iter().map(|e| go::json_string(e)).collect())
        .some("dbSizeInUse", s.db_size_in_use)
        .some_bool("isLearner", s.is_learner)
        .some_text("storageVersion", &s.storage_version)
        .some("dbSizeQuota", s.db_size_quota)
        .some_object("downgradeInfo", downgrade)
}

fn hash_kv(h: &pb::HashKvResponse) -> Object {
    Object::default()
        .then(headed(&h.header))
        .some("hash", h.hash)
        .some("compact_revision", h.compact_revision)
        .some("hash_revision", h.hash_revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_padded_base64() {
        for (bytes, text) in [(&b"foo"[..], "\"Zm9v\""), (b"a", "\"YQ==\""), (b"ab", "\"YWI=\""), (b"\xff", "\"/w==\"")]
        {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn zero_fields_are_left_out() {
        assert_eq!(range(&pb::RangeResponse::default()).finish(), "{}");
        assert_eq!(
            text(Answer::Watch(&pb::WatchResponse::default()), false),
            r#"{"Header":{},"Events":null,"CompactRevision":0,"Canceled":false,"Created":false,"CancelReason":""}"#
        );
    }
}
