//! Statements and transactions on pooled connections, each with a deadline.

use super::connection::Connector;
use super::error::Error;
use crate::pool::{Lease, Pool};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// Values of a statement's parameters, and their types. Given types make it one round trip, and keep it
/// independent of statements that a proxy in between may not know.
pub(super) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

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

// === impl Database ===

impl Database {
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Reads rows. A lost connection is replaced once: reading twice is harmless.
    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let deadline = self.deadline();
        match self.query_once(sql, params, deadline).await {
            Err(error) if error.is_loss() => self.query_once(sql, params, deadline).await,
            answer => answer,
        }
    }

    async fn query_once(&self, sql: &str, params: Params<'_>, deadline: Instant) -> Result<Vec<Row>, Error> {
        let lease = self.pool.lend(deadline).await?;
        let answer = timeout_at(deadline, lease.query_typed(sql, params)).await;
        settle(lease, answer)
    }

    /// Writes; the number of rows.
    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        self.execute_until(self.deadline(), sql, params).await
    }

    /// Writes, which may take until then.
    pub(super) async fn execute_until(
        &self,
        deadline: Instant,
        sql: &str,
        params: Params<'_>,
    ) -> Result<u64, Error> {
        let lease = self.pool.lend(deadline).await?;
        let answer = timeout_at(deadline, lease.execute_typed(sql, params)).await;
        settle(lease, answer)
    }

    pub(super) async fn begin(&self, deadline: Instant) -> Result<Transaction, Error> {
        let lease = self.pool.lend(deadline).await?;
        let transaction = Transaction { lease, deadline };
        match transaction.command("BEGIN").await {
            Ok(()) => Ok(transaction),
            Err(error) => Err(transaction.end(error)),
        }
    }
}

// === impl Transaction ===

impl Transaction {
    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        in_time(timeout_at(self.deadline, self.lease.query_typed(sql, params)).await)
    }

    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Error> {
        in_time(timeout_at(self.deadline, self.lease.execute_typed(sql, params)).await)
    }

    /// Statements without parameters.
    pub(super) async fn command(&self, sql: &str) -> Result<(), Error> {
        in_time(timeout_at(self.deadline, self.lease.batch_execute(sql)).await)
    }

    pub(super) async fn commit(self) -> Result<(), Error> {
        match self.command("COMMIT").await {
            Ok(()) => {
                self.lease.give_back();
                Ok(())
            }
            Err(error) => Err(self.end(error)),
        }
    }

    /// Rolls back, as far as the connection still answers.
    pub(super) async fn roll_back(self) {
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

type Answer<T> = Result<Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>;

fn in_time<T>(answer: Answer<T>) -> Result<T, Error> {
    answer.map_or(Err(Error::Late), |answer| answer.map_err(Error::from))
}

/// The connection serves the next request, unless it has not done with this one.
pub(super) fn settle<T>(lease: Lease<Connector>, answer: Answer<T>) -> Result<T, Error> {
    let answer = in_time(answer);
    match &answer {
        Err(error) if error.is_loss() => lease.lost(),
        Err(Error::Late) => drop(lease),
        _ => lease.give_back(),
    }
    answer
}
