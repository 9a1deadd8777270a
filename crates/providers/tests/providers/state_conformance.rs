//! Every state provider keeps every promise of the state block.
//!
//! The suite itself is `dhow_blocks::conformance::state`.

use dhow_blocks::conformance::{Runtime, state};
use dhow_blocks::state::StateStore;
use dhow_providers::lazy::Lazy;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use dhow_providers::state::in_memory::{CAPABILITIES, InMemory};
use std::path::Path;
use std::sync::Arc;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

fn component(component_type: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "statestore".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn open_state(component: &ComponentSpec, folder: &Path) -> Arc<dyn StateStore> {
    match open(component.clone(), OpenContext { data_dir: folder.to_owned() }).await.unwrap() {
        Opened::State(store) => store,
        _ => panic!("{} is no state store", component.component_type),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    let open = || async { open_state(&component("state.in-memory", &[]), Path::new("unused")).await };
    state::suite("state.in-memory", TOKIO, open).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lazy() {
    let open = || async {
        Arc::new(Lazy::new(CAPABILITIES, || Ok(Arc::new(InMemory::new())))) as Arc<dyn StateStore>
    };
    state::suite("lazy", TOKIO, open).await.assert_passed();
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use dhow_providers::state::sqlite::embedded as open_embedded;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_file_for_all_cases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a folder/state?%20.db");
        let uri = path.to_str().unwrap().replace('%', "%25").replace('?', "%3f");
        let component = component("state.sqlite", &[("connectionString", &format!("file:{uri}"))]);
        state::suite("state.sqlite", TOKIO, || async { open_state(&component, folder.path()).await })
            .await
            .assert_passed();
        assert!(path.is_file());
        let log = format!("{}-wal", path.display());
        assert!(!Path::new(&log).exists(), "closing should fold the log into the database");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn embedded() {
        let folder = tempfile::tempdir().unwrap();
        state::suite("embedded", TOKIO, || async { open_embedded(folder.path()) }).await.assert_passed();
        assert!(folder.path().join("state.db").is_file());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn rollback_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let metadata = [
            ("CONNECTIONSTRING", path.to_str().unwrap()),
            ("disableWAL", "true"),
            ("tableName", "select"),
            ("busyTimeout", "10s"),
        ];
        let component = component("state.sqlite", &metadata);
        state::suite("state.sqlite, rollback journal", TOKIO, || async {
            open_state(&component, folder.path()).await
        })
        .await
        .assert_passed();
    }
}
