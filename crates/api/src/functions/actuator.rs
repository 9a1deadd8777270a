//! Layotto's actuator: health and information, for Kubernetes and for people.

use crate::reply;
use crate::server::Face;
use dhow_blocks::invoke::{Body, Reply};
use dhow_host::Host;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// The actuator's face.
pub struct Actuator {
    /// Whose health.
    pub host: Arc<Host>,
}

impl Face for Actuator {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        match request.uri().path() {
            "/actuator/health/liveness" => self.health(!self.host.is_stopping()),
            "/actuator/health/readiness" => self.health(self.host.is_ready() && !self.host.is_stopping()),
            "/actuator/info" => {
                let app = json!({ "name": "dhow", "version": env!("CARGO_PKG_VERSION") });
                answer(StatusCode::OK, &json!({ "app": app }))
            }
            path => answer(StatusCode::NOT_FOUND, &json!({ "error": format!("{path} is not here") })),
        }
    }
}

impl Actuator {
    fn health(&self, is_well: bool) -> Reply {
        let state = |is_up| if is_up { "UP" } else { "DOWN" };
        let start_up = if self.host.is_ready() { "UP" } else { "INIT" };
        let mut components = json!({ "runtime_startup": { "status": start_up } });
        for (name, reason) in self.host.components().failures() {
            components[name] = json!({ "status": "DOWN", "details": { "reason": reason } });
        }
        let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, &json!({ "status": state(is_well), "components": components }))
    }
}

fn answer(status: StatusCode, body: &Value) -> Reply {
    reply(status, "application/json", body.to_string())
}
