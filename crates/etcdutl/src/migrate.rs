//! `migrate`: makes a data directory fit another minor version of etcd, while no server has it open.
//!
//! Between 3.5, 3.6 and 3.7 one field differs: `meta/storageVersion`, which 3.5 does not know. A directory goes up or
//! down one minor at a time; it goes down only where the log holds nothing that the older version can't read.

use crate::{file, log};
use api::pb::etcdserverpb::InternalRaftRequest;
use api::raft::{Entry, EntryKind};
use api::version::Version;
use bolt::{Db, Fill, View};
use cobra::{Call, Exit, Flag, Kind};
use disk::RealDisk;
use go::log_string;
use prost::Message as _;
use std::path::Path;
use wal::Wal;

/// Flags of `migrate`.
pub static FLAGS: &[Flag] = &[
    Flag::new("data-dir", Kind::Text, "", "data directory that no server uses now (required)").required(),
    Flag::new("target-version", Kind::Text, "", "version to fit, such as 3.6; 3.5 at least (required)").required(),
    Flag::switch("force", "set the version even where the data may not fit it: that version may not start"),
];

const META: &[u8] = b"meta";
const STORAGE_VERSION: &[u8] = b"storageVersion";
const TERM: &[u8] = b"term";
/// The oldest version there is a way to.
const OLDEST: Version = minor(3, 5);
/// Versions that have the field, each with a step to and from the one before it.
const STEPS: &[Version] = &[minor(3, 6), minor(3, 7)];

const fn minor(major: u64, minor: u64) -> Version {
    Version { major, minor, patch: 0 }
}

/// `migrate --data-dir DIR --target-version X.Y`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let target = target(call.given.text("target-version")).map_err(Exit::arguments)?;
    let dir = Path::new(call.given.text("data-dir"));
    let path = dir.join("member/snap/db");
    file::must_exist(&path)?;
    let db = file::open(&path, false, file::lock_timeout(call))?;
    let present = present(&db.view())?;
    if present == target {
        let version = ("storage-version", log_string(&short(present)));
        log::info("etcdutl/migrate_command.go:138", "storage version up-to-date", &[version]);
        return Ok(());
    }
    let needed = needed_by_log(&dir.join("member/wal")).map_err(|why| {
        log::error("etcdutl/migrate_command.go:143", "Failed to finalize config", &[("error", log_string(&why))]);
        Exit::error(why)
    })?;
    let outcome = match steps(present, target).and_then(|steps| readable(present, target, needed).map(|()| steps)) {
        Ok(steps) => take(&db, &steps),
        Err(why) if call.given.is_true("force") => force(&db, target, &why),
        Err(why) => Err(Exit::error(why)),
    };
    drop(db);
    outcome?;
    crate::verify::directory(dir, None)
}

/// Reads `--target-version`, refusing with the texts of etcd and of go-semver.
fn target(text: &str) -> Result<Version, String> {
    if text.matches('.').count() != 1 {
        return Err(format!("wrong target version format, expected \"X.Y\", got {}", go::quote(text)));
    }
    let failed = |why: String| format!("failed to parse target version: {why}");
    // go-semver cuts these off before it counts the dots, and of two one is etcd's own.
    let core = text.split(['+', '-']).next().unwrap_or_default();
    if core != text {
        return Err(failed(format!("{core} is not in dotted-tri format")));
    }
    let number = |digits: &str| go::parse_int(digits, 10).map_err(|e| failed(e.to_string()));
    let (x, y) = text.split_once('.').unwrap_or((text, ""));
    // Without a sign no number is negative.
    let version = minor(number(x)?.unsigned_abs(), number(y)?.unsigned_abs());
    if version < OLDEST {
        return Err(format!("target version {} not supported. Minimal \"3.5\"", go::quote(short(version))));
    }
    Ok(version)
}

/// `3.6`.
fn short(version: Version) -> String {
    format!("{}.{}", version.major, version.minor)
}

