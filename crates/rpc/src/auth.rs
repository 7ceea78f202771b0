//! The Auth service while this release has no authentication: what a server with it switched off answers where that
//! needs no user store, and a clear refusal elsewhere.

use crate::backend::{Caller, Member};
use crate::services::{Services, status};
use api::pb::etcdserverpb as pb;
use server::{Request, Response};
use tonic::Status;

/// The refusal.
pub(crate) fn later() -> Status {
    Status::unimplemented("oxetcd: this release has no users, roles and permissions yet")
}

impl<M: Member> Services<M> {
    pub async fn auth_status(&self, _: &Caller, _: pb::AuthStatusRequest) -> Result<pb::AuthStatusResponse, Status> {
        // A serializable member list is the cheapest way to a header.
        let list = Request::MemberList(pb::MemberListRequest { linearizable: false });
        let header = match self.ask(Caller::default(), list).await {
            Ok(Response::MemberList(r)) => r.header,
            Ok(_) => None,
            Err(e) => return Err(status(&e)),
        };
        Ok(pb::AuthStatusResponse { header, enabled: false, auth_revision: 1 })
    }

    pub async fn authenticate(
        &self,
        _: &Caller,
        _: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, Status> {
        Err(status(&api::Error::AuthNotEnabled))
    }
}
