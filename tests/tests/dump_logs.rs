//! `etcd-dump-logs` and `etcd-dump-metrics`. Go's `etcd-dump-logs` 3.7.1 ends with a panic at the first entry that is no change
//! of members, so it is asked about logs that hold nothing else; the rest is told from what was written.

mod tools;

use oxetcd_tests::cluster::initial_cluster;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use std::path::PathBuf;
use tools::{Said, ask, our_etcdctl, our_etcdutl, words};

fn tool(name: &str) -> PathBuf {
    our_etcdutl().with_file_name(name)
}

fn dump(folder: &TempDir, line: &str) -> Said {
    ask(&tool("etcd-dump-logs"), folder.path(), &[], &words(line), b"")
}

/// A server's log in `data`, after these commands.
fn written(label: &str, server: &std::path::Path) -> TempDir {
    let folder = TempDir::new(label);
    let server = Launch::new(server, &folder.join("data")).with_flags(&["--bcrypt-cost=4"]).start();
    for line in [
        "put a 1",
        "put b '\u{e9} \"x\"'",
        "del a",
        "lease grant 1000",
        "compaction 3",
        "role add r",
        "user add u:secret",
        "user passwd u",
        "snapshot save image.db",
    ] {
        let line = format!("--endpoints={} {line}", server.client_address());
        let interactive = if line.ends_with("passwd u") { " --interactive=false" } else { "" };
        let said = ask(&our_etcdctl(), folder.path(), &[], &words(&(line.clone() + interactive)), b"secret\nsecret\n");
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
    }
    server.stop();
    folder
}

#[test]
fn entries_are_shown_with_what_they_ask_for() {
    let mut servers = vec![our_etcd()];
    servers.extend(Reference::find().map(|reference| reference.program("3.7", "etcd")));
    for server in servers {
        let folder = written("dump-logs", &server);
        let all = dump(&folder, "data");
        assert_eq!((all.code, all.err.as_str()), (Some(0), ""), "{all:?}");
        let lines: Vec<&str> = all.out.lines().collect();
        assert_eq!(lines[..4], ["Snapshot:", "empty", "Start dumping log entries from snapshot.", "WAL metadata:"]);
        assert!(lines[4].starts_with("nodeID=") && lines[4].contains(" commitIndex="), "{all:?}");
        assert_eq!(lines[7], "term\t     index\ttype\tdata");
        assert!(lines[8].starts_with("   1\t         1\tconf\tmethod=ConfChangeAddNode id="), "{}", lines[8]);
        for wanted in [
            "put:<key:\"a\" value:\"1\" > \n",
            "put:<key:\"b\" value:\"\\303\\251 \\\"x\\\"\" > \n",
            "delete_range:<key:\"a\" > \n",
            "lease_grant:<TTL:1000 ID:",
            "compaction:<revision:3 > \n",
            "auth_role_add:<name:\"r\" > \n",
            "auth_user_change_password:<name:\"u\" ",
        ] {
            assert_eq!(all.out.matches(wanted).count(), 1, "{wanted}: {}", all.out);
        }
        assert!(!all.out.contains("secret") && !all.out.contains("authenticate:"), "{}", all.out);
        assert!(lines.iter().any(|line| line.contains("\tnorm\theader:<ID:")), "{}", all.out);
        let count = lines[5].strip_prefix("WAL entries: ").expect("a count");
        assert!(all.out.ends_with(&format!("\nEntry types (Normal,ConfigChange) count is : {count}\n")), "{}", all.out);
        assert_eq!(lines[6], format!("lastIndex={count}"));

        for (types, wanted) in [
            ("IRRPut", 2),
            ("IRRDeleteRange,IRRCompaction", 2),
            ("IRRLeaseGrant", 1),
            ("IRRTxn", 0),
            ("Request", 0),
            ("ConfigChange,IRRPut", 3),
        ] {
            let said = dump(&folder, &format!("-entry-type {types} data"));
            let end = format!("\nEntry types ({types}) count is : {wanted}\n");
            assert!(said.code == Some(0) && said.out.ends_with(&end), "{types}: {said:?}");
        }
        parts(&folder);
        decoders(&folder);
        raw(&folder);
    }
}

