//! The three programs: built for a machine, or read from a folder; what they need of the C library.

use crate::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs of a release.
pub const NAMES: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// A machine, by Go's and Debian's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// By its name.
    pub fn parse(name: &str) -> Result<Arch> {
        match name {
            "amd64" => Ok(Arch::Amd64),
            "arm64" => Ok(Arch::Arm64),
            _ => Err(format!("--arch {name}: releases are made for amd64, arm64").into()),
        }
    }

    /// The machine this runs on.
    pub fn here() -> Result<Arch> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Arch::Amd64),
            "aarch64" => Ok(Arch::Arm64),
            other => Err(format!("this machine is {other}; name one that releases are made for: --arch amd64").into()),
        }
    }

    /// `amd64`, `arm64`.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-unknown-linux-gnu",
            Arch::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    fn linker(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-linux-gnu-gcc",
            Arch::Arm64 => "aarch64-linux-gnu-gcc",
        }
    }

    /// Whether its programs run here.
    pub fn runs_here(self) -> bool {
        Arch::here().is_ok_and(|here| here == self)
    }
}

/// The programs, as bytes, and where they are.
#[derive(Debug)]
pub struct Binaries {
    pub dir: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl Binaries {
    /// Programs that were built before.
    pub fn read(dir: &Path) -> Result<Binaries> {
        let read = |name: &'static str| match std::fs::read(dir.join(name)) {
            Ok(bytes) => Ok((name, bytes)),
            Err(e) => Err(format!("{}: {e}; build the three programs: {}", dir.join(name).display(), NAMES.join(", "))),
        };
        let files = NAMES.into_iter().map(read).collect::<std::result::Result<_, _>>()?;
        Ok(Binaries { dir: dir.to_owned(), files })
    }

    /// Builds them for a machine: the release profile, names of functions kept for traces, no path of this machine.
    pub fn build(root: &Path, arch: Arch) -> Result<Binaries> {
        let target = arch.target();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        if !arch.runs_here() {
            cross(arch, &mut cargo)?;
        }
        let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
        let places: Vec<(String, &str)> =
            [Some((root.display().to_string(), "/oxetcd")), home.ok().map(|home| (home, "/cargo"))]
                .into_iter()
                .flatten()
                .collect();
        // The compiler of C writes its files' names into what they assert.
        let renamed = |flag: &str| places.iter().map(|(from, to)| format!(" {flag}={from}={to}")).collect::<String>();
        let c = std::env::var("CFLAGS").unwrap_or_default() + &renamed("-ffile-prefix-map");
        cargo.current_dir(root).args(["build", "--release", "--locked", "--bins", "--target", target]);
        cargo.args(NAMES.iter().flat_map(|name| ["-p", name]));
        cargo.env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo").env("RUSTFLAGS", renamed("--remap-path-prefix").trim());
        cargo.env("CFLAGS", c.trim());
        if !cargo.status()?.success() {
            return Err(format!("the programs do not build for {target}: see above").into());
        }
        let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Binaries::read(&dir.join(target).join("release"))
    }

    /// Names and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    /// What one of them prints.
    pub fn says(&self, name: &str, words: &[&str]) -> Result<Vec<u8>> {
        let program = self.dir.join(name);
        let said = Command::new(&program).args(words).output().map_err(|e| format!("{}: {e}", program.display()))?;
        if said.status.success() {
            return Ok(said.stdout);
        }
        let why = String::from_utf8_lossy(&said.stderr).into_owned();
        Err(format!("{} {}: {}: {why}", program.display(), words.join(" "), said.status).into())
    }

    /// The oldest C library that has all that they ask of it, such as `2.34`.
    pub fn glibc(&self) -> String {
        let wanted = self.files.iter().flat_map(|(_, bytes)| glibc_versions(bytes));
        let (major, minor) = wanted.max().unwrap_or((2, 17));
        format!("{major}.{minor}")
    }

    /// The shared libraries they are linked with, as this machine finds them. None where they are linked statically.
    pub fn libraries(&self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for (name, _) in &self.files {
            let said = Command::new("ldd").arg(self.dir.join(name)).output().map_err(|e| format!("ldd: {e}"))?;
            let text = String::from_utf8_lossy(&said.stdout);
            if let Some(missing) = text.lines().find(|line| line.contains("not found")) {
                return Err(format!("{name} needs a library that is not here: {}", missing.trim()).into());
            }
            all.extend(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from));
        }
        all.retain(|path| !self.dir.join(NAMES[0]).eq(path));
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// Refuses where this machine can't build for the other one; says what is missing.
fn cross(arch: Arch, cargo: &mut Command) -> Result<()> {
    let (target, linker) = (arch.target(), arch.linker());
    let libdir = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    if !Path::new(String::from_utf8_lossy(&libdir.stdout).trim()).is_dir() {
        let cure = format!("`rustup target add {target}`, or build on such a machine");
        return Err(format!("--arch {}: the target {target} is not installed here: {cure}", arch.name()).into());
    }
    let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    if std::env::var_os(&variable).is_none() {
        if Command::new(linker).arg("--version").output().is_err() {
            return Err(format!(
                "--arch {}: no {linker} here: install it, or name a linker in {variable}",
                arch.name()
            )
            .into());
        }
        cargo.env(variable, linker);
    }
    Ok(())
}

/// Every `GLIBC_x.y` that stands in a program.
fn glibc_versions(program: &[u8]) -> Vec<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let number = |bytes: &[u8]| -> Option<(u32, u32)> {
        let end = bytes.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let mut parts = std::str::from_utf8(&bytes[..end]).ok()?.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let starts = program.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    starts.filter_map(|(at, _)| number(&program[at + MARK.len()..])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_c_library_are_compared_as_numbers() {
        assert_eq!(
            glibc_versions(b"..GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0").iter().max(),
            Some(&(2, 34))
        );
    }

    #[test]
    fn a_folder_without_the_programs_is_named() {
        let why = Binaries::read(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(why.contains("/nowhere/etcd") && why.contains("etcdutl"), "{why}");
    }
}
