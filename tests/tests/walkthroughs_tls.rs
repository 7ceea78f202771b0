//! Walkthroughs W4 and W5 over TLS: inside a Kubernetes control plane, with certificates as kubeadm makes them and the flags of
//! its static pod. (W1 and W2 over TLS are in tls.rs; W5's addresses and ids in walkthroughs_cluster.rs.)

mod tools;

use oxetcd_tests::certs::{Authority, Pair, Wish};
use oxetcd_tests::cluster::{Seats, initial_cluster};
use oxetcd_tests::net;
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, free_ports};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::web;
use std::path::Path;
use tools::{Said, added, ask, insist, our_etcdctl, until, words};

/// The names in kubeadm's server and peer certificates.
const HERE: &[&str] = &["localhost", "controlplane", "127.0.0.1", "::1"];

/// What kubeadm leaves in /etc/kubernetes/pki: the authority has `CA:TRUE`, server and peer certificates serve both ends,
/// those of the API server and of the probes are a client's.
struct Kubeadm {
    folder: TempDir,
    ca: Authority,
    server: Pair,
    peer: Pair,
    probe: Pair,
    api_server: Pair,
}

impl Kubeadm {
    fn new(label: &str) -> Kubeadm {
        let folder = TempDir::for_cluster(label);
        let ca = Authority::new(folder.path(), "etcd-ca");
        let [server, peer] = ["server", "peer"].map(|name| ca.issue(&Wish::both(name, "controlplane", HERE)));
        let probe = ca.issue(&Wish::client("healthcheck-client", "kube-etcd-healthcheck-client"));
        let api_server = ca.issue(&Wish::client("apiserver-etcd-client", "kube-apiserver-etcd-client"));
        Kubeadm { folder, ca, server, peer, probe, api_server }
    }

    /// The static pod's flags (reference/process-contract.md section 7), but for names and addresses.
    fn pod(&self, launch: Launch, metrics: u16) -> Launch {
        let (ca, metrics) = (self.ca.file(), format!("http://127.0.0.1:{metrics}"));
        let mut flags = vec![
            "--feature-gates=InitialCorruptCheck=true".to_owned(),
            format!("--trusted-ca-file={ca}"),
            "--client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={ca}"),
            "--peer-client-cert-auth=true".to_owned(),
            "--snapshot-count=10000".to_owned(),
            format!("--listen-metrics-urls={metrics}"),
            "--watch-progress-notify-interval=5s".to_owned(),
        ];
        flags.extend(self.server.flags("cert-file", "key-file"));
        flags.extend(self.peer.flags("peer-cert-file", "peer-key-file"));
        launch.with_tls(true, true).with_flags(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The three flags of a client that shows this certificate.
    fn shows(&self, pair: &Pair) -> String {
        let [cert, key] = pair.flags("cert", "key");
        format!("--cacert={} {cert} {key}", self.ca.file())
    }
}

/// A line of our etcdctl in a folder.
fn etcdctl(folder: &Path, variables: &[(&str, &str)], line: &str) -> Said {
    let said = insist(|| ask(&our_etcdctl(), folder, variables, &words(line), b""));
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
    said
}

#[test]
fn w4_exported_variables_flags_that_win_and_a_backup() {
    let pki = Kubeadm::new("w4");
    let folder = pki.folder.path();
    let launch = pki.pod(Launch::new(&our_etcd(), &folder.join("etcd")), free_ports().0);
    let server = launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}"));
    let (client, bare) = (server.client_url(), server.client_address());
    let ca = pki.ca.file();
    let [cert, key] = [&pki.server.cert, &pki.server.key].map(|path| path.display().to_string());
    let exported = [
        ("ETCDCTL_API", "3"),
        ("ETCDCTL_CACERT", ca.as_str()),
        ("ETCDCTL_CERT", cert.as_str()),
        ("ETCDCTL_KEY", key.as_str()),
        ("ETCDCTL_ENDPOINTS", client.as_str()),
    ];
    let version = etcdctl(folder, &exported, "version");
    assert_eq!((version.out.as_str(), version.err.as_str()), ("etcdctl version: 3.7.1\nAPI version: 3.7\n", ""));

    // No scheme, and TLS all the same; each flag wins over its variable, with a word of warning.
    let flags = format!("{} --endpoints={bare}", pki.shows(&pki.server));
    let listed = etcdctl(folder, &exported, &format!("member list {flags}"));
    let (id, rest) = listed.out.trim_end().split_once(", ").expect("columns");
    assert!(u64::from_str_radix(id, 16).is_ok(), "{listed:?}");
    assert_eq!(rest, format!("started, default, {}, {client}, false", server.launch().peer_url()));
    for (variable, _) in &exported[1..] {
        let warned = listed.err.lines().filter(|line| line.contains(&format!("\"{variable}\""))).count();
        assert_eq!(warned, 1, "{variable}: {}", listed.err);
    }
    assert_eq!(listed.err.lines().count(), 4, "ETCDCTL_API=3 is silent: {}", listed.err);

