//! What our etcdutl and Go's 3.7.1 make of the same files for clusters of several members, and for other versions of
//! etcd. Needs `OXETCD_REFERENCE`.

mod tools;

use oxetcd_tests::cluster::{Cluster, initial_cluster, plan};
use oxetcd_tests::places::Reference;
use oxetcd_tests::process::{Launch, run, text};
use oxetcd_tests::temp::{TempDir, copy_dir};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tools::{Said, ask, insist, our_etcdctl, our_etcdutl, told, until, words};

/// A folder, and the two tools that work in it.
struct Place {
    reference: Reference,
    folder: TempDir,
}

impl Place {
    /// With the snapshot `image.db` of a Go server, whose data directory `source` stays.
    fn new(label: &str) -> Option<Place> {
        let place = Place { reference: Reference::find()?, folder: TempDir::for_cluster(label) };
        let server = Launch::new(&place.etcd(), &place.folder.join("source")).start();
        let go = place.reference.program("3.7", "etcdctl");
        let lines = (0..20).map(|n| format!("put key{} value{n}", n % 7));
        let end = ["del key3".to_owned(), "compaction 9 --physical".to_owned(), "snapshot save image.db".to_owned()];
        // Go stores the version of its files a moment after it serves; 3.5's files have none.
        assert!(server.wait_for_log("\"new-storage-version\":\"3.7.0\"", std::time::Duration::from_secs(120)));
        for line in lines.chain(end) {
            place.succeeds(&go, &format!("--endpoints={} {line}", server.client_address()));
        }
        server.stop();
        Some(place)
    }

    fn etcd(&self) -> PathBuf {
        self.reference.program("3.7", "etcd")
    }

    fn etcdutl(&self, who: &str) -> PathBuf {
        match who {
            "go" => self.reference.program("3.7", "etcdutl"),
            _ => our_etcdutl(),
        }
    }

    fn says(&self, program: &Path, line: &str) -> Said {
        ask(program, self.folder.path(), &[], &words(line), b"")
    }

    fn succeeds(&self, program: &Path, line: &str) -> String {
        let said = insist(|| self.says(program, line));
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        said.out
    }

    /// The hash of everything in a database.
    fn content(&self, data: &str) -> String {
        self.succeeds(&self.etcdutl("go"), &format!("snapshot status {data}/member/snap/db -w json"))
    }

    /// Metadata, hard state, entries and snapshots of a log, as Go's tool reads it.
    fn log(&self, data: &str) -> String {
        let dump = run(Command::new(self.reference.tool("etcd-dump-logs")).current_dir(self.folder.path()).args([
            "-start-index=1",
            "-raw",
            data,
        ]));
        text(&dump.stdout)
    }
}

/// Restores the snapshot for each member with both tools, which must say and make the same. Their folders are
/// `NAME-go` and `NAME-ours`.
fn restore_with_both(place: &Place, name: &str, launches: &[Launch], more: &str) {
    for (n, launch) in (1..).zip(launches) {
        let line = format!(
            "snapshot restore image.db --name m{n} --initial-cluster {} --initial-cluster-token token-9 \
             --initial-advertise-peer-urls {} {more} --data-dir",
            initial_cluster(launches),
            launch.peer_url(),
        );
        let [theirs, ours] = ["go", "ours"].map(|who| {
            let mut said = told(place.says(&place.etcdutl(who), &format!("{line} {name}{n}-{who}")));
            said.err = said.err.replace(&format!("{name}{n}-{who}"), "DATA");
            said
        });
        assert_eq!(theirs.code, Some(0), "{theirs:?}");
        assert_eq!(theirs, ours, "etcdutl {line}");
        let [theirs, ours] = ["go", "ours"].map(|who| {
            let data = format!("{name}{n}-{who}");
            (place.content(&data), place.log(&data), files(&place.folder.join(&data)))
        });
        assert_eq!(ours.1.matches("EntryConfChange").count(), launches.len(), "{}", ours.1);
        assert_eq!(theirs, ours, "{line}");
    }
}

