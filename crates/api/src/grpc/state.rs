//! State: messages to and from the block.

use super::caller::Caller;
use crate::dapr::error::{ApiError, Grpc};
use crate::dapr::state::{find, legal, open, time_to_live, ttl_of};
use crate::proto::common::v1::state_options::StateConcurrency;
use crate::proto::common::v1::{Etag, StateItem, StateOptions};
use crate::proto::runtime::v1::{
    BulkStateItem, DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest,
    GetBulkStateRequest, GetBulkStateResponse, GetStateRequest, GetStateResponse, QueryStateItem,
    QueryStateRequest, QueryStateResponse, SaveStateRequest, TransactionalStateOperation,
};
use dhow_blocks::cloud_event::is_json;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::scope::{Scope, Step};
use dhow_blocks::state::{Capability, Concurrency, Delete, Item, Operation, Set, Ttl};
use futures::future::try_join_all;
use http::StatusCode;
use humantime::format_rfc3339_millis;
use serde::de::IgnoredAny;

pub(crate) async fn get(scope: &Scope, request: GetStateRequest) -> Result<GetStateResponse, ApiError> {
    let GetStateRequest { store_name: store, key, .. } = request;
    let state = open(scope, &store)?;
    legal(&key)?;
    let found = state.get(&key).await.map_err(|error| {
        ApiError::state("ERR_STATE_GET", &format!("fail to get {key} from state store {store}"), &error)
    })?;
    // An absent key is an empty answer.
    let Some(item) = found else { return Ok(GetStateResponse::default()) };
    let metadata = metadata(&item);
    Ok(GetStateResponse { data: item.value, etag: item.etag, metadata })
}

pub(crate) async fn get_many(
    scope: &Scope,
    request: GetBulkStateRequest,
) -> Result<GetBulkStateResponse, ApiError> {
    let GetBulkStateRequest { store_name, keys, .. } = request;
    let state = open(scope, &store_name)?;
    keys.iter().try_for_each(|key| legal(key))?;
    let found = state.get_many(&keys).await;
    let items = keys.into_iter().zip(found).map(|(key, found)| match found {
        Ok(None) => BulkStateItem { key, ..BulkStateItem::default() },
        Ok(Some(item)) => {
            let metadata = metadata(&item);
            BulkStateItem { key, data: item.value, etag: item.etag, error: String::new(), metadata }
        }
        Err(error) => BulkStateItem { key, error: error.to_string(), ..BulkStateItem::default() },
    });
    Ok(GetBulkStateResponse { items: items.collect() })
}

pub(crate) async fn save(scope: &Scope, request: SaveStateRequest) -> Result<(), ApiError> {
    let SaveStateRequest { store_name: store, states } = request;
    let state = open(scope, &store)?;
    let what = format!("failed saving state in state store {store}");
    let sets = states.into_iter().map(|item| set(item, None, &what)).collect::<Result<Vec<_>, _>>()?;
    // All at once: the store commits them together if it can.
    let saved = try_join_all(sets.into_iter().map(|set| state.set(set))).await;
    saved.map_err(|error| ApiError::state("ERR_STATE_SAVE", &what, &error))?;
    Ok(())
}

pub(crate) async fn delete(scope: &Scope, request: DeleteStateRequest) -> Result<(), ApiError> {
    let DeleteStateRequest { store_name, key, etag: sent, .. } = request;
    let state = open(scope, &store_name)?;
    legal(&key)?;
    let what = format!("failed deleting state with key {key}");
    let deleted = state.delete(Delete { key, etag: etag(sent) }).await;
    deleted.map_err(|error| ApiError::state("ERR_STATE_DELETE", &what, &error))
}

pub(crate) async fn delete_many(scope: &Scope, request: DeleteBulkStateRequest) -> Result<(), ApiError> {
    let DeleteBulkStateRequest { store_name: store, states } = request;
    let state = open(scope, &store)?;
    let deletes = states.into_iter().map(|item| {
        legal(&item.key)?;
        Ok(Delete { key: item.key, etag: etag(item.etag) })
    });
    let deletes = deletes.collect::<Result<Vec<_>, ApiError>>()?;
    let what = format!("failed deleting state in state store {store}");
    let deleted = try_join_all(deletes.into_iter().map(|delete| state.delete(delete))).await;
    deleted.map_err(|error| ApiError::state("ERR_STATE_BULK_DELETE", &what, &error))?;
    Ok(())
}

