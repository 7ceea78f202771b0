//! Every decoder of bytes from outside has a target, or a reason why not.
//!
//! What a decoder is, is told from the sources, of these crates and without their tests and generated code: a function
//! * that is named like one (`decode…`, `parse…`, `unquote…`, `split_…`, `read_…`, `scan…`, `load…`, `open…`, …) and takes raw
//!   bytes, text, a path or a reader; or
//! * that calls a library which decodes (prost, serde_json, serde_saphyr, simple-dns, hexadecimal numbers).
//!
//! A name is no proof, and a decoder can be named otherwise. But what comes from outside ends at one of these calls nearly
//! always, so a new format is hard to add without being asked for its target here.

use oxetcd_fuzz::TARGETS;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that read what others wrote. Left out: `sim` and `disk` (no formats), `failpoint` (in no release), `profile` (words of the
/// kernel's and of jemalloc's about this process), `bench`, `xtask`,
/// `tests` (tools of this house, read by nobody else).
const CRATES: [&str; 14] = [
    "api", "raft", "wal", "bolt", "store", "server", "rpc", "go", "cobra", "client", "tls", "etcd", "etcdctl",
    "etcdutl",
];

const NAMES: [&str; 13] = [
    "decode",
    "parse",
    "unquote",
    "unmarshal",
    "inflate",
    "split_",
    "read_",
    "scan",
    "load",
    "open",
    "words",
    "from_str",
    "from_bytes",
];

const RAW: [&str; 8] = ["[u8]", "str", "Bytes", "Path", "OsString", "BufRead", "Read", "Incoming"];

/// Found by the rule, and no way for bytes from outside.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("raft/raw_node.rs::read_index", "the bytes are this member's own context"),
    ("bolt/node.rs::words", "writes"),
    ("bolt/tx.rs::bucket", "the name is the caller's; the pages are read by bolt/page.rs"),
    ("bolt/tx.rs::take", "takes a page that bolt/page.rs has read"),
    ("rpc/peer/local.rs::read_at", "reads an image that is sent, as bytes"),
    ("etcd/driver/image.rs::read_at", "reads an image that is sent, as bytes"),
    ("etcd/driver/disk.rs::open", "hands a path on"),
    ("etcd/driver/disk.rs::read_at", "hands bytes on"),
    ("etcd/driver/disk.rs::read_at_once", "hands bytes on"),
    ("etcd/driver/disk.rs::read_dir", "hands names on"),
    ("rpc/metrics/process.rs::reads_proc", "the fuzzer's own way to its neighbours"),
    ("rpc/concurrency.rs::open_watch", "the key is the service's own"),
    ("etcd/driver/auth/jwt.rs::parsed", "the key is of the operator's own file, read once at the start"),
    ("etcd/config/tls.rs::tls_version", "one of two words"),
    ("server/member/verify.rs::parse", "one of three words"),
    ("tls/live.rs::open", "the text is the program's own; the files are read by tls/x509.rs and rustls-pki-types"),
    ("etcd/driver/memory.rs::may_lock_all", "the operating system's own words about this process"),
    ("etcd/logging/journal.rs::open", "hands a path on"),
    ("etcd/logging/rotate.rs::open", "hands a path on"),
    ("etcd/logging/rotate.rs::opened", "hands a path on"),
    ("etcdutl/dump/prototext.rs::descriptor", "the program's own descriptors"),
    ("etcdctl/auth.rs::words", "counts words that cobra/flags.rs has read"),
    ("etcdctl/hints/answer.rs::end_of_jwt", "the token is what the operator typed"),
    ("etcdctl/globals.rs::open_logging_as", "the text is the program's own; its flags are read by cobra/flags.rs"),
];

#[test]
fn every_decoder_has_a_target_or_a_reason() {
    let found: BTreeSet<String> = sources().iter().flat_map(|source| source.decoders()).collect();
    assert!(found.len() > 80, "the rule finds decoders: {}", found.len());
    let covered: BTreeSet<&str> = TARGETS.iter().flat_map(|target| target.covers).copied().collect();
    let excepted: BTreeMap<&str, &str> = EXCEPTIONS.iter().copied().collect();
    let missing: Vec<_> =
        found.iter().filter(|name| !covered.contains(name.as_str()) && !excepted.contains_key(name.as_str())).collect();
    assert!(
        missing.is_empty(),
        "no target covers {missing:#?}: add one (fuzz/src/targets), or an exception with its reason"
    );
    let both: Vec<_> = covered.iter().filter(|name| excepted.contains_key(*name)).collect();
    assert!(both.is_empty(), "covered, and excepted all the same: {both:?}");
}

