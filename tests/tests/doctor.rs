//! `etcdctl check doctor` and `etcdctl top` against clusters with real faults: ours, and Go's where `OXETCD_REFERENCE` is set.

mod tools;

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask as requests;
use oxetcd_tests::certs::{Authority, Wish};
use oxetcd_tests::cluster::{Seats, with_learner};
use oxetcd_tests::net;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, free_ports};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tools::{HINT, ask, our_etcdctl, until, words};

/// More than a machine that stands still for a while needs.
const PATIENT: &str = "--command-timeout=20s";

/// What the doctor says, and its exit code.
fn examine(folder: &Path, flags: &str) -> (Value, Option<i32>) {
    let said = ask(&our_etcdctl(), folder, &[], &words(&format!("{flags} {PATIENT} check doctor -w json")), b"");
    assert!(!said.err.contains(HINT), "findings are hints enough: {said:?}");
    let seen: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"));
    let critical = seen["critical"].as_u64().expect("a count");
    assert_eq!(said.code, Some(i32::from(critical > 0)), "{said:?}");
    (seen, said.code)
}

/// `severity check member`, without what depends on the machine's disk.
fn findings(seen: &Value) -> Vec<String> {
    let all = seen["findings"].as_array().expect("findings").iter();
    let told = all.filter(|finding| !matches!(finding["check"].as_str(), Some("disk" | "network" | "lag")));
    let text = |finding: &Value, name: &str| finding[name].as_str().expect("a text").to_owned();
    told.map(|f| format!("{} {} {}", text(f, "severity"), text(f, "check"), text(f, "member"))).collect()
}

/// Asks until the findings are these: on a machine that stands still a leader may be lost for a moment.
fn assert_findings(folder: &Path, flags: &str, wanted: &[&str]) -> Value {
    let mut last = Value::Null;
    let seen = until_or(wanted, &mut last, || examine(folder, flags).0);
    seen.unwrap_or_else(|| panic!("{wanted:?} are not the findings of {flags}: {last:#}"))
}

fn until_or(wanted: &[&str], last: &mut Value, mut look: impl FnMut() -> Value) -> Option<Value> {
    for _ in 0..10 {
        *last = look();
        if findings(last) == wanted {
            return Some(last.clone());
        }
    }
    None
}

fn programs() -> Vec<PathBuf> {
    let gos = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    [our_etcd()].into_iter().chain(gos).collect()
}

#[test]
fn a_healthy_cluster_is_told_from_one_with_a_dead_member_and_one_without_quorum() {
    for program in programs() {
        net::run(None, async {
            let folder = TempDir::for_cluster("doctor");
            let mut seats = Seats::found(&vec![program.clone(); 3], folder.path(), &[]);
            seats.agree().await;
            // One endpoint is enough: the members' list names the others.
            let flags = format!("--endpoints={}", seats.url(0));
            let seen = assert_findings(folder.path(), &flags, &[]);
            let members = seen["members"].as_array().expect("members");
            assert_eq!(members.len(), 3);
            for member in members {
                assert_eq!(member["answers"], true, "{member}");
                assert_eq!(member["hash"], members[0]["hash"], "{seen:#}");
                assert_eq!(member["version"], "3.7.1");
                assert!(member["clockOffsetSeconds"].is_number() && member["roundTripSeconds"].is_number(), "{member}");
            }
            let line = words(&format!("{flags} {PATIENT} check doctor"));
            let said = ask(&our_etcdctl(), folder.path(), &[], &line, b"");
            assert_eq!(said.out.matches(": follower, version 3.7.1").count(), 2, "{said:?}");

            seats.kill(2);
            let seen = assert_findings(folder.path(), &flags, &["critical unreachable m3"]);
            let dead = seats.url(2);
            let found = seen["findings"].as_array().expect("findings").iter().find(|f| f["check"] == "unreachable");
            let found = found.expect("it is there")["found"].as_str().expect("a text").to_owned();
            assert_eq!(found, format!("{dead} does not answer: nobody listens there (connection refused)"));
            seats.kill(1);
            let wanted = ["critical quorum ", "critical unreachable m2", "critical unreachable m3"];
            assert_findings(folder.path(), &flags, &wanted);
        });
    }
}

