//! The built binary, driven through its failpoints as etcd's robustness tests drive Go etcd's: over gofail's HTTP, or by
//! environment. What was acknowledged before the process ended must be there when it comes back.

use api::pb::etcdserverpb as pb;
use failpoint::{Kind, POINTS};
use http::uri::PathAndQuery;
use prost::Message;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// How long a start, an answer or an end may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// A Go program that panicked ends with it.
const PANIC_CODE: i32 = 2;

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        Folder::below(&std::env::temp_dir(), name)
    }

    /// For several members: one disk that stalls for an election timeout would change their leader.
    fn for_cluster(name: &str) -> Folder {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Folder::below(memory, name) } else { Folder::new(name) }
    }

    fn below(place: &Path, name: &str) -> Folder {
        let path = place.join(format!("oxetcd-fail-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A member as a process; killed when dropped.
struct Member {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    socket: PathBuf,
}

impl Member {
    fn spawn(folder: &Path, settings: &str) -> Member {
        Member::spawn_with(folder, settings, &[])
    }

    fn spawn_with(folder: &Path, settings: &str, flags: &[String]) -> Member {
        let socket = folder.join("client.sock");
        let listen = format!("unix://{}", socket.display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcd"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
            command.env_remove(name);
        }
        let mut child = command
            .arg(format!("--data-dir={}", folder.join("data").display()))
            .arg(format!("--listen-client-urls={listen}"))
            .args(["--advertise-client-urls=http://127.0.0.1:1", "--listen-peer-urls=http://127.0.0.1:0"])
            .args(["--snapshot-count=3", "--compaction-batch-limit=2"])
            .args(flags)
            .env("GOFAIL_HTTP", "127.0.0.1:0")
            .env("GOFAIL_FAILPOINTS", settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let stderr = BufReader::new(child.stderr.take().expect("the pipe was asked for"));
        let (out, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| out.send(line)));
        Member { child, lines, seen: Vec::new(), socket }
    }

    /// A member that serves.
    fn start(folder: &Path) -> Member {
        Member::start_with(folder, &[])
    }

    fn start_with(folder: &Path, flags: &[String]) -> Member {
        let mut member = Member::spawn_with(folder, "", flags);
        member.line_with("ready to serve client requests");
        member
    }

    /// Waits for a line of its log.
    fn line_with(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(e @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("no line with {text:?} ({e}):\n{}", self.seen.join("\n"))
                }
            }
            if let Some(line) = self.seen.last().filter(|line| line.contains(text)) {
                return line.clone();
            }
        }
    }

    /// One request to the control server: code and body.
    fn control(&mut self, method: &str, path: &str, body: &str) -> (u16, String) {
        let line = self.line_with("failpoint: listening on ");
        let address = line.rsplit(' ').next().expect("a line has a last word");
        let mut stream = TcpStream::connect(address).expect("the control server listens");
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("the control server reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the control server answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head ends with an empty line");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        (code, body.to_owned())
    }

    fn arm(&mut self, name: &str, term: &str) {
        assert_eq!(self.control("PUT", &format!("/{name}"), term), (204, String::new()), "{name}={term}");
    }

    /// Waits for its end; answers how it ended and what it said last.
    fn end(&mut self, of: &str) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
        assert!(Instant::now() < until, "{of}: the member goes on:\n{}", self.seen.join("\n"));
        let status = self.child.wait().expect("a child can be waited for");
        (status, self.seen.last().cloned().unwrap_or_default())
    }

    fn assert_panicked(&mut self, name: &str, package: &str) {
        let (status, last) = self.end(name);
        assert_eq!((status.code(), last), (Some(PANIC_CODE), format!("panic: failpoint panic: {package}/{name}")));
    }

    async fn channel(&self) -> Channel {
        let endpoint =
            Endpoint::from_shared(format!("unix://{}", self.socket.display())).expect("a path is an address");
        endpoint.connect().await.expect("the member listens")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Gone already, in most tests.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Carries the channels of all tests.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads can be had"));

fn wait<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(async { tokio::time::timeout(PATIENCE, work).await.expect("an answer in time") })
}

async fn ready(channel: &Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| Status::unknown(format!("not ready: {e}")))?;
    Ok(grpc)
}

