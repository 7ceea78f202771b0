//! Several members that form one cluster. Their names are m1, m2 …
//!
//! [`Cluster`] is a cluster that stays as it is. In [`Seats`] members come and go: each keeps its seat, which is its name,
//! addresses and data; the program that serves it may change.

use crate::ask;
use crate::process::{Launch, Refusal, Server};
use crate::wire::Wire;
use api::pb::etcdserverpb as pb;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tonic::Status;

/// How long a member may take to settle something with the others.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long one answer may take where it is asked again.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two questions whether something is so by now.
const BREATH: Duration = Duration::from_millis(10);
/// What a member of Go's logs once the cluster has agreed on its version.
const VERSION_KNOWN: &str = "\"updated storage version\",\"new-storage-version\":\"3.7.0\"";

/// Running members. They end with it.
#[derive(Debug)]
pub struct Cluster {
    pub members: Vec<Server>,
}

/// How to start a new cluster: a launch for each member, its data below `folder`.
pub fn plan(binary: &Path, folder: &Path, count: usize) -> Vec<Launch> {
    plan_placed(&vec![binary.to_owned(); count], folder, |_, launch| launch)
}

/// [`plan`] with a program for each member; `place` may change a launch's addresses.
pub fn plan_placed(binaries: &[PathBuf], folder: &Path, place: impl Fn(usize, Launch) -> Launch) -> Vec<Launch> {
    let launch = |(n, binary): (usize, &PathBuf)| place(n, Launch::new(binary, &folder.join(format!("m{}", n + 1))));
    let launches: Vec<Launch> = binaries.iter().enumerate().map(launch).collect();
    let all = initial_cluster(&launches);
    let named = |(n, launch): (usize, Launch)| {
        launch.with_flags(&[&format!("--name=m{n}"), &format!("--initial-cluster={all}")])
    };
    (1..).zip(launches).map(named).collect()
}

/// `m1=URL,m2=URL …`
pub fn initial_cluster(launches: &[Launch]) -> String {
    let member = |(n, launch): (usize, &Launch)| format!("m{n}={}", launch.peer_url());
    (1..).zip(launches).map(member).collect::<Vec<_>>().join(",")
}

impl Cluster {
    /// Founds a cluster of Go's members and waits until it knows its version.
    pub fn found(binary: &Path, folder: &Path, count: usize) -> Cluster {
        let members = start_on_free_ports(folder, || plan(binary, folder, count)).1;
        let cluster = Cluster { members };
        cluster.wait_for_log(VERSION_KNOWN);
        cluster
    }

    /// Starts all members at once, since none is ready before most are there.
    ///
    /// # Errors
    /// The first refusal; the others are stopped.
    pub fn start(launches: &[Launch]) -> Result<Cluster, Refusal> {
        Ok(Cluster { members: start_all(launches)? })
    }

    /// Waits until all members have logged this.
    pub fn wait_for_log(&self, text: &str) {
        for member in &self.members {
            assert!(member.wait_for_log(text, PATIENCE), "no {text} in\n{}", member.log());
        }
    }

    /// `host:port,host:port …`
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Server::client_address).collect::<Vec<_>>().join(",")
    }
}

fn start_all(launches: &[Launch]) -> Result<Vec<Server>, Refusal> {
    std::thread::scope(|scope| {
        let starts: Vec<_> = launches.iter().map(|launch| scope.spawn(|| launch.try_start())).collect();
        starts.into_iter().map(|start| start.join().expect("a start does not panic")).collect()
    })
}

/// Starts what is planned, on other ports where somebody took ours.
fn start_on_free_ports(folder: &Path, plan: impl Fn() -> Vec<Launch>) -> (Vec<Launch>, Vec<Server>) {
    for _ in 0..5 {
        let launches = plan();
        match start_all(&launches) {
            Ok(members) => return (launches, members),
            Err(refusal) if refusal.log.contains("address already in use") => {
                // Members that did start have written their peers' ports.
                std::fs::remove_dir_all(folder).expect("the test's own folder");
                std::fs::create_dir_all(folder).expect("the test's own folder");
            }
            Err(refusal) => panic!("a member did not start: {refusal}"),
        }
    }
    panic!("no free ports")
}

