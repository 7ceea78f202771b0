//! Authentication and permissions beside Go etcd 3.7: every call by every kind of caller, data directories that change
//! hands, signed tokens, a mixed cluster, and where passwords must not be. Needs `OXETCD_REFERENCE`.

use api::pb::authpb::permission::Type;
use api::pb::etcdserverpb as pb;
use oxetcd_tests::ask;
use oxetcd_tests::cluster::{PATIENCE, Seats};
use oxetcd_tests::conversations;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server, stdout_of};
use oxetcd_tests::record::Side;
use oxetcd_tests::script::auth;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use prost::Message;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Hashing is to be quick here.
const QUICK: &str = "--bcrypt-cost=4";

conversations! {
    flags: &[QUICK];
    every_call_by_every_caller => auth::table,
    keys_and_ranges_by_permission => auth::ranges,
}

/// Asks with a token.
async fn with<A: Message + Default>(
    wire: &Wire,
    token: &str,
    path: &'static str,
    request: &impl Message,
) -> Result<A, Status> {
    let answer = wire.bytes(path, request.encode_to_vec().into(), &[("token", token)]).await?;
    Ok(A::decode(answer).expect("an answer can be read"))
}

async fn login(wire: &Wire, name: &str) -> Result<String, Status> {
    let request = pb::AuthenticateRequest { name: name.into(), password: auth::PASSWORD.into() };
    let answer: pb::AuthenticateResponse = wire.unary(auth::AUTHENTICATE, &request).await?;
    Ok(answer.token)
}

async fn put(wire: &Wire, token: &str, key: &str) -> Result<pb::PutResponse, Status> {
    with(wire, token, ask::PUT, &ask::put(key, "v")).await
}

async fn range(wire: &Wire, token: &str, key: &str, end: &str) -> Result<pb::RangeResponse, Status> {
    with(wire, token, ask::RANGE, &ask::range(key, end)).await
}

async fn auth_status(wire: &Wire, token: &str) -> pb::AuthStatusResponse {
    with(wire, token, "/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {}).await.expect("root may ask")
}

/// Waits until a member knows a token that another one gave out: Go's refuse one whose entry they have not applied yet.
async fn known(wire: &Wire, token: String) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let status: Result<pb::AuthStatusResponse, Status> =
            with(wire, &token, "/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {}).await;
        match status {
            Ok(_) => return token,
            Err(e) => assert!(e.code() == Code::Unauthenticated && Instant::now() < end, "{e}"),
        }
    }
}

/// A token that all of them know.
async fn login_to_all(wires: &[Wire; 3], asked: usize, name: &str) -> String {
    let mut token = login(&wires[asked], name).await.expect("everybody has a password");
    for wire in wires {
        token = known(wire, token).await;
    }
    token
}

async fn hash_kv(wire: &Wire, token: &str) -> u32 {
    let hash: pb::HashKvResponse = with(wire, token, ask::HASH_KV, &ask::hash_kv(0)).await.expect("root may ask");
    hash.hash
}

