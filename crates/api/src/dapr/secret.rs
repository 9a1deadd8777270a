//! `/v1.0/secrets`.

use super::error::ApiError;
use super::path::Query;
use crate::{empty, reply};
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::Scope;
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;

/// `/v1.0/secrets/<store>/<name>`
pub(super) async fn get(scope: &Scope, store: &str, name: &str, query: &Query) -> Result<Reply, ApiError> {
    let secret = scope.secret(store, name, &query.metadata_map()).await;
    let secret =
        secret.map_err(|error| ApiError::secret(store, &format!("secret with key {name}"), &error))?;
    Ok(match secret {
        Some(secret) => reply(StatusCode::OK, "application/json", json!(secret.0).to_string()),
        None => empty(StatusCode::NO_CONTENT),
    })
}

/// `/v1.0/secrets/<store>/bulk`
pub(super) async fn bulk(scope: &Scope, store: &str, query: &Query) -> Result<Reply, ApiError> {
    let secrets = scope.secrets(store, &query.metadata_map()).await;
    let secrets = secrets.map_err(|error| ApiError::secret(store, "secrets", &error))?;
    let secrets: BTreeMap<_, _> = secrets.into_iter().map(|(name, secret)| (name, secret.0)).collect();
    Ok(reply(StatusCode::OK, "application/json", json!(secrets).to_string()))
}
