//! Whether what is pulled was signed with the key that the user names: where registries keep signatures of cosign. What
//! a signature is, [`cosign`] knows.

use super::Session;
use crate::client::error::RegistryError;
use crate::client::transport::bytes_of;
use crate::cosign;
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document};
use crate::media_type;
use crate::reference::Selector;
use crate::store::Remembered;
use bytes::Bytes;

impl Session<'_> {
    /// Whether somebody with the key has signed what has this digest.
    pub(super) async fn check_signature(
        &self,
        key: &cosign::Key,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let mut reason = "it has no signature".to_owned();
        if let Some(found) = self.attached(&cosign::signature_tag(digest)).await?
            && let Document::Manifest(manifest) = self.document(&found).await?
        {
            let signatures =
                manifest.layers.iter().filter(|layer| layer.media_type == media_type::SIMPLE_SIGNING);
            for layer in signatures.take(cosign::MAX_SIGNATURES) {
                let Some(signature) = layer.annotation(cosign::SIGNATURE) else { continue };
                let document = self.signed(layer).await?;
                match key.verify(&document, signature, digest) {
                    Ok(()) => return Ok(()),
                    Err(wrong) => reason = wrong,
                }
            }
        }
        for bundle in self.bundles(digest).await? {
            let Document::Manifest(manifest) = self.document(&bundle.digest).await? else { continue };
            let layers = manifest.layers.iter();
            for layer in
                layers.filter(|layer| layer.media_type.starts_with(media_type::SIGSTORE_BUNDLE)).take(4)
            {
                let bundle = self.signed(layer).await?;
                match key.verify_bundle(&bundle, digest) {
                    Ok(()) => return Ok(()),
                    Err(wrong) => reason = wrong,
                }
            }
        }
        Err(RegistryError::Signature {
            reference: self.reference.to_string(),
            digest: digest.clone(),
            reason,
        })
    }

    /// Manifests of bundles that are attached to a manifest. The list is remembered as the tag that stands for it where
    /// the registry has none of its own.
    async fn bundles(&self, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let tag = cosign::referrers_tag(digest);
        let listed = match &self.client {
            Some(client) => client.referrers(self.reference.repository(), digest).await?,
            None => None,
        };
        let index = match listed {
            Some(index) => {
                let bytes = serde_json::to_vec(&index).unwrap_or_default();
                let known = Remembered { tag: tag.clone(), digest: Digest::sha256(&bytes) };
                self.store.write(&known.digest, &bytes)?;
                let name = self.reference.with_selector(Selector::Tag(tag)).to_string();
                self.store.remember(&name, &known)?;
                index
            }
            None => {
                let Some(found) = self.attached(&tag).await? else { return Ok(Vec::new()) };
                match self.document(&found).await? {
                    Document::Index(index) => index,
                    Document::Manifest(_) => return Ok(Vec::new()),
                }
            }
        };
        let is_bundle = |manifest: &Descriptor| {
            let kind = manifest.artifact_type.as_deref().unwrap_or_default();
            kind.is_empty() || kind.starts_with(media_type::SIGSTORE_BUNDLE)
        };
        Ok(index.manifests.into_iter().filter(is_bundle).take(cosign::MAX_SIGNATURES).collect())
    }

    /// What a tag leads to that need not be there, with a network or without.
    async fn attached(&self, tag: &str) -> Result<Option<Digest>, RegistryError> {
        match self.tag(tag).await {
            Err(RegistryError::Offline { .. } | RegistryError::NotFound { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    async fn signed(&self, layer: &Descriptor) -> Result<Bytes, RegistryError> {
        if layer.size > cosign::MAX_DOCUMENT {
            let what = format!("the signature {} of {}", layer.digest, self.reference);
            return Err(RegistryError::Limit { what, limit: bytes_of(cosign::MAX_DOCUMENT) });
        }
        self.content(layer).await
    }
}
