//! Components that are modules, as the host opens them: the example's keep every promise of their blocks, over servers
//! that other people made. `bad` has those that do not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod bad;

use dhow_blocks::conformance::{Runtime, pubsub, secrets, state};
use dhow_blocks::scope::Providers;
use dhow_blocks::secrets::Secret;
use dhow_engine::{Cache, Engine, EngineOptions};
use dhow_host::{ComponentError, Components, Host, HostOptions};
use dhow_resources::load;
use std::env;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

/// Where `cargo xtask guests` put this module.
fn guest(name: &str) -> PathBuf {
    let folder = env::var_os("DHOW_GUESTS").map(PathBuf::from);
    let target = env::current_exe().unwrap().ancestors().nth(3).map(|target| target.join("guests"));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    let cache = cache.map(|cache| cache.join("dhow/target/guests"));
    let file = format!("{name}.wasm");
    let folders = [folder, target, cache].into_iter().flatten();
    let found = folders.map(|folder| folder.join(&file)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("the guest {file} is missing: run cargo xtask guests"))
}

/// Hosts of one component each, which share compiled code.
struct Hosts {
    engine: Engine,
    folder: TempDir,
    component: String,
}

impl Hosts {
    fn new(kind: &str, module: &str, metadata: &[(&str, &str)]) -> Hosts {
        let module = guest(module).display().to_string();
        let metadata = metadata.iter().copied().chain([("module", module.as_str())]);
        let metadata = metadata.map(|(name, value)| format!("    - {{ name: {name}, value: {value:?} }}\n"));
        let component = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: component }}\nspec:\n  type: {kind}\n  \
             version: v1\n  initTimeout: 1m\n  metadata:\n{}",
            metadata.collect::<String>()
        );
        let engine = Engine::new(EngineOptions { max_instances: 200, ..EngineOptions::default() }).unwrap();
        Hosts { engine, folder: tempfile::tempdir().unwrap(), component }
    }

    /// What an app sees of the component on a new host.
    async fn providers(&self) -> Result<Providers, ComponentError> {
        let resources = load::parse(&self.component, Path::new("component.yaml")).unwrap();
        let components = Components::new(resources, &self.folder.path().join("data"));
        let cache = Cache::open(&self.folder.path().join("compiled"), Cache::DEFAULT_MAX_BYTES).unwrap();
        let options =
            HostOptions { engine: self.engine.clone(), cache: Some(cache), components, keep_loaded: true };
        let host = Host::new(options).unwrap();
        host.components().of_app("app", host.metrics()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn state_in_etcd_keeps_all_promises() {
    let server = dhow_servers::etcd().unwrap();
    let url = format!("http://{}", server.address());
    let metadata = [("endpoint", url.as_str()), ("grants.http", url.as_str())];
    let hosts = Hosts::new("state.wasm", "wasm-component-etcd", &metadata);
    let open = || async { hosts.providers().await.unwrap().state["component"].bound.provider.clone() };
    state::suite("etcd in a component", TOKIO, open).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_through_redis_keep_all_promises() {
    let server = dhow_servers::redis().unwrap();
    let address = server.address();
    let metadata = [("address", address.as_str()), ("grants.connect", address.as_str())];
    let hosts = Hosts::new("pubsub.wasm", "wasm-component-streams", &metadata);
    let promises = pubsub::Promises { ordered: false, remembers_consumers: true };
    let open = || async { hosts.providers().await.unwrap().pubsub["component"].bound.provider.clone() };
    pubsub::suite("Redis in a component", TOKIO, promises, open).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn secrets_of_a_file_keep_all_promises() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all"), "# Two.\ndb=geheim\n\nkey = a=b\n").unwrap();
    let dirs = format!("{}::/secrets", folder.path().display());
    let hosts =
        Hosts::new("secretstores.wasm", "wasm-component-vault", &[("dirs", &dirs), ("file", "/secrets/all")]);
    let secret =
        |name: &str, value: &str| (name.to_owned(), Secret([(name.to_owned(), value.to_owned())].into()));
    let expected = [secret("db", "geheim"), secret("key", "a=b")].into();
    let open = || async { hosts.providers().await.unwrap().secrets["component"].bound.provider.clone() };
    secrets::suite("a file in a component", TOKIO, expected, open).await.assert_passed();
}
