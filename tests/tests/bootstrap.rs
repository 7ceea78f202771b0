//! How members start in a cluster: who may found one, who may join, what is refused, and in which words. Texts of Go's are
//! compared with Go's own where `OXETCD_REFERENCE` is set.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{Cluster, initial_cluster, plan};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Refusal, Server};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::Status;

/// How long a cluster may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two members named m1 and m2, of which the second has flags of its own.
struct Pair {
    _folder: TempDir,
    first: Server,
    second: Launch,
}

impl Pair {
    /// m1 serves alone.
    fn new(name: &str) -> Pair {
        let folder = TempDir::for_cluster(name);
        let mut first = Launch::new(&our_etcd(), &folder.join("m1")).with_flags(&["--name=m1"]);
        let initial = format!("--initial-cluster=m1={}", first.peer_url());
        first = first.with_flags(&[&initial]);
        let first = first.try_start().unwrap_or_else(|r| panic!("{r}"));
        let second = Launch::new(&our_etcd(), &folder.join("m2")).with_flags(&["--name=m2"]);
        Pair { _folder: folder, first, second }
    }

    fn launches(&self) -> [Launch; 2] {
        [self.first.launch().clone(), self.second.clone()]
    }

    /// The second with these flags; `BOTH` stands for an initial cluster of both, `FIRST` for the first one's URL.
    fn second(&self, flags: &[&str]) -> Launch {
        let both = initial_cluster(&self.launches());
        let first = self.first.launch().peer_url();
        let given = |flag: &&str| flag.replace("BOTH", &both).replace("FIRST", &first);
        let flags: Vec<String> = flags.iter().map(given).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.second.clone().with_flags(&flags)
    }

    async fn add(&self, url: &str) {
        let wire = Wire::connect(&self.first.client_url()).await;
        let request = pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner: true };
        let added: Result<pb::MemberAddResponse, Status> =
            wire.unary("/etcdserverpb.Cluster/MemberAdd", &request).await;
        added.unwrap_or_else(|e| panic!("{e}"));
    }
}

fn refusal(launch: &Launch) -> Refusal {
    match launch.try_start() {
        Err(refusal) => refusal,
        Ok(server) => panic!("it started; log:\n{}", server.log()),
    }
}

/// The `error` of the line that says why it did not start.
fn error_of(refusal: &Refusal) -> String {
    assert_eq!(refusal.code, Some(1), "{refusal}");
    let last = refusal.log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = last.filter_map(|line| Some(line["error"].as_str()?.to_owned()));
    errors.next().unwrap_or_else(|| panic!("no error in {refusal}"))
}

/// With its list of members sorted: Go's is in no order.
fn in_order(text: &str) -> String {
    let found =
        text.split_once("Members:[").and_then(|(before, rest)| Some((before, rest.split_once("] RemovedMember")?)));
    let Some((before, (members, after))) = found else { return text.to_owned() };
    let mut members: Vec<&str> = members.split("&{ID:").map(str::trim).collect();
    members.sort_unstable();
    format!("{before}{}{after}", members.concat())
}

/// What ours and Go's say to the same flags. Ours goes on where Go's ends: with the cure.
fn assert_refused_as_by_go(launch: &Launch, words: &str) -> String {
    let ours = error_of(&refusal(launch));
    assert!(ours.contains(words), "no {words:?} in {ours}");
    assert!(!launch.data_dir.exists(), "a refused start left something behind");
    if let Some(reference) = Reference::find() {
        let text = refused_by_go(&launch.clone().with_binary(&reference.program("3.7", "etcd")));
        assert!(in_order(&ours).starts_with(&in_order(&text)), "ours: {ours}\nGo's: {text}");
        std::fs::remove_dir_all(&launch.data_dir).expect("Go's leftovers can be removed");
    }
    ours
}

/// Go's asks the others for a second in all: where the machine stands still so long, it founds a cluster of its own.
fn refused_by_go(launch: &Launch) -> String {
    for _ in 0..3 {
        match launch.try_start() {
            Err(refusal) if refusal.code.is_some() => return error_of(&refusal),
            _ => std::fs::remove_dir_all(&launch.data_dir).expect("Go's leftovers can be removed"),
        }
    }
    panic!("Go's starts")
}

