//! Compiled code, from the cache or fresh.

use crate::cache::{Cache, Digest};
use crate::engine::{Engine, Flavor};
use crate::inspect::{Abi, Inspection, InvalidModule, Kind, inspect};
use crate::join::join;
use std::borrow::Cow;
use std::path::Path;
use wasmtime::Module;
use wasmtime::component::Component;

/// A program, ready to be linked and instantiated any number of times.
#[derive(Clone)]
pub struct Image {
    /// Machine code.
    pub code: Code,
    /// Which of the two engines it was compiled for.
    pub flavor: Flavor,
}

/// Machine code of either kind.
#[derive(Clone)]
pub enum Code {
    /// A core module.
    Module(Module),
    /// A component.
    Component(Component),
}

/// What is known of a program without its code: enough to find the code again.
#[derive(Clone, Debug)]
pub struct Program {
    /// Digest of the binary form.
    pub digest: Digest,
    /// Size of the binary form in bytes.
    pub size: usize,
    /// Its outer structure.
    pub inspection: Inspection,
}

/// Why a file cannot become a program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The file is not WebAssembly, or damaged.
    #[error(transparent)]
    Invalid(#[from] InvalidModule),
    /// The text form has a mistake.
    #[error("not a valid WebAssembly text file: {0}")]
    Text(String),
    /// The structure is fine, the content is not; or it uses a feature that is switched off.
    #[error("cannot compile: {0}")]
    Compile(String),
}

/// The binary form of a file that may be text (WAT).
pub fn binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CompileError> {
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"(") || text.starts_with(b";;") {
        return wat::parse_bytes(bytes).map_err(|e| CompileError::Text(e.to_string()));
    }
    Ok(Cow::Borrowed(bytes))
}

// === impl Program ===

impl Program {
    /// Recognises a program in binary form.
    pub fn recognise(wasm: &[u8]) -> Result<Program, InvalidModule> {
        Ok(Program { digest: Digest::of(wasm), size: wasm.len(), inspection: inspect(wasm)? })
    }

    /// Which engine it needs.
    pub fn flavor(&self) -> Flavor {
        match self.inspection.abi {
            Abi::Http3 | Abi::Cli3 => Flavor::Concurrent,
            _ => Flavor::Plain,
        }
    }
}

// === impl Image ===

impl Image {
    /// Code from the cache; `None` when it is not there, damaged, or from another version.
    pub fn cached(
        engine: &Engine,
        cache: &Cache,
        program: &Program,
    ) -> Result<Option<Image>, wasmtime::Error> {
        let flavor = program.flavor();
        let engine = engine.wasmtime(flavor)?;
        let Some(path) = cache.find(program.digest, engine) else { return Ok(None) };
        match map(engine, program.inspection.kind, &path) {
            Ok(code) => Ok(Some(Image { code, flavor })),
            Err(error) => {
                tracing::warn!(
                    "compiled code in {} is of no use ({error:#}); compiling again",
                    path.display()
                );
                cache.remove(&path);
                Ok(None)
            }
        }
    }

    /// Compiles a program in binary form, on all cores, and keeps the code in the cache if there is one.
    pub fn compile(
        engine: &Engine,
        cache: Option<&Cache>,
        program: &Program,
        wasm: &[u8],
    ) -> Result<Image, CompileError> {
        let failed = |error: wasmtime::Error| CompileError::Compile(format!("{error:#}"));
        let flavor = program.flavor();
        let kind = program.inspection.kind;
        let engine = engine.wasmtime(flavor).map_err(failed)?;
        let machine_code = match kind {
            Kind::Module => engine.precompile_module(wasm),
            Kind::Component => precompile_component(engine, wasm),
        }
        .map_err(failed)?;
        let Some(cache) = cache else {
            return Ok(Image { code: load(engine, kind, &machine_code).map_err(failed)?, flavor });
        };
        let stored = cache.store(program.digest, engine, &machine_code);
        let mapped = match stored {
            Ok(path) => map(engine, kind, &path),
            Err(error) => Err(error.into()),
        };
        // A full disk or a file that was evicted this instant costs the cache, not the program.
        let code = mapped.or_else(|error| {
            tracing::warn!("compiled code could not be kept: {error:#}");
            load(engine, kind, &machine_code)
        });
        Ok(Image { code: code.map_err(failed)?, flavor })
    }
}

/// Joined to one core module where that can be done.
fn precompile_component(engine: &wasmtime::Engine, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    if let Some(joined) = join(wasm) {
        match engine.precompile_component(&joined) {
            Ok(machine_code) => return Ok(machine_code),
            // A limit that all modules together are beyond, for one; or the component is invalid itself.
            Err(error) => tracing::debug!("joined core modules cannot be compiled: {error:#}"),
        }
    }
    engine.precompile_component(wasm)
}

fn map(engine: &wasmtime::Engine, kind: Kind, path: &Path) -> wasmtime::Result<Code> {
    // SAFETY: the file was written by `Cache::store` from the output of this version of Wasmtime (the name
    // has the engine's compatibility hash), its checksum was verified, and nobody but this user may write
    // to the folder (`Cache::open`). Entries are replaced by renaming, never changed in place.
    unsafe {
        Ok(match kind {
            Kind::Module => Code::Module(Module::deserialize_file(engine, path)?),
            Kind::Component => Code::Component(Component::deserialize_file(engine, path)?),
        })
    }
}

fn load(engine: &wasmtime::Engine, kind: Kind, machine_code: &[u8]) -> wasmtime::Result<Code> {
    // SAFETY: the bytes come straight out of `precompile_*` of the same engine.
    unsafe {
        Ok(match kind {
            Kind::Module => Code::Module(Module::deserialize(engine, machine_code)?),
            Kind::Component => Code::Component(Component::deserialize(engine, machine_code)?),
        })
    }
}
