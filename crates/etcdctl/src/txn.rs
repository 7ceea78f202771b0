//! `txn`: compares, requests on success and requests on failure from standard input, each list ended by an empty line.

use crate::globals::Ctl;
use crate::kv::{self, failed};
use crate::output::Answer;
use api::pb::etcdserverpb as pb;
use cobra::{Call, Command, Exit, Flag, Program, parse, usage};

use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use std::ffi::OsString;
use std::io::{BufRead, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

/// Flags of `txn`.
pub static FLAGS: &[Flag] = &[Flag::switch("interactive", "ask for each of the three lists").short('i')];

/// `txn`.
pub fn txn(call: &mut Call) -> Result<(), Exit> {
    if !call.args().is_empty() {
        return Err(Exit::arguments("txn command does not accept argument"));
    }
    let interactive = call.given.is_true("interactive");
    let ctl = Ctl::open(call)?;
    let prompt = |text: &str| {
        if interactive {
            println!("{text}");
            // A prompt that nobody reads is no reason to fail.
            let _ = std::io::stdout().flush();
        }
    };
    let request = read(call.program, &mut std::io::stdin().lock(), prompt, kv::RANGE_WARNING_WAIT)?;
    let response = ctl.block_on(ctl.client.txn(request)).map_err(failed)?;
    ctl.display.show(Answer::Txn(&response))
}

/// The three lists. Who deletes from one key to another without saying so has so long to think.
///
/// # Errors
/// etcdctl's text for the first line that is none, code 3.
pub fn read(
    program: &'static Program,
    input: &mut impl BufRead,
    prompt: impl Fn(&str),
    think: Duration,
) -> Result<pb::TxnRequest, Exit> {
    prompt("compares:");
    let compare = read_list(input, compare)?;
    prompt("success requests (get, put, del):");
    let success = read_list(input, |line| request(program, line, think))?;
    prompt("failure requests (get, put, del):");
    let failure = read_list(input, |line| request(program, line, think))?;
    Ok(pb::TxnRequest { compare, success, failure })
}

/// Lines up to a blank one, each read by `item`.
fn read_list<T>(input: &mut impl BufRead, item: impl Fn(&[u8]) -> Result<T, Exit>) -> Result<Vec<T>, Exit> {
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(|e| Exit::input(e.to_string()))?;
        // A last line without its end is not taken.
        if line.pop() != Some(b'\n') {
            return Err(Exit::input("EOF"));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(items);
        }
        items.push(item(line)?);
    }
}

/// `TARGET("KEY") OP "VALUE"`.
fn compare(line: &[u8]) -> Result<pb::Compare, Exit> {
    let text = String::from_utf8_lossy(line).into_owned();
    let malformed = |more: &str| Exit::input(format!("malformed comparison: {text}{more}"));
    let Some(at) = line.iter().position(|b| *b == b'(') else { return Err(malformed("")) };
    let (target, rest) = (String::from_utf8_lossy(&line[..at]).into_owned(), &line[at + 1..]);
    let (key, op, value) = parts(rest);
    let (Some(key), Some(value)) = (&key, &value) else {
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        let (key, value) = (go::quote(&key), go::quote(&value));
        return Err(malformed(&format!("; got {target}({key}) {op} {value}")));
    };
    let number = |base: u32| {
        let digits = String::from_utf8_lossy(value).into_owned();
        go::parse_int(&digits, base).map_err(|_| Exit::input(format!("invalid txn compare request: {text}")))
    };
    let (target, union) = match target.as_str() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => return Err(malformed(&format!(" (unknown target {other})"))),
    };
    let result = match op.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        // The reference panics here.
        other => return Err(malformed(&format!(" (unknown operator {other}; use =, !=, > or <)"))),
    };
    Ok(pb::Compare {
        result: result as i32,
        target: target as i32,
        key: key.clone().into(),
        target_union: Some(union),
        range_end: Default::default(),
    })
}

