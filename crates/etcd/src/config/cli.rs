//! From the command line and the environment to a [`Config`], by Go's rules for flags and etcd's for precedence.
//!
//! Flags are parsed first and may end the matter (`--version`, `--help`, an unknown flag). Then a config file, if one
//! is named, alone decides; otherwise a flag beats its variable's default, and a flag **and** its variable together
//! are refused.

use super::table::{Config, FLAGS, Flag, IGNORED};
use super::{RAFT_TIMEOUT_MIN, defaults, yaml};
use crate::logging::{Level, Note};
use go::{NumberError, quote};
use std::collections::{BTreeMap, BTreeSet};

const CONFLICT: &str = "conflicting environment variable is shadowed by corresponding command-line flag (either unset \
                        environment variable or disable flag))";
const V2_DEPRECATION: &str = "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
                              enforced, ignoring user input.";
const MAX_SNAPSHOTS: &str = "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.";

/// What the arguments ask for.
#[derive(Debug)]
pub enum Asked {
    Version,
    Help,
    /// A flag is wrong: text for stderr, exit code 2.
    Misuse(String),
    Run(Box<Loaded>),
}

/// Settings as loaded, not yet validated.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// What is to be logged once the log is set up.
    pub notes: Vec<Note>,
    /// Why the member must not start, if something was wrong.
    pub failure: Option<Failure>,
}

/// Why loading failed. All but the last exit with code 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// Logged as `failed to verify flags`.
    Verify(String),
    /// Logged as fatal, with the variable's name.
    Conflict { variable: String },
    /// Printed to stderr as it is (a bad URL list in a file).
    Print(String),
    /// Printed to stderr with the usage; the exit code is 2.
    Misuse(String),
}

impl Failure {
    /// The message of a conflict.
    pub const CONFLICT: &str = CONFLICT;
}

/// The flags of a command line, in order, before any of them is looked at twice.
struct CommandLine {
    config: Config,
    given: BTreeSet<&'static str>,
    config_file: String,
    notes: Vec<Note>,
    version: bool,
    rest: Vec<String>,
}

/// Reads arguments (without the program's name) and environment.
pub fn load(args: &[String], env: &[(String, String)]) -> Asked {
    let line = match parse_args(args) {
        Ok(line) => line,
        Err(asked) => return *asked,
    };
    let CommandLine { config, given, mut config_file, mut notes, version, rest } = line;
    let mut loaded = Loaded { config, notes: Vec::new(), failure: None };
    if let Some(extra) = rest.first() {
        loaded.failure = Some(Failure::Verify(format!("{} is not a valid flag", quote(extra))));
        return Asked::Run(Box::new(loaded));
    }
    if version {
        return Asked::Version;
    }
    let variables: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    if config_file.is_empty() {
        config_file = variables.get("ETCD_CONFIG_FILE").copied().unwrap_or_default().to_owned();
    }
    let outcome = if config_file.is_empty() {
        from_flags_and_env(&mut loaded.config, &given, &variables, &mut notes)
    } else {
        from_file(&mut loaded.config, &config_file, &mut notes)
    };
    loaded.failure = outcome.err();
    loaded.notes = notes;
    Asked::Run(Box::new(loaded))
}

fn parse_args(args: &[String]) -> Result<CommandLine, Box<Asked>> {
    let mut line = CommandLine {
        config: Config::default(),
        given: BTreeSet::new(),
        config_file: String::new(),
        notes: Vec::new(),
        version: false,
        rest: Vec::new(),
    };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let name = match word.strip_prefix("--").or_else(|| word.strip_prefix('-')) {
            None => {
                line.rest.push(word.clone());
                break;
            }
            Some("") if word == "-" => {
                line.rest.push(word.clone());
                break;
            }
            Some("") => break,
            Some(name) => name,
        };
        if name.starts_with('-') || name.starts_with('=') {
            return Err(misuse(format!("bad flag syntax: {word}")));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        match name {
            "version" => line.version = bool_value(name, value)?,
            "config-file" => line.config_file = text_value(name, value, &mut words)?.to_owned(),
            _ if IGNORED.contains(&name) => {
                let text = "flag is no longer supported";
                line.notes.push(Note::new(Level::Warn, text).text("flag-name", name));
            }
            "h" | "help" => return Err(Box::new(Asked::Help)),
            _ => one_flag(&mut line, name, value, &mut words)?,
        }
    }
    line.rest.extend(words.cloned());
    Ok(line)
}

