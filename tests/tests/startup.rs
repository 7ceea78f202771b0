//! Bad flags, bad environments, bad directories: the server ends with a message that names cause and cure, and never
//! with a panic; what crashes leave behind is no obstacle.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Refusal, Server, run, text};
use oxetcd_tests::temp::{TempDir, copy_dir};
use oxetcd_tests::wire::Wire;
use rustix::process::Signal;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A directory with 400 keys, a page tree of several pages, and a `.snap`: without one, whatever is missing from the
/// page store could be, and would be, had from the log.
async fn used_directory(folder: &TempDir) -> PathBuf {
    let data = folder.join("used");
    let server = Launch::new(&our_etcd(), &data).with_flags(&["--snapshot-count=100"]).start();
    for _ in 0..200 {
        fill(&server, 0, 400).await;
        if !files(&data.join("member/snap"), ".snap").is_empty() {
            server.stop();
            return data;
        }
    }
    panic!("80,000 entries and no .snap; log:\n{}", server.log())
}

async fn fill(server: &Server, from: usize, to: usize) {
    let wire = Wire::connect(&server.client_url()).await;
    for n in from..to {
        let put = ask::put(&format!("key{n:05}"), &"v".repeat(300));
        let done: Result<pb::PutResponse, _> = wire.unary(ask::PUT, &put).await;
        done.unwrap_or_else(|e| panic!("put {n}: {e}"));
    }
}

fn refusal(launch: &Launch) -> Refusal {
    match launch.try_start() {
        Err(refusal) => refusal,
        Ok(server) => panic!("it started; log:\n{}", server.log()),
    }
}

fn assert_says(refusal: &Refusal, what: &str, code: i32, words: &[&str]) {
    assert!(!refusal.log.contains("panicked"), "{what}: a panic: {refusal}");
    assert_eq!(refusal.code, Some(code), "{what}: {refusal}");
    for word in words {
        assert!(refusal.log.contains(word), "{what}: no {word:?} in {refusal}");
    }
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    file.seek(SeekFrom::Start(offset)).expect("files can be sought");
    file.write_all(bytes).expect("the file is writable");
}

fn flip(path: &Path, offset: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.seek(SeekFrom::Start(offset)).expect("files can be sought");
    file.read_exact(&mut byte).expect("the offset is inside");
    file.seek(SeekFrom::Start(offset)).expect("files can be sought");
    file.write_all(&[byte[0] ^ 0x10]).expect("the file is writable");
}

/// Where the words are first. A bit elsewhere may be one that nobody reads: records are padded.
fn offset_of(path: &Path, words: &str) -> u64 {
    let bytes = fs::read(path).expect("the file is there");
    let at = bytes.windows(words.len()).position(|window| window == words.as_bytes());
    at.expect("they are there") as u64
}

/// Replaces the words wherever they are.
fn replace(path: &Path, words: &str, others: &str) {
    let mut bytes = fs::read(path).expect("the file is there");
    let places = 0..=bytes.len() - words.len();
    let found: Vec<usize> = places.filter(|at| bytes[*at..].starts_with(words.as_bytes())).collect();
    assert!(!found.is_empty(), "no {words} in {}", path.display());
    for at in found {
        bytes[at..at + words.len()].copy_from_slice(others.as_bytes());
    }
    fs::write(path, bytes).expect("the file is writable");
}

fn truncate(path: &Path, len: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("the file is there");
    file.set_len(len).expect("the file is writable");
}

/// The folder's files of one kind, in order.
fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a folder can be listed").path()).collect();
    paths.retain(|p| p.to_string_lossy().ends_with(suffix));
    paths.sort();
    paths
}

type Damage = fn(&Path);

