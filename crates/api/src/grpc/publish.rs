//! Publish: one by one and in bulk.

use super::caller::Caller;
use crate::dapr::error::ApiError;
use crate::dapr::publish::MAX_ENTRIES;
use crate::proto::runtime::v1::{
    BulkPublishRequest, BulkPublishResponse, BulkPublishResponseFailedEntry, PublishEventRequest,
};
use dhow_blocks::scope::{Event, Scope};
use std::collections::HashSet;

pub(crate) async fn publish(
    scope: &Scope,
    caller: &Caller,
    request: PublishEventRequest,
) -> Result<(), ApiError> {
    let PublishEventRequest { pubsub_name: pubsub, topic, data, data_content_type, metadata } = request;
    check(scope, &pubsub, &topic)?;
    let content_type = Some(data_content_type).filter(|content_type| !content_type.is_empty());
    let event = Event { data, content_type, metadata };
    let published = scope.publish(&pubsub, &topic, event, caller.trace, &caller.trace_state).await;
    published.map_err(|error| ApiError::publish(&pubsub, &topic, &error))
}

/// Entries that the broker did not take are in the answer, which is then a success all the same.
pub(super) async fn publish_many(
    scope: &Scope,
    caller: &Caller,
    request: BulkPublishRequest,
) -> Result<BulkPublishResponse, ApiError> {
    let BulkPublishRequest { pubsub_name: pubsub, topic, entries, metadata: common } = request;
    check(scope, &pubsub, &topic)?;
    // Who may not publish is not told what is wrong with the entries.
    scope.publisher(&pubsub, &topic).map_err(|error| ApiError::publish(&pubsub, &topic, &error))?;
    let unreadable = |reason: &str| ApiError::publish_events(&pubsub, &topic, reason);
    if entries.len() > MAX_ENTRIES {
        return Err(unreadable(&format!("more than {MAX_ENTRIES} entries")));
    }
    let mut seen = HashSet::with_capacity(entries.len());
    if !entries.iter().all(|entry| !entry.entry_id.is_empty() && seen.insert(&entry.entry_id)) {
        return Err(unreadable("entryId is duplicated or not present for entry"));
    }
    let (ids, events): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .map(|entry| {
            let mut metadata = common.clone();
            metadata.extend(entry.metadata);
            let content_type = Some(entry.content_type).filter(|content_type| !content_type.is_empty());
            (entry.entry_id, Event { data: entry.event, content_type, metadata })
        })
        .unzip();
    let published = scope.publish_many(&pubsub, &topic, events, caller.trace, &caller.trace_state).await;
    let published = published.map_err(|error| ApiError::publish(&pubsub, &topic, &error))?;
    let failed = ids.into_iter().zip(published).filter_map(|(entry_id, result)| {
        let error = result.err()?.to_string();
        Some(BulkPublishResponseFailedEntry { entry_id, error })
    });
    Ok(BulkPublishResponse { failed_entries: failed.collect() })
}

fn check(scope: &Scope, pubsub: &str, topic: &str) -> Result<(), ApiError> {
    if pubsub.is_empty() {
        return Err(ApiError::publish_name(pubsub));
    }
    scope.pubsub(pubsub).map_err(|error| ApiError::scope(&error))?;
    if topic.is_empty() { Err(ApiError::publish_name(pubsub)) } else { Ok(()) }
}