fn path(method: &str) -> PathAndQuery {
    format!("/etcdserverpb.{method}").parse().expect("a method's name fits in a path")
}

/// One call, sent once: the tests are to see what a member that ends says.
async fn call<Q, A>(channel: &Channel, method: &str, request: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(Request::new(request), path(method), codec).await?.into_inner())
}

/// Opens a stream; the request side ends with `requests`.
async fn open<Q, A>(
    channel: &Channel,
    method: &str,
    requests: impl Stream<Item = Q> + Send + 'static,
) -> Result<Streaming<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.streaming(Request::new(requests), path(method), codec).await?.into_inner())
}

async fn defragment(channel: &Channel) -> Result<pb::DefragmentResponse, Status> {
    call(channel, "Maintenance/Defragment", pb::DefragmentRequest {}).await
}

async fn put(channel: &Channel, key: &str) -> Result<i64, Status> {
    let request = pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
    let response: pb::PutResponse = call(channel, "KV/Put", request).await?;
    Ok(response.header.expect("a header").revision)
}

async fn keys(channel: &Channel) -> Vec<String> {
    list(channel, false).await
}

/// What this member has by now: learners serve no more.
async fn keys_here(channel: &Channel) -> Vec<String> {
    list(channel, true).await
}

async fn list(channel: &Channel, serializable: bool) -> Vec<String> {
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), serializable, ..Default::default() };
    let response: pb::RangeResponse = call(channel, "KV/Range", all).await.expect("reads work");
    response.kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).expect("our keys are text")).collect()
}

/// Reaches every place that has a failpoint, unless the member ends before.
async fn everything(channel: &Channel) -> Result<(), Status> {
    let create = pb::WatchCreateRequest { key: "work".into(), ..Default::default() };
    let create = pb::watch_request::RequestUnion::CreateRequest(create);
    let requests = tokio_stream::iter([pb::WatchRequest { request_union: Some(create) }]);
    let mut events: Streaming<pb::WatchResponse> = open(channel, "Watch/Watch", requests).await?;
    events.message().await?;
    let mut revision = 0;
    for _ in 0..8 {
        revision = put(channel, "work").await?;
    }
    events.message().await?;

    let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
    let lease = call::<_, pb::LeaseGrantResponse>(channel, "Lease/LeaseGrant", grant).await?.id;
    let keep_alive = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
    let mut kept: Streaming<pb::LeaseKeepAliveResponse> = open(channel, "Lease/LeaseKeepAlive", keep_alive).await?;
    kept.message().await?;
    drop(kept);
    let ask = pb::LeaseTimeToLiveRequest { id: lease, keys: false };
    call::<_, pb::LeaseTimeToLiveResponse>(channel, "Lease/LeaseTimeToLive", ask).await?;
    let revoke = pb::LeaseRevokeRequest { id: lease };
    call::<_, pb::LeaseRevokeResponse>(channel, "Lease/LeaseRevoke", revoke).await?;

    let compact = pb::CompactionRequest { revision, physical: true };
    call::<_, pb::CompactionResponse>(channel, "KV/Compact", compact).await?;
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let all = tokio_stream::once(all);
    let mut chunks: Streaming<pb::RangeStreamResponse> = open(channel, "KV/RangeStream", all).await?;
    while chunks.message().await?.is_some() {}
    defragment(channel).await?;
    Ok(())
}

#[test]
fn a_panic_before_the_log_is_written_loses_that_put_and_nothing_else() {
    let folder = Folder::new("save");
    let mut member = Member::start(&folder.0);
    let channel = wait(member.channel());
    wait(put(&channel, "before")).expect("a put is served");
    member.arm("raftBeforeSave", "panic");
    wait(put(&channel, "lost")).expect_err("the member ended before it could answer");
    member.assert_panicked("raftBeforeSave", "go.etcd.io/etcd/server/v3/etcdserver");

    let member = Member::start(&folder.0);
    let channel = wait(member.channel());
    assert_eq!(wait(keys(&channel)), ["before"]);
    wait(put(&channel, "after")).expect("a put is served");
}

