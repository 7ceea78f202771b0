//! Users, roles and permissions as entries of the log change them and are checked against them (etcd `auth/store.go`,
//! `apply/auth.go`), and the security advisories that were about what apply forgot to check
//! (reference/pains-and-traps.md 3.2).

mod world;

use api::Error;
use api::pb::authpb::{Permission, UserAddOptions, permission::Type};
use api::pb::etcdserverpb as pb;
use disk::{OpenOptions, SimDisk, SimOptions};
use pb::request_op::Request as Op;
use std::path::Path;
use store::auth::{Claim, Wish};
use store::{Options, Reply};
use world::{World, delete, nested, put};

/// A bcrypt hash of "secret", base64.
const HASH: &str = "JDJhJDA0JGFiYw==";

fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
    Permission { perm_type: kind as i32, key: key.to_owned().into(), range_end: range_end.to_owned().into() }
}

/// A store driven by root.
struct Admin(World);

impl Admin {
    fn new() -> Admin {
        Admin(World::new(Options::default()))
    }

    fn revision(&mut self) -> u64 {
        self.0.publish().0.auth().revision()
    }

    fn ask(&mut self, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Result<Reply, Error> {
        let revision = self.revision();
        self.0.ask_as("root", revision, fill)
    }

    fn ask_as(&mut self, user: &str, fill: impl FnOnce(&mut pb::InternalRaftRequest)) -> Result<Reply, Error> {
        let revision = self.revision();
        self.0.ask_as(user, revision, fill)
    }

    fn add_user(&mut self, name: &str) -> Result<Reply, Error> {
        let add = pb::AuthUserAddRequest { name: name.into(), hashed_password: HASH.into(), ..Default::default() };
        self.ask(|r| r.auth_user_add = Some(add))
    }

    fn delete_user(&mut self, name: &str) -> Result<Reply, Error> {
        self.ask(|r| r.auth_user_delete = Some(pb::AuthUserDeleteRequest { name: name.into() }))
    }

    fn add_role(&mut self, name: &str) -> Result<Reply, Error> {
        self.ask(|r| r.auth_role_add = Some(pb::AuthRoleAddRequest { name: name.into() }))
    }

    fn delete_role(&mut self, role: &str) -> Result<Reply, Error> {
        self.ask(|r| r.auth_role_delete = Some(pb::AuthRoleDeleteRequest { role: role.into() }))
    }

    fn grant_role(&mut self, user: &str, role: &str) -> Result<Reply, Error> {
        let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        self.ask(|r| r.auth_user_grant_role = Some(grant))
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<Reply, Error> {
        let revoke = pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
        self.ask(|r| r.auth_user_revoke_role = Some(revoke))
    }

    fn grant(&mut self, role: &str, perm: Permission) -> Result<Reply, Error> {
        let grant = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        self.ask(|r| r.auth_role_grant_permission = Some(grant))
    }

    fn revoke(&mut self, role: &str, key: &str, end: &str) -> Result<Reply, Error> {
        let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
        let revoke = pb::AuthRoleRevokePermissionRequest { role: role.into(), key, range_end };
        self.ask(|r| r.auth_role_revoke_permission = Some(revoke))
    }

    fn enable(&mut self) -> Result<Reply, Error> {
        self.ask(|r| r.auth_enable = Some(pb::AuthEnableRequest {}))
    }

    fn disable(&mut self) -> Result<Reply, Error> {
        self.ask(|r| r.auth_disable = Some(pb::AuthDisableRequest {}))
    }

    fn txn_as(&mut self, user: &str, ops: Vec<Op>) -> Result<Reply, Error> {
        let success = ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
        self.ask_as(user, |r| r.txn = Some(pb::TxnRequest { success, ..Default::default() }))
    }

    /// root, and alice with the role r; enabled.
    fn with_alice(permissions: &[Permission]) -> Admin {
        let mut admin = Admin::new();
        admin.add_user("root").unwrap();
        admin.grant_role("root", "root").unwrap();
        admin.add_user("alice").unwrap();
        admin.add_role("r").unwrap();
        admin.grant_role("alice", "r").unwrap();
        permissions.iter().for_each(|p| drop(admin.grant("r", p.clone()).unwrap()));
        admin.enable().unwrap();
        admin
    }

    /// A raw record of the page store.
    fn record(&mut self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.0.checkpoint();
        // A copy: the store holds the lock of its own file.
        let (copy, bytes) = (Path::new("/copy"), self.0.disk.read_whole(Path::new("/db")).unwrap());
        let disk = SimDisk::new(SimOptions { seed: 0, capacity: u64::MAX }).shared();
        disk.open(copy, OpenOptions::create_new()).unwrap().write_at(&bytes, 0).unwrap();
        let options =
            bolt::Options { cache_bytes: 1 << 20, read_only: true, no_sync: true, ..bolt::Options::default() };
        let db = bolt::Db::open(disk, copy, options).unwrap();
        db.view().get(bucket.as_bytes(), key.as_bytes()).unwrap().map(|v| v.to_vec())
    }
}

fn op_range(key: &str, range_end: &str) -> Op {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    Op::RequestRange(pb::RangeRequest { key, range_end, ..Default::default() })
}

#[test]
fn enabling_needs_a_root_user_with_the_root_role_and_leaves_the_revision() {
    let mut admin = Admin::new();
    assert_eq!(admin.revision(), 1);
    assert_eq!(admin.enable(), Err(Error::RootUserNotExist));
    admin.add_user("root").unwrap();
    assert_eq!(admin.enable(), Err(Error::RootRoleNotExist));
    admin.grant_role("root", "root").unwrap();
    assert_eq!(admin.revision(), 3);
    admin.enable().unwrap();
    admin.enable().unwrap();
    assert_eq!(admin.revision(), 3);
    admin.disable().unwrap();
    assert_eq!(admin.revision(), 4);
    admin.disable().unwrap();
    assert_eq!(admin.revision(), 4);
}

#[test]
fn changes_are_refused_with_etcds_errors() {
    let mut admin = Admin::new();
    assert_eq!(admin.add_user(""), Err(Error::UserEmpty));
    assert_eq!(admin.add_role(""), Err(Error::RoleEmpty));
    admin.add_user("alice").unwrap();
    admin.add_role("r").unwrap();
    let before = admin.revision();
    assert_eq!(admin.add_user("alice"), Err(Error::UserAlreadyExist));
    assert_eq!(admin.add_role("r"), Err(Error::RoleAlreadyExist));
    assert_eq!(admin.delete_user("bob"), Err(Error::UserNotFound));
    assert_eq!(admin.delete_role("s"), Err(Error::RoleNotFound));
    assert_eq!(admin.grant_role("bob", "r"), Err(Error::UserNotFound));
    assert_eq!(admin.grant_role("alice", "s"), Err(Error::RoleNotFound));
    assert_eq!(admin.revoke_role("alice", "r"), Err(Error::RoleNotGranted));
    assert_eq!(admin.revoke("r", "a", ""), Err(Error::PermissionNotGranted));
    assert_eq!(admin.revoke("s", "a", ""), Err(Error::RoleNotFound));
    assert_eq!(admin.grant("s", permission(Type::Read, "a", "")), Err(Error::RoleNotFound));
    assert_eq!(admin.grant("r", permission(Type::Read, "b", "a")), Err(Error::InvalidAuthMgmt));
    let nothing = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    assert_eq!(admin.ask(|r| r.auth_role_grant_permission = Some(nothing)), Err(Error::PermissionNotGiven));
    let bad = pb::AuthUserAddRequest { name: "bob".into(), hashed_password: "*".into(), ..Default::default() };
    let text = "auth: authentication failed, password was given for no password user";
    assert_eq!(admin.ask(|r| r.auth_user_add = Some(bad)), Err(Error::Other(text.into())));
    assert_eq!(admin.revision(), before);
}

#[test]
fn a_role_that_is_held_already_is_granted_without_a_change() {
    let mut admin = Admin::new();
    admin.add_user("root").unwrap();
    // The root role need not exist.
    admin.grant_role("root", "root").unwrap();
    let before = admin.revision();
    admin.grant_role("root", "root").unwrap();
    assert_eq!(admin.revision(), before);
}

#[test]
fn while_enabled_root_stays_root() {
    let mut admin = Admin::with_alice(&[]);
    admin.add_role("root").unwrap();
    assert_eq!(admin.delete_user("root"), Err(Error::InvalidAuthMgmt));
    assert_eq!(admin.delete_role("root"), Err(Error::InvalidAuthMgmt));
    assert_eq!(admin.revoke_role("root", "root"), Err(Error::InvalidAuthMgmt));
    admin.disable().unwrap();
    admin.delete_role("root").unwrap();
    admin.delete_user("root").unwrap();
}

#[test]
fn records_are_gos_bytes() {
    let mut admin = Admin::with_alice(&[permission(Type::Readwrite, "k", "l"), permission(Type::Read, "a", "")]);
    let no_password = Some(UserAddOptions { no_password: true });
    let add = pb::AuthUserAddRequest { name: "bob".into(), options: no_password, ..Default::default() };
    admin.ask(|r| r.auth_user_add = Some(add)).unwrap();
    assert_eq!(admin.record("authUsers", "alice").unwrap(), b"\x0a\x05alice\x12\x0a$2a$04$abc\x1a\x01r\x22\x00");
    assert_eq!(admin.record("authUsers", "bob").unwrap(), b"\x0a\x03bob\x22\x02\x08\x01");
    assert_eq!(
        admin.record("authRoles", "r").unwrap(),
        b"\x0a\x01r\x12\x03\x12\x01a\x12\x08\x08\x02\x12\x01k\x1a\x01l"
    );
    assert_eq!(admin.record("auth", "authEnabled").unwrap(), [1]);
    assert_eq!(admin.record("auth", "authRevision").unwrap(), 9u64.to_be_bytes());
    admin.delete_role("r").unwrap();
    admin.disable().unwrap();
    assert_eq!(admin.record("authRoles", "r"), None);
    assert_eq!(admin.record("authUsers", "alice").unwrap(), b"\x0a\x05alice\x12\x0a$2a$04$abc\x22\x00");
    assert_eq!(admin.record("auth", "authEnabled").unwrap(), [0]);
    assert_eq!(admin.record("auth", "authRevision").unwrap(), 11u64.to_be_bytes());
}

#[test]
fn a_fresh_store_has_the_first_revision_on_disk() {
    let mut admin = Admin::new();
    assert_eq!(admin.record("auth", "authRevision").unwrap(), 1u64.to_be_bytes());
}

#[test]
fn users_roles_and_permissions_survive_a_restart() {
    let admin = Admin::with_alice(&[permission(Type::Read, "a", "c"), permission(Type::Read, "c", "e")]);
    let mut world = admin.0.restart(Options::default());
    let auth = world.publish().0.auth().clone();
    let alice = |revision| Claim { user: "alice".into(), revision };
    assert!(auth.is_enabled());
    assert_eq!(auth.revision(), 8);
    assert_eq!(auth.check(&alice(8), b"a", b"e", Wish::Read), Ok(()));
    assert_eq!(auth.check(&alice(8), b"a", b"", Wish::Write), Err(Error::PermissionDenied));
    assert_eq!(auth.check(&alice(7), b"a", b"e", Wish::Read), Err(Error::AuthOldRevision));
    assert_eq!(auth.check(&Claim::default(), b"a", b"e", Wish::Read), Err(Error::UserEmpty));
    assert_eq!(auth.check_admin(&alice(8)), Err(Error::PermissionDenied));
    assert_eq!(auth.check_admin(&Claim { user: "bob".into(), revision: 8 }), Err(Error::UserNotFound));
    assert_eq!(auth.check_admin(&Claim { user: "root".into(), revision: 1 }), Ok(()));
}

#[test]
fn an_entry_proposed_before_a_change_is_refused_after_it() {
    let mut admin = Admin::with_alice(&[permission(Type::Write, "k", "")]);
    let claimed = admin.revision();
    admin.add_role("other").unwrap();
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    assert_eq!(admin.0.ask_as("alice", claimed, |r| r.put = Some(put.clone())), Err(Error::AuthOldRevision));
    admin.ask_as("alice", |r| r.put = Some(put.clone())).unwrap();
    admin.delete_user("alice").unwrap();
    assert_eq!(admin.ask_as("alice", |r| r.put = Some(put.clone())), Err(Error::PermissionDenied));
    assert_eq!(admin.0.ask(|r| r.put = Some(put)), Err(Error::UserEmpty));
}

#[test]
fn only_the_first_permission_with_a_key_is_replaced() {
    let mut admin = Admin::with_alice(&[permission(Type::Read, "k", ""), permission(Type::Read, "k", "l")]);
    admin.grant("r", permission(Type::Write, "k", "l")).unwrap();
    admin.grant("r", permission(Type::Readwrite, "k", "")).unwrap();
    let get = pb::AuthRoleGetRequest { role: "r".into() };
    let Ok(Reply::AuthRoleGet(role)) = admin.ask(|r| r.auth_role_get = Some(get)) else { unreachable!("root may") };
    let expected = [(Type::Readwrite, ""), (Type::Read, "l"), (Type::Write, "l")];
    assert_eq!(role.perm, expected.map(|(kind, end)| permission(kind, "k", end)));
    admin.revoke("r", "k", "l").unwrap();
    let get = pb::AuthRoleGetRequest { role: "r".into() };
    let Ok(Reply::AuthRoleGet(role)) = admin.ask(|r| r.auth_role_get = Some(get)) else { unreachable!("root may") };
    assert_eq!(role.perm, [permission(Type::Readwrite, "k", "")]);
}

#[test]
fn users_may_look_at_themselves_and_at_their_roles() {
    let mut admin = Admin::with_alice(&[]);
    admin.add_role("other").unwrap();
    let user = |name: &str| Some(pb::AuthUserGetRequest { name: name.into() });
    let role = |role: &str| Some(pb::AuthRoleGetRequest { role: role.into() });
    admin.ask_as("alice", |r| r.auth_user_get = user("alice")).unwrap();
    admin.ask_as("alice", |r| r.auth_role_get = role("r")).unwrap();
    assert_eq!(admin.ask_as("alice", |r| r.auth_user_get = user("root")), Err(Error::PermissionDenied));
    assert_eq!(admin.ask_as("alice", |r| r.auth_role_get = role("other")), Err(Error::PermissionDenied));
    let list = |r: &mut pb::InternalRaftRequest| r.auth_user_list = Some(pb::AuthUserListRequest {});
    assert_eq!(admin.ask_as("alice", list), Err(Error::PermissionDenied));
    let Ok(Reply::AuthUserList(users)) = admin.ask(list) else { unreachable!("root may") };
    assert_eq!(users.users, ["alice", "root"]);
}

#[test]
fn tokens_are_numbered_by_the_entry_before_theirs() {
    let mut admin = Admin::with_alice(&[]);
    let ask = |name: &str| pb::InternalAuthenticateRequest {
        name: name.into(),
        simple_token: "abcdefghijklmnop".into(),
        ..Default::default()
    };
    let Ok(Reply::Authenticate { response, auth_revision }) = admin.ask(|r| r.authenticate = Some(ask("alice"))) else {
        unreachable!("alice has a password")
    };
    assert_eq!((response.token.as_str(), auth_revision), ("abcdefghijklmnop.6", 6));
    assert_eq!(admin.ask(|r| r.authenticate = Some(ask("bob"))), Err(Error::AuthFailed));
    admin.disable().unwrap();
    assert_eq!(admin.ask(|r| r.authenticate = Some(ask("alice"))), Err(Error::AuthNotEnabled));
}

/// GHSA-xg4h-6gfc-h4m8: "from this key on" was taken for "this key".
#[test]
fn a_permission_for_one_key_is_none_for_all_that_follow() {
    let mut admin = Admin::with_alice(&[permission(Type::Readwrite, "k", "")]);
    for (range_end, allowed) in [("", true), ("k\0", true), ("\0", false), ("l", false), ("kk", false)] {
        let expected = if allowed { Ok(()) } else { Err(Error::PermissionDenied) };
        assert_eq!(admin.txn_as("alice", vec![op_range("k", range_end)]).map(drop), expected, "{range_end:?}");
        assert_eq!(admin.txn_as("alice", vec![delete("k", range_end)]).map(drop), expected, "{range_end:?}");
    }
}

/// GHSA-rfx7-8w68-q57q (CVE-2026-33343): nested transactions went unchecked; GHSA-x35m-3gp4-4fh5 (CVE-2026-44283): so did
/// leases and previous values of puts in transactions. What is allowed inside is what is allowed alone.
#[test]
fn whatever_is_in_a_transaction_needs_what_it_would_need_alone() {
    let granted =
        [permission(Type::Write, "w", ""), permission(Type::Read, "r", ""), permission(Type::Readwrite, "x", "")];
    let mut admin = Admin::with_alice(&granted);
    admin.ask(|r| r.lease_grant = Some(pb::LeaseGrantRequest { ttl: 60, id: 5 })).unwrap();
    let attached = pb::PutRequest { key: "secret".into(), lease: 5, ..Default::default() };
    admin.ask(|r| r.put = Some(attached)).unwrap();
    let with = |key: &str, prev_kv, lease| {
        Op::RequestPut(pb::PutRequest { key: key.to_owned().into(), prev_kv, lease, ..Default::default() })
    };
    let cases = [
        (put("w", "v"), true),
        (put("r", "v"), false),
        (put("secret", "v"), false),
        (with("w", true, 0), false),
        (with("x", true, 0), true),
        (with("x", false, 5), false),
        (op_range("r", ""), true),
        (op_range("w", ""), false),
        (delete("w", ""), true),
        (delete("r", ""), false),
        (
            Op::RequestDeleteRange(pb::DeleteRangeRequest { key: "w".into(), prev_kv: true, ..Default::default() }),
            false,
        ),
    ];
    for (op, allowed) in cases {
        let expected = if allowed { Ok(()) } else { Err(Error::PermissionDenied) };
        for op in [op.clone(), nested(op.clone()), nested(nested(op))] {
            assert_eq!(admin.txn_as("alice", vec![op.clone()]).map(drop), expected, "{op:?}");
            // Both branches count, whichever is taken.
            let failure = vec![pb::RequestOp { request: Some(op.clone()) }];
            let txn = pb::TxnRequest { failure, ..Default::default() };
            assert_eq!(admin.ask_as("alice", |r| r.txn = Some(txn)).map(drop), expected, "{op:?}");
        }
    }
    let compare = vec![pb::Compare { key: "secret".into(), ..Default::default() }];
    let txn = pb::TxnRequest { compare, ..Default::default() };
    assert_eq!(admin.ask_as("alice", |r| r.txn = Some(txn)), Err(Error::PermissionDenied));
}

#[test]
fn a_lease_is_revoked_by_who_may_write_all_its_keys() {
    let mut admin = Admin::with_alice(&[permission(Type::Write, "mine", "")]);
    admin.ask(|r| r.lease_grant = Some(pb::LeaseGrantRequest { ttl: 60, id: 5 })).unwrap();
    let attach = |key: &str| pb::PutRequest { key: key.to_owned().into(), lease: 5, ..Default::default() };
    admin.ask_as("alice", |r| r.put = Some(attach("mine"))).unwrap();
    admin.ask(|r| r.put = Some(attach("theirs"))).unwrap();
    let revoke = |r: &mut pb::InternalRaftRequest| r.lease_revoke = Some(pb::LeaseRevokeRequest { id: 5 });
    assert_eq!(admin.ask_as("alice", revoke), Err(Error::PermissionDenied));
    assert_eq!(admin.0.ask(revoke), Err(Error::UserEmpty));
    let unknown = |r: &mut pb::InternalRaftRequest| r.lease_revoke = Some(pb::LeaseRevokeRequest { id: 6 });
    assert_eq!(admin.ask_as("alice", unknown), Err(Error::LeaseNotFound));
    // A member's own revocation is root's, of whatever revision.
    admin.0.ask_as("root", 1, revoke).unwrap();
}

#[test]
fn alarms_come_before_permissions_and_the_quota_after_them() {
    let mut admin = Admin::with_alice(&[permission(Type::Write, "k", "")]);
    let activate = pb::alarm_request::AlarmAction::Activate as i32;
    let raise = |alarm: pb::AlarmType| pb::AlarmRequest { action: activate, member_id: 1, alarm: alarm as i32 };
    let put = || Some(pb::PutRequest { key: "secret".into(), ..Default::default() });
    assert_eq!(admin.ask_as("alice", |r| r.put = put()), Err(Error::PermissionDenied));
    admin.ask(|r| r.alarm = Some(raise(pb::AlarmType::Nospace))).unwrap();
    assert_eq!(admin.ask_as("alice", |r| r.put = put()), Err(Error::NoSpace));
    admin.ask(|r| r.alarm = Some(raise(pb::AlarmType::Corrupt))).unwrap();
    assert_eq!(admin.ask_as("alice", |r| r.put = put()), Err(Error::Corrupt));
}
