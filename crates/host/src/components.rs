//! From resources to open providers: which state stores an app sees, and under which key prefix.

use dhow_blocks::scope::{DEFAULT_STATE_STORE, StateBinding};
use dhow_blocks::state::StateStore;
use dhow_providers::registry::{ComponentSpec, OpenError, embedded_state, open_state};
use dhow_resources::component::{Component, MetadataValue};
use dhow_resources::load::Resources;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The components of a host.
pub struct Components {
    components: Vec<Component>,
    data_dir: PathBuf,
    namespace: String,
    /// Stores that are open, by the component as it looks once its templates are filled in.
    open: Mutex<HashMap<ComponentKey, Arc<dyn StateStore>>>,
}

type ComponentKey = (String, Vec<(String, String)>);

/// A component that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct ComponentError {
    /// The resource's file.
    pub file: String,
    /// The line it begins at.
    pub line: usize,
    /// What is wrong, and what to do.
    pub reason: String,
}

// === impl Components ===

impl Components {
    /// Takes the resources; opens nothing yet. `data_dir` is where the embedded providers keep their files.
    pub fn new(resources: Resources, data_dir: &Path) -> Components {
        Components {
            components: resources.components,
            data_dir: data_dir.to_owned(),
            namespace: "default".to_owned(),
            open: Mutex::new(HashMap::new()),
        }
    }

    /// The state stores that this app may see, by name. A component that cannot be opened is an error,
    /// unless it says `ignoreErrors`.
    pub fn state(&self, app_id: &str) -> Result<HashMap<String, StateBinding>, ComponentError> {
        let mut stores = HashMap::new();
        for component in
            self.components.iter().filter(|component| component.component_type.starts_with("state."))
        {
            if !component.is_in_scope(app_id) {
                continue;
            }
            match self.bind(component, app_id) {
                Ok(binding) => {
                    stores.insert(component.name.clone(), binding);
                }
                Err(error) if component.ignore_errors => tracing::warn!("ignored as told: {error}"),
                Err(error) => return Err(error),
            }
        }
        let named = self.components.iter().any(|component| component.name == DEFAULT_STATE_STORE);
        if !named {
            let store = self
                .store((DEFAULT_STATE_STORE.to_owned(), Vec::new()), || Ok(embedded_state(&self.data_dir)));
            if let Ok(store) = store {
                let key_prefix = format!("{app_id}||").into();
                let binding = StateBinding { store, key_prefix, component_type: "state.sqlite".into() };
                stores.insert(DEFAULT_STATE_STORE.to_owned(), binding);
            }
        }
        Ok(stores)
    }

    /// Components of types that this version has no provider for; an operator should hear of them.
    pub fn unsupported(&self) -> impl Iterator<Item = &Component> {
        self.components.iter().filter(|component| !component.component_type.starts_with("state."))
    }

    /// Closes every store that was opened; what was accepted is finished first.
    pub async fn close(&self) {
        let stores: Vec<_> = self.open.lock().drain().map(|(_, store)| store).collect();
        for store in stores {
            store.close().await;
        }
    }

    fn bind(&self, component: &Component, app_id: &str) -> Result<StateBinding, ComponentError> {
        let failed = |reason: String| ComponentError {
            file: component.file.display().to_string(),
            line: component.line,
            reason,
        };
        let expanded = component.expand(app_id, &self.namespace);
        let metadata = metadata(&expanded).map_err(failed)?;
        let prefix = key_prefix(&metadata, &component.name, &self.namespace, app_id).map_err(failed)?;
        let spec = ComponentSpec {
            name: component.name.clone(),
            component_type: component.component_type.clone(),
            version: component.version.clone(),
            metadata: metadata.clone(),
        };
        let store = self.store((component.name.clone(), metadata), || open_state(&spec, &self.data_dir));
        let store = store.map_err(|error| failed(error.to_string()))?;
        Ok(StateBinding {
            store,
            key_prefix: prefix.into(),
            component_type: component.component_type.as_str().into(),
        })
    }

    fn store(
        &self,
        key: ComponentKey,
        open: impl FnOnce() -> Result<Arc<dyn StateStore>, OpenError>,
    ) -> Result<Arc<dyn StateStore>, OpenError> {
        let mut stores = self.open.lock();
        if let Some(store) = stores.get(&key) {
            return Ok(Arc::clone(store));
        }
        let store = open()?;
        stores.insert(key, Arc::clone(&store));
        Ok(store)
    }
}

/// Values of a component's metadata, with references resolved.
fn metadata(component: &Component) -> Result<Vec<(String, String)>, String> {
    let values = component.metadata.iter().map(|item| {
        let value = match &item.value {
            MetadataValue::Plain(value) => value.clone(),
            MetadataValue::EnvRef(name) => std::env::var(name).unwrap_or_default(),
            MetadataValue::SecretRef { name, .. } => {
                return Err(format!(
                    "metadata field {:?} refers to secret {name:?}; secret stores are not part of this version: \
                     use envRef or a plain value",
                    item.name
                ));
            }
        };
        Ok((item.name.clone(), value))
    });
    values.collect()
}

/// What stands before each key, by Dapr's `keyPrefix` strategies.
fn key_prefix(
    metadata: &[(String, String)],
    component: &str,
    namespace: &str,
    app_id: &str,
) -> Result<String, String> {
    let strategy = metadata.iter().find(|(name, _)| name.eq_ignore_ascii_case("keyPrefix"));
    Ok(match strategy.map(|(_, value)| value.trim()) {
        None | Some("" | "appid") => format!("{app_id}||"),
        Some("name") => format!("{component}||"),
        Some("namespace") => format!("{namespace}.{app_id}||"),
        Some("none") => String::new(),
        Some(literal) if literal.contains("||") => {
            return Err(format!("keyPrefix {literal:?} must not contain ||"));
        }
        Some(literal) => format!("{literal}||"),
    })
}