/// The version whose servers left the database: the field, or 3.5 where there is none.
fn present(view: &View) -> Result<Version, Exit> {
    let stored = |name: &[u8]| view.get(META, name).map_err(file::failed).map(Option::unwrap_or_default);
    if let Some(version) = std::str::from_utf8(&stored(STORAGE_VERSION)?).ok().and_then(Version::parse) {
        return Ok(version);
    }
    if stored(TERM)?.iter().any(|byte| *byte != 0) {
        return Ok(OLDEST);
    }
    log::error(
        "etcdutl/migrate_command.go:134",
        "failed to detect storage version. Please make sure you are using data dir from etcd v3.5 and older",
        &[],
    );
    Err(Exit::error("missing term information"))
}

/// The oldest version that can read what the log holds since its last snapshot. `None`: any.
fn needed_by_log(dir: &Path) -> Result<Option<Version>, String> {
    let disk = RealDisk::shared();
    let snapshots = wal::valid_snapshots(&disk, dir).map_err(|e| format!("failed to get the lastest snapshot: {e}"))?;
    let newest = snapshots.last().cloned().unwrap_or_default();
    let log = Wal::read_only(&disk, dir, &newest).map_err(|e| format!("failed to read wal: {e}"))?;
    let needed: Result<Vec<_>, String> = log.entries.iter().map(needed_by_entry).collect();
    Ok(needed?.into_iter().flatten().max())
}

/// One request is newer than 3.5: a mark that names a version by itself, for tests of downgrades.
///
/// # Errors
/// The entry is no request, or its mark no version.
pub fn needed_by_entry(entry: &Entry) -> Result<Option<Version>, String> {
    if entry.kind != EntryKind::Normal {
        return Ok(None);
    }
    let failed = |why: &dyn std::fmt::Display| format!("failed to read wal: entry {}: {why}", entry.index);
    let request = InternalRaftRequest::decode(entry.data.clone()).map_err(|e| failed(&e))?;
    let Some(mark) = request.downgrade_version_test else { return Ok(None) };
    let version = Version::parse(&mark.ver).ok_or_else(|| failed(&format!("{:?} is no version", mark.ver)))?;
    Ok(Some(version.max(minor(3, 6))))
}

/// The versions on the way, the last of them the target.
fn steps(present: Version, target: Version) -> Result<Vec<Version>, String> {
    let failed = |why: &str| format!("cannot create migration plan: {why}");
    if present.major != target.major {
        let versions =
            [("storage-version", present), ("target-storage-version", target)].map(|(name, v)| (name, quoted(v)));
        log::error("schema/migration.go:33", "Changing major storage version is not supported", &versions);
        return Err(failed("changing major storage version is not supported"));
    }
    let (mut at, mut steps) = (minor(present.major, present.minor), Vec::new());
    while at != target {
        let up = at < target;
        // What a step changes belongs to the newer of its two versions.
        let newer = if up { minor(at.major, at.minor + 1) } else { at };
        if !STEPS.contains(&newer) {
            return Err(failed(&format!("version \"{newer}\" is not supported")));
        }
        at = if up { newer } else { minor(at.major, at.minor - 1) };
        steps.push(at);
    }
    Ok(steps)
}

fn readable(present: Version, target: Version, needed: Option<Version>) -> Result<(), String> {
    match needed.filter(|needed| target < present && target < *needed) {
        None => Ok(()),
        Some(needed) => Err(format!(
            "cannot downgrade storage, WAL contains newer entries, as the target version ({target}) is lower than the \
             version ({needed}) detected from WAL logs"
        )),
    }
}

fn quoted(version: Version) -> String {
    log_string(&version.to_string())
}

fn take(db: &Db, steps: &[Version]) -> Result<(), Exit> {
    if let Some(last) = steps.last() {
        store(db, *last)?;
    }
    for step in steps {
        let version = ("new-storage-version", quoted(*step));
        log::info("schema/migration.go:65", "updated storage version", &[version]);
    }
    Ok(())
}

