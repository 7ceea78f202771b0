//! Whole connections in memory: the client port's HTTP/2 and HTTP/1, the peer port's HTTP/1, and what peers answer to what
//! this member asks.

use super::{EMPTY, named};
use crate::{Shape, Target};
use api::pb::etcdserverpb as pb;
use api::raft::Message;
use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use prost::Message as _;
use rpc::peer::{
    Asker, Awaited, BoxedIo, Config, Connecting, Connector, HashKv, Identity, ImageSink, LeaseInfo, LeaseRefusal,
    Local, MemberInfo, Timeouts, Transport, Url, codec,
};
use rpc::{Answer, Caller, Limits, Member, Pieces, WatchStream, decoders};
use server::Request;
use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot, watch};

/// Bytes that a connection holds on their way.
const PIPE_BYTES: usize = 1 << 20;
/// How long an answer may take. Nobody waits for anything here but for the end of what was sent.
const PATIENCE: Duration = Duration::from_secs(30);
/// After it a client that says no more hangs up.
const PAUSE: Duration = Duration::from_millis(3);
const MESSAGE_BYTES_MAX: usize = 64 << 10;

fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a thread"));
    &RUNTIME
}

/// Inputs that are answered, however long that takes.
type WellAsked = LazyLock<BTreeSet<Vec<u8>>>;

/// Says all of it; answers what was said back until the other side has ended, or has nothing more to say to somebody who
/// does not go on.
async fn said(mut line: DuplexStream, bytes: &[u8], well_asked: &WellAsked) -> Vec<u8> {
    let mut answer = Vec::new();
    let exchange = async {
        // The other side may have had enough before.
        let _ = line.write_all(bytes).await;
        if well_asked.contains(bytes) {
            let _ = line.read_buf(&mut answer).await;
        }
        if tokio::time::timeout(PAUSE, line.read_to_end(&mut answer)).await.is_err() {
            let _ = line.shutdown().await;
            let _ = line.read_to_end(&mut answer).await;
        }
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("a connection whose client is gone ends");
    answer
}

// ---- the client port -------------------------------------------------------------------------------------------

/// A member that knows nothing and answers at once.
struct Nobody {
    yes: watch::Sender<bool>,
}

impl Member for Nobody {
    fn call(&self, _: Caller, _: Request) -> Answer {
        let (out, answer) = oneshot::channel();
        drop(out.send(Err(api::Error::Stopped)));
        answer
    }

    fn range_stream(&self, _: Caller, _: pb::RangeRequest) -> Pieces<pb::RangeStreamResponse> {
        mpsc::channel(1).1
    }

    fn snapshot(&self, _: Caller) -> Pieces<pb::SnapshotResponse> {
        mpsc::channel(1).1
    }

    fn watch(&self, _: Caller) -> WatchStream {
        let (requests, mut asked) = mpsc::channel(1);
        let (out, responses) = mpsc::channel(1);
        tokio::spawn(async move {
            while asked.recv().await.is_some() {}
            drop(out);
        });
        WatchStream { requests, responses, taken: Arc::default() }
    }

    fn leader_known(&self) -> watch::Receiver<bool> {
        self.yes.subscribe()
    }

    fn serving(&self) -> watch::Receiver<bool> {
        self.yes.subscribe()
    }

    fn is_auth_enabled(&self) -> bool {
        false
    }

    fn is_learner(&self) -> bool {
        false
    }

    fn versions(&self) -> (String, String) {
        ("3.7.0".into(), "3.7.0".into())
    }

    fn alarms(&self) -> Vec<pb::AlarmMember> {
        Vec::new()
    }

    fn probe(&self, serializable: bool) -> Answer {
        let range = pb::RangeRequest { serializable, ..Default::default() };
        self.call(Caller::default(), Request::Range(range))
    }

    fn figures(&self) -> rpc::metrics::Figures {
        Default::default()
    }

    fn identity(&self) -> (u64, u64) {
        (7, 1)
    }
}

fn nobody() -> Arc<Nobody> {
    Arc::new(Nobody { yes: watch::channel(true).0 })
}

/// `/service/method` of every method, in the order of the table.
pub fn methods() -> &'static [String] {
    static METHODS: LazyLock<Vec<String>> = LazyLock::new(decoders::methods::<Nobody>);
    &METHODS
}

