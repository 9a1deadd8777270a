//! Components that are modules themselves: `state.wasm`, `secretstores.wasm`, `pubsub.wasm`.
//!
//! A module of somebody else, in the sandbox like an app, that serves a block. Before it runs it is looked at as the
//! module of an app is: its token has to hold, and what that does not claim, it does not get.
//!
//! | file | subject |
//! |---|---|
//! | `options` | what its metadata say to the host |
//! | `broker` | pulling messages |

mod broker;
mod options;

use crate::app::Shared;
use crate::audit::Auditor;
use crate::background;
use crate::metrics::Metrics;
use crate::module::Module;
use crate::trust::{Applicant, Permit, Runs, Trust};
use async_trait::async_trait;
use dhow_artifacts::access::Access;
use dhow_blocks::grants::{Ask, By, Denied};
use dhow_blocks::invoke::{Invocation, InvokeError, Invoker, Reply};
use dhow_blocks::scope::{Audit, Providers, Scope};
use dhow_guest::provider::{self, Place, Provider};
use dhow_guest::{HttpClient, Names, Output, Setup};
use dhow_providers::registry::{ComponentSpec, Opened};
pub(crate) use options::Options;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// The second half of their types.
const MODULE: &str = "wasm";

/// The blocks that they may serve, as types begin.
const BLOCKS: [&str; 3] = ["state", "secretstores", "pubsub"];

/// Opens components that are modules, and knows those that are open.
#[derive(Default)]
pub(crate) struct Sandbox {
    runtime: OnceLock<Runtime>,
    access: OnceLock<Access>,
    running: Mutex<Vec<Weak<Running>>>,
}

/// What runs modules.
pub(crate) struct Runtime {
    pub(crate) shared: Arc<Shared>,
    pub(crate) output: Arc<dyn Output>,
    pub(crate) client: Arc<HttpClient>,
}

/// A component that is open.
struct Running {
    /// See [`id`].
    id: String,
    permit: Permit,
    /// Its token's claims limit what it may do.
    is_limited: bool,
}

/// Whether a component of this type is a module.
pub(crate) fn is_module(component_type: &str) -> bool {
    component_type.split_once('.').is_some_and(|(block, kind)| {
        kind.eq_ignore_ascii_case(MODULE) && BLOCKS.iter().any(|known| known.eq_ignore_ascii_case(block))
    })
}

/// What a component is called in logs, metrics and policies, and before its keys: no app can be called so.
pub(crate) fn id(component: &str) -> String {
    format!("component/{component}")
}

// === impl Sandbox ===

impl Sandbox {
    /// Says what runs modules; once, before the first component is opened.
    pub(crate) fn run_in(&self, runtime: Runtime) {
        let _ = self.runtime.set(runtime);
    }

    /// Says how registries are spoken with; once.
    pub(crate) fn fetch_with(&self, access: Access) {
        let _ = self.access.set(access);
    }

    /// What counts what modules do; none before there is a host.
    pub(crate) fn metrics(&self) -> Option<&Metrics> {
        self.runtime.get().map(|runtime| &runtime.shared.metrics)
    }

