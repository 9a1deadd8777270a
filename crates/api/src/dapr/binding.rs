//! `/v1.0/bindings`.

use super::error::ApiError;
use crate::{empty, reply};
use bytes::Bytes;
use dhow_blocks::binding::BindingRequest;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::Scope;
use dhow_blocks::trace::TraceContext;
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    operation: String,
    data: Option<Box<RawValue>>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// `/v1.0/bindings/<name>`
pub(super) async fn invoke(
    scope: &Scope,
    name: &str,
    trace: TraceContext,
    body: Bytes,
) -> Result<Reply, ApiError> {
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| ApiError::malformed(format!("failed deserializing HTTP body: {error}")))?;
    let mut metadata = request.metadata.unwrap_or_default();
    metadata.entry("traceparent".to_owned()).or_insert_with(|| trace.to_string());
    // As JSON, also a plain string: with its quotes, which providers take off that want text.
    let data = request
        .data
        .map_or_else(|| Bytes::from_static(b"null"), |data| Bytes::copy_from_slice(data.get().as_bytes()));
    let request = BindingRequest { operation: request.operation, data, metadata };
    let answer = scope.call_binding(name, request).await;
    let answer = answer.map_err(|error| ApiError::binding(name, &error))?;
    let content_type =
        value(&answer.metadata, "content-type").and_then(|text| HeaderValue::try_from(text).ok());
    let mut reply = match answer.data.filter(|data| !data.is_empty()) {
        Some(data) => reply(StatusCode::OK, "application/json", data),
        None => empty(StatusCode::NO_CONTENT),
    };
    let headers = reply.headers_mut();
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    for (name, value) in &answer.metadata {
        let name = HeaderName::try_from(format!("metadata.{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    Ok(reply)
}
