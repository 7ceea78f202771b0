//! The tables of conversations (`testdata/command_lines/*.txt`), and which format each line asks for.

use crate::tools::words;
use oxetcd_tests::places::read_source;

/// All output formats, in the order in which they are drawn.
pub const FORMATS: [&str; 5] = ["simple", "json", "fields", "protobuf", "table"];

/// A conversation: its lines build on one another.
#[derive(Debug)]
pub struct Scene {
    pub name: String,
    /// Both tools ask the same server, which they only read.
    pub one_server: bool,
    pub lines: Vec<Line>,
}

/// How a line is played and judged.
#[derive(Debug, Default)]
pub struct Marks {
    /// `+`: makes ready.
    pub makes_ready: bool,
    /// `~`: has clocks and durations in its answer.
    pub has_clocks: bool,
    /// `?`: prints help, whose sentences are ours.
    pub is_help: bool,
    /// `>`: goes on for ever.
    pub is_endless: bool,
    /// `!`: the row of docs/COMPAT.md that says why the answers differ.
    pub differs: Option<String>,
}

/// What is typed.
#[derive(Debug)]
pub struct Line {
    pub marks: Marks,
    /// As it stands in the table, without marks.
    pub text: String,
    pub variables: Vec<(String, String)>,
    pub words: Vec<String>,
    pub input: String,
    /// Its number in the table, by which its format is drawn.
    number: usize,
}

impl Line {
    /// The words, with the format of this round where the line names none; it stands in front, or behind all others.
    pub fn typed(&self, round: usize) -> Vec<String> {
        let mut typed = self.words.clone();
        let named = |word: &String| word.starts_with("-w") || word.starts_with("--write-out");
        let stands = self.marks.makes_ready || self.marks.differs.is_some();
        if stands || self.words.iter().any(named) || self.variable("ETCDCTL_WRITE_OUT").is_some() {
            return typed;
        }
        let format = FORMATS[(self.number + round) % FORMATS.len()];
        let may_stand_behind = !typed.is_empty() && !typed.iter().any(|word| word == "--" || word == "lock");
        let at = if may_stand_behind && self.number % 2 == 1 { typed.len() } else { 0 };
        typed.insert(at, format!("--write-out={format}"));
        typed
    }

    /// A variable of this line.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The scenes of a table.
pub fn scenes(file: &str) -> Vec<Scene> {
    let text = read_source(&format!("tests/testdata/command_lines/{file}.txt"));
    let mut scenes: Vec<Scene> = Vec::new();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (number, line) in lines.enumerate() {
        match line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            Some(head) => {
                let (name, kind) = head.split_once(", ").unwrap_or((head, ""));
                let one_server = kind == "one server";
                assert!(one_server || kind.is_empty(), "{file}: [{head}]");
                scenes.push(Scene { name: name.to_owned(), one_server, lines: Vec::new() });
            }
            None => scenes.last_mut().expect("a scene begins with its name").lines.push(parse(number, line)),
        }
    }
    scenes
}

fn parse(number: usize, line: &str) -> Line {
    let (mut marks, mut rest) = (Marks::default(), line);
    while let Some((mark, behind)) = rest.split_once(' ') {
        match mark {
            "+" => marks.makes_ready = true,
            "~" => marks.has_clocks = true,
            "?" => marks.is_help = true,
            ">" => marks.is_endless = true,
            "!" => {
                let (row, behind) = behind.split_once(" | ").unwrap_or_else(|| panic!("no row: {line}"));
                marks.differs = Some(row.to_owned());
                rest = behind;
                break;
            }
            _ => break,
        }
        rest = behind;
    }
    let (typed, input) = rest.split_once(" <").unwrap_or((rest, ""));
    let mut words = words(typed);
    let is_variable = |word: &String| word.starts_with("ETCDCTL_") && word.contains('=');
    let count = words.iter().take_while(|word| is_variable(word)).count();
    let variables = words.drain(..count).filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    });
    let variables = variables.collect();
    let input = input.strip_prefix(' ').unwrap_or(input).replace("\\n", "\n");
    Line { marks, text: rest.to_owned(), variables, words, input, number }
}
