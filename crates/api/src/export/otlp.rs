//! OpenTelemetry's protocol, over gRPC and over HTTP with protobuf.
//!
//! Messages and rules: <https://opentelemetry.io/docs/specs/otlp/> and
//! <https://github.com/open-telemetry/opentelemetry-proto>, version 1. Only what a span of ours has is here: a dozen
//! fields, where the crates for it would bring a second pipeline.

use super::post::{Answer, Post, Refused, headers};
use bytes::{BufMut as _, Bytes, BytesMut};
use dhow_host::tracer::{Span, SpanKind};
use dhow_resources::configuration::telemetry::{Otel, OtelProtocol};
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// A collector that speaks OTLP.
#[derive(Debug)]
pub(super) struct Otlp {
    post: Post,
    protocol: OtelProtocol,
}

/// `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

/// `opentelemetry.proto.trace.v1.ResourceSpans`: the spans of one app.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

/// `opentelemetry.proto.resource.v1.Resource`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

/// `opentelemetry.proto.trace.v1.ScopeSpans`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<OtlpSpan>,
}

/// `opentelemetry.proto.common.v1.InstrumentationScope`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// `opentelemetry.proto.trace.v1.Span`
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpSpan {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) trace_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) span_id: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) parent_span_id: Bytes,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<SpanStatus>,
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

/// `opentelemetry.proto.trace.v1.Status`
#[derive(Clone, PartialEq, Message)]
pub(super) struct SpanStatus {
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

/// `opentelemetry.proto.common.v1.KeyValue`
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

/// `opentelemetry.proto.common.v1.AnyValue`, of which only text is used.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(string, optional, tag = "1")]
    pub(super) string_value: Option<String>,
}

// === impl Otlp ===

impl Otlp {
    /// The collector of a configuration, with the values of its headers. The error says what is wrong with it.
    pub(super) fn new(otel: &Otel, header_values: &[(String, String)]) -> Result<Otlp, String> {
        let mut headers = headers(header_values)?;
        let content_type = match otel.protocol {
            OtelProtocol::Grpc => "application/grpc",
            OtelProtocol::Http => "application/x-protobuf",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let is_grpc = otel.protocol == OtelProtocol::Grpc;
        if is_grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(Otlp { post: Post::new(uri(otel)?, headers, otel.timeout, is_grpc), protocol: otel.protocol })
    }

    pub(super) async fn send(&self, spans: &[Span]) -> Result<(), Refused> {
        let request = export_request(spans);
        if self.protocol == OtelProtocol::Http {
            return self.post.send_http(request.encode_to_vec().into()).await;
        }
        let length = request.encoded_len();
        let mut message = BytesMut::with_capacity(length + 5);
        // Not compressed.
        message.put_u8(0);
        message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.put_slice(&request.encode_to_vec());
        let Answer { status, headers } = self.post.send(message.freeze()).await?;
        match crate::watched::grpc_status(&headers) {
            Some(0) => Ok(()),
            code => Err(Refused {
                reason: match code {
                    Some(code) => {
                        format!("the collector at {} answered gRPC status {code}", self.post.place())
                    }
                    None => format!(
                        "the collector at {} answered {status} without a gRPC status",
                        self.post.place()
                    ),
                },
                // Those that OTLP says may be repeated; without a status it is no collector, or one that went away.
                again: code.is_none_or(|code| matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15)),
                after: None,
            }),
        }
    }
}

/// The URL of a collector: a scheme in the address wins over `isSecure`.
fn uri(otel: &Otel) -> Result<http::Uri, String> {
    let Otel { endpoint, is_secure, protocol, .. } = otel;
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => (if *is_secure { "https" } else { "http" }, endpoint.as_str()),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_end_matches('/');
    let path = match protocol {
        OtelProtocol::Grpc => "opentelemetry.proto.collector.trace.v1.TraceService/Export".to_owned(),
        OtelProtocol::Http if path.is_empty() => "v1/traces".to_owned(),
        OtelProtocol::Http if path.ends_with("v1/traces") => path.to_owned(),
        OtelProtocol::Http => format!("{path}/v1/traces"),
    };
    let uri = format!("{scheme}://{authority}/{path}");
    uri.parse().map_err(|error| format!("endpointAddress {endpoint:?} makes no URL: {error}"))
}

/// Spans, by app.
fn export_request(spans: &[Span]) -> ExportRequest {
    let mut apps: BTreeMap<&Arc<str>, Vec<OtlpSpan>> = BTreeMap::new();
    for span in spans {
        apps.entry(&span.app_id).or_default().push(otlp_span(span));
    }
    let resource_spans = apps.into_iter().map(|(app_id, spans)| {
        let scope = Scope { name: "dhow".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        ResourceSpans {
            resource: Some(Resource { attributes: vec![key_value("service.name", app_id)] }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }
    });
    ExportRequest { resource_spans: resource_spans.collect() }
}

fn otlp_span(span: &Span) -> OtlpSpan {
    let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let parent = span.trace.parent_id;
    OtlpSpan {
        trace_id: Bytes::copy_from_slice(&span.trace.trace_id.to_be_bytes()),
        span_id: Bytes::copy_from_slice(&span.trace.span_id.to_be_bytes()),
        parent_span_id: match parent {
            0 => Bytes::new(),
            parent => Bytes::copy_from_slice(&parent.to_be_bytes()),
        },
        name: span.name.clone(),
        kind: match span.kind {
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Consumer => 5,
        },
        start_time_unix_nano: began.as_nanos() as u64,
        end_time_unix_nano: (began + span.took).as_nanos() as u64,
        attributes: span.attributes.iter().map(|(name, value)| key_value(name, value)).collect(),
        // 2 is an error; without one nothing is said.
        status: span.error.clone().map(|message| SpanStatus { message, code: 2 }),
        // Sampled.
        flags: 1,
    }
}

fn key_value(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { string_value: Some(value.to_owned()) }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn addresses_become_urls() {
        const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        for (protocol, endpoint, is_secure, expected) in [
            (OtelProtocol::Grpc, "collector:4317", true, format!("https://collector:4317{EXPORT}")),
            (OtelProtocol::Grpc, "collector:4317", false, format!("http://collector:4317{EXPORT}")),
            (OtelProtocol::Grpc, "http://collector:4317", true, format!("http://collector:4317{EXPORT}")),
            (OtelProtocol::Http, "collector", false, "http://collector/v1/traces".to_owned()),
            (OtelProtocol::Http, "https://c:1/otlp/", false, "https://c:1/otlp/v1/traces".to_owned()),
            (OtelProtocol::Http, "c:1/v1/traces", true, "https://c:1/v1/traces".to_owned()),
        ] {
            let timeout = Duration::from_secs(1);
            let endpoint = endpoint.to_owned();
            let otel = Otel { protocol, endpoint, is_secure, headers: Vec::new(), timeout };
            assert_eq!(uri(&otel).unwrap().to_string(), expected);
        }
    }
}
