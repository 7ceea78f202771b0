//! Simple tokens: text that stands for a user for as long as it is used (etcd `auth/simple_token.go`). Every member has
//! the same, since they come from the log; none survives its process.
//!
//! ```text
//! abcdefghijklmnop.1234
//! └─ drawn         └─ the entry before the one that assigned it: who has applied less does not know the token yet
//! ```

use std::collections::BTreeMap;

/// Expired tokens are looked for this often (etcd `simpleTokenTTLResolution`).
const SWEEP_MS: u64 = 1000;

/// What happened to tokens, in the log's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChange {
    Assigned { user: String, token: String },
    OfUserDropped { user: String },
    AllDropped,
}

/// The tokens that are good.
#[derive(Debug)]
pub struct Tokens {
    ttl_ms: u64,
    next_sweep_ms: u64,
    known: BTreeMap<String, Token>,
}

#[derive(Debug)]
struct Token {
    user: String,
    deadline_ms: u64,
}

impl Tokens {
    /// Tokens live for `ttl_ms` after their last use.
    pub fn new(ttl_ms: u64) -> Tokens {
        Tokens { ttl_ms, next_sweep_ms: 0, known: BTreeMap::new() }
    }

    /// Follows the log.
    pub fn change(&mut self, change: TokenChange, now_ms: u64) {
        match change {
            TokenChange::Assigned { user, token } => {
                self.sweep(now_ms);
                self.known.insert(token, Token { user, deadline_ms: now_ms + self.ttl_ms });
            }
            TokenChange::OfUserDropped { user } => self.known.retain(|_, token| token.user != user),
            TokenChange::AllDropped => self.known.clear(),
        }
    }

    /// Whose token it is, if it is good; then it lives on.
    pub fn user(&mut self, token: &str, now_ms: u64) -> Option<String> {
        let known = self.known.get_mut(token).filter(|known| known.deadline_ms >= now_ms)?;
        known.deadline_ms = now_ms + self.ttl_ms;
        Some(known.user.clone())
    }

    fn sweep(&mut self, now_ms: u64) {
        if now_ms >= self.next_sweep_ms {
            self.next_sweep_ms = now_ms + SWEEP_MS;
            self.known.retain(|_, token| token.deadline_ms >= now_ms);
        }
    }
}

/// The index that has to be applied before a token can be judged; `None`: this is no simple token.
pub fn index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    let digits = !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| index.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(user: &str, token: &str) -> TokenChange {
        TokenChange::Assigned { user: user.into(), token: token.into() }
    }

    #[test]
    fn a_token_lives_as_long_as_it_is_used() {
        let mut tokens = Tokens::new(100);
        tokens.change(assigned("alice", "a.1"), 0);
        assert_eq!(tokens.user("a.1", 90).as_deref(), Some("alice"));
        assert_eq!(tokens.user("a.1", 190).as_deref(), Some("alice"));
        assert_eq!(tokens.user("a.1", 291), None);
        tokens.change(assigned("bob", "b.2"), 2000);
        assert_eq!(tokens.known.len(), 1, "what expired is forgotten");
    }

    #[test]
    fn tokens_go_with_their_users_and_with_authentication() {
        let mut tokens = Tokens::new(100);
        for (user, token) in [("alice", "a.1"), ("alice", "b.2"), ("bob", "c.3")] {
            tokens.change(assigned(user, token), 0);
        }
        tokens.change(TokenChange::OfUserDropped { user: "alice".into() }, 1);
        let users = ["a.1", "b.2", "c.3"].map(|token| tokens.user(token, 1));
        assert_eq!(users, [None, None, Some("bob".into())]);
        tokens.change(TokenChange::AllDropped, 2);
        assert_eq!(tokens.user("c.3", 2), None);
    }

    #[test]
    fn a_tokens_index_is_a_plain_number_behind_the_only_dot() {
        assert_eq!(index("abc.17"), Some(17));
        assert_eq!(index(".0"), Some(0));
        for bad in ["", "abc", "abc.", "abc.+1", "abc.1.2", "abc.x", "abc.18446744073709551616"] {
            assert_eq!(index(bad), None, "{bad}");
        }
    }
}
