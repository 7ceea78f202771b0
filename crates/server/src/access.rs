//! Who may call what: one table ([`need`]), and what its rows mean. A new kind of request does not compile without a row.
//!
//! What is decided at apply, and how, is `store::auth`'s; here is what Go etcd asks before it proposes or reads
//! (`v3_server.go`, `v3rpc`): with the newest state that the member knows, and for reads with the state they are answered
//! from.

use crate::{Request, Response};
use api::Error;
use api::pb::etcdserverpb as pb;
use std::sync::Arc;
use store::Applied;
use store::auth::{Auth, Claim, Wish};

/// As whom a call is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// The member itself, or another member for a client whom that one has checked: as root.
    Member,
    /// A client without credentials.
    #[default]
    Stranger,
    Client(Arc<Client>),
}

/// A client with credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Whose they are, if they are good.
    pub user: Result<User, Error>,
    /// What other members are shown on the client's behalf.
    pub token: Option<String>,
}

/// Whose credentials they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Of users and roles when the token was signed; `None`: the credentials follow every change, as simple tokens and
    /// certificates do.
    pub revision: Option<u64>,
}

/// What a request needs before it is proposed or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: who calls has only a name and a password.
    Nothing,
    /// Credentials that are good, if there are any; the rest is decided when the entry is applied.
    AtApply,
    /// What the keys need, in the state that is read.
    Keys,
    /// Any user, in the state that is read.
    UserAtRead,
    /// Any user.
    User,
    /// Any user, once there is space for it.
    UserAfterQuota,
    /// A user who may write the keys of the lease.
    LeaseWriter,
    /// Any user; one who may read the keys of the lease if these are asked for.
    LeaseReader,
    /// A user who may read the keys of all leases.
    AllLeasesReader,
    /// The root role.
    Admin,
}

/// The table.
pub fn need(request: &Request) -> Need {
    match request {
        Request::Authenticate(_) | Request::AssignToken(_) => Need::Nothing,
        Request::Put(_) | Request::DeleteRange(_) => Need::AtApply,
        Request::Range(_) => Need::Keys,
        Request::Txn(r) if store::validate::is_read_only(r) => Need::Keys,
        Request::Txn(_) => Need::AtApply,
        Request::LeaseGrant(_) => Need::UserAfterQuota,
        // Its keys are looked at when it is applied.
        Request::LeaseRevoke(_) => Need::User,
        Request::LeaseKeepAlive(_) => Need::LeaseWriter,
        Request::LeaseTimeToLive(_) => Need::LeaseReader,
        Request::LeaseLeases(_) => Need::AllLeasesReader,
        Request::Status(_) => Need::User,
        Request::MemberList(_) => Need::UserAtRead,
        Request::Alarm(r) if r.action == pb::alarm_request::AlarmAction::Get as i32 => Need::User,
        Request::Alarm(_)
        | Request::Compact(_)
        | Request::Defragment(_)
        | Request::Hash(_)
        | Request::HashKv(_)
        | Request::Snapshot(_)
        | Request::MoveLeader(_)
        | Request::Downgrade(_)
        | Request::MemberAdd(_)
        | Request::MemberRemove(_)
        | Request::MemberUpdate(_)
        | Request::MemberPromote(_) => Need::Admin,
        // Root's, all but three, and that is decided when they are applied.
        Request::AuthEnable(_)
        | Request::AuthDisable(_)
        | Request::AuthStatus(_)
        | Request::UserAdd(_)
        | Request::UserGet(_)
        | Request::UserList(_)
        | Request::UserDelete(_)
        | Request::UserChangePassword(_)
        | Request::UserGrantRole(_)
        | Request::UserRevokeRole(_)
        | Request::RoleAdd(_)
        | Request::RoleGet(_)
        | Request::RoleList(_)
        | Request::RoleDelete(_)
        | Request::RoleGrantPermission(_)
        | Request::RoleRevokePermission(_) => Need::AtApply,
    }
}

impl Who {
    /// What the caller claims to be; nobody while authentication is off.
    ///
    /// # Errors
    /// The credentials are no good.
    pub fn claim(&self, auth: &Auth) -> Result<Claim, Error> {
        if !auth.is_enabled() {
            return Ok(Claim::default());
        }
        match self {
            Who::Member => Ok(auth.root_claim()),
            Who::Stranger => Ok(Claim::default()),
            Who::Client(client) => {
                let User { name, revision } = client.user.as_ref().map_err(Error::clone)?;
                Ok(Claim { user: name.clone(), revision: revision.unwrap_or(auth.revision()) })
            }
        }
    }

    /// What the client showed, for members that have to see it again.
    pub fn token(&self) -> Option<&str> {
        match self {
            Who::Client(client) => client.token.as_deref(),
            Who::Member | Who::Stranger => None,
        }
    }

    /// The claim of any user.
    fn some_user(&self, auth: &Auth) -> Result<Claim, Error> {
        let claim = self.claim(auth)?;
        match self {
            Who::Stranger if auth.is_enabled() => Err(Error::UserEmpty),
            _ => Ok(claim),
        }
    }
}

