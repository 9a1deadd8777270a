//! Work that is due later, kept durably. [`on_job!`](crate::on_job) takes it when it is.

use crate::Result;
use crate::wit::jobs as wit;
use serde::Serialize;
use std::time::Duration;

/// A job: `Job::new("report").schedule("@daily").keep()`.
#[derive(Clone, Debug)]
#[must_use = "nothing happens before `keep`"]
pub struct Job {
    job: wit::Job,
    overwrite: bool,
}

// === impl Job ===

impl Job {
    /// A job of this name, which is unique for the app. It needs a schedule, a due time, or both.
    pub fn new(name: impl Into<String>) -> Job {
        let job = wit::Job {
            name: name.into(),
            schedule: None,
            due_time: None,
            repeats: None,
            ttl: None,
            data: None,
            failure_policy: None,
        };
        Job { job, overwrite: false }
    }

    /// Six-field cron (seconds first), `@every 5s`, `@daily` and the like.
    pub fn schedule(mut self, schedule: impl Into<String>) -> Job {
        self.job.schedule = Some(schedule.into());
        self
    }

    /// When it is first due: RFC 3339, a duration such as `90s`, or an ISO 8601 duration.
    pub fn due(mut self, time: impl Into<String>) -> Job {
        self.job.due_time = Some(time.into());
        self
    }

    /// Triggered this many times, then gone.
    pub fn repeats(mut self, times: u32) -> Job {
        self.job.repeats = Some(times);
        self
    }

    /// Gone after this time, in the forms of [`Job::due`].
    pub fn ttl(mut self, ttl: impl Into<String>) -> Job {
        self.job.ttl = Some(ttl.into());
        self
    }

    /// Comes with each trigger, as JSON.
    pub fn data(mut self, value: &(impl Serialize + ?Sized)) -> Result<Job> {
        self.job.data = Some(serde_json::to_string(value)?);
        Ok(self)
    }

    /// A trigger that the app does not take is lost. The default is three retries, a second apart.
    pub fn or_drop(mut self) -> Job {
        self.job.failure_policy = Some(wit::FailurePolicy::Drop);
        self
    }

    /// A trigger that the app does not take is tried again, so often; `None`: until it is taken.
    pub fn or_retry(mut self, interval: Duration, max_retries: Option<u32>) -> Job {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.job.failure_policy =
            Some(wit::FailurePolicy::Constant(wit::Retries { interval_ms, max_retries }));
        self
    }

    /// Replaces a job of that name, which otherwise is [`Error::Conflict`](crate::Error::Conflict).
    pub fn overwrite(mut self) -> Job {
        self.overwrite = true;
        self
    }

    /// Keeps the job.
    pub fn keep(self) -> Result<()> {
        Ok(wit::schedule(&self.job, self.overwrite)?)
    }

    /// Forgets the job of that name; one that does not exist is no error.
    pub fn delete(name: &str) -> Result<()> {
        Ok(wit::delete(name)?)
    }

    /// Whether a job of that name is kept.
    pub fn exists(name: &str) -> Result<bool> {
        match wit::get(name) {
            Ok(_) => Ok(true),
            Err(crate::wit::types::Error::NotFound(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
