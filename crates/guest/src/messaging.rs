//! Messages of guests, over the pub/sub block.
//!
//! | file | interface |
//! |---|---|
//! | `wasi` | `wasi:messaging@0.2.0-draft` |
//! | `wasmcloud` | `wasmcloud:messaging@0.2.0` |
//!
//! What arrives for a guest goes through `events`.

pub(crate) mod wasi;
pub(crate) mod wasmcloud;

use crate::store::GuestState;
use dhow_blocks::error::BlockError;
use dhow_blocks::pubsub::Message;
use dhow_blocks::scope::{Event, PublishError, Scope};
use dhow_blocks::trace::TraceContext;
use std::time::Duration;
use wasmtime::component::Linker;

/// The component that a guest gets when it names none (the embedded one's name).
pub(crate) const DEFAULT_PUBSUB: &str = "pubsub";

/// How long an answer is waited for by those who do not say.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasi::add_to_linker(linker)?;
    wasmcloud::add_to_linker(linker)
}

/// Publishes one event under the app's identity.
pub(crate) async fn publish(
    scope: &Scope,
    trace: TraceContext,
    pubsub: &str,
    topic: &str,
    event: Event,
) -> Result<(), PublishError> {
    check_topic(topic)?;
    scope.publish(pubsub, topic, event, trace, "").await
}

/// Publishes bare bytes under the app's identity and waits for the first answer, for so many milliseconds.
pub(crate) async fn request(
    scope: &Scope,
    pubsub: &str,
    topic: &str,
    data: Vec<u8>,
    milliseconds: Option<u64>,
) -> Result<Message, PublishError> {
    check_topic(topic)?;
    let limit = milliseconds.filter(|limit| *limit > 0).map_or(PATIENCE, Duration::from_millis);
    scope.request(pubsub, topic, data.into(), limit).await
}

/// Brokers are only asked about topics that can be.
pub(crate) fn check_topic(topic: &str) -> Result<(), PublishError> {
    match topic.is_empty() {
        true => Err(PublishError::Provider { error: BlockError::invalid("the topic is empty") }),
        false => Ok(()),
    }
}
