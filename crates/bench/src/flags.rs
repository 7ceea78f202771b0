//! Command lines as cobra and pflag read them: texts, usage and defaults are those of etcd's `benchmark`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Uint,
    Float,
    String,
    /// A comma-separated list; given again, it grows.
    Strings,
    Duration,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Bool => "",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Float => "float",
            Kind::String => "string",
            Kind::Strings => "strings",
            Kind::Duration => "duration",
        }
    }
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    /// As it would stand on the command line.
    pub default: &'static str,
    pub usage: &'static str,
}

/// A flag, in one line.
pub const fn flag(name: &'static str, kind: Kind, default: &'static str, usage: &'static str) -> Flag {
    Flag { name, kind, default, usage }
}

/// A command with its flags and those of the whole program.
#[derive(Clone, Debug)]
pub struct Command {
    /// `put [flags]`, without the program's name.
    pub usage: &'static str,
    pub about: &'static str,
    pub flags: &'static [Flag],
    pub globals: &'static [Flag],
}

/// A command line that was understood.
#[derive(Clone, Debug)]
pub struct Parsed {
    values: BTreeMap<&'static str, Vec<String>>,
    /// What stood outside the flags.
    pub args: Vec<String>,
    /// `--help` was there.
    pub help: bool,
}

impl Command {
    /// Reads a command line. The error is pflag's text.
    pub fn parse(&self, words: &[String]) -> Result<Parsed, String> {
        let mut parsed = Parsed { values: BTreeMap::new(), args: Vec::new(), help: false };
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                parsed.args.extend(rest.cloned());
                break;
            }
            match word.strip_prefix("--") {
                Some("help") => parsed.help = true,
                Some(text) => self.read_flag(&mut parsed, text, &mut rest)?,
                None if word == "-h" => parsed.help = true,
                None if word.len() > 1 && word.starts_with('-') => return Err(unknown_shorthand(word)),
                None => parsed.args.push(word.clone()),
            }
        }
        Ok(parsed.with_defaults(self.all()))
    }

    fn all(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().chain(self.globals)
    }

    fn read_flag<'a>(
        &self,
        parsed: &mut Parsed,
        text: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), String> {
        let (name, given) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        let flag = self.all().find(|flag| flag.name == name).ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match given {
            Some(value) => value,
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        check(flag, &value).map_err(|why| format!("invalid argument {value:?} for \"--{name}\" flag: {why}"))?;
        let values = parsed.values.entry(flag.name).or_default();
        if flag.kind == Kind::Strings {
            values.extend(value.split(',').map(str::to_owned));
        } else {
            *values = vec![value];
        }
        Ok(())
    }

    /// The usage text after an error or for `--help`.
    pub fn usage_text(&self, program: &str) -> String {
        let mut text = format!("Usage:\n  {program} {}\n", self.usage);
        section(&mut text, "Flags", self.flags, Some(self.help_line(program)));
        section(&mut text, "Global Flags", self.globals, None);
        text
    }

    fn help_line(&self, program: &str) -> (String, String) {
        let name = self.usage.split(' ').next().filter(|name| !name.starts_with('[')).unwrap_or(program);
        ("  -h, --help".to_owned(), format!("help for {name}"))
    }
}

fn unknown_shorthand(word: &str) -> String {
    let letter = word.chars().nth(1).unwrap_or_default();
    format!("unknown shorthand flag: {letter:?} in {word}")
}

fn section(text: &mut String, title: &str, flags: &[Flag], help: Option<(String, String)>) {
    if flags.is_empty() && help.is_none() {
        return;
    }
    let mut lines: Vec<(String, String)> = flags.iter().map(line).chain(help).collect();
    lines.sort_by_key(|(left, _)| left.trim_start_matches([' ', '-', 'h', ',']).to_owned());
    let width = lines.iter().map(|(left, _)| left.len()).max().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{title}:\n");
    for (left, right) in lines {
        let _ = writeln!(text, "{left:width$}   {right}");
    }
}

fn line(flag: &Flag) -> (String, String) {
    let left = format!("      --{} {}", flag.name, flag.kind.name());
    let default = match (flag.kind, flag.default) {
        (_, "" | "0" | "false" | "0s") => String::new(),
        (Kind::String, text) => format!(" (default {text:?})"),
        (Kind::Strings, text) => format!(" (default [{text}])"),
        (_, text) => format!(" (default {text})"),
    };
    (left.trim_end().to_owned(), format!("{}{default}", flag.usage))
}

