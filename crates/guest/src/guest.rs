//! A loaded app: which room it lives in, and the way in.

use crate::command::{Command, CommandKind};
use crate::events::{self, Events};
use crate::failure::{Failure, LoadError};
use crate::http2::Http2;
use crate::http3::Http3;
use crate::linker::{self, Linkers};
use crate::proxy::{self, Passed, Proxy};
use crate::run::InFlight;
use crate::setup::{Setup, Stdio};
use crate::sockets::Ports;
use crate::wapc::{self, Wapc};
use crate::{cgi, ending};
use dhow_blocks::invoke::{Invocation, Reply};
use dhow_engine::{Abi, Code, Engine, Image, Inspection};
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{ExternType, FuncType};

/// A program, linked and ready to be instantiated for each invocation. Cheap to clone.
#[derive(Clone)]
pub struct Guest {
    engine: Engine,
    room: Room,
    /// Handlers of events, whichever room takes the rest.
    events: Option<Arc<Events>>,
    setup: Arc<Setup>,
}

#[derive(Clone)]
enum Room {
    Http2(Arc<Http2>),
    Http3(Arc<Http3>),
    Command(Arc<Command>),
    Proxy(Arc<Proxy>),
    Wapc(Arc<Wapc>),
    /// Nothing but handlers of events.
    Events,
}

/// Whoever invoked a guest: hears of a failure, also of one after the head of the response was sent, and is
/// dropped when the guest has ended.
pub trait Invoked: Send + Unpin + 'static {
    /// The guest failed; at most once.
    fn failed(&mut self, failure: &Failure);
}

impl Guest {
    /// Links a program. `inspection` says which ABI the image speaks.
    pub fn load(
        engine: &Engine,
        linkers: &Linkers,
        image: &Image,
        inspection: &Inspection,
        setup: Arc<Setup>,
    ) -> Result<Guest, LoadError> {
        if let Some(error) = linker::unsupported(inspection).or_else(|| unfit(image, inspection.abi, &setup))
        {
            return Err(error);
        }
        let linked = || -> wasmtime::Result<(Room, Option<Events>)> {
            let setup = Arc::clone(&setup);
            Ok(match (&image.code, inspection.abi) {
                (Code::Component(component), abi) => {
                    let pre = linkers.component(engine, image.flavor)?.instantiate_pre(component)?;
                    let events = Events::find(pre.clone(), inspection, Arc::clone(&setup))?;
                    let room = match abi {
                        Abi::Http2 => Room::Http2(Arc::new(Http2::new(pre, setup)?)),
                        Abi::Http3 => Room::Http3(Arc::new(Http3::new(pre, setup)?)),
                        Abi::Cli3 => {
                            Room::Command(Arc::new(Command::new(CommandKind::component3(pre)?, setup)))
                        }
                        Abi::Events => Room::Events,
                        _ => Room::Command(Arc::new(Command::new(CommandKind::component2(pre)?, setup))),
                    };
                    (room, events)
                }
                (Code::Module(module), Abi::ProxyWasm) => {
                    let pre = proxy::pre(linkers.proxy(engine)?, module)?;
                    (Room::Proxy(Arc::new(Proxy::new(engine, pre, setup)?)), None)
                }
                (Code::Module(module), Abi::Wapc) => {
                    let pre = wapc::pre(linkers.wapc(engine)?, module)?;
                    (Room::Wapc(Arc::new(Wapc::new(engine, pre, inspection, setup)?)), None)
                }
                (Code::Module(module), _) => {
                    let kind = CommandKind::module(linkers.module(engine)?, module, &setup)?;
                    (Room::Command(Arc::new(Command::new(kind, setup))), None)
                }
            })
        };
        match linked() {
            Ok((room, events)) => {
                Ok(Guest { engine: engine.clone(), room, events: events.map(Arc::new), setup })
            }
            Err(error) => Err(linker::explain(inspection, &error)),
        }
    }

