//! Go's etcdctl 3.7.1 against our server: the commands of the data plane, as people type them.
//! Needs `OXETCD_REFERENCE`.

use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server, run, run_with_input, stdout_of, text};
use oxetcd_tests::temp::TempDir;
use std::process::Command;

struct Ctl<'a> {
    reference: &'a Reference,
    endpoint: String,
}

impl Ctl<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.reference.program("3.7", "etcdctl"));
        command.arg(format!("--endpoints={}", self.endpoint)).args(line.split(' '));
        command
    }

    fn says(&self, line: &str, expected: &str) {
        assert_eq!(stdout_of(&mut self.command(line)), expected, "etcdctl {line}");
    }

    fn mentions(&self, line: &str, words: &[&str]) -> String {
        let out = run(&mut self.command(line));
        let all = format!("{}{}", text(&out.stdout), text(&out.stderr));
        assert!(out.status.success(), "etcdctl {line}: {all}");
        for word in words {
            assert!(all.contains(word), "etcdctl {line}: no {word:?} in {all}");
        }
        all
    }
}

fn serve(folder: &TempDir) -> Server {
    Launch::new(&our_etcd(), &folder.join("data")).start()
}

#[test]
fn the_data_plane_of_etcdctl() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("ctl");
    let server = serve(&folder);
    let ctl = Ctl { reference: &reference, endpoint: server.client_address() };
    ctl.says("put foo bar", "OK\n");
    ctl.says("put foo2 bar2 --prev-kv", "OK\n");
    ctl.says("get foo", "foo\nbar\n");
    ctl.says("get --prefix foo --keys-only", "foo\n\nfoo2\n\n");
    ctl.says("get --prefix foo --print-value-only --order=DESCEND --sort-by=KEY", "bar2\nbar\n");
    ctl.says("get nothing", "");
    ctl.mentions("get foo -w fields", &["\"Count\" : 1", "\"ModRevision\" : 2"]);
    ctl.says("del foo2 --prev-kv", "1\nfoo2\nbar2\n");
    ctl.says("del foo2", "0\n");
    let txn = "value(\"foo\") = \"bar\"\n\nput foo baz\nget foo\n\nput foo never\n\n";
    let out = run_with_input(&mut ctl.command("txn"), txn.as_bytes());
    assert_eq!(text(&out.stdout), "SUCCESS\n\nOK\n\nfoo\nbaz\n");
    ctl.says("compaction 4", "compacted revision 4\n");
    let old = run(&mut ctl.command("get foo --rev=2"));
    assert!(!old.status.success() && text(&old.stderr).contains("required revision has been compacted"), "{old:?}");
    let granted = ctl.mentions("lease grant 1000", &[" granted with TTL(1000s)"]);
    let lease = granted.split(' ').nth(1).expect("lease ID granted …").to_owned();
    ctl.says(&format!("put --lease={lease} leased x"), "OK\n");
    ctl.mentions(&format!("lease timetolive {lease} --keys"), &["granted with TTL(1000s)", "attached keys([leased])"]);
    ctl.mentions(&format!("lease keep-alive --once {lease}"), &["keepalived with TTL(1000)"]);
    ctl.mentions("lease list", &[&lease]);
    ctl.mentions(&format!("lease revoke {lease}"), &[&format!("lease {lease} revoked")]);
    ctl.says("get leased", "");
    ctl.mentions("member list", &["started, default"]);
    ctl.mentions("endpoint health", &["is healthy"]);
    ctl.mentions("endpoint status -w json", &["\"version\":\"3.7.1\"", "\"storageVersion\":\"3.7.0\""]);
    ctl.mentions("endpoint hashkv", &[]);
    ctl.mentions("alarm list", &[]);
    ctl.mentions("alarm disarm", &[]);
    ctl.mentions("defrag", &["Finished defragmenting etcd member"]);
    ctl.mentions("lock name true", &[]);
    ctl.mentions("version", &["3.7"]);
    let image = folder.join("image.db");
    ctl.mentions(&format!("snapshot save {}", image.display()), &["Snapshot saved at"]);
    let status = stdout_of(
        Command::new(reference.program("3.7", "etcdutl")).args(["snapshot", "status", "-w", "json"]).arg(&image),
    );
    assert!(status.contains("\"version\":\"3.7.0\""), "{status}");
    for refused in ["move-leader 1234", "downgrade validate 3.5", "get --rev=99 foo", "lease revoke 1234"] {
        let out = run(&mut ctl.command(refused));
        assert!(!out.status.success() && text(&out.stderr).contains("etcdserver: "), "{refused}: {out:?}");
    }
}

#[test]
fn a_snapshot_is_restored_by_go_and_served_by_ours() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("restore");
    let server = serve(&folder);
    let ctl = Ctl { reference: &reference, endpoint: server.client_address() };
    ctl.says("put kept value", "OK\n");
    let image = folder.join("image.db");
    ctl.mentions(&format!("snapshot save {}", image.display()), &["Snapshot saved at"]);
    let restored = folder.join("restored");
    let launch = Launch::new(&our_etcd(), &restored);
    let peer = launch.peer_url();
    let restore = ["snapshot", "restore", "--name=default"].map(str::to_owned).into_iter();
    let restore = restore.chain([
        format!("--initial-cluster=default={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--data-dir={}", restored.display()),
        image.display().to_string(),
    ]);
    stdout_of(Command::new(reference.program("3.7", "etcdutl")).args(restore));
    let server = launch.try_start().unwrap_or_else(|e| panic!("{e}"));
    let ctl = Ctl { reference: &reference, endpoint: server.client_address() };
    ctl.says("get kept", "kept\nvalue\n");
    ctl.says("put kept again", "OK\n");
}

#[test]
fn a_unix_socket_serves_like_a_port() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("socket");
    let socket = folder.join("etcd.sock");
    let url = format!("unix://{}", socket.display());
    let launch = Launch::new(&our_etcd(), &folder.join("data"))
        .with_flags(&[&format!("--listen-client-urls={url}"), &format!("--advertise-client-urls={url}")]);
    let server = launch.try_start().unwrap_or_else(|e| panic!("{e}"));
    let ctl = Ctl { reference: &reference, endpoint: url };
    ctl.says("put a b", "OK\n");
    ctl.says("get a", "a\nb\n");
    server.kill();
    // What a killed server leaves of its socket does not keep the next one from starting.
    assert!(socket.exists());
    let server = launch.try_start().unwrap_or_else(|e| panic!("{e}"));
    ctl.says("get a", "a\nb\n");
    server.stop();
    assert!(!socket.exists(), "an orderly stop takes the socket away");
}
