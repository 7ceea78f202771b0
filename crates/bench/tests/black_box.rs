//! Short runs of the program against a real server: `OXETCD_BIN`, else ours, of `OXETCD_PROGRAMS` or built now.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn server() -> PathBuf {
    let built_before = || std::env::var_os("OXETCD_PROGRAMS").map(|folder| Path::new(&folder).join("etcd"));
    std::env::var_os("OXETCD_BIN").map(PathBuf::from).or_else(built_before).unwrap_or_else(build)
}

fn build() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_oxetcd-bench"));
    // target/debug/oxetcd-bench
    let profile = program.parent().expect("a program is in its profile's folder");
    let target = profile.parent().expect("a profile's folder is in the target folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "-p", "etcd", "--bin", "etcd", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    assert!(command.status().expect("cargo runs this test, so it is there").success(), "the server does not build");
    profile.join("etcd")
}

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oxetcd-bench")).args(words).output().expect("the program was built for this test")
}

fn text(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{out}\n{error}")
}

/// One call runs every kind of row once, with a server of its own each: puts, reads, open loop with and without a
/// disturbance, watchers and none, load and restart. Nothing is left in the folder.
#[test]
fn a_comparison_of_the_server_with_itself_has_no_errors() {
    let server = server();
    let (a, b) = (format!("one={}", server.display()), format!("two={}", server.display()));
    let dir = std::env::temp_dir().join(format!("bench-black-box-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a folder for temporary files can be made in");
    let rows = "put-4,range-l-4,txn-mixed-2,lease-2,open-put,open-put-watch,watch-0-100,watch-2-max,load";
    let output = bench(&[
        "compare",
        "--dir",
        &dir.to_string_lossy(),
        "--a",
        &a,
        "--b",
        &b,
        "--rows",
        rows,
        "--pairs",
        "1",
        "--run",
        "60ms",
        "--warmup",
        "20ms",
        "--key-space-size",
        "200",
        "--load-keys",
        "200",
        "--behind",
        "50",
        "--watchers",
        "20",
        "--open-clients",
        "4",
        "--open-rate",
        "200",
        "--server-core",
        "-1",
        "--load-core",
        "-1",
        "--floors=false",
    ]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("**error**"), "{text}");
    for row in rows.split(',') {
        let rate = if row == "watch-0-100" { "puts /s" } else { "rate /s" };
        assert!(text.contains(&format!("| {row} | {rate} | ")), "{row} in {text}");
    }
    assert!(text.contains("| open-put-watch ÷ open-put | p99 ms | "), "{text}");
    assert!(text.contains("| open-put-watch | p99 ms | its own open-put | ≤ 1.20 | "), "{text}");
    assert_eq!(std::fs::read_dir(&dir).expect("the folder is there").count(), 0, "a folder was left");
    std::fs::remove_dir(&dir).expect("it is empty");
}

#[test]
fn floors_are_measured() {
    let output =
        bench(&["floors", "--run", "40ms", "--floor-clients", "2", "--server-core", "-1", "--load-core", "-1"]);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for floor in ["HTTP/2 (h2, fixed answer)", "gRPC (tonic)", "group commit"] {
        assert!(text.contains(&format!("| {floor} | 2 | ")), "{text}");
    }
}

#[test]
fn what_is_wrong_on_the_command_line_ends_with_255_and_a_dead_server_with_1() {
    let wrong = bench(&["put", "--foo"]);
    let error = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(255), "{error}");
    assert!(error.starts_with("Error: unknown flag: --foo\nUsage:\n"), "{error}");
    assert!(error.ends_with("\nunknown flag: --foo\n"), "{error}");
    assert_eq!(bench(&["put", "--key-space-size", "0"]).status.code(), Some(1));
    assert_eq!(bench(&["--clients", "2", "--help"]).status.code(), Some(0));
    // A port that nobody listens on: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let dead = bench(&["--endpoints", &free.to_string(), "put", "--total", "3"]);
    assert_eq!(dead.status.code(), Some(1), "{}", text(&dead));
}
