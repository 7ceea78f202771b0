//! What the store did since the process started, as plain numbers: whoever shows metrics takes them from here, and nothing that
//! is done depends on them.

use api::pb::etcdserverpb::InternalRaftRequest;

macro_rules! kinds {
    ($( $kind:ident = $field:ident, )*) => {
        /// Kinds of requests, as etcd's metrics name them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $( $kind, )* Range, ReadonlyTxn, Unknown }

        impl Kind {
            /// Their names, in order.
            pub const NAMES: [&'static str; Kind::COUNT] =
                [$( stringify!($kind), )* "Range", "ReadonlyTxn", "unknown"];
            /// How many there are.
            pub const COUNT: usize = Kind::Unknown as usize + 1;

            /// The kind of a request in the log.
            pub fn of(r: &InternalRaftRequest) -> Kind {
                $( if r.$field.is_some() { return Kind::$kind; } )*
                if r.range.is_some() { Kind::Range } else { Kind::Unknown }
            }
        }
    };
}

kinds! {
    Put = put,
    Txn = txn,
    DeleteRange = delete_range,
    Compaction = compaction,
    LeaseGrant = lease_grant,
    LeaseRevoke = lease_revoke,
    LeaseCheckpoint = lease_checkpoint,
    Alarm = alarm,
    Authenticate = authenticate,
    AuthEnable = auth_enable,
    AuthDisable = auth_disable,
    AuthUserAdd = auth_user_add,
    AuthUserDelete = auth_user_delete,
    AuthUserGet = auth_user_get,
    AuthUserChangePassword = auth_user_change_password,
    AuthUserGrantRole = auth_user_grant_role,
    AuthUserRevokeRole = auth_user_revoke_role,
    AuthUserList = auth_user_list,
    AuthRoleAdd = auth_role_add,
    AuthRoleDelete = auth_role_delete,
    AuthRoleGet = auth_role_get,
    AuthRoleGrantPermission = auth_role_grant_permission,
    AuthRoleRevokePermission = auth_role_revoke_permission,
    AuthRoleList = auth_role_list,
    ClusterVersionSet = cluster_version_set,
    ClusterMemberAttrSet = cluster_member_attr_set,
    DowngradeInfoSet = downgrade_info_set,
}

/// Doubling bounds of granted TTLs: 1 s and up, and what is longer.
pub const TTL_BOUNDS: usize = 24;

/// What was done.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Entries applied of each [`Kind`]: well, and refused.
    pub applied: [[u64; 2]; Kind::COUNT],
    pub puts: u64,
    pub deletes: u64,
    /// Of several operations.
    pub txns: u64,
    /// By entries; reads beside the log are not seen here.
    pub ranges: u64,
    /// Of keys and values.
    pub put_bytes: u64,
    pub leases_granted: u64,
    pub leases_revoked: u64,
    /// Granted TTLs: at most 1 s, 2 s, 4 s …; the last of all that are longer.
    pub ttls: [u64; TTL_BOUNDS + 1],
    /// Their sum, seconds.
    pub ttl_sum: u64,
    /// Revisions that compactions removed.
    pub compacted: u64,
    /// Compactions that came to their end.
    pub compactions: u64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            applied: [[0; 2]; Kind::COUNT],
            puts: 0,
            deletes: 0,
            txns: 0,
            ranges: 0,
            put_bytes: 0,
            leases_granted: 0,
            leases_revoked: 0,
            ttls: [0; TTL_BOUNDS + 1],
            ttl_sum: 0,
            compacted: 0,
            compactions: 0,
        }
    }
}

impl Counts {
    /// A lease was granted for so many seconds.
    pub(crate) fn granted(&mut self, ttl: i64) {
        let ttl = u64::try_from(ttl).unwrap_or(0);
        let bucket = (0..TTL_BOUNDS).take_while(|n| ttl > 1 << n).count();
        self.ttls[bucket] += 1;
        self.ttl_sum += ttl;
        self.leases_granted += 1;
    }

    /// An entry was applied. As etcd, one that asks for what is compacted counts as one that went well.
    pub(crate) fn done(&mut self, kind: Kind, outcome: Result<(), &api::Error>) {
        let failed = !matches!(outcome, Ok(()) | Err(api::Error::Compacted));
        self.applied[kind as usize][usize::from(failed)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_fall_into_doubling_buckets() {
        let mut counts = Counts::default();
        for ttl in [-1, 0, 1, 2, 3, 4, 1 << 23, (1 << 23) + 1] {
            counts.granted(ttl);
        }
        assert_eq!((counts.ttls[0], counts.ttls[1], counts.ttls[2]), (3, 1, 2));
        assert_eq!((counts.ttls[23], counts.ttls[24], counts.leases_granted), (1, 1, 8));
    }

    #[test]
    fn every_request_of_the_log_has_its_name() {
        let put = InternalRaftRequest { put: Some(Default::default()), ..Default::default() };
        assert_eq!(Kind::NAMES[Kind::of(&put) as usize], "Put");
        assert_eq!(Kind::NAMES[Kind::of(&InternalRaftRequest::default()) as usize], "unknown");
        let test = InternalRaftRequest { auth_role_list: Some(Default::default()), ..Default::default() };
        assert_eq!(Kind::NAMES[Kind::of(&test) as usize], "AuthRoleList");
    }
}
