//! Our etcdutl against Go's 3.7.1 on the same files: what it prints, and what servers of both kinds find in what it
//! restores. Needs `OXETCD_REFERENCE`, but for the damaged files.

mod tools;

use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, run, text};
use oxetcd_tests::temp::{TempDir, copy_dir};
use std::path::Path;
use std::process::Command;
use tools::{Said, ask, our_etcdctl, our_etcdutl, told, words};

/// A server with a past: puts, deletes, a lease, a compaction; its snapshot stands in `image.db`.
fn snapshot(folder: &TempDir) {
    let server = Launch::new(&our_etcd(), &folder.join("source")).start();
    let endpoint = server.client_address();
    let says = |line: &str| {
        let said = ask(&our_etcdctl(), folder.path(), &[], &words(&format!("--endpoints={endpoint} {line}")), b"");
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
        said.out
    };
    for n in 0..40 {
        says(&format!("put key{} value{n}", n % 13));
    }
    let granted = says("lease grant 1000");
    let lease = granted.split(' ').nth(1).expect("lease ID granted …");
    says(&format!("put leased x --lease={lease}"));
    says("del key3");
    says("compaction 21 --physical");
    says("del key4 key7 --range");
    says("put last one");
    says("snapshot save image.db");
}

/// Both tools on copies of the same files. Answers their folders.
fn both(reference: &Reference, source: &TempDir, line: &str) -> ([TempDir; 2], [Said; 2]) {
    let folders = [TempDir::new("utl-go"), TempDir::new("utl-ours")];
    let programs = [reference.program("3.7", "etcdutl"), our_etcdutl()];
    let said = [0, 1].map(|i| {
        for file in ["image.db", "bare.db", "bad.db"] {
            if source.join(file).exists() {
                std::fs::copy(source.join(file), folders[i].join(file)).expect("a copy");
            }
        }
        told(ask(&programs[i], folders[i].path(), &[], &words(line), b""))
    });
    (folders, said)
}

#[test]
fn prints_what_go_prints() {
    let Some(reference) = Reference::find() else { return };
    let source = TempDir::new("utl");
    snapshot(&source);
    let image = std::fs::read(source.join("image.db")).expect("a snapshot");
    std::fs::write(source.join("bare.db"), &image[..image.len() - 32]).expect("a file");
    std::fs::write(source.join("bad.db"), [&image[..9000], &[1], &image[9001..]].concat()).expect("a file");
    let mut equal = 0;
    for line in [
        "snapshot status",
        "snapshot status no-such-file",
        "snapshot status image.db",
        "snapshot status bare.db -w fields",
        "snapshot status image.db -w json",
        "snapshot status image.db -w table",
        "snapshot status image.db -w protobuf",
        "snapshot status image.db -w foo",
        "hashkv image.db",
        "hashkv image.db -w fields",
        "hashkv image.db -w json",
        "hashkv image.db -w table",
        "hashkv image.db -w protobuf",
        "hashkv image.db -w foo",
        "hashkv image.db --rev=20",
        "hashkv image.db --rev=21",
        "hashkv image.db --rev=22",
        "hashkv image.db --rev=44",
        "hashkv image.db --rev=9999",
        "hashkv no-such-file",
        "defrag --data-dir no-such-folder",
        "version",
        "snapshot restore",
        "snapshot restore no-such-file --data-dir x",
        "snapshot restore bare.db --data-dir x",
        "snapshot restore bad.db --data-dir x",
        "snapshot restore image.db --data-dir x --bump-revision 5",
        "snapshot restore image.db --data-dir x --mark-compacted",
        "snapshot restore image.db --data-dir x --name n9",
        "snapshot restore image.db --data-dir x --initial-cluster default=foo",
        "snapshot restore image.db --data-dir x --initial-cluster default",
        "snapshot restore image.db --data-dir x --initial-advertise-peer-urls http://127.0.0.1:1",
        "snapshot restore image.db --data-dir x --name a --initial-cluster a=http://127.0.0.1:1,b=http://127.0.0.1:1 \
         --initial-advertise-peer-urls http://127.0.0.1:1",
        "snapshot restore image.db --data-dir x --initial-cluster default=http://localhost:2380,,b=http://127.0.0.1:1,",
        "snapshot restore image.db --data-dir x --initial-cluster '' ",
        "snapshot restore image.db --data-dir x --initial-advertise-peer-urls http://localhost:2380,http://localhost:2381",
        "snapshot restore image.db --data-dir x --name a --initial-cluster a=http://127.0.0.1:1,b=http://127.0.0.1:2 \
         --initial-advertise-peer-urls http://127.0.0.1:2",
        "snapshot restore image.db --data-dir x --name a --initial-advertise-peer-urls HTTP://127.0.0.1:1 \
         --initial-cluster a=http://127.0.0.1:1,a-b=http://127.0.0.1:2,c=http://127.0.0.1:2",
        "snapshot restore image.db --data-dir x --name a --initial-advertise-peer-urls http://127.0.0.1:1,unix:///p \
         --initial-cluster b=http://127.0.0.1:3,a=unix:///p,a=http://127.0.0.1:1,c=http://127.0.0.1:2",
        "snapshot restore image.db --data-dir .",
        "snapshot restore image.db --wal-dir .",
        "snapshot restore image.db",
        "snapshot restore image.db --data-dir x --wal-dir y --bump-revision 1000 --mark-compacted",
        "snapshot restore bare.db --data-dir x --skip-hash-check",
    ] {
        let (_folders, [theirs, ours]) = both(&reference, &source, line);
        assert_eq!(theirs, ours, "etcdutl {line}");
        equal += 1;
    }
    println!("etcdutl: {equal} equal command lines");
}

