//! Jobs: messages to and from the block.

use crate::dapr::error::ApiError;
use crate::dapr::job::{find, forget, forget_prefix, keep, list};
use crate::proto::common::v1::job_failure_policy::Policy;
use crate::proto::common::v1::{JobFailurePolicy, JobFailurePolicyConstant, JobFailurePolicyDrop};
use crate::proto::runtime::v1::{Job, ScheduleJobRequest};
use dhow_blocks::jobs::{self, FailurePolicy, JobData};
use dhow_blocks::scope::Scope;
use prost_types::Any;

pub(super) async fn schedule(scope: &Scope, request: ScheduleJobRequest) -> Result<(), ApiError> {
    let ScheduleJobRequest { job, overwrite } = request;
    let job = job.ok_or_else(|| ApiError::job_request("DAPR_SCHEDULER_EMPTY", "job is empty"))?;
    keep(scope, from_message(job)?, overwrite).await
}

pub(super) async fn get(scope: &Scope, name: &str) -> Result<Job, ApiError> {
    Ok(to_message(find(scope, name).await?))
}

pub(super) async fn delete(scope: &Scope, name: &str) -> Result<(), ApiError> {
    forget(scope, name).await
}

pub(super) async fn delete_prefix(scope: &Scope, prefix: Option<String>) -> Result<(), ApiError> {
    forget_prefix(scope, prefix.as_deref().unwrap_or_default()).await
}

pub(super) async fn all(scope: &Scope) -> Result<Vec<Job>, ApiError> {
    Ok(list(scope).await?.into_iter().map(to_message).collect())
}

fn from_message(job: Job) -> Result<jobs::Job, ApiError> {
    let failure_policy = match job.failure_policy.and_then(|policy| policy.policy) {
        None => FailurePolicy::default(),
        Some(Policy::Drop(JobFailurePolicyDrop {})) => FailurePolicy::Drop,
        Some(Policy::Constant(JobFailurePolicyConstant { interval, max_retries })) => {
            let interval = interval
                .unwrap_or_default()
                .try_into()
                .map_err(|_| ApiError::malformed("failure_policy.constant.interval must not be negative"))?;
            FailurePolicy::Constant { interval, max_retries }
        }
    };
    Ok(jobs::Job {
        name: job.name,
        schedule: job.schedule,
        due_time: job.due_time,
        repeats: job.repeats,
        ttl: job.ttl,
        data: job.data.map(|Any { type_url, value }| JobData { type_url, value: value.into() }),
        failure_policy,
    })
}

fn to_message(job: jobs::Job) -> Job {
    let policy = match job.failure_policy {
        FailurePolicy::Drop => Policy::Drop(JobFailurePolicyDrop {}),
        FailurePolicy::Constant { interval, max_retries } => {
            Policy::Constant(JobFailurePolicyConstant { interval: interval.try_into().ok(), max_retries })
        }
    };
    Job {
        name: job.name,
        schedule: job.schedule,
        repeats: job.repeats,
        due_time: job.due_time,
        ttl: job.ttl,
        data: job.data.map(|JobData { type_url, value }| Any { type_url, value: value.into() }),
        failure_policy: Some(JobFailurePolicy { policy: Some(policy) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn jobs_survive_the_way_there_and_back() {
        for failure_policy in [
            FailurePolicy::Drop,
            FailurePolicy::Constant { interval: Duration::from_millis(1500), max_retries: None },
            FailurePolicy::Constant { interval: Duration::ZERO, max_retries: Some(3) },
        ] {
            let data = JobData { type_url: "type.googleapis.com/x".to_owned(), value: vec![1, 2].into() };
            let job = jobs::Job {
                name: "backup".to_owned(),
                schedule: Some("@daily".to_owned()),
                due_time: Some("1h".to_owned()),
                repeats: Some(4),
                ttl: Some("24h".to_owned()),
                data: Some(data),
                failure_policy,
            };
            assert_eq!(from_message(to_message(job.clone())).unwrap(), job);
        }
    }
}
