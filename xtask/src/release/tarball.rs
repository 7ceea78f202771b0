//! `etcd-vX-linux-ARCH.tar.gz`: one folder with the programs on top, as etcd's own has.

use super::Release;
use super::tree::{Tree, gzip};
use crate::Result;

/// What stands beside the programs; no name here begins with `etcd`, since people move `etcd-v*/etcd*` to their path.
const BESIDE: [&str; 10] = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "NOTICE",
    "docs",
    "contrib",
    "examples",
    "packaging/README.md",
];

/// Its name and its bytes.
pub fn make(release: &Release) -> Result<(String, Vec<u8>)> {
    let folder = release.stem();
    let mut tree = Tree::default();
    for (name, bytes) in release.binaries.iter() {
        tree.file(&format!("{folder}/{name}"), bytes, 0o755);
    }
    for path in BESIDE {
        release.copy(&mut tree, path, &format!("{folder}/{path}"))?;
    }
    Ok((format!("{folder}.tar.gz"), gzip(&tree.tar(release.time)?)?))
}
