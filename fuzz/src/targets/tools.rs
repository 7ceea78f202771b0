//! What etcdctl and etcdutl read: lines, words, snapshot files.

use super::apply::populated;
use super::{EMPTY, named, texts, world};
use crate::{Shape, Target};
use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub const TXN_LINES: Target = Target {
    name: "txn-lines",
    covers: &[
        "etcdctl/txn.rs::read_list",
        "etcdctl/txn.rs::words",
        "etcdctl/txn.rs::compare",
        "etcdctl/txn.rs::request",
    ],
    shape: Shape::Text(&[
        "mod(",
        "val(",
        "lease(",
        ") = ",
        ") > ",
        "\"",
        "'",
        "`",
        "\\",
        "\\x",
        "\n",
        "\n\n",
        "put ",
        "get ",
        "del ",
        "--prefix",
        "--lease=",
        "--limit=",
        "-- ",
        "--from-key",
        "--order=ASCEND",
        "é",
        "\t",
    ]),
    corpus: || {
        texts(&[
            "mod(\"k\") > \"7\"\nval(\"a\\x01\") = `v`\n\nput k \"a b\" --lease=7d\nget k --prefix\n\ndel a b --range\n\n",
            "lease(\"k\") = \"7d\"\nver(\"k\") != \"0\"\n\nget a b --limit 3 --order=DESCEND --sort-by=MODIFY\n\n\n",
        ])
    },
    run: |input| {
        let words = etcdctl::decoders::words(input);
        assert!(words.iter().map(Vec::len).sum::<usize>() <= 2 * input.len(), "words are no longer than their line");
        let read = etcdctl::decoders::read_txn(&etcdctl::PROGRAM, &mut &input[..], |_| {}, Duration::ZERO);
        read.map_err(|exit| assert!(exit.error.is_some_and(|text| !text.is_empty()))).is_ok()
    },
    ..EMPTY
};

pub const CTL_WORDS: Target = Target {
    name: "ctl-words",
    covers: &["cobra/flags.rs::parse"],
    shape: Shape::Text(&[
        "--",
        "-",
        "=",
        "\n",
        "--help",
        "--write-out=",
        "json",
        "-w",
        "get\n",
        "__complete\n",
        "--endpoints=",
        "member\n",
        "add\n",
        "1h",
        "-h",
        "completion\n",
        "bash",
        "lease\n",
        "grant\n",
        "\u{e9}",
    ]),
    corpus: || {
        // None of these talks to a server: such a command has its words read, and is then refused.
        texts(&[
            "version",
            "help",
            "completion\nbash",
            "__complete\nget\n--",
            "get\n--help",
            "txn\n-h",
            "member\nadd\n-h",
        ])
    },
    run: ctl_words,
    ..EMPTY
};

/// Words, one a line, behind a certificate without a name: who would talk to a server is refused before anything is dialled.
/// Commands that read standard input, or a password, are left out.
fn ctl_words(input: &[u8]) -> bool {
    let refused = OsString::from("--cert=");
    let given = input.split(|b| *b == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    let reads = |word: &OsString| {
        let word = word.to_string_lossy();
        ["user", "interactive", "put", "restore"].iter().any(|name| word.contains(name)) || word.starts_with("-i")
    };
    let given: Vec<OsString> = given.collect();
    if given.iter().any(reads) {
        return false;
    }
    let completes = given.first().is_some_and(|word| word.to_string_lossy().starts_with("__"));
    let words = if completes { given } else { [vec![refused], given].concat() };
    cobra::run(&etcdctl::PROGRAM, words) == 0
}

/// A folder in memory, gone with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = root.join(format!("oxetcd-fuzz-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder can be made");
        Folder(path)
    }

    fn word(&self, name: &str) -> OsString {
        self.0.join(name).into()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is found by whoever looks.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const SNAPSHOT_FILE: Target = Target {
    name: "snapshot-file",
    covers: &["etcdutl/file.rs::open", "etcdutl/status.rs::record", "etcdutl/status.rs::read"],
    corpus: || vec![populated().to_vec()],
    mend: Some(|input| super::files::mend_metas(input)),
    run: snapshot_file,
    ..EMPTY
};

/// The tool itself, on the file: status, hash, restore.
fn snapshot_file(input: &[u8]) -> bool {
    let folder = Folder::new();
    let file = folder.word("snapshot");
    let mut handle = std::fs::File::create(&file).expect("memory has room");
    handle.write_all(input).expect("memory has room");
    drop(handle);
    let tool = |words: &[&str], more: &[OsString]| {
        let words = words.iter().map(OsString::from).chain(more.iter().cloned()).collect();
        cobra::run(&etcdutl::PROGRAM, words)
    };
    let status = tool(&["snapshot", "status", "--write-out=json"], std::slice::from_ref(&file));
    let hash = tool(&["hashkv", "--write-out=fields"], std::slice::from_ref(&file));
    assert!(status <= 4 && hash <= 4, "codes {status} and {hash}");
    status == 0 && hash == 0 && restored(&folder, file, tool)
}

/// What was restored can be looked at in turn.
fn restored(folder: &Folder, file: OsString, tool: impl Fn(&[&str], &[OsString]) -> u8) -> bool {
    let target = folder.word("restored");
    let mut option = OsString::from("--data-dir=");
    option.push(&target);
    let code = tool(&["snapshot", "restore", "--skip-hash-check"], &[option, file]);
    let database = Path::new(&target).join("member/snap/db");
    if code == 0 {
        assert_eq!(tool(&["snapshot", "status"], &[database.into()]), 0, "what was restored is sound");
    }
    code == 0
}

pub const STORED_RECORD: Target = Target {
    name: "stored-entries",
    covers: &["etcdutl/migrate.rs::needed_by_entry"],
    shape: Shape::Proto(0),
    corpus: super::apply::requests,
    run: |input| {
        let entry = world::entry(7, input.to_vec());
        named(etcdutl::decoders::needed_by_entry(&entry)).is_some()
    },
    ..EMPTY
};
