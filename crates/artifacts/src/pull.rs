//! From a reference to a module: which manifest, whether it is trusted, which of its layers, which file in them.
//!
//! `pull/signature.rs` is about trust.
//!
//! Nothing is looked at whose digest was not verified, and nothing is downloaded before its announced size was found
//! to be acceptable.

mod signature;

use crate::access::Access;
use crate::client::Client;
use crate::client::error::RegistryError;
use crate::client::transport::bytes_of;
use crate::cosign;
use crate::digest::Digest;
use crate::image::{self, Layer, Limits};
use crate::manifest::{Descriptor, Document, ImageConfig, Index, MAX_CONFIG, MAX_MANIFEST, Manifest};
use crate::place::{Place, places};
use crate::progress::Progress;
use crate::reference::{Reference, Selector, highest};
use crate::sniff::sniff;
use crate::store::{DEFAULT_MAX_BYTES, Partial, Remembered, Store};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::Semaphore;

/// Layers that are downloaded side by side.
const AT_ONCE: usize = 4;

/// Indexes may lead to indexes, so deep.
const MAX_DEPTH: usize = 3;

/// What marks a manifest in an index that describes another one.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// A module from a registry.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What begins like WebAssembly, or not: whoever asked looks at it.
    pub module: Bytes,
    /// The reference with the tag that a range led to.
    pub reference: Reference,
    /// The digest that the reference led to: of a manifest, or of an index.
    pub digest: Digest,
}

/// Pulls the module of at most `limit` bytes that a reference names. `progress` is told how many bytes of layers are
/// there, and how many there will be.
pub async fn pull(
    reference: &Reference,
    access: &Access,
    limit: u64,
    progress: &mut (dyn FnMut(u64, Option<u64>) + Send),
) -> Result<Pulled, RegistryError> {
    let client = match access.offline {
        true => None,
        false => Some(Client::new(reference.registry(), access)?),
    };
    let session = Session {
        store: Store::open(&access.places().downloads, DEFAULT_MAX_BYTES)?,
        client,
        reference,
        progress: Progress::new(progress),
        limit,
    };
    let (reference, digest) = session.resolve().await?;
    if let Some(path) = &access.cosign_key {
        let key =
            cosign::Key::read(path).map_err(|reason| RegistryError::File { path: path.clone(), reason })?;
        session.check_signature(&key, &digest).await?;
    }
    let manifest = session.manifest(&digest).await?;
    let module = session.module(&manifest).await?;
    let store = session.store;
    // Only after all of it is here: what was just downloaded is the newest.
    let _ = tokio::task::spawn_blocking(move || store.evict()).await;
    Ok(Pulled { module, reference, digest })
}

/// One pull.
struct Session<'a> {
    store: Store,
    /// None without a network.
    client: Option<Client>,
    reference: &'a Reference,
    progress: Progress<'a>,
    limit: u64,
}

// === impl Session ===