async fn put_soon(server: &Server, key: &str) {
    let end = Instant::now() + PATIENCE;
    let wire = Wire::connect(&server.client_url()).await;
    loop {
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(key, "v")).await;
        match done {
            Ok(_) => return,
            Err(e) => assert!(Instant::now() < end, "{key}: {e}; log:\n{}", server.log()),
        }
    }
}

async fn members(server: &Server) -> Vec<pb::Member> {
    let wire = Wire::connect(&server.client_url()).await;
    let request = pb::MemberListRequest { linearizable: true };
    let list: pb::MemberListResponse =
        wire.unary("/etcdserverpb.Cluster/MemberList", &request).await.expect("a list of members");
    list.members
}

#[tokio::test]
async fn who_joins_must_name_the_cluster_as_it_is() {
    let pair = Pair::new("join-refused");
    let existing = "--initial-cluster-state=existing";
    let launch = pair.second(&["--initial-cluster=BOTH", existing]);
    let text = assert_refused_as_by_go(&launch, "member count is unequal");
    let second = pair.second.peer_url();
    let command = format!("`etcdctl --endpoints={} member add m2 --peer-urls={second}`", pair.first.client_url());
    assert!(text.contains(&command), "no {command} in {text}");
    let launch = pair.second(&["--initial-cluster=m1=FIRST", existing]);
    assert_refused_as_by_go(&launch, "couldn't find local name \"m2\" in the initial cluster configuration");
    let nobody = "--initial-cluster=m1=http://127.0.0.1:1,m2=http://127.0.0.1:2";
    assert_refused_as_by_go(&pair.second(&[nobody, existing]), "could not retrieve cluster information");
    let twice = "--initial-cluster=m2=http://127.0.0.1:2,m2=http://127.0.0.1:2,m1=FIRST";
    assert_refused_as_by_go(&pair.second(&[twice, existing]), "has duplicate url");
    pair.add("http://127.0.0.1:2").await;
    let launch = pair.second(&["--initial-cluster=BOTH", existing]);
    assert_refused_as_by_go(&launch, "PeerURLs: no match found for existing member");
    let launch = pair.second(&["--initial-cluster=m1=FIRST,m2=http://127.0.0.1:2", existing, "--max-learners=0"]);
    assert_refused_as_by_go(&launch, "too many learner members in cluster");
}

/// A peer that says what it is told to say, as often as it is asked and that late; answers its URL. `SELF` in an answer stands for it.
fn peer_that_says(late: Duration, answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let own = url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("loopback accepts");
            let mut lines = BufReader::new(stream.try_clone().expect("a descriptor more")).lines();
            let asked = lines.next().and_then(Result::ok).unwrap_or_default();
            lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            std::thread::sleep(late);
            let path = asked.split_whitespace().nth(1).unwrap_or_default();
            let body = answers.iter().find(|(known, _)| *known == path).map(|(_, body)| body.replace("SELF", &own));
            let body = body.unwrap_or_default();
            let head = format!("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: 7\r\nContent-Length: {}\r\n", body.len());
            // Who does not wait for the answer is no concern of this test.
            drop(stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()));
        }
    });
    url
}

#[test]
fn a_cluster_of_another_version_is_not_joined() {
    let folder = TempDir::for_cluster("versions");
    let launch = Launch::new(&our_etcd(), &folder.join("m2"));
    for (cluster, downgrading) in [("3.8.0", "false"), ("3.7.0", "true")] {
        let members = format!(
            r#"[{{"id":1,"peerURLs":["SELF"],"name":"m1","clientURLs":["http://127.0.0.1:1"]}},
            {{"id":2,"peerURLs":["{}"]}}]"#,
            launch.peer_url()
        );
        let versions = format!(r#"{{"etcdserver":"{cluster}","etcdcluster":"{cluster}"}}"#);
        let answers = vec![("/members", members), ("/version", versions), ("/downgrade/enabled", downgrading.into())];
        let initial =
            format!("--initial-cluster=m1={},m2={}", peer_that_says(Duration::ZERO, answers), launch.peer_url());
        let joining = launch.clone().with_flags(&["--name=m2", "--initial-cluster-state=existing", &initial]);
        let text = assert_refused_as_by_go(&joining, "incompatible with current running cluster");
        assert!(text.contains(&format!("member 1 says that the cluster version is {cluster}")), "{text}");
    }
}

