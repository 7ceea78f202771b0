//! Causes of a call: the server said no, or nothing.

use super::{Asked, Found};
use api::Error as E;
use client::{Cause, Code};
use std::time::SystemTime;

/// What a server takes unless told otherwise (`--max-request-bytes`).
const REQUEST_BYTES_DEFAULT: u64 = 3 << 19;

/// Whether the member's state tells more than its answer does.
pub fn asks_for_status(cause: &Cause) -> bool {
    match cause {
        Cause::NoAnswer => true,
        Cause::Refusal { message, .. } => is_leaderless(message) || message == E::NoSpace.message(),
        _ => false,
    }
}

fn is_leaderless(message: &str) -> bool {
    message == E::NoLeader.message() || message.starts_with(E::Timeout.message())
}

/// What was found, and what to type.
pub fn hint(asked: &Asked, found: &Found) -> Option<String> {
    match &found.cause {
        Cause::Refusal { message, .. } if is_leaderless(message) => Some(leaderless(asked, found)),
        Cause::Refusal { code, message, request_bytes } => refusal(asked, found, *code, message, *request_bytes as u64),
        _ => Some(leaderless(asked, found)),
    }
}

/// There was no answer in time, or none but that there is no leader.
fn leaderless(asked: &Asked, found: &Found) -> String {
    let doctor = asked.line("check doctor");
    match &found.status {
        Some(status) if status.leader == 0 => format!(
            "this member runs and knows no leader: more than half of the voters are down, or out of its reach; start them \
             (type {doctor} to see which answer); if they are gone for good: etcdutl recover --help"
        ),
        Some(status) => format!(
            "this member runs and has a leader ({:x}), and did not answer within {}: it is busy, or a leader was being \
             elected; type {doctor}, or a longer --command-timeout",
            status.leader,
            go::format_duration(asked.timeout)
        ),
        None => format!(
            "it took the connection and does not answer: a member that is stopped, or stands still; look at that process, \
             or type another address: --endpoints=HOST:2379 ({doctor} asks all members)"
        ),
    }
}

fn refusal(asked: &Asked, found: &Found, code: Code, message: &str, request_bytes: u64) -> Option<String> {
    let is = |row: E| message == row.message();
    if is(E::NoSpace) {
        return Some(full(asked, found));
    }
    if is(E::RequestTooLarge) {
        return Some(format!(
            "the request has {request_bytes} bytes, and the server takes --max-request-bytes ({REQUEST_BYTES_DEFAULT} unless \
             told otherwise); store less in one value, or start all members with more"
        ));
    }
    if let Some(hint) = of_sizes(code, message) {
        return Some(hint);
    }
    if let Some(hint) = of_users(asked, message) {
        return Some(hint);
    }
    if is(E::NotSupportedForLearner) {
        let lines = asked.line("endpoint status -w table");
        return Some(format!(
            "this member is a learner, which answers `get --consistency=s` and `endpoint status` only; type the address of a \
             voter, or promote it ({lines} tells which are learners)"
        ));
    }
    if is(E::Unhealthy) || is(E::MemberNotEnoughStarted) {
        let doctor = asked.line("check doctor");
        return Some(format!(
            "start the members that are down first (type {doctor}); after a start wait for 5 seconds"
        ));
    }
    if is(E::Corrupt) {
        return Some(format!("members hold different data; type {}", asked.line("check doctor")));
    }
    is_no_etcd(code, message).then(|| {
        "a server of HTTP/2 that has no such call: no etcd, or one older than 3.0; type the address of an etcd member's \
         --listen-client-urls"
            .to_owned()
    })
}

/// tonic tells so of an answer without gRPC's trailers.
fn is_no_etcd(code: Code, message: &str) -> bool {
    let is_ours = E::TABLE.iter().any(|row| row.message() == message);
    code == Code::Unimplemented || !is_ours && message.contains("mapped from HTTP status code")
}

