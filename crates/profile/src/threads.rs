//! The threads of this process, as the kernel knows them.

use crate::format::Profile;
use crate::symbols::Frame;
use std::fmt::Write as _;
use std::io;

/// The kernel's clock of processor time, ticks a second: the same on all machines that Linux runs on here.
const TICKS: u64 = 100;

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    /// What it does: `running`, `sleeping`, …
    pub state: &'static str,
    /// Processor time, ms.
    pub cpu_ms: u64,
}

/// All threads, by their numbers.
///
/// # Errors
/// `/proc` is not there.
pub fn all() -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is none.
        threads.extend(std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok().and_then(|s| of(id, &s)));
    }
    threads.sort_by_key(|thread| thread.id);
    Ok(threads)
}

/// `12 (a name) S …`: the name may have brackets of its own.
fn of(id: u32, stat: &str) -> Option<Thread> {
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let state = match *fields.first()? {
        "R" => "running",
        "S" => "sleeping",
        "D" => "waiting for a disk",
        "T" | "t" => "stopped",
        "Z" | "X" => "ended",
        _ => "idle",
    };
    // utime and stime: fields 14 and 15 of proc(5), the state being the third.
    let cpu_ms = (ticks(11)? + ticks(12)?) * 1000 / TICKS;
    Some(Thread { id, name: name.to_owned(), state, cpu_ms })
}

/// A sample for each thread, under the name that Go has for such a profile: `goroutine`, `threadcreate`.
pub fn profile(kind: &str, threads: &[Thread]) -> Profile {
    let mut profile = Profile::new(&[(kind, "count")])
        .with_period((kind, "count"), 1)
        .remarking("threads of this process; their stacks are not known");
    for thread in threads {
        let frame = Frame::named(&thread.name, "");
        profile.add([&frame], &[1], &[("thread", &thread.id.to_string()), ("state", thread.state)]);
    }
    profile
}

/// The same to be read.
pub fn text(kind: &str, threads: &[Thread]) -> String {
    let mut out = format!("{kind} profile: total {}\n", threads.len());
    for Thread { id, name, state, cpu_ms } in threads {
        // Writing to a String can't fail.
        let _ =
            writeln!(out, "thread {id} [{state}]: {name}, {}.{:03} s of processor time", cpu_ms / 1000, cpu_ms % 1000);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn every_thread_is_known_by_its_name() {
        let (go, wait) = mpsc::channel::<()>();
        let (begun, here) = mpsc::channel();
        let thread = std::thread::Builder::new().name("odd) name (R".into());
        let thread = thread.spawn(move || {
            begun.send(()).unwrap();
            wait.recv().unwrap_err();
        });
        here.recv().unwrap();
        let found = all().unwrap();
        assert!(found.iter().any(|thread| thread.name == "odd) name (R"), "{found:?}");
        let said = text("goroutine", &found);
        assert!(said.starts_with(&format!("goroutine profile: total {}\n", found.len())), "{said}");
        drop(go);
        thread.unwrap().join().unwrap();
    }

    #[test]
    fn what_the_kernel_says_is_read_or_left() {
        let stat = "7 (core) D 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0";
        let core = Thread { id: 7, name: "core".into(), state: "waiting for a disk", cpu_ms: 2000 };
        assert_eq!(of(7, stat), Some(core));
        for bad in ["", "7 core D", "7 (core)", "7 (core) S 1"] {
            assert_eq!(of(7, bad), None, "{bad}");
        }
    }
}
