//! Users, roles and permissions: every call of every service, by every kind of caller; and what keys may be reached by
//! which permission.

use crate::ask::{self, Op as _};
use crate::record::{Side, brief};
use api::pb::authpb::{Permission, UserAddOptions, permission::Type};
use api::pb::{etcdserverpb as pb, v3electionpb as elect, v3lockpb as lock};
use bytes::Bytes;
use prost::Message;
use tonic::Status;

/// The protocol, to be sure that no call is left out.
const PROTOCOL: [&str; 4] = [
    include_str!("../../../proto/rpc.proto"),
    include_str!("../../../proto/v3lock.proto"),
    include_str!("../../../proto/v3election.proto"),
    include_str!("../../../proto/health.proto"),
];

/// Leases of the scenery: on a key of everybody's, on a secret one, on none; of a lock and of a campaign.
const SHARED: i64 = 1001;
const SECRET: i64 = 1002;
const EMPTY: i64 = 1003;
const LOCK: i64 = 1004;
const CAMPAIGN: i64 = 1005;
/// Revoked by each caller: one for each.
const DOOMED: i64 = 1100;

/// Everyone's password.
pub const PASSWORD: &str = "correct horse battery staple";

/// What comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// All of it.
    Whole,
    /// Whether it was refused, and how: the answer differs from server to server.
    Outcome,
    /// Of a stream: the first message.
    First,
    /// Of a stream that ends: how.
    End,
}

/// One call: path, message, and how its answer is written down.
type Call = (&'static str, Bytes, Shown);

fn call(path: &'static str, request: &impl Message) -> Call {
    (path, request.encode_to_vec().into(), Shown::Whole)
}

fn outcome(path: &'static str, request: &impl Message) -> Call {
    (path, request.encode_to_vec().into(), Shown::Outcome)
}

fn stream(path: &'static str, request: &impl Message, shown: Shown) -> Call {
    (path, request.encode_to_vec().into(), shown)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A permission.
pub fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
    Permission { perm_type: kind as i32, key: bytes(key), range_end: bytes(range_end) }
}

/// Asks without recording; scenery must succeed.
async fn set(side: &Side, token: &str, path: &'static str, request: &impl Message) -> Bytes {
    let metadata = [("token", token)];
    let metadata = if token.is_empty() { &[][..] } else { &metadata };
    let answer = side.wire.bytes(path, request.encode_to_vec().into(), metadata).await;
    answer.unwrap_or_else(|e| panic!("scenery: {path}: {e}"))
}

pub const USER_ADD: &str = "/etcdserverpb.Auth/UserAdd";
pub const ROLE_ADD: &str = "/etcdserverpb.Auth/RoleAdd";
pub const GRANT_ROLE: &str = "/etcdserverpb.Auth/UserGrantRole";
pub const GRANT_PERMISSION: &str = "/etcdserverpb.Auth/RoleGrantPermission";
pub const ENABLE: &str = "/etcdserverpb.Auth/AuthEnable";
pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

pub fn user(name: &str) -> pb::AuthUserAddRequest {
    pb::AuthUserAddRequest { name: name.into(), password: PASSWORD.into(), ..Default::default() }
}

pub fn role(name: &str) -> pb::AuthRoleAddRequest {
    pb::AuthRoleAddRequest { name: name.into() }
}

pub fn held(user: &str, role: &str) -> pb::AuthUserGrantRoleRequest {
    pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }
}

pub fn granted(name: &str, perm: Permission) -> pb::AuthRoleGrantPermissionRequest {
    pb::AuthRoleGrantPermissionRequest { name: name.into(), perm: Some(perm) }
}

/// A token of that user's.
pub async fn log_in(side: &Side, name: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.into(), password: PASSWORD.into() };
    let answer = set(side, "", AUTHENTICATE, &request).await;
    pb::AuthenticateResponse::decode(answer).expect("an answer can be read").token
}