#[test]
fn what_was_acknowledged_survives_a_panic_at_every_place() {
    let folder = Folder::new("all");
    let mut acknowledged = vec!["work".to_owned()];
    let at_start = ["beforePublishing", "beforeApplyOneConfChange"];
    let elsewhere = |name: &str| at_start.contains(&name) || [&JOINING[..], &FORWARDED].concat().contains(&name);
    for point in POINTS.iter().filter(|p| p.kind == Kind::Unit && !elsewhere(p.name)) {
        let mut member = Member::start(&folder.0);
        wait(async {
            let channel = member.channel().await;
            put(&channel, "work").await.expect("a put is served");
            put(&channel, point.name).await.expect("a put is served");
            acknowledged.push(point.name.to_owned());
            acknowledged.sort_unstable();
            assert_eq!(keys(&channel).await, acknowledged);
            member.arm(point.name, "panic");
            // How far it comes depends on the place.
            drop(everything(&channel).await);
        });
        member.assert_panicked(point.name, point.package);
    }
    let member = Member::start(&folder.0);
    assert_eq!(wait(async { keys(&member.channel().await).await }), acknowledged);
}

/// What a member comes by that joins and gets the leader's database.
const JOINING: [&str; 6] = [
    "raftDropHeartbeat",
    "raftBeforeFollowerSend",
    "applyBeforeOpenSnapshot",
    "applyAfterOpenSnapshot",
    "raftBeforeApplySnap",
    "raftAfterApplySnap",
];
/// What a leader comes by when a follower forwards.
const FORWARDED: [&str; 2] = ["beforeServeHTTPLeaseRenew", "beforeLookupWhenForwardLeaseTimeToLive"];

/// Flags of a member of two: itself and, named first, the one that is there already.
fn one_of_two(name: &str, own: &str, first: &str) -> Vec<String> {
    let cluster = if name == "first" { format!("first={first}") } else { format!("first={first},{name}={own}") };
    let state = if name == "first" { "new" } else { "existing" };
    vec![
        format!("--name={name}"),
        format!("--listen-peer-urls={own}"),
        format!("--initial-advertise-peer-urls={own}"),
        format!("--initial-cluster={cluster}"),
        format!("--initial-cluster-state={state}"),
        "--snapshot-catchup-entries=1".into(),
    ]
}

fn peer_url() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

fn package(name: &str) -> &'static str {
    POINTS.iter().find(|point| point.name == name).expect("it is registered").package
}

/// A member that leads, and how a second one is started that was added to it.
struct Two {
    folder: Folder,
    first: Member,
    urls: [String; 2],
}

impl Two {
    fn found(name: &str) -> Two {
        let (folder, urls) = (Folder::new(name), [peer_url(), peer_url()]);
        for name in ["first", "second"] {
            std::fs::create_dir(folder.0.join(name)).expect("an empty folder");
        }
        let first = Member::start_with(&folder.0.join("first"), &one_of_two("first", &urls[0], &urls[0]));
        Two { folder, first, urls }
    }

    fn add(&self, is_learner: bool) {
        let add = pb::MemberAddRequest { peer_ur_ls: vec![self.urls[1].clone()], is_learner };
        let added = wait(async {
            call::<_, pb::MemberAddResponse>(&self.first.channel().await, "Cluster/MemberAdd", add).await
        });
        added.expect("a member more");
    }

    fn second(&self, settings: &str) -> Member {
        Member::spawn_with(&self.folder.0.join("second"), settings, &one_of_two("second", &self.urls[1], &self.urls[0]))
    }

    fn start_second(&self) -> Member {
        let mut second = self.second("");
        second.line_with("ready to serve client requests");
        second
    }
}

fn joins(point: &str) {
    let mut two = Two::found(point);
    let channel = wait(two.first.channel());
    for n in 100..230 {
        wait(put(&channel, &format!("k{n}"))).expect("a put is served");
    }
    // From now on the log in memory does not begin at its beginning.
    two.first.line_with("saved snapshot at index");
    two.add(true);
    let mut second = two.second(&format!("{point}=panic"));
    second.assert_panicked(point, package(point));
    let second = two.start_second();
    assert_eq!(wait(async { keys_here(&second.channel().await).await }), wait(keys(&channel)), "{point}");
}