/// Whether a request may be taken, before anything else is looked at. What is decided later is let through.
///
/// # Errors
/// Why not.
pub fn check_admission(who: &Who, request: &Request, applied: &Applied) -> Result<(), Error> {
    let auth = applied.auth();
    if !auth.is_enabled() {
        return Ok(());
    }
    match need(request) {
        Need::Nothing | Need::AtApply | Need::Keys | Need::UserAtRead | Need::UserAfterQuota | Need::LeaseWriter => {
            Ok(())
        }
        Need::User => who.some_user(auth).map(drop),
        Need::LeaseReader => {
            let claim = who.some_user(auth)?;
            match request {
                Request::LeaseTimeToLive(r) if r.keys => applied.check_lease(&claim, r.id, Wish::Read),
                _ => Ok(()),
            }
        }
        Need::AllLeasesReader => {
            let claim = who.some_user(auth)?;
            applied.leases().try_for_each(|(id, _)| applied.check_lease(&claim, id, Wish::Read))
        }
        Need::Admin if failpoint::mutant!("rootCheckForgotten") => Ok(()),
        Need::Admin => auth.check_admin(&who.claim(auth)?),
    }
}

/// The second look at a lease grant, which the quota precedes.
///
/// # Errors
/// Why not.
pub fn check_user(who: &Who, applied: &Applied) -> Result<(), Error> {
    who.some_user(applied.auth()).map(drop)
}

/// Whether the lease may be renewed: where it is, there has to be a leader first.
///
/// # Errors
/// Why not.
pub fn check_renewal(who: &Who, lease: i64, applied: &Applied) -> Result<(), Error> {
    if !applied.auth().is_enabled() {
        return Ok(());
    }
    applied.check_lease(&who.some_user(applied.auth())?, lease, Wish::Write)
}

/// Whether a read may be answered from this state. A claim of another revision than the state's is not served, be it of a
/// later one: what would be read is behind what the client knows.
///
/// # Errors
/// Why not.
pub fn check_read(who: &Who, request: &Request, applied: &Applied) -> Result<(), Error> {
    let auth = applied.auth();
    if !auth.is_enabled() {
        return Ok(());
    }
    match (need(request), request) {
        (Need::UserAtRead, _) => return who.some_user(auth).map(drop),
        (Need::Keys, Request::Range(r)) => applied.check_range(&who.claim(auth)?, r)?,
        (Need::Keys, Request::Txn(r)) => applied.check_txn(&who.claim(auth)?, r)?,
        _ => return Ok(()),
    }
    check_revision(&who.claim(auth)?, auth)
}

/// Whether the leader's answer to a request that was passed on to it may be told: the leader was asked by this member, not
/// by its client. `auth_revision` is of the users and roles with whom the request was let in. Here may be less known of the
/// lease than the leader told, so that its keys are looked at again (Go lets those pass that it did not know of).
///
/// # Errors
/// A lease's keys would be told though users and roles have changed since, or though the client may not read them.
pub fn check_forwarded(
    who: &Who,
    request: &Request,
    response: &Response,
    auth_revision: u64,
    now: &Applied,
) -> Result<(), Error> {
    let auth = now.auth();
    let (Request::LeaseTimeToLive(asked), Response::LeaseTimeToLive(told)) = (request, response) else { return Ok(()) };
    if !asked.keys || !auth.is_enabled() || failpoint::mutant!("forwardedKeysUnchecked") {
        return Ok(());
    }
    if auth.revision() != auth_revision {
        return Err(Error::AuthOldRevision);
    }
    let claim = who.claim(auth)?;
    match auth.check_admin(&claim) {
        Ok(()) => Ok(()),
        Err(_) => told.keys.iter().try_for_each(|key| auth.check(&claim, key, &[], Wish::Read)),
    }
}

/// # Errors
/// Users and roles have changed since, or have not come to where the claim is.
pub fn check_revision(claim: &Claim, auth: &Auth) -> Result<(), Error> {
    match claim.revision == 0 || claim.revision == auth.revision() {
        true => Ok(()),
        false => Err(Error::AuthOldRevision),
    }
}

/// Whether a watch may be created; an empty key is the first there is. Of the reasons against it only some are told.
///
/// # Errors
/// Why not.
pub fn check_watch(who: &Who, r: &pb::WatchCreateRequest, applied: &Applied) -> Result<(), Error> {
    if failpoint::mutant!("watchPermissionForgotten") {
        return Ok(());
    }
    let key: &[u8] = if r.key.is_empty() { &[0] } else { &r.key };
    let allowed = who.claim(applied.auth()).and_then(|c| applied.auth().check(&c, key, &r.range_end, Wish::Read));
    allowed.map_err(|e| match e {
        Error::InvalidAuthToken | Error::AuthOldRevision | Error::UserEmpty => e,
        _ => Error::PermissionDenied,
    })
}
