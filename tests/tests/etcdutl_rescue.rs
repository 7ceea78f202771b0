//! What `etcdutl` saves when nobody knows root's password any more, or a cluster has lost its quorum. Servers start on every
//! outcome: ours, and Go's where `OXETCD_REFERENCE` is set.

mod tools;

use oxetcd_tests::cluster::Seats;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::{TempDir, copy_dir};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tools::{Said, ask, insist, our_etcdctl, our_etcdutl, words};

const QUICK: &str = "--bcrypt-cost=4";

fn utl(folder: &TempDir, line: &str, input: &str) -> Said {
    ask(&our_etcdutl(), folder.path(), &[], &words(line), input.as_bytes())
}

fn ctl(folder: &TempDir, endpoints: &str, line: &str) -> Said {
    let line = words(&format!("--endpoints={endpoints} {line}"));
    insist(|| ask(&our_etcdctl(), folder.path(), &[], &line, b""))
}

fn succeeds(folder: &TempDir, endpoints: &str, line: &str) -> String {
    let said = ctl(folder, endpoints, line);
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
    said.out
}

/// Servers that start on what was saved.
fn servers() -> Vec<PathBuf> {
    let go = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    [our_etcd()].into_iter().chain(go).collect()
}

const USERS: [&str; 5] =
    ["user add root:forgotten", "user grant-role root root", "user add alice:alice", "put key value", "auth enable"];

#[test]
fn root_gets_a_new_password_and_servers_take_it() {
    let folder = TempDir::new("reset-root");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[QUICK]);
    let server = launch.start();
    USERS.iter().for_each(|line| drop(succeeds(&folder, &server.client_address(), line)));
    let reset = format!("auth reset-root {QUICK}");
    let locked = utl(&folder, &format!("{reset} --data-dir data --timeout=50ms"), "new\n");
    assert!(locked.code == Some(1) && locked.err.contains("is locked, so a server has it open"), "{locked:?}");
    server.stop();

    for (line, input, code, text) in [
        ("--data-dir data", "", 1, "no password was given"),
        ("--data-dir data", "\nsecond line\n", 1, "no password was given"),
        ("--data-dir data --password-file no-such-file", "", 1, "can't be read from no-such-file"),
        ("--data-dir data --disable --password-file x", "", 128, "--disable leaves the password as it is"),
        ("--data-dir data --bcrypt-cost=3", "new\n", 128, "a cost is 4 to 31"),
        ("--data-dir no-such-folder", "new\n", 1, "no such file or directory"),
        ("", "new\n", 1, "required flag(s) \"data-dir\" not set"),
    ] {
        let said = utl(&folder, &format!("{reset} {line}"), input);
        assert!(said.code == Some(code) && said.err.contains(text), "{line}: {said:?}");
    }
    let long = "x".repeat(73) + "\n";
    assert!(utl(&folder, &format!("{reset} --data-dir data"), &long).err.contains("password length exceeds 72 bytes"));

    for (way, input) in [("", "new\n"), ("--disable", "")] {
        for (n, binary) in servers().iter().enumerate() {
            let data = folder.join(&format!("data{way}{n}"));
            copy_dir(&folder.join("data"), &data).expect("a copy");
            let said = utl(&folder, &format!("{reset} {way} --data-dir {}", data.display()), input);
            assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
            let mut again = launch.clone().with_binary(binary);
            again.data_dir = data;
            let server = again.try_start().unwrap_or_else(|e| panic!("{way}: {e}"));
            let endpoint = server.client_address();
            if way.is_empty() {
                assert!(said.out.contains("root has a new password"), "{said:?}");
                assert_eq!(succeeds(&folder, &endpoint, "--user root:new get key"), "key\nvalue\n");
                let old = ctl(&folder, &endpoint, "--user root:forgotten get key");
                assert!(old.code != Some(0) && old.err.contains("authentication failed"), "{old:?}");
                assert_ne!(ctl(&folder, &endpoint, "get key").code, Some(0), "nobody may read without a name");
                let users = succeeds(&folder, &endpoint, "--user root:new user list");
                assert_eq!(users, "alice\nroot\n");
            } else {
                assert!(said.out.contains("authentication is off"), "{said:?}");
                assert_eq!(succeeds(&folder, &endpoint, "get key"), "key\nvalue\n");
            }
        }
    }
}

/// Starts a member, and stops it when it has answered: by then it has applied what its log knows to be committed.
fn served(folder: &TempDir, launch: &mut Launch) {
    let server = launch.start();
    succeeds(folder, &server.client_address(), "get key");
    server.stop();
}