#[tokio::test]
async fn damaged_directories_are_refused_with_cause_and_cure() {
    let folder = TempDir::new("damage");
    let used = used_directory(&folder).await;
    let cases: &[(&str, Damage, &[&str])] = &[
        ("an empty page store", |d| truncate(&d.join("member/snap/db"), 0), &["member/snap/db"]),
        ("half a page of page store", |d| truncate(&d.join("member/snap/db"), 2000), &["member/snap/db"]),
        ("a page store cut after its metas", |d| truncate(&d.join("member/snap/db"), 8192), &["page"]),
        (
            "both metas damaged",
            |d| {
                flip(&d.join("member/snap/db"), 16 + 24);
                flip(&d.join("member/snap/db"), 4096 + 16 + 24);
            },
            &["is not a valid database file", "restore it from a snapshot"],
        ),
        (
            "every page but the metas overwritten",
            |d| {
                let db = d.join("member/snap/db");
                let len = fs::metadata(&db).expect("the file is there").len();
                let junk = vec![0xff; usize::try_from(len - 8192).expect("a small file")];
                write_at(&db, 8192, &junk);
            },
            &["page"],
        ),
        (
            "no page store",
            |d| fs::remove_file(d.join("member/snap/db")).expect("it is there"),
            &["of the backend is missing"],
        ),
        ("no log", |d| fs::remove_dir_all(d.join("member/wal")).expect("it is there"), &["log directory", "--wal-dir"]),
        (
            "a flipped bit inside the log",
            |d| {
                let log = &files(&d.join("member/wal"), ".wal")[0];
                flip(log, offset_of(log, "vvvvvvvv"));
            },
            &[".wal", "offset"],
        ),
        (
            "a log cut far back",
            |d| truncate(files(&d.join("member/wal"), ".wal").last().expect("a segment"), 9000),
            &["db"],
        ),
        (
            "foreign files where the log belongs",
            |d| {
                fs::remove_dir_all(d.join("member")).expect("it is there");
                fs::create_dir_all(d.join("member/wal/precious")).expect("a new folder");
            },
            &["member/wal", "precious", "empty"],
        ),
        (
            "a cluster of a later version",
            |d| replace(&d.join("member/snap/db"), "clusterVersion3.7.0", "clusterVersion3.8.0"),
            &["invalid downgrade", "3.8.0", "etcdctl downgrade"],
        ),
        (
            "files of a later version",
            |d| replace(&d.join("member/snap/db"), "storageVersion3.7.0", "storageVersion3.8.0"),
            &["written by a newer etcd", "3.8.0", "etcdctl downgrade"],
        ),
        ("an old proxy's data", |d| fs::create_dir(d.join("proxy")).expect("a new folder"), &["proxy", "remove"]),
    ];
    for (n, (what, damage, words)) in cases.iter().enumerate() {
        let data = folder.join(&format!("case{n}"));
        copy_dir(&used, &data).expect("a copy");
        damage(&data);
        let refusal = refusal(&Launch::new(&our_etcd(), &data));
        assert_says(&refusal, what, 1, words);
    }
}