/// What a method makes of these bytes.
pub fn decode(method: &str, bytes: Bytes) -> Option<decoders::Decoded> {
    static MEMBER: LazyLock<Arc<Nobody>> = LazyLock::new(nobody);
    named(decoders::request(&MEMBER, method, bytes))
}

pub const GRPC_MESSAGES: Target = Target {
    name: "grpc-messages",
    covers: &["rpc/messages.rs::split", "rpc/gzip.rs::inflate", "rpc/frames.rs::parse"],
    corpus: || {
        let message = |packed: u8, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("short").to_be_bytes();
            [&[packed], &length[..], bytes].concat()
        };
        let two = [message(0, b"first"), message(0, &[7; 300])].concat();
        let packed = message(1, &gzip(&[b'x'; 5000]));
        vec![[&[1][..], &two].concat(), [&[200][..], &two].concat(), [&[90][..], &packed].concat()]
    },
    run: grpc_messages,
    ..EMPTY
};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(plain).expect("memory");
    zip.finish().expect("memory")
}

/// The first byte says in which pieces the rest arrives; that must change nothing.
fn grpc_messages(input: &[u8]) -> bool {
    let (piece, body) = input.split_first().map_or((1, &[][..]), |(piece, body)| (usize::from(*piece), body));
    let text = |outcome: Result<Vec<Bytes>, tonic::Status>| outcome.map_err(|status| status.to_string());
    let mut understood = false;
    for gzip in [false, true] {
        let cut = text(decoders::messages(body, piece, MESSAGE_BYTES_MAX, gzip));
        assert_eq!(cut, text(decoders::messages(body, usize::MAX, MESSAGE_BYTES_MAX, gzip)));
        if let Some(messages) = named(cut) {
            assert!(messages.iter().all(|message| message.len() <= MESSAGE_BYTES_MAX));
            understood = true;
        }
    }
    assert_eq!(decoders::frames(body, piece), decoders::frames(body, usize::MAX));
    if let Some(plain) = named(decoders::inflate(body, MESSAGE_BYTES_MAX)) {
        assert!(plain.len() <= MESSAGE_BYTES_MAX);
    }
    understood
}

pub const GRPC_FIELDS: Target = Target {
    name: "grpc-fields",
    covers: &["rpc/dispatch.rs::deadline", "rpc/dispatch.rs::grpc_content_type"],
    shape: Shape::Text(&[
        "application/grpc",
        "+",
        ";",
        "proto",
        "H",
        "M",
        "S",
        "m",
        "u",
        "n",
        "99999999",
        "-",
        "+5",
        "é",
    ]),
    corpus: || super::texts(&["5S", "1500m", "99999999H", "application/grpc+proto", "Application/gRPC;x"]),
    run: |input| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return false };
        let deadline = named(decoders::deadline(&value)).is_some();
        named(decoders::content_type(&value)).is_some() || deadline
    },
    ..EMPTY
};

pub const GATEWAY_JSON: Target = Target {
    name: "gateway-json",
    covers: &[
        "rpc/gateway/json.rs::decode_request",
        "rpc/gateway/json.rs::encode_answer",
        "rpc/gateway/mod.rs::decoded",
        "rpc/gateway/values.rs::scan",
    ],
    shape: Shape::Text(&[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\\u0041",
        "null",
        "true",
        "\"key\"",
        "\"success\"",
        "\"requestTxn\"",
        "\"-_8\"",
        "\"+/8=\"",
        "\"18446744073709551616\"",
        "-1",
        "1e3",
        "1.5",
        " ",
        "\"DESCEND\"",
        "é",
    ]),
    corpus: || {
        super::texts(&[
            r#"{"key":"Zm9v","range_end":"-_8","limit":"3","sort_order":"DESCEND","serializable":true}"#,
            r#"{"compare":[{"target":"VALUE","key":"YQ","value":"YQ=="}],"success":[{"request_put":{"key":"YQ=="}}]}"#,
            r#"{"success":[{"requestTxn":{"failure":[{"request_range":{"key":"YQ=="}}]}}]}"#,
            r#"{"create_request":{"key":"YQ==","filters":["NOPUT",1],"watch_id":"7"}}{"progress_request":{}}"#,
            r#"{"name":"root","password":"x","options":{"no_password":false},"unknown":[1,{"a":null}]}"#,
        ])
    },
    run: gateway_json,
    ..EMPTY
};

