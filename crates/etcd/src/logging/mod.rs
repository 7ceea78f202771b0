//! The log, in the shape of zap's: one JSON object a line (or tab separated columns), sampled, to files or a terminal.
//!
//! Lines come from `tracing` events anywhere in the program, or as [`Note`]s whose fields are only known at run time.

mod journal;
mod layer;
mod rotate;

pub use layer::Zap;
pub use rotate::Rotation;

use go::quote;
use journal::Journal;
use parking_lot::Mutex;
use rotate::Rotating;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;

/// Lines of one level and message written in a second before sampling starts, and every how many-th after it.
const SAMPLE_FIRST: u64 = 100;
const SAMPLE_EVERY: u64 = 100;
/// Different messages remembered for sampling; beyond it they share counters, as in zap.
const SAMPLE_SLOTS: u64 = 4096;

/// The output that is systemd's journal.
pub const JOURNAL: &str = "systemd/journal";

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
    DPanic,
    Panic,
    Fatal,
}

impl Level {
    /// zap's name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::DPanic => "dpanic",
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    /// What `--log-level` takes: zap's names in any case, `warning`, and nothing for `info`.
    pub fn parse(text: &str) -> Option<Level> {
        Some(match text.to_lowercase().as_str() {
            "debug" => Level::Debug,
            "info" | "" => Level::Info,
            "warn" | "warning" => Level::Warn,
            "error" => Level::Error,
            "dpanic" => Level::DPanic,
            "panic" => Level::Panic,
            "fatal" => Level::Fatal,
            _ => return None,
        })
    }
}

/// A line whose fields are decided at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub level: Level,
    pub message: String,
    pub fields: Map<String, Value>,
}

impl Note {
    pub fn new(level: Level, message: &str) -> Note {
        Note { level, message: message.to_owned(), fields: Map::new() }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Note {
        self.with(key, value)
    }

    /// Adds any value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Note {
        self.fields.insert(key.to_owned(), value.into());
        self
    }

