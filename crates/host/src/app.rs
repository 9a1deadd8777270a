//! One app: admission, lazy loading, invoking.
//!
//! Registered means known; loaded means its code is mapped and its imports are linked. An app is loaded
//! by its first invocation and let go when it has been idle, so a thousand registered apps cost little.

use crate::audit::Auditor;
use crate::filters::Filters;
use crate::metrics::{AppMetrics, Metrics};
use crate::module::Module;
use crate::observed::Observed;
use crate::outcomes::Outcomes;
use crate::service::Service;
use crate::tracer::Tracer;
use crate::trust::{Permit, Trust};
use arc_swap::{ArcSwap, ArcSwapOption};
use dhow_artifacts::Source;
use dhow_blocks::invoke::{Channel, Invocation, InvokeError, Reply, Trigger};
use dhow_blocks::scope::Scope;
use dhow_blocks::trace::TraceContext;
use dhow_engine::{Cache, Engine, Image, Program};
use dhow_guest::{Failure, Guest, Invoked, Linkers, Ports, Setup, Stdio, Vms};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify, Semaphore, TryAcquireError};
use tokio::task::JoinHandle;

/// Everything that apps of a host share.
pub struct Shared {
    /// Compiles and runs.
    pub engine: Engine,
    /// Compiled code; without it every load compiles.
    pub cache: Option<Cache>,
    /// Held while compiling: one compilation uses all cores, and a module that several apps share is
    /// compiled once.
    pub compiling: parking_lot::Mutex<()>,
    /// Imports, resolved once.
    pub linkers: Linkers,
    /// What proxy-wasm guests share.
    pub vms: Vms,
    /// Which traces are recorded.
    pub tracer: Arc<Tracer>,
    /// Which modules run.
    pub trust: ArcSwap<Trust>,
    /// Numbers for Prometheus.
    pub metrics: Metrics,
    /// Invocations under way in all apps; shutting down waits for them.
    pub under_way: UnderWay,
}

/// Counts invocations until there are none.
#[derive(Debug, Default)]
pub struct UnderWay {
    count: AtomicUsize,
    none: Notify,
}

/// How many invocations an app takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// At the same time.
    pub running: usize,
    /// Waiting for their turn; more are refused.
    pub queued: usize,
}

/// One version of an app. A new version is a new `App`; invocations keep theirs to the end.
pub struct App {
    /// Identity.
    pub app_id: Arc<str>,
    /// Counts the versions of this app in this process, from 1.
    pub version: u64,
    /// What runs.
    pub kind: Kind,
    /// Path prefixes that lead here.
    pub routes: Vec<String>,
    /// Host names that lead here.
    pub hosts: Vec<String>,
    /// How many invocations at once.
    pub admission: Admission,
    /// Its life, if it is a program that listens.
    pub(crate) service: Option<Service>,
    pub(crate) scope: Arc<Scope>,
    /// Whether it may answer.
    pub(crate) permit: Permit,
    /// Hears of what it is denied.
    pub(crate) auditor: Arc<Auditor>,
    /// What requests pass on their way to it.
    pub(crate) filters: Filters,
    /// How its invocations ended; shared with the same version under other components.
    pub(crate) outcomes: Arc<Outcomes>,
    /// A path that answers with a status below 400 when the app is well.
    pub(crate) health: Option<String>,
    /// From the beginning of an invocation to its end; of a program outside, to the head of its answer.
    pub(crate) deadline: Duration,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: AppMetrics,
    pub(crate) turns: Semaphore,
    pub(crate) waiting: AtomicUsize,
    /// Seconds since `born` at the last invocation.
    pub(crate) last_used: AtomicU64,
    pub(crate) born: Instant,
}

/// What an app is made of.
pub enum Kind {
    /// A module that runs in this process.
    Wasm(Wasm),
    /// A program outside, which the host speaks with.
    Native(Arc<dyn Channel>),
}

/// A module and what it is when it runs.
pub struct Wasm {
    /// Where the module came from.
    pub source: Source,
    /// The host's own copy of it, which is read in its place.
    pub(crate) stored: Option<PathBuf>,
    /// What the module is.
    pub program: Arc<Program>,
    pub(crate) setup: Arc<Setup>,
    pub(crate) guest: ArcSwapOption<Guest>,
    pub(crate) loading: Mutex<()>,
    /// The id that a function made for Layotto tells; known once the app is prepared.
    pub(crate) layotto_id: OnceLock<String>,
    /// Instances that stay when they have no work, while the code is loaded.
    kept: AtomicUsize,
    /// Calls a guest that wants to be called by itself; ends with the app.
    tended: parking_lot::Mutex<Option<Tended>>,
}

/// A task that ends when it is dropped.
struct Tended(JoinHandle<()>);

