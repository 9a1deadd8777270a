//! `bindings.mysql`: any statement.
//!
//! Source: Dapr documentation, "MySQL & MariaDB binding spec".

use super::database::{Connector, Database, settle};
use super::dsn::Dsn;
use super::error::Error;
use super::row;
use super::state::limits;
use crate::metadata::ComponentSpec;
use crate::registry::{Open, OpenError, Provider};
use crate::sql::{MAX_ANSWER, OPERATIONS, Request, Statement, Stopwatch, too_much};
use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Conn, Params, QueryResult, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout_at;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.mysql",
    aliases: &[],
    versions: &["v1"],
    fields: &["url", "pemPath", "maxIdleConns", "maxOpenConns", "connMaxLifetime", "connMaxIdleTime"],
    open: Open::Binding(|component, _| Box::pin(async move { open(&component).await })),
};

const URL: &[&str] = &["url"];

/// For a statement. Dapr leaves it to the caller.
const TIMEOUT: Duration = Duration::from_secs(20);

const DEFAULT_CONNECTIONS: usize = 16;

/// Any statement of MySQL or MariaDB.
struct Sql {
    database: Database,
}

async fn open(component: &ComponentSpec) -> Result<Arc<dyn Binding>, OpenError> {
    let failed = |reason: String| OpenError::Backend { component: component.name.clone(), reason };
    let expected = "given: user:password@tcp(host:port)/database";
    let text = component.field(URL).ok_or_else(|| component.invalid(URL, expected))?;
    let wrong = |reason: String| failed(format!("metadata field url: {reason}"));
    let dsn = Dsn::read(text).map_err(wrong)?;
    let options = dsn.options(component.field(&["pemPath"])).map_err(wrong)?.into();
    let connector = Connector { options, server: dsn.server(), setup: Vec::new() };
    let database = Database::new(connector, limits(component, DEFAULT_CONNECTIONS)?, TIMEOUT);
    database.query("SELECT 1", ()).await.map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(Sql { database }))
}

#[derive(Clone, Copy)]
enum Wanted {
    Number,
    Rows,
}

enum Answer {
    Affected(u64),
    Rows(String),
}

// === impl Sql ===

impl Sql {
    async fn run(&self, statement: &Statement, wanted: Wanted) -> Result<Answer, BlockError> {
        let deadline = self.database.deadline();
        let mut lease = self.database.pool.lend(deadline).await.map_err(Error::from)?;
        match timeout_at(deadline, run(&mut lease, statement, wanted)).await {
            // Rows may still be on their way: the connection is not used again.
            Ok(Ok(Err(refusal))) => Err(refusal),
            answer => settle(lease, answer)?,
        }
    }
}

async fn run(
    connection: &mut Conn,
    statement: &Statement,
    wanted: Wanted,
) -> mysql_async::Result<Result<Answer, BlockError>> {
    // Not every statement can be prepared, and one without parameters need not be.
    if statement.params.is_empty() {
        read(connection.query_iter(statement.sql.as_str()).await?, wanted).await
    } else {
        let params = Params::Positional(statement.params.iter().map(param).collect());
        read(connection.exec_iter(statement.sql.as_str(), params).await?, wanted).await
    }
}

async fn read<P: Protocol + Send>(
    mut result: QueryResult<'_, '_, P>,
    wanted: Wanted,
) -> mysql_async::Result<Result<Answer, BlockError>> {
    if matches!(wanted, Wanted::Number) {
        let affected = result.affected_rows();
        result.drop_result().await?;
        return Ok(Ok(Answer::Affected(affected)));
    }
    let mut json = "[".to_owned();
    while let Some(row) = result.next().await? {
        if json.len() > 1 {
            json.push(',');
        }
        row::push(&mut json, row);
        if json.len() > MAX_ANSWER {
            return Ok(Err(too_much()));
        }
    }
    result.drop_result().await?;
    json.push(']');
    Ok(Ok(Answer::Rows(json)))
}

/// A parameter; arrays and objects as their JSON.
fn param(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::NULL,
        Json::Bool(yes) => (*yes).into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            _ => number.as_f64().into(),
        },
        Json::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

#[async_trait]
impl Binding for Sql {
    fn operations(&self) -> &'static [&'static str] {
        OPERATIONS
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let (statement, wanted) = match Request::read(&request)? {
            Request::Close => {
                self.close().await;
                return Ok(BindingResponse::default());
            }
            Request::Exec(statement) => (statement, Wanted::Number),
            Request::Query(statement) => (statement, Wanted::Rows),
        };
        let stopwatch = Stopwatch::start(&request.operation, &statement.sql);
        Ok(match self.run(&statement, wanted).await? {
            Answer::Affected(rows) => stopwatch.affected(rows),
            Answer::Rows(rows) => stopwatch.rows(rows),
        })
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.database.query("SELECT 1", ()).await?;
        Ok(())
    }

    async fn close(&self) {
        self.database.pool.close();
    }
}
