//! Where artifacts are kept, out of Argo's own files: the controller's ConfigMap, ConfigMaps of repositories, Secrets.
//!
//! The same YAML that is applied to a cluster is read from files; Secrets may also be folders, as Kubernetes mounts
//! them. Without a reference the default is Argo's: the repository that the annotation of the ConfigMap
//! `artifact-repositories` names, else the controller's.
//! <https://argo-workflows.readthedocs.io/en/latest/configure-artifact-repository/>

use super::place::{self, Azure, Gcs, Oss, Place, S3, SecretRef};
use super::repository::ArtifactError;
use crate::manifest::Manifest;
use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The ConfigMap of repositories that a reference without one means.
const REPOSITORIES: &str = "artifact-repositories";

/// Says which entry of such a ConfigMap is meant without a name.
const DEFAULT: &str = "workflows.argoproj.io/default-artifact-repository";

/// Argo's pattern of keys.
pub(super) const KEY_FORMAT: &str = "{{workflow.name}}/{{pod.name}}";

/// Largest entry of a Secret, in bytes; Kubernetes allows one MiB for all.
const MAX_SECRET: u64 = 1 << 20;

/// What somebody says on a command line about the repository; there are no secrets in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct Choice {
    /// Files of Argo's YAML: ConfigMaps, Secrets.
    pub files: Vec<PathBuf>,
    /// Folders with a folder for each Secret.
    pub secrets: Vec<PathBuf>,
    /// Which repository of the files, as `CONFIGMAP/KEY` or `KEY`; empty: the default.
    pub reference: String,
    /// A bucket, in place of all files.
    pub bucket: Option<Bucket>,
    /// A bucket of Google's, in place of all files.
    pub gcs: Option<GcsBucket>,
    /// A container of Azure's, in place of all files.
    pub azure: Option<AzureContainer>,
    /// Whether logs of steps are artifacts, whatever the files say.
    pub archive_logs: Option<bool>,
}

impl Choice {
    /// Whether no repository is named: then it is a folder.
    pub fn is_none(&self) -> bool {
        self.files.is_empty() && self.described().is_none()
    }

    /// What the command line says itself.
    pub(super) fn described(&self) -> Option<Described> {
        let Choice { bucket, gcs, azure, .. } = self;
        let s3 = bucket.as_ref().map(Described::from);
        s3.or_else(|| gcs.as_ref().map(Described::from)).or_else(|| azure.as_ref().map(Described::from))
    }
}

/// A bucket whose keys are in the environment, as AWS's tools have them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct Bucket {
    /// `http://HOST:PORT` or `https://…`; empty: Amazon's.
    pub endpoint: String,
    /// Its name.
    pub name: String,
    /// Empty: `us-east-1`.
    pub region: String,
    /// `path`, `virtual-hosted`, or empty for what fits the endpoint.
    pub addressing_style: String,
    /// Empty: `{{workflow.name}}/{{pod.name}}`.
    pub key_format: String,
    /// It is made if it is not there.
    pub create: bool,
}

/// A bucket of Google's, used with the credentials of the machine (Application Default Credentials).
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct GcsBucket {
    /// Its name.
    pub name: String,
    /// Empty: `{{workflow.name}}/{{pod.name}}`.
    pub key_format: String,
}

/// A container of Azure's, used with `AZURE_STORAGE_KEY` or `AZURE_STORAGE_SAS_TOKEN`, else with the credentials of the
/// machine.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct AzureContainer {
    /// `https://ACCOUNT.blob.core.windows.net`.
    pub endpoint: String,
    /// Its name.
    pub name: String,
    /// Empty: `{{workflow.name}}/{{pod.name}}`.
    pub blob_name_format: String,
}

/// Secrets, and the repositories that files describe.
#[derive(Default)]
pub struct Config {
    pub(super) secrets: Secrets,
    /// By ConfigMap and entry.
    repositories: BTreeMap<(String, String), Described>,
    /// Which entry of a ConfigMap is its default.
    defaults: BTreeMap<String, String>,
    /// The controller's.
    controller: Option<Described>,
}

/// A repository as its configuration says it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Described {
    pub(super) archive_logs: bool,
    s3: Option<S3>,
    oss: Option<Oss>,
    gcs: Option<Gcs>,
    azure: Option<Azure>,
    hdfs: Option<Value>,
    artifactory: Option<Value>,
    plugin: Option<Value>,
}

/// Which repository a workflow wants (`artifactRepositoryRef`).
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct RepositoryRef {
    /// The ConfigMap; empty: `artifact-repositories`.
    pub config_map: String,
    /// Its entry; empty: the one that its annotation names.
    pub key: String,
}

/// Secrets by their names.
#[derive(Default)]
pub struct Secrets {
    entries: BTreeMap<(String, String), Vec<u8>>,
    folders: Vec<PathBuf>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] dhow_resources::error::ResourceErrors),
    /// Something in it is wrong.
    #[error("{file}: {what}")]
    Wrong {
        /// The file.
        file: String,
        /// What.
        what: String,
    },
    /// What is referred to is not there.
    #[error("{0}")]
    Unknown(String),
}

