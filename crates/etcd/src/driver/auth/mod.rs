//! Credentials: whose they are, and how clients get them.
//!
//! ```text
//! network threads: token ─► provider ─► Who ─► core, readers, hub (which ask what it may do)
//!                  name, password ─► login ─► pool: bcrypt, signatures ─► core: the token's entry
//! core: what the log says of tokens ─► provider
//! ```
//!
//! Passwords get no further than the pool, which is bounded: a flood of them delays only one another.

mod jwt;
mod keys;
mod login;
mod passwords;
mod provider;

pub use login::{login, new_password, with_hash};
pub use passwords::Passwords;
pub use provider::Provider;

use super::Clock;
use crate::config::Config;
use rpc::Caller;
use server::access::{Client, User};
use server::{Fatal, TokenChange, Who};
use std::sync::Arc;
use std::time::Duration;
use store::Applied;
use tokio::time::{Instant, sleep};

/// How soon a token that this member does not know yet is looked at again; less and less often, since anybody can make
/// tokens up …
const PACE: Duration = Duration::from_millis(2);
/// … down to this.
const PACE_MAX: Duration = Duration::from_millis(250);

/// What the threads of a member share of credentials.
pub struct Auth {
    pub provider: Provider,
    pub passwords: Passwords,
    clock: Clock,
    /// How long a token may stay unknown because this member is behind.
    patience: Duration,
}

/// What becomes of credentials.
#[derive(Debug)]
pub enum Judged {
    Known(Who),
    /// This member may be behind the entry that the token came with: to be looked at again.
    Early,
}

impl Auth {
    /// As the configuration says. `patience`: how long a request may take (etcd `ReqTimeout`).
    ///
    /// # Errors
    /// Options of tokens, or the keys they name, are no good.
    pub fn new(config: &Config, clock: Clock, patience: Duration) -> Result<Auth, Fatal> {
        let provider = Provider::new(&config.auth_token, config.auth_token_ttl).map_err(Fatal::new)?;
        Ok(Auth { provider, passwords: Passwords::start(config.bcrypt_cost)?, clock, patience })
    }

    /// Follows the log.
    pub fn change(&self, change: TokenChange) {
        self.provider.change(change, self.clock.now_ms());
    }

    /// Whose credentials these are. A token goes before a certificate.
    pub fn judge(&self, caller: &Caller, applied: &Applied) -> Judged {
        let Some(token) = &caller.token else { return Judged::Known(certified(caller)) };
        let user = match self.provider.user(token, self.clock.now_ms()) {
            Some(user) => Ok(user),
            // Without authentication it does not matter what the token is.
            None if applied.auth().is_enabled() && self.provider.may_come(token, applied.index()) => {
                return Judged::Early;
            }
            None => Err(api::Error::InvalidAuthToken),
        };
        Judged::Known(Who::Client(Arc::new(Client { user, token: Some(token.clone()) })))
    }

    /// The same at once: a token that this member does not know is no good.
    pub fn judge_now(&self, caller: &Caller, applied: &Applied) -> Who {
        match self.judge(caller, applied) {
            Judged::Known(who) => who,
            Judged::Early => {
                let client = Client { user: Err(api::Error::InvalidAuthToken), token: caller.token.clone() };
                Who::Client(Arc::new(client))
            }
        }
    }

    /// The same for those who can wait until this member has caught up.
    pub async fn judge_patiently(&self, caller: &Caller, applied: impl Fn() -> Arc<Applied>) -> Who {
        let (deadline, mut pace) = (Instant::now() + self.patience, PACE);
        while Instant::now() < deadline {
            if let Judged::Known(who) = self.judge(caller, &applied()) {
                return who;
            }
            sleep(pace).await;
            pace = (pace * 2).min(PACE_MAX);
        }
        self.judge_now(caller, &applied())
    }
}

/// A client that the transport knows by its certificate.
fn certified(caller: &Caller) -> Who {
    let Some(name) = &caller.common_name else { return Who::Stranger };
    Who::Client(Arc::new(Client { user: Ok(User { name: name.clone(), revision: None }), token: None }))
}

/// What reads bytes from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    /// A token with these claims, whatever they are.
    pub fn signed_token(claims: &str) -> String {
        super::jwt::with_known_key().sign_claims(claims).expect("it has a key")
    }

    /// Whose token it is, and of which revision of users and roles.
    pub fn token_user(token: &str, now_s: i64) -> Option<(String, u64)> {
        let user = super::jwt::with_known_key().user(token, now_s)?;
        Some((user.name, user.revision.unwrap_or(0)))
    }
}
