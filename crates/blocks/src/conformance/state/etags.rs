//! Optimistic concurrency: etags and first-write.

use super::{Context, Failure, Outcome, ensure, ensure_eq, mismatch, not_supported};
use crate::state::{Capability, Concurrency, Delete, Set, StateError};
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::sync::Arc;

const RIVALS: usize = 32;

pub(super) async fn change_with_every_write(context: Context) -> Outcome {
    let mut seen = HashSet::new();
    for round in 0..5 {
        context.set("a", "same value").await?;
        let etag = context.etag("a").await?;
        ensure!(!etag.is_empty(), "the etag of write {round} is empty");
        ensure_eq!(context.etag("a").await?, etag, "etag of a second read");
        ensure!(seen.insert(etag.clone()), "etag {etag:?} of write {round} was used before");
    }
    context.store.increment(&context.key("n"), 1).await?;
    let before = context.etag("n").await?;
    context.store.increment(&context.key("n"), 0).await?;
    ensure!(context.etag("n").await? != before, "increment left the etag as it was");
    // A value that was deleted and written again is another value.
    context.store.delete(Delete { key: context.key("a"), etag: None }).await?;
    context.set("a", "same value").await?;
    let etag = context.etag("a").await?;
    ensure!(seen.insert(etag.clone()), "etag {etag:?} came back after a deletion");
    Ok(())
}

pub(super) async fn set_with_etag(context: Context) -> Outcome {
    context.set("a", "1").await?;
    let first = context.etag("a").await?;
    let conditional =
        |value: &str, etag: &str| Set { etag: Some(etag.to_owned()), ..context.write("a", value) };
    if !context.can(Capability::Etag) {
        return not_supported(context.store.set(conditional("2", &first)).await, "a write with an etag");
    }
    context.store.set(conditional("2", &first)).await?;
    ensure_eq!(context.text("a").await?, Some("2".to_owned()), "value after a write with the right etag");
    mismatch(
        context.store.set(conditional("3", &first)).await,
        &context.key("a"),
        "a write with an old etag",
    )?;
    ensure_eq!(context.text("a").await?, Some("2".to_owned()), "value after a refused write");
    let second = context.etag("a").await?;
    let first_write = Set { concurrency: Concurrency::FirstWrite, ..conditional("4", &second) };
    context.store.set(first_write).await?;
    ensure_eq!(
        context.text("a").await?,
        Some("4".to_owned()),
        "value after a first-write with the right etag"
    );
    let absent = Set { etag: Some(second), ..context.write("absent", "1") };
    mismatch(
        context.store.set(absent).await,
        &context.key("absent"),
        "a write with an etag to an absent key",
    )?;
    ensure_eq!(context.text("absent").await?, None, "value after a refused creation");
    Ok(())
}

pub(super) async fn delete_with_etag(context: Context) -> Outcome {
    context.set("a", "1").await?;
    let old = context.etag("a").await?;
    context.set("a", "2").await?;
    let delete = |name: &str, etag: &str| Delete { key: context.key(name), etag: Some(etag.to_owned()) };
    if !context.can(Capability::Etag) {
        return not_supported(context.store.delete(delete("a", &old)).await, "a deletion with an etag");
    }
    mismatch(
        context.store.delete(delete("a", &old)).await,
        &context.key("a"),
        "a deletion with an old etag",
    )?;
    ensure_eq!(context.text("a").await?, Some("2".to_owned()), "value after a refused deletion");
    let current = context.etag("a").await?;
    context.store.delete(delete("a", &current)).await?;
    ensure_eq!(context.text("a").await?, None, "value after a deletion with the right etag");
    mismatch(
        context.store.delete(delete("a", &current)).await,
        &context.key("a"),
        "a deletion of an absent key with an etag",
    )
}

/// A store may tell an impossible etag from a stale one, or call both a mismatch; it may never accept it.
pub(super) async fn malformed(context: Context) -> Outcome {
    if !context.can(Capability::Etag) {
        return Ok(());
    }
    context.set("a", "1").await?;
    let long = "9".repeat(10_000);
    let current = context.etag("a").await?;
    let padded = format!(" {current}");
    let zero = format!("0{current}");
    for etag in ["not an etag", "-1", "0", "' OR 1=1 --", "%", "*", "\0", "🐪", &long, &padded, &zero] {
        let refused = |answer: Result<(), StateError>, what: &str| match answer {
            Err(StateError::EtagMismatch { .. }) => Ok(()),
            Err(StateError::EtagInvalid { etag: named }) if named == etag => Ok(()),
            other => {
                Err(Failure::new(format!("{what} with etag {etag:?}: found {other:?}, expected a refusal")))
            }
        };
        let set = Set { etag: Some(etag.to_owned()), ..context.write("a", "2") };
        refused(context.store.set(set).await, "a write")?;
        let delete = Delete { key: context.key("a"), etag: Some(etag.to_owned()) };
        refused(context.store.delete(delete).await, "a deletion")?;
        ensure_eq!(context.etag("a").await?, current, "etag after etag {etag:?} was tried");
    }
    Ok(())
}

pub(super) async fn first_write(context: Context) -> Outcome {
    let first = |value: &str| Set { concurrency: Concurrency::FirstWrite, ..context.write("a", value) };
    if !context.can(Capability::Etag) {
        return not_supported(context.store.set(first("1")).await, "a first write");
    }
    context.store.set(first("1")).await?;
    mismatch(context.store.set(first("2")).await, &context.key("a"), "a first write to a taken key")?;
    ensure_eq!(context.text("a").await?, Some("1".to_owned()), "value after a refused first write");
    context.set("a", "3").await?;
    context.store.delete(Delete { key: context.key("a"), etag: None }).await?;
    context.store.set(first("4")).await?;
    ensure_eq!(context.text("a").await?, Some("4".to_owned()), "value after a first write to a freed key");
    Ok(())
}

pub(super) async fn one_creator_wins(context: Context) -> Outcome {
    if !context.can(Capability::Etag) {
        return Ok(());
    }
    for round in 0..5 {
        let name = format!("a{round}");
        let rival = Set { concurrency: Concurrency::FirstWrite, ..context.write(&name, "") };
        one_wins(&context, &name, rival).await?;
    }
    Ok(())
}

pub(super) async fn one_updater_wins(context: Context) -> Outcome {
    if !context.can(Capability::Etag) {
        return Ok(());
    }
    for round in 0..5 {
        let name = format!("a{round}");
        context.set(&name, "before").await?;
        let rival = Set { etag: Some(context.etag(&name).await?), ..context.write(&name, "") };
        one_wins(&context, &name, rival).await?;
    }
    Ok(())
}

/// Writes many values at once under the same condition.
async fn one_wins(context: &Context, name: &str, set: Set) -> Outcome {
    let mut tasks: Vec<BoxFuture<'static, Result<(), StateError>>> = Vec::new();
    for rival in 0..RIVALS {
        let store = Arc::clone(&context.store);
        let set = Set { value: rival.to_string().into(), ..set.clone() };
        tasks.push(Box::pin(async move { store.set(set).await }));
    }
    let answers = context.runtime.parallel(tasks).await?;
    let winners: Vec<usize> =
        answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).map(|(rival, _)| rival).collect();
    ensure_eq!(winners.len(), 1, "winners among {} rivals: {winners:?}", answers.len());
    for answer in answers.into_iter().filter(Result::is_err) {
        mismatch(answer, &context.key(name), "the answer to a loser")?;
    }
    ensure_eq!(context.text(name).await?, winners.first().map(usize::to_string), "the value that stayed");
    Ok(())
}
