//! Command lines by the rules of Go's package `flag`: `-name value`, `--name=value`, flags before everything else.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Uint,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub help: &'static str,
}

/// What was given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    values: BTreeMap<&'static str, String>,
    pub args: Vec<OsString>,
}

/// Why a program does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It was asked to explain itself.
    Help,
    Wrong(String),
}

impl Given {
    /// The flag's value, or its default.
    pub fn text<'a>(&'a self, flags: &'a [Flag], name: &str) -> &'a str {
        let default = flags.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default);
        self.values.get(name).map_or(default, String::as_str)
    }

    /// An unsigned flag's value; [`parse`] has seen that it is one.
    pub fn uint(&self, flags: &[Flag], name: &str) -> u64 {
        go::parse_uint(self.text(flags, name), 0, 64).unwrap_or_default()
    }

    pub fn is_true(&self, flags: &[Flag], name: &str) -> bool {
        go::parse_bool(self.text(flags, name)).unwrap_or_default()
    }

    pub fn was_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// Reads words.
///
/// # Errors
/// `-help`, or Go's text for the first wrong word.
pub fn parse(flags: &'static [Flag], words: Vec<OsString>) -> Result<Given, Stop> {
    let mut given = Given::default();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.peek() {
        let word = word.to_string_lossy().into_owned();
        let Some(name) = word.strip_prefix('-').filter(|name| !name.is_empty()) else { break };
        words.next();
        if name == "-" {
            break;
        }
        let name = name.strip_prefix('-').unwrap_or(name);
        if name.starts_with(['-', '=']) {
            return Err(Stop::Wrong(format!("bad flag syntax: {word}")));
        }
        let (name, value) = name.split_once('=').map_or((name, None), |(name, value)| (name, Some(value.to_owned())));
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            let help = matches!(name, "help" | "h");
            return Err(if help { Stop::Help } else { Stop::Wrong(format!("flag provided but not defined: -{name}")) });
        };
        let next = |words: &mut dyn Iterator<Item = OsString>| words.next().map(|w| w.to_string_lossy().into_owned());
        let value = match (value, flag.kind) {
            (Some(value), _) => value,
            (None, Kind::Bool) => "true".into(),
            (None, _) => next(&mut words).ok_or(Stop::Wrong(format!("flag needs an argument: -{name}")))?,
        };
        check(flag, &value)?;
        given.values.insert(flag.name, value);
    }
    given.args = words.collect();
    Ok(given)
}

fn check(flag: &Flag, value: &str) -> Result<(), Stop> {
    let (what, why) = match flag.kind {
        Kind::Text => return Ok(()),
        Kind::Bool => ("boolean value", go::parse_bool(value).err()),
        Kind::Uint => ("value", go::parse_uint(value, 0, 64).err()),
    };
    match why {
        None => Ok(()),
        Some(why) => {
            let (value, why) = (go::quote(value), why.flag_text());
            Err(Stop::Wrong(format!("invalid {what} {value} for flag -{}: {why}", flag.name)))
        }
    }
}

/// What `-help` prints, in Go's layout.
pub fn usage(program: &str, flags: &[Flag]) -> String {
    let mut flags: Vec<&Flag> = flags.iter().collect();
    flags.sort_by_key(|flag| flag.name);
    let mut text = format!("Usage of {program}:\n");
    for flag in flags {
        let (kind, default) = match (flag.kind, flag.default) {
            (Kind::Bool, _) => ("", String::new()),
            (Kind::Text, "") => (" string", String::new()),
            (Kind::Text, default) => (" string", format!(" (default {})", go::quote(default))),
            (Kind::Uint, "0") => (" uint", String::new()),
            (Kind::Uint, default) => (" uint", format!(" (default {default})")),
        };
        text += &format!("  -{}{kind}\n    \t{}{default}\n", flag.name, flag.help.replace('\n', "\n    \t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag { name: "raw", kind: Kind::Bool, default: "false", help: "as it is" },
        Flag { name: "start", kind: Kind::Uint, default: "0", help: "first\nof all" },
        Flag { name: "dir", kind: Kind::Text, default: "here", help: "where" },
    ];

    fn read(line: &str) -> Result<Given, Stop> {
        parse(FLAGS, line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn flags_stand_before_everything_else() {
        let given = read("-start 7 --dir=there -raw a -start 9").unwrap();
        assert_eq!(
            (given.uint(FLAGS, "start"), given.text(FLAGS, "dir"), given.is_true(FLAGS, "raw")),
            (7, "there", true)
        );
        assert_eq!(given.args, ["a", "-start", "9"]);
        let given = read("-raw=false -- -raw").unwrap();
        assert!(!given.is_true(FLAGS, "raw") && given.args == ["-raw"] && !given.was_given("start"));
        assert_eq!(given.text(FLAGS, "dir"), "here");
    }

    #[test]
    fn wrong_words_are_refused_with_gos_texts() {
        for (line, text) in [
            ("-foo", "flag provided but not defined: -foo"),
            ("-start", "flag needs an argument: -start"),
            ("---start", "bad flag syntax: ---start"),
            ("-start=x", "invalid value \"x\" for flag -start: parse error"),
            ("-raw=x", "invalid boolean value \"x\" for flag -raw: parse error"),
        ] {
            assert_eq!(read(line).unwrap_err(), Stop::Wrong(text.into()), "{line}");
        }
        assert_eq!(read("-h").unwrap_err(), Stop::Help);
        let usage = usage("x", FLAGS);
        assert!(usage.starts_with("Usage of x:\n  -dir string\n    \twhere (default \"here\")\n"), "{usage}");
        assert!(usage.ends_with("  -start uint\n    \tfirst\n    \tof all\n"), "{usage}");
    }
}
