//! Kinds of tokens (`--auth-token`): simple ones, which members keep; signed ones, which carry what they say; none.

use super::jwt::Jwt;
use api::pb::etcdserverpb as pb;
use parking_lot::Mutex;
use server::access::User;
use server::{TokenChange, Tokens, token_index};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::warn;

/// Seconds a simple token lives when none are given (etcd `simpleTokenTTLDefault`).
const TTL_DEFAULT: u64 = 300;
/// The drawn part of a simple token, etcd's length and letters.
const PREFIX: usize = 16;
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Makes and judges tokens.
pub enum Provider {
    Simple(Mutex<Tokens>),
    Jwt(Arc<Jwt>),
    /// Nobody gets a token, and none is good: only certificates tell who calls.
    None,
}

impl Provider {
    /// `text`: `kind[,option=value…]`, well-formed already.
    ///
    /// # Errors
    /// Options or keys are no good; texts are etcd's.
    pub fn new(text: &str, ttl_s: u64) -> Result<Provider, String> {
        let mut parts = text.split(',');
        match parts.next().unwrap_or_default() {
            "" => Ok(Provider::None),
            "jwt" => {
                let options: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('=')).collect();
                Jwt::new(&options).map(|jwt| Provider::Jwt(Arc::new(jwt)))
            }
            _ => {
                warn!("simple token is not cryptographically signed");
                let ttl_s = if ttl_s == 0 { TTL_DEFAULT } else { ttl_s };
                Ok(Provider::Simple(Mutex::new(Tokens::new(ttl_s.saturating_mul(1000)))))
            }
        }
    }

    /// Follows the log.
    pub fn change(&self, change: TokenChange, now_ms: u64) {
        if let Provider::Simple(tokens) = self {
            tokens.lock().change(change, now_ms);
        }
    }

    /// Whose token it is, if it is good.
    pub fn user(&self, token: &str, now_ms: u64) -> Option<User> {
        match self {
            Provider::Simple(tokens) => {
                let name = tokens.lock().user(token, now_ms)?;
                Some(User { name, revision: None })
            }
            Provider::Jwt(jwt) => jwt.user(token, now_s()),
            Provider::None => None,
        }
    }

    /// Whether an unknown token may be one of an entry that is not applied yet.
    pub fn may_come(&self, token: &str, applied: u64) -> bool {
        matches!(self, Provider::Simple(_)) && token_index(token).is_some_and(|index| index >= applied)
    }

    /// What a token that is asked for begins with.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn prefix(&self) -> Result<String, api::Error> {
        match self {
            Provider::Simple(_) => draw(),
            Provider::Jwt(_) | Provider::None => Ok(String::new()),
        }
    }

    /// What makes the token out of what the log made of it, where that takes time: to be run in the pool.
    pub fn finish(
        &self,
        response: pb::AuthenticateResponse,
        user: String,
        auth_revision: u64,
    ) -> impl FnOnce() -> Result<pb::AuthenticateResponse, api::Error> + Send + 'static {
        let jwt = match self {
            Provider::Simple(_) => Ok(None),
            Provider::Jwt(jwt) => Ok(Some(jwt.clone())),
            Provider::None => Err(api::Error::AuthFailed),
        };
        move || match jwt? {
            None => Ok(response),
            Some(jwt) => {
                let token = jwt.sign(&user, auth_revision, now_s())?;
                Ok(pb::AuthenticateResponse { token, ..response })
            }
        }
    }
}

/// Letters, each as likely as the others.
fn draw() -> Result<String, api::Error> {
    let mut prefix = String::with_capacity(PREFIX);
    let mut bytes = [0; 2 * PREFIX];
    while prefix.len() < PREFIX {
        getrandom::fill(&mut bytes).map_err(|e| api::Error::Other(e.to_string().into()))?;
        let fair = bytes.iter().map(|b| usize::from(*b)).filter(|n| *n < LETTERS.len() * 4);
        let left = PREFIX - prefix.len();
        prefix.extend(fair.take(left).map(|n| char::from(LETTERS[n % LETTERS.len()])));
    }
    Ok(prefix)
}

/// Seconds since 1970.
fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_sixteen_letters_and_never_the_same() {
        let drawn: std::collections::BTreeSet<String> = (0..100).map(|_| draw().unwrap()).collect();
        assert_eq!(drawn.len(), 100);
        assert!(drawn.iter().all(|p| p.len() == 16 && p.bytes().all(|b| b.is_ascii_alphabetic())));
    }

    #[test]
    fn only_simple_tokens_may_come_later() {
        let simple = Provider::new("simple", 0).unwrap();
        assert!(simple.may_come("a.7", 7) && simple.may_come("a.8", 7));
        assert!(!simple.may_come("a.6", 7) && !simple.may_come("a", 7));
        assert!(!Provider::new("", 0).unwrap().may_come("a.8", 7));
    }
}
