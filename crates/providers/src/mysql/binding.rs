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
use crate::sql::{Answer, MAX_ANSWER, Server, Sql, Statement, Wanted, keeps_the_session, too_much};
use async_trait::async_trait;
use dhow_blocks::binding::Binding;
use dhow_blocks::error::BlockError;
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Conn, Params, QueryResult, ServerError, Value};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout_at;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.mysql",
    aliases: &[],
    versions: &["v1"],
    fields: &["url", "pemPath", "maxOpenConns", "connMaxIdleTime"],
    open: Open::Binding(|component, _| Box::pin(async move { open(&component).await })),
};

const URL: &[&str] = &["url"];

/// For a statement. Dapr leaves it to the caller.
const TIMEOUT: Duration = Duration::from_secs(20);

const DEFAULT_CONNECTIONS: usize = 16;

/// The error of a statement that cannot be prepared.
const NOT_PREPARED: u16 = 1295;

async fn open(component: &ComponentSpec) -> Result<Arc<dyn Binding>, OpenError> {
    let failed = |reason: String| OpenError::Backend { component: component.name.clone(), reason };
    let expected = "given: user:password@tcp(host:port)/database";
    let text = component.field(URL).ok_or_else(|| component.invalid(URL, expected))?;
    let wrong = |reason: String| failed(format!("metadata field url: {reason}"));
    let dsn = Dsn::read(text).map_err(wrong)?;
    let options = dsn.options(component.field(&["pemPath"])).map_err(wrong)?;
    let connector = Connector::new(&dsn, options, Vec::new());
    let database = Database::new(connector, limits(component, DEFAULT_CONNECTIONS)?, TIMEOUT);
    database.query("SELECT 1", ()).await.map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(Sql(database)))
}

// === impl Database ===

#[async_trait]
impl Server for Database {
    async fn run(&self, statement: &Statement, wanted: Wanted) -> Result<Answer, BlockError> {
        let deadline = self.deadline();
        let mut lease = self.pool.lend(deadline).await.map_err(Error::from)?;
        match timeout_at(deadline, run(&mut lease, statement, wanted)).await {
            // Rows may still be on their way: the connection is not used again.
            Ok(Ok(Err(refusal))) => Err(refusal),
            Ok(answer) if !keeps_the_session(&statement.sql) => {
                lease.retire();
                answer.map_err(Error::from)?
            }
            answer => settle(lease, answer)?,
        }
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.query("SELECT 1", ()).await?;
        Ok(())
    }

    fn close(&self) {
        self.pool.close();
    }
}

/// A statement is prepared also without parameters: the server takes a text for as many statements as it holds.
async fn run(
    connection: &mut Conn,
    statement: &Statement,
    wanted: Wanted,
) -> mysql_async::Result<Result<Answer, BlockError>> {
    let params: Vec<Value> = statement.params.iter().map(param).collect();
    let params = if params.is_empty() { Params::Empty } else { Params::Positional(params) };
    let is_plain = statement.params.is_empty();
    match connection.prep(statement.sql.as_str()).await {
        // Of a text with several statements the server says that it is wrong, before it says this.
        Err(mysql_async::Error::Server(ServerError { code: NOT_PREPARED, .. })) if is_plain => {
            read(connection.query_iter(statement.sql.as_str()).await?, wanted).await
        }
        prepared => read(connection.exec_iter(prepared?, params).await?, wanted).await,
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
