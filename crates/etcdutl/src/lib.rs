//! The offline tool, and what `etcdctl` shares with it.
//!
//! * [`table`] prints tables as Go's tools do; [`url`] reads lists of peer URLs.
//! * `status`, `hashkv`, `restore`, `defrag`, `migrate`, `recover`, `auth`, `bbolt` are the commands; [`PROGRAM`] is their table.
//! * [`dump`] has etcd's tools for developers.
//!
//! Invariants: files are damaged until proved otherwise (an error names the cause, nothing panics); a command that reads
//! changes nothing; a command that writes makes its result durable before it says so.

mod auth;
mod bbolt;
mod cluster;
mod defrag;
pub mod documents;
pub mod dump;
mod file;
mod hashkv;
mod log;
mod membership;
mod migrate;
mod out;
mod pages;
mod recover;
mod restore;
mod standing;
mod status;
pub mod table;
pub mod url;
mod verify;

pub use restore::{FLAGS as RESTORE_FLAGS, run as snapshot_restore};
pub use status::run as snapshot_status;

/// What reads bytes from outside, opened to the fuzzer.
#[doc(hidden)]
pub mod decoders {
    pub use crate::cluster::{initial_cluster, url_list};
    pub use crate::migrate::needed_by_entry;
    pub use crate::standing::member_of;
}

use cobra::{Call, Command, Exit, Flag, Kind, Parsed, Program, completion, help_command};

const GLOBALS: &[Flag] = &[
    Flag::new("write-out", Kind::Text, "simple", "output format: fields, json, protobuf, simple or table").short('w'),
    Flag::new("timeout", Kind::Duration, "10s", "how long to wait for a database that is locked (0: for ever)"),
];

/// etcdutl.
pub static PROGRAM: Program = Program {
    root: Command { usage: "etcdutl", persistent: GLOBALS, commands: COMMANDS, ..Command::EMPTY },
    groups: &[],
    pointer: "",
    repeats_errors: cobra::Repeats::Line,
};

const COMMANDS: &[Command] = &[
    auth::COMMAND,
    bbolt::COMMAND,
    Command {
        usage: "recover <data dir> [data dir...] [--data-dir {output dir}] [options]",
        short: "Finds the member that has most, and makes a new cluster of what it has",
        flags: recover::FLAGS,
        run: Some(recover::run),
        ..Command::EMPTY
    },
    Command {
        usage: "defrag",
        short: "Gives unused space of a data directory's database back",
        flags: defrag::FLAGS,
        run: Some(defrag::run),
        ..Command::EMPTY
    },
    Command {
        usage: "snapshot",
        short: "Snapshot files of a member's database",
        commands: &[
            Command {
                usage: "restore <filename> --data-dir {output dir} [options]",
                short: "Makes a data directory from a snapshot file",
                flags: RESTORE_FLAGS,
                run: Some(snapshot_restore),
                ..Command::EMPTY
            },
            Command {
                usage: "status <filename>",
                short: "Prints hash, revision, keys and size of a snapshot file",
                run: Some(snapshot_status),
                ..Command::EMPTY
            },
        ],
        ..Command::EMPTY
    },
    Command {
        usage: "hashkv <filename>",
        short: "Prints a hash of a database file's key-value history",
        flags: hashkv::FLAGS,
        exactly: Some(1),
        run: Some(hashkv::run),
        ..Command::EMPTY
    },
    Command {
        usage: "migrate",
        short: "Makes a data directory fit another version of etcd",
        flags: migrate::FLAGS,
        run: Some(migrate::run),
        ..Command::EMPTY
    },
    Command { usage: "version", short: "Prints etcdutl's version", run: Some(version), ..Command::EMPTY },
    Command {
        usage: "completion [bash|zsh|fish|powershell]",
        short: "Prints a completion script for a shell",
        one_of: completion::SHELLS,
        run: Some(completion::run),
        ..Command::EMPTY
    },
    Command { usage: "help [command]", short: "Explains a command", run: Some(help_command), ..Command::EMPTY },
];

fn version(_: &mut Call) -> Result<(), Exit> {
    let api = api::version::CLUSTER.trim_end_matches(".0");
    println!("etcdutl version: {}\nAPI version: {api}", api::version::SERVER);
    Ok(())
}

/// Output formats that the commands here have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Fields,
    Json,
    Table,
    Protobuf,
}

impl Format {
    /// From `--write-out`.
    pub fn from_flags(given: &Parsed) -> Result<Format, Exit> {
        match given.text("write-out") {
            "simple" => Ok(Format::Simple),
            "fields" => Ok(Format::Fields),
            "json" => Ok(Format::Json),
            "table" => Ok(Format::Table),
            "protobuf" => Ok(Format::Protobuf),
            _ => Err(Exit::feature("unsupported output format")),
        }
    }
}

/// Prints one row. `row`: title, text for people, exact text; `fields` and `json` name the columns in those formats.
fn print(format: Format, row: &[(&str, String, String)], fields: &[&str], json: &[&str]) -> Result<(), Exit> {
    let text = match format {
        Format::Simple => row.iter().map(|(_, text, _)| text.as_str()).collect::<Vec<_>>().join(", ") + "\n",
        Format::Fields => {
            fields.iter().zip(row).map(|(name, (_, _, exact))| format!("\"{name}\" : {exact}\n")).collect()
        }
        Format::Json => {
            let value = |exact: &str| match exact.parse::<i128>() {
                Ok(_) => exact.to_owned(),
                Err(_) => go::json_string(exact),
            };
            let items = json.iter().zip(row).map(|(name, (_, _, exact))| format!("\"{name}\":{}", value(exact)));
            format!("{{{}}}\n", items.collect::<Vec<_>>().join(","))
        }
        Format::Table => {
            let headers: Vec<&str> = row.iter().map(|(title, _, _)| *title).collect();
            table::draw(&headers, &[row.iter().map(|(_, text, _)| text.clone()).collect()])
        }
        Format::Protobuf => return Err(Exit::feature("protobuf not supported as output format")),
    };
    print!("{text}");
    Ok(())
}