fn one_flag<'a>(
    line: &mut CommandLine,
    name: &str,
    value: Option<&'a str>,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<(), Box<Asked>> {
    let Some(flag) = Flag::named(name) else {
        return Err(misuse(format!("flag provided but not defined: -{name}")));
    };
    if flag.is_bool() {
        let text = if bool_value(name, value)? { "true" } else { "false" };
        flag.set(&mut line.config, text).map_err(misuse)?;
    } else {
        let text = text_value(name, value, words)?;
        flag.set(&mut line.config, text)
            .map_err(|why| misuse(format!("invalid value {} for flag -{name}: {why}", quote(text))))?;
    }
    line.given.insert(flag.name);
    Ok(())
}

fn misuse(text: String) -> Box<Asked> {
    Box::new(Asked::Misuse(text))
}

fn bool_value(name: &str, value: Option<&str>) -> Result<bool, Box<Asked>> {
    match value {
        None => Ok(true),
        Some(text) => go::parse_bool(text).map_err(|e: NumberError| {
            misuse(format!("invalid boolean value {} for -{name}: {}", quote(text), e.flag_text()))
        }),
    }
}

fn text_value<'a>(
    name: &str,
    value: Option<&'a str>,
    words: &mut impl Iterator<Item = &'a String>,
) -> Result<&'a str, Box<Asked>> {
    match value {
        Some(text) => Ok(text),
        None => words.next().map(String::as_str).ok_or_else(|| misuse(format!("flag needs an argument: -{name}"))),
    }
}

