//! Every embedded broker keeps every promise of the pub/sub block.
//!
//! The suite itself is `dhow_blocks::conformance::pubsub`.

use dhow_blocks::conformance::Runtime;
use dhow_blocks::conformance::pubsub::{Promises, suite};
use dhow_blocks::pubsub::PubSub;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use std::path::Path;
use std::sync::Arc;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

fn component(component_type: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "pubsub".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

async fn open_broker(component: &ComponentSpec, folder: &Path) -> Arc<dyn PubSub> {
    match open(component.clone(), OpenContext { data_dir: folder.to_owned() }).await.unwrap() {
        Opened::PubSub(broker) => broker,
        _ => panic!("{} is no broker", component.component_type),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    let component = component("pubsub.in-memory", &[]);
    let promises = Promises { ordered: true, remembers_consumers: true };
    let open = || async { open_broker(&component, Path::new("unused")).await };
    suite("pubsub.in-memory", TOKIO, promises, open).await.assert_passed();
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use dhow_providers::pubsub::sqlite::embedded as open_embedded;

    const PROMISES: Promises = Promises { ordered: false, remembers_consumers: true };

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_file_for_all_cases() {
        let folder = tempfile::tempdir().unwrap();
        let component = component("pubsub.sqlite", &[]);
        let open = || async { open_broker(&component, folder.path()).await };
        suite("pubsub.sqlite", TOKIO, PROMISES, open).await.assert_passed();
        let left: Vec<_> =
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["pubsub.db"], "a broker that was closed leaves its database only");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn strict_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a folder/q.db");
        let metadata = [("connectionString", path.to_str().unwrap()), ("ordered", "true")];
        let component = component("pubsub.sqlite", &metadata);
        let promises = Promises { ordered: true, ..PROMISES };
        let open = || async { open_broker(&component, folder.path()).await };
        suite("pubsub.sqlite, ordered", TOKIO, promises, open).await.assert_passed();
        assert!(path.is_file());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn in_memory() {
        let component = component("pubsub.sqlite", &[("url", ":memory:")]);
        let open = || async { open_broker(&component, Path::new("unused")).await };
        suite("pubsub.sqlite in memory", TOKIO, PROMISES, open).await.assert_passed();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn embedded() {
        let folder = tempfile::tempdir().unwrap();
        let unused = open_embedded(folder.path());
        unused.features();
        unused.close().await;
        assert!(!folder.path().join("queue.db").exists(), "nobody has used it");
        let open = || async { open_embedded(folder.path()) };
        suite("embedded", TOKIO, PROMISES, open).await.assert_passed();
        assert!(folder.path().join("queue.db").is_file());
    }
}
