//! `etcd-dump-db`: the buckets of a database, their records, and a hash of them.

use super::{fatal, records};
use crate::out::Out;
use crate::pages::{Kind as PageKind, Page, Raw};
use crate::{bbolt, file};
use bolt::{Db, View};
use cobra::{Call, Command, Exit, Flag, Kind, Program, completion, help_command};
use std::ops::Bound;
use std::path::{Path, PathBuf};

const TIMEOUT: Flag =
    Flag::new("timeout", Kind::Duration, "10s", "how long to wait for a database that is locked (0: for ever)");

/// etcd-dump-db.
pub static PROGRAM: Program = Program {
    root: Command {
        usage: "etcd-dump-db",
        short: "Shows what is in a database of etcd.",
        persistent: &[TIMEOUT],
        commands: &[
            Command {
                usage: "list-bucket [data dir or db file path]",
                short: "Lists the buckets.",
                run: Some(list_bucket),
                ..Command::EMPTY
            },
            Command {
                usage: "iterate-bucket [data dir or db file path] [bucket name]",
                short: "Shows the records of a bucket, the last one first.",
                flags: &[
                    Flag::new("limit", Kind::Uint, "0", "how many records at most (0: all)"),
                    Flag::switch("decode", "show what they mean"),
                ],
                run: Some(iterate_bucket),
                ..Command::EMPTY
            },
            Command {
                usage: "scan-keys [data dir or db file path] [start revision]",
                short: "Shows all keys from a revision on, page by page, in damaged files, too.",
                run: Some(scan_keys),
                ..Command::EMPTY
            },
            Command {
                usage: "hash [data dir or db file path]",
                short: "Hashes all that members have in common.",
                run: Some(hash),
                ..Command::EMPTY
            },
            Command {
                usage: "completion [bash|zsh|fish|powershell]",
                short: "Prints a completion script for a shell",
                one_of: completion::SHELLS,
                run: Some(completion::run),
                ..Command::EMPTY
            },
            Command { usage: "help [command]", short: "Explains a command", run: Some(help_command), ..Command::EMPTY },
        ],
        ..Command::EMPTY
    },
    groups: &[],
    pointer: "",
    repeats_errors: cobra::Repeats::Never,
};

/// The file that the first argument names, or that of the data directory it names.
fn database(call: &Call) -> Result<PathBuf, Exit> {
    let given = PathBuf::from(call.arg(0));
    let path = if call.arg(0).ends_with("db") { given } else { given.join("member/snap/db") };
    match path.exists() {
        true => Ok(path),
        false => Err(fatal(format!("{} does not exist", go::quote(path.as_os_str().as_encoded_bytes())))),
    }
}

fn words(call: &Call) -> String {
    let words: Vec<String> = (0..call.args().len()).map(|at| call.arg(at)).collect();
    format!("(got [{}])", words.join(" "))
}

fn at_least_one(call: &Call) -> Result<(), Exit> {
    if call.args().is_empty() {
        return Err(fatal(format!("Must provide at least 1 argument {}", words(call))));
    }
    Ok(())
}

fn two(call: &Call) -> Result<(), Exit> {
    if call.args().len() != 2 {
        return Err(fatal(format!("Must provide 2 arguments {}", words(call))));
    }
    Ok(())
}

/// Errors of others, as this program tells them.
fn told(exit: Exit, before: &str) -> Exit {
    match exit.error {
        Some(why) => fatal(format!("{before}{why}")),
        None => exit,
    }
}

fn opened(call: &Call, path: &Path) -> Result<Db, Exit> {
    file::open(path, true, file::lock_timeout(call)).map_err(|exit| told(exit, "failed to open bolt DB "))
}

fn unreadable(e: bolt::Error) -> Exit {
    told(file::failed(e), "")
}

fn list_bucket(call: &mut Call) -> Result<(), Exit> {
    at_least_one(call)?;
    let db = opened(call, &database(call)?)?;
    let mut out = Out::new();
    db.view().buckets().map_err(unreadable)?.iter().try_for_each(|name| out.line(name))?;
    out.done()
}

