//! Messages: what a module publishes, what it subscribes to, and how messages are handed to it.
//!
//! A message goes in a CloudEvents envelope, as every app's does, with `reply_to` as an attribute of it. A binding with
//! `RAW = "true"` publishes and takes bare bytes, for programs outside that know no envelope.

use super::Room;
use super::bindings::{DEFAULT, Target};
use super::format::{Answer, Format};
use super::operations::Asked;
use super::payloads::{BrokerMessage, DeliverMessage, PublishMessage, RequestMessage};
use crate::events::message::Message;
use crate::messaging::{DEFAULT_PUBSUB, publish, request};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use dhow_blocks::cloud_event;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::pubsub;
use dhow_blocks::scope::{Event, is_true};
use dhow_blocks::trace::TraceContext;
use serde_json::{Value, json};

/// Its operations.
pub(super) const OPERATIONS: [&str; 2] = ["Publish", "Request"];

/// The path of a subscription's requests; a module never sees it.
const ROUTE: &str = "/wapc/message";

/// Where the envelope keeps whom to answer. Attributes of CloudEvents have no underscores.
const REPLY_TO: &str = "replyto";

/// Values of a binding that name subjects, and the environment variable of Waxosuit's host.
const SUBSCRIPTIONS: [&str; 2] = ["SUBSCRIPTION", "NATS_SUBSCRIPTION"];

pub(super) async fn perform(
    room: &Room,
    asked: &Asked,
    payload: &[u8],
    trace: TraceContext,
) -> Result<Answer, String> {
    match asked.operation.as_str() {
        "Publish" => {}
        "Request" => return ask(room, asked, payload).await,
        _ => return Err(asked.unknown(&OPERATIONS)),
    }
    let BrokerMessage { subject, reply_to, body } = match asked.format {
        Format::Protobuf => asked.format.read::<PublishMessage>(payload)?.message.unwrap_or_default(),
        Format::MessagePack => asked.format.read(payload)?,
    };
    let target = room.bindings.find("messaging", &asked.binding, || Some(DEFAULT_PUBSUB))?;
    let scope = &room.setup.scope;
    let mut metadata = Metadata::default();
    let kind = content_type(&body);
    let (data, kind) = if is_raw(&target) || scope.is_bare(target.component) {
        metadata.insert("rawPayload".to_owned(), "true".to_owned());
        if !reply_to.is_empty() {
            metadata.insert(pubsub::REPLY_TO.to_owned(), reply_to);
        }
        (body, kind)
    } else if reply_to.is_empty() {
        (body, kind)
    } else {
        (envelope(&scope.app_id, &reply_to, kind, &body)?, cloud_event::CONTENT_TYPE)
    };
    let event = Event { content_type: Some(kind.to_owned()), data: data.into(), metadata };
    publish(scope, trace, target.component, &subject, event).await.map_err(|error| error.to_string())?;
    Ok(Answer::default())
}

/// Bytes go as they are: whoever answers requests knows no envelope.
async fn ask(room: &Room, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    let RequestMessage { subject, body, timeout_ms } = asked.format.read(payload)?;
    let target = room.bindings.find("messaging", &asked.binding, || Some(DEFAULT_PUBSUB))?;
    let limit = u64::try_from(timeout_ms).ok();
    let answer = request(&room.setup.scope, target.component, &subject, body, limit).await;
    let answer = answer.map_err(|error| error.to_string())?;
    // Interfaces of wasmCloud's time have the answer as a message, those before as its bytes.
    match asked.namespace.starts_with("wasmcloud:") {
        true => asked.answer(&BrokerMessage {
            reply_to: value(&answer.metadata, pubsub::REPLY_TO).unwrap_or_default().to_owned(),
            subject: answer.topic,
            body: answer.data.into(),
        }),
        false => Ok(Answer { name: "", bytes: answer.data.into() }),
    }
}

/// What a module subscribes to, as Dapr's apps answer.
pub(super) fn subscriptions(room: &Room) -> Value {
    let mut found = Vec::new();
    let mut add = |component: &str, raw: bool, subjects: &str| {
        for subject in subjects.split(',').map(str::trim).filter(|subject| !subject.is_empty()) {
            let metadata = if raw { json!({ "rawPayload": "true" }) } else { json!({}) };
            let entry =
                json!({ "pubsubname": component, "topic": subject, "route": ROUTE, "metadata": metadata });
            if !found.contains(&entry) {
                found.push(entry);
            }
        }
    };
    for binding in room.bindings.of("messaging") {
        let Ok(target) = room.bindings.find("messaging", &binding.name, || Some(DEFAULT_PUBSUB)) else {
            continue;
        };
        for subjects in SUBSCRIPTIONS.iter().filter_map(|name| target.value(name)) {
            add(target.component, is_raw(&target), subjects);
        }
    }
    let from_env = |name: &&str| {
        let found = room.setup.env.iter().find(|(found, _)| found == name);
        found.map(|(_, subjects)| subjects.as_str())
    };
    if let Ok(target) = room.bindings.find("messaging", DEFAULT, || Some(DEFAULT_PUBSUB)) {
        for subjects in SUBSCRIPTIONS.iter().filter_map(from_env) {
            add(target.component, is_raw(&target), subjects);
        }
    }
    Value::Array(found)
}

/// A message as the module takes it.
pub(super) fn payload(format: Format, message: Message) -> Result<Vec<u8>, String> {
    let reply_to = message.reply_to().unwrap_or_default().to_owned();
    let message = BrokerMessage { subject: message.topic, reply_to, body: message.data.into() };
    match format {
        Format::MessagePack => format.write(&message),
        Format::Protobuf => format.write(&DeliverMessage { message: Some(message) }),
    }
}

/// An envelope that says whom to answer; what it lacks is added where it is published.
fn envelope(app_id: &str, reply_to: &str, content_type: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    let mut fields = json!({
        "specversion": "1.0",
        "id": cloud_event::uuid(),
        "source": app_id,
        "type": cloud_event::DEFAULT_TYPE,
        "datacontenttype": content_type,
        REPLY_TO: reply_to,
    });
    let (name, data) = match (content_type, std::str::from_utf8(body)) {
        ("application/json", _) => ("data", serde_json::from_slice(body).map_err(|error| error.to_string())?),
        (_, Ok(text)) => ("data", Value::from(text)),
        (_, Err(_)) => ("data_base64", Value::from(BASE64_STANDARD.encode(body))),
    };
    fields[name] = data;
    Ok(fields.to_string().into())
}

fn is_raw(target: &Target<'_>) -> bool {
    target.value("RAW").is_some_and(is_true)
}

/// What the data are: an envelope holds JSON and text as they are, and all else encoded. The module does not say.
fn content_type(body: &[u8]) -> &'static str {
    let is_structure = matches!(body.first(), Some(b'{' | b'['));
    if is_structure && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        return "application/json";
    }
    if std::str::from_utf8(body).is_ok() { "text/plain" } else { "application/octet-stream" }
}