#[tokio::test]
async fn leftovers_of_crashes_are_no_obstacle() {
    let folder = TempDir::new("leftovers");
    let data = used_directory(&folder).await;
    for name in ["snap/db.tmp.123", "snap/0000000000000009.snap.broken", "snap/tmp.77", "wal/0.tmp", "wal/1.tmp"] {
        fs::write(data.join("member").join(name), "half a file").expect("a writable folder");
    }
    // A torn tail: zeros after the last record are the preallocated rest; junk in it is what a crash tears.
    let server = Launch::new(&our_etcd(), &data).start();
    fill(&server, 400, 410).await;
    server.kill();
    let server = Launch::new(&our_etcd(), &data).start();
    let wire = Wire::connect(&server.client_url()).await;
    let all: pb::RangeResponse =
        wire.unary(ask::RANGE, &pb::RangeRequest { count_only: true, ..ask::everything() }).await.expect("a count");
    assert_eq!(all.count, 410);
    for name in ["snap/db.tmp.123", "snap/tmp.77", "wal/0.tmp"] {
        assert!(!data.join("member").join(name).exists(), "{name} is still there");
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let folder = TempDir::new("locked");
    let data = folder.join("data");
    let server = Launch::new(&our_etcd(), &data).start();
    let refusal = refusal(&Launch::new(&our_etcd(), &data));
    assert_says(&refusal, "locked", 1, &["lock", "another"]);
    fill(&server, 0, 1).await;
}

#[tokio::test]
async fn a_port_in_use_is_refused_before_files_are_touched() {
    let folder = TempDir::new("port");
    let server = Launch::new(&our_etcd(), &folder.join("a")).start();
    let mut second = Launch::new(&our_etcd(), &folder.join("b"));
    second.client_port = server.launch().client_port;
    assert_says(&refusal(&second), "port", 1, &["failed to start etcd", "bind: address already in use"]);
    assert!(!folder.join("b").exists(), "nothing was made");
}

#[test]
fn unusable_places_are_refused() {
    let folder = TempDir::new("places");
    let file = folder.join("file");
    fs::write(&file, "x").expect("a writable folder");
    assert_says(&refusal(&Launch::new(&our_etcd(), &file)), "a file", 1, &["cannot access data directory", "file"]);
    let log = Launch::new(&our_etcd(), &folder.join("d")).with_flags(&["--log-outputs=/nonexistent/x.log"]);
    assert_says(&refusal(&log), "a log in nowhere", 1, &["open /nonexistent/x.log: no such file or directory"]);
    let config = Launch::new(&our_etcd(), &folder.join("d")).with_flags(&["--config-file=/nonexistent"]);
    assert_says(&refusal(&config), "no config file", 1, &["open /nonexistent: no such file or directory"]);
}

/// Runs the server in a mount namespace whose `/mnt` is a small file system made with `options`.
fn on_tmpfs(options: &str, flags: &str) -> Option<Refusal> {
    let script = format!(
        "mount -t tmpfs -o {options} none /mnt || exit 77; exec {} --data-dir=/mnt/{flags} --listen-client-urls=http://127.0.0.1:0 \
         --advertise-client-urls=http://127.0.0.1:1",
        our_etcd().display()
    );
    let output = run(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    let log = format!("{}{}", text(&output.stdout), text(&output.stderr));
    let made = output.status.code() != Some(77) && !log.contains("unshare failed");
    made.then(|| Refusal { code: output.status.code(), log })
}

#[test]
fn read_only_and_full_disks_are_refused() {
    for (what, options, words) in [
        ("read-only", "ro", ["cannot access data directory", "Read-only file system"]),
        ("full", "size=1m", ["/mnt/data/member/wal", "No space left on device"]),
    ] {
        match on_tmpfs(options, "data") {
            Some(refusal) => assert_says(&refusal, what, 1, &words),
            None => println!("SKIPPED: no right to mount a {what} file system"),
        }
    }
}

#[test]
fn too_few_descriptors_are_refused() {
    let folder = TempDir::new("descriptors");
    let script = format!("ulimit -n 120; exec {} --data-dir={}/d", our_etcd().display(), folder.path().display());
    let output = run(Command::new("sh").args(["-c", &script]));
    let refusal = Refusal { code: output.status.code(), log: text(&output.stderr) };
    assert_says(&refusal, "ulimit", 1, &["file descriptor limit of etcd process is too low; please set higher", "120"]);
}

#[test]
fn wrong_flags_end_with_code_2_and_wrong_settings_with_1() {
    let folder = TempDir::new("flags");
    let launch = || Launch::new(&our_etcd(), &folder.join("d"));
    for (flags, code, word) in [
        (vec!["--nonsense"], 2, "flag provided but not defined: -nonsense"),
        (vec!["--max-txn-ops=x"], 2, "invalid value \"x\" for flag -max-txn-ops: parse error"),
        (vec!["--log-level=loud"], 2, "unrecognized level"),
        (vec!["leftover"], 1, "\\\"leftover\\\" is not a valid flag"),
        (vec!["--heartbeat-interval=900"], 1, "should be at least as 5 times"),
        (vec!["--initial-cluster=a=http://127.0.0.1:1"], 1, "couldn't find local name"),
        (vec!["--auto-compaction-retention=x"], 1, "error parsing CompactionRetention"),
        (vec!["--listen-client-urls=http://192.0.2.1:1"], 1, "cannot assign requested address"),
    ] {
        assert_says(&refusal(&launch().with_flags(&flags)), &flags.join(" "), code, &[word]);
    }
    assert!(!folder.join("d").exists(), "no directory for a refused start");
    let version = run(Command::new(our_etcd()).arg("--version"));
    assert!(version.status.success() && text(&version.stdout).starts_with("etcd Version: 3.7.1\n"), "{version:?}");
    assert_eq!(text(&version.stdout).lines().count(), 5);
    assert!(run(Command::new(our_etcd()).arg("--help")).status.success());
}

/// Of three stops one is quick, at least: a machine that stands still makes others late.
#[tokio::test]
async fn a_stop_is_quick_and_by_the_signal_even_with_open_streams() {
    const QUICK: Duration = Duration::from_millis(1500);
    let mut took = Vec::new();
    while took.len() < 3 {
        took.push(stop_with_a_stream().await);
        if took.iter().any(|took| *took < QUICK) {
            return;
        }
    }
    panic!("three stops took {took:?}");
}

async fn stop_with_a_stream() -> Duration {
    use std::os::unix::process::ExitStatusExt as _;
    let folder = TempDir::new("stop");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let wire = Wire::connect(&server.client_url()).await;
    let mut stream =
        wire.stream(ask::WATCH, prost::Message::encode_to_vec(&ask::create(ask::watch("a", ""))).into(), &[]);
    let created: Option<pb::WatchResponse> = stream.next().await.expect("a watch");
    assert!(created.is_some_and(|c| c.created));
    let before = Instant::now();
    let status = server.stop();
    let took = before.elapsed();
    assert_eq!(status.signal(), Some(15), "{status}");
    let end = stream.next::<pb::WatchResponse>().await;
    assert!(!matches!(end, Ok(Some(_))), "the stream ends: {end:?}");
    took
}

/// Flags and the word that our refusal holds; none: it runs.
type Told = (&'static [&'static str], Option<&'static str>);

/// Each pair of flags is given to Go etcd, too, where there is one: both serve, or both end with the same code.
#[test]
fn flags_are_taken_and_refused_as_by_go_etcd() {
    let folder = TempDir::new("as-go");
    let go = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    let mut programs = vec![our_etcd()];
    programs.extend(go);
    let yaml = folder.join("etcd.yaml");
    let cases: &[Told] = &[
        (&["--version", "foo"], Some("is not a valid flag")),
        (&["--auto-compaction-retention="], None),
        (&["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"], None),
        (&["--auto-compaction-retention=010"], None),
        (&["--auto-compaction-retention=0x10"], Some("time: unknown unit")),
        (&["--auto-compaction-mode=revision", "--auto-compaction-retention=-5"], Some("time: missing unit")),
        (&["--log-level="], None),
        (&["--log-level=INFO", "--log-format="], None),
        (&["--log-level=loud"], Some("unrecognized level")),
        (&["--log-outputs="], Some("failed to verify flags")),
        (&["--log-outputs=nodir/x"], Some("open nodir/x: no such file or directory")),
        (&["--auth-token="], None),
        (&["--auth-token=foo"], Some("auth: invalid auth options")),
        (&["--cors="], Some("invalid value")),
        (&["--tls-min-version=foo"], Some("unexpected TLS version")),
        (&["--cipher-suites=foo"], Some("unexpected TLS cipher suite")),
        (&["--max-learners=-1"], Some("too many learner members")),
        (&["--compact-hash-check-time=-1s"], Some("(set to -1s)")),
        (&["--listen-client-urls=http://127.0.0.1:99999"], Some("address 99999: invalid port")),
        (&["--listen-client-urls=http://:1"], Some("expected IP in URL for binding (http://:1)")),
        (&["--advertise-client-urls=http://:1"], Some("unexpected empty host (http://:1)")),
        (&["--initial-cluster=default=http://127.0.0.1:1"], Some("(resolved urls: ")),
        (&["--initial-cluster= default =http://127.0.0.1:1"], Some("couldn't find local name")),
    ];
    for (n, (flags, word)) in cases.iter().enumerate() {
        for (m, program) in programs.iter().enumerate() {
            let launch = Launch::new(program, &folder.join(&format!("{n}-{m}"))).with_flags(flags);
            compare(&launch, *word);
        }
    }
    for (n, (text, word)) in [
        ("name: default\n---\nname: [\n", None),
        ("log-level: ''\nlog-format: ''\nlog-outputs: []\nauth-token: ''\nauto-compaction-retention: ''\n", None),
        ("\tname: x\n", Some("found a tab character that violates indentation")),
    ]
    .into_iter()
    .enumerate()
    {
        for (m, program) in programs.iter().enumerate() {
            let mut launch = Launch::new(program, &folder.join(&format!("yaml-{n}-{m}")));
            fs::write(&yaml, as_file(&launch) + text).expect("a writable folder");
            launch = launch.with_flags(&[&format!("--config-file={}", yaml.display())]);
            compare(&launch, word);
        }
    }
}

fn as_file(launch: &Launch) -> String {
    let (client, peer) = (launch.client_url(), launch.peer_url());
    format!(
        "data-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\nlisten-peer-urls: {peer}\n\
         initial-advertise-peer-urls: {peer}\ninitial-cluster: default={peer}\n",
        launch.data_dir.display()
    )
}

fn compare(launch: &Launch, word: Option<&str>) {
    let what = format!("{} {:?}", launch.binary.display(), launch.flags);
    match (launch.try_start(), word) {
        (Ok(server), None) => drop(server),
        (Ok(_), Some(word)) => panic!("{what}: it serves, and should say {word:?}"),
        (Err(refusal), None) => panic!("{what}: {refusal}"),
        (Err(refusal), Some(word)) => {
            // Wrong flags, and a log level that Go etcd panics over.
            let code = if ["invalid value", "unrecognized level"].contains(&word) { 2 } else { 1 };
            assert_eq!(refusal.code, Some(code), "{what}: {refusal}");
            assert!(refusal.log.contains(word), "{what}: no {word:?} in {refusal}");
        }
    }
}

#[test]
fn a_cluster_may_name_this_host_otherwise_than_the_member_does() {
    let folder = TempDir::new("names");
    let name = text(&run(&mut Command::new("hostname")).stdout);
    let lookup = run(Command::new("getent").args(["ahostsv4", name.trim()]));
    let Some(address) = text(&lookup.stdout).split_whitespace().next().map(str::to_owned) else {
        println!("SKIPPED: this host's name has no address");
        return;
    };
    let go = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    for (n, program) in [our_etcd()].into_iter().chain(go).enumerate() {
        let launch = Launch::new(&program, &folder.join(&format!("{n}")));
        let port = launch.peer_port;
        let launch = launch.with_flags(&[
            &format!("--listen-peer-urls=http://0.0.0.0:{port}"),
            &format!("--initial-advertise-peer-urls=http://{address}:{port}"),
            &format!("--initial-cluster=default=http://{}:{port}", name.trim()),
        ]);
        compare(&launch, None);
    }
}

#[test]
fn signals_that_go_programs_ignore_are_ignored() {
    let folder = TempDir::new("signals");
    let go = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    for (n, program) in [our_etcd()].into_iter().chain(go).enumerate() {
        let server = Launch::new(&program, &folder.join(&format!("{n}"))).start();
        for signal in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "XCPU", "XFSZ", "PIPE", "35", "64"] {
            let kill = Command::new("kill").args(["-s", signal, &server.pid().to_string()]).status();
            assert!(kill.is_ok_and(|status| status.success()), "kill -s {signal}");
        }
        assert!(
            std::net::TcpStream::connect(server.client_address()).is_ok(),
            "{}: {}",
            program.display(),
            server.log()
        );
        server.signal(Signal::QUIT);
        // Nothing is left to stop, or soon will be: of two signals the one of the lower number comes first.
        let status = server.stop();
        assert_eq!(status.code(), Some(2), "{}: {status}", program.display());
    }
}
