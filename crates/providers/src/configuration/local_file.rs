//! `configuration.local.file`: values in a JSON or YAML file, reported when the file changes.
//!
//! ```json
//! {"greeting": "hello", "retries": 3, "limit": {"value": "10", "version": "v2", "metadata": {"by": "ops"}}}
//! ```
//!
//! The file may be replaced, removed and made again. A change that cannot be read changes nothing. The type
//! is not one of Dapr's, which has configuration stores on servers only.

use super::edit::edit;
use super::yaml;
use crate::file::{self, Reloaded};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::task::{Stop, Task};
use crate::watch::Changes;
use async_trait::async_trait;
use dhow_blocks::configuration::{ConfigurationItem, ConfigurationStore, Items};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome, Running};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "configuration.local.file",
    aliases: &[],
    versions: &["v1"],
    fields: &["configurationFile"],
    open: Open::Configuration(|component, _| Box::pin(open(component))),
};

/// A change that an app did not take is offered again, first after this time.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// A change that an app did not take is offered this often in all.
const OFFERS: u32 = 8;

/// Configuration in a file.
pub struct LocalFile {
    file: Arc<Reloaded<Items>>,
    shared: Mutex<Shared>,
}

/// What the subscriptions share.
enum Shared {
    /// Nobody has subscribed.
    Idle,
    /// A task follows the file and says what it holds.
    Following {
        task: Box<dyn Running>,
        current: Arc<Current>,
    },
    Closed,
}

/// What the file holds, as the subscriptions are told.
struct Current {
    file: Arc<Reloaded<Items>>,
    /// Locked from the look at the file until it is told, so that nothing older is told after it.
    sender: Mutex<watch::Sender<Arc<Items>>>,
}

/// One subscription.
struct Subscription {
    keys: Vec<String>,
    handler: Arc<dyn Handler<Items>>,
    items: watch::Receiver<Arc<Items>>,
    /// What the subscriber knows of.
    known: Arc<Items>,
}

async fn open(component: ComponentSpec) -> Result<Arc<dyn ConfigurationStore>, OpenError> {
    let Some(path) = component.field(&["configurationFile"]) else {
        return Err(component.invalid(&["configurationFile"], "given: the path of a JSON or YAML file"));
    };
    let store = LocalFile::new(path.into());
    // The file may come later, but a file that is there has to make sense.
    match file::read(&store.file).await {
        Ok(_) => Ok(Arc::new(store)),
        Err(error) => Err(OpenError::Backend { component: component.name, reason: error.to_string() }),
    }
}

/// Reads the values of a text: JSON, unless the file's name says YAML.
fn parse(path: &Path, text: &str) -> Result<Items, String> {
    let content = if is_yaml(path) {
        yaml::parse(text)?
    } else {
        serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?
    };
    let Value::Object(entries) = content else {
        return Err("expected one object: {\"key\": \"value\"}".to_owned());
    };
    let item = |(key, value): (String, Value)| match item(value) {
        Some(item) => Ok((key, item)),
        None => Err(format!(
            "key {key:?}: expected a value, or an object with \"value\", \"version\" and \"metadata\""
        )),
    };
    entries.into_iter().map(item).collect()
}

fn is_yaml(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["yaml", "yml"].iter().any(|yaml| yaml.eq_ignore_ascii_case(extension))
}

