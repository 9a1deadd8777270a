//! The executor plugin: the server beside Argo's agent, which asks it for every `plugin: {wasm: …}` template.
//!
//! | file | subject |
//! |---|---|
//! | `tasks` | what is asked for, found again when it is asked for again |
//!
//! Protocol: `POST /api/v1/template.execute` with a bearer token, JSON in and out, as Argo 3.5 to 4.1 speak it
//! (<https://argo-workflows.readthedocs.io/en/latest/executor_plugins/>). The agent gives a call 30 seconds and calls
//! again when it fails, so work that takes longer is answered with `Running` and asked for again.

pub(crate) mod tasks;

use crate::model::Template;
use crate::runner::StepRunner;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tasks::{Answer, Tasks};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Largest request, in bytes: a template is part of an object of Kubernetes, which has at most 1.5 MiB.
const MAX_REQUEST: usize = 8 << 20;

/// A request's head and body have to be here after this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls under way are answered within this time when the plugin ends.
const GRACE: Duration = Duration::from_secs(2);

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 256;

/// Steps that there is room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Steps that run at once.
    pub parallel: usize,
    /// Those and steps that wait for their turn; more are refused.
    pub all: usize,
}

/// The plugin.
pub struct Plugin {
    tasks: Arc<Tasks>,
    /// What the agent has to know; none: whoever reaches the port may ask.
    token: Option<String>,
}

/// What the agent sends.
#[derive(Deserialize)]
struct Call {
    workflow: Object,
    template: Value,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
}

/// The plugin's memory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the memory of the plugin in {folder}: {error}")]
pub struct PluginError {
    folder: String,
    #[source]
    error: rusqlite::Error,
}

// === impl Plugin ===

impl Plugin {
    /// A plugin that remembers in `folder`, which is there, what it did.
    pub fn new(
        runner: Arc<dyn StepRunner>,
        folder: &Path,
        room: Room,
        token: Option<String>,
    ) -> Result<Plugin, PluginError> {
        let failed = |error| PluginError { folder: folder.display().to_string(), error };
        let tasks = Tasks::open(runner, &folder.join("plugin.db"), room).map_err(failed)?;
        Ok(Plugin { tasks: Arc::new(tasks), token })
    }

    /// Answers until `stopped` is ready; steps under way are ended then, and whoever asks for them is told to come
    /// again.
    pub async fn serve(self, listener: TcpListener, stopped: impl Future<Output = ()>) {
        let plugin = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        tokio::pin!(stopped);
        loop {
            let place = tokio::select! {
                () = &mut stopped => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            let accepted = tokio::select! {
                () = &mut stopped => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, for one: some will be free soon.
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let plugin = Arc::clone(&plugin);
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                let _place = place;
                let answer = |request| {
                    let plugin = Arc::clone(&plugin);
                    async move { Ok::<_, Infallible>(plugin.answer(request).await) }
                };
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                let connection =
                    http.serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer));
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!("a connection ended: {error}");
                }
            });
        }
        drop(listener);
        plugin.tasks.stop().await;
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => plain(StatusCode::OK, "ok\n"),
            (&Method::POST, "/api/v1/template.execute") => match self.execute(request).await {
                Ok(value) => json_reply(&value),
                Err((status, message)) => plain(status, message),
            },
            (_, "/api/v1/template.execute") => plain(StatusCode::METHOD_NOT_ALLOWED, "expected POST\n"),
            _ => {
                plain(StatusCode::NOT_FOUND, "there is only POST /api/v1/template.execute and GET /healthz\n")
            }
        }
    }

    async fn execute(&self, request: Request<Incoming>) -> Result<Value, (StatusCode, String)> {
        self.authorise(&request)?;
        let body = Limited::new(request.into_body(), MAX_REQUEST).collect();
        let body = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                return Err((StatusCode::BAD_REQUEST, format!("the request cannot be read: {error}\n")));
            }
            Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the request took too long\n".to_owned())),
        };
        let wrong =
            |error: serde_json::Error| (StatusCode::BAD_REQUEST, format!("the request is wrong: {error}\n"));
        let mut call: Call = serde_json::from_slice(&body).map_err(wrong)?;
        leave_out_nothing(&mut call.template);
        let template: Template = serde_json::from_value(call.template.clone()).map_err(wrong)?;
        if template.plugin.as_ref().and_then(|plugin| plugin.get("wasm")).is_none() {
            // Another plugin's: the agent asks the next one.
            return Ok(json!({}));
        }
        let metadata = call.workflow.metadata;
        // They become names of files.
        let wrong = |field: &str, error| {
            (StatusCode::BAD_REQUEST, format!("the request is wrong: {field}: {error}\n"))
        };
        crate::name::object(&metadata.name).map_err(|error| wrong("workflow.metadata.name", error))?;
        if !template.name.is_empty() {
            crate::name::file(&template.name).map_err(|error| wrong("template.name", error))?;
        }
        let identity = crate::controller::Identity {
            name: metadata.name,
            uid: metadata.uid,
            namespace: metadata.namespace,
            created: 0,
        };
        match self.tasks.ask(identity, template, &call.template).await {
            Answer::Node(node) => Ok(json!({"node": node})),
            Answer::Later(after) => Ok(json!({
                "node": {"phase": "Running"},
                "requeue": format!("{}s", after.as_secs().max(1)),
            })),
            // The agent tries again by itself.
            Answer::Busy(message) => Err((StatusCode::SERVICE_UNAVAILABLE, message)),
        }
    }

    fn authorise(&self, request: &Request<Incoming>) -> Result<(), (StatusCode, String)> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        // Digests are compared, so that the time says nothing about the token.
        if blake3::hash(given.as_bytes()) == blake3::hash(token.as_bytes()) {
            return Ok(());
        }
        Err((StatusCode::FORBIDDEN, "the token is not that of this plugin\n".to_owned()))
    }
}

/// A field with nothing in it is none.
pub(crate) fn leave_out_nothing(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(leave_out_nothing);
        }
        Value::Array(list) => list.iter_mut().for_each(leave_out_nothing),
        _ => {}
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.into())));
    *response.status_mut() = status;
    response
}

fn json_reply(value: &Value) -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::OK, value.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
