//! A guest before another app: it sees the request on its way in and the response on its way out.

use super::Proxy;
use super::instance::{Flow, Instance};
use super::stream::{HttpStream, Unread, collected};
use crate::failure::Failure;
use crate::setup::Bounds;
use crate::store::Origin;
use dhow_blocks::invoke::{Body, Invocation, Reply};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Request, Response};
use std::sync::Arc;

/// What a filter made of a request.
pub enum Passed {
    /// It goes on, and its response passes the filter, too.
    On(Invocation, Passing),
    /// The filter has answered it.
    Answered(Reply),
}

/// A filter that waits for the response. Dropped without one, it is told that its stream has ended.
pub struct Passing {
    proxy: Arc<Proxy>,
    instance: Option<Box<Instance>>,
}

impl Proxy {
    /// Lets a request pass.
    pub(crate) async fn pass(self: &Arc<Self>, invocation: Invocation) -> Result<Passed, Failure> {
        self.bounded(Box::pin(Arc::clone(self).request(invocation))).await
    }

    async fn request(self: Arc<Self>, invocation: Invocation) -> Result<Passed, Failure> {
        let Invocation { request, trigger, trace, depth } = invocation;
        let origin = Origin { trace, depth };
        let mut instance = self.instance(origin).await?;
        let (head, body) = request.into_parts();
        instance.begin(false, head, origin).await?;
        let (flow, body) = instance.request_side(body).await?;
        let stream = instance.stream()?;
        if flow == Flow::Over {
            let reply = local(stream)?;
            self.finish(instance).await;
            return Ok(Passed::Answered(reply));
        }
        if stream.request_body.written {
            measured(&mut stream.request.headers, &body);
        }
        // The guest may still want to read it beside the response.
        let head = stream.request.clone();
        let request = Request::from_parts(head, body);
        let passing = Passing { proxy: self, instance: Some(instance) };
        Ok(Passed::On(Invocation { request, trigger, trace, depth }, passing))
    }

    async fn response(self: Arc<Self>, mut instance: Box<Instance>, reply: Reply) -> Result<Reply, Failure> {
        let (head, mut body) = reply.into_parts();
        instance.stream()?.response = head;
        let has_ended = http_body::Body::is_end_stream(&body);
        let (mut flow, sees_body) = self.bounded(instance.response_head(has_ended)).await?;
        if sees_body {
            // The time that this takes is that of the app.
            let Bounds { response_body: limit, deadline, .. } = self.setup.bounds;
            let whole = collected(body, limit, deadline).await.map_err(|unread| match unread {
                Unread::TooLarge => Failure::ResponseTooLarge(limit),
                Unread::Broken(error) => Failure::Behind(Box::new(error.into())),
            });
            let (bytes, trailers) = whole?;
            (flow, body) = self.bounded(instance.response_body(bytes, trailers)).await?;
        }
        let stream = instance.stream()?;
        let reply = match flow {
            Flow::Over => local(stream)?,
            Flow::On => {
                let mut head = stream.response.clone();
                if stream.response_body.written {
                    measured(&mut head.headers, &body);
                }
                Response::from_parts(head, body)
            }
        };
        if reply.status().is_informational() {
            return Err(Failure::informational(reply.status()));
        }
        self.bounded(self.finished(instance)).await?;
        Ok(reply)
    }

    async fn finished(self: &Arc<Self>, instance: Box<Instance>) -> Result<(), Failure> {
        self.finish(instance).await;
        Ok(())
    }
}

fn local(stream: &mut HttpStream) -> Result<Reply, Failure> {
    stream.take_answer().ok_or_else(|| Failure::ErrorAnswer("it closed the stream".to_owned()))
}

/// A body that the guest has written has another length than was announced.
fn measured(headers: &mut HeaderMap, body: &Body) {
    match http_body::Body::size_hint(body).exact() {
        Some(length) if headers.contains_key(CONTENT_LENGTH) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        _ => {
            headers.remove(CONTENT_LENGTH);
        }
    }
}

// === impl Passing ===

impl Passing {
    /// Lets the response pass.
    pub async fn response(mut self, reply: Reply) -> Result<Reply, Failure> {
        let Some(instance) = self.instance.take() else { return Ok(reply) };
        Box::pin(Arc::clone(&self.proxy).response(instance, reply)).await
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let Some(instance) = self.instance.take() else { return };
        // Without a runtime the process is on its way out, and the guest with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let proxy = Arc::clone(&self.proxy);
            runtime.spawn(async move {
                if let Err(failure) = proxy.bounded(proxy.finished(instance)).await {
                    proxy.tell(&failure);
                }
            });
        }
    }
}
