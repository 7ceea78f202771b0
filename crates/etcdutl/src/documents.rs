//! The manual page, from the table of commands.

use crate::PROGRAM;
use cobra::manual::{Page, manual};

const PAGE: Page = Page {
    about: "etcd's files, while no server uses them",
    description: &[
        "Works on the files of members that are stopped, and on snapshots: restores and inspects snapshots, defragments and \
         migrates data directories, hashes what is in them, looks into their pages, saves what is left of a lost cluster, and \
         gives root a new password. A running cluster is etcdctl's business.",
        "Files are locked: a command waits for --timeout, and is refused while a server has them open. Commands that only read \
         change nothing. What goes on is told on standard error.",
    ],
    environment: &[(
        "ETCD_VERIFY",
        "With all, storage_wal or assert: what a command has made or changed is checked before it says that it is done.",
    )],
    exit: &[
        ("0", "Done."),
        ("1", "A file, the disk or the command line is no good; the first line of standard error says why."),
        ("4", "An output format that the command does not have."),
        ("128", "Wrong arguments."),
    ],
    see_also: &["etcd", "etcdctl"],
};

/// `etcdutl.1`.
pub fn page() -> String {
    manual(&PROGRAM, env!("CARGO_PKG_VERSION"), &PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_fresh() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/man/etcdutl.1");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == page(), "docs/man/etcdutl.1 is stale: run `cargo run -p xtask -- docs`");
        for words in
            ["snapshot restore <filename>", "bbolt surgery freelist rebuild", "auth reset\\-root", "recover <data"]
        {
            assert!(kept.contains(&format!(".SS etcdutl {words}")), "{words}");
        }
    }
}