#[test]
fn members_of_an_even_cluster_with_a_learner_and_one_that_never_started_are_found() {
    net::run(None, async {
        let folder = TempDir::for_cluster("doctor-even");
        let seats = Seats::found(&[our_etcd(), our_etcd()], folder.path(), &[]);
        let flags = format!("--endpoints={}", seats.urls().join(","));
        assert_findings(folder.path(), &flags, &["warning size "]);
        let (wire, port) = (Wire::connect(&seats.url(0)).await, free_ports().0);
        let request = pb::MemberAddRequest { peer_ur_ls: vec![format!("http://127.0.0.1:{port}")], is_learner: true };
        // Refused until connections have stood for 5 s.
        let added = async {
            loop {
                let added: Result<pb::MemberAddResponse, _> = wire.unary(requests::MEMBER_ADD, &request).await;
                if added.is_ok() {
                    break;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(120), added).await.expect("a learner more");
        let seen = examine(folder.path(), &flags).0;
        let all = findings(&seen);
        assert!(all.iter().any(|finding| finding.starts_with("critical unstarted ")), "{seen:#}");
        assert!(all.contains(&"warning size ".to_owned()), "a learner is no voter: {seen:#}");
    });
}

#[test]
fn a_learner_is_noted() {
    net::run(None, async {
        let folder = TempDir::for_cluster("doctor-learner");
        let (voter, learner) = with_learner(&our_etcd(), folder.path()).await;
        let seen = assert_findings(
            folder.path(),
            &format!("--endpoints={}", voter.client_url()),
            &["note learner learner", "note size "],
        );
        assert_eq!(seen["members"][1]["learner"], true, "{seen:#}");
        learner.kill();
    });
}

#[test]
fn a_certificate_that_ends_soon_and_a_member_that_nobody_reaches_are_found() {
    let folder = TempDir::new("doctor-tls");
    let ca = Authority::new(folder.path(), "ca");
    let flags = format!("--cacert={}", ca.file());
    for (days, wanted) in [
        (10, vec!["warning certificate default", "note size "]),
        (2, vec!["critical certificate default", "note size "]),
        (100, vec!["note size "]),
    ] {
        let wish = Wish { days: Some((-1, days)), ..Wish::both("server", "etcd", &["127.0.0.1"]) };
        let pair = ca.issue(&wish).flags("cert-file", "key-file");
        let launch = Launch::new(&our_etcd(), &folder.join(&format!("data{days}"))).with_tls(true, false);
        let server = launch.with_flags(&[pair[0].as_str(), pair[1].as_str()]).start();
        let seen = assert_findings(folder.path(), &format!("{flags} --endpoints={}", server.client_url()), &wanted);
        let left = seen["members"][0]["certificateDays"].as_i64().expect("days");
        assert!((days - 1..=days).contains(&left), "{seen:#}");
    }
    let dead = free_ports().0;
    let seen = assert_findings(
        folder.path(),
        &format!("--endpoints=127.0.0.1:{dead}"),
        &["critical unreachable ", &format!("critical unreachable 127.0.0.1:{dead}")],
    );
    assert_eq!(seen["members"][0]["answers"], false);
}

#[test]
fn a_small_quota_is_found_before_and_after_it_is_reached() {
    let folder = TempDir::new("doctor-quota");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&["--quota-backend-bytes=500000"]).start();
    let flags = format!("--endpoints={}", server.client_url());
    let value = vec![b'v'; 20_000];
    let mut warned = false;
    until("a full database", || {
        let said = ask(&our_etcdctl(), folder.path(), &[], &words(&format!("{flags} {PATIENT} put filler")), &value);
        let all = findings(&examine(folder.path(), &flags).0);
        warned |=
            all.contains(&"warning quota default".to_owned()) || all.contains(&"critical quota default".to_owned());
        assert!(said.code == Some(0) || said.err.contains("database space exceeded"), "{said:?}");
        (said.code != Some(0)).then_some(())
    });
    assert!(warned, "the doctor warns before the quota is reached");
    let seen = examine(folder.path(), &flags).0;
    assert!(findings(&seen).contains(&"critical alarm default".to_owned()), "{seen:#}");
}

#[test]
fn top_shows_each_member_once_where_there_is_no_terminal() {
    net::run(None, async {
        let folder = TempDir::for_cluster("top");
        let mut seats = Seats::found(&[our_etcd(), our_etcd(), our_etcd()], folder.path(), &[]);
        seats.agree().await;
        let leader = seats.leader().await;
        seats.kill((leader + 1) % 3);
        let leader = format!("m{}", seats.leader().await + 1);
        let line = words(&format!("--endpoints={} {PATIENT} top --once", seats.urls().join(",")));
        let shown = until("two members that answer", || {
            let said = ask(&our_etcdctl(), folder.path(), &[], &line, b"");
            let head = said.out.lines().next().unwrap_or_default().to_owned();
            let is_so = head.starts_with(&format!("3 members, 2 answer; leader: {leader}, term "))
                && head.ends_with("leases: 0");
            is_so.then_some(said)
        });
        assert_eq!((shown.code, shown.err.as_str()), (Some(0), ""), "{shown:?}");
        assert!(!shown.out.contains('\x1b'), "plain text: {shown:?}");
        let lines: Vec<&str> = shown.out.lines().collect();
        assert_eq!(lines.len(), 5, "{shown:?}");
        assert!(lines[1].starts_with("MEMBER") && lines[1].contains("WATCHERS"), "{shown:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("  silent  ")).count(), 1, "{shown:?}");
        assert!(lines.iter().any(|line| line.starts_with(&leader) && line.contains("leader  ")), "{shown:?}");
    });
}

/// `script` gives it a terminal; `q` is what somebody types.
#[test]
fn top_on_a_terminal_ends_with_q_and_leaves_the_screen_as_it_was() {
    let folder = TempDir::new("top-terminal");
    let is_there = Command::new("script").arg("--version").output().is_ok();
    if !is_there {
        println!("SKIPPED: no `script` to make a terminal with");
        return;
    }
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let line = format!("{} --endpoints={} top --interval=1h; stty -a", our_etcdctl().display(), server.client_url());
    let mut child = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is there");
    let (mut screen, shown) = (child.stdout.take().expect("a pipe"), Arc::new(Mutex::new(Vec::new())));
    let seen = shown.clone();
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(read @ 1..) = screen.read(&mut piece) {
            seen.lock().expect("nobody panics with it").extend_from_slice(&piece[..read]);
        }
    });
    let text = || oxetcd_tests::process::text(&shown.lock().expect("nobody panics with it"));
    until("a frame", || text().contains("q: quit").then_some(()));
    let mut keyboard = child.stdin.take().expect("a pipe");
    keyboard.write_all(b"q").expect("it reads");
    let status = until("the end", || child.try_wait().expect("it is ours"));
    drop(keyboard);
    reader.join().expect("it only reads");
    let out = text();
    assert!(status.success(), "{out}");
    for text in ["\x1b[?1049h", "MEMBER", "default", "\x1b[?1049l"] {
        assert!(out.contains(text), "no {text:?}: {out}");
    }
    let after = out.rsplit("\x1b[?1049l").next().unwrap_or_default();
    assert!(after.contains(" echo ") && after.contains(" icanon "), "the terminal is as before: {after}");
}

#[test]
fn the_doctors_wrong_formats_and_arguments_are_refused() {
    let folder = TempDir::new("doctor-formats");
    for (line, code) in [("check doctor -w table", 4), ("check doctor now", 128)] {
        let said = ask(&our_etcdctl(), folder.path(), &[], &words(line), b"");
        assert_eq!(said.code, Some(code), "{said:?}");
    }
}
