//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Our server: `OXETCD_BIN`, else built now, as the profile and target folder of this test have it; so a test never asks
/// yesterday's server.
///
/// Panics when it can't be built: a black-box test without a server proves nothing.
pub fn our_etcd() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || built(&["etcd"]).join("etcd");
    BUILT.get_or_init(|| std::env::var_os("OXETCD_BIN").map_or_else(build, PathBuf::from)).clone()
}

/// Builds the programs of these packages, as the profile and target folder of this test have them; answers their folder.
/// Where `OXETCD_PROGRAMS` names a folder they are there, just built: the gate builds all at once, for a package alone has
/// other features of its dependencies, and all would be compiled again.
///
/// Panics when they can't be built.
pub fn built(packages: &[&str]) -> PathBuf {
    if let Some(folder) = std::env::var_os("OXETCD_PROGRAMS").map(PathBuf::from) {
        for package in packages {
            assert!(folder.join(package).is_file(), "OXETCD_PROGRAMS has no {package}");
        }
        return folder;
    }
    let packages: Vec<&str> = packages.iter().flat_map(|package| ["-p", package]).collect();
    build(&[&["--bins"], &packages[..]].concat())
}

/// Builds the examples of crate client, `examples/rust`; answers their folder. As [`built`] does, so where `OXETCD_PROGRAMS` names a
/// folder they are below it.
///
/// Panics when they can't be built, or are not there.
pub fn built_examples() -> PathBuf {
    if let Some(folder) = std::env::var_os("OXETCD_PROGRAMS").map(PathBuf::from) {
        let folder = folder.join("examples");
        let cure = "cargo build --workspace --bins --tests --examples --locked";
        assert!(folder.join("config_watch").is_file(), "OXETCD_PROGRAMS has no examples/config_watch: {cure}");
        return folder;
    }
    build(&["-p", "client", "--examples"]).join("examples")
}

/// Builds something as the profile and target folder of this test have it; answers the folder of programs.
fn build(what: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // target/debug/deps/this-test
    let profile = test.ancestors().nth(2).expect("a test is built below its target folder");
    let target = profile.parent().expect("a test is built below its target folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--locked"]).args(what);
    command.arg("--target-dir").arg(target);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo runs this test, so it is there");
    assert!(status.success(), "{what:?} do not build: {status}");
    profile.to_owned()
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

/// A path of the repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A text of the repository.
///
/// # Panics
/// If it can't be read.
pub fn read_source(path: &str) -> String {
    std::fs::read_to_string(source(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
