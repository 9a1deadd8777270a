//! A module to a registry, as today's Wasm artifact
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>): a configuration that says what it imports
//! and exports, one layer, and as many tags as wanted.

use crate::access::Access;
use crate::client::Client;
use crate::client::error::RegistryError;
use crate::digest::Digest;
use crate::manifest::{Annotations, Descriptor, Interfaces, Manifest, WasmConfig};
use crate::media_type;
use crate::reference::{Reference, ReferenceError, Selector, is_tag};
use bytes::Bytes;

/// A module and what is said of it.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The module, in binary form.
    pub module: Bytes,
    /// What it imports and exports, if it is a component.
    pub component: Option<Interfaces>,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Who made it.
    pub author: Option<String>,
    /// The name of its file.
    pub title: Option<String>,
    /// Notes.
    pub annotations: Annotations,
}

/// What was pushed.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// The digest of the manifest.
    pub digest: Digest,
    /// Whether the module was sent; if not, the registry had it.
    pub sent: bool,
    /// The references under which it is now.
    pub references: Vec<Reference>,
}

/// Pushes an artifact under the reference's tag and under these.
pub async fn push(
    reference: &Reference,
    tags: &[String],
    artifact: &Artifact,
    access: &Access,
) -> Result<Pushed, RegistryError> {
    let refused = |reason: &str| {
        RegistryError::Reference(ReferenceError { text: reference.to_string(), reason: reason.to_owned() })
    };
    let Selector::Tag(first) = reference.selector() else {
        return Err(refused(
            "what is pushed gets a tag; its digest follows from it, and a range is for pulls",
        ));
    };
    if let Some(tag) = tags.iter().find(|tag| !is_tag(tag)) {
        return Err(refused(&format!("{tag:?} is no tag (at most 128 letters, digits, _ . -)")));
    }
    if access.offline {
        return Err(RegistryError::Offline { what: format!("{reference} cannot be pushed: the registry") });
    }
    let (config, manifest) = artifact.documents();
    let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap_or_default());
    let client = Client::new(reference.registry(), access)?;
    let repository = reference.repository();
    let module = Digest::sha256(&artifact.module);
    let sent = client.upload(repository, &module, artifact.module.clone()).await?;
    client.upload(repository, &Digest::sha256(&config), config).await?;
    let mut names = vec![first.clone()];
    names.extend(tags.iter().filter(|tag| *tag != first).cloned());
    let mut references = Vec::new();
    let digest = Digest::sha256(&manifest);
    for tag in names {
        client.upload_manifest(repository, &tag, media_type::OCI_MANIFEST, manifest.clone()).await?;
        references.push(reference.with_selector(Selector::Tag(tag)));
    }
    Ok(Pushed { digest, sent, references })
}

// === impl Artifact ===

impl Artifact {
    /// The configuration, and the manifest that names it.
    fn documents(&self) -> (Bytes, Manifest) {
        let mut layer = Descriptor::of(media_type::WASM, &self.module);
        let title = "org.opencontainers.image.title".to_owned();
        layer.annotations = self.title.clone().map(|name| [(title, name)].into());
        let config = WasmConfig {
            created: self.created.clone(),
            author: self.author.clone(),
            architecture: "wasm".to_owned(),
            os: if self.component.is_some() { "wasip2" } else { "wasip1" }.to_owned(),
            layer_digests: vec![layer.digest.clone()],
            component: self.component.clone(),
        };
        let config = Bytes::from(serde_json::to_vec(&config).unwrap_or_default());
        let mut annotations = self.annotations.clone();
        annotations
            .entry("org.opencontainers.image.created".to_owned())
            .or_insert_with(|| self.created.clone());
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of(media_type::WASM_CONFIG, &config),
            layers: vec![layer],
            subject: None,
            annotations: Some(annotations),
        };
        (config, manifest)
    }
}
