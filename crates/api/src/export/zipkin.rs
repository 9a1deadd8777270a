//! Zipkin's JSON (<https://zipkin.io/zipkin-api/>, version 2).

use super::post::{Post, Refused, headers};
use dhow_host::tracer::{Span, SpanKind};
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// From a request to its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A collector that speaks Zipkin.
#[derive(Debug)]
pub(super) struct Zipkin(Post);

// === impl Zipkin ===

impl Zipkin {
    /// The collector at a URL, which mostly ends in `/api/v2/spans`.
    pub(super) fn new(address: &str) -> Result<Zipkin, String> {
        let uri: http::Uri = address.parse().map_err(|error| format!("{address:?} is no URL: {error}"))?;
        if uri.scheme().is_none() || uri.host().is_none() {
            return Err(format!("{address:?} is no URL such as http://localhost:9411/api/v2/spans"));
        }
        let mut headers = headers(&[])?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Zipkin(Post::new(uri, headers, TIMEOUT, false)))
    }

    pub(super) async fn send(&self, spans: &[Span]) -> Result<(), Refused> {
        let spans: Value = spans.iter().map(span).collect();
        self.0.send_http(spans.to_string().into()).await
    }
}

fn span(span: &Span) -> Value {
    let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let kind = match span.kind {
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
        SpanKind::Consumer => "CONSUMER",
    };
    let mut tags: Map<String, Value> =
        span.attributes.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    if let Some(error) = &span.error {
        tags.insert("error".to_owned(), error.as_str().into());
        tags.insert("otel.status_code".to_owned(), "ERROR".into());
    }
    let mut json = json!({
        "traceId": format!("{:032x}", span.trace.trace_id),
        "id": format!("{:016x}", span.trace.span_id),
        "name": span.name,
        "kind": kind,
        "timestamp": began.as_micros() as u64,
        // Zero means unknown.
        "duration": (span.took.as_micros() as u64).max(1),
        "localEndpoint": { "serviceName": &*span.app_id },
        "tags": tags,
    });
    if span.trace.parent_id != 0 {
        json["parentId"] = format!("{:016x}", span.trace.parent_id).into();
    }
    json
}