/// What everybody may do follows from what is on disk, whoever wrote it.
async fn serves_as_before(server: &Server) -> (u32, u64) {
    let wire = Wire::connect(&server.client_url()).await;
    let (root, reader, writer) =
        (login(&wire, "root").await, login(&wire, "reader").await, login(&wire, "writer").await);
    let [root, reader, writer] = [root, reader, writer].map(|token| token.expect("the passwords are as they were"));
    assert_eq!(range(&wire, &reader, "k/", "k0").await.expect("the reader reads").count, 1);
    assert_eq!(range(&wire, &reader, "k/", "\0").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(put(&wire, &reader, "k/a").await.unwrap_err().code(), Code::PermissionDenied);
    put(&wire, &writer, "k/a").await.expect("the writer writes");
    assert_eq!(put(&wire, &writer, "secret").await.unwrap_err().code(), Code::PermissionDenied);
    let bare = wire.unary::<_, pb::RangeResponse>(ask::RANGE, &ask::get("k/a")).await.unwrap_err();
    assert_eq!(bare.message(), "etcdserver: user name is empty");
    (hash_kv(&wire, &root).await, auth_status(&wire, &root).await.auth_revision)
}

/// One directory under both programs in turn; HashKV is Go's, and Go's tools find the file well.
#[tokio::test]
async fn a_directory_with_users_changes_hands() {
    let Some(reference) = Reference::find() else { return };
    let (ours, go) = (our_etcd(), reference.program("3.7", "etcd"));
    for [first, second] in [[&ours, &go], [&go, &ours]] {
        let folder = TempDir::new("auth-files");
        let data = folder.join("data");
        let mut launch = Launch::new(first, &data).with_flags(&[QUICK]);
        let server = launch.start();
        let side = Side::open(&server).await;
        auth::users(&side).await;
        let wire = Wire::connect(&server.client_url()).await;
        let _: pb::PutResponse = wire.unary(ask::PUT, &ask::put("k/a", "v")).await.expect("not enabled yet");
        let _: pb::AuthEnableResponse =
            wire.unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("root is there");
        let before = serves_as_before(&server).await;
        server.stop();
        let server = launch.clone().with_binary(second).start();
        let token = login(&Wire::connect(&server.client_url()).await, "root").await.expect("the password is as it was");
        let hash = hash_kv(&Wire::connect(&server.client_url()).await, &token).await;
        assert_eq!(hash, before.0, "HashKV after {} and then {}", first.display(), second.display());
        let after = serves_as_before(&server).await;
        assert_eq!(after.1, before.1, "the revision of users and roles");
        server.stop();
        let db = data.join("member/snap/db");
        let check = stdout_of(Command::new(reference.tool("bbolt")).arg("check").arg(&db));
        assert!(check.contains("OK"), "bbolt check: {check}");
        stdout_of(Command::new(reference.program("3.7", "etcdutl")).args(["snapshot", "status"]).arg(&db));
        let server = launch.clone().with_binary(first).start();
        serves_as_before(&server).await;
        server.stop();
    }
}

/// The records of users and roles in a page store, as Go's tool shows them.
fn records(reference: &Reference, data: &Path) -> String {
    let dump = |bucket: &str| {
        let mut command = Command::new(reference.tool("bbolt"));
        let db = data.join("member/snap/db");
        let keys = stdout_of(command.arg("keys").arg(&db).arg(bucket));
        let value = |key: &str| {
            let mut command = Command::new(reference.tool("bbolt"));
            format!(
                "{bucket}/{key}: {:?}\n",
                stdout_of(command.arg("get").arg("--format=hex").arg(&db).args([bucket, key]))
            )
        };
        keys.lines().map(value).collect::<String>()
    };
    ["auth", "authRoles", "authUsers"].map(dump).concat()
}

/// Members of both kinds in one cluster: whoever is asked, all know; tokens of one are good at all; their records are
/// equal to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_both_kinds_agree_on_users_roles_and_tokens() {
    let Some(reference) = Reference::find() else { return };
    let (ours, go) = (our_etcd(), reference.program("3.7", "etcd"));
    let folder = TempDir::for_cluster("auth-mixed");
    let binaries: Vec<PathBuf> = vec![ours.clone(), go.clone(), ours];
    let mut seats = Seats::found(&binaries, folder.path(), &[QUICK]);
    seats.leader().await;
    let wires = [seats.steady(0), seats.steady(1), seats.steady(2)];
    auth::users(&Side::open(seats.server(0)).await).await;
    let _: pb::AuthEnableResponse = wires[1].unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("enabled");
    let (mut n, mut tokens) = (0, Vec::new());
    for asked in 0..3 {
        let root = login_to_all(&wires, asked, "root").await;
        // Many permissions, some with the same key: their order is Go's, whoever applies them.
        for end in 0..20 {
            let key = format!("k{}", end % 5);
            let perm = auth::permission(Type::Read, &key, &format!("m{}{end}", asked));
            let request = auth::granted("other", perm);
            let done: Result<pb::AuthRoleGrantPermissionResponse, Status> =
                with(&wires[(asked + end) % 3], &root, auth::GRANT_PERMISSION, &request).await;
            done.unwrap_or_else(|e| panic!("{end} by {asked}: {e}\n{}", seats.logs()));
        }
        tokens.push(login_to_all(&wires, asked, "writer").await);
        for wire in &wires {
            put(wire, &tokens[asked], &format!("k/{n}")).await.unwrap_or_else(|e| panic!("{e}\n{}", seats.logs()));
            assert_eq!(put(wire, &tokens[asked], "secret").await.unwrap_err().code(), Code::PermissionDenied);
            n += 1;
        }
    }
    lease_of_both_kinds_ends(&seats, &wires).await;
    what_only_the_leader_knows(&wires).await;
    let root = login_to_all(&wires, 0, "root").await;
    let mut revisions = std::collections::BTreeSet::new();
    for wire in &wires {
        // Through the log: the member has applied what came before.
        revisions.insert(auth_status(wire, &root).await.auth_revision);
    }
    assert_eq!(revisions.len(), 1, "{revisions:?}");
    let _: pb::AuthDisableResponse =
        with(&wires[2], &root, auth::DISABLE, &pb::AuthDisableRequest {}).await.expect("disabled");
    seats.agree().await;
    for n in 0..3 {
        seats.stop(n);
    }
    let records: Vec<String> = (1..=3).map(|n| records(&reference, &folder.join(&format!("members/m{n}")))).collect();
    assert!(records[0].contains("authUsers/writer") && records[0].contains("authRoles/other"), "{}", records[0]);
    assert_eq!(records[0], records[1], "ours and Go's");
    assert_eq!(records[2], records[1], "ours and Go's");
}

