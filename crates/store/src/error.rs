//! Whose fault it was.

/// Why the store did not do what it was asked.
#[derive(Debug)]
pub enum Error {
    /// The request was refused: etcd's own code and text, part of the reply.
    Refused(api::Error),
    /// The page store failed or is corrupt: the member must stop.
    Fatal(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Refused(e) => e.fmt(f),
            Error::Fatal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<api::Error> for Error {
    fn from(e: api::Error) -> Self {
        Error::Refused(e)
    }
}

impl From<bolt::Error> for Error {
    fn from(e: bolt::Error) -> Self {
        Error::Fatal(format!("page store: {e}"))
    }
}
