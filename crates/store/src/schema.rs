//! Buckets and keys of the page store (reference/bbolt-format.md section 6), and the bytes of revisions.

use crate::index::Rev;

pub const ALARM: &str = "alarm";
pub const AUTH: &str = "auth";
pub const AUTH_ROLES: &str = "authRoles";
pub const AUTH_USERS: &str = "authUsers";
pub const CLUSTER: &str = "cluster";
pub const KEY: &str = "key";
pub const LEASE: &str = "lease";
pub const MEMBERS: &str = "members";
pub const MEMBERS_REMOVED: &str = "members_removed";
pub const META: &str = "meta";
/// All buckets, in the order of the file.
pub const BUCKETS: [&str; 10] =
    [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META];

pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub const TERM: &[u8] = b"term";
pub const CONF_STATE: &[u8] = b"confState";
pub const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
pub const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
pub const DOWNGRADE: &[u8] = b"downgrade";

/// `main u64 BE | '_' | sub u64 BE`, and `t` behind a tombstone's.
pub fn revision_key(rev: Rev, tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&rev.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&rev.sub.to_be_bytes());
    if tombstone {
        key.push(b't');
    }
    key
}

/// Reads a key of bucket `key`: revision, and whether it is a tombstone.
pub fn parse_revision(key: &[u8]) -> Option<(Rev, bool)> {
    let tombstone = match key.len() {
        17 => false,
        18 if key[17] == b't' => true,
        _ => return None,
    };
    let number = |at: usize| key[at..at + 8].try_into().ok().map(i64::from_be_bytes);
    (key[8] == b'_').then_some(())?;
    Some((Rev { main: number(0)?, sub: number(9)? }, tombstone))
}
