//! Publishing later: an event is a job until it is due.
//!
//! The job belongs to an owner of its own beside the app, whose jobs it is not, so no name that an app chooses can meet
//! it. Whoever triggers jobs publishes what is due under the app's identity.

use super::{Event, PublishError, Scope, ScopeError};
use crate::cloud_event::uuid;
use crate::error::BlockError;
use crate::jobs::{FailurePolicy, Job, JobData, JobError};
use crate::pubsub::MAX_MESSAGE_BYTES;
use crate::scope::Block;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest delay.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(366 * 24 * 3600);

/// Behind the app-id in the name of an owner; no app-id has such a character.
const OWNER: &str = "||delayed";

/// The type of the job's data.
const TYPE: &str = "type.googleapis.com/dhow.DelayedEvent";

/// A broker that is away is tried for a day.
const RETRY: FailurePolicy =
    FailurePolicy::Constant { interval: Duration::from_secs(10), max_retries: Some(24 * 360) };

/// An event that waits.
#[derive(Debug, Deserialize, Serialize)]
struct Waiting {
    pubsub: String,
    topic: String,
    /// In base64.
    data: String,
    content_type: Option<String>,
    metadata: crate::events::Metadata,
}

/// Whose events the jobs of this owner are; none if they are the jobs of an app.
pub fn delayed_of(owner: &str) -> Option<&str> {
    owner.strip_suffix(OWNER)
}

/// The owner of the events of an app that wait.
pub fn delayed_owner(app_id: &str) -> String {
    format!("{app_id}{OWNER}")
}

/// Component, topic and event of a job that is due.
pub fn delayed_event(data: &JobData) -> Option<(String, String, Event)> {
    let Waiting { pubsub, topic, data, content_type, metadata } = serde_json::from_slice(&data.value).ok()?;
    let data = BASE64_STANDARD.decode(data).ok()?.into();
    Some((pubsub, topic, Event { data, content_type, metadata }))
}

impl Scope {
    /// Publishes one event after this time, also if the host dies meanwhile, and returns an id for it. Whether the app
    /// may publish to the topic is decided now and again then.
    pub async fn publish_later(
        &self,
        pubsub: &str,
        topic: &str,
        event: Event,
        delay: Duration,
    ) -> Result<String, PublishError> {
        self.publisher(pubsub, topic)?;
        let refused = |error: BlockError| PublishError::Provider { error };
        let Event { data, content_type, metadata } = event;
        if data.len() > MAX_MESSAGE_BYTES || delay > MAX_DELAY {
            let reason = format!("expected at most {MAX_MESSAGE_BYTES} bytes and a delay of at most a year");
            return Err(refused(BlockError::invalid(reason)));
        }
        let jobs = self.components.jobs.as_ref();
        let jobs = jobs.ok_or(ScopeError::NotConfigured { block: Block::Jobs })?;
        let (pubsub, topic, data) = (pubsub.to_owned(), topic.to_owned(), BASE64_STANDARD.encode(&data));
        let waiting = serde_json::to_vec(&Waiting { pubsub, topic, data, content_type, metadata });
        let value = waiting.map_err(|error| refused(BlockError::failed(error.to_string())))?.into();
        let id = uuid();
        let job = Job {
            name: id.clone(),
            due_time: Some(format!("{}ms", delay.as_millis())),
            data: Some(JobData { type_url: TYPE.to_owned(), value }),
            failure_policy: RETRY,
            ..Job::default()
        };
        let kept = jobs.schedule(&delayed_owner(&self.app_id), job, false).await;
        kept.map(|()| id).map_err(|error| match error {
            JobError::Block(error) => refused(error),
            error => refused(BlockError::failed(error.to_string())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_of_waiting_events_are_no_apps() {
        assert_eq!(delayed_of(&delayed_owner("shop")), Some("shop"));
        for owner in ["shop", "delayed", ""] {
            assert_eq!(delayed_of(owner), None, "{owner}");
        }
    }
}