fn force(db: &Db, target: Version, why: &str) -> Result<(), Exit> {
    let error = ("error", log_string(why));
    log::info("etcdutl/migrate_command.go:152", "normal migrate failed, trying with force", &[error]);
    store(db, target)?;
    if target > OLDEST {
        let version = ("storage-version", log_string(&short(target)));
        log::warn("etcdutl/migrate_command.go:168", "forcefully set storage version", &[version]);
    } else {
        log::warn("etcdutl/migrate_command.go:165", "forcefully cleared storage version", &[]);
    }
    Ok(())
}

/// Sets the field, or clears it for 3.5. Durable when this returns.
fn store(db: &Db, version: Version) -> Result<(), Exit> {
    let mut tx = db.begin().map_err(file::failed)?;
    if version > OLDEST {
        let text = version.to_string();
        tx.put(META, STORAGE_VERSION.into(), text.into(), Fill::Half).map_err(file::failed)?;
    } else {
        tx.delete(META, STORAGE_VERSION).map_err(file::failed)?;
    }
    tx.commit().map_err(file::failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::etcdserverpb::DowngradeVersionTestRequest;

    #[test]
    fn target_versions_are_read_as_go_reads_them() {
        assert_eq!(target("3.6"), Ok(minor(3, 6)));
        for (text, why) in [
            ("3", "wrong target version format, expected \"X.Y\", got \"3\""),
            ("3.6.0", "wrong target version format, expected \"X.Y\", got \"3.6.0\""),
            ("3.x", "failed to parse target version: strconv.ParseInt: parsing \"x\": invalid syntax"),
            (".6", "failed to parse target version: strconv.ParseInt: parsing \"\": invalid syntax"),
            ("3.6-rc", "failed to parse target version: 3.6 is not in dotted-tri format"),
            ("3.6+a-b", "failed to parse target version: 3.6 is not in dotted-tri format"),
            ("-3.6", "failed to parse target version:  is not in dotted-tri format"),
            ("3.4", "target version \"3.4\" not supported. Minimal \"3.5\""),
        ] {
            assert_eq!(target(text).as_ref().map_err(String::as_str), Err(why), "{text}");
        }
    }

    #[test]
    fn the_way_is_one_minor_at_a_time() {
        assert_eq!(steps(minor(3, 5), minor(3, 7)), Ok(vec![minor(3, 6), minor(3, 7)]));
        assert_eq!(steps(minor(3, 7), minor(3, 5)), Ok(vec![minor(3, 6), minor(3, 5)]));
        for (present, target, what) in [
            (minor(3, 7), minor(3, 8), "3.8.0"),
            (minor(3, 9), minor(3, 6), "3.9.0"),
            (minor(3, 4), minor(3, 5), "3.5.0"),
        ] {
            let text = format!("cannot create migration plan: version \"{what}\" is not supported");
            assert_eq!(steps(present, target), Err(text));
        }
    }

    #[test]
    fn a_log_with_newer_requests_keeps_its_version() {
        let marked = |ver: &str| {
            let mark = DowngradeVersionTestRequest { ver: ver.into() };
            let request = InternalRaftRequest { downgrade_version_test: Some(mark), ..Default::default() };
            needed_by_entry(&Entry { data: request.encode_to_vec().into(), ..Entry::default() })
        };
        assert_eq!(needed_by_entry(&Entry::default()), Ok(None));
        assert_eq!(marked("3.0.0"), Ok(Some(minor(3, 6))));
        assert_eq!(marked("3.7.0"), Ok(Some(minor(3, 7))));
        assert!(marked("x").is_err());
        assert_eq!(readable(minor(3, 7), minor(3, 6), Some(minor(3, 6))), Ok(()));
        assert_eq!(readable(minor(3, 5), minor(3, 6), Some(minor(3, 7))), Ok(()), "going up is always possible");
        assert!(readable(minor(3, 7), minor(3, 6), Some(minor(3, 7))).is_err());
    }
}
