//! All apps of a process: register, replace, invoke, shut down.

use crate::access::Access;
use crate::app::{App, Shared, UnderWay};
use crate::components::{ComponentError, Components};
use crate::functions::group::Groups;
use crate::log::LogBook;
use crate::metrics::{InvocationMeter, Metrics};
use crate::routes::Routes;
use crate::sandboxed::Runtime;
use crate::service::{self, Service};
use crate::split::Split;
use crate::tracer::{Tracer, with_environment};
use crate::triggers::Triggers;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use dhow_blocks::invoke::{Caller, Invocation, InvokeError, Invoker, Reply, RuntimeApi, Trigger};
use dhow_blocks::scope::Scope;
use dhow_blocks::update::LiveUpdate;
use dhow_engine::{Cache, Engine};
use dhow_guest::{HttpClient, Linkers, Output, Vms};
use http::HeaderMap;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Code of an app that was not used for this long is let go.
const IDLE: Duration = Duration::from_secs(300);

/// What a host is made of.
pub struct HostOptions {
    /// Compiles and runs.
    pub engine: Engine,
    /// Compiled code.
    pub cache: Option<Cache>,
    /// Open or openable providers.
    pub components: Components,
    /// Keep the code of every app in memory from the start; for a host with one app.
    pub keep_loaded: bool,
}

/// All apps of a process.
pub struct Host {
    shared: Arc<Shared>,
    table: ArcSwap<Table>,
    components: Components,
    triggers: Triggers,
    metrics: Metrics,
    tracer: Arc<Tracer>,
    /// Who may call whom; none where the configuration has no rules.
    access: Option<Access>,
    logs: Arc<LogBook>,
    client: Arc<HttpClient>,
    runtime_api: OnceLock<Arc<dyn RuntimeApi>>,
    elsewhere: OnceLock<Arc<dyn Invoker>>,
    /// Who changes apps when one of them asks for it.
    updates: OnceLock<Weak<dyn LiveUpdate>>,
    /// What programs outside see, by their app-id; made anew when components change.
    outside: Mutex<BTreeMap<Arc<str>, Arc<OutsideScope>>>,
    keep_loaded: bool,
    ready: AtomicBool,
    stopping: AtomicBool,
    started: Instant,
    this: Weak<Host>,
}

/// What programs outside see, as it is now.
pub struct OutsideScope(ArcSwap<Scope>);

// === impl OutsideScope ===

impl OutsideScope {
    /// For one request.
    pub fn load(&self) -> Arc<Scope> {
        self.0.load_full()
    }
}

impl From<Arc<Scope>> for OutsideScope {
    fn from(scope: Arc<Scope>) -> OutsideScope {
        OutsideScope(ArcSwap::new(scope))
    }
}

/// One version of everything that can be invoked; replaced whole.
#[derive(Debug, Default)]
struct Table {
    apps: BTreeMap<Arc<str>, Arc<App>>,
    routes: Routes,
    groups: Groups,
    /// Newer versions that are tried, by app; almost always none.
    splits: BTreeMap<Arc<str>, Split>,
}

// === impl Table ===

impl Table {
    /// The version of the app that an invocation with these headers gets.
    fn version<'a>(&'a self, app: &'a Arc<App>, headers: &HeaderMap) -> &'a Arc<App> {
        if self.splits.is_empty() {
            return app;
        }
        match self.splits.get(&app.app_id) {
            Some(split) if split.takes(headers) => &split.candidate,
            _ => app,
        }
    }

    /// Every version of every app.
    fn versions(&self) -> impl Iterator<Item = &Arc<App>> {
        self.apps.values().chain(self.splits.values().map(|split| &split.candidate))
    }
}

// === impl Host ===

impl Host {
    /// A host without apps.
    pub fn new(options: HostOptions) -> Result<Arc<Host>, prometheus::Error> {
        let configuration = options.components.configuration();
        let metrics = Metrics::new(&configuration.metrics, options.components.namespace())?;
        options.components.resiliency().count_in(&metrics);
        let tracing = with_environment(configuration.tracing.clone(), |name| std::env::var(name).ok());
        let tracer = Arc::new(Tracer::new(tracing, metrics.clone()));
        let access = configuration.access_control.as_ref();
        let access = access.map(|control| Access::new(control, options.components.namespace()));
        let shared = Arc::new(Shared {
            tracer: Arc::clone(&tracer),
            trust: ArcSwap::default(),
            metrics: metrics.clone(),
            engine: options.engine,
            cache: options.cache,
            compiling: parking_lot::Mutex::new(()),
            linkers: Linkers::default(),
            vms: Vms::default(),
            under_way: UnderWay::default(),
        });
        let (logs, client) = (Arc::<LogBook>::default(), Arc::<HttpClient>::default());
        options.components.sandbox().run_in(Runtime {
            shared: Arc::clone(&shared),
            output: Arc::clone(&logs) as Arc<dyn Output>,
            client: Arc::clone(&client),
        });
        Ok(Arc::new_cyclic(|this| Host {
            shared,
            table: ArcSwap::default(),
            triggers: Triggers::new(options.components.subscriptions().to_vec()),
            components: options.components,
            metrics,
            tracer,
            access,
            logs,
            client,
            runtime_api: OnceLock::new(),
            elsewhere: OnceLock::new(),
            updates: OnceLock::new(),
            outside: Mutex::default(),
            keep_loaded: options.keep_loaded,
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            this: Weak::clone(this),
        }))
    }

