//! Workflows that ran and run on this machine, in SQLite: every node as it was last seen.
//!
//! What a turn changes is written in one transaction before anything that it started can end, so a process that is
//! killed leaves a workflow that can go on: nodes that were under way begin anew, those that ended stay as they are.

use crate::artifacts::config::Choice;
use crate::controller::{Identity, Shutdown, Status};
use crate::definition::Objects;
use crate::model::Outputs;
use crate::node::{Node, Phase, Time};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process is waited for that writes at the same time.
const BUSY: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS workflows (
        name TEXT PRIMARY KEY, identity TEXT NOT NULL, objects TEXT NOT NULL, settings TEXT NOT NULL,
        status TEXT NOT NULL, created INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS nodes (
        workflow TEXT NOT NULL, name TEXT NOT NULL, node TEXT NOT NULL, PRIMARY KEY (workflow, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS memos (
        key TEXT PRIMARY KEY, made INTEGER NOT NULL, outputs TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS requests (
        id INTEGER PRIMARY KEY AUTOINCREMENT, workflow TEXT NOT NULL, request TEXT NOT NULL
    ) STRICT;
";

/// All workflows of a data folder.
pub struct History {
    connection: Connection,
}

/// How a workflow is run.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Settings {
    /// Folder that relative paths of modules begin in.
    pub base: PathBuf,
    /// Images and what stands for them.
    pub images: BTreeMap<String, String>,
    /// Folder of artifacts, unless they are elsewhere.
    pub artifacts: PathBuf,
    /// Where else they are, if somebody says so.
    pub repository: Choice,
    /// Steps that run at once.
    pub parallel: usize,
    /// The queue that its steps are in, without anybody's password; none: they run here.
    pub workers: Option<String>,
}

/// A workflow as it was left.
pub struct Record {
    /// Who it is.
    pub identity: Identity,
    /// What it is.
    pub objects: Objects,
    /// How it is run.
    pub settings: Settings,
    /// How it stands.
    pub status: Status,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A workflow in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Why.
    pub message: String,
    /// When it was made.
    pub created: Time,
    /// When it began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}

/// What another process wants of the one that runs a workflow.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Request {
    /// Suspended nodes go on.
    Resume {
        /// Of this short name; else all.
        node: Option<String>,
        /// Outputs that are supplied.
        values: Vec<(String, String)>,
    },
    /// The workflow ends.
    ShutDown(Shutdown),
}

/// The history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// SQLite says so.
    #[error("the history of workflows {}: {error}", file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        error: rusqlite::Error,
    },
    /// What is in it is of no use.
    #[error("the history of workflows: {0}")]
    Content(#[from] serde_json::Error),
    /// There is one of that name.
    #[error("there is a workflow {0:?} already; choose another name, or delete it: dhow workflow delete {0}")]
    Exists(String),
}

impl From<rusqlite::Error> for HistoryError {
    fn from(error: rusqlite::Error) -> Self {
        HistoryError::Database { file: PathBuf::new(), error }
    }
}

// === impl History ===

impl History {
    /// Opens or makes the history in a folder that is there.
    pub fn open(folder: &Path) -> Result<History, HistoryError> {
        let file = folder.join("history.db");
        let failed = |error| HistoryError::Database { file: file.clone(), error };
        let connection = Connection::open(&file).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(History { connection })
    }

    /// Adds a workflow that has not begun.
    pub fn add(&self, record: &Record) -> Result<(), HistoryError> {
        let added = self.connection.execute(
            "INSERT OR IGNORE INTO workflows (name, identity, objects, settings, status, created) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                record.identity.name,
                serde_json::to_string(&record.identity)?,
                serde_json::to_string(&record.objects)?,
                serde_json::to_string(&record.settings)?,
                serde_json::to_string(&record.status)?,
                record.identity.created,
            ],
        )?;
        if added == 0 { Err(HistoryError::Exists(record.identity.name.clone())) } else { Ok(()) }
    }

    /// A workflow as it was left.
    pub fn find(&self, name: &str) -> Result<Option<Record>, HistoryError> {
        let row = self
            .connection
            .query_row(
                "SELECT identity, objects, settings, status FROM workflows WHERE name = ?1",
                [name],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, String>(3)?,
                    ))
                },
            )
            .optional()?;
        let Some((identity, objects, settings, status)) = row else { return Ok(None) };
        let mut statement = self.connection.prepare("SELECT node FROM nodes WHERE workflow = ?1")?;
        let rows = statement.query_map([name], |row| row.get::<_, String>(0))?;
        let mut nodes = Vec::new();
        for node in rows {
            nodes.push(serde_json::from_str(&node?)?);
        }
        Ok(Some(Record {
            identity: serde_json::from_str(&identity)?,
            objects: serde_json::from_str(&objects)?,
            settings: serde_json::from_str(&settings)?,
            status: serde_json::from_str(&status)?,
            nodes,
        }))
    }

    /// Changes how a workflow is run.
    pub fn settle(&self, workflow: &str, settings: &Settings) -> Result<(), HistoryError> {
        let settings = serde_json::to_string(settings)?;
        self.connection
            .execute("UPDATE workflows SET settings = ?2 WHERE name = ?1", params![workflow, settings])?;
        Ok(())
    }

    /// All workflows, the newest first.
    pub fn list(&self) -> Result<Vec<Summary>, HistoryError> {
        let mut statement = self
            .connection
            .prepare("SELECT name, created, status FROM workflows ORDER BY created DESC, name")?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        let mut list = Vec::new();
        for row in rows {
            let (name, created, status) = row?;
            let Status { phase, message, started_at, finished_at, .. } = serde_json::from_str(&status)?;
            list.push(Summary { name, phase, message, created, started_at, finished_at });
        }
        Ok(list)
    }

    /// Writes what a turn changed, whole.
    pub fn record(
        &mut self,
        workflow: &str,
        status: &Status,
        nodes: &[Node],
        memos: &[(String, Outputs)],
        now: Time,
    ) -> Result<(), HistoryError> {
        let transaction = self.connection.transaction()?;
        {
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO nodes (workflow, name, node) VALUES (?1, ?2, ?3)")?;
            for node in nodes {
                statement.execute(params![workflow, node.name, serde_json::to_string(node)?])?;
            }
            let mut statement = transaction
                .prepare_cached("INSERT OR REPLACE INTO memos (key, made, outputs) VALUES (?1, ?2, ?3)")?;
            for (key, outputs) in memos {
                statement.execute(params![key, now, serde_json::to_string(outputs)?])?;
            }
            let mut statement =
                transaction.prepare_cached("UPDATE workflows SET status = ?2 WHERE name = ?1")?;
            statement.execute(params![workflow, serde_json::to_string(status)?])?;
        }
        Ok(transaction.commit()?)
    }

    /// What is kept for the same memoization keys.
    pub fn memos(&self) -> Result<BTreeMap<String, (Time, Outputs)>, HistoryError> {
        let mut statement = self.connection.prepare("SELECT key, made, outputs FROM memos")?;
        let rows = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        let mut memos = BTreeMap::new();
        for row in rows {
            let (key, made, outputs) = row?;
            memos.insert(key, (made, serde_json::from_str(&outputs)?));
        }
        Ok(memos)
    }

    /// Asks the process that runs a workflow for something.
    pub fn request(&self, workflow: &str, request: &Request) -> Result<(), HistoryError> {
        let request = serde_json::to_string(request)?;
        self.connection.execute(
            "INSERT INTO requests (workflow, request) VALUES (?1, ?2)",
            params![workflow, request],
        )?;
        Ok(())
    }

    /// Takes what was asked for, in its order.
    pub fn take_requests(&self, workflow: &str) -> Result<Vec<Request>, HistoryError> {
        // Asked often, and there is hardly ever any: reading takes no lock from those who write.
        let mut statement =
            self.connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM requests WHERE workflow = ?1)")?;
        if !statement.query_row([workflow], |row| row.get::<_, bool>(0))? {
            return Ok(Vec::new());
        }
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM requests WHERE workflow = ?1 RETURNING id, request")?;
        let rows = statement
            .query_map([workflow], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        rows.into_values().map(|request| Ok(serde_json::from_str(&request)?)).collect()
    }

    /// Forgets a workflow.
    pub fn delete(&mut self, workflow: &str) -> Result<(), HistoryError> {
        let transaction = self.connection.transaction()?;
        for table in ["nodes", "requests"] {
            transaction.execute(&format!("DELETE FROM {table} WHERE workflow = ?1"), [workflow])?;
        }
        transaction.execute("DELETE FROM workflows WHERE name = ?1", [workflow])?;
        Ok(transaction.commit()?)
    }
}