/// Users root, nobody, reader and writer; the last two may read, or write, what is below `k/`. Not enabled yet.
pub async fn users(side: &Side) {
    for name in ["root", "nobody", "reader", "writer"] {
        set(side, "", USER_ADD, &user(name)).await;
    }
    for name in ["root", "reader", "writer", "other"] {
        set(side, "", ROLE_ADD, &role(name)).await;
    }
    for name in ["root", "reader", "writer"] {
        set(side, "", GRANT_ROLE, &held(name, name)).await;
    }
    set(side, "", GRANT_PERMISSION, &granted("reader", permission(Type::Read, "k/", "k0"))).await;
    set(side, "", GRANT_PERMISSION, &granted("writer", permission(Type::Write, "k/", "k0"))).await;
}

async fn scenery(side: &Side) {
    for id in [SHARED, SECRET, EMPTY, LOCK, CAMPAIGN] {
        set(side, "", ask::GRANT, &ask::grant(id, 3600)).await;
    }
    for n in 0..6 {
        set(side, "", ask::GRANT, &ask::grant(DOOMED + n, 3600)).await;
        set(side, "", ask::PUT, &pb::PutRequest { lease: DOOMED + n, ..ask::put(&format!("k/doomed{n}"), "v") }).await;
    }
    set(side, "", ask::PUT, &pb::PutRequest { lease: SHARED, ..ask::put("k/shared", "v") }).await;
    set(side, "", ask::PUT, &pb::PutRequest { lease: SECRET, ..ask::put("secret", "v") }).await;
    // Whoever may observe would wait for a leader.
    let campaign = elect::CampaignRequest { name: bytes("k/election"), lease: CAMPAIGN, value: bytes("v") };
    set(side, "", "/v3electionpb.Election/Campaign", &campaign).await;
    users(side).await;
    set(side, "", ENABLE, &pb::AuthEnableRequest {}).await;
}

/// Every call, as caller number `n` makes it: what it changes has his number.
fn calls(n: usize) -> Vec<Call> {
    let number = i64::try_from(n).expect("few callers");
    [keys(n), leases(number), members(), maintenance(), management(n), recipes(), last()].concat()
}

fn keys(n: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    for key in ["k/a", "secret"] {
        let serializable = pb::RangeRequest { serializable: true, ..ask::get(key) };
        let put = ask::put(key, &n.to_string());
        let reads = ask::txn(vec![ask::present(key)], vec![ask::get(key).op()], vec![]);
        let writes = ask::txn(vec![], vec![put.clone().op()], vec![]);
        let nested = ask::txn(vec![], vec![ask::txn(vec![], vec![], vec![writes.clone().op()]).op()], vec![]);
        calls.extend([
            call(ask::RANGE, &ask::get(key)),
            call(ask::RANGE, &serializable),
            call(ask::RANGE, &ask::range(key, ask::FROM)),
            stream(ask::RANGE_STREAM, &ask::get(key), Shown::First),
            call(ask::PUT, &put),
            call(ask::PUT, &pb::PutRequest { prev_kv: true, ..put.clone() }),
            call(ask::PUT, &pb::PutRequest { lease: SHARED, ..put.clone() }),
            call(ask::PUT, &pb::PutRequest { lease: SECRET, ..put.clone() }),
            call(ask::TXN, &reads),
            call(ask::TXN, &writes),
            call(ask::TXN, &nested),
            call(ask::DELETE, &ask::delete(&format!("{key}{n}"), "")),
            call(ask::DELETE, &pb::DeleteRangeRequest { prev_kv: true, ..ask::delete(&format!("{key}{n}"), "") }),
            stream(ask::WATCH, &ask::create(ask::watch(key, "")), Shown::First),
            stream(ask::WATCH, &ask::create(ask::watch(key, ask::FROM)), Shown::First),
        ]);
    }
    calls.extend([
        call(ask::RANGE, &ask::get("")),
        call(ask::PUT, &ask::put("", "")),
        call(ask::TXN, &ask::txn(vec![], vec![], vec![])),
        call(ask::COMPACT, &pb::CompactionRequest { revision: 2 + n as i64, physical: false }),
        stream(
            ask::WATCH,
            &ask::create(pb::WatchCreateRequest { start_revision: -1, ..ask::watch("k", "") }),
            Shown::First,
        ),
    ]);
    calls
}

