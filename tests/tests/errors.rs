//! docs/errors.md has every text of the error table, and everything that ends a server.

use oxetcd_tests::places::{read_source, source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/errors.md";
/// Crates whose fatal errors reach an operator.
const CRATES: [&str; 4] = ["etcd", "server", "wal", "bolt"];
/// Where the texts of a crate's own errors stand.
const DISPLAYS: [&str; 2] = ["crates/wal/src/error.rs", "crates/bolt/src/error.rs"];

/// A string literal at the beginning of `rest`, as users read it: `…` for what is filled in.
fn literal(rest: &str) -> Option<String> {
    let mut chars = rest.strip_prefix('"')?.chars().peekable();
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(text),
            '\\' => match chars.next()? {
                // The line goes on.
                '\n' => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                'n' => text.push('\n'),
                escaped => text.push(escaped),
            },
            '{' | '}' if chars.next_if_eq(&c).is_some() => text.push(c),
            '{' => {
                chars.by_ref().take_while(|c| *c != '}').for_each(drop);
                text.push('…');
            }
            c => text.push(c),
        }
    }
    None
}

/// The literals that follow one of `calls`, behind what may stand in between.
fn literals(code: &str, calls: &[&str]) -> Vec<String> {
    let behind = |call: &&str| {
        let call = (*call).to_owned();
        code.match_indices(&call).map(|(at, _)| at + call.len()).collect::<Vec<_>>()
    };
    let found = calls.iter().flat_map(behind).filter_map(|at| {
        let rest = code[at..].trim_start();
        let rest = rest.strip_prefix("format!(").or_else(|| rest.strip_prefix("f,")).unwrap_or(rest);
        literal(rest.trim_start())
    });
    // Those that only put other texts together have no words of their own.
    found.filter(|text| text.chars().any(char::is_alphabetic)).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(rust_files(&path)),
            false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// What a file has before its tests.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn fatal_texts() -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for name in CRATES {
        for path in rust_files(&source(&format!("crates/{name}/src"))) {
            let text = std::fs::read_to_string(&path).expect("a source can be read");
            texts.extend(literals(code(&text), &["Fatal::new("]));
        }
    }
    for path in DISPLAYS {
        texts.extend(literals(code(&read_source(path)), &["write!(", "f.write_str("]));
    }
    texts
}

fn missing<'a>(page: &str, texts: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let is_missing = |text: &&str| !page.contains(&format!("| `{text}` |"));
    texts.into_iter().filter(is_missing).map(str::to_owned).collect()
}

#[test]
fn the_page_has_every_answer_of_the_table_with_its_code() {
    let page = read_source(PAGE);
    for error in api::error::Error::TABLE {
        let row = format!("| `{error}` | {:?} |", error.code());
        assert!(page.contains(&row), "{PAGE} lacks {row}");
    }
}

#[test]
fn the_page_has_everything_that_ends_a_server() {
    let texts = fatal_texts();
    assert!(texts.len() > 50, "the sources are written otherwise than this test reads them: {texts:?}");
    let missing = missing(&read_source(PAGE), texts.iter().map(String::as_str));
    assert!(missing.is_empty(), "{PAGE} lacks {missing:#?}");
}

#[test]
fn texts_are_read_as_users_read_them() {
    let code = "Fatal::new(format!(\n  \"a {x} \\\n   b {{c}} {}\"\n)); Fatal::new(\"d \\\"e\\\"\"); Fatal::new(why)";
    assert_eq!(literals(code, &["Fatal::new("]), ["a … b {c} …", "d \"e\""]);
    assert_eq!(missing("| `one` | two |", ["one", "two"]), ["two"]);
}
