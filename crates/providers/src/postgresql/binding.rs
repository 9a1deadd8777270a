//! `bindings.postgresql`: any statement.
//!
//! Source: Dapr documentation, "PostgreSQL binding spec".

use super::database::{Database, settle};
use super::error::Error;
use super::options::{FIELDS, database, failed};
use super::row;
use crate::registry::{Open, Provider};
use crate::sql::{Answer, MAX_ANSWER, Server, Sql, Statement, Wanted, keeps_the_session, too_much};
use async_trait::async_trait;
use bytes::BytesMut;
use dhow_blocks::binding::Binding;
use dhow_blocks::error::BlockError;
use futures::TryStreamExt;
use serde_json::Value;
use std::error;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::timeout_at;
use tokio_postgres::Client;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.postgresql",
    aliases: &["bindings.postgres"],
    versions: &["v1"],
    fields: &FIELDS,
    open: Open::Binding(|component, _| {
        Box::pin(async move {
            let database = database(&component)?;
            database.query("SELECT 1", &[]).await.map_err(|error| failed(&component, error))?;
            Ok(Arc::new(Sql(database)) as Arc<dyn Binding>)
        })
    }),
};

/// A parameter of whatever type the statement has in its place: the server reads it from its text.
#[derive(Debug)]
struct Text(Option<String>);

// === impl Database ===

#[async_trait]
impl Server for Database {
    async fn run(&self, statement: &Statement, wanted: Wanted) -> Result<Answer, BlockError> {
        let deadline = self.deadline();
        let lease = self.pool.lend(deadline).await.map_err(Error::from)?;
        let answer = timeout_at(deadline, run(&lease, statement, wanted)).await;
        match answer {
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
        self.query("SELECT 1", &[]).await?;
        Ok(())
    }

    fn close(&self) {
        self.pool.close();
    }
}

async fn run(
    client: &Client,
    statement: &Statement,
    wanted: Wanted,
) -> Result<Result<Answer, BlockError>, tokio_postgres::Error> {
    let params: Vec<Text> = statement.params.iter().map(Text::of).collect();
    let prepared = client.prepare(&statement.sql).await?;
    if prepared.params().len() != params.len() {
        let (expected, found) = (prepared.params().len(), params.len());
        return Ok(Err(BlockError::invalid(format!(
            "the statement has {expected} parameters; params has {found}"
        ))));
    }
    if matches!(wanted, Wanted::Number) {
        return Ok(Ok(Answer::Affected(client.execute_raw(&prepared, &params).await?)));
    }
    let mut rows = pin!(client.query_raw(&prepared, &params).await?);
    let mut json = "[".to_owned();
    // What is left of the rows after a mistake is read and dropped by the client.
    while let Some(row) = rows.try_next().await? {
        if json.len() > 1 {
            json.push(',');
        }
        if let Err(reason) = row::push(&mut json, &row) {
            return Ok(Err(BlockError::failed(reason)));
        }
        if json.len() > MAX_ANSWER {
            return Ok(Err(too_much()));
        }
    }
    json.push(']');
    Ok(Ok(Answer::Rows(json)))
}

// === impl Text ===

impl Text {
    fn of(value: &Value) -> Text {
        Text(match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            // Go's JSON knows one kind of number: 1.0 is one.
            Value::Number(number) => Some(match number.as_f64() {
                Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                    format!("{float:.0}")
                }
                _ => number.to_string(),
            }),
            other => Some(other.to_string()),
        })
    }
}

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn error::Error + Sync + Send>> {
        Ok(match &self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}
