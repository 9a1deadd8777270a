//! Flags that say where the artifacts of workflows are kept, for all commands that run steps.

use crate::Error;
use dhow_argo::artifacts::config::{AzureContainer, Bucket, Choice, GcsBucket, RepositoryRef};
use dhow_argo::artifacts::repository::{Bounds, Repository};
use std::path::{Path, PathBuf};

/// Where artifacts are kept, other than in a folder.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Artifact repository")]
pub(crate) struct RepositoryArgs {
    /// File of Argo's YAML: the controller's ConfigMap, `artifact-repositories`, Secrets (repeatable)
    #[arg(long, value_name = "FILE", env = "DHOW_ARTIFACT_REPOSITORY", value_delimiter = ',')]
    artifact_repository: Vec<PathBuf>,
    /// Folder with a folder for each Secret, as Kubernetes mounts them (repeatable)
    #[arg(long, value_name = "DIR", env = "DHOW_ARTIFACT_SECRETS", value_delimiter = ',')]
    artifact_secrets: Vec<PathBuf>,
    /// Which repository of the files [default: the workflow's artifactRepositoryRef, else Argo's default]
    #[arg(long, value_name = "[CONFIGMAP/]KEY")]
    artifact_repository_ref: Option<String>,
    /// Bucket; its keys are in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN
    #[arg(long, value_name = "BUCKET", conflicts_with_all = ["artifact_repository", "artifact_repository_ref"])]
    s3_bucket: Option<String>,
    /// Server of the bucket [default: Amazon's]
    #[arg(long, value_name = "URL", requires = "s3_bucket")]
    s3_endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1]
    #[arg(long, value_name = "REGION", requires = "s3_bucket")]
    s3_region: Option<String>,
    /// Where URLs have the bucket's name [default: in the host for Amazon, else in the path]
    #[arg(long, value_name = "STYLE", requires = "s3_bucket", value_parser = ["path", "virtual-hosted"])]
    s3_addressing_style: Option<String>,
    /// Pattern of keys [default: {{workflow.name}}/{{pod.name}}]
    #[arg(long, value_name = "PATTERN", requires = "s3_bucket")]
    s3_key_format: Option<String>,
    /// Make the bucket if it is not there
    #[arg(long, requires = "s3_bucket")]
    s3_create_bucket: bool,
    /// Bucket of Google Cloud, with the machine's credentials or those of GOOGLE_APPLICATION_CREDENTIALS
    #[arg(long, value_name = "BUCKET", conflicts_with_all = ["artifact_repository", "artifact_repository_ref", "s3_bucket"])]
    gcs_bucket: Option<String>,
    /// Pattern of keys [default: {{workflow.name}}/{{pod.name}}]
    #[arg(long, value_name = "PATTERN", requires = "gcs_bucket")]
    gcs_key_format: Option<String>,
    /// Container of Azure; its key is in AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, else the machine's credentials
    #[arg(long, value_name = "CONTAINER", requires = "azure_endpoint", conflicts_with_all = ["artifact_repository", "artifact_repository_ref", "gcs_bucket", "s3_bucket"])]
    azure_container: Option<String>,
    /// Account of the container: https://ACCOUNT.blob.core.windows.net
    #[arg(long, value_name = "URL", requires = "azure_container")]
    azure_endpoint: Option<String>,
    /// Pattern of blobs' names [default: {{workflow.name}}/{{pod.name}}]
    #[arg(long, value_name = "PATTERN", requires = "azure_container")]
    azure_blob_name_format: Option<String>,
    /// Keep the logs of steps as artifacts (`main-logs`) [default: what the repository says]
    #[arg(long)]
    archive_logs: bool,
}

// === impl RepositoryArgs ===

impl RepositoryArgs {
    /// What they say, for a history: paths are absolute, and there are no secrets in it.
    pub(crate) fn choice(&self) -> Result<Choice, Error> {
        let absolute =
            |paths: &[PathBuf]| paths.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>();
        let bucket = self.s3_bucket.as_ref().map(|name| Bucket {
            name: name.clone(),
            endpoint: self.s3_endpoint.clone().unwrap_or_default(),
            region: self.s3_region.clone().unwrap_or_default(),
            addressing_style: self.s3_addressing_style.clone().unwrap_or_default(),
            key_format: self.s3_key_format.clone().unwrap_or_default(),
            create: self.s3_create_bucket,
        });
        let gcs = self.gcs_bucket.as_ref().map(|name| GcsBucket {
            name: name.clone(),
            key_format: self.gcs_key_format.clone().unwrap_or_default(),
        });
        let azure = self.azure_container.as_ref().map(|name| AzureContainer {
            name: name.clone(),
            endpoint: self.azure_endpoint.clone().unwrap_or_default(),
            blob_name_format: self.azure_blob_name_format.clone().unwrap_or_default(),
        });
        Ok(Choice {
            files: absolute(&self.artifact_repository)?,
            secrets: absolute(&self.artifact_secrets)?,
            reference: self.artifact_repository_ref.clone().unwrap_or_default(),
            bucket,
            gcs,
            azure,
            archive_logs: self.archive_logs.then_some(true),
        })
    }
}

/// Opens the repository of a choice, or of a folder. Within a runtime.
pub(crate) fn open(
    folder: &Path,
    choice: &Choice,
    wanted: Option<&RepositoryRef>,
) -> Result<Repository, Error> {
    Repository::configured(folder, choice, wanted, Bounds::default())
        .map_err(|error| Error::usage(error.to_string()))
}
