//! What a process costs: CPU time and memory, from `/proc`.

use std::io;
use std::time::Duration;

/// CPU time and memory of a process, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all threads, ended ones too; in steps of a clock tick, 10 ms.
    pub cpu: Duration,
    /// Bytes of anonymous memory in RAM: heaps and stacks.
    pub rss_anon: u64,
    /// Bytes in RAM, mapped files too.
    pub vm_rss: u64,
    /// The most bytes in RAM so far.
    pub vm_hwm: u64,
}

impl Usage {
    /// Of one process now.
    pub fn of(pid: u32) -> io::Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid} is not readable"));
        let ticks = cpu_ticks(&stat).ok_or_else(wrong)?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let mut usage = memory(&status).ok_or_else(wrong)?;
        usage.cpu = Duration::from_secs_f64(ticks as f64 / per_second as f64);
        Ok(usage)
    }

    /// Of several processes together.
    pub fn of_all(pids: &[u32]) -> io::Result<Usage> {
        pids.iter().map(|pid| Usage::of(*pid)).try_fold(Usage::default(), |sum, usage| {
            let usage = usage?;
            Ok(Usage {
                cpu: sum.cpu + usage.cpu,
                rss_anon: sum.rss_anon + usage.rss_anon,
                vm_rss: sum.vm_rss + usage.vm_rss,
                vm_hwm: sum.vm_hwm + usage.vm_hwm,
            })
        })
    }
}

/// CPU time of this process, to the nanosecond.
pub fn own_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// utime + stime of a `stat` line; the name in parentheses may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    // State is field 3 of proc(5), utime 14, stime 15.
    let utime: u64 = fields.nth(11)?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

/// The memory lines of a `status` file. A kernel thread or a zombie has none: zero.
fn memory(status: &str) -> Option<Usage> {
    let bytes = |name: &str| -> Option<u64> {
        let Some(line) = status.lines().find(|line| line.split(':').next() == Some(name)) else {
            return Some(0);
        };
        let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Usage { cpu: Duration::ZERO, rss_anon: bytes("RssAnon")?, vm_rss: bytes("VmRSS")?, vm_hwm: bytes("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 100";
        for name in ["etcd", "a b", "x) S 9 9", "((", ""] {
            assert_eq!(cpu_ticks(&format!("77 ({name}) {fields}")), Some(200), "{name}");
        }
        for wrong in ["", "77 (etcd", "77 (etcd) S 1 2", "77 (etcd) S 1 2 3 4 5 6 7 8 9 10 x 50"] {
            assert_eq!(cpu_ticks(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn memory_is_read_line_by_line() {
        let status = "Name:\tVmRSS\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nRssAnon:\t     512 kB\nRssFile:\t 512 kB\n";
        let usage = memory(status).unwrap_or_default();
        assert_eq!((usage.rss_anon, usage.vm_rss, usage.vm_hwm), (512 << 10, 1 << 20, 2 << 20));
        assert_eq!(memory("Name:\tkthreadd\n"), Some(Usage::default()));
        assert_eq!(memory("VmRSS:\tmany kB\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let usage = Usage::of(std::process::id()).unwrap_or_default();
        assert!(usage.vm_rss > 0 && usage.vm_hwm >= usage.vm_rss && usage.rss_anon > 0, "{usage:?}");
        assert!(own_cpu() > Duration::ZERO);
    }
}
