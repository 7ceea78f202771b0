//! gRPC health: only service "" is registered (reference/wire.md section 0).

use crate::answers::{Body, Streamed, Terms};
use crate::backend::{Caller, Member};
use crate::services::Services;
use api::pb::grpc_health_v1 as pb;
use pb::health_check_response::ServingStatus;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

fn answer(serving: bool) -> pb::HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    pb::HealthCheckResponse { status: status as i32 }
}

impl<M: Member> Services<M> {
    pub async fn check(&self, _: &Caller, request: pb::HealthCheckRequest) -> Result<pb::HealthCheckResponse, Status> {
        match request.service.as_str() {
            "" => Ok(answer(*self.0.serving().borrow())),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    pub async fn list(&self, _: &Caller, _: pb::HealthListRequest) -> Result<pb::HealthListResponse, Status> {
        let statuses = [(String::new(), answer(*self.0.serving().borrow()))].into();
        Ok(pb::HealthListResponse { statuses })
    }

    pub fn watch_health(&self, _: Caller, request: pb::HealthCheckRequest, terms: Terms) -> Body {
        if request.service.is_empty() {
            let states = WatchStream::new(self.0.serving());
            return Streamed::body(states.map(|serving| Ok(answer(serving))), terms);
        }
        let unknown = pb::HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
        Streamed::body(tokio_stream::once(Ok(unknown)).chain(tokio_stream::pending()), terms)
    }
}
