//! gRPC health: only service "" is registered (reference/wire.md section 0).

use crate::backend::Member;
use crate::pb::health::health_server::Health;
use crate::services::{Out, Services};
use api::pb::grpc_health_v1 as pb;
use pb::health_check_response::ServingStatus;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

fn answer(serving: bool) -> pb::HealthCheckResponse {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    pb::HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl<M: Member> Health for Services<M> {
    type WatchStream = Out<pb::HealthCheckResponse>;

    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            "" => Ok(Response::new(answer(*self.0.serving().borrow()))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    async fn list(&self, _: Request<pb::HealthListRequest>) -> Result<Response<pb::HealthListResponse>, Status> {
        let statuses = [(String::new(), answer(*self.0.serving().borrow()))].into();
        Ok(Response::new(pb::HealthListResponse { statuses }))
    }

    async fn watch(&self, request: Request<pb::HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if request.get_ref().service.is_empty() {
            let states = WatchStream::new(self.0.serving());
            return Ok(Response::new(Box::pin(states.map(|serving| Ok(answer(serving))))));
        }
        let unknown = pb::HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(unknown)).chain(tokio_stream::pending()))))
    }
}
