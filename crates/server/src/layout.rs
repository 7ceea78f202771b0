//! Where a member's files stand, and the probes that name a directory at fault before anything is opened.
//!
//! ```text
//! DATA/                       0700
//! DATA/member/snap/db         page store
//! DATA/member/snap/*.snap     raft snapshots
//! DATA/member/wal/*.wal       log, unless --wal-dir moves it
//! ```

use crate::Fatal;
use disk::{OpenOptions, SharedDisk};
use std::io;
use std::path::{Path, PathBuf};

/// The paths of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub data: PathBuf,
    pub member: PathBuf,
    pub snap: PathBuf,
    pub wal: PathBuf,
    pub db: PathBuf,
}

impl Layout {
    pub fn new(data_dir: &Path, wal_dir: Option<&Path>) -> Layout {
        let member = data_dir.join("member");
        let snap = member.join("snap");
        let wal = wal_dir.map_or_else(|| member.join("wal"), Path::to_path_buf);
        Layout { data: data_dir.to_path_buf(), db: snap.join("db"), member, snap, wal }
    }

    /// Makes the directories and proves that files can be written in them. Answers warnings.
    ///
    /// # Errors
    /// The directory that can't be used, with etcd's text.
    pub fn prepare(&self, disk: &SharedDisk) -> Result<Vec<String>, Fatal> {
        let mut warnings = Vec::new();
        if disk.exists(&self.data.join("proxy")).map_err(|e| access("data", &e))? {
            return Err(Fatal::new(format!(
                "{} holds data of the v2 http proxy, which has already been deprecated in 3.6: remove the directory \
                 'proxy' or choose another --data-dir",
                self.data.display()
            )));
        }
        touch_dir(disk, &self.data).map_err(|e| access("data", &e))?;
        touch_dir(disk, &self.member).map_err(|e| access("member", &e))?;
        touch_dir(disk, &self.snap).map_err(|e| access("snapshot", &e))?;
        disk.sync_dir(&self.member).map_err(|e| access("member", &e))?;
        disk.sync_dir(&self.data).map_err(|e| access("data", &e))?;
        let mode = disk.metadata(&self.data).map_err(|e| access("data", &e))?.mode;
        if mode & 0o777 != 0o700 {
            warnings.push(format!(
                "check file permission: directory {:?} exist, but the permission is {:o}. The recommended permission \
                 is 700 to prevent possible unprivileged access to the data",
                self.data, mode
            ));
        }
        Ok(warnings)
    }
}

fn access(which: &str, e: &io::Error) -> Fatal {
    Fatal::new(format!("cannot access {which} directory: {e}"))
}

/// Creates the directory if need be and writes and removes a probe in it.
fn touch_dir(disk: &SharedDisk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir, 0o700)?;
    let probe = dir.join(".touch");
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", probe.display()));
    disk.open(&probe, OpenOptions::create()).map_err(named)?;
    disk.remove_file(&probe).map_err(named)
}
