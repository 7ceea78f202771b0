//! Our etcdctl against Go's 3.7.1 on a cluster of three Go members: the commands that look after a cluster print the same
//! and do the same. Needs `OXETCD_REFERENCE`.
//!
//! Both tools ask the same cluster. A line that changes something is run by Go's tool, undone, run by ours, undone.

mod tools;

use oxetcd_tests::cluster::Cluster;
use oxetcd_tests::places::Reference;
use oxetcd_tests::process::{Launch, Server, free_ports};
use oxetcd_tests::temp::TempDir;
use serde_json::Value;
use std::path::PathBuf;
use tools::{Said, ask, insist, our_etcdctl, plain, until, words};

/// A cluster, the two tools, and how often they agreed.
struct Both {
    reference: Reference,
    cluster: Cluster,
    folder: TempDir,
    dead: u16,
    equal: usize,
}

#[derive(Clone, Copy, Debug)]
enum Tool {
    Go,
    Ours,
}

impl Both {
    fn new(label: &str) -> Option<Both> {
        let reference = Reference::find()?;
        let folder = TempDir::for_cluster(label);
        let members = folder.join("members");
        std::fs::create_dir(&members).expect("a folder");
        let cluster = Cluster::found(&reference.program("3.7", "etcd"), &members, 3);
        Some(Both { reference, cluster, folder, dead: free_ports().0, equal: 0 })
    }

    fn program(&self, tool: Tool) -> PathBuf {
        match tool {
            Tool::Go => self.reference.program("3.7", "etcdctl"),
            Tool::Ours => our_etcdctl(),
        }
    }

    /// Runs a line. `ALL`, `ONE`, `DEAD`: endpoints; `PEERn`, `IDn`: peer URL and id of member n.
    fn says(&self, tool: Tool, line: &str) -> Said {
        let mut line = line
            .replace("ALL", &format!("--endpoints={}", self.cluster.endpoints()))
            .replace("ONE", &format!("--endpoints={}", self.cluster.members[0].client_address()))
            .replace("DEAD", &format!("--command-timeout=2s --endpoints=127.0.0.1:{}", self.dead));
        for (n, member) in (1..).zip(&self.cluster.members) {
            line = line.replace(&format!("PEER{n}"), &member.launch().peer_url());
            if line.contains(&format!("ID{n}")) {
                line = line.replace(&format!("ID{n}"), &format!("{:x}", self.id_of(&format!("m{n}"))));
            }
        }
        ask(&self.program(tool), self.folder.path(), &[], &words(&line), b"")
    }

    /// What Go's tool prints; it must succeed.
    fn go(&self, line: &str) -> String {
        let said = insist(|| self.says(Tool::Go, line));
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        said.out
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.go(&format!("{line} -w json"))).expect("JSON")
    }

    /// The members that `find` finds.
    fn members(&self, find: impl Fn(&Value) -> bool) -> Vec<u64> {
        let list = self.json("ONE member list");
        let members = list["members"].as_array().expect("members").iter().filter(|member| find(member));
        members.map(|member| member["ID"].as_u64().expect("an id")).collect()
    }

    fn id_of(&self, name: &str) -> u64 {
        self.members(|member| member["name"] == name)[0]
    }

    /// The leader, once all members know it.
    fn leader(&self) -> u64 {
        until("one leader", || {
            let list = self.json("ALL endpoint status");
            let leaders = list.as_array()?.iter().map(|member| member["Status"]["leader"].as_u64());
            let leaders: Option<Vec<u64>> = leaders.collect();
            leaders.filter(|leaders| leaders.iter().all(|leader| *leader == leaders[0])).map(|leaders| leaders[0])
        })
    }

    /// Waits until all members have applied and stored everything: nothing changes from one answer to the next.
    fn wait_for_quiet(&self) {
        let status = || self.go("ALL endpoint status");
        until("quiet members", || {
            let seen = [status(), status(), status(), status()];
            seen.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
        });
    }

    /// Both tools print the same about the same cluster, to the byte; clocks and durations aside on standard error.
    fn exact(&mut self, line: &str) {
        let [theirs, ours] = [Tool::Go, Tool::Ours].map(|tool| {
            let said = self.says(tool, line);
            Said { err: plain(&said.err, &[]), ..said }
        });
        assert_eq!(theirs, ours, "etcdctl {line}");
        self.equal += 1;
    }

    /// The same but for ids and durations, whatever the order of lines.
    fn alike(&mut self, line: &str) {
        let [theirs, ours] = [Tool::Go, Tool::Ours].map(|tool| sorted(self.says(tool, line)));
        assert_eq!(theirs, ours, "etcdctl {line}");
        self.equal += 1;
    }

    /// Each tool runs its line from the same state, which `prepare` makes.
    fn in_turn(&mut self, what: &str, prepare: &mut dyn FnMut(&Both) -> String, undo: &mut dyn FnMut(&Both)) {
        let [theirs, ours] = [Tool::Go, Tool::Ours].map(|tool| {
            let line = prepare(self);
            let said = self.says(tool, &line);
            undo(self);
            sorted(said)
        });
        assert_eq!(theirs, ours, "{what}");
        self.equal += 1;
    }

    fn end(self, what: &str) {
        println!("{what}: {} equal command lines", self.equal);
    }
}

