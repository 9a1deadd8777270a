//! Time to live: an expired value is absent, whichever method looks.

use super::{Context, Failure, Outcome, ensure, ensure_eq, mismatch, not_supported};
use crate::state::{Capability, Concurrency, Delete, Set, Ttl};
use std::time::{Duration, Instant, SystemTime};

const SHORT: Duration = Duration::from_millis(120);
const LONG: Duration = Duration::from_secs(3600);

/// An expiry may be noticed this much later, and a remote clock may differ by this much.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a case looks whether a value has expired.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

pub(super) async fn expires_everywhere(context: Context) -> Outcome {
    let started = Instant::now();
    let answer = context.store.set(expiring(&context, "a", "1", SHORT)).await;
    if !context.can(Capability::Ttl) {
        return not_supported(answer, "a write with a time to live");
    }
    answer?;
    context.set("b", "stays").await?;
    let found = context.text("a").await?;
    if started.elapsed() < SHORT {
        ensure_eq!(found.as_deref(), Some("1"), "value before its expiry");
    }
    gone(&context, "a").await?;
    let both = context.store.get_many(&[context.key("a"), context.key("b")]).await;
    let found: Vec<bool> =
        both.into_iter().map(|item| Ok(item?.is_some())).collect::<Result<_, Failure>>()?;
    ensure_eq!(found, [false, true], "presence according to get_many");
    ensure_eq!(context.names("").await?, ["b"], "keys according to list_keys");
    let page = context.store.list_keys(&context.key(""), None, 1).await?;
    ensure_eq!((page.keys.len(), page.more), (1, false), "a page that only an expired key could follow");
    Ok(())
}

pub(super) async fn reported(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) {
        return Ok(());
    }
    let before = SystemTime::now();
    context.store.set(expiring(&context, "a", "1", LONG)).await?;
    let after = SystemTime::now();
    let expires_at = expiry(&context, "a").await?;
    ensure!(
        expires_at + PATIENCE >= before + LONG && expires_at <= after + LONG + PATIENCE,
        "expires_at is {expires_at:?}, expected an hour after a write between {before:?} and {after:?}"
    );
    let many = context.store.get_many(&[context.key("a")]).await.remove(0)?;
    ensure_eq!(many.and_then(|item| item.expires_at), Some(expires_at), "expires_at according to get_many");
    Ok(())
}

pub(super) async fn lifted(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) {
        return Ok(());
    }
    for name in ["kept", "sentinel"] {
        context.store.set(expiring(&context, name, "1", SHORT)).await?;
    }
    context.set("kept", "2").await?;
    let item = context.store.get(&context.key("kept")).await?;
    ensure_eq!(item.map(|item| item.expires_at), Some(None), "expires_at after a write that lasts forever");
    gone(&context, "sentinel").await?;
    ensure_eq!(context.text("kept").await?.as_deref(), Some("2"), "value past the lifted expiry");
    // The other way round: a later write may set the time, and may shorten it.
    for (ttl, lasts) in [(LONG, true), (SHORT, false)] {
        context.store.set(expiring(&context, "kept", "3", ttl)).await?;
        if lasts {
            expiry(&context, "kept").await?;
        } else {
            gone(&context, "kept").await?;
        }
    }
    Ok(())
}

pub(super) async fn first_write_over_expired(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) || !context.can(Capability::Etag) {
        return Ok(());
    }
    context.store.set(expiring(&context, "a", "1", SHORT)).await?;
    gone(&context, "a").await?;
    let first = Set { concurrency: Concurrency::FirstWrite, ..context.write("a", "2") };
    context.store.set(first.clone()).await?;
    let item = context.store.get(&context.key("a")).await?;
    ensure_eq!(
        item.map(|item| (item.value, item.expires_at)),
        Some((first.value.clone(), None)),
        "value after a first write over an expired one"
    );
    mismatch(context.store.set(first).await, &context.key("a"), "the second first write")
}

pub(super) async fn etag_of_expired(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) || !context.can(Capability::Etag) {
        return Ok(());
    }
    // A generous time, because the etag has to be read before it is over.
    context.store.set(expiring(&context, "a", "1", Duration::from_secs(1))).await?;
    let etag = context.etag("a").await?;
    gone(&context, "a").await?;
    let set = Set { etag: Some(etag.clone()), ..context.write("a", "2") };
    mismatch(context.store.set(set).await, &context.key("a"), "a write with the etag of an expired value")?;
    let delete = Delete { key: context.key("a"), etag: Some(etag) };
    mismatch(
        context.store.delete(delete).await,
        &context.key("a"),
        "a deletion with the etag of an expired value",
    )
}

pub(super) async fn increment_keeps(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) {
        return Ok(());
    }
    context.store.set(expiring(&context, "n", "5", LONG)).await?;
    let before = expiry(&context, "n").await?;
    ensure_eq!(context.store.increment(&context.key("n"), 2).await?, 7, "the sum");
    ensure_eq!(expiry(&context, "n").await?, before, "expires_at after increment");
    Ok(())
}

pub(super) async fn increment_after_expiry(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) {
        return Ok(());
    }
    context.store.set(expiring(&context, "n", "5", SHORT)).await?;
    gone(&context, "n").await?;
    ensure_eq!(context.store.increment(&context.key("n"), 2).await?, 2, "the sum after expiry");
    let item = context.store.get(&context.key("n")).await?;
    ensure_eq!(item.map(|item| item.expires_at), Some(None), "expires_at of the new counter");
    Ok(())
}

pub(super) async fn extremes(context: Context) -> Outcome {
    if !context.can(Capability::Ttl) {
        return Ok(());
    }
    context.store.set(expiring(&context, "at once", "1", Duration::ZERO)).await?;
    gone(&context, "at once").await?;
    for (name, ttl) in [("seconds", Duration::from_secs(u64::MAX)), ("longest", Duration::MAX)] {
        context.store.set(expiring(&context, name, "1", ttl)).await?;
        ensure_eq!(context.text(name).await?.as_deref(), Some("1"), "value with a time to live of {ttl:?}");
    }
    Ok(())
}

fn expiring(context: &Context, name: &str, value: &str, ttl: Duration) -> Set {
    Set { ttl: Ttl::After(ttl), ..context.write(name, value) }
}

/// Waits until the key is absent, at most a little longer than its time to live can be.
async fn gone(context: &Context, name: &str) -> Outcome {
    const DEADLINE: Duration = Duration::from_secs(1).saturating_add(PATIENCE);
    let start = Instant::now();
    while context.text(name).await?.is_some() {
        ensure!(start.elapsed() < DEADLINE, "key {name:?} did not expire within {DEADLINE:?}");
        (context.runtime.sleep)(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn expiry(context: &Context, name: &str) -> Result<SystemTime, Failure> {
    match context.store.get(&context.key(name)).await? {
        Some(item) => item.expires_at.ok_or_else(|| Failure::new(format!("key {name:?} has no expires_at"))),
        None => Err(Failure::new(format!("key {name:?} is absent, expected a value"))),
    }
}
