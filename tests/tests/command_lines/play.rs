//! One tool, one folder, one server: plays lines, and gives answers without what must differ from server to server.

use crate::help::shape;
use crate::table::Line;
use crate::tools::{Said, plain, told, until, words};
use oxetcd_tests::process::{run_with_input, text};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a tool may keep what it was asked for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How the value or key `END` looks in the formats.
const ENDS: [&[u8]; 3] = [b"END", b"RU5E", br"\x45\x4e\x44"];

/// What a tool answered.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {:?}\n{}\n-- standard error --\n{}\n", self.code, self.out.escape_ascii(), self.err)
    }
}

/// An id that the server drew, and what stands for it in lines and answers.
struct Drawn {
    id: u64,
    name: String,
}

/// One tool and what it works on.
pub struct Side {
    program: PathBuf,
    folder: PathBuf,
    /// Where its server is; empty for a tool without one.
    endpoint: String,
    /// Where nobody listens.
    dead: String,
    drawn: Vec<Drawn>,
}

impl Side {
    /// A tool that works in a folder, with the server at this endpoint.
    pub fn new(program: PathBuf, folder: PathBuf, endpoint: &str, dead: &str) -> Side {
        Side { program, folder, endpoint: endpoint.to_owned(), dead: dead.to_owned(), drawn: Vec::new() }
    }

    /// Plays a line.
    pub fn play(&mut self, line: &Line, round: usize) -> Answer {
        let mut raw = self.raw(line, round);
        // Ids that end early would make answers shorter. New members get new ids.
        while line.words.starts_with(&["member".to_owned(), "add".to_owned()]) && self.learn_member() {
            raw = self.raw(line, round);
        }
        // A format that the command has not fails behind the grant.
        if line.words.iter().any(|word| word == "grant") {
            self.learn_leases();
        }
        self.settled(raw, line)
    }

    fn raw(&self, line: &Line, round: usize) -> Answer {
        let mut command = self.command(line, round);
        if line.marks.is_endless {
            return until_end(&mut command, line);
        }
        let output = run_with_input(&mut command, line.input.as_bytes());
        Answer { code: output.status.code(), out: output.stdout, err: text(&output.stderr) }
    }

    fn command(&self, line: &Line, round: usize) -> Command {
        let filled = |text: &str| self.filled(text);
        let mut command = Command::new("env");
        // Whoever runs the tests in the background may ignore SIGINT, and children inherit that.
        command.arg("--default-signal=INT").current_dir(&self.folder);
        command.args(line.variables.iter().map(|(name, value)| format!("{name}={}", filled(value))));
        command.arg(&self.program);
        let typed: Vec<String> = line.typed(round).iter().map(|word| filled(word)).collect();
        let names_endpoints =
            typed.iter().any(|word| word.starts_with("--endpoints")) || line.variable("ETCDCTL_ENDPOINTS").is_some();
        if !self.endpoint.is_empty() && !names_endpoints {
            command.arg(format!("--endpoints={}", self.endpoint));
        }
        command.args(self.patience(line));
        command.args(typed);
        command
    }

    /// Longer timeouts than a tool's own, where a line is not about them: the machine may stand still.
    fn patience(&self, line: &Line) -> Vec<String> {
        let names = |flag: &str| line.words.iter().any(|word| word.starts_with(flag));
        let flags = [("--dial-timeout", "ETCDCTL_DIAL_TIMEOUT"), ("--command-timeout", "ETCDCTL_COMMAND_TIMEOUT")];
        let asks = !self.endpoint.is_empty() && !line.marks.is_help && line.marks.differs.is_none();
        let missing = flags.iter().filter(|(flag, variable)| asks && !names(flag) && line.variable(variable).is_none());
        missing.map(|(flag, _)| format!("{flag}=60s")).collect()
    }

    /// A word with addresses and ids.
    fn filled(&self, word: &str) -> String {
        let word = word.replace("ENDPOINT", &self.endpoint).replace("DEAD", &self.dead);
        self.drawn.iter().fold(word, |word, drawn| word.replace(&drawn.name, &format!("{:x}", drawn.id)))
    }

    /// Takes out addresses, drawn ids, clocks, and sentences of help.
    fn settled(&self, raw: Answer, line: &Line) -> Answer {
        let mut out = raw.out;
        let folder = self.folder.display().to_string();
        let mut names = vec![(folder, "FOLDER"), (self.dead.clone(), "NOBODY.S:PORT")];
        if !self.endpoint.is_empty() {
            names.push((self.endpoint.clone(), "SERVER.S:PORT"));
        }
        for (text, name) in &names {
            out = replaced(&out, text.as_bytes(), name.as_bytes());
        }
        for drawn in &self.drawn {
            for form in forms(drawn.id) {
                out = replaced(&out, &form, drawn.name.as_bytes());
            }
        }
        if line.marks.has_clocks {
            out = without_remaining(&plain(&text(&out), &names)).into_bytes();
        }
        let mut err = raw.err;
        if line.marks.is_help {
            (out, err) = (shape(&text(&out)).into_bytes(), shape(&err));
        }
        if self.endpoint.is_empty() {
            err = told(Said { code: raw.code, out: String::new(), err }).err;
        }
        let err = plain(&err, &names);
        Answer { code: raw.code, out, err }
    }

