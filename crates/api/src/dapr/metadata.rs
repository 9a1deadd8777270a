//! `/v1.0/metadata` and `/v1.0/healthz`.

use super::DAPR_VERSION;
use super::error::ApiError;
use crate::{empty, reply};
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::{ComponentInfo, Scope};
use dhow_host::Host;
use dhow_host::triggers::subscription::{Origin, Subscription};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Entries that one app may set.
const ENTRIES: usize = 100;

/// Bytes of one entry, key and value.
const ENTRY_BYTES: usize = 16 << 10;

/// What apps said about themselves, and how those outside are reached.
#[derive(Default)]
pub(crate) struct Metadata {
    entries: Mutex<HashMap<String, BTreeMap<String, String>>>,
    connections: Mutex<HashMap<String, AppConnection>>,
}

/// How an app outside is reached, as the metadata API tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConnection {
    /// Where it listens.
    pub port: u16,
    /// What it speaks: `http`, `https`, `grpc`, `grpcs` or `h2c`.
    pub protocol: String,
    /// The address that it listens on.
    pub channel_address: String,
    /// Requests at once; 0 when there is no limit.
    pub max_concurrency: u32,
    /// How it is asked whether it is well, if it is.
    pub health: Option<AppHealth>,
}

/// How an app is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppHealth {
    /// Where; empty for an app that speaks gRPC.
    pub path: String,
    /// Between two questions.
    pub interval: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Failures in a row until it counts as ill.
    pub threshold: u32,
}

/// What the metadata API tells, for both faces.
pub(crate) struct Description {
    pub(crate) id: String,
    pub(crate) components: Vec<Arc<ComponentInfo>>,
    pub(crate) extended: BTreeMap<String, String>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) resiliencies: Vec<String>,
    pub(crate) connection: Option<AppConnection>,
}

impl AppConnection {
    fn json(&self) -> Value {
        let mut json = json!({
            "port": self.port,
            "protocol": self.protocol,
            "channelAddress": self.channel_address,
        });
        if self.max_concurrency > 0 {
            json["maxConcurrency"] = self.max_concurrency.into();
        }
        if let Some(health) = &self.health {
            json["health"] = json!({
                "healthProbeInterval": health.interval_text(),
                "healthProbeTimeout": health.timeout_text(),
                "healthThreshold": health.threshold,
            });
            if !health.path.is_empty() {
                json["health"]["healthCheckPath"] = health.path.as_str().into();
            }
        }
        json
    }
}

impl AppHealth {
    /// As Dapr writes durations.
    pub(crate) fn interval_text(&self) -> String {
        go_duration(self.interval)
    }

    /// As Dapr writes durations.
    pub(crate) fn timeout_text(&self) -> String {
        go_duration(self.timeout)
    }
}

/// Go's form of a duration, as far as probes need it: `5s`, `500ms`.
fn go_duration(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

impl Description {
    /// Parts that are empty are left out.
    fn json(&self) -> Value {
        let components = self.components.iter().map(|component| {
            json!({
                "name": component.name,
                "type": component.component_type,
                "version": component.version,
                "capabilities": component.capabilities,
            })
        });
        let mut body = json!({
            "id": self.id,
            "runtimeVersion": DAPR_VERSION,
            "components": components.collect::<Vec<_>>(),
            "extended": self.extended,
        });
        if !self.subscriptions.is_empty() {
            body["subscriptions"] = self.subscriptions.iter().map(subscription).collect();
        }
        if !self.resiliencies.is_empty() {
            let names = self.resiliencies.iter().map(|name| json!({ "name": name }));
            body["resiliencies"] = names.collect();
        }
        if let Some(connection) = &self.connection {
            body["appConnectionProperties"] = connection.json();
        }
        body
    }
}

fn subscription(subscription: &Subscription) -> Value {
    let mut json = json!({
        "pubsubname": subscription.pubsub,
        "topic": subscription.topic,
        "rules": rules(subscription)
            .map(|(condition, path)| match condition {
                "" => json!({ "path": path }),
                condition => json!({ "match": condition, "path": path }),
            })
            .collect::<Vec<_>>(),
        "type": match subscription.origin {
            Origin::Declarative => "DECLARATIVE",
            Origin::Programmatic => "PROGRAMMATIC",
            Origin::Streaming => "STREAMING",
        },
    });
    if !subscription.metadata.is_empty() {
        json["metadata"] = json!(subscription.metadata);
    }
    if let Some(topic) = &subscription.dead_letter {
        json["deadLetterTopic"] = topic.as_str().into();
    }
    json
}

/// Conditions and paths, the default last, with an empty condition.
pub(crate) fn rules(subscription: &Subscription) -> impl Iterator<Item = (&str, &str)> {
    let rules = subscription.routes.rules.iter().map(|rule| (rule.source.as_str(), rule.path.as_str()));
    rules.chain(subscription.routes.default.iter().map(|path| ("", path.as_str())))
}

impl Metadata {
    /// What an app and its host are.
    pub(crate) fn describe(&self, scope: &Scope, host: Option<&Host>) -> Description {
        let mut extended = self.entries.lock().get(&*scope.app_id).cloned().unwrap_or_default();
        extended.insert("daprRuntimeVersion".to_owned(), DAPR_VERSION.to_owned());
        extended.insert("dhowVersion".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let failures = host.map(|host| host.components().failures_of(&scope.app_id)).unwrap_or_default();
        extended
            .extend(failures.into_iter().map(|(name, reason)| (format!("componentError.{name}"), reason)));
        Description {
            id: scope.app_id.to_string(),
            components: scope.components.list(),
            extended,
            connection: self.connections.lock().get(&*scope.app_id).cloned(),
            subscriptions: host.map(|host| host.triggers().subscriptions(&scope.app_id)).unwrap_or_default(),
            resiliencies: host
                .map(|host| host.components().resiliency().names().map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }

    /// Says how an app outside is reached.
    pub(super) fn connect(&self, app_id: &str, connection: AppConnection) {
        self.connections.lock().insert(app_id.to_owned(), connection);
    }

    pub(super) fn get(&self, scope: &Scope, host: Option<&Host>) -> Reply {
        let description = self.describe(scope, host);
        reply(StatusCode::OK, "application/json", description.json().to_string())
    }

    pub(crate) fn set(&self, scope: &Scope, key: String, value: &[u8]) -> Result<Reply, ApiError> {
        if key.len() + value.len() > ENTRY_BYTES {
            return Err(ApiError::malformed(format!(
                "a metadata entry may have at most {ENTRY_BYTES} bytes with its key"
            )));
        }
        let value = String::from_utf8_lossy(value).into_owned();
        let mut apps = self.entries.lock();
        let entries = apps.entry(scope.app_id.to_string()).or_default();
        if entries.len() >= ENTRIES && !entries.contains_key(&key) {
            return Err(ApiError::malformed(format!("an app may set at most {ENTRIES} metadata entries")));
        }
        entries.insert(key, value);
        Ok(empty(StatusCode::NO_CONTENT))
    }
}

pub(super) fn healthz(scope: &Scope, app_id: Option<&str>, ready: bool) -> Result<Reply, ApiError> {
    if !ready {
        return Err(ApiError::internal("ERR_HEALTH_NOT_READY", "dapr is not ready"));
    }
    match app_id {
        Some(app_id) if app_id != &*scope.app_id => {
            Err(ApiError::internal("ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match"))
        }
        _ => Ok(empty(StatusCode::NO_CONTENT)),
    }
}
