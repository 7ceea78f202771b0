//! Whole calls over HTTP/2, in memory. Codes and texts are what Go etcd v3.7.1 answered to the same bytes.

use super::*;
use crate::backend::{Pieces, Told, WatchStream};
use crate::dispatch::{Door, Visitor};
use crate::methods::Access;
use crate::plain::Offer;
use crate::serve::Limits;
use crate::services::Services;
use api::pb::etcdserverpb as pb;
use h2::client::{ResponseFuture, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use server::{Request, Response as Answered};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Counts the bytes of keys, prolongs leases by their number, number 0 after a second, and never answers a put.
pub(crate) struct Fake {
    leader: watch::Sender<bool>,
    renewed: Arc<AtomicUsize>,
}

impl Member for Fake {
    fn call(&self, _: Caller, request: Request) -> Answer {
        let (out, answer) = oneshot::channel();
        let result = match request {
            Request::Range(r) => {
                Ok(Answered::Range(pb::RangeResponse { count: r.key.len() as i64, ..Default::default() }))
            }
            Request::LeaseKeepAlive(r) => {
                self.renewed.fetch_add(1, Ordering::Relaxed);
                let response = pb::LeaseKeepAliveResponse { id: r.id, ttl: r.id, header: None };
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(u64::from(r.id == 0))).await;
                    drop(out.send(Ok(Answered::LeaseKeepAlive(response))));
                });
                return answer;
            }
            Request::Put(_) => {
                tokio::spawn(async move {
                    let mut out = out;
                    out.closed().await;
                });
                return answer;
            }
            _ => Err(api::Error::Stopped),
        };
        out.send(result).unwrap();
        answer
    }

    fn range_stream(&self, _: Caller, _: pb::RangeRequest) -> Pieces<pb::RangeStreamResponse> {
        let (out, pieces) = mpsc::channel(1);
        out.try_send(Ok(None)).unwrap();
        pieces
    }

    fn snapshot(&self, _: Caller) -> Pieces<pb::SnapshotResponse> {
        mpsc::channel(1).1
    }

    fn watch(&self, _: Caller) -> WatchStream {
        let (requests, mut incoming) = mpsc::channel::<pb::WatchRequest>(1);
        let (out, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            while incoming.recv().await.is_some() {
                drop(out.send(Told::Response(pb::WatchResponse { watch_id: 7, ..Default::default() })).await);
            }
            out.closed().await;
        });
        WatchStream { requests, responses, taken: Arc::default() }
    }

    fn leader_known(&self) -> watch::Receiver<bool> {
        self.leader.subscribe()
    }

    fn serving(&self) -> watch::Receiver<bool> {
        self.leader.subscribe()
    }

    fn is_auth_enabled(&self) -> bool {
        false
    }

    fn is_learner(&self) -> bool {
        false
    }

    fn versions(&self) -> (String, String) {
        Default::default()
    }

    fn alarms(&self) -> Vec<pb::AlarmMember> {
        Vec::new()
    }

    fn probe(&self, serializable: bool) -> Answer {
        let range = pb::RangeRequest { serializable, ..Default::default() };
        self.call(Caller::default(), Request::Range(range))
    }

    fn figures(&self) -> crate::metrics::Figures {
        Default::default()
    }

    fn identity(&self) -> (u64, u64) {
        (1, 2)
    }
}

struct Server {
    client: SendRequest<Bytes>,
    stop: watch::Sender<bool>,
    port: Arc<Port<Fake>>,
    /// What a stop waits for.
    calls: mpsc::Receiver<()>,
    open: Option<Open>,
}

/// What a client sees of a call.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    data: Vec<u8>,
    code: String,
    text: String,
    encoding: Option<String>,
}

impl Server {
    async fn start() -> Server {
        Server::with(&h2::client::Builder::new()).await
    }

    async fn with(client: &h2::client::Builder) -> Server {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (stop, stopped) = watch::channel(false);
        let (open, calls) = mpsc::channel(1);
        let limits = Limits {
            max_request_bytes: 1000,
            max_concurrent_streams: 100,
            keepalive_min_time: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
            keepalive_timeout: Duration::ZERO,
            slow_call: Duration::MAX,
            election_timeout: Duration::from_secs(1),
        };
        let services = Services(Arc::new(Fake { leader: watch::channel(true).0, renewed: Arc::default() }));
        let port = Arc::new(Port { services, limits, web: Arc::default(), stop: stopped, open: open.downgrade() });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let door = Door { port: port.clone(), offer: Offer::All, visitor: Visitor::default() };
        tokio::spawn(builder.serve_connection(TokioIo::new(ours), door));
        let (client, connection) = client.handshake(theirs).await.unwrap();
        tokio::spawn(connection);
        Server { client, stop, port, calls, open: Some(open) }
    }