// === impl Config ===

impl Config {
    /// Reads what a command line names.
    pub fn read(choice: &Choice) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        for folder in &choice.secrets {
            if !folder.is_dir() {
                let file = folder.display().to_string();
                return Err(ConfigError::Wrong { file, what: "expected a folder of Secrets".to_owned() });
            }
            config.secrets.folders.push(folder.clone());
        }
        for file in &choice.files {
            let manifest = Manifest::read(std::slice::from_ref(file))?;
            for object in manifest.values() {
                config.add(&object, file)?;
            }
        }
        Ok(config)
    }

    fn add(&mut self, object: &Value, file: &Path) -> Result<(), ConfigError> {
        let wrong = |what: String| ConfigError::Wrong { file: file.display().to_string(), what };
        let text = |pointer: &str| object.pointer(pointer).map(crate::model::scalar_text).unwrap_or_default();
        let name = text("/metadata/name");
        let data = object.get("data").and_then(Value::as_object);
        match text("/kind").as_str() {
            "Secret" => self.secrets.add(&name, object).map_err(wrong),
            "ConfigMap" => {
                if let Some(chosen) = object
                    .pointer("/metadata/annotations")
                    .and_then(|all| all.get(DEFAULT))
                    .and_then(Value::as_str)
                {
                    self.defaults.insert(name.clone(), chosen.to_owned());
                }
                let is_controllers = data.is_some_and(|data| data.contains_key("artifactRepository"));
                for (key, value) in data.into_iter().flatten() {
                    let content = crate::model::scalar_text(value);
                    match key.as_str() {
                        "artifactRepository" => self.controller = Some(described(&content, file)?),
                        // All of it in one entry, as it was before Argo 2.4.
                        "config" => {
                            let whole = yaml(&content, file)?;
                            if let Some(value) = whole.get("artifactRepository") {
                                self.controller = Some(read(value).map_err(wrong)?);
                            }
                        }
                        _ if is_controllers => {}
                        _ => {
                            let described = described(&content, file)?;
                            self.repositories.insert((name.clone(), key.clone()), described);
                        }
                    }
                }
                Ok(())
            }
            // The configuration alone, without the object around it.
            "" => {
                let value = object.get("artifactRepository").unwrap_or(object);
                self.controller = Some(read(value).map_err(wrong)?);
                Ok(())
            }
            other => Err(wrong(format!(
                "{other:?} says nothing about artifacts; expected a ConfigMap or a Secret"
            ))),
        }
    }

    /// The repository of a reference, or the default; none if the files describe none.
    pub fn choose(&self, wanted: Option<&RepositoryRef>) -> Result<Option<Described>, ConfigError> {
        let config_map = match wanted {
            Some(wanted) if !wanted.config_map.is_empty() => wanted.config_map.as_str(),
            _ => REPOSITORIES,
        };
        let key = match wanted {
            Some(wanted) if !wanted.key.is_empty() => Some(&wanted.key),
            _ => self.defaults.get(config_map),
        };
        let found = key.and_then(|key| self.repositories.get(&(config_map.to_owned(), key.clone())));
        match (found, wanted, key) {
            (Some(found), ..) => Ok(Some(found.clone())),
            (None, None, None) => Ok(self.controller.clone()),
            (None, _, Some(key)) => {
                let known: Vec<&str> = self.repositories.keys().map(|(_, key)| key.as_str()).collect();
                let near = dhow_resources::error::nearest(key, &known);
                let hint = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
                Err(ConfigError::Unknown(format!(
                    "there is no repository {key:?} in a ConfigMap {config_map:?}{hint}; name its file with \
                     --artifact-repository"
                )))
            }
            (None, Some(_), None) => Err(ConfigError::Unknown(format!(
                "the ConfigMap {config_map:?} does not say which repository is its default (annotation {DEFAULT}), \
                 or is in no file of --artifact-repository"
            ))),
        }
    }
}

fn yaml(text: &str, file: &Path) -> Result<Value, ConfigError> {
    Ok(Manifest::parse(text, file)?.values().into_iter().next().unwrap_or_default())
}

fn described(text: &str, file: &Path) -> Result<Described, ConfigError> {
    read(&yaml(text, file)?).map_err(|what| ConfigError::Wrong { file: file.display().to_string(), what })
}

fn read(value: &Value) -> Result<Described, String> {
    let described: Described = serde_json::from_value(value.clone())
        .map_err(|error| format!("the artifact repository cannot be read: {error}"))?;
    let others =
        [("hdfs", &described.hdfs), ("artifactory", &described.artifactory), ("plugin", &described.plugin)];
    match others.iter().find(|(_, value)| value.is_some()) {
        Some((kind, _)) => Err(place::unsupported(kind).to_string()),
        None => Ok(described),
    }
}

// === impl Described ===

