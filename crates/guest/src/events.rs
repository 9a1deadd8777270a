//! Events as calls: messages, jobs and events of bindings, for components that export a handler for them.
//!
//! An event comes as every invocation does, as the HTTP request that Dapr would send (`dhow_host::triggers`). A
//! component that exports a handler for its kind gets a call instead, and what the handler answers becomes the
//! HTTP response that Dapr would expect. Each call, or each bulk of messages, has an instance of its own.
//!
//! | file | subject |
//! |---|---|
//! | `message` | messages, out of their envelopes |

pub(crate) mod message;

use crate::counted::whole;
use crate::failure::Failure;
use crate::messaging::{wasi, wasmcloud};
use crate::run::Run;
use crate::runtime::generated::exports::dhow::runtime::{binding_handler, job_handler, topic_handler};
use crate::setup::{Level, Setup, Stream};
use crate::store::{GuestState, Origin, new_store, service};
use bytes::Bytes;
use dhow_blocks::invoke::{Body, EventOf, Invocation, Reply, Trigger};
use dhow_engine::Inspection;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, request::Parts};
use message::Message;
use serde_json::{Value, json};
use std::sync::Arc;
use wasi::generated::exports::wasi::messaging::incoming_handler;
use wasmcloud::generated::exports::wasmcloud::messaging::handler;
use wasmcloud::generated::wasmcloud::messaging::types::BrokerMessage;
use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

/// The handlers that a component exports.
pub(crate) struct Events {
    pre: InstancePre<GuestState>,
    topics: Option<Topics>,
    jobs: Option<job_handler::GuestIndices>,
    bindings: Option<binding_handler::GuestIndices>,
    setup: Arc<Setup>,
}

/// The interface that takes messages. Of several the first one of this list.
enum Topics {
    Runtime(topic_handler::GuestIndices),
    Wasi(incoming_handler::GuestIndices),
    WasmCloud(handler::GuestIndices),
}

/// What an invocation brings.
enum Work {
    /// One message.
    Message(Message),
    /// Several, each with the id that its verdict carries.
    Bulk(Vec<(String, Message)>),
    Job(job_handler::Due),
    Binding(binding_handler::Event),
}

/// What a handler said of a message.
enum Verdict {
    Done,
    Retry(String),
    Drop(String),
    /// The interface knows only success and failure.
    Failed(String),
}

// === impl Events ===

impl Events {
    /// The handlers of a component, if it has any.
    pub(crate) fn find(
        pre: InstancePre<GuestState>,
        inspection: &Inspection,
        setup: Arc<Setup>,
    ) -> wasmtime::Result<Option<Events>> {
        let exports = |name: &str| inspection.exports.iter().any(|export| export.starts_with(name));
        let topics = if exports("dhow:runtime/topic-handler@") {
            Some(Topics::Runtime(topic_handler::GuestIndices::new(&pre)?))
        } else if exports("wasi:messaging/incoming-handler@0.2.0-draft") {
            Some(Topics::Wasi(incoming_handler::GuestIndices::new(&pre)?))
        } else if exports("wasmcloud:messaging/handler@0.2.") {
            Some(Topics::WasmCloud(handler::GuestIndices::new(&pre)?))
        } else {
            None
        };
        let jobs = exports("dhow:runtime/job-handler@").then(|| job_handler::GuestIndices::new(&pre));
        let bindings =
            exports("dhow:runtime/binding-handler@").then(|| binding_handler::GuestIndices::new(&pre));
        let (jobs, bindings) = (jobs.transpose()?, bindings.transpose()?);
        if topics.is_none() && jobs.is_none() && bindings.is_none() {
            return Ok(None);
        }
        Ok(Some(Events { pre, topics, jobs, bindings, setup }))
    }

    /// Whether an invocation is for a handler.
    pub(crate) fn take(&self, invocation: &Invocation) -> bool {
        match invocation.trigger {
            Trigger::Topic => self.topics.is_some(),
            Trigger::Job => self.jobs.is_some(),
            Trigger::Binding => self.bindings.is_some(),
            Trigger::Host => self.bindings.is_some() && is_asked(invocation),
            Trigger::Http | Trigger::App | Trigger::Command | Trigger::Configuration => false,
        }
    }

