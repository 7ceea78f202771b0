//! `snapshot status`: what a database file holds, and a hash of all of it.

use crate::pages::{self, Raw};
use crate::{bbolt, file};
use cobra::{Call, Exit};

use api::pb::mvccpb::KeyValue;
use bolt::{Db, View};
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashSet;
use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

/// The bucket of revisions.
pub const KEY_BUCKET: &[u8] = b"key";

/// What `snapshot status` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over all buckets: names, keys, values.
    pub hash: u32,
    /// The newest revision.
    pub revision: i64,
    /// Live keys.
    pub total_key: usize,
    /// Bytes in use, free pages included.
    pub total_size: u64,
    /// The storage version; empty in files of releases before 3.6.
    pub version: String,
}

/// `snapshot status FILE`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    if call.args().len() != 1 {
        return Err(Exit::arguments("snapshot status requires exactly one argument"));
    }
    let path = call.arg(0);
    file::must_exist(Path::new(&path))?;
    let format = crate::Format::from_flags(&call.given)?;
    let db = file::open(Path::new(&path), true, file::lock_timeout(call))?;
    sound(Path::new(&path))?;
    let status = read(&db)?;
    crate::print(
        format,
        &[
            ("hash", format!("{:x}", status.hash), status.hash.to_string()),
            ("revision", status.revision.to_string(), status.revision.to_string()),
            ("total keys", status.total_key.to_string(), status.total_key.to_string()),
            ("total size", go::bytes_text(status.total_size), status.total_size.to_string()),
            ("version", status.version.clone(), status.version.clone()),
        ],
        &["Hash", "Revision", "Keys", "Size", "Version"],
        &["hash", "revision", "totalKey", "totalSize", "version"],
    )
}

/// Everything wrong with a file's pages is told at once.
fn sound(path: &Path) -> Result<(), Exit> {
    let raw = Raw::locked(path, Duration::ZERO)?;
    let faults = pages::check(&raw, None, bbolt::hex).map_err(Exit::error)?;
    if faults.is_empty() {
        return Ok(());
    }
    let (count, faults) = (faults.len(), faults.join("\n"));
    Err(Exit::error(format!("snapshot file integrity check failed. {count} errors found.\n{faults}")))
}

/// Reads a database file.
///
/// # Errors
/// A page, a revision or a value that can't be read.
pub fn read(db: &Db) -> Result<Status, Exit> {
    db.check().map_err(|e| Exit::error(format!("snapshot file integrity check failed. 1 errors found.\n{e}")))?;
    let view = db.view();
    let mut hash = 0;
    for name in view.buckets().map_err(file::failed)? {
        hash = crc32c::crc32c_append(hash, &name);
        for pair in view.range(&name, Bound::Unbounded, Bound::Unbounded).map_err(file::failed)? {
            let (key, value) = pair.map_err(file::failed)?;
            hash = crc32c::crc32c_append(hash, &key);
            hash = crc32c::crc32c_append(hash, &value);
        }
    }
    let (revision, total_key) = keys(&view)?;
    let version = view.get(b"meta", b"storageVersion").map_err(file::failed)?.unwrap_or_default();
    let version = String::from_utf8_lossy(&version).into_owned();
    Ok(Status { hash, revision, total_key, total_size: view.size(), version })
}

/// Newest revision, and how many keys are alive.
fn keys(view: &View) -> Result<(i64, usize), Exit> {
    let mut alive: HashSet<Bytes> = HashSet::new();
    let mut revision = 0;
    for record in records(view)? {
        let record = record?;
        revision = record.main;
        if record.tombstone {
            alive.remove(&record.key);
        } else {
            // The record's bytes lie in a page: a copy lets the page go.
            alive.insert(Bytes::copy_from_slice(&record.key));
        }
    }
    Ok((revision, alive.len()))
}

/// One record of the bucket `key`.
#[derive(Clone, Debug)]
pub struct Record {
    pub main: i64,
    pub sub: i64,
    pub tombstone: bool,
    pub key: Bytes,
    /// The key of the record, and its value, as they are stored.
    pub stored: (Bytes, Bytes),
}

/// All records, in the order of revisions.
///
/// # Errors
/// A page that can't be read; each record may fail too.
pub fn records(view: &View) -> Result<impl Iterator<Item = Result<Record, Exit>>, Exit> {
    let range = view.range(KEY_BUCKET, Bound::Unbounded, Bound::Unbounded).map_err(file::failed)?;
    Ok(range.map(|pair| record(pair.map_err(file::failed)?)))
}

/// `main u64 BE | '_' | sub u64 BE`, and `t` behind a tombstone's; the value is a `KeyValue`.
fn record((stored, value): (Bytes, Bytes)) -> Result<Record, Exit> {
    let number = |at: usize| stored.get(at..at + 8).and_then(|b| b.try_into().ok()).map(i64::from_be_bytes);
    let tombstone = match (stored.len(), stored.get(17)) {
        (17, None) => Some(false),
        (18, Some(b't')) => Some(true),
        _ => None,
    };
    let (Some(main), Some(sub), Some(tombstone), Some(b'_')) = (number(0), number(9), tombstone, stored.get(8)) else {
        let text = format!("bucket \"key\" holds {stored:?}, which is no revision; use another snapshot");
        return Err(Exit::error(text));
    };
    let kv = KeyValue::decode(value.clone()).map_err(|e| {
        Exit::error(format!("cannot unmarshal value of revision {main}.{sub}: {e}; use another snapshot"))
    })?;
    Ok(Record { main, sub, tombstone, key: kv.key, stored: (stored, value) })
}
