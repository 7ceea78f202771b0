//! Records of a page store's buckets, for people.

use super::prototext::hexed;
use api::pb::{authpb, leasepb, mvccpb};

/// A record as it is.
pub fn plain(key: &[u8], value: &[u8]) -> String {
    format!("key={}, value={}", go::quote(key), go::quote(value))
}

/// What a record of this bucket means.
///
/// # Errors
/// It is none of this bucket's.
pub fn decoded(bucket: &[u8], key: &[u8], value: &[u8]) -> Result<String, String> {
    let line = match bucket {
        b"key" => revision(key).and_then(|rev| pair(&rev, value)),
        b"lease" => lease(key, value),
        b"auth" => auth(key, value),
        b"authRoles" => role(value),
        b"authUsers" => user(value),
        b"meta" => meta(key, value),
        _ => Ok(plain(key, value)),
    };
    line.map_err(|why| format!("{why}: {}", plain(key, value)))
}

/// A revision as Go prints it.
///
/// # Errors
/// The bytes are none.
pub fn revision(key: &[u8]) -> Result<String, String> {
    let (main, sub, tombstone) = numbers(key)?;
    Ok(format!("{{Revision:{{Main:{main} Sub:{sub}}} tombstone:{tombstone}}}"))
}

/// Main, sub, and whether it is a tombstone's.
///
/// # Errors
/// The bytes are none.
pub fn numbers(key: &[u8]) -> Result<(i64, i64, bool), String> {
    let number = |at: usize| key.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_be_bytes);
    let (main, sub) = match (key.len(), number(0), number(9)) {
        (17 | 18, Some(main), Some(sub)) => (main, sub),
        (len, ..) => return Err(format!("invalid revision length: {len}")),
    };
    if key[8] != b'_' {
        return Err(format!("invalid separator in bucket key: {}", go::quote([key[8]]).replace('"', "'")));
    }
    if main < 0 || sub < 0 {
        return Err(format!("negative revision: main={main} sub={sub}"));
    }
    Ok((main, sub, key.get(17) == Some(&b't')))
}

fn message<M: prost::Message + Default>(value: &[u8]) -> Result<M, String> {
    M::decode(value).map_err(|e| format!("the value can't be read ({e})"))
}

/// The line of a key's revision.
///
/// # Errors
/// The value is no pair.
pub fn pair(revision: &str, value: &[u8]) -> Result<String, String> {
    let kv: mvccpb::KeyValue = message(value)?;
    Ok(format!(
        "rev={revision}, value=[key {} | val {} | created {} | mod {} | ver {}]",
        go::quote(&kv.key),
        go::quote(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    ))
}

fn lease(key: &[u8], value: &[u8]) -> Result<String, String> {
    let id = i64::from_be_bytes(key.try_into().map_err(|_| "lease ID must be 8-byte".to_owned())?);
    let lease: leasepb::Lease = message(value)?;
    Ok(format!("lease ID={id:016x}, TTL={}s, remaining TTL={}s", lease.ttl, lease.remaining_ttl))
}

fn number(value: &[u8]) -> Result<u64, String> {
    let head = value.get(..8).and_then(|head| head.try_into().ok());
    head.map(u64::from_be_bytes).ok_or_else(|| "the value has less than 8 bytes".to_owned())
}

fn auth(key: &[u8], value: &[u8]) -> Result<String, String> {
    let text = match key {
        b"authRevision" => number(value)?.to_string(),
        _ => {
            let bytes: Vec<String> = value.iter().map(u8::to_string).collect();
            format!("[{}]", bytes.join(" "))
        }
    };
    Ok(format!("key={}, value={text}", go::quote(key)))
}

fn role(value: &[u8]) -> Result<String, String> {
    let role: authpb::Role = message(value)?;
    let permission = |permission: &authpb::Permission| {
        let kind = match permission.perm_type {
            0 => None,
            1 => Some("permType:WRITE".to_owned()),
            2 => Some("permType:READWRITE".to_owned()),
            other => Some(format!("permType:{other}")),
        };
        let bytes = |name: &str, bytes: &[u8]| (!bytes.is_empty()).then(|| format!("{name}:{}", hexed(bytes)));
        let fields = [kind, bytes("key", &permission.key), bytes("range_end", &permission.range_end)];
        fields.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    let permissions: Vec<String> = role.key_permission.iter().map(permission).collect();
    Ok(format!("role={}, keyPermission=[{}]", go::quote(&role.name), permissions.join(" ")))
}

fn user(value: &[u8]) -> Result<String, String> {
    let user: authpb::User = message(value)?;
    let roles: Vec<String> = user.roles.iter().map(go::quote).collect();
    let option = match user.options {
        None => "<nil>",
        Some(options) if options.no_password => "no_password:true",
        Some(_) => "",
    };
    Ok(format!("user={}, roles=[{}], option={option}", go::quote(&user.name), roles.join(" ")))
}

fn meta(key: &[u8], value: &[u8]) -> Result<String, String> {
    let text = match key {
        b"consistent_index" | b"term" => number(value)?.to_string(),
        b"scheduledCompactRev" | b"finishedCompactRev" => {
            let (main, sub, _) = numbers(value)?;
            format!("{{{main} {sub}}}")
        }
        _ => return Ok(plain(key, value)),
    };
    Ok(format!("key={}, value={text}", go::quote(key)))
}
