//! Manifests and indexes as they are read here: what they refer to, and what they are
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>, `image-index.md`; Docker's before them).

use super::refusal::Refusal;
use crate::digest::Digest;
use crate::manifest::null_is_empty;
use crate::media_type;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes of a manifest at most; the specification's lower bound for registries.
pub(super) const MAX_MANIFEST: usize = 4 << 20;

/// Things that one manifest refers to.
const MAX_REFERENCES: usize = 10_000;

/// The manifest of artifacts that was dropped before OCI 1.1 was done; older tools still push it.
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// Media types of layers that are somewhere else.
const FOREIGN: [&str; 2] =
    ["application/vnd.docker.image.rootfs.foreign", "application/vnd.oci.image.layer.nondistributable"];

/// A manifest or index.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) layers: Vec<Descriptor>,
    /// Of the manifest of artifacts.
    #[serde(default, deserialize_with = "null_is_empty")]
    blobs: Vec<Descriptor>,
    /// Of an index.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(super) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(super) subject: Option<Descriptor>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// What refers to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

// === impl Manifest ===

impl Manifest {
    /// Reads a manifest that was pushed with this `Content-Type`; the answer has the media type that counts.
    pub(super) fn read(bytes: &[u8], content_type: Option<&str>) -> Result<(Manifest, String), Refusal> {
        let invalid = |reason: String| Refusal::ManifestInvalid(reason);
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("no manifest in JSON: {error}")))?;
        let said = content_type.map(|said| said.split(';').next().unwrap_or_default().trim());
        let media_type = match (manifest.media_type.as_deref(), said.filter(|said| !said.is_empty())) {
            (Some(inside), Some(outside)) if inside != outside => {
                return Err(invalid(format!(
                    "its mediaType is {inside:?}, and the Content-Type {outside:?}"
                )));
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type.to_owned(),
            (None, None) => {
                return Err(invalid("neither mediaType nor Content-Type say what it is".to_owned()));
            }
        };
        let is_known = media_type::MANIFESTS.contains(&media_type.as_str()) || media_type == OCI_ARTIFACT;
        if !is_known {
            return Err(invalid(format!(
                "its type {media_type:?} is none of {}",
                media_type::MANIFESTS.join(", ")
            )));
        }
        if manifest.schema_version != 2 && media_type != OCI_ARTIFACT {
            return Err(invalid(format!("its schemaVersion is {}, and not 2", manifest.schema_version)));
        }
        let is_index = media_type::is_index(&media_type);
        match (is_index, manifest.config.is_some(), manifest.manifests.is_empty()) {
            (true, true, _) => return Err(invalid("an index has no config".to_owned())),
            (true, false, _) if !manifest.layers.is_empty() => {
                return Err(invalid("an index has no layers".to_owned()));
            }
            (false, _, false) => return Err(invalid("only an index has manifests".to_owned())),
            (false, false, _) if media_type != OCI_ARTIFACT => {
                return Err(invalid("it has no config".to_owned()));
            }
            _ => {}
        }
        let references = manifest.layers.len() + manifest.blobs.len() + manifest.manifests.len();
        if references > MAX_REFERENCES {
            return Err(invalid(format!("it refers to {references} things; at most {MAX_REFERENCES}")));
        }
        Ok((manifest, media_type))
    }

    /// The blobs that it cannot do without.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let here = |blob: &&Descriptor| !FOREIGN.iter().any(|foreign| blob.media_type.starts_with(foreign));
        self.config.iter().chain(&self.layers).chain(&self.blobs).filter(here)
    }

    /// What it is for, as others find it beside its subject.
    pub(super) fn kind(&self) -> Option<&str> {
        let config = || self.config.as_ref().map(|config| config.media_type.as_str());
        self.artifact_type.as_deref().filter(|kind| !kind.is_empty()).or_else(config)
    }
}

#[cfg(test)]
mod tests {
    use super::Manifest;

    const BLOB: &str = r#"{"mediaType": "a/b", "size": 2, "digest":
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#;

    #[test]
    fn only_what_is_a_manifest_is_one() {
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let index = "application/vnd.oci.image.index.v1+json";
        let cases = [
            (format!(r#"{{"schemaVersion": 2, "config": {BLOB}, "layers": [{BLOB}]}}"#), Some(oci), true),
            (format!(r#"{{"schemaVersion": 2, "config": {BLOB}}}"#), Some(oci), true),
            (format!(r#"{{"schemaVersion": 2, "config": {BLOB}, "layers": null}}"#), Some(oci), true),
            (r#"{"schemaVersion": 2, "manifests": null}"#.to_owned(), Some(index), true),
            (format!(r#"{{"schemaVersion": 2, "manifests": [{BLOB}]}}"#), Some(index), true),
            (r#"{"schemaVersion": 2, "manifests": []}"#.to_owned(), Some(index), true),
            (format!(r#"{{"schemaVersion": 2, "mediaType": "{oci}", "config": {BLOB}}}"#), None, true),
            (
                format!(r#"{{"schemaVersion": 2, "config": {BLOB}}}"#),
                Some("application/vnd.oci.image.manifest.v1+json; charset=utf-8"),
                true,
            ),
            (format!(r#"{{"schemaVersion": 2, "config": {BLOB}}}"#), None, false),
            (format!(r#"{{"schemaVersion": 1, "config": {BLOB}}}"#), Some(oci), false),
            (format!(r#"{{"config": {BLOB}}}"#), Some(oci), false),
            (format!(r#"{{"schemaVersion": 2, "config": {BLOB}}}"#), Some(index), false),
            (format!(r#"{{"schemaVersion": 2, "manifests": [{BLOB}]}}"#), Some(oci), false),
            (
                format!(r#"{{"schemaVersion": 2, "mediaType": "{index}", "config": {BLOB}}}"#),
                Some(oci),
                false,
            ),
            (format!(r#"{{"schemaVersion": 2, "config": {BLOB}}}"#), Some("text/plain"), false),
            (
                r#"{"schemaVersion": 2, "config": {"mediaType": "a/b", "size": -1}}"#.to_owned(),
                Some(oci),
                false,
            ),
            ("[]".to_owned(), Some(oci), false),
            (String::new(), Some(oci), false),
        ];
        for (text, content_type, legal) in cases {
            let read = Manifest::read(text.as_bytes(), content_type);
            assert_eq!(read.is_ok(), legal, "{text}: {read:?}");
        }
    }
}
