//! Passwords, asked for without showing what is typed.
//!
//! As Go's tool does, `stty` switches the terminal's echo off and on again; no terminal, no switching.

use crate::concurrency::Signals;
use crate::output::write_out;
use cobra::Exit;
use std::io::{self, BufRead, IsTerminal as _};
use std::process::Command;
use tokio::sync::oneshot;

/// A password is read up to this size.
const BYTES_MAX: u64 = 1 << 16;
/// What the shell sees of a command whose password was not given.
const INTERRUPTED: u8 = 255;

/// Prints the label and reads a line, without the blanks around it.
///
/// # Errors
/// Standard input can't be read, or a signal came first (code 255).
pub fn password(label: &str) -> Result<String, Exit> {
    let failed = |e: io::Error| Exit::error(format!("failed during password entry: {}", go::os_text(&e)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    write_out(label.as_bytes());
    let line = runtime.block_on(async {
        // Before the echo goes, so that no signal leaves the terminal without it.
        let mut signals = Signals::listen()?;
        let _echo = Echo::off().map_err(failed)?;
        tokio::select! {
            line = first_line() => line.map_err(failed),
            () = signals.come() => Err(Exit::code(INTERRUPTED)),
        }
    });
    write_out(b"\n");
    Ok(line?.trim().to_owned())
}

/// The first word of the next line of standard input, without a prompt: for scripts.
///
/// # Errors
/// Standard input can't be read.
pub fn word() -> Result<String, Exit> {
    let line = line_of(io::stdin().lock());
    let line = line.map_err(|e| Exit::error(format!("failed to read a password: {}", go::os_text(&e))))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Reads on a thread of its own: a signal must not wait for it.
async fn first_line() -> io::Result<String> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(line_of(io::stdin().lock())));
    receiver.await.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?
}

/// The bytes up to the line's end; what follows stays for whoever reads next.
fn line_of(input: impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    input.take(BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// A terminal that shows nothing, until this is dropped.
struct Echo;

impl Echo {
    fn off() -> io::Result<Option<Echo>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        Command::new("stty").arg("-echo").status().map(|_| Some(Echo))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It ran a moment ago.
        let _ = Command::new("stty").arg("echo").status();
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn a_password_ends_with_its_line() {
        assert_eq!(line_of(&b"secret\nmore\n"[..]).unwrap(), "secret\n");
        assert_eq!(line_of(&b"secret"[..]).unwrap(), "secret");
        assert_eq!(line_of(&b""[..]).unwrap(), "");
    }
}