    /// Says what answers at the guests' own Dapr endpoint; once, before the first app is prepared.
    pub fn serve_runtime_api(&self, api: Arc<dyn RuntimeApi>) {
        let _ = self.runtime_api.set(api);
    }

    /// Says who changes apps when one of them asks for it; once.
    pub(crate) fn serve_updates<U: LiveUpdate + 'static>(&self, updates: &Arc<U>) {
        let updates: Weak<U> = Arc::downgrade(updates);
        let _ = self.updates.set(updates);
    }

    /// What programs outside see under this app-id, also when components change.
    pub async fn shared_scope(self: &Arc<Self>, app_id: &str) -> Result<Arc<OutsideScope>, ComponentError> {
        let scope = self.outside_scope(app_id).await?;
        let shared = Arc::new(OutsideScope(ArcSwap::new(Arc::clone(&scope))));
        self.outside.lock().insert(Arc::clone(&scope.app_id), Arc::clone(&shared));
        Ok(shared)
    }

    /// Shows programs outside the components as they are declared now.
    pub(crate) async fn refresh_outside(self: &Arc<Self>) -> Result<(), ComponentError> {
        let known: Vec<Arc<OutsideScope>> = self.outside.lock().values().cloned().collect();
        for shared in known {
            let scope = self.outside_scope(&shared.load().app_id).await?;
            shared.0.store(scope);
        }
        Ok(())
    }

    /// Says who is asked for apps that are not here; once.
    pub fn look_elsewhere(&self, elsewhere: Arc<dyn Invoker>) {
        let _ = self.elsewhere.set(elsewhere);
    }

    /// Makes these the apps of the host, all at once. Invocations under way keep the version they began with.
    pub fn replace(&self, apps: Vec<Arc<App>>) {
        self.replace_grouped(apps, Groups::default());
    }

    /// The same, with ids that stand for several of the apps.
    pub(crate) fn replace_grouped(&self, apps: Vec<Arc<App>>, groups: Groups) {
        self.install(apps, groups, Vec::new());
    }

    /// The same, with newer versions of some of the apps that share their invocations.
    pub(crate) fn replace_split(&self, apps: Vec<Arc<App>>, splits: Vec<Split>) -> Option<JoinHandle<()>> {
        self.install(apps, Groups::default(), splits)
    }

    /// Swaps the table. What is answered ends when the new apps receive what they want.
    fn install(&self, apps: Vec<Arc<App>>, groups: Groups, splits: Vec<Split>) -> Option<JoinHandle<()>> {
        let mut table = Table { groups, ..Table::default() };
        table.splits.extend(splits.into_iter().map(|split| (Arc::clone(&split.candidate.app_id), split)));
        for app in apps {
            for prefix in &app.routes {
                if app.hosts.is_empty() {
                    table.routes.add(None, prefix, &app);
                }
                for host in &app.hosts {
                    table.routes.add(Some(host), prefix, &app);
                }
            }
            table.apps.insert(Arc::clone(&app.app_id), app);
        }
        for app in table.versions() {
            app.filters.resolve(&table.apps);
            app.tend();
        }
        let table = Arc::new(table);
        let old = self.table.swap(Arc::clone(&table));
        service::settle(old.versions(), table.versions());
        self.ready.store(true, Ordering::Release);
        self.this.upgrade().map(|host| {
            tokio::spawn(async move {
                host.triggers.settle(&host).await;
                // Programs outside are asked when they are up: `listen_for`. What was there before was asked before.
                let is_new =
                    |app: &Arc<App>| !old.apps.get(&app.app_id).is_some_and(|known| Arc::ptr_eq(known, app));
                let apps = host.apps().into_iter().filter(|app| app.module().is_some() && is_new(app));
                host.triggers.refresh(&host, apps.collect()).await;
            })
        })
    }

    /// Begins to receive what this app wants: its topics, the events of its bindings.
    pub async fn listen_for(self: &Arc<Self>, app: &Arc<App>) {
        self.triggers.refresh(self, vec![Arc::clone(app)]).await;
    }

    /// What starts invocations by itself.
    pub fn triggers(&self) -> &Triggers {
        &self.triggers
    }

    /// The app that answers a request from outside, in the version that these headers get.
    pub fn route(&self, host: Option<&str>, path: &str, headers: &HeaderMap) -> Option<Arc<App>> {
        let table = self.table.load();
        table.routes.find(host, path).map(|app| Arc::clone(table.version(app, headers)))
    }

    /// The app of that id, in the version that an invocation gets. The host's own questions are for the one that runs.
    fn version(&self, app_id: &str, invocation: &Invocation) -> Option<Arc<App>> {
        let table = self.table.load();
        if let Some(app) = table.groups.pick(app_id) {
            return Some(app);
        }
        let app = table.apps.get(app_id)?;
        Some(Arc::clone(match invocation.trigger {
            Trigger::Host => app,
            _ => table.version(app, invocation.request.headers()),
        }))
    }

    /// The app of that id; of several that share it, the one whose turn it is.
    pub fn app(&self, app_id: &str) -> Option<Arc<App>> {
        let table = self.table.load();
        table.groups.pick(app_id).or_else(|| table.apps.get(app_id).cloned())
    }

    /// The function of that id; of several that share it, the one whose turn it is.
    pub fn function(&self, id: &str) -> Option<Arc<App>> {
        self.table.load().groups.pick(id)
    }

    /// All apps, by id.
    pub fn apps(&self) -> Vec<Arc<App>> {
        self.table.load().apps.values().cloned().collect()
    }

    /// All apps, and the newer versions that are tried beside them.
    pub(crate) fn versions(&self) -> Vec<Arc<App>> {
        self.table.load().versions().cloned().collect()
    }

    /// The newer version that is tried beside an app.
    pub fn candidate(&self, app_id: &str) -> Option<Arc<App>> {
        self.table.load().splits.get(app_id).map(|split| Arc::clone(&split.candidate))
    }

    /// Lets go of what has not been used for a while; to be called every few seconds.
    pub fn sweep(&self) {
        for app in self.table.load().versions() {
            app.sweep(IDLE);
        }
    }

    /// Refuses new invocations and closes the ports of services, waits for what is under way at most `grace`, and
    /// closes the providers. The answer is how many invocations were cut off.
    pub async fn shut_down(&self, grace: Duration) -> usize {
        self.stopping.store(true, Ordering::SeqCst);
        let table = self.table.load_full();
        let apps: Vec<&Arc<App>> = table.versions().collect();
        let services: Vec<&Service> = apps.iter().filter_map(|app| app.service()).collect();
        for service in &services {
            service.close();
        }
        let _ = tokio::time::timeout(grace, self.triggers.stop()).await;
        let _ = tokio::time::timeout(grace, self.shared.under_way.ended()).await;
        let stopped = futures::future::join_all(services.iter().map(|service| service.stopped()));
        let _ = tokio::time::timeout(grace, stopped).await;
        let cut_off = self.shared.under_way.count();
        self.components.close().await;
        cut_off
    }

    /// Whether the host has its apps: false until [`Host::replace`] is called for the first time.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether the host is going down.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Invocations under way.
    pub fn under_way(&self) -> usize {
        self.shared.under_way.count()
    }

    /// How long the host has been up.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The components of the host.
    pub fn components(&self) -> &Components {
        &self.components
    }

    /// Numbers for Prometheus.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Which traces are recorded.
    pub fn tracer(&self) -> &Arc<Tracer> {
        &self.tracer
    }

    /// Invokes an app for another one, which it names: access control has its say. An app may always call itself.
    pub async fn invoke_for(
        &self,
        caller: &str,
        app_id: &str,
        mut invocation: Invocation,
    ) -> Result<Reply, InvokeError> {
        let Some(app) = self.version(app_id, &invocation) else {
            return self.deliver(None, app_id, invocation).await;
        };
        if let Some(calls) = &app.metrics.calls {
            calls.received(caller);
        }
        let allowed = match &self.access {
            Some(access) if caller != app_id => {
                let request = &invocation.request;
                let call = (request.method(), request.uri().path(), app.speaks_grpc());
                access.check(caller, app_id, call, &self.metrics)
            }
            _ => Ok(()),
        };
        if self.shared.trust.load().asks_of_invocations() {
            invocation.request.extensions_mut().insert(Caller(caller.into()));
        }
        let answer = match allowed {
            Ok(()) => self.deliver(Some(&app), app_id, invocation).await,
            Err(denied) => Err(denied),
        };
        if let Some(calls) = &app.metrics.calls {
            calls.replied(caller, status_of(&answer));
        }
        answer
    }

    /// Delivers one invocation to the app that was found, or to wherever it is.
    async fn deliver(
        &self,
        app: Option<&Arc<App>>,
        app_id: &str,
        invocation: Invocation,
    ) -> Result<Reply, InvokeError> {
        // An invocation that an app under way makes is part of that one, and finished with it.
        // So is an event that was taken from its broker already.
        let taken = matches!(invocation.trigger, Trigger::Topic | Trigger::Binding | Trigger::Job);
        if self.is_stopping() && invocation.depth == 0 && !taken {
            return Err(InvokeError::ShuttingDown);
        }
        match app {
            Some(app) => app.invoke(invocation).await,
            None => match self.elsewhere.get() {
                Some(elsewhere) => elsewhere.invoke(app_id, invocation).await,
                None => Err(InvokeError::UnknownApp { app_id: app_id.to_owned() }),
            },
        }
    }

    /// What guests printed.
    pub fn logs(&self) -> &Arc<LogBook> {
        &self.logs
    }

    /// What compiles and runs guests, and where compiled code is kept; for those who run modules that are no apps.
    pub fn engine(&self) -> (Engine, Option<Cache>) {
        (self.shared.engine.clone(), self.shared.cache.clone())
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn output(&self) -> Arc<dyn Output> {
        Arc::clone(&self.logs) as Arc<dyn Output>
    }

    pub(crate) fn client(&self) -> Arc<HttpClient> {
        Arc::clone(&self.client)
    }

    pub(crate) fn runtime_api(&self) -> Option<Arc<dyn RuntimeApi>> {
        self.runtime_api.get().cloned()
    }

    pub(crate) fn updates(&self) -> Option<Weak<dyn LiveUpdate>> {
        self.updates.get().cloned()
    }

    pub(crate) fn keeps_loaded(&self) -> bool {
        self.keep_loaded
    }

    /// The way of one app to the others.
    pub(crate) fn invoker(&self, app_id: &Arc<str>) -> Arc<dyn Invoker> {
        let calls = self.metrics.invocations(app_id);
        Arc::new(Neighbours { host: Weak::clone(&self.this), app_id: Arc::clone(app_id), calls })
    }
}

