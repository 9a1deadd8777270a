//! Dapr's error bodies: `errorCode`, `message`, and for newer codes `details` in google.rpc form.

use crate::reply;
use dhow_blocks::grants::Denied;
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::ScopeError;
use dhow_blocks::state::StateError;
use http::StatusCode;
use serde_json::{Value, json};

/// An error on its way to a client.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// `ErrorInfo.reason` and the resource's type and name; only newer codes have them.
    details: Option<Box<Details>>,
}

#[derive(Clone, Debug)]
struct Details {
    reason: &'static str,
    resource: Option<(&'static str, String)>,
    violation: Option<(String, String)>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), details: None }
    }

    pub(super) fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "ERR_MALFORMED_REQUEST", message)
    }

    pub(super) fn not_implemented(block: &str) -> ApiError {
        let message = format!("the building block {block:?} is not implemented in this version of dhow");
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "ERR_API_UNIMPLEMENTED", message)
    }

    pub(super) fn illegal_key(key: &str) -> ApiError {
        let message = format!("input key/keyPrefix '{key}' can't contain '||'");
        let details = Details {
            reason: "DAPR_STATE_ILLEGAL_KEY",
            resource: Some(("state", key.to_owned())),
            violation: Some((key.to_owned(), message.clone())),
        };
        ApiError { details: Some(Box::new(details)), ..ApiError::malformed(message) }
    }

    /// Errors that can come before a state operation is tried.
    pub(super) fn state_scope(error: ScopeError) -> ApiError {
        let (status, code, reason, name) = match &error {
            ScopeError::Denied(Denied { .. }) => {
                return ApiError::new(StatusCode::FORBIDDEN, "ERR_PERMISSION_DENIED", error.to_string());
            }
            ScopeError::NotFound { name, .. } => {
                (StatusCode::BAD_REQUEST, "ERR_STATE_STORE_NOT_FOUND", "DAPR_STATE_NOT_FOUND", name.clone())
            }
            ScopeError::NotConfigured { .. } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "ERR_STATE_STORE_NOT_CONFIGURED",
                "DAPR_STATE_NOT_CONFIGURED",
                String::new(),
            ),
        };
        let message = match &error {
            ScopeError::NotFound { name, .. } => format!("state store {name} is not found"),
            _ => "state store is not configured".to_owned(),
        };
        let details = Details { reason, resource: Some(("state", name)), violation: None };
        ApiError { details: Some(Box::new(details)), ..ApiError::new(status, code, message) }
    }

    pub(super) fn state_not_supported(store: &str, what: &str, reason: &'static str) -> ApiError {
        let message = format!("state store {store} doesn't support {what}");
        let details = Details { reason, resource: Some(("state", store.to_owned())), violation: None };
        let error =
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "ERR_STATE_STORE_NOT_SUPPORTED", message);
        ApiError { details: Some(Box::new(details)), ..error }
    }

    /// A state operation that failed: 409 for a wrong etag, 400 for a malformed one, 500 for the rest.
    pub(super) fn state(code: &'static str, what: &str, error: &StateError) -> ApiError {
        let (status, message) = match error {
            StateError::EtagMismatch { .. } => (
                StatusCode::CONFLICT,
                format!("{what}: possible etag mismatch. error from state store: {error}"),
            ),
            StateError::EtagInvalid { .. } => {
                (StatusCode::BAD_REQUEST, format!("{what}: invalid etag value: {error}"))
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, format!("{what}: {error}")),
        };
        ApiError::new(status, code, message)
    }

    pub(super) fn reply(&self, app_id: &str) -> Reply {
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