    /// Calls the handler. One that traps or does not end in time is a failure.
    pub(crate) async fn invoke(self: &Arc<Self>, invocation: Invocation) -> Result<Reply, Failure> {
        if is_asked(&invocation) {
            return Ok(Response::default());
        }
        let Invocation { request, trigger, trace, depth } = invocation;
        let (head, body) = request.into_parts();
        let body = whole(&head.headers, body, self.setup.bounds.request_body).await?;
        let work = match work(trigger, &head, &body) {
            Ok(work) => work,
            Err(reason) => return Ok(reply(StatusCode::BAD_REQUEST, &json!({ "error": reason }))),
        };
        let this = Arc::clone(self);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let execution = Box::pin(async move {
            let reply = this.handle(Origin { trace, depth }, work).await?;
            // Nobody waits any more when the caller was dropped.
            let _ = sender.send(reply);
            Ok(())
        });
        Run::new(execution, self.setup.bounds.deadline).await?;
        receiver.await.map_err(|_| Failure::NoAnswer)
    }

    /// Makes an instance that handles nothing.
    pub(crate) async fn probe(&self) -> Result<(), Failure> {
        let wasi = service(&self.setup).map_err(|error| Failure::Host(format!("{error:#}")))?;
        let mut store = new_store(self.pre.engine(), &self.setup, wasi, Origin::default());
        let instance = self.pre.instantiate_async(&mut store).await;
        instance.map(drop).map_err(|error| Failure::of(&error, store.data().limiter.refused()))
    }

    async fn handle(&self, origin: Origin, work: Work) -> Result<Reply, Failure> {
        let wasi = service(&self.setup).map_err(|error| Failure::Host(format!("{error:#}")))?;
        let mut store = new_store(self.pre.engine(), &self.setup, wasi, origin);
        let called = async {
            let instance = self.pre.instantiate_async(&mut store).await?;
            self.call(&mut store, &instance, work).await
        };
        called.await.map_err(|error| Failure::of(&error, store.data().limiter.refused()))
    }

    async fn call(
        &self,
        store: &mut Store<GuestState>,
        instance: &Instance,
        work: Work,
    ) -> wasmtime::Result<Reply> {
        match work {
            Work::Message(message) => {
                let verdict = self.message(store, instance, message).await?;
                Ok(verdict.reply())
            }
            Work::Bulk(messages) => {
                let mut statuses = Vec::with_capacity(messages.len());
                for (id, message) in messages {
                    let status = self.message(store, instance, message).await?.status();
                    statuses.push(json!({ "entryId": id, "status": status }));
                }
                Ok(reply(StatusCode::OK, &json!({ "statuses": statuses })))
            }
            Work::Job(due) => {
                let Some(jobs) = &self.jobs else { return Ok(unhandled()) };
                let (handler, what) = (jobs.load(&mut *store, instance)?, format!("job {}", due.name));
                Ok(self.answer(&what, handler.call_handle(store, &due).await?))
            }
            Work::Binding(event) => {
                let Some(bindings) = &self.bindings else { return Ok(unhandled()) };
                let (handler, what) =
                    (bindings.load(&mut *store, instance)?, format!("binding {}", event.name));
                Ok(self.answer(&what, handler.call_handle(store, &event).await?))
            }
        }
    }