/// From one index to another, and from elsewhere.
fn parts(folder: &TempDir) {
    let part = dump(folder, "-start-index=3 --end-index=6 data");
    let lines: Vec<&str> = part.out.lines().collect();
    assert_eq!(lines[0], "Start dumping log entries from index 3.");
    assert_eq!(lines[3..5], ["WAL entries: 3", "lastIndex=5"]);
    assert!(lines[6].contains("\t         3\tnorm\t") && lines[8].contains("\t         5\tnorm\t"), "{lines:?}");
    std::fs::rename(folder.join("data/member/wal"), folder.join("moved")).expect("it is there");
    let moved = dump(folder, "-wal-dir moved data");
    assert!(moved.code == Some(0) && moved.out.contains("compaction:<"), "{moved:?}");
    std::fs::rename(folder.join("moved"), folder.join("data/member/wal")).expect("it is there");
    for (line, code, text) in [
        ("", 1, "Must provide data-dir argument (got [])"),
        ("a b", 1, "Must provide data-dir argument (got [a b])"),
        ("-start-snap x -start-index 3 data", 1, "start-snap and start-index flags cannot be used together."),
        ("-raw -entry-type Normal data", 1, "not supported in the RAW mode."),
        ("-start-snap no-such.snap data", 1, "Failed loading snapshot: "),
        ("-start-index 99999 -wal-dir no-such-folder data", 1, "Failed reading WAL: "),
        ("-no-such-flag data", 2, "flag provided but not defined: -no-such-flag"),
        ("-entry-type Foo data", 0, "[Foo] is not a valid entry-type, ignored."),
    ] {
        let said = dump(folder, line);
        assert!(said.code == Some(code) && said.err.contains(text), "{line}: {said:?}");
    }
}

fn decoders(folder: &TempDir) {
    for (script, status, data) in [
        ("while read line; do echo \"OK|$line\"; done", "OK", "61"),
        ("while read line; do echo $line; done", "decoder output format is not right, print output anyway", "61"),
        (
            "while read line; do echo \"OK|$line|more\"; done",
            "OK(*WARNING: data might contain deliminator used by etcd-dump-logs)",
            "61",
        ),
    ] {
        std::fs::write(folder.join("decoder.sh"), script).expect("a script");
        let said = dump(folder, "-entry-type IRRDeleteRange -stream-decoder 'sh decoder.sh' data");
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("\ttype\tdata\tdecoder_status\tdecoded_data\n"), "{said:?}");
        let line = said.out.lines().find(|line| line.contains("delete_range")).expect("a line");
        let fields: Vec<&str> = line.split('\t').collect();
        assert!(fields[4] == status && fields[5].contains(data), "{line}");
    }
    let gone = dump(folder, "-stream-decoder no-such-program data");
    assert!(gone.code == Some(1) && gone.err.contains("-stream-decoder no-such-program: "), "{gone:?}");
}

fn raw(folder: &TempDir) {
    let said = dump(folder, "-raw data");
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[0], "CRC: 0");
    assert!(lines[1].starts_with("Metadata: NodeID:") && lines[1].contains(" ClusterID:"), "{}", lines[1]);
    assert_eq!(lines[2], "Snapshot: index:0 term:0");
    assert!(said.out.contains("Type:EntryConfChange Data:\""), "{}", said.out);
    assert!(said.out.contains("\\n\\001b\\022\\006\\303\\251 \\\"x\\\"\\242"), "{}", said.out);
    assert_eq!(lines.last(), Some(&"EOF: All entries were processed."));
    let later = dump(folder, "-raw -start-index 5 data").out;
    assert!(!later.contains("Index:4") && later.contains("Index:5 ") && later.contains("HardState: "), "{later}");

    // A flipped byte is told, and what follows it shown all the same.
    let wal = folder.join("data/member/wal");
    let name = std::fs::read_dir(&wal)
        .expect("a log")
        .flatten()
        .find(|file| file.path().extension().is_some_and(|e| e == "wal"));
    let path = name.expect("a segment").path();
    let sound = std::fs::read(&path).expect("a segment");
    let at = sound.windows(4).position(|bytes| bytes == b"\n\x01b\x12").expect("the put");
    let mut bad = sound.clone();
    bad[at + 2] = b'c';
    std::fs::write(&path, &bad).expect("a segment");
    let said = dump(folder, "-raw data");
    assert!(said.code == Some(0) && said.err.contains("Reading entry failed with CRC error: "), "{said:?}");
    assert!(said.out.contains("\\n\\001c\\022") && said.out.contains("EOF: All entries were processed."), "{said:?}");
    std::fs::write(wal.join("note.txt"), "").expect("a file");
    std::fs::write(&path, &sound[..at]).expect("a segment");
    let said = dump(folder, "-raw data");
    assert!(said.out.contains("ErrUnexpectedEOF: The last record might be corrupted, error: "), "{said:?}");
    assert!(said.err.contains("Warning: Ignoring not .wal file: note.txt"), "{said:?}");
    assert!(std::fs::read(&path).expect("a segment") == sound[..at], "reading changed the log");
}

