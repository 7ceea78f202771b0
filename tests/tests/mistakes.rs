//! What our etcdctl says about mistakes: behind etcd's own words a line for each endpoint with what was found there and what to
//! type. One real situation a line: real servers, real certificates. And docs/operations/mistakes.md, line by line.

mod tools;

use oxetcd_tests::certs::{Authority, Pair, Wish};
use oxetcd_tests::cluster::{Seats, with_learner};
use oxetcd_tests::net;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server, free_ports};
use oxetcd_tests::temp::TempDir;
use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tools::{HINT, Said, ask, insist, our_etcdctl, until, without_hints, words};

const HERE: &[&str] = &["localhost", "127.0.0.1"];
/// Hashing is to be quick here.
const QUICK: &str = "--bcrypt-cost=4";
const PATIENCE: Duration = Duration::from_secs(120);
/// An attempt ends soon; where the machine stood still, the next one may see more.
const SOON: &str = "--command-timeout=2s";
/// A JWT of nobody's whose claims say `{"exp":1000000000}`.
const ENDED_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjEwMDAwMDAwMDB9.c2ln";

/// A mistake: how it is called here, the line, what the hints have to hold.
struct Mistake<'a> {
    what: &'a str,
    line: String,
    input: Vec<u8>,
    says: Vec<String>,
}

fn mistake<'a>(what: &'a str, line: impl Into<String>, says: &[&str]) -> Mistake<'a> {
    let says = says.iter().map(|text| (*text).to_owned()).collect();
    Mistake { what, line: line.into(), input: Vec::new(), says }
}

/// Runs all lines at once: most wait for their deadline.
fn assert_hints(folder: &Path, mistakes: &[Mistake<'_>]) {
    std::thread::scope(|scope| {
        for mistake in mistakes {
            scope.spawn(move || assert_hint(folder, mistake));
        }
    });
}

fn assert_hint(folder: &Path, mistake: &Mistake<'_>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = ask(&our_etcdctl(), folder, &[], &words(&mistake.line), &mistake.input);
        let what = mistake.what;
        assert!(said.code.is_some_and(|code| code != 0), "{what}: {said:?}");
        assert!(!said.err.contains("secret"), "{what}: {}", said.err);
        let (own, hints) = split(&said.err);
        if mistake.says.iter().all(|text| hints.contains(text)) {
            assert_eq!(without_hints(&said.err), own, "{what}: hints stand behind etcd's own words");
            assert!(own.contains("Error: ") || own.contains("is unhealthy"), "{what}: {}", said.err);
            return;
        }
        assert!(Instant::now() < end, "{what}: not all of {:?} in\n{}", mistake.says, said.err);
    }
}

/// What stands before the first hint, and from there on.
fn split(err: &str) -> (String, String) {
    let at = if err.starts_with(HINT) { Some(0) } else { err.find(&format!("\n{HINT}")).map(|at| at + 1) };
    let (own, hints) = err.split_at(at.unwrap_or(err.len()));
    (own.to_owned(), hints.to_owned())
}

/// A server with TLS towards clients.
fn secure(folder: &Path, data: &str, pair: &Pair, flags: &[&str]) -> Server {
    let pair = pair.flags("cert-file", "key-file");
    let launch = Launch::new(&our_etcd(), &folder.join(data)).with_tls(true, false);
    launch.with_flags(&[pair[0].as_str(), pair[1].as_str()]).with_flags(flags).start()
}

/// A port that nobody listens on.
fn dead() -> u16 {
    free_ports().0
}

/// A listener that does this with each connection.
fn listener(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// A listener whose queue is full: a connection to it neither comes up nor fails.
fn full_queue() -> (rustix::fd::OwnedFd, Vec<TcpStream>, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    listen(&socket, 0).expect("it listens");
    let address = SocketAddr::try_from(getsockname(&socket).expect("it is bound")).expect("IPv4");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        waiting.push(stream);
    }
    (socket, waiting, address)
}

