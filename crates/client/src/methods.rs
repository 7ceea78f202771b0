//! The v3 API, method by method. What may be sent twice is clientv3's list (`client/v3/retry.go`).

use crate::call::{Client, Method, Stream};
use crate::error::Error;
use api::pb::etcdserverpb as pb;

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident = $path:literal, $repeatable:literal;)+) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// The server's, or that the deadline passed.
                pub async fn $name(&self, request: pb::$request) -> Result<pb::$response, Error> {
                    let method = Method { path: concat!("/etcdserverpb.", $path), repeatable: $repeatable };
                    self.unary(method, request).await
                }
            )+
        }
    };
}

methods! {
    /// Reads keys.
    range(RangeRequest) -> RangeResponse = "KV/Range", true;
    /// Writes a key.
    put(PutRequest) -> PutResponse = "KV/Put", false;
    /// Deletes keys.
    delete_range(DeleteRangeRequest) -> DeleteRangeResponse = "KV/DeleteRange", false;
    /// Compares, then does one list of requests or the other.
    txn(TxnRequest) -> TxnResponse = "KV/Txn", false;
    /// Forgets history.
    compact(CompactionRequest) -> CompactionResponse = "KV/Compact", false;
    /// Makes a lease.
    lease_grant(LeaseGrantRequest) -> LeaseGrantResponse = "Lease/LeaseGrant", true;
    /// Ends a lease and deletes its keys.
    lease_revoke(LeaseRevokeRequest) -> LeaseRevokeResponse = "Lease/LeaseRevoke", true;
    /// How long a lease has left.
    lease_time_to_live(LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse = "Lease/LeaseTimeToLive", true;
    /// All leases.
    lease_leases(LeaseLeasesRequest) -> LeaseLeasesResponse = "Lease/LeaseLeases", true;
    /// The members of the cluster.
    member_list(MemberListRequest) -> MemberListResponse = "Cluster/MemberList", true;
    /// Adds a member.
    member_add(MemberAddRequest) -> MemberAddResponse = "Cluster/MemberAdd", false;
    /// Removes a member.
    member_remove(MemberRemoveRequest) -> MemberRemoveResponse = "Cluster/MemberRemove", false;
    /// Changes a member's peer URLs.
    member_update(MemberUpdateRequest) -> MemberUpdateResponse = "Cluster/MemberUpdate", false;
    /// Makes a learner a voter.
    member_promote(MemberPromoteRequest) -> MemberPromoteResponse = "Cluster/MemberPromote", false;
    /// Lists, raises or disarms alarms.
    alarm(AlarmRequest) -> AlarmResponse = "Maintenance/Alarm", true;
    /// The state of the member that answers.
    status(StatusRequest) -> StatusResponse = "Maintenance/Status", true;
    /// Gives unused space of the member that answers back to its file system.
    defragment(DefragmentRequest) -> DefragmentResponse = "Maintenance/Defragment", false;
    /// The hash of all revisions up to one.
    hash_kv(HashKvRequest) -> HashKvResponse = "Maintenance/HashKV", true;
    /// Hands leadership over.
    move_leader(MoveLeaderRequest) -> MoveLeaderResponse = "Maintenance/MoveLeader", true;
    /// Checks, starts or ends a downgrade.
    downgrade(DowngradeRequest) -> DowngradeResponse = "Maintenance/Downgrade", false;
    /// Requests need a user from now on.
    auth_enable(AuthEnableRequest) -> AuthEnableResponse = "Auth/AuthEnable", false;
    /// Requests need no user from now on.
    auth_disable(AuthDisableRequest) -> AuthDisableResponse = "Auth/AuthDisable", false;
    /// Whether requests need a user, and the revision of users and roles.
    auth_status(AuthStatusRequest) -> AuthStatusResponse = "Auth/AuthStatus", false;
    /// Adds a user.
    user_add(AuthUserAddRequest) -> AuthUserAddResponse = "Auth/UserAdd", false;
    /// The roles of a user.
    user_get(AuthUserGetRequest) -> AuthUserGetResponse = "Auth/UserGet", true;
    /// All users.
    user_list(AuthUserListRequest) -> AuthUserListResponse = "Auth/UserList", true;
    /// Removes a user.
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse = "Auth/UserDelete", false;
    /// Gives a user another password, and ends the tokens of the old one.
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse = "Auth/UserChangePassword",
        false;
    /// Gives a user a role.
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse = "Auth/UserGrantRole", false;
    /// Takes a role from a user.
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse = "Auth/UserRevokeRole", false;
    /// Adds a role.
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse = "Auth/RoleAdd", false;
    /// The permissions of a role.
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse = "Auth/RoleGet", true;
    /// All roles.
    role_list(AuthRoleListRequest) -> AuthRoleListResponse = "Auth/RoleList", true;
    /// Removes a role.
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse = "Auth/RoleDelete", false;
    /// Gives a role a permission.
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse =
        "Auth/RoleGrantPermission", false;
    /// Takes a permission from a role.
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse =
        "Auth/RoleRevokePermission", false;
}

impl Client {
    /// A transaction that reads only, which may be sent twice.
    pub(crate) async fn txn_of_reads(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Error> {
        self.unary(Method { path: "/etcdserverpb.KV/Txn", repeatable: true }, request).await
    }

    /// Reads keys in pieces.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn range_stream(&self, request: pb::RangeRequest) -> Result<Stream<pb::RangeStreamResponse>, Error> {
        self.server_stream(Method { path: "/etcdserverpb.KV/RangeStream", repeatable: true }, request).await
    }

    /// The member's database as it is now, in pieces, with a SHA-256 of it at the end.
    ///
    /// # Errors
    /// The server's, or that the deadline passed.
    pub async fn snapshot(&self) -> Result<Stream<pb::SnapshotResponse>, Error> {
        let method = Method { path: "/etcdserverpb.Maintenance/Snapshot", repeatable: true };
        self.server_stream(method, pb::SnapshotRequest {}).await
    }
}