/// Names below a folder, with their modes.
fn files(folder: &Path) -> Vec<String> {
    let find = run(Command::new("find").current_dir(folder).args([".", "-printf", "%p %m %y\n"]));
    let mut names: Vec<String> = text(&find.stdout).lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Starts Go's members on what these tools restored, and answers what a client finds there.
fn serve(place: &Place, name: &str, launches: &[Launch], restored_by: [&str; 3]) -> Vec<String> {
    let mut launches = launches.to_vec();
    for ((n, who), launch) in (1..).zip(restored_by).zip(&mut launches) {
        launch.data_dir = place.folder.join(&format!("served-{name}{n}-{}", restored_by.join("-")));
        copy_dir(&place.folder.join(&format!("{name}{n}-{who}")), &launch.data_dir).expect("a copy");
        launch.flags.push("--initial-cluster-token=token-9".into());
    }
    let cluster = Cluster::start(&launches).unwrap_or_else(|e| panic!("restored by {restored_by:?}: {e}"));
    let go = place.reference.program("3.7", "etcdctl");
    let asks = |line: &str| place.succeeds(&go, &format!("--endpoints={} {line}", cluster.endpoints()));
    let hash = |member: &Value| (member["HashKV"]["hash"].as_u64(), member["HashKV"]["hash_revision"].as_u64());
    let mut found: Vec<String> = ["get '' --prefix", "member list", "put more x", "get more -w fields"]
        .map(|line| {
            let said = asks(line);
            let lines =
                said.lines().filter(|line| !line.starts_with("\"RaftTerm\"") && !line.starts_with("\"MemberID\""));
            lines.collect::<Vec<_>>().join("\n")
        })
        .to_vec();
    // A member that lags behind has yet to apply the put.
    let hashes = until("one revision", || {
        let said: Value = serde_json::from_str(&asks("endpoint hashkv -w json")).expect("JSON");
        let hashes: Vec<_> = said.as_array().expect("members").iter().map(hash).collect();
        hashes.iter().all(|(_, revision)| *revision == hashes[0].1).then_some(hashes)
    });
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    found.push(format!("{:?}", hashes[0]));
    found
}

#[test]
fn members_restored_by_either_tool_are_one_cluster() {
    let Some(place) = Place::new("utl-cluster") else { return };
    for (name, more) in [("plain", ""), ("raised", "--bump-revision 1000 --mark-compacted")] {
        let launches = plan(&place.etcd(), place.folder.path(), 3);
        restore_with_both(&place, name, &launches, more);
        let mixes = [["go", "go", "go"], ["ours", "ours", "ours"], ["ours", "go", "ours"]];
        let found = mixes.map(|restored_by| serve(&place, name, &launches, restored_by));
        assert!(found[0][0].contains("key6") && !found[0][0].contains("key3"), "{found:#?}");
        assert!(found[0] == found[1] && found[0] == found[2], "{found:#?}");
    }
    println!("restore: two clusters of three, each restored in three ways");
}

#[test]
fn a_restore_says_when_revisions_go_back() {
    let Some(place) = Place::new("utl-warning") else { return };
    let restore = |data: &str, more: &str| {
        let said = place.says(&our_etcdutl(), &format!("snapshot restore image.db --data-dir {data} {more}"));
        assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:?}");
        said.err
    };
    let plain = restore("a", "");
    assert!(
        plain.contains("WARNING: the restored cluster goes on at revision 22.") && plain.contains("--bump-revision")
    );
    assert!(!restore("b", "--bump-revision 1000 --mark-compacted").contains("WARNING"));
    let old = place.says(&our_etcdctl(), "snapshot restore image.db --data-dir c");
    assert!(old.code == Some(0) && old.err.contains("WARNING: "), "{old:?}");
}

