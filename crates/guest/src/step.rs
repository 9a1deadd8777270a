//! Steps of workflows as calls: components that export `dhow:step/step`.
//!
//! Such a component has the arguments, the environment, the files and the grants of a program; only its start and its
//! end are a call with values instead of `wasi:cli/run`.

use crate::failure::{Failure, LoadError};
use crate::linker::{self, Linkers};
use crate::run::Run;
use crate::setup::{Setup, Stdio};
use crate::sockets::Ports;
use crate::store::{GuestState, Origin, command, new_store};
use dhow_engine::{Code, Engine, Image, Inspection};
use std::sync::Arc;
use std::time::Duration;
use wasmtime::bail;

mod generated {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    wasmtime::component::bindgen!({
        path: "../../wit/step",
        world: "dhow:step/app",
        exports: { default: async },
    });
}

pub use generated::exports::dhow::step::step::{Artifact, Input, Output, Parameter};

/// A component that is a step.
pub struct Step {
    engine: Engine,
    pre: generated::AppPre<GuestState>,
    setup: Arc<Setup>,
}

// === impl Step ===

impl Step {
    /// Links a component whose ABI is [`Abi::Step`](dhow_engine::Abi::Step).
    pub fn load(
        engine: &Engine,
        linkers: &Linkers,
        image: &Image,
        inspection: &Inspection,
        setup: Arc<Setup>,
    ) -> Result<Step, LoadError> {
        let linked = || -> wasmtime::Result<Step> {
            let Code::Component(component) = &image.code else { bail!("a step is a component") };
            let pre = linkers.component(engine, image.flavor)?.instantiate_pre(component)?;
            Ok(Step { engine: engine.clone(), pre: generated::AppPre::new(pre)?, setup })
        };
        linked().map_err(|error| linker::explain(inspection, &error))
    }

    /// Calls it, within this deadline. The inner error is what the step says of itself.
    pub async fn call(
        self: Arc<Self>,
        input: Input,
        deadline: Duration,
    ) -> Result<Result<Output, String>, Failure> {
        let wasi = command(&self.setup, &self.setup.args, Stdio::Lines, &Ports::new());
        let mut wasi = wasi.map_err(|error| Failure::Host(format!("{error:#}")))?;
        let this = Arc::clone(&self);
        let _running = self.engine.running();
        let execution = Box::pin(async move {
            let mut store = new_store(this.pre.engine(), &this.setup, wasi.build(), Origin::default());
            let called = async {
                let instance = this.pre.instantiate_async(&mut store).await?;
                instance.dhow_step_step().call_run(&mut store, &input).await
            };
            called.await.map_err(|error| Failure::of(&error, store.data().limiter.refused()))
        });
        Run::new(execution, deadline).await
    }
}