/// A cluster of one, and a learner.
pub async fn with_learner(binary: &Path, folder: &Path) -> (Server, Server) {
    let voter = Launch::new(binary, &folder.join("voter")).start();
    let launch = Launch::new(binary, &folder.join("learner"));
    let request = pb::MemberAddRequest { peer_ur_ls: vec![launch.peer_url()], is_learner: true };
    let wire = Wire::connect(&voter.client_url()).await;
    let _: pb::MemberAddResponse = wire.unary(ask::MEMBER_ADD, &request).await.expect("a learner more");
    let cluster = format!("--initial-cluster=default={},learner={}", voter.launch().peer_url(), launch.peer_url());
    let launch = launch.with_flags(&["--name=learner", "--initial-cluster-state=existing", &cluster]);
    (voter, launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}")))
}

/// A cluster whose members come and go. Those that run end with it.
#[derive(Debug)]
pub struct Seats {
    launches: Vec<Launch>,
    running: Vec<Option<Server>>,
}

impl Seats {
    /// Founds a cluster of these programs on free ports, all with these flags.
    pub fn found(binaries: &[PathBuf], folder: &Path, flags: &[&str]) -> Seats {
        Seats::found_placed(binaries, folder, |_, launch| launch.with_flags(flags))
    }

    /// [`Seats::found`] with launches that `place` may change.
    pub fn found_placed(binaries: &[PathBuf], folder: &Path, place: impl Fn(usize, Launch) -> Launch) -> Seats {
        let data = folder.join("members");
        std::fs::create_dir_all(&data).expect("the test's own folder");
        let (launches, servers) = start_on_free_ports(&data, || plan_placed(binaries, &data, &place));
        Seats { launches, running: servers.into_iter().map(Some).collect() }
    }

    /// Starts members whose launches say everything.
    pub fn of(launches: Vec<Launch>) -> Seats {
        let seats: Vec<usize> = (0..launches.len()).collect();
        let running = seats.iter().map(|_| None).collect();
        let mut all = Seats { launches, running };
        all.start_these(&seats);
        all
    }

    /// How many seats there are.
    pub fn count(&self) -> usize {
        self.launches.len()
    }

