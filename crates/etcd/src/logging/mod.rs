//! The log, in the shape of zap's: one JSON object a line (or tab separated columns), sampled, to files or a terminal.
//!
//! Lines come from `tracing` events anywhere in the program, or as [`Note`]s whose fields are only known at run time.

mod layer;

pub use layer::Zap;

use parking_lot::Mutex;
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

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
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
            Level::Panic => "panic",
            Level::Fatal => "fatal",
        }
    }

    /// What `--log-level` takes.
    pub fn parse(text: &str) -> Option<Level> {
        let all = [Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Panic, Level::Fatal];
        all.into_iter().find(|l| l.name() == text.to_ascii_lowercase())
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
    sinks: Vec<Box<dyn Write + Send>>,
    second: i64,
    counts: HashMap<u64, u64>,
}

/// Sets the log up, once for the process.
///
/// # Errors
/// An output can't be opened; named.
pub fn start(outputs: &[String], level: Level, console: bool) -> io::Result<()> {
    let mut sinks: Vec<Box<dyn Write + Send>> = Vec::new();
    for output in outputs {
        sinks.push(match output.as_str() {
            "default" | "stderr" => Box::new(io::stderr()),
            "stdout" => Box::new(io::stdout()),
            path => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
                Box::new(file.map_err(|e| io::Error::new(e.kind(), format!("--log-outputs: {path}: {e}")))?)
            }
        });
    }
    let outputs = Mutex::new(Outputs { sinks, second: 0, counts: HashMap::new() });
    if LOG.set(Log { level, console, outputs }).is_ok() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let subscriber = tracing_subscriber::registry().with(Zap);
        tracing::subscriber::set_global_default(subscriber).map_err(io::Error::other)?;
    }
    Ok(())
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
        for sink in &mut outputs.sinks {
            // There is nowhere left to tell that the log can't be written.
            drop(sink.write_all(line.as_bytes()).and_then(|()| sink.flush()));
        }
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
