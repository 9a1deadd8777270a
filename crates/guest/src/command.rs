//! Programs with a start and an end: `wasi:cli/run` of both versions, and WASI preview 1.

use crate::api::Api;
use crate::experimental_http::Responses;
use crate::failure::Failure;
use crate::memory::Remembers;
use crate::outbound::Outbound;
use crate::run::Run;
use crate::setup::{Setup, Stdio};
use crate::sockets::{self, Ports, Sockets};
use crate::store::{GuestState, Origin, command, interruptible, new_store, preview1};
use dhow_engine::Limiter;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::component::InstancePre;
use wasmtime::{Extern, ExternType, FuncType, Instance, Linker, Module, Store, bail};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, p2, p3};

/// Data of a core module's store.
pub(crate) struct ModuleState {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) api: Api,
    pub(crate) responses: Responses,
    pub(crate) sockets: Sockets,
    limiter: Limiter,
    memory: Option<wasmtime::Memory>,
}

/// An app that is a program.
pub(crate) struct Command {
    kind: CommandKind,
    pub(crate) setup: Arc<Setup>,
}

pub(crate) enum CommandKind {
    Component2(p2::bindings::CommandPre<GuestState>),
    Component3(p3::bindings::CommandPre<GuestState>),
    Module(wasmtime::InstancePre<ModuleState>),
    /// A module with imports that the linker has under other names, because they come in several forms.
    Forms(Forms),
}

/// A module, and where the linker has each of its imports.
pub(crate) struct Forms {
    module: Module,
    linker: Linker<ModuleState>,
    imports: Vec<(String, String)>,
}

impl CommandKind {
    pub(crate) fn component2(pre: InstancePre<GuestState>) -> wasmtime::Result<CommandKind> {
        Ok(CommandKind::Component2(p2::bindings::CommandPre::new(pre)?))
    }

    pub(crate) fn component3(pre: InstancePre<GuestState>) -> wasmtime::Result<CommandKind> {
        Ok(CommandKind::Component3(p3::bindings::CommandPre::new(pre)?))
    }

    pub(crate) fn module(
        linker: &Linker<ModuleState>,
        module: &Module,
        setup: &Arc<Setup>,
    ) -> wasmtime::Result<CommandKind> {
        let mut has_forms = false;
        let imports = module.imports().map(|import| {
            let parameters = import.ty().func().map_or(0, |ty| ty.params().len());
            let home = sockets::form_of(import.module(), import.name(), parameters);
            has_forms |= home != import.module();
            (home.to_owned(), import.name().to_owned())
        });
        let imports = imports.collect();
        if !has_forms {
            return Ok(CommandKind::Module(linker.instantiate_pre(module)?));
        }
        let forms = Forms { module: module.clone(), linker: linker.clone(), imports };
        forms.check(setup)?;
        Ok(CommandKind::Forms(forms))
    }

    fn engine(&self) -> &wasmtime::Engine {
        match self {
            CommandKind::Component2(pre) => pre.engine(),
            CommandKind::Component3(pre) => pre.engine(),
            CommandKind::Module(pre) => pre.module().engine(),
            CommandKind::Forms(forms) => forms.module.engine(),
        }
    }
}

// === impl ModuleState ===

impl ModuleState {
    fn new(setup: &Arc<Setup>, wasi: WasiP1Ctx, origin: Origin, ports: Arc<Ports>) -> ModuleState {
        ModuleState {
            wasi,
            api: Api::new(Arc::clone(setup), origin),
            responses: Responses::new(Outbound::new(Arc::clone(setup), origin)),
            sockets: Sockets::new(Arc::clone(setup), origin, ports),
            limiter: Limiter::new(setup.bounds.engine),
            memory: None,
        }
    }
}

impl Remembers for ModuleState {
    fn memory(&mut self) -> &mut Option<wasmtime::Memory> {
        &mut self.memory
    }
}

// === impl Command ===

impl Command {
    pub(crate) fn new(kind: CommandKind, setup: Arc<Setup>) -> Command {
        Command { kind, setup }
    }

    /// Runs the program with these arguments behind its name; the answer is the exit code.
    pub(crate) async fn run(
        self: &Arc<Self>,
        args: &[String],
        stdio: Stdio,
        ports: Arc<Ports>,
        deadline: Duration,
    ) -> Result<i32, Failure> {
        let mut all = self.setup.args.clone();
        all.extend_from_slice(args);
        let builder = command(&self.setup, &all, stdio, &ports);
        let builder = builder.map_err(|error| Failure::Host(format!("{error:#}")))?;
        self.execute(builder, Origin::default(), deadline, ports).await
    }

