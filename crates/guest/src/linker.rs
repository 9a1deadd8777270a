//! Imports, resolved once for all apps of an engine.
//!
//! A guest may import anything here; whether it may *use* it is decided by its grants when it does.

use crate::command::{self, ModuleState};
use crate::failure::LoadError;
use crate::proxy::ProxyState;
use crate::store::GuestState;
use crate::wapc::{self, WapcState};
use crate::{
    api, config, experimental_http, keyvalue, logging, messaging, provider, proxy, runtime, sockets,
};
use dhow_engine::{Abi, Engine, Flavor, Inspection, Kind};
use std::sync::OnceLock;
use wasmtime::component;

/// Linkers of both flavors, made when first needed.
#[derive(Default)]
pub struct Linkers {
    plain: OnceLock<component::Linker<GuestState>>,
    concurrent: OnceLock<component::Linker<GuestState>>,
    module: OnceLock<wasmtime::Linker<ModuleState>>,
    proxy: OnceLock<wasmtime::Linker<ProxyState>>,
    wapc: OnceLock<wasmtime::Linker<WapcState>>,
}

/// What components may import: whole packages, ending in a slash, all versions that begin so, ending in a dot, and
/// interfaces of exactly one version. docs/wit-interfaces.md says the same to users.
const PROVIDED: [&str; 32] = [
    "dhow:runtime/binding@0.1.",
    "dhow:runtime/configuration@0.1.",
    "dhow:runtime/invoke@0.1.",
    "dhow:runtime/jobs@0.1.",
    "dhow:runtime/lock@0.1.",
    "dhow:runtime/pubsub@0.1.",
    "dhow:runtime/secrets@0.1.",
    "dhow:runtime/state@0.1.",
    "dhow:runtime/types@0.1.",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:config/runtime@0.2.0-draft",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:logging/logging@0.1.0-draft",
    "wasi:messaging/producer@0.2.0-draft",
    "wasi:messaging/request-reply@0.2.0-draft",
    "wasi:messaging/types@0.2.0-draft",
    "wasi:random/",
    "wasi:sockets/",
    "wasmcloud:messaging/consumer@0.2.",
    "wasmcloud:messaging/types@0.2.",
];

/// The only socket calls of WASI preview 1, which proxy-wasm modules may import.
pub(crate) const PREVIEW1_SOCKETS: [&str; 4] = ["sock_accept", "sock_recv", "sock_send", "sock_shutdown"];

/// What would provide imports that dhow does not, by their beginning.
const HINTS: [(&str, &str); 16] = [
    (
        "wasmbus::",
        "belongs to wasmCloud's host of 2021; dhow runs waPC modules, whose imports begin with wapc",
    ),
    ("dhow:runtime/", "is another version of dhow:runtime; this dhow provides 0.1.0"),
    ("wasi:keyvalue/", "is another version of wasi:keyvalue; dhow provides 0.2.0-draft and 0.2.0-draft2"),
    ("wasi:logging/", "is another version of wasi:logging; dhow provides 0.1.0-draft"),
    ("wasi:nn/", "is machine-learning inference and not part of this version of dhow"),
    ("wasi:messaging/", "is another version of wasi:messaging; dhow provides 0.2.0-draft"),
    ("wasi:blobstore/", "is blob storage and not part of this version of dhow"),
    ("wasi:sql/", "is SQL and not part of this version of dhow"),
    (
        "wasi:config/",
        "is another version of wasi:config; dhow provides store of 0.2.0-rc.1, 0.2.0-draft and \
         0.2.0-draft-2024-09-27, and runtime of 0.2.0-draft",
    ),
    ("wasmcloud:messaging/", "is another version of wasmcloud:messaging; dhow provides 0.2.0"),
    ("wasmcloud:", "belongs to wasmCloud's host; compile against the wasi: interface of the same purpose"),
    ("fermyon:", "belongs to Spin's host; compile against the wasi: interface of the same purpose"),
    ("spin:", "belongs to Spin's host; compile against the wasi: interface of the same purpose"),
    ("wasi_ephemeral_nn", "is machine-learning inference and not part of this version of dhow"),
    (
        "wasi_snapshot_preview1::sock_",
        "is no socket call of WASI preview 1 nor of WasmEdge's extension of it",
    ),
    ("wasi_unstable", "is WASI of 2019; compile with a current toolchain for wasi_snapshot_preview1"),
];

const NO_HINT: &str = "nothing in dhow provides: `dhow inspect` lists what the module needs";

// === impl Linkers ===

