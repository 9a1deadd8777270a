//! Configuration stores: a file.
//!
//! [`embedded`] is what an app has without any configuration, under the name `configstore`: the file
//! `config.json` in the data folder, also where it is made later.

mod edit;
pub mod local_file;
mod yaml;

use dhow_blocks::configuration::ConfigurationStore;
use local_file::LocalFile;
use std::path::Path;
use std::sync::Arc;

/// The file of the embedded configuration, in the host's data folder.
const EMBEDDED_FILE: &str = "config.json";

/// The configuration that a host has without any components.
pub fn embedded(data_dir: &Path) -> Arc<dyn ConfigurationStore> {
    Arc::new(LocalFile::new(data_dir.join(EMBEDDED_FILE)))
}
