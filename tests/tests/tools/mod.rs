//! What the tests of the command-line tools share: our tools, command lines as people type them, and answers without
//! what differs from run to run.
#![allow(dead_code, reason = "each test uses a part of it")]

use oxetcd_tests::places::built;
use oxetcd_tests::process::{run_with_input, text};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Our `etcdctl`, built now, as the profile and target folder of this test have it.
pub fn our_etcdctl() -> PathBuf {
    tools().join("etcdctl")
}

/// Our `etcdutl`.
pub fn our_etcdutl() -> PathBuf {
    tools().join("etcdutl")
}

fn tools() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(&["etcdctl", "etcdutl"])).clone()
}

/// Words of a line; single quotes hold blanks.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What a tool said: exit code, standard output, standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a tool in a folder, with variables and input.
pub fn ask(program: &Path, folder: &Path, variables: &[(&str, &str)], arguments: &[String], input: &[u8]) -> Said {
    // The harness takes the caller's ETCD* variables away; the ones of this test go through `env`.
    let mut command = Command::new("env");
    command.current_dir(folder).args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg(program).args(arguments);
    let output = run_with_input(&mut command, input);
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// What tools print while members elect a leader, which on a machine that stalls they may do at any moment.
const BETWEEN_LEADERS: [&str; 4] = [
    "context deadline exceeded",
    "etcdserver: leader changed",
    "etcdserver: no leader",
    "etcdserver: request timed out",
];

/// What a tool said, asked again where it failed since leaders changed: for a member of a cluster, where that is not what
/// the test is about.
pub fn insist(mut run: impl FnMut() -> Said) -> Said {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = run();
        let early = said.code != Some(0) && BETWEEN_LEADERS.iter().any(|text| said.err.contains(text));
        if !early || Instant::now() >= end {
            return said;
        }
    }
}

/// What a `member add` prints that is given again while it comes too early: connections count when they have stood for 5 s.
pub fn added(mut add: impl FnMut() -> Said) -> String {
    until("a member more", || {
        let said = add();
        let early = said.err.contains("unhealthy cluster");
        assert!(early || said.code == Some(0), "{said:?}");
        (!early).then_some(said.out)
    })
}

/// What begins a line that our etcdctl adds to etcd's own.
pub const HINT: &str = "hint: ";

/// A text without the lines that tell what to do: Go's tool has none.
pub fn without_hints(said: &str) -> String {
    said.split_inclusive('\n').filter(|line| !line.starts_with(HINT)).collect()
}

/// Takes out hints, ids, clocks, durations and addresses. `names`: texts of this run and what they stand for.
pub fn plain(said: &str, names: &[(String, &str)]) -> String {
    let mut said = without_hints(said);
    for (text, name) in names {
        said = said.replace(text, name);
    }
    said = between(&said, "\"ts\":\"", "\"");
    said = between(&said, "LocalAddr: '", "'");
    said = between(&said, ",\"stacktrace\":\"", "\"");
    said = between(&said, "etcd-endpoints://0x", "/").replace("etcd-endpoints://0x/", "etcd-endpoints://");
    let mut out = String::new();
    let mut word = String::new();
    for c in said.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | 'µ') {
            word.push(c);
            continue;
        }
        out += plain_word(&word);
        word.clear();
        // Tables are as wide as their widest id.
        if !(out.ends_with(c) && matches!(c, '─' | ' ')) {
            out.push(c);
        }
    }
    out.pop();
    out
}

fn plain_word(word: &str) -> &str {
    const ID_DIGITS: usize = 14;
    let is_id = word.len() >= ID_DIGITS && word.bytes().all(|b| b.is_ascii_hexdigit());
    // It may end a sentence.
    let length = word.trim_end_matches('.');
    let number = length.trim_end_matches(['m', 'µ', 'n', 's']);
    let is_duration = number.len() < length.len() && number.contains('.') && number.parse::<f64>().is_ok();
    match (is_id, is_duration) {
        (true, _) => "ID",
        (_, true) => "DURATION",
        _ => word,
    }
}

/// Empties what stands between `before` and the next `after`.
fn between(text: &str, before: &str, after: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(before) {
        let (head, tail) = rest.split_at(at + before.len());
        out += head;
        rest = tail.find(after).map_or("", |end| &tail[end..]);
    }
    out + rest
}

/// What etcdutl said, its standard error without clocks, without the lines of Go's page store, without Go's traces of
/// its stack, and without the warning that ours adds to a restore.
pub fn told(said: Said) -> Said {
    let is_trace = |line: &str| {
        line.starts_with('\t')
            || ["go.etcd.io/", "github.com/", "main.", "runtime."].iter().any(|p| line.starts_with(p))
    };
    let lines = said.err.lines().filter(|line| !line.contains("bbolt") && !line.starts_with("WARNING: "));
    let lines = lines.filter(|line| !is_trace(line)).map(|line| {
        let (stamp, rest) = line.split_once('\t').unwrap_or(("", line));
        if stamp.ends_with('Z') { rest.to_owned() } else { line.to_owned() }
    });
    Said { err: lines.collect::<Vec<_>>().join("\n"), ..said }
}

/// A tool that goes on until it is told to stop.
pub struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    /// Starts it, asking this endpoint.
    pub fn start(program: &Path, endpoint: &str, line: &str) -> Running {
        // Whoever runs the tests in the background may ignore SIGINT, and children inherit that.
        let mut child = Command::new("env")
            .arg("--default-signal=INT")
            .arg(program)
            .arg(format!("--endpoints={endpoint}"))
            .args(words(line))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Running { child, lines }
    }

    /// Writes to its standard input.
    pub fn types(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(text.as_bytes()).expect("the tool reads");
    }

    /// The next line of its standard output.
    pub fn next(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    /// The next lines.
    pub fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Ends it with SIGINT. Answers its exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long [`until`] tries.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
    }
}
