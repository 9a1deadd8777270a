//! From resources to open providers: which components an app sees, and how.
//!
//! A component is opened once, when the first app that sees it is prepared, and shared by all apps for which
//! it looks the same once its templates (`{appID}` and the like) are filled in. Secret stores come first,
//! because the metadata of others may refer to them.

mod view;

use crate::metrics::Metrics;
use crate::resiliency::Resiliency;
use crate::sandboxed::{self, Options, Sandbox};
use arc_swap::ArcSwap;
use dhow_blocks::binding::Binding;
use dhow_blocks::events::Metadata;
use dhow_blocks::grants::Ask;
use dhow_blocks::jobs::Jobs;
use dhow_blocks::scope::{Bound, ComponentInfo, Providers, SecretAccess};
use dhow_providers::registry::{self, ComponentSpec, OpenContext, OpenError, Opened};
use dhow_resources::component::{Component, MetadataItem, MetadataValue};
use dhow_resources::configuration::Configuration;
use dhow_resources::configuration::access::Action;
use dhow_resources::http_endpoint::HttpEndpoint;
use dhow_resources::load::Resources;
use dhow_resources::subscription::Subscription;
use futures::future::join_all;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use view::View;

/// A component that does not say otherwise has this long to open (Dapr's default).
const INIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The components of a host.
pub struct Components {
    /// As they are declared now; replaced whole.
    declared: ArcSwap<Vec<Component>>,
    data_dir: PathBuf,
    namespace: String,
    resiliency: Arc<Resiliency>,
    subscriptions: Vec<Subscription>,
    http_endpoints: Vec<HttpEndpoint>,
    secret_scopes: HashMap<String, SecretAccess>,
    configuration: Configuration,
    /// What every app has without any resource, as far as no component takes the name.
    embedded: Vec<(ComponentInfo, Opened)>,
    /// Runs the components that are modules.
    sandbox: Sandbox,
    jobs: Option<Arc<dyn Jobs>>,
    /// What is open, by the component as it looks once its templates are filled in.
    open: Mutex<HashMap<ComponentKey, Arc<OnceCell<Opened>>>>,
    failures: Mutex<BTreeMap<String, String>>,
}

/// Name, type and metadata: blocks have names of their own, so one name may stand for several components.
type ComponentKey = (String, String, Vec<(String, String)>);

/// Open components that are on their way out.
#[derive(Default)]
pub(crate) struct Aside(HashMap<ComponentKey, Arc<OnceCell<Opened>>>);

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

/// Why a component did not open, and which of its metadata fields it is about.
struct Unopened {
    text: String,
    field: Option<String>,
}

/// An input binding that an app may get events of.
#[derive(Clone)]
pub struct Input {
    /// The binding.
    pub bound: Bound<dyn Binding>,
    /// The path that events go to: metadata `route`, else the component's name.
    pub route: String,
}

// === impl Components ===

impl Components {
    /// Takes the resources; opens nothing yet. `data_dir` is where the embedded providers keep their files.
    pub fn new(resources: Resources, data_dir: &Path) -> Components {
        let resiliency = Arc::new(Resiliency::new(&resources));
        let configuration = resources.configurations.into_iter().next().unwrap_or_default();
        let scopes = configuration.secret_scopes.iter().map(|scope| {
            let access = SecretAccess {
                deny_by_default: scope.default_access == Action::Deny,
                allowed: scope.allowed.clone(),
                denied: scope.denied.clone(),
            };
            (scope.store.clone(), access)
        });
        Components {
            secret_scopes: scopes.collect(),
            configuration,
            declared: ArcSwap::from_pointee(resources.components),
            data_dir: data_dir.to_owned(),
            namespace: std::env::var("NAMESPACE").unwrap_or_else(|_| "default".to_owned()),
            resiliency,
            subscriptions: resources.subscriptions,
            http_endpoints: resources.http_endpoints,
            embedded: registry::embedded(data_dir),
            sandbox: Sandbox::default(),
            jobs: registry::embedded_jobs(data_dir),
            open: Mutex::new(HashMap::new()),
            failures: Mutex::new(BTreeMap::new()),
        }
    }

