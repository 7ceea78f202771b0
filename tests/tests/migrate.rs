//! docs/operations/migrate.md, typed as it stands: its commands are taken from the document and run, on a cluster of Go's
//! members that becomes one of ours, and on one of ours that goes back to Go 3.6. Needs `OXETCD_REFERENCE`.

mod tools;

use oxetcd_tests::cluster::{PATIENCE, Seats};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use std::path::PathBuf;
use std::time::Instant;
use tools::{Said, ask, insist, our_etcdctl, words};

const DOCUMENT: &str = include_str!("../../docs/operations/migrate.md");

/// The commands below a heading, without what is said of them.
fn commands(heading: &str) -> Vec<String> {
    let (_, section) = DOCUMENT.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let section = section.split("\n## ").next().expect("at least one part");
    let (_, block) = section.split_once("```\n").expect("a block of commands");
    let (block, _) = block.split_once("```").expect("which ends");
    let lines = block.lines().map(|line| line.split(" #").next().expect("at least one part").trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// What a place holder of the document stands for.
type Meaning = (&'static str, String);

struct Typist {
    seats: Seats,
    folder: TempDir,
    etcdctl: PathBuf,
}

impl Typist {
    fn new(name: &str, binary: &std::path::Path) -> Typist {
        let folder = TempDir::for_cluster(name);
        let seats = Seats::found(&vec![binary.to_owned(); 3], folder.path(), &[]);
        Typist { seats, folder, etcdctl: our_etcdctl() }
    }

    fn endpoints(&self) -> String {
        self.seats.urls().iter().map(|url| url.trim_start_matches("http://").to_owned()).collect::<Vec<_>>().join(",")
    }

    /// Runs a line of `etcdctl`. Answers what it printed.
    fn etcdctl(&self, line: &str, meanings: &[Meaning]) -> String {
        let one = self.endpoints().split(',').next().expect("somebody runs").to_owned();
        let mut line = line.replace("--endpoints=A,B,C", &format!("--endpoints={}", self.endpoints()));
        line = line.replace("--endpoints=A ", &format!("--endpoints={one} "));
        for (what, meaning) in meanings {
            line = line.replace(what, meaning);
        }
        assert!(!line.contains('<'), "{line}: somebody must say what is meant");
        let arguments: Vec<String> = words(&line).into_iter().skip(1).collect();
        // Connections between members count when they have stood for 5 s.
        let until = Instant::now() + PATIENCE;
        let said = loop {
            let said = insist(|| ask(&self.etcdctl, self.folder.path(), &[], &arguments, b""));
            if !said.err.contains("unhealthy cluster") || Instant::now() > until {
                break said;
            }
        };
        assert_eq!(said.code, Some(0), "{line}: {said:?}\n{}", self.seats.logs());
        assert_equal_hashes(&line, &said);
        said.out
    }

    async fn before(&self) {
        for n in 0..20 {
            self.seats.put_soon(n % 3, &format!("k{n}")).await;
        }
        self.seats.agree().await;
        commands("Before").iter().for_each(|line| drop(self.etcdctl(line, &[])));
    }

    /// The members' seats, followers first.
    async fn leader_last(&self) -> Vec<usize> {
        let leader = self.seats.leader().await;
        let running = self.seats.running().into_iter();
        let mut seats: Vec<usize> = running.filter(|n| *n != leader).collect();
        seats.push(leader);
        seats
    }

    /// One member by the document's block.
    async fn exchange(&mut self, n: usize, program: &std::path::Path) {
        for line in commands("In place, one member after the other") {
            if line.starts_with("kill -TERM") {
                self.seats.stop(n);
            } else if line == "<the same command line with our etcd>" {
                self.seats.launch(n).binary = program.to_owned();
                self.seats.start(n);
                self.seats.agree().await;
            } else {
                let this = self.seats.url(n).replace("http://", "");
                self.etcdctl(&line, &[("<this member>", this)]);
            }
        }
    }
}

/// A table of hashes has one hash for one revision and compact revision.
fn assert_equal_hashes(line: &str, said: &Said) {
    if !line.contains("hashkv") {
        return;
    }
    let rows: Vec<Vec<&str>> = said
        .out
        .lines()
        .filter(|row| row.contains("127.0.0.1"))
        .map(|row| row.split(['│', '|']).map(str::trim).filter(|cell| !cell.is_empty()).skip(1).collect())
        .collect();
    assert!(rows.len() == 3 && rows.windows(2).all(|two| two[0] == two[1]), "{}", said.out);
}

fn reference() -> Option<Reference> {
    Reference::find()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gos_members_become_ours_in_place_and_with_a_fresh_one() {
    let Some(reference) = reference() else { return };
    let mut typist = Typist::new("migrate", &reference.program("3.7", "etcd"));
    typist.before().await;
    for n in typist.leader_last().await {
        typist.exchange(n, &our_etcd()).await;
    }
    with_a_fresh_member(&mut typist).await;
}

/// The block for a new machine.
async fn with_a_fresh_member(typist: &mut Typist) {
    let old = typist.leader_last().await[0];
    let id = format!("{:x}", typist.seats.id(old).await);
    let fresh = Launch::new(&our_etcd(), &typist.folder.join("fresh"));
    let mut printed = String::new();
    for line in commands("With a fresh member") {
        if let Some(flags) = line.strip_prefix("etcd ") {
            let cluster =
                printed.lines().find_map(|line| line.strip_prefix("ETCD_INITIAL_CLUSTER=")).expect("it says so");
            let flags =
                flags.replace("<name>", "fresh").replace("<as member add printed it>", cluster.trim_matches('"'));
            let flags: Vec<&str> = flags.trim_end_matches(" …").split(' ').collect();
            let server = fresh.clone().with_flags(&flags).try_start().unwrap_or_else(|refusal| panic!("{refusal}"));
            let until = Instant::now() + PATIENCE;
            while !typist.etcdctl("etcdctl --endpoints=A,B,C member list", &[]).contains("started, fresh") {
                assert!(Instant::now() < until, "{}", server.log());
            }
            return;
        }
        let meanings =
            [("<id of the old member>", id.clone()), ("<name>", "fresh".into()), ("http://NEW:2380", fresh.peer_url())];
        printed = typist.etcdctl(&line, &meanings);
        if line.contains("member remove") {
            typist.seats.stop(old);
        }
    }
    panic!("the document starts no member");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_members_become_members_of_go_3_6() {
    let Some(reference) = reference() else { return };
    let mut typist = Typist::new("back", &our_etcd());
    typist.before().await;
    for line in commands("Back to Go 3.6") {
        let until = Instant::now() + PATIENCE;
        // Storage version and target of each.
        while typist.etcdctl(&line, &[]).matches("3.6.0").count() < 6 && line.contains("endpoint status") {
            assert!(Instant::now() < until, "the storage version stays\n{}", typist.seats.logs());
        }
    }
    for n in typist.leader_last().await {
        typist.exchange(n, &reference.program("3.6", "etcd")).await;
    }
    // The last one ends the downgrade.
    let until = Instant::now() + PATIENCE;
    let leader = typist.seats.leader().await;
    assert!(typist.seats.server(leader).wait_for_log("the cluster has been downgraded", PATIENCE));
    while typist.etcdctl("etcdctl --endpoints=A,B,C endpoint status -w json", &[]).contains("\"enabled\":true") {
        assert!(Instant::now() < until, "{}", typist.seats.logs());
    }
}
