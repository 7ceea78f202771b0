//! Walkthrough W3, to the letter, without the container and with our binaries alone: a member, data, a watch, a
//! snapshot, the loss of everything, the restore in its old spelling, the member again.

mod tools;

use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, Server, run, text};
use oxetcd_tests::temp::TempDir;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tools::our_etcdctl;

const KUBERNETES: &str = "/registry/services/specs/default/kubernetes";
const DOCUMENT: &str = "{\n  \"kind\": \"Service\",\n  \"apiVersion\": \"v1\",\n  \"metadata\": {\n    \"name\": \
                        \"kubernetes\"\n  }\n}";

/// A shell in the container's root, with our tools first in its path. The tutorial's addresses and paths become ours.
struct Shell<'a> {
    root: &'a Path,
    client: String,
    peer: String,
}

impl Shell<'_> {
    fn command(&self, line: &str) -> Command {
        let line = line
            .replace("http://IP:2379", &self.client)
            .replace("http://IP:2380", &self.peer)
            .replace(" /", &format!(" {}/", self.root.display()));
        let tools = our_etcdctl();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = tools.parent().map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
        let mut command = Command::new("sh");
        command.arg("-c").arg(line).current_dir(self.root);
        command.env("PATH", std::env::join_paths(folders).expect("a search path"));
        command
    }

    fn says(&self, line: &str) -> String {
        let output = run(&mut self.command(line));
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

fn launch(root: &Path) -> Launch {
    Launch::new(&our_etcd(), &root.join("etcd-data"))
}

/// `etcd --data-dir=/etcd-data --name node1 …`, as the tutorial starts it.
fn start(launch: &Launch) -> Server {
    let (client, peer) = (launch.client_url(), launch.peer_url());
    let everywhere = |url: &str| url.replace("127.0.0.1", "0.0.0.0");
    let flags = [
        "--name".to_owned(),
        "node1".to_owned(),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--listen-peer-urls={}", everywhere(&peer)),
        format!("--advertise-client-urls={client}"),
        format!("--listen-client-urls={}", everywhere(&client)),
        format!("--initial-cluster=node1={peer}"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    launch.clone().with_flags(&flags).try_start().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn a_member_its_snapshot_and_its_return() {
    let folder = TempDir::new("w3");
    let root = folder.path();
    std::fs::create_dir(folder.join("backup-data")).expect("a folder");
    let launch = launch(root);
    let shell = Shell { root, client: launch.client_url(), peer: launch.peer_url() };
    let server = start(&launch);

    let health = shell.says("etcdctl --endpoints=http://IP:2379 endpoint health");
    assert!(health.contains(" is healthy: successfully committed proposal: took = "), "{health}");
    for n in 1..=3 {
        assert_eq!(shell.says(&format!("etcdctl --endpoints=http://IP:2379 put foo{n} bar{n}")), "OK\n");
    }
    let values = shell.says("etcdctl --endpoints=http://IP:2379 get --prefix --limit=2 foo --print-value-only");
    assert_eq!(values, "bar1\nbar2\n");
    assert_eq!(shell.says("etcdctl --endpoints=http://IP:2379 get foo1 --print-value-only"), "bar1\n");

    let put = format!("etcdctl --endpoints=http://IP:2379 put '{KUBERNETES}' '{DOCUMENT}'");
    assert_eq!(shell.says(&put), "OK\n");
    let get = format!("etcdctl --endpoints=http://IP:2379 get '{KUBERNETES}'");
    assert_eq!(shell.says(&get), format!("{KUBERNETES}\n{DOCUMENT}\n"));
    watch_a_sibling(&shell);

    let saved = shell.says("etcdctl --endpoints=http://IP:2379 snapshot save /backup-data/snapshot.db");
    assert!(saved.starts_with("Snapshot saved at ") && saved.ends_with("Server version 3.7.0\n"), "{saved}");
    server.kill();
    std::fs::remove_dir_all(folder.join("etcd-data")).expect("data and container are gone");
    std::fs::create_dir(folder.join("etcd-data")).expect("a new volume");

    let restored = run(&mut shell.command(
        "etcdctl --endpoints=http://IP:2379 snapshot restore /backup-data/snapshot.db --name node1 \
         --initial-advertise-peer-urls http://IP:2380 --initial-cluster node1=http://IP:2380 && mv /node1.etcd/* /etcd-data",
    ));
    let told = text(&restored.stderr);
    assert!(restored.status.success() && told.contains("etcdutl snapshot restore"), "{told}");
    assert!(told.contains("restored snapshot") && text(&restored.stdout).is_empty(), "{told}");

    let server = start(&launch);
    assert_eq!(shell.says(&get), format!("{KUBERNETES}\n{DOCUMENT}\n"));
    assert_eq!(shell.says("etcdctl --endpoints=http://IP:2379 get foo3 --print-value-only"), "bar3\n");
    assert_eq!(shell.says("etcdctl --endpoints=http://IP:2379 put foo4 bar4"), "OK\n");
    assert!(shell.says("etcdctl --endpoints=http://IP:2379 member list").contains("started, node1"));
    let status = run(&mut shell.command("etcdctl snapshot status /backup-data/snapshot.db -w table"));
    assert!(status.status.success() && text(&status.stderr).contains("etcdutl snapshot status"), "{status:?}");
    assert!(text(&status.stdout).contains("│ TOTAL KEYS │ TOTAL SIZE │ VERSION │"), "{}", text(&status.stdout));
    server.stop();
}

/// `watch --prefix …` in one shell shows what another one puts.
fn watch_a_sibling(shell: &Shell) {
    let mut command =
        shell.command("exec etcdctl --endpoints=http://IP:2379 watch --prefix '/registry/services/specs/default'");
    let mut watch = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a shell");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    // Puts go on until the watch shows one: it may begin after the first.
    let shown = std::thread::spawn(move || [(); 3].map(|()| lines.next().expect("a line").expect("text")));
    while !shown.is_finished() {
        shell.says("etcdctl --endpoints=http://IP:2379 put '/registry/services/specs/default/sibling' 'x'");
    }
    let shown = shown.join().expect("three lines");
    watch.kill().expect("it still watches");
    watch.wait().expect("it ends");
    assert_eq!(shown, ["PUT", "/registry/services/specs/default/sibling", "x"]);
}
