//! Settings: every one is in `--help`, has Go etcd's default and texts, and an effect that a test sees. What each test
//! below sees stands in `testdata/configuration/settings.txt`, a row a setting.

use api::pb::etcdserverpb as pb;
use oxetcd_tests::places::{Reference, our_etcd};
use oxetcd_tests::process::{Launch, Server, run, text};
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::wire::Wire;
use oxetcd_tests::{ask, frames, scrape, web};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::Status;

const SETTINGS: &str = include_str!("../testdata/configuration/settings.txt");
const USER_ADD: &str = "/etcdserverpb.Auth/UserAdd";
const PATIENCE: Duration = Duration::from_secs(120);

/// One row: `flag | default | key of the file | tests that see its effect`.
struct Row {
    flag: &'static str,
    default: &'static str,
    key: &'static str,
    seen: Vec<&'static str>,
}

fn rows(kind: &str) -> Vec<Row> {
    let section = SETTINGS.split("\n## ").find(|section| section.starts_with(kind)).expect("a heading");
    let lines = section.lines().filter(|line| line.contains(" | ") && !line.starts_with('#'));
    let row = |line: &'static str| {
        let columns: Vec<&str> = line.split(" | ").map(str::trim).collect();
        let [flag, default, key, seen] = columns[..] else { panic!("not four columns: {line}") };
        Row { flag, default, key, seen: seen.split(", ").collect() }
    };
    lines.map(row).collect()
}

/// Flags and defaults as `--help` has them: `  --name 'default'`, or `  --name` of a switch that is off.
fn helped(program: &Path) -> BTreeMap<String, String> {
    let output = run(Command::new(program).arg("--help"));
    assert!(output.status.success(), "{output:?}");
    let help = text(&output.stdout);
    let lines = help.lines().filter_map(|line| line.strip_prefix("  --"));
    let flag = |line: &str| match line.split_once(' ') {
        Some((name, default)) => (name.to_owned(), default.trim_matches('\'').to_owned()),
        None => (line.to_owned(), "false".to_owned()),
    };
    lines.map(flag).collect()
}

#[test]
fn every_setting_has_a_row_and_every_row_is_in_the_help() {
    let rows = rows("settings");
    let flags: BTreeMap<String, String> = rows
        .iter()
        .filter(|row| row.flag != "-")
        .map(|row| (row.flag.to_owned(), row.default.trim_matches('\'').to_owned()))
        .collect();
    assert_eq!(helped(&our_etcd()), flags);
    let keys: BTreeSet<&str> = rows.iter().map(|row| row.key).filter(|key| *key != "-").collect();
    assert_eq!(keys.len(), rows.iter().filter(|row| row.key != "-").count(), "a key stands for one setting");
    let help = text(&run(Command::new(our_etcd()).arg("--help")).stdout);
    for gate in self::rows("gates") {
        let line = format!("    {}=true|false ({} - default={})", gate.flag, gate.key, gate.default);
        assert!(help.contains(&line), "{line}");
    }
}

#[test]
fn every_effect_is_seen_by_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for row in rows("settings").into_iter().chain(rows("gates")) {
        let name = if row.flag == "-" { row.key } else { row.flag };
        for seen in row.seen {
            // Said in words: why there is nothing to be seen, or what is missing.
            if seen.starts_with("nothing:") || seen.starts_with("gap:") {
                assert!(seen.len() > 20, "{name}: {seen}");
                continue;
            }
            let (file, test) = seen.split_once("::").unwrap_or_else(|| panic!("{name}: {seen}"));
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{name}: {file}: {e}"));
            let by_hand = source.split("fn ").any(|rest| rest.starts_with(&format!("{test}(")));
            let tested = source.contains("#[test]") || source.contains("#[tokio::test");
            // A conversation that is held with both servers.
            let there = (by_hand && tested) || source.contains(&format!(" {test} => "));
            assert!(there, "{name}: {file} has no test {test}");
        }
    }
}

