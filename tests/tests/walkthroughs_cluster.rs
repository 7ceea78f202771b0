//! Walkthroughs W1, W2 and W5 on the tutorials' own addresses, in network namespaces, which need root and `ip`. Without TLS
//! and the JSON gateway as yet: where a tutorial says `https`, this says `http`.

mod tools;

use api::identity::member_id;
use oxetcd_tests::cluster::Seats;
use oxetcd_tests::net::{self, Net};
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::Launch;
use oxetcd_tests::temp::TempDir;
use std::path::Path;
use tools::{Said, added, ask, insist, our_etcdctl, words};

/// Runs a line of our etcdctl.
fn etcdctl(folder: &Path, line: &str) -> Said {
    ask(&our_etcdctl(), folder, &[], &words(line), b"")
}

/// What a line prints; it must succeed.
fn says(folder: &Path, line: &str) -> String {
    let said = insist(|| etcdctl(folder, line));
    assert_eq!(said.code, Some(0), "{line}: {said:?}");
    said.out
}

fn http(address: &str, port: u16) -> String {
    format!("http://{address}:{port}")
}

/// `NAME0=http://A0:2380,NAME1=…`
fn initial_cluster(name: &str, addresses: &[&str]) -> String {
    let one = |(n, address): (usize, &&str)| format!("{name}{n}={}", http(address, 2380));
    addresses.iter().enumerate().map(one).collect::<Vec<_>>().join(",")
}

/// The ids in the rows of a table.
fn ids(table: &str) -> Vec<u64> {
    let cell = |line: &str| line.split(['│', '|']).nth(1).map(|cell| cell.trim().to_owned());
    table.lines().filter_map(|line| u64::from_str_radix(&cell(line)?, 16).ok()).collect()
}

const W1: &str = "--name controller-N --initial-advertise-peer-urls http://IP:2380 --listen-peer-urls http://IP:2380 \
                  --listen-client-urls http://IP:2379,http://127.0.0.1:2379 --advertise-client-urls http://IP:2379 \
                  --initial-cluster-token etcd-cluster-0 --initial-cluster ALL --initial-cluster-state new \
                  --data-dir=DATA";

/// A unit's flags; each member has a host, and so a 127.0.0.1, of its own.
#[test]
fn w1_the_death_of_the_leader_elects_another() {
    let Some(net) = Net::routed(3) else { return };
    net::run(Some(&net), w1(&net));
}

async fn w1(net: &Net) {
    let folder = TempDir::for_cluster("w1");
    let hosts = [0, 1, 2].map(|n| net.place(n, Launch::bare(&our_etcd(), "")));
    let addresses: Vec<&str> = hosts.iter().map(|launch| launch.host.as_str()).collect();
    let all = initial_cluster("controller-", &addresses);
    let launch = |(n, launch): (usize, &Launch)| {
        let data = folder.join(&format!("etcd{n}")).display().to_string();
        let line = W1.replace("-N", &format!("-{n}")).replace("IP", &launch.host).replace("ALL", &all);
        let line = line.replace("DATA", &data);
        launch.clone().with_flags(&line.split_whitespace().collect::<Vec<_>>())
    };
    let mut seats = Seats::of(hosts.iter().enumerate().map(launch).collect());
    let endpoints = |seats: &Seats| format!("--endpoints={}", seats.urls().join(","));
    let to_all = endpoints(&seats);
    assert_eq!(says(folder.path(), &format!("{to_all} put name john")), "OK\n");
    assert_eq!(says(folder.path(), &format!("{to_all} get name")), "name\njohn\n");
    let leader = seats.leader().await;
    seats.kill(leader);
    let next = seats.leader().await;
    assert_ne!(next, leader);
    let to_rest = endpoints(&seats);
    assert_eq!(says(folder.path(), &format!("{to_rest} get name")), "name\njohn\n");
    assert_eq!(says(folder.path(), &format!("{to_rest} put name jane")), "OK\n");
    seats.start(leader);
    seats.agree().await;
    println!("W1: the leader {leader} was killed, {next} leads");
}

const W2: [&str; 3] = ["192.168.144.129", "192.168.144.133", "192.168.144.136"];

/// A member that knows its variables and nothing else.
fn from_variables(folder: &TempDir, n: usize) -> Launch {
    let (client, peer) = (http(W2[n], 2379), http(W2[n], 2380));
    let mut launch = Launch::bare(&our_etcd(), W2[n]);
    let variables = [
        ("ETCD_NAME", format!("etcd{n}")),
        ("ETCD_DATA_DIR", folder.join(&format!("etcd{n}.etcd")).display().to_string()),
        ("ETCD_LISTEN_CLIENT_URLS", client.clone()),
        ("ETCD_LISTEN_PEER_URLS", peer.clone()),
        ("ETCD_ADVERTISE_CLIENT_URLS", client),
        ("ETCD_INITIAL_ADVERTISE_PEER_URLS", peer),
        ("ETCD_INITIAL_CLUSTER", initial_cluster("etcd", &W2)),
        ("ETCD_INITIAL_CLUSTER_STATE", "new".to_owned()),
        ("ETCD_INITIAL_CLUSTER_TOKEN", "etcd-cluster".to_owned()),
    ];
    launch.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
    launch
}

