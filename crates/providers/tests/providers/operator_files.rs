//! Secrets and configuration that an operator keeps in files or in the environment.

use async_trait::async_trait;
use dhow_blocks::configuration::{ConfigurationItem, ConfigurationStore, Items};
use dhow_blocks::conformance::{Runtime, configuration, secrets};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::secrets::{Secret, SecretStore};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, embedded, open};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn try_open(component_type: &str, metadata: &[(&str, &str)]) -> Result<Opened, OpenError> {
    let component = ComponentSpec {
        name: "store".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    };
    open(component, OpenContext::default()).await
}

async fn open_secrets(component_type: &str, metadata: &[(&str, &str)]) -> Arc<dyn SecretStore> {
    match try_open(component_type, metadata).await.unwrap() {
        Opened::Secrets(store) => store,
        _ => panic!("{component_type} is no secret store"),
    }
}

async fn open_configuration(path: &Path) -> Arc<dyn ConfigurationStore> {
    let file = path.to_str().unwrap();
    match try_open("configuration.local.file", &[("configurationFile", file)]).await.unwrap() {
        Opened::Configuration(store) => store,
        _ => panic!("no configuration store"),
    }
}

fn secret(values: &[(&str, &str)]) -> Secret {
    Secret(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

/// Writes a file as careful programs do: another one, moved over it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secret_files_keep_the_promises() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    fs::write(&path, r#"{"password": "hunter2", "redis": {"user": "ann", "hosts": ["example.test"]}}"#)
        .unwrap();
    let file = path.to_str().unwrap();
    for (fields, expected) in [
        (
            &[("secretsFile", file)][..],
            vec![
                ("password", secret(&[("password", "hunter2")])),
                ("redis:user", secret(&[("redis:user", "ann")])),
                ("redis:hosts:0", secret(&[("redis:hosts:0", "example.test")])),
            ],
        ),
        (
            &[("secretsFile", file), ("nestedSeparator", "."), ("multiValued", "true")],
            vec![
                ("password", secret(&[("password", "hunter2")])),
                ("redis", secret(&[("user", "ann"), ("hosts.0", "example.test")])),
            ],
        ),
    ] {
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(name, secret)| (name.to_owned(), secret)).collect();
        let open = || open_secrets("secretstores.local.file", fields);
        assert_eq!(open().await.has_multiple_values(), fields.len() > 1);
        secrets::suite("secretstores.local.file", TOKIO, expected, open).await.assert_passed();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_keeps_the_promises() {
    // Cargo sets these for every test.
    let names = ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"];
    let expected = names.map(|name| (name.to_owned(), secret(&[(name, &std::env::var(name).unwrap())])));
    let open = || open_secrets("secretstores.local.env", &[]);
    secrets::suite("secretstores.local.env", TOKIO, expected.into(), open).await.assert_passed();
    let store = open_secrets("secretstores.local.env", &[("prefix", "CARGO_PKG_")]).await;
    let found = store.get("NAME", &Metadata::new()).await.unwrap();
    assert!(found == Some(secret(&[("NAME", "dhow-providers")])));
    assert!(store.get("CARGO_PKG_NAME", &Metadata::new()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_secret_file_that_does_not_work_is_named_and_its_values_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    let file = path.to_str().unwrap();
    for (fields, expected) in [(&[][..], "secretsFile"), (&[("secretsFile", file)], file)] {
        let error = try_open("secretstores.local.file", fields).await.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for text in ["", "{\"a\": hunter2}", "[\"hunter2\"]"] {
        fs::write(&path, text).unwrap();
        let error = try_open("secretstores.local.file", &[("secretsFile", file)]).await.err().unwrap();
        let error = error.to_string();
        assert!(error.contains(file) && !error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn edited_secrets_are_read_and_a_slip_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets.json");
    fs::write(&path, r#"{"a": "1"}"#).unwrap();
    let store = open_secrets("secretstores.local.file", &[("secretsFile", path.to_str().unwrap())]).await;
    let read = || async {
        store.get("a", &Metadata::new()).await.unwrap().map(|Secret(values)| values["a"].clone())
    };
    for (text, expected) in [(r#"{"a": "2"}"#, "2"), (r#"{"a": "#, "2"), (r#"{"a": "3"}"#, "3")] {
        replace(&path, text);
        assert_eq!(read().await.as_deref(), Some(expected));
    }
    fs::remove_file(&path).unwrap();
    let gone = store.get("a", &Metadata::new()).await;
    assert!(matches!(gone, Err(BlockError::Unavailable { .. })), "{gone:?}");
}

#[tokio::test]
async fn what_stands_ready_without_components() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join(".dhow");
    let mut stores = embedded(&data).into_iter();
    let mut find = |wanted: &str| stores.find(|(info, _)| info.name == wanted).unwrap().1;
    let Opened::Configuration(configuration) = find("configstore") else { panic!("no configuration") };
    let Opened::Secrets(secrets) = find("secretstore") else { panic!("no secrets") };
    let none = Metadata::new();
    // The environment, until there is a file.
    assert!(secrets.get("CARGO_PKG_NAME", &none).await.unwrap().is_some());
    assert!(secrets.get_all(&none).await.unwrap().contains_key("CARGO_PKG_NAME"));
    assert_eq!(configuration.get(&[], &none).await, Ok(Items::new()));
    assert!(!data.exists(), "reading made a folder");
    // A configuration that appears together with its folder is reported.
    let (handler, mut reports) = reporter(0);
    let running = configuration.subscribe(&[], &none, handler).await.unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("secrets.json"), r#"{"only": "this"}"#).unwrap();
    assert!(secrets.get("CARGO_PKG_NAME", &none).await.unwrap().is_none());
    assert!(secrets.get_all(&none).await.unwrap().keys().eq(["only"]));
    fs::write(data.join("config.json"), r#"{"greeting": "hello"}"#).unwrap();
    assert_eq!(next(&mut reports).await["greeting"].value, "hello");
    // The folder goes and comes back.
    fs::remove_dir_all(&data).unwrap();
    assert_eq!(next(&mut reports).await["greeting"].value, "");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("config.json"), r#"{"greeting": "again"}"#).unwrap();
    assert_eq!(next(&mut reports).await["greeting"].value, "again");
    running.stop().await;
    configuration.close().await;
}

/// Reports changes; the first `refusals` are not taken.
struct Reporter {
    reports: UnboundedSender<Items>,
    refusals: parking_lot::Mutex<usize>,
}

#[async_trait]
impl Handler<Items> for Reporter {
    async fn handle(&self, items: Items) -> Outcome {
        self.reports.send(items).unwrap();
        let mut refusals = self.refusals.lock();
        match refusals.checked_sub(1) {
            Some(left) => {
                *refusals = left;
                Outcome::Again
            }
            None => Outcome::Done,
        }
    }
}

fn reporter(refusals: usize) -> (Arc<Reporter>, UnboundedReceiver<Items>) {
    let (reports, receiver) = unbounded_channel();
    (Arc::new(Reporter { reports, refusals: parking_lot::Mutex::new(refusals) }), receiver)
}

async fn next(reports: &mut UnboundedReceiver<Items>) -> Items {
    tokio::time::timeout(PATIENCE, reports.recv()).await.expect("no change was reported").unwrap()
}

/// Writes changes through a store that apps may write to.
pub(crate) fn written_by(store: Arc<dyn ConfigurationStore>) -> configuration::Write {
    Arc::new(move |changes| {
        let store = Arc::clone(&store);
        Box::pin(async move {
            for (key, value) in changes {
                match value {
                    None => store.delete(&[key]).await.unwrap(),
                    Some(value) => {
                        let item = ConfigurationItem { value, ..ConfigurationItem::default() };
                        store.set(Items::from([(key, item)])).await.unwrap();
                    }
                }
            }
        })
    })
}

/// Writes changes into a file in one of the ways that editors have.
fn writer(path: PathBuf, write: fn(&Path, &str)) -> configuration::Write {
    let content = Arc::new(parking_lot::Mutex::new(Map::new()));
    Arc::new(move |changes| {
        let mut content = content.lock();
        for (key, value) in changes {
            match value {
                Some(value) => content.insert(key, Value::String(value)),
                None => content.remove(&key),
            };
        }
        write(&path, &Value::Object(content.clone()).to_string());
        Box::pin(async {})
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_files_keep_the_promises() {
    let in_place: fn(&Path, &str) = |path, text| fs::write(path, text).unwrap();
    // JSON is YAML, too.
    for (name, write) in [("config.json", in_place), ("config.json", replace), ("config.yaml", replace)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let open = || open_configuration(&path);
        let write = writer(path.clone(), write);
        configuration::suite("configuration.local.file", TOKIO, write, open).await.assert_passed();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let write = written_by(open_configuration(&path).await);
    let open = || open_configuration(&path);
    configuration::suite("configuration.local.file, written", TOKIO, write, open).await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slip_in_a_configuration_changes_nothing_and_a_refused_change_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs::write(&path, "{").unwrap();
    let field = [("configurationFile", path.to_str().unwrap())];
    let error = try_open("configuration.local.file", &field).await.err().unwrap().to_string();
    assert!(error.contains("config.json") && error.contains("JSON"), "{error}");
    fs::write(&path, r#"{"a": "1", "b": "1"}"#).unwrap();
    let store = open_configuration(&path).await;
    let (handler, mut reports) = reporter(2);
    let running = store.subscribe(&["a".to_owned()], &Metadata::new(), handler).await.unwrap();
    replace(&path, "{");
    assert_eq!(store.get(&["a".to_owned()], &Metadata::new()).await.unwrap()["a"].value, "1");
    replace(&path, r#"{"a": {"value": "2", "version": "v2", "metadata": {"by": "ops"}}}"#);
    for _ in 0..3 {
        let item = next(&mut reports).await.remove("a").unwrap();
        assert_eq!(
            (item.value.as_str(), item.version.as_str(), item.metadata["by"].as_str()),
            ("2", "v2", "ops")
        );
    }
    running.stop().await;
    assert!(reports.try_recv().is_err());
}