/// Ids are random, and with them the order of members. A downgrade that is enabled for a moment may have come to pass
/// before the answer that names the cluster's version.
fn sorted(said: Said) -> Said {
    let out = plain(&said.out, &[]).replace("3.6", "3.7");
    let mut lines: Vec<String> = out.lines().map(sorted_members).collect();
    lines.sort();
    Said { code: said.code, out: lines.join("\n"), err: plain(&said.err, &[]) }
}

fn sorted_members(line: &str) -> String {
    let sort = |list: &str, between: &str| {
        let mut items: Vec<&str> = list.split(between).collect();
        items.sort_unstable();
        items.join(between)
    };
    if let Some(list) = line.strip_prefix("ETCD_INITIAL_CLUSTER=").map(|list| list.trim_matches('"')) {
        return format!("ETCD_INITIAL_CLUSTER=\"{}\"", sort(list, ","));
    }
    match line.split_once("\"members\":[{").and_then(|(head, rest)| Some((head, rest.strip_suffix("}]}")?))) {
        Some((head, list)) => format!("{head}\"members\":[{{{}}}]}}", sort(list, "},{")),
        None => line.to_owned(),
    }
}

const FORMATS: [&str; 5] = ["simple", "json", "fields", "protobuf", "table"];

#[test]
fn endpoints_of_a_cluster() {
    let Some(mut both) = Both::new("endpoints") else { return };
    for n in 0..5 {
        both.go(&format!("ALL put key{n} value"));
    }
    both.wait_for_quiet();
    for format in FORMATS {
        for line in ["ALL endpoint status", "ONE endpoint status --cluster", "ALL endpoint hashkv", "ONE member list"] {
            both.exact(&format!("{line} -w {format}"));
        }
    }
    for line in [
        "ONE endpoint hashkv --cluster",
        "ALL endpoint hashkv --cluster --rev=3 -w json",
        "ALL endpoint hashkv --rev=99",
        "DEAD endpoint status --cluster",
        "DEAD endpoint hashkv --cluster -w json",
        "DEAD endpoint health --cluster",
        "DEAD ALL endpoint status",
        "DEAD ALL endpoint hashkv -w json",
        "ONE member list --hex -w json",
        "ONE member list --hex -w fields",
    ] {
        both.exact(line);
    }
    for line in [
        "ALL endpoint health",
        "ONE endpoint health --cluster",
        "ONE endpoint health -w json",
        "ONE endpoint health -w table",
        "DEAD ALL endpoint health",
        "ONE defrag --cluster",
    ] {
        both.alike(line);
    }
    both.end("endpoints of a cluster");
}

#[test]
fn leaders_and_downgrades() {
    let Some(mut both) = Both::new("leaders") else { return };
    for line in [
        "ONE downgrade validate 3.6",
        "ONE downgrade validate 3.6 -w json",
        "ONE downgrade validate 3.6 -w protobuf",
        "ONE downgrade validate 3.6 -w fields",
        "ONE downgrade validate 3.6 -w table",
        "ONE downgrade validate 3.6.0",
        "ONE downgrade validate 3.7",
        "ONE downgrade validate 3.5",
        "ONE downgrade validate x",
        "ONE downgrade validate ''",
        "ONE downgrade validate 3.6 3.5",
        "ONE downgrade enable",
        "ONE downgrade enable ''",
        "ONE downgrade enable 3.4",
        "ONE downgrade enable 3.6 x",
        "ONE downgrade cancel x",
        "ONE downgrade cancel -w json",
        "ALL move-leader 1234",
        "ALL move-leader 0",
        "ALL move-leader",
        "ALL move-leader x",
        "DEAD move-leader 1234",
    ] {
        both.exact(line);
    }
    downgrades(&mut both);
    leaders(&mut both);
    both.end("leaders and downgrades");
}