    /// Sends a request and, unless `more` is to follow, its end.
    async fn send(
        &self,
        path: &str,
        fields: &[(&'static str, &'static str)],
        body: &[u8],
        more: bool,
    ) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut request = http::Request::post(format!("http://etcd{path}")).header("content-type", "application/grpc");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let mut client = self.client.clone().ready().await.unwrap();
        let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(body), !more).unwrap();
        (response, stream)
    }

    async fn ask(&self, path: &str, fields: &[(&'static str, &'static str)], body: &[u8]) -> Seen {
        seen(self.send(path, fields, body, false).await.0).await
    }

    /// Code and text alone.
    async fn told(&self, path: &str, body: &[u8]) -> (String, String) {
        let seen = self.ask(path, &[], body).await;
        (seen.code, seen.text)
    }
}

async fn seen(response: ResponseFuture) -> Seen {
    let (head, mut body) = response.await.unwrap().into_parts();
    let mut seen = Seen::default();
    let text = |map: &http::HeaderMap, name: &str| map.get(name).map(|v| v.to_str().unwrap().to_owned());
    assert_eq!(text(&head.headers, "content-type").unwrap(), "application/grpc");
    seen.encoding = text(&head.headers, "grpc-encoding");
    while let Some(data) = body.data().await {
        seen.data.extend_from_slice(&data.unwrap());
    }
    let last = body.trailers().await.unwrap().unwrap_or(head.headers);
    seen.code = text(&last, "grpc-status").unwrap();
    seen.text = text(&last, "grpc-message").unwrap_or_default().replace("%20", " ");
    seen
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    crate::answers::frame(message, false).unwrap().into()
}

fn key(length: usize) -> Vec<u8> {
    framed(&pb::RangeRequest { key: vec![b'k'; length].into(), ..Default::default() })
}

fn count(count: i64) -> Vec<u8> {
    framed(&pb::RangeResponse { count, ..Default::default() })
}

fn lease(id: i64) -> Vec<u8> {
    framed(&pb::LeaseKeepAliveRequest { id })
}

fn prolonged(id: i64) -> Vec<u8> {
    framed(&pb::LeaseKeepAliveResponse { id, ttl: id, header: None })
}

#[test]
fn the_future_of_a_call_is_small() {
    let size = size_of::<Call<Fake>>();
    assert!(size <= 384, "{size} bytes");
    assert!(size_of::<Body>() <= 40);
}

#[tokio::test]
async fn a_unary_call_is_answered_once_its_request_is_there() {
    let server = Server::start().await;
    let fine = |count_: i64| Seen { data: count(count_), code: "0".into(), ..Default::default() };
    assert_eq!(server.ask(RANGE, &[], &key(3)).await, fine(3));
    // What follows means nothing, as in grpc-go.
    let (response, mut stream) = server.send(RANGE, &[], &key(4), true).await;
    stream.send_data(Bytes::from_static(&[0xff; 9]), true).unwrap();
    assert_eq!(seen(response).await, fine(4));
    assert_eq!(server.ask(RANGE, &[], &[key(5), vec![0xff; 9]].concat()).await, fine(5));
    let (response, mut stream) = server.send(RANGE, &[], &key(6)[..7], true).await;
    stream.send_data(Bytes::copy_from_slice(&key(6)[7..]), true).unwrap();
    assert_eq!(seen(response).await, fine(6));
}