    async fn message(
        &self,
        store: &mut Store<GuestState>,
        instance: &Instance,
        message: Message,
    ) -> wasmtime::Result<Verdict> {
        let Some(topics) = &self.topics else { return Ok(Verdict::Failed("no handler".to_owned())) };
        let topic = message.topic.clone();
        let verdict = match topics {
            Topics::Runtime(handler) => {
                let handler = handler.load(&mut *store, instance)?;
                match handler.call_handle(store, &message.into_event()).await? {
                    Ok(()) => Verdict::Done,
                    Err(topic_handler::Outcome::Retry(reason)) => Verdict::Retry(reason),
                    Err(topic_handler::Outcome::Drop(reason)) => Verdict::Drop(reason),
                }
            }
            Topics::Wasi(handler) => {
                let handler = handler.load(&mut *store, instance)?;
                let message = wasi::open(store.data_mut(), message.into_wasi())?;
                match handler.call_handle(store, message).await? {
                    Ok(()) => Verdict::Done,
                    Err(error) => Verdict::Failed(wasi::text(error)),
                }
            }
            Topics::WasmCloud(handler) => {
                let handler = handler.load(&mut *store, instance)?;
                let reply_to = message.reply_to().map(str::to_owned);
                let body = message.data.into();
                let message = BrokerMessage { subject: message.topic, body, reply_to };
                match handler.call_handle_message(store, &message).await? {
                    Ok(()) => Verdict::Done,
                    Err(reason) => Verdict::Failed(reason),
                }
            }
        };
        if let Verdict::Retry(reason) | Verdict::Drop(reason) | Verdict::Failed(reason) = &verdict {
            self.log(&format!("message of topic {topic}"), reason);
        }
        Ok(verdict)
    }

    fn answer(&self, what: &str, answer: Result<(), String>) -> Reply {
        match answer {
            Ok(()) => Response::default(),
            Err(reason) => {
                self.log(what, &reason);
                failed()
            }
        }
    }

    /// What a handler says of a failure is for the app's log: the host has no use for the words.
    fn log(&self, what: &str, reason: &str) {
        let line = format!("{what}: {reason}");
        self.setup.output.line(&self.setup.scope.app_id, Stream::Log(Level::Warn), &line);
    }
}

/// Whether the host asks if the app wants the events of a binding.
fn is_asked(invocation: &Invocation) -> bool {
    invocation.trigger == Trigger::Host && invocation.request.method() == Method::OPTIONS
}

fn work(trigger: Trigger, head: &Parts, body: &Bytes) -> Result<Work, String> {
    let of = head.extensions.get::<EventOf>().cloned().unwrap_or_default();
    Ok(match trigger {
        Trigger::Topic => match message::bulk(head, &of, body)? {
            Some(messages) => Work::Bulk(messages),
            None => Work::Message(message::single(head, &of, body)?),
        },
        Trigger::Job => {
            let content_type = content_type(&head.headers).to_owned();
            Work::Job(job_handler::Due { name: of.name, data: body.to_vec(), content_type })
        }
        _ => Work::Binding(binding_handler::Event {
            name: of.component,
            data: body.to_vec(),
            content_type: content_type(&head.headers).to_owned(),
            metadata: metadata(&head.headers),
        }),
    })
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What a broker or binding told, which comes as headers.
fn metadata(headers: &HeaderMap) -> Vec<(String, String)> {
    let told = headers.iter().filter(|(name, _)| **name != CONTENT_TYPE);
    let told =
        told.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())));
    told.collect()
}

/// What a component without a handler for it answers: the same as an HTTP app without such a path.
pub(crate) fn unhandled() -> Reply {
    reply(
        StatusCode::NOT_FOUND,
        &json!({ "error": "this app takes events only, of kinds it has a handler for" }),
    )
}

pub(crate) fn failed() -> Reply {
    reply(
        StatusCode::INTERNAL_SERVER_ERROR,
        &json!({ "error": "the handler failed; the app's log says why" }),
    )
}

pub(crate) fn reply(status: StatusCode, json: &Value) -> Reply {
    let mut reply = Response::new(Body::from(json.to_string()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

// === impl Verdict ===

impl Verdict {
    /// In Dapr's words.
    fn status(&self) -> &'static str {
        match self {
            Verdict::Done => "SUCCESS",
            Verdict::Retry(_) | Verdict::Failed(_) => "RETRY",
            Verdict::Drop(_) => "DROP",
        }
    }

    fn reply(&self) -> Reply {
        match self {
            Verdict::Failed(_) => failed(),
            verdict => reply(StatusCode::OK, &json!({ "status": verdict.status() })),
        }
    }
}