/// Waits until no downgrade is on its way any more: one that was ended may have taken effect already.
fn settled(both: &Both) {
    both.go("ONE downgrade cancel");
    until("the cluster's version", || both.go("ONE downgrade cancel").contains("cluster version 3.7").then_some(()));
}

fn downgrades(both: &mut Both) {
    for format in FORMATS {
        let mut enable = |_: &Both| format!("ONE downgrade enable 3.6 -w {format}");
        both.in_turn(&format!("downgrade enable -w {format}"), &mut enable, &mut settled);
        let mut cancel = |both: &Both| {
            both.go("ONE downgrade enable 3.6");
            format!("ONE downgrade cancel -w {format}")
        };
        both.in_turn(&format!("downgrade cancel -w {format}"), &mut cancel, &mut settled);
    }
    both.go("ONE downgrade enable 3.6");
    both.exact("ONE downgrade enable 3.6");
    settled(both);
}

fn leaders(both: &mut Both) {
    for tool in [Tool::Go, Tool::Ours] {
        let from = both.leader();
        let to = both.members(|member| member["ID"] != from)[0];
        let said = both.says(tool, &format!("ALL move-leader {to:x}"));
        assert_eq!((said.code, said.out), (Some(0), format!("Leadership transferred from {from:x} to {to:x}\n")));
        assert_eq!(both.leader(), to, "{tool:?}");
    }
    for format in &FORMATS[1..] {
        let mut prepare = |both: &Both| {
            let leader = both.leader();
            let to = both.members(|member| member["ID"] != leader)[0];
            format!("ALL move-leader {to:x} -w {format}")
        };
        both.in_turn(&format!("move-leader -w {format}"), &mut prepare, &mut |_| {});
    }
    let leader = both.leader();
    let follower = both.cluster.members.iter().map(Server::client_address).find(|address| {
        let status = both.json(&format!("--endpoints={address} endpoint status"));
        status[0]["Status"]["header"]["member_id"] != leader
    });
    let follower = follower.expect("two members follow");
    both.exact(&format!("--endpoints={follower} move-leader {leader:x}"));
    both.exact(&format!("--endpoints={follower} move-leader 1234"));
}

/// Peer URLs that were never used: a member's id is made of its URL and the second.
struct Urls(u16);

impl Urls {
    fn next(&mut self) -> String {
        self.0 += 1;
        format!("http://127.0.0.1:{:05}", self.0)
    }
}

/// Removes the members that never started.
fn remove_unstarted(both: &Both) {
    for id in both.members(|member| member.get("name").is_none()) {
        both.go(&format!("ALL member remove {id:x}"));
    }
}

/// Waits until the members have been connected long enough for the cluster to be changed.
fn wait_until_changeable(both: &Both, urls: &mut Urls) {
    until("a cluster that can be changed", || {
        let said = both.says(Tool::Go, &format!("ALL member add probe --peer-urls={}", urls.next()));
        assert!(said.code == Some(0) || said.err.contains("etcdserver: unhealthy cluster"), "{said:?}");
        said.code.filter(|code| *code == 0)
    });
    remove_unstarted(both);
}

#[test]
fn members_come_and_go() {
    let Some(mut both) = Both::new("members") else { return };
    let mut urls = Urls(10_000);
    wait_until_changeable(&both, &mut urls);
    for line in [
        "ALL member add",
        "ALL member add x",
        "ALL member add x http://y Https://z w",
        "ALL member add x y",
        "ALL member add x --peer-urls=foo",
        "ALL member add x --peer-urls=http://127.0.0.1",
        "ALL member remove",
        "ALL member remove zz",
        "ALL member promote",
        "ALL member promote 0x1",
        "ALL member update ID1",
        "ALL member update zz --peer-urls=PEER1",
        "ALL member update ID1 --peer-urls=foo",
    ] {
        both.exact(line);
    }
    // These reach the server, whose address stands in the log line of the attempt: one endpoint, one address.
    for line in [
        "ONE member add x --peer-urls=PEER1",
        "ONE member add x --learner --peer-urls=PEER2",
        "ONE member remove 1234",
        "ONE member promote 1234",
        "ONE member promote ID1",
        "ONE member update 1234 --peer-urls=http://127.0.0.1:9",
        "ONE member update ID1 --peer-urls=PEER2",
        "ONE member update ID2 --peer-urls=PEER2",
        "ONE member update ID2 --peer-urls=PEER2 -w json",
        "ONE member update ID2 --peer-urls=PEER2 -w json --hex",
        "ONE member update ID2 --peer-urls=PEER2 -w protobuf",
        "ONE member update ID2 --peer-urls=PEER2 -w fields",
        "ONE member update ID2 --peer-urls=PEER2 -w table",
    ] {
        both.exact(line);
    }
    additions(&mut both, &mut urls);
    removals(&mut both, &mut urls);
    both.end("members come and go");
}

