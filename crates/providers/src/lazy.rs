//! A state store that opens when somebody first uses it.
//!
//! A host offers its embedded store to every app; most apps never touch it. Until one does, [`Lazy`] costs
//! no file, no thread and no time. The first users wait for one opening. When it fails, each of them learns
//! why, and so do those who come before the next attempt is due; the wait between attempts doubles.

use crate::state::closed;
use async_trait::async_trait;
use dhow_blocks::state::{Capability, Delete, Item, KeyPage, Operation, Set, StateError, StateStore};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

type Open = dyn Fn() -> Result<Arc<dyn StateStore>, StateError> + Send + Sync;

/// A store that is not open yet, or no longer.
pub struct Lazy {
    /// Known before the store is: asking what a store can do should not open it.
    capabilities: &'static [Capability],
    open: Arc<Open>,
    /// Set once, by whoever held `progress` when the opening succeeded.
    store: OnceLock<Arc<dyn StateStore>>,
    progress: Mutex<Progress>,
}

enum Progress {
    NotTried,
    Failed { reason: String, delay: Duration, next: Instant },
    Open,
    Closed,
}

// === impl Lazy ===

impl Lazy {
    /// `open` may block; it runs on a thread for blocking work. `capabilities` are those of its store.
    pub fn new(
        capabilities: &'static [Capability],
        open: impl Fn() -> Result<Arc<dyn StateStore>, StateError> + Send + Sync + 'static,
    ) -> Lazy {
        Lazy {
            capabilities,
            open: Arc::new(open),
            store: OnceLock::new(),
            progress: Mutex::new(Progress::NotTried),
        }
    }

    async fn store(&self) -> Result<&Arc<dyn StateStore>, StateError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let mut progress = self.progress.lock().await;
        let delay = match &*progress {
            Progress::NotTried => FIRST_DELAY,
            Progress::Failed { delay, next, .. } if *next <= Instant::now() => {
                (*delay * 2).min(LONGEST_DELAY)
            }
            Progress::Failed { reason, .. } => {
                return Err(StateError::Unavailable { reason: reason.clone() });
            }
            // A second caller, who waited for the lock while the first one opened.
            Progress::Open => return self.store.get().ok_or_else(closed),
            Progress::Closed => return Err(closed()),
        };
        let open = Arc::clone(&self.open);
        let answer = match tokio::task::spawn_blocking(move || open()).await {
            Ok(Ok(store)) => {
                *progress = Progress::Open;
                return Ok(self.store.get_or_init(|| store));
            }
            Ok(Err(StateError::Unavailable { reason } | StateError::Failed { reason })) => reason,
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("opening the store did not finish: {error}"),
        };
        *progress = Progress::Failed { reason: answer.clone(), delay, next: Instant::now() + delay };
        Err(StateError::Unavailable { reason: answer })
    }
}

impl std::fmt::Debug for Lazy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lazy").field("open", &self.store.get().is_some()).finish_non_exhaustive()
    }
}

#[async_trait]
impl StateStore for Lazy {
    fn capabilities(&self) -> &'static [Capability] {
        self.capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StateError> {
        self.store().await?.get(key).await
    }

    async fn get_many(&self, keys: &[String]) -> Vec<Result<Option<Item>, StateError>> {
        match self.store().await {
            Ok(store) => store.get_many(keys).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn set(&self, set: Set) -> Result<(), StateError> {
        self.store().await?.set(set).await
    }

    async fn delete(&self, delete: Delete) -> Result<(), StateError> {
        self.store().await?.delete(delete).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), StateError> {
        self.store().await?.transact(operations).await
    }

    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<KeyPage, StateError> {
        self.store().await?.list_keys(prefix, after, limit).await
    }

    async fn increment(&self, key: &str, delta: i64) -> Result<i64, StateError> {
        self.store().await?.increment(key, delta).await
    }

    async fn ping(&self) -> Result<(), StateError> {
        self.store().await?.ping().await
    }

    async fn close(&self) {
        let before = std::mem::replace(&mut *self.progress.lock().await, Progress::Closed);
        // An open store answers for itself from now on that it is closed.
        if let (Progress::Open, Some(store)) = (before, self.store.get()) {
            store.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::in_memory::{CAPABILITIES, InMemory};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A store whose first `failures` openings fail, and the count of openings.
    fn failing(failures: usize) -> (Arc<Lazy>, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let lazy = Lazy::new(CAPABILITIES, move || match counter.fetch_add(1, Ordering::SeqCst) {
            attempt if attempt < failures => Err(StateError::Failed { reason: format!("attempt {attempt}") }),
            _ => Ok(Arc::new(InMemory::new())),
        });
        (Arc::new(lazy), count)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn concurrent_first_uses_open_once() {
        let (lazy, count) = failing(0);
        lazy.capabilities();
        assert_eq!(count.load(Ordering::SeqCst), 0, "asking for capabilities opened the store");
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let lazy = Arc::clone(&lazy);
                tokio::spawn(async move { lazy.increment("n", 1).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(lazy.increment("n", 0).await, Ok(32));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_opening_is_reported_and_tried_again_later() {
        let (lazy, count) = failing(3);
        let unavailable =
            |attempt: usize| Err(StateError::Unavailable { reason: format!("attempt {attempt}") });
        let mut delay = FIRST_DELAY;
        for attempt in 0..3 {
            for _ in 0..5 {
                assert_eq!(lazy.ping().await, unavailable(attempt));
                assert_eq!(lazy.get_many(&["a".to_owned(), "b".to_owned()]).await.len(), 2);
            }
            assert_eq!(count.load(Ordering::SeqCst), attempt + 1, "attempts within the delay");
            tokio::time::advance(delay).await;
            delay *= 2;
        }
        assert_eq!(lazy.ping().await, Ok(()));
        assert_eq!(count.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn closing_an_unused_store_opens_nothing() {
        let (lazy, count) = failing(0);
        lazy.close().await;
        assert_eq!(lazy.get("a").await, Err(closed()));
        assert_eq!(count.load(Ordering::SeqCst), 0);
    }
}
