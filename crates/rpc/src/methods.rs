//! Every service and its methods: how each request is read and answered. What is not here is unknown.

use crate::answers::{Body, Terms, frame};
use crate::auth;
use crate::backend::{Caller, Member};
use crate::messages::Messages;
use crate::services::{Services, unexpected};
use api::pb::{etcdserverpb as pb, grpc_health_v1 as health, v3electionpb as elect, v3lockpb as lock};
use bytes::Bytes;
use prost::{DecodeError, Message as _};
use server::{Request, Response};
use std::pin::Pin;
use tonic::Status;

/// A service's answer in the making: a message with its prefix.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

pub(crate) struct Service<M: Member> {
    pub name: &'static str,
    pub methods: &'static [Method<M>],
}

pub(crate) struct Method<M: Member> {
    pub name: &'static str,
    /// Lasts as long as the client likes: ends when the member stops.
    pub endless: bool,
    pub kind: Kind<M>,
}

pub(crate) enum Kind<M: Member> {
    /// One request, answered by the member itself.
    Asked(Asked),
    /// One request, answered by a service of this crate.
    Served(fn(&Services<M>, Caller, Bytes, bool) -> Result<Work, DecodeError>),
    /// One request, a stream of answers.
    Many(fn(&Services<M>, Caller, Bytes, Terms) -> Result<Body, DecodeError>),
    /// Streams both ways.
    Both(fn(&Services<M>, Caller, Messages, Terms) -> Body),
}

/// A request's bytes in, the answer's out; the flag asks for gzip.
pub(crate) struct Asked {
    pub decode: fn(Bytes) -> Result<Request, DecodeError>,
    pub encode: fn(Response, bool) -> Result<Body, Status>,
}

impl<M: Member> Kind<M> {
    pub fn is_stream(&self) -> bool {
        matches!(self, Kind::Many(_) | Kind::Both(_))
    }
}

impl<M: Member> Method<M> {
    const fn new(name: &'static str, kind: Kind<M>) -> Method<M> {
        Method { name, endless: false, kind }
    }

    const fn endless(name: &'static str, kind: Kind<M>) -> Method<M> {
        Method { name, endless: true, kind }
    }
}

/// The member has request and answer under one name.
macro_rules! asked {
    ($name:ident, $request:ident) => {
        Method::new(
            stringify!($name),
            Kind::Asked(Asked {
                decode: |bytes| pb::$request::decode(bytes).map(Request::$name),
                encode: |response, gzip| match response {
                    Response::$name(response) => Body::of(&response, gzip),
                    other => Err(unexpected(&other)),
                },
            }),
        )
    };
}

macro_rules! served {
    ($request:ty, $method:ident) => {
        Kind::Served(|services, caller, bytes, gzip| {
            // From a slice, so that its fields are copied: whoever waits for a lock must not keep a whole frame.
            let request = <$request>::decode(&bytes[..])?;
            let services = services.clone();
            Ok(Box::pin(async move { frame(&services.$method(&caller, request).await?, gzip) }))
        })
    };
}

/// What a later release brings.
macro_rules! later {
    ($name:ident, $request:ident) => {
        Method::new(
            stringify!($name),
            Kind::Served(|_, _, bytes, _| {
                pb::$request::decode(bytes)?;
                Ok(Box::pin(std::future::ready(Err(auth::later()))))
            }),
        )
    };
}

macro_rules! many {
    ($request:ty, $method:ident) => {
        Kind::Many(|services, caller, bytes, terms| {
            <$request>::decode(bytes).map(|request| services.$method(caller, request, terms))
        })
    };
}

