//! What people type into etcdctl, to a cluster of three and to a proxy before another one: they are told the same.

mod tools;

use oxetcd_tests::cluster::Seats;
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::Proxy;
use oxetcd_tests::temp::TempDir;
use tools::{Said, ask, insist, our_etcdctl, our_etcdutl, words};

/// A line, and what is typed next.
const LINES: &[(&str, &str)] = &[
    ("put foo bar", ""),
    ("put foo2 bar2 --prev-kv", ""),
    ("put foo2 bar3 --prev-kv", ""),
    ("get foo", ""),
    ("get foo --consistency=s", ""),
    ("get --prefix foo --keys-only", ""),
    ("get --prefix foo --print-value-only --order=DESCEND --sort-by=KEY", ""),
    ("get --prefix foo --count-only -w fields --hex", ""),
    ("get '' --from-key --limit=1", ""),
    ("get nothing", ""),
    ("del foo2 --prev-kv", ""),
    ("del foo2", ""),
    ("txn", "value(\"foo\") = \"bar\"\n\nput foo baz\nget foo\n\nput foo never\n\n"),
    ("txn", "mod(\"foo\") = \"1\"\n\nput foo never\n\nget foo\ndel foo\n\n"),
    ("get foo --rev=2", ""),
    ("compaction 4", ""),
    ("get foo --rev=2", ""),
    ("get foo --rev=99", ""),
    ("lease revoke 1234", ""),
    ("lease timetolive 1234", ""),
    ("lease list", ""),
    ("lock name true", ""),
    ("role add reader", ""),
    ("role grant-permission reader read foo", ""),
    ("role get reader", ""),
    ("user add --no-password alice", ""),
    ("user grant-role alice reader", ""),
    ("user get alice --detail", ""),
    ("user list", ""),
    ("user delete alice", ""),
    ("user delete alice", ""),
    ("role delete reader", ""),
    ("auth status", ""),
    ("alarm list", ""),
    ("alarm disarm", ""),
];

/// Ids of clusters and members are their own.
fn comparable(mut said: Said) -> Said {
    let numbered = |line: &str| {
        line.starts_with("\"ClusterID\"") || line.starts_with("\"MemberID\"") || line.starts_with("\"RaftTerm\"")
    };
    let kept: Vec<&str> = said.out.lines().filter(|line| !numbered(line)).collect();
    // A lock's key ends with its lease.
    let kept = kept.into_iter().filter(|line| !line.starts_with("name/"));
    said.out = kept.collect::<Vec<_>>().join("\n");
    // Attempts are logged with their addresses and times.
    said.err = said.err.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    said
}

fn all_said(folder: &TempDir, endpoints: &str) -> Vec<Said> {
    let endpoints = format!("--endpoints={endpoints}");
    let say = |(line, input): &(&str, &str)| {
        let arguments: Vec<String> = [endpoints.clone()].into_iter().chain(words(line)).collect();
        let run = || ask(&our_etcdctl(), folder.path(), &[], &arguments, input.as_bytes());
        comparable(insist(run))
    };
    LINES.iter().map(say).collect()
}

#[test]
fn etcdctl_is_told_the_same_through_a_proxy_before_three_members() {
    let folder = TempDir::for_cluster("proxy-etcdctl");
    let found = |name: &str| Seats::found(&vec![our_etcd(); 3], &folder.join(name), &[]);
    let (direct, behind) = (found("direct"), found("behind"));
    let flags = [format!("--endpoints={}", behind.urls().join(",")), "--advertise-client-url=".to_owned()];
    let proxy = Proxy::start(&our_etcd(), "grpc-proxy", &[&flags[0], &flags[1]], "started gRPC proxy");
    let theirs = all_said(&folder, &direct.urls().join(","));
    let ours = all_said(&folder, proxy.address());
    for ((line, theirs), ours) in LINES.iter().zip(&theirs).zip(&ours) {
        assert_eq!(ours, theirs, "{}", line.0);
    }
    // Streams of the members' own.
    let image = folder.join("image.db").display().to_string();
    let save = [format!("--endpoints={}", proxy.address()), "snapshot".to_owned(), "save".to_owned(), image.clone()];
    let saved = ask(&our_etcdctl(), folder.path(), &[], &save, b"");
    assert_eq!(saved.code, Some(0), "{saved:?}");
    let status = ["snapshot", "status", "-w", "json", &image].map(str::to_owned);
    let status = ask(&our_etcdutl(), folder.path(), &[], &status, b"");
    assert!(status.code == Some(0) && status.out.contains("\"version\":\"3.7.0\""), "{status:?}");
    let list = [format!("--endpoints={}", proxy.address()), "member".to_owned(), "list".to_owned()];
    let list = ask(&our_etcdctl(), folder.path(), &[], &list, b"");
    assert_eq!(list.out.lines().filter(|line| line.contains(", started, m")).count(), 3, "{list:?}");
}
