//! Events of input bindings: asked for with OPTIONS, delivered with POST, answered by a status and perhaps by
//! more work.
//!
//! Format: Dapr's bindings API reference, "Binding endpoints" and "Binding payload".

use super::delivery::{self, NotTaken};
use super::{Taken, Target};
use async_trait::async_trait;
use dhow_blocks::binding::{BindingEvent, BindingRequest};
use dhow_blocks::events::{Handler, Metadata, Outcome, value};
use dhow_blocks::invoke::{Body, EventOf, Trigger};
use dhow_blocks::policy::{Code, Policy};
use dhow_blocks::scope::{Meter, Scope};
use dhow_blocks::state::Set;
use dhow_blocks::trace::TraceContext;
use futures::future::join_all;
use http::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Hands the events of one binding to an app.
pub(super) struct Events {
    pub(super) target: Target,
    pub(super) scope: Arc<Scope>,
    pub(super) name: String,
    pub(super) path: String,
    pub(super) policy: Policy,
    pub(super) meter: Option<Arc<dyn Meter>>,
}

/// What an app may want done with its answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    store_name: String,
    #[serde(default)]
    state: Vec<StateItem>,
    #[serde(default)]
    to: Vec<String>,
    #[serde(default)]
    concurrency: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct StateItem {
    key: String,
    #[serde(default)]
    value: Option<Box<RawValue>>,
    #[serde(default)]
    etag: Option<String>,
}

/// Whether an app wants the events of a binding: it answers OPTIONS at their path with 2xx or 405.
pub(super) async fn wants(target: &Target, path: &str, limit: Duration) -> Result<bool, String> {
    let mut request = Request::new(Body::Empty);
    *request.method_mut() = Method::OPTIONS;
    let Ok(uri) = path.parse() else { return Ok(false) };
    *request.uri_mut() = uri;
    let reply = target.invoke(request, Trigger::Host, TraceContext::new());
    match tokio::time::timeout(limit, reply).await {
        Ok(Ok(reply)) => match reply.status() {
            status @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                Err(format!("it answered OPTIONS {path} with {status}"))
            }
            status => Ok(status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED),
        },
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it did not answer OPTIONS {path} within {limit:?}")),
    }
}

#[async_trait]
impl Handler<BindingEvent> for Events {
    async fn handle(&self, event: BindingEvent) -> Outcome {
        let began = Instant::now();
        let taken = self.policy.run(event, |event| self.take(event)).await;
        if let Some(meter) = &self.meter {
            meter.record("read", "", taken.is_ok(), began.elapsed());
        }
        match taken {
            Ok(()) => Outcome::Done,
            Err(error) => {
                let reason = match error {
                    NotTaken::Drop => "it does not want it".to_owned(),
                    NotTaken::Retry { reason, .. } => reason,
                };
                let binding = &self.name;
                tracing::warn!(app_id = &*self.target.app_id, binding, "an event was not taken: {reason}");
                Outcome::Again
            }
        }
    }
}

impl Events {
    async fn take(&self, event: BindingEvent) -> Result<(), NotTaken> {
        let retry = |reason: String| NotTaken::Retry { reason, code: None };
        let trace = value(&event.metadata, "traceparent").and_then(TraceContext::parse);
        let trace = trace.map(TraceContext::child).unwrap_or_default();
        let content_type = value(&event.metadata, "content-type").unwrap_or("application/json").to_owned();
        let request = delivery::request(&self.path, &content_type, &event.metadata, event.data.into());
        let mut request = request.map_err(retry)?;
        request.extensions_mut().insert(EventOf { component: self.name.clone(), name: String::new() });
        let reply = self.target.invoke(request, Trigger::Binding, trace).await;
        let reply = reply.map_err(NotTaken::from)?;
        let (status, code) = (reply.status(), Code::of(&reply));
        let body = delivery::answer(reply).await.map_err(retry)?;
        if !matches!(delivery::taken(status), Taken::Yes) {
            return Err(NotTaken::Retry { reason: format!("it answered {status}"), code: Some(code) });
        }
        // An answer of any other form is none.
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) => self.follow(answer).await.map_err(retry),
            Err(_) => Ok(()),
        }
    }

    /// Saves the state and calls the bindings that an app's answer names.
    async fn follow(&self, answer: Answer) -> Result<(), String> {
        if !answer.state.is_empty() {
            let state = self.scope.state(&answer.store_name).map_err(|error| error.to_string())?;
            for item in answer.state {
                let value = item.value.map_or_else(|| "null".to_owned(), |value| value.get().to_owned());
                let (value, etag) = (value.into(), item.etag.filter(|etag| !etag.is_empty()));
                let set = Set { key: item.key, value, json: true, etag, ..Set::default() };
                state.set(set).await.map_err(|error| error.to_string())?;
            }
        }
        let data = answer.data.map(|data| data.get().to_owned()).unwrap_or_default();
        let call = |name: String| {
            let data = data.clone().into();
            let request = BindingRequest { operation: "create".to_owned(), data, metadata: Metadata::new() };
            async move {
                let called = self.scope.call_binding(&name, request).await;
                called.map_err(|error| format!("binding {name}: {error}"))
            }
        };
        let parallel = answer.concurrency.eq_ignore_ascii_case("parallel");
        if parallel {
            let called = join_all(answer.to.into_iter().map(call)).await;
            called.into_iter().collect::<Result<Vec<_>, _>>()?;
        } else {
            for name in answer.to {
                call(name).await?;
            }
        }
        Ok(())
    }
}
