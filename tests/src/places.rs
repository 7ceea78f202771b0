//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// Our server: `OXETCD_BIN`, else `etcd` in `target/release` or `target/debug` (the newer one) around this test.
///
/// Panics when there is none: a black-box test without a server proves nothing.
pub fn our_etcd() -> PathBuf {
    if let Some(path) = std::env::var_os("OXETCD_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let mut found: Vec<PathBuf> = test
        .ancestors()
        .filter(|dir| dir.file_name().is_some_and(|name| name == "target"))
        .flat_map(|target| [target.join("release/etcd"), target.join("debug/etcd")])
        .filter(|path| path.is_file())
        .collect();
    found.sort_by_key(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok());
    found.pop().expect("no server to test: build the crate `etcd` first or set OXETCD_BIN")
}

/// The reference programs, as `tools/reference-etcd` lays them out.
#[derive(Clone, Debug)]
pub struct Reference {
    root: PathBuf,
}

impl Reference {
    /// The folder named by `OXETCD_REFERENCE`. Without it prints that the test is skipped.
    pub fn find() -> Option<Reference> {
        match std::env::var_os("OXETCD_REFERENCE") {
            Some(root) => Some(Reference { root: PathBuf::from(root) }),
            None => {
                println!("SKIPPED: OXETCD_REFERENCE is not set");
                None
            }
        }
    }

    /// `program` (`etcd`, `etcdctl`, `etcdutl`) of a minor version such as `3.7`.
    pub fn program(&self, version: &str, program: &str) -> PathBuf {
        self.existing(self.root.join(version).join(program))
    }

    /// One of the tools: `bbolt`, `etcd-dump-db`, `etcd-dump-logs`.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.existing(self.root.join("tools").join(name))
    }

    /// Whether this version is there (3.5 does not build everywhere).
    pub fn has(&self, version: &str) -> bool {
        self.root.join(version).join("etcd").is_file()
    }

    fn existing(&self, path: PathBuf) -> PathBuf {
        assert!(Path::new(&path).is_file(), "OXETCD_REFERENCE has no {}", path.display());
        path
    }
}

/// A count from the environment (`OXETCD_FILES`, `OXETCD_KILLS` …), or `default`.
pub fn count(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")),
        Err(_) => default,
    }
}
