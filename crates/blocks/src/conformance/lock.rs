//! What every lock store promises, as cases against [`LockStore`].

use super::{Case, CaseResult, Failure, Report, Runtime, cases, ensure, ensure_eq};
use crate::error::BlockError;
use crate::lock::{LockStore, Renewal, Unlock};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(300);

/// An expiry may be noticed this much later.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a case looks whether a lock is free.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What a case works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn LockStore>,
    prefix: String,
    runtime: Runtime,
}

const CASES: &[Case<Context>] = cases! {
    "a free lock is taken" => taken,
    "a lock that is held is refused to everybody" => refused,
    "a lock is given back" => given_back,
    "only its owner gives a lock back" => wrong_owner,
    "an expired lock is free" => expires,
    "expiry frees no lock that was taken again" => expired_owner,
    "a lock is held until it expires" => holds,
    "a renewed lock is held for longer" => renewed,
    "only its owner renews a lock" => wrong_renewer,
    "an expired lock is not renewed" => renewed_late,
    "resources and owners are opaque" => opaque,
    "one of many takes a lock" => one_winner,
    "holders exclude each other" => exclusion,
    "a closed store is unavailable" => closed,
};

/// Runs every case, each on a store of its own from `open`, and reports which promises are kept.
///
/// `open` may return the same backend each time; it has to be reachable for as long as the suite runs.
pub async fn suite<F, S>(provider: &str, runtime: Runtime, open: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn LockStore>>,
{
    let open = |name| {
        let opening = open();
        async move { Context { store: opening.await, prefix: format!("{name}||"), runtime } }
    };
    let close = |context: Context| Box::pin(async move { context.store.close().await }) as _;
    runtime.run(provider, CASES, open, close).await
}

async fn taken(context: Context) -> CaseResult {
    for resource in ["a", "b", ""] {
        ensure!(context.take(resource, "owner", LONG).await?, "lock {resource:?} was refused");
    }
    Ok(())
}

async fn refused(context: Context) -> CaseResult {
    ensure!(context.take("a", "first", LONG).await?, "a free lock was refused");
    for owner in ["second", "first", ""] {
        ensure!(!context.take("a", owner, LONG).await?, "a lock of \"first\" was given to {owner:?}");
    }
    ensure!(context.take("b", "second", LONG).await?, "a lock was refused because of another one");
    Ok(())
}

async fn given_back(context: Context) -> CaseResult {
    for owner in ["first", "second", "first"] {
        ensure!(context.take("a", owner, LONG).await?, "a free lock was refused to {owner:?}");
        ensure_eq!(context.give_back("a", owner).await?, Unlock::Released, "unlock by {owner:?}");
    }
    ensure_eq!(context.give_back("a", "first").await?, Unlock::NotHeld, "a second unlock");
    Ok(())
}

async fn wrong_owner(context: Context) -> CaseResult {
    ensure_eq!(context.give_back("a", "owner").await?, Unlock::NotHeld, "unlock of what was never locked");
    ensure!(context.take("a", "owner", LONG).await?, "a free lock was refused");
    for owner in ["other", "", "OWNER", "owner ", "owne"] {
        ensure_eq!(context.give_back("a", owner).await?, Unlock::HeldByOther, "unlock by {owner:?}");
    }
    ensure!(!context.take("a", "other", LONG).await?, "an unlock by somebody else freed the lock");
    ensure_eq!(context.give_back("a", "owner").await?, Unlock::Released, "unlock by its owner");
    Ok(())
}

async fn expires(context: Context) -> CaseResult {
    for (owner, expiry) in [("first", Duration::from_secs(1)), ("second", LONG)] {
        context.take_soon("a", owner, expiry).await?;
    }
    ensure!(context.take("b", "first", Duration::from_secs(1)).await?, "a free lock was refused");
    let start = Instant::now();
    // Expiry shows without anybody taking the lock.
    while context.give_back("b", "nobody").await? != Unlock::NotHeld {
        ensure!(start.elapsed() < Duration::from_secs(1) + PATIENCE, "the lock did not expire");
        (context.runtime.sleep)(POLL_INTERVAL).await;
    }
    ensure_eq!(context.give_back("b", "first").await?, Unlock::NotHeld, "unlock of an expired lock");
    Ok(())
}

async fn expired_owner(context: Context) -> CaseResult {
    ensure!(context.take("a", "first", Duration::from_secs(1)).await?, "a free lock was refused");
    context.take_soon("a", "second", LONG).await?;
    ensure_eq!(context.give_back("a", "first").await?, Unlock::HeldByOther, "unlock by the owner before");
    ensure_eq!(context.give_back("a", "second").await?, Unlock::Released, "unlock by the owner");
    Ok(())
}

async fn holds(context: Context) -> CaseResult {
    const EXPIRY: Duration = Duration::from_secs(2);
    ensure!(context.take("a", "first", EXPIRY).await?, "a free lock was refused");
    // From after the answer, so that no delay on the way counts against the store.
    let start = Instant::now();
    context.take_soon("a", "second", LONG).await?;
    let held = start.elapsed();
    // The store may have begun to count while the answer was on its way, and may count whole seconds.
    ensure!(held > EXPIRY / 4, "a lock for {EXPIRY:?} was free after {held:?}");
    Ok(())
}

async fn renewed(context: Context) -> CaseResult {
    const EXPIRY: Duration = Duration::from_secs(2);
    ensure!(context.take("short", "first", EXPIRY).await?, "a free lock was refused");
    ensure!(context.take("long", "first", EXPIRY).await?, "a free lock was refused");
    ensure_eq!(context.renew("long", "first", LONG).await?, Renewal::Renewed, "renewal by the owner");
    // When one of the two is free, the other one would be, too.
    context.take_soon("short", "second", LONG).await?;
    ensure!(!context.take("long", "second", LONG).await?, "a lock that was renewed for {LONG:?} expired");
    ensure_eq!(context.renew("long", "first", EXPIRY).await?, Renewal::Renewed, "a shorter renewal");
    context.take_soon("long", "second", LONG).await
}

async fn wrong_renewer(context: Context) -> CaseResult {
    ensure_eq!(
        context.renew("a", "owner", LONG).await?,
        Renewal::NotHeld,
        "renewal of what was never locked"
    );
    ensure!(context.take("a", "owner", LONG).await?, "a free lock was refused");
    for owner in ["other", "", "OWNER", "owner ", "owne"] {
        ensure_eq!(context.renew("a", owner, LONG).await?, Renewal::HeldByOther, "renewal by {owner:?}");
    }
    ensure_eq!(context.give_back("a", "owner").await?, Unlock::Released, "unlock by the owner");
    ensure_eq!(context.renew("a", "owner", LONG).await?, Renewal::NotHeld, "renewal of what was given back");
    ensure!(context.take("a", "other", LONG).await?, "a renewal took the lock");
    Ok(())
}

async fn renewed_late(context: Context) -> CaseResult {
    ensure!(context.take("a", "first", Duration::from_secs(1)).await?, "a free lock was refused");
    context.take_soon("a", "second", LONG).await?;
    ensure_eq!(context.renew("a", "first", LONG).await?, Renewal::HeldByOther, "renewal by the owner before");
    Ok(())
}

async fn opaque(context: Context) -> CaseResult {
    let names =
        ["plain", "PLAIN", "a||b", "100%", "it's", "\"quoted\"", "line\nbreak", "世界 🐪", " a ", "*", "?1"];
    for name in names {
        ensure!(context.take(name, name, LONG).await?, "lock {name:?} was refused");
    }
    for name in names {
        ensure_eq!(context.give_back(name, "other").await?, Unlock::HeldByOther, "unlock of {name:?}");
        ensure_eq!(context.give_back(name, name).await?, Unlock::Released, "unlock of {name:?}");
    }
    Ok(())
}

async fn one_winner(context: Context) -> CaseResult {
    for round in 0..10 {
        let tasks = (0..16).map(|owner| {
            let context = context.clone();
            Box::pin(
                async move { context.take(&format!("round {round}"), &format!("owner {owner}"), LONG).await },
            ) as BoxFuture<'static, Result<bool, BlockError>>
        });
        let mut winners = 0;
        for answer in context.runtime.parallel(tasks.collect()).await? {
            winners += usize::from(answer?);
        }
        ensure_eq!(winners, 1, "owners that were given the lock");
    }
    Ok(())
}

async fn exclusion(context: Context) -> CaseResult {
    const TASKS: usize = 8;
    const ROUNDS: usize = 5;
    let inside = Arc::new(AtomicUsize::new(0));
    let tasks = (0..TASKS).map(|task| {
        let (context, inside) = (context.clone(), Arc::clone(&inside));
        Box::pin(async move {
            let owner = format!("owner {task}");
            for _ in 0..ROUNDS {
                context.take_soon("a", &owner, LONG).await?;
                ensure_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "other holders of the lock");
                // Others get their chance to be wrong.
                (context.runtime.sleep)(Duration::from_millis(1)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                ensure_eq!(context.give_back("a", &owner).await?, Unlock::Released, "unlock by {owner:?}");
            }
            Ok(())
        }) as BoxFuture<'static, CaseResult>
    });
    context.runtime.parallel(tasks.collect()).await?.into_iter().collect()
}

async fn closed(context: Context) -> CaseResult {
    ensure!(context.take("a", "owner", Duration::from_secs(1)).await?, "a free lock was refused");
    context.store.close().await;
    context.store.close().await;
    let answers = [
        ("try_lock", context.take("a", "owner", LONG).await.map(drop)),
        ("unlock", context.give_back("a", "owner").await.map(drop)),
        ("renew", context.renew("a", "owner", LONG).await.map(drop)),
    ];
    for (method, answer) in answers {
        ensure!(
            matches!(answer, Err(BlockError::Unavailable { .. })),
            "{method} after close answered {answer:?}, expected Unavailable"
        );
    }
    Ok(())
}

// === impl Context ===

impl Context {
    async fn take(&self, resource: &str, owner: &str, expiry: Duration) -> Result<bool, BlockError> {
        self.store.try_lock(&format!("{}{resource}", self.prefix), owner, expiry).await
    }

    async fn give_back(&self, resource: &str, owner: &str) -> Result<Unlock, BlockError> {
        self.store.unlock(&format!("{}{resource}", self.prefix), owner).await
    }

    async fn renew(&self, resource: &str, owner: &str, expiry: Duration) -> Result<Renewal, BlockError> {
        self.store.renew(&format!("{}{resource}", self.prefix), owner, expiry).await
    }

    /// Tries until the lock is taken.
    async fn take_soon(&self, resource: &str, owner: &str, expiry: Duration) -> CaseResult {
        let start = Instant::now();
        while !self.take(resource, owner, expiry).await? {
            if start.elapsed() > Duration::from_secs(40) {
                return Err(Failure::new(format!(
                    "lock {resource:?} was not free for {owner:?} within 40 s"
                )));
            }
            (self.runtime.sleep)(POLL_INTERVAL).await;
        }
        Ok(())
    }
}
