//! The `simple` format: made for eyes and for `cut`.

use super::{Answer, Display, Health, alarm_name, event_type};
use api::pb::authpb::{Permission, permission::Type};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;
use client::prefix_end;

use pb::response_op::Response as Done;

/// The whole text of an answer. Keys and values are bytes, not text.
pub fn text(answer: Answer<'_>, display: &Display) -> Vec<u8> {
    let mut out = Vec::new();
    match answer {
        Answer::Get(r) => get(&mut out, r, display),
        Answer::Put(r) => put(&mut out, r, display.hex),
        Answer::Del(r) => del(&mut out, r, display.hex),
        Answer::Txn(r) => txn(&mut out, r, display),
        Answer::Watch(r) => watch(&mut out, r, display.hex),
        Answer::Role(name, r) => role(&mut out, name, r),
        other => out.extend_from_slice(lines(other).as_bytes()),
    }
    out
}

fn get(out: &mut Vec<u8>, r: &pb::RangeResponse, display: &Display) {
    for kv in &r.kvs {
        if !display.value_only {
            bytes(out, &kv.key, display.hex);
        }
        bytes(out, &kv.value, display.hex);
    }
}

fn put(out: &mut Vec<u8>, r: &pb::PutResponse, hex: bool) {
    out.extend_from_slice(b"OK\n");
    if let Some(kv) = &r.prev_kv {
        pair(out, kv, hex);
    }
}

fn del(out: &mut Vec<u8>, r: &pb::DeleteRangeResponse, hex: bool) {
    out.extend_from_slice(format!("{}\n", r.deleted).as_bytes());
    r.prev_kvs.iter().for_each(|kv| pair(out, kv, hex));
}

fn txn(out: &mut Vec<u8>, r: &pb::TxnResponse, display: &Display) {
    out.extend_from_slice(if r.succeeded { b"SUCCESS\n" } else { b"FAILURE\n" });
    for response in r.responses.iter().filter_map(|r| r.response.as_ref()) {
        out.push(b'\n');
        match response {
            Done::ResponseRange(r) => get(out, r, display),
            Done::ResponsePut(r) => put(out, r, display.hex),
            Done::ResponseDeleteRange(r) => del(out, r, display.hex),
            Done::ResponseTxn(r) => txn(out, r, display),
        }
    }
}

fn watch(out: &mut Vec<u8>, r: &pb::WatchResponse, hex: bool) {
    for event in &r.events {
        out.extend_from_slice(format!("{}\n", event_type(event)).as_bytes());
        if let Some(kv) = &event.prev_kv {
            pair(out, kv, hex);
        }
        if let Some(kv) = &event.kv {
            pair(out, kv, hex);
        }
    }
}

fn pair(out: &mut Vec<u8>, kv: &KeyValue, hex: bool) {
    bytes(out, &kv.key, hex);
    bytes(out, &kv.value, hex);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8], hex: bool) {
    if hex {
        bytes.iter().for_each(|byte| out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()));
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'\n');
}

fn lines(answer: Answer<'_>) -> String {
    let cluster = |header: &Option<pb::ResponseHeader>| header.as_ref().map_or(0, |h| h.cluster_id);
    match answer {
        Answer::Grant(r) => format!("lease {:016x} granted with TTL({}s)\n", r.id, r.ttl),
        Answer::Revoke(id, _) => format!("lease {id:016x} revoked\n"),
        Answer::KeepAlive(r) if r.ttl <= 0 => format!("lease {:016x} expired or revoked.\n", r.id),
        Answer::KeepAlive(r) => format!("lease {:016x} keepalived with TTL({})\n", r.id, r.ttl),
        Answer::TimeToLive(r, keys) => time_to_live(r, keys),
        Answer::Leases(r) => {
            let ids: String = r.leases.iter().map(|lease| format!("{:016x}\n", lease.id)).collect();
            format!("found {} leases\n{ids}", r.leases.len())
        }
        Answer::Members(r) => r.members.iter().map(|m| member_row(m).join(", ") + "\n").collect(),
        Answer::MemberAdd(r) => {
            let member = r.member.clone().unwrap_or_default();
            let how = if member.is_learner { "added as learner to" } else { "added to" };
            format!("Member {:16x} {how} cluster {:16x}\n", member.id, cluster(&r.header))
        }
        Answer::MemberRemove(id, r) => format!("Member {id:16x} removed from cluster {:16x}\n", cluster(&r.header)),
        Answer::MemberUpdate(id, r) => format!("Member {id:16x} updated in cluster {:16x}\n", cluster(&r.header)),
        Answer::MemberPromote(id, r) => format!("Member {id:16x} promoted in cluster {:16x}\n", cluster(&r.header)),
        Answer::MoveLeader(from, to, _) => format!("Leadership transferred from {from:x} to {to:x}\n"),
        Answer::Downgrade(what, r) => format!("Downgrade {what} success, cluster version {}\n", r.version),
        Answer::Alarm(r) => {
            let line = |a: &pb::AlarmMember| format!("memberID:{} alarm:{}\n", a.member_id, alarm_name(a.alarm));
            r.alarms.iter().map(line).collect()
        }
        Answer::Health(list) => list.iter().filter(|h| h.healthy).map(healthy).collect(),
        Answer::Status(list) => list.iter().map(|s| status_row(s).join(", ") + "\n").collect(),
        Answer::HashKv(list) => list.iter().map(|h| hash_row(h).join(", ") + "\n").collect(),
        Answer::AuthStatus(r) => format!("Authentication Status: {}\nAuthRevision: {}\n", r.enabled, r.auth_revision),
        Answer::User(name, r) => {
            let roles: String = r.roles.iter().map(|role| format!(" {role}")).collect();
            format!("User: {name}\nRoles:{roles}\n")
        }
        Answer::Users(r) => r.users.iter().map(|user| format!("{user}\n")).collect(),
        Answer::Roles(r) => r.roles.iter().map(|role| format!("{role}\n")).collect(),
        Answer::Done(line, _) => format!("{line}\n"),
        Answer::Get(_) | Answer::Put(_) | Answer::Del(_) | Answer::Txn(_) | Answer::Watch(_) | Answer::Role(..) => {
            String::new()
        }
    }
}

