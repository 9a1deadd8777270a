//! What a pushed manifest has of Wasm: its module is found, and whoever knows about tokens and interfaces is asked about
//! it. That somebody is outside of this crate (ARCHITECTURE.md, "Floors").

use super::blobs::Blobs;
use super::manifest::{Descriptor, Manifest};
use super::storage::StorageError;
use crate::client::error::RegistryError;
use crate::digest::Digest;
use crate::image::{self, Layer, Limits};
use crate::manifest::{self as read, Document, ImageConfig, MAX_CONFIG};
use crate::media_type::LayerKind;
use crate::place::{Place, places};
use crate::sniff::{FileKind, sniff};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Larger modules are not examined, in bytes as they are stored and as they are unpacked.
const MAX_MODULE: u64 = 256 << 20;

/// Blobs of one manifest whose first bytes are looked at.
const MAX_BLOBS: usize = 256;

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
    /// This module, and the place among those that are in memory.
    Bytes(Bytes, OwnedSemaphorePermit),
    /// Something that is Wasm and cannot be looked at, and why.
    Opaque(String),
    /// Something that may be Wasm or not, and why that cannot be told.
    Unknown(String),
}

/// What the first bytes of a manifest's blobs show.
type Kinds = BTreeMap<Digest, FileKind>;

/// Finds the module of a manifest whose blobs are there: the one that a pull would find, else one where others may look.
/// `turns` has a place for each module that may be in memory.
pub(super) async fn module(
    blobs: &Blobs,
    manifest: &Manifest,
    bytes: &[u8],
    turns: &Arc<Semaphore>,
) -> Result<Module, StorageError> {
    let mut kinds = Kinds::new();
    let mut unread = None;
    for blob in manifest.blobs() {
        if kinds.len() >= MAX_BLOBS {
            unread = Some(format!("it has more than {MAX_BLOBS} layers"));
            break;
        }
        if !kinds.contains_key(&blob.digest) {
            let begin = blobs.begin(&blob.digest).await?.unwrap_or_default();
            kinds.insert(blob.digest.clone(), sniff(&begin));
        }
    }
    let modules: Vec<&Descriptor> = {
        let mut seen = std::collections::BTreeSet::new();
        let is_module = |blob: &&Descriptor| kinds.get(&blob.digest).is_some_and(|kind| is_binary(*kind));
        manifest.blobs().filter(is_module).filter(|blob| seen.insert(&blob.digest)).collect()
    };
    if modules.len() > 1 {
        return Ok(Module::Opaque(format!(
            "it holds {} modules, and who pulls it may get any",
            modules.len()
        )));
    }
    let pulled = match Document::parse(bytes) {
        Ok(Document::Manifest(document)) => pulled(blobs, &document, &kinds, turns).await?,
        _ => Module::None,
    };
    match (pulled, modules.first(), unread) {
        (Module::None | Module::Unknown(_), Some(layer), _) => {
            whole(blobs, &layer.digest, layer.size, turns).await
        }
        (Module::None, None, Some(reason)) => Ok(Module::Unknown(reason)),
        (found, _, _) => Ok(found),
    }
}

/// What a pull would find.
async fn pulled(
    blobs: &Blobs,
    manifest: &read::Manifest,
    kinds: &Kinds,
    turns: &Arc<Semaphore>,
) -> Result<Module, StorageError> {
    let says_wasm = says_wasm(blobs, manifest).await?;
    let (places, _) = places(manifest);
    for place in places {
        let (layer, is_said) = match place {
            Place::Layer(layer) => (layer, LayerKind::of(&layer.media_type) == LayerKind::Wasm),
            Place::Named(layer) => (layer, false),
            Place::Image => return image(blobs, manifest, says_wasm, turns).await,
        };
        match kinds.get(&layer.digest) {
            Some(kind) if is_binary(*kind) => return whole(blobs, &layer.digest, layer.size, turns).await,
            Some(FileKind::Text) => return Ok(Module::Opaque(TEXT.to_owned())),
            Some(kind) if is_said => return Ok(Module::Opaque(format!("its module is {kind}"))),
            _ => {}
        }
    }
    Ok(Module::None)
}

const TEXT: &str = "its module is WebAssembly text, which has no token";

/// Whether it is WebAssembly in binary form, of whatever version.
fn is_binary(kind: FileKind) -> bool {
    matches!(kind, FileKind::Module | FileKind::Component | FileKind::UnknownWasm)
}

