//! `pubsub.redis`: a topic is a stream, a consumer is one of its consumer groups.
//!
//! A message is an entry with the fields `data` and `metadata` (a JSON object of texts), as Dapr's are. Entries
//! stay in the stream after they were handled, because other groups may come to read them; `maxLenApprox` or
//! `streamTTL` bounds what stays.

use super::error::Failure;
use super::pool::{Pool, Repeat};
use super::receivers::Receivers;
use super::subscription::{Settings, Subscription};
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::task::Task;
use ::redis::{Cmd, Script, Value};
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Running};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "pubsub.redis",
    aliases: &[],
    versions: &["v1"],
    fields: super::fields![
        "processingTimeout",
        "redeliverInterval",
        "queueDepth",
        "concurrency",
        "maxLenApprox",
        "streamTTL",
        "ackOnError",
        "entryKeepAliveInterval"
    ],
    open: Open::PubSub(|component, _| {
        Box::pin(async move { Ok(Arc::new(RedisPubSub::open(&component).await?) as Arc<_>) })
    }),
};

/// `close` waits this much longer than a subscription has for its own end.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A message broker on a Redis server.
struct RedisPubSub {
    pool: Arc<Pool>,
    settings: Settings,
    /// Entries that a stream keeps, roughly.
    max_length: Option<i64>,
    /// How long a stream keeps an entry, roughly.
    stream_ttl: Option<Duration>,
    /// Moves an entry's idle time while it is being handled.
    keep: Arc<Script>,
    receivers: Receivers,
}

// === impl RedisPubSub ===

impl RedisPubSub {
    async fn open(component: &ComponentSpec) -> Result<RedisPubSub, OpenError> {
        let settings = Settings::read(component)?;
        let max_length = super::number(component, &["maxLenApprox"], 0..=i64::MAX, "a number of entries")?;
        let stream_ttl = match component.field(&["streamTTL"]).and_then(|text| text.trim().strip_suffix('d'))
        {
            Some(days) => match days.parse::<u32>() {
                Ok(days) => Some(Duration::from_secs(u64::from(days) * 24 * 3600)),
                Err(_) => return Err(component.invalid(&["streamTTL"], "a duration such as 24h or 30d")),
            },
            None => component.duration(&["streamTTL"])?,
        };
        Ok(RedisPubSub {
            pool: Arc::new(super::open(component).await?),
            settings,
            max_length: max_length.filter(|length| *length > 0),
            stream_ttl: stream_ttl.filter(|ttl| !ttl.is_zero()),
            keep: Arc::new(Script::new(include_str!("scripts/keep.lua"))),
            receivers: Receivers::new(),
        })
    }

    /// The command that appends a message.
    fn append(&self, message: &Outgoing) -> Result<Cmd, BlockError> {
        if message.topic.is_empty() {
            return Err(BlockError::invalid("a message needs a topic"));
        }
        let metadata = serde_json::to_string(&message.metadata)
            .map_err(|error| BlockError::invalid(format!("the message's metadata: {error}")))?;
        let mut append = ::redis::cmd("XADD");
        append.arg(&message.topic);
        if let Some(length) = self.max_length {
            append.arg("MAXLEN").arg("~").arg(length);
        } else if let Some(ttl) = self.stream_ttl {
            let oldest = SystemTime::now().checked_sub(ttl).unwrap_or(SystemTime::UNIX_EPOCH);
            let oldest = oldest.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            append.arg("MINID").arg("~").arg(format!("{}-1", oldest.as_millis()));
        }
        append.arg("*").arg("data").arg(&message.data[..]).arg("metadata").arg(metadata);
        Ok(append)
    }
}

#[async_trait]
impl PubSub for RedisPubSub {
    /// None, as with Dapr: it is the envelope that expires, and several messages are several entries.
    fn features(&self) -> &'static [Feature] {
        &[]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        let _id: String = self.pool.command(Repeat::Never, &self.append(&message)?).await?;
        Ok(())
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        let mut pipeline = ::redis::pipe();
        // One message that the server refuses does not take the others with it.
        pipeline.ignore_errors();
        let mut results = Vec::with_capacity(messages.len());
        for message in &messages {
            results.push(self.append(message).map(|append| {
                pipeline.add_command(append);
            }));
        }
        if pipeline.is_empty() {
            return results;
        }
        let answers: Result<Vec<Value>, Failure> = self.pool.pipeline(Repeat::Never, &pipeline).await;
        let (mut answers, missing) = match answers {
            Ok(answers) => (answers.into_iter(), BlockError::failed("Redis left out an answer")),
            Err(failure) => (Vec::new().into_iter(), BlockError::from(failure)),
        };
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            *result = match answers.next().map(Value::extract_error) {
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(Failure::from(error).into()),
                None => Err(missing.clone()),
            };
        }
        results
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        if subscribe.topic.is_empty() || subscribe.consumer.is_empty() {
            return Err(BlockError::invalid("a subscription needs a topic and a consumer"));
        }
        let alive = self.receivers.begin()?;
        let subscription = Subscription::new(
            Arc::clone(&self.pool),
            self.settings,
            Arc::clone(&self.keep),
            subscribe,
            handler,
        );
        subscription.create_group().await?;
        Ok(Box::new(Task::spawn(|stop| async move {
            subscription.run(stop).await;
            drop(alive);
        })))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        let () = self.pool.command(Repeat::Harmless, &::redis::cmd("PING")).await?;
        Ok(())
    }

    async fn close(&self) {
        self.pool.announce_close();
        // They acknowledge over the pool what was handled until now.
        self.receivers.end(self.settings.stop_deadline() + CLOSE_GRACE).await;
        self.pool.close().await;
    }
}