/// Where Go's tool works, on logs of both tools.
#[test]
fn changes_of_members_are_shown_as_go_shows_them() {
    let Some(reference) = Reference::find() else { return };
    let folder = written("dump-logs-restored", &our_etcd());
    let launches: Vec<Launch> =
        (1..=3).map(|n| Launch::new(&our_etcd(), &folder.join(&format!("unused{n}")))).collect();
    for (who, program) in [("go", reference.program("3.7", "etcdutl")), ("ours", our_etcdutl())] {
        let line = format!(
            "snapshot restore image.db --name m1 --initial-cluster {} --initial-advertise-peer-urls {} --data-dir {who}",
            initial_cluster(&launches),
            launches[0].peer_url()
        );
        let said = ask(&program, folder.path(), &[], &words(&line), b"");
        assert_eq!(said.code, Some(0), "{said:?}");
        for line in ["-raw", "-raw -start-index=2"] {
            let line = format!("{line} {who}");
            let theirs = ask(&reference.tool("etcd-dump-logs"), folder.path(), &[], &words(&line), b"");
            let plain = |text: &str| text.replace("  ", " ");
            assert_eq!(plain(&theirs.out), plain(&dump(&folder, &line).out), "etcd-dump-logs {line}");
        }
        let snapshot = dump(&folder, who).out;
        assert!(snapshot.starts_with("Snapshot:\nterm=1 index=3 nodes=["), "{snapshot}");
        assert!(snapshot.contains("] confstate={\"voters\":[") && snapshot.contains("WAL entries: 0\n"), "{snapshot}");
        let named = dump(&folder, &format!("-start-snap 0000000000000001-0000000000000003.snap {who}")).out;
        assert_eq!(named, snapshot);
        let changes = dump(&folder, &format!("-start-index 1 {who}")).out;
        assert_eq!(changes.matches("\tconf\tmethod=ConfChangeAddNode id=").count(), 3, "{changes}");
    }
}

#[test]
fn metrics_are_listed_by_name_and_help() {
    let folder = TempDir::new("dump-metrics");
    let mut servers = vec![our_etcd()];
    servers.extend(Reference::find().map(|reference| reference.program("3.7", "etcd")));
    let tool = tool("etcd-dump-metrics");
    for (n, server) in servers.iter().enumerate() {
        let server = Launch::new(server, &folder.join(&format!("data{n}"))).start();
        let line = format!("-addr {}/metrics", server.client_url());
        let said = ask(&tool, folder.path(), &[], &words(&line), b"");
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
        assert!(
            said.out.starts_with("# server version: etcd_server_version{server_version=\"3.7.1\"}\n\n"),
            "{said:?}"
        );
        // What a metric is about, our server says in words of its own.
        let leader =
            said.out.split("\n\n# name: \"etcd_server_has_leader\"\n# description: \"").nth(1).expect("a metric");
        let (help, rest) = leader.split_once("\"\n# type: ").expect("a type");
        assert!(help.len() > 10 && rest.starts_with("\"gauge\"\netcd_server_has_leader\n\n"), "{leader}");
        let handled = said.out.split("# name: \"grpc_server_handled_total\"").nth(1).expect("calls are counted");
        assert!(
            handled.starts_with("\n# description: \"") && handled.contains("\n# gRPC codes: \n#  - \""),
            "{handled}"
        );
        let puts = handled.lines().filter(|line| line.contains("grpc_code=\"CODE\"") && line.contains("=\"Put\""));
        assert_eq!(puts.count(), 1, "{handled}");
        let names: Vec<&str> = said.out.lines().filter(|line| line.starts_with("# name: ")).collect();
        assert!(names.len() > 100 && names.is_sorted(), "{names:?}");
    }
    for (line, code, text) in [
        ("-addr https://127.0.0.1:1/metrics", 1, "is no http:// URL"),
        ("-addr http://127.0.0.1:1/metrics", 1, "failed to write test key: "),
        ("-download-ver v3.6.0", 1, "this program downloads nothing."),
        ("-addr http://127.0.0.1:1 -download-ver v3.6.0", 1, "specify either 'addr' or 'download-ver'"),
        ("-no-such-flag", 2, "flag provided but not defined: -no-such-flag"),
    ] {
        let said = ask(&tool, folder.path(), &[], &words(line), b"");
        assert!(said.code == Some(code) && said.err.contains(text), "{line}: {said:?}");
    }
}

/// Without an address, of two members of its own, whose peers have metrics.
#[test]
fn metrics_of_two_members_are_listed() {
    let folder = TempDir::new("dump-metrics-two");
    assert!(our_etcd().exists());
    let said = ask(&tool("etcd-dump-metrics"), folder.path(), &[], &[], b"");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let count = "\netcd_network_peer_round_trip_time_seconds_count{To=\"REMOTE_PEER_NODE_ID\"}\n";
    assert_eq!(said.out.matches(count).count(), 1, "{said:?}");
    assert!(said.out.contains("\netcd_network_active_peers{Local=\"LOCAL_NODE_ID\",Remote=\"REMOTE_PEER_NODE_ID\"}\n"));
}