#[test]
fn a_wrong_address_is_told_from_a_silent_one() {
    let folder = TempDir::new("mistakes-address");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let (here, dead) = (server.client_address(), dead());
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let silent = silent.local_addr().expect("it is bound");
    let web = listener(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
    });
    let closing = listener(drop);
    let (_socket, _waiting, full) = full_queue();
    let put = |endpoint: &str| format!("--endpoints={endpoint} {SOON} put a b");
    assert_hints(
        folder.path(),
        &[
            mistake(
                "refused",
                put(&format!("127.0.0.1:{dead}")),
                &[
                    &format!("hint: 127.0.0.1:{dead}: nobody listens there (connection refused)"),
                    "--endpoints=HOST:2379",
                ],
            ),
            mistake("refused, as JSON", put(&format!("127.0.0.1:{dead}")) + " -w json", &["connection refused"]),
            mistake(
                "each endpoint has its line",
                put(&format!("127.0.0.1:{dead},{web}")),
                &[
                    &format!("hint: 127.0.0.1:{dead}: nobody listens there"),
                    &format!("hint: {web}: an HTTP server that is no etcd"),
                ],
            ),
            mistake("no host of that name", put("nowhere..invalid:2379"), &["nowhere..invalid has no address"]),
            mistake("no port", put("localhost"), &["no host and port", "--endpoints=localhost:2379"]),
            mistake("no way", put("255.255.255.255:2379"), &["hint: 255.255.255.255:2379: no way leads there"]),
            mistake("no socket file", put("unix:///no/such/socket"), &["no such socket file"]),
            mistake(
                "a queue that is full",
                put(&full.to_string()) + " --dial-timeout=500ms",
                &["no connection within 500ms", "--dial-timeout=10s"],
            ),
            mistake("no word", put(&silent.to_string()) + " --dial-timeout=500ms", &["said nothing for 500ms"]),
            mistake("a web server", put(&web.to_string()), &["an HTTP server that is no etcd"]),
            mistake(
                "a web server, with TLS",
                put(&format!("https://{web}")) + " --insecure-skip-tls-verify",
                &["an HTTP server that is no etcd"],
            ),
            mistake("a closed door", put(&closing.to_string()), &["closed the connection without a word"]),
            mistake(
                "TLS to a plain server",
                put(&format!("https://{here}")) + " --insecure-skip-tls-verify",
                &["speaks plain text, not TLS", &format!("--endpoints=http://{here}")],
            ),
            mistake(
                "health",
                format!("--endpoints=127.0.0.1:{dead} {SOON} endpoint health"),
                &["nobody listens there"],
            ),
        ],
    );
    let fine =
        insist(|| ask(&our_etcdctl(), folder.path(), &[], &words(&put(&format!("127.0.0.1:{dead},{here}"))), b""));
    assert!(fine.code == Some(0) && !fine.err.contains(HINT), "who succeeds needs no hint: {fine:?}");
}

#[test]
fn each_fault_of_a_certificate_has_its_cure() {
    let folder = TempDir::new("mistakes-tls");
    let folder = folder.path();
    let (ca, others) = (Authority::new(folder, "ca"), Authority::new(folder, "other-ca"));
    let good = ca.issue(&Wish::both("good", "etcd", HERE));
    let ended = ca.issue(&Wish { days: Some((-30, -3)), ..Wish::both("ended", "etcd", HERE) });
    let early = ca.issue(&Wish { days: Some((2, 30)), ..Wish::both("early", "etcd", HERE) });
    let elsewhere = ca.issue(&Wish::both("elsewhere", "etcd", &["one.example.com", "10.0.0.7"]));
    ca.issue(&Wish { days: Some((-30, -3)), ..Wish::client("late-client", "root") });
    others.issue(&Wish::client("stranger", "root"));
    let trust = format!("--trusted-ca-file={}", ca.file());
    let server = secure(folder, "open", &good, &[]);
    let strict = secure(folder, "strict", &good, &["--client-cert-auth", &trust]);
    let servers = [&ended, &early, &elsewhere].map(|pair| secure(folder, &format!("of-{}", pair.serial), pair, &[]));
    let put = |url: String, flags: &str| format!("--endpoints={url} {flags} {SOON} put a b");
    let [late, young, misnamed] = servers.each_ref().map(|server| put(server.client_url(), "--cacert=ca.crt"));
    let shows = |name: &str| format!("--cacert=ca.crt --cert={name}.crt --key={name}.key");
    let bare = server.client_address();
    assert_hints(
        folder,
        &[
            mistake(
                "plain text to TLS",
                put(format!("http://{bare}"), ""),
                &["speaks TLS, not plain text", &format!("--endpoints=https://{bare} --cacert=FILE")],
            ),
            mistake("no scheme", put(bare.clone(), ""), &["speaks TLS", &format!("--endpoints=https://{bare}")]),
            mistake("no authority", put(server.client_url(), ""), &["--cacert=FILE"]),
            mistake(
                "another authority",
                put(server.client_url(), "--cacert=other-ca.crt"),
                &["signed by \"ca\", who is not in other-ca.crt", "--cacert=FILE"],
            ),
            mistake("an ended certificate", late, &["its certificate ended 3 days ago, at 20", "(it began at 20"]),
            mistake("an early certificate", young, &["its certificate counts from 20", "a clock may be wrong"]),
            mistake(
                "another's certificate",
                misnamed,
                &[
                    "its certificate is for one.example.com, 10.0.0.7, not for 127.0.0.1",
                    "--endpoints=https://one.example.com:PORT",
                ],
            ),
            mistake(
                "no client certificate",
                put(strict.client_url(), "--cacert=ca.crt"),
                &["wants a client certificate", "--cert=FILE --key=FILE"],
            ),
            mistake(
                "a client certificate of another's",
                put(strict.client_url(), &shows("stranger")),
                &["refused the certificate of stranger.crt, which \"other-ca\" has signed"],
            ),
            mistake(
                "an ended client certificate",
                put(strict.client_url(), &shows("late-client")),
                &["refused the certificate of late-client.crt, which ended 3 days ago"],
            ),
        ],
    );
}