fn item(value: Value) -> Option<ConfigurationItem> {
    let Value::Object(mut fields) = value else {
        return Some(ConfigurationItem { value: text(value)?, ..ConfigurationItem::default() });
    };
    let value = text(fields.remove("value")?)?;
    let version = fields.remove("version").map_or(Some(String::new()), text)?;
    let metadata = match fields.remove("metadata") {
        None => Map::new(),
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return None,
    };
    let metadata = metadata.into_iter().map(|(name, value)| Some((name, text(value)?)));
    let metadata = metadata.collect::<Option<Metadata>>()?;
    fields.is_empty().then_some(ConfigurationItem { value, version, metadata })
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

// === impl LocalFile ===

impl LocalFile {
    /// Configuration in this file, which need not be there yet.
    pub fn new(path: PathBuf) -> LocalFile {
        let name = path.clone();
        let file = Reloaded::new(path, move |text: &str| parse(&name, text));
        LocalFile { file: Arc::new(file), shared: Mutex::new(Shared::Idle) }
    }

    /// What the file holds, from now on; starts to follow it if nobody does yet.
    async fn follow(&self) -> Result<Arc<Current>, BlockError> {
        let mut shared = self.shared.lock().await;
        match &*shared {
            Shared::Following { current, .. } => return Ok(Arc::clone(current)),
            Shared::Closed => return Err(closed()),
            Shared::Idle => {}
        }
        // Before the first look at the file, so that nothing happens unseen.
        let changes = Changes::watch([self.file.path().to_owned()]);
        let (sender, _) = watch::channel(Arc::default());
        let current = Arc::new(Current { file: Arc::clone(&self.file), sender: Mutex::new(sender) });
        let followed = Arc::clone(&current);
        let task = Box::new(Task::spawn(|stop| follow(followed, changes, stop)));
        *shared = Shared::Following { task, current: Arc::clone(&current) };
        Ok(current)
    }

    /// Writes, where the file is JSON: in YAML an operator's comments would be lost.
    async fn edit(&self, set: Items, delete: Vec<String>) -> Result<(), BlockError> {
        if matches!(*self.shared.lock().await, Shared::Closed) {
            return Err(closed());
        }
        let path = self.file.path().to_owned();
        if is_yaml(&path) {
            return Err(BlockError::NotSupported { feature: "writing configuration into a YAML file" });
        }
        let edited = tokio::task::spawn_blocking(move || edit(&path, set, &delete)).await;
        edited.unwrap_or_else(|error| Err(BlockError::failed(format!("a file was not written: {error}"))))?;
        // Subscribers need not wait for the next look at the file.
        let current = match &*self.shared.lock().await {
            Shared::Following { current, .. } => Some(Arc::clone(current)),
            Shared::Idle | Shared::Closed => None,
        };
        match current {
            Some(current) => current.look().await.map(drop),
            None => Ok(()),
        }
    }

    async fn items(&self) -> Result<Arc<Items>, BlockError> {
        Ok(file::read(&self.file).await?.unwrap_or_default())
    }
}

impl std::fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalFile").field("path", &self.file.path()).finish_non_exhaustive()
    }
}

#[async_trait]
impl ConfigurationStore for LocalFile {
    async fn get(&self, keys: &[String], _metadata: &Metadata) -> Result<Items, BlockError> {
        Ok(selected(&*self.items().await?, keys))
    }

    async fn subscribe(
        &self,
        keys: &[String],
        _metadata: &Metadata,
        handler: Arc<dyn Handler<Items>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let items = self.follow().await?.look().await?;
        let known = Arc::clone(&items.borrow());
        let subscription = Subscription { keys: keys.to_vec(), handler, items, known };
        Ok(Box::new(Task::spawn(|stop| subscription.run(stop))))
    }

    async fn set(&self, items: Items) -> Result<(), BlockError> {
        self.edit(items, Vec::new()).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BlockError> {
        self.edit(Items::new(), keys.to_vec()).await
    }

    async fn close(&self) {
        let shared = std::mem::replace(&mut *self.shared.lock().await, Shared::Closed);
        if let Shared::Following { task, .. } = shared {
            // The subscriptions end with it: its channel is closed.
            task.stop().await;
        }
    }
}

/// Says what the file holds whenever that may have changed.
async fn follow(current: Arc<Current>, mut changes: Changes, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.stopped() => return,
            () = changes.changed() => {}
        }
        if let Err(error) = current.look().await {
            tracing::warn!(%error, "a change of the configuration is not seen");
        }
    }
}

// === impl Current ===

impl Current {
    /// Looks at the file and tells what it holds; the answer has seen it, and hears of what comes.
    async fn look(&self) -> Result<watch::Receiver<Arc<Items>>, BlockError> {
        let sender = self.sender.lock().await;
        let items = file::read(&self.file).await?.unwrap_or_default();
        sender.send_if_modified(|current| {
            let changed = *current != items;
            *current = items;
            changed
        });
        Ok(sender.subscribe())
    }
}

// === impl Subscription ===

impl Subscription {
    async fn run(mut self, mut stop: Stop) {
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                changed = self.items.changed() => if changed.is_err() { return },
            }
            let current = Arc::clone(&self.items.borrow_and_update());
            let changes = changes(&self.known, &current, &self.keys);
            if !changes.is_empty() && !self.offer(changes, &mut stop).await {
                return;
            }
            self.known = current;
        }
    }

    /// Hands changes over until they are taken, or too often; `false` when the subscription is to end.
    async fn offer(&mut self, changes: Items, stop: &mut Stop) -> bool {
        let mut delay = FIRST_DELAY;
        for _ in 0..OFFERS {
            if stop.is_stopped() || self.items.has_changed().is_err() {
                return false;
            }
            if self.handler.handle(changes.clone()).await == Outcome::Done {
                return true;
            }
            let pause = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = stop.stopped() => return false,
                () = tokio::time::sleep(pause) => delay *= 2,
            }
        }
        let keys: Vec<_> = changes.keys().collect();
        tracing::warn!(?keys, "a change of the configuration was offered {OFFERS} times and not taken");
        true
    }
}

