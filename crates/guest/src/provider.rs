//! `dhow:provider@0.1.0`: providers of blocks that are components themselves, called by the host.
//!
//! The other way round than everything else here: the host asks, and the guest answers. What the guest asks meanwhile
//! (HTTP requests, sockets) is allowed or refused by the grants of its [`Setup`], as for every guest.
//!
//! | file | subject |
//! |---|---|
//! | `pool` | instances, one call at a time in each; deadlines |
//! | `state`, `secrets` | stores |
//! | `pubsub` | a broker that is pulled |

mod pool;
mod pubsub;
mod secrets;
mod state;

pub use pubsub::{Broker, Receiver};

use crate::linker::{self, Linkers};
use crate::setup::Setup;
use crate::store::GuestState;
use dhow_blocks::error::BlockError;
use dhow_blocks::secrets::SecretStore;
use dhow_blocks::state::StateStore;
use dhow_engine::{Code, Engine, Image, Inspection};
use pool::{Exported, Pool};
use std::sync::Arc;
use wasmtime::component::InstancePre;

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/provider",
        world: "dhow:provider/provider",
        exports: { default: async },
    });
}

/// What its interfaces begin with.
const PACKAGE: &str = "dhow:provider/";

/// Characters of a reason that are passed on: it is the guest's.
const MAX_REASON: usize = 1000;

/// What the instances of a provider have in common.
pub struct Provider {
    /// The component's name, for errors.
    pub name: String,
    /// Goes to `init`.
    pub metadata: Vec<(String, String)>,
    /// Calls under way at once, each in an instance of its own.
    pub concurrency: usize,
    /// Whether the module may still answer; the error says why not.
    pub permit: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Grants, limits, folders. Its deadline is that of one call.
    pub setup: Arc<Setup>,
}

/// Where the code of a provider is.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Runs it.
    pub engine: &'a Engine,
    /// What it may import.
    pub linkers: &'a Linkers,
    /// Its code.
    pub image: &'a Image,
    /// What it imports and exports.
    pub inspection: &'a Inspection,
}

/// Opens a state store: makes the first instance and calls `init`.
pub async fn state(place: Place<'_>, provider: Provider) -> Result<Arc<dyn StateStore>, String> {
    Ok(Arc::new(state::Store::open(place, provider).await?))
}

/// Opens a secret store: makes the first instance and calls `init`.
pub async fn secrets(place: Place<'_>, provider: Provider) -> Result<Arc<dyn SecretStore>, String> {
    Ok(Arc::new(secrets::Store::open(place, provider).await?))
}

/// Opens a broker: makes the first instance and calls `init`.
pub async fn pubsub(place: Place<'_>, provider: Provider) -> Result<Broker, String> {
    Broker::open(place, provider).await
}

// === impl Place ===

impl Place<'_> {
    /// Links the module, if it exports the interface.
    fn pool<E: Exported>(self, provider: Provider) -> Result<Pool<E>, String> {
        if !self.inspection.exports.iter().any(|export| export.starts_with(E::INTERFACE)) {
            let others = self.inspection.exports.iter().filter(|export| export.starts_with(PACKAGE));
            let others: Vec<&str> = others.map(String::as_str).collect();
            let found =
                if others.is_empty() { "none of dhow:provider".to_owned() } else { others.join(", ") };
            return Err(format!("its module exports {found}, and not {}0", E::INTERFACE));
        }
        let linked = || -> wasmtime::Result<(InstancePre<GuestState>, E::Indices)> {
            let Code::Component(component) = &self.image.code else {
                wasmtime::bail!("it is a module and no component; compile it for wasm32-wasip2");
            };
            let linker = self.linkers.component(self.engine, self.image.flavor)?;
            let pre = linker.instantiate_pre(component)?;
            let indices = E::find(&pre)?;
            Ok((pre, indices))
        };
        let (pre, indices) =
            linked().map_err(|error| linker::explain(self.inspection, &error).to_string())?;
        Ok(Pool::new(self.engine.clone(), pre, indices, provider))
    }
}

/// Whether a component provides a block.
pub fn is_provider(inspection: &Inspection) -> bool {
    inspection.exports.iter().any(|export| export.starts_with(PACKAGE))
}

/// What a component says of a failure, cut to what a reader can take in.
fn brief(reason: String) -> String {
    match reason.char_indices().nth(MAX_REASON) {
        Some((cut, _)) => format!("{}…", &reason[..cut]),
        None => reason,
    }
}

use generated::dhow::provider::types::Error;

impl From<Error> for BlockError {
    fn from(error: Error) -> BlockError {
        match error {
            Error::Invalid(reason) => BlockError::invalid(brief(reason)),
            Error::Unsupported(_) => BlockError::NotSupported { feature: "this operation" },
            Error::Unavailable(reason) => BlockError::unavailable(brief(reason)),
            Error::Failed(reason) => BlockError::failed(brief(reason)),
        }
    }
}
