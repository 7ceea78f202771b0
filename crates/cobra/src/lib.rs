//! Command lines by the rules of cobra and pflag, from tables.
//!
//! Scripts depend on how `etcdctl` and `etcdutl` read their words: flags stand anywhere until `--`, unique prefixes of
//! command names count, a parent command with an unknown word prints its help and succeeds, a wrong flag prints the
//! usage to standard error and fails with 1. No general parser does exactly that, and the rules fit on two pages.
//!
//! * [`Command`] and [`Flag`] are constant tables; [`Program`] is a tree of them.
//! * `flags` reads words into [`Parsed`]; `help` prints; [`run`] finds the command, reads its flags and calls it.
//! * [`completion`] answers shells that ask what could be typed next.

pub mod completion;
mod flags;
mod help;
pub mod manual;

pub use flags::{Flag, Kind, Parsed, Value, parse};
pub use help::{flag_usages, flag_usages_and_help, usage};

use std::ffi::{OsStr, OsString};
use std::io::Write as _;

/// A command, or a parent of commands.
#[derive(Debug)]
pub struct Command {
    /// The name, and what follows it on the usage line.
    pub usage: &'static str,
    /// One line for the parent's list.
    pub short: &'static str,
    /// Printed above the usage instead of `short`; empty: `short`.
    pub long: &'static str,
    pub example: &'static str,
    /// Title of the group in the parent's list; empty: no group.
    pub group: &'static str,
    pub flags: &'static [Flag],
    /// Flags of this command and all below it.
    pub persistent: &'static [Flag],
    pub commands: &'static [Command],
    /// Words the one argument must be among; empty: no check.
    pub one_of: &'static [&'static str],
    /// How many arguments there must be, checked before the command runs.
    pub exactly: Option<usize>,
    /// How many arguments there must be at least, and how many there may be at most; looked at without `exactly`.
    pub between: (usize, Option<usize>),
    /// Left out of lists and suggestions.
    pub hidden: bool,
    /// `None`: the command prints its help.
    pub run: Option<Run>,
}

/// What a command does.
pub type Run = fn(&mut Call) -> Result<(), Exit>;

impl Command {
    /// A command without anything, for `..Command::EMPTY` in tables.
    pub const EMPTY: Command = Command {
        usage: "",
        short: "",
        long: "",
        example: "",
        group: "",
        flags: &[],
        persistent: &[],
        commands: &[],
        one_of: &[],
        exactly: None,
        between: (0, None),
        hidden: false,
        run: None,
    };

    /// The word that calls it.
    pub fn name(&self) -> &'static str {
        self.usage.split(' ').next().unwrap_or_default()
    }
}

/// A program: its root command and its manners.
#[derive(Debug)]
pub struct Program {
    pub root: Command,
    /// Titles of the groups of the root's list, in order; empty: one list.
    pub groups: &'static [&'static str],
    /// Last line of every help text.
    pub pointer: &'static str,
    /// How errors of the command line are printed once more after the usage.
    pub repeats_errors: Repeats,
}

/// Whether a program's `main` prints the error that cobra has printed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    Never,
    /// As cobra did (etcdutl).
    Line,
    /// The text alone, without an end of line (etcd).
    Bare,
}

impl Repeats {
    fn tell(self, text: &str) {
        match self {
            Repeats::Never => {}
            Repeats::Line => eprintln!("Error: {text}"),
            Repeats::Bare => eprint!("{text}"),
        }
    }
}

/// Why a program ends with another code than 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: u8,
    /// Printed as `Error: …`; `None`: all is said.
    pub error: Option<String>,
}

impl Exit {
    /// Code and text.
    pub fn with(code: u8, error: impl Into<String>) -> Exit {
        Exit { code, error: Some(error.into()) }
    }

    /// A code alone.
    pub fn code(code: u8) -> Exit {
        Exit { code, error: None }
    }