    /// The seats whose members run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.count()).filter(|n| self.running[*n].is_some()).collect()
    }

    /// How a seat's member is started.
    pub fn launch(&mut self, n: usize) -> &mut Launch {
        &mut self.launches[n]
    }

    /// Where clients of a seat go.
    pub fn url(&self, n: usize) -> String {
        self.launches[n].client_url()
    }

    /// Where clients of the members that run go.
    pub fn urls(&self) -> Vec<String> {
        self.running().into_iter().map(|n| self.url(n)).collect()
    }

    /// A member that runs.
    pub fn server(&self, n: usize) -> &Server {
        self.running[n].as_ref().unwrap_or_else(|| panic!("nobody sits on {n}"))
    }

    /// Kills a member.
    pub fn kill(&mut self, n: usize) {
        self.taken(n).kill();
    }

    /// Asks a member to stop and waits.
    pub fn stop(&mut self, n: usize) -> ExitStatus {
        self.taken(n).stop()
    }

    /// A member for the test to end.
    pub fn taken(&mut self, n: usize) -> Server {
        self.running[n].take().unwrap_or_else(|| panic!("nobody sits on {n}"))
    }

    /// Starts a member and waits until it serves.
    pub fn start(&mut self, n: usize) {
        self.start_these(&[n]);
    }

    /// Starts several at once: none may serve before the others are there.
    pub fn start_these(&mut self, seats: &[usize]) {
        let launches: Vec<Launch> = seats.iter().map(|n| self.launches[*n].clone()).collect();
        let servers = start_all(&launches).unwrap_or_else(|refusal| panic!("{seats:?}: {refusal}"));
        for (n, server) in seats.iter().zip(servers) {
            self.running[*n] = Some(server);
        }
    }

    /// Adds a member through another one and starts it, as `member add` tells its user to. Answers its seat.
    pub async fn join(&mut self, through: usize, launch: Launch) -> usize {
        let name = format!("m{}", self.count() + 1);
        let request = pb::MemberAddRequest { peer_ur_ls: vec![launch.peer_url()], is_learner: false };
        let added: pb::MemberAddResponse = self.reconfigure(through, ask::MEMBER_ADD, &request).await;
        let named = |member: &pb::Member| {
            let own = if member.name.is_empty() { &name } else { &member.name };
            member.peer_ur_ls.iter().map(|url| format!("{own}={url}")).collect::<Vec<_>>().join(",")
        };
        let initial: Vec<String> = added.members.iter().map(named).collect();
        // The new one asks any member for the list, and ends if that one has not heard of it.
        for n in self.running() {
            self.lists(n, added.members.len()).await;
        }
        self.launches.push(launch.with_flags(&[
            &format!("--name={name}"),
            &format!("--initial-cluster={}", initial.join(",")),
            "--initial-cluster-state=existing",
        ]));
        self.running.push(None);
        self.start(self.count() - 1);
        self.count() - 1
    }

    /// Waits until a member itself knows of this many members.
    async fn lists(&self, n: usize, members: usize) {
        let (wire, end) = (self.wire(n), Instant::now() + PATIENCE);
        loop {
            let request = pb::MemberListRequest { linearizable: false };
            let list: Result<pb::MemberListResponse, Status> = wire.unary(ask::MEMBER_LIST, &request).await;
            if list.as_ref().is_ok_and(|list| list.members.len() == members) {
                return;
            }
            assert!(Instant::now() < end, "{n} does not know of {members}: {list:?}\n{}", self.logs());
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Removes a member through another one and ends it. Answers what it logged.
    pub async fn remove(&mut self, n: usize, through: usize) -> String {
        let request = pb::MemberRemoveRequest { id: self.id(n).await };
        let _: pb::MemberRemoveResponse = self.reconfigure(through, ask::MEMBER_REMOVE, &request).await;
        let server = self.taken(n);
        assert!(server.wait_for_log("removed", PATIENCE), "{}", server.log());
        server.log()
    }

    /// A change of the members. It is refused until connections have stood for 5 s.
    async fn reconfigure<A: prost::Message + Default>(
        &self,
        through: usize,
        path: &'static str,
        request: &impl prost::Message,
    ) -> A {
        let (wire, end) = (Wire::lazy(&self.url(through), PATIENCE), Instant::now() + PATIENCE);
        loop {
            match wire.unary(path, request).await {
                Ok(answer) => return answer,
                Err(e) => {
                    let early = e.message() == "etcdserver: unhealthy cluster";
                    assert!(early && Instant::now() < end, "{path} through {through}: {e}\n{}", self.logs());
                }
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// A connection to a member, or to where it will be.
    pub fn wire(&self, n: usize) -> Wire {
        Wire::lazy(&self.url(n), ANSWER)
    }

    /// A connection to a member that asks again while leaders change.
    pub fn steady(&self, n: usize) -> Wire {
        Wire::steady(&self.url(n))
    }

    /// What a member says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, n: usize) -> Result<pb::StatusResponse, Status> {
        self.wire(n).unary(ask::STATUS, &pb::StatusRequest {}).await
    }

    /// A member's id.
    pub async fn id(&self, n: usize) -> u64 {
        let status: Result<pb::StatusResponse, Status> = self.steady(n).unary(ask::STATUS, &pb::StatusRequest {}).await;
        status.unwrap_or_else(|e| panic!("member {n}: {e}")).header.expect("answers have headers").member_id
    }

    /// The seat of the leader that all running members follow, in one term.
    pub async fn leader(&self) -> usize {
        let running = self.running();
        self.leader_among(&running).await
    }

    /// [`Seats::leader`] among some members.
    pub async fn leader_among(&self, seats: &[usize]) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for n in seats {
                seen.extend(self.status(*n).await.ok().map(|status| (*n, status)));
            }
            let views: BTreeSet<_> = seen.iter().map(|(_, status)| (status.leader, status.raft_term)).collect();
            let own = |status: &pb::StatusResponse| status.header.as_ref().map(|header| header.member_id);
            let leader = seen.iter().find(|(_, status)| own(status) == Some(status.leader));
            if let (Some((n, _)), 1, true) = (leader, views.len(), seen.len() == seats.len()) {
                return *n;
            }
            assert!(Instant::now() < end, "no leader that all follow: {views:?}\n{}", self.logs());
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Puts through a member; answers the revision.
    ///
    /// # Errors
    /// What the member says, or its silence.
    pub async fn put(&self, n: usize, key: &str) -> Result<i64, Status> {
        let wire = Wire::lazy(&self.url(n), crate::wire::PATIENCE);
        let done: pb::PutResponse = wire.unary(ask::PUT, &ask::put(key, "v")).await?;
        Ok(done.header.expect("answers have headers").revision)
    }

    /// Puts through a member until it succeeds; answers the revision.
    pub async fn put_soon(&self, n: usize, key: &str) -> i64 {
        let (wire, end) = (self.wire(n), Instant::now() + PATIENCE);
        loop {
            let done: Result<pb::PutResponse, Status> = wire.unary(ask::PUT, &ask::put(key, "v")).await;
            match done {
                Ok(done) => return done.header.expect("answers have headers").revision,
                Err(e) => assert!(Instant::now() < end, "{key} through {n}: {e}\n{}", self.logs()),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Writes through each running member, waits until all have applied all, and compares what they hold.
    pub async fn agree(&self) {
        let mut revision = 0;
        for n in self.running() {
            revision = self.put_soon(n, &format!("agree{n}")).await;
        }
        self.agree_at(revision).await;
    }

    /// Waits until all running members have applied a revision, and compares what they hold there.
    pub async fn agree_at(&self, revision: i64) {
        let mut hashes = BTreeSet::new();
        for n in self.running() {
            self.reaches(n, revision).await;
            let hash: Result<pb::HashKvResponse, Status> =
                self.steady(n).unary(ask::HASH_KV, &ask::hash_kv(revision)).await;
            let hash = hash.unwrap_or_else(|e| panic!("HashKV of {n}: {e}"));
            // 3.5 does not say of which revision its hash is.
            assert!([0, revision].contains(&hash.hash_revision), "{hash:?}");
            hashes.insert((hash.hash, hash.compact_revision));
        }
        assert_eq!(hashes.len(), 1, "members differ at {revision}: {hashes:?}\n{}", self.logs());
    }

    /// Waits until a member has applied a revision.
    pub async fn reaches(&self, n: usize, revision: i64) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status(n).await;
            let reached = status.as_ref().ok().and_then(|s| s.header.as_ref()).map(|header| header.revision);
            if reached >= Some(revision) {
                return;
            }
            assert!(Instant::now() < end, "{n} is not at {revision}: {status:?}\n{}", self.logs());
            tokio::time::sleep(BREATH).await;
        }
    }

    /// The ends of all logs, for a test that fails.
    pub fn logs(&self) -> String {
        let end = |server: &Server| {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        let one = |n: usize| format!("== member {n}\n{}\n", end(self.server(n)));
        self.running().into_iter().map(one).collect()
    }
}
