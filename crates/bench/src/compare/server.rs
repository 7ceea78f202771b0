//! Servers under comparison: started here in folders of their own, bound to a core, ended by their process id.

use super::copy;
use crate::affinity;
use crate::control::{self, Control};
use crate::procs::Usage;
use crate::wire::Target;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a start may take; a restart with a million keys reads them first.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long a server may take to end before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const STOP_CHECK: Duration = Duration::from_millis(5);
/// A quota no row reaches: 16 GiB.
const QUOTA: &str = "--quota-backend-bytes=17179869184";

/// One of the two servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub name: String,
    /// The program and flags of its own.
    pub command: Vec<String>,
}

impl Side {
    /// Reads `name=CMD`; a text without `=` is a program that is its own name.
    pub fn parse(text: &str) -> Option<Side> {
        let (name, command) = match text.split_once('=') {
            Some((name, command)) if !name.contains(['/', ' ']) => (name.to_owned(), command),
            _ => (Path::new(text).file_name()?.to_string_lossy().into_owned(), text),
        };
        let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        (!command.is_empty()).then_some(Side { name, command })
    }
}

/// Where and how servers run.
#[derive(Clone, Debug)]
pub struct Place {
    /// Below this folder; it must be on a real disk.
    pub dir: PathBuf,
    pub core: Option<usize>,
    pub members: usize,
}

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct TempDir(PathBuf);

static NEXT: AtomicU64 = AtomicU64::new(0);

impl TempDir {
    /// Makes an empty folder below `parent` whose name begins with `name`.
    pub fn new(parent: &Path, name: &str) -> io::Result<TempDir> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(TempDir(path))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed is left in a folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The ports of a member.
#[derive(Clone, Copy, Debug)]
struct Ports {
    client: u16,
    peer: u16,
}

/// A server that runs: one member or several. Its end is its drop.
#[derive(Debug)]
pub struct Running {
    side: Side,
    place: Place,
    dir: TempDir,
    ports: Vec<Ports>,
    children: Vec<Child>,
    /// From the start of the process to the answer of a linearizable read.
    pub first_read: Duration,
}

impl Running {
    /// Starts `side` in a folder of its own, named `name` and a number, and waits until it answers.
    pub fn start(side: &Side, place: &Place, name: &str) -> io::Result<Running> {
        let dir = TempDir::new(&place.dir, name)?;
        let ports = (0..place.members.max(1)).map(|_| free_ports()).collect::<io::Result<Vec<_>>>()?;
        Running::launched(side, place, dir, ports)
    }

    /// Starts another one on a copy of the data of this one, which must have ended ([`Running::rest`]). Members know each
    /// other by their ports, so these stay the same.
    pub fn copied(&self) -> io::Result<Running> {
        let dir = TempDir::new(&self.place.dir, &format!("copy-{}", self.side.name))?;
        copy::folder(self.dir.path(), dir.path())?;
        Running::launched(&self.side, &self.place, dir, self.ports.clone())
    }

    fn launched(side: &Side, place: &Place, dir: TempDir, ports: Vec<Ports>) -> io::Result<Running> {
        let (side, place) = (side.clone(), place.clone());
        let mut running = Running { side, place, dir, ports, children: Vec::new(), first_read: Duration::ZERO };
        running.launch()?;
        Ok(running)
    }

    /// Ends it; its data stay as long as this value. An error where it had to be killed.
    pub fn rest(&mut self) -> io::Result<()> {
        if self.stop() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} did not end within {STOP_PATIENCE:?}", self.side.name)))
    }