    /// The components that this app may see. One that cannot be opened is an error, unless it says
    /// `ignoreErrors`; then it is left out and [`Components::failures`] tells why.
    pub async fn of_app(&self, app_id: &str, metrics: &Metrics) -> Result<Providers, ComponentError> {
        let mut providers = Providers { jobs: self.jobs.clone(), ..Providers::default() };
        let mut outboxes = Vec::new();
        let declared = self.declared();
        let seen = declared.iter();
        let seen = seen.filter(|component| is_served(component) && component.is_in_scope(app_id));
        let opened = join_all(seen.map(|component| async move {
            let opened = self.open(component, app_id).await;
            (component, opened)
        }));
        for (component, opened) in opened.await {
            match opened {
                Ok((metadata, opened)) => {
                    self.failures.lock().remove(&component.name);
                    metrics.component_opened(app_id, &component.component_type, &component.name, true);
                    let view = View { components: self, app_id, metrics, metadata: &metadata };
                    let info = info(component, &opened);
                    let added = view.add(&mut providers, info, opened);
                    added.map_err(|reason| failed(component, reason.into()))?;
                    if let Some(topic) = view.field("outboxPublishTopic") {
                        outboxes.push((component, topic.to_owned(), metadata));
                    }
                }
                Err(reason) => {
                    self.failures.lock().insert(component.name.clone(), reason.text.clone());
                    metrics.component_opened(app_id, &component.component_type, &component.name, false);
                    let error = failed(component, reason);
                    if !component.ignore_errors {
                        return Err(error);
                    }
                    tracing::warn!("ignored as told: {error}");
                }
            }
        }
        for (info, opened) in &self.embedded {
            if declared.iter().any(|component| component.name == info.name) {
                continue;
            }
            let view = View { components: self, app_id, metrics, metadata: &[] };
            let added = view.add(&mut providers, info.clone(), opened.clone());
            debug_assert!(added.is_ok(), "{added:?}");
        }
        for (component, topic, metadata) in outboxes {
            let view = View { components: self, app_id, metrics, metadata: &metadata };
            view.add_outbox(&mut providers, &component.name, topic)
                .map_err(|reason| failed(component, reason.into()))?;
        }
        Ok(providers)
    }

    /// The configuration of the host; without one, all defaults.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The namespace of the host and its apps.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The resiliency of the host.
    pub fn resiliency(&self) -> &Arc<Resiliency> {
        &self.resiliency
    }

    /// The subscriptions that resources declare.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// The input bindings that this app may get events of, out of what it sees.
    pub fn inputs(&self, providers: &Providers) -> Vec<Input> {
        let declared = self.declared();
        let inputs = providers.bindings.values().filter(|bound| bound.provider.is_input());
        let inputs = inputs.filter_map(|bound| {
            let named = |found: &&Component| {
                found.name == bound.component.name && found.component_type.starts_with("bindings.")
            };
            let component = declared.iter().find(named)?;
            let plain = |name: &str| match component.metadata_value(name) {
                Some(MetadataValue::Plain(value)) => Some(value.trim()).filter(|value| !value.is_empty()),
                _ => None,
            };
            let direction = plain("direction").unwrap_or("input");
            let is_input = direction.split(',').any(|part| part.trim().eq_ignore_ascii_case("input"));
            let route = plain("route").unwrap_or(&component.name).trim_start_matches('/').to_owned();
            is_input.then(|| Input { bound: bound.clone(), route })
        });
        inputs.collect()
    }

    /// Components of blocks that this version does not have; an operator should hear of them.
    pub fn unsupported(&self) -> Vec<Component> {
        self.declared().iter().filter(|component| !is_served(component)).cloned().collect()
    }

    /// The components that resources declare.
    pub fn declared(&self) -> Arc<Vec<Component>> {
        self.declared.load_full()
    }