/// What is understood means the same when it is written and read again; where values end does not depend on how they come.
fn gateway_json(input: &[u8]) -> bool {
    assert_eq!(decoders::json_values(input, 1), decoders::json_values(input, usize::MAX));
    let mut understood = false;
    for path in methods() {
        let Some(message) = named(decoders::json_request(path, input)) else { continue };
        understood = true;
        let json = named(decoders::json_of_request(path, &message)).expect("a message has its JSON");
        let again = named(decoders::json_request(path, &json)).expect("its own JSON is understood");
        assert_eq!(again, message, "{path}");
    }
    // A stream's values are read one by one.
    understood || decoders::json_values(input, usize::MAX).len() > 1
}

pub const PROC_FILES: Target = Target {
    name: "proc-files",
    covers: &["rpc/metrics/process.rs::parse_stat", "rpc/metrics/process.rs::parse_netstat"],
    shape: Shape::Text(&[
        "(",
        ")",
        " ",
        "\n",
        "IpExt:",
        "InOctets",
        "OutOctets",
        "btime ",
        "18446744073709551616",
        "-1",
    ]),
    corpus: || {
        super::texts(&[
            "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 12 18 4200 8192 3 22",
            "TcpExt: A B\nTcpExt: 1 2\nIpExt: X InOctets OutOctets\nIpExt: 9 10 20\n",
            "cpu 1\nbtime 1700\n",
        ])
    },
    run: |input| decoders::proc_files(&String::from_utf8_lossy(input)),
    ..EMPTY
};

pub const DEBUG_PAGES: Target = Target {
    name: "debug-pages",
    covers: &["rpc/debug/pprof.rs::addresses"],
    shape: Shape::Text(&[
        "0x",
        "+",
        " ",
        "ffffffffffffffff",
        "18446744073709551616",
        "&",
        "=",
        "%",
        "fam",
        "b",
        "exp",
        "-1",
    ]),
    corpus: || super::texts(&["0x10+17+0xfg+0", "fam=grpc.Recv.etcdserverpb.KV&b=-1&exp=1"]),
    run: |input| decoders::debug_pages(&String::from_utf8_lossy(input)),
    ..EMPTY
};

