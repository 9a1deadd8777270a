//! Metrics and health, for machines that watch the host; and, for those who have its token, what changes while it runs.

use crate::live::{Asking, Live};
use crate::server::Face;
use crate::{bearer, reply, text};
use dhow_blocks::invoke::{Body, Reply};
use dhow_host::Host;
use http::{Method, Request, StatusCode};
use std::sync::Arc;

/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The management face.
pub struct Management {
    /// What is managed.
    pub host: Arc<Host>,
    /// What changes while it runs, and what has to be sent as bearer for it; none: nothing.
    pub live: Option<(Live, String)>,
}

/// The same for a process that serves no apps. Metrics are in Prometheus' text format.
pub struct Health {
    /// Whether it can do what it is there for, else why not.
    pub readiness: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Its numbers.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

impl Management {
    /// Answers requests that change something, for whoever sends the token.
    async fn change(&self, request: Request<Body>) -> Reply {
        let Some((live, token)) = &self.live else {
            let message = "changes over this port are off; set DHOW_MANAGEMENT_TOKEN for the host";
            return text(StatusCode::FORBIDDEN, message);
        };
        if let Err((status, message)) = bearer::check(request.headers(), Some(token)) {
            return text(status, message);
        }
        live.answer(request, Asking { who: "management API", is_owner: false }).await
    }
}

impl Face for Management {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        if Live::knows(request.uri().path()) {
            return self.change(request).await;
        }
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
                Ok(metrics) => reply(StatusCode::OK, METRICS, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
            },
            path => text(StatusCode::NOT_FOUND, format_args!("{path} is not here; try /healthz or /metrics")),
        }
    }
}

impl Face for Health {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        }
        match (request.uri().path(), (self.readiness)()) {
            ("/healthz", _) | ("/readyz", Ok(())) => text(StatusCode::OK, "ok"),
            ("/readyz", Err(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            ("/metrics", _) => reply(StatusCode::OK, METRICS, (self.metrics)()),
            (path, _) => {
                let message = format_args!("{path} is not here; try /healthz, /readyz or /metrics");
                text(StatusCode::NOT_FOUND, message)
            }
        }
    }
}
