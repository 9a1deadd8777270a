//! What a pushed manifest has of Wasm: its module is found, and whoever knows about tokens and interfaces is asked about
//! it. That somebody is outside of this crate (ARCHITECTURE.md, "Floors").

use super::blobs::Blobs;
use super::manifest::{Descriptor, Manifest};
use super::storage::StorageError;
use crate::media_type::LayerKind;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io::Read;

/// Larger modules are not examined, in bytes as they are stored and as they are unpacked.
const MAX_MODULE: u64 = 256 << 20;

/// Bytes of an image's configuration that are read.
const MAX_CONFIG: u64 = 1 << 20;

/// Entries of an archive that are looked at for a module.
const MAX_ENTRIES: usize = 1000;

/// The one file of an image for proxies (solo.io's "compat" variant).
const COMPAT_ANNOTATION: &str = "module.wasm.image/variant";

/// Knows what a module is.
pub trait Examiner: Send + Sync + 'static {
    /// Looks at a module or component, which may be anything.
    fn examine(&self, wasm: &[u8]) -> Examination;

    /// The name under which all names of one capability are found.
    fn capability(&self, name: &str) -> String;
}

/// What an examiner found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Examination {
    /// Whether its token holds.
    pub trust: Trust,
    /// Why not, for people; empty where it holds.
    pub reason: String,
    /// What the token says, even where it does not hold.
    pub claims: Option<Claims>,
    /// `module` or `component`; empty where it is no WebAssembly.
    pub kind: String,
    /// How it talks with its host.
    pub abi: String,
    /// Interfaces or functions that it asks for.
    pub imports: Vec<String>,
    /// Interfaces or functions that it has.
    pub exports: Vec<String>,
}

/// Whether a module's token holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// It has a token, and the token holds.
    Verified,
    /// It has none.
    #[default]
    Unsigned,
    /// It has one that does not hold.
    Refused,
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// For people.
    pub name: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// Counts up.
    pub revision: Option<i32>,
    /// Anything.
    pub tags: Vec<String>,
    /// What the module may do, as written.
    pub capabilities: Vec<String>,
    /// Public key of who signed.
    pub issuer: String,
    /// Public key of the module.
    pub subject: String,
    /// Not valid any more from this second after 1970 on.
    pub expires: Option<u64>,
    /// Not valid before this second after 1970.
    pub not_before: Option<u64>,
}

/// What there is of Wasm in a manifest.
pub(super) enum Module {
    /// Nothing.
    None,
    /// This module.
    Bytes(Bytes),
    /// Something that cannot be looked at, and why.
    Opaque(String),
}

/// Finds the module of a manifest whose blobs are there.
pub(super) async fn module(blobs: &Blobs, manifest: &Manifest) -> Result<Module, StorageError> {
    let is_wasm = |layer: &&Descriptor| LayerKind::of(&layer.media_type) == LayerKind::Wasm;
    if let Some(layer) = manifest.layers.iter().find(is_wasm) {
        return Ok(match read(blobs, layer).await? {
            Ok(bytes) => Module::Bytes(bytes),
            Err(reason) => Module::Opaque(reason),
        });
    }
    if !is_image_of_wasm(blobs, manifest).await? {
        return Ok(Module::None);
    }
    // The last layer wins, as it does in a file system.
    for layer in manifest.layers.iter().rev() {
        match LayerKind::of(&layer.media_type) {
            LayerKind::Tar => {}
            LayerKind::TarZstd => return Ok(Module::Opaque("its layer is packed with Zstandard".to_owned())),
            _ => continue,
        }
        let archive = match read(blobs, layer).await? {
            Ok(archive) => archive,
            Err(reason) => return Ok(Module::Opaque(reason)),
        };
        let unpacked = tokio::task::spawn_blocking(move || unpack(&archive));
        match unpacked.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(None) => {}
            Ok(Some(bytes)) => return Ok(Module::Bytes(bytes)),
            Err(reason) => return Ok(Module::Opaque(reason)),
        }
    }
    Ok(Module::Opaque("it says that it is for Wasm, and has no file .wasm".to_owned()))
}

async fn read(blobs: &Blobs, layer: &Descriptor) -> Result<Result<Bytes, String>, StorageError> {
    if layer.size > MAX_MODULE {
        return Ok(Err(format!("its layer has {} bytes; at most {MAX_MODULE} are looked at", layer.size)));
    }
    Ok(blobs.read(&layer.digest, MAX_MODULE).await?.ok_or_else(|| "its layer is damaged".to_owned()))
}

/// Whether a plain image says that what it runs is Wasm.
async fn is_image_of_wasm(blobs: &Blobs, manifest: &Manifest) -> Result<bool, StorageError> {
    /// What counts of an image's configuration.
    #[derive(Default, Deserialize)]
    struct Config {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
        #[serde(default)]
        config: Option<Process>,
    }
    #[derive(Default, Deserialize)]
    struct Process {
        #[serde(default, rename = "Entrypoint")]
        entrypoint: Option<Vec<String>>,
        #[serde(default, rename = "Cmd")]
        cmd: Option<Vec<String>>,
    }
    let annotations = manifest.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(COMPAT_ANNOTATION)) {
        return Ok(true);
    }
    let Some(descriptor) = &manifest.config else { return Ok(false) };
    if descriptor.size > MAX_CONFIG {
        return Ok(false);
    }
    let Some(text) = blobs.read(&descriptor.digest, MAX_CONFIG).await? else { return Ok(false) };
    let config: Config = serde_json::from_slice(&text).unwrap_or_default();
    let process = config.config.unwrap_or_default();
    let first = |words: Option<Vec<String>>| words.and_then(|words| words.into_iter().next());
    let program = first(process.entrypoint).or_else(|| first(process.cmd)).unwrap_or_default();
    // An entrypoint may name a function behind the file.
    let program = program.split('#').next().unwrap_or_default();
    Ok(config.architecture.starts_with("wasm") || config.os.starts_with("wasi") || program.ends_with(".wasm"))
}

/// The last file of an archive that is called `….wasm`. Nothing is written anywhere, so paths do not matter.
fn unpack(archive: &[u8]) -> Result<Option<Bytes>, String> {
    let unreadable = |error: std::io::Error| format!("its layer cannot be unpacked: {error}");
    let reader: Box<dyn Read + '_> = match archive.starts_with(b"\x1f\x8b") {
        true => Box::new(flate2::read::MultiGzDecoder::new(archive)),
        false => Box::new(archive),
    };
    let mut archive = tar::Archive::new(reader.take(MAX_MODULE));
    let mut found = None;
    for (index, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        if index >= MAX_ENTRIES {
            return Err(format!("its layer has more than {MAX_ENTRIES} files"));
        }
        let mut entry = entry.map_err(unreadable)?;
        let is_module = entry.header().entry_type().is_file() && entry.path_bytes().ends_with(b".wasm");
        if is_module {
            if entry.size() > MAX_MODULE {
                return Err(format!(
                    "its file has {} bytes; at most {MAX_MODULE} are looked at",
                    entry.size()
                ));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(unreadable)?;
            found = Some(Bytes::from(bytes));
        }
    }
    Ok(found)
}