impl Linkers {
    pub(crate) fn component(
        &self,
        engine: &Engine,
        flavor: Flavor,
    ) -> wasmtime::Result<&component::Linker<GuestState>> {
        let linker = match flavor {
            Flavor::Plain => &self.plain,
            Flavor::Concurrent => &self.concurrent,
        };
        if let Some(linker) = linker.get() {
            return Ok(linker);
        }
        let mut made = component::Linker::new(engine.wasmtime(flavor)?);
        wasmtime_wasi::p2::add_to_linker_async(&mut made)?;
        sockets::add_to_component_linker(&mut made)?;
        sockets::add_names_to_linker(&mut made)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut made)?;
        if flavor == Flavor::Concurrent {
            wasmtime_wasi::p3::add_to_linker(&mut made)?;
            sockets::add_names_to_concurrent_linker(&mut made)?;
            wasmtime_wasi_http::p3::add_to_linker(&mut made)?;
        }
        keyvalue::add_to_linker(&mut made)?;
        config::add_to_linker(&mut made)?;
        logging::add_to_linker(&mut made)?;
        messaging::add_to_linker(&mut made)?;
        runtime::add_to_linker(&mut made)?;
        Ok(linker.get_or_init(|| made))
    }

    pub(crate) fn module(&self, engine: &Engine) -> wasmtime::Result<&wasmtime::Linker<ModuleState>> {
        if let Some(linker) = self.module.get() {
            return Ok(linker);
        }
        let mut made = wasmtime::Linker::new(engine.wasmtime(Flavor::Plain)?);
        wasmtime_wasi::p1::add_to_linker_async(&mut made, |state: &mut ModuleState| &mut state.wasi)?;
        sockets::add_to_linker(&mut made)?;
        command::add_to_linker(&mut made)?;
        api::add_to_linker(&mut made)?;
        experimental_http::add_to_linker(&mut made)?;
        Ok(self.module.get_or_init(|| made))
    }

    pub(crate) fn proxy(&self, engine: &Engine) -> wasmtime::Result<&wasmtime::Linker<ProxyState>> {
        if let Some(linker) = self.proxy.get() {
            return Ok(linker);
        }
        let mut made = wasmtime::Linker::new(engine.wasmtime(Flavor::Plain)?);
        proxy::add_to_linker(&mut made)?;
        Ok(self.proxy.get_or_init(|| made))
    }

    pub(crate) fn wapc(&self, engine: &Engine) -> wasmtime::Result<&wasmtime::Linker<WapcState>> {
        if let Some(linker) = self.wapc.get() {
            return Ok(linker);
        }
        let mut made = wasmtime::Linker::new(engine.wasmtime(Flavor::Plain)?);
        wapc::add_to_linker(&mut made)?;
        Ok(self.wapc.get_or_init(|| made))
    }
}

/// Turns a linking error into one that names the import and what would provide it.
pub(crate) fn explain(inspection: &Inspection, error: &wasmtime::Error) -> LoadError {
    let unknown = inspection.imports.iter().find(|import| !is_provided(inspection, import));
    match unknown {
        Some(import) => LoadError::UnknownImport { import: import.clone(), hint: hint(import) },
        None => LoadError::Mismatch(format!("{error:#}")),
    }
}

/// Whether a module of this kind gets this import from dhow.
pub fn is_provided(inspection: &Inspection, import: &str) -> bool {
    match inspection.kind {
        Kind::Module if inspection.abi == Abi::ProxyWasm => {
            import.split_once("::").is_some_and(|(module, function)| proxy::is_provided(module, function))
        }
        Kind::Module if inspection.abi == Abi::Wapc => {
            import.split_once("::").is_some_and(|(module, function)| wapc::is_provided(module, function))
        }
        Kind::Module => match import.split_once("::") {
            Some(("wasi_snapshot_preview1", function)) => {
                !function.starts_with("sock_") || sockets::FUNCTIONS.contains(&function)
            }
            Some((api::NAME, function)) => api::FUNCTIONS.contains(&function),
            Some((experimental_http::NAME, function)) => experimental_http::FUNCTIONS.contains(&function),
            _ => false,
        },
        Kind::Component => {
            let known = PROVIDED
                .iter()
                .any(|known| *known == import || known.ends_with(['/', '.']) && import.starts_with(known));
            // WASI 0.3 comes with the engine for concurrent calls, which only these two ABIs use.
            let concurrent = matches!(inspection.abi, Abi::Http3 | Abi::Cli3);
            known && (concurrent || !import.contains("@0.3."))
        }
    }
}

/// What would provide an import that dhow does not.
fn hint(import: &str) -> &'static str {
    HINTS.iter().find(|(beginning, _)| import.starts_with(beginning)).map_or(NO_HINT, |(_, hint)| hint)
}

/// Why a module of this ABI cannot be run, if so.
pub(crate) fn unsupported(inspection: &Inspection) -> Option<LoadError> {
    let what = match (inspection.abi, inspection.kind) {
        (Abi::Unknown, Kind::Component) if provider::is_provider(inspection) => {
            "it is a provider of dhow:provider and no app; give it to a component of type state.wasm, secretstores.wasm \
             or pubsub.wasm"
        }
        (Abi::Step, _) => {
            "it exports dhow:step/step: it is a step of a workflow, which `dhow workflow run` runs, and no app"
        }
        (Abi::Unknown, Kind::Module) => {
            "it exports neither _start nor any other entry point that dhow knows; compile it as a WASI command \
             (target wasm32-wasip1) or as a component"
        }
        (Abi::Unknown, Kind::Component) => {
            "it exports neither wasi:http/incoming-handler nor wasi:cli/run nor a handler of events that dhow knows; \
             a component needs one of them to be run"
        }
        _ => return None,
    };
    Some(LoadError::Abi(what.to_owned()))
}
