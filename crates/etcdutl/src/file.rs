//! Opening database files without harm: read-only where reading is all, with a limit on the wait for their lock.

use cobra::{Call, Exit};

use bolt::{Db, Error, Options};
use disk::RealDisk;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a locked file is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Budget of the page cache, bytes.
const CACHE_BYTES: usize = 64 << 20;

/// What etcdctl's old spellings wait, which have no `--timeout`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// `--timeout`; zero: for ever.
pub fn lock_timeout(call: &Call) -> Duration {
    if call.given.value("timeout").is_none() {
        return LOCK_TIMEOUT;
    }
    match go::clamp(call.given.nanoseconds("timeout")) {
        Duration::ZERO => Duration::MAX,
        wait => wait,
    }
}

/// The file must be there: bolt would make it.
///
/// # Errors
/// `stat F: …`, code 1.
pub fn must_exist(path: &Path) -> Result<(), Exit> {
    std::fs::metadata(path).map(drop).map_err(|e| Exit::error(format!("stat {}: {}", path.display(), go::os_text(&e))))
}

/// Tries until it is done, or for so long.
///
/// # Errors
/// The attempt's own.
pub fn wait_for(patience: Duration, mut done: impl FnMut() -> Result<bool, Exit>) -> Result<bool, Exit> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() >= patience {
            return Ok(false);
        }
        std::thread::sleep(LOCK_POLL);
    }
    Ok(true)
}

/// Opens a database file, waiting for its lock.
///
/// # Errors
/// Locked for too long, or no database.
pub fn open(path: &Path, read_only: bool, patience: Duration) -> Result<Db, Exit> {
    let mut opened = None;
    wait_for(patience, || {
        let options = Options { read_only, cache_bytes: CACHE_BYTES, ..Options::default() };
        match Db::open(RealDisk::shared(), path, options) {
            Ok(db) => opened = Some(db),
            Err(Error::Locked { .. }) => return Ok(false),
            Err(e) => return Err(failed(e)),
        }
        Ok(true)
    })?;
    opened.ok_or_else(|| locked(path))
}

/// A file that somebody else has open.
pub fn locked(path: &Path) -> Exit {
    Exit::error(format!(
        "timeout: {} is locked, so a server has it open; stop the server, or ask it with etcdctl",
        path.display()
    ))
}

/// The page store's error, in the tools' words.
pub fn failed(e: Error) -> Exit {
    match e {
        Error::NotADatabase { path, what } => Exit::error(format!(
            "invalid database ({}: {what}); use another snapshot, or restore the file from a copy",
            path.display()
        )),
        Error::Locked { path } => locked(&path),
        other => Exit::error(other),
    }
}
