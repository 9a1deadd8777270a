//! waPC: modules that are called by operation, and call their host by capability and operation.
//!
//! Waxosuit made the first of these ABIs in 2019, waSCC and wasmCloud used the later ones; waPC is the one that stayed.
//! All of them are served at once, over the same blocks.
//!
//! | file | subject |
//! |---|---|
//! | `current` | waPC: the host call with binding, namespace and operation |
//! | `second` | Wascap of September 2019, and the first waPC: the host call with one name |
//! | `first` | Wascap of June 2019: commands and events through the module's allocator |
//! | `functions` | the host functions that `current` and `second` have in common |
//! | `dialect` | which of them a module speaks |
//! | `instance` | one running module |
//! | `state` | what host functions find and change |
//! | `format`, `payloads` | MessagePack and protobuf, and the messages in them |
//! | `operations` | which capability an operation is of |
//! | `bindings` | which component a capability leads to |
//! | `keyvalue`, `messaging`, `http`, `blobs`, `streams`, `extras` | the capabilities |
//!
//! Instances are kept and used again, for that is the contract: a module is started once and called many times. An
//! instance serves one call at a time; one that failed in any other way than by saying so is thrown away.

mod bindings;
mod blobs;
mod current;
mod dialect;
mod extras;
mod first;
mod format;
mod functions;
mod http;
mod instance;
mod keyvalue;
mod messaging;
mod operations;
mod payloads;
mod second;
mod state;
mod streams;

pub(crate) use state::WapcState;

use crate::counted::whole;
use crate::events::{self, message};
use crate::failure::Failure;
use crate::run::Run;
use crate::setup::{Level, Setup, Stream};
use crate::store::Origin;
use ::http::header::{CONTENT_TYPE, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, Response, StatusCode};
use bindings::Bindings;
use blobs::{Download, MAX_DOWNLOADS, Uploads, Wanted};
use bytes::Bytes;
use dhow_blocks::invoke::{Body, Invocation, Reply, Trigger};
use dhow_engine::{Engine, Inspection};
use dialect::{Dialect, WAPC, WASCAP};
use instance::Instance;
use message::Message;
use operations::OfAnotherApp;
use parking_lot::Mutex;
use payloads::{HealthRequest, StreamRequest};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use wasmtime::{Caller, ExternType, InstancePre, Linker, Module, ValType, bail};

/// An instance is let go after this long without work.
const IDLE: Duration = Duration::from_secs(10);

/// Idle instances that are kept.
const MAX_IDLE: usize = 64;

/// The system interface, and the name that it had in 2019.
const WASI: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// The name under which modules import what their compiler needs.
const ENV: &str = "env";

/// Where the host asks whether an app is well, which for a module is an operation of its own.
const HEALTH: &str = "/healthz";

/// Configuration: operations that may be asked for by HTTP, as `POST /OPERATION`, separated by commas.
const OPERATIONS: &str = "operations";

/// An app that is called by operation.
pub(crate) struct Wapc {
    pre: InstancePre<WapcState>,
    room: Arc<Room>,
    engine: Engine,
    /// Instances that may serve; the last one is the warmest.
    idle: Mutex<Vec<Instance>>,
}

/// What all instances of an app have in common.
pub(crate) struct Room {
    setup: Arc<Setup>,
    dialect: Dialect,
    bindings: Bindings,
    uploads: Uploads,
    downloads: Arc<Semaphore>,
    /// The next number of `RequestSequence`.
    sequence: AtomicU64,
    /// Operations that are asked for by HTTP.
    open_operations: Vec<String>,
}

/// Whether a module of these ABIs gets this import.
pub(crate) fn is_provided(module: &str, function: &str) -> bool {
    match module {
        WAPC | WASCAP => {
            functions::FUNCTIONS.contains(&function) || ["__host_call", "__throw"].contains(&function)
        }
        ENV => function == "abort",
        module if WASI.contains(&module) => {
            !function.starts_with("sock_") || crate::linker::PREVIEW1_SOCKETS.contains(&function)
        }
        _ => false,
    }
}

pub(crate) fn add_to_linker(linker: &mut Linker<WapcState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_async(linker, |state: &mut WapcState| &mut state.wasi)?;
    let [current, older] = WASI;
    linker.alias_module(current, older)?;
    for module in [WAPC, WASCAP] {
        functions::add_to_linker(linker, module)?;
        first::add_throw(linker, module)?;
    }
    current::add_to_linker(linker, WAPC)?;
    second::add_to_linker(linker, WASCAP)?;
    // What AssemblyScript calls before it traps.
    linker.func_wrap(
        ENV,
        "abort",
        |_: Caller<'_, WapcState>, _: u32, _: u32, line: u32, column: u32| -> wasmtime::Result<()> {
            bail!("abort at {line}:{column}")
        },
    )?;
    Ok(())
}