    /// Delivers one invocation; the answer is there when its head is.
    pub async fn invoke<W: Invoked>(&self, invocation: Invocation, watch: W) -> Result<Reply, Failure> {
        let mut flight = InFlight::new(watch, self.engine.running());
        let limit = self.setup.bounds.response_body;
        if let Some(events) = self.events.as_ref().filter(|events| events.take(&invocation)) {
            return ending::reply(events.invoke(invocation).await, flight, limit);
        }
        match &self.room {
            Room::Http2(room) => ending::reply(room.invoke(invocation, &mut flight).await, flight, limit),
            Room::Http3(room) => ending::reply(room.invoke(invocation).await, flight, limit),
            Room::Command(room) => ending::reply(cgi::invoke(room, invocation).await, flight, limit),
            Room::Proxy(room) => ending::reply(room.invoke(invocation).await, flight, limit),
            Room::Wapc(room) => ending::reply(room.invoke(invocation).await, flight, limit),
            Room::Events => Ok(events::unhandled()),
        }
    }

    /// Lets a request pass on its way to another app; `None` if this is no filter.
    pub async fn pass(&self, invocation: Invocation) -> Option<Result<Passed, Failure>> {
        match &self.room {
            Room::Proxy(room) => Some(room.pass(invocation).await),
            _ => None,
        }
    }

    /// Calls a guest that wants to be called by itself (ticks, queues of proxy-wasm), until it does not any more; for
    /// others ends at once.
    pub async fn tend(&self) {
        if let Room::Proxy(room) = &self.room {
            Arc::clone(room).tend().await;
        }
    }

    /// The id under which a function made for Layotto wants to be called: what its `proxy_get_id` tells. None if it is
    /// no such function. Runs the module's start and that export, once, under the app's deadline.
    pub async fn layotto_id(&self) -> Result<Option<String>, Failure> {
        match &self.room {
            Room::Proxy(room) => room.layotto_id().await,
            _ => Ok(None),
        }
    }

    /// Makes one instance and throws it away, within the app's deadline: what traps or hangs at its start is known then.
    /// Core modules with a start of their own are not begun, since that would run them.
    pub async fn probe(&self) -> Result<(), Failure> {
        let _running = self.engine.running();
        let deadline = self.setup.bounds.deadline;
        let begun = async {
            match &self.room {
                Room::Http2(room) => room.probe().await,
                Room::Http3(room) => room.probe().await,
                Room::Command(room) => room.probe().await,
                Room::Proxy(room) => room.probe().await,
                Room::Wapc(room) => room.probe().await,
                Room::Events => match &self.events {
                    Some(events) => events.probe().await,
                    None => Ok(()),
                },
            }
        };
        tokio::time::timeout(deadline, begun).await.map_err(|_| Failure::Deadline(deadline))?
    }

    /// Runs a command to its end, within `deadline`; `ports` shows where it listens. The answer is its exit code. `None`
    /// if the guest is no command.
    pub async fn run(
        &self,
        args: &[String],
        stdio: Stdio,
        ports: Arc<Ports>,
        deadline: Duration,
    ) -> Option<Result<i32, Failure>> {
        let Room::Command(room) = &self.room else { return None };
        let _running = self.engine.running();
        Some(room.run(args, stdio, ports, deadline).await)
    }

    /// Lets go of instances that are kept for reuse and have been idle; of a proxy-wasm module, `kept` stay.
    pub fn sweep(&self, kept: usize) {
        match &self.room {
            Room::Http2(room) => room.sweep(),
            Room::Proxy(room) => room.sweep(kept),
            Room::Wapc(room) => room.sweep(),
            _ => {}
        }
    }
}

/// Why a program cannot be run under these limits, or cannot be begun, if so.
fn unfit(image: &Image, abi: Abi, setup: &Setup) -> Option<LoadError> {
    let required = match &image.code {
        Code::Component(component) => component.resources_required(),
        Code::Module(module) => Some(module.resources_required()),
    };
    let pages = required.and_then(|required| required.max_initial_memory_size).unwrap_or(0);
    let begins = pages.saturating_mul(64 << 10);
    let most = setup.bounds.engine.memory as u64;
    if begins > most {
        return Some(LoadError::Abi(format!(
            "it begins with {begins} bytes of memory, and may have {most}; let it have more with --memory, or with memory \
             in dhow.toml"
        )));
    }
    let Code::Module(module) = &image.code else { return None };
    let start = module.get_export("_start").filter(|_| abi == Abi::Preview1);
    let takes = |start: &FuncType| start.params().len() > 0 || start.results().len() > 0;
    start.as_ref().and_then(ExternType::func).is_some_and(takes).then(|| {
        LoadError::Abi("its _start has parameters or results; that of a command has neither".to_owned())
    })
}
