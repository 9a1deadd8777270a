//! `/v1.0/secrets`.

use super::error::ApiError;
use super::path::Query;
use crate::reply;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::{Scope, SecretError};
use dhow_blocks::secrets::Secret;
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;

/// `/v1.0/secrets/<store>/<name>`
pub(super) async fn get(scope: &Scope, store: &str, name: &str, query: &Query) -> Result<Reply, ApiError> {
    let secret = read(scope, store, name, &query.metadata_map()).await?;
    Ok(reply(StatusCode::OK, "application/json", json!(secret.0).to_string()))
}

/// `/v1.0/secrets/<store>/bulk`
pub(super) async fn bulk(scope: &Scope, store: &str, query: &Query) -> Result<Reply, ApiError> {
    let secrets = read_all(scope, store, &query.metadata_map()).await?;
    let secrets: BTreeMap<_, _> = secrets.into_iter().map(|(name, secret)| (name, secret.0)).collect();
    Ok(reply(StatusCode::OK, "application/json", json!(secrets).to_string()))
}

/// One secret. That a store does not have it is a failure, as it is of Dapr's stores.
pub(crate) async fn read(
    scope: &Scope,
    store: &str,
    name: &str,
    metadata: &Metadata,
) -> Result<Secret, ApiError> {
    let failed = |error| ApiError::secret(store, &format!("secret with key {name}"), &error);
    let secret = scope.secret(store, name, metadata).await.map_err(failed)?;
    let missing = || BlockError::invalid(format!("secret {name} not found"));
    secret.ok_or_else(|| failed(SecretError::Provider { error: missing() }))
}

/// All secrets that the app may read.
pub(crate) async fn read_all(
    scope: &Scope,
    store: &str,
    metadata: &Metadata,
) -> Result<BTreeMap<String, Secret>, ApiError> {
    let secrets = scope.secrets(store, metadata).await;
    secrets.map_err(|error| ApiError::secret(store, "secrets", &error))
}
