//! What stops a member: a failed disk, corruption, a broken invariant. Never retried.

/// The member must stop; the text names cause and, where there is one, cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal(String);

impl Fatal {
    pub fn new(text: impl Into<String>) -> Fatal {
        Fatal(text.into())
    }
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}

impl From<store::Error> for Fatal {
    fn from(e: store::Error) -> Fatal {
        Fatal(e.to_string())
    }
}

impl From<wal::WalError> for Fatal {
    fn from(e: wal::WalError) -> Fatal {
        Fatal(e.to_string())
    }
}

impl From<bolt::Error> for Fatal {
    fn from(e: bolt::Error) -> Fatal {
        Fatal(format!("page store: {e}"))
    }
}
