//! Instances of a provider: made when a call finds none idle, reused until one fails.

use super::Provider;
use super::generated::dhow::provider::types::Metadata;
use crate::failure::Failure;
use crate::store::{GuestState, Origin, new_store, service, undisturbed};
use dhow_blocks::error::BlockError;
use dhow_blocks::state::StateError;
use dhow_engine::Engine;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use wasmtime::Store;
use wasmtime::component::InstancePre;

/// An instance is let go after this long without work, but for the last one.
const IDLE: Duration = Duration::from_secs(60);

/// Calls that wait for an instance; more are refused.
const MAX_WAITING: usize = 1024;

/// An interface of `dhow:provider`, as one instance exports it.
pub(super) trait Exported: Send + Sync + Sized + 'static {
    /// The beginning of its name.
    const INTERFACE: &'static str;
    /// Where its functions are, in every instance.
    type Indices: Send + Sync + 'static;

    fn find(pre: &InstancePre<GuestState>) -> wasmtime::Result<Self::Indices>;

    fn load(
        indices: &Self::Indices,
        store: &mut Store<GuestState>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<Self>;

    /// Calls `init`; the inner error is what the component says.
    fn init<'a>(
        &'a self,
        store: &'a mut Store<GuestState>,
        metadata: &'a Metadata,
    ) -> BoxFuture<'a, wasmtime::Result<Result<(), String>>>;
}

/// What the bindings of one interface have in common; `$words` says what a component means with an error.
macro_rules! exported {
    ($wit:ident, $interface:literal, $words:expr) => {
        impl $crate::provider::pool::Exported for $wit::Guest {
            const INTERFACE: &'static str = $interface;
            type Indices = $wit::GuestIndices;

            fn find(
                pre: &wasmtime::component::InstancePre<$crate::store::GuestState>,
            ) -> wasmtime::Result<$wit::GuestIndices> {
                $wit::GuestIndices::new(pre)
            }

            fn load(
                indices: &$wit::GuestIndices,
                store: &mut wasmtime::Store<$crate::store::GuestState>,
                instance: &wasmtime::component::Instance,
            ) -> wasmtime::Result<$wit::Guest> {
                indices.load(store, instance)
            }

            fn init<'a>(
                &'a self,
                store: &'a mut wasmtime::Store<$crate::store::GuestState>,
                metadata: &'a $wit::Metadata,
            ) -> futures::future::BoxFuture<'a, wasmtime::Result<Result<(), String>>> {
                Box::pin(async move { Ok(self.call_init(store, metadata).await?.map_err($words)) })
            }
        }
    };
}
pub(super) use exported;

/// One instance, which was initialised.
pub(super) struct Instance<E> {
    pub(super) store: Store<GuestState>,
    pub(super) exports: E,
    idle_since: Instant,
}

/// The instances of a provider.
pub(super) struct Pool<E: Exported> {
    provider: Provider,
    engine: Engine,
    pre: InstancePre<GuestState>,
    indices: E::Indices,
    /// The last one is the warmest.
    idle: Mutex<Vec<Instance<E>>>,
    /// One for each call that may be under way. Closed with the pool.
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// A call that the component did not answer.
pub(super) enum Broken {
    /// A later one may be answered.
    Unavailable(String),
    /// It trapped, or may not answer any more.
    Failed(String),
}

/// Counts a call that waits, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

// === impl Pool ===

impl<E: Exported> Pool<E> {
    pub(super) fn new(
        engine: Engine,
        pre: InstancePre<GuestState>,
        indices: E::Indices,
        provider: Provider,
    ) -> Pool<E> {
        let turns = Semaphore::new(provider.concurrency);
        let (idle, waiting) = (Mutex::default(), AtomicUsize::new(0));
        Pool { provider, engine, pre, indices, idle, turns, waiting }
    }

    pub(super) fn name(&self) -> &str {
        &self.provider.name
    }

    /// One call, in an instance that serves nobody else meanwhile. When the caller goes away, the instance does, too.
    pub(super) async fn call<T>(
        &self,
        call: impl for<'a> FnOnce(&'a mut Instance<E>) -> BoxFuture<'a, wasmtime::Result<T>>,
    ) -> Result<T, Broken> {
        let _turn = self.turn().await?;
        let idle = self.idle.lock().pop();
        let mut instance = match idle {
            Some(instance) => instance,
            None => self.instance().await?,
        };
        let answer = self.call_in(&mut instance, call).await?;
        self.keep(instance);
        Ok(answer)
    }

