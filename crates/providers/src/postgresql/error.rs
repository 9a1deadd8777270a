//! What the server's errors mean to a caller.

use crate::pool::Refusal;
use dhow_blocks::error::BlockError;
use dhow_blocks::state::StateError;
use std::error;
use std::io;
use tokio_postgres::error::SqlState;

/// Why a statement did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The server refused it.
    Refused {
        /// Why, as a code.
        code: SqlState,
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

/// An error in words, without the row that it is about.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error::Error::source(error)) {
        (Some(refusal), _) => format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code()),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

// === impl Error ===

impl Error {
    /// The connection serves no further statement.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Error::Away(_) => true,
            // The server ends, or ended this connection.
            Error::Refused { code, .. } => code.code().starts_with("57P") || code.code().starts_with("08"),
            _ => false,
        }
    }

    /// The server gave way to another transaction: the same may succeed at once.
    pub(super) fn is_conflict(&self) -> bool {
        let Error::Refused { code, .. } = self else { return false };
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
    }

    /// Whether the server refused for this reason.
    pub(super) fn is(&self, reason: &SqlState) -> bool {
        matches!(self, Error::Refused { code, .. } if code == reason)
    }

    /// What it means for the state under that key.
    pub(super) fn about(self, key: &str) -> StateError {
        // An index holds keys of up to a third of a page.
        if self.is(&SqlState::PROGRAM_LIMIT_EXCEEDED) {
            let limit = super::table::MAX_KEY_BYTES;
            return StateError::TooLarge { what: "key", actual: key.len(), limit };
        }
        self.into()
    }

    fn is_temporary(&self) -> bool {
        let Error::Refused { code, .. } = self else { return !matches!(self, Error::Failed(_)) };
        // Lost connections, conflicts, no resources left, intervention of the operator.
        const CLASSES: [&str; 4] = ["08", "40", "53", "57"];
        CLASSES.iter().any(|class| code.code().starts_with(class))
            || [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::LOCK_NOT_AVAILABLE].contains(code)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Error {
        if let Some(refusal) = error.as_db_error() {
            return Error::Refused { code: refusal.code().clone(), message: refusal.message().to_owned() };
        }
        let is_io = error::Error::source(&error).is_some_and(|source| source.is::<io::Error>());
        let text = explain(&error);
        if error.is_closed() || is_io {
            Error::Away(format!("lost PostgreSQL: {text}"))
        } else {
            Error::Failed(text)
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
            Error::Refused { code, message } => write!(f, "PostgreSQL: {message} (SQLSTATE {})", code.code()),
            Error::Away(reason) => f.write_str(reason),
            Error::Late => {
                f.write_str("no answer from PostgreSQL in time; perhaps it is overloaded, or raise timeout")
            }
            Error::Busy => f.write_str("all connections to PostgreSQL are in use; raise maxConns"),
            Error::Closed => f.write_str("the component is closed"),
            Error::Failed(reason) => write!(f, "PostgreSQL: {reason}"),
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
