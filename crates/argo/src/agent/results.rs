//! What came out of the steps of one task set, on its way to the task set's status.
//!
//! It is written at once: what comes while a patch is under way goes with the next one, so that many short steps make
//! few patches and a single step waits for nobody.

use super::Shared;
use super::pause::Pause;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// Largest patch, in bytes, unless one result alone is larger: a task set has at most 1.5 MiB altogether.
const MAX_PATCH: usize = 256 << 10;

/// A result that the server does not take is tried so often: Argo's controller takes others out in the meantime.
const ATTEMPTS: u32 = 5;

/// The results of one task set.
#[derive(Default)]
pub(super) struct Results {
    state: Mutex<State>,
    /// There is something to write.
    news: Notify,
    /// Something was written.
    written: Notify,
}

#[derive(Default)]
struct State {
    /// The nodes that somebody waits for.
    wanted: HashSet<String>,
    /// What is to be written, the newest for each node.
    pending: BTreeMap<String, Value>,
    /// What is being written.
    under_way: usize,
}

// === impl Results ===

impl Results {
    /// Somebody waits for this node.
    pub(super) fn want(&self, node: &str) {
        self.state.lock().wanted.insert(node.to_owned());
    }

    /// Nobody waits for it any more: what is not written yet never is.
    pub(super) fn unwant(&self, node: &str) {
        let mut state = self.state.lock();
        state.wanted.remove(node);
        state.pending.remove(node);
    }

    /// To be written.
    pub(super) fn put(&self, node: &str, result: Value) {
        let mut state = self.state.lock();
        if state.wanted.contains(node) {
            state.pending.insert(node.to_owned(), result);
            self.news.notify_one();
        }
    }

    /// Waits until everything is written.
    pub(super) async fn all_written(&self) {
        loop {
            let written = self.written.notified();
            {
                let state = self.state.lock();
                if state.pending.is_empty() && state.under_way == 0 {
                    return;
                }
            }
            written.await;
        }
    }

    /// Writes results into the status at `path` for as long as there are any. `key` is under what a node's result is
    /// remembered until then.
    pub(super) async fn write(&self, shared: &Shared, path: &str, key: impl Fn(&str) -> String) {
        let mut pause = Pause::default();
        // One at a time after a patch that the server does not take, to find out which result it is.
        let mut is_narrow = false;
        loop {
            let batch = self.take(if is_narrow { 1 } else { usize::MAX });
            if batch.is_empty() {
                self.news.notified().await;
                continue;
            }
            let patch = json!({"status": {"nodes": batch}});
            let error = match shared.cluster.merge_patch(path, &patch).await {
                Ok(()) => {
                    for (node, result) in &batch {
                        if is_end(result) {
                            shared.tasks.forget(&key(node));
                        }
                    }
                    self.end(Map::new());
                    is_narrow = false;
                    pause.reset();
                    continue;
                }
                Err(error) => error,
            };
            if error.is_not_found() {
                tracing::info!("{path} is gone, and so is whoever waits for its results");
                self.end(Map::new());
                continue;
            }
            let refused = error.is_lasting();
            if refused && batch.len() > 1 {
                is_narrow = true;
                self.end(batch);
                continue;
            }
            if refused && pause.failures() >= ATTEMPTS {
                let message = format!("the step is done, but its result cannot be stored: {error}");
                tracing::warn!("{path}: {message}");
                let smaller =
                    json!({"phase": "Error", "message": message, "outputs": null, "progress": null});
                self.end(batch.into_iter().map(|(node, _)| (node, smaller.clone())).collect());
                pause.reset();
                continue;
            }
            tracing::warn!("results are not written yet: {error}");
            self.end(batch);
            pause.wait(error.retry_after()).await;
        }
    }

    fn take(&self, most: usize) -> Map<String, Value> {
        let mut state = self.state.lock();
        let mut batch = Map::new();
        let mut size = 0;
        while let Some(first) = state.pending.first_entry() {
            let length = first.get().to_string().len() + first.key().len();
            if batch.len() >= most || (!batch.is_empty() && size + length > MAX_PATCH) {
                break;
            }
            size += length;
            let (node, result) = first.remove_entry();
            batch.insert(node, result);
        }
        state.under_way = batch.len();
        batch
    }

    /// A patch is done; what has to be written again goes back, unless something newer is there.
    fn end(&self, again: Map<String, Value>) {
        let mut state = self.state.lock();
        state.under_way = 0;
        for (node, result) in again {
            if state.wanted.contains(&node) {
                state.pending.entry(node).or_insert(result);
            }
        }
        drop(state);
        self.written.notify_waiters();
    }
}

/// Whether a result is a node's last.
fn is_end(result: &Value) -> bool {
    !matches!(result.get("phase").and_then(Value::as_str), Some("Pending" | "Running"))
}

/// The task that writes; it ends with its task set.
pub(super) struct Writer(tokio::task::JoinHandle<()>);

impl Writer {
    pub(super) fn start(
        shared: Arc<Shared>,
        results: Arc<Results>,
        path: String,
        key: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Writer {
        Writer(tokio::spawn(async move { results.write(&shared, &path, key).await }))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}
