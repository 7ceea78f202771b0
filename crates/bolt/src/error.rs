//! What can go wrong with a page store, and whose fault it is.

use std::path::PathBuf;

/// Why a page store refuses.
#[derive(Debug)]
pub enum Error {
    /// The file contradicts its format. The cure is a restore; nothing was changed.
    Corrupt {
        page: u64,
        offset: usize,
        what: String,
    },
    /// No valid meta page: not a bbolt file, or both metas are damaged.
    NotADatabase {
        path: PathBuf,
        what: String,
    },
    /// Another process has the file open.
    Locked {
        path: PathBuf,
    },
    Io {
        what: &'static str,
        source: std::io::Error,
    },
    /// The caller asked for something that can't be.
    Misuse(&'static str),
    /// An earlier commit failed: nothing written since can be trusted to be durable.
    Poisoned,
    /// The device was not to be waited for, and a page is not in memory.
    NotInMemory,
}

impl Error {
    pub(crate) fn corrupt(page: u64, offset: usize, what: impl Into<String>) -> Error {
        Error::Corrupt { page, offset, what: what.into() }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { what, source }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Corrupt { page, offset, what } => {
                write!(f, "database file is corrupt: page {page}, offset {offset}: {what}; restore it from a snapshot")
            }
            Error::NotADatabase { path, what } => {
                write!(f, "{} is not a valid database file ({what}); restore it from a snapshot", path.display())
            }
            Error::Locked { path } => {
                write!(f, "{} is locked: another process has it open; stop that process first", path.display())
            }
            Error::Io { what, source } => write!(f, "{what}: {source}"),
            Error::Misuse(what) => f.write_str(what),
            Error::Poisoned => f.write_str("an earlier commit failed; the database must be opened anew"),
            Error::NotInMemory => f.write_str("a page is not in memory"),
        }
    }
}

impl std::error::Error for Error {}
