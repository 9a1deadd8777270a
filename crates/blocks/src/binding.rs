//! The binding block: operations of outside systems, and events that come from them.

use crate::error::BlockError;
use crate::events::{Handler, Metadata, Running};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

/// One operation of an output binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingRequest {
    /// `create`, `get`, `exec`, …; the provider's own list is [`Binding::operations`].
    pub operation: String,
    /// Data of the operation.
    pub data: Bytes,
    /// Parameters of the operation.
    pub metadata: Metadata,
}

/// What an operation answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingResponse {
    /// Data; nothing where the operation has no answer.
    pub data: Option<Bytes>,
    /// What goes with the data.
    pub metadata: Metadata,
}

/// An event of an input binding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindingEvent {
    /// Data of the event.
    pub data: Bytes,
    /// What goes with the data; goes to the app as headers.
    pub metadata: Metadata,
}

/// A provider of bindings: of operations, of events, or of both.
#[async_trait]
pub trait Binding: Send + Sync + 'static {
    /// The operations that [`Binding::invoke`] knows; empty for a provider of events only.
    fn operations(&self) -> Vec<&str>;

    /// Whether [`Binding::read`] is supported.
    fn is_input(&self) -> bool {
        false
    }

    /// Carries out one operation.
    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, .. } = request;
        Err(BlockError::invalid(format!("operation {operation:?} is not known: this is an input binding")))
    }

    /// Begins to receive events.
    async fn read(&self, _handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        Err(BlockError::NotSupported { feature: "input events" })
    }

    /// Fails when the outside system could not be reached now.
    async fn ping(&self) -> Result<(), BlockError> {
        Ok(())
    }

    /// Stops receiving and lets go of connections.
    async fn close(&self) {}
}
