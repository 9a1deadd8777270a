//! `increment`: exact sums, also under contention.

use super::{Context, Failure, Outcome, ensure_eq};
use crate::state::{Set, StateError};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

pub(super) async fn counts(context: Context) -> Outcome {
    let key = context.key("n");
    for (delta, sum) in [(1, 1), (41, 42), (-50, -8), (0, -8), (i64::MAX, i64::MAX - 8), (8, i64::MAX)] {
        ensure_eq!(context.store.increment(&key, delta).await?, sum, "sum after adding {delta}");
        ensure_eq!(context.text("n").await?, Some(sum.to_string()), "stored text after adding {delta}");
    }
    context.set("n", "-7").await?;
    ensure_eq!(context.store.increment(&key, 10).await?, 3, "sum on a value that set wrote");
    ensure_eq!(context.store.increment(&context.key("zero"), 0).await?, 0, "zero added to an absent key");
    ensure_eq!(context.text("zero").await?.as_deref(), Some("0"), "stored text of a fresh counter");
    Ok(())
}

pub(super) async fn not_a_number(context: Context) -> Outcome {
    let values: [&[u8]; 10] =
        [b"", b"abc", b"1.5", b"1e3", b"0x10", b"\"5\"", b"{}", b"99999999999999999999", b"\xff", b"5\0"];
    for value in values {
        let key = context.key("n");
        let set = Set { key: key.clone(), value: Bytes::copy_from_slice(value), ..Set::default() };
        context.store.set(set).await?;
        match context.store.increment(&key, 1).await {
            Err(StateError::NotANumber { key: named }) if named == key => {}
            other => {
                return Err(Failure::new(format!(
                    "increment of {value:?}: found {other:?}, expected NotANumber"
                )));
            }
        }
        let item = context.store.get(&key).await?;
        ensure_eq!(item.map(|item| item.value), Some(Bytes::copy_from_slice(value)), "value after a refusal");
    }
    Ok(())
}

pub(super) async fn overflow(context: Context) -> Outcome {
    for (start, delta) in [(i64::MAX, 1), (i64::MIN, -1), (1, i64::MAX), (-2, i64::MIN)] {
        let key = context.key("n");
        context.set("n", &start.to_string()).await?;
        match context.store.increment(&key, delta).await {
            Err(StateError::Overflow { key: named }) if named == key => {}
            other => {
                return Err(Failure::new(format!("{start} + {delta}: found {other:?}, expected Overflow")));
            }
        }
        ensure_eq!(context.text("n").await?, Some(start.to_string()), "value after a refusal");
    }
    Ok(())
}

pub(super) async fn concurrent(context: Context) -> Outcome {
    const TASKS: i64 = 32;
    const ROUNDS: i64 = 16;
    let mut tasks: Vec<BoxFuture<'static, Result<Vec<i64>, StateError>>> = Vec::new();
    for _ in 0..TASKS {
        let store = Arc::clone(&context.store);
        let key = context.key("n");
        tasks.push(Box::pin(async move {
            let mut sums = Vec::new();
            for _ in 0..ROUNDS {
                sums.push(store.increment(&key, 1).await?);
            }
            Ok(sums)
        }));
    }
    let mut sums = Vec::new();
    for answer in context.runtime.parallel(tasks).await? {
        sums.extend(answer?);
    }
    sums.sort_unstable();
    let expected: Vec<i64> = (1..=TASKS * ROUNDS).collect();
    ensure_eq!(sums, expected, "sums, each of which exactly one caller gets");
    Ok(())
}
