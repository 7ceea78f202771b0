//! Clients that stop reading must not stop the others, nor must a defragmentation.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use prost::Message as _;
use tonic::Status;

/// An h2 client that asks and then reads nothing: its windows stay full.
async fn asks_and_sleeps(address: &str, path: &str, message: Vec<u8>) -> h2::client::ResponseFuture {
    let tcp = tokio::net::TcpStream::connect(address).await.expect("the server listens");
    let (client, connection) = h2::client::handshake(tcp).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("ready");
    let request = http::Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a valid request");
    let (response, mut body) = client.send_request(request, false).expect("sent");
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    frame.extend(message);
    body.send_data(frame.into(), true).expect("sent");
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_streams_leave_reads_and_writes_alone() {
    let folder = TempDir::new("stalled");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let value = "v".repeat(1_000_000);
    for n in 0..30 {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(&format!("big{n}"), &value)).await;
        done.expect("a put");
    }
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let address = server.client_address();
        let watch = pb::WatchCreateRequest { start_revision: 1, ..ask::watch(ask::FROM, ask::FROM) };
        stalled.push(asks_and_sleeps(&address, ask::SNAPSHOT, pb::SnapshotRequest {}.encode_to_vec()).await);
        stalled.push(asks_and_sleeps(&address, ask::RANGE_STREAM, ask::everything().encode_to_vec()).await);
        stalled.push(asks_and_sleeps(&address, ask::WATCH, ask::create(watch).encode_to_vec()).await);
    }
    // The heads of the answers have come, so all of them are under way.
    let mut bodies = Vec::new();
    for response in stalled {
        bodies.push(response.await.expect("an answer begins"));
    }
    for n in 0..50 {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("small", &n.to_string())).await;
        done.expect("writes go on");
        let read: Result<pb::RangeResponse, Status> = wire.unary(ask::RANGE, &ask::get("small")).await;
        assert_eq!(read.expect("reads go on").kvs[0].value, n.to_string());
    }
    let mut stream = wire.stream(ask::WATCH, ask::create(ask::watch("small", "")).encode_to_vec().into(), &[]);
    let created: Option<pb::WatchResponse> = stream.next().await.expect("watches go on");
    assert!(created.is_some_and(|c| c.created));
    drop(bodies);
}

/// Reads and writes are answered while the page store is rewritten. Balancers are told to send others elsewhere if the gate
/// says so, and only then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_defragmentation_stops_nobody() {
    for ill in [false, true] {
        defragments_beside_others(ill).await;
    }
}

async fn defragments_beside_others(ill: bool) {
    let folder = TempDir::new("defrag");
    let gate = format!("--feature-gates=StopGRPCServiceOnDefrag={ill}");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[&gate]).start();
    let wire = Wire::connect(&server.client_url()).await;
    let value = "v".repeat(1_000_000);
    for n in 0..60 {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(&format!("big{n}"), &value)).await;
        done.expect("a put");
    }
    let defragmenter = Wire::connect(&server.client_url()).await;
    let defragmentation = tokio::spawn(async move {
        let done: Result<pb::DefragmentResponse, Status> =
            defragmenter.unary(ask::DEFRAGMENT, &pb::DefragmentRequest {}).await;
        done.expect("it succeeds");
    });
    let (mut answered, mut ill_seen) = (0, 0);
    while !defragmentation.is_finished() {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put("small", "v")).await;
        done.expect("writes go on");
        let read: Result<pb::RangeResponse, Status> = wire.unary(ask::RANGE, &ask::get("small")).await;
        assert_eq!(read.expect("reads go on").count, 1);
        let health = wire.bytes("/grpc.health.v1.Health/Check", bytes::Bytes::new(), &[]).await.expect("health");
        match health.as_ref() {
            // HealthCheckResponse { status: SERVING }; or it was over already, or not begun.
            [8, 1] => {}
            // NOT_SERVING
            [8, 2] => ill_seen += 1,
            other => panic!("{other:?}"),
        }
        answered += usize::from(!defragmentation.is_finished());
    }
    defragmentation.await.expect("it succeeds");
    assert!(answered >= 10, "only {answered} rounds while it ran");
    assert_eq!(ill_seen > 0, ill, "{ill_seen} of {answered} rounds");
    let health = wire.bytes("/grpc.health.v1.Health/Check", bytes::Bytes::new(), &[]).await.expect("health");
    assert_eq!(health.as_ref(), [8, 1], "it is over");
}
