//! `/v1.0/publish`.

use super::error::ApiError;
use super::path::Query;
use super::trace_state;
use crate::{empty, reply};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use dhow_blocks::cloud_event::{is_binary, is_cloud_event, is_json};
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::{Event, Scope};
use dhow_blocks::trace::TraceContext;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Most entries of one bulk publication.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// One entry of a bulk publication.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// Dapr's JavaScript SDK spells it the second way.
    #[serde(default, alias = "entryID")]
    entry_id: String,
    event: Option<Box<RawValue>>,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// `/v1.0/publish/<pubsub>/<topic>`
pub(super) async fn publish(
    scope: &Scope,
    pubsub: &str,
    topic: &str,
    query: &Query,
    head: (&HeaderMap, TraceContext),
    data: Bytes,
) -> Result<Reply, ApiError> {
    if pubsub.is_empty() || topic.is_empty() {
        return Err(ApiError::publish_name(pubsub));
    }
    let (headers, trace) = head;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let event = Event { data, content_type, metadata: query.metadata_map() };
    let published = scope.publish(pubsub, topic, event, trace, trace_state(headers)).await;
    published.map_err(|error| ApiError::publish(pubsub, topic, &error))?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `/v1.0/publish/bulk/<pubsub>/<topic>`
pub(super) async fn bulk(
    scope: &Scope,
    pubsub: &str,
    topic: &str,
    query: &Query,
    head: (&HeaderMap, TraceContext),
    body: Bytes,
) -> Result<Reply, ApiError> {
    if pubsub.is_empty() || topic.is_empty() {
        return Err(ApiError::publish_name(pubsub));
    }
    // Who may not publish is not told what is wrong with the entries.
    scope.publisher(pubsub, topic).map_err(|error| ApiError::publish(pubsub, topic, &error))?;
    let unreadable = |reason: &str| ApiError::publish_events(pubsub, topic, reason);
    let entries: Vec<Entry> =
        serde_json::from_slice(&body).map_err(|error| unreadable(&error.to_string()))?;
    if entries.len() > MAX_ENTRIES {
        return Err(unreadable(&format!("more than {MAX_ENTRIES} entries")));
    }
    let common = query.metadata_map();
    let (mut ids, mut events) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    let mut seen = HashSet::new();
    for entry in entries {
        if entry.entry_id.is_empty() {
            return Err(unreadable("an entryId is missing"));
        }
        if !seen.insert(entry.entry_id.clone()) {
            return Err(unreadable(&format!("entryId {:?} is not unique", entry.entry_id)));
        }
        let data = data(&entry).map_err(|reason| unreadable(&reason))?;
        let mut metadata = entry.metadata.unwrap_or_default();
        metadata.extend(common.clone());
        events.push(Event { data, content_type: Some(entry.content_type), metadata });
        ids.push(entry.entry_id);
    }
    let (headers, trace) = head;
    let published = scope.publish_many(pubsub, topic, events, trace, trace_state(headers)).await;
    let published = published.map_err(|error| ApiError::publish(pubsub, topic, &error))?;
    let failed: Vec<_> = ids
        .iter()
        .zip(&published)
        .filter_map(|(id, result)| {
            let error = result.as_ref().err()?;
            Some(json!({ "entryId": id, "error": error.to_string() }))
        })
        .collect();
    if failed.is_empty() {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let what = format!("error when publish to topic {topic} in pubsub {pubsub}");
    let body = json!({ "failedEntries": failed, "errorCode": "ERR_PUBSUB_PUBLISH_MESSAGE" });
    let mut reply = reply(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body.to_string());
    let headers = reply.headers_mut();
    headers.insert(
        HeaderName::from_static("metadata.responsedata"),
        HeaderValue::from_static("ERR_PUBSUB_PUBLISH_MESSAGE"),
    );
    if let Ok(what) = HeaderValue::try_from(what) {
        headers.insert(HeaderName::from_static("metadata.error"), what);
    }
    Ok(reply)
}

/// The bytes of an entry's event, by its media type.
fn data(entry: &Entry) -> Result<Bytes, String> {
    let Some(event) = &entry.event else {
        return Err(format!("entry {:?} has no event", entry.entry_id));
    };
    let content_type = &entry.content_type;
    if is_json(content_type) || is_cloud_event(content_type) {
        return Ok(Bytes::copy_from_slice(event.get().as_bytes()));
    }
    let text: Option<String> = serde_json::from_str(event.get()).ok();
    match text {
        Some(text) if is_binary(content_type) => BASE64_STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| format!("entry {:?}: the event is not base64: {error}", entry.entry_id)),
        Some(text) => Ok(text.into()),
        None if is_binary(content_type) || content_type.starts_with("text/") => {
            Err(format!("entry {:?}: an event of type {content_type} must be a string", entry.entry_id))
        }
        None => Ok(Bytes::copy_from_slice(event.get().as_bytes())),
    }
}
