//! Secret stores: a file, the environment.
//!
//! [`embedded`] is what an app has without any configuration, under the name `secretstore`: the file
//! `secrets.json` in the data folder where there is one, and the environment of the host elsewhere.

pub mod local_env;
pub mod local_file;

use crate::file::Reloaded;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::secrets::{Secret, SecretStore};
use local_env::LocalEnv;
use local_file::{LocalFile, Shape};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The file of the embedded secrets, in the host's data folder.
const EMBEDDED_FILE: &str = "secrets.json";

/// The file where there is one, else the environment. Which one is decided at each request, so that a file
/// that is made later counts.
#[derive(Debug)]
struct FileOrEnv {
    file: LocalFile,
    env: LocalEnv,
}

/// The secrets that a host has without any configuration.
pub fn embedded(data_dir: &Path) -> Arc<dyn SecretStore> {
    let shape = Shape::default();
    let parse = move |text: &str| local_file::parse(text, &shape);
    let file = LocalFile::new(Reloaded::new(data_dir.join(EMBEDDED_FILE), parse), false);
    Arc::new(FileOrEnv { file, env: LocalEnv::new(String::new()) })
}

#[async_trait]
impl SecretStore for FileOrEnv {
    async fn get(&self, name: &str, metadata: &Metadata) -> Result<Option<Secret>, BlockError> {
        match self.file.secrets().await? {
            Some(secrets) => Ok(secrets.get(name).cloned()),
            None => self.env.get(name, metadata).await,
        }
    }

    async fn get_all(&self, metadata: &Metadata) -> Result<BTreeMap<String, Secret>, BlockError> {
        match self.file.secrets().await? {
            Some(secrets) => Ok((*secrets).clone()),
            None => self.env.get_all(metadata).await,
        }
    }
}