#[test]
fn restores_what_both_servers_start_from() {
    let Some(reference) = Reference::find() else { return };
    let source = TempDir::new("utl");
    snapshot(&source);
    for more in ["", " --bump-revision 1000 --mark-compacted"] {
        let launch = Launch::new(&our_etcd(), &source.join("unused"));
        let peer = launch.peer_url();
        let line = format!(
            "snapshot restore image.db --data-dir restored --initial-cluster default={peer} \
             --initial-advertise-peer-urls {peer} --initial-cluster-token tokens{more}"
        );
        let (folders, [theirs, ours]) = both(&reference, &source, &line);
        assert_eq!(theirs, ours, "etcdutl {line}");
        // The same buckets with the same bytes in them.
        let hash = |folder: &TempDir| {
            let db = folder.join("restored/member/snap/db");
            ask(
                &reference.program("3.7", "etcdutl"),
                folder.path(),
                &[],
                &words(&format!("snapshot status {}", db.display())),
                b"",
            )
        };
        assert_eq!(hash(&folders[0]).out.split(' ').next(), hash(&folders[1]).out.split(' ').next());
        assert_eq!(files(&folders[0].join("restored")), files(&folders[1].join("restored")));
        let mut found = Vec::new();
        for (folder, who) in folders.iter().zip(["go", "ours"]) {
            for server in [our_etcd(), reference.program("3.7", "etcd")] {
                let data = folder.join(&format!("served-{}", found.len()));
                copy_dir(&folder.join("restored"), &data).expect("a copy");
                let mut launch = launch.clone().with_binary(&server);
                launch.data_dir = data;
                let running = launch.try_start().unwrap_or_else(|e| panic!("restored by {who}: {e}"));
                found.push(state(&running.client_address(), folder.path()));
            }
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:#?}");
    }
}

/// Keys, ids and revision as a client sees them.
fn state(endpoint: &str, folder: &Path) -> Vec<String> {
    ["get --prefix key", "get leased", "member list", "get last -w json", "put more x", "get more -w json"]
        .map(|line| {
            let said = ask(&our_etcdctl(), folder, &[], &words(&format!("--endpoints={endpoint} {line}")), b"");
            let out =
                said.out.split("\"raft_term\":").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
            out.collect::<Vec<_>>().join("").replace(endpoint, "ENDPOINT")
        })
        .to_vec()
}

/// Names below a folder, with the size of the logs.
fn files(folder: &Path) -> Vec<String> {
    let find = run(Command::new("find").current_dir(folder).args([".", "-printf", "%p %m\n"]));
    let mut names: Vec<String> = text(&find.stdout).lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn defragments_what_go_reads() {
    let Some(reference) = Reference::find() else { return };
    let source = TempDir::new("utl-defrag");
    snapshot(&source);
    let go = reference.program("3.7", "etcdutl");
    let hash = || ask(&our_etcdutl(), source.path(), &[], &words("hashkv source/member/snap/db"), b"").out;
    let before = hash();
    let size = || std::fs::metadata(source.join("source/member/snap/db")).expect("a database").len();
    let size_before = size();
    let said = ask(&our_etcdutl(), source.path(), &[], &words("defrag --data-dir source"), b"");
    assert!(said.code == Some(0) && said.err.contains("finished defragmenting directory"), "{said:?}");
    assert!(size() <= size_before && hash() == before, "{size_before} → {}", size());
    let check = run(Command::new(reference.tool("bbolt")).arg("check").arg(source.join("source/member/snap/db")));
    assert!(text(&check.stdout).contains("OK"), "{check:?}");
    let status = ask(&go, source.path(), &[], &words("snapshot status source/member/snap/db"), b"");
    assert_eq!(status.code, Some(0), "{status:?}");
}

/// Nothing panics, nothing is left behind, and each refusal says what is wrong.
#[test]
fn damaged_files_are_refused_with_a_reason() {
    let source = TempDir::new("utl-damage");
    snapshot(&source);
    let image = std::fs::read(source.join("image.db")).expect("a snapshot");
    let damaged = source.join("damaged.db");
    let mut refused = 0;
    for step in 0..60 {
        let mut bytes = image.clone();
        let at = step * bytes.len() / 60;
        match step % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at..].iter_mut().take(64).for_each(|b| *b = 0xff),
            _ => bytes[at..].iter_mut().take(4096).for_each(|b| *b = 0),
        }
        std::fs::write(&damaged, &bytes).expect("a file");
        for line in [
            "snapshot status damaged.db",
            "hashkv damaged.db",
            "snapshot restore damaged.db --skip-hash-check --data-dir out",
        ] {
            let said = ask(&our_etcdutl(), source.path(), &[], &words(line), b"");
            assert!(matches!(said.code, Some(0 | 1)) && !said.err.contains("panicked"), "step {step} {line}: {said:?}");
            refused += usize::from(said.code == Some(1));
            let _ = std::fs::remove_dir_all(source.join("out"));
        }
    }
    assert!(refused > 20, "{refused}");
    // With the checksum, every damage is found, and nothing is made.
    let said = ask(&our_etcdutl(), source.path(), &[], &words("snapshot restore damaged.db --data-dir out"), b"");
    assert!(said.code == Some(1) && said.err.contains("expected sha256"), "{said:?}");
    assert!(!source.join("out").exists());
}