fn additions(both: &mut Both, urls: &mut Urls) {
    for line in ["", "--learner", "-w json", "--learner -w json", "--hex -w json", "-w fields", "-w table"] {
        // The tools can't add the same URL within one second, so it is masked, not repeated.
        let [theirs, ours] = [Tool::Go, Tool::Ours].map(|tool| {
            let url = urls.next();
            let said = both.says(tool, &format!("ONE member add 'm 4' --peer-urls={url},{url}0 {line}"));
            remove_unstarted(both);
            let masked = |text: &str| text.replace(&url, "NEW");
            sorted(Said { code: said.code, out: masked(&said.out), err: masked(&said.err) })
        });
        assert_eq!(theirs, ours, "member add {line}");
        both.equal += 1;
    }
}

fn removals(both: &mut Both, urls: &mut Urls) {
    for format in FORMATS {
        let mut prepare = |both: &Both| {
            both.go(&format!("ALL member add m4 --learner --peer-urls={}", urls.next()));
            let id = both.members(|member| member.get("name").is_none())[0];
            format!("ONE member remove {id:x} -w {format}")
        };
        both.in_turn(&format!("member remove -w {format}"), &mut prepare, &mut |_| {});
    }
    both.go(&format!("ALL member add m4 --learner --peer-urls={}", urls.next()));
    let id = both.members(|member| member.get("name").is_none())[0];
    both.exact(&format!("ONE member promote {id:x}"));
    both.exact("ONE member add m5 --learner --peer-urls=http://127.0.0.1:9");
    both.wait_for_quiet();
    both.exact("ALL endpoint status --cluster");
    both.go(&format!("ALL member remove {id:x}"));
    both.exact(&format!("ONE member remove {id:x}"));
    both.exact(&format!("ONE member promote {id:x}"));
}

/// A learner that has started and is in sync.
struct Learner {
    id: u64,
    server: Server,
}

fn learner(both: &Both, n: usize) -> Learner {
    let launch = Launch::new(&both.reference.program("3.7", "etcd"), &both.folder.join(&format!("learner{n}")));
    let add = format!("ALL member add learner --learner --peer-urls={}", launch.peer_url());
    let added = both.go(&add);
    // As its user would, from what `member add` printed.
    let given = |name: &str| {
        let line = added.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).expect("a variable");
        line.trim_matches('"').to_owned()
    };
    let flags = [
        format!("--name={}", given("ETCD_NAME")),
        format!("--initial-cluster={}", given("ETCD_INITIAL_CLUSTER")),
        format!("--initial-cluster-state={}", given("ETCD_INITIAL_CLUSTER_STATE")),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = launch.with_flags(&flags).try_start().unwrap_or_else(|e| panic!("{e}"));
    Learner { id: both.id_of("learner"), server }
}

#[test]
fn learners_are_promoted() {
    let Some(mut both) = Both::new("learners") else { return };
    wait_until_changeable(&both, &mut Urls(10_000));
    for (n, format) in ["simple", "json"].into_iter().enumerate() {
        let [theirs, ours] = [(Tool::Go, 2 * n), (Tool::Ours, 2 * n + 1)].map(|(tool, n)| {
            let learner = learner(&both, n);
            let names = [(learner.server.client_url(), "CLIENT"), (learner.server.launch().peer_url(), "PEER")];
            let line = format!("ONE member promote {:x} -w {format}", learner.id);
            // It catches up with the leader while it is asked.
            let said = until("a learner in sync", || {
                Some(both.says(tool, &line)).filter(|said| !said.err.contains("in sync with leader"))
            });
            both.go(&format!("ALL member remove {:x}", learner.id));
            learner.server.kill();
            let out = names.iter().fold(said.out.clone(), |out, (text, name)| out.replace(text, name));
            sorted(Said { out, ..said })
        });
        assert_eq!(theirs.code, Some(0), "{theirs:?}");
        assert_eq!(theirs, ours, "member promote -w {format}");
        both.equal += 1;
    }
    both.end("learners are promoted");
}
