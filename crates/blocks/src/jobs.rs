//! The jobs block: work that is due later, once or again and again, kept durably.

mod json_value;

use crate::error::BlockError;
use crate::events::{Handler, Running};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Most jobs that one owner may have.
pub const MAX_JOBS: usize = 100_000;

/// A job as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Name, unique for its owner.
    pub name: String,
    /// Six-field cron (seconds first), `@every 5s`, `@daily` and the like; see the providers' `schedule`.
    pub schedule: Option<String>,
    /// When it is first due: RFC 3339, a Go duration from now, or an ISO 8601 duration.
    pub due_time: Option<String>,
    /// Triggered this many times, then gone.
    pub repeats: Option<u32>,
    /// Gone after this time: RFC 3339, a Go duration, or an ISO 8601 duration.
    pub ttl: Option<String>,
    /// Handed to the app at each trigger.
    pub data: Option<JobData>,
    /// What happens when the app does not take it.
    pub failure_policy: FailurePolicy,
}

/// Data of a job: a protobuf `Any`, as Dapr keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobData {
    /// `type.googleapis.com/…`
    pub type_url: String,
    /// The serialised message.
    pub value: Bytes,
}

/// What happens when an app does not take a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The trigger is lost.
    Drop,
    /// It is tried again.
    Constant {
        /// Between two tries.
        interval: Duration,
        /// Tries beside the first one; none: until it succeeds.
        max_retries: Option<u32>,
    },
}

/// A job that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Whose job.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Option<JobData>,
    /// When it was due.
    pub due: SystemTime,
}

/// Why a job was not scheduled.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum JobError {
    /// There is one of that name, and overwriting was not asked for.
    #[error("a job named {name:?} exists already; set overwrite to replace it")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is none of that name.
    #[error("no job is named {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Anything else.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// A provider of jobs. `Ok` from [`Jobs::schedule`] means that the job survives the death of the process.
#[async_trait]
pub trait Jobs: Send + Sync + 'static {
    /// Keeps a job.
    async fn schedule(&self, owner: &str, job: Job, overwrite: bool) -> Result<(), JobError>;

    /// The job of that name.
    async fn get(&self, owner: &str, name: &str) -> Result<Job, JobError>;

    /// Forgets a job; one that does not exist is no error.
    async fn delete(&self, owner: &str, name: &str) -> Result<(), JobError>;

    /// Forgets all jobs of an owner whose names start with `prefix`.
    async fn delete_prefix(&self, owner: &str, prefix: &str) -> Result<(), JobError>;

    /// All jobs of an owner, by name.
    async fn list(&self, owner: &str) -> Result<Vec<Job>, JobError>;

    /// Begins to trigger the jobs of these owners; several hosts may share a store and run different apps. An
    /// outcome of `Again` is handled by the job's failure policy.
    async fn start(
        &self,
        owners: Vec<String>,
        handler: Arc<dyn Handler<Due>>,
    ) -> Result<Box<dyn Running>, BlockError>;

    /// Lets go of files.
    async fn close(&self) {}
}

/// The type of data that were given as JSON.
const JSON_TYPE: &str = "type.googleapis.com/google.protobuf.Value";

impl JobData {
    /// Data given as JSON.
    pub fn json(json: &serde_json::Value) -> JobData {
        JobData { type_url: JSON_TYPE.to_owned(), value: json_value::encode(json).into() }
    }

    /// The data as a request's body, and its media type: JSON if they are JSON or text, else the message as
    /// it is.
    pub fn body(&self) -> (Bytes, &'static str) {
        match json_value::decode(self.type_url.rsplit('/').next().unwrap_or_default(), &self.value) {
            Some(json) => (json.to_string().into(), "application/json"),
            None => (self.value.clone(), "application/octet-stream"),
        }
    }
}

impl Default for FailurePolicy {
    /// Dapr's default: three retries, a second apart.
    fn default() -> FailurePolicy {
        FailurePolicy::Constant { interval: Duration::from_secs(1), max_retries: Some(3) }
    }
}
