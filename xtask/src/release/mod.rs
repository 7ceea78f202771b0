//! What a release is made of: a tarball, a Debian package and container images, the same bytes each time.
//!
//! No daemon, no debhelper and no root are needed. Owners are root, times are the commit's (`SOURCE_DATE_EPOCH` wins),
//! order is the alphabet's; packaging/README.md says how to use it.

mod binaries;
mod deb;
mod image;
mod tarball;
mod tree;

use crate::Result;
use binaries::{Arch, Binaries};
use image::Base;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use tree::Tree;

/// How the command is called.
pub const USAGE: &str = "xtask release [tarball] [deb] [image] [--arch amd64|arm64] [--out DIR] [--bin-dir DIR] \
                         [--busybox FILE | --rootfs FILE]";
/// etcd's version, which the release stands in for; not by the crate `api`, whose code xtask generates.
#[allow(dead_code, reason = "the whole table of the server's versions")]
#[path = "../../../crates/api/src/version.rs"]
mod etcd_version;

/// What is asked for.
#[derive(Debug, Default)]
struct Wish {
    kinds: Vec<Kind>,
    arch: Option<Arch>,
    out: Option<PathBuf>,
    bin_dir: Option<PathBuf>,
    busybox: Option<PathBuf>,
    rootfs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tarball,
    Deb,
    Image,
}

/// What all parts of a release share.
#[derive(Debug)]
struct Release {
    root: PathBuf,
    /// Such as `3.7.1-oxetcd.0.1.0`: etcd's version, and ours.
    version: String,
    arch: Arch,
    /// Seconds since 1970, for every file.
    time: u64,
    binaries: Binaries,
}

/// Makes what is asked for, and `SHA256SUMS` over it.
///
/// # Errors
/// Wrong words, a target that is not installed, a build that fails, files that are missing.
pub fn run(words: &[&str]) -> Result<()> {
    let wish = Wish::parse(words)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let arch = wish.arch.map_or_else(Arch::here, Ok)?;
    if !arch.runs_here()
        && let Some(kind) = [Kind::Deb, Kind::Image].into_iter().find(|kind| wish.asks_for(*kind))
    {
        return Err(no_place(kind, arch).into());
    }
    let base = wish.asks_for(Kind::Image).then(|| Base::choose(wish.busybox.as_deref(), wish.rootfs.as_deref()));
    let base = base.transpose()?;
    let out = wish.out.clone().unwrap_or_else(|| root.join("target").join("dist"));
    std::fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let binaries = match &wish.bin_dir {
        Some(dir) => Binaries::read(dir)?,
        None => Binaries::build(&root, arch)?,
    };
    let release = Release { version: version(), arch, time: time(&root)?, binaries, root };
    let mut sums = Vec::new();
    for kind in [Kind::Tarball, Kind::Deb, Kind::Image].into_iter().filter(|kind| wish.asks_for(*kind)) {
        for (name, bytes) in release.make(kind, base.as_ref())? {
            let file = out.join(&name);
            std::fs::write(&file, &bytes).map_err(|e| format!("{}: {e}", file.display()))?;
            println!("{}", file.display());
            sums.push(format!("{}  {name}\n", hex(&bytes)));
        }
    }
    sums.sort_by(|a, b| a[64..].cmp(&b[64..]));
    std::fs::write(out.join("SHA256SUMS"), sums.concat())?;
    Ok(())
}

impl Wish {
    fn parse(words: &[&str]) -> Result<Wish> {
        let mut wish = Wish::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value; usage: {USAGE}"));
            match *word {
                "tarball" => wish.kinds.push(Kind::Tarball),
                "deb" => wish.kinds.push(Kind::Deb),
                "image" => wish.kinds.push(Kind::Image),
                "--arch" => wish.arch = Some(Arch::parse(value()?)?),
                "--out" => wish.out = Some(value()?.into()),
                "--bin-dir" => wish.bin_dir = Some(value()?.into()),
                "--busybox" => wish.busybox = Some(value()?.into()),
                "--rootfs" => wish.rootfs = Some(value()?.into()),
                _ => return Err(format!("unknown word {word:?}; usage: {USAGE}").into()),
            }
        }
        if wish.busybox.is_some() && wish.rootfs.is_some() {
            return Err("--busybox and --rootfs are two bases; give one".into());
        }
        Ok(wish)
    }

    /// No kind named: all.
    fn asks_for(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }
}

