//! What the command line gave, as this tool's commands read it: counts and sizes, and times that are not negative.

use cobra::{Flag, Parsed, Value, parse};
use std::ffi::OsString;
use std::time::Duration;

/// `--help`, which every command has.
const HELP: &Flag = &Flag::switch("help", "").short('h');

/// A command line that was understood.
#[derive(Clone, Debug)]
pub struct Given {
    parsed: Parsed,
    /// What stood outside the flags.
    pub args: Vec<String>,
}

impl Given {
    /// Reads words. The error is pflag's text, or that a value is of no use here.
    pub fn read(flags: impl Iterator<Item = &'static Flag>, words: &[String]) -> Result<Given, String> {
        let flags: Vec<&'static Flag> = flags.chain([HELP]).collect();
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let parsed = parse(&flags, &words)?;
        flags.iter().try_for_each(|flag| check(flag, &parsed))?;
        let args = parsed.args.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        Ok(Given { parsed, args })
    }

    /// `--help` was there.
    pub fn asks_for_help(&self) -> bool {
        self.parsed.is_true(HELP.name)
    }

    /// All values of a list.
    pub fn list(&self, name: &str) -> &[String] {
        self.parsed.list(name)
    }

    /// A text, or the first of a list; empty where nothing was given.
    pub fn text(&self, name: &str) -> &str {
        self.list(name).first().map_or_else(|| self.parsed.text(name), String::as_str)
    }

    /// A number.
    pub fn int(&self, name: &str) -> i64 {
        match self.parsed.value(name) {
            Some(Value::Uint(n)) => i64::try_from(*n).unwrap_or(i64::MAX),
            _ => self.parsed.int(name),
        }
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
        self.parsed.float(name)
    }

    /// A switch.
    pub fn is(&self, name: &str) -> bool {
        self.parsed.is_true(name)
    }

    /// A time.
    pub fn duration(&self, name: &str) -> Duration {
        go::clamp(self.parsed.nanoseconds(name))
    }
}

/// No time is negative, and no count of connections or threads takes more than 32 bits.
fn check(flag: &Flag, parsed: &Parsed) -> Result<(), String> {
    let refused =
        |value: &str, why: String| Err(format!("invalid argument {value} for \"--{}\" flag: {why}", flag.name));
    match parsed.value(flag.name) {
        Some(Value::Duration(ns)) if *ns < 0 => {
            let time = format!("\"-{}\"", go::format_duration(Duration::from_nanos(ns.unsigned_abs())));
            refused(&time, format!("{time} is negative"))
        }
        Some(Value::Uint(n)) if *n > u64::from(u32::MAX) => {
            let n = format!("\"{n}\"");
            refused(&n, format!("strconv.ParseUint: parsing {n}: value out of range"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cobra::Kind;

    const FLAGS: &[Flag] = &[
        Flag::new("total", Kind::Int, "10000", ""),
        Flag::new("clients", Kind::Uint, "1", ""),
        Flag::new("rw-ratio", Kind::Float, "1", ""),
        Flag::new("consistency", Kind::Text, "l", ""),
        Flag::switch("sequential-keys", ""),
        Flag::new("run", Kind::Duration, "0s", ""),
        Flag::new("endpoints", Kind::List, "127.0.0.1:2379", ""),
    ];

    fn read(line: &str) -> Result<Given, String> {
        Given::read(FLAGS.iter(), &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn values_are_read_by_their_kinds() {
        let line = "--total=-5 --clients 7 key --sequential-keys --endpoints a,b --endpoints=c --run 1m30s end -- --x";
        let given = read(line).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((given.int("total"), given.count("total"), given.size("clients")), (-5, 0, 7));
        assert_eq!((given.float("rw-ratio"), given.is("sequential-keys")), (1.0, true));
        assert_eq!((given.text("consistency"), given.text("endpoints")), ("l", "a"));
        assert_eq!(given.list("endpoints"), ["a", "b", "c"]);
        assert_eq!(given.args, ["key", "end", "--x"]);
        assert_eq!(given.duration("run"), Duration::from_secs(90));
        assert!(!given.asks_for_help() && read("-h").is_ok_and(|given| given.asks_for_help()));
    }

    #[test]
    fn times_are_not_negative_and_counts_not_huge() {
        let text = "invalid argument \"-5s\" for \"--run\" flag: \"-5s\" is negative";
        assert_eq!(read("--run=-5s").err().as_deref(), Some(text));
        let text = "invalid argument \"4294967296\" for \"--clients\" flag: strconv.ParseUint: parsing \"4294967296\": \
                    value out of range";
        assert_eq!(read("--clients=4294967296").err().as_deref(), Some(text));
        assert!(read("--clients=4294967295").is_ok());
    }
}
