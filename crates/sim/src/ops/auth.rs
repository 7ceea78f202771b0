//! Users and roles as clients ask for them, and as whom they ask.

use super::{Draw, Op};
use crate::model::{Auth, PASSWORDS};
use api::pb::authpb::{Permission, UserAddOptions};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use server::access::{Client, User};
use server::{Request, Who};
use std::sync::Arc;

const USERS: [&str; 4] = ["root", "alice", "bob", "carol"];
const ROLES: [&str; 4] = ["root", "low", "high", "some"];

/// What may be granted. One end for each key: what Go does with several depends on how it sorts.
const RANGES: [(&str, &str); 9] = [
    ("\0", "\0"),
    ("k00", "k04"),
    ("k02", "k06"),
    ("k04", "k08"),
    ("k05", ""),
    ("k06", "\0"),
    ("k08", "k11"),
    ("k10", ""),
    ("k11", "\0"),
];
/// … and what may not.
const NO_RANGES: [(&str, &str); 3] = [("", "k04"), ("k05", "k05"), ("k07", "k01")];

/// Root, whose credentials follow every change.
pub fn root() -> Who {
    client(Ok(User { name: "root".into(), revision: None }))
}

fn client(user: Result<User, api::Error>) -> Who {
    Who::Client(Arc::new(Client { user, token: None }))
}

/// The name, if there is one.
pub fn name(who: &Who) -> &str {
    match who {
        Who::Client(client) => client.user.as_ref().map_or("", |user| &user.name),
        Who::Member => "root",
        Who::Stranger => "",
    }
}

impl Draw<'_> {
    /// As whom somebody asks.
    pub fn who(&mut self) -> Who {
        let auth = self.model.auth.revision;
        match self.rng.below(40) {
            0 => Who::Stranger,
            1 => client(Err(api::Error::InvalidAuthToken)),
            2..=15 => root(),
            n => {
                let name = self.one_of(&USERS);
                let revision = match n {
                    // Signed long ago, or just now, or even by a member that is ahead of the one that is asked.
                    16..=18 => Some(auth.saturating_sub(1 + self.rng.below(3)).max(1)),
                    19..=25 => Some(auth),
                    _ => None,
                };
                client(Ok(User { name, revision }))
            }
        }
    }

    fn one_of(&mut self, all: &[&str]) -> String {
        all[self.rng.below(all.len() as u64) as usize].to_owned()
    }

    /// Something about users and roles, and as whom it is asked. First they have to be there.
    pub fn auth_op(&mut self) -> (Op, Who) {
        let missing = if self.rng.one_in(3) { None } else { self.missing() };
        let request = missing.unwrap_or_else(|| self.auth_request());
        let who = if self.rng.one_in(4) { self.who() } else { root() };
        (Op::Auth(Box::new(request)), who)
    }

    /// What has to be done next until users may do different things, and it matters.
    pub fn missing(&mut self) -> Option<Request> {
        let auth: &Auth = &self.model.auth;
        let user = USERS.iter().find(|name| !auth.users.contains_key(**name));
        let role = ROLES[1..].iter().find(|name| !auth.roles.contains_key(**name));
        let bare = auth.roles.iter().find(|(name, granted)| *name != "root" && granted.len() < 2);
        let poor = auth.users.iter().find(|(_, user)| user.roles.is_empty());
        let (user, role) = (user.map(|name| (*name).to_owned()), role.map(|name| (*name).to_owned()));
        let (bare, poor) = (bare.map(|(name, _)| name.clone()), poor.map(|(name, _)| name.clone()));
        let enabled = auth.enabled;
        if let Some(name) = user {
            return Some(self.add_user(name));
        }
        if let Some(name) = role {
            return Some(Request::RoleAdd(pb::AuthRoleAddRequest { name }));
        }
        if let Some(name) = bare {
            return Some(self.grant(name));
        }
        if let Some(user) = poor {
            let role = if user == "root" { "root".to_owned() } else { self.one_of(&ROLES[1..]) };
            return Some(Request::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role }));
        }
        (!enabled).then_some(Request::AuthEnable(pb::AuthEnableRequest {}))
    }

    fn add_user(&mut self, name: String) -> Request {
        let no_password = self.rng.one_in(4);
        let hashed_password = if no_password { String::new() } else { self.password() };
        let options = (no_password || self.rng.one_in(2)).then_some(UserAddOptions { no_password });
        Request::UserAdd(pb::AuthUserAddRequest { name, password: String::new(), options, hashed_password })
    }

    fn password(&mut self) -> String {
        PASSWORDS[self.rng.below(PASSWORDS.len() as u64) as usize].0.to_owned()
    }

    fn range(&mut self) -> (Bytes, Bytes) {
        let ranges: &[(&str, &str)] = if self.rng.one_in(12) { &NO_RANGES } else { &RANGES };
        let (key, end) = ranges[self.rng.below(ranges.len() as u64) as usize];
        (Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
    }

    fn grant(&mut self, name: String) -> Request {
        let (key, range_end) = self.range();
        let perm_type = self.rng.below(3) as i32;
        let perm = (!self.rng.one_in(20)).then_some(Permission { perm_type, key, range_end });
        Request::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
    }

    /// Anything; now and then of a user or a role without a name.
    fn auth_request(&mut self) -> Request {
        let blank = self.rng.one_in(30);
        let (name, role) = (self.one_of(&USERS), self.one_of(&ROLES));
        let (name, role) = if blank { (String::new(), String::new()) } else { (name, role) };
        match self.rng.below(40) {
            0..=2 => self.add_user(name),
            3 => Request::UserDelete(pb::AuthUserDeleteRequest { name }),
            4..=5 => {
                let hashed_password = self.password();
                let password = String::new();
                Request::UserChangePassword(pb::AuthUserChangePasswordRequest { name, password, hashed_password })
            }
            6..=9 => Request::UserGrantRole(pb::AuthUserGrantRoleRequest { user: name, role }),
            10..=13 => Request::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role }),
            14 => Request::RoleAdd(pb::AuthRoleAddRequest { name: role }),
            15 => Request::RoleDelete(pb::AuthRoleDeleteRequest { role }),
            16..=21 => self.grant(role),
            22..=25 => {
                let (key, range_end) = self.range();
                Request::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
            }
            26..=27 => Request::AuthEnable(pb::AuthEnableRequest {}),
            28 => Request::AuthDisable(pb::AuthDisableRequest {}),
            29..=30 => Request::AuthStatus(pb::AuthStatusRequest {}),
            31..=32 => Request::UserGet(pb::AuthUserGetRequest { name }),
            33..=34 => Request::RoleGet(pb::AuthRoleGetRequest { role }),
            35 => Request::UserList(pb::AuthUserListRequest {}),
            36 => Request::RoleList(pb::AuthRoleListRequest {}),
            _ => {
                let simple_token = format!("token{}", self.serial);
                let password = String::new();
                Request::AssignToken(pb::InternalAuthenticateRequest { name, password, simple_token })
            }
        }
    }
}
