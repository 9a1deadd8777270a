//! Watches: what changed since a version, and what changes from then on.

use super::server::{Answer, Asked, Change, Inner, is_selected, status_object};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame};
use serde_json::{Value, json};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{mpsc, watch::Receiver};

/// How often a watch without news gets a bookmark; Kubernetes takes a minute.
const BOOKMARK: Duration = Duration::from_millis(100);

/// Watches end by themselves after this time, as those of Kubernetes do after minutes.
const LASTS: Duration = Duration::from_secs(3);

struct Watch {
    inner: Arc<Inner>,
    news: Receiver<u64>,
    /// Disconnects when it began.
    disconnects: u64,
    version: u64,
    collection: String,
    namespace: Option<String>,
    selector: Option<String>,
    /// Whether whoever watches wants bookmarks.
    bookmarks: bool,
    until: tokio::time::Instant,
    is_cut_off: bool,
}

/// The body of the answer.
struct Events(mpsc::Receiver<Result<Bytes, io::Error>>);

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| event.map(Frame::data)))
    }
}

pub(crate) fn answer(inner: &Arc<Inner>, asked: &Asked) -> Answer {
    let version = asked.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut news = inner.news.subscribe();
    let disconnects = *news.borrow_and_update();
    inner.change(|state| state.watches += 1);
    if version < inner.state().oldest {
        let gone = status_object(StatusCode::GONE, "Expired", "too old resource version");
        // Kubernetes says it in the first event.
        let event = format!("{}\n", json!({"type": "ERROR", "object": gone}));
        return Response::new(Full::new(Bytes::from(event)).map_err(|never| match never {}).boxed());
    }
    let watch = Watch {
        inner: Arc::clone(inner),
        news,
        disconnects,
        version,
        collection: asked.collection.clone(),
        namespace: asked.namespace.clone(),
        selector: asked.query.get("labelSelector").cloned(),
        bookmarks: asked.query.get("allowWatchBookmarks").is_some_and(|wanted| wanted == "true"),
        until: tokio::time::Instant::now() + LASTS,
        is_cut_off: false,
    };
    let (sender, events) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut watch = watch;
        while let Some(event) = watch.next().await {
            if sender.send(event).await.is_err() {
                break;
            }
        }
    });
    Response::new(Events(events).boxed())
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        loop {
            if self.is_cut_off {
                return Some(Err(io::Error::other("cut off")));
            }
            let changes: Vec<Change> = {
                let state = self.inner.state();
                let is_new = |change: &&Change| change.version > self.version;
                state.events.iter().filter(is_new).cloned().collect()
            };
            let mut text = String::new();
            for change in changes {
                self.version = change.version;
                if let Some(event) = self.event(&change) {
                    text.push_str(&event.to_string());
                    text.push('\n');
                }
            }
            if *self.news.borrow_and_update() > self.disconnects {
                // In the middle of an event, if there is one.
                self.is_cut_off = true;
                let whole = if text.is_empty() { "{\"type\": \"MODIFIED\"".to_owned() } else { text };
                return Some(Ok(Bytes::copy_from_slice(&whole.as_bytes()[..whole.len() / 2])));
            }
            if !text.is_empty() {
                return Some(Ok(Bytes::from(text)));
            }
            tokio::select! {
                _ = self.news.changed() => {}
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep(BOOKMARK), if self.bookmarks => {
                    let version = self.version.max(self.inner.state().version);
                    let object = json!({"kind": "WorkflowTaskSet", "metadata": {"resourceVersion": version.to_string()}});
                    return Some(Ok(Bytes::from(format!("{}\n", json!({"type": "BOOKMARK", "object": object})))));
                }
            }
        }
    }

    /// What a change is to one who sees only what is selected.
    fn event(&self, change: &Change) -> Option<Value> {
        let is_other = self.namespace.as_ref().is_some_and(|namespace| *namespace != change.namespace);
        if change.collection != self.collection || is_other {
            return None;
        }
        let seen = |object: &Option<Value>| {
            object.clone().filter(|object| is_selected(object, self.selector.as_ref()))
        };
        let (kind, mut object) = match (seen(&change.before), seen(&change.after)) {
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", change.after.clone().unwrap_or(before)),
            (None, None) => return None,
        };
        object["metadata"]["resourceVersion"] = json!(change.version.to_string());
        Some(json!({"type": kind, "object": object}))
    }
}
