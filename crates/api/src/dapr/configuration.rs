//! `/v1.0/configuration`: read, and subscribe by HTTP.
//!
//! An app that subscribed by HTTP gets each change as a POST to `/configuration/<store>/<key>`.

use super::error::ApiError;
use super::path::Query;
use crate::{empty, reply};
use async_trait::async_trait;
use dhow_blocks::cloud_event::uuid;
use dhow_blocks::configuration::Items;
use dhow_blocks::events::{Handler, Metadata, Outcome, Running};
use dhow_blocks::invoke::{Body, Invocation, Invoker, Reply, Trigger, path_segment};
use dhow_blocks::scope::Scope;
use dhow_blocks::trace::TraceContext;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Most subscriptions of one app.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// The subscriptions of all apps of a host, by app-id.
#[derive(Default)]
pub(crate) struct Subscriptions(Mutex<HashMap<String, OfApp>>);

/// By subscription id.
type OfApp = HashMap<String, Box<dyn Running>>;

/// Hands changes to an app.
struct ToApp {
    invoker: Arc<dyn Invoker>,
    app_id: String,
    store: String,
    id: String,
}

/// Items as JSON has them.
pub(crate) fn json_items(items: &Items) -> Value {
    let items = items.iter().map(|(key, item)| {
        let mut json = json!({ "value": item.value });
        if !item.version.is_empty() {
            json["version"] = item.version.as_str().into();
        }
        if !item.metadata.is_empty() {
            json["metadata"] = json!(item.metadata);
        }
        (key.clone(), json)
    });
    Value::Object(items.collect())
}

/// `/v1.0/configuration/<store>`
pub(super) async fn get(scope: &Scope, store: &str, query: &Query) -> Result<Reply, ApiError> {
    let items = read(scope, store, &query.all("key"), &query.metadata_map()).await?;
    if items.is_empty() {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    Ok(reply(StatusCode::OK, "application/json", json_items(&items).to_string()))
}

/// Reads these keys, or all if none is named.
pub(crate) async fn read(
    scope: &Scope,
    store: &str,
    keys: &[String],
    metadata: &Metadata,
) -> Result<Items, ApiError> {
    let bound = scope.configuration(store).map_err(|error| ApiError::scope(&error))?;
    let provider = &bound.provider;
    bound.call("get", (), |()| provider.get(keys, metadata)).await.map_err(|error| {
        let what = format!("failed to get {} from Configuration store {store}", keys.join(","));
        ApiError::configuration("ERR_CONFIGURATION_GET", &what, &error)
    })
}

impl Subscriptions {
    /// `/v1.0/configuration/<store>/subscribe`
    pub(super) async fn subscribe(
        &self,
        scope: &Scope,
        store: &str,
        query: &Query,
    ) -> Result<Reply, ApiError> {
        let handler = |id| {
            Arc::new(ToApp {
                invoker: Arc::clone(&scope.invoker),
                app_id: scope.app_id.to_string(),
                store: store.to_owned(),
                id,
            }) as Arc<dyn Handler<Items>>
        };
        let id = self.begin(scope, store, &query.all("key"), &query.metadata_map(), handler).await?;
        Ok(reply(StatusCode::OK, "application/json", json!({ "id": id }).to_string()))
    }

    /// Begins a subscription; the handler is made for its id, which is the answer.
    pub(crate) async fn begin(
        &self,
        scope: &Scope,
        store: &str,
        keys: &[String],
        metadata: &Metadata,
        handler: impl FnOnce(String) -> Arc<dyn Handler<Items>>,
    ) -> Result<String, ApiError> {
        let bound = scope.configuration(store).map_err(|error| ApiError::scope(&error))?;
        let what = format!("failed to subscribe {} from Configuration store {store}", keys.join(","));
        let id = uuid();
        let running = bound.provider.subscribe(keys, metadata, handler(id.clone())).await;
        let running =
            running.map_err(|error| ApiError::configuration("ERR_CONFIGURATION_SUBSCRIBE", &what, &error))?;
        let mut apps = self.0.lock().await;
        let of_app = apps.entry(scope.app_id.to_string()).or_default();
        if of_app.len() >= MAX_SUBSCRIPTIONS {
            drop(apps);
            running.stop().await;
            let message = format!("{what}: an app may have {MAX_SUBSCRIPTIONS} subscriptions");
            return Err(ApiError::internal("ERR_CONFIGURATION_SUBSCRIBE", message));
        }
        of_app.insert(id.clone(), running);
        Ok(id)
    }

    /// `/v1.0/configuration/<store>/<id>/unsubscribe`
    pub(super) async fn unsubscribe(&self, scope: &Scope, store: &str, id: &str) -> Result<Reply, ApiError> {
        scope.configuration(store).map_err(|error| ApiError::scope(&error))?;
        let body = match self.end(scope, id).await {
            true => json!({ "ok": true }),
            false => json!({ "ok": false, "message": format!("subscription with id {id} does not exist") }),
        };
        Ok(reply(StatusCode::OK, "application/json", body.to_string()))
    }

    /// Ends a subscription; `false` if the app has none of that id.
    pub(crate) async fn end(&self, scope: &Scope, id: &str) -> bool {
        let running = self.0.lock().await.get_mut(&*scope.app_id).and_then(|of_app| of_app.remove(id));
        match running {
            Some(running) => {
                running.stop().await;
                true
            }
            None => false,
        }
    }
}

#[async_trait]
impl Handler<Items> for ToApp {
    async fn handle(&self, items: Items) -> Outcome {
        let body = json!({ "id": self.id, "items": json_items(&items) }).to_string();
        for key in items.keys() {
            let mut request = Request::new(Body::from(body.clone()));
            *request.method_mut() = Method::POST;
            let path = format!("/configuration/{}/{}", path_segment(&self.store), path_segment(key));
            let Ok(uri) = path.parse() else {
                tracing::warn!(app_id = self.app_id, key, "a configuration update has no path");
                continue;
            };
            *request.uri_mut() = uri;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let trace = TraceContext::new();
            let invocation = Invocation { request, trigger: Trigger::Configuration, trace, depth: 0 };
            match self.invoker.invoke(&self.app_id, invocation).await {
                Ok(reply) if reply.status().is_success() => {}
                Ok(reply) => {
                    let (app_id, status) = (&self.app_id, reply.status());
                    tracing::warn!(app_id, key, "a configuration update was answered {status}");
                }
                Err(error) => {
                    tracing::warn!(
                        app_id = self.app_id,
                        key,
                        "a configuration update was not taken: {error}"
                    );
                }
            }
        }
        Outcome::Done
    }
}