/// Names lead to the same place, and the flags' other names do not matter.
#[tokio::test]
async fn who_joins_may_name_the_members_otherwise() {
    let pair = Pair::new("join-names");
    let named = pair.second.peer_url();
    pair.add(&named).await;
    let first = pair.first.launch().peer_url();
    let initial = format!("--initial-cluster=somebody={first},m2={}", named.replace("127.0.0.1", "[::ffff:127.0.0.1]"));
    let launch = pair.second(&[&initial, "--initial-cluster-state=existing"]);
    let second = launch.try_start().unwrap_or_else(|r| panic!("{r}"));
    assert!(status(&second).await.is_learner);
    assert_eq!(members(&pair.first).await.len(), 2);
}

#[tokio::test]
async fn a_new_cluster_is_not_founded_over_one_that_runs() {
    let pair = Pair::new("new-refused");
    let launch = pair.second(&["--initial-cluster=BOTH"]);
    let text = error_of(&refusal(&launch));
    let [first, second] = pair.launches();
    let both = initial_cluster(&[first.clone(), second.clone()]);
    let cure = format!(
        "run `etcdctl --endpoints={} member add m2 --peer-urls={}`, then start it with --initial-cluster-state=existing \
         --initial-cluster={both}",
        first.client_url(),
        second.peer_url()
    );
    assert!(text.ends_with(&cure), "no {cure:?} in {text}");
    assert!(!launch.data_dir.exists(), "a refused start left something behind");
    // What it says works.
    pair.add(&second.peer_url()).await;
    let text = error_of(&refusal(&launch));
    assert!(text.contains("To join that one: start it with --initial-cluster-state=existing"), "{text}");
    let joined = pair.second(&["--initial-cluster=BOTH", "--initial-cluster-state=existing"]).try_start();
    assert!(status(&joined.unwrap_or_else(|r| panic!("{r}"))).await.is_learner);
}

#[tokio::test]
async fn a_member_that_lost_its_data_is_not_founded_again() {
    let folder = TempDir::for_cluster("bootstrapped");
    let launches = plan(&our_etcd(), folder.path(), 3);
    let mut servers = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}")).members;
    put_soon(&servers[0], "k").await;
    servers.remove(2).stop();
    std::fs::remove_dir_all(&launches[2].data_dir).expect("it was there");
    let text = assert_refused_as_by_go(&launches[2], "has already been bootstrapped");
    let lost = members(&servers[0]).await.into_iter().find(|m| m.name == "m3").expect("it is a member still");
    assert!(text.contains(&format!("member remove {:x}`, then run `etcdctl --endpoints=", lost.id)), "{text}");
    assert!(text.contains("member add m3"), "{text}");
    // The others are not disturbed, and a founder that was never there may still come: see below.
    put_soon(&servers[1], "k2").await;
}

/// Two of three are a quorum and serve; the third founder comes late and is let in.
#[tokio::test]
async fn a_founder_may_come_late() {
    let folder = TempDir::for_cluster("late");
    let launches = plan(&our_etcd(), folder.path(), 3);
    let early = Cluster::start(&launches[..2]).unwrap_or_else(|r| panic!("{r}"));
    put_soon(&early.members[0], "k").await;
    let late = launches[2].try_start().unwrap_or_else(|r| panic!("{r}"));
    put_soon(&late, "k2").await;
    assert_eq!(members(&late).await.len(), 3);
}

