//! docs/operations/runbooks.md, played: each chapter's lines are typed on machines of its own, which are a folder and an address
//! each in a network namespace, and afterwards the data is there. Needs root, for the namespaces.

mod tools;

use oxetcd_tests::cluster::PATIENCE;
use oxetcd_tests::net::{self, Net};
use oxetcd_tests::places::{our_etcd, read_source, source};
use oxetcd_tests::process::{Launch, Server, run, text};
use oxetcd_tests::temp::TempDir;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Instant;
use tools::{Said, insist, our_etcdctl};

const PAPER: &str = "docs/operations/runbooks.md";
const ADDRESSES: [&str; 3] = ["10.0.0.11", "10.0.0.12", "10.0.0.13"];
/// What every chapter must leave as it is.
const KEPT: (&str, &str) = ("/registry/kept", "this");
/// Paths of the paper that a machine has for itself.
const OWN: [&str; 3] = ["/var/lib/etcd", "/etc/", "/usr/local/bin/"];

/// A block of the paper that is no terminal, by what it begins with.
fn block(begins: &str) -> String {
    let paper = read_source(PAPER);
    let at = paper.find(&format!("```\n{begins}")).unwrap_or_else(|| panic!("no block begins with {begins}"));
    paper[at + 4..].split("```").next().expect("at least one part").to_owned()
}

/// Machine and command of each line of a chapter.
fn lines(chapter: &str) -> Vec<(usize, String)> {
    let paper = read_source(PAPER);
    let (_, after) = paper.split_once(&format!("\n## {chapter}\n")).unwrap_or_else(|| panic!("no chapter {chapter}"));
    let section = after.split("\n## ").next().expect("at least one part");
    let (_, terminal) = section.split_once("```\n").expect("a terminal");
    let typed = terminal.split("```").next().expect("at least one part").lines().map(|line| {
        let (machine, command) = line.split_once("$ ").unwrap_or_else(|| panic!("{line}: nobody's line"));
        let n: usize = machine.trim_start_matches('m').parse().unwrap_or_else(|_| panic!("{line}: whose?"));
        (n - 1, command.to_owned())
    });
    typed.collect()
}

/// A program in a folder of the test's own, which becomes another one.
fn script(path: &Path, body: &str) {
    std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("the test's own folder");
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).expect("the test's own folder");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("the test's own file");
}

/// What the chapters do with what a package or an image would have.
struct Stage {
    folder: TempDir,
    secure: bool,
    running: Vec<Option<Server>>,
    /// Started with `--no-block`.
    starting: Vec<Option<JoinHandle<Server>>>,
    members: usize,
}

impl Stage {
    /// A cluster of so many members that serves, with a backup of what it holds.
    fn set(members: usize, secure: bool, settings: &str) -> Stage {
        let folder = TempDir::for_cluster("runbook");
        let none = || (0..members).map(|_| None).collect();
        let mut stage =
            Stage { folder, secure, running: none(), starting: (0..members).map(|_| None).collect(), members };
        stage.install(settings);
        if secure {
            let hosts = ADDRESSES.join(",");
            stage.insist(0, &format!("tls-setup --out /backup/pki {hosts}"));
            for n in 0..members {
                stage.insist(n, "cp /backup/pki/ca.crt /backup/pki/server.* /backup/pki/peer.* /etc/etcd/");
            }
        }
        for n in 0..members {
            stage.systemctl(n, if n + 1 < members { "start --no-block etcd" } else { "start etcd" });
        }
        stage.etcdctl(&format!("put {} {}", KEPT.0, KEPT.1));
        if !secure {
            stage.insist(0, "etcdctl --endpoints=http://10.0.0.11:2379 snapshot save /backup/etcd.db");
        }
        stage.etcdctl("put /registry/later that");
        stage
    }