impl Session<'_> {
    /// What the reference leads to.
    async fn resolve(&self) -> Result<(Reference, Digest), RegistryError> {
        let tag = match self.reference.selector() {
            Selector::Digest(digest) => return Ok((self.reference.clone(), digest.clone())),
            Selector::Tag(tag) => tag.clone(),
            Selector::Range(range) => match &self.client {
                Some(client) => self.highest(client, range).await?,
                None => {
                    let known = self.store.recall(&self.reference.to_string());
                    known.ok_or_else(|| self.offline(&self.reference.to_string()))?.tag
                }
            },
        };
        let reference = self.reference.with_selector(Selector::Tag(tag.clone()));
        let digest = self.tag(&tag).await?;
        if reference != *self.reference {
            tracing::info!("{} is {tag} ({digest})", self.reference);
            let known = Remembered { tag, digest: digest.clone() };
            self.store.remember(&self.reference.to_string(), &known)?;
        }
        Ok((reference, digest))
    }

    /// The tag that is the highest version of the range.
    async fn highest(&self, client: &Client, range: &str) -> Result<String, RegistryError> {
        let tags = client.tags(self.reference.repository()).await?;
        let found = highest(range, tags.iter().map(String::as_str)).map(str::to_owned);
        found.ok_or_else(|| RegistryError::NoVersion {
            repository: format!("{}/{}", self.reference.registry(), self.reference.repository()),
            range: range.to_owned(),
            found: tags,
        })
    }

    /// What a tag leads to now; without a network, what it led to last.
    async fn tag(&self, tag: &str) -> Result<Digest, RegistryError> {
        let name = self.reference.with_selector(Selector::Tag(tag.to_owned())).to_string();
        let Some(client) = &self.client else {
            return Ok(self.store.recall(&name).ok_or_else(|| self.offline(&name))?.digest);
        };
        let repository = self.reference.repository();
        let said = match client.digest_of(repository, tag).await {
            // Why it is not there is said to who asks for it.
            Err(RegistryError::NotFound { .. }) => None,
            said => said?,
        };
        // A manifest that is here already is not downloaded again.
        let digest = match said {
            Some(digest) if self.read(&digest).await?.is_some() => digest,
            _ => {
                let raw = client.manifest(repository, tag).await?;
                self.store.write(&raw.digest, &raw.bytes)?;
                raw.digest
            }
        };
        self.store.remember(&name, &Remembered { tag: tag.to_owned(), digest: digest.clone() })?;
        Ok(digest)
    }

    /// The manifest for this host, perhaps through indexes.
    async fn manifest(&self, digest: &Digest) -> Result<Manifest, RegistryError> {
        let mut digest = digest.clone();
        for _ in 0..MAX_DEPTH {
            match self.document(&digest).await? {
                Document::Manifest(manifest) => return Ok(*manifest),
                Document::Index(index) => digest = self.choose(index)?.digest,
            }
        }
        Err(self.no_module(format!("its indexes lead to indexes, more than {MAX_DEPTH} deep")))
    }

    async fn document(&self, digest: &Digest) -> Result<Document, RegistryError> {
        let what = || format!("the manifest {digest} of {}", self.reference);
        let bytes = match (self.read(digest).await?, &self.client) {
            (Some(bytes), _) => bytes,
            (None, None) => return Err(self.offline(&what())),
            (None, Some(client)) => {
                let raw = client.manifest(self.reference.repository(), &digest.to_string()).await?;
                self.store.write(digest, &raw.bytes)?;
                raw.bytes
            }
        };
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(RegistryError::Limit { what: what(), limit: bytes_of(MAX_MANIFEST) });
        }
        Document::parse(&bytes).map_err(|reason| RegistryError::Malformed { what: what(), reason })
    }

    /// The manifest of an index that is for Wasm; one that is alone is taken whatever it is for.
    fn choose(&self, index: Index) -> Result<Descriptor, RegistryError> {
        let mut candidates: Vec<Descriptor> = index
            .manifests
            .into_iter()
            .filter(|manifest| manifest.annotation(ATTESTATION).is_none())
            .collect();
        let rank = |manifest: &Descriptor| manifest.platform.as_ref().and_then(|platform| platform.rank());
        if let Some(best) = candidates
            .iter()
            .filter(|manifest| rank(manifest).is_some())
            .min_by_key(|manifest| rank(manifest))
        {
            return Ok(best.clone());
        }
        match (candidates.pop(), candidates.len()) {
            (Some(only), 0) => Ok(only),
            (last, _) => {
                let platforms = candidates.iter().chain(&last).map(|manifest| match &manifest.platform {
                    Some(platform) => platform.to_string(),
                    None => "no platform".to_owned(),
                });
                let platforms: Vec<String> = platforms.take(10).collect();
                Err(self.no_module(format!(
                    "none of its platforms is wasi/wasm, wasip1/wasm or wasip2/wasm; it has {}",
                    if platforms.is_empty() { "none".to_owned() } else { platforms.join(", ") }
                )))
            }
        }
    }

    /// The module of a manifest.
    async fn module(&self, manifest: &Manifest) -> Result<Bytes, RegistryError> {
        let (places, nowhere) = places(manifest);
        for place in places {
            match place {
                Place::Layer(layer) => return self.layer(layer).await,
                Place::Image => return self.image(manifest).await,
                Place::Named(layer) => {
                    let bytes = self.layer(layer).await?;
                    if sniff(&bytes).is_wasm() {
                        return Ok(bytes);
                    }
                }
            }
        }
        Err(self.no_module(nowhere.unwrap_or_default()))
    }

    /// One layer that is the module.
    async fn layer(&self, layer: &Descriptor) -> Result<Bytes, RegistryError> {
        if layer.size > self.limit {
            let what = format!("the layer {} of {}", layer.digest, self.reference);
            return Err(RegistryError::Limit { what, limit: bytes_of(self.limit) });
        }
        self.content(layer).await
    }

    /// The module in the layers of an image.
    async fn image(&self, manifest: &Manifest) -> Result<Bytes, RegistryError> {
        let sizes = manifest.layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
        if sizes > self.limit {
            let what = format!("the image {}", self.reference);
            return Err(RegistryError::Limit { what, limit: bytes_of(self.limit) });
        }
        if manifest.config.size > MAX_CONFIG {
            let what = format!("the configuration of {}", self.reference);
            return Err(RegistryError::Limit { what, limit: bytes_of(MAX_CONFIG) });
        }
        let config = self.content(&manifest.config).await?;
        // A configuration of another kind names no entrypoint.
        let config = ImageConfig::parse(&config).unwrap_or_default();
        let slots = Semaphore::new(AT_ONCE);
        let layers = try_join_all(manifest.layers.iter().map(async |layer| {
            // The semaphore is never closed.
            let _slot = slots.acquire().await;
            let bytes = self.content(layer).await?;
            Ok::<_, RegistryError>(Layer { digest: layer.digest.clone(), bytes })
        }))
        .await?;
        let command: Vec<String> = config.command().into_iter().map(str::to_owned).collect();
        let limits = Limits::of(self.limit);
        let reference = self.reference.to_string();
        let found =
            tokio::task::spawn_blocking(move || image::module(&reference, &layers, &command, limits)).await;
        let found = found.unwrap_or_else(|panicked| Err(self.no_module(panicked.to_string())))?;
        found.ok_or_else(|| {
            self.no_module("the image holds no .wasm file; is it for another system?".to_owned())
        })
    }

    /// Content that a manifest names: out of the folder of downloads, or downloaded into it.
    async fn content(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        let what = || format!("the content {} of {}", descriptor.digest, self.reference);
        let bytes = match (self.read(&descriptor.digest).await?, &self.client) {
            (Some(bytes), _) => bytes,
            (None, None) => return Err(self.offline(&what())),
            (None, Some(client)) => {
                self.progress.expect(descriptor.size);
                let mut partial = self.partial(descriptor).await?;
                let downloaded = client
                    .download(self.reference.repository(), descriptor, &mut partial, &self.progress)
                    .await;
                match downloaded {
                    Ok(()) => partial.finish()?,
                    Err(error @ RegistryError::Size { .. }) => {
                        partial.discard();
                        return Err(error);
                    }
                    Err(error) => return Err(error),
                }
                let read = self.read(&descriptor.digest).await?;
                read.ok_or_else(|| RegistryError::Store {
                    path: self.store.folder().to_owned(),
                    reason: format!("{} is gone right after it was written", descriptor.digest),
                })?
            }
        };
        if bytes.len() as u64 != descriptor.size {
            let (expected, found) = (descriptor.size, bytes.len() as u64);
            return Err(RegistryError::Size { what: what(), expected, found });
        }
        Ok(bytes)
    }

    /// What is there already is hashed, which takes long for a large module.
    async fn partial(&self, descriptor: &Descriptor) -> Result<Partial, RegistryError> {
        let (store, digest, size) = (self.store.clone(), descriptor.digest.clone(), descriptor.size);
        let opened = tokio::task::spawn_blocking(move || store.partial(&digest, size)).await;
        opened.unwrap_or_else(|panicked| Err(self.no_module(panicked.to_string())))
    }

    /// Reading verifies the digest, which takes long for a large module; the executor's threads have other work.
    async fn read(&self, digest: &Digest) -> Result<Option<Bytes>, RegistryError> {
        let (store, digest) = (self.store.clone(), digest.clone());
        let read = tokio::task::spawn_blocking(move || store.read(&digest)).await;
        match read.unwrap_or(Ok(None)) {
            Ok(found) => Ok(found),
            // There is no other one to be had: it stays, so that the next try is told the same.
            Err(path) if self.client.is_none() => Err(RegistryError::Damaged { path }),
            Err(path) => {
                tracing::warn!("{} is damaged; downloading it again", path.display());
                self.store.discard(&path);
                Ok(None)
            }
        }
    }

    fn offline(&self, what: &str) -> RegistryError {
        RegistryError::Offline { what: what.to_owned() }
    }

    fn no_module(&self, reason: String) -> RegistryError {
        RegistryError::NoModule { reference: self.reference.to_string(), reason }
    }
}