#[tokio::test]
async fn founders_with_other_flags_are_told_so() {
    let folder = TempDir::for_cluster("other-flags");
    let launches = plan(&our_etcd(), folder.path(), 2);
    // Alone it is no quorum: it founds, and waits.
    let waiting = launches[0].clone();
    let waits = std::thread::spawn(move || waiting.with_flags(&["--election-timeout=500"]).try_start());
    let other = launches[1].clone().with_flags(&["--initial-cluster-token=other"]);
    let end = Instant::now() + PATIENCE;
    // The first one may not be there yet: then the second founds, and there is nothing to be told.
    while std::net::TcpStream::connect(("127.0.0.1", launches[0].peer_port)).is_err() {
        assert!(Instant::now() < end, "nobody listens");
        std::thread::yield_now();
    }
    let text = error_of(&refusal(&other));
    assert!(text.contains("founds another cluster") && text.contains("--initial-cluster-token"), "{text}");
    let second = launches[1].try_start().unwrap_or_else(|r| panic!("{r}"));
    let first = waits.join().expect("no panic").unwrap_or_else(|r| panic!("{r}"));
    put_soon(&first, "k").await;
    put_soon(&second, "k").await;
}

/// Longer than etcd waits for all of it.
const LATE: Duration = Duration::from_millis(2500);

/// A peer that takes the connection is there: a busy member of another cluster, say. Its answer is waited for.
#[test]
fn a_founder_waits_for_a_peer_that_answers_late() {
    let folder = TempDir::for_cluster("late-answer");
    let members = r#"[{"id":7,"peerURLs":["SELF"],"name":"m1","clientURLs":["http://127.0.0.1:1"]}]"#;
    let peer = peer_that_says(LATE, vec![("/members", members.to_owned())]);
    let launch = Launch::new(&our_etcd(), &folder.join("m2"));
    let both = format!("--initial-cluster=m1={peer},m2={}", launch.peer_url());
    let text = error_of(&refusal(&launch.with_flags(&["--name=m2", &both])));
    assert!(text.contains("belongs to one that runs already (7)"), "{text}");
}

/// Socket files, by the form that Go understands (`unix://host:port`) and by their path.
#[tokio::test]
async fn peers_may_meet_at_socket_files() {
    let folder = TempDir::for_cluster("unix");
    let path = |n: usize| format!("unix://{}", folder.join(&format!("p{n}.sock")).display());
    let initial = format!("--initial-cluster=m1={},m2={}", path(1), path(2));
    let launch = |n: usize| {
        Launch::new(&our_etcd(), &folder.join(&format!("m{n}"))).with_flags(&[
            &format!("--name=m{n}"),
            &initial,
            &format!("--listen-peer-urls={}", path(n)),
            &format!("--initial-advertise-peer-urls={}", path(n)),
        ])
    };
    let launches = [launch(1), launch(2)];
    let cluster = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}"));
    put_soon(&cluster.members[0], "k").await;
    put_soon(&cluster.members[1], "k").await;
    for server in cluster.members {
        server.stop();
    }
    assert!(!folder.join("p1.sock").exists(), "a member that stops removes its socket");
}

const KEYS: usize = 50;

/// The founders of a cluster that held [`KEYS`] keys and stopped in good order, the leader last.
async fn stopped_cluster(folder: &TempDir, binary: &Path) -> Vec<Launch> {
    let launches = plan(binary, folder.path(), 3);
    let mut cluster = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}"));
    for n in 0..KEYS {
        put_soon(&cluster.members[n % 3], &format!("k{n}")).await;
    }
    let revision = status(&cluster.members[(KEYS - 1) % 3]).await.header.expect("a header").revision;
    for member in &cluster.members {
        wait_for_revision(member, revision).await;
    }
    let leader = leader_of(&cluster).await;
    let leader = cluster.members.remove(leader);
    let followers: Vec<Launch> = cluster.members.drain(..).map(stopped).collect();
    [followers, vec![stopped(leader)]].concat()
}

fn stopped(server: Server) -> Launch {
    let launch = server.launch().clone();
    server.stop();
    launch
}

/// The place of the member that leads.
async fn leader_of(cluster: &Cluster) -> usize {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        for (n, member) in cluster.members.iter().enumerate() {
            let status = status(member).await;
            if status.leader == status.header.expect("a header").member_id {
                return n;
            }
        }
    }
    panic!("nobody leads")
}

