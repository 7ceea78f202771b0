//! The Auth service while this release has no authentication: what a server with it switched off answers where that
//! needs no user store, and a clear refusal elsewhere.

use crate::backend::{Caller, Member};
use crate::pb::etcdserverpb::auth_server::Auth;
use crate::services::{Answering, Services, status};
use api::pb::etcdserverpb as pb;
use server::{Request as Call, Response as Answered};
use tonic::{Request, Response, Status};

macro_rules! refused {
    ($($method:ident, $request:ident, $response:ident;)+) => {$(
        fn $method<'s, 'a>(&'s self, _: Request<pb::$request>) -> Answering<'a, pb::$response>
        where
            's: 'a,
            Self: 'a,
        {
            let text = "oxetcd: this release has no users, roles and permissions yet";
            Box::pin(std::future::ready(Err(Status::unimplemented(text))))
        }
    )+};
}

#[tonic::async_trait]
impl<M: Member> Auth for Services<M> {
    async fn auth_status(&self, _: Request<pb::AuthStatusRequest>) -> Result<Response<pb::AuthStatusResponse>, Status> {
        // A serializable member list is the cheapest way to a header.
        let list = Call::MemberList(pb::MemberListRequest { linearizable: false });
        let header = match self.ask(Caller::default(), list).await {
            Ok(Answered::MemberList(r)) => r.header,
            Ok(_) => None,
            Err(e) => return Err(status(&e)),
        };
        Ok(Response::new(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }

    async fn authenticate(
        &self,
        _: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        Err(status(&api::Error::AuthNotEnabled))
    }

    refused! {
        auth_enable, AuthEnableRequest, AuthEnableResponse;
        auth_disable, AuthDisableRequest, AuthDisableResponse;
        user_add, AuthUserAddRequest, AuthUserAddResponse;
        user_get, AuthUserGetRequest, AuthUserGetResponse;
        user_list, AuthUserListRequest, AuthUserListResponse;
        user_delete, AuthUserDeleteRequest, AuthUserDeleteResponse;
        user_change_password, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse;
        user_grant_role, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse;
        user_revoke_role, AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse;
        role_add, AuthRoleAddRequest, AuthRoleAddResponse;
        role_get, AuthRoleGetRequest, AuthRoleGetResponse;
        role_list, AuthRoleListRequest, AuthRoleListResponse;
        role_delete, AuthRoleDeleteRequest, AuthRoleDeleteResponse;
        role_grant_permission, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse;
        role_revoke_permission, AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse;
    }
}
