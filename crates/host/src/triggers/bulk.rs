//! Several messages in one request (Dapr's bulk subscribe).
//!
//! The broker hands over single messages and gets a verdict for each; here they wait for one another, up to a
//! number or a time, go to the app together, and each takes its own verdict home.

use super::delivery::{self, NotTaken, Sink, ToApp, TopicEvent};
use super::subscription::Bulk;
use super::{Taken, Target};
use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use dhow_blocks::cloud_event::{BULK_TYPE, CONTENT_TYPE, uuid};
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::{Body, EventOf, Trigger};
use dhow_blocks::policy::Code;
use dhow_blocks::trace::TraceContext;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Gathers events and hands them to an app together.
pub(super) struct Gather {
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    event: TopicEvent,
    verdict: oneshot::Sender<Result<(), NotTaken>>,
}

/// One request with several events.
#[derive(Serialize)]
struct Request<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'a str,
    topic: &'a str,
    pubsubname: &'a str,
    metadata: Metadata,
    entries: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    entry_id: String,
    event: Event<'a>,
    metadata: &'a Metadata,
    content_type: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Event<'a> {
    Json(&'a RawValue),
    Bytes(String),
}

#[derive(Deserialize)]
struct Answers {
    #[serde(default)]
    statuses: Vec<EntryAnswer>,
}

#[derive(Deserialize)]
struct EntryAnswer {
    #[serde(rename = "entryId", default)]
    entry_id: String,
    #[serde(default)]
    status: Option<String>,
}

// === impl Gather ===

impl Gather {
    pub(super) fn new(target: Target, pubsub: String, topic: String, bulk: Bulk) -> Gather {
        let (waiting, mut received) = mpsc::channel::<Waiting>(bulk.max_messages.max(1));
        tokio::spawn(async move {
            while let Some(first) = received.recv().await {
                let deadline = Instant::now() + bulk.max_wait;
                let mut batch = vec![first];
                while batch.len() < bulk.max_messages {
                    match tokio::time::timeout_at(deadline, received.recv()).await {
                        Ok(Some(next)) => batch.push(next),
                        Ok(None) | Err(_) => break,
                    }
                }
                deliver(&target, &pubsub, &topic, batch).await;
            }
        });
        Gather { waiting }
    }
}

#[async_trait]
impl Sink for Gather {
    async fn take(&self, event: TopicEvent) -> Result<(), NotTaken> {
        let (verdict, answer) = oneshot::channel();
        let gone = || NotTaken::Retry { reason: "the subscription ended".to_owned(), code: None };
        self.waiting.send(Waiting { event, verdict }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Hands over one batch; events of different paths go in different requests.
async fn deliver(target: &Target, pubsub: &str, topic: &str, batch: Vec<Waiting>) {
    let mut paths: Vec<(String, Vec<Waiting>)> = Vec::new();
    for waiting in batch {
        let path = waiting.event.path.clone().unwrap_or_default();
        match paths.iter_mut().find(|(found, _)| *found == path) {
            Some((_, group)) => group.push(waiting),
            None => paths.push((path, vec![waiting])),
        }
    }
    for (path, group) in paths {
        let ids: Vec<String> = group.iter().map(|_| uuid()).collect();
        let verdicts = send(target, pubsub, topic, &path, &group, &ids).await;
        for (waiting, id) in group.into_iter().zip(&ids) {
            let verdict = match &verdicts {
                Ok(verdicts) => verdicts.get(id).cloned().unwrap_or_else(|| {
                    Err(NotTaken::Retry { reason: "its entry has no status".to_owned(), code: None })
                }),
                Err(error) => Err(error.clone()),
            };
            let _ = waiting.verdict.send(verdict);
        }
    }
}

async fn send(
    target: &Target,
    pubsub: &str,
    topic: &str,
    path: &str,
    group: &[Waiting],
    ids: &[String],
) -> Result<HashMap<String, Result<(), NotTaken>>, NotTaken> {
    let retry = |reason: String| NotTaken::Retry { reason, code: None };
    let entries = group.iter().zip(ids).map(|(waiting, id)| {
        let envelope = &waiting.event.envelope;
        Entry {
            entry_id: id.clone(),
            event: match serde_json::from_slice(envelope) {
                Ok(json) => Event::Json(json),
                Err(_) => Event::Bytes(BASE64_STANDARD.encode(envelope)),
            },
            metadata: &waiting.event.metadata,
            content_type: CONTENT_TYPE,
        }
    });
    let body = Request {
        id: uuid(),
        kind: BULK_TYPE,
        topic,
        pubsubname: pubsub,
        metadata: Metadata::from([("pubsubName".to_owned(), pubsub.to_owned())]),
        entries: entries.collect(),
    };
    let body = serde_json::to_vec(&body).map_err(|error| retry(error.to_string()))?;
    let request = delivery::request(path, "application/json", &Metadata::new(), Body::from(body));
    let mut request = request.map_err(retry)?;
    request.extensions_mut().insert(EventOf { component: pubsub.to_owned(), name: topic.to_owned() });
    let trace = group.first().map_or_else(TraceContext::new, |waiting| waiting.event.trace);
    let reply = target.invoke(request, Trigger::Topic, trace).await.map_err(NotTaken::from)?;
    let (status, code) = (reply.status(), Code::of(&reply));
    let body = delivery::answer(reply).await.map_err(retry)?;
    match delivery::taken(status) {
        Taken::Unknown => Err(NotTaken::Drop),
        Taken::No => Err(NotTaken::Retry { reason: format!("it answered {status}"), code: Some(code) }),
        // Whatever has no status is tried again.
        Taken::Yes => match serde_json::from_slice::<Answers>(&body) {
            Ok(answers) => {
                let verdicts = answers.statuses.into_iter();
                Ok(verdicts.map(|entry| (entry.entry_id.clone(), entry.verdict())).collect())
            }
            Err(error) => Err(retry(format!("its answer has no statuses: {error}"))),
        },
    }
}

impl EntryAnswer {
    fn verdict(&self) -> Result<(), NotTaken> {
        match self.status.as_deref() {
            Some("SUCCESS") => Ok(()),
            Some("DROP") => Err(NotTaken::Drop),
            other => {
                let reason = format!("it answered status {:?}", other.unwrap_or_default());
                Err(NotTaken::Retry { reason, code: None })
            }
        }
    }
}

/// The sink of a subscription that goes to an app: one by one or in bulk.
pub(super) fn sink(target: Target, pubsub: &str, topic: &str, bulk: Option<Bulk>) -> Arc<dyn Sink> {
    match bulk {
        None => Arc::new(ToApp(target)),
        Some(bulk) => Arc::new(Gather::new(target, pubsub.to_owned(), topic.to_owned(), bulk)),
    }
}