    /// Code 1: anything went wrong.
    pub fn error(error: impl ToString) -> Exit {
        Exit::with(1, error.to_string())
    }

    /// Code 3: bad input.
    pub fn input(error: impl Into<String>) -> Exit {
        Exit::with(3, error)
    }

    /// Code 4: a feature that is not there, such as an output format.
    pub fn feature(error: impl Into<String>) -> Exit {
        Exit::with(4, error)
    }

    /// Code 128: wrong arguments.
    pub fn arguments(error: impl Into<String>) -> Exit {
        Exit::with(128, error)
    }
}

/// A command that was called: the program, the way to the command, and what was given.
#[derive(Debug)]
pub struct Call {
    pub program: &'static Program,
    /// From the root to the command.
    pub path: Vec<&'static Command>,
    pub given: Parsed,
}

impl Call {
    /// The words besides the flags.
    pub fn args(&self) -> &[Vec<u8>] {
        &self.given.args
    }

    /// An argument as text; bytes that are no UTF-8 are replaced.
    pub fn arg(&self, at: usize) -> String {
        self.given.args.get(at).map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default()
    }
}

/// Runs the program with these words (without its own name). Answers the exit code.
pub fn run(program: &'static Program, mut words: Vec<OsString>) -> u8 {
    if let Some(explain) = words.first().and_then(|word| asks_for_completion(word)) {
        words.remove(0);
        return completion::answer(program, words, explain);
    }
    let (path, rest) = find(program, words);
    let command = path.last().copied().unwrap_or(&program.root);
    if path.len() == 1
        && !program.root.commands.is_empty()
        && let Some(word) = flags::without_flags(&rest, &path).first()
    {
        return unknown_command(program, word);
    }
    let flags = flags::of(&path);
    let given = match parse(&flags, &rest) {
        Ok(given) => given,
        Err(text) => return misuse(program, &path, &text),
    };
    if given.is_true("help") {
        return print_help(program, &path);
    }
    let Some(action) = command.run else {
        return print_help(program, &path);
    };
    if let Err(text) = check(&path, &given) {
        return misuse(program, &path, &text);
    }
    let mut call = Call { program, path, given };
    finish(action(&mut call))
}

/// Whether the word is one of cobra's hidden commands, and whether explanations are wanted.
fn asks_for_completion(word: &OsStr) -> Option<bool> {
    match word.to_str() {
        Some("__complete") => Some(true),
        Some("__completeNoDesc") => Some(false),
        _ => None,
    }
}

/// The command that these words name, and how many words that are no flags stand behind its name.
pub(crate) fn completion_place(program: &'static Program, words: Vec<OsString>) -> (Vec<&'static Command>, usize) {
    let (path, rest) = find(program, words);
    let plain = flags::without_flags(&rest, &path).len();
    (path, plain)
}

/// Prints why a command failed. Answers its code.
pub fn finish(outcome: Result<(), Exit>) -> u8 {
    // A reader that went away (`| head`) is no reason to fail.
    let _ = std::io::stdout().flush();
    match outcome {
        Ok(()) => 0,
        Err(exit) => {
            if let Some(text) = exit.error {
                eprintln!("Error: {text}");
            }
            exit.code
        }
    }
}

fn check(path: &[&'static Command], given: &Parsed) -> Result<(), String> {
    let Some(command) = path.last() else { return Ok(()) };
    let count = given.args.len();
    if let Some(wanted) = command.exactly.or_else(|| (!command.one_of.is_empty()).then_some(1))
        && count != wanted
    {
        return Err(format!("accepts {wanted} arg(s), received {count}"));
    }
    match command.between {
        (least, None) if count < least => {
            return Err(format!("requires at least {least} arg(s), only received {count}"));
        }
        (least, Some(most)) if !(least..=most).contains(&count) => {
            return Err(format!("accepts between {least} and {most} arg(s), received {count}"));
        }
        _ => {}
    }
    if let (Some(word), false) = (given.args.first(), command.one_of.is_empty()) {
        let word = String::from_utf8_lossy(word);
        if !command.one_of.contains(&word.as_ref()) {
            return Err(format!("invalid argument {} for {:?}", go::quote(&*word), path_text(path)));
        }
    }
    let missing: Vec<String> = flags::of(path)
        .iter()
        .filter(|flag| flag.required && !given.was_given(flag.name))
        .map(|flag| format!("{:?}", flag.name))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("required flag(s) {} not set", missing.join(", "))) }
}