fn iterate_bucket(call: &mut Call) -> Result<(), Exit> {
    two(call)?;
    let db = opened(call, &database(call)?)?;
    let (view, bucket) = (db.view(), &call.args()[1]);
    if !view.bucket_exists(bucket).map_err(unreadable)? {
        return Err(fatal(format!("got nil bucket for {}", call.arg(1))));
    }
    let limit = match call.given.uint("limit") {
        0 => u64::MAX,
        limit => limit,
    };
    let decode = call.given.is_true("decode");
    let mut out = Out::new();
    let mut left = limit;
    for record in view.range_rev(bucket, Bound::Unbounded, Bound::Unbounded).map_err(unreadable)? {
        let (key, value) = record.map_err(unreadable)?;
        let line = match decode {
            true => records::decoded(bucket, &key, &value),
            false => Ok(records::plain(&key, &value)),
        };
        match line {
            Ok(line) => out.line(line)?,
            Err(why) => {
                out.done()?;
                return Err(fatal(why));
            }
        }
        left -= 1;
        if left == 0 {
            break;
        }
    }
    out.done()
}

/// Members differ in these without having other data.
const IGNORED: [&[u8]; 3] = [b"consistent_index", b"term", b"storageVersion"];

fn hash(call: &mut Call) -> Result<(), Exit> {
    at_least_one(call)?;
    let path = database(call)?;
    let db = opened(call, &path)?;
    let hash = hash_of(&db.view()).map_err(unreadable)?;
    let mut out = Out::new();
    out.line(format!("db path: {}\nHash: {hash}", path.display()))?;
    out.done()
}

fn hash_of(view: &View) -> Result<u32, bolt::Error> {
    let mut crc = 0;
    for bucket in view.buckets()? {
        crc = crc32c::crc32c_append(crc, &bucket);
        for record in view.range(&bucket, Bound::Unbounded, Bound::Unbounded)? {
            let (key, value) = record?;
            if bucket != b"meta"[..] || !IGNORED.contains(&&*key) {
                crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &key), &value);
            }
        }
    }
    Ok(crc)
}

/// Names that stand where others have revisions: a page with one of them lists buckets.
const BUCKETS: [&[u8]; 10] = [
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"key",
    b"lease",
    b"members",
    b"members_removed",
    b"meta",
];

fn scan_keys(call: &mut Call) -> Result<(), Exit> {
    two(call)?;
    let path = database(call)?;
    let start = go::parse_int(&call.arg(1), 10).map_err(fatal)?;
    let raw = Raw::unlocked(&path).map_err(|exit| told(exit, "failed to read page and HWM size: "))?;
    let mut out = Out::new();
    let mut id = 2;
    while id < raw.walk_end() {
        match raw.page(id) {
            Err(why) => eprintln!("Reading page {id} failed: {why}. Continuing..."),
            Ok(page) if page.kind() == PageKind::Leaf => {
                keys_of(&page, start, &mut out)?;
                id += page.overflow();
            }
            Ok(_) => {}
        }
        id += 1;
    }
    out.done()
}

fn keys_of(page: &Page, start: i64, out: &mut Out) -> Result<(), Exit> {
    let (id, count) = (page.id(), page.count());
    for index in 0..count {
        let element = match page.element(index) {
            Ok(element) => element,
            Err(why) => {
                eprintln!("Reading page {id} failed: {why}. Continuing...");
                continue;
            }
        };
        let main = match records::numbers(element.key) {
            Ok((main, ..)) => main,
            Err(_) if BUCKETS.contains(&element.key) => break,
            Err(why) => {
                let key = bbolt::hex(element.key);
                eprintln!(
                    "Decoding revision failed, pageID: {id}, index: {index}, key: {key}, error: BytesToBucketKey failed: \
                     {why}"
                );
                continue;
            }
        };
        if start != 0 && main < start {
            continue;
        }
        match records::decoded(b"key", element.key, element.value) {
            Ok(line) => out.line(format!("pageID={id}, index={index}/{}, {line}", count - 1))?,
            Err(why) => eprintln!("Decoding a pair failed, pageID: {id}, index: {index}: {why}"),
        }
    }
    Ok(())
}