/// Runs lines that have to succeed.
fn done(folder: &Path, endpoint: &str, lines: &[&str]) {
    for line in lines {
        let said = insist(|| ask(&our_etcdctl(), folder, &[], &words(&format!("--endpoints={endpoint} {line}")), b""));
        assert_eq!(said.code, Some(0), "{line}: {said:?}");
    }
}

#[test]
fn what_a_user_may_not_do_names_who_may() {
    let folder = TempDir::new("mistakes-users");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[QUICK]).start();
    let here = server.client_address();
    done(
        folder.path(),
        &here,
        &[
            "user add root --new-user-password=rootsecret",
            "user add bob --new-user-password=bobsecret",
            "role add reader",
            "role grant-permission reader read a",
            "user grant-role bob reader",
            "auth enable",
        ],
    );
    let line = |rest: &str| format!("--endpoints={here} --command-timeout=30s {rest}");
    let bob = "--user=bob:bobsecret";
    assert_hints(
        folder.path(),
        &[
            mistake("no user", line("get a"), &["authentication is on; type --user=NAME"]),
            mistake("no password", line("--user=bob get a"), &["--user came without a password"]),
            mistake(
                "another password",
                line("--user=bob:othersecret get a"),
                &["no user \"bob\", or the password is another"],
            ),
            mistake(
                "no permission to write",
                line(&format!("{bob} put a secretvalue")),
                &["no role of \"bob\" may write \"a\"", "role grant-permission ROLE write \"a\""],
            ),
            mistake(
                "no permission to read",
                line(&format!("{bob} get b")),
                &["may read \"b\"", "user get bob --detail"],
            ),
            mistake(
                "not root",
                line(&format!("{bob} role add writer")),
                &["lacks the role root", "`etcdctl role add`"],
            ),
            mistake(
                "another cluster's token",
                line("--auth-jwt-token=secret.7 get a"),
                &["does not take the token", "--auth-jwt-token"],
            ),
            mistake(
                "an ended token",
                line(&format!("--auth-jwt-token={ENDED_TOKEN} get a")),
                &["the token ended at 2001-09-09T01:46:40Z"],
            ),
        ],
    );
}

/// Puts until the database is full.
fn fill(folder: &Path, endpoint: &str) {
    let value = vec![b'v'; 100_000];
    until("a full database", || {
        let line = words(&format!("--endpoints={endpoint} --command-timeout=30s put filler"));
        let said = ask(&our_etcdctl(), folder, &[], &line, &value);
        assert!(said.code == Some(0) || said.err.contains("database space exceeded"), "{said:?}");
        (said.code != Some(0)).then_some(())
    });
}

#[test]
fn what_is_too_large_or_full_is_told_with_sizes_and_flags() {
    let folder = TempDir::new("mistakes-sizes");
    let flags = ["--quota-backend-bytes=500000", "--max-request-bytes=300000"];
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&flags).start();
    let here = server.client_address();
    let line = |rest: &str| format!("--endpoints={here} --command-timeout=30s {rest}");
    let of_size = |what, bytes, rest: &str, says: &[&str]| Mistake {
        input: vec![b'v'; bytes],
        ..mistake(what, line(rest), says)
    };
    done(folder.path(), &here, &["put large 0123456789"]);
    let mistakes = [
        of_size("too large for the server", 400_000, "put a", &["the request has 400007 bytes", "--max-request-bytes"]),
        of_size(
            "too large for the client",
            3 << 20,
            "put a",
            &["the request has 3145736 bytes, and this client sends 2097152", "--max-request-bytes=3145736"],
        ),
        mistake(
            "an answer too large",
            line("--max-request-bytes=9 --max-recv-bytes=10 get large"),
            &["this client takes 10 (--max-recv-bytes)"],
        ),
    ];
    assert_hints(folder.path(), &mistakes);
    fill(folder.path(), &here);
    let cures = ["compaction ", " ; etcdctl --endpoints=", "defrag --cluster", "alarm disarm"];
    let says = [&["the database is full: ", "(--quota-backend-bytes)"], &cures[..]].concat();
    let full = [
        mistake("no space", line("put a b"), &says),
        mistake("an alarm", format!("--endpoints={here} --command-timeout=30s endpoint health"), &says),
    ];
    assert_hints(folder.path(), &full);
}

