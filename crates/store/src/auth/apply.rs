//! What the log's requests about users and roles do: checks, errors and records are Go etcd's, in its order.

use super::legacy::stored;
use super::permits::is_valid_range;
use super::{Claim, ENABLED, FIRST_REVISION, REVISION, ROOT_ROLE, ROOT_USER, has_root_role, sort};
use crate::apply::{Effect, Reply};
use crate::store::Store;
use crate::{Error, schema};
use api::pb::authpb::{Permission, Role, User, permission::Type};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use std::sync::Arc;

type Done = Result<Reply, api::Error>;

/// Whether only the root role may have it applied; others are checked where they are applied, or not at all.
pub(crate) fn needs_admin(r: &pb::InternalRaftRequest) -> bool {
    r.auth_enable.is_some()
        || r.auth_disable.is_some()
        || r.auth_user_add.is_some()
        || r.auth_user_delete.is_some()
        || r.auth_user_change_password.is_some()
        || r.auth_user_grant_role.is_some()
        || r.auth_user_revoke_role.is_some()
        || r.auth_role_add.is_some()
        || r.auth_role_grant_permission.is_some()
        || r.auth_role_revoke_permission.is_some()
        || r.auth_role_delete.is_some()
        || r.auth_user_list.is_some()
        || r.auth_role_list.is_some()
}

impl Store {
    /// Reads users and roles; a store that has never had any begins at the first revision.
    pub(crate) fn restore_auth(&mut self) -> Result<(), Error> {
        self.s.auth = super::Auth::load(&self.s.backend)?;
        if self.s.auth.revision == 0 {
            self.save_auth_revision(FIRST_REVISION);
        }
        Ok(())
    }

