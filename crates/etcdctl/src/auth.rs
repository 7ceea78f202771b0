//! `auth …`, `user …`, `role …`.
//!
//! As in Go these commands have no time limit of their own, but for `auth`; `--command-timeout` gives them one.

use crate::globals::Ctl;
use crate::kv::failed;
use crate::output::{Answer, write_out};
use crate::prompt;
use api::pb::authpb::{Permission, UserAddOptions, permission::Type};
use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use client::prefix_end;
use cobra::{Call, Exit, Flag, Kind, Parsed};

/// Flags of `user add`.
pub static USER_ADD_FLAGS: &[Flag] = &[
    Flag::new(
        "interactive",
        Kind::Bool,
        "true",
        "ask for the password on the terminal; =false: a word on standard input",
    ),
    Flag::new("new-user-password", Kind::Text, "", "the password; whoever lists processes sees it"),
    Flag::switch("no-password", "a user who can only come with a certificate of that name"),
];
/// Flags of `user get`.
pub static USER_GET_FLAGS: &[Flag] = &[Flag::switch("detail", "print the permissions of the user's roles")];
/// Flags of `user passwd`.
pub static USER_PASSWD_FLAGS: &[Flag] = &[Flag::new(
    "interactive",
    Kind::Bool,
    "true",
    "ask for the password on the terminal; =false: a word on standard input",
)];
/// Flags of `role grant-permission` and `role revoke-permission`.
pub static PERMISSION_FLAGS: &[Flag] = &[
    Flag::switch("prefix", "all keys that begin with the given one"),
    Flag::switch("from-key", "all keys from the given one on, byte by byte"),
];

/// The role that may do everything.
const ROOT: &str = "root";
/// The end of a range that has none; also how the first of all keys is spelt.
const OPEN_END: &[u8] = &[0];

/// The command's words, if there are so many.
fn words<const N: usize>(call: &Call, otherwise: &str) -> Result<[String; N], Exit> {
    match call.args().len() {
        n if n == N => Ok(std::array::from_fn(|at| call.arg(at).to_string())),
        _ => Err(Exit::arguments(otherwise)),
    }
}

fn done(ctl: &Ctl, line: String, header: Option<pb::ResponseHeader>) -> Result<(), Exit> {
    ctl.display.show(Answer::Done(&line, header))
}

/// `auth enable`. A root user without the role of that name gets it.
pub fn enable(call: &mut Call) -> Result<(), Exit> {
    let [] = words(call, "auth enable command does not accept any arguments")?;
    let ctl = Ctl::open(call)?;
    let client = ctl.timed();
    let enabled = ctl.block_on(async {
        match client.auth_enable(pb::AuthEnableRequest {}).await {
            Err(e) if e.is(&api::Error::RootRoleNotExist) => {}
            answer => return answer.map(drop),
        }
        match client.role_add(pb::AuthRoleAddRequest { name: ROOT.into() }).await {
            Err(e) if !e.is(&api::Error::RoleAlreadyExist) => return Err(e),
            _ => {}
        }
        client.user_grant_role(pb::AuthUserGrantRoleRequest { user: ROOT.into(), role: ROOT.into() }).await?;
        client.auth_enable(pb::AuthEnableRequest {}).await.map(drop)
    });
    enabled.map_err(failed)?;
    write_out(b"Authentication Enabled\n");
    Ok(())
}

/// `auth disable`.
pub fn disable(call: &mut Call) -> Result<(), Exit> {
    let [] = words(call, "auth disable command does not accept any arguments")?;
    let ctl = Ctl::open(call)?;
    ctl.block_on(ctl.timed().auth_disable(pb::AuthDisableRequest {})).map_err(failed)?;
    write_out(b"Authentication Disabled\n");
    Ok(())
}

/// `auth status`.
pub fn status(call: &mut Call) -> Result<(), Exit> {
    let [] = words(call, "auth status command does not accept any arguments")?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed().auth_status(pb::AuthStatusRequest {})).map_err(failed)?;
    ctl.display.show(Answer::AuthStatus(&response))
}

/// A new password: typed twice, or a word on standard input.
fn new_password(given: &Parsed, user: &str) -> Result<String, Exit> {
    if !given.is_true("interactive") {
        return prompt::word();
    }
    let typed = prompt::password(&format!("Password of {user}: "))?;
    if typed.is_empty() {
        return Err(Exit::arguments("empty password"));
    }
    match prompt::password(&format!("Type password of {user} again for confirmation: "))? == typed {
        true => Ok(typed),
        false => Err(Exit::arguments("given passwords are different")),
    }
}