    /// Makes an instance that is not run. A core module may be its own start function, and is left alone.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        let host = |error: wasmtime::Error| Failure::Host(format!("{error:#}"));
        let builder = command(&self.setup, &self.setup.args, Stdio::Lines, &Ports::new());
        let wasi = builder.map_err(host)?.build();
        let mut store = new_store(self.kind.engine(), &self.setup, wasi, Origin::default());
        let instance = match &self.kind {
            CommandKind::Component2(pre) => pre.instantiate_async(&mut store).await.map(drop),
            CommandKind::Component3(pre) => pre.instantiate_async(&mut store).await.map(drop),
            CommandKind::Module(_) | CommandKind::Forms(_) => Ok(()),
        };
        instance.map_err(|error| Failure::of(&error, store.data().limiter.refused()))
    }

    /// Runs the program under a prepared system interface, within this deadline.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        wasi: WasiCtxBuilder,
        origin: Origin,
        deadline: Duration,
        ports: Arc<Ports>,
    ) -> Result<i32, Failure> {
        let this = Arc::clone(self);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let execution = Box::pin(async move {
            let code = match this.start(wasi, origin, ports).await {
                Ok(code) => code,
                Err(Failure::Exit(code)) => code,
                Err(failure) => return Err(failure),
            };
            // Nobody waits any more when the caller was dropped.
            let _ = sender.send(code);
            Ok(())
        });
        Run::new(execution, deadline).await?;
        receiver.await.map_err(|_| Failure::NoAnswer)
    }

    async fn start(
        &self,
        mut wasi: WasiCtxBuilder,
        origin: Origin,
        ports: Arc<Ports>,
    ) -> Result<i32, Failure> {
        match &self.kind {
            CommandKind::Component2(pre) => {
                let mut store = new_store(pre.engine(), &self.setup, wasi.build(), origin);
                store.data_mut().own_sockets.ports = Some(ports);
                let result = async {
                    let instance = pre.instantiate_async(&mut store).await?;
                    instance.wasi_cli_run().call_run(&mut store).await
                };
                exit_code(result.await, store.data().limiter.refused())
            }
            CommandKind::Component3(pre) => {
                let mut store = new_store(pre.engine(), &self.setup, wasi.build(), origin);
                store.data_mut().own_sockets.ports = Some(ports);
                let result = async {
                    let instance = pre.instantiate_async(&mut store).await?;
                    store
                        .run_concurrent(async |accessor| instance.wasi_cli_run().call_run(accessor).await)
                        .await?
                };
                exit_code(result.await, store.data().limiter.refused())
            }
            CommandKind::Module(_) | CommandKind::Forms(_) => {
                let state = ModuleState::new(&self.setup, preview1(wasi, &self.setup), origin, ports);
                let mut store = Store::new(self.kind.engine(), state);
                store.limiter(|state| &mut state.limiter);
                interruptible(&mut store);
                let result = async {
                    let instance = match &self.kind {
                        CommandKind::Module(pre) => pre.instantiate_async(&mut store).await?,
                        CommandKind::Forms(forms) => forms.instantiate(&mut store).await?,
                        _ => bail!("a component is no module"),
                    };
                    // A program may be its own start function, and has then run already.
                    let Some(start) = instance.get_func(&mut store, "_start") else { return Ok(()) };
                    start.typed::<(), ()>(&store)?.call_async(&mut store, ()).await
                };
                exit_code(result.await.map(Ok), store.data().limiter.refused())
            }
        }
    }
}

// === impl Forms ===

impl Forms {
    fn imports(&self, store: &mut Store<ModuleState>) -> wasmtime::Result<Vec<Extern>> {
        let find = |(module, name): &(String, String)| self.linker.get(&mut *store, module, name);
        self.imports.iter().map(find).collect()
    }

    /// Whether all imports are there, and have the types that the module gives them.
    fn check(&self, setup: &Arc<Setup>) -> wasmtime::Result<()> {
        let state =
            ModuleState::new(setup, WasiCtxBuilder::new().build_p1(), Origin::default(), Ports::new());
        let mut store = Store::new(self.module.engine(), state);
        let found = self.imports(&mut store)?;
        for (import, found) in self.module.imports().zip(found) {
            let fits = match (import.ty(), &found) {
                (ExternType::Func(wanted), Extern::Func(found)) => FuncType::eq(&found.ty(&store), &wanted),
                _ => false,
            };
            if !fits {
                bail!("import {}::{} has another type", import.module(), import.name());
            }
        }
        Ok(())
    }

    async fn instantiate(&self, store: &mut Store<ModuleState>) -> wasmtime::Result<Instance> {
        let imports = self.imports(store)?;
        Instance::new_async(store, &self.module, &imports).await
    }
}

/// Adds `proc_exit`, over that of the library, which takes codes up to 125 only. As a system does, it keeps the last eight
/// bits: `exit(-1)` is 255. But 256 is 1: a failure never becomes a success.
pub(crate) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
        let kept = code & 0xff;
        Err(I32Exit(if kept == 0 { i32::from(code != 0) } else { kept }).into())
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn exit_code(
    result: wasmtime::Result<Result<(), ()>>,
    refused: Option<&'static str>,
) -> Result<i32, Failure> {
    match result {
        Ok(Ok(())) => Ok(0),
        Ok(Err(())) => Ok(1),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(Failure::of(&error, refused)),
        },
    }
}