/// Errors are pflag's; of what the tool can't use, it says so.
fn check(flag: &Flag, value: &str) -> Result<(), String> {
    match flag.kind {
        Kind::Bool => go::parse_bool(value).map(drop).map_err(String::from),
        Kind::Int => go::parse_int(value, 0).map(drop).map_err(String::from),
        Kind::Uint => go::parse_uint(value, 0, 32).map(drop).map_err(String::from),
        Kind::Float => {
            let syntax = |_| format!("strconv.ParseFloat: parsing {}: invalid syntax", go::quote(value));
            value.parse::<f64>().map(drop).map_err(syntax)
        }
        Kind::Duration => duration_of(value).map(drop),
        Kind::String | Kind::Strings => Ok(()),
    }
}

/// A duration; none is negative here.
fn duration_of(text: &str) -> Result<Duration, String> {
    let ns = u64::try_from(go::parse_duration(text)?).map_err(|_| format!("{} is negative", go::quote(text)))?;
    Ok(Duration::from_nanos(ns))
}

impl Parsed {
    fn with_defaults(mut self, flags: impl Iterator<Item = &'static Flag>) -> Parsed {
        for flag in flags {
            let defaults = || match flag.kind {
                Kind::Strings if flag.default.is_empty() => Vec::new(),
                Kind::Strings => flag.default.split(',').map(str::to_owned).collect(),
                _ => vec![flag.default.to_owned()],
            };
            self.values.entry(flag.name).or_insert_with(defaults);
        }
        self
    }

    /// All values of a list.
    pub fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// A text; empty where nothing was given.
    pub fn text(&self, name: &str) -> &str {
        self.list(name).first().map(String::as_str).unwrap_or_default()
    }

    // What was given is checked when it is read, and the tables below give every other flag a valid default.

    /// A number; 0 where nothing was given.
    pub fn int(&self, name: &str) -> i64 {
        go::parse_int(self.text(name), 0).unwrap_or_default()
    }

    /// A count; negative ones count as 0.
    pub fn count(&self, name: &str) -> u64 {
        u64::try_from(self.int(name)).unwrap_or_default()
    }

    /// A count of things in memory.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or_default()
    }

    /// A number with a fraction.
    pub fn float(&self, name: &str) -> f64 {
        self.text(name).parse().unwrap_or_default()
    }

    /// A switch.
    pub fn is(&self, name: &str) -> bool {
        go::parse_bool(self.text(name)).unwrap_or_default()
    }

    /// A time; zero where nothing was given.
    pub fn duration(&self, name: &str) -> Duration {
        duration_of(self.text(name)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: Command = Command {
        usage: "put [flags]",
        about: "Benchmark put",
        flags: &[
            flag("total", Kind::Int, "10000", "Total number of put requests"),
            flag("consistency", Kind::String, "l", "Linearizable(l) or Serializable(s)"),
            flag("sequential-keys", Kind::Bool, "false", "Use sequential keys"),
            flag("compact-interval", Kind::Duration, "0s", "Interval"),
        ],
        globals: &[
            flag("clients", Kind::Uint, "1", "Total number of gRPC clients"),
            flag("endpoints", Kind::Strings, "127.0.0.1:2379", "gRPC endpoints"),
        ],
    };

    fn parse(line: &str) -> Result<Parsed, String> {
        COMMAND.parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_read_as_pflag_reads_them() {
        let line = "--total=5 --clients 7 key --sequential-keys --endpoints a,b --endpoints=c --total 6 end -- --x";
        let parsed = parse(line).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((parsed.int("total"), parsed.size("clients"), parsed.is("sequential-keys")), (6, 7, true));
        assert_eq!(parsed.list("endpoints"), ["a", "b", "c"]);
        assert_eq!(parsed.args, ["key", "end", "--x"]);
        assert_eq!(parsed.text("consistency"), "l");
    }

    #[test]
    fn durations_are_not_negative() {
        assert_eq!(duration_of("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration_of("-5s").unwrap_err(), "\"-5s\" is negative");
    }

    #[test]
    fn errors_have_pflags_texts() {
        let table = [
            ("--foo", "unknown flag: --foo"),
            ("--total", "flag needs an argument: --total"),
            ("-x", "unknown shorthand flag: 'x' in -x"),
            (
                "--total x",
                "invalid argument \"x\" for \"--total\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "--total 99999999999999999999",
                "invalid argument \"99999999999999999999\" for \"--total\" flag: strconv.ParseInt: parsing \
                 \"99999999999999999999\": value out of range",
            ),
            (
                "--compact-interval 5",
                "invalid argument \"5\" for \"--compact-interval\" flag: time: missing unit in duration \"5\"",
            ),
        ];
        for (line, text) in table {
            assert_eq!(parse(line).err().as_deref(), Some(text));
        }
    }

    #[test]
    fn the_usage_is_cobras() {
        let expected = "Usage:
  benchmark put [flags]

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
        assert_eq!(COMMAND.usage_text("benchmark"), expected);
    }
}
