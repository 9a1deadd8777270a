//! Jobs that are due: a POST to `/job/<name>` of the app that scheduled them.

use super::delivery;
use super::{Taken, Target};
use crate::host::Host;
use crate::metrics::Metrics;
use async_trait::async_trait;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::invoke::{EventOf, Trigger, path_segment};
use dhow_blocks::jobs::Due;
use dhow_blocks::trace::TraceContext;
use std::sync::Weak;
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
