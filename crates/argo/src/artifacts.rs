//! Files and folders that go from step to step.
//!
//! | file | subject |
//! |---|---|
//! | `archive`, `zip` | a file or folder into what is stored |
//! | `unpack` | what is stored into a file or folder, however hostile |
//! | [`repository`] | artifacts by their keys, and those that are elsewhere |
//! | [`config`] | where they are kept, out of Argo's own files |
//! | `place` | locations, as a workflow or a configuration says them |
//! | `store` | the seam to what keeps them, which is one of the following |
//! | `folder`, `s3`, `cloud`, `http` | a folder of this machine, buckets of S3, of Google and Azure, web servers |
//! | `git` | repositories of Git, from which artifacts only come |
//! | `stream` | bytes between threads that block and the network |
//!
//! Field names and rules: Argo's `Artifact` and its executor's save and load.

pub(crate) mod archive;
#[cfg(feature = "gcs-azure")]
mod cloud;
pub mod config;
mod folder;
mod git;
mod http;
pub(crate) mod interest;
pub(crate) mod place;
pub mod repository;
mod s3;
mod store;
mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod unpack;
mod zip;

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
    /// Somewhere else; its kind.
    Own(&'static str),
}

// === impl Artifact ===

impl Artifact {
    /// Where it is.
    pub fn location(&self) -> Location {
        if let Some(raw) = self.location.get("raw") {
            return Location::Raw(raw.get("data").map(crate::model::scalar_text).unwrap_or_default());
        }
        match place::found(&self.location) {
            Some(Ok(kind)) => Location::Own(kind),
            Some(Err(key)) => Location::Key(key),
            None => Location::None,
        }
    }

    /// Says that it is under this key of the repository, as Argo's status does.
    pub fn set_key(&mut self, key: &str) {
        let mut place = Map::new();
        place.insert("key".to_owned(), key.into());
        self.location = BTreeMap::from([("s3".to_owned(), Value::Object(place))]);
    }

    /// The log of a step under that key, as Argo calls it.
    pub(crate) fn log(key: &str) -> Artifact {
        let archive = Some(Archive { none: Some(Value::Object(Map::new())), ..Archive::default() });
        let mut log = Artifact { name: "main-logs".to_owned(), archive, ..Artifact::default() };
        log.set_key(key);
        log
    }

    /// How it is to be saved.
    pub fn packing(&self) -> Packing {
        match &self.archive {
            Some(Archive { none: Some(_), .. }) => Packing::None,
            Some(Archive { zip: Some(_), .. }) => Packing::Zip,
            Some(Archive { tar: Some(tar), .. }) => {
                // Below zero: gzip's own.
                Packing::Tar(tar.compression_level.and_then(|level| u32::try_from(level.min(9)).ok()))
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
