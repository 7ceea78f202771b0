//! Who answers a request: what the proxy has to look into is read and answered here, all else goes to the cluster and back
//! as it is, message by message: RangeStream, snapshots, users and roles, locks and elections, health, and whatever a later
//! etcd may have.

use super::call::{Asked, streaming, unary};
use super::cluster::View;
use super::kv::Kv;
use super::lease::{self, Renewals};
use super::metrics::counted;
use super::watch::{self, Watches};
use super::web::Web;
use api::pb::etcdserverpb as pb;
use client::Client;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use rpc::Answering;
use rpc::metrics::Passing;
use std::sync::Arc;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::body::Body;

/// All that a proxy serves.
#[derive(Debug)]
pub struct Services {
    pub client: Client,
    pub kv: Arc<Kv>,
    pub watches: Arc<Watches>,
    pub renewals: Arc<Renewals>,
    pub view: Arc<View>,
    pub web: Web,
    /// `--experimental-enable-grpc-logging`.
    pub logs_calls: bool,
}

/// The clients' door.
#[derive(Clone, Debug)]
pub struct Door(pub Arc<Services>);

impl rpc::Relay for Door {
    type Body = Body;

    fn answer(&self, request: Request<Incoming>, _: bool) -> Answering<Body> {
        let services = self.0.clone();
        Box::pin(async move {
            let is_grpc =
                request.headers().get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
            if request.version() != Version::HTTP_2 || !is_grpc {
                return services.page(request).await;
            }
            let path = request.uri().path().to_owned();
            if services.logs_calls {
                tracing::info!(method = path, "processing a gRPC call");
            }
            // From its beginning: one that its client gives up counts as canceled.
            let passing = Passing::begin(&path);
            counted(passing, services.call(&path, request).await)
        })
    }
}

/// `--metrics-addr`: HTTP alone.
#[derive(Clone, Debug)]
pub struct MetricsDoor(pub Arc<Services>);

impl rpc::Relay for MetricsDoor {
    type Body = Body;

    fn answer(&self, request: Request<Incoming>, _: bool) -> Answering<Body> {
        let services = self.0.clone();
        Box::pin(async move { services.page(request).await })
    }
}

impl Services {
    async fn page(&self, request: Request<Incoming>) -> Response<Body> {
        // Levels are looked up when somebody asks.
        let shared = self.watches.coalesced();
        rpc::metrics::PROXY_WATCHERS.set(i64::try_from(shared).unwrap_or(i64::MAX));
        self.web.answer(request).await
    }

    async fn call(self: Arc<Self>, path: &str, request: Request<Incoming>) -> Response<Body> {
        let asked = match Asked::of(request.headers()) {
            Ok(asked) => asked,
            Err(status) => return status.into_http(),
        };
        let (kv, view) = (self.kv.clone(), self.view.clone());
        match path {
            "/etcdserverpb.KV/Range" => unary(request, move |q| async move { kv.range(asked, q).await }).await,
            "/etcdserverpb.KV/Put" => unary(request, move |q| async move { kv.put(asked, q).await }).await,
            "/etcdserverpb.KV/DeleteRange" => {
                unary(request, move |q| async move { kv.delete_range(asked, q).await }).await
            }
            "/etcdserverpb.KV/Txn" => unary(request, move |q| async move { kv.txn(asked, q).await }).await,
            "/etcdserverpb.KV/Compact" => unary(request, move |q| async move { kv.compact(asked, q).await }).await,
            "/etcdserverpb.Watch/Watch" => self.watch(asked, request).await,
            "/etcdserverpb.Lease/LeaseKeepAlive" => self.keep_alive(asked, request).await,
            "/etcdserverpb.Cluster/MemberList" if !view.address.is_empty() => {
                let list = move |_: pb::MemberListRequest| async move {
                    let members = view.members().unwrap_or_default();
                    Ok(pb::MemberListResponse { members, ..Default::default() })
                };
                unary(request, list).await
            }
            "/etcdserverpb.KV/RangeStream" if kv.namespace.is_some() => self.range_stream(asked, request).await,
            "/etcdserverpb.Lease/LeaseTimeToLive" if kv.namespace.is_some() => {
                unary(request, move |q| async move { self.time_to_live(asked, q).await }).await
            }
            _ => self.pass(asked, request).await,
        }
    }

    async fn watch(&self, asked: Asked, request: Request<Incoming>) -> Response<Body> {
        let watches = self.watches.clone();
        let terms = watch::Terms { token: asked.token, leader_required: asked.leader_required };
        streaming(request, move |requests| watch::serve(&watches, terms, requests)).await
    }

    async fn keep_alive(&self, asked: Asked, request: Request<Incoming>) -> Response<Body> {
        let renewals = self.renewals.clone();
        let terms = lease::Terms { token: asked.token, leader_required: asked.leader_required };
        streaming(request, move |requests| renewals.serve(&terms, requests)).await
    }

    /// A list in pieces, whose keys are those of the namespace.
    async fn range_stream(&self, asked: Asked, request: Request<Incoming>) -> Response<Body> {
        let (client, namespace) = (asked.speaker(&self.client), self.kv.namespace.clone());
        let pieces = move |mut requests: tonic::Streaming<pb::RangeRequest>| {
            let (out, pieces) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                let outcome = async {
                    let missing = || Status::internal("a list is asked for by one message");
                    let mut request = requests.next().await.unwrap_or_else(|| Err(missing()))?;
                    if let Some(namespace) = &namespace {
                        namespace.range(&mut request)?;
                    }
                    let mut stream = client.range_stream(request).await?;
                    while let Some(mut piece) = stream.next().await? {
                        if let (Some(namespace), Some(range)) = (&namespace, &mut piece.range_response) {
                            namespace.ranged(range);
                        }
                        if out.send(Ok(piece)).await.is_err() {
                            break;
                        }
                    }
                    Ok(())
                };
                tokio::select! {
                    outcome = outcome => if let Err(status) = outcome {
                        // Who has gone does not want to know.
                        drop(out.send(Err(status)).await);
                    },
                    () = out.closed() => {}
                }
            });
            tokio_stream::wrappers::ReceiverStream::new(pieces)
        };
        streaming::<_, pb::RangeStreamResponse, _, _>(request, pieces).await
    }

    async fn time_to_live(
        &self,
        asked: Asked,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Status> {
        let mut response = asked.speaker(&self.client).lease_time_to_live(request).await?;
        if let Some(namespace) = &self.kv.namespace {
            namespace.attached(&mut response);
        }
        Ok(response)
    }

    /// Passes a call on as it is.
    async fn pass(&self, asked: Asked, request: Request<Incoming>) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        // The connection to the member has its own.
        head.headers.remove(HOST);
        let request = Request::from_parts(head, Body::new(body));
        // The client's headers speak for themselves; its deadline bounds the wait for a connection.
        let client = match asked.limit {
            Some(limit) => self.client.with_timeout(limit),
            None => self.client.clone(),
        };
        match client.relay(request).await {
            Ok(response) => response,
            Err(status) => status.into_http(),
        }
    }
}
