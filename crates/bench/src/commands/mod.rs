//! The command line: etcd's `benchmark` commands and flags, and ours (`compare`, `floors`, open loop, process usage).

mod compare;
mod kv;
mod lease;
mod session;
mod stm;
mod watch;

use crate::given::Given;
use cobra::{Flag, Kind, flag_usages, flag_usages_and_help};
use session::Session;
use std::fmt;
use std::process::ExitCode;

const PROGRAM: &str = "oxetcd-bench";

/// Flags of all commands: etcd's, then ours.
const GLOBALS: &[Flag] = &[
    Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "gRPC endpoints"),
    Flag::new("conns", Kind::Uint, "1", "Total number of gRPC connections"),
    Flag::new("clients", Kind::Uint, "1", "Total number of gRPC clients"),
    Flag::new("precise", Kind::Bool, "false", "use full floating point precision"),
    Flag::new("sample", Kind::Bool, "false", "'true' to sample requests for every second"),
    Flag::new("cert", Kind::Text, "", "identify HTTPS client using this SSL certificate file"),
    Flag::new("key", Kind::Text, "", "identify HTTPS client using this SSL key file"),
    Flag::new("cacert", Kind::Text, "", "verify certificates of HTTPS-enabled servers using this CA bundle"),
    Flag::new("insecure-skip-tls-verify", Kind::Bool, "false", "skip server certificate verification"),
    Flag::new("user", Kind::Text, "", "provide username[:password] and prompt if password is not supplied."),
    Flag::new("dial-timeout", Kind::Duration, "0s", "dial timeout for client connections"),
    Flag::new(
        "auto-sync-interval",
        Kind::Duration,
        "0s",
        "AutoSyncInterval is the interval to update endpoints with its latest members",
    ),
    Flag::new("report-perfdash", Kind::Bool, "false", "Generate benchmark report in perfdash format"),
    Flag::new("target-leader", Kind::Bool, "false", "connect only to the leader"),
    Flag::new("duration", Kind::Duration, "0s", "stop after this time, whatever the total (ours)"),
    Flag::new(
        "open-loop",
        Kind::Bool,
        "false",
        "send at --rate whatever the server does; times count from when due (ours)",
    ),
    Flag::new("threads", Kind::Uint, "1", "load threads (ours)"),
    Flag::new("pin", Kind::Int, "-1", "core that the load runs on, -1: any (ours)"),
    Flag::new("server-pid", Kind::List, "", "processes whose CPU time and memory are shown (ours)"),
];

/// A command with its flags and those of the whole program.
#[derive(Clone, Debug)]
struct Command {
    /// `put [flags]`, without the program's name.
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    globals: &'static [Flag],
}

impl Command {
    fn name(&self) -> &'static str {
        self.usage.split(' ').next().filter(|name| !name.starts_with('[')).unwrap_or(PROGRAM)
    }

    fn read(&self, words: &[String]) -> Result<Given, String> {
        Given::read(self.flags.iter().chain(self.globals), words)
    }

    /// The usage text after an error or for `--help`.
    fn usage_text(&self) -> String {
        let own = flag_usages_and_help(self.flags, self.name());
        let globals = match self.globals {
            [] => String::new(),
            globals => format!("\nGlobal Flags:\n{}", flag_usages(globals)),
        };
        format!("Usage:\n  {PROGRAM} {}\n\nFlags:\n{own}{globals}", self.usage)
    }
}

/// Why a command did not do its work.
#[derive(Debug)]
pub enum Problem {
    /// The command line is wrong: text and usage, exit 255.
    Usage(String),
    /// Something else: text, exit 1.
    Failed(String),
}

impl<E: fmt::Display> From<E> for Problem {
    fn from(error: E) -> Problem {
        Problem::Failed(error.to_string())
    }
}

/// The outcome of a command.
pub type Done = Result<(), Problem>;

/// A command: its line and what it does.
struct Entry {
    command: Command,
    run: fn(&Given) -> Done,
}

const WATCH_ABOUT: &str = "Benchmark watch tests the performance of processing watch requests and
sending events to watchers. It tests the sending performance by
changing the value of the watched keys with concurrent put
requests.";
const LATENCY_ABOUT: &str = "Benchmarks the latency for watches by measuring
the latency between writing to a key and receiving the
associated watch response.";

