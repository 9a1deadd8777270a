//! The ways to apps that run outside the host: programs on a port, which speak HTTP or gRPC.
//!
//! | file | subject |
//! |---|---|
//! | [`http`] | an app that speaks HTTP: the invocation as it is |
//! | [`grpc`] | an app that speaks gRPC: the invocation as a call of `AppCallback` |
//! | `transport` | pooled connections, TLS, what went wrong on the way |

pub mod grpc;
pub mod http;
mod transport;

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use dhow_blocks::trace::TraceContext;
use std::sync::Arc;
use std::time::Duration;

/// Where an app listens, and how it is spoken to.
#[derive(Clone)]
pub struct Endpoint {
    /// The app, for messages.
    pub app_id: Arc<str>,
    /// Host name or address; mostly `127.0.0.1`.
    pub host: String,
    /// Port.
    pub port: u16,
    /// With TLS. The app's certificate is not verified: it is a neighbour that shows one of its own making
    /// (Dapr's rule for `https` and `grpcs`).
    pub tls: bool,
    /// Sent to the app as `dapr-api-token` (Dapr's `APP_API_TOKEN`).
    pub token: Option<String>,
    /// From the request to the head of the answer. Streams of gRPC have none: they live as long as both ends want.
    pub deadline: Duration,
}

/// What a gRPC app answered instead of a message; beside the HTTP form of it, for callers that speak gRPC.
#[derive(Clone, Debug)]
pub(crate) struct AppStatus(pub(crate) tonic::Status);

/// The type of the data in the messages of `InvokeService` and `OnInvoke`, which HTTP has no place for.
#[derive(Clone, Debug)]
pub(crate) struct TypeUrl(pub(crate) String);

/// Adds what every request to an app carries: its trace and, if it wants one, the token.
fn sign(headers: &mut HeaderMap, trace: TraceContext, token: Option<&str>) {
    if let Ok(trace) = HeaderValue::try_from(trace.to_string()) {
        headers.insert(HeaderName::from_static("traceparent"), trace);
    }
    if let Some(mut token) = token.and_then(|token| HeaderValue::try_from(token).ok()) {
        token.set_sensitive(true);
        headers.insert(HeaderName::from_static("dapr-api-token"), token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_blocks::hops;

    #[test]
    fn what_belongs_to_a_connection_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("dapr-api-token", "callers"),
            ("x-other", "1"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        hops::strip(&mut headers);
        sign(
            &mut headers,
            TraceContext { trace_id: 1, span_id: 2, parent_id: 0, sampled: true },
            Some("apps"),
        );
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["dapr-api-token", "traceparent", "x-other"]);
        assert_eq!(headers["dapr-api-token"], "apps");
    }
}
