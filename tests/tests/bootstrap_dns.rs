//! `--discovery-srv` over a name server of the test's own, in a network namespace of its own: port 53 and `resolv.conf` are
//! nobody else's there. Needs `unshare` and `ip`, and a kernel that lets this user have namespaces.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::Cluster;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Proxy, text};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Set where this test runs inside of its namespaces.
const INSIDE: &str = "OXETCD_TEST_INSIDE";
const TEST: &str = "the_dns_names_the_founders";
/// Everything is here.
const HOME: [u8; 4] = [127, 0, 0, 1];
const SRV: u16 = 33;
const A: u16 = 1;

/// Where the members serve clients, once they do.
static CLIENT_PORTS: OnceLock<[u16; 3]> = OnceLock::new();
const HOSTS: [&str; 3] = ["a.x.org", "b.x.org", "c.x.org"];

/// Hosts and ports of a service.
fn zone(name: &str) -> Vec<(&'static str, u16)> {
    match name {
        "_etcd-server._tcp.x.org" => vec![("a.x.org", 2380), ("b.x.org", 2381), ("c.x.org", 2382)],
        "_etcd-server-alone._tcp.x.org" => vec![("a.x.org", 2380)],
        "_etcd-client._tcp.x.org" => HOSTS.into_iter().zip(CLIENT_PORTS.get().into_iter().flatten().copied()).collect(),
        _ => Vec::new(),
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// The name that a message asks for, in lower case, and where its question ends.
fn question(message: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while message[at] != 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    (labels.join("."), at + 5)
}

fn answer(message: &[u8]) -> Vec<u8> {
    let (name, end) = question(message);
    let kind = u16::from_be_bytes([message[end - 4], message[end - 3]]);
    let record = |data: Vec<u8>| {
        let length = u16::try_from(data.len()).expect("short data").to_be_bytes();
        [&encoded(&name), &kind.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1], &length, &data].concat()
    };
    let service =
        |(host, port): &(&str, u16)| record([&[0, 1, 0, 1], &port.to_be_bytes()[..], &encoded(host)].concat());
    let is_host = HOSTS.contains(&name.as_str());
    let records: Vec<Vec<u8>> = match kind {
        SRV => zone(&name).iter().map(service).collect(),
        A if is_host => vec![record(HOME.to_vec())],
        _ => Vec::new(),
    };
    let unknown = u8::from(records.is_empty() && !is_host) * 3;
    let head = [message[0], message[1], 0x81, 0x80 | unknown, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
    [&head[..], &message[12..end], &records.concat()].concat()
}

fn name_server() {
    let socket =
        UdpSocket::bind((std::net::Ipv4Addr::from(HOME), 53)).expect("a namespace of our own has the port free");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..length]), from).expect("loopback takes answers");
        }
    });
}

fn output(command: &mut Command) -> Option<Output> {
    command.output().ok()
}

/// A command in new namespaces, this user being their root.
fn apart(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--net"]).arg(program);
    command
}

#[test]
fn the_dns_names_the_founders() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let may = output(apart(Path::new("ip")).args(["link", "set", "lo", "up"])).is_some_and(|o| o.status.success());
    if !may {
        return println!("SKIPPED: no namespaces for this user");
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let mut command = apart(&test);
    command.args(["--exact", TEST, "--nocapture"]).env(INSIDE, "1").env("OXETCD_BIN", our_etcd());
    let run = output(&mut command).expect("unshare ran a moment ago");
    assert!(run.status.success(), "{}\n{}", text(&run.stdout), text(&run.stderr));
}

