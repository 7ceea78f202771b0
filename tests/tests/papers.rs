//! What the papers promise: metrics that dashboard and alerts look at exist, the hardening guide's commands do what it says, and
//! the advisories' tests are there; some of these stand here.

mod tools;

use oxetcd_tests::certs::{Authority, Wish};
use oxetcd_tests::places::{our_etcd, read_source};
use oxetcd_tests::process::{Launch, Server, free_ports, run, text};
use oxetcd_tests::scrape;
use oxetcd_tests::temp::TempDir;
use oxetcd_tests::web;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use tools::{Said, our_etcdctl};

const HERE: &[&str] = &["localhost", "127.0.0.1"];
/// Hashing is to be quick here.
const QUICK: &str = "--bcrypt-cost=4";
/// Words of PromQL that are no metrics; `up` is Prometheus' own.
const PROMQL: [&str; 6] = ["and", "or", "unless", "bool", "offset", "up"];

/// Metrics that an expression of PromQL asks for.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    // Labels, texts, ranges and lists of labels hold no metrics.
    let mut bare = expression.to_owned();
    for (open, close) in [('{', '}'), ('[', ']')] {
        while let (Some(from), Some(to)) = (bare.find(open), bare.find(close)) {
            bare.replace_range(from..=to, " ");
        }
    }
    for word in ["by", "without", "on", "ignoring", "group_left", "group_right"] {
        while let Some(from) = bare.find(&format!(" {word} (")) {
            let to = from + bare[from..].find(')').expect("a list ends");
            bare.replace_range(from..=to, " ");
        }
    }
    let names = bare.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let mut found = BTreeSet::new();
    for name in names.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) {
        let at = name.as_ptr() as usize - bare.as_ptr() as usize + name.len();
        let is_call = bare[at..].trim_start().starts_with('(');
        if !is_call && !PROMQL.contains(&name) {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn metrics_are_told_from_the_rest_of_an_expression() {
    let expression = "sum by (job, le) (rate(a_bucket{job=~\"x|y\"}[5m])) / b > 0.5 and up == 0 unless on (job) c";
    assert_eq!(metrics_of(expression).into_iter().collect::<Vec<_>>(), ["a_bucket", "b", "c"]);
}

/// What a member shows: of histograms their series, too.
fn metrics_of_a_member() -> BTreeSet<String> {
    let folder = TempDir::new("papers-metrics");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    web::post(&server.client_address(), "/v3/kv/put", r#"{"key":"YQ=="}"#);
    let page = web::send(&server.client_address(), "GET", "/metrics", &[], "").body;
    let mut names = BTreeSet::new();
    for (name, family) in scrape::families(&page) {
        if family.kind == "histogram" {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        names.insert(name);
    }
    names
}

/// Metrics that only members with peers, alarms or failures show: they stand in our tables.
fn is_registered(name: &str) -> bool {
    let name = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    let tables =
        ["table", "figures", "process", "calls"].map(|file| read_source(&format!("crates/rpc/src/metrics/{file}.rs")));
    tables.iter().any(|table| table.contains(&format!("\"{name}\"")))
}

fn assert_metrics(file: &str, expressions: &[String]) {
    let shown = metrics_of_a_member();
    let mut seen = 0;
    for expression in expressions {
        for name in metrics_of(expression) {
            seen += 1;
            assert!(shown.contains(&name) || is_registered(&name), "{file}: no metric {name}: {expression}");
        }
    }
    assert!(seen > 20, "{file}: {seen} metrics");
    assert!(!is_registered("etcd_server_no_such_metric"));
}

#[test]
fn the_dashboards_metrics_exist() {
    fn expressions(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| expressions(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read_source("contrib/grafana/etcd.json")).expect("JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let filled: Vec<String> = found.iter().map(|expr| expr.replace("$__rate_interval", "5m")).collect();
    assert_metrics("dashboard", &filled);
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<String> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    assert_eq!(ids.len(), panels.len(), "ids of panels are different");
}

#[test]
fn each_alert_has_metrics_that_exist_and_a_paragraph_with_a_first_command() {
    let rules: Value = serde_saphyr::from_str(&read_source("contrib/prometheus/alerts.yml")).expect("YAML");
    let paper = read_source("docs/operations/alerts.md");
    let sections: Vec<&str> = paper.split("\n## ").skip(1).collect();
    let mut expressions = Vec::new();
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    for rule in &rules {
        let name = rule["alert"].as_str().expect("a name");
        expressions.push(rule["expr"].as_str().expect("an expression").to_owned());
        let runbook = format!("docs/operations/alerts.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], *runbook, "{name}");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning" | "info")), "{name}");
        let section = sections.iter().find(|section| section.lines().next() == Some(name));
        let section = section.unwrap_or_else(|| panic!("{name} has no paragraph"));
        let (meaning, rest) = section.split_once("\n```sh\n").unwrap_or_else(|| panic!("{name} has no command"));
        assert!(meaning.lines().nth(1).is_some_and(|line| line.len() > 40), "{name} is not explained");
        let (command, after) = rest.split_once("\n```\n").expect("the command ends");
        assert!(!command.is_empty() && after.trim().len() > 20, "{name}: what then?");
        assert_command(name, command);
    }
    assert_eq!(sections.len(), rules.len(), "paragraphs without an alert");
    assert_metrics("alerts", &expressions);
}

/// A first command of our own is one that our etcdctl has, and its flags, too.
fn assert_command(alert: &str, command: &str) {
    let command = command.split('#').next().unwrap_or_default().split('|').next().unwrap_or_default();
    let words: Vec<&str> = command.split_whitespace().collect();
    let Some(("etcdctl", words)) = words.split_first().map(|(first, rest)| (*first, rest)) else { return };
    let path: Vec<&str> = words.iter().take_while(|word| !word.starts_with('-')).copied().collect();
    let said = run(Command::new(our_etcdctl()).args(path).arg("--help"));
    let help = text(&said.stdout) + &text(&run(Command::new(our_etcdctl()).arg("options")).stdout);
    assert!(said.status.success(), "{alert}: {command}: {help}");
    for flag in words.iter().filter(|word| word.starts_with('-')) {
        let shown = help.lines().any(|line| line.split([' ', ',', '=']).any(|word| word == *flag));
        assert!(shown, "{alert}: {command}: no {flag} in {help}");
    }
}

fn there_is_curl() -> bool {
    let there_is = Command::new("curl").arg("--version").output().is_ok();
    if !there_is {
        println!("SKIPPED: no curl here");
    }
    there_is
}

/// Blocks of a document that a shell is to run.
fn blocks(paper: &str) -> Vec<&str> {
    paper.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect()
}

/// Runs lines of the guide against a member.
fn shell(server: &Server, lines: &[&str]) -> Said {
    let script = lines.join("\n").replace("127.0.0.1:2379", &server.client_address());
    let said = run(Command::new("sh").args(["-euc", &script]));
    Said { code: said.status.code(), out: text(&said.stdout), err: text(&said.stderr) }
}

#[test]
fn the_hardening_guides_recipes_give_what_they_say_and_no_more() {
    if !there_is_curl() {
        return;
    }
    let paper = read_source("docs/security/hardening.md");
    let blocks = blocks(&paper);
    let [words, on, recipes @ .., leaving] = blocks.as_slice() else { panic!("blocks: {blocks:?}") };
    let folder = TempDir::new("hardening");
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_flags(&[QUICK]).start();
    let done = shell(&server, &[&[*words, *on], recipes].concat());
    assert_eq!(done.code, Some(0), "{done:?}");

    let put = |key: &str| format!("ask kv/put \"{{\\\"key\\\":\\\"$(b64 {key})\\\",\\\"value\\\":\\\"eA==\\\"}}\"");
    let get = |key: &str| format!("ask kv/range \"{{\\\"key\\\":\\\"$(b64 {key})\\\"}}\"");
    let may = |user: &str, line: &str| {
        let login = format!("TOKEN=$(login {user})");
        let said = shell(&server, &[words, &login, line]);
        assert!(said.code == Some(0) || said.err.contains("403"), "{user} {line}: {said:?}");
        said.code == Some(0)
    };
    let (app, dashboard, worker, root) =
        ("app change-me-app", "dashboard change-me-dashboard", "worker-1 change-me-worker", "root change-me-root");
    for (user, line, allowed) in [
        (root, put("/other"), true),
        (app, put("/app/a"), true),
        (app, get("/app/a"), true),
        (app, get("/other"), false),
        (app, put("/app0"), false),
        (app, "ask auth/user/list '{}'".to_owned(), false),
        (app, "ask maintenance/snapshot '{}'".to_owned(), false),
        (dashboard, get("/app/a"), true),
        (dashboard, put("/app/a"), false),
        (dashboard, get("/other"), false),
        (worker, put("/app/results/1/x"), true),
        (worker, get("/app/results/1/x"), false),
        (worker, put("/app/results/2/x"), false),
    ] {
        assert_eq!(may(user, &line), allowed, "{user}: {line}");
    }
    let nobody = shell(&server, &[words, &get("/app/a")]);
    assert_ne!(nobody.code, Some(0), "{nobody:?}");

    // Who leaves, leaves with the token that he has.
    let token = format!("LEFT=$(login {worker}); TOKEN=$LEFT");
    let login = format!("TOKEN=$(login {root})");
    let after = format!("TOKEN=$LEFT; {}", put("/app/results/1/y"));
    let gone =
        shell(&server, &[words, &token, &put("/app/results/1/y"), "echo before", &login, leaving, "echo left", &after]);
    assert!(gone.out.contains("before") && gone.out.contains("left") && gone.code != Some(0), "{gone:?}");
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        assert_eq!(web::send(&server.client_address(), "GET", path, &[], "").status, 200, "{path}");
    }
}

#[test]
fn the_advisories_tests_are_there() {
    let paper = read_source("docs/security/threat-model.md");
    let (_, table) = paper.split_once("## etcd's advisories").expect("the table");
    let rows: Vec<&str> =
        table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| advisory")).collect();
    assert!(rows.len() > 12, "{rows:#?}");
    let mut seen = 0;
    for row in rows {
        // `test` (file): the names before a file are in it.
        for (names, file) in row.match_indices(" (").filter_map(|(at, _)| {
            let file = row[at + 2..].split(')').next().filter(|file| file.ends_with(".rs"))?;
            Some((row[..at].rsplit([';', '|', ')']).next()?, file))
        }) {
            let text = read_source(file);
            for name in names.split('`').skip(1).step_by(2) {
                seen += 1;
                assert!(text.contains(&format!("fn {name}(")) || text.contains(&format!("{name} =>")), "{row}: {name}");
            }
        }
    }
    assert!(seen > 12, "{seen} tests named");
}

/// What curl says over TLS: whether it was answered, and what.
fn curl(folder: &Path, ca: &Authority, name: &str, words: &[&str]) -> Said {
    let mut command = Command::new("curl");
    command.current_dir(folder).args(["-sS", "--max-time", "20", "--cacert", &ca.file()]);
    command.args(["--cert", &format!("{name}.crt"), "--key", &format!("{name}.key")]).args(words);
    let said = run(&mut command);
    Said { code: said.status.code(), out: text(&said.stdout), err: text(&said.stderr) }
}

/// GHSA-3wh4-j44w-pg92: with an address for HTTP alone, Go's gRPC did not look at the list.
#[test]
fn who_is_revoked_is_let_in_by_no_listener() {
    if !there_is_curl() {
        return;
    }
    let folder = TempDir::new("revoked-everywhere");
    let ca = Authority::new(folder.path(), "ca");
    let server = ca.issue(&Wish::both("server", "etcd", HERE));
    ca.issue(&Wish::both("good", "good", HERE));
    let revoked = ca.issue(&Wish::both("revoked", "revoked", HERE));
    let list = ca.revoke("list", &[&revoked]).display().to_string();
    let (metrics, http) = free_ports();
    let (metrics, http) = (format!("https://127.0.0.1:{metrics}"), format!("https://127.0.0.1:{http}"));
    let mut flags = vec![
        format!("--trusted-ca-file={}", ca.file()),
        format!("--peer-trusted-ca-file={}", ca.file()),
        "--client-cert-auth".into(),
        "--peer-client-cert-auth".into(),
        format!("--client-crl-file={list}"),
        format!("--peer-crl-file={list}"),
        format!("--listen-metrics-urls={metrics}"),
        format!("--listen-client-http-urls={http}"),
    ];
    flags.extend(server.flags("cert-file", "key-file"));
    flags.extend(server.flags("peer-cert-file", "peer-key-file"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_tls(true, true).with_flags(&flags).start();
    let doors = [
        ("HTTP", format!("{http}/version")),
        ("metrics", format!("{metrics}/metrics")),
        ("peers", format!("{}/version", server.launch().peer_url())),
    ];
    for (door, url) in &doors {
        let good = curl(folder.path(), &ca, "good", &["-f", url]);
        assert!(good.code == Some(0) && good.out.contains("etcd"), "{door}: {good:?}");
        let out = curl(folder.path(), &ca, "revoked", &[url]);
        assert!(out.code != Some(0) && out.out.is_empty(), "{door}: {out:?}");
    }
    let grpc = |name: &str| {
        let mut etcdctl = Command::new(our_etcdctl());
        etcdctl.current_dir(folder.path()).args(["--command-timeout=5s", "--cacert", &ca.file(), "--endpoints"]);
        etcdctl.arg(server.client_url()).args([format!("--cert={name}.crt"), format!("--key={name}.key")]);
        run(etcdctl.args(["put", "a", "b"])).status.success()
    };
    assert!(grpc("good") && !grpc("revoked"), "gRPC");
}

/// CVE-2018-16886: Go's gateway dialled its own server with the server's certificate, and whoever came through it was the
/// user whom that names.
#[test]
fn the_gateway_never_speaks_as_the_servers_certificate() {
    if !there_is_curl() {
        return;
    }
    let folder = TempDir::new("gateway-name");
    let ca = Authority::new(folder.path(), "ca");
    let server = ca.issue(&Wish::both("server", "root", HERE));
    ca.issue(&Wish::client("alice", "alice"));
    ca.issue(&Wish::client("nameless", ""));
    let trust = format!("--trusted-ca-file={}", ca.file());
    let flags =
        [server.flags("cert-file", "key-file").to_vec(), vec![trust, "--client-cert-auth".into(), QUICK.into()]];
    let flags = flags.concat();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Launch::new(&our_etcd(), &folder.join("data")).with_tls(true, false).with_flags(&flags).start();
    let ask = |who: &str, path: &str, body: &str, more: &[&str]| {
        let url = format!("{}/v3/{path}", server.client_url());
        curl(folder.path(), &ca, who, &[&["-f", "-d", body, &url], more].concat())
    };
    for (path, body) in [
        ("auth/user/add", r#"{"name":"root","password":"r"}"#),
        ("auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("auth/user/add", r#"{"name":"alice","options":{"no_password":true}}"#),
        ("auth/enable", "{}"),
    ] {
        let done = ask("nameless", path, body, &[]);
        assert_eq!(done.code, Some(0), "{path}: {done:?}");
    }
    let key = r#"{"key":"YQ=="}"#;
    for (who, path, body) in [
        ("alice", "kv/put", key),
        ("alice", "auth/user/list", "{}"),
        ("nameless", "kv/put", key),
        ("nameless", "auth/user/list", "{}"),
    ] {
        // Often: an answer that came before its request had been read was lost over HTTP/2 now and then (code 92).
        for _ in 0..5 {
            let refused = ask(who, path, body, &[]);
            assert!(refused.code == Some(22) && refused.out.is_empty(), "{who} {path}: {refused:?}");
        }
    }
    let login = ask("nameless", "auth/authenticate", r#"{"name":"root","password":"r"}"#, &[]);
    let login: Value = serde_json::from_str(&login.out).unwrap_or_else(|e| panic!("{e}: {login:?}"));
    let token = format!("Authorization: {}", login["token"].as_str().expect("a token"));
    let range = || ask("nameless", "kv/range", key, &["-H", &token]);
    assert!(range().code == Some(0) && !range().out.contains("kvs"), "nobody put it: {:?}", range());
    assert_eq!(ask("nameless", "kv/put", key, &["-H", &token]).code, Some(0), "root himself may");
    assert!(range().out.contains("kvs"), "{:?}", range());
}

/// etcd#22143: requests whose heads never end. They may keep their connections for five minutes, and nobody waiting.
#[test]
fn clients_whose_headers_never_end_keep_nobody_waiting() {
    let folder = TempDir::new("slow-headers");
    let server = Launch::new(&our_etcd(), &folder.join("data")).start();
    let address = server.client_address();
    let begin = |n: usize| {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        let head: &[u8] = if n.is_multiple_of(2) {
            b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nX-Slow: "
        } else {
            b"PRI * HTTP/2.0\r\n"
        };
        stream.write_all(head).expect("it is open");
        stream
    };
    let mut slow: Vec<TcpStream> = (0..100).map(begin).collect();
    for n in 0..20 {
        slow.iter_mut().for_each(|stream| drop(stream.write_all(b"a")));
        let reply = web::post(&address, "/v3/kv/put", r#"{"key":"YQ=="}"#);
        assert_eq!(reply.status, 200, "put {n}: {}", reply.body);
    }
    // The first ones are heard once their heads end.
    let first = &mut slow[0];
    first
        .write_all(b"\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"key\":\"YQ==\"}")
        .expect("it is still open");
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// docs/TUTORIALS.md names tests: `a`, `b` in tests/tests/FILE.
#[test]
fn tutorials_name_tests_that_exist() {
    let page = read_source("docs/TUTORIALS.md");
    let mut named = 0;
    let cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | "));
    for (_, cell) in cells.filter(|(_, cell)| cell.contains("tests/tests/")) {
        let mut waiting: Vec<&str> = Vec::new();
        for (n, part) in cell.split('`').enumerate() {
            if n % 2 == 1 {
                waiting.push(part);
            } else if let Some(path) = part.split_whitespace().find(|word| word.starts_with("tests/tests/")) {
                let source = read_source(path.trim_end_matches(','));
                for name in waiting.drain(..) {
                    let is_there = source.contains(&format!("fn {name}(")) || source.contains(&format!(" {name} => "));
                    assert!(is_there, "{path} has no {name}");
                    named += 1;
                }
            }
        }
        assert!(waiting.is_empty(), "{cell}: where are {waiting:?}?");
    }
    assert!(named > 20, "the page is written otherwise than this test reads it: {named}");
}