fn full(asked: &Asked, found: &Found) -> String {
    let lines = |revision: &str| {
        ["compaction ".to_owned() + revision, "defrag --cluster".into(), "alarm disarm".into()]
            .map(|words| asked.line(&words))
            .join(" ; ")
    };
    let Some(status) = &found.status else {
        return format!(
            "the database has reached --quota-backend-bytes; delete keys that nobody needs, then type: {}",
            lines("REVISION")
        );
    };
    let size = |bytes: i64| go::bytes_text(u64::try_from(bytes).unwrap_or(0));
    let revision = status.header.as_ref().map_or(0, |header| header.revision).to_string();
    format!(
        "the database is full: {} of {} (--quota-backend-bytes), {} of them in use; delete keys that nobody needs, then \
         type: {}",
        size(status.db_size),
        size(status.db_size_quota),
        size(status.db_size_in_use),
        lines(&revision)
    )
}

/// Limits of this side.
fn of_sizes(code: Code, message: &str) -> Option<String> {
    if code != Code::ResourceExhausted {
        return None;
    }
    let sizes = |text: &str| {
        let (size, max) = text.strip_suffix(')')?.split_once(" vs. ")?;
        Some((size.to_owned(), max.to_owned()))
    };
    if let Some((size, max)) = message.strip_prefix("trying to send message larger than max (").and_then(sizes) {
        return Some(format!(
            "the request has {size} bytes, and this client sends {max} (--max-request-bytes); type --max-request-bytes={size}, \
             and start the servers with as much, if they take less"
        ));
    }
    let (size, max) = message.strip_prefix("grpc: received message larger than max (").and_then(sizes)?;
    Some(format!(
        "the answer has {size} bytes, and this client takes {max} (--max-recv-bytes); type --max-recv-bytes={size}, or read \
         less at once (--limit, --stream)"
    ))
}

/// Users, tokens and permissions.
fn of_users(asked: &Asked, message: &str) -> Option<String> {
    let is = |row: E| message == row.message();
    if is(E::PermissionDenied) {
        return Some(not_permitted(asked));
    }
    if is(E::UserEmpty) {
        return Some(match asked.lacks_password {
            true => "authentication is on, and --user came without a password; type --user=NAME:PASSWORD, or --password, or \
                     the password when it is asked for"
                .into(),
            false => "authentication is on; type --user=NAME (the password is asked for), or --cert and --key of a user's \
                      certificate"
                .into(),
        });
    }
    if is(E::AuthFailed) {
        let who = asked.config.user.as_ref().map_or("the user".to_owned(), |(name, _)| go::quote(name));
        return Some(format!(
            "there is no user {who}, or the password is another; type --user=NAME:PASSWORD (root sets a new one: etcdctl \
             --user=root user passwd NAME)"
        ));
    }
    if is(E::InvalidAuthToken) || is(E::AuthOldRevision) {
        return Some(format!("{}; type --auth-jwt-token with a new one, or --user=NAME", token(asked)));
    }
    None
}

fn not_permitted(asked: &Asked) -> String {
    let name = asked.config.user.as_ref().map(|(name, _)| name.as_str());
    let user = name.map_or("this user".to_owned(), go::quote);
    let Some(key) = &asked.key else {
        return format!("{user} lacks the role root, which `etcdctl {}` takes; type --user=root", asked.command);
    };
    let verb = if matches!(asked.command.as_str(), "get" | "watch") { "read" } else { "write" };
    let (shown, user_word) = (go::quote(key), name.unwrap_or("USER"));
    format!(
        "no role of {user} may {verb} {shown} (and all of a range, if one was asked for); root types: etcdctl --user=root \
         user get {user_word} --detail ; etcdctl --user=root role grant-permission ROLE {verb} {shown}"
    )
}

/// Of a JWT, when it ended: no secret.
fn token(asked: &Asked) -> String {
    let end = asked.config.token.as_deref().and_then(end_of_jwt);
    match end {
        Some(end) if end < SystemTime::now() => format!("the token ended at {}", tls::time(end)),
        Some(end) => format!(
            "the server does not take the token (it counts up to {}): another key signed it, or users and roles changed since",
            tls::time(end)
        ),
        None => "the server does not take the token: it ended, it was revoked, or it is another cluster's".into(),
    }
}

/// The claim `exp` of a token that its user typed.
pub(super) fn end_of_jwt(token: &str) -> Option<SystemTime> {
    use base64::Engine as _;
    const ENGINE: base64::engine::GeneralPurpose = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = ENGINE.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let seconds = claims.get("exp")?.as_u64()?;
    SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds))
}
