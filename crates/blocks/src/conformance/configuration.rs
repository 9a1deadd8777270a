//! What every configuration store promises, as cases against [`ConfigurationStore`].
//!
//! The block has no way to write, so the caller lends one.

use super::inbox::{Inbox, inbox};
use super::{Case, CaseResult, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::configuration::{ConfigurationStore, Items};
use crate::events::{Metadata, Outcome, Running};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// A change of one key: its new value, or none to delete it.
pub type Change = (String, Option<String>);

/// Applies changes to what the store shows; done when a later read of the backend sees them.
pub type Write = Arc<dyn Fn(Vec<Change>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A store may show a change this much later.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a case looks whether the store shows a change.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What a case works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn ConfigurationStore>,
    write: Write,
    prefix: String,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "one key is read" => one,
    "many keys are read" => many,
    "all keys are read" => every,
    "a missing key is left out" => missing,
    "values come back unchanged" => unchanged,
    "a change is reported" => update,
    "a deletion is reported" => deletion,
    "only subscribed keys are reported" => only_subscribed,
    "a subscription without keys reports all" => subscribe_all,
    "what the values are at the start is not reported" => start,
    "every subscription is told" => several,
    "nothing is reported after a stop" => stopped,
    "a closed store reports nothing" => closed,
};

/// Runs every case, each on a store of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, write: Write, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn ConfigurationStore>>,
{
    let open = |prefix| {
        let (opening, write) = (open(), Arc::clone(&write));
        async move { Context { store: opening.await, write, prefix, runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.store.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn one(context: Context) -> CaseResult {
    context.set(&[("a", "1"), ("b", "2")]).await?;
    ensure_eq!(context.get(&["a"]).await?, [("a".to_owned(), "1".to_owned())], "items");
    Ok(())
}

async fn many(context: Context) -> CaseResult {
    context.set(&[("a", "1"), ("b", "2"), ("c", "3")]).await?;
    let expected = [("a".to_owned(), "1".to_owned()), ("c".to_owned(), "3".to_owned())];
    ensure_eq!(context.get(&["c", "a"]).await?, expected, "items");
    Ok(())
}

async fn every(context: Context) -> CaseResult {
    context.set(&[("a", "1"), ("b", "2")]).await?;
    let items = context.store.get(&[], &Metadata::new()).await?;
    for (name, value) in [("a", "1"), ("b", "2")] {
        let found = items.get(&context.key(name)).map(|item| item.value.as_str());
        ensure_eq!(found, Some(value), "value of {name:?} among all");
    }
    Ok(())
}

async fn missing(context: Context) -> CaseResult {
    context.set(&[("a", "1")]).await?;
    ensure_eq!(context.get(&["missing"]).await?, [], "items of a missing key");
    ensure_eq!(context.get(&["missing", "a"]).await?.len(), 1, "items of a missing key and another");
    context.delete("a").await?;
    ensure_eq!(context.get(&["a"]).await?, [], "items of a deleted key");
    Ok(())
}

async fn unchanged(context: Context) -> CaseResult {
    let values = [
        "x",
        " padded ",
        "line\nbreak",
        "\"quoted\"",
        "{\"a\": [1, 2]}",
        "50%",
        "a|b",
        "Grüße 🐪",
        "true",
        "1e3",
    ];
    let names: Vec<String> = (0..values.len()).map(|number| format!("key-{number}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values).collect();
    context.set(&pairs).await?;
    for (name, value) in pairs {
        ensure_eq!(context.get(&[name]).await?, [(name.to_owned(), value.to_owned())], "items");
    }
    Ok(())
}

async fn update(context: Context) -> CaseResult {
    context.set(&[("a", "1")]).await?;
    let (running, mut inbox) = context.subscribe(&["a", "b"]).await?;
    for (name, value) in [("a", "2"), ("b", "new"), ("a", "3")] {
        context.set(&[(name, value)]).await?;
        context.reported(&mut inbox, name, value).await?;
    }
    running.stop().await;
    Ok(())
}

async fn deletion(context: Context) -> CaseResult {
    context.set(&[("a", "1"), ("b", "1")]).await?;
    let (running, mut inbox) = context.subscribe(&["a", "b"]).await?;
    context.delete("a").await?;
    context.reported(&mut inbox, "a", "").await?;
    context.set(&[("a", "back")]).await?;
    context.reported(&mut inbox, "a", "back").await?;
    running.stop().await;
    Ok(())
}

async fn only_subscribed(context: Context) -> CaseResult {
    context.set(&[("a", "1"), ("b", "1")]).await?;
    let (running, mut inbox) = context.subscribe(&["a"]).await?;
    context.set(&[("b", "2")]).await?;
    context.set(&[("a", "2")]).await?;
    let items = inbox.next().await?;
    ensure_eq!(items.keys().cloned().collect::<Vec<_>>(), [context.key("a")], "reported keys");
    running.stop().await;
    Ok(())
}

async fn subscribe_all(context: Context) -> CaseResult {
    context.set(&[("a", "1")]).await?;
    let (running, mut inbox) = context.subscribe(&[]).await?;
    for (name, value) in [("a", "2"), ("new", "1")] {
        context.set(&[(name, value)]).await?;
        context.reported(&mut inbox, name, value).await?;
    }
    running.stop().await;
    Ok(())
}

async fn start(context: Context) -> CaseResult {
    context.set(&[("a", "old"), ("b", "old")]).await?;
    let (running, mut inbox) = context.subscribe(&["a", "b"]).await?;
    context.set(&[("b", "new")]).await?;
    let items = inbox.next().await?;
    let found: Vec<(&String, &str)> = items.iter().map(|(key, item)| (key, item.value.as_str())).collect();
    ensure_eq!(found, [(&context.key("b"), "new")], "first report");
    running.stop().await;
    Ok(())
}

async fn several(context: Context) -> CaseResult {
    let (first, mut one) = context.subscribe(&["a"]).await?;
    let (second, mut two) = context.subscribe(&["a"]).await?;
    context.set(&[("a", "1")]).await?;
    for inbox in [&mut one, &mut two] {
        context.reported(inbox, "a", "1").await?;
    }
    first.stop().await;
    context.set(&[("a", "2")]).await?;
    context.reported(&mut two, "a", "2").await?;
    second.stop().await;
    Ok(())
}

async fn stopped(context: Context) -> CaseResult {
    let (stopped, mut silent) = context.subscribe(&["a"]).await?;
    let (running, mut inbox) = context.subscribe(&["a"]).await?;
    context.set(&[("a", "1")]).await?;
    context.reported(&mut silent, "a", "1").await?;
    context.reported(&mut inbox, "a", "1").await?;
    stopped.stop().await;
    silent.here();
    context.set(&[("a", "2")]).await?;
    context.reported(&mut inbox, "a", "2").await?;
    running.stop().await;
    ensure_eq!(silent.here().len(), 0, "reports after the stop");
    Ok(())
}

async fn closed(context: Context) -> CaseResult {
    let (running, mut inbox) = context.subscribe(&["a"]).await?;
    context.set(&[("a", "1")]).await?;
    context.reported(&mut inbox, "a", "1").await?;
    context.store.close().await;
    context.store.close().await;
    inbox.here();
    (context.write)(vec![(context.key("a"), Some("2".to_owned()))]).await;
    let stopped = context.runtime.within(Duration::from_secs(30), running.stop()).await;
    stopped.ok_or_else(|| Failure::new("stop after close does not return"))?;
    ensure_eq!(inbox.here().len(), 0, "reports after close");
    Ok(())
}

// === impl Context ===

impl Context {
    fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn keys(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.key(name)).collect()
    }

    /// Writes values and waits until the store shows them.
    async fn set(&self, pairs: &[(&str, &str)]) -> CaseResult {
        (self.write)(pairs.iter().map(|(name, value)| (self.key(name), Some((*value).to_owned()))).collect())
            .await;
        for (name, value) in pairs {
            self.shows(name, Some(value)).await?;
        }
        Ok(())
    }

    async fn delete(&self, name: &str) -> CaseResult {
        (self.write)(vec![(self.key(name), None)]).await;
        self.shows(name, None).await
    }

    async fn shows(&self, name: &str, value: Option<&str>) -> CaseResult {
        let mut waited = Duration::ZERO;
        loop {
            let found = self.get(&[name]).await?.pop().map(|(_, value)| value);
            if found.as_deref() == value {
                return Ok(());
            }
            ensure!(waited < PATIENCE, "{name:?} is {found:?} {PATIENCE:?} after it became {value:?}");
            (self.runtime.sleep)(POLL_INTERVAL).await;
            waited += POLL_INTERVAL;
        }
    }

    /// Names and values, in the order of the names.
    async fn get(&self, names: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let items = self.store.get(&self.keys(names), &Metadata::new()).await?;
        let name = |key: &str| key.strip_prefix(&format!("{}-", self.prefix)).unwrap_or(key).to_owned();
        Ok(items.into_iter().map(|(key, item)| (name(&key), item.value)).collect())
    }

    async fn subscribe(&self, names: &[&str]) -> Result<(Box<dyn Running>, Inbox<Items>), Failure> {
        let (handler, inbox) = inbox(self.runtime, |_: &Items| Outcome::Done);
        let running = self.store.subscribe(&self.keys(names), &Metadata::new(), handler).await?;
        Ok((running, inbox))
    }

    /// Waits for a report that this key has this value now. A store may report twice, and others beside.
    async fn reported(&self, inbox: &mut Inbox<Items>, name: &str, value: &str) -> CaseResult {
        loop {
            let items = inbox.next().await?;
            if items.get(&self.key(name)).is_some_and(|item| item.value == value) {
                return Ok(());
            }
        }
    }
}
