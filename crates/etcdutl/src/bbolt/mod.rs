//! `bbolt`: the page store's own tool, as etcd 3.8 has it below `etcdutl`. Commands look at files, and change copies of them.

mod bench;
mod compact;
mod look;
mod page;
mod stats;
mod surgery;

use crate::pages::Raw;
use crate::{file, out::Out};
use cobra::{Call, Command, Exit, Flag, Kind};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

const FORMAT: &str = "how to print: auto, ascii-encoded, hex, bytes or redacted";

/// `bbolt …`.
pub const COMMAND: Command = Command {
    usage: "bbolt",
    short: "Looks into a database's pages, checks, compacts and mends copies of it",
    commands: &[
        Command { usage: "version", short: "Prints which bbolt this is", run: Some(look::version), ..Command::EMPTY },
        Command {
            usage: "info <bbolt-file>",
            short: "Prints the page size",
            exactly: Some(1),
            run: Some(look::info),
            ..Command::EMPTY
        },
        Command {
            usage: "buckets <bbolt-file>",
            short: "Prints the names of the buckets",
            exactly: Some(1),
            run: Some(look::buckets),
            ..Command::EMPTY
        },
        Command {
            usage: "check <bbolt-file>",
            short: "Checks every page",
            flags: &[Flag::new("from-page", Kind::Uint, "0", "check this page and what is below it")],
            exactly: Some(1),
            run: Some(look::check),
            ..Command::EMPTY
        },
        Command {
            usage: "keys <bbolt-file> <buckets>",
            short: "Prints the keys of a bucket",
            flags: &[Flag::new("format", Kind::Text, "auto", FORMAT).short('f')],
            between: (2, None),
            run: Some(look::keys),
            ..Command::EMPTY
        },
        Command {
            usage: "get PATH [BUCKET..] KEY",
            short: "Prints the value of a key",
            flags: &[
                Flag::new("format", Kind::Text, "auto", FORMAT),
                Flag::new("parse-format", Kind::Text, "ascii-encoded", "how the key is given: ascii-encoded or hex"),
            ],
            between: (3, None),
            run: Some(look::get),
            ..Command::EMPTY
        },
        Command {
            usage: "inspect <bbolt-file>",
            short: "Prints the buckets in one another, with how much is in them",
            exactly: Some(1),
            run: Some(look::inspect),
            ..Command::EMPTY
        },
        Command {
            usage: "pages <bbolt-file>",
            short: "Prints a table of the pages",
            exactly: Some(1),
            run: Some(page::pages),
            ..Command::EMPTY
        },
        Command {
            usage: "page <bbolt-file> [pageid...]",
            short: "Prints what is in pages",
            flags: &[Flag::switch("all", "all pages"), Flag::new("format-value", Kind::Text, "auto", FORMAT)],
            between: (1, None),
            run: Some(page::page),
            ..Command::EMPTY
        },
        Command {
            usage: "page-item [options] <bbolt-file> pageid itemid",
            short: "Prints one key and value of a page",
            flags: &[
                Flag::switch("key-only", "the key alone"),
                Flag::switch("value-only", "the value alone"),
                Flag::new("format", Kind::Text, "auto", FORMAT),
            ],
            exactly: Some(3),
            run: Some(page::item),
            ..Command::EMPTY
        },
        Command {
            usage: "dump <bbolt-file> pageid [pageid...]",
            short: "Prints the bytes of pages",
            between: (2, None),
            run: Some(page::dump),
            ..Command::EMPTY
        },
        Command {
            usage: "stats <bbolt-file> [prefix]",
            short: "Counts pages, levels, bytes and buckets; of buckets whose names begin so",
            between: (1, Some(2)),
            run: Some(stats::run),
            ..Command::EMPTY
        },
        Command {
            usage: "compact [options] -o <dst-bbolt-file> <src-bbolt-file>",
            short: "Copies a database without its free pages",
            flags: compact::FLAGS,
            between: (1, None),
            run: Some(compact::run),
            ..Command::EMPTY
        },
        Command {
            usage: "bench",
            short: "Measures how fast keys are written and read, in a file of its own",
            flags: bench::FLAGS,
            run: Some(bench::run),
            ..Command::EMPTY
        },
        surgery::COMMAND,
    ],
    ..Command::EMPTY
};

/// The file that a command is about, which must be there.
fn source(call: &Call) -> Result<PathBuf, Exit> {
    let path = PathBuf::from(call.arg(0));
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(e) => {
            let shown = go::quote(path.as_os_str().as_encoded_bytes());
            Err(Exit::error(match e.kind() {
                std::io::ErrorKind::NotFound => format!("source database file {shown} doesn't exist"),
                _ => {
                    format!("failed to open source database file {shown}: stat {}: {}", path.display(), go::os_text(&e))
                }
            }))
        }
    }
}

/// Its pages, once nobody writes it.
fn opened(call: &Call) -> Result<Raw, Exit> {
    Raw::locked(&source(call)?, file::lock_timeout(call))
}

/// Numbers of pages among the arguments, from this one on.
fn page_ids(call: &Call, from: usize) -> Result<Vec<u64>, Exit> {
    let words = (from..call.args().len()).map(|at| call.arg(at)).filter(|word| !word.is_empty());
    words.map(|word| number(&word)).collect()
}

fn number(word: &str) -> Result<u64, Exit> {
    go::parse_uint(word, 10, 64).map_err(Exit::error)
}

/// Bytes as `--format` wants them.
fn shown(bytes: &[u8], format: &str) -> Result<Vec<u8>, String> {
    Ok(match format {
        "ascii-encoded" => go::quote(bytes).into_bytes(),
        "hex" => hex(bytes).into_bytes(),
        "bytes" => bytes.to_vec(),
        "auto" => text_or_hex(bytes).into_bytes(),
        "redacted" => {
            let sum = Sha256::digest(bytes);
            format!("<redacted len:{} sha256:{}>", bytes.len(), hex(&sum)).into_bytes()
        }
        other => return Err(format!("formatBytes: unsupported format: {other}")),
    })
}

/// Text as it is, anything else in hex.
pub(crate) fn text_or_hex(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if go::is_shown(bytes) => text.to_owned(),
        _ => hex(bytes),
    }
}

/// Two digits a byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A copy that a command changes; never the file itself.
fn copy(source: &Path, target: &Path) -> Result<std::fs::File, String> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    let failed = |path: &Path, e: &std::io::Error| format!("open {}: {}", path.display(), go::os_text(e));
    let mut from = std::fs::File::open(source).map_err(|e| failed(source, &e))?;
    let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    let there = from.metadata().map_err(|e| failed(source, &e))?;
    if std::fs::metadata(target).is_ok_and(|target| same(&there, &target)) {
        return Err(format!("{} is the source itself: give another --output", target.display()));
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let mut to = options.open(target).map_err(|e| failed(target, &e))?;
    std::io::copy(&mut from, &mut to).map_err(|e| failed(target, &e))?;
    Ok(to)
}

/// Prints lines.
fn print(lines: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<(), Exit> {
    let mut out = Out::new();
    lines.into_iter().try_for_each(|line| out.line(line))?;
    out.done()
}