fn entries() -> Vec<Entry> {
    let load = |name: &'static str, about, flags, run| Entry {
        command: Command { usage: name, about, flags, globals: GLOBALS },
        run,
    };
    let ours =
        |usage, about, flags, run| Entry { command: Command { usage, about, flags, globals: compare::SHARED }, run };
    vec![
        ours(
            "compare [flags]",
            "Two servers side by side: alternating runs, medians, ratios",
            compare::COMPARE,
            compare::compare,
        ),
        ours("floors [flags]", "Bare HTTP/2, bare gRPC, bare group commit", compare::FLOORS, compare::floors),
        ours("floor-server http2|grpc", "A bare server, until it is ended", &[], compare::floor_server),
        load("lease-keepalive [flags]", "Benchmark lease keepalive", lease::FLAGS, lease::run),
        load("put [flags]", "Benchmark put", kv::PUT, kv::put),
        load("range key [end-range] [flags]", "Benchmark range", kv::RANGE, kv::range),
        load("stm [flags]", "Benchmark STM", stm::FLAGS, stm::run),
        load(
            "txn-mixed key [end-range] [flags]",
            "Benchmark a mixed load of txn-put & txn-range.",
            kv::MIXED,
            kv::mixed,
        ),
        load("txn-put [flags]", "Benchmark txn-put", kv::TXN, kv::txn_put),
        load("watch [flags]", WATCH_ABOUT, watch::WATCH, watch::watch),
        load(
            "watch-get [flags]",
            "Benchmark for serialized key gets with many unsynced watchers",
            watch::GET,
            watch::get,
        ),
        load("watch-latency [flags]", LATENCY_ABOUT, watch::LATENCY, watch::latency),
    ]
}

/// Runs the program with its arguments.
pub fn run(words: &[String]) -> ExitCode {
    let entries = entries();
    // Flags may stand before the command.
    let root = Command { usage: "[command]", about: "", flags: GLOBALS, globals: &[] };
    let Some((place, entry)) = find(words, &entries) else {
        return without_command(words, &root, &entries);
    };
    let mut rest = words.to_vec();
    rest.remove(place);
    match entry.command.read(&rest) {
        Ok(parsed) if parsed.asks_for_help() => {
            println!("{}\n\n{}", entry.command.about, entry.command.usage_text());
            ExitCode::SUCCESS
        }
        Ok(parsed) => finish((entry.run)(&parsed), &entry.command),
        Err(text) => finish(Err(Problem::Usage(text)), &entry.command),
    }
}

/// The first word that is neither a flag nor a flag's value.
fn find<'a>(words: &[String], entries: &'a [Entry]) -> Option<(usize, &'a Entry)> {
    let mut skip = false;
    for (place, word) in words.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        match word.strip_prefix("--") {
            Some(text) if !text.contains('=') => {
                skip = GLOBALS.iter().any(|flag| flag.name == text && flag.kind != Kind::Bool);
            }
            Some(_) => {}
            None if word.starts_with('-') => {}
            None => return entries.iter().find(|entry| entry.command.name() == word).map(|entry| (place, entry)),
        }
    }
    None
}

fn without_command(words: &[String], root: &Command, entries: &[Entry]) -> ExitCode {
    match root.read(words) {
        Ok(parsed) if parsed.args.first().is_some_and(|word| word != "help") => {
            let text = format!("unknown command {:?} for {PROGRAM:?}", parsed.args[0]);
            eprintln!("Error: {text}\nRun '{PROGRAM} --help' for usage.\n{text}");
            ExitCode::from(255)
        }
        Ok(_) => {
            println!("{}", overview(root, entries));
            ExitCode::SUCCESS
        }
        Err(text) => finish(Err(Problem::Usage(text)), root),
    }
}

fn overview(root: &Command, entries: &[Entry]) -> String {
    let mut text =
        "A load tool for etcd's API: the workloads and reports of etcd's benchmark, and side-by-side tables.\n\n\
                    Available Commands:\n"
            .to_owned();
    for entry in entries {
        let line =
            format!("  {:15} {}\n", entry.command.name(), entry.command.about.lines().next().unwrap_or_default());
        text.push_str(&line);
    }
    text.push('\n');
    text.push_str(&root.usage_text());
    text
}

fn finish(done: Done, command: &Command) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem::Usage(text)) => {
            eprintln!("Error: {text}\n{}\n{text}", command.usage_text());
            ExitCode::from(255)
        }
        Err(Problem::Failed(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: Command = Command {
        usage: "put [flags]",
        about: "Benchmark put",
        flags: &[
            Flag::new("total", Kind::Int, "10000", "Total number of put requests"),
            Flag::new("consistency", Kind::Text, "l", "Linearizable(l) or Serializable(s)"),
            Flag::switch("sequential-keys", "Use sequential keys"),
            Flag::new("compact-interval", Kind::Duration, "0s", "Interval"),
        ],
        globals: &[
            Flag::new("clients", Kind::Uint, "1", "Total number of gRPC clients"),
            Flag::new("endpoints", Kind::List, "127.0.0.1:2379", "gRPC endpoints"),
        ],
    };

    #[test]
    fn the_usage_is_cobras() {
        let expected = "Usage:
  oxetcd-bench put [flags]

Flags:
      --compact-interval duration   Interval
      --consistency string          Linearizable(l) or Serializable(s) (default \"l\")
  -h, --help                        help for put
      --sequential-keys             Use sequential keys
      --total int                   Total number of put requests (default 10000)

Global Flags:
      --clients uint        Total number of gRPC clients (default 1)
      --endpoints strings   gRPC endpoints (default [127.0.0.1:2379])
";
        assert_eq!(PUT.usage_text(), expected);
    }

    /// The tables' defaults are values of their kinds.
    #[test]
    fn every_command_reads_an_empty_line() {
        for entry in entries() {
            assert!(entry.command.read(&[]).is_ok(), "{}", entry.command.usage);
        }
    }
}