    /// One call in this instance, which is of no use any more after an error.
    pub(super) async fn call_in<T>(
        &self,
        instance: &mut Instance<E>,
        call: impl for<'a> FnOnce(&'a mut Instance<E>) -> BoxFuture<'a, wasmtime::Result<T>>,
    ) -> Result<T, Broken> {
        (self.provider.permit)().map_err(|reason| Broken::Failed(self.told(&reason)))?;
        undisturbed(&mut instance.store);
        let called = self.in_time(call(&mut *instance)).await;
        called.map_err(|error| self.broken(error, &instance.store))
    }

    /// A new instance, after `init`.
    pub(super) async fn instance(&self) -> Result<Instance<E>, Broken> {
        (self.provider.permit)().map_err(|reason| Broken::Failed(self.told(&reason)))?;
        let setup = &self.provider.setup;
        let wasi = service(setup).map_err(|error| Broken::Failed(self.told(&format!("{error:#}"))))?;
        let mut store = new_store(self.pre.engine(), setup, wasi, Origin::default());
        let made = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            let exports = E::load(&self.indices, &mut store, &instance)?;
            let initialised = exports.init(&mut store, &self.provider.metadata).await?;
            Ok(initialised.map(|()| exports))
        };
        let made = self.in_time(Box::pin(made)).await;
        match made {
            Ok(Ok(exports)) => Ok(Instance { store, exports, idle_since: Instant::now() }),
            Ok(Err(reason)) => {
                Err(Broken::Unavailable(self.told(&format!("init: {}", super::brief(reason)))))
            }
            Err(error) => Err(self.broken(error, &store)),
        }
    }

    /// Waits for what is under way; later calls are refused.
    pub(super) async fn close(&self) {
        let all = u32::try_from(self.provider.concurrency).unwrap_or(u32::MAX);
        let ended = self.turns.acquire_many(all);
        let _ = tokio::time::timeout(self.provider.setup.bounds.deadline, ended).await;
        self.turns.close();
        self.idle.lock().clear();
    }

    async fn in_time<T>(
        &self,
        call: BoxFuture<'_, wasmtime::Result<T>>,
    ) -> Result<T, Option<wasmtime::Error>> {
        let _running = self.engine.running();
        let called = tokio::time::timeout(self.provider.setup.bounds.deadline, call).await;
        called.map_err(|_| None)?.map_err(Some)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Broken> {
        let waiting = Waiting::new(&self.waiting);
        if waiting.0.load(Ordering::Relaxed) > MAX_WAITING {
            return Err(Broken::Unavailable(self.told("too many calls wait for it (limits.concurrency)")));
        }
        let limit = self.provider.setup.bounds.deadline;
        match tokio::time::timeout(limit, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(Broken::Unavailable(self.told("it is closed"))),
            Err(_) => Err(Broken::Unavailable(
                self.told(&format!("it was busy for {limit:?} (limits.concurrency)")),
            )),
        }
    }

    fn keep(&self, mut instance: Instance<E>) {
        if self.turns.is_closed() {
            return;
        }
        instance.idle_since = Instant::now();
        let gone: Vec<Instance<E>> = {
            let mut idle = self.idle.lock();
            idle.push(instance);
            idle.extract_if(.., |instance| instance.idle_since.elapsed() > IDLE).collect()
        };
        drop(gone);
    }

    fn broken(&self, error: Option<wasmtime::Error>, store: &Store<GuestState>) -> Broken {
        let failure = match error {
            Some(error) => Failure::of(&error, store.data().limiter.refused()),
            None => Failure::Deadline(self.provider.setup.bounds.deadline),
        };
        if let Failure::Trap { backtrace, .. } = &failure {
            tracing::debug!("component {}: {failure}\n{backtrace}", self.provider.name);
        }
        let text = self.told(&failure.to_string());
        match failure {
            Failure::Deadline(_) | Failure::NoRoom(_) => Broken::Unavailable(text),
            _ => Broken::Failed(text),
        }
    }

    fn told(&self, reason: &str) -> String {
        format!("component {:?}: {reason}", self.provider.name)
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Broken ===

impl From<Broken> for String {
    fn from(broken: Broken) -> String {
        match broken {
            Broken::Unavailable(reason) | Broken::Failed(reason) => reason,
        }
    }
}

impl From<Broken> for BlockError {
    fn from(broken: Broken) -> BlockError {
        match broken {
            Broken::Unavailable(reason) => BlockError::unavailable(reason),
            Broken::Failed(reason) => BlockError::failed(reason),
        }
    }
}

impl From<Broken> for StateError {
    fn from(broken: Broken) -> StateError {
        match broken {
            Broken::Unavailable(reason) => StateError::Unavailable { reason },
            Broken::Failed(reason) => StateError::Failed { reason },
        }
    }
}
