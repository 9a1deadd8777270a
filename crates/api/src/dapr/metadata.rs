//! `/v1.0/metadata` and `/v1.0/healthz`.

use super::DAPR_VERSION;
use super::error::ApiError;
use crate::{empty, reply};
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::Scope;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Entries that one app may set.
const ENTRIES: usize = 100;

/// What apps said about themselves.
#[derive(Default)]
pub(super) struct Metadata(Mutex<HashMap<String, BTreeMap<String, String>>>);

impl Metadata {
    pub(super) fn get(&self, scope: &Scope) -> Reply {
        let mut components: Vec<Value> = scope
            .state
            .iter()
            .map(|(name, binding)| {
                let capabilities = binding.store.capabilities().iter().map(|capability| capability.name());
                json!({
                    "name": name,
                    "type": &*binding.component_type,
                    "version": "v1",
                    "capabilities": capabilities.collect::<Vec<_>>(),
                })
            })
            .collect();
        components.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
        let mut extended = self.0.lock().get(&*scope.app_id).cloned().unwrap_or_default();
        extended.insert("daprRuntimeVersion".to_owned(), DAPR_VERSION.to_owned());
        extended.insert("dhowVersion".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let body = json!({
            "id": &*scope.app_id,
            "runtimeVersion": DAPR_VERSION,
            "components": components,
            "extended": extended,
        });
        reply(StatusCode::OK, "application/json", body.to_string())
    }

    pub(super) fn set(&self, scope: &Scope, key: String, value: &[u8]) -> Result<Reply, ApiError> {
        let value = String::from_utf8_lossy(value).into_owned();
        let mut apps = self.0.lock();
        let entries = apps.entry(scope.app_id.to_string()).or_default();
        if entries.len() >= ENTRIES && !entries.contains_key(&key) {
            return Err(ApiError::malformed(format!("an app may set at most {ENTRIES} metadata entries")));
        }
        entries.insert(key, value);
        Ok(empty(StatusCode::NO_CONTENT))
    }
}

/// An app that can ask is served by a host that is ready.
pub(super) fn healthz(scope: &Scope, app_id: Option<&str>) -> Result<Reply, ApiError> {
    match app_id {
        Some(app_id) if app_id != &*scope.app_id => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "ERR_HEALTH_APPID_NOT_MATCH",
            "dapr app-id does not match",
        )),
        _ => Ok(empty(StatusCode::NO_CONTENT)),
    }
}
