//! Answers, printed in one of etcdctl's formats.
//!
//! A format that a command can't print fails with code 4 after the request was done, as in Go: only an unknown name is
//! refused before.

mod fields;
mod json;
mod simple;

pub use json::Object;

use api::pb::etcdserverpb as pb;
use cobra::{Exit, Parsed};
use prost::Message as _;
use std::io::Write as _;
use std::time::Duration;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug)]
pub struct Display {
    pub format: Format,
    pub hex: bool,
    /// `get --print-value-only`.
    pub value_only: bool,
}

/// The health of one endpoint.
#[derive(Clone, Debug)]
pub struct Health {
    pub endpoint: String,
    pub healthy: bool,
    pub took: Duration,
    pub error: String,
}

/// An answer of any command that prints in formats.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    Get(&'a pb::RangeResponse),
    Put(&'a pb::PutResponse),
    Del(&'a pb::DeleteRangeResponse),
    Txn(&'a pb::TxnResponse),
    Watch(&'a pb::WatchResponse),
    Grant(&'a pb::LeaseGrantResponse),
    Revoke(i64, &'a pb::LeaseRevokeResponse),
    KeepAlive(&'a pb::LeaseKeepAliveResponse),
    TimeToLive(&'a pb::LeaseTimeToLiveResponse, bool),
    Leases(&'a pb::LeaseLeasesResponse),
    Members(&'a pb::MemberListResponse),
    MemberAdd(&'a pb::MemberAddResponse),
    MemberRemove(u64, &'a pb::MemberRemoveResponse),
    MemberUpdate(u64, &'a pb::MemberUpdateResponse),
    MemberPromote(u64, &'a pb::MemberPromoteResponse),
    MoveLeader(u64, u64, &'a pb::MoveLeaderResponse),
    Downgrade(&'a str, &'a pb::DowngradeResponse),
    Alarm(&'a pb::AlarmResponse),
    Health(&'a [Health]),
    Status(&'a [(String, pb::StatusResponse)]),
    HashKv(&'a [(String, pb::HashKvResponse)]),
    AuthStatus(&'a pb::AuthStatusResponse),
    User(&'a str, &'a pb::AuthUserGetResponse),
    Users(&'a pb::AuthUserListResponse),
    Role(&'a str, &'a pb::AuthRoleGetResponse),
    Roles(&'a pb::AuthRoleListResponse),
    /// A change of users or roles: what `simple` says of it, and the header, which is all there is.
    Done(&'a str, Option<pb::ResponseHeader>),
}

impl Display {
    /// From `--write-out` and `--hex`.
    ///
    /// # Errors
    /// An unknown format: code 4.
    pub fn from_flags(given: &Parsed) -> Result<Display, Exit> {
        let format = match given.text("write-out") {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return Err(Exit::feature("unsupported output format")),
        };
        Ok(Display { format, hex: given.is_true("hex"), value_only: false })
    }

    /// Prints an answer to standard output.
    ///
    /// # Errors
    /// A format that this command does not have: code 4.
    pub fn show(&self, answer: Answer<'_>) -> Result<(), Exit> {
        let bytes = match self.format {
            Format::Simple => simple::text(answer, self),
            Format::Fields => fields::text(answer, self.hex).ok_or_else(|| unsupported("fields"))?.into_bytes(),
            Format::Json => (json::text(answer, self.hex) + "\n").into_bytes(),
            Format::Protobuf => protobuf(answer)?,
            Format::Table => table(answer)?.into_bytes(),
        };
        write_out(&bytes);
        Ok(())
    }
}

/// Writes to standard output. A reader that went away ends the program by itself; here it is no error.
pub fn write_out(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

fn unsupported(format: &str) -> Exit {
    Exit::feature(format!("{format} not supported as output format"))
}

fn protobuf(answer: Answer<'_>) -> Result<Vec<u8>, Exit> {
    let header = |header: &Option<pb::ResponseHeader>| header.as_ref().map(|h| h.encode_to_vec()).unwrap_or_default();
    Ok(match answer {
        Answer::Get(r) => r.encode_to_vec(),
        Answer::Put(r) => r.encode_to_vec(),
        Answer::Del(r) => r.encode_to_vec(),
        Answer::Txn(r) => r.encode_to_vec(),
        Answer::Watch(r) => {
            pb::WatchResponse { watch_id: 0, cancel_reason: String::new(), ..r.clone() }.encode_to_vec()
        }
        Answer::Grant(r) => header(&r.header),
        Answer::KeepAlive(r) => header(&r.header),
        Answer::TimeToLive(r, _) => header(&r.header),
        Answer::Leases(r) => header(&r.header),
        Answer::Revoke(..) => {
            return Err(Exit::feature("marshal unsupported for type *etcdserverpb.LeaseRevokeResponse ()"));
        }
        Answer::Members(r) => r.encode_to_vec(),
        Answer::MemberAdd(r) => r.encode_to_vec(),
        Answer::MemberRemove(_, r) => r.encode_to_vec(),
        Answer::MemberUpdate(_, r) => r.encode_to_vec(),
        Answer::MemberPromote(_, r) => r.encode_to_vec(),
        Answer::MoveLeader(_, _, r) => r.encode_to_vec(),
        Answer::Downgrade(_, r) => r.encode_to_vec(),
        Answer::Alarm(r) => r.encode_to_vec(),
        Answer::AuthStatus(r) => r.encode_to_vec(),
        Answer::User(_, r) => r.encode_to_vec(),
        Answer::Users(r) => r.encode_to_vec(),
        Answer::Role(_, r) => r.encode_to_vec(),
        Answer::Roles(r) => r.encode_to_vec(),
        // All of these messages look alike.
        Answer::Done(_, header) => pb::AuthUserAddResponse { header }.encode_to_vec(),
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) => return Err(unsupported("protobuf")),
    })
}

fn table(answer: Answer<'_>) -> Result<String, Exit> {
    let (headers, rows): (&[&str], _) = match answer {
        Answer::Members(r) => (
            &["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"],
            r.members.iter().map(simple::member_row).collect::<Vec<_>>(),
        ),
        Answer::Health(list) => (&["endpoint", "health", "took", "error"], list.iter().map(health_row).collect()),
        Answer::Status(list) => (
            &[
                "endpoint",
                "ID",
                "version",
                "storage version",
                "db size",
                "in use",
                "percentage not in use",
                "quota",
                "is leader",
                "is learner",
                "raft term",
                "raft index",
                "raft applied index",
                "errors",
                "downgrade target version",
                "downgrade enabled",
            ],
            list.iter().map(simple::status_row).collect(),
        ),
        Answer::HashKv(list) => (&["endpoint", "hash", "hash_revision"], list.iter().map(simple::hash_row).collect()),
        _ => return Err(unsupported("table")),
    };
    Ok(etcdutl::table::draw(headers, &rows))
}

fn health_row(h: &Health) -> Vec<String> {
    vec![h.endpoint.clone(), h.healthy.to_string(), go::format_duration(h.took), h.error.clone()]
}

/// `PUT` or `DELETE`.
pub(crate) fn event_type(event: &api::pb::mvccpb::Event) -> &'static str {
    match event.r#type() {
        api::pb::mvccpb::event::EventType::Put => "PUT",
        api::pb::mvccpb::event::EventType::Delete => "DELETE",
    }
}

/// The alarm's name.
pub(crate) fn alarm_name(alarm: i32) -> String {
    match pb::AlarmType::try_from(alarm) {
        Ok(alarm) => alarm.as_str_name().to_owned(),
        Err(_) => alarm.to_string(),
    }
}
