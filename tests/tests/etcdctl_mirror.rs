//! `make-mirror` of our etcdctl and of Go's 3.7.1: from one cluster of three Go members to a server of its own each, with
//! the same keys, values and revisions there afterwards. Needs `OXETCD_REFERENCE`.

mod tools;

use oxetcd_tests::cluster::Cluster;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use std::path::PathBuf;
use tools::{Running, Said, ask, insist, our_etcdctl, plain, until, words};

/// One tool and the server it copies to.
struct Side {
    tool: PathBuf,
    destination: Server,
}

struct Mirrors {
    sides: [Side; 2],
    source: Cluster,
    go: PathBuf,
    folder: TempDir,
}

impl Mirrors {
    fn new() -> Option<Mirrors> {
        let reference = Reference::find()?;
        let folder = TempDir::for_cluster("mirror");
        let go = reference.program("3.7", "etcdctl");
        let members = folder.join("members");
        std::fs::create_dir(&members).expect("a folder");
        let source = Cluster::found(&reference.program("3.7", "etcd"), &members, 3);
        let side = |tool: PathBuf, name: &str| Side {
            tool,
            destination: Launch::new(&our_etcd(), &folder.join(name)).start(),
        };
        let sides = [side(go.clone(), "go"), side(our_etcdctl(), "ours")];
        Some(Mirrors { sides, source, go, folder })
    }

    /// What Go's tool says at this endpoint.
    fn at(&self, endpoint: &str, line: &str, input: &str) -> String {
        let line = format!("--endpoints={endpoint} {line}");
        let said = insist(|| ask(&self.go, self.folder.path(), &[], &words(&line), input.as_bytes()));
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        said.out
    }

    /// Changes the source.
    fn change(&self, lines: &[&str]) {
        lines.iter().for_each(|line| drop(self.at(&self.source.endpoints(), line, "")));
    }

    /// All keys of a destination with their revisions.
    fn copied(&self, side: &Side) -> String {
        plain(&self.at(&side.destination.client_address(), "get '' --prefix -w json", ""), &[])
    }

    /// Waits until both destinations have the key.
    fn wait_for(&self, key: &str) {
        for side in &self.sides {
            let endpoint = side.destination.client_address();
            until(key, || (!self.at(&endpoint, &format!("get {key}"), "").is_empty()).then_some(()));
        }
    }

    /// Lets both tools copy, changes the source meanwhile, and compares. `first` and `last`: keys at the destination
    /// when what was there, and what changed, is copied.
    fn compare(&self, flags: &str, first: Option<&str>, changes: &[&str], last: &str) {
        let source = self.source.endpoints();
        let running = self.sides.each_ref().map(|side| {
            let line = format!("make-mirror {flags} {}", side.destination.client_address());
            Running::start(&side.tool, &source, &line)
        });
        first.iter().for_each(|key| self.wait_for(key));
        self.change(changes);
        self.wait_for(last);
        let [theirs, ours] = self.sides.each_ref().map(|side| self.copied(side));
        assert!(ours.contains("\"kvs\""), "{ours}");
        assert_eq!(theirs, ours, "make-mirror {flags}");
        // Both die of the signal.
        assert_eq!(running.map(Running::interrupt), [None, None], "make-mirror {flags}");
        for side in &self.sides {
            self.at(&side.destination.client_address(), "del '' --prefix", "");
        }
    }

    /// Lines that fail print the same.
    fn failing(&self, line: &str) {
        let [theirs, ours] = self.sides.each_ref().map(|side| {
            let endpoint = side.destination.client_address();
            let line = format!("--endpoints={} {}", self.source.endpoints(), line.replace("DESTINATION", &endpoint));
            let said = ask(&side.tool, self.folder.path(), &[], &words(&line), b"");
            Said { err: plain(&said.err, &[(endpoint, "DESTINATION")]), ..said }
        });
        assert_eq!(theirs, ours, "{line}");
        assert_ne!(ours.code, Some(0), "{line}");
    }
}

