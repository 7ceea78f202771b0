//! `hashkv`: the hash that the HashKV request answers, computed from a file. The file is only read.

use crate::file;
use crate::status::{Record, records};
use bolt::View;
use bytes::Bytes;
use cobra::{Call, Exit, Flag, Kind};
use std::collections::HashMap;
use std::path::Path;

/// Flags of `hashkv`.
pub static FLAGS: &[Flag] =
    &[Flag::new("rev", Kind::Int, "0", "newest revision to hash (default: the newest there is)")];

/// A hash and what it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    pub revision: i64,
    /// -1: never compacted.
    pub compact_revision: i64,
}

/// `hashkv FILE`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let path = call.arg(0);
    let format = crate::Format::from_flags(&call.given)?;
    file::must_exist(Path::new(&path))?;
    let db = file::open(Path::new(&path), true, file::lock_timeout(call))?;
    let hash = of(&db.view(), call.given.int("rev"))?;
    let row = |title, n: String| (title, n.clone(), n);
    crate::print(
        format,
        &[
            row("hash", hash.hash.to_string()),
            row("hash revision", hash.revision.to_string()),
            row("compact revision", hash.compact_revision.to_string()),
        ],
        &["Hash", "Hash revision", "Compact revision"],
        &["hash", "hashRevision", "compactRevision"],
    )
}

/// The hash of all records up to `revision` (0: all), as `mvcc`'s `hashByRev` computes it.
///
/// # Errors
/// A revision that is compacted or not there yet, or a file that can't be read.
pub fn of(view: &View, revision: i64) -> Result<KvHash, Exit> {
    let compacted = compact_revision(view)?;
    let mut newest = 1.max(compacted);
    // Where each key stood at the revision; a deleted key is not kept.
    let mut kept: HashMap<Bytes, (i64, i64)> = HashMap::new();
    for record in records(view)? {
        let record = record?;
        newest = newest.max(record.main);
        if revision != 0 && record.main > revision {
            continue;
        }
        let key = Bytes::copy_from_slice(&record.key);
        match record.tombstone {
            true => drop(kept.remove(&key)),
            false => drop(kept.insert(key, (record.main, record.sub))),
        }
    }
    if revision > 0 && revision < compacted {
        return Err(Exit::error("mvcc: required revision has been compacted"));
    }
    if revision > newest {
        return Err(Exit::error("mvcc: required revision is a future revision"));
    }
    let at = if revision == 0 { newest } else { revision };
    let mut crc = crc32c::crc32c(crate::status::KEY_BUCKET);
    for record in records(view)? {
        let record = record?;
        if counts(&record, at, compacted, &kept) {
            crc = crc32c::crc32c_append(crc, &record.stored.0);
            crc = crc32c::crc32c_append(crc, &record.stored.1);
        }
    }
    Ok(KvHash { hash: crc, revision: at, compact_revision: compacted })
}

/// Records that a compaction is about to remove don't count, so that members agree however far they are with it.
fn counts(record: &Record, at: i64, compacted: i64, kept: &HashMap<Bytes, (i64, i64)>) -> bool {
    if record.main > at || record.tombstone && record.main == compacted {
        return false;
    }
    kept.is_empty() || record.main > compacted || kept.get(&record.key) == Some(&(record.main, record.sub))
}

/// The last compaction that was begun.
fn compact_revision(view: &View) -> Result<i64, Exit> {
    let mut newest = -1;
    for name in [&b"scheduledCompactRev"[..], b"finishedCompactRev"] {
        let stored = view.get(b"meta", name).map_err(file::failed)?.unwrap_or_default();
        if let Some(main) = stored.get(..8).and_then(|b| b.try_into().ok()).map(i64::from_be_bytes) {
            newest = newest.max(main);
        }
    }
    Ok(newest)
}
