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
use dhow_blocks::scope::{Event, PublishError, Scope};
use dhow_blocks::trace::TraceContext;
use wasmtime::component::Linker;

/// The component that a guest gets when it names none (the embedded one's name).
pub(crate) const DEFAULT_PUBSUB: &str = "pubsub";

/// Why nobody can ask and wait for an answer.
pub(crate) const NO_REPLIES: &str = "request and reply are not supported: the pub/sub block carries messages one way only; \
                          publish to a topic that the other side subscribes to, or invoke the other app";

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

/// Brokers are only asked about topics that can be.
pub(crate) fn check_topic(topic: &str) -> Result<(), PublishError> {
    match topic.is_empty() {
        true => Err(PublishError::Provider { error: BlockError::invalid("the topic is empty") }),
        false => Ok(()),
    }
}
