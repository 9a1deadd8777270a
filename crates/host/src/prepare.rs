//! From a manifest entry and its module to an app that can run: compile, link once to see that it fits.

use crate::app::{Admission, App, Kind, Wasm};
use crate::audit::{Auditor, Signer};
use crate::background;
use crate::binding::{self, BindError, Binding};
use crate::components::ComponentError;
use crate::filters::Filters;
use crate::fleet::UPLOAD;
use crate::host::Host;
use crate::module::{Module, ModuleError};
use crate::outcomes::Outcomes;
use crate::service::Service;
use crate::trust::{Admitted, Applicant, NotTrusted, Permit};
use dhow_artifacts::Source;
use dhow_artifacts::access::Access;
use dhow_blocks::grants::{Ask, Grants};
use dhow_blocks::invoke::Channel;
use dhow_blocks::scope::{Providers, Scope};
use dhow_engine::limits::MAX_TABLE_ELEMENTS;
use dhow_engine::{Limits, Program};
use dhow_guest::{Bounds, CapabilityBinding, Directory, Guest, Names, Setup};
use dhow_resources::manifest::{AppConfig, CapabilityConfig, LimitsConfig, ModuleSource};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// What an app is to be; comes from a manifest or a command line.
#[derive(Clone, Debug, PartialEq)]
pub struct AppSpec {
    /// Identity.
    pub app_id: String,
    /// Where its module is.
    pub source: Source,
    /// The host's own copy of the module, if it has one.
    pub stored: Option<PathBuf>,
    /// Path prefixes; without any the app is reached by invocation only.
    pub routes: Vec<String>,
    /// Host names; without any, every name.
    pub hosts: Vec<String>,
    /// Arguments behind the program's name.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Values of `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// Folders.
    pub dirs: Vec<Directory>,
    /// Invocations that an instance may serve; none: as the ABI has it.
    pub reuse: Option<u32>,
    /// A path that answers with a status below 400 when the app is well.
    pub health: Option<String>,
    /// Components that the app has, or has not, beside what its manifest grants.
    pub bindings: Vec<Binding>,
    /// Apps that requests pass on their way to it, in this order; all speak proxy-wasm.
    pub filters: Vec<String>,
    /// Where capabilities of a waPC module lead to.
    pub capabilities: Vec<CapabilityBinding>,
    /// What is allowed.
    pub grants: Grants,
    /// How much.
    pub bounds: Bounds,
    /// How many at once.
    pub admission: Admission,
}