    /// `None`: the request is none of these. `index` is the entry's.
    pub(crate) fn dispatch_auth(
        &mut self,
        r: pb::InternalRaftRequest,
        claim: &Claim,
        index: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<Done> {
        Some(if let Some(r) = r.authenticate {
            self.authenticate(&r, index, effects)
        } else if r.auth_enable.is_some() {
            self.enable_auth()
        } else if r.auth_disable.is_some() {
            Ok(self.disable_auth(effects))
        } else if r.auth_status.is_some() {
            Ok(self.auth_status())
        } else if let Some(r) = r.auth_user_add {
            self.add_user(r, index)
        } else if let Some(r) = r.auth_user_delete {
            self.delete_user(&r.name, effects)
        } else if let Some(r) = r.auth_user_change_password {
            self.change_password(&r, index, effects)
        } else if let Some(r) = r.auth_user_grant_role {
            self.grant_role(&r.user, r.role)
        } else if let Some(r) = r.auth_user_revoke_role {
            self.revoke_role(&r.name, &r.role)
        } else if let Some(r) = r.auth_user_get {
            self.describe_user(&r.name, claim)
        } else if r.auth_user_list.is_some() {
            let users = self.s.auth.users.keys().cloned().collect();
            Ok(Reply::AuthUserList(pb::AuthUserListResponse { header: self.header_now(), users }))
        } else if let Some(r) = r.auth_role_add {
            self.add_role(&r.name)
        } else if let Some(r) = r.auth_role_delete {
            self.delete_role(&r.role)
        } else if let Some(r) = r.auth_role_grant_permission {
            self.grant_permission(r)
        } else if let Some(r) = r.auth_role_revoke_permission {
            self.revoke_permission(&r)
        } else if let Some(r) = r.auth_role_get {
            self.describe_role(&r.role, claim)
        } else if r.auth_role_list.is_some() {
            let roles = self.s.auth.roles.keys().cloned().collect();
            Ok(Reply::AuthRoleList(pb::AuthRoleListResponse { header: self.header_now(), roles }))
        } else {
            return None;
        })
    }

    fn header_now(&self) -> Option<pb::ResponseHeader> {
        Some(self.s.header())
    }

    /// The password was checked by the member that was asked; here the token gets its number, the same at all members.
    fn authenticate(&mut self, r: &pb::InternalAuthenticateRequest, index: u64, effects: &mut Vec<Effect>) -> Done {
        if !self.s.auth.enabled {
            return Err(api::Error::AuthNotEnabled);
        }
        let user = self.s.auth.user(&r.name).ok_or(api::Error::AuthFailed)?;
        if user.options.is_some_and(|options| options.no_password) {
            return Err(api::Error::AuthFailed);
        }
        // The consistent index before the entry: that is what Go numbers tokens with.
        let token = format!("{}.{}", r.simple_token, index.saturating_sub(1));
        effects.push(Effect::TokenAssigned { user: r.name.clone(), token: token.clone() });
        let response = pb::AuthenticateResponse { header: self.header_now(), token };
        Ok(Reply::Authenticate { response, auth_revision: self.s.auth.revision })
    }

    fn enable_auth(&mut self) -> Done {
        if !self.s.auth.enabled {
            let root = self.s.auth.user(ROOT_USER).ok_or(api::Error::RootUserNotExist)?;
            if !has_root_role(root) {
                return Err(api::Error::RootRoleNotExist);
            }
            self.s.auth.enabled = true;
            self.set(schema::AUTH, ENABLED, Some(Bytes::from_static(&[1])));
        }
        Ok(Reply::AuthEnable(pb::AuthEnableResponse { header: self.header_now() }))
    }

    fn disable_auth(&mut self, effects: &mut Vec<Effect>) -> Reply {
        if self.s.auth.enabled {
            self.s.auth.enabled = false;
            self.set(schema::AUTH, ENABLED, Some(Bytes::from_static(&[0])));
            self.commit_auth_revision();
            effects.push(Effect::TokensDropped);
        }
        Reply::AuthDisable(pb::AuthDisableResponse { header: self.header_now() })
    }

    fn auth_status(&self) -> Reply {
        let auth = &self.s.auth;
        let header = self.header_now();
        Reply::AuthStatus(pb::AuthStatusResponse { header, enabled: auth.enabled, auth_revision: auth.revision })
    }

    fn add_user(&mut self, r: pb::AuthUserAddRequest, index: u64) -> Done {
        if r.name.is_empty() {
            return Err(api::Error::UserEmpty);
        }
        if self.s.auth.user(&r.name).is_some() {
            return Err(api::Error::UserAlreadyExist);
        }
        let options = r.options.unwrap_or_default();
        let password = match options.no_password {
            true => Bytes::new(),
            false => stored(&r.name, &r.password, &r.hashed_password, index)?,
        };
        let name = r.name.into();
        self.put_user(User { name, password, roles: Vec::new(), options: Some(options) });
        self.commit_auth_revision();
        Ok(Reply::AuthUserAdd(pb::AuthUserAddResponse { header: self.header_now() }))
    }

    fn delete_user(&mut self, name: &str, effects: &mut Vec<Effect>) -> Done {
        if self.s.auth.enabled && name == ROOT_USER {
            return Err(api::Error::InvalidAuthMgmt);
        }
        if self.s.auth.user(name).is_none() {
            return Err(api::Error::UserNotFound);
        }
        Arc::make_mut(&mut self.s.auth.users).remove(name);
        Arc::make_mut(&mut self.s.auth.permits).remove(name);
        self.set(schema::AUTH_USERS, name.as_bytes(), None);
        self.commit_auth_revision();
        effects.push(Effect::TokensOfUserDropped { user: name.to_owned() });
        Ok(Reply::AuthUserDelete(pb::AuthUserDeleteResponse { header: self.header_now() }))
    }

    fn change_password(
        &mut self,
        r: &pb::AuthUserChangePasswordRequest,
        index: u64,
        effects: &mut Vec<Effect>,
    ) -> Done {
        let mut user = self.known_user(&r.name)?;
        user.password = match user.options.is_some_and(|options| options.no_password) {
            true => Bytes::new(),
            false => stored(&r.name, &r.password, &r.hashed_password, index)?,
        };
        self.put_user(user);
        self.commit_auth_revision();
        effects.push(Effect::TokensOfUserDropped { user: r.name.clone() });
        Ok(Reply::AuthUserChangePassword(pb::AuthUserChangePasswordResponse { header: self.header_now() }))
    }

    fn grant_role(&mut self, name: &str, role: String) -> Done {
        let mut user = self.known_user(name)?;
        if role != ROOT_ROLE && !self.s.auth.roles.contains_key(&role) {
            return Err(api::Error::RoleNotFound);
        }
        let at = user.roles.partition_point(|held| *held < role);
        // What is held already is no change, and moves no revision.
        if user.roles.get(at) != Some(&role) {
            user.roles.push(role);
            user.roles.sort();
            self.put_user(user);
            self.commit_auth_revision();
        }
        Ok(Reply::AuthUserGrantRole(pb::AuthUserGrantRoleResponse { header: self.header_now() }))
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Done {
        if self.s.auth.enabled && name == ROOT_USER && role == ROOT_ROLE {
            return Err(api::Error::InvalidAuthMgmt);
        }
        let mut user = self.known_user(name)?;
        let held = user.roles.len();
        user.roles.retain(|r| r != role);
        if user.roles.len() == held {
            return Err(api::Error::RoleNotGranted);
        }
        self.put_user(user);
        self.commit_auth_revision();
        Ok(Reply::AuthUserRevokeRole(pb::AuthUserRevokeRoleResponse { header: self.header_now() }))
    }

    /// Of themselves users may ask.
    fn describe_user(&self, name: &str, claim: &Claim) -> Done {
        self.s.auth.check_admin(claim).or_else(|e| if name == claim.user { Ok(()) } else { Err(e) })?;
        let user = self.s.auth.user(name).ok_or(api::Error::UserNotFound)?;
        Ok(Reply::AuthUserGet(pb::AuthUserGetResponse { header: self.header_now(), roles: user.roles.clone() }))
    }

    fn add_role(&mut self, name: &str) -> Done {
        if name.is_empty() {
            return Err(api::Error::RoleEmpty);
        }
        if self.s.auth.roles.contains_key(name) {
            return Err(api::Error::RoleAlreadyExist);
        }
        self.put_role(Role { name: name.to_owned().into(), key_permission: Vec::new() });
        self.commit_auth_revision();
        Ok(Reply::AuthRoleAdd(pb::AuthRoleAddResponse { header: self.header_now() }))
    }

    fn delete_role(&mut self, name: &str) -> Done {
        if self.s.auth.enabled && name == ROOT_ROLE {
            return Err(api::Error::InvalidAuthMgmt);
        }
        if !self.s.auth.roles.contains_key(name) {
            return Err(api::Error::RoleNotFound);
        }
        Arc::make_mut(&mut self.s.auth.roles).remove(name);
        self.set(schema::AUTH_ROLES, name.as_bytes(), None);
        for mut user in self.holders(name) {
            user.roles.retain(|role| role != name);
            self.put_user(user);
        }
        self.commit_auth_revision();
        Ok(Reply::AuthRoleDelete(pb::AuthRoleDeleteResponse { header: self.header_now() }))
    }

    fn grant_permission(&mut self, r: pb::AuthRoleGrantPermissionRequest) -> Done {
        let granted = r.perm.ok_or(api::Error::PermissionNotGiven)?;
        if !is_valid_range(&granted.key, &granted.range_end) {
            return Err(api::Error::InvalidAuthMgmt);
        }
        let mut role = self.known_role(&r.name)?;
        let permissions = &mut role.key_permission;
        let at = permissions.partition_point(|p| p.key < granted.key);
        // Only the first permission with that key is looked at; a second one may come to be there twice.
        match permissions.get_mut(at).filter(|p| p.key == granted.key && p.range_end == granted.range_end) {
            Some(there) => there.perm_type = granted.perm_type,
            None => {
                permissions.push(owned(&granted));
                sort::sort(permissions, |a, b| a.key < b.key);
            }
        }
        self.put_role(role);
        self.refresh_holders(&r.name);
        self.commit_auth_revision();
        Ok(Reply::AuthRoleGrantPermission(pb::AuthRoleGrantPermissionResponse { header: self.header_now() }))
    }

    fn revoke_permission(&mut self, r: &pb::AuthRoleRevokePermissionRequest) -> Done {
        let mut role = self.known_role(&r.role)?;
        let held = role.key_permission.len();
        role.key_permission.retain(|p| p.key != r.key || p.range_end != r.range_end);
        if role.key_permission.len() == held {
            return Err(api::Error::PermissionNotGranted);
        }
        self.put_role(role);
        self.refresh_holders(&r.role);
        self.commit_auth_revision();
        Ok(Reply::AuthRoleRevokePermission(pb::AuthRoleRevokePermissionResponse { header: self.header_now() }))
    }

    /// Of the roles they hold users may ask.
    fn describe_role(&self, name: &str, claim: &Claim) -> Done {
        let held = self.s.auth.has_role(&claim.user, name);
        self.s.auth.check_admin(claim).or_else(|e| if held { Ok(()) } else { Err(e) })?;
        let role = self.s.auth.roles.get(name).ok_or(api::Error::RoleNotFound)?;
        let all =
            Permission { perm_type: Type::Readwrite as i32, key: Bytes::new(), range_end: Bytes::from_static(&[0]) };
        let perm = if name == ROOT_ROLE { vec![all] } else { role.key_permission.clone() };
        Ok(Reply::AuthRoleGet(pb::AuthRoleGetResponse { header: self.header_now(), perm }))
    }

    fn known_user(&self, name: &str) -> Result<User, api::Error> {
        self.s.auth.user(name).cloned().ok_or(api::Error::UserNotFound)
    }

    fn known_role(&self, name: &str) -> Result<Role, api::Error> {
        self.s.auth.roles.get(name).map(|role| Role::clone(role)).ok_or(api::Error::RoleNotFound)
    }

    /// Users that hold the role.
    fn holders(&self, role: &str) -> Vec<User> {
        let holds = |user: &&Arc<User>| user.roles.iter().any(|held| held == role);
        self.s.auth.users.values().filter(holds).map(|user| User::clone(user)).collect()
    }

    /// A role changed, and with it what its holders may do.
    fn refresh_holders(&mut self, role: &str) {
        for user in self.holders(role) {
            self.refresh(&user);
        }
    }

    fn refresh(&mut self, user: &User) {
        let permits = self.s.auth.derive(user);
        Arc::make_mut(&mut self.s.auth.permits).insert(text(&user.name), permits);
    }

    fn put_user(&mut self, user: User) {
        self.set(schema::AUTH_USERS, &user.name.clone(), Some(user.encode_to_vec().into()));
        self.refresh(&user);
        Arc::make_mut(&mut self.s.auth.users).insert(text(&user.name), Arc::new(user));
    }

    fn put_role(&mut self, role: Role) {
        self.set(schema::AUTH_ROLES, &role.name.clone(), Some(role.encode_to_vec().into()));
        Arc::make_mut(&mut self.s.auth.roles).insert(text(&role.name), Arc::new(role));
    }

    fn commit_auth_revision(&mut self) {
        self.save_auth_revision(self.s.auth.revision + 1);
    }

    fn save_auth_revision(&mut self, revision: u64) {
        self.s.auth.revision = revision;
        self.set(schema::AUTH, REVISION, Some(revision.to_be_bytes().to_vec().into()));
    }
}

/// A copy that does not keep the log's entry.
fn owned(p: &Permission) -> Permission {
    let copy = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    Permission { perm_type: p.perm_type, key: copy(&p.key), range_end: copy(&p.range_end) }
}

/// Names come as text, from requests and from records that were checked when they were read.
fn text(name: &Bytes) -> String {
    String::from_utf8_lossy(name).into_owned()
}
