//! `dhow:runtime/jobs` over the jobs block.

use super::wit::jobs;
use super::{Error, Runtime};
use dhow_blocks::jobs::{FailurePolicy, Job, JobData};
use serde_json::Value;
use std::time::Duration;

impl jobs::Host for Runtime<'_> {
    async fn schedule(&mut self, job: jobs::Job, overwrite: bool) -> Result<(), Error> {
        let scope = &self.setup.scope;
        let jobs = scope.jobs(&job.name)?;
        Ok(jobs.schedule(&scope.app_id, block_job(job)?, overwrite).await?)
    }

    async fn get(&mut self, name: String) -> Result<jobs::Job, Error> {
        let scope = &self.setup.scope;
        Ok(wit_job(scope.jobs(&name)?.get(&scope.app_id, &name).await?))
    }

    async fn delete(&mut self, name: String) -> Result<(), Error> {
        let scope = &self.setup.scope;
        Ok(scope.jobs(&name)?.delete(&scope.app_id, &name).await?)
    }
}

fn block_job(job: jobs::Job) -> Result<Job, Error> {
    let jobs::Job { name, schedule, due_time, repeats, ttl, data, failure_policy } = job;
    let data = data.map(|text| serde_json::from_str::<Value>(&text)).transpose();
    let data = data.map_err(|error| Error::invalid(format!("data: not JSON: {error}")))?;
    let failure_policy = match failure_policy {
        None => FailurePolicy::default(),
        Some(jobs::FailurePolicy::Drop) => FailurePolicy::Drop,
        Some(jobs::FailurePolicy::Constant(jobs::Retries { interval_ms, max_retries })) => {
            FailurePolicy::Constant { interval: Duration::from_millis(interval_ms), max_retries }
        }
    };
    let data = data.map(|json| JobData::json(&json));
    Ok(Job { name, schedule, due_time, repeats, ttl, data, failure_policy })
}

fn wit_job(job: Job) -> jobs::Job {
    let Job { name, schedule, due_time, repeats, ttl, data, failure_policy } = job;
    let failure_policy = match failure_policy {
        FailurePolicy::Drop => jobs::FailurePolicy::Drop,
        FailurePolicy::Constant { interval, max_retries } => {
            let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            jobs::FailurePolicy::Constant(jobs::Retries { interval_ms, max_retries })
        }
    };
    let failure_policy = Some(failure_policy);
    jobs::Job { name, schedule, due_time, repeats, ttl, data: data.map(|data| json(&data)), failure_policy }
}

/// Data as JSON text; what somebody else scheduled in another form becomes a string.
fn json(data: &JobData) -> String {
    let (body, _) = data.body();
    match serde_json::from_slice::<Value>(&body) {
        Ok(json) => json.to_string(),
        Err(_) => Value::from(String::from_utf8_lossy(&body)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{block_job, jobs, json, wit_job};
    use dhow_blocks::jobs::JobData;

    fn job(data: Option<&str>) -> jobs::Job {
        let retries = jobs::Retries { interval_ms: 1500, max_retries: None };
        jobs::Job {
            name: "j".to_owned(),
            schedule: Some("@daily".to_owned()),
            due_time: None,
            repeats: Some(3),
            ttl: Some("1h".to_owned()),
            data: data.map(str::to_owned),
            failure_policy: Some(jobs::FailurePolicy::Constant(retries)),
        }
    }

    #[test]
    fn a_job_comes_back_as_it_went() {
        for data in [None, Some(r#"{"a":[1,"b",null]}"#), Some("7"), Some(r#""text""#)] {
            let back = wit_job(block_job(job(data)).unwrap());
            assert_eq!(format!("{back:?}"), format!("{:?}", job(data)));
        }
        assert!(block_job(job(Some("{"))).is_err());
        let foreign = JobData { type_url: "my.Message".to_owned(), value: "raw".into() };
        assert_eq!(json(&foreign), r#""raw""#);
    }
}