#[test]
fn a_member_joins_whatever_panics_meanwhile() {
    std::thread::scope(|scope| {
        let joining: Vec<_> = JOINING.iter().map(|point| scope.spawn(|| joins(point))).collect();
        joining.into_iter().for_each(|thread| thread.join().expect("it joins"));
    });
}

#[test]
fn a_leader_that_panics_when_it_is_asked_comes_back() {
    for point in FORWARDED {
        let mut two = Two::found(point);
        let channel = wait(two.first.channel());
        let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
        let lease = wait(call::<_, pb::LeaseGrantResponse>(&channel, "Lease/LeaseGrant", grant)).expect("a lease").id;
        two.add(false);
        let second = two.start_second();
        two.first.arm(point, "panic");
        let to_second = wait(second.channel());
        // Who asks waits for a leader; what it hears in the end does not matter.
        let asking = RUNTIME.spawn(async move {
            let ask = pb::LeaseTimeToLiveRequest { id: lease, keys: false };
            let _told = call::<_, pb::LeaseTimeToLiveResponse>(&to_second, "Lease/LeaseTimeToLive", ask).await;
            let keep_alive = tokio_stream::once(pb::LeaseKeepAliveRequest { id: lease });
            let kept = open::<_, pb::LeaseKeepAliveResponse>(&to_second, "Lease/LeaseKeepAlive", keep_alive).await;
            if let Ok(mut kept) = kept {
                let _told = kept.message().await;
            }
        });
        two.first.assert_panicked(point, package(point));
        asking.abort();
        let first = Member::start_with(&two.folder.0.join("first"), &one_of_two("first", &two.urls[0], &two.urls[0]));
        let leases = wait(async {
            let list = pb::LeaseLeasesRequest {};
            call::<_, pb::LeaseLeasesResponse>(&first.channel().await, "Lease/LeaseLeases", list).await
        });
        assert_eq!(leases.expect("a list").leases, [pb::LeaseStatus { id: lease }], "{point}");
    }
}

/// Three founders, and the folder they live in.
fn three() -> (Folder, Vec<Member>) {
    let folder = Folder::for_cluster("three");
    let urls = [peer_url(), peer_url(), peer_url()];
    let named: Vec<String> = (0..).zip(&urls).map(|(n, url)| format!("m{n}={url}")).collect();
    let flags = |n: usize| {
        vec![
            format!("--name=m{n}"),
            format!("--listen-peer-urls={}", urls[n]),
            format!("--initial-advertise-peer-urls={}", urls[n]),
            format!("--initial-cluster={}", named.join(",")),
        ]
    };
    let spawn = |n: usize| {
        let dir = folder.0.join(format!("m{n}"));
        std::fs::create_dir(&dir).expect("an empty folder");
        Member::spawn_with(&dir, "", &flags(n))
    };
    let mut members: Vec<Member> = (0..3).map(spawn).collect();
    members.iter_mut().for_each(|member| drop(member.line_with("ready to serve client requests")));
    (folder, members)
}

async fn status(member: &Member) -> pb::StatusResponse {
    call(&member.channel().await, "Maintenance/Status", pb::StatusRequest {}).await.expect("a status")
}

/// The place of the leader that a member follows, and the term.
fn leader_of(members: &[Member], asked: usize) -> Option<(usize, u64)> {
    let seen = wait(status(&members[asked]));
    let is_it = |member: &Member| wait(status(member)).header.is_some_and(|header| header.member_id == seen.leader);
    Some((members.iter().position(is_it)?, seen.raft_term))
}

