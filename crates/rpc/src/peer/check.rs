//! What a request of a peer must bring: versions that go together, the same cluster (rafthttp `http.go`, `util.go`).
//!
//! The checks run in etcd's order, and their texts are etcd's: a Go caller compares them.

use api::version::{MIN_CLUSTER, SERVER, Version};
use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(crate) const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(crate) const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(crate) const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(crate) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
pub(crate) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");

pub(crate) const INCOMPATIBLE_VERSION: &str = "incompatible version";
pub(crate) const CLUSTER_ID_MISMATCH: &str = "cluster ID mismatch";

/// What an absent version header stands for: etcd 2.0 sent none.
const UNSAID: Version = Version { major: 2, minor: 0, patch: 0 };

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 412 with this text.
    Precondition(&'static str),
    /// A version that is none: etcd's handler panics, which closes the connection.
    NoVersion,
}

/// Checks 1 and 2 of reference/peer-protocol.md section 2. `cluster` is ours, in hex.
pub(crate) fn compatible(headers: &HeaderMap, cluster: &HeaderValue) -> Result<(), Refusal> {
    let server = version(headers, &SERVER_VERSION).ok_or(Refusal::NoVersion)?;
    let min_cluster = version(headers, &MIN_CLUSTER_VERSION).ok_or(Refusal::NoVersion)?;
    if minor(server) < minor(own(MIN_CLUSTER)) || minor(min_cluster) > minor(own(SERVER)) {
        return Err(Refusal::Precondition(INCOMPATIBLE_VERSION));
    }
    match headers.get(CLUSTER_ID) == Some(cluster) {
        true => Ok(()),
        false => Err(Refusal::Precondition(CLUSTER_ID_MISMATCH)),
    }
}

/// Whether a responder that says it has this version serves our streams (etcd `checkStreamSupport`): an older one must
/// be known. `None`: it says nonsense.
pub(crate) fn serves_streams(headers: &HeaderMap) -> Option<bool> {
    const FIRST: (u64, u64) = (2, 1);
    let theirs = minor(version(headers, &SERVER_VERSION)?);
    let known = (FIRST..=(2, 3)).contains(&theirs) || theirs >= minor(own(MIN_CLUSTER));
    Some(known)
}

fn version(headers: &HeaderMap, name: &HeaderName) -> Option<Version> {
    match headers.get(name) {
        None => Some(UNSAID),
        Some(text) if text.is_empty() => Some(UNSAID),
        Some(text) => Version::parse(text.to_str().ok()?),
    }
}

fn minor(version: Version) -> (u64, u64) {
    (version.major, version.minor)
}

fn own(text: &str) -> Version {
    Version::parse(text).expect("our own versions are versions")
}

/// A member or cluster id as URLs and headers have it.
pub(crate) fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Go's `strconv.ParseUint(text, 16, 64)`: digits only, no sign.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(server: Option<&str>, min: Option<&str>, cluster: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [(SERVER_VERSION, server), (MIN_CLUSTER_VERSION, min), (CLUSTER_ID, cluster)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
        }
        headers
    }

    #[test]
    fn versions_are_checked_before_the_cluster() {
        let old = Err(Refusal::Precondition(INCOMPATIBLE_VERSION));
        let other = Err(Refusal::Precondition(CLUSTER_ID_MISMATCH));
        for (server, min, cluster, expected) in [
            (Some("3.7.1"), Some("3.0.0"), Some("ab"), Ok(())),
            (Some("3.0.0"), Some("3.7.9"), Some("ab"), Ok(())),
            (Some("4.1.0"), Some("3.0.0"), Some("ab"), Ok(())),
            (Some("3.8.0-alpha.0"), Some("3.0.0"), Some("ab"), Ok(())),
            (Some("2.3.8"), Some("2.1.0"), Some("ab"), old),
            (None, Some("3.0.0"), Some("ab"), old),
            (Some(""), Some("3.0.0"), Some("ab"), old),
            (Some("3.7.1"), Some("3.8.0"), Some("ab"), old),
            // A minimum of 2.0 asks nothing of us.
            (Some("3.7.1"), None, Some("ab"), Ok(())),
            (Some("2.3.8"), None, Some("cd"), old),
            (Some("3.7.1"), Some("3.0.0"), Some("AB"), other),
            (Some("3.7.1"), Some("3.0.0"), Some("0ab"), other),
            (Some("3.7.1"), Some("3.0.0"), None, other),
            (Some("new"), Some("3.0.0"), Some("ab"), Err(Refusal::NoVersion)),
            (Some("3.7.1"), Some("3.x"), Some("ab"), Err(Refusal::NoVersion)),
        ] {
            let outcome = compatible(&headers(server, min, cluster), &HeaderValue::from_static("ab"));
            assert_eq!(outcome, expected, "{server:?} {min:?} {cluster:?}");
        }
    }

    #[test]
    fn streams_of_unknown_old_versions_are_refused() {
        for (server, expected) in [
            (Some("3.7.1"), Some(true)),
            (Some("3.9.0"), Some(true)),
            (Some("3.0.0"), Some(true)),
            (Some("2.1.0"), Some(true)),
            (Some("2.0.0"), Some(false)),
            (Some("2.4.0"), Some(false)),
            (None, Some(false)),
            (Some("x"), None),
        ] {
            assert_eq!(serves_streams(&headers(server, None, None)), expected, "{server:?}");
        }
    }

    #[test]
    fn ids_are_hex_without_signs() {
        assert_eq!(parse_hex("8e9e05c52164694d"), Some(0x8e9e_05c5_2164_694d));
        assert_eq!(parse_hex("0000000000000000000000001"), Some(1));
        for bad in ["", "+1", "-1", "0x1", "g", "10000000000000000", " 1"] {
            assert_eq!(parse_hex(bad), None, "{bad}");
        }
        assert_eq!(hex(0xAB), "ab");
    }
}
