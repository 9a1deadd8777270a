//! Requests from outside to apps.

use crate::server::Face;
use crate::text;
use dhow_blocks::invoke::{Body, Invocation, InvokeError, Reply, Trigger};
use dhow_host::Host;
use http::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};
use std::sync::Arc;

/// The face that apps are served on.
pub struct Ingress {
    /// Whose apps.
    pub host: Arc<Host>,
}

impl Face for Ingress {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        let name = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers().get(HOST).and_then(|host| host.to_str().ok()),
        };
        let Some(app) = self.host.route(name, request.uri().path(), request.headers()) else {
            if !self.host.is_ready() {
                let mut reply =
                    text(StatusCode::SERVICE_UNAVAILABLE, "the host is starting: apps are being prepared");
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return reply;
            }
            return text(
                StatusCode::NOT_FOUND,
                format_args!("no app has a route for {}", request.uri().path()),
            );
        };
        if self.host.is_stopping() {
            return error(&InvokeError::ShuttingDown);
        }
        match app.invoke(Invocation::new(request, Trigger::Http)).await {
            Ok(reply) => reply,
            Err(failed) => error(&failed),
        }
    }
}

/// How each failure looks from outside.
pub(crate) fn error(error: &InvokeError) -> Reply {
    let status = match error {
        InvokeError::UnknownApp { .. } => StatusCode::NOT_FOUND,
        InvokeError::NotLoadable { .. } | InvokeError::GuestFailed { .. } | InvokeError::TooDeep { .. } => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        InvokeError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        InvokeError::DeadlineExceeded { .. } => StatusCode::GATEWAY_TIMEOUT,
        InvokeError::RequestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        InvokeError::Denied { .. } | InvokeError::Forbidden { .. } | InvokeError::Refused { .. } => {
            StatusCode::FORBIDDEN
        }
        InvokeError::CircuitOpen { .. } | InvokeError::HostFull { .. } => StatusCode::SERVICE_UNAVAILABLE,
        InvokeError::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        InvokeError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut reply = text(status, error);
    let headers = reply.headers_mut();
    match error {
        InvokeError::Overloaded { .. } | InvokeError::HostFull { .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        // The rest of a body that nobody reads must not be taken for the next request.
        InvokeError::RequestTooLarge { .. } | InvokeError::ShuttingDown => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    reply
}