/// Follows one invocation from admission to the last byte of its response.
pub(crate) struct Admitted {
    app: Arc<App>,
    trace: TraceContext,
    since: Instant,
}

// === impl App ===

impl App {
    /// Delivers one invocation. Waits for a turn, loads the app if need be, and answers with the head of the
    /// reply.
    pub async fn invoke(self: &Arc<Self>, mut invocation: Invocation) -> Result<Reply, InvokeError> {
        let observed = Observed::begin(self, &mut invocation);
        let is_own = invocation.trigger == Trigger::Host;
        let answer = self.admit(invocation).await;
        if !is_own {
            self.outcomes.count(&answer);
        }
        observed.answered(answer)
    }

    async fn admit(self: &Arc<Self>, invocation: Invocation) -> Result<Reply, InvokeError> {
        let since = Instant::now();
        let trace = invocation.trace;
        if let Err(refused) = self.permits(invocation.trigger) {
            // Its own module's fault: the token is over, or claims too little.
            if invocation.trigger != Trigger::Host {
                self.outcomes.refused();
            }
            return Err(refused);
        }
        if let Some((policies, request)) = self.asks_about(&invocation) {
            self.ask_policies(&policies, request).await?;
        }
        self.turn(self.deadline).await?;
        let admitted = Admitted::new(Arc::clone(self), trace, since);
        if self.filters.concern(invocation.trigger) {
            return self.invoke_filtered(invocation, admitted).await;
        }
        self.deliver(invocation, admitted).await
    }

    /// Hands an invocation to what the app is made of; filters are behind it.
    pub(crate) async fn deliver(
        &self,
        invocation: Invocation,
        admitted: Admitted,
    ) -> Result<Reply, InvokeError> {
        match &self.kind {
            Kind::Wasm(module) if let Some(service) = &self.service => {
                let limit = module.setup.bounds.request_body;
                self.outside(service.invoke(&self.app_id, invocation, limit), admitted).await
            }
            Kind::Wasm(module) => {
                let guest = self.guest(module).await?;
                self.metrics.invocations.inc();
                match guest.invoke(invocation, admitted).await {
                    Ok(reply) => Ok(reply),
                    Err(failure) => Err(self.error(failure)),
                }
            }
            Kind::Native(channel) => self.outside(channel.invoke(invocation), admitted).await,
        }
    }

    /// Waits for the answer of whoever listens on a port, at most until the deadline.
    async fn outside(
        &self,
        answer: impl Future<Output = Result<Reply, InvokeError>>,
        admitted: Admitted,
    ) -> Result<Reply, InvokeError> {
        self.metrics.invocations.inc();
        let answer = tokio::time::timeout(self.deadline, answer).await;
        let answer = answer.unwrap_or_else(|_| {
            let (app_id, seconds) = (self.app_id.to_string(), self.deadline.as_secs_f64());
            Err(match self.service.as_ref().and_then(Service::silence) {
                Some(reason) => InvokeError::Unreachable { app_id, reason },
                None => InvokeError::DeadlineExceeded { app_id, seconds },
            })
        });
        match answer {
            // The turn is given back with the last byte, as for a module.
            Ok(reply) => Ok(reply.map(|body| body.until_ended(admitted))),
            Err(error) => {
                self.metrics.failures.inc();
                self.outcomes.failed();
                let trace_id = format!("{:032x}", admitted.trace.trace_id);
                tracing::error!(app_id = &*self.app_id, trace_id, "invocation failed: {error}");
                Err(error)
            }
        }
    }

    /// Its view of the blocks.
    pub fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// Its module; none for a program outside.
    pub fn module(&self) -> Option<&Wasm> {
        match &self.kind {
            Kind::Wasm(module) => Some(module),
            Kind::Native(_) => None,
        }
    }

    /// The id under which it wants to be called, if it is a function made for Layotto.
    pub fn layotto_id(&self) -> Option<&str> {
        self.module()?.layotto_id.get().map(String::as_str)
    }

    /// Whether it is a program outside that speaks gRPC.
    pub(crate) fn speaks_grpc(&self) -> bool {
        matches!(&self.kind, Kind::Native(channel) if channel.is_grpc())
    }

    /// Runs a command with these arguments; `None` if the app is no command. `ports` shows where it listens.
    pub async fn run(
        self: &Arc<Self>,
        args: &[String],
        stdio: Stdio,
        ports: &Arc<Ports>,
    ) -> Option<Result<i32, InvokeError>> {
        let module = self.module()?;
        let guest = match self.guest(module).await {
            Ok(guest) => guest,
            Err(error) => return Some(Err(error)),
        };
        let deadline = module.setup.bounds.program;
        let code = guest.run(args, stdio, Arc::clone(ports), deadline).await?;
        Some(code.map_err(|failure| {
            self.log(&failure, TraceContext::new());
            self.error(failure)
        }))
    }

