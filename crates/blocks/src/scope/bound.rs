//! A provider as one app sees it: with its policy and its measurements.

use super::State;
use crate::blob::BlobError;
use crate::error::BlockError;
use crate::policy::{Policy, Resilient};
use crate::state::StateError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a component is, for the metadata API and for messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentInfo {
    /// Its name.
    pub name: String,
    /// Its type, e.g. `state.sqlite`.
    pub component_type: String,
    /// The version of the type, e.g. `v1`.
    pub version: String,
    /// What it can do, in Dapr's words.
    pub capabilities: Vec<&'static str>,
}

/// Takes the measurements of one component's calls.
pub trait Meter: Send + Sync + 'static {
    /// A call of this operation ended. `object` is what it was about, where that is measured: the topic of a message,
    /// the operation of a binding; else empty.
    fn record(&self, operation: &'static str, object: &str, success: bool, elapsed: Duration);
}

/// A provider with what surrounds each call to it.
pub struct Bound<P: ?Sized> {
    /// The provider.
    pub provider: Arc<P>,
    /// Which component it is.
    pub component: Arc<ComponentInfo>,
    /// Timeout, retries and circuit breaker of calls to it.
    pub policy: Policy,
    /// Takes the measurements; none where nobody asks for them.
    pub meter: Option<Arc<dyn Meter>>,
}

impl<P: ?Sized> Bound<P> {
    /// A provider without policy and measurements.
    pub fn bare(provider: Arc<P>, component: ComponentInfo) -> Bound<P> {
        Bound { provider, component: Arc::new(component), policy: Policy::default(), meter: None }
    }

    /// Calls the provider under the policy; `operation` names the call in the measurements.
    pub async fn call<I, T, E, F>(
        &self,
        operation: &'static str,
        input: I,
        call: impl FnMut(I) -> F,
    ) -> Result<T, E>
    where
        I: Clone,
        E: Resilient,
        F: Future<Output = Result<T, E>>,
    {
        self.call_for(operation, "", input, call).await
    }

    /// The same, for a call whose object is measured, too (see [`Meter::record`]).
    pub async fn call_for<I, T, E, F>(
        &self,
        operation: &'static str,
        object: &str,
        input: I,
        call: impl FnMut(I) -> F,
    ) -> Result<T, E>
    where
        I: Clone,
        E: Resilient,
        F: Future<Output = Result<T, E>>,
    {
        let began = Instant::now();
        let answer = self.policy.run(input, call).await;
        if let Some(meter) = &self.meter {
            meter.record(operation, object, answer.is_ok(), began.elapsed());
        }
        answer
    }
}

impl<P: ?Sized> Bound<P> {
    /// Measures a call that can be made once only, because what it hands over is gone then. No policy applies: it would
    /// end, as if it were late, what takes long because it is large.
    pub async fn once<T, E>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let began = Instant::now();
        let answer = call.await;
        if let Some(meter) = &self.meter {
            meter.record(operation, "", answer.is_ok(), began.elapsed());
        }
        answer
    }
}

impl<P: ?Sized> Clone for Bound<P> {
    fn clone(&self) -> Self {
        Bound {
            provider: Arc::clone(&self.provider),
            component: Arc::clone(&self.component),
            policy: self.policy.clone(),
            meter: self.meter.clone(),
        }
    }
}

impl<P: ?Sized> fmt::Debug for Bound<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("component", &self.component).finish_non_exhaustive()
    }
}

impl Resilient for BlockError {
    fn timed_out(limit: Duration) -> BlockError {
        BlockError::unavailable(format!("no answer within {limit:?}"))
    }

    fn circuit_open(breaker: &str) -> BlockError {
        BlockError::unavailable(format!("circuit breaker {breaker:?} is open: the component failed lately"))
    }

    fn may_pass(&self) -> bool {
        match self {
            BlockError::Unavailable { .. } | BlockError::Failed { .. } => true,
            BlockError::Invalid { .. } | BlockError::NotSupported { .. } => false,
        }
    }
}

impl Resilient for BlobError {
    fn timed_out(limit: Duration) -> BlobError {
        BlockError::timed_out(limit).into()
    }

    fn circuit_open(breaker: &str) -> BlobError {
        BlockError::circuit_open(breaker).into()
    }

    fn may_pass(&self) -> bool {
        matches!(self, BlobError::Block(error) if error.may_pass())
    }
}

impl Resilient for StateError {
    fn timed_out(limit: Duration) -> StateError {
        StateError::Unavailable { reason: format!("no answer within {limit:?}") }
    }

    fn circuit_open(breaker: &str) -> StateError {
        let reason = format!("circuit breaker {breaker:?} is open: the component failed lately");
        StateError::Unavailable { reason }
    }

    fn may_pass(&self) -> bool {
        matches!(self, StateError::Unavailable { .. } | StateError::Failed { .. })
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("bound", &self.bound).field("prefix", &self.prefix).finish()
    }
}
