//! Names of functions: out of the program's own table, and out of its debugging information where it was not stripped.

use std::collections::HashMap;

/// One call of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    pub name: String,
    /// Empty where it is not known.
    pub file: String,
    /// 0 where it is not known.
    pub line: u32,
}

/// What an address of a stack stands for: a call, or several that were inlined, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame(pub Vec<Call>);

impl Frame {
    /// One that is no address.
    pub fn named(name: &str, file: &str) -> Frame {
        Frame(vec![Call { name: name.to_owned(), file: file.to_owned(), line: 0 }])
    }
}

/// Looks addresses up, each once.
#[derive(Debug, Default)]
pub struct Symbols(HashMap<usize, Frame>);

impl Symbols {
    /// What stands at an address; its number where that is not known.
    pub fn frame(&mut self, address: usize) -> &Frame {
        self.0.entry(address).or_insert_with(|| look_up(address))
    }
}

fn look_up(address: usize) -> Frame {
    let mut calls = Vec::new();
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        if let Some(name) = symbol.name() {
            let file = symbol.filename().map(|file| file.display().to_string()).unwrap_or_default();
            // The hash behind a name is the compiler's.
            calls.push(Call { name: format!("{name:#}"), file, line: symbol.lineno().unwrap_or(0) });
        }
    });
    if calls.is_empty() {
        return Frame::named(&format!("{address:#x}"), "");
    }
    Frame(calls)
}

/// The function at an address; `None`: there is none.
pub fn function_at(address: usize) -> Option<String> {
    let mut found = None;
    backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
        // The last is the one that the others were inlined into.
        found = symbol.name().map(|name| format!("{name:#}"));
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_known_by_their_addresses() {
        let here = functions_are_known_by_their_addresses as fn() as usize;
        // An address of a stack is that of the next instruction.
        let found = function_at(here + 1).unwrap();
        assert!(found.ends_with("functions_are_known_by_their_addresses"), "{found}");
        assert_eq!(function_at(16), None);
        assert_eq!(Symbols::default().frame(16), &Frame::named("0x10", ""));
    }
}
