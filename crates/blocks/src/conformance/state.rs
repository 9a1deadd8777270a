//! What every state store promises, as cases against [`StateStore`].
//!
//! Each case works on its own store and under its own key prefix, so that the suite also runs against a
//! backend that cannot be emptied. Where a store lacks a capability, the cases that need it require
//! [`StateError::NotSupported`] instead: a capability must say the truth.
//!
//! | file | subject |
//! |---|---|
//! | `values` | bytes and keys come back as they went in |
//! | `etags` | optimistic concurrency, first-write |
//! | `transactions` | order, all or nothing |
//! | `ttl` | expiry |
//! | `listing` | prefixes, pages, order |
//! | `counters` | `increment` |

mod counters;
mod etags;
mod listing;
mod transactions;
mod ttl;
mod values;

use super::{Case, CaseResult as Outcome, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::state::{Capability, Delete, Operation, Set, StateError, StateStore};
use bytes::Bytes;
use std::sync::Arc;

/// What a case works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn StateStore>,
    prefix: String,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "an absent key reads as none" => values::absent,
    "values come back unchanged" => values::unchanged,
    "keys are opaque" => values::keys_are_opaque,
    "a write replaces, a deletion removes" => values::replace_and_delete,
    "get_many answers in the order of the keys" => values::get_many_order,
    "every write changes the etag" => etags::change_with_every_write,
    "a write with an etag needs the stored one" => etags::set_with_etag,
    "a deletion with an etag needs the stored one" => etags::delete_with_etag,
    "an etag that no read returned changes nothing" => etags::malformed,
    "a first write needs an absent key" => etags::first_write,
    "one of many concurrent creators wins" => etags::one_creator_wins,
    "one of many concurrent writers with the same etag wins" => etags::one_updater_wins,
    "an empty transaction succeeds" => transactions::empty,
    "a transaction applies its operations in order" => transactions::order,
    "a transaction on one key sees its own steps" => transactions::same_key,
    "a transaction with a mismatch in the middle changes nothing" => transactions::all_or_nothing,
    "concurrent transactions do not mix" => transactions::isolation,
    "an expired value is absent everywhere" => ttl::expires_everywhere,
    "the time of expiry is reported" => ttl::reported,
    "a write without a time to live lifts it" => ttl::lifted,
    "a first write takes an expired key" => ttl::first_write_over_expired,
    "an etag does not outlive its value" => ttl::etag_of_expired,
    "increment keeps the time to live" => ttl::increment_keeps,
    "increment starts again after expiry" => ttl::increment_after_expiry,
    "extreme times to live are taken" => ttl::extremes,
    "a prefix is literal" => listing::literal_prefix,
    "keys are listed in byte order" => listing::byte_order,
    "pages cover all keys once" => listing::pages,
    "limits of a page are kept" => listing::limits,
    "increment counts from zero" => counters::counts,
    "increment refuses what is not an integer" => counters::not_a_number,
    "increment refuses to overflow" => counters::overflow,
    "concurrent increments add up" => counters::concurrent,
    "capabilities are constant" => constant_capabilities,
    "a closed store is unavailable" => closed,
};

/// Runs every case, each on a store of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn StateStore>>,
{
    let open = |name| {
        let opening = open();
        async move { Context { store: opening.await, prefix: format!("{name}||"), runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.store.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn constant_capabilities(context: Context) -> Outcome {
    let before = context.store.capabilities();
    context.set("a", "1").await?;
    context.store.ping().await?;
    ensure_eq!(context.store.capabilities(), before, "capabilities after use");
    Ok(())
}

async fn closed(context: Context) -> Outcome {
    context.set("a", "1").await?;
    context.store.close().await;
    // Closing twice is what a shutdown on two paths does.
    context.store.close().await;
    let key = context.key("a");
    let store = &context.store;
    let answers = [
        ("get", store.get(&key).await.map(drop)),
        ("get_many", store.get_many(std::slice::from_ref(&key)).await.remove(0).map(drop)),
        ("set", store.set(Set { key: key.clone(), ..Set::default() }).await),
        ("delete", store.delete(Delete { key: key.clone(), etag: None }).await),
        ("transact", store.transact(vec![Operation::Delete(Delete { key: key.clone(), etag: None })]).await),
        ("list_keys", store.list_keys(&key, None, 10).await.map(drop)),
        ("increment", store.increment(&key, 1).await.map(drop)),
        ("ping", store.ping().await),
    ];
    for (method, answer) in answers {
        ensure!(
            matches!(answer, Err(StateError::Unavailable { .. })),
            "{method} after close answered {answer:?}, expected Unavailable"
        );
    }
    Ok(())
}

// === impl Context ===

impl Context {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn can(&self, capability: Capability) -> bool {
        self.store.capabilities().contains(&capability)
    }

    async fn set(&self, name: &str, value: &str) -> Result<(), StateError> {
        self.store.set(self.write(name, value)).await
    }

    /// A write without conditions, for a case to add to.
    fn write(&self, name: &str, value: &str) -> Set {
        Set { key: self.key(name), value: Bytes::copy_from_slice(value.as_bytes()), ..Set::default() }
    }

    async fn text(&self, name: &str) -> Result<Option<String>, Failure> {
        let item = self.store.get(&self.key(name)).await?;
        Ok(item.map(|item| String::from_utf8_lossy(&item.value).into_owned()))
    }

    async fn etag(&self, name: &str) -> Result<String, Failure> {
        match self.store.get(&self.key(name)).await? {
            Some(item) => Ok(item.etag),
            None => Err(Failure::new(format!("key {name:?} is absent, expected a value"))),
        }
    }

    /// Names of all keys of this case, without its prefix.
    async fn names(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let page = self.store.list_keys(&self.key(prefix), None, 10_000).await?;
        ensure!(!page.more, "a page of 10000 keys should hold all of {} keys", page.keys.len());
        page.keys
            .iter()
            .map(|key| match key.strip_prefix(&self.prefix) {
                Some(name) => Ok(name.to_owned()),
                None => Err(Failure::new(format!("key {key:?} is listed without its prefix"))),
            })
            .collect()
    }
}

/// Requires [`StateError::EtagMismatch`] for that key.
#[track_caller]
fn mismatch<T: std::fmt::Debug>(answer: Result<T, StateError>, key: &str, what: &str) -> Outcome {
    match answer {
        Err(StateError::EtagMismatch { key: named }) if named == key => Ok(()),
        other => Err(Failure::new(format!("{what}: found {other:?}, expected EtagMismatch of key {key:?}"))),
    }
}

/// Requires [`StateError::NotSupported`].
#[track_caller]
fn not_supported<T: std::fmt::Debug>(answer: Result<T, StateError>, what: &str) -> Outcome {
    match answer {
        Err(StateError::NotSupported { .. }) => Ok(()),
        other => Err(Failure::new(format!(
            "{what}: found {other:?}, expected NotSupported, because the capability is missing"
        ))),
    }
}