#[test]
fn migrates_as_go_migrates() {
    let Some(place) = Place::new("utl-migrate") else { return };
    let folder = |name: &str| place.folder.join(name);
    let copy = |from: &str, to: &str| copy_dir(&folder(from), &folder(to)).expect("a copy");
    for (name, missing) in [("no-log", "member/wal"), ("no-database", "member/snap/db")] {
        copy("source", name);
        let path = folder(name).join(missing);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("it is there");
    }
    for (from, version, to) in [("source", "3.6", "six"), ("source", "3.5", "five")] {
        copy(from, to);
        place.succeeds(&place.etcdutl("go"), &format!("migrate --data-dir {to} --target-version {version}"));
    }
    copy("source", "nine");
    place.succeeds(&place.etcdutl("go"), "migrate --data-dir nine --target-version 3.9 --force");

    let mut equal = 0;
    for (data, flags) in [
        ("source", ""),
        ("source", "--target-version 3.6.0"),
        ("source", "--target-version 3"),
        ("source", "--target-version 3.x"),
        ("source", "--target-version 3.6-rc"),
        ("source", "--target-version 3.4"),
        ("source", "--target-version 3.4 --force"),
        ("source", "--target-version 2.9"),
        ("source", "--target-version 4.0"),
        ("source", "--target-version 4.0 --force"),
        ("source", "--target-version 3.8"),
        ("source", "--target-version 3.8 --force"),
        ("source", "--target-version 3.7"),
        ("source", "--target-version 3.6"),
        ("source", "--target-version 3.6 --force"),
        ("source", "--target-version 3.5"),
        ("six", "--target-version 3.5"),
        ("six", "--target-version 3.6"),
        ("six", "--target-version 3.7"),
        ("five", "--target-version 3.5"),
        ("five", "--target-version 3.6"),
        ("five", "--target-version 3.7"),
        ("five", "--target-version 3.9 --force"),
        ("nine", "--target-version 3.7"),
        ("nine", "--target-version 3.7 --force"),
        ("nine", "--target-version 3.5 --force"),
        ("no-database", "--target-version 3.6"),
        ("no-folder", "--target-version 3.6"),
    ] {
        let [theirs, ours] = ["go", "ours"].map(|who| migrated(&place, who, data, flags));
        // Flags are explained in our own words.
        let rows = if flags.is_empty() { 3 } else { usize::MAX };
        let head = |(said, content): (Said, String)| {
            let err: Vec<String> = said.err.lines().take(rows).map(str::to_owned).collect();
            (said.code, said.out, err, content)
        };
        assert_eq!(head(theirs), head(ours), "migrate {data} {flags}");
        equal += 1;
    }
    let [theirs, ours] = ["go", "ours"].map(|who| migrated(&place, who, "no-log", "--target-version 3.6"));
    assert_eq!((theirs.0.code, &theirs.1), (ours.0.code, &ours.1));
    let wanted = "Error: failed to get the lastest snapshot: ";
    assert!(theirs.0.err.contains(wanted) && ours.0.err.contains(wanted), "{ours:?}");
    println!("migrate: {} equal command lines", equal + 1);
}

/// Runs a migration on a copy. Answers what was said, and what the database holds then.
fn migrated(place: &Place, who: &str, data: &str, flags: &str) -> (Said, String) {
    let target = place.folder.join("target");
    let _ = std::fs::remove_dir_all(&target);
    if place.folder.join(data).exists() {
        copy_dir(&place.folder.join(data), &target).expect("a copy");
    }
    let said = told(place.says(&place.etcdutl(who), &format!("migrate --data-dir target {flags}")));
    let content = match target.join("member/snap/db").exists() {
        true => place.content("target"),
        false => String::new(),
    };
    (said, content)
}

/// The way down and up again, and the servers of each version on it.
#[test]
fn servers_start_on_what_was_migrated() {
    let Some(place) = Place::new("utl-served") else { return };
    let utl = our_etcdutl();
    let launch = Launch::new(&place.etcd(), &place.folder.join("source"));
    for version in ["3.6", "3.5", "3.6", "3.7"] {
        place.succeeds(&utl, &format!("migrate --data-dir source --target-version {version}"));
        let content: Value = serde_json::from_str(&place.content("source")).expect("JSON");
        let stored = content["version"].as_str().expect("a version");
        assert_eq!(stored, if version == "3.5" { String::new() } else { format!("{version}.0") });
    }
    let server = launch.try_start().unwrap_or_else(|e| panic!("{e}"));
    let go = place.reference.program("3.7", "etcdctl");
    let found = place.succeeds(&go, &format!("--endpoints={} get key6", server.client_address()));
    assert_eq!(found, "key6\nvalue13\n");
}
