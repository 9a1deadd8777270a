//! Jobs: kept in SQLite, triggered from here.
//!
//! [`embedded`] is what a host has without any configuration: the file `jobs.db` in its data folder. It is
//! opened when the first job is scheduled, or, where the file is there already, when triggering starts.
//!
//! **A trigger** happens at least once. A job that is due is claimed for a short time, which is renewed while
//! its handler runs; if the process dies meanwhile, the claim runs out and the job is due again, for whoever
//! triggers the jobs of its owner. Several hosts may share a file and own different apps, or the same ones.
//! A time that was missed, because no host ran, happens once and late; it is not made up for again and again.
//!
//! **Waiting** costs nothing while nothing is due: one timer sleeps until the next job is. It looks at the
//! file every few seconds all the same, for jobs that other processes schedule.
//!
//! | file | subject |
//! |---|---|
//! | `plan` | what a job asks for, and when it is due |
//! | `table` | the database |
//! | `timer` | triggering |

mod plan;
mod table;
mod timer;

use crate::database::Database;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Running};
use dhow_blocks::jobs::{Due, Job, JobError, Jobs};
use plan::Plan;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use table::Table;
use timer::Timer;
use tokio::sync::Notify;

/// The file of the embedded jobs, in the host's data folder.
const EMBEDDED_FILE: &str = "jobs.db";

/// How a store of jobs behaves; the default is for everybody but tests.
#[derive(Clone, Debug)]
pub struct JobsOptions {
    /// A trigger whose process has died is due again after this time.
    pub claim: Duration,
    /// Jobs that other processes schedule are seen after this time at the latest.
    pub look: Duration,
    /// What time it is.
    pub clock: fn() -> SystemTime,
}

/// Jobs in one SQLite database.
pub struct SqliteJobs {
    table: Arc<Table>,
    options: JobsOptions,
    /// Tells the timers of this process that the next due time may have changed.
    changed: Arc<Notify>,
}

/// The jobs that a host has without any configuration: SQLite in the data folder, opened on first use.
pub fn embedded(data_dir: &Path) -> Arc<dyn Jobs> {
    Arc::new(SqliteJobs::in_file(data_dir.join(EMBEDDED_FILE), JobsOptions::default()))
}

/// Jobs that end with the process, for a host without a folder.
pub fn in_memory() -> Arc<dyn Jobs> {
    Arc::new(SqliteJobs::in_memory(JobsOptions::default()))
}

// === impl JobsOptions ===

impl Default for JobsOptions {
    fn default() -> JobsOptions {
        JobsOptions { claim: Duration::from_secs(10), look: Duration::from_secs(5), clock: SystemTime::now }
    }
}

// === impl SqliteJobs ===

impl SqliteJobs {
    /// Jobs in this file, which is created on first use.
    pub fn in_file(path: PathBuf, options: JobsOptions) -> SqliteJobs {
        SqliteJobs::new(Database::file(path, table::SCHEMA), options)
    }

    /// Jobs that end with this value.
    pub fn in_memory(options: JobsOptions) -> SqliteJobs {
        SqliteJobs::new(Database::memory(table::SCHEMA), options)
    }

    fn new(database: Database, options: JobsOptions) -> SqliteJobs {
        SqliteJobs { table: Arc::new(Table::new(database)), options, changed: Arc::new(Notify::new()) }
    }
}

impl std::fmt::Debug for SqliteJobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteJobs").field("table", &self.table).finish_non_exhaustive()
    }
}

#[async_trait]
impl Jobs for SqliteJobs {
    async fn schedule(&self, owner: &str, job: Job, overwrite: bool) -> Result<(), JobError> {
        let now = (self.options.clock)();
        let plan = Plan::new(&job, now)?;
        self.table.insert(owner, job, plan, overwrite, now).await?;
        self.changed.notify_waiters();
        Ok(())
    }

    async fn get(&self, owner: &str, name: &str) -> Result<Job, JobError> {
        let found = self.table.get(owner, name, (self.options.clock)()).await?;
        found.ok_or_else(|| JobError::NotFound { name: name.to_owned() })
    }

    async fn delete(&self, owner: &str, name: &str) -> Result<(), JobError> {
        Ok(self.table.delete(owner, name).await?)
    }

    async fn delete_prefix(&self, owner: &str, prefix: &str) -> Result<(), JobError> {
        Ok(self.table.delete_prefix(owner, prefix).await?)
    }

    async fn list(&self, owner: &str) -> Result<Vec<Job>, JobError> {
        Ok(self.table.list(owner, (self.options.clock)()).await?)
    }

    async fn start(
        &self,
        owners: Vec<String>,
        handler: Arc<dyn Handler<Due>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let (table, changed) = (Arc::clone(&self.table), Arc::clone(&self.changed));
        Ok(Box::new(Timer::new(table, owners, handler, changed, self.options.clone()).start()))
    }

    async fn close(&self) {
        self.table.close().await;
        self.changed.notify_waiters();
    }
}
