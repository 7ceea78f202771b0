//! What has to be done with passwords before anything is proposed (etcd `Authenticate`, `UserAdd`, `UserChangePassword`).
//! No password gets into a request for the core, nor so into the log or a message about it.

use super::super::door::Door;
use api::Error;
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use server::{Request, Response, Who};
use store::Applied;

/// A token for a name and a password. A password that was checked before it was changed is checked again.
pub async fn login(door: &Door, r: pb::AuthenticateRequest) -> Result<Response, Error> {
    let auth = &door.shared.auth;
    let linearize = Request::MemberList(pb::MemberListRequest { linearizable: true });
    door.ask(Who::Member, linearize).await?;
    loop {
        let applied = door.shared.applied.load_full();
        let stored = stored_password(&applied, &r.name)?;
        if !auth.passwords.verify(r.password.clone(), stored).await? {
            tracing::warn!(user = r.name, "invalid authentication was requested");
            return Err(Error::AuthFailed);
        }
        let (name, simple_token) = (r.name.clone(), auth.provider.prefix()?);
        let assign = pb::InternalAuthenticateRequest { name, simple_token, password: String::new() };
        let Response::TokenAssigned { response, auth_revision } =
            door.ask(Who::Stranger, Request::AssignToken(assign)).await?
        else {
            return Err(Error::Other("not the answer to a login".into()));
        };
        let response = auth.passwords.run(auth.provider.finish(response, r.name.clone(), auth_revision)).await?;
        if applied.auth().revision() == door.shared.applied.load().auth().revision() {
            return Ok(Response::Authenticate(response));
        }
    }
}

fn stored_password(applied: &Applied, name: &str) -> Result<Bytes, Error> {
    if !applied.auth().is_enabled() {
        return Err(Error::AuthNotEnabled);
    }
    let user = applied.auth().user(name).ok_or(Error::AuthFailed)?;
    match user.options.is_some_and(|options| options.no_password) {
        true => Err(Error::Other("auth: authentication failed, password was given for no password user".into())),
        false => Ok(user.password.clone()),
    }
}

/// Puts a hash in a new password's place; `None`: there is none in this request.
pub fn new_password(request: &Request) -> Option<&str> {
    match request {
        Request::UserAdd(r) => (!has_no_password(r)).then_some(r.password.as_str()),
        Request::UserChangePassword(r) => (!r.password.is_empty()).then_some(r.password.as_str()),
        _ => None,
    }
}

fn has_no_password(r: &pb::AuthUserAddRequest) -> bool {
    r.options.is_some_and(|options| options.no_password)
}

/// The request as it is proposed: with the hash, and without the password, be it of a user who is to have none.
pub fn with_hash(request: Request, hashed: Option<String>) -> Request {
    match request {
        Request::UserAdd(r) => Request::UserAdd(pb::AuthUserAddRequest {
            password: String::new(),
            hashed_password: hashed.unwrap_or_default(),
            ..r
        }),
        Request::UserChangePassword(r) => Request::UserChangePassword(pb::AuthUserChangePasswordRequest {
            password: String::new(),
            hashed_password: hashed.unwrap_or(r.hashed_password),
            ..r
        }),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::authpb::UserAddOptions;

    #[test]
    fn no_password_is_proposed_not_even_one_that_nobody_wanted() {
        let add = |no_password| {
            let options = Some(UserAddOptions { no_password });
            let name = "alice".into();
            Request::UserAdd(pb::AuthUserAddRequest { name, password: "secret".into(), options, ..Default::default() })
        };
        let change = pb::AuthUserChangePasswordRequest { password: "secret".into(), ..Default::default() };
        for (request, hashed) in
            [(add(false), Some("secret")), (add(true), None), (Request::UserChangePassword(change), Some("secret"))]
        {
            assert_eq!(new_password(&request), hashed);
            let proposed = format!("{:?}", with_hash(request, hashed.map(|_| "hash".into())));
            assert!(!proposed.contains("secret") && proposed.contains("hash\"") == hashed.is_some(), "{proposed}");
        }
    }
}