/// Where there was no root, there is one with all rights.
#[test]
fn root_is_made_where_there_was_none() {
    let folder = TempDir::new("reset-none");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[QUICK]);
    served(&folder, &mut launch);
    std::fs::write(folder.join("password"), "new\r\nignored\n").expect("a file");
    let line = format!("auth reset-root {QUICK} --data-dir data --password-file password");
    let said = utl(&folder, &line, "");
    assert!(said.code == Some(0) && said.out.contains("authentication is off\nauth revision: 2\n"), "{said:?}");
    let server = launch.start();
    succeeds(&folder, &server.client_address(), "auth enable");
    succeeds(&folder, &server.client_address(), "--user root:new put key value");
}

/// What was acknowledged before the reset would be turned down when it is replayed after it.
#[test]
fn a_database_that_lacks_committed_entries_is_refused() {
    let folder = TempDir::new("reset-behind");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    served(&folder, &mut launch);
    let db = folder.join("data/member/snap/db");
    std::fs::copy(&db, folder.join("older")).expect("a copy");
    let server = launch.start();
    succeeds(&folder, &server.client_address(), "put key value");
    server.stop();
    std::fs::copy(folder.join("older"), &db).expect("a copy");
    let line = "auth reset-root --data-dir data";
    let said = utl(&folder, line, "new\n");
    assert!(said.code == Some(1) && said.err.contains("Start it, stop it with SIGTERM"), "{said:?}");
    served(&folder, &mut launch);
    let said = utl(&folder, line, "new\n");
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// The data directory of a seat.
fn data(seats: &mut Seats, n: usize) -> PathBuf {
    seats.launch(n).data_dir.clone()
}

#[test]
fn members_of_a_cluster_stay_alike() {
    let folder = TempDir::for_cluster("reset-cluster");
    let mut seats = Seats::found(&vec![our_etcd(); 3], folder.path(), &[QUICK]);
    let endpoints = seats.urls().join(",");
    USERS.iter().for_each(|line| drop(succeeds(&folder, &endpoints, line)));
    (0..3).for_each(|n| {
        seats.stop(n);
    });
    let users: Vec<String> = (0..3)
        .map(|n| {
            let dir = data(&mut seats, n);
            let said = utl(&folder, &format!("auth reset-root {QUICK} --data-dir {}", dir.display()), "new\n");
            assert!(said.code == Some(0) && said.out.contains("The cluster has 2 other members"), "{said:?}");
            let dump = our_etcdutl().with_file_name("etcd-dump-db");
            let line = format!("iterate-bucket {} authUsers", dir.display());
            ask(&dump, folder.path(), &[], &words(&line), b"").out
        })
        .collect();
    assert!(users[0].contains("$2a$04$") && users.iter().all(|user| *user == users[0]), "{users:#?}");
    seats.start_these(&[0, 1, 2]);
    for url in seats.urls() {
        assert_eq!(succeeds(&folder, &url, "--user root:new get key"), "key\nvalue\n");
    }
}

/// All files below a folder, with their bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

#[test]
fn a_lost_cluster_is_founded_anew_with_what_its_best_member_has() {
    let folder = TempDir::for_cluster("recover");
    let mut seats = Seats::found(&vec![our_etcd(); 3], folder.path(), &[]);
    let put = |urls: &[String], n: usize| {
        succeeds(&folder, &urls.join(","), &format!("put key{n} value{n}"));
    };
    (0..5).for_each(|n| put(&seats.urls(), n));
    seats.stop(2);
    (5..9).for_each(|n| put(&seats.urls(), n));
    // Nobody writes what is only in the log into the database.
    (0..2).for_each(|n| seats.kill(n));
    let dirs: Vec<String> = (0..3).map(|n| data(&mut seats, n).display().to_string()).collect();
    let before: Vec<_> = dirs.iter().map(|dir| files(Path::new(dir))).collect();

    let report = |line: &str| -> Value {
        let said = utl(&folder, &format!("recover -w json {line}"), "");
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    };
    let all = report(&format!("{} {} {} no-such-folder", dirs[2], dirs[0], dirs[1]));
    assert!(all["quorum"] == true && all["voters"] == 3 && all["present"] == 3, "{all:#}");
    let order: Vec<&str> =
        all["directories"].as_array().expect("a list").iter().filter_map(|d| d["dataDir"].as_str()).collect();
    assert!(order[0] != dirs[2] && order[2] == dirs[2] && order[3] == "no-such-folder", "{order:?}");
    assert_eq!(all["directories"][0]["remark"], "has most");
    assert!(all["directories"][0]["index"].as_u64() > all["directories"][2]["index"].as_u64(), "{all:#}");
    assert!(all["directories"][3]["error"].as_str().expect("why").contains("no such file or directory"), "{all:#}");
    assert!(all["loss"].as_str().expect("a sentence").starts_with("3 of 3 voters are here, a quorum: "), "{all:#}");

    let behind = report(&dirs[2]);
    assert_eq!(behind["quorum"], false);
    let loss = behind["loss"].as_str().expect("a sentence");
    assert!(loss.starts_with("1 of 3 voters are here, no quorum: ") && loss.contains("would be lost"), "{loss}");

    let table = utl(&folder, &format!("recover -w table {}", dirs.join(" ")), "");
    assert!(table.out.contains("REMARK") && table.out.contains(" has most "), "{table:?}");
    assert!(table.err.contains("Nothing was made. To found a new cluster with it: etcdutl recover "), "{table:?}");
    for (line, code, text) in [
        ("recover", 128, "requires the data directories"),
        ("recover no-such-folder", 1, "none of the directories can be used"),
        ("recover -w fields x", 4, "fields not supported as output format"),
        ("recover -w foo x", 4, "unsupported output format"),
    ] {
        let said = utl(&folder, line, "");
        assert!(said.code == Some(code) && said.err.contains(text), "{line}: {said:?}");
    }
    for (dir, before) in dirs.iter().zip(before) {
        assert!(files(Path::new(dir)) == before, "{dir} was changed");
    }
    found_anew(&folder, &dirs);
}

/// Makes a new cluster of one, and lets servers of both kinds serve it.
fn found_anew(folder: &TempDir, dirs: &[String]) {
    let launch = Launch::new(&our_etcd(), &folder.join("unused"));
    let peer = launch.peer_url();
    let flags = format!(
        "--name default --initial-cluster default={peer} --initial-advertise-peer-urls {peer} --bump-revision 1000 --mark-compacted"
    );
    let bad = utl(folder, &format!("recover {} --data-dir new {flags} --name m9", dirs[0]), "");
    assert!(
        bad.code == Some(1) && bad.err.contains("couldn't find local name") && !folder.join("new").exists(),
        "{bad:?}"
    );
    let said = utl(folder, &format!("recover {} --data-dir new {flags}", dirs.join(" ")), "");
    assert!(said.code == Some(0) && said.err.contains("new holds the first member of a new cluster"), "{said:?}");
    let again = utl(folder, &format!("recover {} --data-dir new {flags}", dirs[0]), "");
    assert!(again.code == Some(1) && again.err.contains("not empty"), "{again:?}");
    for (n, binary) in servers().iter().enumerate() {
        let mut launch = launch.clone().with_binary(binary);
        launch.data_dir = folder.join(&format!("served{n}"));
        copy_dir(&folder.join("new"), &launch.data_dir).expect("a copy");
        let server = launch.try_start().unwrap_or_else(|e| panic!("{}: {e}", binary.display()));
        let endpoint = server.client_address();
        for n in 0..9 {
            assert_eq!(succeeds(folder, &endpoint, &format!("get key{n} --print-value-only")), format!("value{n}\n"));
        }
        let members = succeeds(folder, &endpoint, "member list");
        assert!(members.lines().count() == 1 && members.contains(", default, "), "{members}");
        let put: Value = serde_json::from_str(&succeeds(folder, &endpoint, "put more x -w json")).expect("JSON");
        assert_eq!(put["header"]["revision"], 1011);
        let old = ctl(folder, &endpoint, "get key8 --rev 10");
        assert!(old.err.contains("required revision has been compacted"), "{old:?}");
    }
}

#[test]
fn directories_that_do_not_belong_together_are_told_apart() {
    let folder = TempDir::new("recover-apart");
    let mut launches: Vec<Launch> =
        ["one", "two"].iter().map(|name| Launch::new(&our_etcd(), &folder.join(name))).collect();
    let servers: Vec<_> = launches.iter_mut().map(Launch::start).collect();
    let running = utl(&folder, "recover one two --timeout=50ms", "");
    assert!(
        running.code == Some(1) && running.out.matches("is locked, so a server has it open").count() == 2,
        "{running:?}"
    );
    for server in servers {
        server.stop();
    }
    let apart = utl(&folder, "recover one two", "");
    assert!(apart.code == Some(1) && apart.err.contains("give directories of one cluster"), "{apart:?}");
    copy_dir(&folder.join("one"), &folder.join("torn")).expect("a copy");
    std::fs::remove_dir_all(folder.join("torn/member/wal")).expect("a log");
    let torn = utl(&folder, "recover torn one", "");
    assert!(
        torn.code == Some(0) && torn.out.starts_with("1, one, ") && torn.out.contains("can't be used: "),
        "{torn:?}"
    );
}
