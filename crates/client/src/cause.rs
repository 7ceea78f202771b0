//! Why an endpoint was of no use: what was found, as a value, so that whoever talks to people can say what to do.
//!
//! One cause an endpoint, the last one. A call that ends well forgets the causes of the endpoints that it had to choose
//! from: what is left after a failed call is of that call.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// Endpoints whose causes are kept; later ones are dropped. A cluster has seven members at most.
const ENDPOINTS_MAX: usize = 64;
/// Bytes of a text of the server's that is kept.
const TEXT_BYTES_MAX: usize = 4096;

/// What was found at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The name has no address, or there is no telling.
    Unresolved(String),
    /// No process listens there.
    Refused,
    /// There is no socket file of that name.
    NoSocket,
    /// The network does not lead there; the system's text.
    Unreachable(String),
    /// No connection within this time.
    DialTimeout(Duration),
    /// TLS was begun, and the answer was none of TLS.
    NotTls,
    /// Plain text was begun, and the answer was one of TLS.
    SpeaksTls,
    /// The answer was one of HTTP/1.1.
    SpeaksHttp1,
    /// The connection was closed before the server said a word.
    Closed,
    /// The connection was taken, and nothing came within this time.
    Mute(Duration),
    /// Nobody who is trusted signed the server's certificate.
    UnknownAuthority(Option<tls::Shown>),
    /// The time of the server's certificate is over, or has not come.
    OutOfTime(tls::Shown),
    /// The server's certificate is for others.
    WrongName {
        /// Who was wanted.
        host: String,
        shown: tls::Shown,
    },
    /// The server refused the handshake; the alert of TLS in Go's words.
    Alert(String),
    /// A connection stands, and the call's time was over before its answer came.
    NoAnswer,
    /// The server answered with an error.
    Refusal {
        code: Code,
        message: String,
        /// Of the request, encoded.
        request_bytes: usize,
    },
    /// The connection broke amid a call.
    Broken(String),
    /// All else, in the words of the error.
    Other(String),
}

/// An endpoint, and what was found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As the configuration names it.
    pub endpoint: String,
    pub cause: Cause,
}

/// The last cause of each endpoint. Clones share them, as do the clients that are made of one another.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<String, Cause>>>);

impl Failures {
    /// Remembers a cause.
    pub fn note(&self, endpoint: &str, cause: Cause) {
        let mut causes = self.0.lock();
        if causes.len() < ENDPOINTS_MAX || causes.contains_key(endpoint) {
            causes.insert(endpoint.to_owned(), cause.bounded());
        }
    }

    /// Remembers a cause where there is none yet.
    pub(crate) fn note_first(&self, endpoint: &str, cause: Cause) {
        let is_known = self.0.lock().contains_key(endpoint);
        if !is_known {
            self.note(endpoint, cause);
        }
    }

