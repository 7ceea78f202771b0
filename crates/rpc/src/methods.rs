//! Every service and its methods: how each request is read and answered. What is not here is unknown.

use crate::answers::{Body, Terms, frame};
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
    /// Learners have it, too.
    pub learner: bool,
    /// Where it is decided who may call it: nothing is open because nobody thought of it.
    pub access: Access,
    pub kind: Kind<M>,
}

/// Where it is decided who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// In the table of `server::access`, which has a row for every kind of request.
    Table,
    /// For each watch of the stream, by its keys.
    Watches,
    /// In the calls it is made of, with the caller's credentials.
    Calls,
    /// Nowhere: it tells nothing of anybody's.
    Open,
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
    const fn new(name: &'static str, access: Access, kind: Kind<M>) -> Method<M> {
        Method { name, endless: false, learner: false, access, kind }
    }

    const fn endless(name: &'static str, access: Access, kind: Kind<M>) -> Method<M> {
        Method { name, endless: true, learner: false, access, kind }
    }

    /// What learners have, too. Of ranges they have the serializable ones; the member tells them apart.
    const fn everywhere(self) -> Method<M> {
        let Method { name, endless, access, kind, .. } = self;
        Method { name, endless, learner: true, access, kind }
    }
}

/// The member has request and answer under one name.
macro_rules! asked {
    ($name:ident, $request:ident) => {
        Method::new(
            stringify!($name),
            Access::Table,
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
                Access::Watches,
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
            Access::Table,
            Kind::Asked(Asked {
                decode: |bytes| pb::RangeRequest::decode(bytes).map(Request::Range),
                encode: |response, gzip| match response {
                    Response::Range(response) => Body::of(&response, gzip),
                    Response::LargeRange(encoded) => Body::of_encoded(encoded, gzip),
                    other => Err(unexpected(&other)),
                },
            }),
        )
        .everywhere(),
        asked!(Put, PutRequest),
        asked!(Txn, TxnRequest),
        asked!(DeleteRange, DeleteRangeRequest),
        asked!(Compact, CompactionRequest),
        Method::new("RangeStream", Access::Table, many!(pb::RangeRequest, range_stream)),
    ];

    const LEASE: &'static [Method<M>] = &[
        asked!(LeaseGrant, LeaseGrantRequest),
        asked!(LeaseRevoke, LeaseRevokeRequest),
        asked!(LeaseTimeToLive, LeaseTimeToLiveRequest),
        asked!(LeaseLeases, LeaseLeasesRequest),
        Method::endless(
            "LeaseKeepAlive",
            Access::Table,
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
        asked!(Status, StatusRequest).everywhere(),
        asked!(Defragment, DefragmentRequest),
        asked!(Hash, HashRequest),
        Method::new(
            "HashKV",
            Access::Table,
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
        Method::new("Snapshot", Access::Table, many!(pb::SnapshotRequest, snapshot)).everywhere(),
    ];

    const AUTH: &'static [Method<M>] = &[
        asked!(AuthStatus, AuthStatusRequest),
        asked!(Authenticate, AuthenticateRequest),
        asked!(AuthEnable, AuthEnableRequest),
        asked!(AuthDisable, AuthDisableRequest),
        asked!(UserAdd, AuthUserAddRequest),
        asked!(UserGet, AuthUserGetRequest),
        asked!(UserList, AuthUserListRequest),
        asked!(UserDelete, AuthUserDeleteRequest),
        asked!(UserChangePassword, AuthUserChangePasswordRequest),
        asked!(UserGrantRole, AuthUserGrantRoleRequest),
        asked!(UserRevokeRole, AuthUserRevokeRoleRequest),
        asked!(RoleAdd, AuthRoleAddRequest),
        asked!(RoleGet, AuthRoleGetRequest),
        asked!(RoleList, AuthRoleListRequest),
        asked!(RoleDelete, AuthRoleDeleteRequest),
        asked!(RoleGrantPermission, AuthRoleGrantPermissionRequest),
        asked!(RoleRevokePermission, AuthRoleRevokePermissionRequest),
    ];

    const LOCK: &'static [Method<M>] = &[
        Method::endless("Lock", Access::Calls, served!(lock::LockRequest, lock)),
        Method::new("Unlock", Access::Calls, served!(lock::UnlockRequest, unlock)),
    ];

    const ELECTION: &'static [Method<M>] = &[
        Method::endless("Campaign", Access::Calls, served!(elect::CampaignRequest, campaign)),
        Method::new("Proclaim", Access::Calls, served!(elect::ProclaimRequest, proclaim)),
        Method::new("Leader", Access::Calls, served!(elect::LeaderRequest, leader)),
        Method::endless("Observe", Access::Calls, many!(elect::LeaderRequest, observe)),
        Method::new("Resign", Access::Calls, served!(elect::ResignRequest, resign)),
    ];

    const HEALTH: &'static [Method<M>] = &[
        Method::new("Check", Access::Open, served!(health::HealthCheckRequest, check)),
        Method::new("List", Access::Open, served!(health::HealthListRequest, list)),
        Method::endless("Watch", Access::Open, many!(health::HealthCheckRequest, watch_health)),
    ];
}