impl Release {
    /// Names and bytes.
    fn make(&self, kind: Kind, base: Option<&Base>) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(match (kind, base) {
            (Kind::Tarball, _) => vec![tarball::make(self)?],
            (Kind::Deb, _) => vec![deb::make(self)?],
            (Kind::Image, base) => image::make(self, base.ok_or("an image without a base")?)?,
        })
    }

    /// `etcd-v…-linux-…`.
    fn stem(&self) -> String {
        format!("etcd-v{}-linux-{}", self.version, self.arch.name())
    }

    /// Reads a file of the source tree.
    fn source(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.root.join(path);
        Ok(std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?)
    }

    /// Adds a file of the source tree, or all files of a folder, below `to`; nothing where there is none.
    fn copy(&self, tree: &mut Tree, from: &str, to: &str) -> Result<()> {
        let path = self.root.join(from);
        if path.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&path)?.collect::<std::io::Result<_>>()?;
            names.sort_by_key(std::fs::DirEntry::file_name);
            for name in names {
                let name = name.file_name().into_string().map_err(|name| format!("{name:?} is no text"))?;
                // What Python leaves beside an example that somebody ran.
                if name != "__pycache__" {
                    self.copy(tree, &format!("{from}/{name}"), &format!("{to}/{name}"))?;
                }
            }
        } else if path.exists() {
            let runs = std::os::unix::fs::PermissionsExt::mode(&path.metadata()?.permissions()) & 0o100 != 0;
            tree.file(to, self.source(from)?, if runs { 0o755 } else { 0o644 });
        }
        Ok(())
    }
}

/// Completions come from `etcdctl completion`, libraries from where the programs run.
fn no_place(kind: Kind, arch: Arch) -> String {
    let (what, arch) = (if kind == Kind::Deb { "deb" } else { "image" }, arch.name());
    format!(
        "{what}: is made by running {arch}'s programs, which do not run here: make it on such a machine (`release tarball` \
             does without)"
    )
}

fn version() -> String {
    format!("{}-oxetcd.{}", etcd_version::SERVER, env!("CARGO_PKG_VERSION"))
}

/// The time that every file bears: `SOURCE_DATE_EPOCH`, else the commit's.
fn time(root: &Path) -> Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(text.parse().map_err(|_| format!("SOURCE_DATE_EPOCH={text}: not a number of seconds"))?);
    }
    let git = Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]).output();
    let said = git.ok().filter(|said| said.status.success());
    let seconds = said.and_then(|said| String::from_utf8_lossy(&said.stdout).trim().parse().ok());
    Ok(seconds
        .ok_or("this folder is no git clone, so there is no commit to take the time from: set SOURCE_DATE_EPOCH")?)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_words_are_told_with_the_right_ones() {
        for (words, why) in [
            (&["debs"][..], "unknown word \"debs\""),
            (&["--out"], "--out needs a value"),
            (&["--arch", "riscv64"], "amd64, arm64"),
            (&["--busybox", "a", "--rootfs", "b"], "two bases"),
        ] {
            let said = Wish::parse(words).unwrap_err().to_string();
            assert!(said.contains(why), "{words:?}: {said}");
        }
        let wish = Wish::parse(&["deb", "--arch", "arm64", "--out", "x"]).unwrap();
        assert!(wish.asks_for(Kind::Deb) && !wish.asks_for(Kind::Image));
        assert!(Wish::parse(&[]).unwrap().asks_for(Kind::Image));
    }

    #[test]
    fn a_release_is_named_after_both_versions() {
        let version = version();
        assert!(version.starts_with("3.") && version.ends_with(env!("CARGO_PKG_VERSION")), "{version}");
        assert!(etcd_version::Version::parse(&version).is_some(), "{version}");
    }
}