    /// Forgets what was found at these endpoints.
    pub fn forget<'a>(&self, endpoints: impl IntoIterator<Item = &'a String>) {
        let mut causes = self.0.lock();
        for endpoint in endpoints {
            causes.remove(endpoint);
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// What is remembered, by endpoint.
    pub fn list(&self) -> Vec<Failure> {
        let causes = self.0.lock();
        causes.iter().map(|(endpoint, cause)| Failure { endpoint: endpoint.clone(), cause: cause.clone() }).collect()
    }
}

impl Cause {
    /// A row of etcd's error table, where a member is in that state and did not have to say so.
    pub fn refusal(row: &api::Error) -> Cause {
        Cause::Refusal { code: Code::from_i32(row.code() as i32), message: row.message().to_owned(), request_bytes: 0 }
    }

    /// With texts that are not longer than anybody reads.
    fn bounded(mut self) -> Cause {
        let text = match &mut self {
            Cause::Unresolved(text)
            | Cause::Unreachable(text)
            | Cause::Alert(text)
            | Cause::Broken(text)
            | Cause::Other(text)
            | Cause::Refusal { message: text, .. } => text,
            _ => return self,
        };
        if text.len() > TEXT_BYTES_MAX {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        self
    }

    /// Of a connection that the system would not make.
    pub(crate) fn of_connect(e: &io::Error) -> Cause {
        match e.kind() {
            io::ErrorKind::ConnectionRefused => Cause::Refused,
            io::ErrorKind::NotFound => Cause::NoSocket,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::TimedOut => {
                Cause::Unreachable(go::os_text(e))
            }
            _ => Cause::Other(e.to_string()),
        }
    }

    /// Of a handshake with who had to be `host`.
    pub(crate) fn of_handshake(host: &str, failed: tls::Failed) -> Cause {
        use tls::Reason;
        match (failed.reason, failed.shown) {
            (Reason::NotTls, _) => Cause::NotTls,
            (Reason::Closed, _) => Cause::Closed,
            (Reason::UnknownAuthority, shown) => Cause::UnknownAuthority(shown),
            (Reason::OutOfTime, Some(shown)) => Cause::OutOfTime(shown),
            (Reason::WrongName, Some(shown)) => Cause::WrongName { host: host.to_owned(), shown },
            (Reason::Alert(alert), _) => Cause::Alert(alert),
            _ => Cause::Other(failed.text),
        }
    }

    /// Of a connection that ended, with this text, before the server had said anything of HTTP/2.
    pub(crate) fn of_silence(why: &str) -> Cause {
        match tls::alert(why) {
            Some(alert) => Cause::Alert(alert.to_owned()),
            None => Cause::Closed,
        }
    }

    /// Of a server's first bytes, where they are none of HTTP/2.
    pub(crate) fn of_first_bytes(bytes: &[u8]) -> Option<Cause> {
        /// The records of TLS that a server may begin with: alert, handshake.
        const RECORDS: [u8; 2] = [0x15, 0x16];
        match bytes {
            [kind, 3, ..] if RECORDS.contains(kind) => Some(Cause::SpeaksTls),
            _ if bytes.starts_with(b"HTTP/1") => Some(Cause::SpeaksHttp1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, ENDPOINTS_MAX, Failures, TEXT_BYTES_MAX};

    #[test]
    fn the_last_cause_of_an_endpoint_counts_until_a_call_ends_well() {
        let failures = Failures::default();
        failures.note("a", Cause::Refused);
        failures.note("b", Cause::NotTls);
        failures.note("a", Cause::Closed);
        failures.note_first("a", Cause::Refused);
        let causes: Vec<Cause> = failures.list().into_iter().map(|failure| failure.cause).collect();
        assert_eq!(causes, [Cause::Closed, Cause::NotTls]);
        failures.forget(&["a".to_owned()]);
        assert_eq!(failures.list().iter().map(|failure| failure.endpoint.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let failures = Failures::default();
        for n in 0..2 * ENDPOINTS_MAX {
            failures.note(&n.to_string(), Cause::Other("ä".repeat(TEXT_BYTES_MAX)));
        }
        let list = failures.list();
        assert_eq!(list.len(), ENDPOINTS_MAX);
        for failure in list {
            assert!(matches!(failure.cause, Cause::Other(text) if text.len() <= TEXT_BYTES_MAX));
        }
    }

    #[test]
    fn a_servers_first_bytes_tell_what_it_speaks() {
        assert_eq!(Cause::of_first_bytes(&[0x15, 3, 1, 0, 2, 2, 70]), Some(Cause::SpeaksTls));
        assert_eq!(Cause::of_first_bytes(b"HTTP/1.0 400 Bad Request"), Some(Cause::SpeaksHttp1));
        // SETTINGS.
        assert_eq!(Cause::of_first_bytes(&[0, 0, 18, 4, 0, 0, 0, 0, 0]), None);
        assert_eq!(Cause::of_first_bytes(&[]), None);
    }
}
