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

pub const DATABASE_PAGES: Target = Target {
    name: "database-pages",
    covers: &["etcdutl/dump/db.rs::opened"],
    corpus: || vec![populated().to_vec()],
    mend: Some(|input| super::files::mend_metas(input)),
    run: database_pages,
    ..EMPTY
};

/// Everything that looks at pages, and what takes some out.
fn database_pages(input: &[u8]) -> bool {
    let folder = Folder::new();
    let (file, copy) = (folder.word("a-db"), folder.word("copy"));
    std::fs::write(&file, input).expect("memory has room");
    let tool = |line: &str| {
        let words = line.split(' ').map(|word| match word {
            "FILE" => file.clone(),
            "COPY" => copy.clone(),
            word => word.into(),
        });
        cobra::run(&etcdutl::PROGRAM, words.collect())
    };
    for line in [
        "bbolt info FILE",
        "bbolt buckets FILE",
        "bbolt pages FILE",
        "bbolt page FILE --all",
        "bbolt page-item FILE 3 0",
        "bbolt dump FILE 0 1 2 3",
        "bbolt stats FILE",
        "bbolt inspect FILE",
        "bbolt keys FILE key",
        "bbolt get FILE meta term",
        "bbolt surgery meta validate FILE",
        "bbolt surgery clear-page-elements FILE --pageId 3 --from-index 1 --to-index 2 --output COPY",
        "bbolt surgery revert-meta-page FILE --output COPY",
        "bbolt surgery freelist rebuild FILE --output COPY",
    ] {
        assert!(tool(line) <= 1, "{line}");
    }
    for words in [["list-bucket", ""], ["hash", ""], ["scan-keys", "0"], ["iterate-bucket", "key"]] {
        let words = [OsString::from(words[0]), file.clone(), OsString::from(words[1])];
        let words = words.into_iter().filter(|word| !word.is_empty()).collect();
        assert!(cobra::run(&etcdutl::dump::DB, words) <= 1);
    }
    tool("bbolt check FILE") == 0
}

pub const SHOWN_RECORDS: Target = Target {
    name: "shown-records",
    covers: &[
        "etcdutl/dump/records.rs::decoded",
        "etcdutl/dump/records.rs::message",
        "etcdutl/standing.rs::member_of",
        "etcdutl/dump/logs.rs::normal",
    ],
    shape: Shape::Proto(0),
    corpus: super::apply::requests,
    run: |input| {
        let (key, value) = input.split_at(input.len().min(17));
        for bucket in ["key", "lease", "auth", "authRoles", "authUsers", "meta", "members"] {
            drop(named(etcdutl::dump::decoders::decoded(bucket.as_bytes(), key, value)));
            drop(named(etcdutl::dump::decoders::decoded(bucket.as_bytes(), &[b'_'; 17], input)));
        }
        drop(named(etcdutl::decoders::member_of(input)));
        etcdutl::dump::decoders::normal(&input.to_vec().into()).is_some()
    },
    ..EMPTY
};

pub const MEMBER_DIRECTORY: Target = Target {
    name: "member-directory",
    covers: &[
        "etcdutl/standing.rs::of",
        "etcdutl/standing.rs::change",
        "etcdutl/auth.rs::change",
        "etcdutl/dump/logs.rs::head",
        "etcdutl/dump/logs.rs::change",
        "etcdutl/dump/logs.rs::record",
    ],
    corpus: super::files::member_log,
    mend: Some(super::files::mend_records),
    run: member_directory,
    ..EMPTY
};

