//! Dapr's errors, one table for both faces: an HTTP status and body here, a gRPC status in `crate::grpc`.
//!
//! A body has `errorCode` and `message`, and for newer codes `details` in google.rpc form. Source: Dapr
//! documentation, "Error codes".

use crate::reply;
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::{InvokeError, Reply};
use dhow_blocks::jobs::JobError;
use dhow_blocks::scope::{Block, PublishError, ScopeError, SecretError, UseError};
use dhow_blocks::state::StateError;
use http::StatusCode;
use serde_json::{Value, json};

/// A gRPC status code (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grpc {
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) grpc: Grpc,
    /// `errorCode`.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Only newer codes have them.
    pub(crate) details: Option<Box<Details>>,
}

/// What newer codes tell beside the message.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    /// `ErrorInfo.reason`.
    pub(crate) reason: &'static str,
    /// `ResourceInfo`: type and name.
    pub(crate) resource: Option<(&'static str, String)>,
    /// `BadRequest`: field and description.
    pub(crate) violation: Option<(String, String)>,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        grpc: Grpc,
        code: &'static str,
        message: impl Into<String>,
    ) -> ApiError {
        ApiError { status, grpc, code, message: message.into(), details: None }
    }

    /// An error of the newer kind.
    fn detailed(self, reason: &'static str, resource: Option<(&'static str, &str)>) -> ApiError {
        let resource = resource.map(|(kind, name)| (kind, name.to_owned()));
        ApiError { details: Some(Box::new(Details { reason, resource, violation: None })), ..self }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, Grpc::InvalidArgument, "ERR_MALFORMED_REQUEST", message)
    }

    pub(crate) fn not_implemented(block: &str) -> ApiError {
        let message = format!("the building block {block:?} is not implemented in this version of dhow");
        let status = StatusCode::NOT_IMPLEMENTED;
        ApiError::new(status, Grpc::Unimplemented, "ERR_API_UNIMPLEMENTED", message)
    }

    /// A 500 of the kind that most failures of providers are.
    pub(crate) fn internal(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, Grpc::Internal, code, message)
    }

    pub(crate) fn denied(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, Grpc::PermissionDenied, "ERR_PERMISSION_DENIED", message)
    }

    pub(crate) fn illegal_key(key: &str) -> ApiError {
        let message = format!("input key/keyPrefix '{key}' can't contain '||'");
        let mut error =
            ApiError::malformed(&*message).detailed("DAPR_STATE_ILLEGAL_KEY", Some(("state", key)));
        if let Some(details) = &mut error.details {
            details.violation = Some((key.to_owned(), message));
        }
        error
    }

    /// What can come before an operation of a block is tried.
    pub(crate) fn scope(error: &ScopeError) -> ApiError {
        use Block::{
            Binding, Blob, Configuration, Cryption, Email, Jobs, Lock, PubSub, Secrets, Sequencer, State,
        };
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const INTERNAL: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
        let new = |status, grpc, code| ApiError::new(status, grpc, code, error.to_string());
        match error {
            ScopeError::Denied(denied) => ApiError::denied(denied.to_string()),
            ScopeError::NotFound { block: State, name } => {
                new(BAD, Grpc::InvalidArgument, "ERR_STATE_STORE_NOT_FOUND")
                    .detailed("DAPR_STATE_NOT_FOUND", Some(("state", name)))
            }
            ScopeError::NotConfigured { block: State } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_STATE_STORE_NOT_CONFIGURED")
                    .detailed("DAPR_STATE_NOT_CONFIGURED", Some(("state", "")))
            }
            ScopeError::NotFound { block: PubSub, name } => {
                new(StatusCode::NOT_FOUND, Grpc::InvalidArgument, "ERR_PUBSUB_NOT_FOUND")
                    .detailed("DAPR_PUBSUB_NOT_FOUND", Some(("pubsub", name)))
            }
            ScopeError::NotConfigured { block: PubSub } => {
                new(BAD, Grpc::FailedPrecondition, "ERR_PUBSUB_NOT_CONFIGURED")
                    .detailed("DAPR_PUBSUB_NOT_CONFIGURED", Some(("pubsub", "")))
            }
            ScopeError::NotFound { block: Binding, name } => ApiError::internal(
                "ERR_INVOKE_OUTPUT_BINDING",
                format!("error invoking output binding {name}: couldn't find output binding {name}"),
            ),
            ScopeError::NotConfigured { block: Binding } => ApiError::internal(
                "ERR_INVOKE_OUTPUT_BINDING",
                "error invoking output binding: couldn't find output binding: none is configured",
            ),
            ScopeError::NotFound { block: Secrets, name } => ApiError::new(
                StatusCode::UNAUTHORIZED,
                Grpc::InvalidArgument,
                "ERR_SECRET_STORE_NOT_FOUND",
                format!("failed finding secret store with key {name}"),
            ),
            ScopeError::NotConfigured { block: Secrets } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_SECRET_STORES_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Configuration, name } => {
                let message = format!("configuration store {name} not found");
                ApiError::new(BAD, Grpc::InvalidArgument, "ERR_CONFIGURATION_STORE_NOT_FOUND", message)
            }
            ScopeError::NotConfigured { block: Configuration } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Lock, name } => {
                let message = format!("lock store {name} not found");
                ApiError::new(BAD, Grpc::InvalidArgument, "ERR_LOCK_STORE_NOT_FOUND", message)
            }
            ScopeError::NotConfigured { block: Lock } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_LOCK_STORE_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Sequencer, .. } => {
                new(BAD, Grpc::InvalidArgument, "ERR_SEQUENCER_NOT_FOUND")
            }
            ScopeError::NotConfigured { block: Sequencer } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_SEQUENCER_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Blob, .. } => {
                new(BAD, Grpc::InvalidArgument, "ERR_BLOB_STORE_NOT_FOUND")
            }
            ScopeError::NotConfigured { block: Blob } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_BLOB_STORE_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Cryption, .. } => {
                new(BAD, Grpc::InvalidArgument, "ERR_CRYPTION_NOT_FOUND")
            }
            ScopeError::NotConfigured { block: Cryption } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_CRYPTION_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Email, .. } => {
                new(BAD, Grpc::InvalidArgument, "ERR_EMAIL_NOT_FOUND")
            }
            ScopeError::NotConfigured { block: Email } => {
                new(INTERNAL, Grpc::FailedPrecondition, "ERR_EMAIL_NOT_CONFIGURED")
            }
            ScopeError::NotFound { block: Jobs, .. } | ScopeError::NotConfigured { block: Jobs } => {
                new(INTERNAL, Grpc::Internal, "ERR_INTERNAL")
            }
        }
    }

    pub(crate) fn state_not_supported(store: &str, what: &str, reason: &'static str) -> ApiError {
        let grpc =
            if reason == "DAPR_STATE_QUERYING_NOT_SUPPORTED" { Grpc::Internal } else { Grpc::Unimplemented };
        let message = format!("state store {store} doesn't support {what}");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::new(status, grpc, "ERR_STATE_STORE_NOT_SUPPORTED", message)
            .detailed(reason, Some(("state", store)))
    }

    /// A state operation that failed: 409 for a wrong etag, 400 for a malformed one, 500 for the rest.
    pub(crate) fn state(code: &'static str, what: &str, error: &StateError) -> ApiError {
        match error {
            StateError::EtagMismatch { .. } => ApiError::new(
                StatusCode::CONFLICT,
                Grpc::Aborted,
                code,
                format!("{what}: possible etag mismatch. error from state store: {error}"),
            ),
            StateError::EtagInvalid { .. } => ApiError::new(
                StatusCode::BAD_REQUEST,
                Grpc::InvalidArgument,
                code,
                format!("{what}: invalid etag value: {error}"),
            ),
            StateError::KeyNotAllowed { key } => ApiError::illegal_key(key),
            _ => ApiError::internal(code, format!("{what}: {error}")),
        }
    }

    pub(crate) fn state_query(store: &str, reason: &str) -> ApiError {
        ApiError::internal("ERR_STATE_QUERY", format!("failed query in state store {store}: {reason}"))
            .detailed("DAPR_STATE_QUERY_FAILED", Some(("state", store)))
    }

    /// A publication without a component or a topic.
    pub(crate) fn publish_name(pubsub: &str) -> ApiError {
        let status = StatusCode::NOT_FOUND;
        if pubsub.is_empty() {
            let message = "pubsub name is empty";
            return ApiError::new(status, Grpc::InvalidArgument, "ERR_PUBSUB_EMPTY", message)
                .detailed("DAPR_PUBSUB_NAME_EMPTY", Some(("pubsub", "")));
        }
        let message = format!("topic is empty in pubsub {pubsub}");
        ApiError::new(status, Grpc::InvalidArgument, "ERR_TOPIC_NAME_EMPTY", message)
            .detailed("DAPR_PUBSUB_TOPIC_NAME_EMPTY", Some(("pubsub", pubsub)))
    }

    pub(crate) fn publish(pubsub: &str, topic: &str, error: &PublishError) -> ApiError {
        let resource = Some(("pubsub", pubsub));
        match error {
            PublishError::Scope(error) => ApiError::scope(error),
            PublishError::Forbidden { .. } => ApiError::new(
                StatusCode::FORBIDDEN,
                Grpc::PermissionDenied,
                "ERR_PUBSUB_FORBIDDEN",
                error.to_string(),
            )
            .detailed("DAPR_PUBSUB_FORBIDDEN", resource),
            PublishError::Envelope { .. } => ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Grpc::InvalidArgument,
                "ERR_PUBSUB_CLOUD_EVENTS_SER",
                error.to_string(),
            )
            .detailed("DAPR_PUBSUB_CLOUD_EVENT_CREATION", resource),
            PublishError::Provider { error } => ApiError::internal(
                "ERR_PUBSUB_PUBLISH_MESSAGE",
                format!("error when publish to topic {topic} in pubsub {pubsub}: {error}"),
            )
            .detailed("DAPR_PUBSUB_PUBLISH_MESSAGE", resource),
        }
    }

    /// The entries of a bulk publication cannot be read.
    pub(crate) fn publish_events(pubsub: &str, topic: &str, reason: &str) -> ApiError {
        let message =
            format!("error when unmarshaling the request for topic {topic} pubsub {pubsub}: {reason}");
        ApiError::new(StatusCode::BAD_REQUEST, Grpc::InvalidArgument, "ERR_PUBSUB_EVENTS_SER", message)
            .detailed("DAPR_PUBSUB_UNMARSHAL_EVENTS", Some(("pubsub", pubsub)))
    }

    pub(crate) fn binding(name: &str, error: &UseError) -> ApiError {
        match error {
            UseError::Scope(error) => ApiError::scope(error),
            UseError::Provider(error) => ApiError::internal(
                "ERR_INVOKE_OUTPUT_BINDING",
                format!("error invoking output binding {name}: {error}"),
            ),
        }
    }

    pub(crate) fn secret(store: &str, what: &str, error: &SecretError) -> ApiError {
        match error {
            SecretError::Scope(error) => ApiError::scope(error),
            SecretError::Forbidden { .. } => ApiError::denied(error.to_string()),
            SecretError::Provider { error } => ApiError::internal(
                "ERR_SECRET_GET",
                format!("failed getting {what} from secret store {store}: {error}"),
            ),
        }
    }

    pub(crate) fn configuration(code: &'static str, what: &str, error: &BlockError) -> ApiError {
        ApiError::internal(code, format!("{what}: {error}"))
    }

    pub(crate) fn lock(code: &'static str, what: &str, error: &UseError) -> ApiError {
        match error {
            UseError::Scope(error) => ApiError::scope(error),
            UseError::Provider(error) => ApiError::internal(code, format!("{what}: {error}")),
        }
    }

    /// A block of Layotto's that failed: what was asked for is wrong, cannot be done here, or did not work.
    pub(crate) fn block(code: &'static str, error: &BlockError) -> ApiError {
        let (status, grpc) = match error {
            BlockError::Invalid { .. } => (StatusCode::BAD_REQUEST, Grpc::InvalidArgument),
            BlockError::NotSupported { .. } => (StatusCode::NOT_IMPLEMENTED, Grpc::Unimplemented),
            BlockError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, Grpc::Unavailable),
            BlockError::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, Grpc::Internal),
        };
        ApiError::new(status, grpc, code, error.to_string())
    }

    /// The same, where the component may also not be there.
    pub(crate) fn used(code: &'static str, error: &UseError) -> ApiError {
        match error {
            UseError::Scope(error) => ApiError::scope(error),
            UseError::Provider(error) => ApiError::block(code, error),
        }
    }

    /// A job that was not scheduled, found or removed; `code` says which.
    pub(crate) fn job(code: &'static str, what: &str, error: &JobError) -> ApiError {
        let message = format!("{what}: {error}");
        let (status, grpc) = match error {
            JobError::Exists { .. } => (StatusCode::CONFLICT, Grpc::AlreadyExists),
            JobError::Block(BlockError::Invalid { .. }) => (StatusCode::BAD_REQUEST, Grpc::InvalidArgument),
            JobError::NotFound { .. } | JobError::Block(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Grpc::Internal)
            }
        };
        ApiError::new(status, grpc, code, message).detailed(code, None)
    }

    /// A job that makes no sense.
    pub(crate) fn job_request(code: &'static str, message: &str) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, Grpc::InvalidArgument, code, message).detailed(code, None)
    }

    pub(crate) fn invoke(app_id: &str, error: &InvokeError) -> ApiError {
        match error {
            InvokeError::Denied { .. } => ApiError::denied(error.to_string()),
            InvokeError::Forbidden { .. } | InvokeError::Refused { .. } => ApiError::new(
                StatusCode::FORBIDDEN,
                Grpc::PermissionDenied,
                "ERR_DIRECT_INVOKE",
                format!("failed to invoke, id: {app_id}, err: {error}"),
            ),
            error => ApiError::internal(
                "ERR_DIRECT_INVOKE",
                format!("failed to invoke, id: {app_id}, err: {error}"),
            ),
        }
    }

    pub(crate) fn reply(&self, app_id: &str) -> Reply {
        let mut body = json!({ "errorCode": self.code, "message": self.message });
        if let Some(details) = &self.details {
            body["details"] = details.json(app_id);
        }
        reply(self.status, "application/json", body.to_string())
    }
}

impl Details {
    fn json(&self, app_id: &str) -> Value {
        let mut details = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "domain": "dapr.io",
            "metadata": { "appID": app_id },
            "reason": self.reason,
        })];
        if let Some((resource_type, name)) = &self.resource {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.ResourceInfo",
                "description": "",
                "owner": app_id,
                "resource_name": name,
                "resource_type": resource_type,
            }));
        }
        if let Some((field, description)) = &self.violation {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "field_violations": [{ "description": description, "field": field }],
            }));
        }
        Value::Array(details)
    }
}
