//! Core modules of a component, linked into one before they are compiled.
//!
//! Some toolchains (componentize-py, `wasm-tools component link`) ship a component as a program and its
//! shared libraries: many core modules that import one memory and one table, each with element segments at
//! an offset that is a global of another module. Wasmtime sets up such a table entry by entry, thousands of
//! them, for every fresh instance. A module that defines its table and has constant offsets costs nothing
//! there: its table is filled lazily. So the modules are joined:
//!
//! ```text
//! instance main   = module 0 ─┐
//! instance libc   = module 1  ├─ instance joined = one module: imports among the modules are gone,
//! instance python = module 2 ─┘                    offsets and addresses are constants
//! instance fixup  = module 3 ─── unchanged: it needs functions that need the memory of `joined`
//! ```
//!
//! Which modules belong together is read from the shape of the component, never from names. A module joins
//! if it is instantiated once, everything that it imports is known, it imports no state from outside the
//! joined ones, and nothing can tell that its instantiation moved to another moment. A component with any
//! part that is not understood stays as it is.
//!
//! | file | subject |
//! |---|---|
//! | `parts` | a component and its core modules, taken apart |
//! | `group` | which instances are joined, and what their imports are |
//! | `module` | writing the joined module |
//! | `component` | writing the component around it |

mod component;
mod group;
mod module;
mod parts;

use group::Group;
use parts::Parts;
use wasmparser::{Validator, WasmFeatures};

/// Names this version of the transformation. Part of what compiled code is filed under: change it with
/// every change of what [`join`] writes.
pub const VERSION: &str = "join-1";

/// Why a component stays as it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(&'static str);

/// The component with its core modules joined; `None` when there is nothing to gain, or anything about it is
/// not understood. Safe for any input.
pub fn join(wasm: &[u8]) -> Option<Vec<u8>> {
    match attempt(wasm) {
        Ok(joined) => {
            tracing::debug!("core modules joined: {} bytes became {}", wasm.len(), joined.len());
            Some(joined)
        }
        Err(reason) => {
            tracing::debug!("core modules not joined: {reason}");
            None
        }
    }
}

fn attempt(wasm: &[u8]) -> Result<Vec<u8>, Refusal> {
    let parts = Parts::of(wasm)?;
    let group = Group::of(&parts)?;
    // An invalid component must not become a valid one by losing its invalid part.
    Validator::new_with_features(WasmFeatures::all()).validate_all(wasm)?;
    component::write(&parts, &group)
}

impl From<wasmparser::Error> for Refusal {
    fn from(_: wasmparser::Error) -> Refusal {
        Refusal("it is damaged or invalid")
    }
}

impl From<wasm_encoder::reencode::Error<Refusal>> for Refusal {
    fn from(error: wasm_encoder::reencode::Error<Refusal>) -> Refusal {
        match error {
            wasm_encoder::reencode::Error::UserError(refusal) => refusal,
            _ => Refusal("a part of it cannot be written again"),
        }
    }
}

#[cfg(test)]
mod tests;
