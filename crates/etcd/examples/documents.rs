//! Writes what is generated from the table of settings; with `--check` only says what is stale. For `xtask docs`.

use etcd::config::documents::DOCUMENTS;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = false;
    for (path, fresh) in DOCUMENTS {
        let fresh = fresh();
        if std::fs::read_to_string(root.join(path)).ok().as_ref() == Some(&fresh) {
            continue;
        }
        if check {
            eprintln!("{path} is stale: run `cargo run -p xtask -- docs`");
            stale = true;
        } else if let Err(e) = std::fs::write(root.join(path), fresh) {
            eprintln!("{path}: {e}");
            stale = true;
        }
    }
    if stale { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
