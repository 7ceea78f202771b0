//! TLS: who is let in and who is not, beside Go's etcd and its etcdctl; certificates are made here.

mod tools;

use api::pb::etcdserverpb as pb;
use oxetcd_tests::certs::{Authority, Pair, Use, Wish};
use oxetcd_tests::cluster::{PATIENCE, Seats};
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server};
use oxetcd_tests::temp::TempDir;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tools::{Said, ask, insist, our_etcdctl};

const HERE: &[&str] = &["localhost", "127.0.0.1"];

/// An authority, a server's certificate, a client's.
struct Pki {
    folder: TempDir,
    ca: Authority,
    server: Pair,
    client: Pair,
}

impl Pki {
    fn new(label: &str) -> Pki {
        let folder = TempDir::for_cluster(label);
        let ca = Authority::new(folder.path(), "etcd-ca");
        let server = ca.issue(&Wish::both("server", "etcd", HERE));
        let client = ca.issue(&Wish::client("client", "root"));
        Pki { folder, ca, server, client }
    }

    /// kubeadm's flags for clients.
    fn server_flags(&self) -> Vec<String> {
        let trust = format!("--trusted-ca-file={}", self.ca.file());
        let flags = self.server.flags("cert-file", "key-file").into_iter();
        flags.chain([trust, "--client-cert-auth=true".to_owned()]).collect()
    }

    /// … and for peers.
    fn peer_flags(&self, pair: &Pair) -> Vec<String> {
        let trust = format!("--peer-trusted-ca-file={}", self.ca.file());
        let flags = pair.flags("peer-cert-file", "peer-key-file").into_iter();
        flags.chain([trust, "--peer-client-cert-auth=true".to_owned()]).collect()
    }

    fn launch(&self, binary: &Path, data: &str, flags: &[String]) -> Launch {
        with(Launch::new(binary, &self.folder.join(data)).with_tls(true, false), flags)
    }

    /// A client's flags.
    fn shows(&self, pair: &Pair) -> Vec<String> {
        let [cert, key] = pair.flags("cert", "key");
        vec![format!("--cacert={}", self.ca.file()), cert, key]
    }
}

