//! Layotto's actuator: health and information, for Kubernetes and for people, and how much the host logs.
//!
//! | path | answer |
//! |---|---|
//! | `/actuator/health/liveness`, `/actuator/health/readiness` | `{"status", "components"}`, 503 when not up |
//! | `/actuator/info` | what runs |
//! | `GET /actuator/logger` (not of Layotto) | `{"loggers": {name: level}}` |
//! | `POST`, `PUT /actuator/logger` with `{"component", "level"}` | nothing: `{}` |
//!
//! The last two are for whoever may manage functions; health is for everybody.

use crate::server::Face;
use crate::{bearer, reply};
use dhow_blocks::invoke::{Body, Reply};
use dhow_host::Host;
use http::{Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Largest body of a request.
const MAX_REQUEST: usize = 64 << 10;

/// The actuator's face.
pub struct Actuator {
    /// Whose health.
    pub host: Arc<Host>,
    /// What is logged.
    pub loggers: Arc<dyn Loggers>,
    /// What a request about loggers has to send as bearer, if anything.
    pub token: Option<String>,
    /// Whether only this machine reaches the face. Where others do, loggers are not changed without a token.
    pub is_local: bool,
}

/// What is logged, by loggers that each have a level.
pub trait Loggers: Send + Sync {
    /// All loggers with their levels.
    fn levels(&self) -> Vec<(String, String)>;

    /// Changes the level of one until the process ends; the error says what is wrong with the request.
    fn set(&self, logger: &str, level: &str) -> Result<(), String>;
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
            "/actuator/logger" => match self.logger(request).await {
                Ok(body) => answer(StatusCode::OK, &body),
                Err((status, message)) => answer(status, &json!({ "error": message })),
            },
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

    async fn logger(&self, request: Request<Body>) -> Result<Value, (StatusCode, String)> {
        bearer::check(request.headers(), self.token.as_deref())
            .map_err(|(status, message)| (status, message.to_owned()))?;
        match *request.method() {
            Method::GET | Method::HEAD => {
                let levels: Map<String, Value> =
                    self.loggers.levels().into_iter().map(|(logger, level)| (logger, level.into())).collect();
                return Ok(json!({ "loggers": levels }));
            }
            Method::POST | Method::PUT => {}
            _ => {
                let message = "the levels of loggers are for GET, a change of one for POST".to_owned();
                return Err((StatusCode::METHOD_NOT_ALLOWED, message));
            }
        }
        if !self.is_local && self.token.is_none() {
            let message = "loggers are changed only with a token, or where only this machine can ask for it; \
                           set DHOW_FUNCTIONS_TOKEN for the host";
            return Err((StatusCode::FORBIDDEN, message.to_owned()));
        }
        let wrong = |message: String| (StatusCode::BAD_REQUEST, message);
        let body = request.into_body().collect(MAX_REQUEST).await;
        let body = body.map_err(|error| wrong(error.to_string()))?;
        let change: Value = serde_json::from_slice(&body)
            .map_err(|error| wrong(format!("the request is no JSON: {error}")))?;
        let field = |name: &str| match &change[name] {
            Value::String(text) => Ok(text.as_str()),
            _ => {
                let expected = r#"expected {"component": "root", "level": "debug"}"#;
                Err(wrong(format!("`{name}` is missing, or no text; {expected}")))
            }
        };
        self.loggers.set(field("component")?, field("level")?).map_err(wrong)?;
        Ok(json!({}))
    }
}

fn answer(status: StatusCode, body: &Value) -> Reply {
    reply(status, "application/json", body.to_string())
}