impl Described {
    /// Where artifacts are, and the pattern of their keys, which may be empty; none: in a folder.
    pub(super) fn place(self) -> Result<Option<(Place, String)>, ArtifactError> {
        let s3 = match (self.s3, self.oss) {
            (Some(s3), _) => Some(s3),
            (None, Some(oss)) => Some(oss.try_into()?),
            (None, None) => None,
        };
        Ok(match (s3, self.gcs, self.azure) {
            (Some(s3), ..) => {
                let format = match (s3.key_format.as_str(), s3.key_prefix.as_str()) {
                    ("", "") => String::new(),
                    ("", prefix) => format!("{prefix}/{KEY_FORMAT}"),
                    (format, _) => format.to_owned(),
                };
                Some((Place::S3(Box::new(s3)), format))
            }
            (None, Some(gcs), _) => {
                let format = gcs.key_format.clone();
                Some((Place::Gcs(Box::new(gcs)), format))
            }
            (None, None, Some(azure)) => {
                let format = azure.blob_name_format.clone();
                Some((Place::Azure(Box::new(azure)), format))
            }
            (None, None, None) => None,
        })
    }
}

impl From<&Bucket> for Described {
    fn from(bucket: &Bucket) -> Described {
        let s3 = S3 {
            endpoint: bucket.endpoint.clone(),
            bucket: bucket.name.clone(),
            region: bucket.region.clone(),
            addressing_style: bucket.addressing_style.clone(),
            key_format: bucket.key_format.clone(),
            create_bucket_if_not_present: bucket.create.then(Value::default),
            ..S3::default()
        };
        Described { s3: Some(s3), ..Described::default() }
    }
}

impl From<&GcsBucket> for Described {
    fn from(bucket: &GcsBucket) -> Described {
        let GcsBucket { name, key_format } = bucket.clone();
        let gcs = Gcs { bucket: name, key_format, ..Gcs::default() };
        Described { gcs: Some(gcs), ..Described::default() }
    }
}

impl From<&AzureContainer> for Described {
    fn from(container: &AzureContainer) -> Described {
        let AzureContainer { endpoint, name, blob_name_format } = container.clone();
        let azure = Azure {
            endpoint,
            container: name,
            blob_name_format,
            is_from_command_line: true,
            ..Azure::default()
        };
        Described { azure: Some(azure), ..Described::default() }
    }
}

// === impl RepositoryRef ===

impl RepositoryRef {
    /// `CONFIGMAP/KEY` or `KEY`.
    pub fn parse(text: &str) -> RepositoryRef {
        let (config_map, key) = text.split_once('/').unwrap_or(("", text));
        RepositoryRef { config_map: config_map.to_owned(), key: key.to_owned() }
    }
}

// === impl Secrets ===

impl Secrets {
    fn add(&mut self, name: &str, object: &Value) -> Result<(), String> {
        let entries = |field: &str| object.get(field).and_then(Value::as_object).into_iter().flatten();
        for (key, value) in entries("data") {
            let text: String = crate::model::scalar_text(value).split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = bytes
                .map_err(|_| format!("Secret {name:?}: data.{key} is no base64; stringData may hold text"))?;
            self.entries.insert((name.to_owned(), key.clone()), bytes);
        }
        for (key, value) in entries("stringData") {
            let text = crate::model::scalar_text(value);
            self.entries.insert((name.to_owned(), key.clone()), text.into_bytes());
        }
        Ok(())
    }

    /// The text of an entry; none where it is optional and not there. The error shows no secret.
    pub(super) fn text(&self, wanted: &SecretRef) -> Result<Option<String>, ArtifactError> {
        let Some(bytes) = self.bytes(wanted)? else { return Ok(None) };
        let SecretRef { name, key, .. } = wanted;
        let text = String::from_utf8(bytes).map_err(|_| {
            ArtifactError::Refused(format!("Secret {name:?}, entry {key:?}: it is no UTF-8 text"))
        })?;
        // Files end with a line's end more often than keys do.
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// An entry as it is; none where it is optional and not there. The error shows no secret.
    pub(super) fn bytes(&self, wanted: &SecretRef) -> Result<Option<Vec<u8>>, ArtifactError> {
        let SecretRef { name, key, optional } = wanted;
        let refused = |what: &str| ArtifactError::Refused(format!("Secret {name:?}, entry {key:?}: {what}"));
        let found = match self.entries.get(&(name.clone(), key.clone())) {
            Some(bytes) => Some(bytes.clone()),
            None => self.mounted(name, key).map_err(|error| refused(&error.to_string()))?,
        };
        match found {
            None if *optional => Ok(None),
            None => Err(refused(
                "it is not there; name its file with --artifact-repository, or its folder with --artifact-secrets",
            )),
            Some(bytes) => Ok(Some(bytes)),
        }
    }

    fn mounted(&self, name: &str, key: &str) -> std::io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let is_name = |text: &str| !matches!(text, "" | "." | "..") && !text.contains(['/', '\0']);
        if !is_name(name) || !is_name(key) {
            return Ok(None);
        }
        for folder in &self.folders {
            let file = folder.join(name).join(key);
            if file.is_file() {
                let mut bytes = Vec::new();
                std::fs::File::open(file)?.take(MAX_SECRET).read_to_end(&mut bytes)?;
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.entries.keys().map(|(name, key)| format!("{name}/{key}")).collect();
        f.debug_struct("Secrets").field("entries", &names).field("folders", &self.folders).finish()
    }
}