/// Defaults of which Go's help shows what they come to, or a constant's name, or nothing (read as a switch that is off): what it
/// shows, and what they are.
const SHOWN_OTHERWISE: [(&str, &str, &str); 13] = [
    ("data-dir", "${name}.etcd", ""),
    ("backend-bbolt-freelist-type", "map", ""),
    ("backend-batch-interval", "", "0s"),
    ("max-concurrent-streams", "math.MaxUint32", "4294967295"),
    ("grpc-keepalive-interval", "2h", "2h0m0s"),
    ("compact-hash-check-time", "1m", "1m0s"),
    ("compaction-batch-limit", "1000", "0"),
    ("watch-progress-notify-interval", "10m", "0s"),
    ("compaction-sleep-interval", "false", "0s"),
    ("downgrade-check-time", "false", "5s"),
    ("snapshot-catchup-entries", "false", "5000"),
    ("bootstrap-defrag-threshold-megabytes", "false", "0"),
    ("enable-grpc-gateway", "false", "true"),
];

#[test]
fn gos_help_names_no_other_flags() {
    let Some(reference) = Reference::find() else { return };
    // Its help names what it no longer takes, and lacks what only its own help on its own help would tell.
    let gone = ["discovery", "discovery-proxy"];
    let go = helped(&reference.program("3.7", "etcd"));
    let ours = helped(&our_etcd());
    for (flag, default) in go.iter().filter(|(flag, _)| !gone.contains(&flag.as_str())) {
        let own = ours.get(flag).unwrap_or_else(|| panic!("--{flag} is missing"));
        match SHOWN_OTHERWISE.iter().find(|(name, ..)| name == flag) {
            Some((_, gos, ours)) => assert_eq!((default.as_str(), own.as_str()), (*gos, *ours), "--{flag}"),
            None => assert_eq!(own, default, "--{flag}"),
        }
    }
    let lacking: Vec<&String> = ours.keys().filter(|flag| !go.contains_key(*flag)).collect();
    assert!(lacking.is_empty(), "Go's help lacks {lacking:?}");
}

/// How a start ended: its code, and what a script would look for in what it said.
fn refusal(program: &Path, args: &[&str], env: &[(&str, &str)], folder: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.current_dir(folder).args(args);
    // `run` takes away what the caller's environment has, so it must be told by a shell.
    let mut script = String::new();
    for (name, value) in env {
        script += &format!("{name}='{value}'; export {name}; ");
    }
    script += "exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.current_dir(folder).args(["-c", &script, "sh"]).arg(program).args(args);
    let output = run(if env.is_empty() { &mut command } else { &mut shell });
    let said = text(&output.stderr);
    let line = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).ok()?;
        let fatal = matches!(json["level"].as_str(), Some("fatal" | "error"));
        let refused = json["msg"] == "failed to verify flags";
        let variable = json["environment-variable"].as_str().map(|v| format!(" {v}")).unwrap_or_default();
        match json["error"].as_str() {
            Some(error) if fatal || refused => Some(error.to_owned()),
            _ if fatal => Some(format!("{}{variable}", json["msg"].as_str().unwrap_or_default())),
            _ => None,
        }
    };
    let told = said.lines().find_map(line);
    (
        output.status.code(),
        told.unwrap_or_else(|| said.lines().find(|line| !line.starts_with('{')).unwrap_or_default().to_owned()),
    )
}