fn leases(n: i64) -> Vec<Call> {
    let mut calls = vec![
        call(ask::GRANT, &ask::grant(2000 + n, 3600)),
        call(ask::REVOKE, &pb::LeaseRevokeRequest { id: DOOMED + n }),
        call(ask::REVOKE, &pb::LeaseRevokeRequest { id: 999 }),
        call(ask::LEASES, &pb::LeaseLeasesRequest {}),
    ];
    for id in [SHARED, SECRET, EMPTY, 999] {
        let keep_alive = pb::LeaseKeepAliveRequest { id };
        calls.push(stream(ask::KEEP_ALIVE, &keep_alive, Shown::First));
        for keys in [false, true] {
            // How much time is left differs by a second.
            calls.push(outcome(ask::TIME_TO_LIVE, &pb::LeaseTimeToLiveRequest { id, keys }));
        }
    }
    calls
}

fn members() -> Vec<Call> {
    let peer_ur_ls = || vec!["http://127.0.0.1:1".to_owned()];
    vec![
        outcome(ask::MEMBER_ADD, &pb::MemberAddRequest { peer_ur_ls: peer_ur_ls(), is_learner: true }),
        outcome(ask::MEMBER_ADD, &pb::MemberAddRequest { peer_ur_ls: vec!["nonsense".into()], is_learner: true }),
        outcome(ask::MEMBER_REMOVE, &pb::MemberRemoveRequest { id: 7 }),
        outcome("/etcdserverpb.Cluster/MemberUpdate", &pb::MemberUpdateRequest { id: 7, peer_ur_ls: peer_ur_ls() }),
        outcome("/etcdserverpb.Cluster/MemberPromote", &pb::MemberPromoteRequest { id: 7 }),
        outcome(ask::MEMBER_LIST, &pb::MemberListRequest { linearizable: false }),
        outcome(ask::MEMBER_LIST, &pb::MemberListRequest { linearizable: true }),
    ]
}

fn maintenance() -> Vec<Call> {
    let alarm =
        |action: pb::alarm_request::AlarmAction| pb::AlarmRequest { action: action as i32, member_id: 7, alarm: 1 };
    use pb::alarm_request::AlarmAction::{Deactivate, Get};
    vec![
        call(ask::ALARM, &alarm(Get)),
        call(ask::ALARM, &alarm(Deactivate)),
        outcome(ask::STATUS, &pb::StatusRequest {}),
        call(ask::DEFRAGMENT, &pb::DefragmentRequest {}),
        outcome(ask::HASH, &pb::HashRequest {}),
        call(ask::HASH_KV, &ask::hash_kv(0)),
        stream(ask::SNAPSHOT, &pb::SnapshotRequest {}, Shown::End),
        call(ask::MOVE_LEADER, &pb::MoveLeaderRequest { target_id: 7 }),
        call(ask::DOWNGRADE, &pb::DowngradeRequest { action: 0, version: "3.5".into() }),
    ]
}