#[test]
fn members_without_a_leader_and_learners_are_told_from_slow_ones() {
    net::run(None, async {
        let folder = TempDir::for_cluster("mistakes-quorum");
        let mut seats = Seats::found(&[our_etcd(), our_etcd()], folder.path(), &[]);
        let (left, gone) = (seats.url(0), seats.url(1));
        seats.kill(1);
        let (voter, learner) = with_learner(&our_etcd(), folder.path()).await;
        let here = learner.client_url();
        assert_hints(
            folder.path(),
            &[
                mistake(
                    "lost quorum",
                    format!("--endpoints={left},{gone} {SOON} put a b"),
                    &[
                        &format!("hint: {left}: this member runs and knows no leader"),
                        &format!("etcdctl --endpoints={left},{gone} check doctor"),
                    ],
                ),
                mistake(
                    "lost quorum, health",
                    format!("--endpoints={left} {SOON} endpoint health"),
                    &["knows no leader"],
                ),
                mistake(
                    "a learner",
                    format!("--endpoints={here} --command-timeout=30s put a b"),
                    &[&format!("hint: {here}: this member is a learner"), "--consistency=s"],
                ),
            ],
        );
        learner.kill();
        voter.kill();
    });
}

/// etcd's own words stay Go's: the last line of both tools' errors, and the exit codes.
#[test]
fn gos_words_stand_before_the_hints() {
    let Some(reference) = Reference::find() else { return };
    let folder = TempDir::new("mistakes-go");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let (here, dead) = (server.client_address(), dead());
    for line in [
        format!("--endpoints=127.0.0.1:{dead} --command-timeout=1s put a b"),
        format!("--endpoints=https://{here} --command-timeout=1s get a"),
        format!("--endpoints={here} put ''"),
        format!("--endpoints={here} lease grant x"),
        format!("--endpoints=127.0.0.1:{dead} --command-timeout=1s endpoint status"),
        format!("--endpoints=127.0.0.1:{dead} --command-timeout=1s endpoint health -w json"),
    ] {
        let [theirs, ours] = [reference.program("3.7", "etcdctl"), our_etcdctl()].map(|program| {
            let Said { code, out, err } = ask(&program, folder.path(), &[], &words(&line), b"");
            let is_timed = out.contains("took");
            let err = without_hints(&err).lines().last().map(str::to_owned);
            (code, if is_timed { String::new() } else { out }, err)
        });
        assert_eq!(theirs, ours, "{line}");
    }
}

/// Commands without a limit wait, as Go's do; but they say what for.
#[test]
fn who_waits_for_ever_is_told_what_for() {
    let folder = TempDir::new("mistakes-waiting");
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    let endpoint = format!("127.0.0.1:{}", launch.client_port);
    let waiting = |line: &str| {
        let mut command = std::process::Command::new(our_etcdctl());
        command.args([SOON, &format!("--endpoints={endpoint}")]).args(words(line)).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("etcdctl runs");
        child.stdin.take().expect("it is piped").write_all(b"\n\nget key\n\n\n").expect("it reads");
        child
    };
    let mut all = ["watch key", "txn", "lease list"].map(waiting);
    for child in &mut all {
        let mut lines = std::io::BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let hint = lines.find_map(|line| line.ok().filter(|line| line.starts_with(HINT))).expect("a hint comes");
        assert!(hint.contains(&endpoint) && hint.contains("refused"), "{hint}");
    }
    // They go on waiting, and end well when somebody is there.
    let server = launch.start();
    let [mut watch, txn, leases] = all;
    for child in [txn, leases] {
        let done = child.wait_with_output().expect("it ends");
        assert!(done.status.success(), "{done:?}");
    }
    let mut shown = std::io::BufReader::new(watch.stdout.take().expect("it is piped")).lines();
    // When the watch begins is its affair: somebody puts until it shows one.
    let seen = std::thread::scope(|scope| {
        let first = scope.spawn(move || shown.next());
        while !first.is_finished() {
            ask(&our_etcdctl(), folder.path(), &[], &words(&format!("--endpoints={endpoint} put key more")), b"");
        }
        first.join().expect("no panic")
    });
    assert_eq!(seen.expect("a line").expect("text"), "PUT");
    watch.kill().expect("it runs");
    watch.wait().expect("it was killed");
    server.stop();
}
