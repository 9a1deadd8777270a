//! `dhow:runtime@0.1.0`: every building block as plain calls.
//!
//! | file | interface |
//! |---|---|
//! | `state`, `pubsub`, `invoke`, `lock`, `secrets`, `configuration`, `binding`, `jobs` | those of the same names |
//! | `error` | what becomes of the blocks' errors |
//!
//! What arrives for a guest goes through `events`.

mod binding;
mod configuration;
mod error;
mod invoke;
mod jobs;
mod lock;
mod pubsub;
mod secrets;
mod state;

use crate::setup::Setup;
use crate::store::{GuestState, Origin};
use dhow_blocks::events::Metadata;
use error::Error;
use wasmtime::component::{HasData, Linker};

#[allow(missing_docs, unreachable_pub, clippy::all)]
pub(crate) mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/runtime",
        world: "dhow:runtime/app",
        imports: { default: async | trappable },
        exports: { default: async },
        trappable_error_type: { "dhow:runtime/types.error" => super::Error },
    });
}

use generated::dhow::runtime as wit;

/// The blocks as one guest sees them.
pub(crate) struct Runtime<'a> {
    setup: &'a Setup,
    origin: Origin,
}

struct HasRuntime;

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    fn view(state: &mut GuestState) -> Runtime<'_> {
        Runtime { setup: &state.setup, origin: state.outbound.origin }
    }
    wit::types::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::state::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::pubsub::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::invoke::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::lock::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::secrets::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::configuration::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::binding::add_to_linker::<_, HasRuntime>(linker, view)?;
    wit::jobs::add_to_linker::<_, HasRuntime>(linker, view)
}

impl HasData for HasRuntime {
    type Data<'a> = Runtime<'a>;
}

impl wit::types::Host for Runtime<'_> {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<wit::types::Error> {
        Ok(error.0)
    }
}

fn metadata(pairs: Vec<(String, String)>) -> Metadata {
    pairs.into_iter().collect()
}

fn pairs(metadata: Metadata) -> Vec<(String, String)> {
    metadata.into_iter().collect()
}
