//! Locks that are held for longer, and ids that only grow.

use crate::dapr::error::ApiError;
use crate::dapr::lock::{check, lifetime, required};
use crate::proto::layotto::runtime::lock_keep_alive_response::Status;
use crate::proto::layotto::runtime::sequencer_options::AutoIncrement;
use crate::proto::layotto::runtime::{
    GetNextIdRequest, GetNextIdResponse, LockKeepAliveRequest, LockKeepAliveResponse,
};
use dhow_blocks::lock::Renewal;
use dhow_blocks::scope::{Block, Increment, Scope, ScopeError, UseError};

pub(super) async fn keep_alive(
    scope: &Scope,
    request: LockKeepAliveRequest,
) -> Result<LockKeepAliveResponse, ApiError> {
    let LockKeepAliveRequest { store_name: store, resource_id, lock_owner, expire } = request;
    check(scope, &store)?;
    required(&resource_id, &lock_owner)?;
    let expiry = lifetime(&store, expire.into())?;
    let status = match scope.renew_lock(&store, &resource_id, &lock_owner, expiry).await {
        Ok(Renewal::Renewed) => Status::Success,
        Ok(Renewal::NotHeld) => Status::LockUnexist,
        Ok(Renewal::HeldByOther) => Status::LockBelongToOthers,
        Err(UseError::Scope(error)) => return Err(ApiError::scope(&error)),
        Err(UseError::Provider(_)) => Status::InternalError,
    };
    Ok(LockKeepAliveResponse { status: status.into() })
}

pub(super) async fn next_id(scope: &Scope, request: GetNextIdRequest) -> Result<GetNextIdResponse, ApiError> {
    let GetNextIdRequest { store_name: store, key, options, .. } = request;
    if scope.components.sequencers.is_empty() {
        return Err(ApiError::scope(&ScopeError::NotConfigured { block: Block::Sequencer }));
    }
    if key.is_empty() {
        return Err(ApiError::malformed(format!("key is empty in sequencer store {store}")));
    }
    // Without options WEAK, as Layotto's code has it, not STRONG, as a comment in its protocol file says.
    let increment = match options.unwrap_or_default().increment() {
        AutoIncrement::Weak => Increment::Weak,
        AutoIncrement::Strong => Increment::Strong,
    };
    let next_id = scope.next_id(&store, &key, increment).await;
    let next_id = next_id.map_err(|error| match error {
        UseError::Provider(error) => ApiError::internal("ERR_SEQUENCER", error.to_string()),
        error => ApiError::used("ERR_SEQUENCER", &error),
    })?;
    Ok(GetNextIdResponse { next_id })
}
