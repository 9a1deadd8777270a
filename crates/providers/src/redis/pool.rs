//! A few connections that come back by themselves, and requests over them.
//!
//! Each connection has a keeper: a task that makes it, notices its end at once, and makes it again, with waits in
//! between. While there is none, requests fail at once with what the last attempt said; only while an attempt
//! is under way they wait for it, which is what bridges the restart of a server.

use super::connection::{Connection, Connector};
use super::error::Failure;
use crate::backoff::Backoff;
use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, RedisError, ScriptInvocation};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, RwLock, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// A connection without a fault is tried this often, so that one whose other end vanished does not wait for a
/// user to find out.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Connections to one server, shared by all requests of a component.
pub(super) struct Pool {
    connector: Arc<Connector>,
    keepers: Vec<Keeper>,
    /// The keeper whose turn it is.
    turn: AtomicUsize,
    /// Read by every request while it runs, written by `close`: true once closed.
    closed: RwLock<bool>,
    /// Told to what listens in the background.
    closing: watch::Sender<bool>,
}

/// Whether a request may be sent a second time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only reads, or doing it twice is doing it once.
    Harmless,
    /// An answer that was lost may have been that it is done.
    Never,
}

struct Keeper {
    link: watch::Receiver<Link>,
    /// Somebody doubts the connection.
    doubt: Arc<Notify>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
enum Link {
    /// An attempt is under way.
    Connecting,
    Up(MultiplexedConnection),
    /// The last attempt failed, for this reason; the next one will come.
    Down(String),
}

// === impl Pool ===

impl Pool {
    /// Connects once, to see whether it works, and goes on from there.
    pub(super) async fn open(connector: Connector) -> Result<Pool, String> {
        let connector = Arc::new(connector);
        let first = connector.connect(connector.options.response_timeout).await?;
        let mut first = Some(first);
        let keepers =
            (0..connector.options.pool_size).map(|_| Keeper::spawn(Arc::clone(&connector), first.take()));
        Ok(Pool {
            keepers: keepers.collect(),
            connector,
            turn: AtomicUsize::new(0),
            closed: RwLock::new(false),
            closing: watch::Sender::new(false),
        })
    }

    /// For connections that one subscription has for itself.
    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// Becomes true when the pool closes.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Tells what listens in the background to end; requests still go through.
    pub(super) fn announce_close(&self) {
        self.closing.send_replace(true);
    }

    /// Sends one command.
    pub(super) async fn command<T: FromRedisValue>(
        &self,
        repeat: Repeat,
        command: &Cmd,
    ) -> Result<T, Failure> {
        self.request(repeat, |mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// Sends several commands at once; the answers come together.
    pub(super) async fn pipeline<T: FromRedisValue>(
        &self,
        repeat: Repeat,
        pipeline: &::redis::Pipeline,
    ) -> Result<T, Failure> {
        self.request(repeat, |mut connection| async move { pipeline.query_async(&mut connection).await })
            .await
    }

    /// Runs a script in the server.
    pub(super) async fn script<T: FromRedisValue>(
        &self,
        repeat: Repeat,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, Failure> {
        self.request(repeat, |mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    /// Lets requests finish, ends the connections. Later requests fail with [`Failure::Closed`].
    pub(super) async fn close(&self) {
        self.announce_close();
        *self.closed.write().await = true;
        for keeper in &self.keepers {
            keeper.task.abort();
        }
    }

    async fn request<T, F>(
        &self,
        repeat: Repeat,
        send: impl Fn(MultiplexedConnection) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let closed = self.closed.read().await;
        if *closed {
            return Err(Failure::Closed);
        }
        let options = &self.connector.options;
        let mut waits = Backoff::between(options.retry_delay.0, options.retry_delay.1);
        let mut retries = if repeat == Repeat::Harmless { options.retries } else { 0 };
        loop {
            let (keeper, connection) = self.connection().await?;
            let failure = match send(connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => Failure::from(error),
            };
            if failure.lost_connection() || failure.is_timeout() {
                keeper.doubt.notify_one();
            }
            if !failure.lost_connection() || retries == 0 {
                return Err(failure);
            }
            retries -= 1;
            sleep(waits.wait()).await;
        }
    }

    /// A connection that stands; the one whose turn it is, if there is a choice.
    async fn connection(&self) -> Result<(&Keeper, MultiplexedConnection), Failure> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.keepers.len();
        let (later, sooner) = self.keepers.split_at(turn);
        let in_turn = || sooner.iter().chain(later);
        for keeper in in_turn() {
            if let Link::Up(connection) = &*keeper.link.borrow() {
                return Ok((keeper, connection.clone()));
            }
        }
        let Some(keeper) = in_turn().next() else {
            return Err(Failure::Unreachable("there are no connections".to_owned()));
        };
        let mut link = keeper.link.clone();
        let decided = link.wait_for(|link| !matches!(link, Link::Connecting));
        match timeout(self.connector.options.dial_timeout, decided).await {
            Ok(Ok(link)) => match &*link {
                Link::Up(connection) => Ok((keeper, connection.clone())),
                Link::Down(reason) => Err(Failure::Unreachable(reason.clone())),
                Link::Connecting => Err(Failure::Unreachable("Redis does not answer".to_owned())),
            },
            Ok(Err(_)) => Err(Failure::Closed),
            Err(_) => Err(Failure::Unreachable("no answer from Redis within dialTimeout".to_owned())),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.closing.send_replace(true);
        for keeper in &self.keepers {
            keeper.task.abort();
        }
    }
}

// === impl Keeper ===

impl Keeper {
    fn spawn(connector: Arc<Connector>, connection: Option<Connection>) -> Keeper {
        let link = match &connection {
            Some(connection) => Link::Up(connection.requests.clone()),
            None => Link::Connecting,
        };
        let (sender, receiver) = watch::channel(link);
        let doubt = Arc::new(Notify::new());
        let task = tokio::spawn(keep(connector, connection, sender, Arc::clone(&doubt)));
        Keeper { link: receiver, doubt, task }
    }
}

/// Keeps one connection for ever.
async fn keep(
    connector: Arc<Connector>,
    mut connection: Option<Connection>,
    link: watch::Sender<Link>,
    doubt: Arc<Notify>,
) {
    let mut backoff = Backoff::new();
    loop {
        if let Some(connection) = connection.take() {
            backoff.reset();
            link.send_replace(Link::Up(connection.requests.clone()));
            until_lost(connection, &doubt).await;
            link.send_replace(Link::Connecting);
        }
        match connector.connect(connector.options.response_timeout).await {
            Ok(made) => connection = Some(made),
            Err(reason) => {
                // Once an outage, however many attempts it takes.
                if !matches!(&*link.borrow(), Link::Down(_)) {
                    tracing::warn!("{reason}; trying again until it works");
                }
                link.send_replace(Link::Down(reason));
                sleep(backoff.wait()).await;
            }
        }
    }
}

/// Waits until the connection ended, or does not answer a ping when asked.
async fn until_lost(mut connection: Connection, doubt: &Notify) {
    loop {
        tokio::select! {
            _ = &mut connection.driver => return,
            () = doubt.notified() => {}
            () = sleep(HEARTBEAT) => {}
        }
        let mut requests = connection.requests.clone();
        let pong: Result<(), RedisError> = ::redis::cmd("PING").query_async(&mut requests).await;
        if pong.is_err_and(|error| error.is_unrecoverable_error() || error.is_timeout()) {
            return;
        }
    }
}