    /// Whether an app sees a component of this name, declared or embedded.
    pub(crate) fn sees(&self, app_id: &str, name: &str) -> bool {
        let declared = self.declared();
        match declared.iter().find(|component| component.name == name) {
            Some(component) => component.is_in_scope(app_id),
            None => self.embedded.iter().any(|(info, _)| info.name == name),
        }
    }

    /// Declares other components from now on. Apps have what they have; those that are prepared from here on see the new
    /// ones.
    pub(crate) fn declare(&self, components: Vec<Component>) {
        self.declared.store(Arc::new(components));
    }

    /// Forgets what is open of the components of these names, so that it is opened anew; the caller closes it.
    pub(crate) fn set_aside(&self, names: &BTreeSet<String>) -> Aside {
        Aside(self.open.lock().extract_if(|(name, ..), _| names.contains(name)).collect())
    }

    /// Takes that back.
    pub(crate) fn put_back(&self, aside: Aside) {
        self.open.lock().extend(aside.0);
    }

    /// Components that could not be opened, and why.
    pub fn failures(&self) -> BTreeMap<String, String> {
        self.failures.lock().clone()
    }

    /// Those of the components that this app would see.
    pub fn failures_of(&self, app_id: &str) -> BTreeMap<String, String> {
        let declared = self.declared();
        let mine = |name: &str| {
            declared.iter().any(|component| component.name == name && component.is_in_scope(app_id))
        };
        let failures = self.failures.lock();
        let mine = failures.iter().filter(|(name, _)| mine(name));
        mine.map(|(name, reason)| (name.clone(), reason.clone())).collect()
    }

    /// What runs components that are modules.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The host's jobs.
    pub fn jobs(&self) -> Option<&Arc<dyn Jobs>> {
        self.jobs.as_ref()
    }

    /// Closes everything that was opened; what was accepted is finished first.
    pub async fn close(&self) {
        let open: Vec<_> = self.open.lock().drain().map(|(_, opened)| opened).collect();
        join_all(open.iter().filter_map(|opened| opened.get()).map(Opened::close)).await;
        join_all(self.embedded.iter().map(|(_, opened)| opened.close())).await;
        if let Some(jobs) = &self.jobs {
            jobs.close().await;
        }
    }

    /// Opens a component to see whether it can be; templates are filled in for no app. One that says `ignoreErrors` is
    /// not tried.
    pub(crate) async fn try_open(&self, component: &Component) -> Result<(), ComponentError> {
        let for_apps = component
            .metadata
            .iter()
            .any(|item| matches!(&item.value, MetadataValue::Plain(value) if value.contains('{')));
        if component.ignore_errors || for_apps {
            return Ok(());
        }
        self.open(component, "").await.map(drop).map_err(|reason| failed(component, reason))
    }

    /// The component with its metadata as this app sees them, opened if it was not.
    async fn open(
        &self,
        component: &Component,
        app_id: &str,
    ) -> Result<(Vec<(String, String)>, Opened), Unopened> {
        let metadata = self.metadata(component, app_id).await?;
        let key = (component.name.clone(), component.component_type.clone(), metadata.clone());
        let cell = Arc::clone(self.open.lock().entry(key).or_default());
        let spec = ComponentSpec {
            name: component.name.clone(),
            component_type: component.component_type.clone(),
            version: component.version.clone(),
            metadata: metadata.clone(),
        };
        let context = OpenContext { data_dir: self.data_dir.clone() };
        let limit = component.init_timeout.filter(|limit| !limit.is_zero()).unwrap_or(INIT_TIMEOUT);
        let opened = cell.get_or_try_init(|| async {
            if sandboxed::is_module(&spec.component_type) {
                let opened = self.open_module(spec, limit).await;
                // Some reasons name it already.
                return opened.map_err(|reason| match reason.starts_with("component ") {
                    true => reason.into(),
                    false => format!("component {:?}: {reason}", component.name).into(),
                });
            }
            for unknown in registry::unknown_fields(&spec)? {
                let (file, line) = (component.file.display(), line_of(component, &unknown.field));
                tracing::warn!("{file}:{line}: {unknown}");
            }
            match tokio::time::timeout(limit, registry::open(spec, context)).await {
                Ok(opened) => opened.map_err(Unopened::from),
                Err(_) => Err(Unopened::from(format!(
                    "component {:?}: did not open within {limit:?}; is its backend running? (initTimeout)",
                    component.name
                ))),
            }
        });
        Ok((metadata, opened.await?.clone()))
    }

