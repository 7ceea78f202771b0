//! `etcd grpc-proxy` and TLS, users and wrong flags: who is let in by the proxy, who lets the proxy in, and as whom.

mod tools;

use oxetcd_tests::certs::{Authority, Pair, Wish};
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, Proxy, Server, assert_said_as_go, run, text};
use oxetcd_tests::temp::TempDir;
use std::path::Path;
use std::process::Command;
use tools::{Said, ask, insist, our_etcdctl};

const HERE: &[&str] = &["localhost", "127.0.0.1"];
const READY: &str = "started gRPC proxy";

/// An authority of the cluster, and a member that asks for certificates.
struct Secured {
    folder: TempDir,
    ca: Authority,
    nameless: Pair,
    named: Pair,
    server: Server,
}

impl Secured {
    fn new(label: &str) -> Secured {
        let folder = TempDir::for_cluster(label);
        let ca = Authority::new(folder.path(), "etcd-ca");
        let own = ca.issue(&Wish::both("server", "etcd", HERE));
        let [cert, key] = own.flags("cert-file", "key-file");
        let trust = format!("--trusted-ca-file={}", ca.file());
        let launch = Launch::new(&our_etcd(), &folder.join("data")).with_tls(true, false);
        let server = launch.with_flags(&[&cert, &key, &trust, "--client-cert-auth=true"]).start();
        let nameless = ca.issue(&Wish::both("nameless", "", HERE));
        let named = ca.issue(&Wish::both("named", "root", HERE));
        Secured { folder, ca, nameless, named, server }
    }

    /// What the proxy shows to the member.
    fn to_member(&self, pair: &Pair) -> Vec<String> {
        let [cert, key] = pair.flags("cert", "key");
        vec![format!("--endpoints={}", self.server.client_url()), format!("--cacert={}", self.ca.file()), cert, key]
    }

    fn start(&self, flags: Vec<String>) -> Proxy {
        let flags: Vec<String> = self.to_member(&self.nameless).into_iter().chain(flags).collect();
        Proxy::start(&our_etcd(), "grpc-proxy", &flags.iter().map(String::as_str).collect::<Vec<_>>(), READY)
    }
}

fn ctl(folder: &Path, endpoint: &str, flags: &[String], line: &str) -> Said {
    let endpoint = format!("--endpoints={endpoint}");
    let words = line.split(' ').map(str::to_owned);
    let arguments: Vec<String> = [endpoint].into_iter().chain(flags.iter().cloned()).chain(words).collect();
    ask(&our_etcdctl(), folder, &[], &arguments, b"")
}

fn says(folder: &Path, endpoint: &str, flags: &[String], line: &str) -> String {
    let said = insist(|| ctl(folder, endpoint, flags, line));
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
    said.out
}

#[test]
fn a_certificate_that_names_somebody_is_not_lent_to_everybody() {
    let secured = Secured::new("proxy-cn");
    let flags = secured.to_member(&secured.named);
    let mut command = Command::new(our_etcd());
    let output = run(command.args(["grpc-proxy", "start", "--listen-addr=127.0.0.1:0"]).args(&flags));
    assert_eq!(output.status.code(), Some(1));
    let told = format!("cert has non empty Common Name (root): {}", secured.named.cert.display());
    assert!(text(&output.stderr).contains(&told), "{}", text(&output.stderr));
}

#[test]
fn clients_show_certificates_to_the_proxy_and_the_proxy_to_the_member() {
    let secured = Secured::new("proxy-tls");
    let folder = secured.folder.path();
    let plain = secured.start(Vec::new());
    assert_eq!(says(folder, plain.address(), &[], "put a b"), "OK\n");
    // Its own clients have an authority of their own, one of them revoked.
    let ca = Authority::new(folder, "proxy-ca");
    let own = ca.issue(&Wish::both("proxy", "proxy", HERE));
    let (good, bad) = (ca.issue(&Wish::client("good", "x")), ca.issue(&Wish::client("bad", "y")));
    let [cert, key] = own.flags("cert-file", "key-file");
    let flags = vec![
        cert,
        key,
        format!("--trusted-ca-file={}", ca.file()),
        format!("--client-crl-file={}", ca.revoke("proxy", &[&bad]).display()),
    ];
    let proxy = secured.start(flags);
    let url = format!("https://{}", proxy.address());
    let shows = |pair: &Pair| {
        let [cert, key] = pair.flags("cert", "key");
        vec![format!("--cacert={}", ca.file()), cert, key]
    };
    assert_eq!(says(folder, &url, &shows(&good), "get a --print-value-only"), "b\n");
    let refused = ctl(folder, &url, &shows(&bad), "get a --command-timeout=2s");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(proxy.wait_for_log("rejected connection on client endpoint"), "{}", proxy.log());
    let nobody = ctl(folder, &url, &[format!("--cacert={}", ca.file())], "get a --command-timeout=2s");
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
}