/// A layer that is a module.
async fn whole(
    blobs: &Blobs,
    digest: &Digest,
    size: u64,
    turns: &Arc<Semaphore>,
) -> Result<Module, StorageError> {
    if size > MAX_MODULE {
        return Ok(Module::Opaque(format!("its layer has {size} bytes; at most {MAX_MODULE} are looked at")));
    }
    let Ok(turn) = Arc::clone(turns).acquire_owned().await else { return Ok(Module::None) };
    Ok(match blobs.read(digest, MAX_MODULE).await? {
        Some(bytes) => Module::Bytes(bytes, turn),
        None => Module::Opaque("its layer is damaged".to_owned()),
    })
}

/// The module in the layers of an image.
async fn image(
    blobs: &Blobs,
    manifest: &read::Manifest,
    says_wasm: bool,
    turns: &Arc<Semaphore>,
) -> Result<Module, StorageError> {
    let undecided = |reason: String| match says_wasm {
        true => Module::Opaque(reason),
        false => Module::Unknown(reason),
    };
    let size = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
    if size > MAX_MODULE {
        return Ok(undecided(format!("its layers have {size} bytes; at most {MAX_MODULE} are looked at")));
    }
    let Some(config) = config(blobs, manifest).await? else {
        return Ok(undecided("its configuration cannot be read".to_owned()));
    };
    let config = ImageConfig::parse(&config).unwrap_or_default();
    let command: Vec<String> = config.command().into_iter().map(str::to_owned).collect();
    let Ok(turn) = Arc::clone(turns).acquire_owned().await else { return Ok(Module::None) };
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        let Some(bytes) = blobs.read(&layer.digest, MAX_MODULE).await? else {
            return Ok(undecided("one of its layers cannot be read".to_owned()));
        };
        layers.push(Layer { digest: layer.digest.clone(), bytes });
    }
    let found = tokio::task::spawn_blocking(move || {
        let found = image::module("the image", &layers, &command, Limits::of(MAX_MODULE));
        (found, turn)
    });
    let (found, turn) = match found.await {
        Ok(found) => found,
        Err(error) => return Ok(undecided(error.to_string())),
    };
    Ok(match found {
        Ok(Some(bytes)) if is_binary(sniff(&bytes)) => Module::Bytes(bytes, turn),
        Ok(Some(bytes)) if sniff(&bytes) == FileKind::Text => Module::Opaque(TEXT.to_owned()),
        Ok(_) if says_wasm => Module::Opaque("it says that it is for Wasm, and has no file .wasm".to_owned()),
        Ok(_) => Module::None,
        Err(RegistryError::NoModule { reason, .. } | RegistryError::Layer { reason, .. }) => {
            undecided(reason)
        }
        Err(error) => undecided(error.to_string()),
    })
}

/// The configuration of an image.
async fn config(blobs: &Blobs, manifest: &read::Manifest) -> Result<Option<Bytes>, StorageError> {
    match manifest.config.size > MAX_CONFIG {
        true => Ok(None),
        false => blobs.read(&manifest.config.digest, MAX_CONFIG).await,
    }
}

/// Whether a plain image says that what it runs is Wasm.
async fn says_wasm(blobs: &Blobs, manifest: &read::Manifest) -> Result<bool, StorageError> {
    /// What counts of an image's configuration.
    #[derive(Default, Deserialize)]
    struct Platform {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
    }
    let annotations = manifest.annotations.as_ref();
    if annotations.is_some_and(|annotations| annotations.contains_key(COMPAT_ANNOTATION)) {
        return Ok(true);
    }
    let is_tar = |layer: &read::Descriptor| LayerKind::of(&layer.media_type) == LayerKind::Tar;
    if !manifest.layers.iter().any(is_tar) {
        return Ok(false);
    }
    let Some(text) = config(blobs, manifest).await? else { return Ok(false) };
    let platform: Platform = serde_json::from_slice(&text).unwrap_or_default();
    let config = ImageConfig::parse(&text).unwrap_or_default();
    // An entrypoint may name a function behind the file.
    let program = config.command().first().and_then(|word| word.split('#').next()).unwrap_or_default();
    Ok(platform.architecture.starts_with("wasm")
        || platform.os.starts_with("wasi")
        || program.ends_with(".wasm"))
}