    /// Programs and settings of each machine.
    fn install(&self, settings: &str) {
        let shared = self.folder.path();
        std::fs::create_dir_all(shared.join("backup")).expect("the test's own folder");
        let etcd = our_etcd();
        // The new version is another file that becomes the same program.
        script(&shared.join("backup/etcd"), &format!("# newer\nexec {} \"$@\"", etcd.display()));
        script(
            &shared.join("bin/tls-setup"),
            &format!("exec {} \"$@\"", source("contrib/tls-setup/tls-setup").display()),
        );
        // The user etcd need not be there; the folder must.
        script(&shared.join("bin/chown"), "[ \"$1 $2\" = '-R etcd:etcd' ] && [ -d \"$3\" ]");
        let common = block("ETCD_NAME=m1");
        for (n, address) in ADDRESSES.iter().enumerate().take(self.members) {
            let own = |line: &str| match line.starts_with("ETCD_INITIAL_CLUSTER=") {
                true if self.members == 1 => line.split(',').next().expect("at least one part").to_owned(),
                true => line.to_owned(),
                false => line.replace("m1", &format!("m{}", n + 1)).replace(ADDRESSES[0], address),
            };
            let mut file = common.lines().map(own).collect::<Vec<_>>().join("\n") + "\n" + settings;
            if self.secure {
                file = file.replace("http:", "https:") + &secure_settings();
            }
            for folder in ["etc/default", "etc/etcd", "var/lib/etcd"] {
                std::fs::create_dir_all(self.machine(n).join(folder)).expect("the test's own folder");
            }
            std::fs::write(self.machine(n).join("etc/default/etcd"), file).expect("the test's own folder");
            script(&self.machine(n).join("usr/local/bin/etcd"), &format!("exec {} \"$@\"", etcd.display()));
        }
    }

    fn machine(&self, n: usize) -> PathBuf {
        self.folder.join(&format!("m{}", n + 1))
    }

    /// The line with the paths that it means here.
    fn local(&self, n: usize, line: &str) -> String {
        let mut line = line.replace("/backup", &self.folder.join("backup").display().to_string());
        for path in OWN {
            line = line.replace(path, &format!("{}{path}", self.machine(n).display()));
        }
        line
    }

    /// A line in a shell of root's on a machine.
    fn shell(&self, n: usize, line: &str) -> Said {
        let tools = our_etcdctl().parent().expect("it has a folder").to_owned();
        let system = std::env::var("PATH").expect("tests have one");
        let bin = [self.machine(n).join("usr/local/bin"), self.folder.join("bin"), tools];
        let path = bin.map(|folder| folder.display().to_string()).join(":") + ":" + &system;
        let mut command = Command::new("env");
        command.current_dir(self.machine(n)).args([format!("PATH={path}"), self.endpoints()]);
        command.args(["bash", "-e", "-o", "pipefail", "-c", &self.local(n, line)]);
        let output = run(&mut command);
        Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The variable as the paper exports it, for the members that there are.
    fn endpoints(&self) -> String {
        let line = block("export ETCDCTL_ENDPOINTS");
        let (name, all) = line.trim().trim_start_matches("export ").split_once('=').expect("it is set");
        let first = all.split(',').take(self.members).collect::<Vec<_>>().join(",");
        let first = if self.secure { first.replace("http:", "https:") } else { first };
        format!("{name}={first}")
    }

    /// A line that must do what it is for.
    fn insist(&self, n: usize, line: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = insist(|| self.shell(n, line));
            // Connections between members count when they have stood for 5 s.
            let early = said.err.contains("unhealthy cluster") || said.err.contains("unhealthy:");
            if !early || Instant::now() > end {
                assert_eq!(said.code, Some(0), "m{}$ {line}\n{said:?}\n{}", n + 1, self.logs());
                return said.out;
            }
        }
    }

    /// The same with etcdctl at all members.
    fn etcdctl(&self, line: &str) -> String {
        let pki = "--cacert /backup/pki/ca.crt --cert /backup/pki/client.crt --key /backup/pki/client.key ";
        self.insist(0, &format!("etcdctl {}{line}", if self.secure { pki } else { "" }))
    }

