//! Transactions: in order, all or nothing, apart from each other.

use super::{Context, Outcome, ensure, ensure_eq, mismatch, not_supported};
use crate::state::{Capability, Concurrency, Delete, Operation, Set, StateError};
use futures::future::BoxFuture;

pub(super) async fn empty(context: Context) -> Outcome {
    context.store.transact(Vec::new()).await?;
    Ok(())
}

pub(super) async fn order(context: Context) -> Outcome {
    context.set("old", "0").await?;
    let operations = vec![
        Operation::Set(context.write("a", "1")),
        Operation::Delete(delete(&context, "old")),
        Operation::Set(context.write("b", "1")),
        Operation::Set(context.write("a", "2")),
        Operation::Delete(delete(&context, "absent")),
    ];
    if !context.can(Capability::Transactional) {
        return not_supported(context.store.transact(operations).await, "a transaction");
    }
    context.store.transact(operations).await?;
    ensure_eq!(context.names("").await?, ["a", "b"], "keys after the transaction");
    ensure_eq!(context.text("a").await?, Some("2".to_owned()), "the later write of one key");
    Ok(())
}

pub(super) async fn same_key(context: Context) -> Outcome {
    if !context.can(Capability::Transactional) {
        return Ok(());
    }
    let first =
        |name: &str, value: &str| Set { concurrency: Concurrency::FirstWrite, ..context.write(name, value) };
    let cases: [(&str, Vec<Operation>, Option<&str>); 3] = [
        (
            "written, then deleted",
            vec![Operation::Set(context.write("a", "1")), Operation::Delete(delete(&context, "a"))],
            None,
        ),
        (
            "deleted, then written first",
            vec![Operation::Delete(delete(&context, "b")), Operation::Set(first("b", "2"))],
            Some("2"),
        ),
        (
            "written, deleted and written",
            vec![
                Operation::Set(context.write("c", "1")),
                Operation::Delete(delete(&context, "c")),
                Operation::Set(first("c", "3")),
            ],
            Some("3"),
        ),
    ];
    for name in ["a", "b", "c"] {
        context.set(name, "before").await?;
    }
    for ((what, operations, expected), name) in cases.into_iter().zip(["a", "b", "c"]) {
        context.store.transact(operations).await?;
        ensure_eq!(context.text(name).await?.as_deref(), expected, "a key that was {what}");
    }
    // A write before it in the same transaction makes the etag stale.
    if context.can(Capability::Etag) {
        let etag = context.etag("b").await?;
        let operations = vec![
            Operation::Set(context.write("b", "3")),
            Operation::Set(Set { etag: Some(etag), ..context.write("b", "4") }),
        ];
        mismatch(
            context.store.transact(operations).await,
            &context.key("b"),
            "an etag that the transaction made stale",
        )?;
        ensure_eq!(context.text("b").await?.as_deref(), Some("2"), "value after the refused transaction");
    }
    Ok(())
}

pub(super) async fn all_or_nothing(context: Context) -> Outcome {
    if !context.can(Capability::Transactional) || !context.can(Capability::Etag) {
        return Ok(());
    }
    for name in ["guard", "changed", "deleted"] {
        context.set(name, "before").await?;
    }
    let stale = context.etag("guard").await?;
    context.set("guard", "now").await?;
    let etags = [context.etag("changed").await?, context.etag("deleted").await?];
    let refused = [
        Operation::Set(Set { etag: Some(stale.clone()), ..context.write("guard", "mine") }),
        Operation::Delete(Delete { etag: Some(stale), ..delete(&context, "guard") }),
        Operation::Set(Set { concurrency: Concurrency::FirstWrite, ..context.write("guard", "mine") }),
    ];
    for middle in refused {
        let what = format!("a transaction with {middle:?}");
        let operations = vec![
            Operation::Set(context.write("changed", "after")),
            Operation::Set(context.write("created", "after")),
            Operation::Delete(delete(&context, "deleted")),
            middle,
            Operation::Set(context.write("later", "after")),
        ];
        mismatch(context.store.transact(operations).await, &context.key("guard"), &what)?;
        ensure_eq!(context.names("").await?, ["changed", "deleted", "guard"], "keys after {what}");
        ensure_eq!(
            [context.etag("changed").await?, context.etag("deleted").await?],
            etags,
            "etags after {what}"
        );
        ensure_eq!(context.text("guard").await?.as_deref(), Some("now"), "the guarded value after {what}");
    }
    Ok(())
}

/// Many transactions write the same two keys in opposite orders: the two must stay equal.
pub(super) async fn isolation(context: Context) -> Outcome {
    if !context.can(Capability::Transactional) {
        return Ok(());
    }
    let mut tasks: Vec<BoxFuture<'static, Result<(), StateError>>> = Vec::new();
    for writer in 0..32 {
        let context = context.clone();
        tasks.push(Box::pin(async move {
            for round in 0..4 {
                let value = format!("{writer}-{round}");
                let mut operations =
                    ["left", "right"].map(|name| Operation::Set(context.write(name, &value)));
                if writer % 2 == 0 {
                    operations.reverse();
                }
                context.store.transact(operations.into()).await?;
            }
            Ok(())
        }));
    }
    for answer in context.runtime.parallel(tasks).await? {
        answer?;
    }
    let left = context.store.get(&context.key("left")).await?.map(|item| item.value);
    let right = context.store.get(&context.key("right")).await?.map(|item| item.value);
    ensure!(left.is_some(), "the transactions left nothing behind");
    ensure_eq!(left, right, "the two keys that were always written together");
    Ok(())
}

fn delete(context: &Context, name: &str) -> Delete {
    Delete { key: context.key(name), etag: None }
}