#[test]
fn a_follower_whose_disk_is_slow_disturbs_nobody_and_a_leader_hands_over() {
    let (_folder, mut members) = three();
    let (leader, term) = leader_of(&members, 0).expect("they serve, so somebody leads");
    let follower = (leader + 1) % 3;
    members[follower].arm("walBeforeSync", "sleep(\"2s\")");
    let (channel, began) = (wait(members[leader].channel()), Instant::now());
    let mut puts = 0;
    while began.elapsed() < Duration::from_secs(4) {
        wait(put(&channel, "beside")).expect("a majority is healthy");
        puts += 1;
    }
    assert_eq!(leader_of(&members, leader), Some((leader, term)), "nobody was elected");
    // If each waited for the slow disk, there would be two.
    assert!(puts > 10, "only {puts} puts in four seconds");

    members[follower].control("DELETE", "/walBeforeSync", "");
    members[leader].arm("walBeforeSync", "sleep(\"2s\")");
    let stalled = Instant::now();
    let stuck = RUNTIME.spawn({
        let channel = channel.clone();
        async move { put(&channel, "stuck").await }
    });
    let next = loop {
        match leader_of(&members, follower) {
            Some((next, _)) if next != leader => break next,
            _ => assert!(stalled.elapsed() < PATIENCE, "it leads on"),
        }
    };
    let handed = stalled.elapsed();
    let channel = wait(members[next].channel());
    wait(put(&channel, "after")).expect("the new leader has a healthy majority");
    println!(
        "slow follower: {puts} puts in four seconds; slow leader: next leader after {handed:.1?}, next put after {:.1?}",
        stalled.elapsed()
    );
    // The entry was in the followers' logs: it counts, whatever its client hears.
    drop(wait(stuck));
    assert_eq!(wait(keys(&channel)), ["after", "beside", "stuck"]);
}

#[test]
fn a_setting_of_the_environment_holds_from_the_start() {
    for name in ["beforeApplyOneConfChange", "beforePublishing"] {
        let folder = Folder::new(name);
        let settings = format!("raftBeforeSave=off;{name}=panic;nobodysName=panic");
        Member::spawn(&folder.0, &settings).assert_panicked(name, "go.etcd.io/etcd/server/v3/etcdserver");
        let member = Member::start(&folder.0);
        assert!(wait(async { keys(&member.channel().await).await }).is_empty());
    }
}

#[test]
fn a_setting_that_cannot_be_read_ends_the_start() {
    let folder = Folder::new("bad");
    let (status, _) = Member::spawn(&folder.0, "beforeCommit").end("a setting without a term");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn the_control_server_lists_counts_and_turns_off() {
    let folder = Folder::new("http");
    let mut member = Member::start(&folder.0);
    let mut names: Vec<String> = POINTS.iter().map(|p| format!("{}=\n", p.name)).collect();
    names.sort_unstable();
    assert_eq!(member.control("GET", "/", ""), (200, names.concat()));
    member.arm("failpoints", "beforeApplyOneEntryNormal=sleep(\"1ms\");raftAfterSave=2*off");
    let channel = wait(member.channel());
    for n in 0..3 {
        wait(put(&channel, &n.to_string())).expect("a put is served");
    }
    assert_eq!(member.control("GET", "/raftAfterSave/count", ""), (200, "2".into()));
    let (_, count) = member.control("GET", "/beforeApplyOneEntryNormal/count", "");
    assert!(count.parse().is_ok_and(|n: u32| n >= 3), "{count}, and the member may add entries of its own");
    assert_eq!(member.control("DELETE", "/raftAfterSave", ""), (204, String::new()));
    assert_eq!(member.control("GET", "/raftAfterSave", "").0, 404);
}

#[test]
fn a_defragmentation_that_fails_is_refused_and_the_member_goes_on() {
    let folder = Folder::new("defrag");
    let mut member = Member::start(&folder.0);
    let channel = wait(member.channel());
    wait(put(&channel, "a")).expect("a put is served");
    for (name, text) in [("defragOpenFileError", "no space"), ("defragdbFail", "some random error")] {
        member.arm(name, &format!("return({text:?})"));
        let refused = wait(defragment(&channel)).expect_err("the failpoint makes it fail");
        assert_eq!((refused.code(), refused.message()), (tonic::Code::Unknown, text));
        assert_eq!(member.control("DELETE", &format!("/{name}"), ""), (204, String::new()));
        wait(put(&channel, name)).expect("a put is served");
    }
    wait(defragment(&channel)).expect("nothing is in its way");
    assert_eq!(wait(keys(&channel)), ["a", "defragOpenFileError", "defragdbFail"]);
    let left: Vec<_> = std::fs::read_dir(folder.0.join("data/member/snap")).expect("the folder is there").collect();
    assert!(left.iter().flatten().all(|e| !e.file_name().to_string_lossy().contains("defrag")), "{left:?}");
}