/// Go repeats the error behind its usage, which is in our words here.
#[test]
fn misuse_is_told_as_go_tells_it() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("utl-misuse");
    let (go, mut equal) = (reference.program("3.7", "etcdutl"), 0);
    for line in [
        "foo",
        "snapsho",
        "--foo",
        "-w",
        "--timeout=x version",
        "hashkv",
        "hashkv a b",
        "hashkv --rev x a",
        "snap st a b",
        "snapshot restore --bump-revision -1 a",
        "snapshot status --foo a",
        "defrag",
        "migrate",
        "migrate --data-dir x",
        "completion",
        "completion foo",
        "backup",
        "check v2store",
        "snapshot save a",
    ] {
        let [theirs, ours] = [&go, &our_etcdutl()].map(|program| {
            let said = ask(program, folder.path(), &[], &words(line), b"");
            let ends =
                |text: &str| text.lines().next().zip(text.lines().last()).map(|(a, b)| (a.to_owned(), b.to_owned()));
            (said.code, said.out.is_empty(), ends(&said.err))
        });
        assert_eq!(theirs, ours, "etcdutl {line}");
        equal += 1;
    }
    println!("etcdutl: {equal} equal misuses");
}

/// Go waits for ever, or ends with a trace of its stack.
#[test]
fn files_of_a_running_server_are_refused() {
    let folder = TempDir::new("utl-locked");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    for line in [
        "snapshot status data/member/snap/db",
        "hashkv data/member/snap/db",
        "defrag --data-dir data",
        "migrate --data-dir data --target-version 3.6",
        "bbolt check data/member/snap/db",
        "bbolt compact -o copy data/member/snap/db",
        "auth reset-root --data-dir data --disable",
    ] {
        let said = ask(&our_etcdutl(), folder.path(), &[], &words(&format!("{line} --timeout=50ms")), b"");
        let text = "timeout: data/member/snap/db is locked, so a server has it open; stop the server";
        assert!(said.code == Some(1) && said.out.is_empty() && said.err.contains(text), "{line}: {said:?}");
    }
    server.stop();
    let said = ask(&our_etcdutl(), folder.path(), &[], &words("hashkv data/member/snap/db"), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
}
