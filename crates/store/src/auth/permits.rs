//! What a user's roles add up to: the keys that may be read, and those that may be written.

use super::Wish;
use super::intervals::{Intervals, compare, point_end};
use api::pb::authpb::{Permission, permission::Type};
use bytes::Bytes;

/// All permissions of a user's roles together.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    read: Intervals,
    write: Intervals,
}

/// "From the key on", in requests and permissions.
const OPEN_END: &[u8] = &[0];

impl Permits {
    /// In the order of the roles, and of a role's permissions: it shapes the trees.
    pub fn of<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Permits {
        let mut permits = Permits::default();
        for permission in permissions {
            let (begin, end) = interval(permission);
            match Type::try_from(permission.perm_type) {
                Ok(Type::Read) => permits.read.insert(begin, end),
                Ok(Type::Write) => permits.write.insert(begin, end),
                Ok(Type::Readwrite) => {
                    permits.read.insert(begin.clone(), end.clone());
                    permits.write.insert(begin, end);
                }
                // A kind of permission that this release does not know permits nothing.
                Err(_) => {}
            }
        }
        permits
    }

    /// Whether the key, or all keys up to `range_end`, may be read or written.
    pub fn allow(&self, key: &[u8], range_end: &[u8], wish: Wish) -> bool {
        let intervals = match wish {
            Wish::Read => &self.read,
            Wish::Write => &self.write,
        };
        match range_end {
            [] => intervals.holds(key),
            OPEN_END => intervals.contains(key, &[]),
            end => intervals.contains(key, end),
        }
    }
}

/// The keys of a permission; an empty end is behind all of them.
fn interval(permission: &Permission) -> (Bytes, Bytes) {
    let key = permission.key.clone();
    match permission.range_end.as_ref() {
        [] => (key.clone(), point_end(&key)),
        OPEN_END => (key, Bytes::new()),
        _ => (key, permission.range_end.clone()),
    }
}

/// Whether a permission may be granted for these keys.
pub fn is_valid_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == OPEN_END || compare(key, range_end).is_lt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(kind: Type, key: &'static str, range_end: &'static str) -> Permission {
        Permission { perm_type: kind as i32, key: key.into(), range_end: range_end.into() }
    }

    #[test]
    fn permissions_of_all_roles_add_up_but_an_open_end_needs_an_open_end() {
        let granted = [
            permission(Type::Read, "a", "c"),
            permission(Type::Readwrite, "c", "d"),
            permission(Type::Write, "x", "\0"),
            permission(Type::Read, "k", ""),
        ];
        let permits = Permits::of(granted.iter());
        let read = |key: &str, end: &str| permits.allow(key.as_bytes(), end.as_bytes(), Wish::Read);
        let write = |key: &str, end: &str| permits.allow(key.as_bytes(), end.as_bytes(), Wish::Write);
        assert!(read("a", "d") && read("b", "") && read("k", "") && read("k", "k\0"));
        assert!(!read("a", "d\0") && !read("k", "k\0\0") && !read("a", "\0") && !read("x", ""));
        assert!(write("x", "\0") && write("y", "z") && write("zzz", "") && write("c", "d"));
        assert!(!write("a", "") && !write("b", "d") && !write("c", "\0"));
    }

    #[test]
    fn the_zero_key_as_an_end_is_no_key_but_from_the_key_on() {
        let permits = Permits::of([permission(Type::Read, "a", "b")].iter());
        assert!(!permits.allow(b"a", &[0], Wish::Read), "GHSA-xg4h-6gfc-h4m8");
    }

    #[test]
    fn permissions_are_granted_for_keys_ranges_and_open_ends_that_begin_somewhere() {
        for (key, end, valid) in [
            ("a", "", true),
            ("a", "b", true),
            ("a", "\0", true),
            ("b", "a", false),
            ("a", "a", false),
            ("", "b", false),
            ("", "\0", false),
        ] {
            assert_eq!(is_valid_range(key.as_bytes(), end.as_bytes()), valid, "{key:?} {end:?}");
        }
    }
}
