//! `wasi:logging@0.1.0-draft`: lines with a level, into the app's log.

use crate::setup::{self, Setup, Stream};
use crate::store::GuestState;
use dhow_blocks::grants::Ask;
use std::sync::Arc;
use wasmtime::component::{HasData, Linker};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/logging",
        world: "wasi:logging/imports",
        imports: { default: trappable },
    });
}

use generated::wasi::logging::logging::{self, Level};

pub(crate) struct Logging<'a>(&'a Arc<Setup>);

struct HasLogging;

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    logging::add_to_linker::<_, HasLogging>(linker, |state| Logging(&state.setup))
}

impl HasData for HasLogging {
    type Data<'a> = Logging<'a>;
}

impl logging::Host for Logging<'_> {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            Level::Trace => setup::Level::Trace,
            Level::Debug => setup::Level::Debug,
            Level::Info => setup::Level::Info,
            Level::Warn => setup::Level::Warn,
            Level::Error | Level::Critical => setup::Level::Error,
        };
        let line = if context.is_empty() { message } else { format!("{context}: {message}") };
        // The interface knows no errors: what may not be written is not.
        if self.0.scope.check(Ask::Log).is_err() {
            return Ok(());
        }
        self.0.output.line(&self.0.scope.app_id, Stream::Log(level), &line);
        Ok(())
    }
}
