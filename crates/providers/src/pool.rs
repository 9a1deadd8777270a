//! Connections to a server, each lent to one request at a time.
//!
//! A connection that a request did not finish with (its deadline passed, its caller went away, the server was
//! lost) never serves another one. While the server is away one request at a time looks whether it is back, at
//! moments that are ever further apart; all others are refused at once, with what was last heard.

use crate::backoff::Backoff;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// An attempt to connect that was given less time says nothing about the server.
const FAIR: Duration = Duration::from_millis(500);

/// A connection that takes longer to say that it is there is taken for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How connections to one kind of server are made.
pub(crate) trait Connect: Send + Sync + 'static {
    /// A connection, ready for use.
    type Connection: Send + 'static;

    /// Makes a connection. The error says which server, and what it or the network said; no secrets.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, String>> + Send;

    /// Whether a connection that nobody used for this long still works. An answer that takes 5 s is a no.
    fn works(&self, connection: &mut Self::Connection, idle: Duration) -> impl Future<Output = bool> + Send;

    /// Lets go of a connection on which a request may still be under way. Must not wait.
    fn abandon(&self, connection: Self::Connection);
}

/// How many connections, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at the same time.
    pub(crate) connections: usize,
    /// A connection that nobody used for this long is closed.
    pub(crate) idle: Duration,
}

/// The connections to one server.
pub(crate) struct Pool<C: Connect> {
    connector: C,
    limits: Limits,
    /// A permit for each connection that may be lent. Closed with the pool.
    turns: Arc<Semaphore>,
    idle: Mutex<VecDeque<Idle<C::Connection>>>,
    /// Rises when the server was lost: connections of an earlier one are dead.
    generation: AtomicU64,
    outage: Mutex<Option<Outage>>,
}

/// A connection, lent. Dropped without [`Lease::give_back`], it is abandoned.
pub(crate) struct Lease<C: Connect> {
    pool: Arc<Pool<C>>,
    connection: Option<C::Connection>,
    generation: u64,
    _turn: OwnedSemaphorePermit,
}

/// Why no connection could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The pool was closed.
    Closed,
    /// The server is away; the text says what was last heard.
    Away(String),
    /// All connections were in use until the deadline.
    Busy,
}

struct Idle<T> {
    connection: T,
    since: Instant,
    generation: u64,
}

/// The server is away.
struct Outage {
    reason: String,
    /// Attempts that failed in a row.
    failures: usize,
    next_attempt: Instant,
    /// A request is looking whether the server is back.
    trying: bool,
}

/// Ends an attempt that its request did not finish.
struct Attempt<'a>(&'a Mutex<Option<Outage>>);

// === impl Pool ===

impl<C: Connect> Pool<C> {
    pub(crate) fn new(connector: C, limits: Limits) -> Arc<Pool<C>> {
        Arc::new(Pool {
            connector,
            limits,
            turns: Arc::new(Semaphore::new(limits.connections)),
            idle: Mutex::default(),
            generation: AtomicU64::new(0),
            outage: Mutex::default(),
        })
    }

    pub(crate) fn connector(&self) -> &C {
        &self.connector
    }

    /// Lends a connection, an idle one if there is one.
    pub(crate) async fn lend(self: &Arc<Self>, deadline: Instant) -> Result<Lease<C>, Refusal> {
        let turn = match timeout_at(deadline, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) => return Err(Refusal::Closed),
            Err(_) => return Err(Refusal::Busy),
        };
        let generation = self.generation.load(Ordering::Acquire);
        let connection = match self.idle(deadline, generation).await {
            Some(connection) => connection,
            None => self.connect(deadline).await?,
        };
        if self.turns.is_closed() {
            self.connector.abandon(connection);
            return Err(Refusal::Closed);
        }
        Ok(Lease { pool: Arc::clone(self), connection: Some(connection), generation, _turn: turn })
    }

    /// Lends nothing any more and closes what is idle; what is lent closes when it is given back.
    pub(crate) fn close(&self) {
        self.turns.close();
        self.idle.lock().clear();
    }

    /// The idle connection that was used last and still works. The others are closed when their time is up.
    async fn idle(&self, deadline: Instant, generation: u64) -> Option<C::Connection> {
        let now = Instant::now();
        loop {
            let mut idle = {
                let mut all = self.idle.lock();
                let expired = |idle: &Idle<_>| {
                    now.saturating_duration_since(idle.since) > self.limits.idle
                        || idle.generation < generation
                };
                while all.front().is_some_and(expired) {
                    all.pop_front();
                }
                all.pop_back()?
            };
            let unused = now.saturating_duration_since(idle.since);
            let works = timeout(SIGN_OF_LIFE, self.connector.works(&mut idle.connection, unused));
            if idle.generation >= generation && timeout_at(deadline, works).await == Ok(Ok(true)) {
                return Some(idle.connection);
            }
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<C::Connection, Refusal> {
        // Dropped at the end, also when the caller goes away.
        let mut attempt = None;
        if let Some(outage) = &mut *self.outage.lock() {
            if outage.trying || Instant::now() < outage.next_attempt {
                return Err(Refusal::Away(outage.reason.clone()));
            }
            outage.trying = true;
            attempt = Some(Attempt(&self.outage));
        }
        let started = Instant::now();
        let reason = match timeout_at(deadline, self.connector.connect()).await {
            Ok(Ok(connection)) => {
                *self.outage.lock() = None;
                return Ok(connection);
            }
            Ok(Err(reason)) => reason,
            // The request had waited too long for its turn to say anything about the server.
            Err(_) if started.elapsed() < FAIR => return Err(Refusal::Busy),
            Err(_) => "no answer in time to an attempt to connect".to_owned(),
        };
        let mut outage = self.outage.lock();
        // Of many that failed at once, when nobody knew of the outage, the first one counts.
        if attempt.is_some() || outage.is_none() {
            let failures = outage.as_ref().map_or(0, |outage| outage.failures) + 1;
            let next_attempt = Instant::now() + Backoff::after(failures);
            *outage = Some(Outage { reason: reason.clone(), failures, next_attempt, trying: false });
        }
        // Before `attempt`, whose end takes the lock.
        drop(outage);
        Err(Refusal::Away(reason))
    }
}

// === impl Lease ===

impl<C: Connect> Lease<C> {
    /// The request is over and its answer was read to the end: the connection may serve the next one.
    pub(crate) fn give_back(mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.pool.turns.is_closed() {
            let idle = Idle { connection, since: Instant::now(), generation: self.generation };
            self.pool.idle.lock().push_back(idle);
            // Closed meanwhile: whoever comes second clears.
            if self.pool.turns.is_closed() {
                self.pool.idle.lock().clear();
            }
        }
    }

    /// The request is over, and changed more than the server's data: the connection closes, and what it held in
    /// the server ends with it.
    pub(crate) fn retire(mut self) {
        drop(self.connection.take());
    }

    /// The connection broke, and with it probably those that were made before.
    pub(crate) fn lost(self) {
        let _ = self.pool.generation.compare_exchange(
            self.generation,
            self.generation + 1,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
}

impl<C: Connect> Deref for Lease<C> {
    type Target = C::Connection;

    #[expect(clippy::expect_used, reason = "taken only by methods that consume the lease")]
    fn deref(&self) -> &C::Connection {
        self.connection.as_ref().expect("a lease holds its connection")
    }
}

impl<C: Connect> DerefMut for Lease<C> {
    #[expect(clippy::expect_used, reason = "taken only by methods that consume the lease")]
    fn deref_mut(&mut self) -> &mut C::Connection {
        self.connection.as_mut().expect("a lease holds its connection")
    }
}

impl<C: Connect> Drop for Lease<C> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.connector.abandon(connection);
        }
    }
}

