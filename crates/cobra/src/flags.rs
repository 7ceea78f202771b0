//! Flags: their tables, and words read by pflag's rules and refused with its texts.

use super::Command;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Text,
    Int,
    Uint,
    Uint32,
    Float,
    Duration,
    /// A comma separated list; a repeated flag appends.
    List,
}

/// A flag as its table row names it.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub default: &'static str,
    pub help: &'static str,
    pub required: bool,
    /// Left out of help texts.
    pub hidden: bool,
}

impl Flag {
    /// A flag without a short name.
    pub const fn new(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
        Flag { name, short: None, kind, default, help, required: false, hidden: false }
    }

    /// A boolean flag, false unless given.
    pub const fn switch(name: &'static str, help: &'static str) -> Flag {
        Flag::new(name, Kind::Bool, "false", help)
    }

    /// The same flag with a one-letter name.
    pub const fn short(mut self, short: char) -> Flag {
        self.short = Some(short);
        self
    }

    /// The same flag, which must be given.
    pub const fn required(mut self) -> Flag {
        self.required = true;
        self
    }

    /// The same flag, left out of help texts.
    pub const fn hidden(mut self) -> Flag {
        self.hidden = true;
        self
    }
}

/// A flag's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Text(String),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    List(Vec<String>),
}

impl Value {
    /// Reads a value as pflag does.
    ///
    /// # Errors
    /// The text of Go's `strconv` or `time`.
    pub fn parse(kind: Kind, text: &str) -> Result<Value, String> {
        Ok(match kind {
            Kind::Bool => Value::Bool(go::parse_bool(text)?),
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Int => Value::Int(go::parse_int(text, 0)?),
            Kind::Uint => Value::Uint(go::parse_uint(text, 0, 64)?),
            Kind::Uint32 => Value::Uint(go::parse_uint(text, 0, 32)?),
            Kind::Float => Value::Float(float(text)?),
            Kind::Duration => Value::Duration(go::parse_duration(text)?),
            Kind::List => Value::List(go::split_csv(text)?),
        })
    }
}

fn float(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("strconv.ParseFloat: parsing {}: invalid syntax", go::quote(text)))
}

/// Words that were read: values of all flags, which of them were given, and the rest.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    values: BTreeMap<&'static str, Value>,
    given: Vec<&'static str>,
    /// The words that are no flags.
    pub args: Vec<Vec<u8>>,
    /// How many of them stood before `--`, if it was there.
    pub before_dash: Option<usize>,
}

impl Parsed {
    /// Whether the flag was on the command line (or set by [`Parsed::set`]).
    pub fn was_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    /// A boolean flag's value; false when there is no such flag.
    pub fn is_true(&self, name: &str) -> bool {
        matches!(self.values.get(name), Some(Value::Bool(true)))
    }

