//! Programs that run beside a test and are talked with: lines out, Enter in.

use crate::process::{Log, PATIENCE, without_etcd_variables};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A program and whatever it started. All end with it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    out: Log,
    err: Log,
}

impl Program {
    /// Starts a program, which is called so when it disappoints.
    ///
    /// # Panics
    /// It can't be run.
    pub fn start(name: &str, mut command: Command) -> Program {
        without_etcd_variables(&mut command);
        // A group of its own: a script's own children go with it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let (out, err) = (Log::default(), Log::default());
        out.follow(child.stdout.take());
        err.follow(child.stderr.take());
        Program { name: name.to_owned(), child, out, err }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lines of its standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.out.lines()
    }

    /// Waits until it has printed this line so many times.
    ///
    /// # Panics
    /// It ends without, or does not in time.
    pub fn says_times(&self, line: &str, times: usize) {
        let is_so = |lines: &[String]| lines.iter().filter(|said| *said == line).count() >= times;
        assert!(self.out.wait_until(PATIENCE, is_so), "no {line:?} ({times}): {}", self.all());
    }

    /// Waits until it has printed this line.
    ///
    /// # Panics
    /// It ends without, or does not in time.
    pub fn says(&self, line: &str) {
        self.says_times(line, 1);
    }

    /// Waits for a line that begins so; answers its rest.
    ///
    /// # Panics
    /// It ends without, or does not in time.
    pub fn rest_of(&self, beginning: &str) -> String {
        let is_so = |lines: &[String]| lines.iter().any(|line| line.starts_with(beginning));
        assert!(self.out.wait_until(PATIENCE, is_so), "no {beginning:?}: {}", self.all());
        self.lines().iter().find_map(|line| line.strip_prefix(beginning)).map(str::to_owned).expect("it is there")
    }

    /// Presses Enter.
    pub fn enter(&mut self) {
        // One that has ended says so at its end.
        drop(self.child.stdin.as_mut().expect("the pipe was asked for").write_all(b"\n"));
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// It does not in time.
    pub fn ends(mut self) -> ExitStatus {
        let (pid, end) = (Pid::from_child(&self.child), Instant::now() + PATIENCE);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while !matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_))) {
            assert!(Instant::now() < end, "it does not end: {}", self.all());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.end()
    }

    /// Ends what is left of its group. Until the program itself is waited for nobody else has the group's number.
    fn end(&mut self) -> ExitStatus {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait().expect("a child that was not waited for")
    }

    /// All it printed, for messages.
    pub fn all(&self) -> String {
        format!("{}\n{}\n-- {}", self.name, self.lines().join("\n"), self.err.lines().join("\n"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}