    /// What the unit does.
    fn systemctl(&mut self, n: usize, verb: &str) {
        match verb {
            "stop etcd" => {
                self.server(n).stop();
            }
            "start etcd" => {
                let server = self.starts(n).join();
                self.running[n] = Some(server.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                for (n, start) in self.starting.iter_mut().enumerate() {
                    let server = start.take().map(|start| start.join().expect("it serves"));
                    self.running[n] = self.running[n].take().or(server);
                }
            }
            "start --no-block etcd" => self.starting[n] = Some(self.starts(n)),
            other => panic!("systemctl {other}"),
        }
    }

    fn starts(&self, n: usize) -> JoinHandle<Server> {
        let machine = self.machine(n);
        let mut launch = Launch::bare(&machine.join("usr/local/bin/etcd"), ADDRESSES[n]);
        let data = machine.join("var/lib/etcd/default").display().to_string();
        launch.env = BTreeMap::from([("ETCD_DATA_DIR".to_owned(), data)]);
        let file = std::fs::read_to_string(machine.join("etc/default/etcd")).expect("the test's own file");
        let settings = file.lines().filter_map(|line| line.split_once('='));
        launch.env.extend(settings.map(|(name, value)| (name.to_owned(), self.local(n, value))));
        std::thread::spawn(move || launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}")))
    }

    fn server(&mut self, n: usize) -> Server {
        self.running[n].take().unwrap_or_else(|| panic!("m{} does not run", n + 1))
    }

    fn logs(&self) -> String {
        self.running.iter().flatten().map(Server::log).collect::<Vec<_>>().join("\n")
    }

    fn play(&mut self, chapter: &str) {
        for (n, line) in lines(chapter) {
            match line.strip_prefix("systemctl ") {
                Some(verb) => self.systemctl(n, verb),
                None => drop(self.insist(n, &line)),
            }
        }
    }

    /// Each member that runs has it; so many do.
    fn check(&self, running: usize, flags: &str, key: &str, value: Option<&str>) {
        let seats: Vec<usize> = (0..self.members).filter(|n| self.running[*n].is_some()).collect();
        assert_eq!(seats.len(), running);
        let scheme = if self.secure { "https" } else { "http" };
        for n in seats {
            let endpoint = format!("--endpoints={scheme}://{}:2379", ADDRESSES[n]);
            let found = self.insist(n, &format!("etcdctl {flags} {endpoint} get {key} --print-value-only"));
            assert_eq!(found.trim_end(), value.unwrap_or_default(), "{key} at m{}", n + 1);
        }
    }

    /// What was there before the backup, and what came after it.
    fn check_restored(&self, running: usize) {
        self.check(running, "", KEPT.0, Some(KEPT.1));
        self.check(running, "", "/registry/later", None);
        // The revision is beyond all that watchers of the old cluster have seen.
        let status = self.insist(0, "etcdctl --endpoints=http://10.0.0.11:2379 endpoint status -w json");
        let revision = status.split("\"revision\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
        assert!(revision.and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n >= 1_000_000_000), "{status}");
    }
}

fn secure_settings() -> String {
    let sides = [("", "server"), ("PEER_", "peer")].map(|(side, file)| {
        format!(
            "ETCD_{side}CERT_FILE=/etc/etcd/{file}.crt\nETCD_{side}KEY_FILE=/etc/etcd/{file}.key\n\
             ETCD_{side}TRUSTED_CA_FILE=/etc/etcd/ca.crt\nETCD_{side}CLIENT_CERT_AUTH=true\n"
        )
    });
    sides.concat()
}

/// A chapter, where its machines have their addresses.
fn on_machines(work: impl FnOnce() + Send) {
    let Some(net) = Net::of_addresses(&ADDRESSES) else { return };
    net::run(Some(&net), async { work() });
}

#[test]
fn a_backup_holds_what_was_there() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "");
        std::fs::remove_file(stage.folder.join("backup/etcd.db")).expect("the stage made one");
        stage.play("Back up");
        stage.check(3, "", KEPT.0, Some(KEPT.1));
        assert!(stage.folder.join("backup/etcd.db").is_file());
    });
}

#[test]
fn one_member_is_restored() {
    on_machines(|| {
        let mut stage = Stage::set(1, false, "");
        stage.play("Restore a cluster of one member");
        stage.check_restored(1);
    });
}

