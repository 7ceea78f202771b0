//! What a term does to the process.

use crate::duration;
use crate::names::{Kind, Point};
use crate::registry::Registry;
use crate::term::{Action, Value, Verb};
use std::io::Write as _;
use std::time::Duration;

/// The exit code of a Go program that panicked.
const PANIC_CODE: i32 = 2;
/// gdb needs about this long to stop the process; gofail waits as long.
const DEBUGGER_PAUSE: Duration = Duration::from_secs(3);

/// Does it; answers the value of a `return`.
pub fn perform(registry: &Registry, point: &Point, action: Action) -> Option<Value> {
    match action.verb {
        Verb::Off => {}
        Verb::Return => return Some(action.value),
        Verb::Sleep => sleep(point, &action.value),
        Verb::Panic => panic(registry, point, &action.value),
        Verb::Print => say(format_args!("failpoint print: {}", point.name)),
        Verb::Break => debug(),
    }
    None
}

/// One line on standard output, where gofail writes. Nobody has to read it.
pub fn say(line: std::fmt::Arguments<'_>) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// A `return` of another type than the code at the name takes.
pub fn say_bad_type(name: &str, value: &Value, expected: Kind) {
    let found = match value {
        Value::Unit => "struct {}",
        Value::Text(_) => "string",
        Value::Int(_) => "int",
        Value::Bool(_) => "bool",
    };
    let expected = match expected {
        Kind::Unit => "struct{}",
        Kind::Text => "string",
    };
    say(format_args!("failpoint: {name:?} got value {value} of type {found:?} but expected type {expected:?}"));
}

fn sleep(point: &Point, value: &Value) {
    let time = match value {
        Value::Int(millis) => Some(Duration::from_millis(u64::try_from(*millis).unwrap_or(0))),
        Value::Text(text) => {
            let time = duration::parse(text);
            if time.is_none() {
                say(format_args!("failpoint: could not parse sleep({text}) on {}", point.name));
            }
            time
        }
        Value::Unit | Value::Bool(_) => {
            say(format_args!("failpoint: ignoring sleep({value}) on {}", point.name));
            None
        }
    };
    if let Some(time) = time {
        std::thread::sleep(time);
    }
}

/// Ends the process as a Go panic does to whoever watches it: a line on standard error and code 2. One thread's unwinding
/// would leave the others serving; nothing is flushed to the member's files, as in a crash.
fn panic(registry: &Registry, point: &Point, value: &Value) -> ! {
    let _answered = registry.quiet();
    let line = match value {
        Value::Unit => format!("{}/{}", point.package, point.name),
        value => value.to_string(),
    };
    let _closed = writeln!(std::io::stderr(), "panic: failpoint panic: {line}");
    std::process::exit(PANIC_CODE)
}

/// Starts gdb on this process.
fn debug() {
    let gdb = std::env::current_exe()
        .and_then(|program| std::process::Command::new("gdb").arg(program).arg(std::process::id().to_string()).spawn());
    match gdb {
        Ok(mut gdb) => {
            std::thread::sleep(DEBUGGER_PAUSE);
            // So that gdb, once left, does not stay behind as a zombie.
            drop(std::thread::Builder::new().name("gdb".into()).spawn(move || gdb.wait()));
        }
        Err(e) => say(format_args!("failpoint: cannot start gdb: {e}")),
    }
}