/// T8: a revocation of the leader's own is root's, whichever kind leads.
async fn lease_of_both_kinds_ends(seats: &Seats, wires: &[Wire; 3]) {
    let root = login_to_all(wires, 0, "root").await;
    let _: pb::LeaseGrantResponse = with(&wires[0], &root, ask::GRANT, &ask::grant(5, 1)).await.expect("a lease");
    let attached = pb::PutRequest { lease: 5, ..ask::put("ends", "v") };
    let _: pb::PutResponse = with(&wires[0], &root, ask::PUT, &attached).await.expect("a put");
    let end = Instant::now() + PATIENCE;
    while range(&wires[1], &root, "ends", "").await.expect("root may read").count > 0 {
        assert!(Instant::now() < end, "the lease does not end\n{}", seats.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for wire in wires {
        assert_eq!(range(wire, &root, "ends", "").await.expect("root may read").count, 0);
    }
}

/// Followers ask the leader, on behalf of those who may ask.
async fn what_only_the_leader_knows(wires: &[Wire; 3]) {
    let (root, writer) = (login_to_all(wires, 0, "root").await, login_to_all(wires, 0, "writer").await);
    let _: pb::LeaseGrantResponse = with(&wires[0], &writer, ask::GRANT, &ask::grant(6, 60)).await.expect("a lease");
    for key in ["k/leased", "secret"] {
        let attached = pb::PutRequest { lease: 6, ..ask::put(key, "v") };
        let _: pb::PutResponse = with(&wires[0], &root, ask::PUT, &attached).await.expect("root may");
    }
    for wire in wires {
        // Through the log: the member knows of the lease.
        auth_status(wire, &root).await;
        let request = pb::LeaseTimeToLiveRequest { id: 6, keys: true };
        let lease: pb::LeaseTimeToLiveResponse =
            with(wire, &root, ask::TIME_TO_LIVE, &request).await.expect("root may");
        assert_eq!((lease.granted_ttl, lease.keys.len()), (60, 2));
        let told: Result<pb::LeaseTimeToLiveResponse, Status> = with(wire, &writer, ask::TIME_TO_LIVE, &request).await;
        assert_eq!(told.unwrap_err().code(), Code::PermissionDenied, "CVE-2023-32082");
        let request = pb::LeaseKeepAliveRequest { id: 6 }.encode_to_vec();
        for (token, may) in [(&root, true), (&writer, false)] {
            let mut stream = wire.stream(ask::KEEP_ALIVE, request.clone().into(), &[("token", token)]);
            let kept: Result<Option<pb::LeaseKeepAliveResponse>, Status> = stream.next().await;
            assert_eq!(kept.is_ok_and(|kept| kept.is_some_and(|kept| kept.ttl == 60)), may);
        }
        let path = "/etcdserverpb.Cluster/MemberPromote";
        for (token, code) in [(&root, Code::NotFound), (&writer, Code::PermissionDenied)] {
            let promoted: Result<pb::MemberPromoteResponse, Status> =
                with(wire, token, path, &pb::MemberPromoteRequest { id: 7 }).await;
            assert_eq!(promoted.unwrap_err().code(), code);
        }
    }
}

/// T7: a member of either kind that was away gets the other's database, and with it users and roles: what it applies
/// afterwards it refuses and allows as the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_gets_the_database_has_its_users_too() {
    let Some(reference) = Reference::find() else { return };
    let (ours, go) = (our_etcd(), reference.program("3.7", "etcd"));
    let flags = [QUICK, "--snapshot-count=20", "--snapshot-catchup-entries=5"];
    // A leader keeps its log for a while after it sent a database: each kind has a cluster of its own.
    for (away, installed) in [(0, "installed the leader's database"), (1, "applied snapshot")] {
        let folder = TempDir::for_cluster("auth-snapshot");
        let mut seats = Seats::found(&[ours.clone(), go.clone(), ours.clone(), go.clone()], folder.path(), &flags);
        seats.leader().await;
        auth::users(&Side::open(seats.server(0)).await).await;
        seats.stop(away);
        let through = seats.steady(away + 2);
        seats.put_soon(away + 2, "k/before").await;
        let _: pb::AuthEnableResponse = through.unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("enabled");
        let root = login(&through, "root").await.expect("root has a password");
        let _: pb::AuthRoleAddResponse =
            with(&through, &root, auth::ROLE_ADD, &auth::role("new")).await.expect("root may");
        // More than the hundred entries that any leader keeps.
        for n in 0..300 {
            put(&through, &root, &format!("k/{n}")).await.unwrap_or_else(|e| panic!("{e}\n{}", seats.logs()));
        }
        seats.start(away);
        assert!(seats.server(away).wait_for_log(installed, PATIENCE), "{}", seats.logs());
        let back = seats.steady(away);
        let writer = login_soon(&back).await;
        put(&back, &writer, "k/after").await.unwrap_or_else(|e| panic!("{e}\n{}", seats.logs()));
        assert_eq!(put(&back, &writer, "secret").await.unwrap_err().code(), Code::PermissionDenied);
        let mut revisions = std::collections::BTreeSet::new();
        for n in seats.running() {
            let (wire, root) = (seats.steady(n), root_again(&seats).await);
            revisions.insert(auth_status(&wire, &known(&wire, root).await).await.auth_revision);
        }
        assert_eq!(revisions.len(), 1, "{revisions:?}\n{}", seats.logs());
        let root = known(&back, root_again(&seats).await).await;
        let _: pb::AuthDisableResponse =
            with(&back, &root, auth::DISABLE, &pb::AuthDisableRequest {}).await.expect("disabled");
        seats.agree().await;
    }
}

async fn root_again(seats: &Seats) -> String {
    login(&seats.steady(2), "root").await.unwrap_or_else(|e| panic!("{e}\n{}", seats.logs()))
}

/// As soon as the member has caught up.
async fn login_soon(wire: &Wire) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        match login(wire, "writer").await {
            Ok(token) => return token,
            Err(e) => assert!(Instant::now() < end, "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A member that can't sign tokens still ends leases, as root; and says why nobody gets a token.
#[tokio::test]
async fn leases_end_where_nobody_can_sign_a_token() {
    let folder = TempDir::new("auth-verify");
    let with_key = |option: String| format!("--auth-token=jwt,sign-method=ES256,{option},ttl=5m");
    let signing = with_key(format!("priv-key={}", key("ec256.key")));
    let verifying = with_key(format!("pub-key={}", key("ec256.pub")));
    let mut launch = Launch::new(&our_etcd(), &folder.join("data"));
    launch.flags = vec![QUICK.into(), signing];
    let server = launch.start();
    let side = Side::open(&server).await;
    auth::users(&side).await;
    let _: pb::LeaseGrantResponse = side.wire.unary(ask::GRANT, &ask::grant(5, 4)).await.expect("a lease");
    let attached = pb::PutRequest { lease: 5, ..ask::put("k/ends", "v") };
    let _: pb::PutResponse = side.wire.unary(ask::PUT, &attached).await.expect("a put");
    let _: pb::AuthEnableResponse = side.wire.unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("enabled");
    let reader = auth::log_in(&side, "reader").await;
    server.stop();
    launch.flags = vec![QUICK.into(), verifying];
    let server = launch.start();
    let wire = Wire::connect(&server.client_url()).await;
    let refused = login(&wire, "reader").await.unwrap_err();
    assert_eq!(refused.message(), "auth: token signing attempted with verify-only key");
    let end = Instant::now() + PATIENCE;
    while range(&wire, &reader, "k/ends", "").await.expect("the token is still good").count > 0 {
        assert!(Instant::now() < end, "the lease does not end\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn key(name: &str) -> String {
    format!("{}/testdata/jwt/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Tokens that Go signed are good here, and the other way round, by every method there is.
#[tokio::test]
async fn signed_tokens_are_good_on_either_side() {
    let Some(reference) = Reference::find() else { return };
    let pairs = [
        ("RS256", "rsa.key", "rsa.pub"),
        ("RS512", "rsa8.key", "rsa.pub"),
        ("PS384", "rsa.key", "rsa.pub"),
        ("ES256", "ec256.key", "ec256.pub"),
        ("ES384", "ec384.key", "ec384.pub"),
        ("ES512", "ec521.key", "ec521.pub"),
        ("EdDSA", "ed.key", "ed.pub"),
        ("HS256", "hmac.key", ""),
    ];
    for (method, private, public) in pairs {
        let folder = TempDir::new("auth-jwt");
        let public = if public.is_empty() { String::new() } else { format!(",pub-key={}", key(public)) };
        let option = format!("--auth-token=jwt,sign-method={method},priv-key={}{public},ttl=2m", key(private));
        let start =
            |binary: &Path, name: &str| Launch::new(binary, &folder.join(name)).with_flags(&[QUICK, &option]).start();
        let servers = [start(&our_etcd(), "ours"), start(&reference.program("3.7", "etcd"), "go")];
        let mut tokens = Vec::new();
        for server in &servers {
            let side = Side::open(server).await;
            auth::users(&side).await;
            let _: pb::AuthEnableResponse = side.wire.unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("on");
            tokens.push(auth::log_in(&side, "writer").await);
        }
        for server in &servers {
            let wire = Wire::connect(&server.client_url()).await;
            for token in &tokens {
                put(&wire, token, "k/a").await.unwrap_or_else(|e| panic!("{method}: {token}: {e}"));
                let forged = token.replacen('.', ".e", 1);
                assert_eq!(put(&wire, &forged, "k/a").await.unwrap_err().code(), Code::Unauthenticated, "{method}");
            }
            // A change of users makes all tokens old.
            let root = login(&wire, "root").await.expect("root has a password");
            let _: pb::AuthRoleAddResponse =
                with(&wire, &root, auth::ROLE_ADD, &auth::role("new")).await.expect("root may");
            let old = put(&wire, &tokens[0], "k/a").await.unwrap_err();
            assert_eq!(old.message(), "etcdserver: revision of auth store is old", "{method}");
        }
    }
}

/// GHSA-528j-9r78-wffx and CVE-2021-28235: passwords were in the log of requests and in messages.
#[tokio::test]
async fn passwords_are_neither_in_files_nor_in_messages() {
    const PLANTED: [&str; 4] = ["planted-added-1", "planted-changed-2", "planted-unwanted-3", "planted-wrong-4"];
    let folder = TempDir::new("auth-secrets");
    let data = folder.join("data");
    let server = Launch::new(&our_etcd(), &data).with_flags(&[QUICK, "--log-level=debug"]).start();
    let side = Side::open(&server).await;
    auth::users(&side).await;
    let add = |name: &str, password: &str, no_password| pb::AuthUserAddRequest {
        name: name.into(),
        password: password.into(),
        options: Some(api::pb::authpb::UserAddOptions { no_password }),
        ..Default::default()
    };
    let _: pb::AuthUserAddResponse =
        side.wire.unary(auth::USER_ADD, &add("a", PLANTED[0], false)).await.expect("added");
    let _: pb::AuthUserAddResponse = side.wire.unary(auth::USER_ADD, &add("b", PLANTED[2], true)).await.expect("added");
    let password = PLANTED[1].to_owned();
    let change = pb::AuthUserChangePasswordRequest { name: "a".into(), password, ..Default::default() };
    let path = "/etcdserverpb.Auth/UserChangePassword";
    let _: pb::AuthUserChangePasswordResponse = side.wire.unary(path, &change).await.expect("changed");
    let _: pb::AuthEnableResponse = side.wire.unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("enabled");
    for password in [PLANTED[1], PLANTED[3]] {
        let request = pb::AuthenticateRequest { name: "a".into(), password: password.into() };
        let done: Result<pb::AuthenticateResponse, Status> = side.wire.unary(auth::AUTHENTICATE, &request).await;
        assert_eq!(done.is_ok(), password == PLANTED[1]);
    }
    let log = server.log();
    server.stop();
    let mut files = vec![data];
    let mut looked_at = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("the test's own").map(|entry| entry.expect("there").path()));
            continue;
        }
        let bytes = std::fs::read(&path).expect("the test's own");
        looked_at += 1;
        for secret in PLANTED {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} in {}", path.display());
        }
    }
    assert!(looked_at >= 2, "a log and a page store");
    PLANTED.iter().for_each(|secret| assert!(!log.contains(secret), "{secret} in the log"));
}

/// Uses a token of two seconds for three. False: between two answers there was more than a second, so that nobody knows
/// whether it had to live.
async fn is_used_for_longer_than_it_lives(side: &Side, token: &str) -> bool {
    let begun = Instant::now();
    let mut used = begun;
    while begun.elapsed() < Duration::from_secs(3) {
        let answer = range(&side.wire, token, "k/", "k0").await;
        if used.elapsed() > Duration::from_secs(1) {
            return false;
        }
        answer.expect("a token that is used lives");
        used = Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    true
}

/// A simple token lives for as long as it is used, and goes with the password that got it.
#[tokio::test]
async fn simple_tokens_end_with_time_and_with_passwords() {
    let folder = TempDir::new("auth-ttl");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[QUICK, "--auth-token-ttl=2"]).start();
    let side = Side::open(&server).await;
    auth::users(&side).await;
    let _: pb::AuthEnableResponse = side.wire.unary(auth::ENABLE, &pb::AuthEnableRequest {}).await.expect("enabled");
    let (used, idle) = loop {
        let (used, idle) = (auth::log_in(&side, "reader").await, auth::log_in(&side, "reader").await);
        if is_used_for_longer_than_it_lives(&side, &used).await {
            break (used, idle);
        }
        println!("this machine stood still: another token");
    };
    let (prefix, index) = used.split_once('.').expect("a prefix and an index");
    assert!(
        prefix.len() == 16 && prefix.bytes().all(|b| b.is_ascii_alphabetic()) && index.parse::<u64>().is_ok(),
        "{used}"
    );
    let e = range(&side.wire, &idle, "k/", "k0").await.unwrap_err();
    assert_eq!((e.code(), e.message()), (Code::Unauthenticated, "etcdserver: invalid auth token"));
    let root = auth::log_in(&side, "root").await;
    let (name, password) = ("reader".to_owned(), auth::PASSWORD.to_owned());
    let change = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let path = "/etcdserverpb.Auth/UserChangePassword";
    let _: pb::AuthUserChangePasswordResponse = with(&side.wire, &root, path, &change).await.expect("root may");
    assert_eq!(range(&side.wire, &used, "k/", "k0").await.unwrap_err().code(), Code::Unauthenticated);
    auth::log_in(&side, "reader").await;
}
