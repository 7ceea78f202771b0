//! Scratch folders that vanish with their owner.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A folder below the system's temporary one; removed on drop, unless `OXETCD_KEEP` is set.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

/// A file system in memory, as Linux has it.
const MEMORY: &str = "/dev/shm";
/// What must be free there: seven members, two tests at once, two segments of 64 MiB a member, and room to spare.
const MEMORY_FREE_MIN: u64 = 4 << 30;

impl TempDir {
    /// Makes an empty folder whose name holds `label`, this process's id and a counter.
    pub fn new(label: &str) -> TempDir {
        TempDir::below(&std::env::temp_dir(), label)
    }

    /// A folder for the members of a cluster, in memory where there is room. The members of two tests that sync to one
    /// small disk stall each other for seconds now and then, and then elect new leaders, as they should: what
    /// a test says about leaders would hold on a quiet machine only.
    pub fn for_cluster(label: &str) -> TempDir {
        let memory = Path::new(MEMORY);
        let room = rustix::fs::statvfs(memory).is_ok_and(|disk| disk.f_bavail * disk.f_frsize >= MEMORY_FREE_MIN);
        if room && rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok() {
            return TempDir::below(memory, label);
        }
        TempDir::new(label)
    }

    fn below(base: &Path, label: &str) -> TempDir {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("oxetcd-{label}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        TempDir { path }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::env::var_os("OXETCD_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Copies a folder with everything in it.
pub fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
