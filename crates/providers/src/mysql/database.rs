//! Statements and transactions on pooled connections, each with a deadline.

use super::dsn::Dsn;
use super::error::{Error, explain};
use crate::pool::{Connect, Lease, Limits, Pool};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Opts, OptsBuilder, Params, Row};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

/// A connection that was not used for this long is asked whether it is still there: the client does not hear
/// of its end before it uses it.
const TRUSTED: Duration = Duration::from_secs(2);

/// A statement that nobody waits for any more is told to end; telling may take this long, and saying goodbye, too.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Makes connections to one server.
pub(super) struct Connector {
    options: Opts,
    /// For a server without TLS, where it need not have it.
    plain: Option<Opts>,
    /// The server, for messages.
    server: String,
    /// Statements that every connection begins with.
    setup: Vec<String>,
}

/// A server, with a limit to how long it may take.
pub(super) struct Database {
    pub(super) pool: Arc<Pool<Connector>>,
    pub(super) timeout: Duration,
}

/// A transaction. Dropped, it is rolled back.
pub(super) struct Transaction {
    lease: Lease<Connector>,
    deadline: Instant,
}

// === impl Connector ===

impl Connector {
    /// `options` are those of the data source name, perhaps with another database.
    pub(super) fn new(dsn: &Dsn, options: OptsBuilder, setup: Vec<String>) -> Connector {
        let plain = dsn.prefers_tls().then(|| options.clone().ssl_opts(None).into());
        Connector { options: options.into(), plain, server: dsn.server(), setup }
    }
}

/// A connection as it comes. `plain` are the options for a server without TLS.
async fn dial(options: Opts, plain: Option<Opts>) -> mysql_async::Result<Conn> {
    match (Conn::new(options).await, plain) {
        (Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) => {
            Conn::new(plain).await
        }
        (opened, _) => opened,
    }
}

impl Connect for Connector {
    type Connection = Conn;

    async fn connect(&self) -> Result<Conn, String> {
        let connect = async {
            let mut connection = dial(self.options.clone(), self.plain.clone()).await?;
            for statement in &self.setup {
                connection.query_drop(statement).await?;
            }
            Ok(connection)
        };
        let refused = |error| format!("cannot connect to {}: {}", self.server, explain(&error));
        connect.await.map_err(refused)
    }

    async fn works(&self, connection: &mut Conn, idle: Duration) -> bool {
        idle < TRUSTED || connection.ping().await.is_ok()
    }

    fn abandon(&self, connection: Conn) {
        let (options, plain) = (self.options.clone(), self.plain.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                // Otherwise the server would go on, and perhaps hold locks until it is done.
                let kill = async {
                    let mut other = dial(options, plain).await?;
                    other.query_drop(format!("KILL {}", connection.id())).await?;
                    other.disconnect().await
                };
                let _ = timeout(END_DEADLINE, kill).await;
                // Reads all that is still to come; when the time is up, the connection is closed as it is.
                let _ = timeout(END_DEADLINE, connection.disconnect()).await;
            });
        }
    }
}

// === impl Database ===

impl Database {
    pub(super) fn new(connector: Connector, limits: Limits, timeout: Duration) -> Database {
        Database { pool: Pool::new(connector, limits), timeout }
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Reads rows. A lost connection is replaced once: reading twice is harmless.
    pub(super) async fn query(&self, sql: &str, params: impl Into<Params>) -> Result<Vec<Row>, Error> {
        let (deadline, params) = (self.deadline(), params.into());
        match self.query_once(sql, params.clone(), deadline).await {
            Err(error) if error.is_loss() => self.query_once(sql, params, deadline).await,
            answer => answer,
        }
    }

    async fn query_once(&self, sql: &str, params: Params, deadline: Instant) -> Result<Vec<Row>, Error> {
        let mut lease = self.pool.lend(deadline).await?;
        let answer = timeout_at(deadline, lease.exec(sql, params)).await;
        settle(lease, answer)
    }

    /// Writes; the number of rows, which counts a row that was there and was replaced twice, and one that was
    /// left alone not at all.
    pub(super) async fn execute(&self, sql: &str, params: impl Into<Params>) -> Result<u64, Error> {
        self.execute_until(self.deadline(), sql, params.into()).await
    }

    /// Writes, which may take until then.
    pub(super) async fn execute_until(
        &self,
        deadline: Instant,
        sql: &str,
        params: Params,
    ) -> Result<u64, Error> {
        let mut lease = self.pool.lend(deadline).await?;
        let answer = timeout_at(deadline, affected(&mut lease, sql, params)).await;
        settle(lease, answer)
    }

    pub(super) async fn begin(&self, deadline: Instant) -> Result<Transaction, Error> {
        let lease = self.pool.lend(deadline).await?;
        let mut transaction = Transaction { lease, deadline };
        match transaction.command("START TRANSACTION").await {
            Ok(()) => Ok(transaction),
            Err(error) => Err(transaction.end(error)),
        }
    }
}

async fn affected(connection: &mut Conn, sql: &str, params: Params) -> mysql_async::Result<u64> {
    connection.exec_drop(sql, params).await?;
    Ok(connection.affected_rows())
}

// === impl Transaction ===

impl Transaction {
    pub(super) async fn query(&mut self, sql: &str, params: Params) -> Result<Vec<Row>, Error> {
        in_time(timeout_at(self.deadline, self.lease.exec(sql, params)).await)
    }

    pub(super) async fn execute(&mut self, sql: &str, params: Params) -> Result<u64, Error> {
        in_time(timeout_at(self.deadline, affected(&mut self.lease, sql, params)).await)
    }

    async fn command(&mut self, sql: &str) -> Result<(), Error> {
        in_time(timeout_at(self.deadline, self.lease.query_drop(sql)).await)
    }

    pub(super) async fn commit(mut self) -> Result<(), Error> {
        match self.command("COMMIT").await {
            Ok(()) => {
                self.lease.give_back();
                Ok(())
            }
            Err(error) => Err(self.end(error)),
        }
    }

    /// Rolls back, as far as the connection still answers.
    pub(super) async fn roll_back(mut self) {
        match self.command("ROLLBACK").await {
            Ok(()) => self.lease.give_back(),
            Err(error) => drop(self.end(error)),
        }
    }

    /// The connection failed, and is not used again.
    fn end(self, error: Error) -> Error {
        if error.is_loss() {
            self.lease.lost();
        }
        error
    }
}

type Answer<T> = Result<mysql_async::Result<T>, tokio::time::error::Elapsed>;

fn in_time<T>(answer: Answer<T>) -> Result<T, Error> {
    answer.map_or(Err(Error::Late), |answer| answer.map_err(Error::from))
}

/// The connection serves the next request, unless it has not done with this one.
pub(super) fn settle<T>(lease: Lease<Connector>, answer: Answer<T>) -> Result<T, Error> {
    let answer = in_time(answer);
    match &answer {
        Err(error) if error.is_loss() => lease.lost(),
        Err(Error::Late | Error::Failed(_)) => drop(lease),
        _ => lease.give_back(),
    }
    answer
}