async fn status(server: &Server) -> pb::StatusResponse {
    let wire = Wire::connect(&server.client_url()).await;
    wire.unary("/etcdserverpb.Maintenance/Status", &pb::StatusRequest {}).await.expect("a status")
}

async fn wait_for_revision(server: &Server, revision: i64) {
    let end = Instant::now() + PATIENCE;
    while status(server).await.header.expect("a header").revision < revision {
        assert!(Instant::now() < end, "revision {revision} is not reached; log:\n{}", server.log());
        tokio::task::yield_now().await;
    }
}

async fn count(server: &Server) -> i64 {
    let wire = Wire::connect(&server.client_url()).await;
    let request = pb::RangeRequest { count_only: true, ..ask::everything() };
    let all: pb::RangeResponse = wire.unary(ask::RANGE, &request).await.expect("a count");
    all.count
}

/// One of several members goes on alone with all keys, keeps its names, and takes others in again.
async fn goes_on_alone(folder: &TempDir, launch: &Launch, binary: &Path) {
    let forced = launch.clone().with_binary(binary).with_flags(&["--force-new-cluster"]);
    let server = forced.try_start().unwrap_or_else(|r| panic!("{r}"));
    assert_eq!(count(&server).await, KEYS as i64);
    let alone = members(&server).await;
    assert_eq!(alone.len(), 1, "{alone:?}");
    assert!(!alone[0].is_learner && alone[0].peer_ur_ls == [launch.peer_url()], "{alone:?}");
    put_soon(&server, "alone").await;
    server.stop();
    // The flag was for once.
    let server = launch.clone().with_binary(binary).try_start().unwrap_or_else(|r| panic!("{r}"));
    assert_eq!(members(&server).await[0].id, alone[0].id);
    assert_eq!(count(&server).await, KEYS as i64 + 1);
    let joined = joins(folder, &server).await;
    put_soon(&joined, "two again").await;
    assert_eq!(count(&joined).await, KEYS as i64 + 2);
}

/// A member of ours more.
async fn joins(folder: &TempDir, server: &Server) -> Server {
    let launch = Launch::new(&our_etcd(), &folder.join("more"));
    let wire = Wire::connect(&server.client_url()).await;
    let request = pb::MemberAddRequest { peer_ur_ls: vec![launch.peer_url()], is_learner: false };
    let added: pb::MemberAddResponse =
        wire.unary("/etcdserverpb.Cluster/MemberAdd", &request).await.expect("a member more");
    let known = added.members.iter().filter(|m| !m.name.is_empty());
    let mut named: Vec<String> = known.map(|m| format!("{}={}", m.name, m.peer_ur_ls[0])).collect();
    named.push(format!("more={}", launch.peer_url()));
    let initial = format!("--initial-cluster={}", named.join(","));
    let launch = launch.with_flags(&["--name=more", "--initial-cluster-state=existing", &initial]);
    launch.try_start().unwrap_or_else(|r| panic!("{r}"))
}

#[tokio::test]
async fn one_of_three_goes_on_alone() {
    let folder = TempDir::for_cluster("force");
    let launches = stopped_cluster(&folder, &our_etcd()).await;
    goes_on_alone(&folder, &launches[0], &our_etcd()).await;
}

#[tokio::test]
async fn the_leader_of_three_goes_on_alone() {
    let folder = TempDir::for_cluster("force-leader");
    let launches = stopped_cluster(&folder, &our_etcd()).await;
    goes_on_alone(&folder, &launches[2], &our_etcd()).await;
}

#[tokio::test]
async fn one_of_gos_three_goes_on_alone_as_ours() {
    let Some(reference) = Reference::find() else { return };
    for version in ["3.7", "3.6", "3.5"] {
        let folder = TempDir::for_cluster("force-go");
        let launches = stopped_cluster(&folder, &reference.program(version, "etcd")).await;
        goes_on_alone(&folder, &launches[0], &our_etcd()).await;
    }
}

