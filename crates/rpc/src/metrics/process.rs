//! What Linux knows of this process: `/proc/self`, and limits. What can't be read is left out.

use super::Families;
use rustix::process::{Resource, getrlimit};

/// Memory, threads and time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Bytes.
    pub virtual_memory: f64,
    pub resident: f64,
    pub threads: f64,
    /// Seconds of processors, of user and system together.
    cpu: f64,
    /// Seconds from the machine's start to ours.
    start: f64,
}

impl Process {
    pub fn read() -> Process {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let tick = rustix::param::clock_ticks_per_second() as f64;
        parse_stat(&text, tick, rustix::param::page_size() as f64).unwrap_or_default()
    }
}

/// Fields by proc(5), counted behind the name, which may hold anything.
fn parse_stat(text: &str, tick: f64, page: f64) -> Option<Process> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<f64> = fields.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0.0)).collect();
    // The first is field 4 of proc(5), the parent's id.
    let field = |number: usize| fields.get(number - 4).copied();
    Some(Process {
        cpu: (field(14)? + field(15)?) / tick,
        threads: field(20)?,
        start: field(22)? / tick,
        virtual_memory: field(23)?,
        resident: field(24)? * page,
    })
}

/// Bytes received and sent, of the network namespace, as client_golang counts them.
fn parse_netstat(text: &str) -> Option<(f64, f64)> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let mut both = names.split_whitespace().zip(values.split_whitespace());
        both.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.parse().ok())
    };
    Some((of("InOctets")?, of("OutOctets")?))
}

fn started_at(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Whether any of the files could be read so.
pub(crate) fn reads_proc(text: &str) -> bool {
    parse_stat(text, 100.0, 4096.0).is_some() || parse_netstat(text).is_some() || started_at(text).is_some()
}

pub(super) fn gather(families: &mut Families) {
    let process = Process::read();
    families.counter("process_cpu_seconds_total", "Time of processors.", process.cpu);
    families.gauge("process_virtual_memory_bytes", "Virtual memory.", process.virtual_memory);
    families.gauge("process_resident_memory_bytes", "Resident memory.", process.resident);
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX) as f64;
    families.gauge("process_virtual_memory_max_bytes", "Virtual memory that there may be.", limit(Resource::As));
    let files = limit(Resource::Nofile);
    families.gauge("process_max_fds", "Descriptors that there may be.", files);
    families.gauge("os_fd_limit", "Descriptors that there may be.", files);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Less the one that looks.
        let open = open.count().saturating_sub(1) as f64;
        families.gauge("process_open_fds", "Open descriptors.", open);
        families.gauge("os_fd_used", "Open descriptors.", open);
    }
    if let Some(boot) = std::fs::read_to_string("/proc/stat").ok().and_then(|text| started_at(&text)) {
        families.gauge("process_start_time_seconds", "When it started, since 1970.", boot + process.start);
    }
    let octets = std::fs::read_to_string("/proc/self/net/netstat").ok().and_then(|text| parse_netstat(&text));
    if let Some((received, sent)) = octets {
        families.counter("process_network_receive_bytes_total", "Bytes that came over the network.", received);
        families.counter("process_network_transmit_bytes_total", "Bytes that went over the network.", sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_where_proc_5_has_them() {
        let text = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 12 18 4200 8192 3 22";
        let process = parse_stat(text, 100.0, 4096.0).unwrap();
        let expected = Process { cpu: 3.0, threads: 12.0, start: 42.0, virtual_memory: 8192.0, resident: 3.0 * 4096.0 };
        assert_eq!(process, expected);
        assert_eq!(parse_stat("7 (a) S 1", 100.0, 4096.0), None);
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: X InOctets OutOctets\nIpExt: 9 10 20\n";
        assert_eq!(parse_netstat(netstat), Some((10.0, 20.0)));
        assert_eq!(started_at("cpu 1\nbtime 1700\n"), Some(1700.0));
    }
}