/// The environment variable of a flag.
pub fn variable_of(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn from_flags_and_env(
    config: &mut Config,
    given: &BTreeSet<&'static str>,
    variables: &BTreeMap<&str, &str>,
    notes: &mut Vec<Note>,
) -> Result<(), Failure> {
    let mut used: BTreeSet<&'static str> = given.clone();
    let outcome = from_env(config, given, variables, notes, &mut used);
    check_env(given, variables, &used, notes)?;
    outcome?;
    raise_timeouts(config, notes);
    tell_of_deprecated(|flag| used.contains(flag), notes);
    if config.discovery_fallback == "proxy" {
        let text = "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"";
        return Err(Failure::Verify(text.into()));
    }
    let discovers = ["discovery-srv", "discovery-srv-name", "discovery-endpoints"].iter().any(|f| used.contains(f));
    if discovers && !used.contains("initial-cluster") {
        config.initial_cluster.clear();
    }
    if used.contains("listen-client-urls") && !used.contains("advertise-client-urls") {
        // Validation tells it.
        config.advertise_client_urls.clear();
    }
    defaults::fill(config, notes);
    Ok(())
}

/// Flag and key have the same name.
fn tell_of_deprecated(is_given: impl Fn(&str) -> bool, notes: &mut Vec<Note>) {
    for (name, text) in [("max-snapshots", MAX_SNAPSHOTS), ("v2-deprecation", V2_DEPRECATION)] {
        if is_given(name) {
            notes.push(Note::new(Level::Warn, text));
        }
    }
}

/// Members that gave one another less time would part for each hiccup.
fn raise_timeouts(config: &mut Config, notes: &mut Vec<Note>) {
    let timeouts =
        [("raft-read-timeout", &mut config.raft_read_timeout), ("raft-write-timeout", &mut config.raft_write_timeout)];
    for (name, timeout) in timeouts {
        if *timeout < RAFT_TIMEOUT_MIN {
            *timeout = RAFT_TIMEOUT_MIN;
            let text = format!("{name} increased to minimum value: {}", go::format_duration(RAFT_TIMEOUT_MIN));
            notes.push(Note::new(Level::Info, &text));
        }
    }
}

fn from_env(
    config: &mut Config,
    given: &BTreeSet<&'static str>,
    variables: &BTreeMap<&str, &str>,
    notes: &mut Vec<Note>,
    used: &mut BTreeSet<&'static str>,
) -> Result<(), Failure> {
    let mut flags: Vec<&'static Flag> = FLAGS.iter().filter(|f| !f.name.is_empty()).collect();
    flags.sort_by_key(|f| f.name);
    let mut failure = None;
    for flag in flags {
        let variable = variable_of(flag.name);
        let value = variables.get(variable.as_str()).copied().unwrap_or_default();
        if given.contains(flag.name) || value.is_empty() {
            continue;
        }
        used.insert(flag.name);
        match flag.set(config, value) {
            // As in etcd, the last bad variable is the one that is told.
            Err(why) => failure = Some(format!("invalid value {} for {variable}: {why}", quote(value))),
            Ok(()) => {
                let shown = if flag.name.contains("password") { "***" } else { value };
                let note = Note::new(Level::Info, "recognized and used environment variable");
                notes.push(note.text("variable-name", &variable).text("variable-value", shown));
            }
        }
    }
    failure.map_or(Ok(()), |text| Err(Failure::Verify(text)))
}

fn check_env(
    given: &BTreeSet<&'static str>,
    variables: &BTreeMap<&str, &str>,
    used: &BTreeSet<&'static str>,
    notes: &mut Vec<Note>,
) -> Result<(), Failure> {
    let shadowed: BTreeSet<String> = given.iter().map(|f| variable_of(f)).collect();
    let known: BTreeSet<String> = used.iter().copied().chain(IGNORED.iter().copied()).map(variable_of).collect();
    for (name, value) in variables {
        if shadowed.contains(*name) {
            return Err(Failure::Conflict { variable: (*name).to_owned() });
        }
        if !name.starts_with("ETCD_") || known.contains(*name) {
            continue;
        }
        if *name == "ETCD_VERSION" {
            let note = Note::new(Level::Warn, "cannot set special environment variable");
            notes.push(note.text("key", name).text("value", value));
        } else {
            let note = Note::new(Level::Warn, "unrecognized environment variable");
            notes.push(note.text("environment-variable", &format!("{name}={value}")));
        }
    }
    Ok(())
}

fn from_file(config: &mut Config, path: &str, notes: &mut Vec<Note>) -> Result<(), Failure> {
    let text = "loaded server configuration, other configuration command line flags and environment variables will be \
                ignored if provided";
    notes.push(Note::new(Level::Info, text).text("path", path));
    // The two timeouts a file can't hold keep their flags.
    let (read, write) = (config.raft_read_timeout, config.raft_write_timeout);
    *config = Config { raft_read_timeout: read, raft_write_timeout: write, ..Config::default() };
    let bytes = std::fs::read_to_string(path).map_err(|e| {
        // A directory can be opened; only reading it fails.
        let doing = if e.kind() == std::io::ErrorKind::IsADirectory { "read" } else { "open" };
        Failure::Verify(format!("{doing} {path}: {}", go::os_text(&e)))
    })?;
    let given = yaml::read_given(&bytes, config)?;
    tell_of_deprecated(|key| given.contains(&key), notes);
    let discovers = !config.discovery_srv.is_empty() || !config.discovery_endpoints.is_empty();
    if discovers && config.initial_cluster == super::table::DEFAULT_INITIAL_CLUSTER {
        config.initial_cluster.clear();
    }
    defaults::fill(config, notes);
    Ok(())
}