    /// A component that is a module, with the state stores that it is granted. They are no modules themselves, so that
    /// there is no circle.
    async fn open_module(&self, spec: ComponentSpec, limit: Duration) -> Result<Opened, String> {
        let options = Options::read(&spec)?;
        let (id, mut stores) = (sandboxed::id(&spec.name), Providers::default());
        let metrics = self.sandbox.metrics().ok_or("nothing here runs modules; a host opens it")?;
        let is_granted = |name: &str| options.grants.allows(Ask::State(name));
        let declared = self.declared();
        for component in declared.iter().filter(|component| is_granted(&component.name)) {
            let kind = &component.component_type;
            if kind.starts_with("state.") && !sandboxed::is_module(kind) && component.is_in_scope(&id) {
                let opened = Box::pin(self.open(component, &id)).await;
                let (metadata, opened) = opened.map_err(|unopened| unopened.text)?;
                let view = View { components: self, app_id: &id, metrics, metadata: &metadata };
                let info = info(component, &opened);
                view.add(&mut stores, info, opened)?;
            }
        }
        for (info, opened) in &self.embedded {
            let is_state = matches!(opened, Opened::State(_)) && is_granted(&info.name);
            if is_state && !declared.iter().any(|component| component.name == info.name) {
                let view = View { components: self, app_id: &id, metrics, metadata: &[] };
                view.add(&mut stores, info.clone(), opened.clone())?;
            }
        }
        self.sandbox.open(spec, options, stores, limit, &self.namespace).await
    }

    /// Values of a component's metadata, with templates filled in and references resolved.
    async fn metadata(&self, component: &Component, app_id: &str) -> Result<Vec<(String, String)>, String> {
        let expanded = component.expand(app_id, &self.namespace);
        let mut values = Vec::with_capacity(expanded.metadata.len());
        for item in expanded.metadata {
            let value = match item.value {
                MetadataValue::Plain(value) => value,
                MetadataValue::EnvRef(name) => std::env::var(name).unwrap_or_default(),
                MetadataValue::SecretRef { name, key } => {
                    let store = component.auth_secret_store.as_deref();
                    let secret = self.secret(&component.name, store, &name, &key, app_id).await;
                    secret.map_err(|reason| format!("metadata field {:?}: {reason}", item.name))?
                }
            };
            values.push((item.name, value));
        }
        Ok(values)
    }

    /// The services outside that resources name.
    pub fn http_endpoints(&self) -> &[HttpEndpoint] {
        &self.http_endpoints
    }

    /// The headers of such a service, with references resolved.
    pub async fn endpoint_headers(&self, endpoint: &HttpEndpoint) -> Result<Vec<(String, String)>, String> {
        self.resolve(&endpoint.name, endpoint.auth_secret_store.as_deref(), &endpoint.headers).await
    }

    /// Names and values that a resource lists, with references resolved. Errors show no value.
    pub async fn resolve(
        &self,
        resource: &str,
        secret_store: Option<&str>,
        items: &[MetadataItem],
    ) -> Result<Vec<(String, String)>, String> {
        let mut resolved = Vec::with_capacity(items.len());
        for item in items {
            let value = match &item.value {
                MetadataValue::Plain(value) => value.clone(),
                MetadataValue::EnvRef(name) => std::env::var(name).unwrap_or_default(),
                MetadataValue::SecretRef { name, key } => {
                    self.secret(resource, secret_store, name, key, "").await?
                }
            };
            resolved.push((item.name.clone(), value));
        }
        Ok(resolved)
    }

