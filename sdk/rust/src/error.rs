//! Why a block did not do what it was asked.

use crate::wit::types;
use std::fmt;

/// An error of a block. The texts are for people and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The manifest does not grant it; the text says what to add.
    Denied(String),
    /// There is no component, app or job of that name for this app.
    NotFound(String),
    /// Somebody else was faster: the etag is not the stored one, or the name is taken.
    Conflict(String),
    /// The request makes no sense; a repetition will not help.
    Invalid(String),
    /// The component is not able to do this at all.
    Unsupported(String),
    /// The component or app cannot be reached now; a later attempt may succeed.
    Unavailable(String),
    /// It failed in a way that a repetition will not mend.
    Failed(String),
    /// A value is not what was expected, or cannot be written as JSON.
    Json(String),
}

/// What the functions of this crate give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match self {
            Error::Denied(text) => ("denied", text),
            Error::NotFound(text) => ("not found", text),
            Error::Conflict(text) => ("conflict", text),
            Error::Invalid(text) => ("invalid", text),
            Error::Unsupported(text) => ("unsupported", text),
            Error::Unavailable(text) => ("unavailable", text),
            Error::Failed(text) => ("failed", text),
            Error::Json(text) => ("JSON", text),
        };
        write!(f, "{kind}: {text}")
    }
}

impl std::error::Error for Error {}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Error {
        match error {
            types::Error::Denied(text) => Error::Denied(text),
            types::Error::NotFound(text) => Error::NotFound(text),
            types::Error::Conflict(text) => Error::Conflict(text),
            types::Error::Invalid(text) => Error::Invalid(text),
            types::Error::Unsupported(text) => Error::Unsupported(text),
            types::Error::Unavailable(text) => Error::Unavailable(text),
            types::Error::Failed(text) => Error::Failed(text),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::Json(error.to_string())
    }
}
