//! `compact`: a copy without free pages.

use super::{print, source};
use crate::file;
use cobra::{Call, Exit, Flag, Kind};
use disk::RealDisk;
use std::path::Path;

/// Flags of `compact`.
pub const FLAGS: &[Flag] = &[
    Flag::new("output", Kind::Text, "", "file to make (required)").short('o').required(),
    Flag::new("tx-max-size", Kind::Int, "65536", "has no effect: the copy counts once all of it is written"),
    Flag::switch("no-sync", "has no effect: the copy is durable when the command ends"),
];

/// `compact -o TARGET SOURCE`.
pub fn run(call: &mut Call) -> Result<(), Exit> {
    let (path, target) = (source(call)?, call.given.text("output").to_owned());
    if target.is_empty() {
        return Err(Exit::error("output file required"));
    }
    let target = Path::new(&target);
    let size = |path: &Path| {
        let size = std::fs::metadata(path).map(|found| found.len());
        size.map_err(|e| Exit::error(format!("stat {}: {}", path.display(), go::os_text(&e))))
    };
    if target.exists() {
        return Err(Exit::error(format!("{} exists: give the name of a new file", target.display())));
    }
    let db = file::open(&path, true, file::lock_timeout(call))?;
    let before = size(&path)?;
    if let Err(e) = db.compact_to(RealDisk::shared(), target) {
        // Half a copy is none.
        let _ = std::fs::remove_file(target);
        return Err(file::failed(e));
    }
    let after = size(target)?;
    // Sizes of files are far below what a float holds exactly.
    #[allow(clippy::cast_precision_loss)]
    let gain = before as f64 / after as f64;
    print([format!("{before} -> {after} bytes (gain={gain:.2}x)")])
}
