//! Every provider of encryption keeps every promise of its block.
//!
//! The suite itself is `dhow_blocks::conformance::cryption`.

use dhow_blocks::conformance::{Runtime, cryption};
use dhow_blocks::cryption::Cryption;
use dhow_providers::registry::{ComponentSpec, OpenContext, Opened, open};
use std::sync::Arc;

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

/// Two keys, of which the second was replaced once.
const KEYS: &str = r#"{
    "orders": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "cards": ["AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=", "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="]
}"#;

async fn open_vault(field: &str, value: &str) -> Arc<dyn Cryption> {
    let metadata = [(field, value), ("defaultKey", "orders")];
    let component = ComponentSpec {
        name: "vault".to_owned(),
        component_type: "cryption.local".to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    };
    match open(component, OpenContext::default()).await.unwrap() {
        Opened::Cryption(cryption) => cryption,
        _ => panic!("no encryption"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_file_and_of_a_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, KEYS).unwrap();
    for (field, value) in [("keys", KEYS), ("keyFile", path.to_str().unwrap())] {
        let open = || open_vault(field, value);
        let keys = ["orders", "cards"];
        cryption::suite(&format!("cryption.local {field}"), TOKIO, keys, open).await.assert_passed();
    }
}
