//! `/v1.0/jobs` (and `/v1.0-alpha1/jobs`).

use super::error::ApiError;
use crate::{empty, reply};
use dhow_blocks::invoke::Reply;
use dhow_blocks::jobs::{FailurePolicy, Job, JobData};
use dhow_blocks::scope::Scope;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    name: Option<String>,
    schedule: Option<String>,
    due_time: Option<String>,
    repeats: Option<u32>,
    ttl: Option<String>,
    data: Option<Value>,
    #[serde(default)]
    overwrite: bool,
    failure_policy: Option<Policy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    drop: Option<Value>,
    constant: Option<Constant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Constant {
    interval: Option<String>,
    max_retries: Option<u32>,
}

/// Keeps a job.
pub(crate) async fn keep(scope: &Scope, job: Job, overwrite: bool) -> Result<(), ApiError> {
    if job.name.is_empty() {
        return Err(ApiError::job_request("DAPR_SCHEDULER_JOB_NAME_EMPTY", "name is empty"));
    }
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if !given(&job.schedule) && !given(&job.due_time) {
        let message = "either schedule or dueTime must be provided";
        return Err(ApiError::job_request("DAPR_SCHEDULER_SCHEDULE_EMPTY", message));
    }
    let jobs = scope.jobs(&job.name).map_err(|error| ApiError::scope(&error))?;
    let what = format!("failed to schedule job {}", job.name);
    let kept = jobs.schedule(&scope.app_id, job, overwrite).await;
    kept.map_err(|error| ApiError::job("DAPR_SCHEDULER_SCHEDULE_JOB", &what, &error))
}

/// The job of that name.
pub(crate) async fn find(scope: &Scope, name: &str) -> Result<Job, ApiError> {
    let jobs = scope.jobs(name).map_err(|error| ApiError::scope(&error))?;
    let found = jobs.get(&scope.app_id, name).await;
    found.map_err(|error| {
        ApiError::job("DAPR_SCHEDULER_GET_JOB", &format!("failed to get job {name}"), &error)
    })
}

/// Forgets a job.
pub(crate) async fn forget(scope: &Scope, name: &str) -> Result<(), ApiError> {
    let jobs = scope.jobs(name).map_err(|error| ApiError::scope(&error))?;
    let forgotten = jobs.delete(&scope.app_id, name).await;
    forgotten.map_err(|error| {
        ApiError::job("DAPR_SCHEDULER_DELETE_JOB", &format!("failed to delete job {name}"), &error)
    })
}

/// Forgets all jobs whose names begin so.
pub(crate) async fn forget_prefix(scope: &Scope, prefix: &str) -> Result<(), ApiError> {
    let jobs = scope.jobs(prefix).map_err(|error| ApiError::scope(&error))?;
    let forgotten = jobs.delete_prefix(&scope.app_id, prefix).await;
    forgotten.map_err(|error| {
        let what = format!("failed to delete jobs with prefix {prefix}");
        ApiError::job("DAPR_SCHEDULER_DELETE_JOB", &what, &error)
    })
}

/// All jobs that the app may have.
pub(crate) async fn list(scope: &Scope) -> Result<Vec<Job>, ApiError> {
    let jobs = scope.list_jobs().await;
    jobs.map_err(|error| ApiError::job("DAPR_SCHEDULER_LIST_JOBS", "failed to list jobs", &error))
}

/// `POST /v1.0/jobs/<name>`
pub(super) async fn schedule(scope: &Scope, name: &str, body: &[u8]) -> Result<Reply, ApiError> {
    let request: Request = serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("failed deserializing HTTP body: {error}")))?;
    if request.name.is_some_and(|name| !name.is_empty()) {
        let message = "the job's name belongs in the URL, not in the body";
        return Err(ApiError::job_request("DAPR_SCHEDULER_JOB_NAME", message));
    }
    let job = Job {
        name: name.to_owned(),
        schedule: request.schedule,
        due_time: request.due_time,
        repeats: request.repeats,
        ttl: request.ttl,
        data: request.data.map(|data| JobData::json(&data)),
        failure_policy: failure_policy(request.failure_policy)?,
    };
    keep(scope, job, request.overwrite).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn failure_policy(policy: Option<Policy>) -> Result<FailurePolicy, ApiError> {
    let Some(policy) = policy else { return Ok(FailurePolicy::default()) };
    if policy.drop.is_some() {
        return Ok(FailurePolicy::Drop);
    }
    let Some(constant) = policy.constant else { return Ok(FailurePolicy::default()) };
    let interval = match constant.interval.as_deref() {
        None | Some("") => Duration::ZERO,
        Some(text) => dhow_resources::units::parse_duration(text).map_err(|expected| {
            ApiError::malformed(format!("failurePolicy.constant.interval {text:?}: {expected}"))
        })?,
    };
    Ok(FailurePolicy::Constant { interval, max_retries: constant.max_retries })
}

/// `GET /v1.0/jobs/<name>`
pub(super) async fn get(scope: &Scope, name: &str) -> Result<Reply, ApiError> {
    let job = find(scope, name).await?;
    let mut json = json!({ "name": job.name });
    let fields = [("schedule", job.schedule), ("dueTime", job.due_time), ("ttl", job.ttl)];
    for (name, value) in fields {
        if let Some(value) = value {
            json[name] = value.into();
        }
    }
    if let Some(repeats) = job.repeats {
        json["repeats"] = repeats.into();
    }
    if let Some(data) = &job.data {
        let (body, _) = data.body();
        json["data"] = serde_json::from_slice(&body)
            .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
    }
    json["failurePolicy"] = match job.failure_policy {
        FailurePolicy::Drop => json!({ "drop": {} }),
        FailurePolicy::Constant { interval, max_retries } => {
            let mut constant = json!({ "interval": format!("{}s", interval.as_secs_f64()) });
            if let Some(max_retries) = max_retries {
                constant["maxRetries"] = max_retries.into();
            }
            json!({ "constant": constant })
        }
    };
    Ok(reply(StatusCode::OK, "application/json", json.to_string()))
}

/// `DELETE /v1.0/jobs/<name>`
pub(super) async fn delete(scope: &Scope, name: &str) -> Result<Reply, ApiError> {
    forget(scope, name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
