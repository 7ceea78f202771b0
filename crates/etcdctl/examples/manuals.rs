//! Writes the manual pages of the command lines; with `--check` only says what is stale. For `xtask docs`.

use std::path::Path;
use std::process::ExitCode;

/// Path in the repository, and what belongs there.
type Page = (&'static str, fn() -> String);

const PAGES: [Page; 2] =
    [("docs/man/etcdctl.1", etcdctl::documents::page), ("docs/man/etcdutl.1", etcdutl::documents::page)];

fn main() -> ExitCode {
    let check = std::env::args().nth(1).as_deref() == Some("--check");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = false;
    for (path, fresh) in PAGES {
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