/// Name and password of a user to be added; no password: none is to be asked for.
fn new_user(given: &Parsed, word: String) -> Result<(String, Option<String>), Exit> {
    if given.is_true("no-password") {
        return Ok((word, None));
    }
    let from_flag = given.text("new-user-password");
    if !from_flag.is_empty() {
        return Ok((word, Some(from_flag.to_owned())));
    }
    match word.split_once(':') {
        Some(("", _)) => Err(Exit::arguments("empty user name is not allowed")),
        Some((name, password)) => Ok((name.to_owned(), Some(password.to_owned()))),
        None => new_password(given, &word).map(|password| (word, Some(password))),
    }
}

/// `user add NAME`, or `NAME:PASSWORD`.
pub fn user_add(call: &mut Call) -> Result<(), Exit> {
    let [word] = words(call, "user add command requires user name as its argument")?;
    let (name, password) = new_user(&call.given, word)?;
    let ctl = Ctl::open(call)?;
    let request = pb::AuthUserAddRequest {
        name: name.clone(),
        options: Some(UserAddOptions { no_password: password.is_none() }),
        password: password.unwrap_or_default(),
        ..Default::default()
    };
    let response = ctl.block_on(ctl.timed_if_asked().user_add(request)).map_err(failed)?;
    done(&ctl, format!("User {name} created"), response.header)
}

/// `user delete NAME`.
pub fn user_delete(call: &mut Call) -> Result<(), Exit> {
    let [name] = words(call, "user delete command requires user name as its argument")?;
    let ctl = Ctl::open(call)?;
    let request = pb::AuthUserDeleteRequest { name: name.clone() };
    let response = ctl.block_on(ctl.timed_if_asked().user_delete(request)).map_err(failed)?;
    done(&ctl, format!("User {name} deleted"), response.header)
}

/// `user get NAME`.
pub fn user_get(call: &mut Call) -> Result<(), Exit> {
    let [name] = words(call, "user get command requires user name as its argument")?;
    let detail = call.given.is_true("detail");
    let ctl = Ctl::open(call)?;
    let client = ctl.timed_if_asked();
    let user = ctl.block_on(client.user_get(pb::AuthUserGetRequest { name: name.clone() })).map_err(failed)?;
    if !detail {
        return ctl.display.show(Answer::User(&name, &user));
    }
    write_out(format!("User: {name}\n").as_bytes());
    for role in &user.roles {
        write_out(b"\n");
        let found = ctl.block_on(client.role_get(pb::AuthRoleGetRequest { role: role.clone() })).map_err(failed)?;
        ctl.display.show(Answer::Role(role, &found))?;
    }
    Ok(())
}

/// `user list`.
pub fn user_list(call: &mut Call) -> Result<(), Exit> {
    let [] = words(call, "user list command requires no arguments")?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed_if_asked().user_list(pb::AuthUserListRequest {})).map_err(failed)?;
    ctl.display.show(Answer::Users(&response))
}

/// `user passwd NAME`.
pub fn user_passwd(call: &mut Call) -> Result<(), Exit> {
    let [name] = words(call, "user passwd command requires user name as its argument")?;
    let password = new_password(&call.given, &name)?;
    let ctl = Ctl::open(call)?;
    let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let response = ctl.block_on(ctl.timed_if_asked().user_change_password(request)).map_err(failed)?;
    done(&ctl, "Password updated".into(), response.header)
}

/// `user grant-role NAME ROLE`.
pub fn user_grant_role(call: &mut Call) -> Result<(), Exit> {
    let [user, role] = words(call, "user grant command requires user name and role name as its argument")?;
    let ctl = Ctl::open(call)?;
    let line = format!("Role {role} is granted to user {user}");
    let request = pb::AuthUserGrantRoleRequest { user, role };
    let response = ctl.block_on(ctl.timed_if_asked().user_grant_role(request)).map_err(failed)?;
    done(&ctl, line, response.header)
}

/// `user revoke-role NAME ROLE`.
pub fn user_revoke_role(call: &mut Call) -> Result<(), Exit> {
    let [name, role] = words(call, "user revoke-role requires user name and role name as its argument")?;
    let ctl = Ctl::open(call)?;
    let line = format!("Role {role} is revoked from user {name}");
    let request = pb::AuthUserRevokeRoleRequest { name, role };
    let response = ctl.block_on(ctl.timed_if_asked().user_revoke_role(request)).map_err(failed)?;
    done(&ctl, line, response.header)
}

