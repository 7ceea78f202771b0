//! Both command lines against Go's 3.7.1: every command, sub-command and flag, in a table of conversations
//! (`testdata/command_lines/`), played by Go's tool and by ours. Standard output has to be equal byte by byte, so has the
//! exit code; standard error without clocks and addresses. Needs `OXETCD_REFERENCE`.
//!
//! Servers of two tools have the same name, token and advertised addresses, hence the same ids. Each line is asked in one
//! format, drawn in turn; with `OXETCD_FORMATS=all` each is asked in every format.

mod help;
mod play;
mod table;
#[path = "../tools/mod.rs"]
mod tools;

use help::{commands, flags, left_out, variables_left_out};
use oxetcd_tests::places::{Reference, our_etcd, read_source};
use oxetcd_tests::process::{Launch, Server, free_ports, stdout_of};
use oxetcd_tests::temp::{TempDir, copy_dir};
use play::{Answer, Side};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use table::{FORMATS, Line, Scene, scenes};
use tools::{ask, our_etcdctl, our_etcdutl, words};

/// How often both are asked again where their one server may have moved on between them, or the machine stood still.
const REPEATS: usize = 3;

/// How many formats each line is asked in.
fn rounds() -> usize {
    match std::env::var("OXETCD_FORMATS").as_deref() {
        Ok("all") => FORMATS.len(),
        Ok(other) => panic!("OXETCD_FORMATS is {other:?}: it may be `all`"),
        Err(_) => 1,
    }
}

/// What came of the lines.
#[derive(Default)]
struct Tally {
    equal: usize,
    differ_on_purpose: usize,
    faults: Vec<String>,
}

impl Tally {
    fn judge(&mut self, scene: &Scene, line: &Line, round: usize, theirs: &Answer, ours: &Answer) {
        match (&line.marks.differs, theirs == ours) {
            (None, true) => self.equal += 1,
            (Some(_), false) => self.differ_on_purpose += 1,
            (None, false) => {
                let typed = line.typed(round).join(" ");
                let (typed, input) = (format!("[{}] {} ({typed})", scene.name, line.text), &line.input);
                self.faults.push(format!("{typed} < {input:?}\n== Go ==\n{theirs:?}== ours ==\n{ours:?}"));
            }
            (Some(row), true) => self.faults.push(format!("[{}] {}: equal, so it is not {row}", scene.name, line.text)),
        }
    }

    fn end(self, what: &str) {
        println!("{what}: {} equal, {} different on purpose", self.equal, self.differ_on_purpose);
        let (count, faults) = (self.faults.len(), self.faults.join("\n\n"));
        assert!(count == 0, "{count} command lines differ:\n{faults}");
    }
}

/// A server whose ids are those of any other one that is started like this.
fn server(folder: &TempDir, has_own_ids: bool) -> Server {
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    // Passwords are hashed fast, so that tools do not run out of time.
    launch.flags.push("--bcrypt-cost=4".to_owned());
    if !has_own_ids {
        let peer = "http://127.0.0.1:2380";
        launch.initial_cluster = false;
        launch.flags.extend([
            format!("--initial-cluster=default={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        ]);
    }
    launch.start()
}

/// Plays the scenes with these names.
fn converse(names: &[&str]) {
    let Some(reference) = Reference::find() else { return };
    let programs = [reference.program("3.7", "etcdctl"), our_etcdctl()];
    let mut tally = Tally::default();
    let all = scenes("etcdctl");
    for name in names {
        let scene = all.iter().find(|scene| scene.name == *name).unwrap_or_else(|| panic!("no scene [{name}]"));
        for round in 0..rounds() {
            if scene.one_server {
                converse_with_one_server(&programs, scene, round, &mut tally);
            } else {
                converse_apart(&programs, scene, round, &mut tally);
            }
        }
    }
    tally.end(&names.join(", "));
}

/// Each tool with a server of its own.
fn converse_apart(programs: &[PathBuf; 2], scene: &Scene, round: usize, tally: &mut Tally) {
    let folders = [TempDir::new("lines-go"), TempDir::new("lines-ours")];
    let servers = folders.each_ref().map(|folder| server(folder, false));
    let dead = nobody();
    let mut sides = [0, 1].map(|n| {
        let endpoint = servers[n].client_address();
        Side::new(programs[n].clone(), folders[n].path().to_owned(), &endpoint, &dead)
    });
    for line in &scene.lines {
        let [theirs, ours] = both(&mut sides, line, round);
        tally.judge(scene, line, round, &theirs, &ours);
    }
}

/// Both tools with one server.
fn converse_with_one_server(programs: &[PathBuf; 2], scene: &Scene, round: usize, tally: &mut Tally) {
    let folders = [TempDir::new("lines-go"), TempDir::new("lines-ours")];
    let server = server(&folders[0], true);
    let (endpoint, dead) = (server.client_address(), nobody());
    let mut sides = [0, 1].map(|n| Side::new(programs[n].clone(), folders[n].path().to_owned(), &endpoint, &dead));
    for line in &scene.lines {
        if line.marks.makes_ready {
            let said = sides[0].play(line, round);
            assert_eq!(said.code, Some(0), "{}: {said:?}", line.text);
            continue;
        }
        let [mut theirs, mut ours] = both(&mut sides, line, round);
        // The server may have moved on between the two, as when it writes its checkpoint.
        for _ in 0..REPEATS {
            if theirs == ours || line.marks.differs.is_some() {
                break;
            }
            [theirs, ours] = both(&mut sides, line, round);
        }
        tally.judge(scene, line, round, &theirs, &ours);
    }
}

/// Both tools at the same time.
fn both(sides: &mut [Side; 2], line: &Line, round: usize) -> [Answer; 2] {
    let [go, ours] = sides;
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| go.play(line, round));
        let ours = ours.play(line, round);
        [theirs.join().expect("a tool was played"), ours]
    })
}