    assert_eq!(etcdctl(folder, &exported, "put /registry/a 1").out, "OK\n");
    let saved = etcdctl(folder, &exported, "snapshot save etcd-backup.db");
    assert!(saved.out.starts_with("Snapshot saved at etcd-backup.db\n"), "{saved:?}");
    for word in ["created temporary db file", "fetching snapshot", "fetched snapshot", "saved"] {
        assert!(saved.err.contains(&format!("\"msg\":\"{word}\"")), "no {word}: {}", saved.err);
    }
    let status = etcdctl(folder, &exported, "snapshot status etcd-backup.db -w table");
    assert!(status.err.contains("etcdutl snapshot status"), "{status:?}");
    let columns = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"];
    let head: Vec<&str> = status.out.lines().nth(1).expect("a head").split('│').map(str::trim).collect();
    assert_eq!(head, [&[""], &columns[..], &[""]].concat());

    server.kill();
    etcdctl(folder, &exported, "snapshot restore etcd-backup.db --data-dir restored");
    let launch = Launch { data_dir: folder.join("restored"), ..launch };
    let server = launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(etcdctl(folder, &exported, "get /registry/a").out, "/registry/a\n1\n");
    server.stop();
}

#[test]
fn w5_a_cluster_with_kubeadms_certificates_probes_and_a_fourth_member() {
    net::run(None, w5());
}

async fn w5() {
    let pki = Kubeadm::new("w5-tls");
    let folder = pki.folder.path();
    let metrics: Vec<u16> = (0..4).map(|_| free_ports().0).collect();
    let binaries = [our_etcd(), our_etcd(), our_etcd()];
    let seats = Seats::found_placed(&binaries, folder, |n, launch| pki.pod(launch, metrics[n]));
    for port in &metrics[..3] {
        for path in ["/livez", "/readyz"] {
            // Ready means that a leader is known: a member that stood still may not know one for a moment.
            until("a probe's answer", || {
                (web::send(&format!("127.0.0.1:{port}"), "GET", path, &[], "").status == 200).then_some(())
            });
        }
    }
    // The probe of older manifests, in its own spelling of the endpoint.
    let local = format!("https://[127.0.0.1]:{}", seats.url(0).rsplit(':').next().expect("a port"));
    let probe = format!("--endpoints={local} {}", pki.shows(&pki.probe));
    let health = etcdctl(folder, &[], &format!("{probe} endpoint health"));
    assert!(health.out.starts_with(&format!("{local} is healthy: ")), "{health:?}");

    let shows = pki.shows(&pki.api_server);
    let all = format!("--endpoints={} {shows}", seats.urls().join(","));
    let status = etcdctl(folder, &[], &format!("--write-out=table {all} endpoint status")).out;
    assert!(seats.urls().iter().all(|url| status.contains(url)), "{status}");
    let members = etcdctl(folder, &[], &format!("--write-out=table {all} member list")).out;
    assert_eq!(members.matches("started").count(), 3, "{members}");
    assert_eq!(etcdctl(folder, &[], &format!("{all} put /registry/a 1")).out, "OK\n");
    assert_eq!(etcdctl(folder, &[], &format!("{all} get / --prefix --keys-only")).out, "/registry/a\n\n");

    let [cert, key] = pki.server.flags("cert-file", "key-file");
    let oldest = format!("{cert} {key} --ca-file={} --endpoints={} snapshot save F", pki.ca.file(), seats.url(1));
    let saved = etcdctl(folder, &[], &oldest);
    assert!(saved.out.starts_with("Snapshot saved at F\n") && folder.join("F").is_file(), "{saved:?}");
    for (old, new) in [("--cert-file", "--cert"), ("--key-file", "--key"), ("--ca-file", "--cacert")] {
        assert!(saved.err.contains(&format!("{old} is an old name of {new}\n")), "{}", saved.err);
    }
    fourth(&pki, &seats, metrics[3]).await;
}

/// `member add` sent to a follower; the fourth starts with the initial cluster in no order.
async fn fourth(pki: &Kubeadm, seats: &Seats, metrics: u16) {
    let folder = pki.folder.path();
    let shows = pki.shows(&pki.api_server);
    let launch = pki.pod(Launch::new(&our_etcd(), &folder.join("infra3")), metrics);
    let listed = etcdctl(folder, &[], &format!("--endpoints={} {shows} -w json endpoint status", seats.url(1))).out;
    let status: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let status = &status[0]["Status"];
    let follower = if status["leader"] == status["header"]["member_id"] { 2 } else { 1 };
    let add =
        format!("--endpoints={} {shows} member add infra3 --peer-urls={}", seats.url(follower), launch.peer_url());
    let added = added(|| insist(|| ask(&our_etcdctl(), folder, &[], &words(&add), b"")));
    assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
    let launches: Vec<Launch> = (0..3).map(|n| seats.server(n).launch().clone()).collect();
    let mut named: Vec<String> = initial_cluster(&launches).split(',').map(str::to_owned).collect();
    named.insert(0, format!("infra3={}", launch.peer_url()));
    named.reverse();
    let launch = launch.with_flags(&[
        "--name=infra3",
        "--initial-cluster-state=existing",
        &format!("--initial-cluster={}", named.join(",")),
    ]);
    let server = launch.try_start().unwrap_or_else(|refusal| panic!("{refusal}"));
    let listed = until("four members that are started", || {
        let line = format!("--endpoints={} {shows} member list", server.client_url());
        let out = etcdctl(folder, &[], &line).out;
        (out.matches(", started, ").count() == 4).then_some(out)
    });
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let read = etcdctl(folder, &[], &format!("--endpoints={} {shows} get /registry/a", server.client_url())).out;
    assert_eq!(read, "/registry/a\n1\n");
}