    /// Whether its code is in memory, or it runs outside.
    pub fn is_loaded(&self) -> bool {
        self.module().is_none_or(|module| module.guest.load().is_some())
    }

    /// Invocations under way.
    pub fn running(&self) -> usize {
        self.admission.running.saturating_sub(self.turns.available_permits())
    }

    /// So many instances of a proxy-wasm module stay when they have no work; the others go after seconds.
    pub(crate) fn keep(&self, instances: u32) {
        if let Some(module) = self.module() {
            module.kept.store(instances as usize, Ordering::Relaxed);
        }
    }

    /// Lets go of idle instances, and of the code when the app was not used for `idle`.
    pub(crate) fn sweep(self: &Arc<Self>, idle: Duration) {
        let Some(module) = self.module() else { return };
        if self.permit.is_over() {
            return self.rest();
        }
        // Its time may have been over, and been given back.
        self.tend();
        let Some(guest) = module.guest.load_full() else { return };
        guest.sweep(module.kept.load(Ordering::Relaxed));
        let unused = self.born.elapsed().as_secs().saturating_sub(self.last_used.load(Ordering::Relaxed));
        if unused > idle.as_secs() && self.running() == 0 {
            module.guest.store(None);
        }
    }

    /// Ends what an app that may not answer any more does by itself: its ports, its timers, its instances.
    pub(crate) fn rest(&self) {
        let Some(module) = self.module() else { return };
        // Whoever speaks to its ports passes nothing else that could refuse.
        if let Some(service) = &self.service {
            service.close();
        }
        drop(module.tended.lock().take());
        // What is under way has its own.
        module.guest.store(None);
    }

    /// Begins to call a guest that wants to be called by itself. It is not kept alive by that.
    pub(crate) fn tend(self: &Arc<Self>) {
        let Some(module) = self.module().filter(|_| self.is_filter() && !self.permit.is_over()) else {
            return;
        };
        module.tended.lock().get_or_insert_with(|| {
            let app = Arc::downgrade(self);
            Tended(tokio::spawn(async move {
                let Some(app) = app.upgrade() else { return };
                let Some(module) = app.module() else { return };
                let Ok(guest) = app.guest(module).await else { return };
                // The guest may be tended for ever, and the app be gone before.
                drop(app);
                guest.tend().await;
            }))
        });
    }

    /// The loaded guest; loads it if it is not.
    pub(crate) async fn guest(&self, module: &Wasm) -> Result<Arc<Guest>, InvokeError> {
        if let Some(guest) = module.guest.load_full() {
            return Ok(guest);
        }
        let _one_at_a_time = module.loading.lock().await;
        if let Some(guest) = module.guest.load_full() {
            return Ok(guest);
        }
        let guest = module.load(&self.shared).await.map_err(|reason| self.not_loadable(reason))?;
        let guest = Arc::new(guest);
        module.guest.store(Some(Arc::clone(&guest)));
        Ok(guest)
    }

    /// Waits for a turn; `Ok` means that one was taken.
    async fn turn(&self, deadline: Duration) -> Result<(), InvokeError> {
        match self.turns.try_acquire() {
            Ok(turn) => {
                turn.forget();
                return Ok(());
            }
            Err(TryAcquireError::Closed) => return Err(InvokeError::ShuttingDown),
            Err(TryAcquireError::NoPermits) => {}
        }
        let place = Place::take(self).ok_or_else(|| self.overloaded())?;
        match tokio::time::timeout(deadline, self.turns.acquire()).await {
            Ok(Ok(turn)) => {
                turn.forget();
                drop(place);
                Ok(())
            }
            Ok(Err(_)) => Err(InvokeError::ShuttingDown),
            Err(_) => Err(self.overloaded()),
        }
    }

    fn overloaded(&self) -> InvokeError {
        self.metrics.refused.inc();
        let Admission { running, queued } = self.admission;
        InvokeError::Overloaded { app_id: self.app_id.to_string(), running, queued }
    }

    pub(crate) fn not_loadable(&self, reason: String) -> InvokeError {
        tracing::error!(app_id = &*self.app_id, "cannot be loaded: {reason}");
        InvokeError::NotLoadable { app_id: self.app_id.to_string(), reason }
    }

    pub(crate) fn error(&self, failure: Failure) -> InvokeError {
        let app_id = self.app_id.to_string();
        match failure {
            Failure::Deadline(limit) => {
                InvokeError::DeadlineExceeded { app_id, seconds: limit.as_secs_f64() }
            }
            Failure::RequestTooLarge(limit) => InvokeError::RequestTooLarge { app_id, limit },
            Failure::NoRoom(_) => InvokeError::HostFull { app_id, reason: failure.to_string() },
            failure => InvokeError::GuestFailed { app_id, reason: failure.to_string() },
        }
    }