/// What a role may read, then what it may write. Keys are bytes, not text.
fn role(out: &mut Vec<u8>, name: &str, r: &pb::AuthRoleGetResponse) {
    out.extend_from_slice(format!("Role {name}\n").as_bytes());
    for (head, other) in [("KV Read:\n", Type::Write), ("KV Write:\n", Type::Read)] {
        out.extend_from_slice(head.as_bytes());
        if name == "root" && r.perm.is_empty() {
            out.extend_from_slice(b"\t[, <open ended>\n");
        }
        r.perm.iter().filter(|perm| perm.perm_type() != other).for_each(|perm| permission(out, perm));
    }
}

fn permission(out: &mut Vec<u8>, perm: &Permission) {
    out.push(b'\t');
    match &perm.range_end[..] {
        b"" => out.extend_from_slice(&perm.key),
        b"\0" => out.extend_from_slice(&[b"[", &perm.key[..], b", <open ended>"].concat()),
        end => out.extend_from_slice(&[b"[", &perm.key[..], b", ", end, b")"].concat()),
    }
    if !perm.key.is_empty() && !perm.range_end.is_empty() && prefix_end(&perm.key) == perm.range_end {
        out.extend_from_slice(&[b" (prefix ", &perm.key[..], b")"].concat());
    }
    out.push(b'\n');
}

fn healthy(h: &Health) -> String {
    let took = go::format_duration(h.took);
    format!("{} is healthy: successfully committed proposal: took = {took}\n", h.endpoint)
}

fn time_to_live(r: &pb::LeaseTimeToLiveResponse, keys: bool) -> String {
    if r.granted_ttl == 0 && r.ttl == -1 {
        return format!("lease {:016x} already expired\n", r.id);
    }
    let mut text = format!("lease {:016x} granted with TTL({}s), remaining({}s)", r.id, r.granted_ttl, r.ttl);
    if keys {
        let names: Vec<_> = r.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        text += &format!(", attached keys([{}])", names.join(" "));
    }
    text + "\n"
}

/// A member as a row: id, state, name, peer URLs, client URLs, learner.
pub fn member_row(m: &pb::Member) -> Vec<String> {
    let state = if m.name.is_empty() { "unstarted" } else { "started" };
    vec![
        format!("{:x}", m.id),
        state.to_owned(),
        m.name.clone(),
        m.peer_ur_ls.join(","),
        m.client_ur_ls.join(","),
        m.is_learner.to_string(),
    ]
}

/// An endpoint's status as a row of 16 columns.
pub fn status_row((endpoint, s): &(String, pb::StatusResponse)) -> Vec<String> {
    let member = s.header.as_ref().map_or(0, |h| h.member_id);
    let size = |n: i64| go::bytes_text(u64::try_from(n).unwrap_or(0));
    let unused = match s.db_size {
        0 => 100,
        all => 100 - s.db_size_in_use.saturating_mul(100) / all,
    };
    let downgrade = s.downgrade_info.clone().unwrap_or_default();
    vec![
        endpoint.clone(),
        format!("{member:x}"),
        s.version.clone(),
        s.storage_version.clone(),
        size(s.db_size),
        size(s.db_size_in_use),
        format!("{unused}%"),
        size(s.db_size_quota),
        (s.leader == member).to_string(),
        s.is_learner.to_string(),
        s.raft_term.to_string(),
        s.raft_index.to_string(),
        s.raft_applied_index.to_string(),
        s.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// An endpoint's hash as a row.
pub fn hash_row((endpoint, h): &(String, pb::HashKvResponse)) -> Vec<String> {
    vec![endpoint.clone(), h.hash.to_string(), h.hash_revision.to_string()]
}
