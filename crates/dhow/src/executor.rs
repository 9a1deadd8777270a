//! What runs steps of workflows in this process: for `dhow workflow run` and `worker`, for `dhow argo plugin` and `agent`.

use crate::Error;
use crate::trust::TrustArgs;
use dhow_argo::artifacts::repository::Repository;
use dhow_argo::step::modules::Modules;
use dhow_argo::step::{Executor, ExecutorOptions};
use dhow_host::Components;
use dhow_resources::manifest::TrustConfig;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What each command decides for itself.
pub(crate) struct Steps<'a> {
    /// Folder of the embedded stores.
    pub(crate) data: &'a Path,
    /// Folders with Dapr resource files.
    pub(crate) resources: &'a [PathBuf],
    pub(crate) trust: &'a TrustArgs,
    /// Where paths of modules begin.
    pub(crate) base: &'a Path,
    /// Modules in the place of images.
    pub(crate) images: BTreeMap<String, String>,
    pub(crate) repository: Arc<Repository>,
    /// Folder of the files of steps under way.
    pub(crate) rooms: PathBuf,
    /// Folder of logs.
    pub(crate) logs: PathBuf,
}

/// A host with the building blocks that steps may use, and what runs steps in it.
pub(crate) async fn executor(steps: Steps<'_>) -> Result<Arc<Executor>, Error> {
    let resources = crate::up::read_resources(steps.resources, None)?;
    let host = crate::serve::host(Components::new(resources, steps.data), false)?;
    host.trust_in(steps.trust.load(&TrustConfig::default())?).await;
    let api = dhow_api::dapr::Dapr::new(&host, None, dhow_api::dapr::ApiOptions::default());
    let (engine, cache) = host.engine();
    let executor = Executor::new(ExecutorOptions {
        modules: Modules::new(engine, cache, steps.base, steps.images),
        repository: steps.repository,
        rooms: steps.rooms,
        logs: steps.logs,
        host: Some(host),
        runtime_api: Some(api),
    });
    executor.map(Arc::new).map_err(|error| Error::new(format!("the folders of steps: {error}")))
}
