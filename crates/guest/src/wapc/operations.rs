//! A module's calls of the host: which capability is meant, and who answers.
//!
//! Whatever goes wrong is the answer to the call, never the end of the module. No call is allowed or refused here: the
//! app's scope does that, below each capability.

use super::format::{Answer, Format, Payload};
use super::state::WapcState;
use super::{blobs, extras, http, keyvalue, messaging, streams};
use crate::memory::{self, Memory};
use ::http::header::{CONTENT_TYPE, HeaderValue};
use ::http::{Method, Request, Uri};
use bytes::Bytes;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use dhow_claims::Capability;
use dhow_claims::capability::Block;
use wasmtime::Caller;

/// Longest name of a binding, a namespace or an operation, in bytes.
const MAX_NAME: u32 = 1024;

/// Characters of another app's error that a module is told.
const MAX_TOLD: usize = 2000;

/// What a module asks for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The name of the binding; empty for the usual one.
    pub(super) binding: String,
    /// The capability, or the app that is called.
    pub(super) namespace: String,
    pub(super) operation: String,
    pub(super) format: Format,
}

impl Asked {
    /// Answers with a message.
    pub(super) fn answer<M: Payload>(&self, message: &M) -> Result<Answer, String> {
        Ok(Answer { name: M::NAME, bytes: self.format.write(message)? })
    }

    /// What is said where the capability has no such operation.
    pub(super) fn unknown(&self, known: &[&str]) -> String {
        let Asked { namespace, operation, .. } = self;
        format!("{namespace:?} has no operation {operation:?}; it has {}", known.join(", "))
    }
}

/// `__host_call`: reads what is asked, has it answered, and keeps the answer for the module to fetch.
pub(super) async fn host_call(
    caller: &mut Caller<'_, WapcState>,
    payload: (u32, u32),
    asked: impl FnOnce(&Memory<'_>) -> Result<Asked, String>,
) -> u32 {
    let read = (|| {
        let (memory, state) = memory::of(caller).map_err(|bad| bad.to_string())?;
        let limit = state.room.setup.bounds.request_body;
        if u64::from(payload.1) > limit {
            return Err(format!("the payload has {} bytes, more than the {limit} allowed", payload.1));
        }
        let asked = asked(&memory)?;
        let payload = if payload.1 == 0 {
            Bytes::new()
        } else {
            let bytes = memory.bytes(payload).map_err(|bad| format!("the payload: {bad}"))?;
            Bytes::copy_from_slice(bytes)
        };
        Ok((asked, payload))
    })();
    let result = match read {
        Ok((asked, payload)) => perform(caller.data_mut(), &asked, &payload).await.map(|answer| answer.bytes),
        Err(reason) => Err(reason),
    };
    let state = caller.data_mut();
    let limit = state.room.setup.bounds.response_body;
    let result = result.and_then(|bytes| match bytes.len() as u64 {
        length if length > limit => {
            Err(format!("the answer has {length} bytes, more than the {limit} allowed"))
        }
        _ => Ok(bytes),
    });
    state.keep(result)
}

/// A name in the module's memory.
pub(super) fn text(memory: &Memory<'_>, what: &str, place: (u32, u32)) -> Result<String, String> {
    match place.1 {
        0 => Ok(String::new()),
        length if length > MAX_NAME => {
            Err(format!("the {what} has {length} bytes, more than the {MAX_NAME} allowed"))
        }
        _ => memory.text(place).map(str::to_owned).map_err(|bad| format!("the {what}: {bad}")),
    }
}

/// Carries out an operation.
pub(super) async fn perform(state: &mut WapcState, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    let operation = asked.operation.as_str();
    match operation {
        "PerformLiveUpdate" => return extras::live_update(state, asked, payload).await,
        "HealthRequest" => return Ok(Answer::default()),
        _ => {}
    }
    let capability = match Capability::of(&asked.namespace) {
        Capability::Block(block) => Some(block),
        _ if asked.namespace.is_empty() => by_operation(operation),
        _ => None,
    };
    let room = std::sync::Arc::clone(&state.room);
    match capability {
        Some(Block::KeyValue) => keyvalue::perform(&room, asked, payload).await,
        Some(Block::Messaging) => {
            messaging::perform(&room, asked, payload, state.outbound.origin.trace).await
        }
        Some(Block::HttpClient) => http::perform(&mut state.outbound, asked, payload).await,
        Some(Block::BlobStore) => blobs::perform(state, asked, payload).await,
        Some(Block::EventStreams) => streams::perform(&room, asked, payload).await,
        Some(Block::Extras) => extras::generate(&room, asked, payload),
        Some(Block::Logging) => extras::log(&room, asked, payload),
        Some(Block::HttpServer) => Err(format!("an app cannot ask its HTTP server for {operation:?}")),
        None => invoke(state, asked, payload).await,
    }
}

/// The capability of an operation whose caller names none.
fn by_operation(operation: &str) -> Option<Block> {
    [
        (Block::KeyValue, &keyvalue::OPERATIONS[..]),
        (Block::Messaging, &messaging::OPERATIONS[..]),
        (Block::HttpClient, &http::OPERATIONS[..]),
        (Block::BlobStore, &blobs::OPERATIONS[..]),
        (Block::EventStreams, &streams::OPERATIONS[..]),
        (Block::Extras, &extras::GENERATORS[..]),
        (Block::Logging, &extras::LOGGING[..]),
    ]
    .into_iter()
    .find(|(_, operations)| operations.contains(&operation))
    .map(|(block, _)| block)
}

/// An operation of another app, on its way there.
#[derive(Clone, Debug)]
pub(super) struct OfAnotherApp(pub(super) String);

/// Calls another app: a waPC module's operation, of any other a POST to the operation's name.
async fn invoke(state: &mut WapcState, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    let Asked { namespace, operation, .. } = asked;
    let setup = std::sync::Arc::clone(&state.room.setup);
    let app_id = state.room.bindings.app(namespace);
    if app_id.is_empty() || app_id.contains(':') {
        return Err(format!(
            "{namespace:?} is no capability that dhow has, and no app: capabilities are wasmcloud:keyvalue, \
             :messaging, :httpclient, :blobstore, :eventstreams, :extras and :logging"
        ));
    }
    let mut request = Request::new(Body::from(payload.to_vec()));
    *request.method_mut() = Method::POST;
    let path = format!("/{}", dhow_blocks::invoke::path_segment(operation));
    *request.uri_mut() = path.parse::<Uri>().map_err(|error| format!("operation {operation:?}: {error}"))?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/msgpack"));
    request.extensions_mut().insert(OfAnotherApp(operation.clone()));
    let origin = state.outbound.origin;
    let invocation =
        Invocation { request, trigger: Trigger::App, trace: origin.trace.child(), depth: origin.depth };
    let reply = setup.scope.invoke(app_id, invocation).await.map_err(|error| error.to_string())?;
    let status = reply.status();
    let limit = usize::try_from(setup.bounds.response_body).unwrap_or(usize::MAX);
    let body = reply.into_body().collect(limit).await.map_err(|error| format!("app {app_id:?}: {error}"))?;
    match status.is_success() {
        true => Ok(Answer { name: "", bytes: body.into() }),
        false => {
            let told: String = String::from_utf8_lossy(&body).chars().take(MAX_TOLD).collect();
            Err(format!("app {app_id:?} answered with status {status}: {told}"))
        }
    }
}
