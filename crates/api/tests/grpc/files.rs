//! Secrets, configuration and bindings, all of them in files.

use crate::support::{RESOURCES, World, assert_status, within};
use bytes::Bytes;
use dhow_api::proto::runtime::v1::*;
use std::collections::BTreeMap;
use tonic::{Code, Status, Streaming};

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("secrets.json", r#"{"password": "hidden", "other": "2"}"#);
    write(
        "config.json",
        r#"{"greeting": "hello", "limit": {"value": "10", "version": "v2", "metadata": {"by": "ops"}}}"#,
    );
    let files = folder.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let binding = format!(
        "---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{ name: files }}
spec:
  type: bindings.localstorage
  version: v1
  metadata:
    - {{ name: rootPath, value: {files:?} }}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {{ name: config }}
spec:
  secrets:
    scopes:
      - {{ storeName: secretstore, defaultAccess: allow, deniedSecrets: [other] }}
"
    );
    World::with(&format!("{RESOURCES}{binding}"), folder, None).await
}

#[tokio::test]
async fn secrets_are_read() {
    let world = world().await;
    let mut client = world.client();
    let get = |store: &str, key: &str| GetSecretRequest {
        store_name: store.to_owned(),
        key: key.to_owned(),
        ..GetSecretRequest::default()
    };
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let found = client.get_secret(get("secretstore", "password")).await.unwrap().into_inner();
    assert_eq!(found.data, map(&[("password", "hidden")]));
    let absent = client.get_secret(get("secretstore", "absent")).await;
    assert_status(absent, Code::Internal, "ERR_SECRET_GET", "no such secret");
    let all =
        GetBulkSecretRequest { store_name: "secretstore".to_owned(), ..GetBulkSecretRequest::default() };
    let all = client.get_bulk_secret(all).await.unwrap().into_inner().data;
    assert_eq!(all.keys().collect::<Vec<_>>(), ["password"], "what is denied is left out");
    assert_eq!(all["password"].secrets, map(&[("password", "hidden")]));
    let denied = client.get_secret(get("secretstore", "other")).await;
    assert_status(denied, Code::PermissionDenied, "ERR_PERMISSION_DENIED", "a denied secret");
    let missing = client.get_secret(get("nowhere", "x")).await;
    assert_status(missing, Code::InvalidArgument, "ERR_SECRET_STORE_NOT_FOUND", "no such store");
}

async fn next(
    stream: &mut Streaming<SubscribeConfigurationResponse>,
) -> Result<Option<SubscribeConfigurationResponse>, Status> {
    within("a message", stream.message()).await
}

#[tokio::test]
async fn configuration_is_read_and_followed() {
    let world = world().await;
    let mut client = world.client();
    let get = |store: &str, keys: &[&str]| GetConfigurationRequest {
        store_name: store.to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        ..GetConfigurationRequest::default()
    };
    let found =
        client.get_configuration(get("configstore", &["limit", "absent"])).await.unwrap().into_inner();
    assert_eq!(found.items.keys().collect::<Vec<_>>(), ["limit"]);
    let limit = &found.items["limit"];
    assert_eq!(
        (limit.value.as_str(), limit.version.as_str(), limit.metadata["by"].as_str()),
        ("10", "v2", "ops")
    );
    let all = client.get_configuration_alpha1(get("configstore", &[])).await.unwrap().into_inner();
    assert_eq!(all.items.len(), 2);
    let missing = client.get_configuration(get("nowhere", &[])).await;
    assert_status(missing, Code::InvalidArgument, "ERR_CONFIGURATION_STORE_NOT_FOUND", "no such store");

    let subscribe = |store: &str| SubscribeConfigurationRequest {
        store_name: store.to_owned(),
        keys: vec!["greeting".to_owned()],
        ..SubscribeConfigurationRequest::default()
    };
    let missing = client.subscribe_configuration(subscribe("nowhere")).await.map(|_| ());
    assert_status(missing, Code::InvalidArgument, "ERR_CONFIGURATION_STORE_NOT_FOUND", "no such store");
    let mut changes =
        client.subscribe_configuration_alpha1(subscribe("configstore")).await.unwrap().into_inner();
    let first = next(&mut changes).await.unwrap().unwrap();
    assert!(!first.id.is_empty() && first.items.is_empty(), "{first:?}");
    std::fs::write(world.folder.path().join("config.json"), r#"{"greeting": "bye", "limit": 1}"#).unwrap();
    let change = next(&mut changes).await.unwrap().unwrap();
    assert_eq!(
        (change.id, change.items["greeting"].value.as_str(), change.items.len()),
        (first.id.clone(), "bye", 1)
    );
    let unsubscribe =
        || UnsubscribeConfigurationRequest { store_name: "configstore".to_owned(), id: first.id.clone() };
    assert!(client.unsubscribe_configuration(unsubscribe()).await.unwrap().into_inner().ok);
    assert_eq!(next(&mut changes).await.unwrap(), None);
    let again = client.unsubscribe_configuration_alpha1(unsubscribe()).await.unwrap().into_inner();
    assert!(!again.ok && again.message.contains(&first.id), "{again:?}");
}

#[tokio::test]
async fn bindings_are_called() {
    let world = world().await;
    let mut client = world.client();
    let call = |name: &str, operation: &str, file: &str, data: &'static [u8]| InvokeBindingRequest {
        name: name.to_owned(),
        data: Bytes::from_static(data),
        metadata: [("fileName".to_owned(), file.to_owned())].into(),
        operation: operation.to_owned(),
    };
    client.invoke_binding(call("files", "create", "a.txt", b"content, not base64")).await.unwrap();
    let found = client.invoke_binding(call("files", "get", "a.txt", b"")).await.unwrap().into_inner();
    assert_eq!(&found.data[..], b"content, not base64");
    for (what, request) in [
        ("no such binding", call("nowhere", "get", "a.txt", b"")),
        ("no such operation", call("files", "sing", "a.txt", b"")),
        ("no such file", call("files", "get", "absent.txt", b"")),
    ] {
        let answer = client.invoke_binding(request).await;
        assert_status(answer, Code::Internal, "ERR_INVOKE_OUTPUT_BINDING", what);
    }
}
