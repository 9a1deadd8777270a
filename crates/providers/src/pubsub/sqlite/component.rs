//! `pubsub.sqlite`: from metadata fields to [`QueueOptions`].

use super::{Queue, QueueOptions};
use crate::pubsub::in_memory::InMemory;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::state::sqlite::{Location, SqliteOptions, default_file, location};
use dhow_blocks::pubsub::PubSub;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.sqlite",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::PubSub(|component, context| {
        Box::pin(async move {
            let queue = open(&component, &context.data_dir)?;
            let name = component.name;
            let answer = queue.ping().await;
            answer.map_err(|error| OpenError::Backend { component: name, reason: error.to_string() })?;
            Ok(queue)
        })
    }),
};

/// The file of the embedded queue, in the host's data folder.
const EMBEDDED_FILE: &str = "queue.db";

/// The first five are those of `state.sqlite`, the next two those of `pubsub.redis`.
const FIELDS: &[&str] = &[
    "connectionString",
    "url",
    "busyTimeout",
    "disableWAL",
    "concurrency",
    "processingTimeout",
    "ordered",
    "retention",
    "consumerRetention",
    "maxMessages",
];

const CONNECTION_STRING: &[&str] = &["connectionString", "url"];

/// Another process may hold the file for as long as its own commits take.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The broker that an app has without any configuration: SQLite in the data folder, opened on first use.
pub fn embedded(data_dir: &Path) -> Arc<dyn PubSub> {
    Arc::new(Queue::new(QueueOptions::new(file(data_dir.join(EMBEDDED_FILE)))))
}

fn file(path: impl Into<std::path::PathBuf>) -> SqliteOptions {
    SqliteOptions { busy_timeout: BUSY_TIMEOUT, ..SqliteOptions::new(path) }
}

fn open(component: &ComponentSpec, data_dir: &Path) -> Result<Arc<dyn PubSub>, OpenError> {
    let path = match component.field(CONNECTION_STRING) {
        Some(text) => match location(text) {
            // Nobody can see the difference, but for the order, which is stricter.
            Ok(Location::Memory) => return Ok(Arc::new(InMemory::new())),
            Ok(Location::File(path)) => path,
            Err(expected) => return Err(component.invalid(CONNECTION_STRING, expected)),
        },
        None => default_file(&component.name, data_dir)
            .ok_or_else(|| component.invalid(CONNECTION_STRING, "given: the path of the database file"))?,
    };
    let mut options = QueueOptions::new(file(path));
    if let Some(timeout) = component.duration(&["busyTimeout"])? {
        options.file.busy_timeout = timeout;
    }
    options.file.disable_wal = component.truthy(&["disableWAL"]);
    if let Some(concurrency) = component.field(&["concurrency"]) {
        options.concurrency = match concurrency.trim().parse() {
            Ok(concurrency @ 1..=1000) => concurrency,
            _ => return Err(component.invalid(&["concurrency"], "a whole number from 1 to 1000")),
        };
    }
    options.ordered = component.truthy(&["ordered"]);
    if let Some(timeout) = component.duration(&["processingTimeout"])? {
        if !(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&timeout) {
            return Err(component.invalid(&["processingTimeout"], "from 1s to 24h"));
        }
        options.processing_timeout = timeout;
    }
    if let Some(retention) = component.duration(&["retention"])? {
        options.retention = retention;
    }
    if let Some(retention) = component.duration(&["consumerRetention"])? {
        options.consumer_retention = Some(retention).filter(|retention| !retention.is_zero());
    }
    if let Some(limit) = component.field(&["maxMessages"]) {
        options.max_messages = match limit.trim().parse() {
            Ok(limit @ 1..) => limit,
            _ => return Err(component.invalid(&["maxMessages"], "a whole number above 0")),
        };
    }
    Ok(Arc::new(Queue::new(options)))
}
