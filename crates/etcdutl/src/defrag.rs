//! `defrag`: writes a member's database anew, without free pages, while no server has it open.

use crate::file;
use crate::log;
use cobra::{Call, Exit, Flag, Kind};
use disk::RealDisk;
use go::log_string;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Flags of `defrag`.
pub static FLAGS: &[Flag] =
    &[Flag::new("data-dir", Kind::Text, "", "data directory that no server uses now (required)").required()];

/// `defrag --data-dir DIR`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let dir = call.given.text("data-dir").to_owned();
    let db = Path::new(&dir).join("member/snap/db");
    defragment(&db, file::lock_timeout(call)).map_err(|exit| {
        let why = exit.error.unwrap_or_default();
        Exit::error(format!("Failed to defragment etcd data[{dir}] ({why})"))
    })?;
    crate::verify::directory(Path::new(&dir), None)
}

fn sizes(db: &bolt::Db) -> [(&'static str, String); 4] {
    let (size, used) = (db.size(), db.in_use_bytes());
    [
        ("current-db-size-bytes", size.to_string()),
        ("current-db-size", log_string(&go::bytes_text(size))),
        ("current-db-size-in-use-bytes", used.to_string()),
        ("current-db-size-in-use", log_string(&go::bytes_text(used))),
    ]
}

fn defragment(path: &Path, patience: Duration) -> Result<(), Exit> {
    file::must_exist(path)?;
    let start = Instant::now();
    let db = file::open(path, false, patience)?;
    let shown = ("path", log_string(&path.display().to_string()));
    let (size, used) = (db.size(), db.in_use_bytes());
    let fields: Vec<_> = [shown.clone()].into_iter().chain(sizes(&db)).collect();
    log::info("backend/backend.go:532", "defragmenting", &fields);
    let temporary = temporary(path);
    let outcome = db.compact_to(RealDisk::shared(), &temporary).map_err(file::failed).and_then(|()| {
        std::fs::rename(&temporary, path)
            .and_then(|()| std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all())
            .map_err(|e| Exit::error(format!("rename {}: {}", temporary.display(), go::os_text(&e))))
    });
    if outcome.is_err() {
        // The old file is as it was; a leftover is cleared by the server's next start.
        let _ = std::fs::remove_file(&temporary);
    }
    outcome?;
    drop(db);
    let db = file::open(path, false, patience)?;
    let took = ("took", log_string(&go::format_duration(start.elapsed())));
    let grown = |now: u64, before: u64| (i128::from(now) - i128::from(before)).to_string();
    let [bytes, text, used_bytes, used_text] = sizes(&db);
    let fields = [
        shown,
        ("current-db-size-bytes-diff", grown(db.size(), size)),
        bytes,
        text,
        ("current-db-size-in-use-bytes-diff", grown(db.in_use_bytes(), used)),
        used_bytes,
        used_text,
        took,
    ];
    log::info("backend/backend.go:602", "finished defragmenting directory", &fields);
    Ok(())
}

/// A name that a server's start would clear away.
fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!("db.tmp.{}", std::process::id()))
}