pub const GRPC_CONNECTION: Target = Target {
    name: "grpc-connection",
    covers: &[
        "rpc/methods.rs::everywhere",
        "rpc/streams.rs::forward",
        "rpc/keepalive.rs::ask",
        "rpc/services.rs::ask",
        "rpc/slow.rs::figures",
        "rpc/slow.rs::shown",
    ],
    corpus: connection_corpus,
    mend: Some(|input| mend_frames(input)),
    run: grpc_connection,
    ..EMPTY
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields, each as a literal that enters no table.
fn fields(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in first.iter().chain(more) {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short field"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Every method called once on a connection of its own, with fields that mean something; and HTTP/1.
fn connection_corpus() -> Vec<Vec<u8>> {
    let more = [("grpc-timeout", "5S"), ("hasleader", "true"), ("token", "t"), ("client-api-version", "3.7")];
    let request = [0, 0, 0, 0, 4, 0x0a, 2, b'k', b'k'];
    let call = |path: &String| {
        let headers = frame(HEADERS, 4, 1, &fields(path, &more));
        let parts =
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &headers, &frame(DATA, 1, 1, &request), &frame(PING, 0, 0, &[7; 8])];
        parts.concat()
    };
    let mut corpus: Vec<_> = methods().iter().map(call).collect();
    let body = r#"{"key":"Zm9v"}"#;
    for path in ["/v3/kv/range", "/v3/watch", "/v3/lease/keepalive", "/v3/maintenance/snapshot", "/v3/nothing"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}", body.len());
        corpus.push(format!("{head}\r\nGrpc-Timeout: 5S\r\n\r\n{body}").into_bytes());
    }
    corpus.push(
        b"GET /v3/watch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: token=x\r\n\r\n\x81\x82\0\0\0\0{}"
            .to_vec(),
    );
    for path in ["/version", "/health", "/readyz?verbose&exclude=x%41", "/metrics", "/debug/vars", "/"] {
        corpus.push(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes());
    }
    corpus
}

/// The last frame is made as long as what is left.
fn mend_frames(input: &mut [u8]) {
    let mut at = PREFACE.len();
    while let Some([a, b, c, ..]) = input.get(at..at + 9) {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let left = input.len() - at - 9;
        if length > left {
            let left = u32::try_from(left).unwrap_or(0).to_be_bytes();
            input[at..at + 3].copy_from_slice(&left[1..]);
            return;
        }
        at += 9 + length;
    }
}

/// Answered with something, or refused by closing.
fn grpc_connection(input: &[u8]) -> bool {
    let limits = Limits {
        max_request_bytes: MESSAGE_BYTES_MAX,
        max_concurrent_streams: 100,
        keepalive_min_time: Duration::from_millis(1),
        keepalive_interval: Duration::ZERO,
        keepalive_timeout: Duration::ZERO,
        // All of them: what is said of them is made from what came.
        slow_call: Duration::ZERO,
        election_timeout: Duration::from_secs(1),
    };
    runtime().block_on(async {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let served = tokio::spawn(decoders::serve_one(theirs, nobody(), limits));
        static WELL_ASKED: WellAsked = LazyLock::new(|| connection_corpus().into_iter().collect());
        let answer = said(ours, input, &WELL_ASKED).await;
        // How it ended is the client's doing.
        drop(served.await.expect("serving does not panic"));
        answer.starts_with(b"HTTP/1.1") || has_fields(&answer)
    })
}

/// Whether some call was answered.
fn has_fields(mut answer: &[u8]) -> bool {
    while let Some(([a, b, c, kind, ..], rest)) = answer.split_first_chunk::<9>() {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        if *kind == HEADERS {
            return true;
        }
        answer = rest.get(length..).unwrap_or_default();
    }
    false
}

// ---- the peer port ---------------------------------------------------------------------------------------------

/// A member to whom nothing that peers say makes a difference.
struct Deaf;

fn told<T>(value: T) -> Awaited<T> {
    let (out, answer) = oneshot::channel();
    drop(out.send(value));
    answer
}

impl Local for Deaf {
    fn identity(&self) -> Identity {
        Identity { member: 1, cluster: 7, urls: vec!["http://127.0.0.1:1".into()] }
    }

    fn receive(&self, _: Message) -> bool {
        true
    }

    fn process(&self, _: Message) -> Awaited<Result<(), String>> {
        told(Ok(()))
    }

    fn report_unreachable(&self, _: u64) {}

    fn report_snapshot(&self, _: u64, _: bool) {}

    fn removed(&self, _: u64) -> bool {
        false
    }

    fn was_removed(&self) {}

    fn members(&self) -> Vec<MemberInfo> {
        vec![MemberInfo { id: 1, peer_urls: vec!["http://127.0.0.1:1".into()], ..MemberInfo::default() }]
    }

    fn versions(&self) -> (String, String) {
        ("3.7.0".into(), "3.7.0".into())
    }

    fn promote(&self, _: u64, _: Option<String>) -> Awaited<Result<Vec<MemberInfo>, api::Error>> {
        told(Ok(self.members()))
    }

    fn hash_kv(&self, _: i64) -> Awaited<Result<HashKv, api::Error>> {
        told(Ok(HashKv::default()))
    }

    fn renew_lease(&self, _: i64) -> Awaited<Result<i64, LeaseRefusal>> {
        told(Ok(7))
    }

    fn lease_time_to_live(&self, _: i64, _: bool) -> Awaited<Result<LeaseInfo, LeaseRefusal>> {
        told(Err(LeaseRefusal::NotFound))
    }

    fn downgrade_enabled(&self) -> Awaited<Result<bool, String>> {
        told(Ok(true))
    }

    fn receive_image(&self, _: &Message) -> io::Result<Box<dyn ImageSink>> {
        Ok(Box::new(Nowhere))
    }
}

struct Nowhere;

impl ImageSink for Nowhere {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }

    fn abandon(self: Box<Self>) {}
}