    fn log(&self, failure: &Failure, trace: TraceContext) {
        let backtrace = match failure {
            Failure::Trap { backtrace, .. } => backtrace.as_str(),
            _ => "",
        };
        tracing::error!(
            app_id = &*self.app_id,
            version = self.version,
            trace_id = format!("{:032x}", trace.trace_id),
            backtrace,
            "invocation failed: {failure}"
        );
    }
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Wasm ===

impl Wasm {
    pub(crate) fn new(
        source: Source,
        stored: Option<PathBuf>,
        program: Arc<Program>,
        setup: Arc<Setup>,
    ) -> Wasm {
        Wasm {
            source,
            stored,
            program,
            setup,
            guest: ArcSwapOption::empty(),
            loading: Mutex::new(()),
            layotto_id: OnceLock::new(),
            kept: AtomicUsize::new(0),
            tended: parking_lot::Mutex::default(),
        }
    }

    async fn load(&self, shared: &Arc<Shared>) -> Result<Guest, String> {
        if let Some(image) = shared.cached(&self.program)? {
            return self.link(shared, &image);
        }
        // The compiled code was evicted: compile again, if the module is still the same.
        let stored = self.stored.clone().map(Source::Path);
        let source = stored.as_ref().unwrap_or(&self.source);
        let module = Module::read(source).await.map_err(|error| error.to_string())?;
        if module.program.digest != self.program.digest {
            return Err(format!("{} changed since the app was registered; reload the host", self.source));
        }
        let compiler = Arc::clone(shared);
        let compiled = tokio::task::spawn_blocking(move || compiler.image(&module));
        let image = compiled.await.map_err(|error| error.to_string())??;
        self.link(shared, &image)
    }

    pub(crate) fn link(&self, shared: &Shared, image: &Image) -> Result<Guest, String> {
        let setup = Arc::clone(&self.setup);
        Guest::load(&shared.engine, &shared.linkers, image, &self.program.inspection, setup)
            .map_err(|error| error.to_string())
    }
}

// === impl Shared ===

impl Shared {
    fn cached(&self, program: &Program) -> Result<Option<Image>, String> {
        let Some(cache) = &self.cache else { return Ok(None) };
        Image::cached(&self.engine, cache, program).map_err(|error| format!("{error:#}"))
    }

    /// The module's code: as another app of the same module has it, out of the cache, or compiled, which
    /// blocks.
    pub(crate) fn image(&self, module: &Module) -> Result<Image, String> {
        if let Some(image) = module.image.get() {
            return Ok(image.clone());
        }
        let image = match self.cached(&module.program)? {
            Some(image) => image,
            None => self.compile(module)?,
        };
        Ok(module.image.get_or_init(|| image).clone())
    }

    fn compile(&self, module: &Module) -> Result<Image, String> {
        let _one_at_a_time = self.compiling.lock();
        if let Some(image) = self.cached(&module.program)? {
            return Ok(image);
        }
        Image::compile(&self.engine, self.cache.as_ref(), &module.program, &module.wasm)
            .map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("app_id", &self.app_id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a App);

impl<'a> Place<'a> {
    fn take(app: &'a App) -> Option<Place<'a>> {
        let taken = app.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < app.admission.queued).then_some(waiting + 1)
        });
        taken.ok().map(|_| Place(app))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Admitted ===

impl Admitted {
    fn new(app: Arc<App>, trace: TraceContext, since: Instant) -> Admitted {
        app.metrics.running.inc();
        app.shared.under_way.count.fetch_add(1, Ordering::SeqCst);
        Admitted { app, trace, since }
    }
}

impl Invoked for Admitted {
    fn failed(&mut self, failure: &Failure) {
        if let Failure::NoRoom(_) = failure {
            // Not this app's doing.
            self.app.metrics.refused.inc();
            tracing::warn!(app_id = &*self.app.app_id, "invocation refused: {failure}");
            return;
        }
        self.app.metrics.failures.inc();
        self.app.outcomes.failed();
        self.app.log(failure, self.trace);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let app = &self.app;
        app.turns.add_permits(1);
        app.metrics.running.dec();
        app.metrics.duration.observe(self.since.elapsed().as_secs_f64());
        app.last_used.store(app.born.elapsed().as_secs(), Ordering::Relaxed);
        app.shared.under_way.end();
        tracing::debug!(
            app_id = &*app.app_id,
            trace_id = format_args!("{:032x}", self.trace.trace_id),
            elapsed = ?self.since.elapsed(),
            "invocation ended"
        );
    }
}

// === impl UnderWay ===

impl UnderWay {
    fn end(&self) {
        if self.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.none.notify_waiters();
        }
    }

    /// Invocations now.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until nothing is under way.
    pub async fn ended(&self) {
        loop {
            let none = self.none.notified();
            if self.count() == 0 {
                return;
            }
            none.await;
        }
    }
}
