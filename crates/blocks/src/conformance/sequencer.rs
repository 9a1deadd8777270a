//! What every sequencer promises, as cases against [`Sequencer`].

use super::{Case, CaseResult, Report, Runtime, cases, ensure, ensure_eq};
use crate::error::BlockError;
use crate::sequencer::Sequencer;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a case works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn Sequencer>,
    prefix: String,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "ids begin at 1 and have no gaps" => grow,
    "keys have sequences of their own" => keys,
    "segments follow each other" => segments,
    "ids exceed their floor" => floor,
    "every id is given once" => once,
    "keys are opaque" => opaque,
    "the end of the numbers is an error" => end,
    "a closed sequencer is unavailable" => closed,
};

/// Runs every case, each on a sequencer of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn Sequencer>>,
{
    let open = |name| {
        let opening = open();
        async move { Context { store: opening.await, prefix: format!("{name}||"), runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.store.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn grow(context: Context) -> CaseResult {
    for expected in 1..=20 {
        ensure_eq!(context.reserve("a", 1, 0).await?, expected, "id");
    }
    Ok(())
}

async fn keys(context: Context) -> CaseResult {
    for expected in 1..=3 {
        for key in ["a", "b", ""] {
            ensure_eq!(context.reserve(key, 1, 0).await?, expected, "id of {key:?}");
        }
    }
    Ok(())
}

async fn segments(context: Context) -> CaseResult {
    let mut expected = 1;
    for count in [10, 1, 10_000, 3, crate::sequencer::MAX_COUNT, 1] {
        ensure_eq!(context.reserve("a", count, 0).await?, expected, "first of {count} ids");
        expected += i64::from(count);
    }
    Ok(())
}

async fn floor(context: Context) -> CaseResult {
    ensure_eq!(context.reserve("a", 1, 1000).await?, 1001, "the first id above 1000");
    ensure_eq!(context.reserve("a", 5, 1000).await?, 1002, "the id behind it");
    ensure_eq!(context.reserve("a", 1, 3).await?, 1007, "the id with a floor long passed");
    ensure_eq!(context.reserve("a", 2, 1 << 40).await?, (1 << 40) + 1, "the first id above a higher floor");
    ensure_eq!(context.reserve("a", 1, 0).await?, (1 << 40) + 3, "the id behind it");
    Ok(())
}

async fn once(context: Context) -> CaseResult {
    const TASKS: usize = 8;
    const ROUNDS: usize = 25;
    let tasks = (0..TASKS).map(|task| {
        let context = context.clone();
        Box::pin(async move {
            let mut ids = Vec::new();
            for _ in 0..ROUNDS {
                let count = 1 + task as u32 % 2;
                let first = context.reserve("a", count, 0).await?;
                ids.extend(first..first + i64::from(count));
            }
            Ok(ids)
        }) as BoxFuture<'static, Result<Vec<i64>, BlockError>>
    });
    let mut ids = Vec::new();
    for of_task in context.runtime.parallel(tasks.collect()).await? {
        let of_task = of_task?;
        ensure!(of_task.is_sorted(), "the ids of one caller do not grow: {of_task:?}");
        ids.extend(of_task);
    }
    let (count, different) = (ids.len(), ids.into_iter().collect::<BTreeSet<_>>());
    ensure_eq!(different.len(), count, "different ids");
    ensure_eq!(different.last(), Some(&(count as i64)), "the last id");
    Ok(())
}

async fn opaque(context: Context) -> CaseResult {
    let keys =
        ["plain", "PLAIN", "a||b", "100%", "it's", "\"quoted\"", "line\nbreak", "世界 🐪", " a ", "*", "a/b"];
    for key in keys {
        ensure_eq!(context.reserve(key, 1, 0).await?, 1, "the first id of {key:?}");
    }
    Ok(())
}

async fn end(context: Context) -> CaseResult {
    // Below what a double holds exactly, and at the end of all.
    let last = i64::MAX - 2;
    ensure_eq!(context.reserve("a", 1, last).await?, last + 1, "the id above a floor close to the end");
    ensure_eq!(context.reserve("a", 1, 0).await?, i64::MAX, "the last id");
    for count in [1, 10] {
        let answer = context.reserve("a", count, 0).await;
        ensure!(
            matches!(answer, Err(BlockError::Failed { .. })),
            "{count} ids behind the last one were answered {answer:?}, expected Failed"
        );
    }
    Ok(())
}

async fn closed(context: Context) -> CaseResult {
    context.reserve("a", 1, 0).await?;
    context.store.close().await;
    context.store.close().await;
    let answer = context.reserve("a", 1, 0).await;
    ensure!(
        matches!(answer, Err(BlockError::Unavailable { .. })),
        "a request after close was answered {answer:?}, expected Unavailable"
    );
    Ok(())
}

// === impl Context ===

impl Context {
    async fn reserve(&self, key: &str, count: u32, floor: i64) -> Result<i64, BlockError> {
        self.store.reserve(&format!("{}{key}", self.prefix), count, floor).await
    }
}
