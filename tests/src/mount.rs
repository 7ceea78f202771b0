//! Small disks: a file system in memory of a given size, for members whose disk is to be full. Mounting needs root.

use crate::process::text;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes that are written at a time to fill a disk, and the size to which it is filled.
const PIECE: usize = 64 << 10;

/// A mounted file system. It goes with the value.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts so many bytes at a folder, which is made; without what it takes, says so and answers nothing.
    pub fn mount(path: &Path, bytes: u64) -> Option<SmallDisk> {
        let mounted = SmallDisk::try_mount(path, bytes);
        mounted.inspect_err(|why| println!("SKIPPED: no file system can be mounted: {why}")).ok()
    }

    fn try_mount(path: &Path, bytes: u64) -> Result<SmallDisk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("that needs root".to_owned());
        }
        fs::create_dir_all(path).map_err(|e| e.to_string())?;
        let size = format!("size={bytes}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path);
        let done = command.output().map_err(|e| format!("mount: {e}"))?;
        match done.status.success() {
            true => Ok(SmallDisk { path: path.to_owned() }),
            false => Err(text(&done.stderr).trim().to_owned()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file takes no room");
        let piece = vec![7; PIECE];
        loop {
            match ballast.write_all(&piece) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::StorageFull => return,
                Err(e) => panic!("{}: {e}", self.path.display()),
            }
        }
    }

    /// Gives it back.
    pub fn clear(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a member that is being killed may still hold files.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