/// Clients send the end of a call's requests in a frame of its own. h2 ends a connection that has seen 1024 streams reset
/// before their end came.
#[tokio::test]
async fn many_calls_whose_end_comes_late_are_answered() {
    let server = Server::start().await;
    for _ in 0..12 {
        let mut calls = Vec::new();
        for _ in 0..100 {
            calls.push(server.send(RANGE, &[], &key(2), true).await);
        }
        for (_, stream) in &mut calls {
            stream.send_data(Bytes::new(), true).unwrap();
        }
        for (response, _) in calls {
            assert_eq!(seen(response).await.code, "0");
        }
    }
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_refused_in_grpc_gos_words() {
    let server = Server::start().await;
    let told = |code: &str, text: &str| (code.to_owned(), text.to_owned());
    let none = "cardinality violation: received no request message from non-client-streaming RPC";
    for (bytes, unary, stream) in [
        (&b""[..], told("2", "EOF"), told("13", none)),
        (b"\0", told("2", "EOF"), told("13", none)),
        (b"\0\0\0\0\x64\x01", told("2", "unexpected EOF"), told("13", "unexpected EOF")),
    ] {
        assert_eq!(server.told(RANGE, bytes).await, unary);
        assert_eq!(server.told(RANGE_STREAM, bytes).await, stream);
    }
    let huge = told("8", "grpc: received message larger than max (4294967295 vs. 525288)");
    let flag = told("13", "grpc: received unexpected payload format 7");
    let packed = told("13", "grpc: compressed flag set with identity or empty encoding");
    for path in [RANGE, RANGE_STREAM, KEEP_ALIVE, WATCH] {
        assert_eq!(server.told(path, b"\0\xff\xff\xff\xff").await, huge, "{path}");
        assert_eq!(server.told(path, b"\x07\0\0\0\0").await, flag, "{path}");
        assert_eq!(server.told(path, b"\x01\0\0\0\x01x").await, packed, "{path}");
        let (code, text) = server.told(path, b"\0\0\0\0\x02\xff\xff").await;
        let begin = if path == RANGE { "grpc: error unmarshalling request: " } else { "grpc: failed to unmarshal the" };
        assert!(code == "13" && text.starts_with(begin), "{path}: {text}");
    }
    assert_eq!(server.told(KEEP_ALIVE, b"\0\0\0\0\x64\x01").await, told("13", "unexpected EOF"));
    let many = "cardinality violation: received multiple request messages for non-client-streaming RPC";
    assert_eq!(server.told(RANGE_STREAM, &[key(1), key(1)].concat()).await, told("13", many));
    assert_eq!(server.told(RANGE_STREAM, &key(1)).await, told("0", ""));
}

#[tokio::test]
async fn a_compressed_request_has_a_compressed_answer() {
    let server = Server::start().await;
    let gzip = [("grpc-encoding", "gzip")];
    let request = crate::answers::frame(&pb::RangeRequest { key: vec![0; 900].into(), ..Default::default() }, true);
    for body in [&request.unwrap()[..], &key(900)] {
        let seen = server.ask(RANGE, &gzip, body).await;
        assert_eq!((seen.code.as_str(), seen.encoding.as_deref(), seen.data[0]), ("0", Some("gzip"), 1));
        let plain = crate::gzip::inflate(&seen.data[5..], 100).unwrap();
        assert_eq!(pb::RangeResponse::decode(plain).unwrap().count, 900);
    }
    let seen = server.ask(KEEP_ALIVE, &gzip, &lease(9)).await;
    assert_eq!((seen.code.as_str(), seen.encoding.as_deref(), seen.data[0]), ("0", Some("gzip"), 1));
    let seen = server.ask(RANGE, &[("grpc-encoding", "identity")], &key(1)).await;
    assert_eq!((seen.code.as_str(), seen.encoding.as_deref(), seen.data), ("0", None, count(1)));
}

#[tokio::test]
async fn keepalives_are_answered_in_order_and_before_what_is_wrong_after_them() {
    let server = Server::start().await;
    let seen = server.ask(KEEP_ALIVE, &[], &[lease(1), lease(2), lease(3)].concat()).await;
    assert_eq!((seen.data, seen.code.as_str()), ([prolonged(1), prolonged(2), prolonged(3)].concat(), "0"));
    let seen = server.ask(KEEP_ALIVE, &[], &[&lease(4)[..], b"\x09\0\0\0\0"].concat()).await;
    assert_eq!((seen.data, seen.code.as_str()), (prolonged(4), "13"));
    assert_eq!(server.ask(KEEP_ALIVE, &[], b"").await.code, "0");
    // More than may be on their way.
    let (ids, mut data) = (1..=3000, Vec::new());
    let seen = server.ask(KEEP_ALIVE, &[], &ids.clone().flat_map(lease).collect::<Vec<u8>>()).await;
    ids.for_each(|id| data.extend(prolonged(id)));
    assert!(seen.data == data && seen.code == "0");
}

/// As in grpc-go, but for the stream whose client may be waiting for a sign of life before it asks.
#[tokio::test(start_paused = true)]
async fn the_head_of_a_keepalive_stream_waits_for_an_answer_on_its_way() {
    let server = Server::start().await;
    let begin = tokio::time::Instant::now();
    let (silent, mut stream) = server.send(KEEP_ALIVE, &[], b"", true).await;
    let mut body = silent.await.unwrap().into_body();
    assert_eq!(begin.elapsed().as_secs(), 0);
    stream.send_data(lease(3).into(), false).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), prolonged(3));

    let (asking, _stream) = server.send(KEEP_ALIVE, &[], &lease(0), true).await;
    let mut body = asking.await.unwrap().into_body();
    assert_eq!(begin.elapsed().as_secs(), 1);
    assert_eq!(body.data().await.unwrap().unwrap(), prolonged(0));

    for body in [&b""[..], b"\x07\0\0\0\0"] {
        let (ended, _) = server.send(KEEP_ALIVE, &[], body, false).await;
        let response = ended.await.unwrap();
        assert!(response.body().is_end_stream() && response.headers().contains_key("grpc-status"));
    }
}

