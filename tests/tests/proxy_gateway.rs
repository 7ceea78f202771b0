//! `etcd gateway`: bytes go to the members and back whatever they are, and members that fail are passed over until they
//! are back. Texts and exit codes are compared with Go's where `OXETCD_REFERENCE` is set.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::places::our_etcd;
use oxetcd_tests::process::{Launch, Proxy, assert_said_as_go, free_ports};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

fn gateway(flags: &[&str]) -> Proxy {
    Proxy::start(&our_etcd(), "gateway", flags, "ready to proxy client requests")
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    (listener, address)
}

fn connect(gateway: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(gateway.address()).expect("the gateway listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A member that names itself to everybody and hangs up.
fn naming(listener: TcpListener, name: u8) {
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Who has gone does not want to know.
            drop((&stream).write_all(&[name]));
        }
    });
}

fn named(gateway: &Proxy) -> Option<u8> {
    let mut said = Vec::new();
    connect(gateway).read_to_end(&mut said).ok()?;
    said.first().copied()
}

#[tokio::test]
async fn a_member_is_served_through_it() {
    let folder = TempDir::new("gateway-member");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    // A scheme is of no matter.
    let gateway = gateway(&[&format!("--endpoints={}", server.client_url())]);
    let wire = Wire::connect(&gateway.url()).await;
    let put: Result<pb::PutResponse, _> = wire.unary(ask::PUT, &ask::put("a", "b")).await;
    assert_eq!(put.expect("a put").header.expect("a header").revision, 2);
}

#[test]
fn each_side_may_end_its_half_first() {
    let (member, address) = listener();
    let gateway = gateway(&[&format!("--endpoints={address}")]);
    // The client ends first, and the member answers what it read.
    let mut client = connect(&gateway);
    client.write_all(b"question").expect("sent");
    client.shutdown(Shutdown::Write).expect("ended");
    let (mut inner, _) = member.accept().expect("the gateway dials");
    let mut asked = String::new();
    inner.read_to_string(&mut asked).expect("the end arrives");
    inner.write_all(asked.to_uppercase().as_bytes()).expect("sent");
    drop(inner);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the answer arrives");
    assert_eq!(answer, "QUESTION");
    // The member ends first, and still reads.
    let mut client = connect(&gateway);
    let (mut inner, _) = member.accept().expect("the gateway dials");
    inner.shutdown(Shutdown::Write).expect("ended");
    assert_eq!(client.read(&mut [0]).expect("the end arrives"), 0);
    client.write_all(b"late").expect("sent");
    drop(client);
    let mut late = String::new();
    inner.read_to_string(&mut late).expect("the rest arrives");
    assert_eq!(late, "late");
}

#[test]
fn members_have_turns_and_one_that_fails_is_passed_over_until_it_is_back() {
    let (one, first) = listener();
    let gone = format!("127.0.0.1:{}", free_ports().0);
    naming(one, b'1');
    let flags = [format!("--endpoints={first},{gone}"), "--retry-delay=20ms".to_owned()];
    let gateway = gateway(&[&flags[0], &flags[1]]);
    for _ in 0..4 {
        assert_eq!(named(&gateway), Some(b'1'));
    }
    assert!(gateway.wait_for_log("\"msg\":\"deactivated endpoint\""), "{}", gateway.log());
    assert!(gateway.wait_for_log("failed to activate endpoint (stay inactive for another interval)"));
    let log = gateway.log();
    for told in [
        format!("\"address\":\"{gone}\""),
        "\"interval\":\"20ms\"".to_owned(),
        format!("\"error\":\"dial tcp {gone}: connect: connection refused\""),
    ] {
        assert!(log.contains(&told), "no {told} in {log}");
    }
    naming(TcpListener::bind(&gone).expect("nobody else takes it"), b'2');
    assert!(gateway.wait_for_log("\"msg\":\"activated\""), "{}", gateway.log());
    let both: Vec<u8> = (0..4).filter_map(|_| named(&gateway)).collect();
    assert!(both == b"1212" || both == b"2121", "{both:?}");
}

#[test]
fn without_a_member_clients_are_hung_up_on() {
    let gone = format!("127.0.0.1:{}", free_ports().0);
    let gateway = gateway(&[&format!("--endpoints={gone}")]);
    assert_eq!(named(&gateway), None);
    assert_eq!(named(&gateway), None);
}

#[test]
fn connections_that_ended_leave_nothing_behind() {
    let (member, address) = listener();
    let gateway = gateway(&[&format!("--endpoints={address}")]);
    naming(member, b'1');
    assert_eq!(named(&gateway), Some(b'1'));
    let folder = format!("/proc/{}/fd", gateway.pid());
    let descriptors = || std::fs::read_dir(&folder).expect("it runs").count();
    let before = descriptors();
    for _ in 0..50 {
        assert_eq!(named(&gateway), Some(b'1'));
    }
    // The last of them may be closed a moment later.
    let settled = (0..10_000).any(|_| {
        let is_settled = descriptors() <= before;
        if !is_settled {
            thread::park_timeout(Duration::from_millis(5));
        }
        is_settled
    });
    assert!(settled, "{} descriptors, {before} before", descriptors());
}

#[test]
fn wrong_flags_are_refused_as_go_refuses_them() {
    let (_held, address) = listener();
    let taken = format!("gateway start --listen-addr={address}");
    let lines: &[(&str, i32, &str)] = &[
        ("gateway", 0, "Use \"etcd gateway [command] --help\" for more information about a command."),
        ("gateway --help", 0, "gateway related command"),
        ("gateway bogus", 0, "start the gateway"),
        ("gateway start --help", 0, "--trusted-ca-file string      path to the client server TLS CA file"),
        ("gateway start --bogus", 1, "unknown flag: --bogus"),
        ("gateway start --retry-delay=x", 1, "time: invalid duration \"x\""),
        ("gateway start --endpoints=127.0.0.1", 1, "error parsing endpoint \"127.0.0.1\""),
        ("gateway start --endpoints=http://::1:1", 1, "error parsing endpoint \"http://::1:1\""),
        ("gateway start --endpoints=", 1, "no endpoints found"),
        ("gateway start --listen-addr=xx", 1, "failed to validate listen address: xx"),
        ("gateway start --listen-addr=:23790", 1, "failed to resolve listen host: "),
        ("gateway start --listen-addr=127.0.0.1:bogus", 1, "listen tcp: lookup tcp/bogus: unknown port"),
        (
            "gateway start --listen-addr=127.0.0.1:2379",
            1,
            "SRV or endpoint (127.0.0.1:2379->127.0.0.1:2379) should not resolve to the gateway listen addr",
        ),
        (&taken, 1, "bind: address already in use"),
    ];
    assert_said_as_go(lines);
}
