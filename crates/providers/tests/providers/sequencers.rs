//! Every embedded sequencer keeps every promise of its block.
//!
//! The suite itself is `dhow_blocks::conformance::sequencer`.

use dhow_blocks::conformance::{Runtime, sequencer};
use dhow_blocks::sequencer::Sequencer;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use std::path::Path;
use std::sync::Arc;

pub(crate) const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

pub(crate) fn component(component_type: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "ids".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

pub(crate) async fn open_sequencer(component: &ComponentSpec, folder: &Path) -> Arc<dyn Sequencer> {
    match open(component.clone(), OpenContext { data_dir: folder.to_owned() }).await.unwrap() {
        Opened::Sequencer(sequencer) => sequencer,
        _ => panic!("{} is no sequencer", component.component_type),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    let component = component("sequencer.in-memory", &[]);
    let open = || async { open_sequencer(&component, Path::new("unused")).await };
    sequencer::suite("sequencer.in-memory", TOKIO, open).await.assert_passed();
}

/// Two members are named, of which one is not there.
#[cfg(feature = "etcd")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd() {
    let mut server = dhow_servers::etcd().unwrap();
    let endpoints = format!("127.0.0.1:1,{}", server.address());
    let component = component("sequencer.etcd", &[("endpoints", &endpoints), ("dialTimeout", "2s")]);
    let open = || async { open_sequencer(&component, Path::new("unused")).await };
    sequencer::suite("sequencer.etcd", TOKIO, open).await.assert_passed();
    let (one, other) = tokio::join!(open(), open());
    for expected in (1..20).step_by(2) {
        assert_eq!(one.reserve("shared", 1, 0).await, Ok(expected));
        assert_eq!(other.reserve("shared", 1, 0).await, Ok(expected + 1));
    }
    server.kill();
    let answer = one.reserve("shared", 1, 0).await;
    assert!(matches!(answer, Err(dhow_blocks::error::BlockError::Unavailable { .. })), "{answer:?}");
    server.start().unwrap();
    // It answers before it has found itself a leader.
    let again = async {
        loop {
            match one.reserve("shared", 1, 0).await {
                Err(dhow_blocks::error::BlockError::Unavailable { .. }) => tokio::task::yield_now().await,
                answer => break answer,
            }
        }
    };
    let id = tokio::time::timeout(std::time::Duration::from_secs(30), again).await.unwrap();
    assert!(id.as_ref().is_ok_and(|id| *id >= 21), "{id:?}");
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_in_one_file_and_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a folder/ids.db");
    for metadata in [("url", path.to_str().unwrap()), ("connectionString", ":memory:")] {
        let component = component("sequencer.sqlite", &[metadata]);
        let open = || async { open_sequencer(&component, folder.path()).await };
        sequencer::suite(&format!("sequencer.sqlite {metadata:?}"), TOKIO, open).await.assert_passed();
    }
    assert!(path.is_file());
}

/// Each is what another process would have: a connection of its own to the same file.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hosts_on_one_file_share_a_sequence_that_survives_them() {
    let folder = tempfile::tempdir().unwrap();
    let component = component("sequencer.sqlite", &[("url", folder.path().join("ids.db").to_str().unwrap())]);
    let mut last = 0;
    for round in 0..3 {
        let (one, other) = tokio::join!(
            open_sequencer(&component, folder.path()),
            open_sequencer(&component, folder.path())
        );
        for _ in 0..5 {
            for host in [&one, &other] {
                last += 1;
                assert_eq!(host.reserve("order", 1, 0).await, Ok(last), "round {round}");
            }
        }
        one.close().await;
        other.close().await;
    }
}