fn management(n: usize) -> Vec<Call> {
    let (name, own) = (format!("u{n}"), format!("r{n}"));
    let change = |password: &str| pb::AuthUserChangePasswordRequest {
        name: name.clone(),
        password: password.into(),
        ..Default::default()
    };
    let (key, range_end) = (bytes("x"), bytes("y"));
    let revoke = pb::AuthRoleRevokePermissionRequest { role: own.clone(), key, range_end };
    let without = pb::AuthUserAddRequest {
        name: format!("w{n}"),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    let get = |name: &str| call("/etcdserverpb.Auth/UserGet", &pb::AuthUserGetRequest { name: name.into() });
    let show = |role: &str| call("/etcdserverpb.Auth/RoleGet", &pb::AuthRoleGetRequest { role: role.into() });
    let login = |name: &str, password: &str| {
        outcome(AUTHENTICATE, &pb::AuthenticateRequest { name: name.into(), password: password.into() })
    };
    let mut calls = vec![
        call("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {}),
        call(ENABLE, &pb::AuthEnableRequest {}),
        call(USER_ADD, &user(&name)),
        call(USER_ADD, &user(&name)),
        call(USER_ADD, &user("")),
        call(USER_ADD, &pb::AuthUserAddRequest { password: "p".repeat(73), ..user("long") }),
        call(USER_ADD, &without),
        login(&name, PASSWORD),
        login(&name, "wrong"),
        login("unheard of", PASSWORD),
        login(&format!("w{n}"), ""),
        call("/etcdserverpb.Auth/UserChangePassword", &change("another")),
        login(&name, PASSWORD),
        login(&name, "another"),
        call("/etcdserverpb.Auth/UserChangePassword", &change("")),
        login(&name, ""),
        call(ROLE_ADD, &role(&own)),
        call(ROLE_ADD, &role("")),
        call(GRANT_PERMISSION, &granted(&own, permission(Type::Readwrite, "x", "y"))),
        call(GRANT_PERMISSION, &granted(&own, permission(Type::Read, "y", "x"))),
        // etcd #15619: a permission for no key.
        call(GRANT_PERMISSION, &granted(&own, permission(Type::Read, "", ""))),
        call(GRANT_PERMISSION, &granted(&own, permission(Type::Read, "", "\0"))),
        call(GRANT_PERMISSION, &pb::AuthRoleGrantPermissionRequest { name: own.clone(), perm: None }),
        call(GRANT_ROLE, &held(&name, &own)),
        call(GRANT_ROLE, &held(&name, "unheard of")),
        get(&name),
        show(&own),
    ];
    calls.extend(["root", "nobody", "reader", "unheard of"].map(get));
    calls.extend(["root", "reader", "writer", "other", "unheard of"].map(show));
    let taken = pb::AuthUserRevokeRoleRequest { name: name.clone(), role: own.clone() };
    calls.extend([
        call("/etcdserverpb.Auth/UserList", &pb::AuthUserListRequest {}),
        call("/etcdserverpb.Auth/RoleList", &pb::AuthRoleListRequest {}),
        call("/etcdserverpb.Auth/RoleRevokePermission", &revoke),
        call("/etcdserverpb.Auth/RoleRevokePermission", &revoke),
        call("/etcdserverpb.Auth/UserRevokeRole", &taken),
        call("/etcdserverpb.Auth/UserRevokeRole", &taken),
        call(GRANT_ROLE, &held(&name, &own)),
        call("/etcdserverpb.Auth/RoleDelete", &pb::AuthRoleDeleteRequest { role: own }),
        get(&name),
        call("/etcdserverpb.Auth/UserDelete", &pb::AuthUserDeleteRequest { name }),
        call("/etcdserverpb.Auth/RoleDelete", &pb::AuthRoleDeleteRequest { role: "root".into() }),
        call("/etcdserverpb.Auth/UserDelete", &pb::AuthUserDeleteRequest { name: "root".into() }),
        call(
            "/etcdserverpb.Auth/UserRevokeRole",
            &pb::AuthUserRevokeRoleRequest { name: "root".into(), role: "root".into() },
        ),
    ]);
    calls
}

fn recipes() -> Vec<Call> {
    let (name, value) = (bytes("k/election"), bytes("v"));
    let leader = elect::LeaderKey { name: name.clone(), key: bytes("k/election/3ed"), rev: 1, lease: CAMPAIGN };
    vec![
        outcome("/v3lockpb.Lock/Lock", &lock::LockRequest { name: bytes("k/lock"), lease: LOCK }),
        outcome("/v3lockpb.Lock/Unlock", &lock::UnlockRequest { key: bytes("k/lock/3ec") }),
        outcome(
            "/v3electionpb.Election/Campaign",
            &elect::CampaignRequest { name: name.clone(), lease: CAMPAIGN, value: value.clone() },
        ),
        outcome("/v3electionpb.Election/Proclaim", &elect::ProclaimRequest { leader: Some(leader.clone()), value }),
        outcome("/v3electionpb.Election/Leader", &elect::LeaderRequest { name: name.clone() }),
        stream("/v3electionpb.Election/Observe", &elect::LeaderRequest { name: name.clone() }, Shown::First),
        outcome("/v3electionpb.Election/Resign", &elect::ResignRequest { leader: Some(leader) }),
    ]
}

/// Health asks for nobody.
fn last() -> Vec<Call> {
    vec![
        outcome("/grpc.health.v1.Health/Check", &api::pb::grpc_health_v1::HealthCheckRequest::default()),
        outcome("/grpc.health.v1.Health/List", &api::pb::grpc_health_v1::HealthListRequest::default()),
        stream("/grpc.health.v1.Health/Watch", &api::pb::grpc_health_v1::HealthCheckRequest::default(), Shown::First),
    ]
}

/// Ends the conversation, so it is the last word of root's, and of all.
pub const DISABLE: &str = "/etcdserverpb.Auth/AuthDisable";

/// `/package.Service/Method` of all there are.
fn all_paths() -> Vec<String> {
    let mut paths = Vec::new();
    for file in PROTOCOL {
        let (mut package, mut service) = ("", "");
        for line in file.lines().map(str::trim) {
            let word =
                |start: &str| line.strip_prefix(start).map(|rest| rest.split([' ', ';', '(']).next().unwrap_or(""));
            package = word("package ").unwrap_or(package);
            service = word("service ").unwrap_or(service);
            paths.extend(word("rpc ").map(|method| format!("/{package}.{service}/{method}")));
        }
    }
    paths
}

/// Every call by every kind of caller.
pub async fn table(side: &mut Side) {
    let asked: Vec<&str> = calls(0).iter().map(|(path, ..)| *path).chain([DISABLE]).collect();
    let missing: Vec<String> = all_paths().into_iter().filter(|path| !asked.contains(&path.as_str())).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    scenery(side).await;
    for (n, name) in ["no token", "bad token", "nobody", "reader", "writer", "root"].into_iter().enumerate() {
        for call in calls(n) {
            // Tokens end with changes of passwords, and some calls make those.
            let token = token_of(side, name).await;
            make(side, name, &token, call).await;
        }
        let token = token_of(side, name).await;
        make(side, name, &token, call(DISABLE, &pb::AuthDisableRequest {})).await;
    }
}

async fn token_of(side: &Side, name: &str) -> Option<String> {
    match name {
        "no token" => None,
        "bad token" => Some("bad.1".to_owned()),
        name => Some(log_in(side, name).await),
    }
}

async fn make(side: &mut Side, name: &str, token: &Option<String>, (path, request, shown): Call) {
    let metadata: Vec<_> = token.iter().map(|token| ("token", token.as_str())).collect();
    let shown_request = format!("{name}: {path} {:?}", request);
    let answer = match shown {
        Shown::Whole | Shown::Outcome => side.wire.bytes(path, request, &metadata).await.map(Some),
        Shown::First | Shown::End => {
            let mut stream = side.wire.stream(path, request, &metadata);
            stream.half_close();
            first_or_end(&mut stream, shown).await
        }
    };
    let answer = match (answer, shown) {
        (Err(status), _) => brief(&status),
        (Ok(None), _) => "the stream ended".into(),
        (Ok(Some(_)), Shown::Outcome) => "answered".into(),
        // The range is one level further down.
        (Ok(Some(answer)), _) if path == ask::RANGE_STREAM => readable(&range_of(answer)),
        (Ok(Some(answer)), _) => readable(&answer),
    };
    side.write(shown_request, answer, &[]);
}

async fn first_or_end(stream: &mut crate::wire::Stream, shown: Shown) -> Result<Option<Bytes>, Status> {
    loop {
        let message: Option<Raw> = stream.next().await?;
        match (message, shown) {
            (Some(_), Shown::End) => {}
            (message, _) => return Ok(message.map(|raw| raw.0)),
        }
    }
}

/// A message as its bytes.
#[derive(Debug, Default)]
struct Raw(Bytes);

impl Message for Raw {
    fn encode_raw(&self, out: &mut impl bytes::BufMut) {
        out.put_slice(&self.0);
    }
    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl bytes::Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        Ok(())
    }
    fn merge(&mut self, mut from: impl bytes::Buf) -> Result<(), prost::DecodeError> {
        self.0 = from.copy_to_bytes(from.remaining());
        Ok(())
    }
    fn encoded_len(&self) -> usize {
        self.0.len()
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

fn range_of(chunk: Bytes) -> Bytes {
    let chunk = pb::RangeStreamResponse::decode(chunk).expect("an answer can be read");
    chunk.range_response.unwrap_or_default().encode_to_vec().into()
}

/// All answers have their header in field 1; without its ids and term they are alike.
fn readable(answer: &Bytes) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Headed {
        #[prost(message, optional, tag = "1")]
        header: Option<pb::ResponseHeader>,
    }
    let Ok(Headed { header: Some(header) }) = Headed::decode(answer.clone()) else {
        return format!("{answer:?}");
    };
    let length = header.encoded_len();
    let rest =
        if answer.first() == Some(&0x0a) { answer.slice((2 + length).min(answer.len())..) } else { answer.clone() };
    format!("at revision {}: {rest:?}", header.revision)
}

/// Keys and ranges of all shapes against permissions of all shapes (GHSA-xg4h-6gfc-h4m8).
pub async fn ranges(side: &mut Side) {
    let shapes = [("c", ""), ("c", "c\0"), ("c", "e"), ("c", "\0"), ("a", "b"), ("e", "g"), ("e", "d"), ("b", "a")];
    users(side).await;
    for (key, value) in [("a", "1"), ("c", "2"), ("d", "3"), ("f", "4")] {
        set(side, "", ask::PUT, &ask::put(key, value)).await;
    }
    set(side, "", ENABLE, &pb::AuthEnableRequest {}).await;
    let steps = [
        permission(Type::Read, "c", ""),
        permission(Type::Readwrite, "c", "d"),
        permission(Type::Write, "d", "f"),
        permission(Type::Read, "d", "f"),
        permission(Type::Read, "c", "\0"),
        permission(Type::Readwrite, "a", "\0"),
    ];
    for step in steps {
        let root = log_in(side, "root").await;
        set(side, &root, GRANT_PERMISSION, &granted("reader", step)).await;
        let token = Some(log_in(side, "reader").await);
        for (key, end) in shapes {
            let watch = ask::create(ask::watch(key, end));
            let delete = ask::delete(key, end);
            let txn = ask::txn(vec![], vec![], vec![ask::txn(vec![], vec![delete.op()], vec![]).op()]);
            for call in [
                call(ask::RANGE, &ask::range(key, end)),
                stream(ask::RANGE_STREAM, &ask::range(key, end), Shown::First),
                stream(ask::WATCH, &watch, Shown::First),
                call(ask::TXN, &ask::txn(vec![], vec![ask::range(key, end).op()], vec![])),
                call(ask::TXN, &txn),
            ] {
                make(side, "reader", &token, call).await;
            }
        }
        let everything = ask::create(ask::watch("", "\0"));
        make(side, "reader", &token, stream(ask::WATCH, &everything, Shown::First)).await;
    }
}