/// The words that name the command: `etcdctl lease grant`.
pub fn path_text(path: &[&Command]) -> String {
    path.iter().map(|command| command.name()).collect::<Vec<_>>().join(" ")
}

/// The command that the words name, and the words without those names.
fn find(program: &'static Program, mut words: Vec<OsString>) -> (Vec<&'static Command>, Vec<OsString>) {
    let mut path = vec![&program.root];
    loop {
        let Some(command) = path.last().copied() else { return (path, words) };
        let plain = flags::without_flags(&words, &path);
        let Some(next) = plain.first().and_then(|word| child(command, word)) else { return (path, words) };
        if let Some(at) = flags::position_of_first(&words, &path) {
            words.remove(at);
        }
        path.push(next);
    }
}

/// The child with this name, or the only one whose name begins so.
fn child(command: &'static Command, word: &str) -> Option<&'static Command> {
    if let Some(exact) = command.commands.iter().find(|c| c.name() == word) {
        return Some(exact);
    }
    let mut matches = command.commands.iter().filter(|c| c.name().starts_with(word));
    matches.next().filter(|_| matches.next().is_none() && !word.is_empty())
}

fn unknown_command(program: &'static Program, word: &str) -> u8 {
    let root = program.root.name();
    if word.is_empty() {
        return print_help(program, &[&program.root]);
    }
    let mut text = format!("unknown command {} for \"{root}\"", go::quote(word));
    let close: Vec<&str> = program
        .root
        .commands
        .iter()
        .filter(|c| !c.hidden)
        .map(Command::name)
        .filter(|name| distance(word, name) <= SUGGESTED_DISTANCE || name.starts_with(&word.to_lowercase()))
        .collect();
    if !close.is_empty() {
        text += "\n\nDid you mean this?\n";
        close.iter().for_each(|name| text += &format!("\t{name}\n"));
    }
    eprintln!("Error: {text}\nRun '{root} --help' for usage.");
    program.repeats_errors.tell(&text);
    1
}

/// Names at most so many edits away are suggested.
const SUGGESTED_DISTANCE: usize = 2;

/// Levenshtein's distance, blind to case.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

fn misuse(program: &Program, path: &[&'static Command], text: &str) -> u8 {
    eprintln!("Error: {text}\n{}", usage(program, path));
    program.repeats_errors.tell(text);
    1
}

/// Prints the help of the command to standard output.
pub fn print_help(program: &Program, path: &[&'static Command]) -> u8 {
    print!("{}", help::help(program, path));
    0
}

/// `help [command …]`: the help of that command.
///
/// # Errors
/// None: an unknown topic is told on standard error.
pub fn help_command(call: &mut Call) -> Result<(), Exit> {
    let words: Vec<OsString> = (0..call.args().len()).map(|i| OsString::from(call.arg(i))).collect();
    let shown: Vec<String> = (0..call.args().len()).map(|i| format!("`{}`", call.arg(i))).collect();
    let (path, rest) = find(call.program, words);
    if path.len() == 1 && !rest.is_empty() {
        eprintln!("Unknown help topic [{}]\n{}", shown.join(" "), usage(call.program, &path));
    } else {
        print_help(call.program, &path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits_without_case() {
        assert_eq!(distance("set", "get"), 1);
        assert_eq!(distance("Get", "get"), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("user", "set"), 2);
    }
}
