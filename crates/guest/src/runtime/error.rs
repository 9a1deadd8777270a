//! What becomes of the blocks' errors on their way to a guest.

use super::wit::types;
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::InvokeError;
use dhow_blocks::jobs::JobError;
use dhow_blocks::scope::{PublishError, ScopeError, SecretError, UseError};
use dhow_blocks::state::StateError;

/// An error on its way to the guest.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Error(pub(super) types::Error);

// === impl Error ===

impl Error {
    pub(super) fn invalid(reason: impl Into<String>) -> Error {
        Error(types::Error::Invalid(reason.into()))
    }
}

impl From<ScopeError> for Error {
    fn from(error: ScopeError) -> Error {
        let text = error.to_string();
        Error(match error {
            ScopeError::Denied(_) => types::Error::Denied(text),
            ScopeError::NotFound { .. } | ScopeError::NotConfigured { .. } => types::Error::NotFound(text),
        })
    }
}

impl From<BlockError> for Error {
    fn from(error: BlockError) -> Error {
        let text = error.to_string();
        Error(match error {
            BlockError::Invalid { .. } => types::Error::Invalid(text),
            BlockError::NotSupported { .. } => types::Error::Unsupported(text),
            BlockError::Unavailable { .. } => types::Error::Unavailable(text),
            BlockError::Failed { .. } => types::Error::Failed(text),
        })
    }
}

impl From<UseError> for Error {
    fn from(error: UseError) -> Error {
        match error {
            UseError::Scope(error) => error.into(),
            UseError::Provider(error) => error.into(),
        }
    }
}

impl From<StateError> for Error {
    fn from(error: StateError) -> Error {
        let text = error.to_string();
        Error(match error {
            StateError::EtagMismatch { .. } => types::Error::Conflict(text),
            StateError::EtagInvalid { .. }
            | StateError::NotANumber { .. }
            | StateError::KeyNotAllowed { .. }
            | StateError::Overflow { .. }
            | StateError::TooLarge { .. } => types::Error::Invalid(text),
            StateError::NotSupported { .. } => types::Error::Unsupported(text),
            StateError::Unavailable { .. } => types::Error::Unavailable(text),
            StateError::Failed { .. } => types::Error::Failed(text),
        })
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Error {
        let text = error.to_string();
        match error {
            PublishError::Scope(error) => error.into(),
            PublishError::Forbidden { .. } => Error(types::Error::Denied(text)),
            PublishError::Envelope { .. } => Error(types::Error::Invalid(text)),
            PublishError::Provider { error } => error.into(),
        }
    }
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Error {
        let text = error.to_string();
        match error {
            SecretError::Scope(error) => error.into(),
            SecretError::Forbidden { .. } => Error(types::Error::Denied(text)),
            SecretError::Provider { error } => error.into(),
        }
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Error {
        let text = error.to_string();
        match error {
            JobError::Exists { .. } => Error(types::Error::Conflict(text)),
            JobError::NotFound { .. } => Error(types::Error::NotFound(text)),
            JobError::Block(error) => error.into(),
        }
    }
}

impl From<InvokeError> for Error {
    fn from(error: InvokeError) -> Error {
        let text = error.to_string();
        Error(match error {
            InvokeError::Denied { .. } | InvokeError::Forbidden { .. } | InvokeError::Refused { .. } => {
                types::Error::Denied(text)
            }
            InvokeError::UnknownApp { .. } => types::Error::NotFound(text),
            InvokeError::RequestTooLarge { .. } | InvokeError::TooDeep { .. } => types::Error::Invalid(text),
            InvokeError::Overloaded { .. }
            | InvokeError::HostFull { .. }
            | InvokeError::DeadlineExceeded { .. }
            | InvokeError::CircuitOpen { .. }
            | InvokeError::Unreachable { .. }
            | InvokeError::ShuttingDown => types::Error::Unavailable(text),
            InvokeError::NotLoadable { .. } | InvokeError::GuestFailed { .. } => types::Error::Failed(text),
        })
    }
}