pub(crate) async fn transact(
    scope: &Scope,
    caller: &Caller,
    request: ExecuteStateTransactionRequest,
) -> Result<(), ApiError> {
    let ExecuteStateTransactionRequest { store_name: store, operations, metadata } = request;
    let state = open(scope, &store)?;
    if !state.can(Capability::Transactional) {
        let reason = "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED";
        return Err(ApiError::state_not_supported(&store, "transactions", reason));
    }
    let what = "error while executing state transaction";
    let steps = operations.into_iter().map(|operation| {
        let TransactionalStateOperation { operation_type, request } = operation;
        let request = request.ok_or_else(|| ApiError::malformed("an operation has no request"))?;
        let own = request.metadata.clone();
        let operation = match operation_type.as_str() {
            "upsert" => Operation::Set(set(request, Some(&metadata), what)?),
            "delete" => {
                legal(&request.key)?;
                Operation::Delete(Delete { key: request.key, etag: etag(request.etag) })
            }
            other => {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    Grpc::Unimplemented,
                    "ERR_NOT_SUPPORTED_STATE_OPERATION",
                    format!("operation type {other} not supported"),
                ));
            }
        };
        Ok(Step { operation, metadata: own.into_iter().collect() })
    });
    let steps = steps.collect::<Result<_, _>>()?;
    let done = state.transact_steps(steps, caller.trace, &caller.trace_state).await;
    done.map_err(|error| ApiError::internal("ERR_STATE_TRANSACTION", format!("{what}: {error}")))
}

pub(crate) async fn query(scope: &Scope, request: QueryStateRequest) -> Result<QueryStateResponse, ApiError> {
    let page = find(scope, &request.store_name, request.query.as_bytes()).await?;
    let results = page.results.into_iter().map(|found| QueryStateItem {
        key: found.key,
        data: found.value,
        etag: found.etag,
        error: String::new(),
    });
    Ok(QueryStateResponse { results: results.collect(), token: page.token, metadata: Metadata::new() })
}

/// The metadata of an item override those of the whole request.
fn set(item: StateItem, common: Option<&Metadata>, what: &str) -> Result<Set, ApiError> {
    let StateItem { key, value: data, etag: sent, metadata, options } = item;
    if key.is_empty() {
        let message = "state key cannot be empty";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, Grpc::InvalidArgument, "ERR_STATE_SAVE", message));
    }
    legal(&key)?;
    // Bytes are stored as they came, also JSON, which only has to be JSON if it is called so.
    let json = value(&metadata, "contentType").is_some_and(is_json);
    if json && let Err(error) = serde_json::from_slice::<IgnoredAny>(&data) {
        return Err(ApiError::malformed(format!("{what}: the value of {key} is not JSON: {error}")));
    }
    let concurrency = match options.as_ref().map(StateOptions::concurrency) {
        Some(StateConcurrency::ConcurrencyFirstWrite) => Concurrency::FirstWrite,
        None | Some(StateConcurrency::ConcurrencyUnspecified | StateConcurrency::ConcurrencyLastWrite) => {
            Concurrency::LastWrite
        }
    };
    let ttl = match ttl_of(&metadata).or_else(|| common.and_then(ttl_of)) {
        None => Ttl::Forever,
        Some(text) => time_to_live(text, what, "ERR_STATE_SAVE")?,
    };
    Ok(Set { key, value: data, json, etag: etag(sent), concurrency, ttl })
}

fn etag(etag: Option<Etag>) -> Option<String> {
    etag.map(|etag| etag.value).filter(|etag| !etag.is_empty())
}

fn metadata(item: &Item) -> Metadata {
    let expires =
        item.expires_at.map(|time| ("ttlExpireTime".to_owned(), format_rfc3339_millis(time).to_string()));
    expires.into_iter().collect()
}
