//! Users, roles and permissions (reference/semantics.md section 9), asked key by key and range by range.

use super::{Model, covers};
use crate::ops::Op;
use api::Error;
use api::pb::authpb::{Permission, permission::Type};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use server::{Request, Response, Who};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// As whom an entry is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub user: String,
    /// 0: nobody.
    pub revision: u64,
}

/// What a key is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Read,
    Write,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub password: Bytes,
    pub no_password: bool,
    pub roles: BTreeSet<String>,
}

/// Passwords as clients send them, and what is stored of them.
pub const PASSWORDS: [(&str, &[u8]); 3] = [("b25l", b"one"), ("dHdv", b"two"), ("", b"")];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    pub enabled: bool,
    pub revision: u64,
    pub users: BTreeMap<String, User>,
    /// A role's permissions, by the keys at which they begin.
    pub roles: BTreeMap<String, Vec<Permission>>,
}

impl Default for Auth {
    fn default() -> Self {
        Auth { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

type Checked = Result<(), Error>;

fn stored(hashed: &str) -> Bytes {
    let found = PASSWORDS.iter().find(|(text, _)| *text == hashed);
    found.map(|(_, bytes)| Bytes::from_static(bytes)).expect("clients draw from these")
}

impl Auth {
    /// What the caller's credentials are worth in this state.
    pub fn claim(&self, who: &Who) -> Result<Claim, Error> {
        match who {
            _ if !self.enabled => Ok(Claim::default()),
            Who::Member => Ok(Claim { user: "root".into(), revision: self.revision }),
            Who::Stranger => Ok(Claim::default()),
            Who::Client(client) => {
                let user = client.user.clone()?;
                Ok(Claim { revision: user.revision.unwrap_or(self.revision), user: user.name })
            }
        }
    }

    fn is_root(&self, name: &str) -> bool {
        self.users.get(name).is_some_and(|user| user.roles.contains("root"))
    }

    fn admin(&self, claim: &Claim) -> Checked {
        match claim.user.as_str() {
            _ if !self.enabled => Ok(()),
            "" => Err(Error::UserEmpty),
            name if self.is_root(name) => Ok(()),
            name if self.users.contains_key(name) => Err(Error::PermissionDenied),
            _ => Err(Error::UserNotFound),
        }
    }

    fn check(&self, claim: &Claim, key: &Bytes, end: &Bytes, wish: Wish) -> Checked {
        if !self.enabled {
            return Ok(());
        }
        if claim.revision == 0 {
            return Err(Error::UserEmpty);
        }
        if claim.revision < self.revision {
            return Err(Error::AuthOldRevision);
        }
        match self.may(&claim.user, key, end, wish) {
            true => Ok(()),
            false => Err(Error::PermissionDenied),
        }
    }

    /// Whether the user, whatever he claims, may.
    pub fn may(&self, name: &str, key: &Bytes, end: &Bytes, wish: Wish) -> bool {
        let Some(user) = self.users.get(name) else { return false };
        if self.is_root(name) {
            return true;
        }
        let granted = user.roles.iter().filter_map(|role| self.roles.get(role)).flatten();
        let useless = if wish == Wish::Read { Type::Write } else { Type::Read };
        let granted: Vec<&Permission> = granted.filter(|p| p.perm_type != useless as i32).collect();
        if end.is_empty() {
            return granted.iter().any(|p| covers(&p.key, &p.range_end, key));
        }
        // From permission to permission, until the end is reached or nothing goes on.
        let mut at = key.clone();
        loop {
            let reach = granted.iter().filter(|p| covers(&p.key, &p.range_end, &at)).map(|p| behind(p));
            let Some(reach) = reach.max_by(|a, b| order(a).cmp(&order(b))) else { return false };
            match (end.as_ref(), &reach) {
                (_, None) => return true,
                ([0], Some(_)) => {}
                (end, Some(reach)) if *reach >= end => return true,
                _ => {}
            }
            at = reach.expect("an open end was dealt with");
        }
    }

    /// A claim on a user's own account is as good as root's for some questions.
    fn admin_or(&self, claim: &Claim, own: bool) -> Checked {
        self.admin(claim).or_else(|e| if own { Ok(()) } else { Err(e) })
    }

    fn user(&mut self, name: &str) -> Result<&mut User, Error> {
        self.users.get_mut(name).ok_or(Error::UserNotFound)
    }
}

/// The first key behind the permission; `None`: there is none.
fn behind(p: &Permission) -> Option<Bytes> {
    match p.range_end.as_ref() {
        [] => Some([&p.key[..], &[0]].concat().into()),
        [0] => None,
        _ => Some(p.range_end.clone()),
    }
}

/// No end is behind all others.
fn order(end: &Option<Bytes>) -> (bool, &[u8]) {
    (end.is_none(), end.as_deref().unwrap_or_default())
}

impl Model {
    /// What a member in this state says of the request when it comes to its door.
    pub fn door(&self, who: &Who, request: &Request) -> Checked {
        let auth = &self.auth;
        if !auth.enabled {
            return Ok(());
        }
        let nobody = matches!(who, Who::Stranger);
        let some_user = || auth.claim(who).and_then(|claim| if nobody { Err(Error::UserEmpty) } else { Ok(claim) });
        match request {
            // Reads are looked at where they are answered.
            Request::AssignToken(_) | Request::Range(_) => Ok(()),
            Request::Txn(r) if Op::Txn(r.clone()).is_read() => Ok(()),
            Request::LeaseGrant(_) | Request::LeaseRevoke(_) => some_user().map(drop),
            Request::Alarm(r) if r.action == pb::alarm_request::AlarmAction::Get as i32 => some_user().map(drop),
            Request::LeaseKeepAlive(r) => self.check_lease(&some_user()?, r.id, Wish::Write),
            Request::LeaseTimeToLive(r) if r.keys => self.check_lease(&some_user()?, r.id, Wish::Read),
            Request::LeaseTimeToLive(_) => some_user().map(drop),
            Request::Compact(_)
            | Request::Alarm(_)
            | Request::Defragment(_)
            | Request::Snapshot(_)
            | Request::MoveLeader(_)
            | Request::Downgrade(_)
            | Request::MemberAdd(_)
            | Request::MemberRemove(_)
            | Request::MemberUpdate(_)
            | Request::MemberPromote(_) => auth.admin(&auth.claim(who)?),
            _ => auth.claim(who).map(drop),
        }
    }

    /// Whether a read is answered from this state.
    pub fn check_read(&self, who: &Who, request: &Request) -> Checked {
        if !self.auth.enabled {
            return Ok(());
        }
        let claim = self.auth.claim(who)?;
        match request {
            Request::Range(r) => self.auth.check(&claim, &r.key, &r.range_end, Wish::Read)?,
            Request::Txn(r) => self.check_txn(&claim, r)?,
            _ => {}
        }
        match [0, self.auth.revision].contains(&claim.revision) {
            true => Ok(()),
            false => Err(Error::AuthOldRevision),
        }
    }

    /// Whether a watch is created in this state.
    pub fn check_watch(&self, who: &Who, r: &pb::WatchCreateRequest) -> Checked {
        let key = if r.key.is_empty() { Bytes::from_static(&[0]) } else { r.key.clone() };
        self.auth.check(&self.auth.claim(who)?, &key, &r.range_end, Wish::Read)
    }

    pub(super) fn check_put_permission(&self, claim: &Claim, r: &pb::PutRequest) -> Checked {
        self.auth.check(claim, &r.key, &Bytes::new(), Wish::Write)?;
        self.check_lease(claim, r.lease, Wish::Write)?;
        if r.prev_kv { self.auth.check(claim, &r.key, &Bytes::new(), Wish::Read) } else { Ok(()) }
    }

    pub(super) fn check_delete(&self, claim: &Claim, r: &pb::DeleteRangeRequest) -> Checked {
        self.auth.check(claim, &r.key, &r.range_end, Wish::Write)?;
        if r.prev_kv { self.auth.check(claim, &r.key, &r.range_end, Wish::Read) } else { Ok(()) }
    }

    pub(super) fn check_txn(&self, claim: &Claim, r: &pb::TxnRequest) -> Checked {
        use pb::request_op::Request as Op;
        r.compare.iter().try_for_each(|c| self.auth.check(claim, &c.key, &c.range_end, Wish::Read))?;
        r.success.iter().chain(&r.failure).try_for_each(|op| match &op.request {
            Some(Op::RequestRange(r)) => self.auth.check(claim, &r.key, &r.range_end, Wish::Read),
            Some(Op::RequestPut(r)) => self.check_put_permission(claim, r),
            Some(Op::RequestDeleteRange(r)) => self.check_delete(claim, r),
            Some(Op::RequestTxn(r)) => self.check_txn(claim, r),
            None => Ok(()),
        })
    }

    pub(super) fn check_lease(&self, claim: &Claim, id: i64, wish: Wish) -> Checked {
        if self.auth.admin(claim).is_ok() || !self.leases.contains_key(&id) {
            return Ok(());
        }
        self.attached(id).iter().try_for_each(|key| self.auth.check(claim, key, &Bytes::new(), wish))
    }

    /// A request about users and roles; `index` is its entry's.
    pub(super) fn apply_auth(&mut self, request: &Request, claim: &Claim, index: u64) -> Result<Response, Error> {
        let for_anybody = matches!(
            request,
            Request::AssignToken(_) | Request::AuthStatus(_) | Request::UserGet(_) | Request::RoleGet(_)
        );
        if !for_anybody {
            self.auth.admin(claim)?;
        }
        let header = self.header();
        let before = self.auth.clone();
        let auth = Rc::make_mut(&mut self.auth);
        let answer = match request {
            Request::AssignToken(r) => {
                if !auth.enabled {
                    return Err(Error::AuthNotEnabled);
                }
                if auth.users.get(&r.name).is_none_or(|user| user.no_password) {
                    return Err(Error::AuthFailed);
                }
                let token = format!("{}.{}", r.simple_token, index - 1);
                let response = pb::AuthenticateResponse { header, token };
                return Ok(Response::TokenAssigned { response, auth_revision: auth.revision });
            }
            Request::AuthEnable(_) => {
                if !auth.enabled {
                    let root = auth.users.get("root").ok_or(Error::RootUserNotExist)?;
                    auth.enabled = root.roles.contains("root");
                }
                match auth.enabled {
                    true => return Ok(Response::AuthEnable(pb::AuthEnableResponse { header })),
                    false => return Err(Error::RootRoleNotExist),
                }
            }
            Request::AuthDisable(_) => {
                auth.enabled = false;
                Response::AuthDisable(pb::AuthDisableResponse { header })
            }
            Request::AuthStatus(_) => {
                let (enabled, auth_revision) = (auth.enabled, auth.revision);
                Response::AuthStatus(pb::AuthStatusResponse { header, enabled, auth_revision })
            }
            Request::UserAdd(r) => {
                auth.add_user(r)?;
                Response::UserAdd(pb::AuthUserAddResponse { header })
            }
            Request::UserGet(r) => {
                auth.admin_or(claim, r.name == claim.user)?;
                let roles = auth.user(&r.name)?.roles.iter().cloned().collect();
                Response::UserGet(pb::AuthUserGetResponse { header, roles })
            }
            Request::UserList(_) => {
                let users = auth.users.keys().cloned().collect();
                Response::UserList(pb::AuthUserListResponse { header, users })
            }
            Request::UserDelete(r) => {
                if auth.enabled && r.name == "root" {
                    return Err(Error::InvalidAuthMgmt);
                }
                auth.users.remove(&r.name).ok_or(Error::UserNotFound)?;
                Response::UserDelete(pb::AuthUserDeleteResponse { header })
            }
            Request::UserChangePassword(r) => {
                let user = auth.user(&r.name)?;
                user.password = if user.no_password { Bytes::new() } else { stored(&r.hashed_password) };
                // Even to what it was before.
                auth.revision += 1;
                return Ok(Response::UserChangePassword(pb::AuthUserChangePasswordResponse { header }));
            }
            Request::UserGrantRole(r) => {
                let known = r.role == "root" || auth.roles.contains_key(&r.role);
                let user = auth.user(&r.user)?;
                if !known {
                    return Err(Error::RoleNotFound);
                }
                user.roles.insert(r.role.clone());
                Response::UserGrantRole(pb::AuthUserGrantRoleResponse { header })
            }
            Request::UserRevokeRole(r) => {
                if auth.enabled && (r.name.as_str(), r.role.as_str()) == ("root", "root") {
                    return Err(Error::InvalidAuthMgmt);
                }
                if !auth.user(&r.name)?.roles.remove(&r.role) {
                    return Err(Error::RoleNotGranted);
                }
                Response::UserRevokeRole(pb::AuthUserRevokeRoleResponse { header })
            }
            Request::RoleAdd(r) => {
                if r.name.is_empty() {
                    return Err(Error::RoleEmpty);
                }
                if auth.roles.contains_key(&r.name) {
                    return Err(Error::RoleAlreadyExist);
                }
                auth.roles.insert(r.name.clone(), Vec::new());
                Response::RoleAdd(pb::AuthRoleAddResponse { header })
            }
            Request::RoleGet(r) => {
                let held = auth.users.get(&claim.user).is_some_and(|user| user.roles.contains(&r.role));
                auth.admin_or(claim, held)?;
                let granted = auth.roles.get(&r.role).ok_or(Error::RoleNotFound)?;
                let all = Permission {
                    perm_type: Type::Readwrite as i32,
                    key: Bytes::new(),
                    range_end: Bytes::from_static(&[0]),
                };
                let perm = if r.role == "root" { vec![all] } else { granted.clone() };
                Response::RoleGet(pb::AuthRoleGetResponse { header, perm })
            }
            Request::RoleList(_) => {
                let roles = auth.roles.keys().cloned().collect();
                Response::RoleList(pb::AuthRoleListResponse { header, roles })
            }
            Request::RoleDelete(r) => {
                if auth.enabled && r.role == "root" {
                    return Err(Error::InvalidAuthMgmt);
                }
                auth.roles.remove(&r.role).ok_or(Error::RoleNotFound)?;
                auth.users.values_mut().for_each(|user| user.roles.retain(|role| *role != r.role));
                Response::RoleDelete(pb::AuthRoleDeleteResponse { header })
            }
            Request::RoleGrantPermission(r) => {
                auth.grant(r)?;
                // Even of what was granted before.
                auth.revision += 1;
                return Ok(Response::RoleGrantPermission(pb::AuthRoleGrantPermissionResponse { header }));
            }
            Request::RoleRevokePermission(r) => {
                let granted = auth.roles.get_mut(&r.role).ok_or(Error::RoleNotFound)?;
                let at = granted.iter().position(|p| (&p.key, &p.range_end) == (&r.key, &r.range_end));
                granted.remove(at.ok_or(Error::PermissionNotGranted)?);
                Response::RoleRevokePermission(pb::AuthRoleRevokePermissionResponse { header })
            }
            other => unreachable!("{other:?} is not about users and roles"),
        };
        // What changes nothing moves nothing on.
        auth.revision += u64::from(*auth != *before);
        Ok(answer)
    }
}

impl Auth {
    fn add_user(&mut self, r: &pb::AuthUserAddRequest) -> Checked {
        if r.name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.users.contains_key(&r.name) {
            return Err(Error::UserAlreadyExist);
        }
        let no_password = r.options.is_some_and(|options| options.no_password);
        let password = if no_password { Bytes::new() } else { stored(&r.hashed_password) };
        self.users.insert(r.name.clone(), User { password, no_password, roles: BTreeSet::new() });
        Ok(())
    }

    /// Clients draw at most one end for each key, so that what is there already is what has the same key.
    fn grant(&mut self, r: &pb::AuthRoleGrantPermissionRequest) -> Checked {
        let new = r.perm.clone().ok_or(Error::PermissionNotGiven)?;
        let ends = new.range_end.is_empty() || new.range_end.as_ref() == [0] || new.range_end > new.key;
        if new.key.is_empty() || !ends {
            return Err(Error::InvalidAuthMgmt);
        }
        let granted = self.roles.get_mut(&r.name).ok_or(Error::RoleNotFound)?;
        granted.retain(|p| p.key != new.key);
        let at = granted.partition_point(|p| p.key < new.key);
        granted.insert(at, new);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_covered_by_permissions_that_touch_and_an_open_end_by_an_open_end() {
        let mut auth = Auth { enabled: true, ..Auth::default() };
        let permission =
            |key: &'static str, end: &'static str| Permission { perm_type: 0, key: key.into(), range_end: end.into() };
        let granted = vec![permission("a", "c"), permission("c", "e"), permission("g", ""), permission("x", "\0")];
        auth.roles.insert("r".into(), granted);
        auth.users.insert("u".into(), User { roles: ["r".to_owned()].into(), ..User::default() });
        let may = |key: &'static str, end: &'static str| auth.may("u", &key.into(), &end.into(), Wish::Read);
        assert!(may("a", "e") && may("b", "d") && may("d", "") && may("g", "g\0") && may("x", "\0") && may("y", "z"));
        assert!(!may("a", "g") && !may("e", "") && !may("a", "\0") && !may("g", "h"));
        assert!(!auth.may("u", &"a".into(), &"".into(), Wish::Write));
    }
}