    /// Writes the line.
    #[track_caller]
    pub fn log(self) {
        let at = std::panic::Location::caller();
        if let Some(log) = LOG.get() {
            log.write(self.level, &caller(at.file(), at.line()), &self.message, self.fields);
        }
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Where and how lines are written.
struct Log {
    level: Level,
    console: bool,
    outputs: Mutex<Outputs>,
}

struct Outputs {
    sinks: Vec<Sink>,
    second: i64,
    counts: HashMap<u64, u64>,
}

/// What the log shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `default`, `stderr`, `stdout`, files; or [`JOURNAL`] alone.
    pub outputs: Vec<String>,
    /// Files are moved aside when they are full.
    pub rotation: Option<Rotation>,
    pub level: Level,
    /// Columns instead of JSON.
    pub console: bool,
}

impl Default for Settings {
    /// The log of a start whose own settings are no good.
    fn default() -> Settings {
        Settings { outputs: vec!["default".into()], rotation: None, level: Level::Info, console: false }
    }
}

/// Sets the log up, once for the process. Without outputs, or past an error, nothing is set up.
///
/// # Errors
/// Outputs can't be opened; in zap's words.
pub fn start(settings: &Settings) -> Result<(), String> {
    let sinks = sinks(&settings.outputs, settings.rotation.as_ref())?;
    let outputs = Mutex::new(Outputs { sinks, second: 0, counts: HashMap::new() });
    if LOG.set(Log { level: settings.level, console: settings.console, outputs }).is_ok() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let subscriber = tracing_subscriber::registry().with(Zap);
        tracing::subscriber::set_global_default(subscriber).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Where lines go.
enum Sink {
    Bytes(Box<dyn Write + Send>),
    Journal(Journal),
}

impl Sink {
    /// There is nowhere left to tell that the log can't be written; but what the journal does not take goes to stderr, as
    /// in etcd.
    fn write(&mut self, level: Level, caller: &str, line: &str) {
        match self {
            Sink::Bytes(sink) => drop(sink.write_all(line.as_bytes()).and_then(|()| sink.flush())),
            Sink::Journal(journal) => {
                if journal.send(level, caller, line).is_err() {
                    drop(io::stderr().write_all(line.as_bytes()));
                }
            }
        }
    }
}

fn sinks(outputs: &[String], rotation: Option<&Rotation>) -> Result<Vec<Sink>, String> {
    if outputs == [JOURNAL] {
        return Ok(vec![Sink::Journal(Journal::open(journal::SOCKET.as_ref())?)]);
    }
    // As in etcd, it silences the others too.
    if outputs.iter().any(|output| output == "/dev/null") {
        return Ok(vec![Sink::Bytes(Box::new(io::sink()))]);
    }
    let (mut sinks, mut errors) = (Vec::new(), Vec::new());
    for output in outputs {
        match sink(output, rotation) {
            Ok(sink) => sinks.push(Sink::Bytes(sink)),
            Err(why) => errors.push(format!("open sink {}: {why}", quote(output))),
        }
    }
    if errors.is_empty() { Ok(sinks) } else { Err(errors.join("; ")) }
}

fn sink(output: &str, rotation: Option<&Rotation>) -> Result<Box<dyn Write + Send>, String> {
    let path = match output {
        "default" | "stderr" => return Ok(Box::new(io::stderr())),
        "stdout" => return Ok(Box::new(io::stdout())),
        path => file_of(path)?,
    };
    let failed = |e: io::Error| format!("open {path}: {}", go::os_text(&e));
    if let Some(rotation) = rotation {
        return Ok(Box::new(Rotating::open(path.as_ref(), rotation.clone()).map_err(failed)?));
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    Ok(Box::new(file.map_err(failed)?))
}

/// The file that an output names: a path, or a URL of one as zap takes it.
fn file_of(output: &str) -> Result<&str, String> {
    match output.split_once("://") {
        Some(("file", rest)) => Ok(rest.strip_prefix("localhost").unwrap_or(rest)),
        Some((scheme, _)) if !output.starts_with('/') => Err(format!("no sink found for scheme {}", quote(scheme))),
        _ => Ok(output),
    }
}

/// `folder/file.rs:line`, as zap shortens it.
fn caller(file: &str, line: u32) -> String {
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{line}", &file[start..])
}

/// Whether lines of `level` are written at all.
pub fn enabled(level: Level) -> bool {
    LOG.get().is_some_and(|log| level >= log.level)
}

impl Log {
    fn write(&self, level: Level, caller: &str, message: &str, fields: Map<String, Value>) {
        if level < self.level {
            return;
        }
        let now = jiff::Zoned::now();
        let mut outputs = self.outputs.lock();
        if !outputs.sample(now.timestamp().as_second(), level, message) {
            return;
        }
        let ts = timestamp(&now);
        let line = if self.console {
            console(level, &ts, caller, message, fields)
        } else {
            json(level, &ts, caller, message, fields)
        };
        outputs.sinks.iter_mut().for_each(|sink| sink.write(level, caller, &line));
    }
}

fn timestamp(now: &jiff::Zoned) -> String {
    let utc = now.offset() == jiff::tz::Offset::UTC;
    now.strftime(if utc { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%S%.6f%z" }).to_string()
}

fn json(level: Level, ts: &str, caller: &str, message: &str, fields: Map<String, Value>) -> String {
    let mut line = String::with_capacity(256);
    line.push_str("{\"level\":\"");
    line.push_str(level.name());
    line.push('"');
    let head = [("ts", ts.into()), ("caller", caller.into()), ("msg", message.into())];
    let head = head.into_iter().map(|(k, v): (&str, Value)| (k.to_owned(), v));
    for (key, value) in head.chain(fields) {
        line.push(',');
        line.push_str(&Value::from(key).to_string());
        line.push(':');
        line.push_str(&value.to_string());
    }
    line.push_str("}\n");
    line
}

fn console(level: Level, ts: &str, caller: &str, message: &str, fields: Map<String, Value>) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!("\t{}", Value::Object(fields)) };
    format!("{ts}\t{}\t{caller}\t{message}{fields}\n", level.name())
}

impl Outputs {
    fn sample(&mut self, second: i64, level: Level, message: &str) -> bool {
        if self.second != second {
            self.second = second;
            self.counts.clear();
        }
        let mut hasher = DefaultHasher::new();
        (level as u8, message).hash(&mut hasher);
        let count = self.counts.entry(hasher.finish() % SAMPLE_SLOTS).or_insert(0);
        *count += 1;
        *count <= SAMPLE_FIRST || (*count - SAMPLE_FIRST).is_multiple_of(SAMPLE_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_in_zaps_order() {
        let mut fields = Map::new();
        fields.insert("quota-size".into(), "2.1 GB\n".into());
        fields.insert("n".into(), 3.into());
        let line = json(Level::Warn, "T", "driver/start.rs:7", "a \"text\"", fields);
        assert!(line.starts_with(
            "{\"level\":\"warn\",\"ts\":\"T\",\"caller\":\"driver/start.rs:7\",\"msg\":\"a \\\"text\\\"\","
        ));
        assert_eq!(line.matches('\n').count(), 1);
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["quota-size"], "2.1 GB\n");
    }

    #[test]
    fn levels_are_what_zap_takes() {
        for (text, level) in [
            ("", Some(Level::Info)),
            ("WARN", Some(Level::Warn)),
            ("WaRning", Some(Level::Warn)),
            ("dpanic", Some(Level::DPanic)),
            ("Debug", Some(Level::Debug)),
            ("fatal", Some(Level::Fatal)),
            (" info", None),
            ("trace", None),
        ] {
            assert_eq!(Level::parse(text), level, "{text:?}");
        }
        assert!(Level::Error < Level::DPanic && Level::DPanic < Level::Panic);
    }

    #[test]
    fn outputs_that_cannot_be_opened_are_told_in_zaps_words() {
        let why = |outputs: &[&str]| {
            let outputs: Vec<String> = outputs.iter().map(|&o| o.to_owned()).collect();
            sinks(&outputs, None).err()
        };
        for (outputs, text) in [
            (&[""][..], "open sink \"\": open : no such file or directory"),
            (&["nodir/x"], "open sink \"nodir/x\": open nodir/x: no such file or directory"),
            (
                &["nodir/x", "stdout", "nodir/y"],
                "open sink \"nodir/x\": open nodir/x: no such file or directory; open sink \"nodir/y\": open nodir/y: no such file or directory",
            ),
            (&["x://y"], "open sink \"x://y\": no sink found for scheme \"x\""),
            (&["/"], "open sink \"/\": open /: is a directory"),
        ] {
            assert_eq!(why(outputs).as_deref(), Some(text), "{outputs:?}");
        }
        assert_eq!(why(&["nodir/x", "/dev/null"]), None, "/dev/null silences all");
        assert_eq!(why(&["default", "stdout"]), None);
        assert_eq!(file_of("file:///tmp/log"), Ok("/tmp/log"));
    }

    #[test]
    fn callers_are_shortened_to_folder_and_file() {
        assert_eq!(caller("crates/etcd/src/driver/start.rs", 7), "driver/start.rs:7");
        assert_eq!(caller("main.rs", 7), "main.rs:7");
    }

    #[test]
    fn a_hundred_equal_lines_a_second_then_every_hundredth() {
        let mut outputs = Outputs { sinks: Vec::new(), second: 0, counts: HashMap::new() };
        let written = (0..1000).filter(|_| outputs.sample(1, Level::Info, "x")).count();
        assert_eq!(written, 100 + 9);
        assert!(outputs.sample(1, Level::Info, "y") && outputs.sample(2, Level::Info, "x"));
    }
}