/// A log beside a database that has nothing of it yet.
fn member_directory(input: &[u8]) -> bool {
    let folder = Folder::new();
    let (snap, wal) = (folder.word("member/snap"), folder.word("member/wal"));
    [&snap, &wal].into_iter().for_each(|dir| std::fs::create_dir_all(dir).expect("memory has room"));
    let segment = Path::new(&wal).join("0000000000000000-0000000000000000.wal");
    std::fs::write(segment, input).expect("memory has room");
    let database = Path::new(&snap).join("db");
    drop(store::Store::open(disk::RealDisk::shared(), &database, store::Options::default()).expect("memory has room"));
    let dir = OsString::from(&folder.0);
    let mut data_dir = OsString::from("--data-dir=");
    data_dir.push(&dir);
    let tool = |words: &[&str], last: &OsString| {
        let words = words.iter().map(OsString::from).chain([last.clone()]).collect();
        cobra::run(&etcdutl::PROGRAM, words)
    };
    let shown = etcdutl::dump::logs(vec![dir.clone()]);
    let raw = etcdutl::dump::logs(vec!["-raw".into(), dir.clone()]);
    let found = tool(&["recover", "-w=json"], &dir);
    let reset = tool(&["auth", "reset-root", "--disable"], &data_dir);
    assert!(shown <= 1 && raw <= 1 && found <= 1 && reset <= 1, "codes {shown}, {raw}, {found}, {reset}");
    shown == 0 && found == 0 && reset == 0
}

pub const TOOL_FLAGS: Target = Target {
    name: "tool-flags",
    covers: &["etcdutl/dump/goflag.rs::parse"],
    shape: Shape::Text(&["-", "--", "=", "\n", "raw", "-start\n", "7", "-h", "--dir=", "é", "-raw=false"]),
    corpus: || texts(&["-raw\n-start=7\na", "--dir\nthere\n--\n-raw"]),
    run: |input| {
        use etcdutl::dump::decoders::{Flag, Kind, flags};
        const FLAGS: &[Flag] = &[
            Flag { name: "raw", kind: Kind::Bool, default: "false", help: "" },
            Flag { name: "start", kind: Kind::Uint, default: "0", help: "" },
            Flag { name: "dir", kind: Kind::Text, default: "", help: "" },
        ];
        let words: Vec<OsString> = input.split(|b| *b == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
        let given = words.len();
        flags(FLAGS, words).is_ok_and(|read| {
            assert!(read.args.len() <= given, "words are not made up");
            true
        })
    },
    ..EMPTY
};

pub const METRICS: Target = Target {
    name: "metrics-text",
    covers: &["etcdutl/dump/web.rs::whole", "etcdctl/metrics.rs::parse", "etcdctl/web.rs::parse"],
    shape: Shape::Text(&[
        "HTTP/1.1 200 OK\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: ",
        "Date: Sun, 22 Nov 2026 22:14:17 GMT\r\n",
        "\r\n",
        "\r\n\r\n",
        "# HELP ",
        "_bucket{le=\"+Inf\"} ",
        "# TYPE ",
        " counter\n",
        "{To=\"",
        "\"} 1\n",
        "etcd_network_peer_round_trip_time_seconds",
        "grpc_server_handled_total{grpc_code=\"",
        "ffffffffffffffff\r\n",
        "0\r\n",
    ]),
    corpus: || {
        texts(&[
            "HTTP/1.1 200 OK\r\n\r\n# HELP a b\n# TYPE a gauge\na{To=\"x\"} 1\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n# HELP a \n\r\n0\r\n\r\n",
        ])
    },
    run: |input| {
        let page = etcdctl::decoders::parse_page(input).map(|page| page.body).unwrap_or_default();
        assert!(page.len() <= 3 * input.len(), "a body is no longer than its answer, but for what is no UTF-8");
        let histogram = etcdctl::decoders::Metrics::parse(&String::from_utf8_lossy(input)).histogram("a");
        assert!(histogram.quantile(0.99).is_none_or(|bound| !bound.is_nan()), "a quantile is a bound");
        let body = etcdutl::dump::decoders::body_of(input);
        let shown = etcdutl::dump::decoders::listing(&String::from_utf8_lossy(input));
        assert!(shown.starts_with("# server version: "));
        body.is_ok_and(|body| {
            assert!(body.len() <= 3 * input.len(), "a body is no longer than its answer, but for what is no UTF-8");
            etcdutl::dump::decoders::listing(&body).starts_with("# server version: ")
        })
    },
    ..EMPTY
};
