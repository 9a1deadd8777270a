//! A module as apps are made of it: read and recognised once, for all apps that share it.

use crate::background;
use bytes::Bytes;
use dhow_artifacts::error::FetchError;
use dhow_artifacts::{DEFAULT_LIMIT, Source};
use dhow_engine::{Image, Program};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A module that was read and recognised.
pub struct Module {
    /// What it is.
    pub program: Arc<Program>,
    /// It carries a token, or something that looks like one.
    pub(crate) is_signed: bool,
    /// As it was read.
    pub(crate) file: Bytes,
    /// In binary form.
    pub(crate) wasm: Bytes,
    /// Its code, as the host has it that makes apps of it; there from the first app on.
    pub(crate) image: OnceLock<Image>,
}

/// Why a module cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModuleError {
    /// It cannot be had.
    #[error(transparent)]
    Fetch(Arc<FetchError>),
    /// It is there and cannot be run.
    #[error("{file}: {reason}")]
    Unusable {
        /// Its file or URL.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

// === impl Module ===

impl Module {
    /// Reads and recognises a module; what is compiled of it is compiled by the app that needs it first.
    pub async fn read(source: &Source) -> Result<Module, ModuleError> {
        Module::read_with(source, |_, _| {}).await
    }

    /// The same, and tells how many bytes were read, and how many there are when that is known.
    pub async fn read_with(
        source: &Source,
        progress: impl FnMut(u64, Option<u64>) + Send,
    ) -> Result<Module, ModuleError> {
        let file = dhow_artifacts::read_module(source, DEFAULT_LIMIT, progress).await;
        let file = file.map_err(|error| ModuleError::Fetch(Arc::new(error)))?;
        Module::recognised(file, source.to_string()).await
    }

    /// Recognises a module that came over the network.
    pub(crate) async fn of_bytes(file: Bytes) -> Result<Module, ModuleError> {
        Module::recognised(file, "the uploaded module".to_owned()).await
    }

    async fn recognised(file: Bytes, name: String) -> Result<Module, ModuleError> {
        // A large module takes long to read through; the executor's threads have other work.
        let recognised = background::run(move || Module::recognise(file)).await;
        recognised
            .unwrap_or_else(|panicked| Err(panicked.to_string()))
            .map_err(|reason| ModuleError::Unusable { file: name, reason })
    }

    pub(crate) fn recognise(file: Bytes) -> Result<Module, String> {
        let text = match dhow_engine::image::binary(&file).map_err(|error| error.to_string())? {
            Cow::Borrowed(_) => None,
            Cow::Owned(wasm) => Some(Bytes::from(wasm)),
        };
        let wasm = text.unwrap_or_else(|| file.clone());
        let program = Program::recognise(&wasm).map_err(|error| error.to_string())?;
        let is_signed = !matches!(dhow_claims::section::token(&wasm), Ok(None));
        Ok(Module { program: Arc::new(program), is_signed, file, wasm, image: OnceLock::new() })
    }
}