impl<M: Member> Service<M> {
    /// All there are.
    pub const ALL: &'static [Service<M>] = &[
        Service { name: "etcdserverpb.KV", methods: Service::<M>::KV },
        Service {
            name: "etcdserverpb.Watch",
            methods: &[Method::endless(
                "Watch",
                Kind::Both(|s, caller, requests, terms| s.watch(caller, requests, terms)),
            )],
        },
        Service { name: "etcdserverpb.Lease", methods: Service::<M>::LEASE },
        Service { name: "etcdserverpb.Cluster", methods: Service::<M>::CLUSTER },
        Service { name: "etcdserverpb.Maintenance", methods: Service::<M>::MAINTENANCE },
        Service { name: "etcdserverpb.Auth", methods: Service::<M>::AUTH },
        Service { name: "v3lockpb.Lock", methods: Service::<M>::LOCK },
        Service { name: "v3electionpb.Election", methods: Service::<M>::ELECTION },
        Service { name: "grpc.health.v1.Health", methods: Service::<M>::HEALTH },
    ];

    const KV: &'static [Method<M>] = &[
        Method::new(
            "Range",
            Kind::Asked(Asked {
                decode: |bytes| pb::RangeRequest::decode(bytes).map(Request::Range),
                encode: |response, gzip| match response {
                    Response::Range(response) => Body::of(&response, gzip),
                    Response::LargeRange(encoded) => Body::of_encoded(encoded, gzip),
                    other => Err(unexpected(&other)),
                },
            }),
        ),
        asked!(Put, PutRequest),
        asked!(Txn, TxnRequest),
        asked!(DeleteRange, DeleteRangeRequest),
        asked!(Compact, CompactionRequest),
        Method::new("RangeStream", many!(pb::RangeRequest, range_stream)),
    ];

    const LEASE: &'static [Method<M>] = &[
        asked!(LeaseGrant, LeaseGrantRequest),
        asked!(LeaseRevoke, LeaseRevokeRequest),
        asked!(LeaseTimeToLive, LeaseTimeToLiveRequest),
        asked!(LeaseLeases, LeaseLeasesRequest),
        Method::endless(
            "LeaseKeepAlive",
            Kind::Both(|s, caller, requests, terms| s.keep_alive(caller, requests, terms)),
        ),
    ];

    const CLUSTER: &'static [Method<M>] = &[
        asked!(MemberAdd, MemberAddRequest),
        asked!(MemberRemove, MemberRemoveRequest),
        asked!(MemberUpdate, MemberUpdateRequest),
        asked!(MemberList, MemberListRequest),
        asked!(MemberPromote, MemberPromoteRequest),
    ];

    const MAINTENANCE: &'static [Method<M>] = &[
        asked!(Alarm, AlarmRequest),
        asked!(Status, StatusRequest),
        asked!(Defragment, DefragmentRequest),
        asked!(Hash, HashRequest),
        Method::new(
            "HashKV",
            Kind::Asked(Asked {
                decode: |bytes| pb::HashKvRequest::decode(bytes).map(Request::HashKv),
                encode: |response, gzip| match response {
                    Response::HashKv(response) => Body::of(&response, gzip),
                    other => Err(unexpected(&other)),
                },
            }),
        ),
        asked!(MoveLeader, MoveLeaderRequest),
        asked!(Downgrade, DowngradeRequest),
        Method::new("Snapshot", many!(pb::SnapshotRequest, snapshot)),
    ];

    const AUTH: &'static [Method<M>] = &[
        Method::new("AuthStatus", served!(pb::AuthStatusRequest, auth_status)),
        Method::new("Authenticate", served!(pb::AuthenticateRequest, authenticate)),
        later!(AuthEnable, AuthEnableRequest),
        later!(AuthDisable, AuthDisableRequest),
        later!(UserAdd, AuthUserAddRequest),
        later!(UserGet, AuthUserGetRequest),
        later!(UserList, AuthUserListRequest),
        later!(UserDelete, AuthUserDeleteRequest),
        later!(UserChangePassword, AuthUserChangePasswordRequest),
        later!(UserGrantRole, AuthUserGrantRoleRequest),
        later!(UserRevokeRole, AuthUserRevokeRoleRequest),
        later!(RoleAdd, AuthRoleAddRequest),
        later!(RoleGet, AuthRoleGetRequest),
        later!(RoleList, AuthRoleListRequest),
        later!(RoleDelete, AuthRoleDeleteRequest),
        later!(RoleGrantPermission, AuthRoleGrantPermissionRequest),
        later!(RoleRevokePermission, AuthRoleRevokePermissionRequest),
    ];

    const LOCK: &'static [Method<M>] = &[
        Method::endless("Lock", served!(lock::LockRequest, lock)),
        Method::new("Unlock", served!(lock::UnlockRequest, unlock)),
    ];

    const ELECTION: &'static [Method<M>] = &[
        Method::endless("Campaign", served!(elect::CampaignRequest, campaign)),
        Method::new("Proclaim", served!(elect::ProclaimRequest, proclaim)),
        Method::new("Leader", served!(elect::LeaderRequest, leader)),
        Method::endless("Observe", many!(elect::LeaderRequest, observe)),
        Method::new("Resign", served!(elect::ResignRequest, resign)),
    ];

    const HEALTH: &'static [Method<M>] = &[
        Method::new("Check", served!(health::HealthCheckRequest, check)),
        Method::new("List", served!(health::HealthListRequest, list)),
        Method::endless("Watch", many!(health::HealthCheckRequest, watch_health)),
    ];
}
