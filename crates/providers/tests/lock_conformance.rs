//! Every embedded lock store keeps every promise of the lock block.
//!
//! The suite itself is `dhow_blocks::conformance::lock`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may fail"
)]

use dhow_blocks::conformance::{Runtime, lock};
use dhow_blocks::lock::LockStore;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use std::path::Path;
use std::sync::Arc;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

fn component(component_type: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "lockstore".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn open_lock(component: &ComponentSpec, folder: &Path) -> Arc<dyn LockStore> {
    match open(component.clone(), OpenContext { data_dir: folder.to_owned() }).await.unwrap() {
        Opened::Lock(store) => store,
        _ => panic!("{} is no lock store", component.component_type),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    let open = || async { open_lock(&component("lock.in-memory", &[]), Path::new("unused")).await };
    lock::suite("lock.in-memory", TOKIO, open).await.assert_passed();
}