/// Links a module: its host call has as many parameters as it says.
pub(crate) fn pre(linker: &Linker<WapcState>, module: &Module) -> wasmtime::Result<InstancePre<WapcState>> {
    let host_call = module.imports().find(|import| import.name() == "__host_call");
    let Some(import) = host_call else { return linker.instantiate_pre(module) };
    let parameters = import.ty().func().map_or(0, |ty| ty.params().len());
    let add = match (import.module(), parameters) {
        (WAPC, second::PARAMETERS) => second::add_to_linker,
        (WASCAP, current::PARAMETERS) => current::add_to_linker,
        (WAPC | WASCAP, first::PARAMETERS) => first::add_to_linker,
        _ => return linker.instantiate_pre(module),
    };
    let mut own = linker.clone();
    own.allow_shadowing(true);
    add(&mut own, import.module())?;
    own.instantiate_pre(module)
}

fn check_guest_call(module: &Module) -> wasmtime::Result<()> {
    let is_i32 = |ty: ValType| matches!(ty, ValType::I32);
    match module.get_export("__guest_call") {
        Some(ExternType::Func(ty))
            if ty.params().len() == 2
                && ty.results().len() == 1
                && ty.params().chain(ty.results()).all(is_i32) =>
        {
            Ok(())
        }
        _ => bail!("its export __guest_call is no function of two i32 that returns one"),
    }
}

// === impl Wapc ===

impl Wapc {
    pub(crate) fn new(
        engine: &Engine,
        pre: InstancePre<WapcState>,
        inspection: &Inspection,
        setup: Arc<Setup>,
    ) -> wasmtime::Result<Wapc> {
        check_guest_call(pre.module())?;
        let open = setup.scope.config.get(OPERATIONS).map_or("", String::as_str).split(',').map(str::trim);
        let room = Room {
            dialect: Dialect::of(pre.module(), inspection),
            bindings: Bindings::new(setup.bindings.clone()),
            uploads: Uploads::default(),
            downloads: Arc::new(Semaphore::new(MAX_DOWNLOADS)),
            sequence: AtomicU64::new(0),
            open_operations: open.filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            setup,
        };
        Ok(Wapc { pre, room: Arc::new(room), engine: engine.clone(), idle: Mutex::new(Vec::new()) })
    }

    /// Delivers one request, message or operation.
    pub(crate) async fn invoke(self: &Arc<Self>, invocation: Invocation) -> Result<Reply, Failure> {
        match (invocation.trigger, invocation.request.method(), invocation.request.uri().path()) {
            (Trigger::Host, &Method::GET, "/dapr/subscribe") => {
                return Ok(events::reply(StatusCode::OK, &messaging::subscriptions(&self.room)));
            }
            (Trigger::Host, &Method::GET, HEALTH) => {}
            (Trigger::Host, &Method::GET | &Method::HEAD, _) => return Ok(events::unhandled()),
            _ => {}
        }
        let execution = Box::pin(Arc::clone(self).serve(invocation));
        Run::new(execution, self.room.setup.bounds.deadline).await
    }

    pub(crate) fn sweep(&self) {
        let gone: Vec<Instance> = {
            let mut idle = self.idle.lock();
            idle.extract_if(.., |instance| instance.idle_since.elapsed() > IDLE).collect()
        };
        drop(gone);
    }

    async fn serve(self: Arc<Self>, invocation: Invocation) -> Result<Reply, Failure> {
        let Invocation { request, trigger, trace, depth } = invocation;
        let (head, body) = request.into_parts();
        let origin = Origin { trace, depth };
        let body = whole(&head.headers, body, self.room.setup.bounds.request_body).await?;
        if trigger == Trigger::Topic {
            return self.messages(origin, &head, &body).await;
        }
        if let Some(operation) = self.operation(&head, trigger) {
            return Ok(match self.call(origin, &operation, body).await? {
                Ok(answer) => {
                    let mut reply = Response::new(Body::from(answer));
                    let kind = HeaderValue::from_static("application/octet-stream");
                    reply.headers_mut().insert(CONTENT_TYPE, kind);
                    reply
                }
                // Plain, for errors go through one module after the other, and quotes would grow on the way.
                Err(reason) => {
                    let mut reply = Response::new(Body::from(reason));
                    *reply.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
                    reply.headers_mut().insert(CONTENT_TYPE, kind);
                    reply
                }
            });
        }
        let dialect = self.room.dialect;
        if trigger == Trigger::Host && head.uri.path() == HEALTH {
            let payload =
                dialect.format.write(&HealthRequest { placeholder: true }).map_err(Failure::Host)?;
            return Ok(match self.call(origin, dialect.health_request, payload.into()).await? {
                Ok(_) => Response::default(),
                Err(reason) => events::reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": reason })),
            });
        }
        let payload = http::request(dialect.format, &head, &body).map_err(Failure::Host)?;
        match self.call(origin, dialect.handle_request, payload).await? {
            Ok(answer) => http::reply(dialect.format, &answer),
            Err(reason) => Err(Failure::ErrorAnswer(reason)),
        }
    }

