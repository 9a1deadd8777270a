//! What a failed request means to the caller: try again, or not.

use ::redis::{ErrorKind, RedisError, ServerErrorKind};
use dhow_blocks::error::BlockError;
use dhow_blocks::state::StateError;

/// Answers of a server that may be another one soon: it is full, it cannot write to its disk, it misses its
/// replicas, it runs somebody's long script.
const PASSING: &[&str] = &["OOM", "MISCONF", "NOREPLICAS", "BUSY"];

/// Why a request to the server failed.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The component is closed.
    Closed,
    /// There is no connection, for this reason.
    Unreachable(String),
    /// The request failed, or its answer was lost.
    Request(RedisError),
}

// === impl Failure ===

impl Failure {
    /// The connection is of no further use.
    pub(super) fn lost_connection(&self) -> bool {
        match self {
            Failure::Request(error) => error.is_unrecoverable_error() && !error.is_timeout(),
            Failure::Closed | Failure::Unreachable(_) => false,
        }
    }

    /// The server was too slow, or is not there any more.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Failure::Request(error) if error.is_timeout())
    }

    /// The server answered with an error of this code, e.g. `NOGROUP`.
    pub(super) fn has_code(&self, code: &str) -> bool {
        matches!(self, Failure::Request(error) if error.code() == Some(code))
    }

    /// A later attempt may succeed.
    pub(super) fn is_passing(&self) -> bool {
        let Failure::Request(error) = self else { return true };
        match error.kind() {
            ErrorKind::Io => true,
            ErrorKind::Server(kind) => matches!(
                kind,
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ReadOnly
            ),
            ErrorKind::Extension => error.code().is_some_and(|code| PASSING.contains(&code)),
            _ => false,
        }
    }

    /// What an operator should read.
    pub(super) fn reason(&self) -> String {
        match self {
            Failure::Closed => "the component is closed, because the host is shutting down".to_owned(),
            Failure::Unreachable(reason) => reason.clone(),
            Failure::Request(error) if error.is_timeout() => {
                "Redis did not answer in time; see readTimeout".to_owned()
            }
            Failure::Request(error) => format!("Redis: {error}"),
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Failure {
        Failure::Request(error)
    }
}

impl From<Failure> for StateError {
    fn from(failure: Failure) -> StateError {
        match failure {
            Failure::Closed => crate::state::closed(),
            failure if failure.is_passing() => StateError::Unavailable { reason: failure.reason() },
            failure => StateError::Failed { reason: failure.reason() },
        }
    }
}

impl From<Failure> for BlockError {
    fn from(failure: Failure) -> BlockError {
        if failure.is_passing() {
            BlockError::unavailable(failure.reason())
        } else {
            BlockError::failed(failure.reason())
        }
    }
}
