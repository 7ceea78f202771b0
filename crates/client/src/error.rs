//! What a call can fail with. Texts are those that Go's client prints.

use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The server refused, or the connection broke on the way.
    Rpc { code: Code, message: String },
    /// The caller's time is up.
    DeadlineExceeded,
    /// The configuration names no endpoint.
    NoEndpoints,
    /// TLS can't be set up.
    Tls(String),
    /// A session's lease is gone.
    SessionExpired,
    /// The watch was canceled by the server.
    WatchCanceled(String),
    /// No member is as new as what was read before.
    NoGreaterRevision,
}

impl Error {
    /// A row of etcd's error table, as a server would send it.
    pub fn of(row: &api::Error) -> Error {
        Error::Rpc { code: Code::from_i32(row.code() as i32), message: row.message().to_owned() }
    }

    /// The gRPC code, where the server (or gRPC on its behalf) gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Rpc { code, .. } => Some(*code),
            Error::DeadlineExceeded => Some(Code::DeadlineExceeded),
            _ => None,
        }
    }

    /// The server's text, where it sent one.
    pub fn message(&self) -> &str {
        match self {
            Error::Rpc { message, .. } => message,
            _ => "",
        }
    }

    /// Whether this is a row of etcd's error table.
    pub fn is(&self, row: &api::Error) -> bool {
        self.message() == row.message()
    }
}

impl From<&Status> for Error {
    fn from(status: &Status) -> Error {
        Error::Rpc { code: status.code(), message: status.message().to_owned() }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::from(&status)
    }
}

/// The code's name as grpc-go prints it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

impl From<Error> for Status {
    /// The error as a server that asked on somebody's behalf passes it on.
    fn from(error: Error) -> Status {
        match error {
            Error::Rpc { code, message } => Status::new(code, message),
            Error::DeadlineExceeded => Status::deadline_exceeded("context deadline exceeded"),
            error => Status::unknown(error.to_string()),
        }
    }
}

/// `rpc error: code = … desc = …`.
pub(crate) fn rpc_text(code: Code, message: &str) -> String {
    format!("rpc error: code = {} desc = {message}", code_name(code))
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // A text of etcd's own table stands alone; anything else is told as gRPC tells it.
            Error::Rpc { message, .. } if api::Error::TABLE.iter().any(|row| row.message() == message) => {
                f.write_str(message)
            }
            Error::Rpc { code, message } => f.write_str(&rpc_text(*code, message)),
            Error::DeadlineExceeded => f.write_str("context deadline exceeded"),
            Error::NoEndpoints => f.write_str("etcdclient: no available endpoints"),
            Error::Tls(why) => f.write_str(why),
            Error::SessionExpired => f.write_str("mutex: session is expired"),
            Error::WatchCanceled(reason) => f.write_str(reason),
            Error::NoGreaterRevision => f.write_str(
                "etcdclient: no cluster members have a revision higher than the previously received revision",
            ),
        }
    }
}

impl std::error::Error for Error {}