/// Go etcd's texts and codes, to the letter: they are asked of Go where it is there.
#[test]
fn refusals_have_gos_texts_and_codes() {
    let folder = TempDir::new("refusals");
    let verify = "error converting YAML to JSON: yaml: ";
    let flags: &[(&str, i32, &str)] = &[
        ("--nonsense", 2, "flag provided but not defined: -nonsense"),
        (
            "--experimental-initial-corrupt-check",
            2,
            "flag provided but not defined: -experimental-initial-corrupt-check",
        ),
        ("--name", 2, "flag needs an argument: -name"),
        ("---name=x", 2, "bad flag syntax: ---name=x"),
        ("--=x", 2, "bad flag syntax: --=x"),
        ("--pre-vote=maybe", 2, "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        ("--max-txn-ops=-1", 2, "invalid value \"-1\" for flag -max-txn-ops: parse error"),
        ("--heartbeat-interval=1s", 2, "invalid value \"1s\" for flag -heartbeat-interval: parse error"),
        ("--warning-apply-duration=1", 2, "invalid value \"1\" for flag -warning-apply-duration: parse error"),
        (
            "--quota-backend-bytes=9223372036854775808",
            2,
            "invalid value \"9223372036854775808\" for flag -quota-backend-bytes: value out of range",
        ),
        (
            "--listen-client-urls=127.0.0.1:1",
            2,
            "invalid value \"127.0.0.1:1\" for flag -listen-client-urls: parse \"127.0.0.1:1\": first path segment in URL cannot contain colon",
        ),
        (
            "--listen-peer-urls=http://a",
            2,
            "invalid value \"http://a\" for flag -listen-peer-urls: URL address does not have the form \"host:port\": http://a",
        ),
        (
            "--listen-metrics-urls=http://a:1/metrics",
            2,
            "invalid value \"http://a:1/metrics\" for flag -listen-metrics-urls: URL must not contain a path: http://a:1/metrics",
        ),
        ("--initial-cluster-state=old", 2, "invalid value \"old\" for flag -initial-cluster-state: invalid value"),
        ("--discovery-fallback=old", 2, "invalid value \"old\" for flag -discovery-fallback: invalid value"),
        (
            "--v2-deprecation=not-yet",
            2,
            "invalid value \"not-yet\" for flag -v2-deprecation: invalid value \"not-yet\"",
        ),
        ("--feature-gates=X=true", 2, "invalid value \"X=true\" for flag -feature-gates: unrecognized feature gate: X"),
        (
            "--feature-gates=AllAlpha",
            2,
            "invalid value \"AllAlpha\" for flag -feature-gates: missing bool value for AllAlpha",
        ),
        (
            "--discovery-fallback=proxy",
            1,
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        ),
        ("--logger=capnslog", 1, "--logger=capnslog is removed in v3.5"),
        ("--log-format=xml", 1, "unknown log format: xml, supported values json, console"),
        ("--log-outputs=default,stdout", 1, "multi logoutput for \"default\" is not supported yet"),
        (
            "--enable-log-rotation",
            1,
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--enable-log-rotation --log-outputs=a,b",
            1,
            "--log-outputs requires a single file path when --log-rotate-config-json is defined",
        ),
        (
            "--enable-log-rotation --log-outputs=a --log-rotation-config-json={\"maxsize\":\"x\"}",
            1,
            "invalid log rotation config: json: cannot unmarshal string into Go struct field logRotationConfig.Logger.maxsize of type int",
        ),
        (
            "--enable-log-rotation --log-outputs=a --log-rotation-config-json={\"compress\":1}",
            1,
            "invalid log rotation config: json: cannot unmarshal number into Go struct field logRotationConfig.Logger.compress of type bool",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=-1",
            1,
            "distributed tracing configurition is not valid: (tracing sampling rate must be positive)",
        ),
        (
            "--enable-distributed-tracing --distributed-tracing-sampling-rate=1000001",
            1,
            "distributed tracing configurition is not valid: (tracing sampling rate must be less than 1000000)",
        ),
        ("--heartbeat-interval=0", 1, "--heartbeat-interval must be >0 (set to 0ms)"),
        ("--election-timeout=0", 1, "--election-timeout must be >0 (set to 0ms)"),
        (
            "--election-timeout=400",
            1,
            "--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]",
        ),
        ("--election-timeout=60000", 1, "--election-timeout[60000ms] is too long, and should be set less than 50000ms"),
        ("--auto-compaction-mode=never", 1, "unknown auto-compaction-mode \"never\""),
        ("--compact-hash-check-time=0", 1, "--compact-hash-check-time must be >0 (set to 0s)"),
        (
            "--feature-gates=LeaseCheckpointPersist=true",
            1,
            "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
        ),
        ("--tls-min-version=TLS1.1", 1, "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"),
        (
            "--tls-min-version=TLS1.3 --tls-max-version=TLS1.2",
            1,
            "min version (TLS1.3) is greater than max version (TLS1.2)",
        ),
        ("--discovery-token=t", 1, "both --discovery-token and --discovery-endpoints must be set"),
        (
            "--discovery-srv=a --initial-cluster=a=http://a:1",
            1,
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \"discovery-endpoints\" or \"discovery-srv\"",
        ),
        (
            "--listen-client-urls=http://127.0.0.1:1",
            1,
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        (
            "--listen-client-urls=http://a:1 --advertise-client-urls=http://a:1",
            1,
            "expected IP in URL for binding (http://a:1)",
        ),
        ("leftover --nonsense", 1, "\"leftover\" is not a valid flag"),
        ("--config-file=missing.yaml --name=x", 1, "open missing.yaml: no such file or directory"),
    ];
    let variables: &[(&str, &str, &str, &str)] = &[
        ("", "ETCD_MAX_TXN_OPS", "x", "invalid value \"x\" for ETCD_MAX_TXN_OPS: parse error"),
        (
            "",
            "ETCD_FEATURE_GATES",
            "X=true",
            "invalid value \"X=true\" for ETCD_FEATURE_GATES: unrecognized feature gate: X",
        ),
        (
            "",
            "ETCD_INITIAL_CLUSTER_STATE",
            "old",
            "invalid value \"old\" for ETCD_INITIAL_CLUSTER_STATE: invalid value",
        ),
        ("", "ETCD_CONFIG_FILE", "missing.yaml", "open missing.yaml: no such file or directory"),
        (
            "--name=a",
            "ETCD_NAME",
            "b",
            "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag)) ETCD_NAME",
        ),
    ];
    let files: &[(&str, &str)] = &[
        (
            "max-txn-ops: x",
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.max-txn-ops of type uint",
        ),
        (
            "grpc-keepalive-timeout: 5s",
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.grpc-keepalive-timeout of type time.Duration",
        ),
        (
            "pre-vote: 'true'",
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go struct field configYAML.Config.pre-vote of type bool",
        ),
        (
            "listen-client-urls: ftp://a:1",
            "unexpected error setting up listen-client-urls: URL scheme must be http, https, unix, or unixs: ftp://a:1",
        ),
        ("initial-cluster-state: old", "unexpected clusterState \"old\""),
        ("feature-gates: X=true", "unrecognized feature gate: X"),
        (
            "discovery-config: {client: {endpoints: 5}}",
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal number into Go struct field ConfigSpec.Config.discovery-config.client.endpoints of type []string",
        ),
        ("heartbeat-interval: 0", "--heartbeat-interval must be >0 (set to 0ms)"),
    ];
    let mut programs = vec![our_etcd()];
    programs.extend(Reference::find().map(|reference| reference.program("3.7", "etcd")));
    let mut wrong = Vec::new();
    for program in &programs {
        let mut expect = |what: &str, told: (Option<i32>, String), code: i32, words: &str| {
            if told != (Some(code), words.to_owned()) {
                wrong.push(format!(
                    "{} {what}\n  says     {told:?}\n  expected {:?}",
                    program.display(),
                    (code, words)
                ));
            }
        };
        for (line, code, words) in flags {
            let args: Vec<&str> = line.split(' ').collect();
            expect(line, refusal(program, &args, &[], folder.path()), *code, words);
        }
        for (line, name, value, words) in variables {
            let args: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            expect(name, refusal(program, &args, &[(name, value)], folder.path()), 1, words);
        }
        for (yaml, words) in files {
            fs::write(folder.join("etcd.yaml"), yaml).expect("a writable folder");
            expect(yaml, refusal(program, &["--config-file=etcd.yaml"], &[], folder.path()), 1, words);
        }
        fs::write(folder.join("etcd.yaml"), "name: [").expect("a writable folder");
        let (code, told) = refusal(program, &["--config-file=etcd.yaml"], &[], folder.path());
        assert!(code == Some(1) && told.starts_with(verify), "{}: {told}", program.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The file alone decides, but for what it can't hold; what it does not know is passed over; variables give way to none.
#[test]
fn a_file_excludes_flags_and_variables_as_in_go() {
    let folder = TempDir::new("precedence");
    let mut programs = vec![our_etcd()];
    programs.extend(Reference::find().map(|reference| reference.program("3.7", "etcd")));
    for (n, program) in programs.iter().enumerate() {
        let mut launch = Launch::new(program, &folder.join(&format!("data-{n}")));
        let yaml = folder.join(&format!("{n}.yaml"));
        let (client, peer) = (launch.client_url(), launch.peer_url());
        let settings = format!(
            "Name: from-file\ndata-dir: {}\nlisten-client-urls: {client}\nadvertise-client-urls: {client}\n\
             listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\ninitial-cluster: from-file={peer}\n\
             snapshot-count: 77\nsnapshot-count: 78\nno-such-key: 1\n",
            launch.data_dir.display()
        );
        fs::write(&yaml, settings).expect("a writable folder");
        launch.bare = true;
        launch.env.insert("ETCD_CONFIG_FILE".into(), yaml.display().to_string());
        launch.env.insert("ETCD_SNAPSHOT_COUNT".into(), "79".into());
        let launch = launch.with_flags(&["--name=from-flag", "--snapshot-count=80"]);
        let server = launch.try_start().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let told = summary(&server);
        assert_eq!((told["name"].as_str(), told["snapshot-count"].as_u64()), (Some("from-file"), Some(78)));
    }
}

/// The line that says by which settings a member runs.
fn summary(server: &Server) -> serde_json::Value {
    let log = server.log();
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.find(|line| line["msg"] == "starting an etcd server").unwrap_or_else(|| panic!("no summary in {log}"))
}

/// … has the same fields as Go's, with the same values, but for what a program is made of.
#[test]
fn a_member_says_by_which_settings_it_runs_as_gos_does() {
    let folder = TempDir::new("summary");
    let Some(reference) = Reference::find() else { return };
    let of = |program: &Path, name: &str| {
        let flags = [
            "--snapshot-catchup-entries=1000",
            "--v2-deprecation=gone",
            "--feature-gates=AllAlpha=true,PriorityRequest=false",
            "--auto-compaction-retention=2",
            "--downgrade-check-time=7s",
            "--discovery-dial-timeout=9s",
            "--cors=http://a:1",
        ];
        let server = Launch::new(program, &folder.join(name)).with_flags(&flags).start();
        let ports = (server.launch().client_port.to_string(), server.launch().peer_port.to_string());
        let told = summary(&server).to_string().replace(&ports.0, "CLIENT").replace(&ports.1, "PEER");
        let told = told.replace(&folder.join(name).display().to_string(), "DIR");
        serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&told).expect("JSON")
    };
    let (go, ours) = (of(&reference.program("3.7", "etcd"), "go"), of(&our_etcd(), "ours"));
    // Go rounds a quota of processors up, and to two at least.
    let made_of = ["max-cpu-set", "ts", "caller", "git-sha", "go-version", "local-address", "initial-corrupt-check"];
    for (field, value) in go.iter().filter(|(field, _)| !made_of.contains(&field.as_str())) {
        assert_eq!(ours.get(field), Some(value), "{field}");
    }
    assert_eq!(ours["v2-deprecation"], "write-only");
}

fn started(folder: &TempDir, flags: &[&str]) -> Server {
    Launch::new(&our_etcd(), &folder.join("data")).with_flags(flags).start()
}

async fn put(wire: &Wire, key: &str, value: &str) -> Result<pb::PutResponse, Status> {
    wire.unary(ask::PUT, &ask::put(key, value)).await
}

fn metric(server: &Server, series: &str) -> f64 {
    let page = web::send(&server.client_address(), "GET", "/metrics", &[], "").shown();
    scrape::value(&page, series).unwrap_or_else(|| panic!("no {series} in {page}"))
}

/// Asks again until it is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_streams_have_their_limits() {
    let folder = TempDir::new("limits");
    let flags =
        ["--max-txn-ops=2", "--max-request-bytes=1000", "--max-concurrent-streams=7", "--quota-backend-bytes=500000"];
    let server = started(&folder, &flags);
    let wire = Wire::connect(&server.client_url()).await;
    let op =
        |n: usize| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(ask::put(&n.to_string(), "v"))) };
    for (ops, refused) in [(2, false), (3, true)] {
        let txn = ask::txn(Vec::new(), (0..ops).map(op).collect(), Vec::new());
        let done: Result<pb::TxnResponse, Status> = wire.unary(ask::TXN, &txn).await;
        assert_eq!(done.is_err(), refused, "{ops} operations: {done:?}");
    }
    let refused = put(&wire, "large", &"v".repeat(1001)).await.expect_err("it is too large");
    assert_eq!(refused.message(), "etcdserver: request is too large");
    let settings = frames::announced(&server.client_address());
    assert!(settings.windows(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "streams at a time: {settings:?}");
    let mut puts = 0;
    let full = loop {
        match put(&wire, &format!("key{puts}"), &"v".repeat(900)).await {
            Ok(_) => puts += 1,
            Err(e) => break e,
        }
        assert!(puts < 2000, "more than the quota went in");
    };
    assert_eq!(full.message(), "etcdserver: mvcc: database space exceeded");
}

#[test]
fn a_client_that_answers_no_ping_is_left() {
    let folder = TempDir::new("keepalive");
    let server = started(&folder, &["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"]);
    let open = [frames::greeting(), frames::call(1, ask::WATCH, &[])].concat();
    // By default that would take two hours.
    assert!(frames::fate(&server.client_address(), &open, PATIENCE).closed);
}

#[test]
fn clients_may_ping_as_often_as_is_allowed() {
    let folder = TempDir::new("pings");
    let pings = [frames::greeting(), frames::call(1, ask::WATCH, &[]), frames::ping().repeat(10)].concat();
    let told = |flags: &[&str], patience| {
        let server = Launch::new(&our_etcd(), &folder.join(&flags.len().to_string())).with_flags(flags).start();
        frames::fate(&server.client_address(), &pings, patience).goaway.map(|(_, why)| why)
    };
    assert_eq!(told(&[], PATIENCE).as_deref(), Some("too_many_pings"));
    assert_eq!(told(&["--grpc-keepalive-min-time=1ns"], Duration::from_secs(2)), None);
}

#[test]
fn ports_are_shared_where_both_say_so() {
    let folder = TempDir::new("reuse");
    let flags = ["--socket-reuse-port", "--socket-reuse-address"];
    let first = started(&folder, &flags);
    assert!(first.log().contains("\"configuring socket options\",\"reuse-address\":true,\"reuse-port\":true"));
    let mut second = Launch::new(&our_etcd(), &folder.join("second"));
    second.client_port = first.launch().client_port;
    let refused = second.try_start().expect_err("the port is taken");
    assert!(refused.log.contains("address already in use"), "{refused}");
    let second = second.with_flags(&flags).try_start().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(second.client_address(), first.client_address());
}

#[test]
fn memory_is_locked_or_the_member_says_why_not() {
    let folder = TempDir::new("mlock");
    match Launch::new(&our_etcd(), &folder.join("data")).with_flags(&["--memory-mlock"]).try_start() {
        Ok(server) => {
            let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
            let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("Linux tells it");
            assert_ne!(locked.trim(), "0 kB");
        }
        Err(refusal) => {
            assert_eq!(refusal.code, Some(1), "{refusal}");
            assert!(refusal.log.contains("cannot lock memory") && refusal.log.contains("LimitMEMLOCK"), "{refusal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fsync_nothing_is_synced() {
    let folder = TempDir::new("fsync");
    for (flags, synced) in [(&[][..], true), (&["--unsafe-no-fsync"], false)] {
        let server = Launch::new(&our_etcd(), &folder.join(&synced.to_string())).with_flags(flags).start();
        put(&Wire::connect(&server.client_url()).await, "k", "v").await.expect("a put");
        assert_eq!(metric(&server, "etcd_disk_wal_fsync_duration_seconds_count") > 0.0, synced);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_store_is_written_as_often_as_was_asked_for() {
    let folder = TempDir::new("batch");
    let server = started(&folder, &["--backend-batch-limit=10"]);
    let wire = Wire::connect(&server.client_url()).await;
    let commits = || metric(&server, "etcd_disk_backend_commit_duration_seconds_count");
    let (before, began) = (commits(), Instant::now());
    // By default one comes after five seconds, or sixteen megabytes.
    let by_default = || began.elapsed().as_secs_f64() / 5.0 + 1.0;
    for n in 0.. {
        put(&wire, "k", &n.to_string()).await.expect("a put");
        if commits() - before >= by_default() + 3.0 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{} checkpoints in {:?}", commits() - before, began.elapsed());
    }
}

/// Two megabytes that nobody needs any longer, and how large the page store is then.
async fn bloat(server: &Server) {
    let wire = Wire::connect(&server.client_url()).await;
    for _ in 0..30 {
        put(&wire, "k", &"v".repeat(100_000)).await.expect("a put");
    }
    let _: pb::DefragmentResponse =
        wire.unary(ask::DEFRAGMENT, &pb::DefragmentRequest {}).await.expect("a defragmentation");
    let request = pb::CompactionRequest { physical: true, ..ask::compact(31) };
    let _: pb::CompactionResponse = wire.unary(ask::COMPACT, &request).await.expect("a compaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_defragments_from_a_threshold_on() {
    let folder = TempDir::new("bootstrap-defrag");
    let server = started(&folder, &[]);
    bloat(&server).await;
    server.stop();
    let size = || fs::metadata(folder.join("data/member/snap/db")).expect("the page store").len();
    let large = size();
    let server = started(&folder, &["--bootstrap-defrag-threshold-megabytes=100"]);
    assert!(server.log().contains("Skipping defragmentation"), "{}", server.log());
    server.stop();
    let server = started(&folder, &["--bootstrap-defrag-threshold-megabytes=1"]);
    assert!(server.log().contains("finished defragmenting directory"), "{}", server.log());
    assert!(size() < large / 2, "{} of {large}", size());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_longer_than_allowed_is_told_without_secrets() {
    let folder = TempDir::new("slow");
    let secret = "hunter2";
    for (flags, told) in
        [(&[][..], false), (&["--warning-apply-duration=1ns", "--warning-unary-request-duration=1ns"], true)]
    {
        let server = Launch::new(&our_etcd(), &folder.join(&told.to_string())).with_flags(flags).start();
        let wire = Wire::connect(&server.client_url()).await;
        put(&wire, "key", secret).await.expect("a put");
        let _: pb::RangeResponse = wire.unary(ask::RANGE, &ask::get("key")).await.expect("a range");
        let user = pb::AuthUserAddRequest { name: "root".into(), password: secret.into(), ..Default::default() };
        let _: pb::AuthUserAddResponse = wire.unary(USER_ADD, &user).await.expect("a user");
        if told {
            for words in [
                "\"response type\":\"/etcdserverpb.KV/Put\"",
                "\"request content\":\"key:\\\"key\\\" value_size:7 \"",
                "\"response type\":\"/etcdserverpb.Auth/UserAdd\"",
                "\"prefix\":\"read-only range \",\"request\":\"key:\\\"key\\\"\"",
                "\"prefix\":\"\",\"request\":\"entry ",
            ] {
                assert!(server.wait_for_log(words, PATIENCE), "no {words} in {}", server.log());
            }
        }
        let log = server.log();
        let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        assert_eq!(lines("\"expected-duration\":\"1ns\"") > 0, told, "{log}");
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn a_log_goes_where_and_how_it_should() {
    let folder = TempDir::new("log");
    let file = folder.join("etcd.log");
    let outputs = format!("--log-outputs={},stdout", file.display());
    let server = started(&folder, &[&outputs, "--log-format=console", "--log-level=debug"]);
    let shown = fs::read_to_string(&file).expect("a log");
    let line = shown.lines().find(|line| line.contains("starting an etcd server")).expect("the summary");
    let columns: Vec<&str> = line.split('\t').collect();
    assert_eq!((columns.len(), columns[1], columns[3]), (5, "info", "starting an etcd server"), "{line}");
    assert!(server.log().contains("\tstarting an etcd server\t"), "stdout has it, too");
    server.stop();
    let quiet = Launch::new(&our_etcd(), &folder.join("quiet"));
    let quiet = quiet.with_flags(&[&format!("--log-outputs={}", file.display()), "--log-level=error"]);
    // It never says that it is ready, so it is asked.
    let mut child = quiet.command().spawn().expect("it starts");
    until("it serves", || std::net::TcpStream::connect(format!("127.0.0.1:{}", quiet.client_port)).is_ok());
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert!(!fs::read_to_string(&file).expect("a log")[shown.len()..].contains("\"level\":\"info\""));
}

#[test]
fn a_full_log_file_is_rotated() {
    let folder = TempDir::new("rotation");
    let file = folder.join("etcd.log");
    fs::write(&file, vec![b'\n'; (1 << 20) - 10]).expect("a writable folder");
    let outputs = format!("--log-outputs={},stderr", file.display());
    let rotation = "--log-rotation-config-json={\"maxsize\": 1, \"maxbackups\": 1, \"compress\": true}";
    let server = started(&folder, &["--enable-log-rotation", rotation, &outputs]);
    assert!(fs::read_to_string(&file).expect("a log").starts_with("{\"level\""), "it begins anew");
    let compressed = || {
        let entries = fs::read_dir(folder.path()).expect("a folder").map(|e| e.expect("an entry").file_name());
        entries.filter(|name| name.to_string_lossy().ends_with(".log.gz")).count()
    };
    until("the old one is compressed", || compressed() == 1);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_and_watchers_are_told_in_the_pace_of_the_settings() {
    let folder = TempDir::new("pace");
    let flags = ["--auto-compaction-retention=1s", "--watch-progress-notify-interval=100ms"];
    let server = started(&folder, &flags);
    let wire = Wire::connect(&server.client_url()).await;
    let watch = pb::WatchCreateRequest { progress_notify: true, ..ask::watch("nobody", "") };
    let mut stream = wire.stream(ask::WATCH, prost::Message::encode_to_vec(&ask::create(watch)).into(), &[]);
    let created: Option<pb::WatchResponse> = stream.next().await.expect("a watch");
    assert!(created.is_some_and(|response| response.created));
    // By default it comes after ten minutes.
    let progress: Option<pb::WatchResponse> = stream.next().await.expect("progress");
    assert!(progress.is_some_and(|response| !response.created && response.events.is_empty()));
    let end = Instant::now() + PATIENCE;
    loop {
        put(&wire, "k", "v").await.expect("a put");
        let old = pb::RangeRequest { revision: 2, ..ask::get("k") };
        let read: Result<pb::RangeResponse, Status> = wire.unary(ask::RANGE, &old).await;
        match read {
            Err(e) if e.message().contains("required revision has been compacted") => break,
            other => assert!(Instant::now() < end, "revision 2 is still there: {other:?}"),
        }
        tokio::task::yield_now().await;
    }
}