/// Why an app cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The module cannot be had, or cannot be run.
    #[error("app {app_id:?}: {error}")]
    Module {
        /// The app.
        app_id: String,
        /// Why.
        #[source]
        error: ModuleError,
    },
    /// A folder for the guest is not there.
    #[error("app {app_id:?}: folder {folder} cannot be given to the guest: {reason}")]
    Directory {
        /// The app.
        app_id: String,
        /// The folder.
        folder: String,
        /// What the system said.
        reason: String,
    },
    /// The module is not signed as it should be, or a policy does not allow it.
    #[error("app {app_id:?}: {file}: {error}")]
    NotTrusted {
        /// The app.
        app_id: String,
        /// Its file or URL.
        file: String,
        /// Which part of it.
        #[source]
        error: Box<NotTrusted>,
    },
    /// A component for the app is broken.
    #[error(transparent)]
    Component(#[from] ComponentError),
    /// A component that the app was bound to is not there for it.
    #[error(transparent)]
    Binding(#[from] BindError),
}

/// What a version has of the one in whose place it is to run.
#[derive(Clone, Default)]
pub(crate) struct Succession {
    /// The module has to be signed by this one; none: by anybody, or not at all.
    pub(crate) signer: Option<Signer>,
    /// It is the same version, made anew: how its invocations ended is counted on.
    pub(crate) outcomes: Option<Arc<Outcomes>>,
    /// If its module is not trusted, the app stands in its place all the same, and answers nothing.
    pub(crate) stands_refused: bool,
}

/// Default admission: as much as one machine sensibly runs, and a queue that a short burst fits in.
pub const DEFAULT_ADMISSION: Admission = Admission { running: 128, queued: 1024 };

// === impl AppSpec ===

impl AppSpec {
    /// Where its module came from, for people.
    pub(crate) fn origin(&self) -> String {
        match &self.source {
            Source::Stdin => UPLOAD.to_owned(),
            source => source.to_string(),
        }
    }

    /// An app with defaults everywhere and no grants.
    pub fn new(app_id: impl Into<String>, source: Source) -> AppSpec {
        AppSpec {
            app_id: app_id.into(),
            source,
            stored: None,
            routes: Vec::new(),
            hosts: Vec::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            config: BTreeMap::new(),
            dirs: Vec::new(),
            reuse: None,
            health: None,
            bindings: Vec::new(),
            filters: Vec::new(),
            capabilities: Vec::new(),
            grants: Grants::default(),
            bounds: Bounds::default(),
            admission: DEFAULT_ADMISSION,
        }
    }

    /// An app as its manifest describes it.
    pub fn from_manifest(app_id: &str, app: &AppConfig, limits: &LimitsConfig) -> AppSpec {
        let source = match &app.module {
            ModuleSource::Path(path) => Source::Path(path.clone()),
            ModuleSource::Url(url) => Source::Url(url.clone()),
            ModuleSource::Oci { reference, cosign_key } => Source::oci(reference)
                .with_access(&Access { cosign_key: cosign_key.clone(), ..Access::default() }),
        };
        let directory = |dir: &dhow_resources::manifest::DirConfig| Directory {
            host: dir.host.clone(),
            guest: dir.guest.clone(),
            writable: dir.write,
        };
        let binding = |binding: &CapabilityConfig| CapabilityBinding {
            capability: binding.capability.clone(),
            name: binding.name.clone(),
            component: binding.component.clone(),
            values: binding.values.clone(),
        };
        AppSpec {
            routes: app.routes.clone(),
            hosts: app.hosts.clone(),
            args: app.args.clone(),
            env: app.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            config: app.config.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            dirs: app.dirs.iter().map(directory).collect(),
            reuse: app.reuse,
            health: app.health.clone(),
            filters: app.filters.iter().map(|filter| filter.app_id.clone()).collect(),
            capabilities: app.bindings.iter().map(binding).collect(),
            grants: app.grants.clone(),
            bounds: bounds(limits),
            admission: admission(limits),
            ..AppSpec::new(app_id, source)
        }
    }
}

fn bounds(limits: &LimitsConfig) -> Bounds {
    let default = Bounds::default();
    let size = |value: Option<u32>, default: usize| value.map_or(default, |value| value as usize);
    Bounds {
        engine: Limits {
            memory: limits
                .memory
                .map_or(default.engine.memory, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            table_elements: size(limits.tables, default.engine.table_elements).min(MAX_TABLE_ELEMENTS),
            instances: size(limits.instances, default.engine.instances),
        },
        deadline: limits.timeout.unwrap_or(default.deadline),
        program: limits.timeout.unwrap_or(default.program),
        request_body: limits.request_body.unwrap_or(default.request_body),
        response_body: limits.response_body.unwrap_or(default.response_body),
        host_calls: size(limits.host_calls, default.host_calls),
        handles: size(limits.handles, default.handles),
    }
}

fn admission(limits: &LimitsConfig) -> Admission {
    Admission {
        running: limits.concurrency.map_or(DEFAULT_ADMISSION.running, |count| count as usize),
        queued: limits.queue.map_or(DEFAULT_ADMISSION.queued, |count| count as usize),
    }
}

/// A program outside takes as many requests at once as it likes, within what a process can hold.
const UNLIMITED: usize = 100_000;

/// A program outside has this long for the head of an answer.
const NATIVE_DEADLINE: Duration = Duration::from_secs(3600);

impl Host {
    /// Makes an app out of its description and its module: compiles it unless the cache has it, and links it
    /// once, so that what is wrong with it is known now and not at the first request. The app is not registered
    /// yet. A module that makes several apps is compiled once, for this host.
    pub async fn prepare(
        self: &Arc<Self>,
        spec: AppSpec,
        module: Result<Arc<Module>, ModuleError>,
        version: u64,
    ) -> Result<Arc<App>, PrepareError> {
        self.prepare_after(spec, module, version, Succession::default()).await
    }

    /// The same, for a version that takes the place of another one.
    pub(crate) async fn prepare_after(
        self: &Arc<Self>,
        spec: AppSpec,
        module: Result<Arc<Module>, ModuleError>,
        version: u64,
        succession: Succession,
    ) -> Result<Arc<App>, PrepareError> {
        for dir in &spec.dirs {
            let failed = |reason: String| PrepareError::Directory {
                app_id: spec.app_id.clone(),
                folder: dir.host.display().to_string(),
                reason,
            };
            let meta = std::fs::metadata(&dir.host).map_err(|error| failed(error.to_string()))?;
            if !meta.is_dir() {
                return Err(failed("it is not a folder".to_owned()));
            }
        }
        let mut spec = spec;
        let mut components = self.components().of_app(&spec.app_id, self.metrics()).await?;
        binding::apply(&mut spec, &mut components)?;
        let (app_id, file) = (spec.app_id.clone(), spec.source.to_string());
        let module = module.map_err(|error| PrepareError::Module { app_id: app_id.clone(), error })?;
        let applicant = Applicant {
            app_id: &app_id,
            module: &module,
            source: file.clone(),
            grants: &spec.grants,
            is_update: version > 1,
            signer: succession.signer.as_ref(),
        };
        let trust = self.shared().trust.load_full();
        let outcomes = succession.outcomes.unwrap_or_default();
        let admitted = match trust.admit(applicant, self.metrics()).await {
            Ok(admitted) => admitted,
            Err(error) if succession.stands_refused => {
                tracing::error!(
                    app_id,
                    "{file}: {error}; it answers nothing until it is signed anew and reloaded"
                );
                let refused = Admitted::refused(&module, &error, trust);
                let program = Arc::clone(&module.program);
                return Ok(self.assemble(spec, components, program, (version, refused, outcomes)));
            }
            Err(error) => {
                let error = Box::new(error);
                return Err(PrepareError::NotTrusted { app_id, file, error });
            }
        };
        let host = Arc::clone(self);
        let prepared =
            background::run(move || host.compile(spec, components, &module, (version, admitted, outcomes)));
        let broken = |reason| unusable(app_id.clone(), file.clone(), reason);
        let (app, guest) = prepared.await.unwrap_or_else(|panicked| Err(broken(panicked.to_string())))?;
        if let (Some(guest), Some(wasm)) = (guest, app.module()) {
            let id = guest.layotto_id().await.map_err(|failure| broken(failure.to_string()))?;
            if let Some(id) = id {
                let _ = wasm.layotto_id.set(id);
            }
        }
        Ok(app)
    }

    fn compile(
        self: &Arc<Self>,
        spec: AppSpec,
        components: Providers,
        module: &Module,
        version: (u64, Admitted, Arc<Outcomes>),
    ) -> Result<(Arc<App>, Option<Arc<Guest>>), PrepareError> {
        let (app_id, file) = (spec.app_id.clone(), spec.source.to_string());
        let shared = self.shared();
        let broken = |reason| unusable(app_id.clone(), file.clone(), reason);
        let image = shared.image(module).map_err(broken)?;
        let app = self.assemble(spec, components, Arc::clone(&module.program), version);
        let Kind::Wasm(wasm) = &app.kind else { return Ok((app, None)) };
        let guest = Arc::new(wasm.link(&shared, &image).map_err(broken)?);
        if shared.cache.is_none() || self.keeps_loaded() {
            wasm.guest.store(Some(Arc::clone(&guest)));
        }
        Ok((app, Some(guest)))
    }

    fn assemble(
        self: &Arc<Self>,
        spec: AppSpec,
        components: Providers,
        program: Arc<Program>,
        (version, admitted, outcomes): (u64, Admitted, Arc<Outcomes>),
    ) -> Arc<App> {
        let app_id: Arc<str> = spec.app_id.as_str().into();
        let mut args = vec![spec.app_id.clone()];
        args.extend(spec.args);
        let api = self.runtime_api();
        let mut env: Vec<(String, String)> = Vec::with_capacity(spec.env.len() + 2);
        for (name, value) in [("APP_ID", spec.app_id.as_str()), ("DAPR_HTTP_PORT", "3500")] {
            if !spec.env.contains_key(name) {
                env.push((name.to_owned(), value.to_owned()));
            }
        }
        env.extend(spec.env);
        let shared = self.shared();
        // An app shares with others only where its configuration says so.
        let vm_id = spec.config.get("vm_id").cloned().unwrap_or_else(|| spec.app_id.clone());
        let auditor = Arc::new(Auditor::new(self.metrics().clone(), admitted.signer));
        let scope = Arc::new(Scope {
            app_id: Arc::clone(&app_id),
            namespace: self.components().namespace().into(),
            components,
            grants: match admitted.claimed {
                Some(claimed) => spec.grants.limited_by(claimed),
                None => spec.grants,
            },
            audit: Arc::clone(&auditor) as _,
            config: spec.config,
            invoker: self.invoker(&app_id),
            updates: self.updates(),
            policies: self.components().resiliency().of_app(&spec.app_id),
        });
        let setup = Setup {
            scope: Arc::clone(&scope),
            args,
            runtime_authorities: runtime_authorities(&env),
            env,
            dirs: spec.dirs.into_iter().filter(|dir| scope.check(Ask::Files(&dir.guest)).is_ok()).collect(),
            bounds: spec.bounds,
            reuse: spec.reuse,
            output: self.output(),
            meters: self.metrics().guests(&app_id),
            vm: shared.vms.vm(&vm_id),
            bindings: spec.capabilities,
            runtime_api: api,
            names: Names::default(),
            client: self.client(),
        };
        let deadline = spec.bounds.deadline;
        let wasm = Wasm::new(spec.source, spec.stored, program, Arc::new(setup));
        let is_service = wasm.program.inspection.abi.is_command() && !scope.grants.listen.is_empty();
        Arc::new(App {
            metrics: self.metrics().app(&app_id),
            app_id,
            version,
            kind: Kind::Wasm(wasm),
            routes: spec.routes,
            hosts: spec.hosts,
            admission: spec.admission,
            service: is_service.then(|| Service::new(self.metrics().service(&spec.app_id))),
            scope,
            permit: admitted.permit,
            auditor,
            filters: Filters::new(spec.filters),
            outcomes,
            health: spec.health,
            deadline,
            shared,
            turns: Semaphore::new(spec.admission.running.min(Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
            born: Instant::now(),
        })
    }

    /// Makes an app out of a program that runs outside. It may use everything that the resources show it, as
    /// it would with a sidecar; `running` is how many requests it takes at once.
    pub async fn prepare_native(
        self: &Arc<Self>,
        app_id: &str,
        channel: Arc<dyn Channel>,
        running: Option<usize>,
    ) -> Result<Arc<App>, ComponentError> {
        let app_id: Arc<str> = app_id.into();
        let scope = self.outside_scope(&app_id).await?;
        let running = running.unwrap_or(UNLIMITED).clamp(1, UNLIMITED);
        Ok(Arc::new(App {
            metrics: self.metrics().app(&app_id),
            app_id,
            version: 1,
            kind: Kind::Native(channel),
            routes: Vec::new(),
            hosts: Vec::new(),
            admission: Admission { running, queued: UNLIMITED },
            service: None,
            scope,
            permit: Permit::unlimited(),
            auditor: Arc::new(Auditor::new(self.metrics().clone(), None)),
            filters: Filters::default(),
            outcomes: Arc::default(),
            health: None,
            deadline: NATIVE_DEADLINE,
            shared: self.shared(),
            turns: Semaphore::new(running),
            waiting: AtomicUsize::new(0),
            last_used: AtomicU64::new(0),
            born: Instant::now(),
        }))
    }

    /// What a program outside may use under this app-id: everything that the resources show it.
    pub async fn outside_scope(self: &Arc<Self>, app_id: &str) -> Result<Arc<Scope>, ComponentError> {
        let app_id: Arc<str> = app_id.into();
        Ok(Arc::new(Scope {
            namespace: self.components().namespace().into(),
            grants: Grants::everything(),
            audit: Arc::new(Auditor::new(self.metrics().clone(), None)),
            components: self.components().of_app(&app_id, self.metrics()).await?,
            config: BTreeMap::new(),
            invoker: self.invoker(&app_id),
            updates: self.updates(),
            policies: self.components().resiliency().of_app(&app_id),
            app_id,
        }))
    }
}

fn unusable(app_id: String, file: String, reason: String) -> PrepareError {
    PrepareError::Module { app_id, error: ModuleError::Unusable { file, reason } }
}

/// Under which authorities a guest knows the Dapr API: the usual ones, and those that its environment names.
fn runtime_authorities(env: &[(String, String)]) -> Vec<String> {
    let value = |name: &str| env.iter().find(|(found, _)| found == name).map(|(_, value)| value.trim());
    let mut authorities: Vec<String> =
        ["localhost", "127.0.0.1", "[::1]"].iter().map(|host| format!("{host}:3500")).collect();
    let port = value("DAPR_HTTP_PORT").filter(|port| !port.is_empty() && *port != "3500");
    if let Some(port) = port.and_then(|port| told("DAPR_HTTP_PORT", port.parse::<u16>().ok())) {
        authorities.extend(["localhost", "127.0.0.1", "[::1]"].iter().map(|host| format!("{host}:{port}")));
    }
    let endpoint = value("DAPR_HTTP_ENDPOINT").filter(|endpoint| !endpoint.is_empty()).and_then(|endpoint| {
        let uri = endpoint.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some());
        told("DAPR_HTTP_ENDPOINT", uri)
    });
    if let Some((uri, host)) = endpoint.as_ref().and_then(|uri| Some((uri, uri.host()?))) {
        authorities.push(match uri.scheme_str() {
            Some("https") => format!("https://{host}:{}", uri.port_u16().unwrap_or(443)),
            _ => format!("{host}:{}", uri.port_u16().unwrap_or(80)),
        });
    }
    authorities
}

/// Says that a variable is of no use if there is nothing to be made of it.
fn told<T>(variable: &str, value: Option<T>) -> Option<T> {
    if value.is_none() {
        tracing::warn!("{variable} of an app's environment is no address of an API; it is ignored");
    }
    value
}
