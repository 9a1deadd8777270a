//! What every binding promises, as cases against [`Binding`].
//!
//! Bindings have little in common: what an operation means is its backend's business. The suite looks at the
//! rest, and at the operations that store and read, where a binding has them.

use super::inbox::inbox;
use super::{Case, CaseResult, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use crate::error::BlockError;
use crate::events::{Handler, Outcome};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Makes the outside system cause one event.
pub type Trigger = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// What the suite needs to know about a binding.
#[derive(Clone, Default)]
pub struct Traits {
    /// For a binding that stores with `create` and reads with `get`: the metadata field that names the object,
    /// e.g. `key` or `fileName`.
    pub key_field: Option<&'static str>,
    /// For an input binding: causes an event. None where events come by themselves within seconds.
    pub trigger: Option<Trigger>,
}

/// What a case works with.
#[derive(Clone)]
struct Context {
    binding: Arc<dyn Binding>,
    traits: Traits,
    prefix: String,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "operations are named once" => operations,
    "an unknown operation is refused" => unknown,
    "what was created is read, until it is deleted" => stored,
    "reading is refused where it is not supported" => no_input,
    "an event arrives" => event,
    "no event is delivered after a stop" => stopped,
    "a binding that is reachable answers a ping" => ping,
    "a binding closes twice, and is silent then" => closed,
};

/// Runs every case, each on a binding of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, traits: Traits, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Binding>>,
{
    let open = |prefix| {
        let (opening, traits) = (open(), traits.clone());
        async move { Context { binding: opening.await, traits, prefix, runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.binding.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn operations(context: Context) -> CaseResult {
    let operations = context.binding.operations();
    ensure!(!operations.is_empty() || context.binding.is_input(), "neither an operation nor an event");
    let distinct: BTreeSet<&str> = operations.iter().copied().filter(|name| !name.is_empty()).collect();
    ensure_eq!(distinct.len(), operations.len(), "distinct operations of {operations:?}");
    Ok(())
}

async fn unknown(context: Context) -> CaseResult {
    for operation in ["", "no such operation", "🐪"] {
        let request = BindingRequest { operation: operation.to_owned(), ..BindingRequest::default() };
        match context.binding.invoke(request).await {
            Err(BlockError::Invalid { reason }) if reason.contains(operation) => {}
            other => {
                return Err(Failure::new(format!(
                    "operation {operation:?}: found {other:?}, expected Invalid with its name"
                )));
            }
        }
    }
    Ok(())
}

async fn stored(context: Context) -> CaseResult {
    if context.traits.key_field.is_none() {
        return Ok(());
    }
    let can = |operation| context.binding.operations().contains(&operation);
    for operation in ["create", "get"] {
        ensure!(can(operation), "a binding with a key has no operation {operation:?}");
    }
    for (name, data) in
        [("text", &b"hello"[..]), ("json", br#"{"a": 1}"#), ("again", b"first"), ("again", b"second")]
    {
        context.operate("create", name, data).await?;
        let found = context.operate("get", name, b"").await?.data;
        ensure_eq!(found, Some(Bytes::copy_from_slice(data)), "data of {name:?}");
    }
    if can("delete") {
        context.operate("delete", "text", b"").await?;
        // Absent is an error for some and no data for others.
        let found = context.operate("get", "text", b"").await.ok().and_then(|response| response.data);
        ensure!(found.is_none_or(|data| data.is_empty()), "what was deleted is still read");
        let found = context.operate("get", "json", b"").await?.data;
        ensure_eq!(found, Some(Bytes::from_static(br#"{"a": 1}"#)), "data beside what was deleted");
    }
    Ok(())
}

async fn no_input(context: Context) -> CaseResult {
    if context.binding.is_input() {
        return Ok(());
    }
    let (handler, _) = inbox(context.runtime, |_: &BindingEvent| Outcome::Done);
    let answer = context.binding.read(handler).await.map(drop);
    ensure!(matches!(answer, Err(BlockError::NotSupported { .. })), "reading answered {answer:?}");
    Ok(())
}

async fn event(context: Context) -> CaseResult {
    if !context.binding.is_input() {
        return Ok(());
    }
    let (handler, mut inbox) = inbox(context.runtime, |_: &BindingEvent| Outcome::Done);
    let running = context.binding.read(handler).await?;
    for _ in 0..2 {
        context.trigger().await;
        inbox.next().await?;
    }
    running.stop().await;
    Ok(())
}

async fn stopped(context: Context) -> CaseResult {
    if !context.binding.is_input() {
        return Ok(());
    }
    let (handler, mut silent) = inbox(context.runtime, |_: &BindingEvent| Outcome::Done);
    let running = context.binding.read(Arc::clone(&handler) as Arc<dyn Handler<BindingEvent>>).await?;
    context.trigger().await;
    silent.next().await?;
    running.stop().await;
    silent.here();
    let (handler, mut inbox) = inbox(context.runtime, |_: &BindingEvent| Outcome::Done);
    let running = context.binding.read(handler).await?;
    context.trigger().await;
    inbox.next().await?;
    running.stop().await;
    ensure_eq!(silent.here().len(), 0, "events after the stop");
    Ok(())
}

async fn ping(context: Context) -> CaseResult {
    context.binding.ping().await?;
    Ok(())
}

async fn closed(context: Context) -> CaseResult {
    let (handler, mut silent) = inbox(context.runtime, |_: &BindingEvent| Outcome::Done);
    let running = match context.binding.is_input() {
        true => Some(context.binding.read(handler).await?),
        false => None,
    };
    context.binding.close().await;
    context.binding.close().await;
    silent.here();
    if let Some(running) = running {
        context.trigger().await;
        let stopped = context.runtime.within(Duration::from_secs(30), running.stop()).await;
        stopped.ok_or_else(|| Failure::new("stop after close does not return"))?;
    }
    ensure_eq!(silent.here().len(), 0, "events after close");
    Ok(())
}

// === impl Context ===

impl Context {
    async fn trigger(&self) {
        if let Some(trigger) = &self.traits.trigger {
            trigger().await;
        }
    }

    async fn operate(&self, operation: &str, name: &str, data: &[u8]) -> Result<BindingResponse, BlockError> {
        let field = self.traits.key_field.unwrap_or_default().to_owned();
        let metadata = [(field, format!("{}-{name}", self.prefix))].into();
        let request =
            BindingRequest { operation: operation.to_owned(), data: Bytes::copy_from_slice(data), metadata };
        self.binding.invoke(request).await
    }
}