#[test]
fn copies_what_go_copies() {
    let Some(mirrors) = Mirrors::new() else { return };
    let pairs: Vec<String> = (0..2100).map(|n| format!("put bulk/{n:04} {n}")).collect();
    for part in pairs.chunks(100) {
        mirrors.at(&mirrors.source.endpoints(), "txn", &format!("\n{}\n\n\n", part.join("\n")));
    }
    mirrors.change(&["put a/1 one", "put a/2 two", "put a/a/3 three", "put b x"]);
    // Three pages of keys, then changes.
    mirrors.compare("", Some("bulk/2099"), &["put a/4 four", "del a/1", "put a/2 again", "put z last"], "z");

    let revision = mirrors.at(&mirrors.source.endpoints(), "get b -w fields", "");
    let revision =
        revision.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).expect("a revision").to_owned();
    let mut equal = 1;
    // At the end the key a/end… is put, which no earlier round has.
    for (flags, first, last) in [
        ("--prefix a/", Some("a/a/3"), "a/end"),
        ("--prefix a/ --dest-prefix b/", Some("b/a/3"), "b/end"),
        ("--prefix a/ --dest-prefix a/a/", Some("a/a/a/3"), "a/a/end"),
        ("--prefix a/ --no-dest-prefix", Some("a/3"), "end"),
        ("--dest-prefix all/", Some("all/z"), "all/a/end"),
        ("--rev=1 --prefix a/ --max-txn-ops=3", Some("a/a/3"), "a/end"),
        ("--rev=REVISION --prefix a/ --max-txn-ops=0", None, "end"),
        ("--rev=REVISION --max-txn-ops=2", None, "a/end"),
    ] {
        // A revision with several changes, one of them to a key outside the prefix.
        let many = format!("\nput a/5 {equal}\nput a/6 x\nput a/7 x\nput a/8 x\nput b {equal}\n\n\n");
        let flags = flags.replace("REVISION", &revision);
        if first.is_none() {
            mirrors.at(&mirrors.source.endpoints(), "txn", &many);
        }
        let changes = ["del a/5", &format!("put a/9 {equal}"), &format!("put a/end{equal} x")];
        mirrors.compare(&flags, first, &changes, &format!("{last}{equal}"));
        equal += 1;
    }
    let large = "\nput a/5 x\nput a/6 x\nput a/7 x\ndel a/8\nput b x\n\n\n";
    mirrors.compare_txn("--prefix a/ --max-txn-ops=2", "a/a/3", large, "a/7");
    println!("make-mirror: {} equal copies", equal + 1);
}

impl Mirrors {
    /// As [`Mirrors::compare`], with one transaction at the source.
    fn compare_txn(&self, flags: &str, first: &str, txn: &str, last: &str) {
        self.change(&[&format!("del {last}")]);
        let source = self.source.endpoints();
        let running = self.sides.each_ref().map(|side| {
            let line = format!("make-mirror {flags} {}", side.destination.client_address());
            Running::start(&side.tool, &source, &line)
        });
        self.wait_for(first);
        self.at(&source, "txn", txn);
        self.change(&["put a/zzz end"]);
        self.wait_for(last);
        self.wait_for("a/zzz");
        let [theirs, ours] = self.sides.each_ref().map(|side| self.copied(side));
        assert_eq!(theirs, ours, "make-mirror {flags}");
        drop(running);
    }
}

#[test]
fn fails_as_go_fails() {
    let Some(mirrors) = Mirrors::new() else { return };
    mirrors.change(&["put a 1", "put a 2", "put a 3", "compaction 4"]);
    let lines = [
        "make-mirror",
        "make-mirror a b",
        "make-mirror --dest-prefix=a --no-dest-prefix DESTINATION",
        "make-mirror --rev=2 DESTINATION",
        "make-mirror --rev=2 --dest-user=root:x DESTINATION",
        "make-mirror --rev=2 --dest-user=root --dest-password=x DESTINATION",
        "make-mirror --rev=2 --dest-user=root: DESTINATION",
        "make-mirror --dest-cert=x DESTINATION",
        "make-mirror --dest-key=x DESTINATION",
        "make-mirror --dest-cacert=no-such-file DESTINATION",
        "-w foo make-mirror DESTINATION",
    ];
    lines.iter().for_each(|line| mirrors.failing(line));
    println!("make-mirror: {} equal refusals", lines.len());
}
