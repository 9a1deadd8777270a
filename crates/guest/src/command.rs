//! Programs with a start and an end: `wasi:cli/run` of both versions, and WASI preview 1.

use crate::api::Api;
use crate::experimental_http::Responses;
use crate::failure::Failure;
use crate::outbound::Outbound;
use crate::run::Run;
use crate::setup::{Setup, Stdio};
use crate::store::{GuestState, Origin, command, interruptible, new_store};
use dhow_engine::Limiter;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::Store;
use wasmtime::component::InstancePre;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtxBuilder, p2, p3};

/// Data of a core module's store.
pub(crate) struct ModuleState {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) api: Api,
    pub(crate) responses: Responses,
    limiter: Limiter,
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
}

impl CommandKind {
    pub(crate) fn component2(pre: InstancePre<GuestState>) -> wasmtime::Result<CommandKind> {
        Ok(CommandKind::Component2(p2::bindings::CommandPre::new(pre)?))
    }

    pub(crate) fn component3(pre: InstancePre<GuestState>) -> wasmtime::Result<CommandKind> {
        Ok(CommandKind::Component3(p3::bindings::CommandPre::new(pre)?))
    }
}

// === impl Command ===

impl Command {
    pub(crate) fn new(kind: CommandKind, setup: Arc<Setup>) -> Command {
        Command { kind, setup }
    }

    /// Runs the program with these arguments behind its name; the answer is the exit code.
    pub(crate) async fn run(self: &Arc<Self>, args: &[String], stdio: Stdio) -> Result<i32, Failure> {
        let mut all = self.setup.args.clone();
        all.extend_from_slice(args);
        let builder =
            command(&self.setup, &all, stdio).map_err(|error| Failure::Host(format!("{error:#}")))?;
        self.execute(builder, Origin::default(), self.setup.bounds.program).await
    }

    /// Runs the program under a prepared system interface, within this deadline.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        wasi: WasiCtxBuilder,
        origin: Origin,
        deadline: Duration,
    ) -> Result<i32, Failure> {
        let this = Arc::clone(self);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let execution = Box::pin(async move {
            let code = match this.start(wasi, origin).await {
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

    async fn start(&self, mut wasi: WasiCtxBuilder, origin: Origin) -> Result<i32, Failure> {
        match &self.kind {
            CommandKind::Component2(pre) => {
                let mut store = new_store(pre.engine(), &self.setup, wasi.build(), origin);
                let result = async {
                    let instance = pre.instantiate_async(&mut store).await?;
                    instance.wasi_cli_run().call_run(&mut store).await
                };
                exit_code(result.await, store.data().limiter.refused())
            }
            CommandKind::Component3(pre) => {
                let mut store = new_store(pre.engine(), &self.setup, wasi.build(), origin);
                let result = async {
                    let instance = pre.instantiate_async(&mut store).await?;
                    store
                        .run_concurrent(async |accessor| instance.wasi_cli_run().call_run(accessor).await)
                        .await?
                };
                exit_code(result.await, store.data().limiter.refused())
            }
            CommandKind::Module(pre) => {
                let limiter = Limiter::new(self.setup.bounds.engine);
                let api = Api::new(Arc::clone(&self.setup), origin);
                let responses = Responses::new(Outbound::new(Arc::clone(&self.setup), origin));
                let state = ModuleState { wasi: wasi.build_p1(), api, responses, limiter };
                let mut store = Store::new(pre.module().engine(), state);
                store.limiter(|state| &mut state.limiter);
                interruptible(&mut store);
                let result = async {
                    // A program may be its own start function, and has then run already.
                    let instance = pre.instantiate_async(&mut store).await?;
                    let Some(start) = instance.get_func(&mut store, "_start") else { return Ok(()) };
                    start.typed::<(), ()>(&store)?.call_async(&mut store, ()).await
                };
                exit_code(result.await.map(Ok), store.data().limiter.refused())
            }
        }
    }
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