#[test]
fn what_targets_and_exceptions_name_is_there() {
    let sources = sources();
    let known: BTreeSet<String> = sources
        .iter()
        .flat_map(|source| source.functions().into_iter().map(|(_, function)| format!("{}::{function}", source.name)))
        .collect();
    let named = TARGETS.iter().flat_map(|target| target.covers).chain(EXCEPTIONS.iter().map(|(name, _)| name));
    let stale: Vec<_> = named.filter(|name| !known.contains(**name)).collect();
    assert!(stale.is_empty(), "no such function: {stale:?}");
}

#[test]
fn every_target_has_a_name_of_its_own_and_something_to_cover() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    assert!(TARGETS.iter().all(|target| !target.covers.is_empty()));
}

#[test]
fn cargo_fuzz_has_the_same_targets() {
    let manifest = fs::read_to_string(root().join("fuzz/cargo-fuzz/Cargo.toml")).expect("the manifest is there");
    let bins = manifest.split("[[bin]]").skip(1).filter_map(|bin| bin.split('"').nth(1));
    let bins: BTreeSet<_> = bins.collect();
    assert_eq!(bins, TARGETS.iter().map(|target| target.name).collect());
}

#[test]
fn the_rule_sees_names_signatures_and_calls() {
    let text = "fn parse(text: &str) -> X {}\nfn parse_all(n: u64) {}\nfn helper() {\n  let x = pb::Y::decode(b);\n}\n\
                #[cfg(test)]\nmod tests { fn parse_me(text: &str) {} }\n";
    let source = Source { name: "a/b.rs".into(), text: without_tests(text).into() };
    assert_eq!(source.decoders(), BTreeSet::from(["a/b.rs::parse".to_owned(), "a/b.rs::helper".to_owned()]));
}

/// Files of tests, and those that open what is found elsewhere to this crate.
const NO_SOURCES: [&str; 2] = ["tests.rs", "decoders.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A file of a crate, without its tests.
struct Source {
    /// `crate/folder/file.rs`.
    name: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    for name in CRATES {
        let src = root().join("crates").join(name).join("src");
        let mut folders = vec![src.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a crate's sources") {
                let path = entry.expect("a crate's sources").path();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match path.is_dir() {
                    true if file != "pb" && file != "tests" => folders.push(path),
                    false if file.ends_with(".rs") && !NO_SOURCES.contains(&file.as_str()) => {
                        all.push(source(name, &src, &path))
                    }
                    _ => {}
                }
            }
        }
    }
    all
}

fn source(name: &str, src: &Path, path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a source");
    let inside = path.strip_prefix(src).expect("a file of this crate").display();
    Source { name: format!("{name}/{inside}"), text: without_tests(&text).to_owned() }
}

/// Tests stand at the end of a file.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

impl Source {
    /// Where each function begins, and its name.
    fn functions(&self) -> Vec<(usize, &str)> {
        let starts = self.text.match_indices("fn ").filter(|(at, _)| {
            let before = self.text[..*at].chars().next_back();
            before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        });
        let name = |at: usize| {
            let rest = &self.text[at + 3..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        };
        starts.map(|(at, _)| (at, name(at))).filter(|(_, name)| !name.is_empty()).collect()
    }

    fn decoders(&self) -> BTreeSet<String> {
        let functions = self.functions();
        let ends = functions.iter().skip(1).map(|(at, _)| *at).chain([self.text.len()]);
        let bodies = functions.iter().zip(ends).map(|((at, name), end)| (*name, &self.text[*at..end]));
        let found = bodies.filter(|(name, body)| is_decoder(name, body));
        found.map(|(name, _)| format!("{}::{name}", self.name)).collect()
    }
}

fn is_decoder(name: &str, body: &str) -> bool {
    let signature = body.split('{').next().unwrap_or_default();
    let arguments = signature.split(") ->").next().unwrap_or_default();
    let raw = RAW.iter().any(|kind| contains_word(arguments, kind));
    raw && NAMES.iter().any(|prefix| name.starts_with(prefix)) || calls_a_library(body)
}

fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside(before) && !inside(after)
    })
}

/// `Type::decode(…)`, with whatever path and generics, and the libraries' own entries.
fn calls_a_library(body: &str) -> bool {
    let decodes = body.match_indices("::decode(").any(|(at, _)| {
        let path = &body[..at];
        let start = path.rfind(|c: char| !c.is_alphanumeric() && !"_:<>$".contains(c)).map_or(0, |at| at + 1);
        path[start..].chars().any(|c| c.is_uppercase() || c == '$')
    });
    let entries = ["serde_json::from_", "serde_saphyr::from_", "Packet::parse(", "from_str_radix("];
    decodes || entries.iter().any(|entry| body.contains(entry))
}
