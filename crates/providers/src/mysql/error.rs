//! What the server's errors mean to a caller.

use crate::pool::Refusal;
use dhow_blocks::error::BlockError;
use dhow_blocks::state::StateError;
use mysql_async::{DriverError, IoError, ServerError};

/// Why a statement did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The server refused it.
    Refused {
        /// The server's number for it.
        code: u16,
        /// Why, in words.
        message: String,
    },
    /// The server cannot be reached, or was lost; whether the statement took effect is not known.
    Away(String),
    /// The deadline passed; whether the statement took effect is not known.
    Late,
    /// All connections were in use until the deadline.
    Busy,
    /// The component was closed.
    Closed,
    /// The client's library failed.
    Failed(String),
}

/// Numbers of errors (MySQL 8.4 error reference, MariaDB error codes).
const DEADLOCK: u16 = 1213;
const RECORD_CHANGED: u16 = 1020;
const LOCK_WAIT_TIMEOUT: u16 = 1205;

/// The server ends, or ended this connection.
const LOST: [u16; 4] = [1053, 1077, 1080, 1927];

/// No resources, read-only, interrupted: a later attempt may succeed.
const TEMPORARY: [u16; 16] = [
    DEADLOCK,
    RECORD_CHANGED,
    LOCK_WAIT_TIMEOUT,
    1021,
    1037,
    1038,
    1040,
    1041,
    1114,
    1203,
    1226,
    1290,
    1317,
    1836,
    1969,
    3024,
];

/// An error in words. The library's own texts may hold values, so those of values are left out.
pub(super) fn explain(error: &mysql_async::Error) -> String {
    match error {
        mysql_async::Error::Server(ServerError { code, message, .. }) => format!("{message} (error {code})"),
        mysql_async::Error::Io(IoError::Io(error)) => error.to_string(),
        mysql_async::Error::Io(error) => error.to_string(),
        mysql_async::Error::Driver(
            DriverError::FromValue { .. }
            | DriverError::FromRow { .. }
            | DriverError::UnexpectedPacket { .. },
        ) => "an answer of an unexpected form".to_owned(),
        mysql_async::Error::Url(_) => "the connection's options are wrong".to_owned(),
        error => error.to_string(),
    }
}

// === impl Error ===

impl Error {
    /// The connection serves no further statement.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Error::Away(_) => true,
            Error::Refused { code, .. } => LOST.contains(code),
            _ => false,
        }
    }

    /// The server gave way to another transaction: the same may succeed at once.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Error::Refused { code: DEADLOCK | RECORD_CHANGED, .. })
    }

    fn is_temporary(&self) -> bool {
        match self {
            Error::Refused { code, .. } => self.is_loss() || TEMPORARY.contains(code),
            Error::Failed(_) => false,
            _ => true,
        }
    }
}

impl From<mysql_async::Error> for Error {
    fn from(error: mysql_async::Error) -> Error {
        let text = explain(&error);
        match error {
            mysql_async::Error::Server(ServerError { code, message, .. }) => Error::Refused { code, message },
            mysql_async::Error::Io(_)
            | mysql_async::Error::Driver(DriverError::ConnectionClosed | DriverError::PacketOutOfOrder) => {
                Error::Away(format!("lost MySQL: {text}"))
            }
            _ => Error::Failed(text),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => Error::Closed,
            Refusal::Away(reason) => Error::Away(reason),
            Refusal::Busy => Error::Busy,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Refused { code, message } => write!(f, "MySQL: {message} (error {code})"),
            Error::Away(reason) => f.write_str(reason),
            Error::Late => f.write_str(
                "no answer from MySQL in time; perhaps it is overloaded, or raise timeoutInSeconds",
            ),
            Error::Busy => f.write_str("all connections to MySQL are in use; raise maxOpenConns"),
            Error::Closed => f.write_str("the component is closed"),
            Error::Failed(reason) => write!(f, "MySQL: {reason}"),
        }
    }
}

impl From<Error> for StateError {
    fn from(error: Error) -> StateError {
        let reason = error.to_string();
        match error {
            Error::Closed => crate::state::closed(),
            _ if error.is_temporary() => StateError::Unavailable { reason },
            _ => StateError::Failed { reason },
        }
    }
}

impl From<Error> for BlockError {
    fn from(error: Error) -> BlockError {
        let reason = error.to_string();
        if error.is_temporary() { BlockError::unavailable(reason) } else { BlockError::failed(reason) }
    }
}
