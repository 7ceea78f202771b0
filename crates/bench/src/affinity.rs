//! Which core runs what: servers on one, load on another, so that neither takes time from the other.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// Binds the calling thread, and every thread and process it starts from now on, to one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no core {core}")));
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Runs `start` on `core`, so that the process it starts inherits that core, and goes back to where it was.
pub fn started_on<T>(core: Option<usize>, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(core) = core else {
        return start();
    };
    let before = sched_getaffinity(None)?;
    pin(core)?;
    let started = start();
    sched_setaffinity(None, &before)?;
    started
}

/// Lets this process have as many open files as it may: 16,000 connections need them.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, the connections past the old limit fail and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_inherits_the_core_and_the_parent_gets_its_own_back() {
        let before = sched_getaffinity(None).map(|set| set.count()).unwrap_or_default();
        let output = started_on(Some(0), || std::process::Command::new("cat").arg("/proc/self/status").output());
        let status = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        assert!(status.lines().any(|line| line == "Cpus_allowed_list:\t0"), "{status}");
        assert_eq!(sched_getaffinity(None).map(|set| set.count()).unwrap_or_default(), before);
        assert!(pin(usize::MAX).is_err());
    }
}
