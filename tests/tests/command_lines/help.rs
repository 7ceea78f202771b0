//! What a tool's help says it can do, and whether the tables do all of it.

use crate::table::{Line, Scene};
use oxetcd_tests::process::stdout_of;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// A flag of a command: its name with its shorthand, and the word for its value (none: it is switched on).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flag {
    pub name: String,
    pub short: Option<String>,
    pub takes: Option<String>,
}

/// Commands by their words, with their own flags.
pub type Commands = BTreeMap<String, BTreeSet<Flag>>;

/// All commands of a tool, from its help pages.
pub fn commands(program: &Path) -> Commands {
    let mut all = Commands::new();
    let mut left = vec![String::new()];
    while let Some(path) = left.pop() {
        let page = stdout_of(Command::new(program).args(path.split_whitespace()).arg("--help"));
        let names = names(&page);
        // A command that has others does nothing itself.
        left.extend(names.iter().map(|name| format!("{path} {name}").trim().to_owned()));
        if names.is_empty() {
            all.insert(path, flags(&page));
        }
    }
    all
}

/// The commands that a help page lists: etcdctl's own page has groups of them, any other a list under its head.
fn names(page: &str) -> Vec<String> {
    let usage = page.lines().skip_while(|line| !line.starts_with("Usage:"));
    let is_head = |line: &str| line == "Available Commands:" || line == "Key-value commands";
    let listed = usage.skip_while(|line| !is_head(line)).take_while(|line| *line != "Flags:");
    let entries = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with([' ', '-']));
    let names = entries.filter_map(|line| line.split_once(' ').map(|(name, _)| name.to_owned()));
    names.filter(|name| name != "help").collect()
}

/// The flags that a help page lists, without those that all commands have.
pub fn flags(page: &str) -> BTreeSet<Flag> {
    let own = page.lines().take_while(|line| *line != "Global Flags:");
    let flag = |line: &str| {
        let entry = line.strip_prefix("  ")?.trim_start();
        let (short, entry) = match entry.split_once(", --") {
            Some((short, entry)) if short.len() == "-x".len() => (Some(short.to_owned()), entry),
            _ => (None, entry.strip_prefix("--")?),
        };
        let mut words = entry.split("  ").next()?.split(' ');
        Some(Flag { name: format!("--{}", words.next()?), short, takes: words.next().map(str::to_owned) })
    };
    own.filter_map(flag).filter(|flag| flag.name != "--help").collect()
}

/// A help page without its sentences: names, values and defaults stay.
pub fn shape(page: &str) -> String {
    let line = |line: &str| {
        let indented = line.starts_with("  ") && !line.starts_with("  etcd");
        let entry = line.trim_start();
        match entry.split_once("  ").or_else(|| entry.split_once(' ').filter(|_| !entry.starts_with('-'))) {
            Some((name, said)) if indented => {
                let default = said.rfind(" (default ").map_or("", |at| &said[at..]);
                format!("{name}{default}")
            }
            _ => line.to_owned(),
        }
    };
    // What stands in front of the usage is a sentence, where it is no error.
    let is_prose = |line: &&str| !line.starts_with("Error:") && !line.starts_with("Unknown");
    let head = page.lines().take_while(|line| !line.starts_with("Usage:")).filter(|line| !is_prose(line));
    let usage = page.lines().skip_while(|line| !line.starts_with("Usage:")).take_while(|line| *line != "Examples:");
    let is_list = |line: &str| line == "Flags:" || line == "Available Commands:";
    let behind = page.lines().skip_while(|line| *line != "Examples:").skip_while(|line| !is_list(line));
    head.chain(usage).chain(behind).map(line).collect::<Vec<_>>().join("\n")
}

/// What the tables leave out: commands, and flags of commands.
pub fn left_out(commands: &Commands, global: &BTreeSet<Flag>, scenes: &[Scene]) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = commands.keys().cloned().collect();
    left.extend(commands.iter().flat_map(|(path, flags)| flags.iter().map(move |f| format!("{path} {}", f.name))));
    left.extend(global.iter().map(|flag| flag.name.clone()));
    let lines = scenes.iter().flat_map(|scene| &scene.lines).filter(|line| !line.marks.makes_ready);
    for line in lines {
        let path = path(line, commands, global);
        left.remove(&path);
        for flag in commands.get(&path).into_iter().flatten().filter(|flag| names_flag(line, flag)) {
            left.remove(&format!("{path} {}", flag.name));
        }
        for flag in global.iter().filter(|flag| names_flag(line, flag)) {
            left.remove(&flag.name);
        }
    }
    left
}

/// The command that a line calls, by its full name.
fn path(line: &Line, commands: &Commands, global: &BTreeSet<Flag>) -> String {
    let mut path = String::new();
    let mut words = line.words.iter();
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            let takes = |flag: &Flag| flag.takes.is_some() && (*word == flag.name || Some(word) == flag.short.as_ref());
            if global.iter().any(takes) {
                words.next();
            }
            continue;
        }
        let longer = format!("{path} {word}").trim().to_owned();
        let leads_on = commands.keys().any(|known| *known == longer || known.starts_with(&format!("{longer} ")));
        if !leads_on {
            break;
        }
        path = longer;
    }
    path
}

fn names_flag(line: &Line, flag: &Flag) -> bool {
    let words = line.words.iter().take_while(|word| *word != "--");
    let mut names = words.map(|word| word.split('=').next().unwrap_or(word));
    names.any(|name| name == flag.name || Some(name) == flag.short.as_deref())
}

/// Global flags whose variable no line sets.
pub fn variables_left_out(global: &BTreeSet<Flag>, scenes: &[Scene]) -> BTreeSet<String> {
    let variable = |flag: &Flag| format!("ETCDCTL_{}", flag.name[2..].to_uppercase().replace('-', "_"));
    let lines = || scenes.iter().flat_map(|scene| &scene.lines);
    global.iter().map(variable).filter(|name| !lines().any(|line| line.variable(name).is_some())).collect()
}