/// Nobody can be reached: senders whose messages name URLs are not dialled.
struct Island;

impl Connector for Island {
    fn connect(&self, _: &Url) -> Connecting {
        Box::pin(std::future::ready(Err(io::Error::other("an island"))))
    }
}

pub const REQUESTS: Target = Target {
    name: "peer-requests",
    covers: &[
        "rpc/peer/receive.rs::decoded",
        "rpc/peer/endpoints.rs::lease_lookup",
        "rpc/peer/endpoints.rs::lease_renewal",
        "rpc/peer/endpoints.rs::parse_decimal",
        "rpc/peer/check.rs::parse_hex",
        "rpc/peer/serve.rs::read",
    ],
    shape: Shape::Text(&[
        "\r\n",
        "POST ",
        "GET ",
        " HTTP/1.1",
        "/raft",
        "/raft/stream/msgapp/1",
        "/members/promote/",
        "/leases",
        "%41",
        "?",
        "X-Server-Version: ",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: ",
        "0\r\n\r\n",
        "X-PeerURLs: http://",
        ",",
        "Expect: 100-continue\r\n",
        "-",
        "8000000000000000",
    ]),
    corpus: request_corpus,
    run: requests,
    ..EMPTY
};

fn http_request(line: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{line} HTTP/1.1\r\nHost: a\r\nX-Server-From: 2\r\nX-Server-Version: 3.7.1\r\nX-Min-Cluster-Version: 3.0.0\r\n\
         X-Etcd-Cluster-ID: 7\r\nX-PeerURLs: http://a:1\r\nX-Raft-To: 1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Every endpoint, well asked.
fn request_corpus() -> Vec<Vec<u8>> {
    let heartbeat =
        Message { kind: api::raft::MessageType::MsgHeartbeat, to: 1, from: 2, term: 3, ..Message::default() };
    let mut image = BytesMut::new();
    let snapshot = Message {
        kind: api::raft::MessageType::MsgSnap,
        snapshot: Some(super::peers::snapshot()),
        ..heartbeat.clone()
    };
    codec::put_message(&mut image, &snapshot);
    image.extend_from_slice(b"the image");
    let lease = pb::LeaseKeepAliveRequest { id: 5 }.encode_to_vec();
    let question = pb::LeaseTimeToLiveRequest { id: 5, keys: true };
    let internal = api::pb::leasepb::LeaseInternalRequest { lease_time_to_live_request: Some(question) };
    let asked: [(&str, Vec<u8>); 12] = [
        ("POST /raft", heartbeat.encode()),
        ("POST /raft/snapshot", image.to_vec()),
        ("GET /raft/stream/msgapp/2", vec![]),
        ("GET /raft/stream/message/2", vec![]),
        ("GET /raft/probing", vec![]),
        ("GET /members", vec![]),
        ("GET /members/hashkv", br#"{"revision":9}"#.to_vec()),
        ("POST /members/promote/9", vec![]),
        ("POST /leases", lease),
        ("POST /leases/internal", internal.encode_to_vec()),
        ("GET /downgrade/enabled", vec![]),
        ("GET /version", vec![]),
    ];
    asked.iter().map(|(line, body)| http_request(line, body)).collect()
}

fn requests(input: &[u8]) -> bool {
    static TRANSPORT: LazyLock<Transport> = LazyLock::new(|| {
        let config = Config {
            connector: Arc::new(Island),
            dial_timeout: Duration::from_secs(1),
            snapshot_rate: u64::MAX,
            timeouts: Timeouts::default(),
        };
        Transport::start(config, Arc::new(Deaf)).expect("a thread")
    });
    let answer = runtime().block_on(async {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        TRANSPORT.serve(Box::new(theirs));
        static WELL_ASKED: WellAsked = LazyLock::new(|| request_corpus().into_iter().collect());
        said(ours, input, &WELL_ASKED).await
    });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "an answer is HTTP");
    !answer.is_empty()
}

// ---- what peers answer -----------------------------------------------------------------------------------------

/// Connections to somebody who says these bytes, whatever is asked.
struct Parrot(Bytes);

impl Connector for Parrot {
    fn connect(&self, _: &Url) -> Connecting {
        let bytes = self.0.clone();
        let (ours, mut theirs) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(async move {
            // Not before something was asked: an answer that comes first is none.
            let mut asked = [0; 16];
            let _ = theirs.read(&mut asked).await;
            let _ = theirs.write_all(&bytes).await;
            let _ = theirs.shutdown().await;
            let _ = tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await;
        });
        Box::pin(std::future::ready(Ok(Box::new(ours) as BoxedIo)))
    }
}

pub const ANSWERS: Target = Target {
    name: "peer-answers",
    covers: &[
        "rpc/peer/ask.rs::lease_time_to_live",
        "rpc/peer/ask.rs::renew_lease",
        "rpc/peer/ask.rs::versions",
        "rpc/peer/http.rs::whole",
    ],
    shape: Shape::Text(&[
        "\r\n",
        "HTTP/1.1 ",
        "200 OK",
        "412",
        "404",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "{",
        "}",
        "[",
        "\"",
        "true",
        "X-Etcd-Cluster-ID: ",
        "1\r\nx\r\n",
        "0\r\n\r\n",
        "etcdserver: can only promote",
    ]),
    corpus: answer_corpus,
    run: answers,
    ..EMPTY
};

fn answer_corpus() -> Vec<Vec<u8>> {
    let answer = |body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 7\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let lease = pb::LeaseTimeToLiveResponse { id: 5, ttl: 6, granted_ttl: 7, ..Default::default() };
    let internal = api::pb::leasepb::LeaseInternalResponse { lease_time_to_live_response: Some(lease) };
    vec![
        answer(br#"[{"id":1,"peerURLs":["http://a:1"],"name":"m","clientURLs":["http://c:1"]}]"#),
        answer(br#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#),
        answer(b"true"),
        answer(br#"{"header":{"revision":9},"hash":1,"compact_revision":-1,"hash_revision":9}"#),
        answer(&pb::LeaseKeepAliveResponse { id: 5, ttl: 7, header: None }.encode_to_vec()),
        answer(&internal.encode_to_vec()),
    ]
}

/// Everything that is asked of peers, answered by the same bytes.
fn answers(input: &[u8]) -> bool {
    let asker =
        Asker { connector: Arc::new(Parrot(Bytes::copy_from_slice(input))), dial_timeout: PATIENCE, timeout: PATIENCE };
    let url = Url::parse("http://a:1").expect("a URL");
    runtime().block_on(async {
        let understood = [
            named(rpc::peer::members(&asker, &url).await).is_some(),
            named(rpc::peer::versions(&asker, &url).await).is_some(),
            named(rpc::peer::downgrade_enabled(&asker, &url).await).is_some(),
            named(rpc::peer::promote(&asker, &url, 5, None).await).is_some(),
            named(rpc::peer::hash_kv(&asker, &url, 7, 9).await).is_some(),
            named(rpc::peer::renew_lease(&asker, &url, 5).await).is_some(),
            named(rpc::peer::lease_time_to_live(&asker, &url, 5, true).await).is_some(),
        ];
        understood.contains(&true)
    })
}
