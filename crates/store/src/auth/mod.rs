//! Users, roles and permissions: who may do what (reference/semantics.md section 9).
//!
//! ```text
//! request of the log ─► apply.rs: users, roles, revision ─► Auth (immutable, in every Applied)
//!                          └─► page store                    │
//! a claim (user, revision) + a request ─► check.rs ◄─────────┘ permits.rs ─ intervals.rs
//! ```
//!
//! Invariants: what is decided here depends on the state and on the claim only, equally at every member, Go etcd's too;
//! records in the page store are Go's bytes; every change of a user or a role moves the revision on by one.

mod apply;
mod check;
mod intervals;
mod legacy;
mod permits;
mod sort;

pub(crate) use apply::needs_admin;

use crate::backend::Backend;
use crate::{Error, schema};
use api::pb::authpb;
use bytes::Bytes;
use permits::Permits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The user that may do everything, and cannot be deleted while authentication is enabled …
const ROOT_USER: &str = "root";
/// … because of this role.
const ROOT_ROLE: &str = "root";

const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";
/// The revision of a store without users and roles.
const FIRST_REVISION: u64 = 1;

/// As whom a request is made; the default is nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub user: String,
    /// The revision of users and roles that the claim rests on; 0 for nobody's.
    pub revision: u64,
}

/// What a key is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Read,
    Write,
}

/// Users and roles of one state. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: Arc<BTreeMap<String, Arc<authpb::User>>>,
    roles: Arc<BTreeMap<String, Arc<authpb::Role>>>,
    /// What follows from both.
    permits: Arc<BTreeMap<String, Arc<Permits>>>,
}

impl Auth {
    /// Whether permissions are asked for at all.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Moves on with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn user(&self, name: &str) -> Option<&authpb::User> {
        self.users.get(name).map(Arc::as_ref)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = &authpb::User> {
        self.users.values().map(Arc::as_ref)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = &authpb::Role> {
        self.roles.values().map(Arc::as_ref)
    }

    /// The claim of the root user, for what a member does on its own account; nobody's while there is no need of one.
    pub fn root_claim(&self) -> Claim {
        match self.enabled {
            true => Claim { user: ROOT_USER.into(), revision: self.revision },
            false => Claim::default(),
        }
    }

    /// Whether the claim's user may read or write the key, or all keys up to `range_end`.
    ///
    /// # Errors
    /// Nobody claims; the claim is older than the last change; the user may not, or is gone.
    pub fn check(&self, claim: &Claim, key: &[u8], range_end: &[u8], wish: Wish) -> Result<(), api::Error> {
        if !self.enabled {
            return Ok(());
        }
        if claim.revision == 0 {
            return Err(api::Error::UserEmpty);
        }
        if claim.revision < self.revision && !failpoint::mutant!("authRevisionIgnored") {
            return Err(api::Error::AuthOldRevision);
        }
        let user = self.user(&claim.user).ok_or(api::Error::PermissionDenied)?;
        let permits = self.permits.get(&claim.user);
        match has_root_role(user) || permits.is_some_and(|permits| permits.allow(key, range_end, wish)) {
            true => Ok(()),
            false => Err(api::Error::PermissionDenied),
        }
    }

    /// Whether the claim's user may do everything. The claim's age does not matter.
    ///
    /// # Errors
    /// Nobody claims; the user is gone, or lacks the root role.
    pub fn check_admin(&self, claim: &Claim) -> Result<(), api::Error> {
        if !self.enabled {
            return Ok(());
        }
        if claim.user.is_empty() {
            return Err(api::Error::UserEmpty);
        }
        match self.user(&claim.user) {
            None => Err(api::Error::UserNotFound),
            Some(user) if has_root_role(user) => Ok(()),
            Some(_) => Err(api::Error::PermissionDenied),
        }
    }

    fn has_role(&self, user: &str, role: &str) -> bool {
        self.user(user).is_some_and(|user| user.roles.iter().any(|r| r == role))
    }

    /// Reads everything back.
    pub(crate) fn load(backend: &Backend) -> Result<Auth, Error> {
        let number = |v: Bytes| v.as_ref().try_into().ok().map(u64::from_be_bytes);
        let mut auth = Auth {
            enabled: backend.get(schema::AUTH, ENABLED)?.is_some_and(|v| v.as_ref() == [1]),
            revision: backend.get(schema::AUTH, REVISION)?.and_then(number).unwrap_or(0),
            ..Auth::default()
        };
        auth.users = Arc::new(load(backend, schema::AUTH_USERS, |user: &authpb::User| &user.name)?);
        auth.roles = Arc::new(load(backend, schema::AUTH_ROLES, |role: &authpb::Role| &role.name)?);
        let permits = auth.users.iter().map(|(name, user)| (name.clone(), auth.derive(user)));
        auth.permits = Arc::new(permits.collect());
        Ok(auth)
    }

    fn derive(&self, user: &authpb::User) -> Arc<Permits> {
        let roles = user.roles.iter().filter_map(|name| self.roles.get(name));
        Arc::new(Permits::of(roles.flat_map(|role| &role.key_permission)))
    }
}

type Loaded<T> = BTreeMap<String, Arc<T>>;

fn load<T: prost::Message + Default>(
    backend: &Backend,
    bucket: &'static str,
    name: fn(&T) -> &Bytes,
) -> Result<Loaded<T>, Error> {
    let mut loaded = BTreeMap::new();
    for (_, value) in backend.pairs(bucket)? {
        // From a slice, so that its fields are copied: they must not keep a page.
        let item = T::decode(&value[..]).map_err(|e| crate::store::bad(bucket, &e))?;
        let name = String::from_utf8(name(&item).to_vec()).map_err(|e| crate::store::bad(bucket, &e))?;
        loaded.insert(name, Arc::new(item));
    }
    Ok(loaded)
}

/// A user's roles are sorted, so that one can be looked for.
fn has_root_role(user: &authpb::User) -> bool {
    let at = user.roles.partition_point(|role| role.as_str() < ROOT_ROLE);
    user.roles.get(at).is_some_and(|role| role == ROOT_ROLE)
}
