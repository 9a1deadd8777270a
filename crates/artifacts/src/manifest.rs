//! Manifests and indexes, as registries hold them
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md>, `image-index.md`), Docker's with them,
//! which differ in nothing that is read here.
//!
//! Types of our own, since what comes from a registry is checked while it is read: digests are digests, sizes are not
//! negative, and a document is a manifest or an index but never both.

use crate::digest::Digest;
use crate::media_type;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The largest manifest or index that is read: 4 MiB, which is what registries take.
pub const MAX_MANIFEST: u64 = 4 << 20;

/// The largest configuration that is read.
pub const MAX_CONFIG: u64 = 4 << 20;

/// Layers of an image. Docker's own limit is 127.
pub const MAX_LAYERS: usize = 256;

/// Notes of whoever made it, by name.
pub type Annotations = BTreeMap<String, String>;

/// Names some content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What it is for, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What it is, of an artifact in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `wasm`, `amd64`, …
    #[serde(default)]
    pub architecture: String,
    /// `wasi`, `wasip1`, `linux`, …
    #[serde(default)]
    pub os: String,
}

/// An image or an artifact: a configuration and layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is, where the configuration does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// How it is run.
    pub config: Descriptor,
    /// What it holds. Some tools write `null` for nothing.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// Manifests for several platforms, or about one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// What the document is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
}

/// One or the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A manifest.
    Manifest(Box<Manifest>),
    /// An index.
    Index(Index),
}

/// The configuration of a Wasm artifact
/// (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WasmConfig {
    /// When it was made (RFC 3339).
    pub created: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `wasm`.
    pub architecture: String,
    /// `wasip1` for modules, `wasip2` for components.
    pub os: String,
    /// Digests of the layers: one.
    pub layer_digests: Vec<Digest>,
    /// What a component imports and exports; none for modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<Interfaces>,
}

/// What a component imports and exports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interfaces {
    /// Names with versions.
    pub exports: Vec<String>,
    /// Names with versions.
    pub imports: Vec<String>,
}

/// What is read of an image's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct ImageConfig {
    #[serde(default)]
    config: Option<ImageProcess>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageProcess {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

// === impl Document ===

impl Document {
    /// Reads a document. What it holds says what it is, and what it calls itself must be the same; what a registry calls
    /// it is not covered by its digest and does not count.
    pub fn parse(bytes: &[u8]) -> Result<Document, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Outline {
            schema_version: u32,
            media_type: Option<String>,
            #[serde(default)]
            layers: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            config: Option<serde::de::IgnoredAny>,
            #[serde(default, deserialize_with = "is_there")]
            manifests: bool,
        }
        /// Also `null` is something here: what else would it be that calls itself nothing and has this?
        fn is_there<'de, D: serde::Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
            serde::de::IgnoredAny::deserialize(value).map(|_| true)
        }
        let outline: Outline = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if outline.schema_version != 2 {
            return Err(format!(
                "its schemaVersion is {}; only 2 is read: push it again with a tool of today",
                outline.schema_version
            ));
        }
        // Two readers of one document must not see two things (CVE-2021-41190).
        if outline.layers.is_some() && outline.manifests {
            return Err("it is a manifest and an index at the same time".to_owned());
        }
        let media_type = outline.media_type.unwrap_or_default();
        let is_index = outline.manifests && outline.config.is_none();
        if media_type::MANIFESTS.contains(&media_type.as_str())
            && media_type::is_index(&media_type) != is_index
        {
            return Err(format!("it calls itself {media_type} and is something else"));
        }
        let document = match is_index {
            true => serde_json::from_slice(bytes).map(Document::Index),
            false => serde_json::from_slice(bytes).map(Document::Manifest),
        };
        match document.map_err(|error| error.to_string())? {
            Document::Manifest(manifest) if manifest.layers.len() > MAX_LAYERS => {
                Err(format!("it has {} layers, and at most {MAX_LAYERS} are read", manifest.layers.len()))
            }
            document => Ok(document),
        }
    }
}

/// Reads a list that some tools write as `null` where nothing is in it.
pub(crate) fn null_is_empty<'de, D, T>(value: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(value).map(Option::unwrap_or_default)
}

// === impl Platform ===

impl Platform {
    /// How well it suits this host: lower is better; none if it is for something else.
    pub(crate) fn rank(&self) -> Option<usize> {
        const SYSTEMS: [&str; 4] = ["wasip2", "wasi", "wasip1", "wasip3"];
        let is_wasm = self.architecture == "wasm" || self.architecture == "wasm32";
        SYSTEMS.iter().position(|system| is_wasm && *system == self.os)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

// === impl Descriptor ===

impl Descriptor {
    /// Of this content.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            platform: None,
            artifact_type: None,
            annotations: None,
        }
    }

    /// A note.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

// === impl ImageConfig ===

impl ImageConfig {
    pub(crate) fn parse(bytes: &[u8]) -> Result<ImageConfig, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// What would be started: the entrypoint, then its arguments.
    pub(crate) fn command(&self) -> Vec<&str> {
        let Some(process) = &self.config else { return Vec::new() };
        let words = process.entrypoint.iter().chain(&process.cmd).flatten();
        words.map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Document, Platform};

    #[test]
    fn a_document_is_one_thing() {
        let config = r#""config": {"mediaType": "a", "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0}"#;
        let manifest = |rest: &str| format!(r#"{{"schemaVersion": 2, {config}, "layers": [] {rest}}}"#);
        let negative = manifest("").replace("\"size\": 0", "\"size\": -1");
        let cases = [
            (manifest(""), Ok(())),
            (manifest(r#", "annotations": null"#), Ok(())),
            (r#"{"schemaVersion": 2, "manifests": []}"#.to_owned(), Ok(())),
            (r#"{"schemaVersion": 2, "manifests": null}"#.to_owned(), Ok(())),
            (manifest("").replace("[]", "null"), Ok(())),
            (manifest(r#", "manifests": []"#), Err("at the same time")),
            (manifest(r#", "mediaType": "application/vnd.oci.image.index.v1+json""#), Err("something else")),
            (r#"{"schemaVersion": 1, "fsLayers": []}"#.to_owned(), Err("only 2")),
            (negative, Err("invalid value")),
            (manifest("").replace("sha256:e3", "sha256:../e3"), Err("is no digest")),
            ("[]".to_owned(), Err("invalid")),
            (String::new(), Err("EOF")),
        ];
        for (text, expected) in cases {
            match (Document::parse(text.as_bytes()), expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(part)) if error.contains(part) => {}
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn platforms_are_ranked() {
        let platform =
            |os: &str, architecture: &str| Platform { os: os.into(), architecture: architecture.into() };
        assert!(platform("wasip2", "wasm").rank() < platform("wasi", "wasm32").rank());
        assert_eq!(platform("linux", "amd64").rank(), None);
        assert_eq!(platform("linux", "wasm").rank(), None);
    }
}
