//! Scripts of commands and their expected output.
//!
//! ```text
//! # a comment
//! command positional key=value key=(one,two)
//! input, if the command takes any
//! ----
//! expected output, up to an empty line
//! ```

use std::path::{Path, PathBuf};

/// One command of a script.
pub struct Command {
    pub name: String,
    args: Vec<Arg>,
    pub input: Vec<String>,
    expected: String,
    line: usize,
}

struct Arg {
    key: String,
    values: Vec<String>,
}

impl Command {
    /// Arguments without a value.
    pub fn positional(&self) -> impl Iterator<Item = &str> {
        self.args.iter().filter(|a| a.values.is_empty()).map(|a| a.key.as_str())
    }

    pub fn ids(&self) -> Vec<u64> {
        self.positional().map(|id| id.parse().expect("a node's id")).collect()
    }

    pub fn has(&self, key: &str) -> bool {
        self.args.iter().any(|a| a.key == key)
    }

    /// The values of an argument; none if it is absent.
    pub fn values(&self, key: &str) -> &[String] {
        self.args.iter().find(|a| a.key == key).map_or(&[], |a| &a.values)
    }

    pub fn value(&self, key: &str) -> Option<&str> {
        self.values(key).first().map(String::as_str)
    }

    pub fn numbers(&self, key: &str) -> Vec<u64> {
        self.values(key).iter().map(|v| v.parse().expect("a number")).collect()
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.numbers(key).first().copied()
    }

    pub fn is_true(&self, key: &str) -> bool {
        self.value(key) == Some("true")
    }
}

/// Something that a script drives.
pub trait Driven {
    fn run(&mut self, command: &Command) -> String;
}

/// A folder of scripts. Those left out carry a reason, and must fail.
pub struct Folder {
    pub path: &'static str,
    pub left_out: &'static [(&'static str, &'static str)],
}

impl Folder {
    /// Runs every script against a fresh `Driven`.
    ///
    /// # Panics
    /// With all failures, if there are any.
    pub fn run<D: Driven>(&self, fresh: impl Fn() -> D) {
        let mut failures = Vec::new();
        let paths = self.scripts();
        assert!(!paths.is_empty(), "no scripts in {}", self.path);
        for (name, _) in self.left_out {
            assert!(paths.iter().any(|p| p.ends_with(name)), "{name} is left out, but there is no such script");
        }
        for path in paths {
            let failure = run_script(&path, fresh());
            let reason = self.left_out.iter().find(|(name, _)| path.ends_with(name));
            match (failure, reason) {
                (Some(failure), None) => failures.push(failure),
                (None, Some((name, _))) => failures.push(format!("{name} is left out, but it passes")),
                _ => {}
            }
        }
        assert!(failures.is_empty(), "{} scripts failed\n\n{}", failures.len(), failures.join("\n"));
    }

    fn scripts(&self) -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.path);
        let files = std::fs::read_dir(folder).expect("the folder is part of the repository");
        let mut paths: Vec<PathBuf> = files.map(|f| f.expect("a file").path()).collect();
        paths.sort();
        paths
    }
}

/// The first command whose output differs, with both outputs.
fn run_script(path: &Path, mut driven: impl Driven) -> Option<String> {
    let text = std::fs::read_to_string(path).expect("a script is text");
    for command in parse(&text) {
        let found = driven.run(&command);
        if found.trim_end() != command.expected.trim_end() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let at = command.expected.lines().zip(found.lines()).take_while(|(a, b)| a == b).count();
            return Some(format!(
                "=== {name}:{}: {}\nfirst difference in output line {}\n--- expected\n{}\n--- found\n{found}",
                command.line,
                command.name,
                at + 1,
                command.expected
            ));
        }
    }
    None
}

fn parse(text: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, args) = parse_command(line);
        let input = lines.by_ref().map(|(_, l)| l.to_owned()).take_while(|l| l != "----").collect();
        let mut expected = String::new();
        while let Some((_, line)) = lines.next_if(|(_, l)| !l.trim().is_empty()) {
            expected += line;
            expected.push('\n');
        }
        commands.push(Command { name, args, input, expected, line: at + 1 });
    }
    commands
}

fn parse_command(line: &str) -> (String, Vec<Arg>) {
    let mut depth = 0;
    let mut words = vec![String::new()];
    for c in line.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            c if c.is_whitespace() => {
                if depth == 0 {
                    words.push(String::new());
                }
                continue;
            }
            _ => {}
        }
        words.last_mut().expect("there is always a word").push(c);
    }
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    let name = words.next().expect("the line is not empty");
    (name, words.map(|w| parse_arg(&w)).collect())
}

fn parse_arg(word: &str) -> Arg {
    let Some((key, value)) = word.split_once('=') else {
        return Arg { key: word.to_owned(), values: Vec::new() };
    };
    let list = value.strip_prefix('(').and_then(|v| v.strip_suffix(')')).unwrap_or(value);
    Arg { key: key.to_owned(), values: list.split(',').filter(|v| !v.is_empty()).map(str::to_owned).collect() }
}
