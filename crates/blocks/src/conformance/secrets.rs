//! What every secret store promises, as cases against [`SecretStore`].
//!
//! The block has no way to write, so the caller says what the backend holds.

use super::{Case, CaseResult, Report, Runtime, cases, ensure, ensure_eq};
use crate::events::Metadata;
use crate::secrets::{Secret, SecretStore};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a case works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn SecretStore>,
    expected: Arc<BTreeMap<String, Secret>>,
    prefix: String,
}

const CASES: &[Case<Context>] = cases! {
    "a secret is read" => read,
    "a missing secret is none" => missing,
    "all secrets are read" => all,
    "values are several only where that is said" => values,
    "no value shows in debug output" => debug,
    "a store closes twice" => closes,
};

/// Runs every case, each on a store of its own from `open`, and reports which promises are kept.
///
/// `expected` are secrets that the backend holds, at least two of them and none empty; it may hold others.
pub async fn suite<F, S>(
    provider: &str,
    runtime: Runtime,
    expected: BTreeMap<String, Secret>,
    open: F,
) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn SecretStore>>,
{
    let expected = Arc::new(expected);
    let open = |prefix| {
        let (opening, expected) = (open(), Arc::clone(&expected));
        async move { Context { store: opening.await, expected, prefix } }
    };
    let close = |context: Context| Box::pin(async move { context.store.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn read(context: Context) -> CaseResult {
    ensure!(context.expected.len() >= 2, "the suite was given {} secrets, needs two", context.expected.len());
    for (name, secret) in &*context.expected {
        let found = context.store.get(name, &Metadata::new()).await?;
        // Not compared by `ensure_eq`, so that not even a test prints a secret.
        ensure!(found.as_ref() == Some(secret), "secret {name:?} is not what the backend holds: {found:?}");
    }
    Ok(())
}

async fn missing(context: Context) -> CaseResult {
    for name in [&context.prefix, "", "missing/../../missing", "missing name 🐪"] {
        ensure_eq!(context.store.get(name, &Metadata::new()).await?, None, "missing secret {name:?}");
    }
    Ok(())
}

async fn all(context: Context) -> CaseResult {
    let found = context.store.get_all(&Metadata::new()).await?;
    for (name, secret) in &*context.expected {
        ensure!(found.get(name) == Some(secret), "secret {name:?} among all: {:?}", found.get(name));
    }
    ensure!(!found.contains_key(&context.prefix), "a missing secret is among all");
    Ok(())
}

async fn values(context: Context) -> CaseResult {
    if context.store.has_multiple_values() {
        return Ok(());
    }
    for (name, Secret(values)) in context.store.get_all(&Metadata::new()).await? {
        ensure_eq!(values.keys().collect::<Vec<_>>(), [&name], "keys of secret {name:?}");
    }
    Ok(())
}

async fn debug(context: Context) -> CaseResult {
    for (name, Secret(expected)) in &*context.expected {
        let text = format!("{:?}", context.store.get(name, &Metadata::new()).await?);
        // A value that is part of its own name cannot be told from it.
        let shown =
            expected.values().any(|value| !text.is_empty() && !name.contains(value) && text.contains(value));
        ensure!(!shown, "debug output of secret {name:?} shows a value");
    }
    Ok(())
}

async fn closes(context: Context) -> CaseResult {
    context.store.close().await;
    context.store.close().await;
    Ok(())
}
