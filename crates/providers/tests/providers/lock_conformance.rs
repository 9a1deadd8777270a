//! Every embedded lock store keeps every promise of the lock block.
//!
//! The suite itself is `dhow_blocks::conformance::lock`.

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

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use dhow_providers::lock::sqlite::embedded as open_embedded;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_file_for_all_cases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a folder/locks.db");
        let component = component("lock.sqlite", &[("url", path.to_str().unwrap())]);
        let open = || async { open_lock(&component, folder.path()).await };
        lock::suite("lock.sqlite", TOKIO, open).await.assert_passed();
        assert!(path.is_file());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn in_memory() {
        let component = component("lock.sqlite", &[("connectionString", ":memory:")]);
        let open = || async { open_lock(&component, Path::new("unused")).await };
        lock::suite("lock.sqlite in memory", TOKIO, open).await.assert_passed();
    }

    /// Each store is what another process would have: a connection of its own to the same file.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn hosts_on_one_file_exclude_each_other() {
        const ROUNDS: usize = 20;
        let folder = tempfile::tempdir().unwrap();
        let inside = Arc::new(AtomicBool::new(false));
        let holders = Arc::new(AtomicUsize::new(0));
        let hosts: Vec<_> = (0..3)
            .map(|host| {
                let (folder, inside) = (folder.path().to_owned(), Arc::clone(&inside));
                let holders = Arc::clone(&holders);
                tokio::spawn(async move {
                    let (store, owner) = (open_embedded(&folder), format!("host {host}"));
                    for _ in 0..ROUNDS {
                        while !store.try_lock("shared", &owner, Duration::from_secs(60)).await.unwrap() {
                            tokio::task::yield_now().await;
                        }
                        assert!(!inside.swap(true, Ordering::SeqCst), "{owner} is not alone");
                        tokio::task::yield_now().await;
                        inside.store(false, Ordering::SeqCst);
                        holders.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(
                            store.unlock("shared", &owner).await,
                            Ok(dhow_blocks::lock::Unlock::Released)
                        );
                    }
                    store.close().await;
                })
            })
            .collect();
        for host in hosts {
            host.await.unwrap();
        }
        assert_eq!(holders.load(Ordering::SeqCst), 3 * ROUNDS);
    }

    #[tokio::test]
    async fn an_unused_store_is_no_file_and_a_used_one_survives() {
        let folder = tempfile::tempdir().unwrap();
        let unused = open_embedded(folder.path());
        unused.close().await;
        assert!(!folder.path().join("lock.db").exists());
        let before = open_embedded(folder.path());
        for (resource, expiry) in [("kept", Duration::MAX), ("over", Duration::ZERO)] {
            assert!(before.try_lock(resource, "owner", expiry).await.unwrap());
        }
        before.close().await;
        let after = open_embedded(folder.path());
        assert!(!after.try_lock("kept", "other", Duration::MAX).await.unwrap());
        assert!(after.try_lock("over", "other", Duration::MAX).await.unwrap());
        after.close().await;
    }
}