/// Key, operator and value behind the first parenthesis, as `fmt.Sscanf("%q) %s %q")` takes them: what comes before the
/// first mistake counts.
fn parts(rest: &[u8]) -> (Option<Vec<u8>>, String, Option<Vec<u8>>) {
    let none = (None, String::new(), None);
    let Some((key, rest)) = quoted(rest.trim_ascii_start()) else { return none };
    let found = |op: String, value| (Some(key.clone()), op, value);
    let Some(rest) = rest.strip_prefix(b") ") else { return found(String::new(), None) };
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let op = String::from_utf8_lossy(&rest[..end]).into_owned();
    let after = &rest[end..];
    let value = if after.is_empty() { None } else { quoted(after.trim_ascii_start()).map(|(value, _)| value) };
    found(op, value)
}

/// A text in Go's quotes at the front, and what follows.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let quote = *text.first().filter(|b| matches!(b, b'"' | b'`'))?;
    let mut at = 1;
    while *text.get(at)? != quote {
        at += if quote == b'"' && text[at] == b'\\' { 2 } else { 1 };
    }
    Some((go::unquote(&text[..=at])?, &text[at + 1..]))
}

/// One line of requests: `get`, `put` or `del` with that command's own flags.
fn request(program: &'static Program, line: &[u8], think: Duration) -> Result<pb::RequestOp, Exit> {
    let words = words(line);
    let text = String::from_utf8_lossy(line).into_owned();
    let (name, rest) = match words.split_first() {
        Some((name, rest)) if !rest.is_empty() => (name, rest),
        _ => return Err(Exit::input(format!("invalid txn compare request: {text}"))),
    };
    let name = String::from_utf8_lossy(name).into_owned();
    let refused = || Exit::input(format!("invalid txn request: {text}"));
    let known = ["get", "put", "del"].contains(&name.as_str());
    let command = program.root.commands.iter().find(|c| known && c.name() == name).ok_or_else(refused)?;
    let rest: Vec<OsString> = rest.iter().cloned().map(OsString::from_vec).collect();
    let flags: Vec<&'static Flag> = command.flags.iter().collect();
    let given = parse(&flags, &rest).map_err(|_| {
        eprintln!("{}", local_usage(program, command));
        refused()
    })?;
    let op = match name.as_str() {
        "get" => Op::RequestRange(kv::range_request(&given)?),
        "put" => Op::RequestPut(kv::put_request(&given, || None)?),
        _ => Op::RequestDeleteRange(kv::delete_request(&given, think)?),
    };
    Ok(pb::RequestOp { request: Some(op) })
}

fn local_usage(program: &'static Program, command: &'static Command) -> String {
    usage(program, &[&program.root, command])
}

/// Words as a shell splits them: `"…"` with Go's escapes, `'…'` as it is, else runs without blanks.
pub fn words(line: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let (word, after) = match first {
            b'"' if quoted(rest).is_some() => quoted(rest).unwrap_or_default(),
            b'\'' if rest[1..].contains(&b'\'') => {
                let end = rest[1..].iter().position(|b| *b == b'\'').unwrap_or_default();
                (rest[1..=end].to_vec(), &rest[end + 2..])
            }
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_ascii_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_split_as_in_a_shell() {
        assert_eq!(words(b"put \"a b\" 'c \"d'  e"), [&b"put"[..], b"a b", b"c \"d", b"e"]);
        assert_eq!(words(b"put 'unclosed x"), [&b"put"[..], b"'unclosed", b"x"]);
    }

    #[test]
    fn comparisons_are_read_as_the_reference_reads_them() {
        let c = compare(br#"mod("k\x01") > "7" trailing"#).unwrap();
        assert_eq!((c.key.as_ref(), c.target_union), (&b"k\x01"[..], Some(TargetUnion::ModRevision(7))));
        for (line, text) in [
            ("foo", "malformed comparison: foo"),
            ("bar(\"a\") = \"0\"", "malformed comparison: bar(\"a\") = \"0\" (unknown target bar)"),
            ("ver(\"a\") = \"x\"", "invalid txn compare request: ver(\"a\") = \"x\""),
            ("ver(\"a\")=\"0\"", "malformed comparison: ver(\"a\")=\"0\"; got ver(\"a\")  \"\""),
            ("ver(a) = \"0\"", "malformed comparison: ver(a) = \"0\"; got ver(\"\")  \"\""),
        ] {
            assert_eq!(compare(line.as_bytes()).unwrap_err(), Exit::input(text), "{line}");
        }
    }
}
