//! Files and folders that go from step to step.
//!
//! | file | subject |
//! |---|---|
//! | `archive` | a file or folder into what is stored |
//! | `unpack` | what is stored into a file or folder, however hostile |
//! | `repository` | the folder that all of it is kept in |
//!
//! Field names and rules: Argo's `Artifact` and its executor's save and load.

pub(crate) mod archive;
pub mod repository;
#[cfg(test)]
mod tests;
pub(crate) mod unpack;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A file or folder with a name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Where the step finds or leaves it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Permission bits, 0 to 0777.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Whether the bits are for everything inside, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recurse_mode: Option<bool>,
    /// It need not be there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// A part of what is stored.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
    /// How it is packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// A tag: another artifact.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// An expression whose value is another artifact.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from_expression: String,
    /// Its name in `workflow.outputs.artifacts`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub global_name: String,
    /// When it is thrown away.
    #[serde(rename = "artifactGC", skip_serializing_if = "Option::is_none")]
    pub artifact_gc: Option<Value>,
    /// The location: one of `s3`, `gcs`, `raw`, ….
    #[serde(flatten)]
    pub location: BTreeMap<String, Value>,
}

/// How an artifact is packed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Archive {
    /// As it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<Value>,
    /// tar, gzipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tar: Option<Tar>,
    /// zip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zip: Option<Value>,
}

/// A tar archive.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Tar {
    /// gzip's level, 0 (not packed) to 9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<i32>,
}

/// How an artifact is to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    None,
    /// tar, gzipped at this level; none: gzip's own default.
    Tar(Option<u32>),
    /// zip.
    Zip,
}

/// Where an artifact is.
#[derive(Clone, Debug, PartialEq)]
pub enum Location {
    /// Nowhere yet.
    None,
    /// Under this key of the repository.
    Key(String),
    /// In the workflow itself.
    Raw(String),
    /// Somewhere that this repository is not; its kind, and why.
    Elsewhere(String),
}

/// The kinds of location whose key alone names a place in the repository.
const KEYED: [(&str, &str); 5] =
    [("s3", "key"), ("gcs", "key"), ("oss", "key"), ("azure", "blob"), ("hdfs", "path")];

// === impl Artifact ===

impl Artifact {
    /// Where it is.
    pub fn location(&self) -> Location {
        for (kind, place) in &self.location {
            if kind == "raw" {
                let data = place.get("data").map(crate::model::scalar_text);
                return Location::Raw(data.unwrap_or_default());
            }
            let Some((_, field)) = KEYED.iter().find(|(known, _)| known == kind) else {
                if ["http", "git", "artifactory", "plugin"].contains(&kind.as_str()) {
                    return Location::Elsewhere(format!("a location of kind `{kind}`"));
                }
                continue;
            };
            let outside = ["bucket", "endpoint", "container", "addresses"];
            if let Some(field) = outside.iter().find(|field| place.get(**field).is_some()) {
                return Location::Elsewhere(format!("a `{kind}` location with a `{field}` of its own"));
            }
            return match place.get(*field).map(crate::model::scalar_text) {
                Some(key) if !key.is_empty() => Location::Key(key),
                _ => Location::None,
            };
        }
        Location::None
    }

    /// Says that it is under this key of the repository, as Argo's status does.
    pub fn set_key(&mut self, key: &str) {
        let mut place = Map::new();
        place.insert("key".to_owned(), key.into());
        self.location = BTreeMap::from([("s3".to_owned(), Value::Object(place))]);
    }

    /// How it is to be saved.
    pub fn packing(&self) -> Packing {
        match &self.archive {
            Some(Archive { none: Some(_), .. }) => Packing::None,
            Some(Archive { zip: Some(_), .. }) => Packing::Zip,
            Some(Archive { tar: Some(tar), .. }) => {
                Packing::Tar(tar.compression_level.map(|level| u32::try_from(level.clamp(0, 9)).unwrap_or(0)))
            }
            _ => Packing::Tar(None),
        }
    }

    /// What a stored artifact of this kind is called.
    pub fn file_name(&self) -> String {
        let ending = match self.packing() {
            Packing::Tar(_) => ".tgz",
            Packing::Zip => ".zip",
            Packing::None => {
                let base = self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                return if base.is_empty() { self.name.clone() } else { base.to_owned() };
            }
        };
        format!("{}{ending}", self.name)
    }
}
