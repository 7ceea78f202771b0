//! What the tests of the command-line tools share: our tools, command lines as people type them, and answers without
//! what differs from run to run.
#![allow(dead_code, reason = "each test uses a part of it")]

use oxetcd_tests::places::built;
use oxetcd_tests::process::{run_with_input, text};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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

/// Takes out ids, clocks, durations and addresses. `names`: texts of this run and what they stand for.
pub fn plain(said: &str, names: &[(String, &str)]) -> String {
    let mut said = said.to_owned();
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
    let number = word.trim_end_matches(['m', 'µ', 'n', 's']);
    let is_duration = number.len() < word.len() && number.contains('.') && number.parse::<f64>().is_ok();
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