#[test]
fn three_members_are_restored() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "");
        stage.play("Restore a cluster of three members");
        stage.check_restored(3);
    });
}

#[test]
fn a_lost_quorum_comes_back() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "");
        stage.server(1).kill();
        stage.server(2).kill();
        // The third may stay away: nobody asks it.
        stage.members = 2;
        stage.play("Lost quorum");
        stage.check(2, "", "/registry/later", Some("that"));
    });
}

#[test]
fn a_quorum_that_is_lost_for_good_is_made_anew() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "");
        stage.check(3, "", "/registry/later", Some("that"));
        stage.server(1).kill();
        stage.server(2).kill();
        stage.play("Lost quorum for good");
        stage.check(1, "", KEPT.0, Some(KEPT.1));
        stage.check(1, "", "/registry/later", Some("that"));
    });
}

#[test]
fn a_member_is_replaced() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "");
        stage.server(2).kill();
        stage.play("Replace a member");
        stage.check(3, "", "/registry/later", Some("that"));
        assert_eq!(stage.etcdctl("member list").matches("started").count(), 3);
    });
}

#[test]
fn a_full_quota_is_emptied() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "ETCD_QUOTA_BACKEND_BYTES=2000000\n");
        let filled =
            |stage: &Stage| stage.shell(0, "head -c 100000 /dev/zero | tr '\\0' v | etcdctl put /junk/$RANDOM");
        let end = Instant::now() + PATIENCE;
        loop {
            let said = filled(&stage);
            if said.err.contains("database space exceeded") {
                break;
            }
            assert!(Instant::now() < end, "{said:?}");
        }
        stage.play("The quota is full");
        stage.check(3, "", KEPT.0, Some(KEPT.1));
        stage.check(3, "", "/probe", Some("ok"));
        assert_eq!(stage.etcdctl("alarm list"), "");
    });
}

#[test]
fn certificates_are_renewed() {
    on_machines(|| {
        let mut stage = Stage::set(3, true, "");
        let before = std::fs::read(stage.folder.join("backup/pki/server.crt")).expect("the stage made one");
        stage.play("Renew certificates");
        assert_ne!(std::fs::read(stage.folder.join("backup/pki/server.crt")).expect("it is there"), before);
        let flags = "--cacert /backup/pki/ca.crt --cert /backup/pki/client.crt --key /backup/pki/client.key";
        stage.check(3, flags, KEPT.0, Some(KEPT.1));
    });
}

#[test]
fn an_authority_takes_over_from_another() {
    on_machines(|| {
        let mut stage = Stage::set(3, true, "");
        stage.play("Change the authority");
        let new = "--cacert /backup/new/ca.crt --cert /backup/new/client.crt --key /backup/new/client.key";
        stage.check(3, new, KEPT.0, Some(KEPT.1));
        // Who comes with the old one's certificate is a stranger now.
        let old = "etcdctl --cacert /backup/new/ca.crt --cert /backup/pki/client.crt --key /backup/pki/client.key";
        let said = stage.shell(0, &format!("{old} --command-timeout=5s get {}", KEPT.0));
        assert_ne!(said.code, Some(0), "{said:?}");
    });
}

#[test]
fn programs_are_exchanged() {
    on_machines(|| {
        let mut stage = Stage::set(3, false, "");
        stage.play("Upgrade and downgrade");
        stage.check(3, "", "/registry/later", Some("that"));
        for n in 0..3 {
            let program = std::fs::read(stage.machine(n).join("usr/local/bin/etcd")).expect("it is installed");
            assert_eq!(program, std::fs::read(stage.folder.join("backup/etcd")).expect("the stage made it"));
        }
    });
}

#[test]
fn every_chapter_is_played() {
    let paper = read_source(PAPER);
    let tests = read_source("tests/tests/runbooks.rs");
    let chapters: Vec<&str> = paper.split("\n## ").skip(1).filter_map(|chapter| chapter.lines().next()).collect();
    assert!(chapters.len() > 9, "{chapters:?}");
    for chapter in chapters {
        assert!(tests.contains(&format!("(\"{chapter}\")")), "{chapter} is not played");
    }
}