#[test]
fn w2_three_members_from_environment_variables_alone() {
    let Some(net) = Net::of_addresses(&W2) else { return };
    net::run(Some(&net), w2());
}

async fn w2() {
    let folder = TempDir::for_cluster("w2");
    let seats = Seats::of((0..3).map(|n| from_variables(&folder, n)).collect());
    let table = says(folder.path(), &format!("--endpoints={} --write-out=table member list", http(W2[0], 2379)));
    // In numeric order; the first has no leading zeros.
    assert_eq!(ids(&table), [0xae_1193_8136_e019, 0x1a36_316d_0859_0385, 0x50aa_2c95_a5a6_c74b], "{table}");
    for address in W2 {
        let id = format!("{:x}", member_id(&[http(address, 2380)], "etcd-cluster", None));
        let row = table.lines().find(|row| row.contains(&http(address, 2380))).expect("its row");
        assert!(row.contains(&format!(" {id} ")) && row.contains("started"), "{id} is not in {row}");
    }
    let to = |n: usize, line: &str| says(folder.path(), &format!("--endpoints={} {line}", http(W2[n], 2379)));
    assert_eq!(to(0, "put mykey myvalue"), "OK\n");
    assert_eq!(to(1, "get mykey"), "mykey\nmyvalue\n");
    assert_eq!(to(2, "put example/1 one"), "OK\n");
    assert_eq!(to(0, "get example --prefix"), "example/1\none\n");
    assert_eq!(to(1, "del mykey"), "1\n");
    seats.agree().await;
}

const W5: [&str; 4] = ["172.16.68.218", "172.16.68.219", "172.16.68.220", "172.16.68.221"];

#[test]
fn w5_ids_are_those_of_the_tutorial() {
    let mut ids: Vec<u64> =
        W5[..3].iter().map(|ip| member_id(&[format!("https://{ip}:2380")], "etcd-cluster", None)).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0x42f9_3285_6eb8_87aa, 0x7fc7_8604_4098_7164, 0xa413_3386_5e3c_22ac]);
}

#[test]
fn w5_a_fourth_member_is_added_through_a_follower() {
    let Some(net) = Net::of_addresses(&W5) else { return };
    net::run(Some(&net), w5());
}

/// The static pod's flags.
fn infra(folder: &TempDir, n: usize, state: &str, cluster: &str) -> Launch {
    let (client, peer) = (http(W5[n], 2379), http(W5[n], 2380));
    Launch::bare(&our_etcd(), W5[n]).with_flags(&[
        &format!("--advertise-client-urls={client}"),
        &format!("--data-dir={}", folder.join(&format!("infra{n}")).display()),
        &format!("--initial-advertise-peer-urls={peer}"),
        &format!("--initial-cluster={cluster}"),
        &format!("--initial-cluster-state={state}"),
        "--initial-cluster-token=etcd-cluster",
        &format!("--listen-client-urls={client}"),
        &format!("--listen-peer-urls={peer}"),
        &format!("--name=infra{n}"),
        "--snapshot-count=10000",
    ])
}

async fn w5() {
    let folder = TempDir::for_cluster("w5");
    let three = initial_cluster("infra", &W5[..3]);
    let mut launches: Vec<Launch> = (0..3).map(|n| infra(&folder, n, "new", &three)).collect();
    let seats = Seats::of(launches.clone());
    let all = format!("--endpoints={}", seats.urls().join(","));
    let status = says(folder.path(), &format!("{all} --write-out=table endpoint status"));
    assert!(seats.urls().iter().all(|url| status.contains(url)), "{status}");
    assert_eq!(says(folder.path(), &format!("{all} put /registry/a 1")), "OK\n");
    assert_eq!(says(folder.path(), &format!("{all} get / --prefix --keys-only")), "/registry/a\n\n");

    let follower = (seats.leader().await + 1) % 3;
    let add = format!("--endpoints={} member add infra3 --peer-urls={}", seats.url(follower), http(W5[3], 2380));
    let added = added(|| etcdctl(folder.path(), &add));
    assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\"") && added.contains("infra3="), "{added}");
    let unsorted: Vec<String> = [3, 1, 0, 2].iter().map(|n| format!("infra{n}={}", http(W5[*n], 2380))).collect();
    launches = vec![infra(&folder, 3, "existing", &unsorted.join(","))];
    let fourth = Seats::of(launches);
    let revision = seats.put_soon(follower, "with four").await;
    fourth.reaches(0, revision).await;
    let table = says(folder.path(), &format!("--endpoints={} --write-out=table member list", fourth.url(0)));
    assert!(ids(&table).len() == 4 && table.matches("started").count() == 4, "{table}");
    seats.agree().await;
}