    /// The operation that is asked for by its name: by another module, or by HTTP where the configuration allows it.
    fn operation(&self, head: &Parts, trigger: Trigger) -> Option<String> {
        if trigger == Trigger::App
            && let Some(OfAnotherApp(operation)) = head.extensions.get()
        {
            return Some(operation.clone());
        }
        let named = head.uri.path().strip_prefix('/')?;
        let is_open =
            head.method == Method::POST && self.room.open_operations.iter().any(|open| open == named);
        is_open.then(|| named.to_owned())
    }

    /// Delivers a message, or several of one request.
    async fn messages(
        self: &Arc<Self>,
        origin: Origin,
        head: &Parts,
        body: &Bytes,
    ) -> Result<Reply, Failure> {
        let of = head.extensions.get().cloned().unwrap_or_default();
        let bad = |reason: String| Ok(events::reply(StatusCode::BAD_REQUEST, &json!({ "error": reason })));
        match message::bulk(head, &of, body) {
            Err(reason) => bad(reason),
            Ok(Some(messages)) => {
                let mut statuses = Vec::with_capacity(messages.len());
                for (id, message) in messages {
                    let status = if self.message(origin, message).await? { "SUCCESS" } else { "RETRY" };
                    statuses.push(json!({ "entryId": id, "status": status }));
                }
                Ok(events::reply(StatusCode::OK, &json!({ "statuses": statuses })))
            }
            Ok(None) => match message::single(head, &of, body) {
                Err(reason) => bad(reason),
                Ok(message) => match self.message(origin, message).await? {
                    true => Ok(Response::default()),
                    false => Ok(events::failed()),
                },
            },
        }
    }

    /// Delivers one message; whether the module took it.
    async fn message(self: &Arc<Self>, origin: Origin, message: Message) -> Result<bool, Failure> {
        let (dialect, topic) = (self.room.dialect, message.topic.clone());
        let payload = messaging::payload(dialect.format, message).map_err(Failure::Host)?;
        let taken = self.call(origin, dialect.deliver_message, payload.into()).await?;
        if let Err(reason) = &taken {
            self.room.log(&format!("message of {topic}: {reason}"));
        }
        Ok(taken.is_ok())
    }

    /// Calls an operation in an instance that serves nobody else. The inner error is the module's own.
    async fn call(
        self: &Arc<Self>,
        origin: Origin,
        operation: &str,
        payload: Bytes,
    ) -> Result<Result<Bytes, String>, Failure> {
        let idle = self.idle.lock().pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => Instance::start(&self.pre, &self.room, origin).await?,
        };
        let answer = instance.call(origin, operation, payload).await?;
        let downloads = std::mem::take(&mut instance.store.data_mut().downloads);
        self.keep(instance);
        for wanted in downloads {
            self.in_the_background(origin, wanted);
        }
        Ok(answer)
    }

    fn keep(&self, mut instance: Instance) {
        if !instance.may_go_on(self.room.setup.reuse) {
            return;
        }
        instance.idle_since = Instant::now();
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(instance);
        }
    }

    /// Gives the module the object that it asked for, chunk by chunk, each under the app's deadline.
    fn in_the_background(self: &Arc<Self>, origin: Origin, wanted: Wanted) {
        let this = Arc::clone(self);
        // What a chunk begins is one deeper, so that a module cannot go on for ever.
        let origin = Origin { depth: origin.depth.saturating_add(1), ..origin };
        tokio::spawn(async move {
            let _running = this.engine.running();
            let Wanted { component, request, permit } = wanted;
            let object = request.id.clone();
            if let Err(reason) = this.download(origin, &component, request).await {
                this.room.log(&format!("download of {object}: {reason}"));
            }
            drop(permit);
        });
    }

    async fn download(
        self: &Arc<Self>,
        origin: Origin,
        component: &str,
        request: StreamRequest,
    ) -> Result<(), String> {
        let deadline = self.room.setup.bounds.deadline;
        let late = |_| Failure::Deadline(deadline).to_string();
        let mut download = tokio::time::timeout(deadline, Download::begin(&self.room, component, request))
            .await
            .map_err(late)??;
        while let Some(chunk) = tokio::time::timeout(deadline, download.next()).await.map_err(late)?? {
            let payload = self.room.dialect.format.write(&chunk)?;
            // The future of a call holds this one's type when the call may begin downloads again.
            let call: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(self.call(origin, "ReceiveChunk", payload.into()));
            let called = tokio::time::timeout(deadline, call).await.map_err(late)?;
            called.map_err(|failure: Failure| failure.to_string())??;
        }
        Ok(())
    }
}

// === impl Room ===

impl Room {
    /// What a module says of a failure is for the app's log where nobody else waits for it.
    fn log(&self, line: &str) {
        self.setup.output.line(&self.setup.scope.app_id, Stream::Log(Level::Warn), line);
    }
}
