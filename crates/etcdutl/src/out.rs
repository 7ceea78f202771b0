//! Standard output, line by line and of any bytes.

use cobra::Exit;
use std::io::{BufWriter, ErrorKind, StdoutLock, Write as _};

/// Lines for standard output; written when there are many, and by [`Out::done`].
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub fn new() -> Out {
        Out(BufWriter::new(std::io::stdout().lock()))
    }

    /// One line.
    ///
    /// # Errors
    /// Nobody reads any more, which is no failure, or the output can't be written.
    pub fn line(&mut self, text: impl AsRef<[u8]>) -> Result<(), Exit> {
        self.0.write_all(text.as_ref()).and_then(|()| self.0.write_all(b"\n")).map_err(|e| failed(&e))
    }

    /// Text without the end of a line.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> Result<(), Exit> {
        self.0.write_all(text.as_ref()).map_err(|e| failed(&e))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub fn done(&mut self) -> Result<(), Exit> {
        self.0.flush().map_err(|e| failed(&e))
    }
}

/// A reader that went away (`| head`) is no reason to fail, but to stop.
fn failed(e: &std::io::Error) -> Exit {
    match e.kind() {
        ErrorKind::BrokenPipe => Exit::code(0),
        _ => Exit::error(format!("write to standard output: {}", go::os_text(e))),
    }
}
