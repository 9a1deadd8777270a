//! Why something could not be had of the API server, and what may be done about it.

use http::StatusCode;
use serde::Deserialize;
use std::time::Duration;

/// Longest message of the server that is shown, in characters.
const MAX_MESSAGE: usize = 500;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Who asks cannot be said.
    #[error("the token from {place}: {reason}")]
    Token {
        /// A file or a program.
        place: String,
        /// Why.
        reason: String,
    },
    /// There is no connection.
    #[error("the API server {server} cannot be reached: {reason}")]
    Unreachable {
        /// Its URL.
        server: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("{what}: no answer within {seconds} s")]
    Deadline {
        /// The URL.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The server says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The answer is none.
    #[error("{what}: {reason}")]
    Malformed {
        /// The URL.
        what: String,
        /// Why.
        reason: String,
    },
}

/// What the server says when it says no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}: {status}: {message}{}", advice(*status))]
pub struct Refusal {
    /// The URL.
    pub what: String,
    /// HTTP's status.
    pub status: StatusCode,
    /// Kubernetes' word for it, such as `Conflict`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "; the token is not taken: see --token-file and --kubeconfig",
        StatusCode::FORBIDDEN => "; the account needs the roles of deploy/argo/agent.yaml",
        _ => "",
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn read(
        what: String,
        status: StatusCode,
        body: &[u8],
        retry_after: Option<Duration>,
    ) -> Refusal {
        let said: Status = serde_json::from_slice(body).unwrap_or_default();
        let text =
            if said.message.is_empty() { String::from_utf8_lossy(body).into_owned() } else { said.message };
        let message = text.trim().chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
        let retry_after = retry_after.or(said.details.retry_after_seconds.map(Duration::from_secs));
        Refusal { what, status, reason: said.reason, message, retry_after }
    }

    /// What a watch says when it ends.
    pub(super) fn of_event(what: String, status: Status) -> Refusal {
        let code = status.code.and_then(|code| StatusCode::from_u16(code).ok());
        Refusal {
            what,
            status: code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            reason: status.reason,
            message: status.message.chars().take(MAX_MESSAGE).collect(),
            retry_after: None,
        }
    }
}

/// `kind: Status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    message: String,
    reason: String,
    code: Option<u16>,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: Option<u64>,
}

// === impl KubernetesError ===

impl KubernetesError {
    fn status(&self) -> Option<StatusCode> {
        match self {
            KubernetesError::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// There is no such object, or no such kind of object.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Somebody else was faster.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(StatusCode::CONFLICT)
    }

    /// The version is too old: everything has to be listed anew.
    pub fn is_expired(&self) -> bool {
        self.status() == Some(StatusCode::GONE)
    }

    /// The object would be larger than what the server or its database takes.
    pub fn is_too_large(&self) -> bool {
        match self {
            KubernetesError::Refused(refusal) => {
                refusal.status == StatusCode::PAYLOAD_TOO_LARGE
                    || refusal.message.contains("request is too large")
                    || refusal.message.contains("message larger than max")
            }
            _ => false,
        }
    }

    /// What was sent will be refused whenever it is sent: it is wrong.
    pub fn is_lasting(&self) -> bool {
        let wrong =
            [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::UNSUPPORTED_MEDIA_TYPE];
        self.is_too_large() || self.status().is_some_and(|status| wrong.contains(&status))
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            KubernetesError::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

/// An error with what caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