/// `role add NAME`.
pub fn role_add(call: &mut Call) -> Result<(), Exit> {
    let [name] = words(call, "role add command requires role name as its argument")?;
    let ctl = Ctl::open(call)?;
    let request = pb::AuthRoleAddRequest { name: name.clone() };
    let response = ctl.block_on(ctl.timed_if_asked().role_add(request)).map_err(failed)?;
    done(&ctl, format!("Role {name} created"), response.header)
}

/// `role delete NAME`.
pub fn role_delete(call: &mut Call) -> Result<(), Exit> {
    let [role] = words(call, "role delete command requires role name as its argument")?;
    let ctl = Ctl::open(call)?;
    let request = pb::AuthRoleDeleteRequest { role: role.clone() };
    let response = ctl.block_on(ctl.timed_if_asked().role_delete(request)).map_err(failed)?;
    done(&ctl, format!("Role {role} deleted"), response.header)
}

/// `role get NAME`.
pub fn role_get(call: &mut Call) -> Result<(), Exit> {
    let [role] = words(call, "role get command requires role name as its argument")?;
    let ctl = Ctl::open(call)?;
    let request = pb::AuthRoleGetRequest { role: role.clone() };
    let response = ctl.block_on(ctl.timed_if_asked().role_get(request)).map_err(failed)?;
    ctl.display.show(Answer::Role(&role, &response))
}

/// `role list`.
pub fn role_list(call: &mut Call) -> Result<(), Exit> {
    let [] = words(call, "role list command requires no arguments")?;
    let ctl = Ctl::open(call)?;
    let response = ctl.block_on(ctl.timed_if_asked().role_list(pb::AuthRoleListRequest {})).map_err(failed)?;
    ctl.display.show(Answer::Roles(&response))
}

fn permission_type(word: &str) -> Result<Type, Exit> {
    Type::from_str_name(&word.to_uppercase()).ok_or_else(|| Exit::arguments(format!("invalid permission type: {word}")))
}

/// Key and range end of a permission. The empty key is the first of all.
fn permission_range(given: &Parsed, at: usize) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from_key) = (given.is_true("prefix"), given.is_true("from-key"));
    let word = |at: usize| given.args.get(at).map(|word| Bytes::copy_from_slice(word));
    let (key, end) = (word(at).unwrap_or_default(), word(at + 1));
    let open = Bytes::from_static(OPEN_END);
    match end {
        _ if prefix && from_key => Err(Exit::arguments("--from-key and --prefix flags are mutually exclusive")),
        // As in Go, which looks at no further word then.
        _ if key.is_empty() => Ok((open.clone(), if prefix || from_key { open } else { Bytes::new() })),
        Some(_) if prefix => Err(Exit::arguments("unexpected endkey argument with --prefix flag")),
        Some(_) if from_key => Err(Exit::arguments("unexpected endkey argument with --from-key flag")),
        Some(end) => Ok((key, end)),
        None if prefix => Ok((key.clone(), prefix_end(&key))),
        None => Ok((key, if from_key { open } else { Bytes::new() })),
    }
}

/// `role grant-permission ROLE TYPE KEY [END]`.
pub fn role_grant_permission(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() < 3 {
        let text = "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(Exit::arguments(text));
    }
    let perm_type = permission_type(&call.arg(1))?;
    let (key, range_end) = permission_range(&call.given, 2)?;
    let role = call.arg(0).to_string();
    let ctl = Ctl::open(call)?;
    let perm = Permission { perm_type: perm_type as i32, key, range_end };
    let request = pb::AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
    let response = ctl.block_on(ctl.timed_if_asked().role_grant_permission(request)).map_err(failed)?;
    done(&ctl, format!("Role {role} updated"), response.header)
}

/// `role revoke-permission ROLE KEY [END]`.
pub fn role_revoke_permission(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() < 2 {
        let text = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Exit::arguments(text));
    }
    let (key, range_end) = permission_range(&call.given, 1)?;
    let (role, typed) = (call.arg(0).to_string(), call.arg(1).to_string());
    let ctl = Ctl::open(call)?;
    let what = match &range_end[..] {
        b"" => format!("key {typed}"),
        OPEN_END => format!("range [{typed}, <open ended>"),
        end => format!("range [{typed}, {})", String::from_utf8_lossy(end)),
    };
    let line = format!("Permission of {what} is revoked from role {role}");
    let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
    let response = ctl.block_on(ctl.timed_if_asked().role_revoke_permission(request)).map_err(failed)?;
    done(&ctl, line, response.header)
}