/// An address where nobody listens.
fn nobody() -> String {
    format!("127.0.0.1:{}", free_ports().0)
}

#[test]
fn keys_transactions_and_leases() {
    converse(&["keys", "transactions", "leases"]);
}

#[test]
fn watches_locks_and_elections() {
    converse(&["watches", "locks and elections", "checks and mirrors"]);
}

#[test]
fn endpoints_and_members() {
    converse(&["endpoints", "members"]);
}

#[test]
fn users_and_authentication() {
    converse(&["users", "authentication"]);
}

#[test]
fn words_flags_and_variables() {
    converse(&["words", "flags and variables"]);
}

/// A server with a past: its snapshots, whole and spoilt, and the directory that it left.
fn files() -> TempDir {
    let folder = TempDir::new("lines-files");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let endpoint = server.client_address();
    let says = |line: &str| {
        let said = ask(&our_etcdctl(), folder.path(), &[], &words(&format!("--endpoints={endpoint} {line}")), b"");
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
    };
    (0..30).for_each(|n| says(&format!("put key{} value{n}", n % 7)));
    says("lease grant 1000");
    says("del key3");
    says("compaction 19 --physical");
    says("put last one");
    says("snapshot save image.db");
    server.stop();
    let image = std::fs::read(folder.join("image.db")).expect("a snapshot");
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("a file");
    write("bare.db", &image[..image.len() - 32]);
    write("empty.db", b"");
    folder
}

#[test]
fn files_of_etcdutl() {
    let Some(reference) = Reference::find() else { return };
    let programs = [reference.program("3.7", "etcdutl"), our_etcdutl()];
    let (source, mut tally) = (files(), Tally::default());
    for scene in &scenes("etcdutl") {
        for round in 0..rounds() {
            let folders = [TempDir::new("lines-go"), TempDir::new("lines-ours")];
            folders.iter().for_each(|folder| copy_dir(source.path(), folder.path()).expect("a copy"));
            let mut sides = [0, 1].map(|n| Side::new(programs[n].clone(), folders[n].path().to_owned(), "", "nobody"));
            for line in &scene.lines {
                let [theirs, ours] = both(&mut sides, line, round);
                tally.judge(scene, line, round, &theirs, &ours);
            }
        }
    }
    tally.end("etcdutl");
}

/// What the tables can't hold, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("--discovery-srv", "asks the machine's name server"),
    ("ETCDCTL_DISCOVERY_SRV", "asks the machine's name server"),
];

#[test]
fn the_tables_leave_nothing_out() {
    let Some(reference) = Reference::find() else { return };
    for (tool, ours) in [("etcdctl", our_etcdctl()), ("etcdutl", our_etcdutl())] {
        let go = reference.program("3.7", tool);
        let (theirs, ours) = (commands(&go), commands(&ours));
        for (path, flags) in &theirs {
            let missing: Vec<_> = ours.get(path).map_or(flags.clone(), |own| flags - own).into_iter().collect();
            assert!(ours.contains_key(path) && missing.is_empty(), "{tool} {path}: ours lacks {missing:?}");
        }
        let page = if tool == "etcdctl" { "options" } else { "--help" };
        let global = flags(&stdout_of(Command::new(&go).arg(page)));
        assert!(theirs.len() > 5 && global.len() > 1, "{tool}: {theirs:?} {global:?}");
        let table = scenes(tool);
        let mut left = left_out(&theirs, &global, &table);
        let mut excused: BTreeSet<&str> = BTreeSet::new();
        if tool == "etcdctl" {
            left.extend(variables_left_out(&global, &table));
            excused.extend(EXCEPTIONS.iter().map(|(what, _)| *what));
        }
        let left: BTreeSet<&str> = left.iter().map(String::as_str).collect();
        assert_eq!(left, excused, "{tool}: left out by the table, and excused");
    }
}

#[test]
fn differences_have_a_row_in_compat() {
    let compat = read_source("docs/COMPAT.md");
    let (_, rows) = compat.split_once("## Command lines\n").expect("docs/COMPAT.md has `Command lines`");
    let rows = rows.split("\n## ").next().unwrap_or(rows);
    for tool in ["etcdctl", "etcdutl"] {
        for line in scenes(tool).iter().flat_map(|scene| &scene.lines) {
            let Some(row) = &line.marks.differs else { continue };
            let first = |line: &str| line.split(" | ").next().is_some_and(|cell| cell.contains(row.as_str()));
            assert!(rows.lines().any(first), "no row {row:?} for {tool} {}", line.text);
        }
    }
}