    /// A text flag's value.
    pub fn text(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// An integer flag's value.
    pub fn int(&self, name: &str) -> i64 {
        match self.values.get(name) {
            Some(Value::Int(n)) => *n,
            _ => 0,
        }
    }

    /// An unsigned flag's value.
    pub fn uint(&self, name: &str) -> u64 {
        match self.values.get(name) {
            Some(Value::Uint(n)) => *n,
            _ => 0,
        }
    }

    /// The value of a flag with a fraction.
    pub fn float(&self, name: &str) -> f64 {
        match self.values.get(name) {
            Some(Value::Float(x)) => *x,
            _ => 0.0,
        }
    }

    /// A duration flag's value, nanoseconds.
    pub fn nanoseconds(&self, name: &str) -> i64 {
        match self.values.get(name) {
            Some(Value::Duration(n)) => *n,
            _ => 0,
        }
    }

    /// A list flag's value.
    pub fn list(&self, name: &str) -> &[String] {
        match self.values.get(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Any flag's value.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Sets a flag as if it had been given.
    pub fn set(&mut self, flag: &Flag, value: Value) {
        match (self.values.get_mut(flag.name), value) {
            (Some(Value::List(list)), Value::List(more)) if self.given.contains(&flag.name) => list.extend(more),
            (_, value) => drop(self.values.insert(flag.name, value)),
        }
        if !self.given.contains(&flag.name) {
            self.given.push(flag.name);
        }
    }
}

const HELP: &Flag = &Flag::switch("help", "").short('h');

/// All flags that count at the end of this path, the command's own first.
pub fn of(path: &[&'static Command]) -> Vec<&'static Flag> {
    let own = path.last().map(|c| c.flags).unwrap_or_default();
    let inherited = path.iter().rev().flat_map(|c| c.persistent);
    own.iter().chain(inherited).chain([HELP]).collect()
}

/// Reads words.
///
/// # Errors
/// pflag's text for the first wrong one.
pub fn parse(flags: &[&'static Flag], words: &[OsString]) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    for flag in flags.iter().rev() {
        parsed.values.insert(flag.name, Value::parse(flag.kind, flag.default)?);
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if text == "--" {
            parsed.before_dash = Some(parsed.args.len());
            parsed.args.extend(words.map(|word| word.as_bytes().to_vec()));
            return Ok(parsed);
        }
        if let Some(long) = text.strip_prefix("--") {
            long_flag(&mut parsed, flags, &text, long, &mut words)?;
        } else if text.len() > 1 && text.starts_with('-') {
            short_flags(&mut parsed, flags, &text, &mut words)?;
        } else {
            parsed.args.push(word.as_bytes().to_vec());
        }
    }
    Ok(parsed)
}

fn long_flag<'a>(
    parsed: &mut Parsed,
    flags: &[&'static Flag],
    word: &str,
    long: &str,
    words: &mut impl Iterator<Item = &'a OsString>,
) -> Result<(), String> {
    if long.starts_with(['-', '=']) {
        return Err(format!("bad flag syntax: {word}"));
    }
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (long, None),
    };
    let flag = flags.iter().find(|flag| flag.name == name).ok_or_else(|| format!("unknown flag: --{name}"))?;
    let value = match (value, flag.kind) {
        (Some(value), _) => value,
        (None, Kind::Bool) => "true".into(),
        (None, _) => next_word(words).ok_or_else(|| format!("flag needs an argument: --{name}"))?,
    };
    set(parsed, flag, &value)
}

fn short_flags<'a>(
    parsed: &mut Parsed,
    flags: &[&'static Flag],
    word: &str,
    words: &mut impl Iterator<Item = &'a OsString>,
) -> Result<(), String> {
    let mut rest = &word[1..];
    while let Some(letter) = rest.chars().next() {
        let cluster = format!("-{rest}");
        rest = &rest[letter.len_utf8()..];
        let flag = flags
            .iter()
            .find(|flag| flag.short == Some(letter))
            .ok_or_else(|| format!("unknown shorthand flag: '{letter}' in {cluster}"))?;
        if let Some(value) = rest.strip_prefix('=') {
            return set(parsed, flag, value);
        }
        if flag.kind == Kind::Bool {
            set(parsed, flag, "true")?;
            continue;
        }
        let value = match rest {
            "" => next_word(words).ok_or_else(|| format!("flag needs an argument: '{letter}' in {cluster}"))?,
            rest => rest.to_owned(),
        };
        return set(parsed, flag, &value);
    }
    Ok(())
}

fn next_word<'a>(words: &mut impl Iterator<Item = &'a OsString>) -> Option<String> {
    words.next().map(|word| word.to_string_lossy().into_owned())
}

fn set(parsed: &mut Parsed, flag: &Flag, text: &str) -> Result<(), String> {
    let value = Value::parse(flag.kind, text).map_err(|why| {
        let name = match flag.short {
            Some(short) => format!("-{short}, --{}", flag.name),
            None => format!("--{}", flag.name),
        };
        format!("invalid argument {} for \"{name}\" flag: {why}", go::quote(text))
    })?;
    parsed.set(flag, value);
    Ok(())
}

/// The words without flags and their values, as cobra sees them while it looks for the command: an unknown flag takes
/// the word behind it.
pub fn without_flags(words: &[OsString], path: &[&'static Command]) -> Vec<String> {
    plain_words(words, path).into_iter().map(|at| words[at].to_string_lossy().into_owned()).collect()
}

/// Where the first of these words stands.
pub fn position_of_first(words: &[OsString], path: &[&'static Command]) -> Option<usize> {
    plain_words(words, path).first().copied()
}

fn plain_words(words: &[OsString], path: &[&'static Command]) -> Vec<usize> {
    let flags = of(path);
    let takes_word = |word: &OsStr| {
        let word = word.to_string_lossy();
        if word.contains('=') {
            return false;
        }
        match word.strip_prefix("--") {
            Some(name) => !flags.iter().any(|f| f.name == name && f.kind == Kind::Bool),
            None if word.len() == 2 && word.starts_with('-') => {
                !flags.iter().any(|f| f.short == word.chars().nth(1) && f.kind == Kind::Bool)
            }
            None => false,
        }
    };
    let mut plain = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let word = words[at].as_os_str();
        if word == "--" {
            break;
        }
        if takes_word(word) {
            at += 1;
        } else if !word.is_empty() && !word.as_bytes().starts_with(b"-") {
            plain.push(at);
        }
        at += 1;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::new("limit", Kind::Int, "0", ""),
        Flag::new("write-out", Kind::Text, "simple", "").short('w'),
        Flag::new("endpoints", Kind::List, "127.0.0.1:2379", ""),
        Flag::switch("prefix", ""),
        Flag::new("ratio", Kind::Float, "0.5", ""),
    ];

    fn read(words: &[&str]) -> Result<Parsed, String> {
        let flags: Vec<&'static Flag> = FLAGS.iter().chain([HELP]).collect();
        parse(&flags, &words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn flags_stand_anywhere_until_the_dashes() {
        let p = read(&["--limit=2", "a", "--prefix", "-wjson", "--", "-b"]).unwrap();
        assert_eq!((p.int("limit"), p.is_true("prefix"), p.text("write-out")), (2, true, "json"));
        assert_eq!((p.args.as_slice(), p.before_dash), (&[b"a".to_vec(), b"-b".to_vec()][..], Some(1)));
        assert!(p.was_given("limit") && !p.was_given("endpoints"));
        assert_eq!((p.float("ratio"), read(&["--ratio", "2.25"]).unwrap().float("ratio")), (0.5, 2.25));
    }

    #[test]
    fn lists_append_and_replace_the_default() {
        assert_eq!(read(&[]).unwrap().list("endpoints"), ["127.0.0.1:2379"]);
        assert_eq!(read(&["--endpoints", "a,b", "--endpoints=c"]).unwrap().list("endpoints"), ["a", "b", "c"]);
    }

    #[test]
    fn wrong_words_are_refused_with_pflags_texts() {
        for (words, text) in [
            (&["--foo"][..], "unknown flag: --foo"),
            (&["-x"], "unknown shorthand flag: 'x' in -x"),
            (&["-hx"], "unknown shorthand flag: 'x' in -x"),
            (&["--limit"], "flag needs an argument: --limit"),
            (&["-w"], "flag needs an argument: 'w' in -w"),
            (&["--=x"], "bad flag syntax: --=x"),
            (
                &["--ratio=x"],
                "invalid argument \"x\" for \"--ratio\" flag: strconv.ParseFloat: parsing \"x\": invalid syntax",
            ),
            (
                &["--limit=x"],
                "invalid argument \"x\" for \"--limit\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(read(words).unwrap_err(), text, "{words:?}");
        }
    }
}