fn inside() {
    let folder = TempDir::for_cluster("dns");
    let resolv = folder.join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\n").expect("a writable folder");
    let steps = [
        Command::new("ip").args(["link", "set", "lo", "up"]).status(),
        Command::new("mount").arg("--bind").arg(&resolv).arg("/etc/resolv.conf").status(),
    ];
    assert!(steps.into_iter().all(|step| step.is_ok_and(|status| status.success())), "the namespace can't be set up");
    name_server();
    refusals(&folder);
    let go = Reference::find().map(|reference| reference.program("3.7", "etcd"));
    let second = go.unwrap_or_else(our_etcd);
    let binaries = [our_etcd(), second, our_etcd()];
    let launches = [0, 1, 2].map(|n| member(&folder, n, &binaries[n], &[]));
    let cluster = Cluster::start(&launches).unwrap_or_else(|r| panic!("{r}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(agree(&cluster));
    runtime.block_on(proxies_find(&cluster));
}

/// Proxies learn from the same names where the members serve clients.
async fn proxies_find(cluster: &Cluster) {
    let port = |n: usize| cluster.members[n].launch().client_port;
    CLIENT_PORTS.set([0, 1, 2].map(port)).expect("nobody has set them");
    let flags = ["--discovery-srv=x.org", "--insecure-discovery"];
    for (kind, ready) in [("grpc-proxy", "started gRPC proxy"), ("gateway", "ready to proxy client requests")] {
        let proxy = Proxy::start(&our_etcd(), kind, &flags, ready);
        let wire = Wire::steady(&proxy.url());
        let _: pb::PutResponse = wire.unary(ask::PUT, &ask::put("through", kind)).await.expect("a put");
        let found: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get("through")).await.expect("a read");
        assert_eq!(found.kvs[0].value, kind.as_bytes());
        for n in 0..3 {
            let endpoint = format!("{}.x.org:{}", ["a", "b", "c"][n], port(n));
            assert!(proxy.log().contains(&endpoint), "{kind}: no {endpoint} in {}", proxy.log());
        }
    }
}

/// One of a, b and c, on the port that the zone has for it.
fn member(folder: &TempDir, n: usize, binary: &Path, more: &[&str]) -> Launch {
    let name = ["a", "b", "c"][n];
    let mut launch = Launch::new(binary, &folder.join(name));
    launch.peer_port = [2380, 2381, 2382][n];
    launch.initial_cluster = false;
    let url = format!("--initial-advertise-peer-urls=http://{name}.x.org:{}", launch.peer_port);
    launch.with_flags(&[&format!("--name={name}"), "--discovery-srv=x.org", &url]).with_flags(more)
}

fn refusals(folder: &TempDir) {
    for (flag, words) in [
        ("--discovery-srv=y.org", "lookup _etcd-server._tcp.y.org on 127.0.0.1:53: no such host"),
        ("--discovery-srv-name=none", "error querying DNS SRV records for _etcd-server-ssl-none"),
        ("--name=d", "cannot find local etcd member \\\"d\\\" in SRV records"),
    ] {
        let n = if flag == "--name=d" { 1 } else { 0 };
        let mut more = vec![flag];
        // b's address is not the one that this service has.
        more.extend((n == 1).then_some("--discovery-srv-name=alone"));
        match member(folder, n, &our_etcd(), &more).try_start() {
            Err(refusal) => assert!(refusal.log.contains(words), "{flag}: no {words:?} in {refusal}"),
            Ok(server) => panic!("{flag}: it started; log:\n{}", server.log()),
        }
    }
}

async fn agree(cluster: &Cluster) {
    let wire = Wire::steady(&cluster.members[1].client_url());
    let _: pb::PutResponse = wire.unary(ask::PUT, &ask::put("k", "v")).await.expect("a put");
    let wire = Wire::steady(&cluster.members[2].client_url());
    let list: pb::MemberListResponse = wire
        .unary("/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest { linearizable: true })
        .await
        .expect("a list of members");
    let mut urls: Vec<&str> = list.members.iter().flat_map(|m| &m.peer_ur_ls).map(String::as_str).collect();
    urls.sort_unstable();
    assert_eq!(urls, ["http://a.x.org:2380", "http://b.x.org:2381", "http://c.x.org:2382"]);
}
