//! Spans of calls (`--enable-distributed-tracing`) as an OpenTelemetry collector gets them, beside Go etcd 3.7's.

use api::pb::etcdserverpb as pb;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use oxetcd_tests::ask;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use prost::Message as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;

const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "planted-secret";
const USER_ADD: &str = "/etcdserverpb.Auth/UserAdd";
/// A trace of somebody else's, who has it collected, and who has not.
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
/// How long spans may wait for others, ms: not at all, or until the member stops.
const AT_ONCE: &str = "20";
const NEVER: &str = "100000000";

/// Takes what is exported.
struct Collector {
    address: String,
    exports: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    /// What came so far.
    spans: Vec<Seen>,
    bytes: Vec<u8>,
}

struct Service(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).map_err(|_| tonic::Status::unavailable("the test is over"))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A span of a call, as far as two servers' are alike: Go's have events of what happens within.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    name: String,
    kind: i32,
    resource: BTreeMap<String, String>,
    attributes: BTreeMap<String, String>,
    /// Whose part it is: in hexadecimal digits.
    trace: Option<String>,
    parent: String,
    /// OpenTelemetry's: 0 is unset, 2 an error.
    status: i32,
}

fn attributes(of: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(n)) => n.to_string(),
        other => format!("{other:?}"),
    };
    of.iter().map(|kv| (kv.key.clone(), text(&kv.value.as_ref().and_then(|v| v.value.clone())))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seen(span: &Span, resource: &BTreeMap<String, String>) -> Seen {
    let mut attributes = attributes(&span.attributes);
    assert!(span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
    // The port is another each time.
    let port = attributes.remove("server.port").expect("the server's port");
    assert!(port.parse::<u16>().is_ok(), "{port}");
    let parent = hex(&span.parent_span_id);
    Seen {
        name: span.name.clone(),
        kind: span.kind,
        resource: resource.clone(),
        attributes,
        // Of its own it is by chance.
        trace: (!parent.is_empty()).then(|| hex(&span.trace_id)),
        parent,
        status: span.status.as_ref().map_or(0, |status| status.code),
    }
}

impl Collector {
    async fn start() -> Collector {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (out, exports) = mpsc::unbounded_channel();
        let service = TraceServiceServer::new(Service(out));
        let server = tonic::transport::Server::builder();
        tokio::spawn(async move { server.serve_with_incoming(service, TcpIncoming::from(listener)).await });
        Collector { address, exports, spans: Vec::new(), bytes: Vec::new() }
    }

    /// A member whose spans come here.
    fn launch(&self, binary: &Path, data: &Path, delay: &str, flags: &[&str]) -> Launch {
        let address = format!("--distributed-tracing-address={}", self.address);
        let own = ["--enable-distributed-tracing", address.as_str(), "--bcrypt-cost=4"];
        let mut launch = Launch::new(binary, data).with_flags(&own).with_flags(flags);
        // As both SDKs understand it.
        launch.env.insert("OTEL_BSP_SCHEDULE_DELAY".to_owned(), delay.to_owned());
        launch
    }

    /// Waits until there are so many spans of calls. Spans of what happens within a call are Go's alone.
    async fn calls(&mut self, count: usize) -> &[Seen] {
        while self.spans.len() < count {
            let next = tokio::time::timeout(PATIENCE, self.exports.recv()).await;
            let export = next.unwrap_or_else(|_| panic!("only {:#?}", self.spans)).expect("the collector goes on");
            self.bytes.extend(export.encode_to_vec());
            for of in &export.resource_spans {
                let resource = attributes(&of.resource.as_ref().expect("a resource").attributes);
                let spans = of.scope_spans.iter().flat_map(|scope| &scope.spans);
                self.spans.extend(spans.filter(|span| span.kind == 2).map(|span| seen(span, &resource)));
            }
        }
        &self.spans
    }
}

/// Our program, and Go's where it is.
fn programs() -> Vec<PathBuf> {
    let gos = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    [our_etcd()].into_iter().chain(gos).collect()
}

async fn put(server: &Server, parent: Option<&str>) {
    let wire = Wire::connect(&server.client_url()).await;
    let metadata: Vec<_> = parent.map(|parent| ("traceparent", parent)).into_iter().collect();
    let message = ask::put("planted-key", SECRET).encode_to_vec();
    wire.bytes(ask::PUT, message.into(), &metadata).await.expect("it is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_told_to_a_collector_as_by_go_but_for_keys() {
    let folder = TempDir::new("spans-calls");
    let mut all = Vec::new();
    for (n, etcd) in programs().iter().enumerate() {
        let mut collector = Collector::start().await;
        let flags = [
            "--distributed-tracing-sampling-rate=1000000",
            "--distributed-tracing-service-name=etcd-test",
            "--distributed-tracing-instance-id=m1",
        ];
        let server = collector.launch(etcd, &folder.join(&format!("data{n}")), AT_ONCE, &flags).start();
        put(&server, Some(SAMPLED)).await;
        let wire = Wire::connect(&server.client_url()).await;
        let compact = pb::CompactionRequest { revision: 100, ..Default::default() };
        let compacted: Result<pb::CompactionResponse, _> = wire.unary(ask::COMPACT, &compact).await;
        compacted.expect_err("that is in the future");
        wire.bytes("/etcdserverpb.KV/Nothing", bytes::Bytes::new(), &[]).await.expect_err("there is no such method");
        let user = pb::AuthUserAddRequest { name: "u".into(), password: SECRET.into(), ..Default::default() };
        let added: Result<pb::AuthUserAddResponse, _> = wire.unary(USER_ADD, &user).await;
        added.expect("it is added");
        // Nobody's: its parent has it so.
        put(&server, Some(NOT_SAMPLED)).await;
        let (_, ended) = wire.collect::<_, pb::SnapshotResponse>(ask::SNAPSHOT, &pb::SnapshotRequest {}).await;
        ended.expect("it ends well");
        let known = |spans: &[Seen]| spans.iter().filter(|s| !s.name.contains("Nothing")).cloned().collect::<Vec<_>>();
        let mut count = 4;
        let spans = loop {
            let spans = known(collector.calls(count).await);
            if spans.len() >= 4 {
                break spans;
            }
            count += 1;
        };
        if n == 0 {
            let told = String::from_utf8_lossy(&collector.bytes);
            assert!(told.contains("etcdserverpb.Auth/UserAdd"));
            assert!(!told.contains("planted"), "{told}");
        }
        all.push(spans);
    }
    let ours = &all[0];
    let names: Vec<&str> = ours.iter().map(|span| span.name.as_str()).collect();
    let expected = [
        "etcdserverpb.KV/Put",
        "etcdserverpb.KV/Compact",
        "etcdserverpb.Auth/UserAdd",
        "etcdserverpb.Maintenance/Snapshot",
    ];
    assert_eq!(names, expected);
    assert_eq!(ours[0].trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(ours[0].parent, "b7ad6b7169203331");
    assert_eq!(ours[0].resource["service.name"], "etcd-test");
    assert_eq!(ours[0].resource["service.instance.id"], "m1");
    assert_eq!(ours[1].attributes["rpc.response.status_code"], "OUT_OF_RANGE");
    for gos in &all {
        assert_eq!(gos, ours);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_of_zero_collects_what_others_ask_for_and_a_stop_sends_the_rest() {
    let folder = TempDir::new("spans-rate");
    for (n, etcd) in programs().iter().enumerate() {
        let mut collector = Collector::start().await;
        let server = collector.launch(etcd, &folder.join(&format!("data{n}")), NEVER, &[]).start();
        put(&server, None).await;
        put(&server, Some(SAMPLED)).await;
        server.stop();
        let spans = collector.calls(1).await;
        assert_eq!(spans.len(), 1, "{spans:?}");
        assert_eq!(spans[0].trace.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(spans[0].resource["service.name"], "etcd");
        assert!(!spans[0].resource.contains_key("service.instance.id"), "{spans:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_keeps_nobody_waiting() {
    let folder = TempDir::new("spans-away");
    let flags = ["--enable-distributed-tracing", "--distributed-tracing-address=127.0.0.1:1"];
    let mut launch = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&flags);
    launch.env.insert("OTEL_BSP_SCHEDULE_DELAY".to_owned(), AT_ONCE.to_owned());
    let server = launch.start();
    put(&server, Some(SAMPLED)).await;
    assert!(server.wait_for_log("the collector takes no spans", PATIENCE), "{}", server.log());
    put(&server, Some(SAMPLED)).await;
    server.stop();
}
