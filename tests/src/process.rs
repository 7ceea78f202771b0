//! Server processes and tools: start, wait for readiness, stop, kill, read what they logged.
//!
//! A server is ready when its log says `ready to serve client requests`; its standard output and standard error
//! are read to the end by two threads, so it can never block on a full pipe. Whatever happens, [`Server`]'s drop
//! kills the one process it started.

use crate::places::{Reference, our_etcd};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a start, a stop or a tool may take before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// What a server logs when it serves.
const READY: &str = "ready to serve client requests";

/// What is needed to start one member. Cloning it and changing `binary` serves the same folder with another program.
#[derive(Clone, Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub data_dir: PathBuf,
    /// The address of both listeners.
    pub host: String,
    pub client_port: u16,
    pub peer_port: u16,
    /// How clients and peers speak: `http` or `https`.
    pub client_scheme: &'static str,
    pub peer_scheme: &'static str,
    /// Says that it founds a cluster of its own, unless `flags` say otherwise.
    pub initial_cluster: bool,
    pub flags: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// What runs the program, such as `ip netns exec NAME`; it must become the program.
    pub wrapper: Vec<String>,
    /// Whether the flags are all there is: else addresses and data directory are flags too.
    pub bare: bool,
}

impl Launch {
    /// One member named `default` on two free ports.
    pub fn new(binary: &Path, data_dir: &Path) -> Launch {
        let (client_port, peer_port) = free_ports();
        Launch {
            binary: binary.to_owned(),
            data_dir: data_dir.to_owned(),
            host: "127.0.0.1".to_owned(),
            client_port,
            peer_port,
            client_scheme: "http",
            peer_scheme: "http",
            initial_cluster: true,
            flags: Vec::new(),
            env: BTreeMap::new(),
            wrapper: Vec::new(),
            bare: false,
        }
    }

    /// A member at `host` and etcd's own ports, which is told nothing but by the test.
    pub fn bare(binary: &Path, host: &str) -> Launch {
        let launch = Launch::new(binary, Path::new(""));
        Launch { host: host.to_owned(), client_port: 2379, peer_port: 2380, bare: true, ..launch }
    }

    /// Adds flags.
    pub fn with_flags(mut self, flags: &[&str]) -> Launch {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// The same member, spoken to with TLS by clients, by peers, or by both.
    pub fn with_tls(mut self, clients: bool, peers: bool) -> Launch {
        let scheme = |tls| if tls { "https" } else { "http" };
        (self.client_scheme, self.peer_scheme) = (scheme(clients), scheme(peers));
        self
    }

    /// The same member, served by another program.
    pub fn with_binary(mut self, binary: &Path) -> Launch {
        self.binary = binary.to_owned();
        self
    }

    /// Where clients go.
    pub fn client_url(&self) -> String {
        format!("{}://{}:{}", self.client_scheme, self.host, self.client_port)
    }

    /// Where peers go.
    pub fn peer_url(&self) -> String {
        format!("{}://{}:{}", self.peer_scheme, self.host, self.peer_port)
    }

    /// The command, not yet run.
    pub fn command(&self) -> Command {
        let mut words = self.wrapper.iter().map(OsStr::new).chain([self.binary.as_os_str()]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).stdin(Stdio::null());
        if !self.bare {
            command.args(self.addresses());
        }
        command.args(&self.flags);
        without_etcd_variables(&mut command);
        command.envs(&self.env);
        command
    }

    fn addresses(&self) -> Vec<String> {
        let initial_cluster = self.initial_cluster.then(|| format!("--initial-cluster=default={}", self.peer_url()));
        let addresses = [
            format!("--data-dir={}", self.data_dir.display()),
            format!("--listen-client-urls={}", self.client_url()),
            format!("--advertise-client-urls={}", self.client_url()),
            format!("--listen-peer-urls={}", self.peer_url()),
            format!("--initial-advertise-peer-urls={}", self.peer_url()),
        ];
        addresses.into_iter().chain(initial_cluster).collect()
    }

    /// Starts the member and waits until it serves. New ports are tried where another process took ours.
    pub fn start(&mut self) -> Server {
        for _ in 0..5 {
            match self.try_start() {
                Ok(server) => return server,
                Err(Refusal { log, .. }) if log.contains("address already in use") => {
                    (self.client_port, self.peer_port) = free_ports();
                }
                Err(refusal) => panic!("{} did not start: {refusal}", self.binary.display()),
            }
        }
        panic!("no free ports for {}", self.binary.display())
    }

    /// Starts the member; it may end instead of becoming ready.
    pub fn try_start(&self) -> Result<Server, Refusal> {
        let mut command = self.command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.binary.display()));
        let log = Log::default();
        log.follow(child.stdout.take());
        log.follow(child.stderr.take());
        let mut server = Server { child, log, launch: self.clone() };
        if server.log.wait_for(READY, PATIENCE) {
            return Ok(server);
        }
        let code = match server.child.try_wait() {
            Ok(Some(status)) => status.code(),
            _ => server.wait(PATIENCE).and_then(|status| status.code()),
        };
        Err(Refusal { code, log: server.log.text() })
    }
}

/// A server that ended, or said nothing in time, instead of serving.
#[derive(Debug)]
pub struct Refusal {
    /// Its exit code, where it ended by itself.
    pub code: Option<i32>,
    /// All it printed.
    pub log: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {:?}, log:\n{}", self.code, self.log)
    }
}

/// A running member.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Log,
    launch: Launch,
}

impl Server {
    /// How it was started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Where clients go.
    pub fn client_url(&self) -> String {
        self.launch.client_url()
    }

