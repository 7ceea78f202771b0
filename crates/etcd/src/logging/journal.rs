//! systemd's journal (`--log-outputs=systemd/journal`), by its own protocol: a datagram of fields for each line, with the
//! line's level as its priority.

use super::Level;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the journal listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
const IDENTIFIER: &str = "etcd";

/// A way to the journal.
#[derive(Debug)]
pub struct Journal(UnixDatagram);

impl Journal {
    /// # Errors
    /// There is no journal; in Go's words.
    pub fn open(socket: &Path) -> Result<Journal, String> {
        let open = || {
            let journal = UnixDatagram::unbound()?;
            journal.connect(socket)?;
            Ok(Journal(journal))
        };
        let words = |e: io::Error| {
            format!("can't find journal (dial unixgram {}: connect: {})", socket.display(), go::os_text(&e))
        };
        open().map_err(words)
    }

    /// Sends a line.
    ///
    /// # Errors
    /// The journal is gone, or the line too long for a datagram.
    pub fn send(&self, level: Level, caller: &str, line: &str) -> io::Result<()> {
        let package = caller.split('/').next().unwrap_or_default();
        let mut message = Vec::with_capacity(line.len() + 128);
        field(&mut message, "PRIORITY", priority(level));
        field(&mut message, "PACKAGE", package);
        field(&mut message, "SYSLOG_IDENTIFIER", IDENTIFIER);
        field(&mut message, "MESSAGE", line.trim_end_matches('\n'));
        self.0.send(&message).map(drop)
    }
}

/// Values of several lines go with their length, little-endian.
fn field(message: &mut Vec<u8>, name: &str, value: &str) {
    message.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        message.push(b'=');
    }
    message.extend_from_slice(value.as_bytes());
    message.push(b'\n');
}

/// syslog's.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Debug => "7",
        Level::Info => "6",
        Level::Warn => "4",
        Level::Error => "3",
        Level::DPanic | Level::Panic | Level::Fatal => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_fields_of_datagrams() {
        let path = std::env::temp_dir().join(format!("oxetcd-journal-{}", std::process::id()));
        let why = Journal::open(&path).unwrap_err();
        assert!(why.starts_with("can't find journal (dial unixgram /"), "{why}");
        assert!(why.ends_with(": connect: no such file or directory)"), "{why}");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        journal.send(Level::Warn, "driver/start.rs:7", "{\"msg\":\"x\"}\n").unwrap();
        journal.send(Level::Fatal, "main.rs:7", "a\nb\n").unwrap();
        let mut told = [0; 256];
        let len = systemd.recv(&mut told).unwrap();
        let text = "PRIORITY=4\nPACKAGE=driver\nSYSLOG_IDENTIFIER=etcd\nMESSAGE={\"msg\":\"x\"}\n";
        assert_eq!(std::str::from_utf8(&told[..len]), Ok(text));
        let len = systemd.recv(&mut told).unwrap();
        let text = b"PRIORITY=2\nPACKAGE=main.rs:7\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(&told[..len], text);
        std::fs::remove_file(&path).unwrap();
    }
}