fn with(launch: Launch, flags: &[String]) -> Launch {
    launch.with_flags(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs a line of an etcdctl against these endpoints, with flags of TLS.
fn ctl(program: &Path, folder: &Path, endpoints: &str, flags: &[String], line: &str) -> Said {
    let endpoints = format!("--endpoints={endpoints}");
    let line = line.split(' ').map(str::to_owned);
    let arguments: Vec<String> = [endpoints].into_iter().chain(flags.iter().cloned()).chain(line).collect();
    ask(program, folder, &[], &arguments, b"")
}

fn says(program: &Path, folder: &Path, endpoints: &str, flags: &[String], line: &str) -> String {
    let said = insist(|| ctl(program, folder, endpoints, flags, line));
    assert_eq!(said.code, Some(0), "{} {flags:?} {line}: {said:?}", program.display());
    said.out
}

/// What a tool says that is kept out at the door: it tries until its timeout, then tells why the last attempt failed.
/// Where the machine stood still and no attempt came to its end, it is given more time.
fn kept_out(program: &Path, folder: &Path, endpoints: &str, flags: &[String], line: &str) -> Said {
    let attempts = [1, 2, 4, 8, 16].map(|seconds| format!("--command-timeout={seconds}s {line}"));
    let mut said = attempts.iter().map(|line| ctl(program, folder, endpoints, flags, line));
    let told = said.find(|said| said.code != Some(1) || said.err.contains("latest balancer error: "));
    let said = told.unwrap_or_else(|| panic!("{} {flags:?} {line}: no attempt came to its end", program.display()));
    assert_eq!(said.code, Some(1), "{} {flags:?} {line}: {said:?}", program.display());
    said
}

/// Our programs, and Go's where they are.
fn programs(name: &str) -> Vec<PathBuf> {
    let ours = if name == "etcd" { our_etcd() } else { our_etcdctl() };
    let gos = Reference::find().map(|reference| reference.program("3.7", name));
    [ours].into_iter().chain(gos).collect()
}

fn logs(server: &Server, text: &str) {
    assert!(server.wait_for_log(text, PATIENCE), "no {text} in\n{}", server.log());
}

#[test]
fn certificates_let_in_and_keep_out_alike_with_gos_server_and_client() {
    let pki = Pki::new("tls-clients");
    let others = Authority::new(pki.folder.path(), "other-ca");
    let good: Vec<Pair> = vec![
        pki.client.clone(),
        pki.server.clone(),
        pki.ca.issue(&Wish { may_sign: true, ..Wish::client("signer", "root") }),
    ];
    let bad: Vec<(Pair, &str)> = vec![
        (others.issue(&Wish::client("stranger", "root")), "x509: certificate signed by unknown authority"),
        (pki.ca.issue(&Wish { ended: true, ..Wish::client("late", "root") }), "x509: certificate has expired"),
        (
            pki.ca.issue(&Wish { purpose: Use::Server, ..Wish::client("wrong", "root") }),
            "x509: certificate specifies an incompatible key usage",
        ),
    ];
    let folder = pki.folder.path();
    for (n, etcd) in programs("etcd").iter().enumerate() {
        let server = pki.launch(etcd, &format!("data{n}"), &pki.server_flags()).start();
        let port = server.launch().client_port;
        for etcdctl in &programs("etcdctl") {
            for pair in &good {
                // Without a scheme, too: certificates ask for TLS.
                for url in [server.client_url(), format!("127.0.0.1:{port}"), format!("https://localhost:{port}")] {
                    assert_eq!(says(etcdctl, folder, &url, &pki.shows(pair), "put a b"), "OK\n");
                }
            }
            let refused = |flags: &[String], why: &str| {
                kept_out(etcdctl, folder, &server.client_url(), flags, "get a");
                logs(&server, why);
            };
            for (pair, why) in &bad {
                refused(&pki.shows(pair), why);
            }
            refused(&[format!("--cacert={}", pki.ca.file())], "tls: client didn't provide a certificate");
            let mistrust = [vec![format!("--cacert={}", others.file())], pki.shows(&pki.client)[1..].to_vec()].concat();
            refused(&mistrust, "remote error: tls: ");
        }
        let mut plain = TcpStream::connect(server.client_address()).expect("it listens");
        plain.write_all(b"GET /version HTTP/1.1\r\n\r\n").expect("it is open");
        logs(&server, "rejected connection on client endpoint");
        logs(&server, "tls: first record does not look like a TLS handshake");
    }
}

#[test]
fn a_certificate_for_another_host_is_not_believed() {
    let pki = Pki::new("tls-host");
    let elsewhere = pki.ca.issue(&Wish::both("elsewhere", "etcd", &["127.0.0.1"]));
    let flags: Vec<String> = elsewhere.flags("cert-file", "key-file").into();
    for (n, etcd) in programs("etcd").iter().enumerate() {
        let server = pki.launch(etcd, &format!("data{n}"), &flags).start();
        let url = format!("https://localhost:{}", server.launch().client_port);
        let trust = vec![format!("--cacert={}", pki.ca.file())];
        for etcdctl in &programs("etcdctl") {
            let said = kept_out(etcdctl, pki.folder.path(), &url, &trust, "get a");
            let text = "x509: certificate is not valid for any names, but wanted to match localhost";
            assert!(said.err.contains(text), "{}: {said:?}", etcdctl.display());
            let blind = vec!["--insecure-skip-tls-verify".to_owned()];
            assert_eq!(says(etcdctl, pki.folder.path(), &url, &blind, "put a b"), "OK\n");
            assert_eq!(says(etcdctl, pki.folder.path(), &server.client_url(), &trust, "put a b"), "OK\n");
        }
    }
}

#[test]
fn tls_and_plain_text_share_a_port_and_a_socket_file() {
    let pki = Pki::new("tls-shared");
    let url = |scheme: &str, launch: &Launch| format!("{scheme}://127.0.0.1:{}", launch.client_port);
    let launch = pki.launch(&our_etcd(), "data", &pki.server_flags());
    let both = format!("--listen-client-urls={},{}", url("http", &launch), url("https", &launch));
    let server = with(launch, &[both, "--tls-min-version=TLS1.3".to_owned()]).start();
    let folder = pki.folder.path();
    for etcdctl in &programs("etcdctl") {
        let (plain, encrypted) = (url("http", server.launch()), url("https", server.launch()));
        assert_eq!(says(etcdctl, folder, &plain, &[], "put a b"), "OK\n");
        assert_eq!(says(etcdctl, folder, &encrypted, &pki.shows(&pki.client), "get a"), "a\nb\n");
    }
    let socket = pki.folder.join("localhost:7");
    let flags = pki.server_flags();
    let launch = pki.launch(&our_etcd(), "data2", &flags);
    let listen = format!("--listen-client-urls=unixs://{}", socket.display());
    let _server = with(launch, &[listen]).start();
    let url = format!("unixs://{}", socket.display());
    for etcdctl in &programs("etcdctl") {
        assert_eq!(says(etcdctl, folder, &url, &pki.shows(&pki.client), "put a b"), "OK\n");
    }
}

#[test]
fn a_common_name_is_a_user_where_certificates_are_demanded() {
    let Some(reference) = Reference::find() else { return };
    let pki = Pki::new("tls-users");
    let alice = pki.ca.issue(&Wish::client("alice", "alice"));
    let server = pki.launch(&our_etcd(), "data", &pki.server_flags()).start();
    let (url, folder) = (server.client_url(), pki.folder.path());
    let root = pki.shows(&pki.client);
    // Ours has no commands for users yet.
    let etcdctl = reference.program("3.7", "etcdctl");
    for line in [
        "user add root:r",
        "user grant-role root root",
        "user add alice --no-password",
        "role add reader",
        "role grant-permission reader read a",
        "user grant-role alice reader",
        "auth enable",
        "put a b",
    ] {
        says(&etcdctl, folder, &url, &root, line);
    }
    for etcdctl in &programs("etcdctl") {
        assert_eq!(says(etcdctl, folder, &url, &pki.shows(&alice), "get a"), "a\nb\n");
        let said = ctl(etcdctl, folder, &url, &pki.shows(&alice), "put a c");
        assert!(said.err.contains("etcdserver: permission denied"), "{said:?}");
        // A password weighs more than a name.
        assert_eq!(says(etcdctl, folder, &url, &pki.shows(&alice), "--user=root:r put a b"), "OK\n");
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_told_at_the_start() {
    let pki = Pki::new("tls-start");
    let (cert, key) = (pki.server.cert.display().to_string(), pki.client.key.display().to_string());
    for (flags, text) in [
        (vec![], "TLS key/cert (--cert-file, --key-file) must be provided for client url https://"),
        (vec![format!("--cert-file={cert}")], "KeyFile and CertFile must both be present[key: , cert: "),
        (
            vec![format!("--cert-file={cert}"), format!("--key-file={key}")],
            "tls: private key does not match public key",
        ),
        (
            vec![format!("--cert-file={cert}"), "--key-file=no-such-file".to_owned()],
            "open no-such-file: no such file or directory",
        ),
        (
            [pki.server_flags(), vec!["--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA".to_owned()]].concat(),
            "none of the cipher suites",
        ),
        (
            vec!["--auto-tls".to_owned(), "--self-signed-cert-validity=0".to_owned()],
            "selfSignedCertValidity is invalid",
        ),
    ] {
        let refusal = pki.launch(&our_etcd(), "data", &flags).try_start().expect_err("it must not start");
        assert!(refusal.code == Some(1) && refusal.log.contains(text), "{flags:?}: {refusal}");
    }
    let launch = Launch::new(&our_etcd(), &pki.folder.join("data")).with_tls(false, true);
    let refusal = launch.try_start().expect_err("it must not start");
    let text = "KeyFile and CertFile are not presented";
    assert!(refusal.code == Some(1) && refusal.log.contains(text), "{refusal}");
}

#[test]
fn etcdctl_refuses_wrong_files_with_code_128() {
    let pki = Pki::new("tls-ctl");
    let [cert, key] = pki.client.flags("cert", "key");
    let wrong = pki.server.key.display();
    for flags in [
        vec![cert.clone()],
        vec![cert.clone(), "--key=no-such-file".to_owned()],
        vec![cert.clone(), format!("--key={wrong}")],
        vec!["--cacert=no-such-file".to_owned()],
        vec![key, "--cert=".to_owned()],
    ] {
        for etcdctl in &programs("etcdctl") {
            let said = ctl(etcdctl, pki.folder.path(), "127.0.0.1:1", &flags, "get a");
            assert_eq!(said.code, Some(128), "{} {flags:?}: {said:?}", etcdctl.display());
        }
    }
}

#[test]
fn who_is_revoked_or_not_on_the_list_stays_out() {
    let pki = Pki::new("tls-revoked");
    let other = pki.ca.issue(&Wish::client("other", "other"));
    let list = pki.ca.revoke("clients", &[&other]);
    let crl = format!("--client-crl-file={}", list.display());
    let (folder, etcdctl) = (pki.folder.path(), our_etcdctl());
    let server = pki.launch(&our_etcd(), "data", &[pki.server_flags(), vec![crl]].concat()).start();
    let url = server.client_url();
    assert_eq!(says(&etcdctl, folder, &url, &pki.shows(&pki.client), "put a b"), "OK\n");
    kept_out(&etcdctl, folder, &url, &pki.shows(&other), "get a");
    logs(&server, &format!("transport: certificate serial {:04x} revoked", other.serial));
    // The list changes while the member runs.
    pki.ca.revoke("clients", &[&pki.client]);
    assert_eq!(says(&etcdctl, folder, &url, &pki.shows(&other), "get a"), "a\nb\n");
    kept_out(&etcdctl, folder, &url, &pki.shows(&pki.client), "get a");
    server.stop();

    let hostname = "--client-cert-allowed-hostname=good.example.com".to_owned();
    let server = pki.launch(&our_etcd(), "data", &[pki.server_flags(), vec![hostname]].concat()).start();
    let named = pki.ca.issue(&Wish { purpose: Use::Client, ..Wish::both("named", "x", &["good.example.com"]) });
    assert_eq!(says(&etcdctl, folder, &server.client_url(), &pki.shows(&named), "get a"), "a\nb\n");
    kept_out(&etcdctl, folder, &server.client_url(), &pki.shows(&pki.client), "get a");
    logs(&server, "client certificate authentication failed");
}

/// Members with TLS between them, and plain text for the test's own client.
fn found(pki: &Pki, binaries: &[PathBuf], flags: impl Fn(usize) -> Vec<String>) -> Seats {
    Seats::found_placed(binaries, pki.folder.path(), |n, launch| with(launch.with_tls(false, true), &flags(n)))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(work)
}

#[test]
fn members_of_both_kinds_share_a_cluster_over_tls() {
    let Some(reference) = Reference::find() else { return };
    let (go, ours) = (reference.program("3.7", "etcd"), our_etcd());
    let pki = Pki::new("tls-mixed");
    let mut seats = found(&pki, &[go.clone(), ours.clone(), ours.clone()], |_| pki.peer_flags(&pki.server));
    block_on(async {
        seats.agree().await;
        let leader = seats.leader().await;
        seats.kill(leader);
        seats.leader().await;
        seats.agree().await;
        seats.start(leader);
        seats.agree().await;
        // Everybody changes sides.
        for n in 0..3 {
            seats.stop(n);
            let other = if n == 0 { &ours } else { &go };
            seats.launch(n).binary = other.clone();
            seats.start(n);
            seats.agree().await;
        }
        // A joiner asks the others over TLS, too.
        let launch = Launch::new(&ours, &pki.folder.join("joiner")).with_tls(false, true);
        seats.join(0, with(launch, &pki.peer_flags(&pki.server))).await;
        seats.agree().await;
    });
}

#[test]
fn w1_one_certificate_serves_three_members_and_their_clients() {
    let pki = Pki::new("tls-w1");
    let shared = pki.ca.issue(&Wish::both("shared", "kubernetes", HERE));
    let flags = |_| {
        let trust = format!("--trusted-ca-file={}", pki.ca.file());
        let clients = shared.flags("cert-file", "key-file").into_iter().chain([trust, "--client-cert-auth".to_owned()]);
        clients.chain(pki.peer_flags(&shared)).collect::<Vec<String>>()
    };
    let seats = Seats::found_placed(&[our_etcd(), our_etcd(), our_etcd()], pki.folder.path(), |n, launch| {
        with(launch.with_tls(true, true), &flags(n))
    });
    let urls = seats.urls();
    let (folder, shows) = (pki.folder.path(), pki.shows(&shared));
    for etcdctl in &programs("etcdctl") {
        assert_eq!(says(etcdctl, folder, &urls.join(","), &shows, "put name john"), "OK\n");
        for url in &urls {
            assert_eq!(says(etcdctl, folder, url, &shows, "get name"), "name\njohn\n");
        }
        let health = says(etcdctl, folder, &urls.join(","), &shows, "endpoint health");
        assert_eq!(health.matches("is healthy").count(), 3, "{health}");
    }
}

#[test]
fn w2_members_make_their_own_certificates() {
    let folder = TempDir::for_cluster("tls-w2");
    let own = |launch: Launch| launch.with_tls(true, true).with_flags(&["--auto-tls", "--peer-auto-tls"]);
    let gos = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    let third = gos.unwrap_or_else(our_etcd);
    let seats = Seats::found_placed(&[our_etcd(), our_etcd(), third], folder.path(), |_, launch| own(launch));
    for etcdctl in &programs("etcdctl") {
        let blind = vec!["--insecure-skip-tls-verify".to_owned()];
        assert_eq!(says(etcdctl, folder.path(), &seats.urls().join(","), &blind, "put mykey myvalue"), "OK\n");
        for n in 0..3 {
            // A certificate that nobody signed can be trusted by itself.
            let made = seats.server(n).launch().data_dir.join("fixtures/client/cert.pem");
            let trust = vec![format!("--cacert={}", made.display())];
            assert_eq!(says(etcdctl, folder.path(), &seats.url(n), &trust, "get mykey"), "mykey\nmyvalue\n");
        }
    }
}

#[test]
fn a_member_that_is_not_on_the_list_or_elsewhere_is_no_peer() {
    let pki = Pki::new("tls-peers");
    let named = pki.ca.issue(&Wish::both("named", "member", HERE));
    let crl = pki.ca.revoke("peers", &[&pki.server]);
    let elsewhere = pki.ca.issue(&Wish::both("elsewhere", "member", &["192.0.2.7"]));
    for (pair, rule, text) in [
        (
            &pki.server,
            "--peer-cert-allowed-cn=member".to_owned(),
            "client certificate authentication failed".to_owned(),
        ),
        (
            &pki.server,
            format!("--peer-crl-file={}", crl.display()),
            format!("transport: certificate serial {:04x} revoked", pki.server.serial),
        ),
        (&elsewhere, "--pre-vote=true".to_owned(), "certificate is valid for 192.0.2.7, not 127.0.0.1".to_owned()),
    ] {
        let server = with(
            Launch::new(&our_etcd(), &pki.folder.join("data")).with_tls(false, true),
            &[pki.peer_flags(&named), vec![rule]].concat(),
        )
        .start();
        // A joiner's first question is for the list of members.
        let launch = Launch::new(&our_etcd(), &pki.folder.join("other")).with_tls(false, true);
        let all = format!("--initial-cluster=default={},b={}", server.launch().peer_url(), launch.peer_url());
        let joins = ["--name=b".to_owned(), all, "--initial-cluster-state=existing".to_owned()];
        let refusal = with(launch, &[pki.peer_flags(pair), joins.into()].concat()).try_start();
        let refusal = refusal.expect_err("it must not be let in");
        assert!(refusal.log.contains("cannot fetch cluster info from peer urls"), "{refusal}");
        logs(&server, "rejected connection on peer endpoint");
        logs(&server, &text);
        server.stop();
        for data in ["data", "other"] {
            let _ = std::fs::remove_dir_all(pki.folder.join(data));
        }
    }
}

/// A watch that prints what it sees.
struct Watching {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
}

impl Watching {
    fn start(url: &str, flags: &[String], key: &str) -> Watching {
        let endpoints = format!("--endpoints={url}");
        let mut command = Command::new(our_etcdctl());
        command.arg(endpoints).args(flags).args(["watch", key]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("etcdctl was built");
        let (out, (tell, lines)) = (child.stdout.take().expect("it is piped"), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Watching { child, lines }
    }

    /// The next value of the watched key.
    fn value(&self) -> String {
        for want in ["PUT", ""] {
            let line = self.lines.recv_timeout(PATIENCE).expect("an event");
            assert!(line.starts_with(want), "{line}");
        }
        self.lines.recv_timeout(PATIENCE).expect("a value")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_new_authority_takes_over_without_a_restart_or_a_dropped_watch() {
    let pki = Pki::new("tls-rotate");
    let server = pki.launch(&our_etcd(), "data", &pki.server_flags()).start();
    let (url, folder, etcdctl) = (server.client_url(), pki.folder.path(), our_etcdctl());
    let old = pki.shows(&pki.client);
    // The old client keeps trusting the old authority.
    let kept = pki.folder.join("kept.crt");
    std::fs::copy(pki.ca.file(), &kept).expect("the test's own folder");
    let old = [vec![format!("--cacert={}", kept.display())], old[1..].to_vec()].concat();
    let watch = Watching::start(&url, &old, "k");
    let end = Instant::now() + PATIENCE;
    let mut first = 0;
    // Until the watch stands.
    while watch.lines.recv_timeout(Duration::from_millis(50)).is_err() {
        assert!(Instant::now() < end, "no watch");
        first += 1;
        says(&etcdctl, folder, &url, &old, &format!("put k v{first}"));
    }
    says(&etcdctl, folder, &url, &old, "put k last");
    while watch.lines.recv_timeout(PATIENCE).expect("events") != "last" {}

    // A key that does not go with its certificate: all stays as it was.
    let key = std::fs::read(&pki.server.key).expect("it was made");
    std::fs::copy(&pki.client.key, &pki.server.key).expect("the test's own folder");
    says(&etcdctl, folder, &url, &old, "put k a");
    assert_eq!(watch.value(), "a");
    logs(&server, "TLS files have changed and do not go together");
    std::fs::write(&pki.server.key, key).expect("the test's own folder");

    // Another authority, and all that it signs.
    let new = Authority::new(folder, "etcd-ca");
    let client = new.issue(&Wish::client("client2", "root"));
    new.issue(&Wish::both("server", "etcd", HERE));
    assert_eq!(says(&etcdctl, folder, &url, &pki.shows(&client), "put k b"), "OK\n");
    assert_eq!(watch.value(), "b");
    logs(&server, "TLS files have changed; new connections use the new ones");
    kept_out(&etcdctl, folder, &url, &old, "get k");
    says(&etcdctl, folder, &url, &pki.shows(&client), "put k c");
    assert_eq!(watch.value(), "c");
}

#[test]
fn clients_that_connect_and_say_nothing_keep_nobody_waiting() {
    let pki = Pki::new("tls-silent");
    let server = pki.launch(&our_etcd(), "data", &pki.server_flags()).start();
    let (url, folder, etcdctl) = (server.client_url(), pki.folder.path(), our_etcdctl());
    let address = server.client_address();
    let silent: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(&address).expect("it listens")).collect();
    for n in 0..5 {
        says(&etcdctl, folder, &url, &pki.shows(&pki.client), &format!("put k {n}"));
    }
    // They are not waited for for ever: the oldest goes first.
    logs(&server, "too many connections have not begun a handshake");
    // Who says something that is no handshake is let go at once, whoever says nothing. (The log has no line for each: of many
    // alike in a second it leaves out most.)
    let mut plain = TcpStream::connect(&address).expect("it listens");
    plain.set_read_timeout(Some(PATIENCE)).expect("a nonzero timeout is valid");
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it is open");
    let mut said = Vec::new();
    let ended = plain.read_to_end(&mut said);
    let is_over = ended.as_ref().map_or_else(|e| e.kind() == std::io::ErrorKind::ConnectionReset, |_| true);
    assert!(is_over && !said.starts_with(b"HTTP"), "{ended:?} {said:?}");
    drop(silent);
}

/// POSTs JSON over TLS; answers the whole reply.
fn post_over_tls(pki: &Pki, pair: &Pair, server: &Server, path: &str, body: &str) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.ca.file()).expect("it was made")).expect("it is an authority");
    let chain = vec![CertificateDer::from_pem_file(&pair.cert).expect("it was made")];
    let key = PrivateKeyDer::from_pem_file(&pair.key).expect("it was made");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("there are versions").with_root_certificates(roots).with_client_auth_cert(chain, key);
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let config = Arc::new(config.expect("they go together"));
    let connection = rustls::ClientConnection::new(config, name).expect("the settings are complete");
    let socket = TcpStream::connect(server.client_address()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a nonzero timeout is valid");
    let mut stream = rustls::StreamOwned::new(connection, socket);
    // Without `Accept`, by which Go's gateway tells its own calls.
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).expect("it is open");
    let mut reply = Vec::new();
    // Some end TLS without saying so.
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn the_gateway_works_where_the_servers_certificate_is_no_clients() {
    let pki = Pki::new("tls-gateway");
    let server_only = pki.ca.issue(&Wish { purpose: Use::Server, ..Wish::both("server-only", "etcd", HERE) });
    let client_only = pki.ca.issue(&Wish::client("client-only", "gateway"));
    let nameless = pki.ca.issue(&Wish::client("nameless", ""));
    let flags = |key: &Pair| {
        let trust = [format!("--trusted-ca-file={}", pki.ca.file()), "--client-cert-auth".to_owned()];
        let own = [
            format!("--client-cert-file={}", client_only.cert.display()),
            format!("--client-key-file={}", key.key.display()),
            "--bcrypt-cost=4".to_owned(),
        ];
        [server_only.flags("cert-file", "key-file").to_vec(), trust.to_vec(), own.to_vec()].concat()
    };
    for (n, etcd) in programs("etcd").iter().enumerate() {
        let server = pki.launch(etcd, &format!("data{n}"), &flags(&client_only)).start();
        let post = |path: &str, body: &str| post_over_tls(&pki, &nameless, &server, path, body);
        let done = |path: &str, body: &str| {
            let reply = post(path, body);
            assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{}: {path}: {reply}", etcd.display());
        };
        done("/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#);
        for (user, password) in [("root", "x"), ("gateway", "x")] {
            done("/v3/auth/user/add", &format!(r#"{{"name":"{user}","password":"{password}"}}"#));
            done("/v3/auth/user/grant", &format!(r#"{{"user":"{user}","role":"root"}}"#));
        }
        done("/v3/auth/enable", "{}");
        // A client that shows no name and no token. Go takes it for the user that the gateway's certificate names.
        let reply = post("/v3/kv/range", r#"{"key":"YQ=="}"#);
        match n {
            0 => assert!(reply.contains("etcdserver: user name is empty"), "{reply}"),
            _ => assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.contains("\"Yg==\""), "{reply}"),
        }
    }
    // It is read, though nobody is shown it: what does not go together is told at the start.
    let refusal =
        pki.launch(&our_etcd(), "other", &flags(&server_only)).try_start().expect_err("they do not go together");
    assert!(refusal.log.contains("tls: private key does not match public key"), "{refusal}");
}

#[test]
fn members_show_one_another_their_clients_certificates() {
    let pki = Pki::new("tls-peer-client");
    let server_only = pki.ca.issue(&Wish { purpose: Use::Server, ..Wish::both("server-only", "etcd", HERE) });
    let client_only = pki.ca.issue(&Wish { purpose: Use::Client, ..Wish::both("client-only", "etcd", HERE) });
    let flags =
        [pki.peer_flags(&server_only), client_only.flags("peer-client-cert-file", "peer-client-key-file").into()];
    let binaries = programs("etcd");
    let seats = Seats::found_placed(&[binaries.clone(), vec![our_etcd()]].concat(), pki.folder.path(), |_, launch| {
        with(launch.with_tls(false, true), &flags.concat())
    });
    let put: Result<pb::PutResponse, _> =
        block_on(async { seats.wire(0).unary(oxetcd_tests::ask::PUT, &oxetcd_tests::ask::put("k", "v")).await });
    put.expect("members talk to one another");
    // Who shows the certificate of a server is no peer.
    let launch = Launch::new(&our_etcd(), &pki.folder.join("other")).with_tls(false, true);
    let all = format!("--initial-cluster=m0={},b={}", seats.server(0).launch().peer_url(), launch.peer_url());
    let joins = ["--name=b".to_owned(), all, "--initial-cluster-state=existing".to_owned()];
    let refusal = with(launch, &[pki.peer_flags(&server_only), joins.into()].concat()).try_start();
    let refusal = refusal.expect_err("it must not be let in");
    assert!(refusal.log.contains("cannot fetch cluster info from peer urls"), "{refusal}");
    logs(seats.server(0), "x509: certificate specifies an incompatible key usage");
}

#[test]
fn metrics_tell_when_certificates_end_and_whether_new_ones_are_of_use() {
    let pki = Pki::new("tls-metrics");
    let launch = pki.launch(&our_etcd(), "data", &[pki.server_flags(), pki.peer_flags(&pki.server)].concat());
    let plain = format!("http://127.0.0.1:{}", oxetcd_tests::process::free_ports().0);
    let server = with(launch.with_tls(true, true), &[format!("--listen-metrics-urls={plain}")]).start();
    let address = plain.trim_start_matches("http://").to_owned();
    let page = || oxetcd_tests::web::send(&address, "GET", "/metrics", &[], "").body;
    let figure = |name: &str| oxetcd_tests::scrape::value(&page(), name);
    for side in ["client", "peer"] {
        for file in [pki.server.cert.display().to_string(), pki.ca.file()] {
            let days = figure(&format!("oxetcd_tls_certificate_expiry_days{{side=\"{side}\",file=\"{file}\"}}"));
            assert!(days.is_some_and(|days| (363.0..=365.0).contains(&days)), "{side} {file}: {days:?}\n{}", page());
        }
    }
    let stale = || figure("oxetcd_tls_files_stale{side=\"client\"}");
    let reloads = |well| figure(&format!("oxetcd_tls_reloads_total{{side=\"client\",success=\"{well}\"}}"));
    assert_eq!((stale(), reloads(true), reloads(false)), (Some(0.0), Some(0.0), Some(0.0)));
    let key = std::fs::read(&pki.server.key).expect("it was made");
    std::fs::copy(&pki.client.key, &pki.server.key).expect("the test's own folder");
    assert_eq!((stale(), reloads(true)), (Some(1.0), Some(0.0)));
    std::fs::write(&pki.server.key, key).expect("the test's own folder");
    assert_eq!((stale(), reloads(true)), (Some(0.0), Some(1.0)));
    assert!(reloads(false) >= Some(1.0));
    drop(server);
}