// === impl Attempt ===

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(outage) = &mut *self.0.lock() {
            outage.trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    /// A server of numbers.
    #[derive(Default)]
    struct Counter {
        connections: AtomicUsize,
        abandoned: AtomicUsize,
        away: AtomicBool,
        silent: AtomicBool,
    }

    impl Connect for Counter {
        type Connection = usize;

        async fn connect(&self) -> Result<usize, String> {
            let number = self.connections.fetch_add(1, Ordering::Relaxed);
            if self.away.load(Ordering::Relaxed) { Err("away".to_owned()) } else { Ok(number) }
        }

        async fn works(&self, _connection: &mut usize, _idle: Duration) -> bool {
            if self.silent.load(Ordering::Relaxed) { std::future::pending().await } else { true }
        }

        fn abandon(&self, _connection: usize) {
            self.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pool() -> Arc<Pool<Counter>> {
        Pool::new(Counter::default(), Limits { connections: 2, idle: Duration::from_secs(60) })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_used_again_unless_abandoned_lost_or_old() {
        let pool = pool();
        pool.lend(soon()).await.unwrap().give_back();
        let (one, other) = (pool.lend(soon()).await.unwrap(), pool.lend(soon()).await.unwrap());
        assert_eq!((*one, *other), (0, 1));
        assert_eq!(pool.lend(soon()).await.err(), Some(Refusal::Busy));
        drop(one);
        assert_eq!(pool.connector.abandoned.load(Ordering::Relaxed), 1);
        other.give_back();
        assert_eq!(*pool.lend(soon()).await.unwrap(), 1);
        let (one, other) = (pool.lend(soon()).await.unwrap(), pool.lend(soon()).await.unwrap());
        one.give_back();
        other.lost();
        let fresh = pool.lend(soon()).await.unwrap();
        assert_eq!(*fresh, 4, "an idle connection of a lost server was lent");
        fresh.give_back();
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(*pool.lend(soon()).await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_gives_no_sign_of_life_is_replaced_in_time() {
        let pool = pool();
        pool.lend(soon()).await.unwrap().give_back();
        pool.connector.silent.store(true, Ordering::Relaxed);
        let later = Instant::now() + Duration::from_secs(20);
        assert_eq!(pool.lend(later).await.map(|lease| *lease).ok(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_retired_connection_is_closed_and_not_abandoned() {
        let pool = pool();
        pool.lend(soon()).await.unwrap().retire();
        assert_eq!(*pool.lend(soon()).await.unwrap(), 1);
        assert_eq!(pool.connector.abandoned.load(Ordering::Relaxed), 1, "only the second was abandoned");
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_server_is_away_few_look_for_it() {
        let pool = pool();
        pool.connector.away.store(true, Ordering::Relaxed);
        for _ in 0..100 {
            assert_eq!(pool.lend(soon()).await.err(), Some(Refusal::Away("away".to_owned())));
        }
        assert_eq!(pool.connector.connections.load(Ordering::Relaxed), 1);
        tokio::time::advance(Duration::from_secs(30)).await;
        pool.connector.away.store(false, Ordering::Relaxed);
        let (one, other) = (pool.lend(soon()).await.unwrap(), pool.lend(soon()).await.unwrap());
        assert_eq!((*one, *other), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_pool_lends_nothing() {
        let pool = pool();
        let lent = pool.lend(soon()).await.unwrap();
        pool.close();
        assert_eq!(pool.lend(soon()).await.err(), Some(Refusal::Closed));
        lent.give_back();
        assert!(pool.idle.lock().is_empty());
    }
}
