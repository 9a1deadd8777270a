//! `configuration.redis`: a value is a string `value||version`; changes are known from keyspace notifications.

use super::error::Failure;
use super::pool::{Pool, Repeat};
use super::receivers::Receivers;
use super::watch::{STOP_DEADLINE, Watch};
use crate::registry::{Open, Provider};
use crate::task::Task;
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::configuration::{ConfigurationItem, ConfigurationStore, Items};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "configuration.redis",
    aliases: &[],
    versions: &["v1"],
    fields: super::fields![],
    open: Open::Configuration(|component, _| {
        Box::pin(async move {
            let pool = Arc::new(super::open(&component).await?);
            Ok(Arc::new(RedisConfiguration { pool, receivers: Receivers::new() }) as Arc<_>)
        })
    }),
};

/// What stands between value and version.
const SEPARATOR: &str = "||";

/// Most values that are read without being named.
const MOST_ITEMS: usize = 10_000;

/// Keys of one request.
const AT_ONCE: usize = 200;

/// Configuration on a Redis server.
struct RedisConfiguration {
    pool: Arc<Pool>,
    receivers: Receivers,
}

// === impl RedisConfiguration ===

#[async_trait]
impl ConfigurationStore for RedisConfiguration {
    async fn get(&self, keys: &[String], _metadata: &Metadata) -> Result<Items, BlockError> {
        Ok(read(&self.pool, keys).await?)
    }

    async fn subscribe(
        &self,
        keys: &[String],
        _metadata: &Metadata,
        handler: Arc<dyn Handler<Items>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let mut watch = Watch::new(Arc::clone(&self.pool), keys, handler);
        let alive = self.receivers.begin()?;
        watch.begin().await?;
        Ok(Box::new(Task::spawn(|stop| async move {
            watch.run(stop).await;
            drop(alive);
        })))
    }

    async fn set(&self, items: Items) -> Result<(), BlockError> {
        let mut values = ::redis::cmd("MSET");
        for (key, ConfigurationItem { value, version, metadata }) in &items {
            if !metadata.is_empty() {
                return Err(BlockError::NotSupported { feature: "metadata and tags of configuration" });
            }
            if value.contains(SEPARATOR) {
                let reason = format!(
                    "the value of {key:?} contains {SEPARATOR:?}, which separates it from its version"
                );
                return Err(BlockError::invalid(reason));
            }
            values.arg(key);
            match version.as_str() {
                "" => values.arg(value),
                version => values.arg(format!("{value}{SEPARATOR}{version}")),
            };
        }
        if items.is_empty() {
            return Ok(());
        }
        Ok(self.pool.command::<()>(Repeat::Harmless, &values).await?)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), BlockError> {
        if keys.is_empty() {
            return Ok(());
        }
        Ok(self.pool.command::<()>(Repeat::Harmless, ::redis::cmd("DEL").arg(keys)).await?)
    }

    async fn close(&self) {
        self.pool.announce_close();
        self.receivers.end(STOP_DEADLINE).await;
        self.pool.close().await;
    }
}

/// Reads these keys, or all strings of the database. What is no string is left out.
pub(super) async fn read(pool: &Pool, keys: &[String]) -> Result<Items, Failure> {
    let all;
    let keys = if keys.is_empty() {
        all = strings(pool).await?;
        &all
    } else {
        keys
    };
    let mut items = Items::new();
    for keys in keys.chunks(AT_ONCE) {
        let values: Vec<Option<Bytes>> =
            pool.command(Repeat::Harmless, ::redis::cmd("MGET").arg(keys)).await?;
        let found = keys.iter().zip(values).filter_map(|(key, value)| Some((key.clone(), item(&value?))));
        items.extend(found);
    }
    Ok(items)
}

async fn strings(pool: &Pool) -> Result<Vec<String>, Failure> {
    let mut keys = BTreeSet::new();
    let mut cursor: u64 = 0;
    loop {
        let mut scan = ::redis::cmd("SCAN");
        scan.arg(cursor).arg("COUNT").arg(1000).arg("TYPE").arg("string");
        let (next, found): (u64, Vec<Vec<u8>>) = pool.command(Repeat::Harmless, &scan).await?;
        keys.extend(found.into_iter().filter_map(|key| String::from_utf8(key).ok()));
        if keys.len() > MOST_ITEMS {
            let reason = format!("there are more than {MOST_ITEMS} keys in the database: name the keys");
            return Err(Failure::Unreachable(reason));
        }
        cursor = next;
        if cursor == 0 {
            return Ok(keys.into_iter().collect());
        }
    }
}

/// Dapr's form: what stands behind a second separator does not count.
fn item(text: &[u8]) -> ConfigurationItem {
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split(SEPARATOR);
    let value = parts.next().unwrap_or_default().to_owned();
    let version = parts.next().unwrap_or_default().to_owned();
    ConfigurationItem { value, version, metadata: Metadata::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_versions() {
        for (text, value, version) in [
            ("a||1", "a", "1"),
            ("a", "a", ""),
            ("", "", ""),
            ("||1", "", "1"),
            ("a||", "a", ""),
            ("a||1||2", "a", "1"),
            ("a|1", "a|1", ""),
        ] {
            let found = item(text.as_bytes());
            assert_eq!((found.value.as_str(), found.version.as_str()), (value, version), "{text:?}");
        }
    }
}