    /// Standard output of a line of our own, as JSON.
    fn asked(&self, line: &str) -> serde_json::Value {
        let mut command = Command::new(&self.program);
        command.arg(format!("--endpoints={}", self.endpoint)).args(words(line)).arg("--write-out=json");
        serde_json::from_slice(&run_with_input(&mut command, b"").stdout).unwrap_or_default()
    }

    /// Learns the ids of leases that it has not seen.
    fn learn_leases(&mut self) {
        // Where users have to say who they are, root is one.
        let lists = ["lease list", "--user=root:root lease list"].map(|line| self.asked(line));
        let list = lists.into_iter().find(serde_json::Value::is_object).unwrap_or_default();
        let leases = list["leases"].as_array().map_or(&[][..], Vec::as_slice);
        for id in leases.iter().filter_map(|lease| lease["id"].as_u64()) {
            if self.drawn.iter().all(|drawn| drawn.id != id) {
                self.drawn.push(Drawn { id, name: format!("LEASE{}", self.drawn.len() + 1) });
            }
        }
    }

    /// Learns the id of the member that was added. Answers whether it was removed again, since it is a short one.
    fn learn_member(&mut self) -> bool {
        const SHORTEST: u64 = 10_000_000_000_000_000_000;
        let list = self.asked("member list");
        let members = list["members"].as_array().map_or(&[][..], Vec::as_slice);
        let new = members.iter().find(|member| member["name"].as_str().unwrap_or_default().is_empty());
        let Some(id) = new.and_then(|member| member["ID"].as_u64()) else { return false };
        if id < SHORTEST {
            let removed = self.asked(&format!("member remove {id:x}"));
            assert!(removed["header"].is_object(), "{removed}");
            return true;
        }
        if self.drawn.is_empty() {
            self.drawn.push(Drawn { id, name: "MEMBER".to_owned() });
        }
        false
    }
}

/// How an id looks in the formats.
fn forms(id: u64) -> [Vec<u8>; 3] {
    let mut varint = Vec::new();
    prost::encoding::encode_varint(id, &mut varint);
    [format!("{id:x}").into_bytes(), id.to_string().into_bytes(), varint]
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = behind;
        } else {
            out.push(rest[0]);
            rest = &rest[1..];
        }
    }
    out
}

/// Takes out how long leases go on.
fn without_remaining(said: &str) -> String {
    ["remaining(", "\"ttl\":", "\"TTL\" : "].iter().fold(said.to_owned(), |said, before| {
        let mut parts = said.split(before);
        let head = parts.next().unwrap_or_default().to_owned();
        parts.fold(head, |out, part| out + before + part.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

/// Runs a tool until it has printed END, or has ended; then interrupts it.
fn until_end(command: &mut Command, line: &Line) -> Answer {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Guard(piped.spawn().unwrap_or_else(|e| panic!("cannot run {}: {e}", line.text)));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    stdin.write_all(line.input.as_bytes()).expect("the tool reads");
    let mut stdout = child.0.stdout.take().expect("a pipe");
    let mut stderr = child.0.stderr.take().expect("a pipe");
    let (sender, chunks) = mpsc::channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut chunk) {
            if sender.send(chunk[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stderr.read_to_end(&mut bytes);
        text(&bytes)
    });
    let mut out = Vec::new();
    let end = loop {
        match chunks.recv_timeout(PATIENCE) {
            Ok(chunk) => out.extend(chunk),
            Err(mpsc::RecvTimeoutError::Disconnected) => break out.len(),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{}: no END in {}", line.text, out.escape_ascii()),
        }
        if let Some(end) = end_of(&out) {
            break end;
        }
    };
    out.truncate(end);
    kill_process(Pid::from_child(&child.0), Signal::INT).expect("it is not reaped yet");
    let code = until("the end of an interrupted tool", || child.0.try_wait().expect("it is ours")).code();
    drop(stdin);
    let err = errors.join().expect("reading does not panic");
    Answer { code, out, err }
}

fn end_of(out: &[u8]) -> Option<usize> {
    let ends = ENDS.iter().filter_map(|end| Some(out.windows(end.len()).position(|w| w == *end)? + end.len()));
    ends.min()
}

/// Ends what it runs.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
