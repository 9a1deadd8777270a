//! Metrics and health, for machines that watch the host.

use crate::server::Face;
use crate::{reply, text};
use dhow_blocks::invoke::{Body, Reply};
use dhow_host::Host;
use http::{Method, Request, StatusCode};
use std::sync::Arc;

/// The management face.
pub struct Management {
    /// What is managed.
    pub host: Arc<Host>,
}

impl Face for Management {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        }
        match request.uri().path() {
            "/healthz" if self.host.is_stopping() => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            "/healthz" if !self.host.is_ready() => text(StatusCode::SERVICE_UNAVAILABLE, "starting"),
            "/healthz" => text(StatusCode::OK, "ok"),
            "/metrics" if !self.host.metrics().is_enabled() => text(
                StatusCode::NOT_FOUND,
                "metrics are switched off: spec.metrics.enabled of the configuration",
            ),
            "/metrics" => match self.host.metrics().render() {
                Ok(metrics) => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            path => text(StatusCode::NOT_FOUND, format_args!("{path} is not here; try /healthz or /metrics")),
        }
    }
}
