//! Requests and responses as values: what a transport hands to a member and gets back.

use api::pb::etcdserverpb as pb;
use bytes::Bytes;
use prost::Message as _;
use store::Pace;

/// One unary call.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    /// One message of a keepalive stream.
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
    LeaseTimeToLive(pb::LeaseTimeToLiveRequest),
    LeaseLeases(pb::LeaseLeasesRequest),
    Alarm(pb::AlarmRequest),
    Status(pb::StatusRequest),
    Defragment(pb::DefragmentRequest),
    Hash(pb::HashRequest),
    HashKv(pb::HashKvRequest),
    MoveLeader(pb::MoveLeaderRequest),
    Downgrade(pb::DowngradeRequest),
    MemberAdd(pb::MemberAddRequest),
    MemberRemove(pb::MemberRemoveRequest),
    MemberUpdate(pb::MemberUpdateRequest),
    MemberPromote(pb::MemberPromoteRequest),
    MemberList(pb::MemberListRequest),
    /// The database's image, as a stream.
    Snapshot(pb::SnapshotRequest),
    /// A name and a password. The member never sees it: passwords are checked elsewhere, and then it is asked to
    /// [`Request::AssignToken`].
    Authenticate(pb::AuthenticateRequest),
    AssignToken(pb::InternalAuthenticateRequest),
    AuthEnable(pb::AuthEnableRequest),
    AuthDisable(pb::AuthDisableRequest),
    AuthStatus(pb::AuthStatusRequest),
    UserAdd(pb::AuthUserAddRequest),
    UserGet(pb::AuthUserGetRequest),
    UserList(pb::AuthUserListRequest),
    UserDelete(pb::AuthUserDeleteRequest),
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    RoleAdd(pb::AuthRoleAddRequest),
    RoleGet(pb::AuthRoleGetRequest),
    RoleList(pb::AuthRoleListRequest),
    RoleDelete(pb::AuthRoleDeleteRequest),
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
}

/// The answer to a [`Request`] of the same name, header filled.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Range(pb::RangeResponse),
    /// A `Range` too large to be encoded where others wait: see [`Response::encode_if_large`].
    LargeRange(Encoded),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    LeaseLeases(pb::LeaseLeasesResponse),
    Alarm(pb::AlarmResponse),
    Status(pb::StatusResponse),
    Defragment(pb::DefragmentResponse),
    Hash(pb::HashResponse),
    HashKv(pb::HashKvResponse),
    MoveLeader(pb::MoveLeaderResponse),
    Downgrade(pb::DowngradeResponse),
    MemberAdd(pb::MemberAddResponse),
    MemberRemove(pb::MemberRemoveResponse),
    MemberUpdate(pb::MemberUpdateResponse),
    MemberPromote(pb::MemberPromoteResponse),
    MemberList(pb::MemberListResponse),
    Authenticate(pb::AuthenticateResponse),
    /// The token is a simple one; another has to rest on `auth_revision`.
    TokenAssigned {
        response: pb::AuthenticateResponse,
        auth_revision: u64,
    },
    AuthEnable(pb::AuthEnableResponse),
    AuthDisable(pb::AuthDisableResponse),
    AuthStatus(pb::AuthStatusResponse),
    UserAdd(pb::AuthUserAddResponse),
    UserGet(pb::AuthUserGetResponse),
    UserList(pb::AuthUserListResponse),
    UserDelete(pb::AuthUserDeleteResponse),
    UserChangePassword(pb::AuthUserChangePasswordResponse),
    UserGrantRole(pb::AuthUserGrantRoleResponse),
    UserRevokeRole(pb::AuthUserRevokeRoleResponse),
    RoleAdd(pb::AuthRoleAddResponse),
    RoleGet(pb::AuthRoleGetResponse),
    RoleList(pb::AuthRoleListResponse),
    RoleDelete(pb::AuthRoleDeleteResponse),
    RoleGrantPermission(pb::AuthRoleGrantPermissionResponse),
    RoleRevokePermission(pb::AuthRoleRevokePermissionResponse),
}

/// Bytes of a response beyond which it is encoded before it gets to a network thread; and of the pieces that are sent one
/// by one, so that other answers get their turn in between.
const PIECE: usize = 64 << 10;

/// The number of `RangeResponse.kvs`, and bytes that a pair's number and length take at most.
const KVS: u32 = 2;
const FIELD: usize = 8;

/// A message as it is sent, in pieces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded(Vec<Bytes>);

impl Encoded {
    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Never: what is empty is not large.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_pieces(self) -> Vec<Bytes> {
        self.0
    }

    /// All pieces as one.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl Response {
    /// Encodes a large range, at the pace of others: a list of everything takes tens of milliseconds.
    pub fn encode_if_large(self, pace: Pace<'_>) -> Response {
        match self {
            Response::Range(range) if is_large(&range) => Response::LargeRange(encode(range, pace)),
            other => other,
        }
    }
}

fn is_large(range: &pb::RangeResponse) -> bool {
    let mut bytes = 0;
    range.kvs.iter().any(|kv| {
        bytes += kv.encoded_len();
        bytes > PIECE
    })
}

/// What prost makes of the whole, pair by pair: each is dropped when it is encoded, and with it the pages it held.
fn encode(range: pb::RangeResponse, pace: Pace<'_>) -> Encoded {
    let pb::RangeResponse { header, kvs, more, count } = range;
    let mut pieces = Vec::new();
    let head = pb::RangeResponse { header, ..pb::RangeResponse::default() };
    let mut piece = Vec::with_capacity(PIECE);
    head.encode_raw(&mut piece);
    for kv in kvs {
        if piece.len() + FIELD + kv.encoded_len() > PIECE && !piece.is_empty() {
            pace(piece.len());
            pieces.push(std::mem::replace(&mut piece, Vec::with_capacity(PIECE)).into());
        }
        prost::encoding::message::encode(KVS, &kv, &mut piece);
    }
    let tail = pb::RangeResponse { more, count, ..pb::RangeResponse::default() };
    tail.encode_raw(&mut piece);
    pieces.push(piece.into());
    Encoded(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::mvccpb::KeyValue;

    fn range(pairs: usize, value: usize) -> pb::RangeResponse {
        let header = Some(pb::ResponseHeader { cluster_id: 7, revision: 9, ..Default::default() });
        let pair = |n: usize| KeyValue {
            key: format!("key{n}").into(),
            value: vec![n as u8; value].into(),
            version: n as i64,
            ..Default::default()
        };
        pb::RangeResponse { header, kvs: (0..pairs).map(pair).collect(), more: true, count: pairs as i64 }
    }

    #[test]
    fn a_large_range_is_encoded_in_pieces_as_prost_would_encode_the_whole() {
        for (pairs, value) in [(3000, 100), (3, PIECE), (1, 3 * PIECE), (200_000, 0)] {
            let whole = range(pairs, value).encode_to_vec();
            let Response::LargeRange(encoded) = Response::Range(range(pairs, value)).encode_if_large(&|_| ()) else {
                unreachable!("{pairs} pairs of {value} bytes are large")
            };
            assert!(encoded.to_vec() == whole, "{pairs} pairs of {value} bytes");
            assert_eq!(encoded.len(), whole.len());
            let limit = PIECE.max(value + 100);
            assert!(encoded.into_pieces().iter().all(|piece| piece.len() <= limit));
        }
    }

    #[test]
    fn a_small_range_stays_as_it_is() {
        let small = Response::Range(range(10, 100));
        assert_eq!(small.clone().encode_if_large(&|_| ()), small);
    }
}
