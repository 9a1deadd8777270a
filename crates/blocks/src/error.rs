//! Why a block other than state failed; state has reasons of its own ([`crate::state::StateError`]).

/// Why a request to a provider failed. The texts never hold a secret.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlockError {
    /// The request makes no sense to this provider: a missing or malformed field, an operation it does not
    /// know. A repetition will not help.
    #[error("{reason}")]
    Invalid {
        /// Which field, what was expected.
        reason: String,
    },
    /// The provider is not able to do this at all.
    #[error("this component does not support {feature}")]
    NotSupported {
        /// The missing feature.
        feature: &'static str,
    },
    /// The backend cannot be reached, is full, or is shutting down; a later attempt may succeed.
    #[error("unavailable: {reason}")]
    Unavailable {
        /// What the backend said, and what to do about it.
        reason: String,
    },
    /// The backend refused or failed in a way that a repetition will not mend.
    #[error("{reason}")]
    Failed {
        /// What the backend said.
        reason: String,
    },
}

impl BlockError {
    /// See [`BlockError::Invalid`].
    pub fn invalid(reason: impl Into<String>) -> BlockError {
        BlockError::Invalid { reason: reason.into() }
    }

    /// See [`BlockError::Unavailable`].
    pub fn unavailable(reason: impl Into<String>) -> BlockError {
        BlockError::Unavailable { reason: reason.into() }
    }

    /// See [`BlockError::Failed`].
    pub fn failed(reason: impl Into<String>) -> BlockError {
        BlockError::Failed { reason: reason.into() }
    }
}
