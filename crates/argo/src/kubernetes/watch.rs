//! What changes in a collection, as it changes.

use super::error::Status;
use super::{Ask, Cluster, KubernetesError, Refusal, escaped};
use bytes::{Buf, BytesMut};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::time::Instant;

/// The server is asked to end a watch after this time, in seconds, so that no watch lasts for ever.
const SECONDS: u64 = 290;

/// A watch that goes on longer than it was asked to is taken for dead.
const GRACE: Duration = Duration::from_secs(30);

/// The server has to begin its answer after this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest event, in bytes: an object has at most 1.5 MiB, and more as JSON.
const MAX_EVENT: usize = 16 << 20;

/// A watch under way.
pub struct Watch<T> {
    what: String,
    body: Incoming,
    buffer: BytesMut,
    /// What of the buffer was looked at and has no end of a line.
    looked_at: usize,
    deadline: Instant,
    object: PhantomData<T>,
}

/// Something happened.
#[derive(Debug)]
pub enum Event<T> {
    /// An object is new, or is different now.
    Applied(T),
    /// An object is gone, or no longer one of those that are watched.
    Deleted(T),
    /// Nothing happened; a watch may go on from this version.
    Bookmark(String),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Cluster {
    /// Watches a collection from a version on; `selector` is one of labels, or empty.
    pub async fn watch<T: DeserializeOwned>(
        &self,
        path: &str,
        selector: &str,
        version: &str,
    ) -> Result<Watch<T>, KubernetesError> {
        let query = format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={SECONDS}&resourceVersion={}{}{}",
            escaped(version),
            if selector.is_empty() { "" } else { "&labelSelector=" },
            escaped(selector),
        );
        let ask = Ask { method: Method::GET, path: &query, body: None };
        let what = self.shown(path);
        let late = |_| KubernetesError::Deadline { what: what.clone(), seconds: PATIENCE.as_secs() };
        let response = tokio::time::timeout(PATIENCE, self.send(&ask)).await.map_err(late)??;
        Ok(Watch {
            what,
            body: response.into_body(),
            buffer: BytesMut::new(),
            looked_at: 0,
            deadline: Instant::now() + Duration::from_secs(SECONDS) + GRACE,
            object: PhantomData,
        })
    }
}

// === impl Watch ===

impl<T: DeserializeOwned> Watch<T> {
    /// What happens next; none if the server ended the watch, as it does now and then. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Event<T>>, KubernetesError> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout_at(self.deadline, self.body.frame()).await;
            let frame = frame.map_err(|_| KubernetesError::Deadline {
                what: self.what.clone(),
                seconds: SECONDS + GRACE.as_secs(),
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.malformed(format!("the watch broke off: {error}"))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.buffer.len() + data.len() > MAX_EVENT {
                        return Err(self.malformed(format!("an event has more than {MAX_EVENT} bytes")));
                    }
                    self.buffer.extend_from_slice(&data);
                }
            }
        }
    }

    /// An event that is here as a whole.
    fn take(&mut self) -> Result<Option<Event<T>>, KubernetesError> {
        loop {
            let rest = &self.buffer[self.looked_at..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.looked_at = self.buffer.len();
                return Ok(None);
            };
            let line = self.buffer.split_to(self.looked_at + end);
            self.buffer.advance(1);
            self.looked_at = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return self.read(&line).map(Some);
            }
        }
    }

    fn read(&self, line: &[u8]) -> Result<Event<T>, KubernetesError> {
        let wrong = |error: serde_json::Error| self.malformed(format!("an event cannot be read: {error}"));
        let line: Line<'_> = serde_json::from_slice(line).map_err(wrong)?;
        match line.kind {
            "ADDED" | "MODIFIED" => {
                Ok(Event::Applied(serde_json::from_str(line.object.get()).map_err(wrong)?))
            }
            "DELETED" => Ok(Event::Deleted(serde_json::from_str(line.object.get()).map_err(wrong)?)),
            "BOOKMARK" => {
                #[derive(Deserialize)]
                struct Object {
                    metadata: Metadata,
                }
                #[derive(Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Metadata {
                    resource_version: String,
                }
                let object: Object = serde_json::from_str(line.object.get()).map_err(wrong)?;
                Ok(Event::Bookmark(object.metadata.resource_version))
            }
            "ERROR" => {
                let status: Status = serde_json::from_str(line.object.get()).map_err(wrong)?;
                Err(KubernetesError::Refused(Refusal::of_event(self.what.clone(), status)))
            }
            other => Err(self.malformed(format!("an event of the unknown type {other:?}"))),
        }
    }

    fn malformed(&self, reason: String) -> KubernetesError {
        KubernetesError::Malformed { what: self.what.clone(), reason }
    }
}