/// Their answers wait for the client; their leases do not.
#[tokio::test(start_paused = true)]
async fn keepalives_count_though_nobody_reads_their_answers() {
    let server = Server::with(h2::client::Builder::new().initial_window_size(50)).await;
    let (response, mut stream) = server.send(KEEP_ALIVE, &[], &lease(1), true).await;
    for id in 2..=500 {
        stream.send_data(lease(id).into(), false).unwrap();
        // Each comes when the window is full of the answers before it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.port.services.0.renewed.load(Ordering::Relaxed), 500);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_keepalives_on_their_way_have_their_answer() {
    let server = Server::start().await;
    let (response, _stream) = server.send(KEEP_ALIVE, &[], &lease(0), true).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    server.stop.send_replace(true);
    let seen = seen(response).await;
    assert_eq!((seen.data, seen.code.as_str()), (prolonged(0), "14"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_calls_of_every_kind_and_none_begins_after_it() {
    let server = Server::start().await;
    let begin = tokio::time::Instant::now();
    for path in ["/etcdserverpb.KV/Put", WATCH, KEEP_ALIVE] {
        let (response, _stream) = server.send(path, &[("grpc-timeout", "100m")], &[0; 5], true).await;
        assert_eq!(seen(response).await.code, "4", "{path}");
    }
    assert_eq!(begin.elapsed().as_millis(), 300);
    for path in [RANGE, WATCH, RANGE_STREAM] {
        assert_eq!(server.ask(path, &[("grpc-timeout", "0n")], &key(1)).await.code, "4");
    }
    assert_eq!(begin.elapsed().as_millis(), 300);
}

#[tokio::test]
async fn a_stop_ends_endless_calls_and_waits_for_the_others() {
    let mut server = Server::start().await;
    let (watching, mut requests) = server.send(WATCH, &[], &[0; 5], true).await;
    let (put, _put) = server.send("/etcdserverpb.KV/Put", &[], &[0; 5], true).await;
    let (health, _health) = server.send("/grpc.health.v1.Health/Watch", &[], &[0; 5], false).await;
    let mut body = watching.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), framed(&pb::WatchResponse { watch_id: 7, ..Default::default() }));
    // Half-closing does not end it.
    requests.send_data(Bytes::new(), true).unwrap();
    server.open = None;
    server.stop.send_replace(true);
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14");
    assert_eq!(seen(health).await.code, "14");
    assert!(server.calls.try_recv().is_err_and(|e| e == mpsc::error::TryRecvError::Empty), "a put is open");
    drop((put, _put));
    assert_eq!(server.calls.recv().await, None);
    let late = server.ask(RANGE, &[], &key(1)).await;
    assert_eq!((late.code.as_str(), late.text.as_str()), ("14", "etcdserver: server stopped"));
}

#[tokio::test]
async fn calls_that_want_a_leader_are_refused_without_one() {
    let server = Server::start().await;
    server.port.services.0.leader.send_replace(false);
    for path in [RANGE, WATCH] {
        let seen = server.ask(path, &[("hasleader", "true")], &key(1)).await;
        assert_eq!((seen.code.as_str(), seen.text.as_str()), ("14", "etcdserver: no leader"));
    }
    assert_eq!(server.ask(RANGE, &[], &key(1)).await.code, "0");
}

#[tokio::test]
async fn unknown_names_are_refused_in_grpc_gos_words() {
    let server = Server::start().await;
    for (path, text) in [
        ("/etcdserverpb.KV/Get", "unknown method Get for service etcdserverpb.KV"),
        ("/etcdserverpb.Kv/Range", "unknown service etcdserverpb.Kv"),
        ("/x/etcdserverpb.KV/Range", "unknown service x/etcdserverpb.KV"),
    ] {
        assert_eq!(server.told(path, &key(1)).await, ("12".to_owned(), text.to_owned()));
    }
}

/// GHSA-q8m4-xhhv-38mg: calls were open because their handlers did not ask.
#[test]
fn only_health_is_open_and_only_recipes_leave_it_to_their_calls() {
    for service in crate::methods::Service::<Fake>::ALL {
        for method in service.methods {
            let expected = match service.name {
                "grpc.health.v1.Health" => Access::Open,
                "v3lockpb.Lock" | "v3electionpb.Election" => Access::Calls,
                "etcdserverpb.Watch" => Access::Watches,
                _ => Access::Table,
            };
            assert_eq!(method.access, expected, "{}/{}", service.name, method.name);
        }
    }
}