#[test]
fn a_certificate_is_made_where_it_is_asked_for() {
    let secured = Secured::new("proxy-auto-tls");
    let folder = secured.folder.path();
    let data = format!("--data-dir={}", secured.folder.join("proxy").display());
    let proxy = secured.start(vec!["--auto-tls".to_owned(), data]);
    let url = format!("https://{}", proxy.address());
    assert!(secured.folder.join("proxy/fixtures/proxy/cert.pem").is_file());
    assert_eq!(says(folder, &url, &["--insecure-skip-tls-verify".to_owned()], "put a b"), "OK\n");
}

#[test]
fn everybody_calls_as_himself() {
    let folder = TempDir::for_cluster("proxy-users");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let endpoints = format!("--endpoints={}", server.client_address());
    let proxy = Proxy::start(&our_etcd(), "grpc-proxy", &[&endpoints], READY);
    let own = |user: &str, line: &str| {
        let flags: Vec<String> = if user.is_empty() { Vec::new() } else { vec![format!("--user={user}")] };
        ctl(folder.path(), proxy.address(), &flags, line)
    };
    let done = |user: &str, line: &str| {
        let said = own(user, line);
        assert_eq!(said.code, Some(0), "{user}: {line}: {said:?}");
        said.out
    };
    let refused = |user: &str, line: &str, why: &str| {
        let said = own(user, line);
        assert!(said.code != Some(0) && said.err.contains(why), "{user}: {line}: {said:?}");
    };
    done("", "put mine 1");
    done("", "put other 2");
    // Kept for everybody, as long as there are no users.
    assert_eq!(done("", "get other --consistency=s --print-value-only"), "2\n");
    for line in [
        "user add root:r",
        "user grant-role root root",
        "role add reader",
        "role grant-permission reader readwrite mine",
        "user add alice:a",
        "user grant-role alice reader",
        "auth enable",
    ] {
        done("", line);
    }
    assert_eq!(done("alice:a", "get mine --print-value-only"), "1\n");
    assert_eq!(done("alice:a", "get mine --consistency=s --print-value-only"), "1\n");
    for line in ["get other", "get other --consistency=s", "put other 3", "del other"] {
        refused("alice:a", line, "etcdserver: permission denied");
    }
    refused("alice:a", "watch other", "permission denied");
    refused("", "put mine 2", "etcdserver: user name is empty");
    assert_eq!(done("root:r", "get other --consistency=s --print-value-only"), "2\n");
}

#[test]
fn wrong_flags_are_refused_as_go_refuses_them() {
    let lines: &[(&str, i32, &str)] = &[
        ("grpc-proxy", 0, "Use \"etcd grpc-proxy [command] --help\" for more information about a command."),
        ("grpc-proxy --help", 0, "grpc-proxy related command"),
        ("grpc-proxy start --help", 0, "--max-concurrent-streams uint32           Maximum concurrent streams"),
        ("grpc-proxy start --bogus", 1, "unknown flag: --bogus"),
        ("grpc-proxy start --resolver-prefix=x", 1, "invalid resolver-ttl 0"),
        ("grpc-proxy start --resolver-ttl=3", 1, "invalid resolver-prefix \"\""),
        (
            "grpc-proxy start --resolver-ttl=3 --resolver-prefix=x --advertise-client-url=",
            1,
            "invalid advertise-client-url \"\"",
        ),
        (
            "grpc-proxy start --tls-min-version=x",
            1,
            "tls-min-version is invalid: unexpected TLS version \"x\" (must be one of: TLS1.2, TLS1.3)",
        ),
        (
            "grpc-proxy start --tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            1,
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        (
            "grpc-proxy start --tls-min-version=TLS1.3 --listen-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            1,
            "cipher suites cannot be configured when only TLS1.3 is enabled",
        ),
        ("grpc-proxy start --max-concurrent-streams=4294967296", 1, "value out of range"),
        (
            "grpc-proxy start --auto-tls --self-signed-cert-validity=0",
            1,
            "selfSignedCertValidity is invalid,it should be greater than 0",
        ),
        ("grpc-proxy start --listen-addr=127.0.0.1", 1, "listen tcp: address 127.0.0.1: missing port in address"),
    ];
    assert_said_as_go(lines);
}
