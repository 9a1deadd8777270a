//! `/v1.0-alpha1/lock` and `/v1.0-alpha1/unlock`.

use super::error::ApiError;
use crate::reply;
use dhow_blocks::invoke::Reply;
use dhow_blocks::lock::Unlock;
use dhow_blocks::scope::{Scope, ScopeError, UseError};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default)]
    resource_id: String,
    #[serde(default)]
    lock_owner: String,
    #[serde(default)]
    expiry_in_seconds: i64,
}

/// The status of an unlock, as JSON and gRPC have it.
pub(crate) fn status(result: &Result<Unlock, UseError>) -> i32 {
    match result {
        Ok(Unlock::Released) => 0,
        Ok(Unlock::NotHeld) => 1,
        Ok(Unlock::HeldByOther) => 2,
        Err(_) => 3,
    }
}

/// Takes a lock.
pub(crate) async fn take(
    scope: &Scope,
    store: &str,
    resource: &str,
    owner: &str,
    expiry_seconds: i64,
) -> Result<bool, ApiError> {
    check(scope, store)?;
    required(resource, owner)?;
    let taken = scope.try_lock(store, resource, owner, lifetime(store, expiry_seconds)?).await;
    taken.map_err(|error| ApiError::lock("ERR_TRY_LOCK", "failed to try acquiring lock", &error))
}

/// Gives a lock back; the answer is a [`status`].
pub(crate) async fn give_back(
    scope: &Scope,
    store: &str,
    resource: &str,
    owner: &str,
) -> Result<i32, ApiError> {
    check(scope, store)?;
    required(resource, owner)?;
    let unlocked = scope.unlock(store, resource, owner).await;
    match &unlocked {
        Err(error @ UseError::Scope(_)) => Err(ApiError::lock("ERR_UNLOCK", "failed to release lock", error)),
        unlocked => Ok(status(unlocked)),
    }
}

/// For how long a lock is asked for.
pub(crate) fn lifetime(store: &str, seconds: i64) -> Result<Duration, ApiError> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    let message = || format!("ExpiryInSeconds is not positive in lock store {store}");
    seconds.map(Duration::from_secs).ok_or_else(|| ApiError::malformed(message()))
}

/// A store that is not there is told before anything about the request.
pub(crate) fn check(scope: &Scope, store: &str) -> Result<(), ApiError> {
    use dhow_blocks::scope::Block::Lock;
    let locks = &scope.components.locks;
    match () {
        () if locks.is_empty() => Err(ApiError::scope(&ScopeError::NotConfigured { block: Lock })),
        () if !locks.contains_key(store) => {
            Err(ApiError::scope(&ScopeError::NotFound { block: Lock, name: store.to_owned() }))
        }
        () => Ok(()),
    }
}

pub(crate) fn required(resource: &str, owner: &str) -> Result<(), ApiError> {
    for (name, value) in [("ResourceId", resource), ("LockOwner", owner)] {
        if value.is_empty() {
            return Err(ApiError::malformed(format!("{name} is empty in lock store request")));
        }
    }
    Ok(())
}

fn parse(body: &[u8]) -> Result<Request, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("failed deserializing HTTP body: {error}")))
}

/// `/v1.0-alpha1/lock/<store>`
pub(super) async fn lock(scope: &Scope, store: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let Request { resource_id, lock_owner, expiry_in_seconds } = parse(body)?;
    let success = take(scope, store, &resource_id, &lock_owner, expiry_in_seconds).await?;
    Ok(reply(StatusCode::OK, "application/json", json!({ "success": success }).to_string()))
}

/// `/v1.0-alpha1/unlock/<store>`
pub(super) async fn unlock(scope: &Scope, store: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let Request { resource_id, lock_owner, .. } = parse(body)?;
    let status = give_back(scope, store, &resource_id, &lock_owner).await?;
    Ok(reply(StatusCode::OK, "application/json", json!({ "status": status }).to_string()))
}