    /// The secret that a resource refers to. Errors name it and never show a value.
    async fn secret(
        &self,
        resource: &str,
        store: Option<&str>,
        name: &str,
        key: &str,
        app_id: &str,
    ) -> Result<String, String> {
        let store_name = match store {
            Some(name) => name,
            None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => "kubernetes",
            None => {
                return Err(format!("secret {name:?} has no store; add auth.secretStore to {resource:?}"));
            }
        };
        let named = |found: &&Component| found.name == store_name;
        let declared = self.declared();
        let opened = match declared.iter().find(named) {
            // A secret store whose own metadata refer to secrets would be a circle.
            Some(store) if store.name == resource => {
                return Err(format!("secret store {store_name:?} refers to itself"));
            }
            Some(store) if !store.component_type.starts_with("secretstores.") => {
                return Err(format!("component {store_name:?} is no secret store"));
            }
            Some(store) => {
                let refers = |item: &dhow_resources::component::MetadataItem| {
                    matches!(item.value, MetadataValue::SecretRef { .. })
                };
                if store.metadata.iter().any(refers) {
                    return Err(format!("secret store {store_name:?} may not refer to secrets itself"));
                }
                Box::pin(self.open(store, app_id)).await.map_err(|unopened| unopened.text)?.1
            }
            None => match self.embedded.iter().find(|(info, _)| info.name == store_name) {
                Some((_, opened)) => opened.clone(),
                None => return Err(format!("there is no secret store {store_name:?}")),
            },
        };
        let Opened::Secrets(store) = opened else {
            return Err(format!("component {store_name:?} is no secret store"));
        };
        let secret = tokio::time::timeout(INIT_TIMEOUT, store.get(name, &Metadata::new())).await;
        let secret = secret.map_err(|_| format!("secret store {store_name:?} did not answer"))?;
        let secret = secret.map_err(|error| format!("secret store {store_name:?}: {error}"))?;
        let key = if key.is_empty() { name } else { key };
        let value = secret.and_then(|mut secret| secret.0.remove(key));
        value.ok_or_else(|| format!("secret store {store_name:?} has no secret {name:?} with key {key:?}"))
    }
}

// === impl Aside ===

impl Aside {
    /// Closes them; what was accepted is finished first.
    pub(crate) async fn close(&self) {
        join_all(self.0.values().filter_map(|opened| opened.get()).map(Opened::close)).await;
    }
}

/// Whether the component is of a block that there is; which types it has is the registry's matter.
pub(crate) fn is_served(component: &Component) -> bool {
    let block = component.component_type.split('.').next().unwrap_or_default();
    let served = [
        "state",
        "pubsub",
        "bindings",
        "secretstores",
        "configuration",
        "lock",
        "sequencer",
        "blob",
        "file",
        "oss",
        "cryption",
        "email",
    ];
    served.contains(&block)
}

fn failed(component: &Component, unopened: Unopened) -> ComponentError {
    let line = unopened.field.map_or(component.line, |field| line_of(component, &field));
    ComponentError { file: component.file.display().to_string(), line, reason: unopened.text }
}

/// The line of a metadata field; of the component if the file has no such line.
fn line_of(component: &Component, field: &str) -> usize {
    let item = component.metadata.iter().find(|item| item.name.eq_ignore_ascii_case(field));
    item.map(|item| item.line).filter(|line| *line > 0).unwrap_or(component.line)
}

// === impl Unopened ===

impl From<String> for Unopened {
    fn from(text: String) -> Unopened {
        Unopened { text, field: None }
    }
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Unopened {
        let text = error.to_string();
        let field = match error {
            OpenError::InvalidMetadata { field, .. } => Some(field),
            _ => None,
        };
        Unopened { text, field }
    }
}

fn info(component: &Component, opened: &Opened) -> ComponentInfo {
    ComponentInfo {
        name: component.name.clone(),
        component_type: component.component_type.clone(),
        version: component.version.clone(),
        capabilities: opened.capabilities(),
    }
}
