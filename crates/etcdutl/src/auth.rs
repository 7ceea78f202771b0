//! `auth reset-root`: makes root usable again when nobody knows its password, by changing a stopped member's database.
//!
//! A cluster's members must stay alike, so the command is given on each of them, with the same password: the hash's salt is
//! made of the cluster's id and the revision of its users, and the outcome is the same to the byte. It is refused where the
//! log has committed entries that the database lacks: they carry the revision of users that they were allowed by, and would
//! be turned down after it. An orderly stop leaves none.

use crate::standing::Standing;
use crate::{file, verify};
use api::pb::authpb::{Role, User, UserAddOptions};
use bolt::{Fill, View};
use bytes::Bytes;
use cobra::{Call, Command, Exit, Flag, Kind};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;

const ROOT: &str = "root";
/// A password is read up to this size.
const BYTES_MAX: u64 = 1 << 16;
/// bcrypt looks at no more.
const PASSWORD_MAX: usize = 72;
const COSTS: std::ops::RangeInclusive<u64> = 4..=31;

/// `auth …`.
pub const COMMAND: Command = Command {
    usage: "auth",
    short: "Users of a stopped member",
    commands: &[Command {
        usage: "reset-root",
        short: "Gives root a new password, or turns authentication off",
        long: "Gives the user root a new password, and the role root with all its rights, in the database of a member that is \
               stopped; or, with --disable, turns authentication off. Users, roles and keys stay as they are otherwise.\n\n\
               The password is the first line of standard input, or of --password-file. Stop all members of the cluster, in \
               an orderly way (SIGTERM), give the command with the same password on each of them, and then start them: \
               members that differ in their users diverge.",
        flags: &[
            Flag::new("data-dir", Kind::Text, "", "data directory that no server uses now (required)").required(),
            Flag::new("wal-dir", Kind::Text, "", "directory of the log (default: inside the data directory)"),
            Flag::new(
                "password-file",
                Kind::Text,
                "",
                "file whose first line is the new password (default: standard input)",
            ),
            Flag::new("bcrypt-cost", Kind::Uint, "10", "cost of the password's hash, 4 to 31; the same on all members"),
            Flag::switch("disable", "turn authentication off, and leave root's password as it is"),
        ],
        exactly: Some(0),
        run: Some(reset_root),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

fn reset_root(call: &mut Call) -> Result<(), Exit> {
    let given = &call.given;
    let (disable, cost) = (given.is_true("disable"), given.uint("bcrypt-cost"));
    if disable && given.was_given("password-file") {
        return Err(Exit::arguments("--disable leaves the password as it is: give it or --password-file"));
    }
    if !COSTS.contains(&cost) {
        return Err(Exit::arguments(format!("--bcrypt-cost={cost}: a cost is 4 to 31")));
    }
    let dir = Path::new(given.text("data-dir")).to_owned();
    let wal_dir = Some(given.text("wal-dir")).filter(|dir| !dir.is_empty()).map(Path::new);
    let patience = file::lock_timeout(call);
    let standing = Standing::of(&dir, wal_dir, patience)?;
    complete(&standing)?;
    let change = change(&standing, disable, || password(call, cost as u32, &standing))?;
    let others = standing.members.len().saturating_sub(1);
    drop(standing);
    write(&dir.join("member/snap/db"), patience, &change)?;
    verify::directory(&dir, wal_dir)?;
    explain(&dir, disable, &change, others);
    Ok(())
}

/// Nothing may be applied later that was allowed by the users as they are now.
fn complete(standing: &Standing) -> Result<(), Exit> {
    let (applied, commit) = (standing.applied, standing.state.commit);
    if applied >= commit {
        return Ok(());
    }
    Err(Exit::error(format!(
        "{}: the log has committed entries up to index {commit}, and the database has them up to {applied}: the member was not \
         stopped in an orderly way. Start it, stop it with SIGTERM, and give this command again",
        standing.dir.display()
    )))
}

/// What is written.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    /// Bucket, key and value.
    records: Vec<(&'static str, Bytes, Bytes)>,
    was_enabled: bool,
    revision: u64,
}

fn get(view: &View, bucket: &str, key: &str) -> Result<Option<Bytes>, Exit> {
    view.get(bucket.as_bytes(), key.as_bytes()).map_err(file::failed)
}

/// The revision of users and roles.
fn revision(view: &View) -> Result<u64, Exit> {
    let stored = get(view, "auth", "authRevision")?.unwrap_or_default();
    Ok(stored.get(..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

fn change(standing: &Standing, disable: bool, hash: impl FnOnce() -> Result<Bytes, Exit>) -> Result<Change, Exit> {
    let view = standing.db.view();
    let revision = revision(&view)? + 1;
    let was_enabled = get(&view, "auth", "authEnabled")?.is_some_and(|flag| *flag == [1]);
    let mut records = vec![("auth", "authRevision".into(), revision.to_be_bytes().to_vec().into())];
    if disable {
        records.push(("auth", "authEnabled".into(), Bytes::from_static(&[0])));
        return Ok(Change { records, was_enabled, revision });
    }
    let stored = get(&view, "authUsers", ROOT)?.unwrap_or_default();
    let mut user = User::decode(stored).map_err(|e| Exit::error(format!("the user root can't be read: {e}")))?;
    user.name = ROOT.into();
    user.password = hash()?;
    // A user without a password may not log in with one.
    user.options = Some(UserAddOptions::default());
    if !user.roles.iter().any(|role| role == ROOT) {
        user.roles.push(ROOT.into());
        user.roles.sort();
    }
    records.push(("authUsers", ROOT.into(), user.encode_to_vec().into()));
    if get(&view, "authRoles", ROOT)?.is_none() {
        let role = Role { name: ROOT.into(), ..Role::default() };
        records.push(("authRoles", ROOT.into(), role.encode_to_vec().into()));
    }
    Ok(Change { records, was_enabled, revision })
}

/// The hash of the password that is given; the same at all members of the cluster.
fn password(call: &Call, cost: u32, standing: &Standing) -> Result<Bytes, Exit> {
    let mut text = Vec::new();
    let name = call.given.text("password-file");
    let failed = |e: std::io::Error| {
        let from = if name.is_empty() { "standard input" } else { name };
        Exit::error(format!("the password can't be read from {from}: {}", go::os_text(&e)))
    };
    match name {
        "" => std::io::stdin().take(BYTES_MAX).read_to_end(&mut text),
        name => std::fs::File::open(name).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text)),
    }
    .map_err(failed)?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Exit::error("no password was given: its first line is empty"));
    }
    if line.len() > PASSWORD_MAX {
        return Err(Exit::error(format!("bcrypt: password length exceeds {PASSWORD_MAX} bytes")));
    }
    let seed = Sha256::new()
        .chain_update(b"etcdutl auth reset-root")
        .chain_update(standing.cluster.to_be_bytes())
        .chain_update(revision(&standing.db.view())?.to_be_bytes())
        .finalize();
    let salt = std::array::from_fn(|at| seed[at]);
    let parts = bcrypt::hash_with_salt(line, cost, salt).map_err(Exit::error)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoA).into_bytes().into())
}

/// One transaction: all of it or nothing.
fn write(path: &Path, patience: std::time::Duration, change: &Change) -> Result<(), Exit> {
    let db = file::open(path, false, patience)?;
    let mut tx = db.begin().map_err(file::failed)?;
    for (bucket, key, value) in &change.records {
        tx.create_bucket(bucket.as_bytes()).map_err(file::failed)?;
        tx.put(bucket.as_bytes(), key.clone(), value.clone(), Fill::Half).map_err(file::failed)?;
    }
    tx.commit().map_err(file::failed)
}

fn explain(dir: &Path, disable: bool, change: &Change, others: usize) {
    let dir = dir.display();
    match (disable, change.was_enabled) {
        (true, true) => println!("{dir}: authentication is off. To turn it on again: etcdctl auth enable"),
        (true, false) => println!("{dir}: authentication was off already"),
        (false, true) => println!("{dir}: root has a new password, and the role root"),
        (false, false) => println!("{dir}: root has a new password, and the role root; authentication is off"),
    }
    println!("auth revision: {}", change.revision);
    if others > 0 {
        let same = if disable { "the same command" } else { "the same command with the same password" };
        println!("The cluster has {others} other members: give {same} on each of them before you start any.");
    }
}