/// What is new or different among these keys, and, without a value, what is gone.
fn changes(before: &Items, after: &Items, keys: &[String]) -> Items {
    let asked = |key: &String| keys.is_empty() || keys.contains(key);
    let changed = after.iter().filter(|(key, item)| before.get(*key) != Some(*item));
    let changed = changed.map(|(key, item)| (key.clone(), item.clone()));
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), ConfigurationItem::default()));
    changed.chain(gone).filter(|(key, _)| asked(key)).collect()
}

fn selected(items: &Items, keys: &[String]) -> Items {
    if keys.is_empty() {
        return items.clone();
    }
    keys.iter().filter_map(|key| Some((key.clone(), items.get(key)?.clone()))).collect()
}

fn closed() -> BlockError {
    BlockError::unavailable("the store is closed, because the host is shutting down")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let plain =
            |value: &str| ConfigurationItem { value: value.to_owned(), ..ConfigurationItem::default() };
        let full = ConfigurationItem {
            value: "10".to_owned(),
            version: "2".to_owned(),
            metadata: Metadata::from([("by".to_owned(), "ops".to_owned())]),
        };
        let json = r#"{"a": "x", "b": 1.50, "c": true, "e": "", "d": {"value": 10, "version": "2", "metadata": {"by": "ops"}}}"#;
        let yaml =
            "a: x\nb: 1.50\nc: true\ne:\n# note\nd:\n  value: 10\n  version: '2'\n  metadata: {by: ops}\n";
        for (name, text, number) in
            [("c.json", json, "1.5"), ("c.yaml", yaml, "1.50"), ("c.YML", yaml, "1.50")]
        {
            let items = parse(Path::new(name), text).unwrap();
            let expected = [
                ("a", plain("x")),
                ("b", plain(number)),
                ("c", plain("true")),
                ("d", full.clone()),
                ("e", plain("")),
            ];
            assert_eq!(items, expected.map(|(key, item)| (key.to_owned(), item)).into(), "{name}");
        }
        assert_eq!(parse(Path::new("c.json"), "{}"), Ok(Items::new()));
        assert_eq!(parse(Path::new("c.yaml"), ""), Ok(Items::new()));
    }

    #[test]
    fn mistakes_are_named() {
        for (name, text, expected) in [
            ("c.json", "", "not JSON"),
            ("c.json", "[]", "one object"),
            ("c.json", r#"{"k": null}"#, "\"k\""),
            ("c.json", r#"{"k": ["a"]}"#, "\"k\""),
            ("c.json", r#"{"k": {}}"#, "\"k\""),
            ("c.json", r#"{"k": {"value": "a", "other": 1}}"#, "\"k\""),
            ("c.json", r#"{"k": {"value": "a", "metadata": "x"}}"#, "\"k\""),
            ("c.yaml", "- a", "one object"),
            ("c.yaml", "k: [a]", "\"k\""),
            ("c.yaml", "k: [", "line"),
            ("c.yaml", "a: &x 1\nb: *x", "alias"),
            ("c.yaml", "a: 1\na: 2", "twice"),
            ("c.yaml", "? [a]\n: b", "key"),
        ] {
            let error = parse(Path::new(name), text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn differences() {
        let items = |pairs: &[(&str, &str)]| -> Items {
            let item =
                |value: &str| ConfigurationItem { value: value.to_owned(), ..ConfigurationItem::default() };
            pairs.iter().map(|(key, value)| ((*key).to_owned(), item(value))).collect()
        };
        let before = items(&[("same", "1"), ("changed", "1"), ("gone", "1")]);
        let after = items(&[("same", "1"), ("changed", "2"), ("new", "1")]);
        let all = items(&[("changed", "2"), ("new", "1"), ("gone", "")]);
        assert_eq!(changes(&before, &after, &[]), all);
        assert_eq!(changes(&before, &after, &["gone".to_owned(), "same".to_owned()]), items(&[("gone", "")]));
        assert_eq!(changes(&after, &after, &[]), Items::new());
    }
}
