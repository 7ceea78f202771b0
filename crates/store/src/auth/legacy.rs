//! Passwords in the log: hashes today; before etcd 3.5 the passwords themselves.

use super::Claim;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// bcrypt's default, as etcd's.
const COST: u32 = 10;
/// … and what it takes, bytes.
const PASSWORD_MAX: usize = 72;

/// What is stored of a password. `index` is the entry's.
///
/// # Errors
/// The hash is no base64 (etcd says that a password was given for a user without one).
pub fn stored(name: &str, password: &str, hashed: &str, index: u64) -> Result<Bytes, api::Error> {
    if !password.is_empty() && hashed.is_empty() {
        return hash(name, password, index);
    }
    base64(hashed).map(Bytes::from).ok_or_else(no_password_user)
}

/// Go draws a salt here, so that each member stores another hash. Ours has to be the same wherever the entry is applied.
fn hash(name: &str, password: &str, index: u64) -> Result<Bytes, api::Error> {
    if password.len() > PASSWORD_MAX {
        return Err(no_password_user());
    }
    let digest = Sha256::new().chain_update(index.to_be_bytes()).chain_update(name).finalize();
    let mut salt = [0; 16];
    salt.copy_from_slice(&digest[..16]);
    let hashed = bcrypt::hash_with_salt(password, COST, salt).map_err(|_| no_password_user())?;
    Ok(hashed.format_for_version(bcrypt::Version::TwoA).into_bytes().into())
}

pub fn no_password_user() -> api::Error {
    api::Error::Other("auth: authentication failed, password was given for no password user".into())
}

/// Go's `base64.StdEncoding`: padded, line breaks left out, spare bits not looked at.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let padding = digits.iter().rev().take_while(|b| **b == b'=').count();
    if !digits.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for four in digits[..digits.len() - padding].chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            bits = bits << 6 | four.get(at).map_or(Some(0), |b| digit(*b))?;
        }
        let [_, three @ ..] = u32::to_be_bytes(bits);
        bytes.extend_from_slice(&three[..four.len() * 6 / 8]);
    }
    Some(bytes)
}

fn digit(b: u8) -> Option<u32> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    DIGITS.iter().position(|d| *d == b).and_then(|at| u32::try_from(at).ok())
}

impl Claim {
    /// Of a request in the log.
    pub(crate) fn of(header: Option<&api::pb::etcdserverpb::RequestHeader>) -> Claim {
        header.map_or_else(Claim::default, |h| Claim { user: h.username.clone(), revision: h.auth_revision })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_as_padded_base64() {
        for (text, bytes) in
            [("", &b""[..]), ("YQ==", b"a"), ("YWI=", b"ab"), ("YW\nJj", b"abc"), ("JDJh+/8A", b"$2a\xfb\xff\0")]
        {
            assert_eq!(base64(text).as_deref(), Some(bytes), "{text}");
        }
        for bad in ["Y", "YQ", "YQ=", "YQ===", "Y===", "YQ==YQ==", "Y*==", "===="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_password_of_an_old_log_is_hashed_alike_everywhere() {
        let hash = stored("alice", "secret", "", 7).unwrap();
        assert_eq!(stored("alice", "secret", "", 7).unwrap(), hash);
        assert_ne!(stored("alice", "secret", "", 8).unwrap(), hash);
        let text = std::str::from_utf8(&hash).unwrap();
        assert!(text.starts_with("$2a$10$") && bcrypt::verify("secret", text).unwrap());
    }
}