    /// Fetches, verifies, compiles and starts the module; `components` are those that it may be granted. Only the start
    /// has to end within `limit`: a large module takes long to come and to compile.
    pub(crate) async fn open(
        &self,
        spec: ComponentSpec,
        options: Options,
        components: Providers,
        limit: Duration,
        namespace: &str,
    ) -> Result<Opened, String> {
        let Some(Runtime { shared, output, client }) = self.runtime.get() else {
            return Err("nothing here runs modules; it is opened by a host".to_owned());
        };
        if !matches!(spec.version.as_str(), "" | "v1") {
            return Err(format!("type {} has no version {:?}; use v1", spec.component_type, spec.version));
        }
        let source = options.source.clone().with_access(&self.access.get().cloned().unwrap_or_default());
        let module = Arc::new(Module::read(&source).await.map_err(|error| error.to_string())?);
        let id: Arc<str> = id(&spec.name).into();
        let applicant = Applicant {
            app_id: &id,
            module: &module,
            source: source.to_string(),
            grants: &options.grants,
            is_update: false,
            signer: None,
        };
        let admitted = shared.trust.load_full().admit(applicant, &shared.metrics).await;
        let admitted = admitted.map_err(|error| format!("{source}: {error}"))?;
        let compiler = (Arc::clone(shared), Arc::clone(&module));
        let image = background::run(move || compiler.0.image(&compiler.1)).await;
        let image = image.map_err(|error| error.to_string()).flatten();
        let image = image.map_err(|reason| format!("{source}: {reason}"))?;
        let denials = Arc::new(Denials {
            auditor: Auditor::new(shared.metrics.clone(), admitted.signer),
            last: Mutex::default(),
        });
        let is_limited = admitted.claimed.is_some();
        let scope = Scope {
            app_id: Arc::clone(&id),
            namespace: namespace.into(),
            grants: match admitted.claimed {
                Some(claimed) => options.grants.limited_by(claimed),
                None => options.grants,
            },
            audit: Arc::clone(&denials) as _,
            components,
            config: BTreeMap::new(),
            invoker: Arc::new(Nobody),
            updates: None,
            policies: None,
        };
        let setup = Setup {
            args: vec![spec.name.clone()],
            env: Vec::new(),
            dirs: options
                .dirs
                .into_iter()
                .filter(|dir| scope.check(Ask::Files(&dir.guest)).is_ok())
                .collect(),
            scope: Arc::new(scope),
            bounds: options.bounds,
            reuse: None,
            output: Arc::clone(output),
            meters: shared.metrics.guests(&id),
            vm: shared.vms.vm(&id),
            bindings: Vec::new(),
            runtime_api: None,
            runtime_authorities: Vec::new(),
            names: Names::default(),
            client: Arc::clone(client),
        };
        let running = Arc::new(Running { id: id.to_string(), permit: admitted.permit, is_limited });
        self.remember(&running);
        let provider = Provider {
            name: spec.name.clone(),
            metadata: options.metadata,
            concurrency: options.concurrency,
            permit: Box::new(move || match running.permit.is_over() {
                true => Err(running.permit.why_over()),
                false => Ok(()),
            }),
            setup: Arc::new(setup),
        };
        let place = Place {
            engine: &shared.engine,
            linkers: &shared.linkers,
            image: &image,
            inspection: &module.program.inspection,
        };
        let block = spec.component_type.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let opened = async {
            Ok(match block.as_str() {
                "state" => Opened::State(provider::state(place, provider).await?),
                "secretstores" => Opened::Secrets(provider::secrets(place, provider).await?),
                _ => Opened::PubSub(broker::open(provider::pubsub(place, provider).await?)),
            })
        };
        let opened = tokio::time::timeout(limit, opened).await;
        let opened = opened.unwrap_or_else(|_| {
            Err(format!("{source}: did not start within {limit:?}; is its backend running? (initTimeout)"))
        });
        // What it says of a failure rarely tells that it was denied something.
        opened.map_err(|reason| match denials.last.lock().take() {
            Some(denied) => format!("{reason} ({denied})"),
            None => reason,
        })
    }

    fn remember(&self, opened: &Arc<Running>) {
        let mut running = self.running.lock();
        running.retain(|known| known.strong_count() > 0);
        running.push(Arc::downgrade(opened));
    }

    /// Decides again about the modules that run. One that may not any more answers nothing; the answer says which, and
    /// why.
    pub(crate) async fn trust_in(&self, trust: &Arc<Trust>) -> Vec<String> {
        let Some(Runtime { shared, .. }) = self.runtime.get() else { return Vec::new() };
        let running: Vec<Arc<Running>> = self.running.lock().iter().filter_map(Weak::upgrade).collect();
        let mut refused = Vec::new();
        for component in running {
            let Running { id, permit, is_limited } = &*component;
            let runs = Runs { id, permit, has_module: true, is_limited: *is_limited };
            if let Some(error) = trust.renew(runs, &shared.metrics).await {
                refused.push(format!("{}: {error}", component.id));
            }
        }
        refused
    }
}

/// Hears of what a component was denied, and says what its metadata would have to grant.
struct Denials {
    auditor: Auditor,
    /// The last one, as text.
    last: Mutex<Option<String>>,
}

impl Audit for Denials {
    fn denied(&self, id: &str, denied: &Denied) {
        let Denied { kind, name, by } = denied;
        let message = match by {
            By::Token => denied.to_string(),
            By::Manifest => {
                format!("not granted: {kind} {name:?}; add it to grants.{kind} in the component's metadata")
            }
        };
        self.auditor.tell(id, by.as_str(), (kind, name), &message);
        *self.last.lock() = Some(message);
    }
}

/// A component invokes no apps.
struct Nobody;

#[async_trait]
impl Invoker for Nobody {
    async fn invoke(&self, app_id: &str, _: Invocation) -> Result<Reply, InvokeError> {
        Err(InvokeError::UnknownApp { app_id: app_id.to_owned() })
    }
}