    /// Ends it and starts it on the same data; `first_read` is then of this start.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.launch()
    }

    fn launch(&mut self) -> io::Result<()> {
        let since = Instant::now();
        for member in 0..self.ports.len() {
            let mut command = self.command(member)?;
            self.children.push(affinity::started_on(self.place.core, || command.spawn())?);
        }
        let target = self.any_target();
        let children = &mut self.children;
        let alive = || children.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)));
        match control::first_read(&target, since, START_PATIENCE, alive) {
            Ok(took) => {
                self.first_read = took;
                Ok(())
            }
            Err(error) => Err(io::Error::other(format!("{} does not serve: {error}\n{}", self.side.name, self.log()))),
        }
    }

    fn command(&self, member: usize) -> io::Result<Command> {
        let (program, flags) = self.side.command.split_first().ok_or_else(|| io::Error::other("no command"))?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let Ports { client, peer } = self.ports[member];
        let cluster: Vec<String> =
            self.ports.iter().enumerate().map(|(i, ports)| format!("m{i}={}", url(ports.peer))).collect();
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("m{member}.log")))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        command
            .arg(format!("--name=m{member}"))
            .arg(format!("--data-dir={}", self.dir.path().join(format!("m{member}")).display()))
            .arg(format!("--listen-client-urls={}", url(client)))
            .arg(format!("--advertise-client-urls={}", url(client)))
            .arg(format!("--listen-peer-urls={}", url(peer)))
            .arg(format!("--initial-advertise-peer-urls={}", url(peer)))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .arg("--log-level=error")
            .arg(QUOTA)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("m0.log")).unwrap_or_default()
    }

    fn any_target(&self) -> Target {
        Target::new(&format!("127.0.0.1:{}", self.ports.first().map_or(0, |ports| ports.client)))
    }

    /// Where the load goes: the leader.
    pub fn target(&self) -> Target {
        let targets = self.ports.iter().map(|ports| Target::new(&format!("127.0.0.1:{}", ports.client)));
        let leads = |target: &Target| {
            let status = Control::open(target).and_then(|mut control| control.status());
            status.is_ok_and(|status| status.header.is_some_and(|header| header.member_id == status.leader))
        };
        let mut targets = targets.filter(|target| self.ports.len() == 1 || leads(target));
        targets.next().unwrap_or_else(|| self.any_target())
    }

    /// What its processes use now.
    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of_all(&self.children.iter().map(Child::id).collect::<Vec<_>>())
    }

    /// Ends all members; false where one had to be killed.
    fn stop(&mut self) -> bool {
        let mut willingly = true;
        for mut child in self.children.drain(..) {
            willingly &= end(&mut child);
        }
        willingly
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks a process to end, and kills it where it does not: false.
pub fn end(child: &mut Child) -> bool {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended already.
        let _ = kill_process(pid, Signal::TERM);
    }
    let since = Instant::now();
    while since.elapsed() < STOP_PATIENCE {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(STOP_CHECK);
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// Ports to choose from. A seed's copies need its ports again, minutes later: these are below those that the kernel gives
/// to outgoing connections (from 32768 on), so the load cannot take them meanwhile.
const PORTS: std::ops::Range<u16> = 16_384..32_768;
static PORTS_TRIED: AtomicU16 = AtomicU16::new(0);

fn free_ports() -> io::Result<Ports> {
    Ok(Ports { client: free_port()?, peer: free_port()? })
}

/// A port that nobody listens on; no port is given twice. Each process begins at a place of its own.
fn free_port() -> io::Result<u16> {
    let start = std::process::id().wrapping_mul(PORTS_APART) as u16;
    for _ in PORTS {
        let place = start.wrapping_add(PORTS_TRIED.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u16;
        let port = PORTS.start + place;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no free port"))
}

/// Ports between the places at which processes with neighbouring numbers begin: more than one tries in a usual run.
const PORTS_APART: u32 = 211;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_name_and_a_command() {
        let side = |name: &str, command: &[&str]| {
            Some(Side { name: name.to_owned(), command: command.iter().map(|word| (*word).to_owned()).collect() })
        };
        assert_eq!(
            Side::parse("go=/usr/bin/etcd --snapshot-count=5"),
            side("go", &["/usr/bin/etcd", "--snapshot-count=5"])
        );
        assert_eq!(Side::parse("/usr/bin/etcd"), side("etcd", &["/usr/bin/etcd"]));
        assert_eq!(Side::parse("/usr/bin/etcd --x=y"), side("etcd --x=y", &["/usr/bin/etcd", "--x=y"]));
        assert_eq!(Side::parse("go="), None);
    }
}
