//! `--memory-mlock`: nothing of the process is swapped out. Go etcd locks its database's mapping, which is what it keeps
//! in memory; here that is the page cache, the key index and what was not written yet, so all of it is locked, page by
//! page as it is used.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, getrlimit};
use server::Fatal;

/// `CAP_IPC_LOCK`, by its bit.
const IPC_LOCK: u64 = 1 << 14;
const CURE: &str = "raise the limit (ulimit -l unlimited, or systemd's LimitMEMLOCK=infinity), give the process \
                    CAP_IPC_LOCK, or leave --memory-mlock out";

/// Locks what there is and what comes.
///
/// # Errors
/// The operating system does not let us, or only up to a limit: memory past it would be refused, and the process end.
pub fn lock() -> Result<(), Fatal> {
    let limit = getrlimit(Resource::Memlock).current;
    if let Some(bytes) = limit.filter(|_| !may_lock_all()) {
        return Err(Fatal::new(format!("cannot lock memory: no more than {bytes} bytes may be locked; {CURE}")));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|e| Fatal::new(format!("cannot lock memory: {e}; {CURE}")))
}

/// Whether the limit does not count for this process.
fn may_lock_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).is_some_and(|bits| bits & IPC_LOCK != 0)
}
