//! Help and usage texts in cobra's layout.

use super::{Command, Flag, Kind, Program, path_text};

/// Names in a list are padded to at least this.
const NAME_WIDTH: usize = 11;

/// What `--help` prints.
pub fn help(program: &Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let about = if command.long.is_empty() { command.short } else { command.long };
    let about = about.trim_end();
    let head = if about.is_empty() { String::new() } else { format!("{about}\n\n") };
    let pointer = if program.pointer.is_empty() { String::new() } else { format!("{}\n", program.pointer) };
    format!("{head}{}{pointer}", usage(program, path))
}

/// The usage block, which also follows the text of a misuse.
pub fn usage(program: &Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let mut text = String::from("Usage:");
    let parents = path_text(&path[..path.len() - 1]);
    let prefix = if path.len() > 1 { format!("{parents} ") } else { String::new() };
    if command.run.is_some() {
        // A command that takes one word of a few says no more than that.
        let flags = if command.one_of.is_empty() { " [flags]" } else { "" };
        text += &format!("\n  {prefix}{}{flags}", command.usage);
    }
    if !command.commands.is_empty() {
        text += &format!("\n  {prefix}{} [command]", command.name());
    }
    if !command.example.is_empty() {
        text += &format!("\n\nExamples:\n{}", command.example);
    }
    text += &lists(program, command, path.len() == 1);
    text += &flag_blocks(path);
    if !command.commands.is_empty() {
        let words = path_text(path);
        text += &format!("\n\nUse \"{words} [command] --help\" for more information about a command.");
    }
    text + "\n"
}

fn lists(program: &Program, command: &Command, is_root: bool) -> String {
    let mut commands: Vec<&Command> = command.commands.iter().filter(|c| !c.hidden).collect();
    commands.sort_by_key(|c| c.name());
    if commands.is_empty() {
        return String::new();
    }
    let width = commands.iter().map(|c| c.name().len()).max().unwrap_or_default().max(NAME_WIDTH);
    let rows = |group: Option<&str>| -> String {
        let of_group = commands.iter().filter(|c| group.is_none_or(|group| c.group == group));
        of_group.map(|c| format!("\n  {:width$} {}", c.name(), c.short)).collect()
    };
    if is_root && !program.groups.is_empty() {
        return program.groups.iter().map(|title| format!("\n\n{title}{}", rows(Some(title)))).collect();
    }
    format!("\n\nAvailable Commands:{}", rows(None))
}

fn flag_blocks(path: &[&'static Command]) -> String {
    let Some((command, parents)) = path.split_last() else { return String::new() };
    let about = format!("help for {}", command.name());
    let own = command.flags.iter().chain(command.persistent).filter(|flag| !flag.hidden).map(Shown::from);
    let own: Vec<Shown> = own.chain((!help_is_hidden(path)).then(|| Shown::help(&about))).collect();
    let inherited: Vec<Shown> =
        parents.iter().flat_map(|c| c.persistent).filter(|flag| !flag.hidden).map(Shown::from).collect();
    let mut text = String::new();
    if !own.is_empty() {
        text += &format!("\n\nFlags:\n{}", usages(own).trim_end());
    }
    if !inherited.is_empty() {
        text += &format!("\n\nGlobal Flags:\n{}", usages(inherited).trim_end());
    }
    text
}

/// A root whose global flags are hidden hides `--help` too.
fn help_is_hidden(path: &[&'static Command]) -> bool {
    path.len() == 1 && path.iter().any(|c| c.persistent.iter().any(|flag| flag.hidden))
}

struct Shown<'a> {
    name: &'a str,
    short: Option<char>,
    kind: Kind,
    default: &'a str,
    help: &'a str,
}

impl<'a> Shown<'a> {
    fn help(about: &'a str) -> Shown<'a> {
        Shown { name: "help", short: Some('h'), kind: Kind::Bool, default: "false", help: about }
    }
}

impl<'a> From<&'a Flag> for Shown<'a> {
    fn from(flag: &'a Flag) -> Self {
        Shown { name: flag.name, short: flag.short, kind: flag.kind, default: flag.default, help: flag.help }
    }
}

/// Flags in pflag's layout, sorted by name.
pub fn flag_usages(flags: &'static [Flag]) -> String {
    usages(flags.iter().map(Shown::from).collect())
}

/// The same, with the `--help` of this command among them.
pub fn flag_usages_and_help(flags: &'static [Flag], command: &str) -> String {
    let about = format!("help for {command}");
    usages(flags.iter().map(Shown::from).chain([Shown::help(&about)]).collect())
}

fn usages(mut flags: Vec<Shown>) -> String {
    flags.sort_by_key(|flag| flag.name);
    let heads: Vec<String> = flags.iter().map(head).collect();
    let width = heads.iter().map(String::len).max().unwrap_or_default();
    let rows = flags.iter().zip(&heads);
    rows.map(|(flag, head)| format!("{head:width$}   {}{}\n", flag.help, default_text(flag))).collect()
}

fn head(flag: &Shown) -> String {
    let name = match flag.short {
        Some(short) => format!("  -{short}, --{}", flag.name),
        None => format!("      --{}", flag.name),
    };
    match flag.kind {
        Kind::Bool => name,
        Kind::Text => name + " string",
        Kind::Int => name + " int",
        Kind::Uint => name + " uint",
        Kind::Uint32 => name + " uint32",
        Kind::Float => name + " float",
        Kind::Duration => name + " duration",
        Kind::List => name + " strings",
    }
}

fn default_text(flag: &Shown) -> String {
    match (flag.kind, flag.default) {
        (_, "" | "0" | "0s" | "false") if flag.kind != Kind::Text => String::new(),
        (Kind::Text, "") => String::new(),
        (Kind::Text, text) => format!(" (default {})", go::quote(text)),
        (Kind::List, text) => format!(" (default [{text}])"),
        (_, text) => format!(" (default {text})"),
    }
}
