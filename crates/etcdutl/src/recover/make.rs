//! The new member's files: the database, with what its log has besides, as if a snapshot of that were restored.

use crate::log;
use crate::restore::Plan;
use crate::standing::Standing;
use api::raft::EntryKind;
use cobra::Exit;
use disk::RealDisk;
use go::log_string;
use std::fs::File;
use std::path::Path;
use store::{Options, Store};

/// Changes are written when they have this size, bytes.
const WRITE_BYTES: usize = 16 << 20;
/// Budget of the page cache, bytes.
const CACHE_BYTES: usize = 64 << 20;
/// What a cluster of etcd's allows unless its flags say otherwise: entries mean the same here as they did there.
const LEARNERS_MAX: usize = 1;
/// The shortest lease with etcd's own election timeout, seconds.
const LEASE_TTL_MIN: i64 = 2;

/// Makes a new cluster's member of the files of an old one's.
pub fn make(best: &Standing, plan: &Plan) -> Result<(), Exit> {
    let path = best.dir.join("member/snap/db");
    let failed = |e: std::io::Error| Exit::error(format!("{}: {}", path.display(), go::os_text(&e)));
    // Locked for as long as `best` lives.
    let mut source = File::open(&path).map_err(failed)?;
    plan.copy(&mut source, best.db.size())?;
    apply(best, &plan.database())?;
    plan.found()
}

/// Applies what the log has and the database lacks.
fn apply(best: &Standing, path: &Path) -> Result<(), Exit> {
    let options = Options {
        cache_bytes: CACHE_BYTES,
        max_learners: LEARNERS_MAX,
        min_lease_ttl: LEASE_TTL_MIN,
        ..Options::default()
    };
    let mut store = Store::open(RealDisk::shared(), path, options).map_err(Exit::error)?;
    let missing: Vec<_> = best.entries.iter().filter(|entry| entry.index > best.applied).collect();
    for entry in &missing {
        match entry.kind {
            EntryKind::Normal => drop(store.apply(entry).map_err(Exit::error)?),
            EntryKind::ConfChange => drop(store.apply_conf_change(entry).map_err(Exit::error)?),
            EntryKind::ConfChangeV2 => {
                return Err(Exit::error(format!("log entry {} is of a kind that etcd never writes", entry.index)));
            }
        }
        if store.overlay_bytes() > WRITE_BYTES {
            write(&mut store)?;
        }
    }
    write(&mut store)?;
    let (first, last) = (best.applied + 1, best.last().1);
    if !missing.is_empty() {
        let path = log_string(&path.display().to_string());
        let fields = [("path", path), ("first-index", first.to_string()), ("last-index", last.to_string())];
        log::info("recover/make.rs", "applied the rest of the log", &fields);
    }
    Ok(())
}

/// Writes what was applied into the file.
fn write(store: &mut Store) -> Result<(), Exit> {
    // What watchers would be told, and nobody here asks for.
    drop(store.publish());
    let Some(mut checkpoint) = store.freeze() else { return Ok(()) };
    checkpoint.run(&|_| ()).map_err(Exit::error)?;
    store.checkpointed(checkpoint).map_err(Exit::error)
}