#[async_trait]
impl Invoker for Host {
    async fn invoke(&self, app_id: &str, invocation: Invocation) -> Result<Reply, InvokeError> {
        self.deliver(self.version(app_id, &invocation).as_ref(), app_id, invocation).await
    }
}

/// The other apps, as one app sees them; does not keep the host alive.
struct Neighbours {
    host: Weak<Host>,
    /// Who asks.
    app_id: Arc<str>,
    calls: Option<Arc<InvocationMeter>>,
}

#[async_trait]
impl Invoker for Neighbours {
    async fn invoke(&self, app_id: &str, invocation: Invocation) -> Result<Reply, InvokeError> {
        let Some(host) = self.host.upgrade() else { return Err(InvokeError::ShuttingDown) };
        let Some(calls) = &self.calls else { return host.invoke_for(&self.app_id, app_id, invocation).await };
        let began = Instant::now();
        let streaming = is_grpc(&invocation);
        calls.sent(app_id, streaming);
        let answer = host.invoke_for(&self.app_id, app_id, invocation).await;
        calls.answered(app_id, status_of(&answer), streaming, began.elapsed());
        answer
    }
}

/// Whether a call is one of gRPC, passed on frame by frame.
fn is_grpc(invocation: &Invocation) -> bool {
    let content_type = invocation.request.headers().get(http::header::CONTENT_TYPE);
    content_type.is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/grpc"))
}

/// The status that a call is counted with.
pub(crate) fn status_of(answer: &Result<Reply, InvokeError>) -> u16 {
    match answer {
        Ok(reply) => reply.status().as_u16(),
        Err(InvokeError::UnknownApp { .. }) => 404,
        Err(InvokeError::Denied { .. } | InvokeError::Forbidden { .. } | InvokeError::Refused { .. }) => 403,
        Err(InvokeError::RequestTooLarge { .. }) => 413,
        Err(InvokeError::Overloaded { .. }) => 429,
        Err(InvokeError::DeadlineExceeded { .. }) => 504,
        Err(InvokeError::Unreachable { .. }) => 502,
        Err(InvokeError::CircuitOpen { .. } | InvokeError::HostFull { .. } | InvokeError::ShuttingDown) => {
            503
        }
        Err(_) => 500,
    }
}