#[tokio::test]
async fn one_of_our_three_goes_on_alone_as_gos() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::for_cluster("force-ours");
    let launches = stopped_cluster(&folder, &our_etcd()).await;
    goes_on_alone(&folder, &launches[0], &reference.program("3.7", "etcd")).await;
}

/// Go etcd can't: it ends with `removed all voters`.
#[tokio::test]
async fn a_learner_goes_on_alone() {
    let pair = Pair::new("force-learner");
    pair.add(&pair.second.peer_url()).await;
    let launch = pair.second(&["--initial-cluster=BOTH", "--initial-cluster-state=existing"]);
    let learner = launch.try_start().unwrap_or_else(|r| panic!("{r}"));
    for n in 0..KEYS {
        put_soon(&pair.first, &format!("k{n}")).await;
    }
    let revision = status(&pair.first).await.header.expect("a header").revision;
    wait_for_revision(&learner, revision).await;
    learner.stop();
    let Pair { _folder: folder, first, .. } = pair;
    first.stop();
    goes_on_alone(&folder, &launch, &our_etcd()).await;
}

/// Founders that meet in a registry; one that comes too many is turned away.
#[tokio::test]
async fn founders_meet_in_a_registry() {
    let folder = TempDir::for_cluster("registry");
    let registry = Launch::new(&our_etcd(), &folder.join("registry")).start();
    let endpoints = format!("--discovery-endpoints={}", registry.client_url());
    let founder = |n: usize, binary: &Path, token: &str| {
        let mut launch = Launch::new(binary, &folder.join(&format!("{token}{n}")));
        launch.initial_cluster = false;
        launch.with_flags(&[&format!("--name=m{n}"), &format!("--discovery-token={token}"), &endpoints])
    };
    let none = founder(1, &our_etcd(), "none");
    assert_refused_as_by_go(&none, "failed to join discovery cluster (discovery: size key not found)");
    let go = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    for (token, other) in [("ours", our_etcd())].into_iter().chain(go.map(|go| ("mixed", go))) {
        let wire = Wire::connect(&registry.client_url()).await;
        let size = ask::put(&format!("/_etcd/registry/{token}/_config/size"), "3");
        let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &size).await;
        done.unwrap_or_else(|e| panic!("{e}"));
        let launches = [founder(1, &our_etcd(), token), founder(2, &other, token), founder(3, &our_etcd(), token)];
        let cluster = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}"));
        put_soon(&cluster.members[1], "k").await;
        assert_eq!(members(&cluster.members[2]).await.len(), 3);
        let late = founder(4, &our_etcd(), token);
        assert_refused_as_by_go(&late, "failed to join discovery cluster (discovery: cluster is full)");
    }
}

#[tokio::test]
async fn without_pre_votes_and_haste_a_cluster_elects_leaders_too() {
    let folder = TempDir::for_cluster("no-pre-vote");
    let launches = plan(&our_etcd(), folder.path(), 3);
    let flags = ["--pre-vote=false", "--initial-election-tick-advance=false"];
    let launches: Vec<Launch> = launches.into_iter().map(|launch| launch.with_flags(&flags)).collect();
    let mut cluster = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}"));
    put_soon(&cluster.members[0], "k").await;
    let before = status(&cluster.members[0]).await;
    let leader = leader_of(&cluster).await;
    cluster.members.remove(leader).kill();
    put_soon(&cluster.members[0], "k2").await;
    let after = status(&cluster.members[0]).await;
    assert!(after.raft_term > before.raft_term && after.leader != before.leader);
    let haste = "fast-forwarding election ticks";
    assert!(cluster.members.iter().all(|member| !member.log().contains(haste)), "nobody was asked to hasten");
}

#[tokio::test]
async fn a_member_that_returns_to_its_peers_hastens_its_first_election() {
    let folder = TempDir::for_cluster("haste");
    let launches = plan(&our_etcd(), folder.path(), 3);
    let cluster = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}"));
    put_soon(&cluster.members[0], "k").await;
    cluster.wait_for_log("initialized peer connections; fast-forwarding election ticks");
}