    /// `host:port` of the client listener.
    pub fn client_address(&self) -> String {
        format!("{}:{}", self.launch.host, self.launch.client_port)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it printed so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str, patience: Duration) -> bool {
        self.log.wait_for(text, patience)
    }

    /// Asks it to stop (SIGTERM) and waits. Go etcd, and so ours, dies of the signal after an orderly stop.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(PATIENCE).unwrap_or_else(|| panic!("the server ignores SIGTERM; log:\n{}", self.log.text()))
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.wait(PATIENCE).expect("nothing outlives SIGKILL");
    }

    /// Sends a signal to this process only.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        wait_for_exit(&mut self.child, patience)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A running proxy: `etcd gateway start` or `etcd grpc-proxy start`.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: Log,
    address: String,
}

impl Proxy {
    /// Starts a proxy with these flags on a free port and waits until its log holds `ready`. Another port is tried where
    /// another process took ours.
    pub fn start(binary: &Path, kind: &str, flags: &[&str], ready: &str) -> Proxy {
        for _ in 0..5 {
            let address = format!("127.0.0.1:{}", free_ports().0);
            let mut command = Command::new(binary);
            command.args([kind, "start", &format!("--listen-addr={address}")]).args(flags).stdin(Stdio::null());
            without_etcd_variables(&mut command);
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", binary.display()));
            let log = Log::default();
            log.follow(child.stdout.take());
            log.follow(child.stderr.take());
            let proxy = Proxy { child, log, address };
            if proxy.log.wait_for(ready, PATIENCE) {
                return proxy;
            }
            assert!(proxy.log().contains("address already in use"), "{kind} did not start:\n{}", proxy.log());
        }
        panic!("no free port for {kind}")
    }

    /// `host:port` where clients go.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where clients go.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All it printed so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str) -> bool {
        self.log.wait_for(text, PATIENCE)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a program printed, line by line, shared with the threads that read it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    shared: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    readers: usize,
}

impl Log {
    pub(crate) fn follow<R: Read + Send + 'static>(&self, pipe: Option<R>) {
        let pipe = pipe.expect("the pipe was asked for");
        self.lock().readers += 1;
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let mut shared = log.lock();
                shared.lines.push(String::from_utf8_lossy(&line).into_owned());
                log.shared.1.notify_all();
            }
            log.lock().readers -= 1;
            log.shared.1.notify_all();
        });
    }

    /// True when a line holds `text`; false when the program ended or time is up.
    fn wait_for(&self, text: &str, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut seen = 0;
        let mut shared = self.lock();
        loop {
            if shared.lines[seen..].iter().any(|line| line.contains(text)) {
                return true;
            }
            seen = shared.lines.len();
            let left = end.saturating_duration_since(Instant::now());
            if shared.readers == 0 || left.is_zero() {
                return false;
            }
            shared = self.shared.1.wait_timeout(shared, left).unwrap_or_else(|poison| poison.into_inner()).0;
        }
    }

    /// True when the lines are as they shall be; false when the program ended without, or time is up.
    pub(crate) fn wait_until(&self, patience: Duration, is_so: impl Fn(&[String]) -> bool) -> bool {
        let end = Instant::now() + patience;
        let mut shared = self.lock();
        loop {
            if is_so(&shared.lines) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if shared.readers == 0 || left.is_zero() {
                return false;
            }
            shared = self.shared.1.wait_timeout(shared, left).unwrap_or_else(|poison| poison.into_inner()).0;
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.shared.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Runs a tool to its end; kills it after half a minute.
pub fn run(command: &mut Command) -> Output {
    run_with_input(command, b"")
}

/// Runs a tool with something on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    use std::io::Write;
    without_etcd_variables(command);
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    let mut stdin = child.stdin.take().expect("the pipe was asked for");
    let _ = stdin.write_all(input);
    drop(stdin);
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait_for_exit(&mut child, PATIENCE).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{shown} does not end");
    });
    Output { status, stdout: out.join().unwrap_or_default(), stderr: err.join().unwrap_or_default() }
}

/// What a line of etcd's prints: its code, standard output, and standard error without the log.
pub fn outcome(binary: &Path, line: &str) -> (Option<i32>, String, String) {
    let output = run(Command::new(binary).args(line.split(' ')));
    let err: Vec<String> =
        text(&output.stderr).lines().filter(|line| !line.starts_with('{')).map(str::to_owned).collect();
    (output.status.code(), text(&output.stdout), err.join("\n"))
}

/// Runs lines of our etcd: each ends with its code and says its words, as Go's does where that is at hand.
pub fn assert_said_as_go(lines: &[(&str, i32, &str)]) {
    let reference = Reference::find();
    for (line, code, words) in lines {
        let ours = outcome(&our_etcd(), line);
        assert_eq!(ours.0, Some(*code), "{line}: {ours:?}");
        assert!(ours.1.contains(words) || ours.2.contains(words), "{line}: no {words:?} in {ours:?}");
        if let Some(reference) = &reference {
            assert_eq!(ours, outcome(&reference.program("3.7", "etcd"), line), "{line}");
        }
    }
}

/// A tool's standard output; panics with its standard error unless it ended with code 0.
pub fn stdout_of(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// Bytes as text, for messages.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("the pipe was asked for");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn wait_for_exit(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        // Polling a child's end: std has no wait with a timeout.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    None
}

/// A test's outcome must not depend on ETCD_* or ETCDCTL_* variables of the caller.
pub(crate) fn without_etcd_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
}

/// Two ports that were free a moment ago.
pub fn free_ports() -> (u16, u16) {
    let listeners = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
    let [first, second] = listeners
        .map(|listener| listener.and_then(|l| l.local_addr()).expect("the loopback interface has free ports").port());
    (first, second)
}
