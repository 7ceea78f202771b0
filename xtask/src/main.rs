//! Project chores that need more than cargo.
//!
//! `cargo run -p xtask -- protos` writes the protobuf messages into `crates/api/src/pb/`. They are checked in, so a
//! user builds neither protoc nor a generator. `cargo run -p xtask -- protos --check` fails when the checked-in code
//! is stale. There are no service stubs: `crates/rpc/src/methods.rs` is the table of methods.
//!
//! `cargo run -p xtask -- docs` writes what is generated from the server's table of settings (`docs/configuration.md`,
//! `docs/etcd.conf.yml.sample`) and, of that and the command lines' tables, the manual pages; `docs --check` fails when one of
//! them is stale.
//!
//! `cargo run -p xtask -- dependencies` checks licences, sources and bans of everything in Cargo.lock.
//!
//! `cargo run -p xtask -- release` makes the tarball, the Debian package and the container images.

mod dependencies;
mod release;

use protox::prost::Message as _;
use protox::prost_reflect::prost_types;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const PROTOS: [&str; 13] = [
    "auth.proto",
    "etcdserver.proto",
    "health.proto",
    "kv.proto",
    "lease.proto",
    "membership.proto",
    "raft.proto",
    "raft_internal.proto",
    "record.proto",
    "rpc.proto",
    "snap.proto",
    "v3election.proto",
    "v3lock.proto",
];
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["protos"] => protos(false),
        ["protos", "--check"] => protos(true),
        ["docs"] => docs(false),
        ["docs", "--check"] => docs(true),
        ["dependencies"] => dependencies::check(),
        ["release", words @ ..] => release::run(words),
        _ => Err(format!("usage: xtask protos [--check] | docs [--check] | dependencies | {}", release::USAGE).into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: {e}");
            ExitCode::FAILURE
        }
    }
}

/// The programs know their tables; building them here would make every other chore wait for it.
fn docs(check: bool) -> Result<()> {
    for (package, example) in [("etcd", "documents"), ("etcdctl", "manuals")] {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = std::process::Command::new(cargo);
        command.args(["run", "--quiet", "--locked", "-p", package, "--example", example, "--"]);
        command.args(check.then_some("--check"));
        if !command.status()?.success() {
            return Err(format!("the documents are not what the tables of {package} say").into());
        }
    }
    Ok(())
}

fn protos(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let fds = protox::compile(PROTOS, [root.join("proto")])?;
    descriptors(fds.clone(), &root.join("crates/api/src/pb/descriptors.bin"), check)?;
    let scratch = std::env::temp_dir().join(format!("oxetcd-protos-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).out_dir(&scratch);
    config.compile_fds(fds)?;
    let outcome = install(&scratch, &root.join("crates/api/src/pb"), check);
    std::fs::remove_dir_all(&scratch)?;
    outcome
}

/// The messages' own description, which the JSON gateway works by: what is needed of it to read and write messages.
fn descriptors(mut fds: prost_types::FileDescriptorSet, target: &Path, check: bool) -> Result<()> {
    fds.file.iter_mut().for_each(|file| file.source_code_info = None);
    let fresh = fds.encode_to_vec();
    match check {
        false => std::fs::write(target, fresh)?,
        true if std::fs::read(target).ok().as_ref() == Some(&fresh) => {}
        true => return Err(format!("{} is stale: run `cargo run -p xtask -- protos`", target.display()).into()),
    }
    Ok(())
}

/// Copies the non-empty generated files over the checked-in ones, or compares them.
fn install(from: &Path, to: &Path, check: bool) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(from)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    for file in files {
        let fresh = std::fs::read_to_string(&file)?;
        if fresh.lines().all(|l| l.trim().is_empty() || l.starts_with("//")) {
            continue;
        }
        let target = to.join(file.file_name().ok_or("generated file without a name")?);
        if !check {
            std::fs::write(&target, fresh)?;
        } else if std::fs::read_to_string(&target).ok().as_deref() != Some(&fresh) {
            return Err(format!("{} is stale: run `cargo run -p xtask -- protos`", target.display()).into());
        }
    }
    Ok(())
}
