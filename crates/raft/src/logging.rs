//! What the core has to say: lines put out as values, in etcd's words, for whoever asked for them.
//!
//! Off by default; then a line costs one comparison and is never formatted.

/// How weighty a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// One line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: LogLevel,
    pub text: String,
}

/// Lines kept for a driver that does not fetch them; further ones are dropped, since the log is a courtesy.
const LOG_LINES_MAX: usize = 10_000;

/// Lines not fetched yet.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    level: Option<LogLevel>,
    lines: Vec<LogLine>,
}

impl Logs {
    pub fn new(level: Option<LogLevel>) -> Logs {
        Logs { level, lines: Vec::new() }
    }

    pub fn wants(&self, level: LogLevel) -> bool {
        self.level.is_some_and(|least| level >= least) && self.lines.len() < LOG_LINES_MAX
    }

    pub fn push(&mut self, level: LogLevel, text: String) {
        self.lines.push(LogLine { level, text });
    }

    pub fn take(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.lines)
    }
}

/// `note!(logs, Info, "…")`: formats only if someone listens.
macro_rules! note {
    ($logs:expr, $level:ident, $($arg:tt)*) => {
        if $logs.wants($crate::logging::LogLevel::$level) {
            let text = format!($($arg)*);
            $logs.push($crate::logging::LogLevel::$level, text);
        }
    };
}
pub(crate) use note;
