//! Jobs that are due: a POST to `/job/<name>` of the app that scheduled them.

use super::delivery;
use super::{Taken, Target};
use crate::host::Host;
use crate::metrics::Metrics;
use async_trait::async_trait;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::invoke::{EventOf, Trigger, path_segment};
use dhow_blocks::jobs::{Due, JobData};
use dhow_blocks::scope::{delayed_event, delayed_of};
use dhow_blocks::trace::TraceContext;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Hands due jobs to their apps.
pub(super) struct DueJobs {
    pub(super) host: Weak<Host>,
    pub(super) metrics: Metrics,
}

#[async_trait]
impl Handler<Due> for DueJobs {
    async fn handle(&self, due: Due) -> Outcome {
        let began = Instant::now();
        let target = Target { host: Weak::clone(&self.host), app_id: due.owner.as_str().into() };
        if let Some(app_id) = delayed_of(&due.owner) {
            return self.publish(app_id, due.data.as_ref()).await;
        }
        let name = due.name.clone();
        let taken = deliver(&target, due).await;
        self.metrics.job(&target.app_id, taken.is_ok(), began.elapsed());
        match taken {
            Ok(()) => Outcome::Done,
            Err(reason) => {
                tracing::warn!(app_id = &*target.app_id, job = name, "a job was not taken: {reason}");
                Outcome::Again
            }
        }
    }
}

impl DueJobs {
    /// Publishes an event that waited for its time.
    async fn publish(&self, app_id: &str, data: Option<&JobData>) -> Outcome {
        let Some((pubsub, topic, event)) = data.and_then(delayed_event) else {
            tracing::error!(app_id, "an event that waited cannot be read, and is given up");
            return Outcome::Done;
        };
        let Some(host) = self.host.upgrade() else { return Outcome::Again };
        let scope = match host.app(app_id) {
            Some(app) => Ok(Arc::clone(app.scope())),
            None => host.outside_scope(app_id).await,
        };
        let published = match scope {
            Ok(scope) => {
                let published = scope.publish(&pubsub, &topic, event, TraceContext::new(), "").await;
                published.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match published {
            Ok(()) => Outcome::Done,
            Err(reason) => {
                tracing::warn!(app_id, pubsub, topic, "an event that waited is not published yet: {reason}");
                Outcome::Again
            }
        }
    }
}

async fn deliver(target: &Target, due: Due) -> Result<(), String> {
    let path = format!("/job/{}", path_segment(&due.name));
    let (body, content_type) = match &due.data {
        Some(data) => data.body(),
        None => Default::default(),
    };
    let content_type = if content_type.is_empty() { "application/json" } else { content_type };
    let mut request = delivery::request(&path, content_type, &Metadata::new(), body.into())?;
    // An app that speaks gRPC gets the message as it was scheduled.
    if let Some(data) = due.data {
        request.extensions_mut().insert(data);
    }
    // One that takes jobs as calls gets the name as it is.
    request.extensions_mut().insert(EventOf { component: String::new(), name: due.name });
    let reply = target.invoke(request, Trigger::Job, TraceContext::new()).await;
    let reply = reply.map_err(|error| error.to_string())?;
    match delivery::taken(reply.status()) {
        // An app that knows nothing of the job will not learn of it by being asked again.
        Taken::Yes | Taken::Unknown => Ok(()),
        Taken::No => Err(format!("it answered {}", reply.status())),
    }
}
