//! The `fields` format: `"Name" : value`, one a line.

use super::{Answer, alarm_name, event_type};
use api::pb::etcdserverpb as pb;
use api::pb::mvccpb::KeyValue;

use pb::response_op::Response as Done;
use std::fmt::Display;

/// Lines under construction.
struct Lines {
    text: String,
    hex: bool,
}

/// The whole text; `None` where this answer has no such format.
pub fn text(answer: Answer<'_>, hex: bool) -> Option<String> {
    let mut out = Lines { text: String::new(), hex };
    match answer {
        Answer::Get(r) => out.get(r),
        Answer::Put(r) => out.put(r),
        Answer::Del(r) => out.del(r),
        Answer::Txn(r) => out.txn(r),
        Answer::Watch(r) => {
            out.header(&r.header);
            for event in &r.events {
                out.line("Type", event_type(event));
                event.prev_kv.iter().for_each(|kv| out.kv("Prev", kv));
                event.kv.iter().for_each(|kv| out.kv("", kv));
            }
        }
        Answer::Grant(r) => {
            out.header(&r.header);
            out.lease("ID", r.id);
            out.line("TTL", r.ttl);
        }
        Answer::KeepAlive(r) => {
            out.header(&r.header);
            out.lease("ID", r.id);
            out.line("TTL", r.ttl);
        }
        Answer::TimeToLive(r, _) => {
            out.header(&r.header);
            out.lease("ID", r.id);
            out.line("TTL", r.ttl);
            out.line("GrantedTTL", r.granted_ttl);
            r.keys.iter().for_each(|key| out.line("Key", go::quote(key)));
        }
        Answer::Leases(r) => {
            out.header(&r.header);
            r.leases.iter().for_each(|lease| out.lease("ID", lease.id));
        }
        Answer::Revoke(_, r) => out.header(&r.header),
        Answer::Members(r) => {
            out.header(&r.header);
            r.members.iter().for_each(|member| out.member(member));
        }
        Answer::Alarm(r) => {
            out.header(&Some(r.header.unwrap_or_default()));
            for alarm in &r.alarms {
                out.line("MemberID", alarm.member_id);
                out.line("AlarmType", alarm_name(alarm.alarm));
                out.text.push('\n');
            }
        }
        Answer::Health(list) => {
            for h in list {
                out.line("Endpoint", go::quote(&h.endpoint));
                out.line("Health", h.healthy);
                out.line("Took", go::format_duration(h.took));
                out.line("Error", &h.error);
                out.text.push('\n');
            }
        }
        Answer::Status(list) => list.iter().for_each(|(endpoint, s)| out.status(endpoint, s)),
        Answer::HashKv(list) => {
            for (endpoint, h) in list {
                out.header(&h.header);
                out.line("Endpoint", go::quote(endpoint));
                out.line("Hash", h.hash);
                out.line("HashRevision", h.hash_revision);
                out.text.push('\n');
            }
        }
        Answer::Done(_, header) => out.header(&header),
        Answer::Role(_, r) => {
            out.header(&r.header);
            for perm in &r.perm {
                // Two blanks, as Go prints them.
                out.line("PermType", format!(" {}", perm.perm_type().as_str_name()));
                out.line("Key", go::quote(&perm.key));
                out.line("RangeEnd", go::quote(&perm.range_end));
            }
        }
        Answer::Roles(r) => {
            out.header(&r.header);
            let roles: String = r.roles.iter().map(|role| format!(" {}", go::quote(role))).collect();
            out.text += &format!("\"Roles\" :{roles}\n");
        }
        Answer::AuthStatus(_)
        | Answer::User(..)
        | Answer::Users(_)
        | Answer::MemberAdd(_)
        | Answer::MemberRemove(..)
        | Answer::MemberUpdate(..)
        | Answer::MemberPromote(..)
        | Answer::MoveLeader(..)
        | Answer::Downgrade(..) => return None,
    }
    Some(out.text)
}

impl Lines {
    fn line(&mut self, name: &str, value: impl Display) {
        self.text += &format!("\"{name}\" : {value}\n");
    }

    fn id(&mut self, name: &str, id: u64) {
        if self.hex { self.line(name, format!("{id:x}")) } else { self.line(name, id) }
    }

    fn lease(&mut self, name: &str, id: i64) {
        if self.hex { self.line(name, format!("{id:016x}")) } else { self.line(name, id) }
    }

    fn header(&mut self, header: &Option<pb::ResponseHeader>) {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        // Answers about members carry no revision.
        if header.revision > 0 {
            self.line("Revision", header.revision);
        }
        self.line("RaftTerm", header.raft_term);
    }

    fn kv(&mut self, prefix: &str, kv: &KeyValue) {
        let name = |name: &str| format!("{prefix}{name}");
        self.line(&name("Key"), go::quote(&kv.key));
        self.line(&name("CreateRevision"), kv.create_revision);
        self.line(&name("ModRevision"), kv.mod_revision);
        self.line(&name("Version"), kv.version);
        self.line(&name("Value"), go::quote(&kv.value));
        self.lease(&name("Lease"), kv.lease);
    }

    fn get(&mut self, r: &pb::RangeResponse) {
        self.header(&r.header);
        r.kvs.iter().for_each(|kv| self.kv("", kv));
        self.line("More", r.more);
        self.line("Count", r.count);
    }

    fn put(&mut self, r: &pb::PutResponse) {
        self.header(&r.header);
        r.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
    }

    fn del(&mut self, r: &pb::DeleteRangeResponse) {
        self.header(&r.header);
        self.line("Deleted", r.deleted);
        r.prev_kvs.iter().for_each(|kv| self.kv("Prev", kv));
    }

    fn txn(&mut self, r: &pb::TxnResponse) {
        self.header(&r.header);
        self.line("Succeeded", r.succeeded);
        for response in r.responses.iter().filter_map(|r| r.response.as_ref()) {
            match response {
                Done::ResponseRange(r) => self.get(r),
                Done::ResponsePut(r) => self.put(r),
                Done::ResponseDeleteRange(r) => self.del(r),
                Done::ResponseTxn(r) => self.txn(r),
            }
        }
    }

    fn member(&mut self, m: &pb::Member) {
        self.id("ID", m.id);
        self.line("Name", go::quote(&m.name));
        m.peer_ur_ls.iter().for_each(|url| self.line("PeerURL", go::quote(url)));
        m.client_ur_ls.iter().for_each(|url| self.line("ClientURL", go::quote(url)));
        self.line("IsLearner", m.is_learner);
        self.text.push('\n');
    }

    fn status(&mut self, endpoint: &str, s: &pb::StatusResponse) {
        let downgrade = s.downgrade_info.clone().unwrap_or_default();
        self.header(&s.header);
        self.line("Version", go::quote(&s.version));
        self.line("StorageVersion", go::quote(&s.storage_version));
        self.line("DBSize", s.db_size);
        self.line("DBSizeInUse", s.db_size_in_use);
        self.line("DBSizeQuota", s.db_size_quota);
        self.line("Leader", s.leader);
        self.line("IsLearner", s.is_learner);
        self.line("RaftIndex", s.raft_index);
        self.line("RaftTerm", s.raft_term);
        self.line("RaftAppliedIndex", s.raft_applied_index);
        self.line("Errors", format!("[{}]", s.errors.join(" ")));
        self.line("Endpoint", go::quote(endpoint));
        self.line("DowngradeTargetVersion", go::quote(&downgrade.target_version));
        self.line("DowngradeEnabled", downgrade.enabled);
        self.text.push('\n');
    }
}
